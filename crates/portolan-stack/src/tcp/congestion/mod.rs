//! How much may be in flight.
//!
//! The sender owns the congestion window and the phases of recovery, which are the same for every
//! algorithm; a [`Controller`] says how the window grows, and what is left of it after a loss.

mod cubic;
mod hystart;
mod new_reno;

use std::fmt;

use cubic::{Cubic, CubicAtRest};
use new_reno::NewReno;
use portolan_core::wire::SeqNum;

use crate::{Duration, Instant};

/// The congestion window and its threshold, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// cwnd: what may be in flight.
    pub(crate) cwnd: u32,
    /// ssthresh: below it the window doubles in each round trip.
    pub(crate) ssthresh: u32,
}

/// What an algorithm learns from an acknowledgment of new data, outside of recovery, by a sender that the
/// window held back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acked {
    pub(crate) now: Instant,
    /// Bytes newly delivered.
    pub(crate) bytes: u32,
    /// SRTT, or the first guess at it.
    pub(crate) rtt: Duration,
    /// The sender's maximum segment size.
    pub(crate) mss: u32,
}

/// A measurement of the round-trip time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) now: Instant,
    pub(crate) rtt: Duration,
    /// The least there was, this one included.
    pub(crate) least: Duration,
    pub(crate) una: SeqNum,
    pub(crate) nxt: SeqNum,
    pub(crate) mss: u32,
    /// Bytes a second at which the window would be spread over a round trip.
    pub(crate) pace: Option<u64>,
}

impl Sample {
    /// How long four of the longest bursts last, a millisecond at most: acknowledgments of bursts come in bursts.
    fn burst_time(&self) -> Duration {
        const BURSTS: u64 = 4 * 65_536;
        let most = Duration::from_millis(1);
        self.pace.filter(|&pace| pace > 0).map_or(Duration::ZERO, |pace| {
            Duration::from_nanos(BURSTS * 1_000_000_000 / pace).min(most)
        })
    }
}

/// A congestion control algorithm.
pub(crate) trait Controller: fmt::Debug {
    /// Grows the window.
    fn on_ack(&mut self, window: &mut Window, acked: Acked);

    /// The threshold after congestion was found with this window: what recovery shrinks it to.
    fn on_congestion(&mut self, window: Window, mss: u32) -> u32;

    /// The connection was idle for `idle`, and begins again.
    fn on_idle(&mut self, idle: Duration);

    /// The round-trip time was measured: slow start may end.
    fn on_sample(&mut self, _window: &mut Window, _sample: &Sample) {}

    /// The retransmission timer fired: what was learnt of the path means nothing any more.
    fn on_timeout(&mut self) {}
}

/// Which algorithm a connection uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CongestionControl {
    /// CUBIC (RFC 9438), Linux's default.
    #[default]
    Cubic,
    /// NewReno: additive increase, multiplicative decrease (RFC 5681).
    NewReno,
}

/// The algorithm of one connection, held in place: no allocation for each connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Congestion {
    Cubic(Cubic),
    NewReno(NewReno),
}

/// An algorithm that waits.
#[derive(Debug)]
pub(crate) enum CongestionAtRest {
    Cubic(CubicAtRest),
    NewReno(NewReno),
}

impl Congestion {
    /// What waits.
    pub(crate) fn rest(&self) -> CongestionAtRest {
        match self {
            Self::Cubic(cubic) => CongestionAtRest::Cubic(cubic.rest()),
            Self::NewReno(new_reno) => CongestionAtRest::NewReno(*new_reno),
        }
    }

    /// The algorithm that waited.
    pub(crate) fn wake(rest: &CongestionAtRest) -> Self {
        match rest {
            CongestionAtRest::Cubic(cubic) => Self::Cubic(Cubic::wake(cubic)),
            CongestionAtRest::NewReno(new_reno) => Self::NewReno(*new_reno),
        }
    }

    /// The chosen algorithm, at its beginning.
    pub(crate) const fn new(choice: CongestionControl) -> Self {
        match choice {
            CongestionControl::Cubic => Self::Cubic(Cubic::new()),
            CongestionControl::NewReno => Self::NewReno(NewReno::new()),
        }
    }

    /// The algorithm.
    pub(crate) fn controller(&mut self) -> &mut dyn Controller {
        match self {
            Self::Cubic(cubic) => cubic,
            Self::NewReno(new_reno) => new_reno,
        }
    }
}

impl Window {
    /// RFC 6928, section 2: ten segments, at most 14,600 bytes or two segments if those are more.
    pub(crate) fn initial(mss: u32) -> Self {
        Self {
            cwnd: (10 * mss).min((2 * mss).max(14_600)),
            ssthresh: u32::MAX >> 1,
        }
    }

    /// Whether the window is below its threshold.
    pub(crate) const fn in_slow_start(self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Slow start (RFC 5681, section 3.1, with appropriate byte counting of RFC 3465, L = 2 for each
    /// segment that is acknowledged alone); gives the bytes that are left beyond the threshold.
    fn slow_start(&mut self, bytes: u32) -> u32 {
        let grown = self.cwnd.saturating_add(bytes).min(self.ssthresh);
        let used = grown - self.cwnd;
        self.cwnd = grown;
        bytes - used
    }
}
