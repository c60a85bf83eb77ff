//! Ports out: whatever the program talks to, dialled by sockets of the host.
//!
//! ```text
//!   SYN ─▶ held ─▶ gate ─▶ dial ─┬▶ connected ─▶ SYN-ACK ─▶ relay
//!                    │           ├▶ refused ───▶ RST
//!                    │           ├▶ no way ────▶ ICMP unreachable
//!                    │           └▶ timed out ─▶ nothing
//!                    └▶ denied ─▶ ICMP prohibited, RST or nothing: no packet leaves
//! ```
//!
//! The gateway answers as the host was answered, so the program sees what it would see without it.

mod answer;
mod dials;
mod echo;
mod limited;
mod named;
mod tcp;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portolan_net::{Stack, UdpSocket};
use serde::Serialize;
use tokio::sync::Notify;

pub use self::dials::DialLimits;
pub use self::echo::EchoLimits;
pub use self::udp::UdpLimits;
use crate::flows::Flows;
use crate::gate::Gate;
use crate::links::Links;

/// What leads out of a space.
#[derive(Debug)]
pub struct Outbound {
    connections: tcp::Connections,
    datagrams: udp::Datagrams,
    echoes: echo::Echoes,
    counters: Arc<OutboundCounters>,
}

/// Limits of an [`Outbound`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboundOptions {
    /// Of connections that are being dialled.
    pub dials: DialLimits,
    /// Of datagrams.
    pub udp: UdpLimits,
    /// Of pings.
    pub echo: EchoLimits,
}

/// What an [`Outbound`] has done beside carrying bytes; it may be read while it runs.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct OutboundCounters {
    /// Flows that were denied, of all protocols.
    pub denied: AtomicU64,
    /// Connections that were dialled.
    pub dialled: AtomicU64,
    /// SYNs that came again while their connection was dialled.
    pub repeated: AtomicU64,
    /// Dials that were given up for newer ones; the program asks again.
    pub given_up: AtomicU64,
    /// Flows for which the host had no room: descriptors or memory.
    pub no_room: AtomicU64,
    /// Sessions of datagrams that gave way to newer ones.
    pub evicted: AtomicU64,
    /// Datagrams and answers that were lost for want of room in the host or in the stack, or that the host did not take.
    pub lost: AtomicU64,
    /// Datagrams beyond what a rule allows in a time.
    pub limited: AtomicU64,
    /// Datagrams from those whom the program had not sent anything.
    pub unasked: AtomicU64,
    /// Datagrams that the kernel of the host dropped before they were received.
    pub overflowed: AtomicU64,
    /// Pings that were refused because the host lets this process have no ping socket (`net.ipv4.ping_group_range`).
    pub no_ping: AtomicU64,
    /// The first of those was refused.
    ping_refused: Notify,
}

/// [`OutboundCounters`] at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "they are those of OutboundCounters")]
pub struct OutboundCounts {
    pub denied: u64,
    pub dialled: u64,
    pub repeated: u64,
    pub given_up: u64,
    pub no_room: u64,
    pub evicted: u64,
    pub lost: u64,
    pub limited: u64,
    pub unasked: u64,
    pub overflowed: u64,
    pub no_ping: u64,
}

impl Outbound {
    /// A way out for what comes to `stack`, as far as `gate` allows it. Its sockets are there at once, and what comes
    /// waits in them. Sockets that are bound to an address and a port of the stack get what is for them all the same.
    ///
    /// # Errors
    /// If the stack's driver has ended, or something else is bound to everything.
    pub fn new(stack: &Stack, gate: Gate, flows: Flows, options: OutboundOptions) -> io::Result<Self> {
        let counters = Arc::<OutboundCounters>::default();
        let connections =
            tcp::Connections::new(stack, gate.clone(), flows.clone(), options, Arc::clone(&counters))?;
        let datagrams =
            udp::Datagrams::new(stack, gate.clone(), flows.clone(), options, Arc::clone(&counters))?;
        Ok(Self {
            connections,
            datagrams,
            echoes: echo::Echoes::new(stack, gate, flows, options, Arc::clone(&counters))?,
            counters,
        })
    }

    /// What is for these spaces goes to their gateways, and to no socket of the host.
    #[must_use]
    pub fn with_links(mut self, links: Links) -> Self {
        self.connections.links = links.clone();
        self.datagrams.links = links.clone();
        self.echoes.links = links;
        self
    }

    /// The socket of the stack that is for datagrams to every destination. Who sends by it in somebody's name gets the
    /// answers by [`Outbound::answer_elsewhere`].
    #[must_use]
    pub fn socket(&self) -> Arc<UdpSocket> {
        self.datagrams.socket()
    }

    /// Asks about a datagram before it begins or goes on with anything here: is it one from the first address, inside, to
    /// the second that was an answer to somebody, and has been passed on?
    #[must_use]
    pub fn answer_elsewhere(
        mut self,
        is_passed_on: impl Fn(SocketAddr, SocketAddr, &[u8]) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.datagrams.elsewhere = Some(Box::new(is_passed_on));
        self
    }

    /// What it has done.
    #[must_use]
    pub fn counters(&self) -> Arc<OutboundCounters> {
        Arc::clone(&self.counters)
    }

    /// Leads out until the driver of the stack ends. Each flow is a task of its own in the runtime, which must have time
    /// and I/O.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn run(self) -> io::Result<()> {
        tokio::try_join!(self.connections.run(), self.datagrams.run(), self.echoes.run()).map(|_| ())
    }
}

impl OutboundCounters {
    /// All of them now.
    #[must_use]
    pub fn read(&self) -> OutboundCounts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OutboundCounts {
            denied: now(&self.denied),
            dialled: now(&self.dialled),
            repeated: now(&self.repeated),
            given_up: now(&self.given_up),
            no_room: now(&self.no_room),
            evicted: now(&self.evicted),
            lost: now(&self.lost),
            limited: now(&self.limited),
            unasked: now(&self.unasked),
            overflowed: now(&self.overflowed),
            no_ping: now(&self.no_ping),
        }
    }

    /// Waits until a ping is refused for want of a ping socket; for one who waits, and once.
    pub async fn ping_refused(&self) {
        self.ping_refused.notified().await;
    }

    fn count_no_ping(&self) {
        if self.no_ping.fetch_add(1, Ordering::Relaxed) == 0 {
            self.ping_refused.notify_one();
        }
    }

    fn count(counter: &AtomicU64) {
        Self::add(counter, 1);
    }

    fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}
