//! A timer runs out.

use super::State;
use super::connection::{CloseReason, Connection, Cx, Traits, Wanted};
use super::recovery::Phase;
use super::scoreboard::Fate;
use super::timers::Timer;
use crate::Duration;

impl Connection {
    /// Does what is due. Call it when [`Connection::next_timeout`] has come; earlier calls do nothing.
    pub(crate) fn expire(&mut self, cx: &mut Cx<'_>) {
        while let Some(timer) = self.timers.pop_expired(cx.now) {
            match timer {
                Timer::Retransmit => self.retransmission_timeout(cx),
                Timer::TailLoss => self.tail_loss_timeout(cx),
                Timer::Reorder => self.reorder_timeout(cx),
                Timer::Persist => self.persist_timeout(cx),
                Timer::DelayedAck => self.want_urgent_ack(),
                Timer::Keepalive => self.keepalive_timeout(cx),
                // The next poll_transmit finds the time come.
                Timer::Pace => {}
                Timer::Linger => self.end(cx, CloseReason::Finished),
            }
        }
    }

    /// RFC 6298, section 5.4 to 5.7, and RFC 8985, section 6.3.
    fn retransmission_timeout(&mut self, cx: &mut Cx<'_>) {
        let handshake = matches!(self.state, State::SynSent | State::SynReceived);
        let most = if handshake {
            cx.config.syn_retries
        } else {
            cx.config.retries
        };
        if self.attempts >= most || self.is_past_user_timeout(cx) {
            self.end(cx, CloseReason::TimedOut);
            return;
        }
        self.attempts += 1;
        self.rtt.back_off();
        self.timers.arm(Timer::Retransmit, cx.now + self.rtt.rto());
        if handshake {
            self.wanted |= Wanted::SYN;
            return;
        }
        let Some(first) = self.board.first() else {
            return;
        };
        let (first_seq, reneged) = (first.seq, first.fate == Fate::Sacked);
        if reneged {
            // RFC 2018, section 8: the peer had the first segment and has it no more.
            self.board.forget_sacks();
        }
        if !matches!(self.phase, Phase::Loss { .. }) {
            self.reduce();
        }
        let (now, rack, rtt) = (cx.now, &self.rack, &self.rtt);
        let by_time = self.traits.contains(Traits::SACK) && !reneged;
        self.board
            .mark_lost(|entry| Some(entry.seq == first_seq || !by_time || rack.is_overdue(entry, now, rtt)));
        self.phase = Phase::Loss { until: self.snd_nxt };
        // RFC 5681, section 3.1: the loss window is one segment.
        self.window.cwnd = u32::from(self.snd_mss);
        self.duplicates = 0;
        self.tail_probe = None;
        self.wanted -= Wanted::TAIL_LOSS_PROBE;
        self.timers.cancel(Timer::TailLoss);
        self.timers.cancel(Timer::Reorder);
    }

    /// RFC 8985, section 7.3.
    fn tail_loss_timeout(&mut self, cx: &Cx<'_>) {
        let fits = self.phase == Phase::Open && self.tail_probe.is_none() && !self.board.is_empty();
        if fits {
            self.wanted |= Wanted::TAIL_LOSS_PROBE;
            self.timers.arm(Timer::Retransmit, cx.now + self.rtt.rto());
        }
    }

    fn reorder_timeout(&mut self, cx: &Cx<'_>) {
        self.detect_losses(cx);
        if self.board.lost() > 0 && self.phase == Phase::Open {
            self.enter_recovery();
            // Nothing was delivered just now, but the first retransmission may go.
            self.window.cwnd = self.in_flight() + u32::from(self.snd_mss);
        }
    }

    /// RFC 9293, section 3.8.6.1: the peer may keep its window shut for ever, as long as it answers.
    fn persist_timeout(&mut self, cx: &mut Cx<'_>) {
        if !self.board.is_empty() {
            return;
        }
        if self.attempts >= cx.config.retries {
            self.end(cx, CloseReason::TimedOut);
            return;
        }
        self.attempts += 1;
        self.rtt.back_off();
        self.wanted |= if self.snd_wnd > 0 {
            Wanted::PARTIAL
        } else {
            Wanted::PROBE
        };
        self.timers.arm(Timer::Persist, cx.now + self.rtt.rto());
    }

    /// RFC 9293, section 3.8.4.
    fn keepalive_timeout(&mut self, cx: &mut Cx<'_>) {
        let Some(keepalive) = cx.config.keepalive else {
            return;
        };
        let idle = cx.now.since(self.last_heard);
        if idle < keepalive.idle && self.keepalive_probes == 0 {
            self.timers
                .arm(Timer::Keepalive, self.last_heard + keepalive.idle);
            return;
        }
        if !self.board.is_empty() {
            // The retransmission timer looks after data in flight.
            self.timers.arm(Timer::Keepalive, cx.now + keepalive.idle);
            return;
        }
        if self.keepalive_probes >= keepalive.probes {
            self.end(cx, CloseReason::TimedOut);
            return;
        }
        self.keepalive_probes += 1;
        self.wanted |= Wanted::PROBE;
        self.timers.arm(Timer::Keepalive, cx.now + keepalive.interval);
    }

    fn is_past_user_timeout(&self, cx: &Cx<'_>) -> bool {
        let waited: Duration = cx.now.since(self.progress_at);
        cx.config.user_timeout.is_some_and(|limit| waited >= limit)
    }
}
