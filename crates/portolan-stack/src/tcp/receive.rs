//! The receiving half: data and FIN in, windows and acknowledgments out.

use portolan_core::wire::{SeqNum, TcpFlags};

use super::State;
use super::arrive::{Reply, Reset};
use super::connection::{CloseReason, Connection, Cx, Happened, Traits, Wanted};
use super::segment::Segment;
use super::timers::Timer;
use crate::buffer::Block;
use crate::{Duration, Instant};

/// RFC 5961, section 7, asks for a limit on challenges. One of each connection's own: a limit that
/// connections share tells an attacker of others' traffic. Linux's tcp_invalid_ratelimit.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);
/// Acknowledgments that are not delayed at the start, while the peer's window is small.
const QUICK_ACKS: u8 = 16;

/// What a connection may hold in each direction when memory is short.
pub(super) const TIGHT_BUFFER: u32 = 16 << 10;

/// When what came is acknowledged.
#[derive(Debug)]
pub(super) struct AckSchedule {
    /// Bytes of data since the last acknowledgment.
    unacknowledged: u32,
    /// The largest data of a segment that came, by which full segments are told.
    rcv_mss: u32,
    /// How many acknowledgments are still not delayed.
    quick: u8,
    /// RCV.NXT as the last segment we sent had it (RFC 7323: Last.ACK.sent).
    last_sent: Option<SeqNum>,
    /// What came twice and is not yet reported (RFC 2883).
    duplicate: Option<Block>,
    /// When the next challenge may go.
    challenge_from: Instant,
}

/// What is kept while nothing is owed.
#[derive(Debug)]
pub(super) struct AcksAtRest {
    rcv_mss: u32,
    last_sent: SeqNum,
    quick: u8,
}

impl AckSchedule {
    /// Whether nothing is owed and no limit runs.
    pub(super) fn is_at_rest(&self, now: Instant) -> bool {
        self.unacknowledged == 0 && self.duplicate.is_none() && self.challenge_from <= now
    }

    /// What waits.
    pub(super) fn rest(&self, rcv_nxt: SeqNum) -> AcksAtRest {
        let &Self {
            unacknowledged: _,
            rcv_mss,
            quick,
            last_sent: _,
            duplicate: _,
            challenge_from: _,
        } = self;
        AcksAtRest {
            rcv_mss,
            last_sent: self.last_sent(rcv_nxt),
            quick,
        }
    }

    /// What waited.
    pub(super) fn wake(rest: &AcksAtRest) -> Self {
        Self {
            rcv_mss: rest.rcv_mss,
            quick: rest.quick,
            last_sent: Some(rest.last_sent),
            ..Self::new()
        }
    }

    pub(super) const fn new() -> Self {
        Self {
            unacknowledged: 0,
            rcv_mss: 0,
            quick: QUICK_ACKS,
            last_sent: None,
            duplicate: None,
            challenge_from: Instant::START,
        }
    }

    /// Lets no challenge go before `from`.
    pub(super) const fn challenge_after(&mut self, from: Instant) {
        self.challenge_from = from;
    }

    /// The largest data of a segment that came.
    pub(super) const fn largest(&self) -> u32 {
        self.rcv_mss
    }

    /// Last.ACK.sent; what is expected now if nothing was sent yet.
    pub(super) fn last_sent(&self, rcv_nxt: SeqNum) -> SeqNum {
        self.last_sent.unwrap_or(rcv_nxt)
    }
}

impl Connection {
    /// Data and FIN of an acceptable segment (RFC 9293, section 3.10.7.4, seventh and eighth).
    pub(super) fn receive(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) -> Reply {
        self.note_congestion_marks(segment);
        let has_fin = segment.has(TcpFlags::FIN);
        if segment.payload.is_empty() && !has_fin {
            return Reply::None;
        }
        if !self.state.may_receive() {
            // After its FIN the peer has nothing to say: what comes is old, and our acknowledgment was lost.
            self.want_urgent_ack();
            return Reply::None;
        }
        let rcv_nxt = self.reassembly.next();
        // Linux, which follows RFC 1122, section 4.2.2.13, in this: who has shut both halves wants no more.
        let is_deaf = self.is_released() || self.reads_shut && self.state != State::Established;
        if is_deaf && segment.end().after(rcv_nxt) && !segment.payload.is_empty() {
            // Nobody will ever read it: the peer must know (RFC 9293, section 3.6.1).
            self.end(cx, CloseReason::Reset);
            return Reset::answering(segment);
        }
        let data_end = segment.seq + segment.payload.len() as u32;
        if has_fin {
            self.fin_at = Some(data_end);
        }
        // What lies beyond the window that was offered is not taken.
        let edge = self.rcv_edge.later(rcv_nxt);
        let within = data_end.earlier(edge).since(segment.seq).max(0) as usize;
        let data = &segment.payload[..within];
        let mut at_once = within < segment.payload.len();
        let reply = self.acknowledge_before(cx, segment);
        // What the program waits for comes in, or nothing would ever be freed.
        let is_urgent = segment.seq == rcv_nxt && self.reassembly.ready() == 0;
        let data = if cx.pool.is_full() && !is_urgent && !data.is_empty() {
            cx.pool.refuse();
            at_once = true;
            &[]
        } else {
            data
        };
        if !data.is_empty() {
            let inserted = self.reassembly.insert(cx.pool, segment.seq, data, segment.owner);
            // Section 3.8.6.3 and RFC 5681, section 4.2: holes and their filling are told at once.
            at_once |= inserted.holes || inserted.duplicate.is_some();
            if let Some(again) = inserted.duplicate {
                self.note_again(again);
            }
            if inserted.advanced > 0 {
                self.happened |= Happened::READABLE;
                self.acks.unacknowledged = self.acks.unacknowledged.saturating_add(inserted.advanced);
                self.count(|counts| counts.bytes_received += u64::from(inserted.advanced));
            }
            self.acks.rcv_mss = self.acks.rcv_mss.max(segment.piece_len.min(data.len()) as u32);
            if inserted.advanced > 0 {
                self.time_peer(cx, segment);
            }
        }
        if self.fin_at == Some(self.reassembly.next()) {
            self.reassembly.step_over_fin();
            self.traits |= Traits::FIN_RECEIVED;
            self.happened |= Happened::READABLE;
            at_once = true;
            self.peer_finished();
        } else if has_fin {
            at_once = true;
        }
        self.schedule_ack(cx, at_once);
        reply
    }

