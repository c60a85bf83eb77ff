//! What ICMP says of the path of a connection: errors, and that its segments are too large.

use portolan_core::wire::SeqNum;

use super::State;
use super::connection::{CloseReason, Connection, Cx, TIMESTAMPS_LEN, Traits, Wanted};
use super::recovery::{Forward, Phase};
use super::timers::Timer;
use crate::PathError;

/// The largest threshold of slow start means that none was learnt.
const NO_THRESHOLD: u32 = u32::MAX >> 1;

impl Connection {
    /// Whether a quoted segment with this number may be in the network (RFC 5927, section 4.1). The end counts, as
    /// in Linux: it is the number of a bare acknowledgment.
    pub(crate) fn may_be_ours(&self, seq: SeqNum) -> bool {
        seq.at_or_after(self.snd_una) && seq.at_or_before(self.snd_nxt)
    }

    /// Takes an error about a segment of ours that begins at `seq`.
    ///
    /// As in Linux it ends an attempt to connect, and of a connection it is only remembered, for the case that
    /// the connection times out: errors of the moment are no reason to end it (RFC 1122, section 4.2.3.9), and of
    /// those that claim more too many are wrong. A half-open connection of a listener ends by some of them.
    pub(crate) fn take_error(&mut self, cx: &mut Cx<'_>, seq: SeqNum, error: PathError) {
        match self.state {
            State::SynSent => self.end(cx, refusal(error)),
            State::SynReceived if self.is_active() => self.end(cx, refusal(error)),
            State::SynReceived => {
                let ends = match error {
                    PathError::NetworkUnreachable | PathError::HostUnreachable => true,
                    PathError::TimeExceeded | PathError::ParameterProblem => true,
                    // ICMPv6 only.
                    PathError::Prohibited => true,
                    _ => false,
                };
                if ends {
                    self.end(cx, refusal(error));
                }
            }
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => {
                self.soft_error = Some(error);
                if matches!(error, PathError::NetworkUnreachable | PathError::HostUnreachable) {
                    self.revert_back_off(seq);
                }
            }
            State::TimeWait | State::Closed => {}
        }
    }

    /// The most that the path takes of a segment, options included, has changed (RFC 1191, section 6.5).
    ///
    /// What is in flight and too large is lost: it is sent again at once. That is no congestion, so the window
    /// keeps its number of segments (RFC 1191, section 6.5; Linux's `tcp_simple_retransmit`).
    pub(crate) fn set_path_mss(&mut self, path_mss: u16) {
        let options = if self.traits.contains(Traits::TIMESTAMPS) {
            TIMESTAMPS_LEN
        } else {
            0
        };
        self.path_mss = path_mss;
        let mss = self.peer_mss.min(path_mss) - options;
        let before = std::mem::replace(&mut self.snd_mss, mss);
        if mss >= before {
            return;
        }
        let in_segments = |bytes: u32| bytes / u32::from(before) * u32::from(mss);
        self.window.cwnd = in_segments(self.window.cwnd).max(u32::from(mss));
        if self.window.ssthresh < NO_THRESHOLD {
            self.window.ssthresh = in_segments(self.window.ssthresh).max(2 * u32::from(mss));
        }
        if !self.state.is_synchronized() {
            return;
        }
        let data_end = self.data_end();
        let any = self
            .board
            .mark_lost(|sent| Some(sent.first_end().earlier(data_end).since(sent.seq) > i32::from(mss)));
        if !any {
            return;
        }
        if !matches!(self.phase, Phase::Loss { .. }) {
            // Not more than what was in the network: the window may have been open wider than it was used.
            self.window.ssthresh = self.window.ssthresh.min(self.window.cwnd);
        }
        self.undo = None;
        self.phase = Phase::Loss {
            until: self.snd_nxt,
            forward: Forward::Off,
        };
        self.duplicates = 0;
        self.tail_probe = None;
        self.wanted -= Wanted::TAIL_LOSS_PROBE;
        self.timers.cancel(Timer::TailLoss);
        self.timers.cancel(Timer::Reorder);
    }

    /// Whether the path, and not the link, limits segments.
    pub(crate) const fn is_path_limited(&self) -> bool {
        self.path_mss < self.link_mss
    }

    /// RFC 6069: the network says that the segment did not get through because a link is down, so the doubling of
    /// the timeout, which is for congestion, is taken back.
    fn revert_back_off(&mut self, seq: SeqNum) {
        let Some(first) = self.board.first() else {
            return;
        };
        if seq != self.snd_una || self.attempts == 0 || !self.rtt.undo_back_off() {
            return;
        }
        let due = first.at + self.rtt.rto();
        self.timers.arm(Timer::Retransmit, due);
    }
}

/// Why a connection ends that an error of the path ends.
fn refusal(error: PathError) -> CloseReason {
    match error {
        PathError::PortUnreachable => CloseReason::Refused,
        error => CloseReason::Unreachable(error),
    }
}
