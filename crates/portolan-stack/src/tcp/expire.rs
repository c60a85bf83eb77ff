//! A timer runs out.

use super::State;
use super::connection::{CloseReason, Connection, Cx, Traits, Wanted};
use super::recovery::{Forward, Phase};
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
        let most = match self.state {
            State::SynSent => cx.config.syn_retries,
            State::SynReceived => cx.config.syn_ack_retries,
            _ => cx.config.retries,
        };
        if self.attempts >= most || self.is_past_user_timeout(cx) {
            self.give_up(cx);
            return;
        }
        let is_repeated = self.attempts > 0;
        self.attempts += 1;
        self.count(|counts| counts.timeouts += 1);
        self.rtt.back_off();
        self.timers.arm(Timer::Retransmit, cx.now + self.rto(cx));
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
        // Once for each window of data, and for each retransmission that is lost in turn (RFC 5681, section 3.1).
        let reduces = match self.phase {
            Phase::Open => true,
            Phase::Recovery { .. } => false,
            Phase::Loss { .. } => !is_repeated,
        };
        if reduces {
            self.remember_window();
            self.reduce();
        }
        self.congestion.controller().on_timeout();
        let (now, rack, rtt) = (cx.now, &self.rack, &self.rtt);
        let by_time = self.traits.contains(Traits::SACK) && !reneged;
        self.board
            .mark_lost(|entry| Some(entry.seq == first_seq || !by_time || rack.is_overdue(entry, now, rtt)));
        // RFC 5682, section 2.2: not where another recovery goes on already.
        let forward = if (self.phase == Phase::Open || is_repeated) && !reneged {
            Forward::Asks
        } else {
            Forward::Off
        };
        self.phase = Phase::Loss {
            until: self.snd_nxt,
            forward,
        };
        self.duplicates = 0;
        // RFC 5681, section 3.1: the loss window is one segment, beside what was sent too late to be lost.
        self.window.cwnd = self.in_flight() + u32::from(self.snd_mss);
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
            self.timers.arm(Timer::Retransmit, cx.now + self.rto(cx));
        }
    }

    fn reorder_timeout(&mut self, cx: &Cx<'_>) {
        self.detect_losses(cx);
        if self.board.lost() > 0 && self.phase == Phase::Open {
            self.enter_recovery();
            let (pipe, mss) = (self.in_flight(), u32::from(self.snd_mss));
            if let Phase::Recovery { reduction, .. } = &mut self.phase {
                // Nothing was delivered just now, but the first retransmission may go.
                self.window.cwnd = reduction.window(mss, pipe, self.window.ssthresh, mss, false);
            }
        }
    }

    /// RFC 9293, section 3.8.6.1: the peer may keep its window shut for ever, as long as it answers.
    fn persist_timeout(&mut self, cx: &mut Cx<'_>) {
        if !self.board.is_empty() {
            return;
        }
        if self.attempts >= cx.config.retries {
            self.give_up(cx);
            return;
        }
        self.attempts += 1;
        self.rtt.back_off();
        self.wanted |= if self.snd_wnd > 0 {
            Wanted::PARTIAL
        } else {
            Wanted::PROBE
        };
        self.timers.arm(Timer::Persist, cx.now + self.rto(cx));
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
            self.give_up(cx);
            return;
        }
        self.keepalive_probes += 1;
        self.wanted |= Wanted::PROBE;
        self.timers.arm(Timer::Keepalive, cx.now + keepalive.interval);
    }

    /// The retransmission timeout with its doublings.
    pub(super) fn rto(&self, cx: &Cx<'_>) -> Duration {
        self.rtt.rto().min(cx.config.max_rto)
    }

    /// The peer does not answer any more; what the network said of it tells why.
    fn give_up(&mut self, cx: &mut Cx<'_>) {
        let reason = self
            .soft_error
            .map_or(CloseReason::TimedOut, CloseReason::Unreachable);
        self.end(cx, reason);
    }

    fn is_past_user_timeout(&self, cx: &Cx<'_>) -> bool {
        let waited: Duration = cx.now.since(self.progress_at);
        cx.config.user_timeout.is_some_and(|limit| waited >= limit)
    }
}
