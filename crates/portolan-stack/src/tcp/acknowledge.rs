//! The sending half when an acknowledgment comes: what was delivered, what is lost, how much may go next.

use portolan_core::wire::TcpFlags;

use super::congestion::{Acked, Sample};
use super::connection::{Connection, Cx, Happened, Traits};
use super::recovery::{Phase, Reduction};
use super::scoreboard::Fate;
use super::segment::Segment;
use super::timers::Timer;
use crate::buffer::Block;
use crate::{Duration, Instant};

/// RFC 5681, section 3.2: the third duplicate acknowledgment tells a loss, of a peer without SACK.
const DUPLICATES: u16 = 3;

/// What one acknowledgment told.
#[derive(Default)]
pub(super) struct News {
    /// Whether SND.UNA moved.
    pub(super) advances: bool,
    /// Bytes that arrived, as far as we did not know.
    delivered: u32,
    /// When the first of those was sent that were sent once and are acknowledged in order.
    first_sent: Option<Instant>,
    /// When the last of those was sent.
    last_sent: Option<Instant>,
    /// Whether anything acknowledged in order was sent more than once.
    retransmitted: bool,
    /// Whether the timestamp does not tell either which of the transmissions arrived.
    ambiguous: bool,
    /// Whether it shows that something more was lost.
    shows_loss: bool,
    /// Whether something arrived that was sent once, before the recovery that goes on.
    pub(super) original: bool,
    /// Whether it is a duplicate, or tells of something behind a hole.
    pub(super) tells_of_holes: bool,
}

impl Connection {
    /// Takes the acknowledgment of a segment that passed all checks (RFC 9293, section 3.10.7.4, fifth).
    pub(super) fn acknowledge(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>) {
        // Something works.
        self.soft_error = None;
        // As in Linux the program's promise of more holds until the peer was heard.
        self.traits -= Traits::MORE_COMES;
        let window_moved = self.update_window(segment);
        let mut news = News {
            advances: segment.ack.after(self.snd_una),
            ..News::default()
        };
        if !news.advances && self.has_nothing_to_learn(segment) {
            self.attempts = if self.is_released() { self.attempts } else { 0 };
            return;
        }
        let una_before = self.snd_una;
        let duplicate_sack = self.note_duplicate_sack(segment);
        if news.advances {
            self.take_cumulative(cx, segment, &mut news);
        }
        if self.traits.contains(Traits::SACK) {
            self.take_sacks(cx, segment, &mut news);
        } else {
            self.count_duplicate(segment, window_moved, &mut news);
        }
        self.measure(cx, segment, &news);
        if self.stats.is_some() {
            let delivered = news.delivered.div_ceil(self.snd_mss.into());
            self.count(|counts| {
                counts.delivered += u64::from(delivered);
                counts.duplicate_sacks += u64::from(duplicate_sack.is_some());
            });
        }
        self.check_tail_probe(segment, duplicate_sack);
        self.undo_if_spurious(segment, &news, una_before);
        if news.advances || news.delivered > 0 {
            let before = self.board.lost();
            self.detect_losses(cx);
            news.shows_loss |= self.board.lost() > before;
        }
        self.note_congestion_echo(segment);
        self.move_phase(cx, &news);
        if news.advances {
            self.rearm(cx, true);
        }
        if self.board.is_empty() && !self.is_released() {
            // It answers, so it may keep its window shut as long as it likes; but not if nobody here waits.
            self.attempts = 0;
        }
    }

    /// Whether an acknowledgment that is no news can tell of nothing else: nothing is in flight.
    fn has_nothing_to_learn(&self, segment: &Segment<'_>) -> bool {
        self.board.is_empty()
            && segment.options.sack.is_empty()
            && self.phase == Phase::Open
            && self.tail_probe.is_none()
            && self.stats.is_none()
    }

    /// The window that a segment offers, in bytes.
    pub(super) fn offered_by(&self, segment: &Segment<'_>) -> u32 {
        let shift = if segment.is_scaled { self.snd_shift } else { 0 };
        u32::from(segment.window) << shift
    }

    /// Section 3.10.7.4: the window of an old segment does not count.
    fn update_window(&mut self, segment: &Segment<'_>) -> bool {
        let is_newer = self.snd_wl1.before(segment.seq)
            || (self.snd_wl1 == segment.seq && self.snd_wl2.at_or_before(segment.ack));
        if !is_newer || segment.ack.before(self.snd_una) {
            return false;
        }
        let window = self.offered_by(segment);
        let moved = window != self.snd_wnd;
        self.snd_wnd = window;
        self.max_snd_wnd = self.max_snd_wnd.max(window);
        self.snd_wl1 = segment.seq;
        self.snd_wl2 = segment.ack;
        moved
    }

