//! What was sent and is not acknowledged, and what is known of it.
//!
//! One entry for each transmission, in order of sequence numbers, without gaps: SYN and FIN take a number as
//! data does. An entry splits where a SACK block or a retransmission ends inside it, so that a super-segment
//! is one entry as long as it fares alike.

use std::collections::VecDeque;

use portolan_core::wire::SeqNum;

use crate::Instant;
use crate::buffer::Block;

/// Entries for which memory may stay while nothing is in flight.
const KEPT_ENTRIES: usize = 4;

/// What is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// In flight, as far as we know.
    Sent,
    /// The peer has it, behind a hole.
    Sacked,
    /// Given up for lost, to be sent again.
    Lost,
    /// Given up for lost, and sent again.
    Resent,
}

/// A range that was sent at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) seq: SeqNum,
    pub(super) end: SeqNum,
    /// When it was sent last.
    pub(super) at: Instant,
    pub(super) fate: Fate,
    /// Where the link cuts it: a segment ends each `piece_len` bytes behind `cut_from`; 0 for nowhere.
    cut_from: SeqNum,
    piece_len: u16,
    /// Whether it was ever sent more than once, so that its acknowledgment may be for any of them (Karn).
    pub(super) retransmitted: bool,
    /// Whether its last segment says PSH.
    pub(super) push: bool,
}

impl Sent {
    pub(super) fn len(&self) -> u32 {
        self.end.since(self.seq) as u32
    }

    /// The end of the segment that the number belongs to.
    fn piece_end(&self, seq: SeqNum) -> SeqNum {
        if self.piece_len == 0 {
            return self.end;
        }
        let len = u32::from(self.piece_len);
        let before = (seq.since(self.cut_from) as u32) / len;
        (self.cut_from + (before + 1) * len).earlier(self.end)
    }

    /// The start of the segment that the number belongs to.
    fn piece_start(&self, seq: SeqNum) -> SeqNum {
        if self.piece_len == 0 {
            return self.seq;
        }
        let len = u32::from(self.piece_len);
        let before = (seq.since(self.cut_from) as u32) / len;
        (self.cut_from + before * len).later(self.seq)
    }

    /// How many segments it is.
    fn segments(&self) -> u32 {
        if self.piece_len == 0 {
            return 1;
        }
        let len = u32::from(self.piece_len);
        (self.end - 1).since(self.cut_from) as u32 / len - self.seq.since(self.cut_from) as u32 / len + 1
    }

    /// The start of the last segment.
    fn last_piece(&self) -> SeqNum {
        if self.piece_len == 0 {
            return self.seq;
        }
        let len = u32::from(self.piece_len);
        let before = ((self.end - 1).since(self.cut_from) as u32) / len;
        (self.cut_from + before * len).later(self.seq)
    }

    /// The end of the first segment of it.
    pub(super) fn first_end(&self) -> SeqNum {
        self.piece_end(self.seq)
    }
}

/// Sums in segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Segments {
    pub(super) unacknowledged: u32,
    pub(super) sacked: u32,
    pub(super) lost: u32,
    pub(super) resent: u32,
}

/// The entries and sums over them.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    entries: VecDeque<Sent>,
    sacked: u32,
    lost: u32,
    /// No entry before this number is `Lost`.
    retransmit_from: SeqNum,
    /// The blocks of the last acknowledgment, which most often come again.
    seen: [Option<Block>; 4],
}

