/// The bytes of a chunk: a page, so that a short message does not hold much and a long one needs few.
pub(crate) const CHUNK_LEN: usize = 4096;

/// A piece of buffer memory.
pub(crate) type Chunk = Box<[u8; CHUNK_LEN]>;

/// Chunks that are free for the next buffer that needs one.
#[derive(Debug)]
pub(crate) struct Pool {
    free: Vec<Chunk>,
    keep: usize,
    lent: usize,
}

impl Pool {
    /// An empty pool that keeps at most `keep_bytes` of free memory; what comes back beyond is given up.
    pub(crate) const fn new(keep_bytes: usize) -> Self {
        Self {
            free: Vec::new(),
            keep: keep_bytes / CHUNK_LEN,
            lent: 0,
        }
    }

    /// A chunk with any content. Allocates only while the pool is empty.
    pub(super) fn take(&mut self) -> Chunk {
        self.lent += 1;
        self.free.pop().unwrap_or_else(|| Box::new([0; CHUNK_LEN]))
    }

    /// Takes a chunk back.
    pub(super) fn give(&mut self, chunk: Chunk) {
        self.lent -= 1;
        if self.free.len() < self.keep {
            self.free.push(chunk);
        }
    }

    /// How many bytes of memory are lent to buffers now.
    pub(crate) const fn lent_bytes(&self) -> usize {
        self.lent * CHUNK_LEN
    }
}