    /// Packets may come in batches, before an acknowledgment can go: one that is owed goes first if this segment would
    /// push news out of it. It names three ranges, and one that came again; RFC 5681, section 4.2, and RFC 2883 want
    /// one acknowledgment for each. Without it the peer takes what was never named for lost.
    pub(super) fn acknowledge_before(&mut self, cx: &Cx<'_>, segment: &Segment<'_>) -> Reply {
        if !self.wanted.contains(Wanted::ACK)
            || !self.traits.contains(Traits::SACK)
            || segment.payload.is_empty()
        {
            return Reply::None;
        }
        let is_again = self.acks.duplicate.is_some_and(|pending| {
            let is_old = segment.seq.before(self.reassembly.next());
            is_old && pending.right != segment.seq
        });
        if is_again || self.reassembly.is_news(segment.seq) {
            let segment = self.segment(cx, self.acceptable_seq(), 0, TcpFlags::empty());
            return Reply::Acknowledgment(segment.marked_by(cx.config));
        }
        Reply::None
    }

    /// Takes the data of a segment that is the next, on a connection without holes.
    pub(super) fn take_in_order(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) {
        let data = segment.payload;
        self.reassembly.insert(cx.pool, segment.seq, data, segment.owner);
        self.happened |= Happened::READABLE;
        self.acks.unacknowledged = self.acks.unacknowledged.saturating_add(data.len() as u32);
        self.count(|counts| counts.bytes_received += data.len() as u64);
        self.acks.rcv_mss = self.acks.rcv_mss.max(segment.piece_len.min(data.len()) as u32);
        self.time_peer(cx, segment);
        self.schedule_ack(cx, false);
    }

    /// The peer's FIN is in order.
    fn peer_finished(&mut self) {
        match self.state {
            State::Established => self.state = State::CloseWait,
            State::FinWait1 => self.state = State::Closing,
            State::FinWait2 => self.enter_time_wait(),
            State::SynSent
            | State::SynReceived
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait
            | State::Closed => {}
        }
    }

    /// Both sides are done. The stack keeps the four-tuple from here on.
    pub(super) fn enter_time_wait(&mut self) {
        self.state = State::TimeWait;
        self.reason = Some(CloseReason::Finished);
        self.timers.cancel_all();
        self.happened |= Happened::CLOSED;
    }

    fn schedule_ack(&mut self, cx: &Cx<'_>, at_once: bool) {
        // RFC 9293, section 3.8.6.3: at least every second full segment.
        let two_segments = 2 * self.acks.rcv_mss.max(1);
        if at_once || self.acks.quick > 0 || self.acks.unacknowledged >= two_segments {
            self.wanted |= Wanted::ACK;
            self.timers.cancel(Timer::DelayedAck);
        } else if !self.timers.is_armed(Timer::DelayedAck) {
            self.timers.arm(Timer::DelayedAck, cx.now + cx.config.delayed_ack);
        }
    }

    /// Acknowledges with the next segment, at once.
    pub(super) fn want_urgent_ack(&mut self) {
        self.wanted |= Wanted::ACK;
    }

    /// Notes a segment that came again, for a D-SACK.
    pub(super) fn note_duplicate(&mut self, segment: &Segment<'_>) {
        let end = segment.seq + segment.payload.len() as u32;
        let right = end.earlier(self.reassembly.next());
        if segment.seq.before(right) {
            self.note_again(Block {
                left: segment.seq,
                right,
            });
        }
    }