impl Scoreboard {
    /// Takes over the room of `spare`, which is empty, if it is larger and there is nothing in its own yet.
    pub(super) fn take_room(&mut self, spare: &mut Self) {
        debug_assert!(spare.is_empty(), "entries would be lost");
        if self.is_empty() && spare.entries.capacity() > self.entries.capacity() {
            std::mem::swap(&mut self.entries, &mut spare.entries);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        *self = Self {
            entries,
            ..Self::default()
        };
    }

    /// Adds what was just sent, in segments of `piece_len` if that is not 0; it begins where the last ended.
    pub(super) fn push(&mut self, seq: SeqNum, end: SeqNum, piece_len: u16, now: Instant) {
        self.push_flagged(
            Block {
                left: seq,
                right: end,
            },
            piece_len,
            false,
            now,
        );
    }

    /// The same; `push` says whether the last segment says PSH.
    pub(super) fn push_flagged(&mut self, block: Block, piece_len: u16, push: bool, now: Instant) {
        let (seq, end) = (block.left, block.right);
        self.entries.push_back(Sent {
            seq,
            end,
            at: now,
            fate: Fate::Sent,
            cut_from: seq,
            piece_len,
            retransmitted: false,
            push,
        });
    }

    /// Forgets what lies before `ack`, showing each part to `visit`.
    pub(super) fn acknowledge(&mut self, ack: SeqNum, mut visit: impl FnMut(&Sent)) {
        while let Some(first) = self.entries.front_mut()
            && first.seq.before(ack)
        {
            let mut gone = *first;
            if first.end.after(ack) {
                gone.end = ack;
                first.seq = ack;
            } else {
                self.entries.pop_front();
            }
            self.count(&gone, false);
            visit(&gone);
        }
        if self.entries.is_empty() {
            self.seen = [None; 4];
            if self.entries.capacity() > KEPT_ENTRIES * 16 {
                self.entries = VecDeque::new();
            }
        }
    }

    /// Marks what the peer says it has, showing each part that is new to `visit`. Blocks outside of what is
    /// in flight say nothing.
    pub(super) fn sack(&mut self, blocks: impl Iterator<Item = Block>, mut visit: impl FnMut(&Sent)) {
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) else {
            return;
        };
        let (first, last) = (first.seq, last.end);
        let mut seen = [None; 4];
        for (block, place) in blocks.zip(&mut seen) {
            if block.left.before(first) || block.right.after(last) || !block.left.before(block.right) {
                continue;
            }
            *place = Some(block);
            let known = self
                .seen
                .iter()
                .flatten()
                .find(|known| known.left == block.left && known.right.at_or_before(block.right));
            let left = known.map_or(block.left, |known| known.right);
            self.mark_sacked(Block { left, ..block }, &mut visit);
        }
        self.seen = seen;
    }

    /// The whole segments of a block: of a segment that only a part of is named, nothing is known. Linux counts so too.
    pub(super) fn whole_segments(&self, block: Block) -> Block {
        let round = |seq: SeqNum, up: bool| {
            let behind = self.entries.partition_point(|entry| entry.end.at_or_before(seq));
            match self.entries.get(behind) {
                Some(entry) if entry.seq.before(seq) => {
                    let start = entry.piece_start(seq);
                    if start == seq {
                        seq
                    } else if up {
                        entry.piece_end(seq)
                    } else {
                        start
                    }
                }
                Some(_) | None => seq,
            }
        };
        Block {
            left: round(block.left, true),
            right: round(block.right, false),
        }
    }

    fn mark_sacked(&mut self, block: Block, visit: &mut impl FnMut(&Sent)) {
        if !block.left.before(block.right) {
            return;
        }
        self.split_at(block.left);
        self.split_at(block.right);
        let from = self.entries.partition_point(|entry| entry.seq.before(block.left));
        for at in from..self.entries.len() {
            let entry = self.entries[at];
            if !entry.seq.before(block.right) {
                break;
            }
            if entry.fate != Fate::Sacked {
                visit(&entry);
                self.set_fate(at, Fate::Sacked);
            }
        }
    }

    /// Gives for lost whatever `is_lost` says, among the entries that are in flight, in order. `is_lost` gives
    /// `None` to end the walk.
    pub(super) fn mark_lost(&mut self, mut is_lost: impl FnMut(&Sent) -> Option<bool>) -> bool {
        let mut any = false;
        for at in 0..self.entries.len() {
            let entry = self.entries[at];
            match entry.fate {
                Fate::Sacked | Fate::Lost => {}
                Fate::Sent | Fate::Resent => match is_lost(&entry) {
                    None => break,
                    Some(false) => {}
                    Some(true) => {
                        any = true;
                        self.lose(at);
                    }
                },
            }
        }
        any
    }

    /// Takes everything given for lost back into the network.
    pub(super) fn forget_losses(&mut self) {
        for at in 0..self.entries.len() {
            if self.entries[at].fate == Fate::Lost {
                self.set_fate(at, Fate::Sent);
            }
        }
    }

    /// How many segments were sent again and are on their way, and when the first of them went last.
    pub(super) fn resent_in_flight(&self) -> Option<(u32, Instant)> {
        let resent = self
            .entries
            .iter()
            .filter(|entry| entry.retransmitted && matches!(entry.fate, Fate::Sent | Fate::Resent));
        resent.fold(None, |sum: Option<(u32, Instant)>, entry| {
            let (segments, first) = sum.unwrap_or((0, entry.at));
            Some((segments + entry.segments(), first.min(entry.at)))
        })
    }

