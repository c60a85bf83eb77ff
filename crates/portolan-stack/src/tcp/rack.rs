//! RACK-TLP: loss from the order of time (RFC 8985).
//!
//! A segment is lost when one that was sent later has arrived, and the difference is larger than the
//! reordering that the path is known for. That finds lost retransmissions too, needs no three duplicates,
//! and survives reordering.

use portolan_core::wire::SeqNum;

use super::scoreboard::{Fate, Scoreboard, Sent};
use crate::{Duration, Instant};

/// Recoveries after which a widened reordering window shrinks again (section 7.1, RACK.reo_wnd_persist).
const PERSIST: u8 = 16;
/// Section 6.2: without reordering seen, this many segments beyond a hole are proof enough.
const DUP_THRESH: u16 = 3;
/// Linux's tcp_max_reordering.
const MOST_REORDERING: u32 = 300;

/// The variables of RFC 8985, section 5.
#[derive(Debug)]
pub(super) struct Rack {
    /// RACK.xmit_ts and RACK.end_seq: the segment sent last of all that arrived.
    latest: Option<(Instant, SeqNum)>,
    /// RACK.rtt: how long it took.
    rtt: Duration,
    /// RACK.fack: the highest that arrived.
    forward: Option<SeqNum>,
    reordering_seen: bool,
    /// By how many segments something that was sent once came late, at most; at least [`DUP_THRESH`].
    reordering: u16,
    /// RACK.reo_wnd_mult: in quarters of the least round-trip time.
    multiplier: u8,
    persist: u8,
    /// RACK.dsack_round: the end of the round in which a D-SACK has counted already.
    dsack_round: Option<SeqNum>,
}

/// What is kept while nothing is in flight: all else is about segments that arrived long ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct RackAtRest {
    /// RACK.rtt, in microseconds.
    rtt: u32,
    reordering: u16,
    reordering_seen: bool,
    multiplier: u8,
    persist: u8,
}

impl Rack {
    /// What waits.
    pub(super) fn rest(&self) -> RackAtRest {
        let &Self {
            latest: _,
            rtt,
            forward: _,
            reordering_seen,
            reordering,
            multiplier,
            persist,
            dsack_round: _,
        } = self;
        RackAtRest {
            rtt: u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX),
            reordering,
            reordering_seen,
            multiplier,
            persist,
        }
    }

    /// What waited.
    pub(super) fn wake(rest: &RackAtRest) -> Self {
        Self {
            rtt: Duration::from_micros(u64::from(rest.rtt)),
            reordering: rest.reordering,
            reordering_seen: rest.reordering_seen,
            multiplier: rest.multiplier,
            persist: rest.persist,
            ..Self::new()
        }
    }

    pub(super) const fn new() -> Self {
        Self {
            latest: None,
            rtt: Duration::ZERO,
            forward: None,
            reordering_seen: false,
            reordering: DUP_THRESH,
            multiplier: 1,
            persist: 0,
            dsack_round: None,
        }
    }

    /// Section 6.2, steps 2 and 3: learns from a part that was just acknowledged or SACKed. `echo_is_late`
    /// says that the peer's timestamp shows it to be the acknowledgment of an earlier transmission.
    pub(super) fn on_delivered(
        &mut self,
        sent: &Sent,
        now: Instant,
        least_rtt: Option<Duration>,
        echo_is_late: bool,
        mss: u32,
    ) {
        let rtt = now.since(sent.at);
        if !sent.retransmitted {
            match self.forward {
                Some(forward) if sent.end.before(forward) => {
                    self.note_reordering(sent.seq, forward, mss);
                }
                Some(forward) if sent.end == forward => {}
                _ => self.forward = Some(sent.end),
            }
        } else if echo_is_late || least_rtt.is_some_and(|least| rtt < least) {
            return;
        }
        self.rtt = rtt;
        if self
            .latest
            .is_none_or(|latest| sent_after((sent.at, sent.end), latest))
        {
            self.latest = Some((sent.at, sent.end));
        }
    }

    /// Something came late that was sent again too early: it begins at `seq`.
    pub(super) fn on_late(&mut self, seq: SeqNum, mss: u32) {
        if let Some(forward) = self.forward
            && forward.after(seq)
        {
            self.note_reordering(seq, forward, mss);
        }
    }

    fn note_reordering(&mut self, seq: SeqNum, forward: SeqNum, mss: u32) {
        self.reordering_seen = true;
        let late = (forward.since(seq) as u32).div_ceil(mss).min(MOST_REORDERING) as u16;
        self.reordering = self.reordering.max(late);
    }

    /// Section 6.2, step 4: a D-SACK shows a retransmission that was not needed, and widens the window.
    pub(super) fn on_duplicate(&mut self, snd_una: SeqNum, snd_nxt: SeqNum) {
        if self.dsack_round.is_none_or(|round| snd_una.at_or_after(round)) {
            self.dsack_round = Some(snd_nxt);
            self.multiplier = self.multiplier.saturating_add(1);
            self.persist = PERSIST;
            self.reordering_seen = true;
        }
    }

    /// A recovery is over: without new D-SACKs the window shrinks again some time.
    pub(super) fn on_recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.multiplier = 1;
        }
    }

    /// Section 6.2, step 5: gives for lost what must be, and says after which time to look again.
    pub(super) fn detect(
        &self,
        board: &mut Scoreboard,
        now: Instant,
        rtt: &super::rtt::RttEstimator,
        in_recovery: bool,
        mss: u32,
    ) -> Option<Duration> {
        let latest = self.latest?;
        let window = self.reordering_window(
            rtt,
            in_recovery,
            board.sacked() >= u32::from(self.reordering) * mss,
        );
        let mut again: Option<Duration> = None;
        board.mark_lost(|entry| {
            if !sent_after(latest, (entry.at, entry.end)) {
                // What was sent once stands in the order of time: behind it all is later still.
                return if entry.fate == Fate::Sent && !entry.retransmitted {
                    None
                } else {
                    Some(false)
                };
            }
            let age = now.since(entry.at);
            if age >= self.rtt + window {
                return Some(true);
            }
            let rest = self.rtt + window - age;
            again = Some(again.map_or(rest, |again| again.max(rest)));
            Some(false)
        });
        again
    }

    /// Whether an entry in flight is old enough to be lost when the retransmission timer fires (section 6.3).
    pub(super) fn is_overdue(&self, entry: &Sent, now: Instant, rtt: &super::rtt::RttEstimator) -> bool {
        now.since(entry.at) >= self.rtt + self.reordering_window(rtt, false, false)
    }

    /// Reads a word.
    pub(super) const fn touch(&self) -> u64 {
        self.rtt.as_nanos()
    }

    /// By how many segments things come late.
    pub(super) const fn reordering(&self) -> u16 {
        self.reordering
    }

    fn reordering_window(
        &self,
        rtt: &super::rtt::RttEstimator,
        in_recovery: bool,
        threshold: bool,
    ) -> Duration {
        if !self.reordering_seen && (in_recovery || threshold) {
            return Duration::ZERO;
        }
        let quarter = rtt.minimum().unwrap_or(Duration::ZERO) / 4;
        (quarter * u32::from(self.multiplier)).min(rtt.smoothed().unwrap_or(Duration::ZERO))
    }
}

/// RACK_sent_after: by time, then by sequence number.
fn sent_after(a: (Instant, SeqNum), b: (Instant, SeqNum)) -> bool {
    a.0 > b.0 || (a.0 == b.0 && a.1.after(b.1))
}
