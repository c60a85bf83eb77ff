//! The phases of a sender: whether it grows, recovers from losses, or starts anew after a timeout.

use portolan_core::wire::SeqNum;

/// Where the sender stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is wrong: the window grows.
    Open,
    /// Losses, or marks of congestion, of one window of data: the window shrinks by proportional rate reduction
    /// until `until` is acknowledged.
    Recovery { until: SeqNum, reduction: Reduction },
    /// The retransmission timer fired: slow start from one segment until `until` is acknowledged.
    Loss { until: SeqNum, forward: Forward },
}

/// Whether a timeout may still turn out to be wrong by what arrives next: Forward RTO-Recovery (RFC 5682).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forward {
    /// No more: what was given for lost is sent again.
    Off,
    /// If data arrives that was sent only once, nothing was lost.
    Asks,
    /// The first acknowledgment came, and new data goes before anything is sent again.
    SendsNew,
}

impl Phase {
    /// Where a recovery ends.
    pub(super) fn until(&self) -> Option<SeqNum> {
        match *self {
            Self::Open => None,
            Self::Recovery { until, .. } | Self::Loss { until, .. } => Some(until),
        }
    }
}

/// Proportional rate reduction (RFC 6937), counted in segments: half a segment is never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reduction {
    /// The window when it began, in the place of RecoverFS, as Linux has it.
    start: u32,
    /// prr_delivered.
    delivered: u32,
    /// prr_out.
    sent: u32,
}

impl Reduction {
    /// Begins with this window, in bytes.
    pub(super) fn new(cwnd: u32, mss: u32) -> Self {
        Self {
            start: (cwnd / mss).max(1),
            delivered: 0,
            sent: 0,
        }
    }

    /// Notes bytes sent during recovery.
    pub(super) fn on_sent(&mut self, bytes: u32, mss: u32) {
        self.sent = self.sent.saturating_add(bytes.div_ceil(mss));
    }

    /// The congestion window after an acknowledgment that delivered `delivered` bytes, at least one. `progress` says that
    /// it moved SND.UNA and showed no new loss.
    pub(super) fn window(
        &mut self,
        delivered: u32,
        pipe: u32,
        ssthresh: u32,
        mss: u32,
        progress: bool,
    ) -> u32 {
        let newly = delivered.div_ceil(mss);
        self.delivered = self.delivered.saturating_add(newly);
        let (in_pipe, ssthresh) = (pipe.div_ceil(mss), ssthresh / mss);
        let may_send = if in_pipe > ssthresh {
            // Section 3: in proportion.
            let share = u64::from(self.delivered) * u64::from(ssthresh);
            (share.div_ceil(u64::from(self.start)) as u32).saturating_sub(self.sent)
        } else {
            // Section 3: conservative reduction bound, or with progress the slow start one (as RFC 9937 asks).
            let missing = self.delivered.saturating_sub(self.sent).max(newly);
            (missing + u32::from(progress)).min(ssthresh - in_pipe)
        };
        // The first retransmission goes out whatever the pipe.
        let least = u32::from(self.sent == 0);
        pipe.saturating_add(may_send.max(least) * mss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6937, section 4, the first example: 20 segments in flight, the first is lost, CUBIC's 0.7 here 10.
    #[test]
    fn sends_one_for_two_delivered_when_the_window_is_halved() {
        let mut reduction = Reduction::new(20, 1);
        let (mut pipe, mut sent) = (19, 0);
        for _ in 0..19 {
            pipe -= 1;
            let window = reduction.window(1, pipe, 10, 1, false);
            while pipe < window {
                pipe += 1;
                sent += 1;
                reduction.on_sent(1, 1);
            }
        }
        assert_eq!((pipe, sent), (10, 10));
    }

    #[test]
    fn fills_the_pipe_again_after_many_losses() {
        // Of 20 in flight 15 are lost: the pipe is below the threshold and may grow by one for each
        // acknowledgment that makes progress.
        let mut reduction = Reduction::new(20, 1);
        assert_eq!(reduction.window(1, 4, 10, 1, true), 6);
        reduction.on_sent(2, 1);
        assert_eq!(reduction.window(1, 5, 10, 1, true), 7);
        assert_eq!(reduction.window(1, 8, 10, 1, false), 9);
        // Half a segment is a segment.
        let mut reduction = Reduction::new(10_000, 1000);
        assert_eq!(reduction.window(1000, 9000, 7000, 1000, false), 10_000);
    }
}
