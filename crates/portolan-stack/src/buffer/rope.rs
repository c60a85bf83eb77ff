use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use portolan_core::wire::Sum;

use super::pool::{CHUNK_LEN, Chunk, Pool};

/// Room for this many pieces may stay allocated in an empty rope.
const KEPT_PIECES: usize = 64;

/// A queue of bytes: some were copied into chunks of the pool, others stay where their owner has them and
/// are referred to.
///
/// ```text
///   release() ─▶ │ copied │  by reference   │ by reference │ copied │ ◀─ push(), push_shared()
///                start                                             end
/// ```
#[derive(Debug, Default)]
pub(crate) struct Rope {
    pieces: VecDeque<Piece>,
    /// Positions of the first byte and behind the last, counted from when the rope was made.
    start: u64,
    end: u64,
}

#[derive(Debug)]
struct Piece {
    /// The position behind its last byte.
    end: u64,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Shared(Bytes),
    Copied { chunk: Chunk, len: usize },
}

impl Data {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Copied { chunk, len } => &chunk[..*len],
        }
    }
}

impl Rope {
    /// Nothing; it takes no memory.
    pub(crate) const fn new() -> Self {
        Self {
            pieces: VecDeque::new(),
            start: 0,
            end: 0,
        }
    }

    /// Takes over the room of `spare`, which is empty, if it is larger and there is nothing in its own yet.
    pub(crate) fn take_room(&mut self, spare: &mut Self) {
        debug_assert!(spare.pieces.is_empty(), "bytes would be lost");
        if self.pieces.is_empty() && spare.pieces.capacity() > self.pieces.capacity() {
            std::mem::swap(&mut self.pieces, &mut spare.pieces);
        }
    }

    /// How many bytes there are.
    pub(crate) const fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Adds a copy of `bytes` behind the others.
    pub(crate) fn push(&mut self, pool: &mut Pool, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let has_room = matches!(
                self.pieces.back(),
                Some(Piece { data: Data::Copied { len, .. }, .. }) if *len < CHUNK_LEN
            );
            if !has_room {
                let chunk = pool.take();
                let data = Data::Copied { chunk, len: 0 };
                self.pieces.push_back(Piece { end: self.end, data });
            }
            let Some(piece) = self.pieces.back_mut() else {
                return;
            };
            if let Data::Copied { chunk, len } = &mut piece.data {
                let (now, rest) = bytes.split_at(bytes.len().min(CHUNK_LEN - *len));
                chunk[*len..*len + now.len()].copy_from_slice(now);
                *len += now.len();
                self.end += now.len() as u64;
                bytes = rest;
            }
            piece.end = self.end;
        }
    }

    /// Adds `bytes` themselves behind the others.
    pub(crate) fn push_shared(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.end += bytes.len() as u64;
            let data = Data::Shared(bytes);
            self.pieces.push_back(Piece { end: self.end, data });
        }
    }

    /// The bytes at `offset` from the first, as many as lie together; none at the end.
    pub(crate) fn slice(&self, offset: usize) -> &[u8] {
        self.at(self.start + offset as u64)
            .map_or(&[], |(piece, skip)| &piece.data.bytes()[skip..])
    }

    /// `len` bytes at `offset` by reference, if they lie together where their owner has them.
    pub(crate) fn share(&self, offset: usize, len: usize) -> Option<Bytes> {
        let (piece, skip) = self.at(self.start + offset as u64)?;
        match &piece.data {
            Data::Shared(bytes) if skip + len <= bytes.len() => Some(bytes.slice(skip..skip + len)),
            Data::Shared(_) | Data::Copied { .. } => None,
        }
    }

    /// Copies the bytes at `offset` to `out`, which must not reach beyond the end.
    pub(crate) fn copy(&self, offset: usize, out: &mut [u8]) {
        self.each(offset, out, |from, to| to.copy_from_slice(from));
    }

    /// The same, with the bytes added to `sum`.
    pub(crate) fn copy_and_sum(&self, offset: usize, out: &mut [u8], mut sum: Sum) -> Sum {
        self.each(offset, out, |from, to| sum = sum.copy_bytes(from, to));
        sum
    }

    /// Lets go of the first `count` bytes; there must be as many.
    pub(crate) fn release(&mut self, pool: &mut Pool, count: usize) {
        debug_assert!(count <= self.len(), "more is released than there is");
        self.start += count as u64;
        while let Some(first) = self.pieces.front()
            && first.end <= self.start
        {
            if let Some(Piece {
                data: Data::Copied { chunk, .. },
                ..
            }) = self.pieces.pop_front()
            {
                pool.give(chunk);
            }
        }
        self.give_room_back();
    }

    /// Takes at most `max` bytes from the front that lie together: by reference where their owner has them,
    /// else copied. Without bytes, or if `max` is 0, it is empty.
    pub(crate) fn take(&mut self, pool: &mut Pool, max: usize) -> Bytes {
        let front = self.start;
        // What is taken to its end changes hands: nobody counts references up and down.
        let whole = self
            .pieces
            .pop_front_if(|piece| matches!(piece.data, Data::Shared(_)) && piece.end - front <= max as u64);
        if let Some(Piece {
            end,
            data: Data::Shared(mut bytes),
        }) = whole
        {
            bytes.advance(bytes.len() - (end - front) as usize);
            self.start = end;
            self.give_room_back();
            return bytes;
        }
        let len = self.slice(0).len().min(max);
        let taken = self
            .share(0, len)
            .unwrap_or_else(|| Bytes::copy_from_slice(&self.slice(0)[..len]));
        self.release(pool, len);
        taken
    }

    /// An empty rope keeps little room.
    fn give_room_back(&mut self) {
        if self.pieces.is_empty() && self.pieces.capacity() > KEPT_PIECES {
            self.pieces = VecDeque::new();
        }
    }

    fn each(&self, mut offset: usize, mut out: &mut [u8], mut act: impl FnMut(&[u8], &mut [u8])) {
        while !out.is_empty() {
            let from = self.slice(offset);
            let len = from.len().min(out.len());
            if len == 0 {
                debug_assert!(false, "read past the end of a rope");
                return;
            }
            let (now, rest) = out.split_at_mut(len);
            act(&from[..len], now);
            offset += len;
            out = rest;
        }
    }

    /// The piece that holds a position, and how many of its bytes lie before it.
    fn at(&self, position: u64) -> Option<(&Piece, usize)> {
        let first = self.pieces.front()?;
        let piece = if position < first.end {
            first
        } else {
            let place = self.pieces.partition_point(|piece| piece.end <= position);
            self.pieces.get(place)?
        };
        let begin = piece.end - piece.data.bytes().len() as u64;
        Some((piece, (position - begin) as usize))
    }
}
