//! A segment arrives (RFC 9293, section 3.10.7).

use portolan_core::wire::{SeqNum, TcpFlags};

use super::State;
use super::connection::{CloseReason, Connection, Cx, Happened, Traits, Wanted};
use super::outgoing::Outgoing;
use super::recovery::Phase;
use super::segment::Segment;
use super::timers::Timer;
use crate::Duration;

/// RFC 7323, section 5.5: a timestamp older than this says nothing, since the peer's clock may have wrapped.
const TIMESTAMP_LIFE: Duration = Duration::from_secs(24 * 24 * 3600);

/// What is to be sent at once, outside of the connection's own sequence.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Nothing.
    None,
    /// A RST that the peer's segment calls for.
    Reset(Reset),
    /// An acknowledgment of what came before this segment, which the next could not tell any more.
    Acknowledgment(Outgoing),
}

/// The numbers of a RST (RFC 9293, section 3.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reset {
    pub(crate) seq: SeqNum,
    /// The acknowledgment number, if the RST carries one.
    pub(crate) ack: Option<SeqNum>,
}

impl Reset {
    /// What answers `segment` when there is no connection; nothing answers a RST.
    pub(crate) fn answering(segment: &Segment<'_>) -> Reply {
        if segment.has(TcpFlags::RST) {
            Reply::None
        } else if segment.has(TcpFlags::ACK) {
            Reply::Reset(Self {
                seq: segment.ack,
                ack: None,
            })
        } else {
            Reply::Reset(Self {
                seq: SeqNum::new(0),
                ack: Some(segment.end()),
            })
        }
    }

    /// The segment.
    pub(crate) fn outgoing(self) -> Outgoing {
        match self.ack {
            None => Outgoing::new(self.seq, SeqNum::new(0), TcpFlags::RST, 0),
            Some(ack) => Outgoing::new(self.seq, ack, TcpFlags::RST | TcpFlags::ACK, 0),
        }
    }
}

