use bytes::Bytes;
use portolan_core::wire::SeqNum;

use super::{Pool, Rope, SparseBytes};

/// What is shorter is copied: a reference keeps all of the link's buffer.
const MIN_SHARED: usize = 512;

/// Separate ranges that one connection keeps behind holes. A full window of 4 MiB with every second segment
/// lost has some 1,400; data that would make one more is dropped, as if it had been lost.
const MAX_RANGES: usize = 2048;

/// A range of sequence numbers, from `left` up to, and without, `right`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) left: SeqNum,
    pub(crate) right: SeqNum,
}

/// What the peer has sent and the program has not read, in order or with holes.
///
/// ```text
///     shared   bytes   hole    range    hole   range
///   ├────────┬────────┤. . . .├───────┤. . . .├─────┤
///   read()   ready    next = RCV.NXT   └ named in SACK blocks, the latest first
/// ```
#[derive(Debug)]
pub(crate) struct Reassembly {
    /// The front of what is in order, by reference. Nothing is added while `bytes` holds anything.
    shared: Rope,
    /// The rest, and what is behind holes.
    bytes: SparseBytes,
    /// RCV.NXT.
    next: SeqNum,
    /// Bytes before `next` that can be read.
    ready: usize,
    /// Sorted, apart from each other, all after `next`.
    ranges: Vec<Block>,
    /// A place in each of the ranges that changed last, the latest first: RFC 2018, section 4, wants them named first.
    recent: [SeqNum; 3],
}

/// What became of a segment's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inserted {
    /// How far RCV.NXT moved.
    pub(crate) advanced: u32,
    /// The first part of it that was there already, for a D-SACK (RFC 2883, section 4).
    pub(crate) duplicate: Option<Block>,
    /// Whether there are holes now, or were before.
    pub(crate) holes: bool,
}

impl Reassembly {
    /// An empty buffer that expects `next`. It takes no memory.
    pub(crate) const fn new(next: SeqNum) -> Self {
        Self {
            shared: Rope::new(),
            bytes: SparseBytes::new(),
            next,
            ready: 0,
            ranges: Vec::new(),
            recent: [next; 3],
        }
    }

    /// Takes over the room of `spare`, which is empty, where it is larger and there is nothing in its own yet.
    pub(crate) fn take_room(&mut self, spare: &mut Self) {
        self.shared.take_room(&mut spare.shared);
        self.bytes.take_room(&mut spare.bytes);
    }

    /// Whether nothing waits, to be read or for a hole to be filled.
    pub(crate) const fn is_empty(&self) -> bool {
        self.ready == 0 && self.ranges.is_empty()
    }

    /// Takes `data`, which stands at `seq` and ends inside the receive window. `owner` is whose bytes they are,
    /// if they can be referred to: it begins with them.
    pub(crate) fn insert(
        &mut self,
        pool: &mut Pool,
        seq: SeqNum,
        data: &[u8],
        owner: Option<&Bytes>,
    ) -> Inserted {
        let block = Block {
            left: seq,
            right: seq + data.len() as u32,
        };
        let had_holes = !self.ranges.is_empty();
        if seq == self.next && !had_holes {
            match owner {
                Some(owner) if data.len() >= MIN_SHARED && self.ready == self.shared.len() => {
                    self.shared.push_shared(owner.slice(..data.len()));
                }
                _ => self.bytes.write(pool, self.ready - self.shared.len(), data),
            }
            self.advance_to(block.right);
            return Inserted {
                advanced: data.len() as u32,
                duplicate: None,
                holes: false,
            };
        }
        let duplicate = self.overlap(block);
        let old = self.next;
        let left = seq.later(self.next);
        let added = left.before(block.right).then_some(Block {
            left,
            right: block.right,
        });
        if let Some(range) = added.and_then(|part| self.add_range(part)) {
            let skip = left.since(seq) as usize;
            let position = self.ready - self.shared.len() + left.since(self.next) as usize;
            self.bytes.write(pool, position, &data[skip..]);
            self.remember(left, range);
            while let Some(&first) = self.ranges.first()
                && first.left == self.next
            {
                self.ranges.remove(0);
                self.advance_to(first.right);
            }
            if self.ranges.is_empty() {
                self.ranges = Vec::new();
            }
        }
        Inserted {
            advanced: self.next.since(old) as u32,
            duplicate,
            holes: had_holes || !self.ranges.is_empty(),
        }
    }

    /// Moves bytes that are in order into `out` and says how many.
    pub(crate) fn read(&mut self, pool: &mut Pool, out: &mut [u8]) -> usize {
        let len = out.len().min(self.ready);
        let (first, second) = out[..len].split_at_mut(len.min(self.shared.len()));
        self.shared.copy(0, first);
        self.bytes.read(0, second);
        self.consume(pool, len);
        len
    }

