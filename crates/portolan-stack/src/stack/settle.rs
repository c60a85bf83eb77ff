//! What follows when a connection has changed: its queues, its timers, its place in the table.

use std::collections::VecDeque;

use portolan_core::demux::FourTuple;
use portolan_core::table::{Close, SocketId, TIME_WAIT};

use super::entry::Entry;
use super::events::Notice;
use super::output::Ready;
use super::time_wait::TimeWait;
use super::waiting::WaitId;
use super::{ConnectionId, Holder, Stack};
use crate::Instant;
use crate::tcp::{CloseReason, Connection, Happened, State};
use crate::wheel::TimerWheel;

/// What is still to be done after [`Entry::follow_up`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing.
    Nothing,
    /// It has nothing to send: it may fall asleep, or go.
    Quiet,
    /// It is over, with something to send first or not.
    Over { has_work: bool },
}

impl Entry {
    /// Puts the connection in the queues where what was done to it belongs: what most calls need.
    #[inline]
    pub(super) fn follow_up(
        &mut self,
        id: ConnectionId,
        ready: &mut VecDeque<Ready>,
        wheel: &mut TimerWheel,
        notices: &mut VecDeque<Notice>,
    ) -> Rest {
        let Some(connection) = self.awake_mut() else {
            return Rest::Nothing;
        };
        let happened = connection.take_happened();
        let has_work = connection.has_work();
        let sooner = connection.take_sooner();
        self.pending |= happened;
        if has_work && !self.is_ready {
            self.is_ready = true;
            ready.push_back(Ready::Connection(id));
        }
        if happened.contains(Happened::CLOSED) {
            return Rest::Over { has_work };
        }
        if let (Some(deadline), Some(socket)) = (sooner, self.socket) {
            wheel.arm(socket.place() as u32, deadline);
        }
        if self.has_news() {
            self.is_noticed = true;
            notices.push_back(Notice::Connection(id));
        }
        if has_work { Rest::Nothing } else { Rest::Quiet }
    }
}

impl Stack {
    /// Follows up whatever was done to a connection.
    pub(super) fn settle(&mut self, now: Instant, id: ConnectionId) {
        if let Some(entry) = self.connections.get_mut(id) {
            let rest = entry.follow_up(id, &mut self.ready, &mut self.wheel, &mut self.notices);
            self.settle_rest(now, id, rest);
        }
    }

    /// Does what follows in few cases.
    #[inline]
    pub(super) fn settle_rest(&mut self, now: Instant, id: ConnectionId, rest: Rest) {
        match rest {
            Rest::Nothing => {}
            Rest::Quiet => self.settle_down(now, id),
            Rest::Over { has_work } => {
                self.leave_table(now, id);
                self.notice(id);
                if !has_work {
                    self.settle_down(now, id);
                }
            }
        }
    }

    /// The connection is over: its port is free, or its four-tuple waits.
    fn leave_table(&mut self, now: Instant, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(id) else {
            return;
        };
        let (Some(socket), Some(connection)) = (entry.socket, entry.awake()) else {
            return;
        };
        let how = match connection.reason() {
            Some(CloseReason::Finished) => Close::Passive,
            _ => Close::Gone,
        };
        let tuple = entry.tuple;
        let waiting = (connection.state() == State::TimeWait).then(|| TimeWait::of(connection, now));
        entry.socket = None;
        self.wheel.cancel(socket.place() as u32);
        if let Some(waiting) = waiting {
            self.begin_wait(now, socket, &tuple, &waiting);
        } else {
            self.give_up(socket, how);
        }
    }

    /// Keeps the four-tuple of a connection whose socket goes back to the table.
    fn begin_wait(&mut self, now: Instant, socket: SocketId, tuple: &FourTuple, left: &TimeWait) {
        self.last_flow = None;
        if let Some(holder) = self.holders.get_mut(socket.place()) {
            *holder = Holder::Nobody;
        }
        let stand_in = self.table.hand_over(socket);
        debug_assert!(stand_in.is_ok(), "the stack closes a socket once");
        if let Ok(stand_in) = stand_in {
            let end = now + TIME_WAIT.into();
            self.waiting.insert(&self.table, end, tuple, stand_in, left);
        }
    }

    /// A segment came that may be older than the wait: it begins again, as in Linux
    /// (`tcp_timewait_state_process`).
    pub(super) fn restart_wait(&mut self, now: Instant, id: WaitId, tuple: &FourTuple) {
        self.waiting
            .restart(&self.table, now + TIME_WAIT.into(), id, tuple);
    }

    /// Ends a wait.
    pub(super) fn end_wait(&mut self, id: WaitId) {
        if let Some(stand_in) = self.waiting.remove(&self.table, id) {
            let ended = self.table.end_wait(stand_in);
            debug_assert!(ended.is_ok(), "what waits has a socket that stands for it");
        }
    }

    /// Ends all that have waited long enough.
    pub(super) fn end_waits(&mut self, now: Instant) {
        while self.waiting.next_deadline().is_some_and(|end| end <= now)
            && let Some(oldest) = self.waiting.oldest()
        {
            self.end_wait(oldest);
        }
    }

    /// Sees to it that the wheel turns no later than the connection's first deadline. Most deadlines move
    /// back with every segment: the wheel learns that when the old time comes.
    pub(super) fn set_timer(&mut self, id: ConnectionId) {
        let Some(entry) = self.connections.get_mut(id) else {
            return;
        };
        let sooner = entry.awake_mut().and_then(Connection::take_sooner);
        if let (Some(deadline), Some(socket)) = (sooner, entry.socket) {
            self.wheel.arm(socket.place() as u32, deadline);
        }
    }

    /// Drops a connection that is over if neither the network nor the program will ask for it again.
    pub(super) fn drop_if_done(&mut self, id: ConnectionId) {
        let Some(entry) = self.connections.get(id) else {
            return;
        };
        let Some(connection) = entry.awake() else {
            return;
        };
        let is_over = matches!(connection.state(), State::Closed | State::TimeWait);
        // Nobody has seen a connection that was reset before it was established.
        let is_unseen = entry.listener.is_some_and(|listener| {
            !entry.pending.contains(Happened::CONNECTED) || !self.listeners.contains_key(listener)
        });
        if is_over
            && (connection.is_released() || is_unseen)
            && let Some(entry) = self.connections.remove(id)
        {
            self.spares.give_entry(entry, &mut self.pool);
        }
    }

    /// Whether anyone is behind this place of the table.
    pub(super) fn holder(&self, place: usize) -> &Holder {
        self.holders.get(place).unwrap_or(&Holder::Nobody)
    }
}
