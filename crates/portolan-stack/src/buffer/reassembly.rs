use portolan_core::wire::SeqNum;

use super::{Pool, SparseBytes};

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
///     ready            hole    range    hole   range
///   ├─────────────────┤. . . .├───────┤. . . .├─────┤
///   read() from here  next = RCV.NXT   └ named in SACK blocks, the latest first
/// ```
#[derive(Debug)]
pub(crate) struct Reassembly {
    bytes: SparseBytes,
    /// RCV.NXT.
    next: SeqNum,
    /// Bytes before `next` that can be read.
    ready: usize,
    /// Sorted, apart from each other, all after `next`.
    ranges: Vec<Block>,
    /// Starts of what came last, the latest first: RFC 2018, section 4, wants their ranges named first.
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
            bytes: SparseBytes::new(),
            next,
            ready: 0,
            ranges: Vec::new(),
            recent: [next; 3],
        }
    }

    /// Takes `data`, which stands at `seq` and ends inside the receive window.
    pub(crate) fn insert(&mut self, pool: &mut Pool, seq: SeqNum, data: &[u8]) -> Inserted {
        let block = Block {
            left: seq,
            right: seq + data.len() as u32,
        };
        let had_holes = !self.ranges.is_empty();
        if seq == self.next && !had_holes {
            self.bytes.write(pool, self.ready, data);
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
        if left.before(block.right)
            && self.add_range(Block {
                left,
                right: block.right,
            })
        {
            let skip = left.since(seq) as usize;
            let position = self.ready + left.since(self.next) as usize;
            self.bytes.write(pool, position, &data[skip..]);
            self.remember(left);
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
        self.bytes.read(0, &mut out[..len]);
        self.ready -= len;
        if self.ready == 0 && self.ranges.is_empty() {
            self.bytes.clear(pool);
        } else {
            self.bytes.release(pool, len);
        }
        len
    }

    /// Steps over a FIN, which takes a number and no byte. Nothing comes behind it.
    pub(crate) fn step_over_fin(&mut self) {
        self.next += 1;
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.ready = 0;
        self.ranges = Vec::new();
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

    /// Puts the range where it belongs and joins it with those that it touches; `false` if there are too
    /// many.
    fn add_range(&mut self, Block { mut left, mut right }: Block) -> bool {
        let first = self.ranges.partition_point(|range| range.right.before(left));
        let behind = self.ranges[first..].partition_point(|range| range.left.at_or_before(right));
        let joined = first..first + behind;
        if joined.is_empty() {
            if self.ranges.len() >= MAX_RANGES {
                return false;
            }
            self.ranges.insert(first, Block { left, right });
            return true;
        }
        left = left.earlier(self.ranges[joined.start].left);
        right = right.later(self.ranges[joined.end - 1].right);
        self.ranges[first] = Block { left, right };
        self.ranges.drain(first + 1..joined.end);
        true
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

    fn remember(&mut self, seq: SeqNum) {
        if self.recent[0] != seq {
            self.recent = [seq, self.recent[0], self.recent[1]];
        }
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
        fn agrees_with_a_table_of_bytes(start: u32, pieces in vec((0u32..30_000, 1u32..3_000, 0usize..6_000), 1..40)) {
            let mut pool = Pool::new(0);
            let mut buffer = Reassembly::new(SeqNum::new(start));
            let mut here = vec![false; 33_000];
            let mut read = 0;
            for (from, len, wanted) in pieces {
                let data: Vec<_> = (from..from + len).map(byte).collect();
                // What was read is before the window's left edge, but a duplicate may reach into it.
                let duplicate = (from..from + len).find(|&place| here[place as usize]);
                let had_holes = here.iter().skip_while(|&&here| here).any(|&here| here);
                let seq = SeqNum::new(start) + from;
                let inserted = buffer.insert(&mut pool, seq, &data);
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
                let len = buffer.read(&mut pool, &mut out);
                prop_assert_eq!(len, wanted.min(now_in_order - read));
                prop_assert!(out[..len].iter().zip(read as u32..).all(|(&got, place)| got == byte(place)));
                read += len;
                prop_assert_eq!(pool.lent_bytes() == 0, read == now_in_order && !has_holes);
            }
        }
    }

    #[test]
    fn too_many_ranges_are_refused_and_holes_still_fill() {
        let mut pool = Pool::new(0);
        let mut buffer = Reassembly::new(SeqNum::new(0));
        for place in 1..=MAX_RANGES as u32 + 5 {
            buffer.insert(&mut pool, SeqNum::new(place * 2), &[1]);
        }
        assert_eq!(buffer.ranges.len(), MAX_RANGES);
        assert_eq!(buffer.insert(&mut pool, SeqNum::new(0), &[1, 1]).advanced, 3);
    }
}