impl Connection {
    /// Takes a segment of this connection.
    pub(crate) fn arrive(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Reply {
        if self.stats.is_some() {
            self.count_arrival(cx, segment);
        }
        if self.is_expected_data(segment) && !cx.pool.is_full() {
            self.take_expected_data(cx, segment);
            return Reply::None;
        }
        match self.state {
            State::Closed => Reset::answering(segment),
            State::SynSent => self.arrive_in_syn_sent(cx, segment),
            // The stack itself answers for connections in TIME-WAIT.
            State::TimeWait => Reply::None,
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck => self.arrive_synchronized(cx, segment),
        }
    }

    /// Header prediction: whether this is the next data of a connection on which nothing else goes on. All that
    /// [`Connection::arrive_synchronized`] would check is checked here, or means nothing.
    fn is_expected_data(&self, segment: &Segment<'_>) -> bool {
        let flags =
            TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST | TcpFlags::ECE | TcpFlags::CWR | TcpFlags::URG;
        let timestamp_is_fine = match segment.options.timestamps {
            Some((value, _)) => value.wrapping_sub(self.ts_recent) as i32 >= 0,
            None => true,
        };
        let data_end = segment.seq + segment.payload.len() as u32;
        self.state == State::Established
            && segment.has(TcpFlags::ACK)
            && !segment.has(flags)
            && !segment.payload.is_empty()
            && segment.seq == self.reassembly.next()
            && !self.reassembly.has_holes()
            && data_end.at_or_before(self.rcv_edge)
            && segment.ack == self.snd_una
            && self.offered_by(segment) == self.snd_wnd
            && segment.options.sack.is_empty()
            && timestamp_is_fine
            && !segment.congestion_experienced
            && !self.is_released()
            && self.phase == Phase::Open
            && self.tail_probe.is_none()
            && self.fin_at.is_none()
    }

    fn take_expected_data(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) {
        self.last_heard = cx.now;
        self.keepalive_probes = 0;
        self.note_timestamp(cx, segment);
        self.snd_wl1 = segment.seq;
        self.snd_wl2 = segment.ack;
        if self.board.is_empty() {
            self.attempts = 0;
        }
        self.take_in_order(cx, segment);
    }

    fn count_arrival(&mut self, cx: &Cx<'_>, segment: &Segment<'_>) {
        let pieces = segment.payload.len().div_ceil(segment.piece_len).max(1) as u64;
        self.count(|counts| {
            counts.segments_in += pieces;
            if !segment.payload.is_empty() {
                counts.data_segments_in += pieces;
                counts.last_received = cx.now;
                counts.marked += u64::from(segment.congestion_experienced);
            }
        });
    }

    /// Section 3.10.7.3.
    fn arrive_in_syn_sent(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Reply {
        let acknowledges = segment.has(TcpFlags::ACK);
        let acceptable = segment.ack.after(self.iss) && segment.ack.at_or_before(self.snd_nxt);
        // First: the ACK bit.
        if acknowledges && !acceptable {
            return Reset::answering(segment);
        }
        // Second: the RST bit. RFC 5961, section 3.2: only an acceptable acknowledgment makes it valid.
        if segment.has(TcpFlags::RST) {
            if acknowledges {
                self.end(cx, CloseReason::Refused);
            }
            return Reply::None;
        }
        // Fourth: the SYN bit.
        if !segment.has(TcpFlags::SYN) {
            return Reply::None;
        }
        self.learn_from_syn(cx, segment);
        self.last_heard = cx.now;
        // RFC 3168, section 6.1.1: a SYN-ACK grants ECN with ECE and without CWR.
        let ecn = segment.flags & (TcpFlags::ECE | TcpFlags::CWR);
        let granted = if acknowledges {
            TcpFlags::ECE
        } else {
            TcpFlags::ECE | TcpFlags::CWR
        };
        if ecn != granted {
            self.traits -= Traits::ECN;
        }
        if acknowledges {
            self.establish(cx, segment);
            self.wanted |= Wanted::ACK;
            self.want_urgent_ack();
        } else {
            // Both SYNs crossed: ours goes out again, with the acknowledgment of theirs.
            self.state = State::SynReceived;
            self.wanted |= Wanted::SYN;
        }
        Reply::None
    }

    /// Section 3.10.7.4, with RFC 5961 and RFC 7323 in their places.
    fn arrive_synchronized(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Reply {
        let in_syn_received = self.state == State::SynReceived;
        let mut behind_syn;
        let segment = if in_syn_received && segment.has(TcpFlags::SYN) && segment.seq == self.irs {
            if !segment.has(TcpFlags::ACK) {
                // The peer did not get our answer.
                self.wanted |= Wanted::SYN;
                return Reply::None;
            }
            // The other half of a simultaneous open: its SYN is known already.
            behind_syn = *segment;
            behind_syn.flags -= TcpFlags::SYN;
            behind_syn.seq += 1;
            &behind_syn
        } else {
            segment
        };
        if !self.passes_paws(cx, segment) {
            return Reply::None;
        }
        if !self.is_acceptable(segment) {
            if segment.has(TcpFlags::RST) || self.keep_probe(segment) {
                return Reply::None;
            }
            let reply = self.acknowledge_before(cx, segment);
            self.answer_unacceptable(cx, segment);
            return reply;
        }
        let rcv_nxt = self.reassembly.next();
        if segment.has(TcpFlags::RST) {
            // RFC 5961, section 3.2: a RST counts only exactly where the next byte is expected.
            if segment.seq == rcv_nxt {
                let reason = if in_syn_received && self.is_active() {
                    CloseReason::Refused
                } else {
                    CloseReason::Reset
                };
                self.end(cx, reason);
            } else {
                self.challenge(cx);
            }
            return Reply::None;
        }
        if segment.has(TcpFlags::SYN) {
            // RFC 5961, section 4.2.
            self.challenge(cx);
            return Reply::None;
        }
        if !segment.has(TcpFlags::ACK) {
            return Reply::None;
        }
        if in_syn_received {
            let acceptable = segment.ack.after(self.snd_una) && segment.ack.at_or_before(self.snd_nxt);
            if !acceptable {
                return Reset::answering(segment);
            }
            self.establish(cx, segment);
        } else {
            // RFC 5961, section 5.2: what acknowledges too old or too new data is suspicious.
            let oldest = self.snd_una - self.max_snd_wnd;
            if segment.ack.before(oldest) || segment.ack.after(self.snd_nxt) {
                self.challenge(cx);
                return Reply::None;
            }
        }
        self.last_heard = cx.now;
        self.keepalive_probes = 0;
        self.note_timestamp(cx, segment);
        self.acknowledge(cx, segment);
        self.after_acknowledgment(cx);
        if self.state == State::Closed || self.state == State::TimeWait {
            return Reply::None;
        }
        self.note_urgent(segment);
        self.receive(cx, segment)
    }

    /// The handshake is done: `segment` acknowledges our SYN.
    fn establish(&mut self, cx: &Cx<'_>, segment: &Segment<'_>) {
        let retried = self.attempts > 0;
        self.wanted -= Wanted::SYN;
        // The SYN alone: data may be acknowledged by the same segment, later.
        let syn_end = self.iss + 1;
        let sent_once = self
            .board
            .first()
            .filter(|syn| !syn.retransmitted)
            .map(|syn| syn.at);
        self.board.acknowledge(syn_end, |_| {});
        self.snd_una = syn_end;
        self.attempts = 0;
        self.progress_at = cx.now;
        if let Some(at) = sent_once {
            self.rtt.measure(cx.now.since(at));
        } else if retried {
            // RFC 6298, section 5.7; and RFC 5681, section 3.1: a lost SYN means a window of one segment.
            self.rtt.after_lost_syn();
            self.window.cwnd = u32::from(self.snd_mss);
        }
        self.timers.cancel(Timer::Retransmit);
        self.snd_wnd = self.offered_by(segment);
        self.max_snd_wnd = self.max_snd_wnd.max(self.snd_wnd);
        self.snd_wl1 = segment.seq;
        self.snd_wl2 = segment.ack;
        self.state = if self.traits.contains(Traits::FIN_QUEUED) {
            State::FinWait1
        } else {
            State::Established
        };
        self.happened |= Happened::CONNECTED;
        self.count(|counts| {
            counts.delivered += 1;
            counts.last_received = cx.now;
        });
        if let Some(keepalive) = cx.config.keepalive {
            self.timers.arm(Timer::Keepalive, cx.now + keepalive.idle);
        }
    }

    /// The states that follow when our FIN is acknowledged.
    fn after_acknowledgment(&mut self, cx: &mut Cx<'_>) {
        if !self.is_fin_acknowledged() {
            return;
        }
        match self.state {
            State::FinWait1 => {
                self.state = State::FinWait2;
                self.happened |= Happened::FINISHED;
                if self.is_released() {
                    self.timers.arm(Timer::Linger, cx.now + cx.config.fin_wait);
                }
            }
            State::Closing => self.enter_time_wait(),
            State::LastAck => self.end(cx, CloseReason::Finished),
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait2
            | State::CloseWait
            | State::TimeWait
            | State::Closed => {}
        }
    }

    /// RFC 7323, section 5.3, R1: protection against wrapped sequence numbers.
    fn passes_paws(&mut self, cx: &Cx<'_>, segment: &Segment<'_>) -> bool {
        if !self.traits.contains(Traits::TIMESTAMPS) || segment.has(TcpFlags::RST) {
            return true;
        }
        let Some((value, _)) = segment.options.timestamps else {
            // Section 3.2 would have a segment dropped that lacks the option. As in Linux it is taken: middleboxes strip
            // options.
            return true;
        };
        let is_older = (value.wrapping_sub(self.ts_recent) as i32) < 0;
        if is_older && cx.now.since(self.ts_recent_at) < TIMESTAMP_LIFE {
            self.answer_unacceptable(cx, segment);
            return false;
        }
        true
    }

    /// RFC 7323, section 4.3: TS.Recent is the timestamp of the segment that holds the last number we
    /// acknowledged.
    fn note_timestamp(&mut self, cx: &Cx<'_>, segment: &Segment<'_>) {
        if let Some((value, _)) = segment.options.timestamps
            && self.traits.contains(Traits::TIMESTAMPS)
            && segment
                .seq
                .at_or_before(self.acks.last_sent(self.reassembly.next()))
        {
            self.ts_recent = value;
            self.ts_recent_at = cx.now;
        }
    }

    /// Section 3.10.7.4, first check: whether any of the segment lies in the window.
    fn is_acceptable(&self, segment: &Segment<'_>) -> bool {
        let rcv_nxt = self.reassembly.next();
        let window = self.rcv_edge.since(rcv_nxt).max(0) as u32;
        match (segment.len(), window) {
            (0, 0) => segment.seq == rcv_nxt,
            // Linux takes a segment without data one byte left of the window's edge too; the table of
            // RFC 9293 does not, and what it does not take is answered.
            (0, _) => segment.seq.in_window(rcv_nxt, window),
            // A shut window still lets acknowledgments and RSTs in that come with data (section 3.10.7.4).
            (_, 0) => segment.seq == rcv_nxt,
            (len, _) => {
                segment.seq.in_window(rcv_nxt, window) || (segment.seq + (len - 1)).in_window(rcv_nxt, window)
            }
        }
    }

    /// Answers a segment outside of the window, so that both sides agree again. What brings no data is answered
    /// sparingly, or two confused ends would answer each other for ever.
    fn answer_unacceptable(&mut self, cx: &Cx<'_>, segment: &Segment<'_>) {
        if segment.payload.is_empty() && !segment.has(TcpFlags::SYN | TcpFlags::FIN) {
            self.challenge(cx);
            return;
        }
        self.note_duplicate(segment);
        self.want_urgent_ack();
    }
}
