//! Connections that peers open at listeners, up to the point where there is a connection.
//!
//! ```text
//!   SYN ─▶ room in the SYN queue? ─┬ yes ─▶ an entry, SYN-ACK
//!                                  └ no ──▶ SYN-ACK with a cookie, or nothing
//!   ACK ─▶ of an entry, or of a cookie that was sent lately ─▶ connection ─▶ accept queue
//! ```

use portolan_core::demux::{self, Delivery, FourTuple};
use portolan_core::table::Accepted;
use portolan_core::wire::{SeqNum, TcpFlags};

use super::events::Notice;
use super::output::Ready;
use super::syn_queue::Due;
use super::{Holder, ListenerId, Stack, syn_cookie};
use crate::tcp::{
    Answered, Connection, Cx, Offers, Opening, Outgoing, Reset, Segment, State, Syn, TcpConfig,
};
use crate::{Instant, PathError};

/// When a SYN is answered with a cookie (RFC 4987) instead of an entry in the SYN queue.
///
/// A cookie takes no memory. It keeps window scaling, SACK and ECN if the peer offers timestamps, and has none of
/// them otherwise; if the last acknowledgment of its handshake is lost, the peer waits until it sends something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SynCookies {
    /// Never: SYNs that find the queue full are dropped.
    Off,
    /// When the queue of a listener is full. Linux's default.
    #[default]
    OnOverflow,
    /// Always, for tests.
    Always,
}

impl Stack {
    /// A SYN, and the listener that it is for.
    pub(super) fn take_syn(
        &mut self,
        now: Instant,
        id: ListenerId,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        iss: Option<SeqNum>,
    ) {
        let Some(listener) = self.listeners.get_mut(id) else {
            return;
        };
        // With a full accept queue a cookie would be taken back by nobody.
        if segment.has(TcpFlags::FIN) || !listener.takes_established() {
            self.counters.syns_dropped += 1;
            return;
        }
        if !self.makes_room() {
            self.counters.syns_refused += 1;
            return;
        }
        let Some(listener) = self.listeners.get_mut(id) else {
            return;
        };
        let syn = Syn::of(segment);
        let has_room = listener.has_room_for_syn();
        let may_bake = match self.config.syn_cookies {
            SynCookies::Off => false,
            SynCookies::OnOverflow => !has_room,
            SynCookies::Always => true,
        };
        // A number that must lie beyond those of a connection before (RFC 6191) is no cookie.
        if may_bake && iss.is_none() {
            self.send_cookie(now, id, tuple, syn);
            return;
        }
        if !has_room {
            self.counters.syns_dropped += 1;
            return;
        }
        listener.on_half_open();
        let iss = iss.unwrap_or_else(|| self.secrets.initial_sequence_number(tuple, now));
        let index = self.syn_queue.insert(now, tuple, id, syn, iss);
        self.ready.push_back(Ready::HalfOpen(index));
    }