    fn take_cumulative(&mut self, cx: &mut Cx<'_>, segment: &Segment<'_>, news: &mut News) {
        let (now, least) = (cx.now, self.rtt.minimum());
        let echo = segment.options.timestamps.map(|(_, echo)| echo);
        let offset = self.timestamp_offset;
        let mss = u32::from(self.snd_mss);
        let until = self.phase.until();
        let rack = &mut self.rack;
        self.board.acknowledge(segment.ack, |sent| {
            let is_late = is_echo_of_earlier(echo, sent.at, offset);
            if sent.fate != Fate::Sacked {
                news.delivered += sent.len();
                rack.on_delivered(sent, now, least, is_late, mss);
            }
            if sent.retransmitted {
                news.retransmitted = true;
                news.ambiguous |= is_late;
            } else if sent.fate != Fate::Sacked {
                news.first_sent.get_or_insert(sent.at);
                news.last_sent = Some(sent.at);
                news.original |= until.is_some_and(|until| sent.end.at_or_before(until));
            }
        });
        let mut bytes = segment.ack.since(self.snd_una) as usize;
        if self.traits.contains(Traits::FIN_SENT) && segment.ack == self.snd_nxt {
            bytes -= 1;
        }
        self.queue.acknowledge(cx.pool, bytes);
        self.count(|counts| counts.bytes_acknowledged += bytes as u64);
        self.snd_una = segment.ack;
        self.attempts = 0;
        self.progress_at = cx.now;
        let limit = self.send_buffer(cx.config);
        let room = limit.saturating_sub(self.queue.len());
        // A third of the buffer: a program that is woken for every segment does nothing else.
        if self.traits.contains(Traits::WRITER_WAITS) && room >= limit / 3 {
            self.traits -= Traits::WRITER_WAITS;
            self.happened |= Happened::WRITABLE;
        }
    }

    fn take_sacks(&mut self, cx: &Cx<'_>, segment: &Segment<'_>, news: &mut News) {
        if segment.options.sack.is_empty() {
            return;
        }
        let (now, least) = (cx.now, self.rtt.minimum());
        let echo = segment.options.timestamps.map(|(_, echo)| echo);
        let offset = self.timestamp_offset;
        let mut blocks = [None; 4];
        for (place, block) in blocks.iter_mut().zip(segment.options.sack) {
            *place = Some(self.board.whole_segments(Block {
                left: block.left(),
                right: block.right(),
            }));
        }
        let mss = u32::from(self.snd_mss);
        let until = self.phase.until();
        let rack = &mut self.rack;
        self.board.sack(blocks.into_iter().flatten(), |sent| {
            news.delivered += sent.len();
            news.tells_of_holes = true;
            news.original |= !sent.retransmitted && until.is_some_and(|until| sent.end.at_or_before(until));
            rack.on_delivered(sent, now, least, is_echo_of_earlier(echo, sent.at, offset), mss);
        });
    }

    /// RFC 5681, section 2: an acknowledgment that says nothing new while data is in flight.
    fn count_duplicate(&mut self, segment: &Segment<'_>, window_moved: bool, news: &mut News) {
        let mss = u32::from(self.snd_mss);
        if news.advances {
            let segments = (news.delivered / mss).max(1) as u16;
            // Duplicate acknowledgments have told of some of it already.
            let told = u32::from(self.duplicates) * mss;
            news.delivered = news.delivered.saturating_sub(told).max(news.delivered.min(mss));
            self.duplicates = match self.phase {
                Phase::Recovery { .. } => self.duplicates.saturating_sub(segments),
                Phase::Open | Phase::Loss { .. } => 0,
            };
            // RFC 6582, section 3.2, step 3: a partial acknowledgment tells of the next loss.
            if let Phase::Recovery { until, .. } = self.phase
                && segment.ack.before(until)
            {
                self.board.mark_first_lost(mss);
                news.shows_loss = true;
            }
        } else if segment.ack == self.snd_una
            && segment.payload.is_empty()
            && !window_moved
            && !segment.has(TcpFlags::FIN)
            && !self.board.is_empty()
        {
            let most = (self.board.in_flight() / mss) as u16;
            if self.duplicates < most {
                self.duplicates += 1;
                news.delivered += mss;
            }
            news.tells_of_holes = true;
            if self.duplicates == DUPLICATES && self.phase == Phase::Open {
                self.board.mark_first_lost(mss);
            }
        }
    }

