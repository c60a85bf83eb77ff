use super::{Pool, SparseBytes};

/// Bytes that the program has written and the peer has not acknowledged.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    bytes: SparseBytes,
    len: usize,
}

impl SendQueue {
    /// Nothing; it takes no memory.
    pub(crate) const fn new() -> Self {
        Self {
            bytes: SparseBytes::new(),
            len: 0,
        }
    }

    /// Adds `bytes` behind the others.
    pub(crate) fn push(&mut self, pool: &mut Pool, bytes: &[u8]) {
        self.bytes.write(pool, self.len, bytes);
        self.len += bytes.len();
    }

    /// Copies what stands at `offset` from the first unacknowledged byte.
    ///
    /// # Panics
    /// In debug builds, if the queue holds less than that.
    pub(crate) fn copy(&self, offset: usize, out: &mut [u8]) {
        debug_assert!(
            offset + out.len() <= self.len,
            "read past the end of the send queue"
        );
        self.bytes.read(offset, out);
    }

    /// Lets go of the first `count` bytes, or of all if there are fewer.
    pub(crate) fn acknowledge(&mut self, pool: &mut Pool, count: usize) {
        let count = count.min(self.len);
        self.len -= count;
        if self.len == 0 {
            self.bytes.clear(pool);
        } else {
            self.bytes.release(pool, count);
        }
    }

    /// How many bytes wait.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.acknowledge(pool, self.len);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Cases are large.
    const CASES: u32 = 48;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(CASES))]

        #[test]
        fn is_a_queue_of_bytes(steps in vec((vec(any::<u8>(), 0..9_000), 0usize..9_000, any::<prop::sample::Index>()), 1..20)) {
            let mut pool = Pool::new(0);
            let mut queue = SendQueue::default();
            let mut model = VecDeque::new();
            for (bytes, acknowledged, place) in steps {
                queue.push(&mut pool, &bytes);
                model.extend(bytes);
                let acknowledged = acknowledged.min(model.len());
                queue.acknowledge(&mut pool, acknowledged);
                model.drain(..acknowledged);
                prop_assert_eq!(queue.len(), model.len());
                if !model.is_empty() {
                    let offset = place.index(model.len());
                    let mut out = vec![0; (model.len() - offset).min(1460)];
                    queue.copy(offset, &mut out);
                    prop_assert!(out.iter().eq(model.iter().skip(offset).take(1460)));
                }
                prop_assert_eq!(pool.lent_bytes() == 0, model.is_empty());
            }
        }
    }
}
