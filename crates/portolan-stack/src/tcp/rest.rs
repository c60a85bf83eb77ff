//! A connection at rest: established, with nothing on its way, waiting or owed.
//!
//! What a sender and a receiver at work need is in a [`Connection`]. Most of it means nothing while nothing
//! moves, so an idle connection is kept as what cannot be worked out again, in a quarter of the room.

use portolan_core::wire::SeqNum;

use super::State;
use super::congestion::{Congestion, CongestionAtRest, Window};
use super::connection::{Connection, Happened, Traits, Wanted};
use super::rack::{Rack, RackAtRest};
use super::receive::{AckSchedule, AcksAtRest};
use super::recovery::Phase;
use super::rtt::{RttAtRest, RttEstimator};
use super::scoreboard::Scoreboard;
use super::timers::{Timer, Timers};
use super::tuning::Tuning;
use super::unsent::Unsent;
use crate::Instant;
use crate::buffer::{Reassembly, SendQueue};

/// What a connection at rest keeps.
#[derive(Debug)]
pub(crate) struct Rest {
    last_sent: Instant,
    last_heard: Instant,
    ts_recent_at: Instant,
    /// When to ask the peer whether it is there; [`Instant::NEVER`] if it is not to be asked.
    keepalive: Instant,
    bytes_retransmitted: u64,
    congestion: CongestionAtRest,
    rtt: RttAtRest,
    rack: RackAtRest,
    window: Window,
    acks: AcksAtRest,
    iss: SeqNum,
    snd_nxt: SeqNum,
    snd_wnd: u32,
    snd_wl1: SeqNum,
    snd_wl2: SeqNum,
    max_snd_wnd: u32,
    most_outstanding: u32,
    usage_until: SeqNum,
    irs: SeqNum,
    rcv_nxt: SeqNum,
    rcv_edge: SeqNum,
    timestamp_offset: u32,
    ts_recent: u32,
    snd_mss: u16,
    link_mss: u16,
    peer_mss: u16,
    path_mss: u16,
    traits: Traits,
    snd_shift: u8,
    rcv_shift: u8,
    attempts: u8,
    keepalive_probes: u8,
}

impl Rest {
    /// Reads a word of each of its cache lines.
    pub(crate) fn touch(&self) -> u64 {
        // The longest fields lie at the front, the shortest at the back, as the compiler orders them.
        self.last_sent.as_nanos()
            ^ u64::from(self.iss.get())
            ^ u64::from(self.snd_mss)
            ^ u64::from(self.attempts)
    }

    /// When the connection is to be woken for a keepalive.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        (self.keepalive != Instant::NEVER).then_some(self.keepalive)
    }
}

impl Connection {
    /// Whether [`Connection::rest`] would lose nothing.
    pub(crate) fn is_quiet(&self, now: Instant) -> bool {
        self.state == State::Established
            && self.snd_una == self.snd_nxt
            && self.queue.len() == 0
            && self.board.is_empty()
            && self.reassembly.is_empty()
            && self.fin_at.is_none()
            && self.wanted.is_empty()
            && self.happened.is_empty()
            && self.phase == Phase::Open
            && self.tail_probe.is_none()
            && self.duplicates == 0
            && self.soft_error.is_none()
            && self.urgent_ahead().is_none()
            && !self.traits.contains(Traits::IS_ASKED)
            && !self.reads_shut
            && self.own_config.is_none()
            && self.stats.is_none()
            && self.pace_until <= now
            && self.acks.is_at_rest(now)
            && self.timers.all_but(Timer::Keepalive).is_none()
    }

    /// What is kept of a quiet connection.
    pub(crate) fn rest(&self) -> Rest {
        // Every field is named, so that a new one cannot be forgotten here.
        let &Self {
            state: _,
            reason: _,
            reads_shut: _,
            traits,
            wanted: _,
            happened: _,
            iss,
            snd_una: _,
            snd_nxt,
            snd_wnd,
            snd_wl1,
            snd_wl2,
            max_snd_wnd,
            snd_shift,
            snd_mss,
            link_mss,
            peer_mss,
            path_mss,
            soft_error: _,
            queue: _,
            unsent: _,
            snd_sml: _,
            board: _,
            ref rtt,
            ref rack,
            phase: _,
            window,
            ref congestion,
            // A duplicate that is told of from now on comes too late.
            undo: _,
            duplicates: _,
            tail_probe: _,
            attempts,
            keepalive_probes,
            most_outstanding,
            usage_until,
            last_sent,
            last_heard,
            progress_at: _,
            pace_until: _,
            bytes_retransmitted,
            ref reassembly,
            rcv_edge,
            rcv_shift,
            fin_at: _,
            irs,
            urgent: _,
            ref acks,
            tuning: _,
            timestamp_offset,
            ts_recent,
            ts_recent_at,
            ref timers,
            own_config: _,
            stats: _,
        } = self;
        Rest {
            last_sent,
            last_heard,
            ts_recent_at,
            keepalive: timers.deadline(Timer::Keepalive),
            bytes_retransmitted,
            congestion: congestion.rest(),
            rtt: rtt.rest(),
            rack: rack.rest(),
            window,
            acks: acks.rest(reassembly.next()),
            iss,
            snd_nxt,
            snd_wnd,
            snd_wl1,
            snd_wl2,
            max_snd_wnd,
            most_outstanding,
            usage_until,
            irs,
            rcv_nxt: reassembly.next(),
            rcv_edge,
            timestamp_offset,
            ts_recent,
            snd_mss,
            link_mss,
            peer_mss,
            path_mss,
            traits,
            snd_shift,
            rcv_shift,
            attempts,
            keepalive_probes,
        }
    }

