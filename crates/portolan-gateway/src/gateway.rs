//! All of it put together: a stack over a link, and what serves it.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use portolan_net::{Link, Stack};
use portolan_stack::StackConfig;
use tokio::sync::mpsc;

use crate::dns::{Forwarder, Sources};
use crate::flows::Flows;
use crate::gate::{Gate, HostFacts, Policy};
use crate::inbound::{Publisher, PublisherConfig, SessionLimits, connections_max};
use crate::links::Links;
use crate::memory;
use crate::outbound::{Outbound, OutboundCounters, OutboundCounts, OutboundOptions};

/// What a [`Gateway`] is to be.
#[derive(Clone, Debug, Default)]
pub struct GatewayConfig {
    /// Its addresses, with the lengths of their prefixes in bits.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The addresses of the space.
    pub inside: Vec<IpAddr>,
    /// The addresses of the host, loopback aside.
    pub host_addresses: Vec<IpAddr>,
    /// What the program may talk to.
    pub policy: Policy,
    /// The spaces that it is linked with.
    pub links: Links,
    /// Fixes the secret of the stack, to have a run repeated.
    pub secret: Option<[u8; 16]>,
}

/// What stands between one space and the host. This is a handle; its tasks end with the runtime.
#[derive(Clone, Debug)]
pub struct Gateway {
    stack: Stack,
    gate: Gate,
    flows: Flows,
    publisher: Publisher,
    outbound: Arc<OutboundCounters>,
    links: Links,
}

/// Why a gateway serves no more.
#[derive(Debug)]
pub struct Failure(mpsc::Receiver<io::Error>);

impl Failure {
    /// Waits until the gateway fails, if it does.
    pub async fn wait(&mut self) -> io::Error {
        let error = self.0.recv().await;
        error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

/// Flows that there may be at once: as many as a host has ports.
const FLOWS_MAX: usize = 65_536;
/// Bytes that wait in a UDP socket of the stack; one of them is for all that goes out.
const UDP_BUFFER: usize = 4 << 20;
/// Bytes that all connections of the stack and their buffers take at most: what the program sends out of order, or does not
/// read. Beyond three quarters of it windows shrink, so that connections are slower and none is lost.
const MEMORY: usize = 256 << 20;
/// Quiet connections that stay awake: beyond them an idle one, with its relay, weighs less than 4 KiB.
const AWAKE: usize = 256;

impl Gateway {
    /// Serves the space at the other end of `link`; `names` is where names are looked up.
    /// Call it in a runtime of tokio with time and I/O.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn start<L: Link + 'static>(
        link: L,
        config: GatewayConfig,
        names: Sources,
    ) -> io::Result<(Self, Failure)> {
        let mut builder = Stack::builder().config(StackConfig {
            udp_buffer: UDP_BUFFER,
            awake_connections: AWAKE,
            memory: MEMORY,
            ..StackConfig::default()
        });
        for &(address, prefix_bits) in &config.addresses {
            builder = builder.address(address, prefix_bits);
        }
        if let Some(secret) = config.secret {
            builder = builder.secret(secret);
        }
        let (stack, driver) = builder.build(link)?;
        let addresses: Vec<IpAddr> = config.addresses.iter().map(|&(address, _)| address).collect();
        let flows = Flows::with_connections(FLOWS_MAX, connections_max());
        let inside = config.inside.clone();
        let facts = HostFacts {
            gateway: addresses.clone(),
            inside: config.inside,
            host_addresses: config.host_addresses,
            links: config.links.configs().cloned().collect(),
        };
        let gate = Gate::new(config.policy, facts);
        let links = config.links;
        let outbound = Outbound::new(&stack, gate.clone(), flows.clone(), OutboundOptions::default())?;
        let outbound = outbound.with_links(links.clone());
        links.serve(&stack, &flows, outbound.socket(), inside.clone());
        let publisher = Publisher::new(PublisherConfig {
            stack: stack.clone(),
            flows: flows.clone(),
            gateway: addresses.clone(),
            inside,
            datagrams: outbound.socket(),
            sessions: SessionLimits::default(),
            admit: None,
        })?;
        let (answers, linked) = (publisher.clone(), links.clone());
        let outbound = outbound.answer_elsewhere(move |inside, outside, bytes| {
            answers.answer(inside, outside, bytes) || linked.pass_on(inside, outside, bytes)
        });
        let counters = outbound.counters();
        let forwarder = Forwarder::new(gate.clone(), names);
        let (failed, failure) = mpsc::channel(1);
        // Tasks are polled in the order of their coming: names and ways out are there before the first packet is.
        let (failed_names, stack_of_names) = (failed.clone(), stack.clone());
        tokio::spawn(async move {
            let Err(error) = forwarder.run(&stack_of_names, &addresses).await;
            // Whatever came first is told.
            let _ = failed_names.try_send(error);
        });
        // It ends when the driver has, which says why.
        tokio::spawn(outbound.run());
        tokio::spawn(memory::give_back(stack.clone(), flows.clone()));
        tokio::spawn(async move {
            let error = driver
                .await
                .err()
                .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
            let _ = failed.try_send(error);
        });
        let gateway = Self {
            stack,
            gate,
            flows,
            publisher,
            outbound: counters,
            links,
        };
        Ok((gateway, Failure(failure)))
    }

    /// The host that the program sees beyond its device.
    #[must_use]
    pub const fn stack(&self) -> &Stack {
        &self.stack
    }

    /// What may be talked to.
    #[must_use]
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The published ports.
    #[must_use]
    pub const fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// What the ways out have done so far.
    #[must_use]
    pub fn outbound(&self) -> OutboundCounts {
        self.outbound.read()
    }

    /// Waits until a ping is refused because the host lets this user have no ping socket; for one who waits, and once.
    pub async fn ping_refused(&self) {
        self.outbound.ping_refused().await;
    }

    /// The spaces that it is linked with.
    #[must_use]
    pub const fn links(&self) -> &Links {
        &self.links
    }

    /// The flows that are there.
    #[must_use]
    pub const fn flows(&self) -> &Flows {
        &self.flows
    }
}