    /// RFC 2883, section 4: a first block below SND.UNA, or inside the second, tells what came twice.
    fn note_duplicate_sack(&mut self, segment: &Segment<'_>) -> Option<Block> {
        let mut blocks = segment.options.sack.iter().map(|block| Block {
            left: block.left(),
            right: block.right(),
        });
        let first = blocks.next()?;
        let is_duplicate = first.left.before(segment.ack)
            || blocks.next().is_some_and(|second| {
                second.left.at_or_before(first.left) && first.right.at_or_before(second.right)
            });
        if !is_duplicate || !self.traits.contains(Traits::SACK) {
            return None;
        }
        // The duplicate that a probe of the tail made says nothing of reordering (RFC 8985, section 7.4.2).
        if self.tail_probe.is_none_or(|(end, _)| end != first.right) {
            self.rack.on_duplicate(segment.ack, self.snd_nxt);
        }
        self.note_unneeded(first);
        Some(first)
    }

    /// RFC 6298, section 3: Karn's algorithm, or the timestamp where it tells which transmission arrived. One
    /// from before a retransmission may have waited for that retransmission, if the first acknowledgment was
    /// lost: it would make the timeout grow with itself.
    fn measure(&mut self, cx: &Cx<'_>, segment: &Segment<'_>, news: &News) {
        if !news.advances {
            return;
        }
        if let Some(sent) = news.first_sent
            && !news.retransmitted
        {
            self.rtt.measure(cx.now.since(sent));
            let latest = news.last_sent.unwrap_or(sent);
            self.sample(cx, cx.now.since(latest));
        } else if let Some((_, echo)) = segment.options.timestamps
            && self.traits.contains(Traits::TIMESTAMPS)
            && !news.ambiguous
            && echo != 0
        {
            let millis = self.timestamp(cx.now).wrapping_sub(echo);
            // Nothing takes longer than that; a larger difference is a wrong echo.
            if millis < 1 << 24 {
                self.rtt.measure(Duration::from_millis(u64::from(millis)));
            }
        }
    }

    /// Tells the congestion control of a round-trip time.
    fn sample(&mut self, cx: &Cx<'_>, rtt: Duration) {
        if !self.window.in_slow_start() {
            return;
        }
        let sample = Sample {
            now: cx.now,
            rtt,
            least: self.rtt.minimum().map_or(rtt, |least| least.min(rtt)),
            una: self.snd_una,
            nxt: self.snd_nxt,
            mss: u32::from(self.snd_mss),
            pace: self.pacing_rate(),
        };
        self.congestion.controller().on_sample(&mut self.window, &sample);
    }

    /// RFC 8985, section 7.4: what the acknowledgment of a tail loss probe tells.
    fn check_tail_probe(&mut self, segment: &Segment<'_>, duplicate_sack: Option<Block>) {
        let Some((end, was_retransmission)) = self.tail_probe else {
            return;
        };
        if segment.ack.before(end) {
            return;
        }
        if !was_retransmission || duplicate_sack.is_some_and(|block| block.right == end) {
            self.tail_probe = None;
        } else if segment.ack.after(end) {
            // Only one copy of the tail arrived: the probe mended a loss, which counts as one.
            self.tail_probe = None;
            if self.phase == Phase::Open {
                self.undo = None;
                self.reduce();
                self.window.cwnd = self.window.cwnd.min(self.window.ssthresh);
            }
        }
    }

    /// Runs RACK over what is in flight.
    pub(super) fn detect_losses(&mut self, cx: &Cx<'_>) {
        if !self.traits.contains(Traits::SACK) {
            return;
        }
        let in_recovery = self.phase != Phase::Open;
        let mss = u32::from(self.snd_mss);
        match self
            .rack
            .detect(&mut self.board, cx.now, &self.rtt, in_recovery, mss)
        {
            Some(rest) => self.timers.arm(Timer::Reorder, cx.now + rest + TIMER_SLACK),
            None => self.timers.cancel(Timer::Reorder),
        }
    }

    /// RFC 3168, section 6.1.2: an echoed mark counts as a loss, once in a round trip.
    fn note_congestion_echo(&mut self, segment: &Segment<'_>) {
        if self.traits.contains(Traits::ECN)
            && segment.has(TcpFlags::ECE)
            && self.phase == Phase::Open
            && !self.board.is_empty()
        {
            self.enter_recovery();
            // A router said so: it was no mistake.
            self.undo = None;
        }
    }

