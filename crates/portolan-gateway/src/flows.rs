//! The flows that are there, with what they carried.
//!
//! ```text
//!   Flows::open ─▶ FlowGuard ─▶ counters ◀── relay
//!        │             └ dropped ─▶ totals
//!        └▶ list ─▶ Flow, one for each that is there
//! ```
//!
//! A flow is some 200 bytes here. There is a limit to how many there may be, in and out together; who opens one more is told
//! so, and it is counted. What flows have carried is still in the totals when they are gone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_core::wire::IpProtocol;
use portolan_net::Stack;
use portolan_relay::{Counters, Side};
use portolan_stack::SocketState;
use serde::Serialize;
use slotmap::{SlotMap, new_key_type};
use thiserror::Error;

/// What a flow speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowProtocol {
    /// A TCP connection.
    Tcp,
    /// Datagrams between the same two ends.
    Udp,
    /// Echo requests and their replies.
    Icmp,
}

/// Who began a flow, and how it passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The program talks to the world.
    Out,
    /// The world talks to a published port.
    In,
    /// The same, from this host, between sockets of the kernel: the stack does not see it.
    Spliced,
}

impl FlowProtocol {
    /// `tcp`, `udp` or `icmp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

impl Direction {
    /// `out`, `in` or `spliced`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Spliced => "spliced",
        }
    }
}

/// How far a flow has come. The states of TCP are those of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum FlowState {
    /// The other end was asked, and has not answered yet.
    Opening = 0,
    /// It carries bytes both ways.
    Open = 1,
}

/// What is known of a flow when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// What it speaks.
    pub protocol: FlowProtocol,
    /// Who began it.
    pub direction: Direction,
    /// The end in the space. Of an echo the port is the identifier.
    pub inside: SocketAddr,
    /// The end in the world, as the program sees it. Of an echo the port is 0.
    pub outside: SocketAddr,
    /// The rule that let it pass.
    pub rule: Arc<str>,
}

/// The flows of a gateway. This is a handle, cheap to clone.
#[derive(Clone, Debug)]
pub struct Flows {
    inner: Arc<Inner>,
}

/// A flow that is there as long as this is held.
#[derive(Debug)]
pub struct FlowGuard {
    flows: Arc<Inner>,
    key: FlowKey,
    entry: Arc<Entry>,
}

/// A flow as it was when it was listed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Flow {
    /// What was known when it began.
    pub info: FlowInfo,
    /// How far it has come.
    pub state: FlowState,
    /// How long it has been there.
    pub age: Duration,
    /// What it has carried so far.
    pub traffic: Traffic,
    /// What the stack knows of its end of a TCP connection, if it was asked ([`Flows::list_with`]).
    pub tcp: Option<TcpFigures>,
}

/// Figures of a TCP connection between the program and the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpFigures {
    /// The state of the stack's end.
    pub state: SocketState,
    /// The smoothed round-trip time, once measured.
    pub rtt: Option<Duration>,
    /// Bytes that the stack sent again.
    pub bytes_retransmitted: u64,
}

/// What was carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Bytes of payload that the program sent.
    pub bytes_out: u64,
    /// Bytes of payload that it received.
    pub bytes_in: u64,
    /// Datagrams that it sent. Of TCP the segments that the stack saw, those without data too, if it was asked.
    pub packets_out: u64,
    /// The same of what it received.
    pub packets_in: u64,
}

/// What all flows have done, those that are gone included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// How many flows there are.
    pub open: usize,
    /// How many there have ever been.
    pub opened: u64,
    /// How many there were at most at once.
    pub most: usize,
    /// How many could not be opened, because there were as many as there may be.
    pub refused: u64,
    /// What they carried.
    pub traffic: Traffic,
}

/// There are as many flows as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("there are {limit} flows, as many as there may be")]
pub struct FlowsFull {
    /// How many that is.
    pub limit: usize,
}

new_key_type! {
    struct FlowKey;
}

/// Places that are kept when no flow is left.
const KEPT: usize = 1024;

#[derive(Debug)]
struct Inner {
    limit: usize,
    /// How many of them may be of TCP.
    connections_limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    flows: SlotMap<FlowKey, Arc<Entry>>,
    /// How many of them are of TCP.
    connections: usize,
    opened: u64,
    most: usize,
    refused: u64,
    /// What those carried that are gone.
    gone: Traffic,
}

