//! Taking back a reduction of the window that turned out to be wrong: nothing was lost, things came late.
//!
//! Three things tell (in the order in which they can be known, as Linux has them):
//!
//! ```text
//!   Eifel, RFC 3522    the acknowledgment echoes a timestamp from before anything was sent again
//!   F-RTO, RFC 5682    after a timeout, what was sent once and never again arrives
//!   D-SACK, RFC 3708   the peer had everything already that was sent again
//! ```
//!
//! Then the window and what the algorithm knew of the path are as they were (RFC 4015, section 3.2; RFC 9438, section 4.9),
//! and what was given for lost and not yet sent again is in flight.

use portolan_core::wire::SeqNum;

use super::acknowledge::{News, is_echo_of_earlier};
use super::congestion::{Congestion, Window};
use super::connection::{Connection, Traits};
use super::recovery::{Forward, Phase};
use super::scoreboard::Scoreboard;
use super::segment::Segment;
use crate::Instant;
use crate::buffer::Block;

/// A peer that sends so much more since has nothing to say of it any more, and numbers would wrap.
const MEMORY: i32 = 1 << 30;

/// What there was before the window was reduced, and what is known of what was sent again since.
#[derive(Debug)]
pub(super) struct Undo {
    /// SND.UNA then: a D-SACK of data before it is about an older loss.
    marker: SeqNum,
    window: Window,
    congestion: Congestion,
    /// When something was first sent again.
    first_resent: Option<Instant>,
    /// Segments that were sent again and that the peer has not called unneeded; `None` before anything was.
    unproven: Option<u32>,
}

impl Undo {
    fn note_resent(&mut self, segments: u32, at: Instant) {
        self.first_resent.get_or_insert(at);
        *self.unproven.get_or_insert(0) += segments;
    }

    /// Takes a D-SACK; gives how many segments it is about.
    fn note_duplicate(&mut self, block: Block, board: &Scoreboard, snd_una: SeqNum, mss: u32) {
        let is_ours = block.right.at_or_before(snd_una) || board.was_resent(block.left);
        if let Some(unproven) = &mut self.unproven
            && block.right.after(self.marker)
            && is_ours
        {
            let segments = (block.right.since(block.left).max(1) as u32).div_ceil(mss);
            *unproven = unproven.saturating_sub(segments);
        }
    }

    /// Whether everything that was sent again was there already.
    fn all_unneeded(&self) -> bool {
        self.unproven == Some(0)
    }

    /// Whether an acknowledgment that moved SND.UNA is for what was sent first: RFC 3522, section 3.2, step 4.
    fn is_of_original(&self, echo: Option<u32>, timestamp_offset: u32) -> bool {
        match self.first_resent {
            Some(at) => is_echo_of_earlier(echo, at, timestamp_offset),
            // Nothing was sent again yet, so that nothing else can have arrived.
            None => true,
        }
    }
}

impl Connection {
    /// Remembers what a reduction of the window is about to change.
    pub(super) fn remember_window(&mut self) {
        let mss = u32::from(self.snd_mss);
        let Window { cwnd, ssthresh } = self.window;
        // Linux's tcp_current_ssthresh: three quarters of the window are known to fit.
        let segments = cwnd / mss;
        let mut undo = Undo {
            marker: self.snd_una,
            window: Window {
                cwnd,
                ssthresh: ssthresh.max((segments / 2 + segments / 4) * mss),
            },
            congestion: self.congestion,
            first_resent: None,
            unproven: None,
        };
        // Probes of the tail, and what an earlier recovery left.
        if let Some((segments, first)) = self.board.resent_in_flight() {
            undo.note_resent(segments, first);
        }
        self.undo = Some(Box::new(undo));
    }

    /// Notes that segments are sent again.
    pub(super) fn note_resent(&mut self, segments: u32, at: Instant) {
        if let Some(undo) = &mut self.undo {
            undo.note_resent(segments, at);
        }
    }

    /// Notes what the peer says to have got twice.
    pub(super) fn note_unneeded(&mut self, block: Block) {
        if let Some(undo) = &mut self.undo {
            undo.note_duplicate(block, &self.board, self.snd_una, u32::from(self.snd_mss));
        }
    }