    fn move_phase(&mut self, cx: &Cx<'_>, news: &News) {
        let lost = self.board.lost();
        match self.phase {
            Phase::Open if lost > 0 => self.enter_recovery(),
            Phase::Recovery { until, .. } | Phase::Loss { until, .. } if self.snd_una.at_or_after(until) => {
                if matches!(self.phase, Phase::Recovery { .. }) {
                    self.window.cwnd = self.window.ssthresh.max(u32::from(self.snd_mss));
                }
                self.phase = Phase::Open;
                self.duplicates = 0;
                self.rack.on_recovered();
                if lost > 0 {
                    self.enter_recovery();
                }
            }
            Phase::Open | Phase::Recovery { .. } | Phase::Loss { .. } => {}
        }
        let pipe = self.in_flight();
        let mss = u32::from(self.snd_mss);
        match &mut self.phase {
            Phase::Recovery { reduction, .. } => {
                if news.delivered > 0 {
                    let progress = news.advances && !news.shows_loss;
                    let ssthresh = self.window.ssthresh;
                    self.window.cwnd = reduction.window(news.delivered, pipe, ssthresh, mss, progress);
                }
            }
            Phase::Open | Phase::Loss { .. } => {
                let is_limited = self.traits.contains(Traits::CWND_LIMITED)
                    || (self.window.in_slow_start() && self.window.cwnd < 2 * self.most_outstanding);
                // Where things come late anyway, what is SACKed is progress too.
                let is_progress = news.advances || self.rack.reordering() > DUPLICATES && news.delivered > 0;
                if is_progress && is_limited {
                    let acked = Acked {
                        now: cx.now,
                        bytes: news.delivered,
                        rtt: self.rtt.smoothed().unwrap_or(Duration::ZERO),
                        mss,
                    };
                    self.congestion.controller().on_ack(&mut self.window, acked);
                }
            }
        }
    }

    /// A loss or a mark in a window that was fine: shrinks it while it drains.
    pub(super) fn enter_recovery(&mut self) {
        let (cwnd, mss) = (self.window.cwnd, u32::from(self.snd_mss));
        self.remember_window();
        self.reduce();
        self.tail_probe = None;
        self.timers.cancel(Timer::TailLoss);
        self.phase = Phase::Recovery {
            until: self.snd_nxt,
            reduction: Reduction::new(cwnd, mss),
        };
    }

    /// Sets the threshold after congestion, and with ECN tells the peer, whatever the reason (RFC 3168, section 6.1.2).
    pub(super) fn reduce(&mut self) {
        let mss = u32::from(self.snd_mss);
        if self.traits.contains(Traits::ECN) {
            self.traits |= Traits::TELL_REDUCED;
        }
        self.window.ssthresh = self.congestion.controller().on_congestion(self.window, mss);
    }

    /// Sets the timers of what is in flight (RFC 6298, section 5; RFC 8985, section 7.2).
    pub(super) fn rearm(&mut self, cx: &Cx<'_>, restart: bool) {
        if self.board.is_empty() {
            self.timers.cancel(Timer::Retransmit);
            self.timers.cancel(Timer::TailLoss);
            self.timers.cancel(Timer::Reorder);
            return;
        }
        if restart || !self.timers.is_armed(Timer::Retransmit) {
            self.timers.arm(Timer::Retransmit, cx.now + self.rto(cx));
        }
        self.timers.cancel(Timer::Persist);
        let may_probe = self.phase == Phase::Open
            && cx.config.tail_loss_probe
            && self.traits.contains(Traits::SACK)
            && self.board.sacked() == 0
            && self.tail_probe.is_none()
            && self.state.is_synchronized();
        if !may_probe {
            self.timers.cancel(Timer::TailLoss);
            return;
        }
        let Some(smoothed) = self.rtt.smoothed() else {
            return;
        };
        // RFC 8985, section 7.2: a single segment may wait for a delayed acknowledgment.
        let wait = if self.board.in_flight() <= u32::from(self.snd_mss) {
            MAX_ACK_DELAY
        } else {
            TIMER_SLACK
        };
        let at = cx.now + smoothed * 2 + wait;
        self.timers
            .arm(Timer::TailLoss, at.min(self.timers.deadline(Timer::Retransmit)));
    }

    /// TSval (RFC 7323, section 5.4): a clock of milliseconds.
    pub(super) fn timestamp(&self, now: Instant) -> u32 {
        (now.as_millis() as u32).wrapping_add(self.timestamp_offset)
    }
}

/// RFC 8985, section 7.2: TLP.max_ack_delay.
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
/// What timers that guess at losses wait in addition, as in Linux: a scheduler needs its time too.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// Whether the peer echoes a timestamp from before this transmission: it acknowledges an earlier one.
pub(super) fn is_echo_of_earlier(echo: Option<u32>, sent: Instant, offset: u32) -> bool {
    let value = (sent.as_millis() as u32).wrapping_add(offset);
    echo.is_some_and(|echo| (echo.wrapping_sub(value) as i32) < 0)
}
