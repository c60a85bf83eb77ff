//! Round-trip time and retransmission timeout (RFC 6298).

use crate::Duration;

/// RFC 6298, section 2.1: 1 second before the first measurement.
const INITIAL_RTO: Duration = Duration::from_secs(1);
/// RFC 6298, section 2.4 wants 1 second; Linux takes 200 ms, and so does nearly every peer.
const MIN_RTO: Duration = Duration::from_millis(200);
/// RFC 6298, section 2.5: at least 60 seconds; Linux's limit.
const MAX_RTO: Duration = Duration::from_secs(120);

/// What is known of the path's round-trip time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RttEstimator {
    smoothed: Option<Duration>,
    variation: Duration,
    minimum: Duration,
    rto: Duration,
    /// How often the timeout was doubled since the last measurement.
    backoff: u8,
}

/// An estimator that waits, in whole microseconds, rounded up.
#[derive(Clone, Copy, Debug)]
pub(super) struct RttAtRest {
    /// [`UNKNOWN`] before the first measurement.
    smoothed: u32,
    variation: u32,
    minimum: u32,
    rto: u32,
    backoff: u8,
}

const UNKNOWN: u32 = u32::MAX;

impl RttEstimator {
    /// What waits.
    pub(super) fn rest(&self) -> RttAtRest {
        // A time of more than 71 minutes is no round trip.
        let micros = |time: Duration| time.as_nanos().div_ceil(1000).min(u64::from(UNKNOWN - 1)) as u32;
        RttAtRest {
            smoothed: self.smoothed.map_or(UNKNOWN, micros),
            variation: micros(self.variation),
            minimum: micros(self.minimum),
            rto: micros(self.rto),
            backoff: self.backoff,
        }
    }

    /// The estimator that waited.
    pub(super) fn wake(rest: &RttAtRest) -> Self {
        let known = rest.smoothed != UNKNOWN;
        let time = |micros: u32| Duration::from_micros(u64::from(micros));
        Self {
            smoothed: known.then(|| time(rest.smoothed)),
            variation: time(rest.variation),
            minimum: if known {
                time(rest.minimum)
            } else {
                Duration::from_nanos(u64::MAX)
            },
            rto: time(rest.rto),
            backoff: rest.backoff,
        }
    }

    /// Nothing is known.
    pub(crate) const fn new() -> Self {
        Self {
            smoothed: None,
            variation: Duration::ZERO,
            minimum: Duration::from_nanos(u64::MAX),
            rto: INITIAL_RTO,
            backoff: 0,
        }
    }

    /// Takes a measurement of a segment that was not retransmitted, or whose timestamp tells (Karn).
    pub(crate) fn measure(&mut self, rtt: Duration) {
        self.minimum = self.minimum.min(rtt);
        let smoothed = match self.smoothed {
            // Section 2.2.
            None => {
                self.variation = rtt / 2;
                rtt
            }
            // Section 2.3, alpha = 1/8 and beta = 1/4.
            Some(smoothed) => {
                let difference = smoothed.max(rtt) - smoothed.min(rtt);
                self.variation = self.variation - self.variation / 4 + difference / 4;
                smoothed - smoothed / 8 + rtt / 8
            }
        };
        self.smoothed = Some(smoothed);
        // Linux bounds the variation's part from below, not the sum, so that a path of 300 ms without
        // jitter has an RTO of 500 ms and a late acknowledgment no spurious retransmission.
        self.rto = (smoothed + (self.variation * 4).max(MIN_RTO)).min(MAX_RTO);
        self.backoff = 0;
    }

    /// Doubles the timeout after one that ran out (section 5.5).
    pub(crate) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// Takes one doubling back; `false` if there is none.
    pub(crate) fn undo_back_off(&mut self) -> bool {
        let Some(backoff) = self.backoff.checked_sub(1) else {
            return false;
        };
        self.backoff = backoff;
        true
    }

    /// Takes the doubling back: the path answers again.
    pub(crate) fn forget_backoff(&mut self) {
        self.backoff = 0;
    }

    /// Section 5.7: a SYN that had to be repeated leaves 3 seconds until the first measurement.
    pub(crate) fn after_lost_syn(&mut self) {
        if self.smoothed.is_none() {
            self.rto = Duration::from_secs(3);
        }
        self.backoff = 0;
    }

    /// The timeout with its doublings.
    pub(crate) fn rto(&self) -> Duration {
        (self.rto * (1u32 << self.backoff.min(16))).min(MAX_RTO)
    }

    /// The timeout without its doublings.
    pub(crate) const fn without_back_off(&self) -> Duration {
        self.rto
    }

    /// How often the timeout is doubled.
    pub(crate) const fn backoff(&self) -> u8 {
        self.backoff
    }

    /// SRTT, once there was a measurement.
    pub(crate) const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// RTTVAR.
    pub(crate) const fn variation(&self) -> Duration {
        self.variation
    }

    /// The least round-trip time seen.
    pub(crate) const fn minimum(&self) -> Option<Duration> {
        match self.smoothed {
            Some(_) => Some(self.minimum),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_formulas() {
        let mut rtt = RttEstimator::new();
        assert_eq!(rtt.rto(), Duration::from_secs(1));
        rtt.measure(Duration::from_millis(400));
        assert_eq!(
            (rtt.smoothed(), rtt.rto()),
            (Some(Duration::from_millis(400)), Duration::from_millis(1200))
        );
        rtt.measure(Duration::from_millis(800));
        // SRTT = 7/8 * 400 + 1/8 * 800; RTTVAR = 3/4 * 200 + 1/4 * 400.
        assert_eq!(
            (rtt.smoothed(), rtt.variation()),
            (Some(Duration::from_millis(450)), Duration::from_millis(250))
        );
        assert_eq!(rtt.minimum(), Some(Duration::from_millis(400)));
    }

    #[test]
    fn doubles_up_to_the_limit_and_starts_again_with_a_measurement() {
        let mut rtt = RttEstimator::new();
        rtt.measure(Duration::from_millis(10));
        assert_eq!(rtt.rto(), Duration::from_millis(210));
        rtt.back_off();
        assert_eq!(rtt.rto(), Duration::from_millis(420));
        for _ in 0..300 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), Duration::from_secs(120));
        rtt.measure(Duration::from_millis(10));
        assert_eq!(rtt.rto(), Duration::from_millis(210));
    }
}
