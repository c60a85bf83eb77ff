use super::hystart::HyStart;
use super::{Acked, Controller, Sample, Window};
use crate::{Duration, Instant};

/// RFC 9438, section 4.6: what is left of the window after congestion.
const BETA: f64 = 0.7;
/// RFC 9438, section 5: how fast the window grows, in segments for each cubic second.
const C: f64 = 0.4;

/// CUBIC (RFC 9438): the window follows a cubic curve through the size at which it last met congestion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cubic {
    /// W_max, in segments: the window when congestion was met.
    w_max: f64,
    /// When this climb began, and the window then in segments; `None` until the first acknowledgment after
    /// congestion.
    epoch: Option<Epoch>,
    /// Segments acknowledged and not yet turned into window.
    credit: f64,
    /// How many acknowledged segments open the window by one, when that was worked out, and for which window.
    count: f64,
    counted_at: Instant,
    counted_for: u32,
    hystart: HyStart,
}

/// The curve is looked at no more often than this, as in Linux.
const LOOK_INTERVAL: Duration = Duration::from_nanos(31_250_000);
/// As long as W_max is not known, the window opens by 5 % a round trip at least.
const SLOWEST_SEARCH: f64 = 20.0;

#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// K, in seconds: how long the climb to W_max takes.
    k: f64,
    /// Where the curve is level, in segments.
    origin: f64,
    /// W_est, in segments: the window that NewReno would have.
    w_est: f64,
}

/// A curve that waits, in single precision: a ten-millionth of the window is no matter.
#[derive(Debug)]
pub(crate) struct CubicAtRest {
    w_max: f32,
    credit: f32,
    /// Nanoseconds, in halves: low, high. `None` between congestion and the first acknowledgment.
    start: Option<[u32; 2]>,
    k: f32,
    origin: f32,
    w_est: f32,
}

impl Cubic {
    /// What waits.
    pub(super) fn rest(&self) -> CubicAtRest {
        let of_epoch =
            |value: fn(&Epoch) -> f64| self.epoch.as_ref().map_or(0.0, |epoch| value(epoch) as f32);
        let start = self.epoch.as_ref().map(|epoch| {
            let nanos = epoch.start.as_nanos();
            [nanos as u32, (nanos >> 32) as u32]
        });
        CubicAtRest {
            w_max: self.w_max as f32,
            credit: self.credit as f32,
            start,
            k: of_epoch(|epoch| epoch.k),
            origin: of_epoch(|epoch| epoch.origin),
            w_est: of_epoch(|epoch| epoch.w_est),
        }
    }

    /// The curve that waited.
    pub(super) fn wake(rest: &CubicAtRest) -> Self {
        Self {
            w_max: f64::from(rest.w_max),
            credit: f64::from(rest.credit),
            count: SLOWEST_SEARCH,
            counted_at: Instant::START,
            counted_for: 0,
            hystart: HyStart::new(),
            epoch: rest.start.map(|[low, high]| Epoch {
                start: Instant::from_nanos(u64::from(high) << 32 | u64::from(low)),
                k: f64::from(rest.k),
                origin: f64::from(rest.origin),
                w_est: f64::from(rest.w_est),
            }),
        }
    }

    pub(crate) const fn new() -> Self {
        Self {
            w_max: 0.0,
            epoch: None,
            credit: 0.0,
            count: SLOWEST_SEARCH,
            counted_at: Instant::START,
            counted_for: 0,
            hystart: HyStart::new(),
        }
    }

    /// Works out how many acknowledged segments open the window by one.
    fn look_at_curve(&mut self, cwnd: f64, acked: &Acked) {
        let w_max = self.w_max;
        let epoch = self.epoch.get_or_insert_with(|| {
            // Section 4.2: cwnd_epoch is the present window; if it passed W_max already, the curve starts level.
            let distance = (w_max - cwnd).max(0.0);
            Epoch {
                start: acked.now,
                k: (distance / C).cbrt(),
                origin: w_max.max(cwnd),
                w_est: cwnd,
            }
        });
        // Section 4.2: the target is the curve one round trip ahead, between the window and 1.5 times it.
        let t = seconds(acked.now.since(epoch.start) + acked.rtt) - epoch.k;
        let target = (C * t * t * t + epoch.origin).clamp(cwnd, 1.5 * cwnd);
        self.count = if target > cwnd {
            cwnd / (target - cwnd)
        } else {
            100.0 * cwnd
        };
        if w_max == 0.0 {
            self.count = self.count.min(SLOWEST_SEARCH);
        }
        // Section 4.3: in the region where NewReno is faster, its window is followed, in whole segments.
        let ahead = epoch.w_est.floor() - cwnd;
        if ahead > 0.0 {
            self.count = self.count.min(cwnd / ahead);
        }
        self.count = self.count.max(2.0);
        self.counted_at = acked.now;
    }
}

