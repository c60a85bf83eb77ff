//! HyStart: leaving slow start before the path overflows, by its delay and by the length of trains of acknowledgments,
//! as Linux's CUBIC does (an ancestor of RFC 9406).

use portolan_core::wire::SeqNum;

use super::{Sample, Window};
use crate::{Duration, Instant};

/// Below so many segments a window is too small to say anything.
const LOW_WINDOW: u32 = 16;
/// A round's delay counts after so many samples.
const MIN_SAMPLES: u8 = 8;
/// By how much the delay of a round must exceed the least, at least and at most.
const LEAST_INCREASE: Duration = Duration::from_millis(4);
const MOST_INCREASE: Duration = Duration::from_millis(16);
/// Acknowledgments closer than this are of one train.
const TRAIN_GAP: Duration = Duration::from_millis(2);

/// What is known of the present round.
#[derive(Clone, Copy, Debug)]
pub(super) struct HyStart {
    /// SND.NXT when the round began: it ends when that is acknowledged.
    end: Option<SeqNum>,
    start: Instant,
    last_ack: Instant,
    /// The least of the round's samples, and how many of them were counted.
    least: Duration,
    samples: u8,
    /// Whether the end of slow start was found.
    found: bool,
}

impl HyStart {
    pub(super) const fn new() -> Self {
        Self {
            end: None,
            start: Instant::START,
            last_ack: Instant::START,
            least: Duration::from_nanos(u64::MAX),
            samples: 0,
            found: false,
        }
    }

    /// Takes a measurement; sets the threshold to the window when slow start is to end.
    pub(super) fn on_sample(&mut self, window: &mut Window, sample: &Sample) {
        if self.found || !window.in_slow_start() {
            return;
        }
        if self.end.is_none_or(|end| sample.una.after(end)) {
            *self = Self {
                end: Some(sample.nxt),
                start: sample.now,
                last_ack: sample.now,
                ..Self::new()
            };
        }
        if window.cwnd < LOW_WINDOW * sample.mss {
            return;
        }
        if sample.now.since(self.last_ack) <= TRAIN_GAP {
            self.last_ack = sample.now;
            // A train that is half a round trip long fills the path.
            let threshold = (sample.least + sample.burst_time()) / 2;
            self.found |= sample.now.since(self.start) > threshold;
        }
        self.least = self.least.min(sample.rtt);
        if self.samples < MIN_SAMPLES {
            self.samples += 1;
        } else {
            let increase = (sample.least / 8).max(LEAST_INCREASE).min(MOST_INCREASE);
            self.found |= self.least > sample.least + increase;
        }
        if self.found {
            window.ssthresh = window.cwnd;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    /// A round in which each acknowledgment comes `gap` after the one before and took `rtt`.
    fn round(rtt: Duration, gap: Duration) -> Window {
        let mut window = Window {
            cwnd: 20 * MSS,
            ssthresh: u32::MAX >> 1,
        };
        let mut hystart = HyStart::new();
        let least = Duration::from_millis(100);
        for count in 0..9 {
            hystart.on_sample(
                &mut window,
                &Sample {
                    now: Instant::from_millis(1000) + gap * count,
                    rtt,
                    least,
                    una: SeqNum::new(1 + count),
                    nxt: SeqNum::new(1000),
                    mss: MSS,
                    pace: None,
                },
            );
        }
        window
    }

    #[test]
    fn a_longer_delay_ends_slow_start_at_the_ninth_sample() {
        let gap = Duration::from_millis(5);
        assert_eq!(round(Duration::from_millis(120), gap).ssthresh, 20 * MSS);
        assert_eq!(round(Duration::from_millis(110), gap).ssthresh, u32::MAX >> 1);
    }

    #[test]
    fn a_train_of_half_a_round_trip_ends_slow_start() {
        let rtt = Duration::from_millis(100);
        assert_eq!(
            round(rtt, Duration::from_millis(2)).ssthresh,
            u32::MAX >> 1,
            "16 ms long"
        );
        let mut window = Window {
            cwnd: 20 * MSS,
            ssthresh: u32::MAX >> 1,
        };
        let mut hystart = HyStart::new();
        for count in 0..30 {
            let sample = Sample {
                now: Instant::from_millis(1000 + 2 * count),
                rtt,
                least: rtt,
                una: SeqNum::new(1),
                nxt: SeqNum::new(1000),
                mss: MSS,
                pace: None,
            };
            hystart.on_sample(&mut window, &sample);
        }
        assert_eq!(window.ssthresh, 20 * MSS, "58 ms long");
    }
}
