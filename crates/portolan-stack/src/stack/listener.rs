use std::collections::VecDeque;

use portolan_core::table::SocketId;

use super::ConnectionId;

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
        }
    }

    /// Whether a SYN can be taken. As in Linux each queue holds one more than the backlog.
    pub(super) fn takes_syn(&self) -> bool {
        self.takes_established() && self.half_open <= self.backlog
    }

    /// Whether a connection can become established.
    pub(super) fn takes_established(&self) -> bool {
        self.established.len() <= self.backlog
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