#[derive(Debug)]
struct Entry {
    info: FlowInfo,
    since: Instant,
    state: AtomicU8,
    counters: Arc<Counters>,
    packets_out: AtomicU64,
    packets_in: AtomicU64,
}

impl Flows {
    /// No flow yet, and `limit` at most.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self::with_connections(limit, limit)
    }

    /// The same, with `connections` of TCP at most: each of them has a descriptor of the host.
    #[must_use]
    pub fn with_connections(limit: usize, connections: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                limit,
                connections_limit: connections.min(limit),
                table: Mutex::default(),
            }),
        }
    }

    /// Notes a flow that begins, in state [`Opening`](FlowState::Opening).
    ///
    /// # Errors
    /// If there are as many as there may be; that is counted.
    pub fn open(&self, info: FlowInfo) -> Result<FlowGuard, FlowsFull> {
        let mut table = self.inner.lock();
        let is_connection = info.protocol == FlowProtocol::Tcp;
        let (count, limit) = if is_connection && table.connections >= self.inner.connections_limit {
            (table.connections, self.inner.connections_limit)
        } else {
            (table.flows.len(), self.inner.limit)
        };
        if count >= limit {
            table.refused += 1;
            return Err(FlowsFull { limit });
        }
        table.connections += usize::from(is_connection);
        let entry = Arc::new(Entry {
            info,
            since: Instant::now(),
            state: AtomicU8::new(FlowState::Opening as u8),
            counters: Arc::default(),
            packets_out: AtomicU64::new(0),
            packets_in: AtomicU64::new(0),
        });
        let key = table.flows.insert(Arc::clone(&entry));
        table.opened += 1;
        table.most = table.most.max(table.flows.len());
        Ok(FlowGuard {
            flows: Arc::clone(&self.inner),
            key,
            entry,
        })
    }

    /// Those that are there, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Flow> {
        // Only references are taken under the lock: the flows need it as well.
        let mut entries: Vec<_> = self.inner.lock().flows.values().cloned().collect();
        entries.sort_by_key(|entry| entry.since);
        let now = Instant::now();
        let flow = |entry: &Arc<Entry>| Flow {
            info: entry.info.clone(),
            state: entry.state(),
            age: now.saturating_duration_since(entry.since),
            traffic: entry.traffic(),
            tcp: None,
        };
        entries.iter().map(flow).collect()
    }

    /// The same, with what `stack` knows of those that it carries.
    #[must_use]
    pub fn list_with(&self, stack: &Stack) -> Vec<Flow> {
        let mut flows = self.list();
        let connections: HashMap<_, _> = stack
            .sockets()
            .into_iter()
            .filter(|socket| socket.protocol == IpProtocol::TCP)
            .filter_map(|socket| Some(((socket.remote?, socket.local), socket)))
            .collect();
        for flow in &mut flows {
            let ends = (flow.info.inside, flow.info.outside);
            let socket = match flow.info.protocol {
                FlowProtocol::Tcp => connections.get(&ends),
                FlowProtocol::Udp | FlowProtocol::Icmp => None,
            };
            let Some(socket) = socket else {
                continue;
            };
            flow.tcp = Some(TcpFigures {
                state: socket.state,
                rtt: socket.tcp.as_ref().and_then(|info| Some(info.rtt?.into())),
                bytes_retransmitted: socket.tcp.as_ref().map_or(0, |info| info.bytes_retransmitted),
            });
            if let Some(traffic) = socket.traffic {
                // What came to the stack is what the program sent.
                flow.traffic.packets_out = traffic.packets_in.into();
                flow.traffic.packets_in = traffic.packets_out.into();
            }
        }
        flows
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inner.lock().flows.len()
    }

    /// How many connections may still carry what the program has sent: those that are open, and whose other end was not
    /// told that nothing more will come from inside.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        let table = self.inner.lock();
        table.flows.values().filter(|entry| entry.is_unfinished()).count()
    }

    /// What all of them have done.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let table = self.inner.lock();
        let mut traffic = table.gone;
        for entry in table.flows.values() {
            traffic.add(entry.traffic());
        }
        Totals {
            open: table.flows.len(),
            opened: table.opened,
            most: table.most,
            refused: table.refused,
            traffic,
        }
    }
}