    /// The first bytes that are in order, as many as lie together.
    pub(crate) fn peek(&self) -> &[u8] {
        if self.shared.is_empty() {
            self.bytes.slice(self.ready)
        } else {
            self.shared.slice(0)
        }
    }

    /// Takes at most `max` of the first bytes that are in order, as many as lie together.
    pub(crate) fn take(&mut self, pool: &mut Pool, max: usize) -> Bytes {
        if self.shared.is_empty() {
            let bytes = self.peek();
            let taken = Bytes::copy_from_slice(&bytes[..bytes.len().min(max)]);
            self.consume(pool, taken.len());
            return taken;
        }
        let taken = self.shared.take(pool, max);
        self.ready -= taken.len();
        taken
    }

    /// Drops the first `len` bytes, or all that are in order if there are fewer.
    pub(crate) fn consume(&mut self, pool: &mut Pool, len: usize) {
        let len = len.min(self.ready);
        let shared = len.min(self.shared.len());
        self.shared.release(pool, shared);
        self.ready -= len;
        if self.ready == 0 && self.ranges.is_empty() {
            self.bytes.clear(pool);
        } else {
            self.bytes.release(pool, len - shared);
        }
    }

    /// Steps over a FIN, which takes a number and no byte. Nothing comes behind it.
    pub(crate) fn step_over_fin(&mut self) {
        self.next += 1;
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.ready = 0;
        self.ranges = Vec::new();
        self.shared.release(pool, self.shared.len());
        self.bytes.clear(pool);
    }

    /// RCV.NXT.
    pub(crate) const fn next(&self) -> SeqNum {
        self.next
    }

    /// How many bytes can be read.
    pub(crate) const fn ready(&self) -> usize {
        self.ready
    }

