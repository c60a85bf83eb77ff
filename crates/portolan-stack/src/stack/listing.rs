//! All sockets of a stack, as `portolan list` shows a kernel's.

use std::fmt;
use std::net::SocketAddr;

use portolan_core::demux::FourTuple;
use portolan_core::table::Scope;
use portolan_core::wire::IpProtocol;

use super::tally::Traffic;
use super::{ConnectionId, EchoId, ListenerId, Stack, SynId, UdpId};
use crate::tcp::{ConnectionInfo, State};
use crate::{Duration, Instant};

/// The handle of a socket that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SocketHandle {
    /// A listener.
    Listener(ListenerId),
    /// A connection.
    Connection(ConnectionId),
    /// A SYN that waits for the program's word.
    Syn(SynId),
    /// A UDP socket.
    Udp(UdpId),
    /// An ICMP echo socket.
    Echo(EchoId),
}

/// How far a socket has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SocketState {
    /// A listener.
    Listen,
    /// A UDP or echo socket without a remote.
    Unconnected,
    /// A UDP socket with a remote, or a TCP connection in this state.
    Connected(State),
}

impl SocketState {
    /// The kernel's name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::Unconnected => "unconnected",
            Self::Connected(state) => match state {
                State::SynSent => "syn-sent",
                State::SynReceived => "syn-received",
                State::Established => "established",
                State::FinWait1 => "fin-wait-1",
                State::FinWait2 => "fin-wait-2",
                State::CloseWait => "close-wait",
                State::Closing => "closing",
                State::LastAck => "last-ack",
                State::TimeWait => "time-wait",
                State::Closed => "closed",
            },
        }
    }
}

impl fmt::Display for SocketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A socket of a stack.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SocketInfo {
    /// TCP, UDP, ICMP or ICMPv6.
    pub protocol: IpProtocol,
    /// How far it has come.
    pub state: SocketState,
    /// Its handle. What is half-open or in TIME-WAIT has none.
    pub handle: Option<SocketHandle>,
    /// Its own end. Of one with a [`Scope`] the port is 0; an echo socket's port is its identifier.
    pub local: SocketAddr,
    /// The other end, if it has one.
    pub remote: Option<SocketAddr>,
    /// What it receives for, if that is not one port.
    pub scope: Option<Scope>,
    /// Bytes received and not read; of a listener the connections that wait to be accepted.
    pub receive_queue: usize,
    /// Bytes written and not acknowledged, or not sent; of a listener its backlog.
    pub send_queue: usize,
    /// When something is done next, unless something comes before.
    pub timer: Option<Instant>,
    /// Since when there is the connection, to the second.
    pub since: Option<Instant>,
    /// What it carried, of a connection.
    pub traffic: Option<Traffic>,
    /// Round trips, windows and losses, of a connection.
    pub tcp: Option<ConnectionInfo>,
}

impl SocketInfo {
    /// How old the connection is.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.since(since))
    }

    pub(super) const fn new(protocol: IpProtocol, state: SocketState, local: SocketAddr) -> Self {
        Self {
            protocol,
            state,
            handle: None,
            local,
            remote: None,
            scope: None,
            receive_queue: 0,
            send_queue: 0,
            timer: None,
            since: None,
            traffic: None,
            tcp: None,
        }
    }

    fn of_tuple(state: State, tuple: &FourTuple) -> Self {
        Self {
            remote: Some(tuple.remote()),
            ..Self::new(IpProtocol::TCP, SocketState::Connected(state), tuple.local())
        }
    }
}

impl Stack {
    /// All sockets: listeners, what is half-open, connections, TIME-WAIT, UDP, ICMP echo. In no order within each kind.
    ///
    /// The connections that sleep are looked at without being woken. Does not allocate.
    pub fn sockets(&self) -> impl Iterator<Item = SocketInfo> {
        self.listening()
            .chain(self.opening_up())
            .chain(self.connected())
            .chain(self.waiting())
            .chain(self.udp_sockets())
            .chain(self.echo_sockets())
    }

    fn listening(&self) -> impl Iterator<Item = SocketInfo> {
        self.listeners.iter().filter_map(|(id, listener)| {
            let local = self.table.local(listener.socket).ok()?;
            Some(SocketInfo {
                handle: Some(SocketHandle::Listener(id)),
                scope: self.table.scope(listener.socket),
                receive_queue: listener.established_count(),
                send_queue: listener.backlog(),
                ..SocketInfo::new(IpProtocol::TCP, SocketState::Listen, local)
            })
        })
    }

    /// SYNs that are held, and those that were answered.
    fn opening_up(&self) -> impl Iterator<Item = SocketInfo> {
        let held = self.held.iter().map(|(id, held, deadline)| SocketInfo {
            handle: Some(SocketHandle::Syn(id)),
            timer: Some(deadline),
            ..SocketInfo::of_tuple(State::SynReceived, &held.tuple)
        });
        let half_open = self.syn_queue.iter().map(|(tuple, deadline)| SocketInfo {
            timer: deadline,
            ..SocketInfo::of_tuple(State::SynReceived, tuple)
        });
        held.chain(half_open)
    }

    fn connected(&self) -> impl Iterator<Item = SocketInfo> {
        let left = self
            .connections
            .iter()
            .filter(|(_, entry)| entry.socket.is_some());
        left.map(|(id, entry)| {
            let info = entry.look(|connection| connection.info());
            SocketInfo {
                handle: Some(SocketHandle::Connection(id)),
                receive_queue: info.receive_queue,
                send_queue: info.send_queue,
                timer: entry.next_timeout(),
                since: Some(entry.tally.since()),
                traffic: Some(entry.tally.traffic()),
                ..SocketInfo {
                    tcp: Some(info),
                    ..SocketInfo::of_tuple(info.state, &entry.tuple)
                }
            }
        })
    }

    fn waiting(&self) -> impl Iterator<Item = SocketInfo> {
        let waiting = self.waiting.iter(&self.table);
        waiting.map(|(tuple, _)| SocketInfo::of_tuple(State::TimeWait, &tuple))
    }
}
