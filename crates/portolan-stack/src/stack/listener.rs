use std::collections::VecDeque;

use portolan_core::table::SocketId;

use super::ConnectionId;
use crate::tcp::TcpConfig;

/// A listener with its two queues.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: SocketId,
    backlog: usize,
    /// Connections whose handshake is not done.
    half_open: usize,
    /// Connections that wait to be accepted.
    established: VecDeque<ConnectionId>,
    pub(super) is_noticed: bool,
    /// Whether the program is asked before a SYN is answered.
    pub(super) holds_syns: bool,
    /// How connections behave that come to it, if not as the stack's.
    pub(super) config: Option<Box<TcpConfig>>,
}

/// Linux clamps the backlog to `net.core.somaxconn`, by default this.
const MAX_BACKLOG: usize = 4096;

impl Listener {
    pub(super) fn new(socket: SocketId, backlog: usize) -> Self {
        Self {
            socket,
            backlog: backlog.min(MAX_BACKLOG),
            half_open: 0,
            established: VecDeque::new(),
            is_noticed: false,
            holds_syns: false,
            config: None,
        }
    }

    /// Whether one more connection may be half-open. As in Linux each queue holds one more than the backlog.
    pub(super) const fn has_room_for_syn(&self) -> bool {
        self.half_open <= self.backlog
    }

    /// Whether a connection can become established.
    pub(super) fn takes_established(&self) -> bool {
        self.established.len() <= self.backlog
    }

    pub(super) const fn backlog(&self) -> usize {
        self.backlog
    }

    /// How many connections wait to be accepted.
    pub(super) fn established_count(&self) -> usize {
        self.established.len()
    }

    /// Whether a connection waits to be accepted.
    pub(super) fn has_established(&self) -> bool {
        !self.established.is_empty()
    }

    /// A SYN was taken.
    pub(super) fn on_half_open(&mut self) {
        self.half_open += 1;
    }

    /// A half-open connection became another thing, or nothing.
    pub(super) fn on_half_open_gone(&mut self) {
        self.half_open -= 1;
    }

    /// A handshake is done.
    pub(super) fn push(&mut self, id: ConnectionId) {
        self.established.push_back(id);
    }

    /// The connection that waits longest.
    pub(super) fn pop(&mut self) -> Option<ConnectionId> {
        self.established.pop_front()
    }
}