    /// Whether data waits behind a hole.
    pub(crate) fn has_holes(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// Whether a segment at `seq` begins a range that is not named first already: it stands apart from what came last.
    pub(crate) fn is_news(&self, seq: SeqNum) -> bool {
        let continues = self
            .range_with(self.recent[0])
            .is_some_and(|latest| latest.right == seq);
        self.has_holes() && seq.after(self.next) && !continues
    }

    /// Writes the ranges behind holes into `out`, those that changed last first (RFC 2018, section 4), and
    /// says how many.
    pub(crate) fn sack_blocks(&self, out: &mut [Block]) -> usize {
        let mut count = 0;
        let latest = self.recent.iter().filter_map(|&seq| self.range_with(seq));
        for range in latest.chain(self.ranges.iter().copied().take(out.len() + self.recent.len())) {
            if count == out.len() {
                break;
            }
            if !out[..count].contains(&range) {
                out[count] = range;
                count += 1;
            }
        }
        count
    }

    fn advance_to(&mut self, right: SeqNum) {
        self.ready += right.since(self.next) as usize;
        self.next = right;
    }

    /// Puts the range where it belongs and joins it with those that it touches; gives what became of it, or `None`
    /// if there are too many.
    fn add_range(&mut self, Block { mut left, mut right }: Block) -> Option<Block> {
        let first = self.ranges.partition_point(|range| range.right.before(left));
        let behind = self.ranges[first..].partition_point(|range| range.left.at_or_before(right));
        let joined = first..first + behind;
        if joined.is_empty() {
            if self.ranges.len() >= MAX_RANGES {
                return None;
            }
            self.ranges.insert(first, Block { left, right });
            return Some(Block { left, right });
        }
        left = left.earlier(self.ranges[joined.start].left);
        right = right.later(self.ranges[joined.end - 1].right);
        self.ranges[first] = Block { left, right };
        self.ranges.drain(first + 1..joined.end);
        Some(Block { left, right })
    }

    /// The first part of `block` that is here already.
    fn overlap(&self, block: Block) -> Option<Block> {
        let before_next = Block {
            left: block.left,
            right: block.right.earlier(self.next),
        };
        if before_next.left.before(before_next.right) {
            return Some(before_next);
        }
        let first = self
            .ranges
            .partition_point(|range| range.right.at_or_before(block.left));
        let range = self.ranges.get(first)?;
        let common = Block {
            left: block.left.later(range.left),
            right: block.right.earlier(range.right),
        };
        common.left.before(common.right).then_some(common)
    }

    /// `range` changed at `seq`: the others are named after it, each once.
    fn remember(&mut self, seq: SeqNum, range: Block) {
        let is_other = |&at: &SeqNum| at.before(range.left) || at.at_or_after(range.right);
        let mut others = self.recent.into_iter().filter(is_other);
        self.recent = [seq, others.next().unwrap_or(seq), others.next().unwrap_or(seq)];
    }

    fn range_with(&self, seq: SeqNum) -> Option<Block> {
        let first = self.ranges.partition_point(|range| range.right.at_or_before(seq));
        self.ranges
            .get(first)
            .copied()
            .filter(|range| range.left.at_or_before(seq))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Cases are large.
    const CASES: u32 = 48;

    fn byte(position: u32) -> u8 {
        (position ^ position >> 8).wrapping_mul(167) as u8
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(CASES))]

        /// Every byte of the stream has its own value, and a table says which are here.
        #[test]
        fn agrees_with_a_table_of_bytes(start: u32, pieces in vec((0u32..30_000, 1u32..3_000, 0usize..6_000, 0u8..4), 1..40)) {
            let mut pool = Pool::new(0);
            let mut buffer = Reassembly::new(SeqNum::new(start));
            let mut here = vec![false; 160_000];
            let mut read = 0;
            for (from, len, wanted, way) in pieces {
                // Half of them go on where the last ended, as most segments do.
                let from = if way < 2 { here.iter().take_while(|&&here| here).count() as u32 } else { from };
                let data: Bytes = (from..from + len).map(byte).collect();
                let owner = (way % 2 == 0).then_some(&data);
                // What was read is before the window's left edge, but a duplicate may reach into it.
                let duplicate = (from..from + len).find(|&place| here[place as usize]);
                let had_holes = here.iter().skip_while(|&&here| here).any(|&here| here);
                let seq = SeqNum::new(start) + from;
                let inserted = buffer.insert(&mut pool, seq, &data, owner);
                let in_order = here.iter().take_while(|&&here| here).count();
                here[from as usize..(from + len) as usize].fill(true);
                let now_in_order = here.iter().take_while(|&&here| here).count();
                let has_holes = here.iter().skip(now_in_order).any(|&here| here);
                prop_assert_eq!(inserted.advanced as usize, now_in_order - in_order);
                prop_assert_eq!(inserted.duplicate.map(|block| block.left), duplicate.map(|place| SeqNum::new(start) + place));
                prop_assert_eq!(inserted.holes, had_holes || has_holes);
                prop_assert_eq!(buffer.next(), SeqNum::new(start) + now_in_order as u32);
                prop_assert_eq!(buffer.has_holes(), has_holes);

                let mut blocks = [Block { left: seq, right: seq }; 3];
                let count = buffer.sack_blocks(&mut blocks);
                prop_assert_eq!(count > 0, has_holes);
                if from as usize > now_in_order {
                    prop_assert!(seq.in_window(blocks[0].left, blocks[0].right.since(blocks[0].left) as u32));
                }
                for block in &blocks[..count] {
                    let (left, right) = (block.left.since(SeqNum::new(start)) as usize, block.right.since(SeqNum::new(start)) as usize);
                    prop_assert!(here[left..right].iter().all(|&here| here) && !here[left - 1] && !here[right]);
                }

                let mut out = vec![0; wanted];
                let len = match way {
                    1 => {
                        let peeked = buffer.peek().len().min(wanted);
                        out[..peeked].copy_from_slice(&buffer.peek()[..peeked]);
                        buffer.consume(&mut pool, peeked);
                        peeked
                    }
                    2 => {
                        let taken = buffer.take(&mut pool, wanted);
                        out[..taken.len()].copy_from_slice(&taken);
                        taken.len()
                    }
                    _ => {
                        let len = buffer.read(&mut pool, &mut out);
                        prop_assert_eq!(len, wanted.min(now_in_order - read));
                        len
                    }
                };
                prop_assert_eq!(len > 0, wanted > 0 && now_in_order > read);
                prop_assert!(out[..len].iter().zip(read as u32..).all(|(&got, place)| got == byte(place)));
                read += len;
                prop_assert_eq!(buffer.ready(), now_in_order - read);
                prop_assert!(pool.lent_bytes() == 0 || read < now_in_order || has_holes);
            }
        }
    }

    #[test]
    fn too_many_ranges_are_refused_and_holes_still_fill() {
        let mut pool = Pool::new(0);
        let mut buffer = Reassembly::new(SeqNum::new(0));
        for place in 1..=MAX_RANGES as u32 + 5 {
            buffer.insert(&mut pool, SeqNum::new(place * 2), &[1], None);
        }
        assert_eq!(buffer.ranges.len(), MAX_RANGES);
        assert_eq!(
            buffer.insert(&mut pool, SeqNum::new(0), &[1, 1], None).advanced,
            3
        );
    }
}