    /// Takes a reduction back if the acknowledgment shows that it was wrong; else follows F-RTO.
    pub(super) fn undo_if_spurious(&mut self, segment: &Segment<'_>, news: &News, una_before: SeqNum) {
        let Some(undo) = &self.undo else {
            if let Phase::Loss { forward, .. } = self.phase
                && forward != Forward::Off
                && news.original
            {
                // Undone before by the timestamp, without SACK.
                self.phase = Phase::Open;
            }
            return;
        };
        if self.snd_una.since(undo.marker) > MEMORY {
            self.undo = None;
            return;
        }
        let all_unneeded = undo.all_unneeded();
        let echo = segment.options.timestamps.map(|(_, echo)| echo);
        let is_late = news.advances && undo.is_of_original(echo, self.timestamp_offset);
        let has_sack = self.traits.contains(Traits::SACK);
        match self.phase {
            Phase::Open if all_unneeded => self.undo(),
            Phase::Open => {}
            Phase::Recovery { until, .. } => {
                let is_over = self.snd_una.at_or_after(until);
                // While something sent again is on its way its acknowledgment may still show that it was needed.
                let is_clear = is_over || self.board.resent_in_flight().is_none();
                if is_late {
                    self.rack.on_late(una_before, u32::from(self.snd_mss));
                }
                if all_unneeded || (is_late && is_clear) {
                    self.undo();
                    self.phase = Phase::Open;
                    self.duplicates = 0;
                }
            }
            Phase::Loss { until, forward } => {
                if news.advances && (is_late || all_unneeded) {
                    self.undo();
                    // RFC 6582, section 4: without SACK the duplicates that follow must not look like a loss.
                    if has_sack {
                        self.phase = Phase::Open;
                    }
                } else if forward != Forward::Off && news.original {
                    self.undo();
                    self.phase = Phase::Open;
                } else {
                    self.phase = Phase::Loss {
                        until,
                        forward: self.step_forward(until, forward, news),
                    };
                }
            }
        }
    }

    /// RFC 5682, sections 2.1 and 3.1: the first acknowledgment after a timeout lets new data go instead of what was given
    /// for lost; the next shows whether that was right.
    fn step_forward(&self, until: SeqNum, forward: Forward, news: &News) -> Forward {
        match forward {
            Forward::Off => Forward::Off,
            Forward::Asks if self.snd_nxt.after(until) && news.tells_of_holes => Forward::Off,
            Forward::SendsNew if self.snd_nxt.after(until) && news.tells_of_holes => Forward::Off,
            Forward::Asks if news.advances && self.snd_nxt == until && self.snd_una.before(until) => {
                Forward::SendsNew
            }
            // What was given for lost may go again.
            Forward::Asks | Forward::SendsNew => Forward::Asks,
        }
    }

    /// Whether new data goes before what was given for lost.
    pub(super) fn sends_new_first(&self) -> bool {
        matches!(
            self.phase,
            Phase::Loss {
                forward: Forward::SendsNew,
                ..
            }
        )
    }

    /// No more new data can go: whether some did, for which the next acknowledgment is worth waiting. Without any, F-RTO
    /// cannot tell anything.
    pub(super) fn sent_new_first(&mut self) -> bool {
        let Phase::Loss { until, forward } = &mut self.phase else {
            return false;
        };
        if self.snd_nxt.after(*until) {
            return true;
        }
        *forward = Forward::Off;
        false
    }

    /// Takes the reduction back.
    fn undo(&mut self) {
        let Some(undo) = self.undo.take() else {
            return;
        };
        self.board.forget_losses();
        self.window.cwnd = self.window.cwnd.max(undo.window.cwnd);
        if undo.window.ssthresh > self.window.ssthresh {
            self.window.ssthresh = undo.window.ssthresh;
            // The peer need not be told of a reduction that was none.
            self.traits -= Traits::TELL_REDUCED;
        }
        self.congestion = undo.congestion;
        self.count(|counts| counts.undone += 1);
    }
}
