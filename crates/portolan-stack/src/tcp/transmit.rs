//! What goes next: SYN, what was lost, new data, FIN, probes, or a bare acknowledgment.

use std::num::NonZeroU16;

use bytes::Bytes;
use portolan_core::wire::{SeqNum, Sum, TcpFlags};

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
/// The most that goes at once: Linux's GSO_LEGACY_MAX_SIZE.
const MOST_AT_ONCE: u32 = 65_536;

impl Connection {
    /// The next segment, if there is one to send now. A segment may carry more data than the maximum segment
    /// size, up to `largest`, for the link to cut.
    pub(crate) fn poll_transmit(&mut self, cx: &Cx<'_>, largest: usize) -> Option<Outgoing> {
        if self.wanted.contains(Wanted::RESET) {
            self.wanted -= Wanted::RESET;
            let flags = TcpFlags::RST | TcpFlags::ACK;
            return Some(Outgoing {
                options: data_options(self.timestamps(cx.now).map(|(echo, value)| (value, echo)), &[]),
                ..Outgoing::new(self.acceptable_seq(), self.reassembly.next(), flags, 0)
            });
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
                self.note_wait(cx.now);
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
                return Some(self.segment(cx, self.acceptable_seq(), 0, TcpFlags::empty()));
            }
        }
        None
    }

    /// The sequence number of a segment without data: SND.NXT, but not beyond the window of a peer that took back what it
    /// had offered (RFC 9293, section 3.8.6). From there it would take no acknowledgment, and where both sides did so
    /// neither would hear the other again. Less than a unit of the window's scale is but rounding, and a FIN takes no room.
    pub(super) fn acceptable_seq(&self) -> SeqNum {
        let edge = self.snd_una + self.snd_wnd;
        let is_opening = matches!(self.state, State::SynSent | State::SynReceived);
        let data_end = self.snd_nxt - u32::from(self.traits.contains(Traits::FIN_SENT));
        if is_opening || data_end.since(edge) < 1 << self.snd_shift {
            self.snd_nxt
        } else {
            edge
        }
    }

    /// Copies the data of a segment that starts at `seq`.
    pub(crate) fn copy_payload(&self, seq: SeqNum, out: &mut [u8]) {
        self.queue.copy(self.offset(seq), out);
    }

    /// The same, and gives the sum of it.
    pub(crate) fn copy_and_sum_payload(&self, seq: SeqNum, out: &mut [u8]) -> Sum {
        self.queue.copy_and_sum(self.offset(seq), out, Sum::new())
    }

    /// The data of a segment that starts at `seq` by reference, if it lies together where the program has it.
    pub(crate) fn share_payload(&self, seq: SeqNum, len: usize) -> Option<Bytes> {
        self.queue.share(self.offset(seq), len)
    }

    /// Whether the data of a segment is still in the queue.
    pub(crate) fn holds(&self, segment: &Outgoing) -> bool {
        segment.seq.at_or_after(self.data_start())
            && (segment.seq + segment.payload_len as u32).at_or_before(self.data_end())
    }

    /// Whether [`Connection::poll_transmit`] may have something to give, or the connection is to be followed up.
    pub(crate) fn has_work(&self) -> bool {
        !self.wanted.is_empty()
            || (self.has_something_to_send() && self.state.is_synchronized())
            // What waits for what is counted when it is asked for.
            || (self.stats.is_some() && self.state != State::Established)
    }

    fn offset(&self, seq: SeqNum) -> usize {
        seq.since(self.data_start()).max(0) as usize
    }

    fn transmit_syn(&mut self, cx: &Cx<'_>) -> Outgoing {
        self.wanted -= Wanted::SYN;
        let end = self.iss + 1;
        if self.snd_nxt == self.iss {
            self.board.push(self.iss, end, 0, cx.now);
            self.snd_nxt = end;
            self.timers.arm(Timer::Retransmit, cx.now + self.rto(cx));
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
            cx.config.max_segment.unwrap_or(u16::MAX).min(self.link_mss),
            has(self, Traits::WINDOW_SCALING).then_some(self.rcv_shift),
            has(self, Traits::SACK),
            timestamps,
        );
        let window = cx.config.first_receive_limit().min(65_535) as u16;
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
        // What is told of holes and duplicates must not be told with every piece.
        // An urgent pointer is another for each piece, which no device works out.
        let largest = if self.has_sack_blocks() || self.has_urgent_to_send() {
            0
        } else {
            largest
        };
        if self.wanted.contains(Wanted::TAIL_LOSS_PROBE) {
            self.wanted -= Wanted::TAIL_LOSS_PROBE;
            return Some(self.transmit_tail_probe(cx, mss));
        }
        if self.board.is_empty() && self.snd_wnd > 0 && self.not_sent() > 0 {
            self.restart_after_idle(cx);
        }
        let flight = self.in_flight();
        let room = self.window.cwnd.saturating_sub(flight);
        let burst = self.burst_limit(cx, mss).min(largest as u32 / mss * mss).max(mss);
        if self.sends_new_first() {
            let segment = self.transmit_new(cx, mss, room, burst);
            if segment.is_some() || self.sent_new_first() {
                return segment;
            }
        }
        if let Some(block) = self.board.next_lost(mss, burst.min(room)) {
            let len = block.right.since(block.left) as u32;
            if len <= room || flight == 0 {
                return Some(self.retransmit(cx, block, mss));
            }
            self.note_window_use(true);
            return None;
        }
        self.transmit_new(cx, mss, room, burst)
    }

    /// How much may go at once: what takes a millisecond at the pace of the window, as in Linux, and more on a path so short
    /// that waiting costs more than a burst; never more than half of the window.
    fn burst_limit(&self, cx: &Cx<'_>, mss: u32) -> u32 {
        let pace = self.pacing_rate();
        let mut bytes = pace.map_or_else(|| u64::from(MOST_AT_ONCE), |rate| rate >> 10);
        if let Some(least) = self.rtt.minimum() {
            let halvings = least.as_micros() >> 9;
            if halvings < 32 {
                bytes += u64::from(MOST_AT_ONCE) >> halvings;
            }
        }
        let bytes = bytes.min(u64::from(MOST_AT_ONCE)) as u32;
        let segments = (bytes / mss).max(u32::from(cx.config.min_burst));
        let half = (self.window.cwnd / mss / 2).max(1);
        segments.min(half) * mss
    }

    /// Bytes a second by which the window would be spread over a round trip, with the gain that lets it grow.
    pub(super) fn pacing_rate(&self) -> Option<u64> {
        let rtt = self.rtt.smoothed()?.as_nanos().max(1);
        let gain = if self.window.cwnd < self.window.ssthresh / 2 {
            PACE_SLOW_START
        } else {
            PACE_AVOIDANCE
        };
        let outstanding = self.snd_nxt.since(self.snd_una) as u32;
        let window = u128::from(self.window.cwnd.max(outstanding));
        let rate = window * u128::from(gain) * 10_000_000 / u128::from(rtt);
        Some(u64::try_from(rate).unwrap_or(u64::MAX))
    }

    /// Whether there is anything in the queue, lost, or asked for: most calls find nothing.
    fn has_something_to_send(&self) -> bool {
        self.board.lost() > 0
            || self.snd_nxt.before(self.data_end())
            || self.fin_is_next()
            || self.wanted.contains(Wanted::TAIL_LOSS_PROBE)
    }

    /// New data, as much of a chunk as the windows, Nagle and the peer's silly window allow; or our FIN.
    fn transmit_new(&mut self, cx: &Cx<'_>, mss: u32, room: u32, burst: u32) -> Option<Outgoing> {
        let (chunk, is_last) = match self.unsent.first(self.snd_nxt) {
            Some((chunk, is_last)) => (chunk.end, is_last),
            None => (self.snd_nxt, true),
        };
        let unsent = chunk.since(self.snd_nxt).max(0) as u32;
        let offered = (self.snd_una + self.snd_wnd).since(self.snd_nxt).max(0) as u32;
        let nothing_in_flight = self.board.is_empty();
        let within = unsent.min(offered);
        // Section 3.7.4: whether what does not fill a segment may go.
        let small_may_go = if within == unsent {
            !is_last || self.may_send_small(cx, nothing_in_flight)
        } else {
            // Section 3.8.6.2.1: the window holds a part only. Half of the largest it ever was will do.
            within >= self.max_snd_wnd / 2
        } || self.wanted.contains(Wanted::PARTIAL);
        let goes = if within == 0 {
            offered > 0 && self.fin_is_next()
        } else {
            within >= mss || small_may_go
        };
        if !goes {
            if nothing_in_flight
                && (unsent > 0 || self.fin_is_next())
                && !self.timers.is_armed(Timer::Persist)
            {
                self.timers.arm(Timer::Persist, cx.now + self.rto(cx));
            }
            return None;
        }
        let fits = room / mss * mss;
        if fits == 0 && within > room {
            self.note_window_use(true);
            return None;
        }
        let mut len = within.min(burst).min(fits.max(within.min(room)));
        // The last piece must be one that could go alone, behind others in flight.
        if len > mss && !(len == within && self.last_piece_may_go(cx, unsent, within, is_last, mss)) {
            len = len / mss * mss;
        }
        if nothing_in_flight {
            self.progress_at = cx.now;
            if self.timers.is_armed(Timer::Persist) {
                // It was the window that was shut, not the path.
                self.rtt.forget_backoff();
            }
        }
        let is_probe = self.wanted.contains(Wanted::PARTIAL);
        self.wanted -= Wanted::PARTIAL;
        Some(self.send_new(cx, len, mss, is_probe))
    }

    /// Whether a segment that is not full may go, as the last of what was written: Nagle's algorithm in Minshall's
    /// variant, in which only another such segment holds it back.
    fn may_send_small(&self, cx: &Cx<'_>, nothing_in_flight: bool) -> bool {
        if self.traits.intersects(Traits::FIN_QUEUED | Traits::PUSH_ONCE) {
            return true;
        }
        if cx.config.cork || self.traits.contains(Traits::MORE_COMES) {
            return false;
        }
        let small_in_flight = self.snd_sml.after(self.snd_una) && self.snd_sml.at_or_before(self.snd_nxt);
        self.traits.contains(Traits::NO_DELAY) || nothing_in_flight || !small_in_flight
    }

    /// The same for the last of several segments that go together.
    fn last_piece_may_go(&self, cx: &Cx<'_>, unsent: u32, within: u32, is_last: bool, mss: u32) -> bool {
        if within < unsent {
            return within % mss >= self.max_snd_wnd / 2;
        }
        !is_last || self.may_send_small(cx, false)
    }

    fn send_new(&mut self, cx: &Cx<'_>, len: u32, mss: u32, is_probe: bool) -> Outgoing {
        let seq = self.snd_nxt;
        let end = seq + len;
        let mut flags = TcpFlags::empty();
        let mut next = end;
        let ends_write = self
            .unsent
            .first(seq)
            .is_some_and(|(chunk, _)| chunk.push && chunk.end == end);
        let push = len > 0 && (ends_write || is_probe);
        // Linux marks whatever it sends in several segments: receivers that merge them look for the mark.
        if push || len > mss {
            flags |= TcpFlags::PSH;
        }
        if end == self.data_end() && self.traits.contains(Traits::FIN_QUEUED) {
            flags |= TcpFlags::FIN;
            self.traits |= Traits::FIN_SENT;
            next = end + 1;
        }
        if !len.is_multiple_of(mss) {
            self.snd_sml = end;
        }
        let block = Block {
            left: seq,
            right: next,
        };
        let piece_len = if len > mss { mss as u16 } else { 0 };
        self.board.push_flagged(block, piece_len, push, cx.now);
        self.snd_nxt = next;
        let mut segment = self.segment(cx, seq, len, flags);
        segment.piece_len = NonZeroU16::new(piece_len);
        if self.traits.contains(Traits::ECN) && len > 0 {
            segment.ecn_capable = true;
            if self.traits.contains(Traits::TELL_REDUCED) {
                self.traits -= Traits::TELL_REDUCED;
                segment.flags |= TcpFlags::CWR;
            }
        }
        self.note_sent(cx, len);
        self.note_window_use(self.in_flight() >= self.window.cwnd);
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

    fn retransmit(&mut self, cx: &Cx<'_>, block: Block, mss: u32) -> Outgoing {
        let push = self.board.resend(block, cx.now);
        let data_end = self.data_end();
        let len = block.right.earlier(data_end).since(block.left).max(0) as u32;
        let mut flags = TcpFlags::empty();
        if block.right.after(data_end) {
            flags |= TcpFlags::FIN;
        }
        if len > 0 && (push || len > mss) {
            flags |= TcpFlags::PSH;
        }
        self.bytes_retransmitted += u64::from(len);
        self.note_resent(len.div_ceil(mss).max(1), cx.now);
        self.count(|counts| counts.retransmitted += u64::from(len.div_ceil(mss).max(1)));
        let mut segment = self.segment(cx, block.left, len, flags);
        if len > mss {
            segment.piece_len = NonZeroU16::new(mss as u16);
        }
        self.note_sent(cx, len.max(1));
        if !self.timers.is_armed(Timer::Retransmit) {
            self.timers.arm(Timer::Retransmit, cx.now + self.rto(cx));
        }
        segment
    }

    /// RFC 8985, section 7.3: new data if there is some, else the tail again.
    fn transmit_tail_probe(&mut self, cx: &Cx<'_>, mss: u32) -> Outgoing {
        let chunk = self
            .unsent
            .first(self.snd_nxt)
            .map_or(self.snd_nxt, |(chunk, _)| chunk.end);
        let unsent = chunk.since(self.snd_nxt).max(0) as u32;
        let offered = (self.snd_una + self.snd_wnd).since(self.snd_nxt).max(0) as u32;
        let new = unsent.min(offered).min(mss);
        let segment = match self.board.tail(mss) {
            Some(tail) if new == 0 => {
                self.tail_probe = Some((self.snd_nxt, true));
                self.retransmit(cx, tail, mss)
            }
            Some(_) | None => {
                let segment = self.send_new(cx, new, mss, false);
                self.tail_probe = Some((self.snd_nxt, false));
                segment
            }
        };
        self.timers.cancel(Timer::TailLoss);
        self.timers.arm(Timer::Retransmit, cx.now + self.rto(cx));
        segment
    }

    fn note_sent(&mut self, cx: &Cx<'_>, len: u32) {
        self.last_sent = cx.now;
        if let Phase::Recovery { reduction, .. } = &mut self.phase {
            reduction.on_sent(len, u32::from(self.snd_mss));
        }
        if cx.config.pacing
            && let Some(rtt) = self.rtt.smoothed()
        {
            let gain = if self.window.in_slow_start() {
                PACE_SLOW_START
            } else {
                PACE_AVOIDANCE
            };
            // In recovery the window may be next to nothing for a moment: a segment each round trip still goes.
            let cwnd = self.window.cwnd.max(u32::from(self.snd_mss));
            let share = u64::from(len) * 100 * rtt.as_nanos() / (gain * u64::from(cwnd));
            self.pace_until = self.pace_until.max(cx.now) + Duration::from_nanos(share);
        }
    }

    /// RFC 5681, section 4.1: what the window learnt is stale after an RTO without sending.
    fn restart_after_idle(&mut self, cx: &Cx<'_>) {
        let idle = cx.now.since(self.last_sent);
        // Probes of a shut window double their pauses, and not what the path takes.
        let rto = self.rtt.without_back_off();
        if idle <= rto {
            return;
        }
        self.congestion.controller().on_idle(idle);
        self.undo = None;
        if !cx.config.restart_after_idle {
            return;
        }
        // RFC 2861, as Linux has it: the window halves for each RTO, and the threshold remembers most of it.
        let initial = Window::initial(u32::from(self.snd_mss))
            .cwnd
            .min(self.window.cwnd);
        let mss = u32::from(self.snd_mss);
        let (mut segments, mut rest) = (self.window.cwnd / mss, idle);
        self.window.ssthresh = self.window.ssthresh.max((segments / 2 + segments / 4) * mss);
        while rest > rto && segments * mss > initial {
            rest = rest - rto;
            segments /= 2;
        }
        self.window.cwnd = (segments * mss).max(initial);
    }

    /// A segment with our acknowledgment.
    pub(super) fn segment(&mut self, cx: &Cx<'_>, seq: SeqNum, len: u32, mut flags: TcpFlags) -> Outgoing {
        let mut blocks = [Block {
            left: seq,
            right: seq,
        }; 4];
        let count = self.sack_blocks(&mut blocks, cx.config.duplicate_sack);
        let timestamps = self
            .traits
            .contains(Traits::TIMESTAMPS)
            .then(|| (self.timestamp(cx.now), self.ts_recent));
        let options = data_options(timestamps, &blocks[..count.min(self.sack_room())]);
        let window = self.offer_window(cx);
        self.on_ack_sent(len > 0);
        if self.stats.is_some() {
            let pieces = u64::from(len.div_ceil(self.snd_mss.into()));
            self.count(|counts| {
                counts.segments_out += pieces.max(1);
                counts.data_segments_out += pieces;
                counts.bytes_sent += u64::from(len);
            });
        }
        if self.traits.contains(Traits::ECHO_CONGESTION) {
            flags |= TcpFlags::ECE;
        }
        let mut segment = Outgoing {
            options,
            payload_len: len as usize,
            ..Outgoing::new(seq, self.reassembly.next(), flags | TcpFlags::ACK, window)
        };
        self.point_at_urgent(&mut segment);
        segment
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