impl FlowGuard {
    /// Where a relay counts the bytes: [`Side::One`] is the end inside.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.entry.counters)
    }

    /// What was known when it began.
    #[must_use]
    pub fn info(&self) -> &FlowInfo {
        &self.entry.info
    }

    /// Says how far it has come.
    pub fn set_state(&self, state: FlowState) {
        self.entry.state.store(state as u8, Ordering::Relaxed);
    }

    /// Counts datagrams with `bytes` of payload in all.
    pub fn count(&self, from: Side, packets: u64, bytes: usize) {
        let counter = match from {
            Side::One => &self.entry.packets_out,
            Side::Other => &self.entry.packets_in,
        };
        counter.fetch_add(packets, Ordering::Relaxed);
        self.entry.counters.add(from, bytes);
    }
}

impl Drop for FlowGuard {
    fn drop(&mut self) {
        let mut table = self.flows.lock();
        table.flows.remove(self.key);
        table.connections -= usize::from(self.entry.info.protocol == FlowProtocol::Tcp);
        table.gone.add(self.entry.traffic());
        if table.flows.is_empty() && table.flows.capacity() > KEPT {
            // What a great many flows took is given back.
            table.flows = SlotMap::default();
        }
    }
}

impl Entry {
    fn state(&self) -> FlowState {
        if self.state.load(Ordering::Relaxed) == FlowState::Opening as u8 {
            FlowState::Opening
        } else {
            FlowState::Open
        }
    }

    fn is_unfinished(&self) -> bool {
        self.info.protocol == FlowProtocol::Tcp
            && self.state() == FlowState::Open
            && !self.counters.has_finished(Side::One)
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            bytes_out: self.counters.from(Side::One),
            bytes_in: self.counters.from(Side::Other),
            packets_out: self.packets_out.load(Ordering::Relaxed),
            packets_in: self.packets_in.load(Ordering::Relaxed),
        }
    }
}

impl Traffic {
    const fn add(&mut self, other: Self) {
        self.bytes_out += other.bytes_out;
        self.bytes_in += other.bytes_in;
        self.packets_out += other.packets_out;
        self.packets_in += other.packets_in;
    }
}

impl Inner {
    /// No code that holds the lock can leave the table half changed, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(port: u16) -> FlowInfo {
        FlowInfo {
            protocol: FlowProtocol::Udp,
            direction: Direction::Out,
            inside: ([10, 0, 0, 2], port).into(),
            outside: ([192, 0, 2, 1], 53).into(),
            rule: "any".into(),
        }
    }

    #[test]
    fn flows_are_listed_while_they_are_there_and_counted_for_ever() {
        let flows = Flows::new(10);
        let one = flows.open(info(1)).unwrap();
        let other = flows.open(info(2)).unwrap();
        other.set_state(FlowState::Open);
        other.count(Side::One, 2, 100);
        other.count(Side::Other, 1, 512);
        let listed = flows.list();
        assert_eq!(
            listed.iter().map(|flow| flow.state).collect::<Vec<_>>(),
            [FlowState::Opening, FlowState::Open]
        );
        assert_eq!(listed[1].info, info(2));
        let carried = Traffic {
            bytes_out: 100,
            bytes_in: 512,
            packets_out: 2,
            packets_in: 1,
        };
        assert_eq!(listed[1].traffic, carried);
        drop((one, other));
        assert!(flows.list().is_empty());
        let totals = flows.totals();
        assert_eq!((totals.open, totals.opened, totals.most), (0, 2, 2));
        assert_eq!(totals.traffic, carried);
    }

    #[test]
    fn there_are_no_more_than_there_may_be() {
        let flows = Flows::new(2);
        let held = [flows.open(info(1)).unwrap(), flows.open(info(2)).unwrap()];
        assert_eq!(flows.open(info(3)).unwrap_err(), FlowsFull { limit: 2 });
        drop(held);
        assert!(flows.open(info(3)).is_ok());
        assert_eq!(flows.totals().refused, 1);
    }

    #[test]
    fn connections_leave_room_for_others() {
        let flows = Flows::with_connections(3, 1);
        let connection = |port| FlowInfo {
            protocol: FlowProtocol::Tcp,
            ..info(port)
        };
        let held = flows.open(connection(1)).unwrap();
        assert_eq!(flows.open(connection(2)).unwrap_err(), FlowsFull { limit: 1 });
        let others = [flows.open(info(1)).unwrap(), flows.open(info(2)).unwrap()];
        assert_eq!(flows.open(info(3)).unwrap_err(), FlowsFull { limit: 3 });
        drop(held);
        assert!(flows.open(connection(2)).is_ok());
        drop(others);
    }
}
