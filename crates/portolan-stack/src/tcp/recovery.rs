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
    Loss { until: SeqNum },
}

/// Proportional rate reduction (RFC 6937).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reduction {
    /// RecoverFS: bytes in flight when it began.
    start: u32,
    /// prr_delivered.
    delivered: u32,
    /// prr_out.
    sent: u32,
}

impl Reduction {
    /// Begins with this much in flight.
    pub(super) fn new(in_flight: u32) -> Self {
        Self {
            start: in_flight.max(1),
            delivered: 0,
            sent: 0,
        }
    }

    /// Notes bytes sent during recovery.
    pub(super) fn on_sent(&mut self, bytes: u32) {
        self.sent = self.sent.saturating_add(bytes);
    }

    /// The congestion window after an acknowledgment that delivered `delivered` bytes. `progress` says that
    /// it moved SND.UNA and showed no new loss.
    pub(super) fn window(
        &mut self,
        delivered: u32,
        pipe: u32,
        ssthresh: u32,
        mss: u32,
        progress: bool,
    ) -> u32 {
        self.delivered = self.delivered.saturating_add(delivered);
        let may_send = if pipe > ssthresh {
            // Section 3: in proportion.
            let share = u64::from(self.delivered) * u64::from(ssthresh);
            (share.div_ceil(u64::from(self.start)) as u32).saturating_sub(self.sent)
        } else {
            // Section 3: conservative reduction bound, or with progress the slow start one (as RFC 9937 asks).
            let missing = self.delivered.saturating_sub(self.sent);
            let limit = if progress {
                missing.max(delivered) + mss
            } else {
                missing
            };
            limit.min(ssthresh - pipe)
        };
        // The first retransmission goes out whatever the pipe.
        let least = if self.sent == 0 { mss } else { 0 };
        pipe.saturating_add(may_send.max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6937, section 4, the first example: 20 segments in flight, the first is lost, CUBIC's 0.7 here 10.
    #[test]
    fn sends_one_for_two_delivered_when_the_window_is_halved() {
        let mut reduction = Reduction::new(20);
        let (mut pipe, mut sent) = (19, 0);
        for _ in 0..19 {
            pipe -= 1;
            let window = reduction.window(1, pipe, 10, 1, false);
            while pipe < window {
                pipe += 1;
                sent += 1;
                reduction.on_sent(1);
            }
        }
        assert_eq!((pipe, sent), (10, 10));
    }

    #[test]
    fn fills_the_pipe_again_after_many_losses() {
        // Of 20 in flight 15 are lost: the pipe is below the threshold and may grow by one for each
        // acknowledgment that makes progress.
        let mut reduction = Reduction::new(20);
        assert_eq!(reduction.window(1, 4, 10, 1, true), 6);
        reduction.on_sent(2);
        assert_eq!(reduction.window(1, 5, 10, 1, true), 7);
        assert_eq!(reduction.window(0, 5, 10, 1, false), 5);
    }
}
