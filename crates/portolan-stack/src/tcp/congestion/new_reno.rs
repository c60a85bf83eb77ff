use super::{Acked, Controller, Window};
use crate::Duration;

/// Additive increase, multiplicative decrease (RFC 5681).
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewReno {
    /// Bytes acknowledged since the window last grew.
    acked: u32,
}

impl NewReno {
    pub(crate) const fn new() -> Self {
        Self { acked: 0 }
    }
}

impl Controller for NewReno {
    fn on_ack(&mut self, window: &mut Window, acked: Acked) {
        let bytes = if window.in_slow_start() {
            window.slow_start(acked.bytes)
        } else {
            acked.bytes
        };
        // RFC 5681, section 3.1: one segment for each window of data.
        self.acked = self.acked.saturating_add(bytes);
        if self.acked >= window.cwnd {
            self.acked -= window.cwnd;
            window.cwnd = window.cwnd.saturating_add(acked.mss);
        }
    }

    fn on_congestion(&mut self, window: Window, mss: u32) -> u32 {
        self.acked = 0;
        (window.cwnd / mss / 2).max(2) * mss
    }

    fn on_idle(&mut self, _idle: Duration) {
        self.acked = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Instant;

    const MSS: u32 = 1000;

    fn ack(bytes: u32) -> Acked {
        Acked {
            now: Instant::START,
            bytes,
            rtt: Duration::from_millis(10),
            mss: MSS,
        }
    }

    #[test]
    fn doubles_then_adds_a_segment_for_each_window() {
        let mut reno = NewReno::new();
        let mut window = Window {
            cwnd: 10 * MSS,
            ssthresh: 20 * MSS,
        };
        for _ in 0..10 {
            reno.on_ack(&mut window, ack(MSS));
        }
        assert_eq!(window.cwnd, 20 * MSS);
        for _ in 0..20 {
            reno.on_ack(&mut window, ack(MSS));
        }
        assert_eq!(window.cwnd, 21 * MSS);
        assert_eq!(reno.on_congestion(window, MSS), 10 * MSS);
    }
}
