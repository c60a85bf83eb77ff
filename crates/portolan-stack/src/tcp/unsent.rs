//! What was written and not sent, in the chunks in which it is to go.
//!
//! As in Linux a write adds to the last chunk as long as that has room and no record ends there, and begins another
//! otherwise. A segment never reaches over the end of a chunk, and PSH tells where a write ended.

use std::collections::VecDeque;

use portolan_core::wire::SeqNum;

/// Chunks for which memory may stay while nothing waits.
const KEPT_CHUNKS: usize = 8;

/// A part of the stream that is sent apart from what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) end: SeqNum,
    /// A write ended here: the peer's program may want it at once.
    pub(super) push: bool,
    /// A record ends here (MSG_EOR): nothing is added.
    pub(super) closed: bool,
}

/// The chunks, in order.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    chunks: VecDeque<Chunk>,
    /// The end of the last write that was marked.
    pushed: SeqNum,
}

impl Unsent {
    /// Nothing; it takes no memory.
    pub(super) const fn new(start: SeqNum) -> Self {
        Self {
            chunks: VecDeque::new(),
            pushed: start,
        }
    }

    /// Takes over the room of `spare`, which is empty, if it is larger and there is nothing in its own yet.
    pub(super) fn take_room(&mut self, spare: &mut Self) {
        spare.chunks.clear();
        if self.chunks.is_empty() && spare.chunks.capacity() > self.chunks.capacity() {
            std::mem::swap(&mut self.chunks, &mut spare.chunks);
        }
    }

    /// How many bytes the last chunk still takes, if none is to be longer than `goal` and `from` is where unsent data
    /// begins; 0 if a new chunk is to begin.
    pub(super) fn room(&self, from: SeqNum, goal: u32) -> u32 {
        let Some(last) = self.chunks.back().filter(|last| !last.closed) else {
            return 0;
        };
        let before = self.chunks.len().checked_sub(2).map(|at| self.chunks[at].end);
        let start = before.map_or(from, |end| end.later(from));
        goal.saturating_sub(last.end.since(start).max(0) as u32)
    }

    /// Adds `len` bytes that stand at `seq`, to the last chunk if it has room for them.
    pub(super) fn add(&mut self, seq: SeqNum, len: u32, from: SeqNum, goal: u32) {
        let fits = self.room(from, goal) >= len;
        match self.chunks.back_mut() {
            Some(last) if fits => last.end = seq + len,
            Some(_) | None => self.chunks.push_back(Chunk {
                end: seq + len,
                push: false,
                closed: false,
            }),
        }
    }

    /// Marks the end of the last chunk as that of a write.
    pub(super) fn mark_push(&mut self) {
        if let Some(last) = self.chunks.back_mut() {
            last.push = true;
            self.pushed = last.end;
        }
    }

    /// Marks it too if more than `most` bytes were written since the last mark: the peer is not to wait for the end of a
    /// long write.
    pub(super) fn mark_push_beyond(&mut self, most: u32) {
        if let Some(last) = self.chunks.back()
            && last.end.after(self.pushed + most)
        {
            self.mark_push();
        }
    }

    /// Nothing is added to the last chunk any more.
    pub(super) fn close(&mut self) {
        if let Some(last) = self.chunks.back_mut() {
            last.closed = true;
        }
    }

    /// The chunk that begins with, or holds, the first number that was not sent.
    pub(super) fn first(&mut self, snd_nxt: SeqNum) -> Option<(Chunk, bool)> {
        while let Some(first) = self.chunks.front()
            && first.end.at_or_before(snd_nxt)
        {
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() && self.chunks.capacity() > KEPT_CHUNKS {
            self.chunks = VecDeque::new();
        }
        let first = *self.chunks.front()?;
        Some((first, self.chunks.len() == 1))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.chunks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(number: u32) -> SeqNum {
        SeqNum::new(number)
    }

    #[test]
    fn writes_join_until_a_chunk_is_full_or_a_record_ends() {
        let mut unsent = Unsent::new(seq(0));
        unsent.add(seq(0), 400, seq(0), 1000);
        assert_eq!(unsent.room(seq(0), 1000), 600);
        unsent.add(seq(400), 600, seq(0), 1000);
        assert_eq!((unsent.len(), unsent.room(seq(0), 1000)), (1, 0));
        // What was sent makes room again.
        assert_eq!(unsent.room(seq(700), 1000), 700);
        unsent.add(seq(1000), 10, seq(0), 1000);
        unsent.mark_push();
        unsent.close();
        assert_eq!((unsent.len(), unsent.room(seq(0), 1000)), (2, 0));
        unsent.add(seq(1010), 10, seq(0), 1000);
        let (first, is_last) = unsent.first(seq(1000)).unwrap();
        assert_eq!(
            (first.end, first.push, first.closed, is_last),
            (seq(1010), true, true, false)
        );
        let (first, is_last) = unsent.first(seq(1010)).unwrap();
        assert_eq!((first.end, first.push, is_last), (seq(1020), false, true));
        assert_eq!(unsent.first(seq(1020)), None);
    }

    #[test]
    fn a_long_write_is_marked_on_its_way() {
        let mut unsent = Unsent::new(seq(0));
        unsent.add(seq(0), 1000, seq(0), 1000);
        unsent.mark_push_beyond(1500);
        assert!(!unsent.first(seq(0)).unwrap().0.push);
        unsent.add(seq(1000), 1000, seq(0), 1000);
        unsent.mark_push_beyond(1500);
        assert!(unsent.first(seq(1000)).unwrap().0.push);
    }
}
