//! Connections out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use portolan_core::table::Scope;
use portolan_net::{HeldSyn, ListenOptions, Stack, TcpListener};
use portolan_relay::{End as _, Options, Side, relay};

use super::answer::{Answer, is_no_room};
use super::dials::{Dial, Dials};
use super::limited::Limited;
use super::named;
use super::{OutboundCounters, OutboundOptions};
use crate::flows::{Direction, FlowGuard, FlowInfo, FlowProtocol, FlowState, Flows};
use crate::gate::{Gate, Pass};
use crate::host_stream::HostStream;
use crate::links::Links;

/// Connects to a destination. It is over before the connection is, and no part of the memory that this takes.
type Connecting = Pin<Box<dyn Future<Output = io::Result<HostStream>> + Send>>;

/// Takes connections to every destination.
#[derive(Debug)]
pub(super) struct Connections {
    listener: TcpListener,
    gate: Gate,
    flows: Flows,
    dials: Dials,
    counters: Arc<OutboundCounters>,
    pub(super) links: Links,
}

impl Connections {
    pub(super) fn new(
        stack: &Stack,
        gate: Gate,
        flows: Flows,
        options: OutboundOptions,
        counters: Arc<OutboundCounters>,
    ) -> io::Result<Self> {
        let holding = ListenOptions {
            hold_syns: true,
            ..ListenOptions::default()
        };
        Ok(Self {
            listener: TcpListener::bind_scope(stack, Scope::TRANSPARENT, holding)?,
            gate,
            flows,
            dials: Dials::new(options.dials),
            counters,
            links: Links::default(),
        })
    }

    /// Takes them until the driver of the stack ends.
    pub(super) async fn run(self) -> io::Result<()> {
        loop {
            let syn = self.listener.next_syn().await?;
            self.begin(syn);
        }
    }

    fn begin(&self, syn: HeldSyn) {
        let Err(syn) = self.dials.join(syn) else {
            OutboundCounters::count(&self.counters.repeated);
            return;
        };
        let destination = syn.local_addr();
        let Ok(pass) = self.gate.ask(FlowProtocol::Tcp, destination) else {
            OutboundCounters::count(&self.counters.denied);
            return Answer::to_denied(self.gate.deny_with()).give(syn);
        };
        let flow = self.flows.open(FlowInfo {
            protocol: FlowProtocol::Tcp,
            direction: Direction::Out,
            inside: syn.peer_addr(),
            outside: destination,
            rule: Arc::clone(&pass.rule),
        });
        // The flows count those for which there is no room.
        let Ok(flow) = flow else {
            return Answer::Refused.give(syn);
        };
        let dial = self.dials.enter(syn);
        OutboundCounters::count(&self.counters.dialled);
        let (gate, counters) = (self.gate.clone(), Arc::clone(&self.counters));
        let linked = self.links.connect(flow.info().inside, destination);
        let connecting: Connecting = match linked {
            Some(linked) => Box::pin(async { HostStream::new(linked.await?.into_std()?) }),
            None => Box::pin(HostStream::connect(pass.dial)),
        };
        tokio::spawn(carry(dial, pass, flow, gate, counters, connecting));
    }
}

/// Dials, answers, and relays until the connection is over.
async fn carry(
    dial: Dial,
    pass: Pass,
    flow: FlowGuard,
    gate: Gate,
    counters: Arc<OutboundCounters>,
    connecting: Connecting,
) {
    let Some((syn, outside)) = dialled(dial, connecting, &counters).await else {
        return;
    };
    // The program may have gone meanwhile; then nobody wants the connection.
    let Ok(inside) = syn.accept().await else {
        return outside.reset();
    };
    // Segments leave as they come: it is the program that gathers, or does not.
    let _ = inside.set_nodelay(true);
    // Whether the peer is there only the peer knows.
    let _ = inside.hold_probes();
    flow.set_state(FlowState::Open);
    if pass.wants_name {
        // It is much larger than what comes after it, and soon over.
        let shown = Box::pin(named::shown(&inside, &gate, &pass)).await;
        let Some(mut bytes) = shown else {
            OutboundCounters::count(&counters.denied);
            inside.reset();
            return outside.reset();
        };
        while !bytes.is_empty() {
            let before = bytes.len();
            if outside.write_chunk(&mut bytes, false).await.is_err() {
                inside.reset();
                return outside.reset();
            }
            flow.counters().add(Side::One, before - bytes.len());
        }
    }
    drop(counters);
    drop(gate);
    match pass.limiter.filter(|limiter| limiter.limits_bytes()) {
        None => {
            relay(inside, outside, Options::default(), flow.counters()).await;
        }
        Some(limiter) => {
            let inside = Limited::new(inside, Arc::clone(&limiter));
            let outside = Limited::new(outside, limiter);
            Box::pin(relay(inside, outside, Options::default(), flow.counters())).await;
        }
    }
}

/// Waits for its turn, and to be connected; answers if that fails.
async fn dialled(
    dial: Dial,
    connecting: Connecting,
    counters: &OutboundCounters,
) -> Option<(HeldSyn, HostStream)> {
    let mut under_way = dial.turn().await;
    let result = tokio::select! {
        result = connecting => result,
        Ok(()) = &mut under_way.given_up => {
            OutboundCounters::count(&counters.given_up);
            // The next SYN of this connection begins anew.
            dial.take_syn()?.ignore();
            return None;
        }
    };
    let syn = dial.take_syn()?;
    match result {
        Ok(outside) => Some((syn, outside)),
        Err(error) => {
            if is_no_room(&error) {
                OutboundCounters::count(&counters.no_room);
            }
            Answer::to_error(&error).give(syn);
            None
        }
    }
}