    /// Notes data that came again; what follows the last such is told with it.
    fn note_again(&mut self, again: Block) {
        let left = match self.acks.duplicate {
            Some(pending) if pending.right == again.left => pending.left,
            Some(_) | None => again.left,
        };
        self.acks.duplicate = Some(Block { left, ..again });
    }

    /// A challenge ACK (RFC 5961): tells a true peer where we are, and a false one nothing new.
    pub(super) fn challenge(&mut self, cx: &Cx<'_>) {
        if cx.now >= self.acks.challenge_from {
            self.acks.challenge_from = cx.now + CHALLENGE_INTERVAL;
            self.want_urgent_ack();
        }
    }

    /// RFC 3168, section 6.1.3: marks are echoed until the peer says that it has reduced its window.
    fn note_congestion_marks(&mut self, segment: &Segment<'_>) {
        if !self.traits.contains(Traits::ECN) {
            return;
        }
        if segment.has(TcpFlags::CWR) {
            self.traits -= Traits::ECHO_CONGESTION;
        }
        if segment.congestion_experienced {
            self.traits |= Traits::ECHO_CONGESTION;
            self.want_urgent_ack();
        }
    }

    /// A segment with an acknowledgment number is about to go: nothing is owed any more.
    pub(super) fn on_ack_sent(&mut self, with_data: bool) {
        self.wanted -= Wanted::ACK;
        self.timers.cancel(Timer::DelayedAck);
        self.acks.last_sent = Some(self.reassembly.next());
        if self.acks.unacknowledged > 0 {
            self.acks.quick = if with_data {
                0
            } else {
                self.acks.quick.saturating_sub(1)
            };
            self.acks.unacknowledged = 0;
        }
    }

    /// The SACK blocks of the next segment: a D-SACK first (RFC 2883), then what came last (RFC 2018).
    pub(super) fn sack_blocks(&mut self, out: &mut [Block; 4], tells_duplicates: bool) -> usize {
        if !self.traits.contains(Traits::SACK) {
            return 0;
        }
        let duplicate = self.acks.duplicate.take().filter(|_| tells_duplicates);
        let first = usize::from(duplicate.is_some());
        if let Some(duplicate) = duplicate {
            out[0] = duplicate;
        }
        first + self.reassembly.sack_blocks(&mut out[first..])
    }

    /// Whether a D-SACK or a hole is to be told.
    pub(super) fn has_sack_blocks(&self) -> bool {
        self.traits.contains(Traits::SACK) && (self.acks.duplicate.is_some() || self.reassembly.has_holes())
    }

    /// The program has read: the window may be worth telling of.
    pub(super) fn after_read(&mut self, cx: &Cx<'_>) {
        if !self.state.may_receive() {
            return;
        }
        self.tune_receive_buffer(cx);
        let rcv_nxt = self.reassembly.next();
        let offered = self.rcv_edge.since(rcv_nxt).max(0) as u32;
        let possible = self.window_edge(cx).since(rcv_nxt).max(0) as u32;
        // Often enough that the peer never waits, seldom enough that reading costs no segment each time.
        if possible >= 2 * offered && possible > offered {
            self.want_urgent_ack();
        }
    }

    /// The window for the next segment's header; it is offered from now on.
    pub(super) fn offer_window(&mut self, cx: &Cx<'_>) -> u16 {
        let rcv_nxt = self.reassembly.next();
        let edge = self.window_edge(cx).later(self.rcv_edge);
        let window = edge.since(rcv_nxt).max(0) as u32;
        let granted = self.rcv_edge.since(rcv_nxt).max(0) as u32;
        let mut field = (window >> self.rcv_shift).min(65_535);
        // RFC 7323, section 2.4: rounding down must not take back what was granted.
        if field << self.rcv_shift < granted {
            field = granted.div_ceil(1 << self.rcv_shift).min(65_535);
        }
        self.rcv_edge = rcv_nxt + (field << self.rcv_shift);
        field as u16
    }

    /// The most that is offered: little if memory is short. What the largest window can name: without scaling less than the buffer may hold.
    fn receive_limit(&self, cx: &Cx<'_>) -> u32 {
        let limit = self.receive_buffer(cx.config).min(65_535 << self.rcv_shift);
        if cx.pool.is_tight() {
            limit.min(TIGHT_BUFFER)
        } else {
            limit
        }
    }

    /// Where the window could end, with the silly window syndrome avoided (RFC 9293, section 3.8.6.2.2): it
    /// moves by a segment, or half the buffer, or not at all.
    fn window_edge(&self, cx: &Cx<'_>) -> SeqNum {
        let limit = self.receive_limit(cx);
        let used = u32::try_from(self.reassembly.ready()).unwrap_or(u32::MAX);
        let edge = self.reassembly.next() + limit.saturating_sub(used);
        let step = (limit / 2).min(u32::from(self.snd_mss).max(self.acks.rcv_mss)) as i32;
        if edge.since(self.rcv_edge) >= step {
            edge
        } else {
            self.rcv_edge
        }
    }
}
