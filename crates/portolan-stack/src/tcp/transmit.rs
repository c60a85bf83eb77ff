//! What goes next: SYN, what was lost, new data, FIN, probes, or a bare acknowledgment.

use std::num::NonZeroU16;

use portolan_core::wire::{SeqNum, TcpFlags};

use super::State;
use super::congestion::Window;
use super::connection::{Connection, Cx, Traits, Wanted};
use super::outgoing::{Outgoing, data_options, syn_options};
use super::recovery::Phase;
use super::timers::Timer;
use crate::Duration;
use crate::buffer::Block;

/// Linux's tcp_pacing_ss_ratio and tcp_pacing_ca_ratio, in hundredths: twice the rate in slow start, so that
/// the window can double.
const PACE_SLOW_START: u64 = 200;
const PACE_AVOIDANCE: u64 = 120;

impl Connection {
    /// The next segment, if there is one to send now. A segment may carry more data than the maximum segment
    /// size, up to `largest`, for the link to cut.
    pub(crate) fn poll_transmit(&mut self, cx: &Cx<'_>, largest: usize) -> Option<Outgoing> {
        if self.wanted.contains(Wanted::RESET) {
            self.wanted -= Wanted::RESET;
            let flags = TcpFlags::RST | TcpFlags::ACK;
            return Some(Outgoing::new(self.snd_nxt, self.reassembly.next(), flags, 0));
        }
        match self.state {
            State::Closed => return None,
            State::SynSent | State::SynReceived => {
                if self.wanted.contains(Wanted::SYN) {
                    return Some(self.transmit_syn(cx));
                }
            }
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                if let Some(segment) = self.transmit_data(cx, largest) {
                    return Some(segment);
                }
            }
        }
        if self.wanted.contains(Wanted::PROBE) {
            // One number before what the peer expects: it must answer (RFC 9293, section 3.8.4).
            self.wanted -= Wanted::PROBE;
            return Some(self.segment(cx, self.snd_una - 1, 0, TcpFlags::empty()));
        }
        if self.wanted.contains(Wanted::ACK) {
            self.wanted -= Wanted::ACK;
            if self.state != State::SynSent {
                return Some(self.segment(cx, self.snd_nxt, 0, TcpFlags::empty()));
            }
        }
        None
    }

    /// Copies the data of a segment that starts at `seq`.
    pub(crate) fn copy_payload(&self, seq: SeqNum, out: &mut [u8]) {
        let offset = seq.since(self.data_start()).max(0) as usize;
        self.queue.copy(offset, out);
    }

    fn transmit_syn(&mut self, cx: &Cx<'_>) -> Outgoing {
        self.wanted -= Wanted::SYN;
        let end = self.iss + 1;
        if self.snd_nxt == self.iss {
            self.board.push(self.iss, end, cx.now);
            self.snd_nxt = end;
            self.timers.arm(Timer::Retransmit, cx.now + self.rtt.rto());
        } else {
            let syn = Block {
                left: self.iss,
                right: end,
            };
            self.board.resend(syn, cx.now);
        }
        self.last_sent = cx.now;
        let answers = self.state == State::SynReceived;
        let mut flags = TcpFlags::SYN;
        if answers {
            flags |= TcpFlags::ACK;
        }
        // RFC 3168, section 6.1.1; a SYN that was lost may have been dropped for its ECN bits: try without.
        if self.traits.contains(Traits::ECN) {
            if answers {
                flags |= TcpFlags::ECE;
            } else if self.attempts == 0 {
                flags |= TcpFlags::ECE | TcpFlags::CWR;
            }
        }
        let has = |this: &Self, agreed| this.traits.contains(agreed);
        let timestamps = has(self, Traits::TIMESTAMPS).then(|| (self.timestamp(cx.now), self.ts_recent));
        let options = syn_options(
            self.link_mss,
            has(self, Traits::WINDOW_SCALING).then_some(self.rcv_shift),
            has(self, Traits::SACK),
            timestamps,
        );
        let window = cx.config.receive_limit().min(65_535) as u16;
        let ack = if answers {
            self.reassembly.next()
        } else {
            SeqNum::new(0)
        };
        if answers {
            self.on_ack_sent(false);
        }
        Outgoing {
            options,
            ..Outgoing::new(self.iss, ack, flags, window)
        }
    }

    fn transmit_data(&mut self, cx: &Cx<'_>, largest: usize) -> Option<Outgoing> {
        if !self.has_something_to_send() {
            return None;
        }
        if cx.config.pacing && cx.now < self.pace_until {
            self.timers.arm(Timer::Pace, self.pace_until);
            return None;
        }
        let mss = self.room_for_data();
        if self.wanted.contains(Wanted::TAIL_LOSS_PROBE) {
            self.wanted -= Wanted::TAIL_LOSS_PROBE;
            return Some(self.transmit_tail_probe(cx, mss));
        }
        let flight = self.in_flight();
        let room = self.window.cwnd.saturating_sub(flight);
        if let Some(block) = self.board.next_lost(mss) {
            let len = block.right.since(block.left) as u32;
            if len <= room || flight == 0 {
                return Some(self.retransmit(cx, block));
            }
            self.note_window_use(true);
            return None;
        }
        self.transmit_new(cx, mss, room, largest)
    }

    /// Whether there is anything in the queue, lost, or asked for: most calls find nothing.
    fn has_something_to_send(&self) -> bool {
        self.board.lost() > 0
            || self.snd_nxt.before(self.data_end())
            || self.fin_is_next()
            || self.wanted.contains(Wanted::TAIL_LOSS_PROBE)
    }

    /// New data, as much as the windows, Nagle and the peer's silly window allow; or our FIN.
    fn transmit_new(&mut self, cx: &Cx<'_>, mss: u32, room: u32, largest: usize) -> Option<Outgoing> {
        let unsent = self.data_end().since(self.snd_nxt).max(0) as u32;
        let offered = (self.snd_una + self.snd_wnd).since(self.snd_nxt).max(0) as u32;
        let nothing_in_flight = self.board.is_empty();
        if nothing_in_flight && unsent > 0 {
            self.restart_after_idle(cx);
        }
        let within = unsent.min(offered);
        let goes = if within >= mss {
            true
        } else if within == 0 {
            offered > 0 && self.fin_is_next()
        } else if within == unsent {
            // Section 3.7.4, Nagle: a small segment waits while another is unacknowledged.
            nothing_in_flight || self.traits.intersects(Traits::NO_DELAY | Traits::FIN_QUEUED)
        } else {
            // Section 3.8.6.2.1: the window holds a part only. Half of the largest it ever was will do.
            within >= self.max_snd_wnd / 2 || self.wanted.contains(Wanted::PARTIAL)
        };
        if !goes {
            if nothing_in_flight
                && (unsent > 0 || self.fin_is_next())
                && !self.timers.is_armed(Timer::Persist)
            {
                self.timers.arm(Timer::Persist, cx.now + self.rtt.rto());
            }
            return None;
        }
        let fits = room / mss * mss;
        if fits == 0 && within > room {
            self.note_window_use(true);
            return None;
        }
        let whole = (largest as u32 / mss * mss).max(mss);
        let mut len = within.min(whole).min(fits.max(within.min(room)));
        if len > mss && len < within {
            len = len / mss * mss;
        }
        if nothing_in_flight {
            self.progress_at = cx.now;
            if self.timers.is_armed(Timer::Persist) {
                // It was the window that was shut, not the path.
                self.rtt.forget_backoff();
            }
        }
        self.wanted -= Wanted::PARTIAL;
        Some(self.send_new(cx, len, mss))
    }

    fn send_new(&mut self, cx: &Cx<'_>, len: u32, mss: u32) -> Outgoing {
        let seq = self.snd_nxt;
        let end = seq + len;
        let mut flags = TcpFlags::empty();
        let mut next = end;
        if end == self.data_end() {
            if len > 0 {
                flags |= TcpFlags::PSH;
            }
            if self.traits.contains(Traits::FIN_QUEUED) {
                flags |= TcpFlags::FIN;
                self.traits |= Traits::FIN_SENT;
                next = end + 1;
            }
        }
        self.board.push(seq, next, cx.now);
        self.snd_nxt = next;
        let mut segment = self.segment(cx, seq, len, flags);
        if len > mss {
            segment.piece_len = NonZeroU16::new(mss as u16);
        }
        if self.traits.contains(Traits::ECN) && len > 0 {
            segment.ecn_capable = true;
            if self.traits.contains(Traits::TELL_REDUCED) {
                self.traits -= Traits::TELL_REDUCED;
                segment.flags |= TcpFlags::CWR;
            }
        }
        self.note_sent(cx, len);
        self.note_window_use(false);
        self.rearm(cx, false);
        segment
    }

    /// Notes whether the congestion window held the sender back, once for each window of data: a window that
    /// was not used must not grow (the concern of RFC 7661, in Linux's way).
    fn note_window_use(&mut self, is_limited: bool) {
        let outstanding = self.snd_nxt.since(self.snd_una) as u32;
        let was_limited = self.traits.contains(Traits::CWND_LIMITED);
        let is_new_window = self.snd_una.at_or_after(self.usage_until);
        if is_new_window || is_limited || (!was_limited && outstanding > self.most_outstanding) {
            self.traits.set(Traits::CWND_LIMITED, is_limited);
            self.most_outstanding = outstanding;
            self.usage_until = self.snd_nxt;
        }
    }

    fn retransmit(&mut self, cx: &Cx<'_>, block: Block) -> Outgoing {
        self.board.resend(block, cx.now);
        let data_end = self.data_end();
        let len = block.right.earlier(data_end).since(block.left).max(0) as u32;
        let mut flags = TcpFlags::empty();
        if block.right.after(data_end) {
            flags |= TcpFlags::FIN;
        }
        if block.right.at_or_after(data_end) && len > 0 {
            flags |= TcpFlags::PSH;
        }
        self.bytes_retransmitted += u64::from(len);
        let segment = self.segment(cx, block.left, len, flags);
        self.note_sent(cx, len.max(1));
        if !self.timers.is_armed(Timer::Retransmit) {
            self.timers.arm(Timer::Retransmit, cx.now + self.rtt.rto());
        }
        segment
    }

    /// RFC 8985, section 7.3: new data if there is some, else the tail again.
    fn transmit_tail_probe(&mut self, cx: &Cx<'_>, mss: u32) -> Outgoing {
        let unsent = self.data_end().since(self.snd_nxt).max(0) as u32;
        let offered = (self.snd_una + self.snd_wnd).since(self.snd_nxt).max(0) as u32;
        let new = unsent.min(offered).min(mss);
        let segment = match self.board.tail(mss) {
            Some(tail) if new == 0 => {
                self.tail_probe = Some((self.snd_nxt, true));
                self.retransmit(cx, tail)
            }
            Some(_) | None => {
                let segment = self.send_new(cx, new, mss);
                self.tail_probe = Some((self.snd_nxt, false));
                segment
            }
        };
        self.timers.cancel(Timer::TailLoss);
        self.timers.arm(Timer::Retransmit, cx.now + self.rtt.rto());
        segment
    }

    fn note_sent(&mut self, cx: &Cx<'_>, len: u32) {
        self.last_sent = cx.now;
        if let Phase::Recovery { reduction, .. } = &mut self.phase {
            reduction.on_sent(len);
        }
        if cx.config.pacing
            && let Some(rtt) = self.rtt.smoothed()
        {
            let gain = if self.window.in_slow_start() {
                PACE_SLOW_START
            } else {
                PACE_AVOIDANCE
            };
            let share = u64::from(len) * 100 * rtt.as_nanos() / (gain * u64::from(self.window.cwnd.max(1)));
            self.pace_until = self.pace_until.max(cx.now) + Duration::from_nanos(share);
        }
    }

    /// RFC 5681, section 4.1: what the window learnt is stale after an RTO without sending.
    fn restart_after_idle(&mut self, cx: &Cx<'_>) {
        let idle = cx.now.since(self.last_sent);
        if idle > self.rtt.rto() {
            let initial = Window::initial(u32::from(self.snd_mss)).cwnd;
            self.window.cwnd = self.window.cwnd.min(initial);
            self.congestion.controller().on_idle(idle);
        }
    }

    /// A segment with our acknowledgment.
    fn segment(&mut self, cx: &Cx<'_>, seq: SeqNum, len: u32, mut flags: TcpFlags) -> Outgoing {
        let mut blocks = [Block {
            left: seq,
            right: seq,
        }; 4];
        let count = self.sack_blocks(&mut blocks);
        let timestamps = self
            .traits
            .contains(Traits::TIMESTAMPS)
            .then(|| (self.timestamp(cx.now), self.ts_recent));
        let options = data_options(timestamps, &blocks[..count.min(self.sack_room())]);
        let window = self.offer_window(cx);
        self.on_ack_sent(len > 0);
        if self.traits.contains(Traits::ECHO_CONGESTION) {
            flags |= TcpFlags::ECE;
        }
        Outgoing {
            options,
            payload_len: len as usize,
            ..Outgoing::new(seq, self.reassembly.next(), flags | TcpFlags::ACK, window)
        }
    }

    /// The data of a segment that goes now: SACK blocks take room from it.
    fn room_for_data(&self) -> u32 {
        let mss = u32::from(self.snd_mss);
        if !self.has_sack_blocks() {
            return mss;
        }
        // At least one byte goes, whatever a tiny link leaves.
        mss.saturating_sub(4 + 8 * self.sack_room() as u32).max(1)
    }

    /// How many SACK blocks fit behind timestamps.
    fn sack_room(&self) -> usize {
        if self.traits.contains(Traits::TIMESTAMPS) {
            3
        } else {
            4
        }
    }

    /// Whether our FIN is to be sent and everything before it was.
    fn fin_is_next(&self) -> bool {
        self.traits.contains(Traits::FIN_QUEUED)
            && !self.traits.contains(Traits::FIN_SENT)
            && self.snd_nxt == self.data_end()
    }
}
