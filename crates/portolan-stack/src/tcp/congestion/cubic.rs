use super::{Acked, Controller, Window};
use crate::{Duration, Instant};

/// RFC 9438, section 4.6: what is left of the window after congestion.
const BETA: f64 = 0.7;
/// RFC 9438, section 5: how fast the window grows, in segments for each cubic second.
const C: f64 = 0.4;

/// CUBIC (RFC 9438): the window follows a cubic curve through the size at which it last met congestion.
#[derive(Debug)]
pub(crate) struct Cubic {
    /// W_max, in segments: the window when congestion was met.
    w_max: f64,
    /// When this climb began, and the window then in segments; `None` until the first acknowledgment after
    /// congestion.
    epoch: Option<Epoch>,
    /// Bytes acknowledged and not yet turned into window.
    credit: f64,
}

#[derive(Debug)]
struct Epoch {
    start: Instant,
    /// K, in seconds: how long the climb to W_max takes.
    k: f64,
    /// Where the curve is level, in segments.
    origin: f64,
    /// W_est, in segments: the window that NewReno would have.
    w_est: f64,
}

impl Cubic {
    pub(crate) const fn new() -> Self {
        Self {
            w_max: 0.0,
            epoch: None,
            credit: 0.0,
        }
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
        // Section 4.3: W_est grows as NewReno with the same average window would: alpha is 1 from W_max on.
        let alpha = if epoch.w_est >= self.w_max {
            1.0
        } else {
            3.0 * (1.0 - BETA) / (1.0 + BETA)
        };
        epoch.w_est += alpha * f64::from(bytes) / mss / cwnd;
        // Section 4.2: the target is the curve one round trip ahead, between the window and 1.5 times it.
        let t = seconds(acked.now.since(epoch.start) + acked.rtt) - epoch.k;
        let target = (C * t * t * t + epoch.origin).clamp(cwnd, 1.5 * cwnd);
        // Sections 4.3 to 4.5: whichever is more; the curve is approached over one window of data.
        let per_segment = ((target - cwnd) / cwnd).max((epoch.w_est - cwnd) * mss / f64::from(bytes));
        self.credit += per_segment * f64::from(bytes);
        if self.credit >= mss {
            let segments = (self.credit / mss).floor();
            self.credit -= segments * mss;
            window.cwnd = window.cwnd.saturating_add((segments * mss) as u32);
        }
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
        ((f64::from(window.cwnd) * BETA) as u32).max(2 * mss)
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
            now += Duration::from_millis(1);
            for _ in 0..window.cwnd / MSS {
                let acked = Acked {
                    now,
                    bytes: MSS,
                    rtt: Duration::from_millis(1),
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
