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
    /// What buffers may hold.
    budget: usize,
    refused: u64,
}

impl Pool {
    /// An empty pool that keeps at most `keep_bytes` of free memory; what comes back beyond is given up.
    pub(crate) const fn new(keep_bytes: usize) -> Self {
        Self {
            free: Vec::new(),
            keep: keep_bytes / CHUNK_LEN,
            lent: 0,
            budget: usize::MAX,
            refused: 0,
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

    /// Gives up what is free.
    pub(crate) fn trim(&mut self) {
        self.free = Vec::new();
    }

    /// Says how many bytes buffers may hold from now on.
    pub(crate) const fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
    }

    /// Whether three quarters of the budget are lent: nobody should be promised more.
    pub(crate) const fn is_tight(&self) -> bool {
        self.lent_bytes() >= self.budget / 4 * 3
    }

    /// Whether the budget is lent: only what cannot go on without gets more.
    pub(crate) const fn is_full(&self) -> bool {
        self.lent_bytes() >= self.budget
    }

    /// Counts data that was not taken for want of memory.
    pub(crate) const fn refuse(&mut self) {
        self.refused += 1;
    }

    /// How often data was not taken for want of memory.
    pub(crate) const fn refused(&self) -> u64 {
        self.refused
    }

    /// How many bytes are kept for the next buffer.
    pub(crate) const fn free_bytes(&self) -> usize {
        self.free.len() * CHUNK_LEN
    }

    /// How many bytes of memory are lent to buffers now.
    pub(crate) const fn lent_bytes(&self) -> usize {
        self.lent * CHUNK_LEN
    }
}
