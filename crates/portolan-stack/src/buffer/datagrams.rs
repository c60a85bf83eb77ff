use std::collections::VecDeque;

use super::{Pool, SendQueue};

/// Datagrams in a row, each with something about it; their bytes are in chunks, so that an empty row holds
/// nothing.
#[derive(Debug)]
pub(crate) struct Datagrams<T> {
    bytes: SendQueue,
    heads: VecDeque<(T, usize)>,
    /// Bytes of datagrams that others hold, which count as well.
    elsewhere: usize,
    limit: usize,
}

/// Room for this many heads may stay allocated in an empty row, so that bursts of them allocate nothing.
const KEPT_HEADS: usize = 64;
/// What a datagram costs beside its bytes, so that empty ones fill a row as well.
const HEAD_COST: usize = 128;

impl<T> Datagrams<T> {
    /// An empty row for at most `limit` bytes, each datagram counted with 128 more.
    pub(crate) const fn new(limit: usize) -> Self {
        Self {
            bytes: SendQueue::new(),
            heads: VecDeque::new(),
            elsewhere: 0,
            limit,
        }
    }

    /// Adds a datagram; `false` if there is no room for it.
    pub(crate) fn push(&mut self, pool: &mut Pool, head: T, bytes: &[u8]) -> bool {
        if !self.has_room_for(bytes.len()) {
            return false;
        }
        self.bytes.push(pool, bytes);
        self.heads.push_back((head, bytes.len()));
        true
    }

    /// Adds a datagram of `len` bytes that the row does not hold itself; `false` if there is no room for it. The one
    /// that [`Datagrams::pop_elsewhere`] takes.
    pub(crate) fn push_elsewhere(&mut self, head: T, len: usize) -> bool {
        if !self.has_room_for(len) {
            return false;
        }
        self.elsewhere += len;
        self.heads.push_back((head, 0));
        true
    }

    /// The bytes of all datagrams.
    pub(crate) fn len_bytes(&self) -> usize {
        self.bytes.len() + self.elsewhere
    }

    fn has_room_for(&self, len: usize) -> bool {
        self.used() + len + HEAD_COST <= self.limit
    }

    /// What counts against the limit.
    fn used(&self) -> usize {
        self.bytes.len() + self.elsewhere + self.heads.len() * HEAD_COST
    }

    /// Whether no more than half of the room is taken.
    pub(crate) fn is_half_empty(&self) -> bool {
        self.used() <= self.limit / 2
    }

    /// What is known of the first datagram, and how many of its bytes the row holds.
    pub(crate) fn first(&self) -> Option<(&T, usize)> {
        self.heads.front().map(|(head, len)| (head, *len))
    }

    /// Copies as much of the first datagram as `out` takes.
    pub(crate) fn copy_first(&self, out: &mut [u8]) {
        let len = self.first().map_or(0, |(_, len)| len).min(out.len());
        self.bytes.copy(0, &mut out[..len]);
    }

    /// Copies a part of the first datagram, which must have it.
    pub(crate) fn copy_part(&self, offset: usize, out: &mut [u8]) {
        self.bytes.copy(offset, out);
    }

    /// Drops the first datagram.
    pub(crate) fn pop(&mut self, pool: &mut Pool) {
        if let Some((_, len)) = self.heads.pop_front() {
            self.bytes.acknowledge(pool, len);
        }
        if self.heads.is_empty() && self.heads.capacity() > KEPT_HEADS {
            self.heads = VecDeque::new();
        }
    }

    /// Drops the first datagram, of `len` bytes elsewhere.
    pub(crate) fn pop_elsewhere(&mut self, pool: &mut Pool, len: usize) {
        self.elsewhere -= len;
        self.pop(pool);
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.bytes.clear(pool);
        self.heads = VecDeque::new();
        self.elsewhere = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_keep_their_edges_and_their_order() {
        let mut pool = Pool::new(0);
        let mut row = Datagrams::new(10_000);
        assert!(row.push(&mut pool, 'a', b"first"));
        assert!(row.push(&mut pool, 'b', b""));
        assert!(row.push(&mut pool, 'c', &[7; 5000]));
        assert!(!row.push(&mut pool, 'd', &[7; 5000]), "no room");
        let mut out = [0; 3];
        assert_eq!(row.first(), Some((&'a', 5)));
        row.copy_first(&mut out);
        assert_eq!(&out, b"fir");
        row.pop(&mut pool);
        assert_eq!(row.first(), Some((&'b', 0)));
        row.pop(&mut pool);
        assert_eq!(row.first(), Some((&'c', 5000)));
        row.pop(&mut pool);
        assert_eq!(row.first(), None);
        assert_eq!(pool.lent_bytes(), 0);
    }

    #[test]
    fn empty_datagrams_fill_a_row_too() {
        let mut pool = Pool::new(0);
        let mut row = Datagrams::new(1280);
        let taken = (0..100).filter(|_| row.push(&mut pool, (), b"")).count();
        assert_eq!(taken, 10);
    }
}