    /// The connection that came to this rest.
    pub(crate) fn wake(rest: &Rest) -> Self {
        let mut timers = Timers::new();
        timers.arm(Timer::Keepalive, rest.keepalive);
        // The stack's timer of a connection that sleeps is set for that.
        timers.take_sooner();
        Self {
            state: State::Established,
            reason: None,
            reads_shut: false,
            traits: rest.traits,
            wanted: Wanted::empty(),
            happened: Happened::empty(),
            iss: rest.iss,
            snd_una: rest.snd_nxt,
            snd_nxt: rest.snd_nxt,
            snd_wnd: rest.snd_wnd,
            snd_wl1: rest.snd_wl1,
            snd_wl2: rest.snd_wl2,
            max_snd_wnd: rest.max_snd_wnd,
            snd_shift: rest.snd_shift,
            snd_mss: rest.snd_mss,
            link_mss: rest.link_mss,
            peer_mss: rest.peer_mss,
            path_mss: rest.path_mss,
            soft_error: None,
            queue: SendQueue::new(),
            unsent: Unsent::new(rest.snd_nxt),
            snd_sml: rest.snd_nxt - 1,
            board: Scoreboard::default(),
            rtt: RttEstimator::wake(&rest.rtt),
            rack: Rack::wake(&rest.rack),
            phase: Phase::Open,
            window: rest.window,
            congestion: Congestion::wake(&rest.congestion),
            undo: None,
            duplicates: 0,
            tail_probe: None,
            attempts: rest.attempts,
            keepalive_probes: rest.keepalive_probes,
            most_outstanding: rest.most_outstanding,
            usage_until: rest.usage_until,
            last_sent: rest.last_sent,
            last_heard: rest.last_heard,
            // The next segment sets both.
            progress_at: rest.last_sent,
            pace_until: Instant::START,
            bytes_retransmitted: rest.bytes_retransmitted,
            reassembly: Reassembly::new(rest.rcv_nxt),
            rcv_edge: rest.rcv_edge,
            rcv_shift: rest.rcv_shift,
            fin_at: None,
            irs: rest.irs,
            urgent: None,
            acks: AckSchedule::wake(&rest.acks),
            // The window that was offered is what the buffer had grown to, or a little less.
            tuning: Tuning::new(rest.rcv_edge.since(rest.rcv_nxt).max(0) as u32, rest.rcv_nxt),
            timestamp_offset: rest.timestamp_offset,
            ts_recent: rest.ts_recent,
            ts_recent_at: rest.ts_recent_at,
            timers,
            own_config: None,
            stats: None,
        }
    }

    /// Reads a word of each cache line that a segment needs.
    pub(crate) fn touch(&self) -> u64 {
        let numbers =
            self.snd_nxt.get() ^ self.rcv_edge.get() ^ self.reassembly.next().get() ^ self.board.lost();
        let times = self.last_heard.as_nanos() ^ self.timers.touch() ^ self.rack.touch();
        let lengths = self.queue.len() ^ self.reassembly.ready() ^ usize::from(self.board.is_empty());
        let kinds = u64::from(self.stats.is_some()) ^ u64::from(self.acks.largest());
        u64::from(numbers) ^ times ^ lengths as u64 ^ kinds ^ u64::from(self.rtt.minimum().is_some())
    }

    /// Puts the connection into `spare`, whose empty queues keep their allocations, or into a new box.
    pub(crate) fn boxed(self, spare: Option<Box<Self>>) -> Box<Self> {
        let Some(mut spare) = spare else {
            return Box::new(self);
        };
        self.replace(&mut spare);
        spare
    }

    /// Takes the place of `spare`, whose empty queues keep their allocations.
    pub(crate) fn replace(mut self, spare: &mut Self) {
        self.board.take_room(&mut spare.board);
        self.queue.take_room(&mut spare.queue);
        self.unsent.take_room(&mut spare.unsent);
        self.reassembly.take_room(&mut spare.reassembly);
        *spare = self;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_takes_a_quarter_of_the_room() {
        assert!(size_of::<Rest>() <= 192, "{}", size_of::<Rest>());
    }
}