    /// A segment of a half-open connection: it is a connection in SYN-RECEIVED for as long as that takes.
    pub(super) fn deliver_to_half_open(&mut self, now: Instant, index: u32, segment: &Segment<'_>) {
        let Some(entry) = self.syn_queue.get(index) else {
            return;
        };
        let (tuple, listener, syn, iss) = (entry.tuple, entry.listener, entry.syn, entry.iss);
        match self.listeners.get(listener) {
            None => {
                self.drop_half_open(index);
                self.answer(&tuple, Reset::answering(segment));
                return;
            }
            Some(listener)
                if !segment.has(TcpFlags::SYN | TcpFlags::RST) && !listener.takes_established() =>
            {
                // As Linux does: the peer sends again, and then there may be room.
                self.counters.accepts_dropped += 1;
                return;
            }
            Some(_) => {}
        }
        let opening = self.opening_at(&tuple, now, iss);
        let answered = self.syn_queue.answered(now, index);
        let room = std::mem::take(&mut self.half_open_room);
        let config = self.config_at(listener);
        let mut cx = self.tcp_context(now, &config);
        let mut connection = Connection::half_open_in(room, &cx, opening, &syn, answered);
        let reply = connection.arrive(&mut cx, segment);
        self.half_open_room = connection.take_room().unwrap_or_default();
        match connection.state() {
            State::SynReceived if connection.wants_syn() => {
                if self.syn_queue.want_answer(index) {
                    self.ready.push_back(Ready::HalfOpen(index));
                }
            }
            State::SynReceived if connection.wants_ack() => {
                let cx = self.tcp_context(now, &config);
                if let Some(acknowledgment) = connection.poll_transmit(&cx, 0) {
                    self.syn_queue.challenged(now, index);
                    self.push_answer(&tuple, acknowledgment);
                }
            }
            State::SynReceived => {}
            State::Closed => self.drop_half_open(index),
            State::SynSent
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                self.drop_half_open(index);
                self.open(now, listener, &tuple, connection);
            }
        }
        self.answer(&tuple, reply);
    }

    /// An ICMP error about a SYN-ACK: `None` if the segment it quotes is none.
    pub(super) fn tell_half_open(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        seq: SeqNum,
        error: PathError,
    ) -> Option<()> {
        let index = self.syn_queue.find(tuple)?;
        let entry = self.syn_queue.get(index).filter(|entry| entry.iss == seq)?;
        let (syn, iss) = (entry.syn, entry.iss);
        let config = self.config_at(entry.listener);
        let opening = self.opening_at(tuple, now, iss);
        let answered = self.syn_queue.answered(now, index);
        let mut cx = self.tcp_context(now, &config);
        let mut connection = Connection::half_open(&cx, opening, &syn, answered);
        if error != PathError::TooBig {
            connection.take_error(&mut cx, seq, error);
        }
        if connection.state() == State::Closed {
            self.drop_half_open(index);
        }
        Some(())
    }

    /// Whether a segment without a connection acknowledges a cookie.
    pub(super) fn has_cookie(&self, now: Instant, tuple: &FourTuple, segment: &Segment<'_>) -> bool {
        let may_be = segment.has(TcpFlags::ACK) && !segment.has(TcpFlags::SYN | TcpFlags::RST);
        let numbers = (segment.seq - 1, segment.ack - 1);
        let timestamps = segment.options.timestamps.filter(|_| self.config.tcp.timestamps);
        may_be
            && now < self.cookies_until
            && syn_cookie::read(&self.secrets, now, tuple, numbers, timestamps).is_some()
    }

    /// Takes a segment without a connection for the acknowledgment of a cookie. Says whether it was one.
    pub(super) fn take_cookie(&mut self, now: Instant, tuple: &FourTuple, segment: &Segment<'_>) -> bool {
        let may_be = segment.has(TcpFlags::ACK) && !segment.has(TcpFlags::SYN | TcpFlags::RST);
        if !may_be || now >= self.cookies_until {
            return false;
        }
        let Some(id) = self.listener_for(tuple) else {
            return false;
        };
        let (irs, iss) = (segment.seq - 1, segment.ack - 1);
        let timestamps = segment.options.timestamps.filter(|_| self.config.tcp.timestamps);
        let Some(syn) = syn_cookie::read(&self.secrets, now, tuple, (irs, iss), timestamps) else {
            self.counters.cookies_failed += 1;
            return false;
        };
        if !self
            .listeners
            .get(id)
            .is_some_and(|listener| listener.takes_established())
        {
            self.counters.accepts_dropped += 1;
            return true;
        }
        let opening = self.opening_at(tuple, now, iss);
        let answered = Answered {
            once_at: None,
            attempts: 0,
            challenge_from: now,
        };
        let config = self.config_at(id);
        let mut cx = self.tcp_context(now, &config);
        let mut connection = Connection::half_open(&cx, opening, &syn, answered);
        let reply = connection.arrive(&mut cx, segment);
        if connection.state().is_synchronized() {
            self.counters.cookies_received += 1;
            self.open(now, id, tuple, connection);
        }
        self.answer(tuple, reply);
        true
    }

    /// The SYN-ACK of an entry of the queue, if it is to be sent.
    pub(super) fn answer_syn(&mut self, now: Instant, index: u32) -> Option<(FourTuple, Outgoing)> {
        if !self.syn_queue.take_wanted(now, index) {
            return None;
        }
        let entry = self.syn_queue.get(index)?;
        let opening = self.opening_at(&entry.tuple, now, entry.iss);
        let (tuple, syn, config) = (entry.tuple, entry.syn, self.config_at(entry.listener));
        let cx = self.tcp_context(now, &config);
        Some((tuple, syn.answer(&cx, opening).marked_by(&config)))
    }

    /// Repeats SYN-ACKs whose time has run out, and gives up those that were repeated often enough.
    pub(super) fn expire_half_open(&mut self, now: Instant) {
        let (retries, longest) = (self.config.tcp.syn_ack_retries, self.config.tcp.max_rto);
        while let Some(due) = self.syn_queue.pop_due(now, retries, longest) {
            match due {
                Due::GiveUp(index) => self.drop_half_open(index),
                Due::Repeat(index) => {
                    let listener = self.syn_queue.get(index).map(|entry| entry.listener);
                    if !listener.is_some_and(|listener| self.listeners.contains_key(listener)) {
                        self.drop_half_open(index);
                    } else if self.syn_queue.want_answer(index) {
                        self.ready.push_back(Ready::HalfOpen(index));
                    }
                }
            }
        }
    }

    /// How many connections peers have begun to open and not finished.
    #[must_use]
    pub fn half_open_count(&self) -> usize {
        self.syn_queue.len()
    }

    fn send_cookie(&mut self, now: Instant, listener: ListenerId, tuple: &FourTuple, mut syn: Syn) {
        if !self.config.tcp.timestamps {
            syn.offers -= Offers::TIMESTAMPS;
        }
        let (told, iss) = syn_cookie::bake(&self.secrets, now, tuple, &syn);
        let opening = self.opening_at(tuple, now, iss);
        let clock = (now.as_millis() as u32).wrapping_add(opening.timestamp_offset);
        let late = clock.wrapping_sub(syn_cookie::timestamp(clock, &told));
        let opening = Opening {
            timestamp_offset: opening.timestamp_offset.wrapping_sub(late),
            ..opening
        };
        let config = self.config_at(listener);
        let cx = self.tcp_context(now, &config);
        let answer = told.answer(&cx, opening);
        self.counters.cookies_sent += 1;
        self.cookies_until = now + syn_cookie::life();
        self.push_answer(tuple, answer.marked_by(&config));
    }

    /// Enters a connection whose handshake is done, and lets it wait to be accepted.
    fn open(&mut self, now: Instant, listener_id: ListenerId, tuple: &FourTuple, mut connection: Connection) {
        let Some(listener) = self.listeners.get_mut(listener_id) else {
            return;
        };
        let ends = Accepted {
            local: tuple.local(),
            remote: tuple.remote(),
            device: None,
        };
        let Ok(socket) = self.table.accept(listener.socket, ends) else {
            self.counters.accepts_dropped += 1;
            connection.clear(&mut self.pool);
            return;
        };
        if let Some(own) = &listener.config {
            connection.configure(own);
        }
        let id = self.insert(now, socket, *tuple, connection, Some(listener_id));
        if let Some(listener) = self.listeners.get_mut(listener_id) {
            listener.push(id);
            if !listener.is_noticed {
                listener.is_noticed = true;
                self.notices.push_back(Notice::Listener(listener_id));
            }
        }
        self.settle(now, id);
    }

    const fn tcp_context<'a>(&'a mut self, now: Instant, config: &'a TcpConfig) -> Cx<'a> {
        let pool = &mut self.pool;
        Cx { now, config, pool }
    }

    /// How connections behave that come to this listener.
    fn config_at(&self, listener: ListenerId) -> TcpConfig {
        let own = self
            .listeners
            .get(listener)
            .and_then(|listener| listener.config.as_deref());
        *own.unwrap_or(&self.config.tcp)
    }

    fn drop_half_open(&mut self, index: u32) {
        let Some(entry) = self.syn_queue.get(index) else {
            return;
        };
        if let Some(listener) = self.listeners.get_mut(entry.listener) {
            listener.on_half_open_gone();
        }
        self.syn_queue.remove(index);
    }

    /// The listener that a SYN of this four-tuple would be for.
    pub(super) fn listener_for(&self, tuple: &FourTuple) -> Option<ListenerId> {
        let delivery = self.table.deliver_tcp(tuple, None, demux::Segment::Syn);
        match delivery {
            Delivery::Socket { to, .. } => match *self.holder(to.place()) {
                Holder::Listener(id) => Some(id),
                Holder::Nobody | Holder::Connection(_) | Holder::Udp(_) => None,
            },
            Delivery::Sockets { .. } | Delivery::Nobody { .. } => None,
        }
    }
}
