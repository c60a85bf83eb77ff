//! What follows when a connection has changed: its queues, its timers, its place in the table.

use portolan_core::table::Close;

use super::events::Notice;
use super::output::Ready;
use super::time_wait::TimeWait;
use super::{ConnectionId, Holder, Stack};
use crate::Instant;
use crate::tcp::{CloseReason, Happened, State};

impl Stack {
    /// Follows up whatever was done to a connection.
    pub(super) fn settle(&mut self, now: Instant, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(id) else {
            return;
        };
        let happened = entry.connection.take_happened();
        entry.pending |= happened;
        if !entry.is_ready {
            entry.is_ready = true;
            self.ready.push_back(Ready::Connection(id));
        }
        if entry.half_open {
            self.settle_half_open(id, happened);
        }
        if happened.contains(Happened::CLOSED) {
            self.leave_table(now, id);
        }
        self.set_timer(id);
        self.notice(id);
    }

    /// A connection that came to a listener: established, or gone before that.
    fn settle_half_open(&mut self, id: ConnectionId, happened: Happened) {
        let Some(entry) = self.connections.get_mut(id) else {
            return;
        };
        if !happened.intersects(Happened::CONNECTED | Happened::CLOSED) {
            return;
        }
        entry.half_open = false;
        let Some((listener_id, listener)) = entry
            .listener
            .and_then(|id| Some((id, self.listeners.get_mut(id)?)))
        else {
            return;
        };
        listener.on_half_open_gone();
        if happened.contains(Happened::CONNECTED) {
            listener.push(id);
            if !listener.is_noticed {
                listener.is_noticed = true;
                self.notices.push_back(Notice::Listener(listener_id));
            }
        }
    }

    /// The connection is over: its port is free, or its four-tuple waits.
    fn leave_table(&mut self, now: Instant, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(id) else {
            return;
        };
        let Some(socket) = entry.socket.take() else {
            return;
        };
        self.wheel.cancel(socket.place() as u32);
        if entry.connection.state() == State::TimeWait {
            let waiting = Box::new(TimeWait::of(&entry.connection, now));
            let closed = self.table.close(socket, Close::TimeWait);
            debug_assert!(closed.is_ok(), "the stack closes a socket once");
            self.hold(socket, Holder::TimeWait(waiting));
        } else {
            let how = match entry.connection.reason() {
                Some(CloseReason::Finished) => Close::Passive,
                _ => Close::Gone,
            };
            self.give_up(socket, how);
        }
    }

    /// Sees to it that the wheel turns no later than the connection's first deadline. Most deadlines move
    /// back with every segment: the wheel learns that when the old time comes.
    pub(super) fn set_timer(&mut self, id: ConnectionId) {
        let Some(entry) = self.connections.get(id) else {
            return;
        };
        let (Some(socket), Some(deadline)) = (entry.socket, entry.connection.next_timeout()) else {
            return;
        };
        let place = socket.place() as u32;
        if self.wheel.deadline(place).is_none_or(|armed| deadline < armed) {
            self.wheel.arm(place, deadline);
        }
    }

    /// Drops a connection that neither the network nor the program will ask for again.
    pub(super) fn drop_if_done(&mut self, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(id) else {
            return;
        };
        let is_over = matches!(entry.connection.state(), State::Closed | State::TimeWait);
        // Nobody has seen a connection that was reset before it was established.
        let is_unseen = entry.listener.is_some_and(|listener| {
            !entry.pending.contains(Happened::CONNECTED) || !self.listeners.contains_key(listener)
        });
        if is_over && (entry.connection.is_released() || is_unseen) {
            entry.connection.clear(&mut self.pool);
            self.connections.remove(id);
        }
    }

    /// Whether anyone is behind this place of the table.
    pub(super) fn holder(&self, place: usize) -> &Holder {
        self.holders.get(place).unwrap_or(&Holder::Nobody)
    }
}
