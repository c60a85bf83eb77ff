use std::collections::VecDeque;

use super::pool::{CHUNK_LEN, Chunk, Pool};

/// A few chunk pointers may stay allocated in an empty buffer; more are given back.
const KEPT_POINTERS: usize = 16;

/// Bytes by position from a front that moves, with memory only where bytes were written.
///
/// It does not know which of its bytes were written: its owners do. Without bytes it holds no chunk.
#[derive(Debug, Default)]
pub(crate) struct SparseBytes {
    /// Where position 0 lies in the first chunk.
    front: usize,
    chunks: VecDeque<Option<Chunk>>,
}

impl SparseBytes {
    /// No bytes, no memory.
    pub(crate) const fn new() -> Self {
        Self {
            front: 0,
            chunks: VecDeque::new(),
        }
    }

    /// Takes over the room of `spare`, which is empty, if it is larger and there is nothing in its own yet.
    pub(crate) fn take_room(&mut self, spare: &mut Self) {
        debug_assert!(spare.chunks.is_empty(), "bytes would be lost");
        if self.chunks.is_empty() && spare.chunks.capacity() > self.chunks.capacity() {
            std::mem::swap(&mut self.chunks, &mut spare.chunks);
        }
    }

    /// Writes `bytes` at `position`.
    pub(crate) fn write(&mut self, pool: &mut Pool, position: usize, mut bytes: &[u8]) {
        let mut at = self.front + position;
        let needed = (at + bytes.len()).div_ceil(CHUNK_LEN);
        if self.chunks.len() < needed {
            self.chunks.resize_with(needed, || None);
        }
        while !bytes.is_empty() {
            let chunk = self.chunks[at / CHUNK_LEN].get_or_insert_with(|| pool.take());
            let room = &mut chunk[at % CHUNK_LEN..];
            let len = room.len().min(bytes.len());
            let (now, rest) = bytes.split_at(len);
            room[..len].copy_from_slice(now);
            bytes = rest;
            at += len;
        }
    }

    /// Copies the bytes at `position` into `out`; what was never written reads as anything.
    pub(crate) fn read(&self, position: usize, mut out: &mut [u8]) {
        let mut at = self.front + position;
        while !out.is_empty() {
            let offset = at % CHUNK_LEN;
            let len = out.len().min(CHUNK_LEN - offset);
            let (now, rest) = out.split_at_mut(len);
            if let Some(Some(chunk)) = self.chunks.get(at / CHUNK_LEN) {
                now.copy_from_slice(&chunk[offset..offset + len]);
            }
            out = rest;
            at += len;
        }
    }

    /// The bytes at the front, at most `len` and as many as lie together.
    pub(crate) fn slice(&self, len: usize) -> &[u8] {
        match self.chunks.front() {
            Some(Some(chunk)) => &chunk[self.front..CHUNK_LEN.min(self.front + len)],
            Some(None) | None => &[],
        }
    }

    /// Moves the front: what was at `count` is at 0 then. Chunks before the front go back.
    pub(crate) fn release(&mut self, pool: &mut Pool, count: usize) {
        self.front += count;
        while self.front >= CHUNK_LEN && !self.chunks.is_empty() {
            self.front -= CHUNK_LEN;
            if let Some(Some(chunk)) = self.chunks.pop_front() {
                pool.give(chunk);
            }
        }
    }

    /// Gives all memory back; the front is anywhere.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        for chunk in self.chunks.drain(..).flatten() {
            pool.give(chunk);
        }
        self.front = 0;
        if self.chunks.capacity() > KEPT_POINTERS {
            self.chunks = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Cases are large.
    const CASES: u32 = 48;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(CASES))]

        #[test]
        fn reads_what_was_written(steps in vec((0usize..20_000, 1usize..9_000, any::<u8>(), 0usize..9_000), 1..20)) {
            let mut pool = Pool::new(1 << 20);
            let mut sparse = SparseBytes::default();
            let mut model = vec![None; 0];
            for (position, len, fill, released) in steps {
                let bytes: Vec<u8> = (0..len).map(|n| fill.wrapping_add(n as u8)).collect();
                sparse.write(&mut pool, position, &bytes);
                model.resize(model.len().max(position + len), None);
                for (place, byte) in model[position..].iter_mut().zip(&bytes) {
                    *place = Some(*byte);
                }
                let released = released.min(model.len());
                sparse.release(&mut pool, released);
                model.drain(..released);
                let mut out = vec![0; model.len()];
                sparse.read(0, &mut out);
                for (expected, got) in model.iter().zip(&out) {
                    prop_assert!(expected.is_none_or(|expected| expected == *got));
                }
            }
            sparse.clear(&mut pool);
            prop_assert_eq!(pool.lent_bytes(), 0);
        }
    }
}
