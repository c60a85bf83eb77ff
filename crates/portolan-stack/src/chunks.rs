//! A vector that never moves what it holds, and has no more free room than a chunk.

/// Values that are small and many: 1024 to a chunk.
#[derive(Debug)]
pub(crate) struct Chunks<T> {
    chunks: Vec<Vec<T>>,
}

const CHUNK_BITS: u32 = 10;
const CHUNK_LEN: usize = 1 << CHUNK_BITS;

impl<T> Chunks<T> {
    /// No values, no memory.
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// Adds a value behind the others and says where it is.
    pub(crate) fn push(&mut self, value: T) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LEN) {
            self.chunks.push(Vec::with_capacity(CHUNK_LEN));
        }
        let before = (self.chunks.len() - 1) << CHUNK_BITS;
        let chunk = self.chunks.last_mut().expect("there is one with room");
        chunk.push(value);
        u32::try_from(before + chunk.len() - 1).expect("memory ends before 2^32 values do")
    }

    /// Whether there are more than one chunk holds.
    pub(crate) const fn has_many(&self) -> bool {
        self.chunks.len() > 1
    }

    /// Forgets all values and gives their memory back.
    pub(crate) fn clear(&mut self) {
        self.chunks = Vec::new();
    }

    /// The value at `index`, if there are that many.
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.chunks
            .get((index >> CHUNK_BITS) as usize)?
            .get(index as usize % CHUNK_LEN)
    }
}

impl<T> std::ops::Index<u32> for Chunks<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        &self.chunks[(index >> CHUNK_BITS) as usize][index as usize % CHUNK_LEN]
    }
}

impl<T> std::ops::IndexMut<u32> for Chunks<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[(index >> CHUNK_BITS) as usize][index as usize % CHUNK_LEN]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_where_they_were_put() {
        let mut chunks = Chunks::new();
        for value in 0..3000 {
            assert_eq!(chunks.push(value), value);
        }
        chunks[2500] = 7;
        assert_eq!((chunks[0], chunks[1024], chunks[2500]), (0, 1024, 7));
        assert_eq!(chunks.get(3000), None);
        chunks.clear();
        assert_eq!(chunks.get(0), None);
        assert_eq!(chunks.push(1), 0);
    }
}