    /// Whether the segment with this number is unacknowledged and was sent again.
    pub(super) fn was_resent(&self, seq: SeqNum) -> bool {
        let behind = self.entries.partition_point(|entry| entry.end.at_or_before(seq));
        let entry = self.entries.get(behind);
        entry.is_some_and(|entry| entry.seq.at_or_before(seq) && entry.retransmitted)
    }

    /// Gives the first `len` bytes for lost.
    pub(super) fn mark_first_lost(&mut self, len: u32) {
        let Some(first) = self.entries.front() else {
            return;
        };
        let end = first.first_end().earlier(first.seq + len);
        self.split_at(end);
        if matches!(self.entries[0].fate, Fate::Sent | Fate::Resent) {
            self.lose(0);
        }
    }

    /// Forgets all SACKs: the peer may have thrown the data away (RFC 2018, section 8).
    pub(super) fn forget_sacks(&mut self) {
        self.seen = [None; 4];
        for at in 0..self.entries.len() {
            if self.entries[at].fate == Fate::Sacked {
                self.set_fate(at, Fate::Sent);
            }
        }
    }

    /// The first range that is to be sent again: at most `len` of one segment, or, if `most` is more, whole segments that
    /// were sent together.
    pub(super) fn next_lost(&mut self, len: u32, most: u32) -> Option<Block> {
        if self.lost == 0 {
            return None;
        }
        let from = self.retransmit_from;
        let start = self.entries.partition_point(|entry| entry.seq.before(from));
        let lost = self
            .entries
            .range(start..)
            .find(|entry| entry.fate == Fate::Lost)?;
        self.retransmit_from = lost.seq;
        let (left, first_end) = (lost.seq, lost.first_end());
        let mut right = (left + len).earlier(first_end);
        if right == first_end && first_end.since(left) == i32::from(lost.piece_len) {
            let more = most.saturating_sub(len) / len.max(1) * len;
            right = (right + more).earlier(lost.end);
        }
        Some(Block { left, right })
    }

    /// The last `len` bytes in flight, for a probe.
    pub(super) fn tail(&self, len: u32) -> Option<Block> {
        let last = self.entries.back()?;
        Some(Block {
            left: (last.end - len).later(last.last_piece()),
            right: last.end,
        })
    }

    /// Notes that the range was sent again, and says whether its last segment says PSH.
    pub(super) fn resend(&mut self, block: Block, now: Instant) -> bool {
        self.split_at(block.left);
        self.split_at(block.right);
        let at = self.entries.partition_point(|entry| entry.seq.before(block.left));
        if let Some(entry) = self.entries.get_mut(at) {
            entry.at = now;
            entry.retransmitted = true;
            let push = entry.push;
            if entry.fate == Fate::Lost {
                self.set_fate(at, Fate::Resent);
            }
            return push;
        }
        false
    }

