//! What is counted of a connection, if [`TcpConfig::statistics`](super::TcpConfig::statistics) says so.

use super::connection::{Connection, Traits};
use crate::{Duration, Instant};

/// Counts of one connection since it began, as Linux's `TCP_INFO` has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Segments that came, and those with data.
    pub segments_in: u64,
    /// See `segments_in`.
    pub data_segments_in: u64,
    /// Segments that went, and those with data.
    pub segments_out: u64,
    /// See `segments_out`.
    pub data_segments_out: u64,
    /// Bytes that came in order.
    pub bytes_received: u64,
    /// Bytes that went, again included.
    pub bytes_sent: u64,
    /// Bytes that were acknowledged.
    pub bytes_acknowledged: u64,
    /// Segments that arrived at the peer, the SYN included.
    pub delivered: u64,
    /// Segments that were sent again.
    pub retransmitted: u64,
    /// How often the peer said that something came twice.
    pub duplicate_sacks: u64,
    /// How often something arrived out of order.
    pub reorderings: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// How often a reduction of the congestion window was taken back, because nothing was lost.
    pub undone: u64,
    /// Packets that routers had marked, with data.
    pub marked: u64,
    /// When data came last; before that when the handshake was done.
    pub last_received: Instant,
    /// How long there was something to send or to be acknowledged.
    pub busy: Duration,
    /// How long of that the peer's window was in the way.
    pub window_limited: Duration,
    /// How long of that the send buffer was too small.
    pub buffer_limited: Duration,
}

/// What a sender waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Waits {
    /// Nothing is to be sent.
    #[default]
    Idle,
    /// Acknowledgments, or the congestion window.
    Busy,
    Window,
    Buffer,
}

/// The counts, and the clock that runs now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stats {
    pub(super) counts: ConnectionStats,
    waits: Waits,
    since: Instant,
}

impl Stats {
    /// The counts as they are now.
    pub(super) fn read(&self, now: Instant) -> ConnectionStats {
        let mut stats = *self;
        stats.stop_clock(now);
        stats.counts
    }

    fn stop_clock(&mut self, now: Instant) {
        let time = now.since(self.since);
        self.since = now;
        let counts = &mut self.counts;
        match self.waits {
            Waits::Idle => return,
            Waits::Busy => {}
            Waits::Window => counts.window_limited = counts.window_limited + time,
            Waits::Buffer => counts.buffer_limited = counts.buffer_limited + time,
        }
        counts.busy = counts.busy + time;
    }
}

impl Connection {
    /// Counts, if this connection counts.
    #[inline]
    pub(super) fn count(&mut self, count: impl FnOnce(&mut ConnectionStats)) {
        if let Some(stats) = &mut self.stats {
            count(&mut stats.counts);
        }
    }

    /// Notes what the sender waits for, after it has sent all it may.
    pub(super) fn note_wait(&mut self, now: Instant) {
        if self.stats.is_none() {
            return;
        }
        let unsent = self.unsent.first(self.snd_nxt).map(|(chunk, _)| chunk.end);
        let offered = (self.snd_una + self.snd_wnd).since(self.snd_nxt).max(0) as u32;
        let waits = match unsent {
            Some(end) if offered < (end.since(self.snd_nxt) as u32).min(self.snd_mss.into()) => Waits::Window,
            Some(_) => Waits::Busy,
            None if self.board.is_empty() => Waits::Idle,
            None if self.traits.contains(Traits::WRITER_WAITS) => Waits::Buffer,
            None => Waits::Busy,
        };
        if let Some(stats) = &mut self.stats
            && stats.waits != waits
        {
            stats.stop_clock(now);
            stats.waits = waits;
        }
    }

    /// The counts, if this connection counts.
    pub(crate) fn statistics(&self, now: Instant) -> Option<ConnectionStats> {
        self.stats.as_ref().map(|stats| stats.read(now))
    }
}