impl Controller for Cubic {
    fn on_ack(&mut self, window: &mut Window, acked: Acked) {
        let mut bytes = acked.bytes;
        if window.in_slow_start() {
            bytes = window.slow_start(bytes);
            if bytes == 0 {
                return;
            }
        }
        let mss = f64::from(acked.mss);
        let cwnd = f64::from(window.cwnd) / mss;
        let segments = f64::from(bytes) / mss;
        if let Some(epoch) = &mut self.epoch {
            // Section 4.3: W_est grows as NewReno with the same average window would: alpha is 1 from W_max on.
            let alpha = if self.w_max > 0.0 && epoch.w_est >= self.w_max {
                1.0
            } else {
                3.0 * (1.0 - BETA) / (1.0 + BETA)
            };
            epoch.w_est += alpha * segments / cwnd;
        }
        let is_recent = acked.now.since(self.counted_at) <= LOOK_INTERVAL;
        if self.epoch.is_none() || self.counted_for != window.cwnd || !is_recent {
            self.look_at_curve(cwnd, &acked);
            self.counted_for = window.cwnd;
        }
        if self.credit >= self.count {
            // Saved up while the window was to open slower: one segment, not all at once.
            self.credit = 0.0;
            window.cwnd = window.cwnd.saturating_add(acked.mss);
        }
        self.credit += segments;
        if self.credit >= self.count {
            let steps = (self.credit / self.count).floor();
            self.credit -= steps * self.count;
            window.cwnd = window.cwnd.saturating_add(steps as u32 * acked.mss);
        }
    }

    fn on_sample(&mut self, window: &mut Window, sample: &Sample) {
        // What comes right after a recovery says nothing of the path's delay.
        let is_fresh = self
            .epoch
            .as_ref()
            .is_some_and(|epoch| sample.now.since(epoch.start) < Duration::from_secs(1));
        if !is_fresh {
            self.hystart.on_sample(window, sample);
        }
    }

    fn on_timeout(&mut self) {
        *self = Self::new();
    }

    fn on_congestion(&mut self, window: Window, mss: u32) -> u32 {
        let cwnd = f64::from(window.cwnd) / f64::from(mss);
        // Section 4.7, fast convergence: a flow that meets congestion earlier than last time makes room.
        self.w_max = if cwnd < self.w_max {
            cwnd * (1.0 + BETA) / 2.0
        } else {
            cwnd
        };
        self.epoch = None;
        self.credit = 0.0;
        (((window.cwnd / mss) as f64 * BETA + 1e-9) as u32).max(2) * mss
    }

    fn on_idle(&mut self, idle: Duration) {
        // The curve must not climb while nothing is sent.
        if let Some(epoch) = &mut self.epoch {
            epoch.start += idle;
        }
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;
    const RTT: Duration = Duration::from_millis(100);

    /// One round trip with the window full.
    fn round(cubic: &mut Cubic, window: &mut Window, now: &mut Instant) {
        *now += RTT;
        for _ in 0..window.cwnd / MSS {
            cubic.on_ack(
                window,
                Acked {
                    now: *now,
                    bytes: MSS,
                    rtt: RTT,
                    mss: MSS,
                },
            );
        }
    }

    #[test]
    fn comes_back_to_the_old_window_after_k_seconds() {
        let mut cubic = Cubic::new();
        let before = Window {
            cwnd: 1000 * MSS,
            ssthresh: 0,
        };
        let ssthresh = cubic.on_congestion(before, MSS);
        assert_eq!(ssthresh, 700 * MSS);
        let mut window = Window {
            cwnd: ssthresh,
            ssthresh,
        };
        let mut now = Instant::START;
        // K = cbrt(1000 * 0.3 / 0.4) = 9.09 seconds.
        for _ in 0..91 {
            round(&mut cubic, &mut window, &mut now);
        }
        let segments = window.cwnd / MSS;
        assert!((985..=1005).contains(&segments), "{segments}");
        for _ in 0..60 {
            round(&mut cubic, &mut window, &mut now);
        }
        // Six seconds beyond: 0.4 * 6³ = 86 more.
        let segments = window.cwnd / MSS;
        assert!((1060..=1100).contains(&segments), "{segments}");
    }

    #[test]
    fn is_no_slower_than_new_reno_on_a_short_path() {
        let mut cubic = Cubic::new();
        let before = Window {
            cwnd: 20 * MSS,
            ssthresh: 0,
        };
        let ssthresh = cubic.on_congestion(before, MSS);
        let mut window = Window {
            cwnd: ssthresh,
            ssthresh,
        };
        let mut now = Instant::START;
        for _ in 0..30 {
            now += Duration::from_millis(10);
            for _ in 0..window.cwnd / MSS {
                let acked = Acked {
                    now,
                    bytes: MSS,
                    rtt: Duration::from_millis(10),
                    mss: MSS,
                };
                cubic.on_ack(&mut window, acked);
            }
        }
        // 30 rounds: 0.53 segments each up to 20, then 1 each: 11 rounds and 19.
        let segments = window.cwnd / MSS;
        assert!((36..=41).contains(&segments), "{segments}");
    }

    #[test]
    fn a_second_congestion_soon_after_makes_room_for_others() {
        let mut cubic = Cubic::new();
        let window = |segments| Window {
            cwnd: segments * MSS,
            ssthresh: 0,
        };
        cubic.on_congestion(window(100), MSS);
        cubic.on_congestion(window(80), MSS);
        assert!((cubic.w_max - 68.0).abs() < 1e-9, "{}", cubic.w_max);
    }
}