    /// Segments that were sent and not acknowledged, of those the ones SACKed, given for lost, and sent again.
    pub(super) fn segments(&self) -> Segments {
        let mut sums = Segments::default();
        for entry in &self.entries {
            let count = entry.segments();
            sums.unacknowledged += count;
            match entry.fate {
                Fate::Sent if entry.retransmitted => sums.resent += count,
                Fate::Sent => {}
                Fate::Sacked => sums.sacked += count,
                Fate::Lost => sums.lost += count,
                Fate::Resent => {
                    sums.lost += count;
                    sums.resent += count;
                }
            }
        }
        sums
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first entry.
    pub(super) fn first(&self) -> Option<&Sent> {
        self.entries.front()
    }

    /// Whether nothing is unacknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that are in the network: sent or sent again, and neither acknowledged nor given for lost (RFC 6675,
    /// *pipe*).
    pub(super) fn in_flight(&self) -> u32 {
        let (Some(first), Some(last)) = (self.entries.front(), self.entries.back()) else {
            return 0;
        };
        last.end.since(first.seq) as u32 - self.sacked - self.lost
    }

    /// Bytes that the peer has behind holes.
    pub(super) const fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Bytes given for lost and not yet sent again.
    pub(super) const fn lost(&self) -> u32 {
        self.lost
    }

    fn lose(&mut self, at: usize) {
        self.set_fate(at, Fate::Lost);
        let seq = self.entries[at].seq;
        if self.lost == self.entries[at].len() || seq.before(self.retransmit_from) {
            self.retransmit_from = seq;
        }
    }

    fn set_fate(&mut self, at: usize, fate: Fate) {
        let old = self.entries[at];
        self.count(&old, false);
        self.entries[at].fate = fate;
        let new = self.entries[at];
        self.count(&new, true);
    }

    fn count(&mut self, entry: &Sent, add: bool) {
        let sum = match entry.fate {
            Fate::Sent | Fate::Resent => return,
            Fate::Sacked => &mut self.sacked,
            Fate::Lost => &mut self.lost,
        };
        *sum = if add {
            *sum + entry.len()
        } else {
            *sum - entry.len()
        };
    }

    /// Makes an entry begin at `seq`, if one lies across it.
    fn split_at(&mut self, seq: SeqNum) {
        let behind = self.entries.partition_point(|entry| entry.seq.before(seq));
        let Some(at) = behind.checked_sub(1) else {
            return;
        };
        let entry = self.entries[at];
        if entry.end.after(seq) {
            self.entries[at].end = seq;
            self.entries[at].push = false;
            self.entries.insert(behind, Sent { seq, ..entry });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const START: u32 = 0xFFFF_FF00;

    fn seq(offset: u32) -> SeqNum {
        SeqNum::new(START) + offset
    }

    #[derive(Clone, Debug)]
    enum Step {
        Send(u32),
        Ack(u32),
        Sack(u32, u32),
        Lose(u32),
        Resend(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1u32..3000).prop_map(Step::Send),
            (0u32..4000).prop_map(Step::Ack),
            (0u32..9000, 1u32..4000).prop_map(|(left, len)| Step::Sack(left, len)),
            (0u32..9000).prop_map(Step::Lose),
            (1u32..3000).prop_map(Step::Resend),
        ]
    }

    proptest! {
        /// A table with one fate for each byte is the model.
        #[test]
        fn the_sums_are_those_of_the_bytes(steps in vec(step(), 1..60)) {
            let mut board = Scoreboard::default();
            let mut model: Vec<Fate> = Vec::new();
            let (mut una, mut now) = (0, 0);
            for step in steps {
                now += 1;
                let time = Instant::from_millis(now);
                let nxt = model.len() as u32;
                match step {
                    Step::Send(len) => {
                        board.push(seq(nxt), seq(nxt + len), 700, time);
                        model.resize((nxt + len) as usize, Fate::Sent);
                    }
                    Step::Ack(len) => {
                        let ack = (una + len).min(nxt);
                        let mut seen = 0;
                        board.acknowledge(seq(ack), |gone| seen += gone.len());
                        prop_assert_eq!(seen, ack - una);
                        una = ack;
                    }
                    Step::Sack(left, len) => {
                        let (left, right) = (una + left, una + left + len);
                        let mut seen = 0;
                        board.sack([Block { left: seq(left), right: seq(right) }].into_iter(), |new| seen += new.len());
                        if right <= nxt {
                            let range = &mut model[left as usize..right as usize];
                            prop_assert_eq!(seen as usize, range.iter().filter(|fate| **fate != Fate::Sacked).count());
                            range.fill(Fate::Sacked);
                        } else {
                            prop_assert_eq!(seen, 0);
                        }
                    }
                    Step::Lose(before) => {
                        let limit = seq(una + before);
                        board.mark_lost(|entry| Some(entry.end.at_or_before(limit)));
                        for entry in &board.entries {
                            let range = entry.seq.since(seq(0)) as usize..entry.end.since(seq(0)) as usize;
                            if entry.end.at_or_before(limit) && model[range.start] != Fate::Sacked {
                                model[range].fill(Fate::Lost);
                            }
                        }
                    }
                    Step::Resend(len) => {
                        let first = (una..nxt).find(|&place| model[place as usize] == Fate::Lost);
                        let block = board.next_lost(len, len);
                        prop_assert_eq!(block.map(|block| block.left), first.map(seq));
                        if let Some(block) = block {
                            let range = block.left.since(seq(0)) as usize..block.right.since(seq(0)) as usize;
                            prop_assert!(range.len() <= len as usize && !range.is_empty());
                            model[range].fill(Fate::Resent);
                            board.resend(block, time);
                        }
                    }
                }
                let count = |fate| model[una as usize..].iter().filter(|is| **is == fate).count() as u32;
                prop_assert_eq!(board.sacked(), count(Fate::Sacked));
                prop_assert_eq!(board.lost(), count(Fate::Lost));
                prop_assert_eq!(board.in_flight(), count(Fate::Sent) + count(Fate::Resent));
            }
        }
    }
}
