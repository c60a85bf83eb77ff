use bytes::Bytes;
use portolan_core::wire::Sum;

use super::{Pool, Rope};

/// Bytes that the program has written and the peer has not acknowledged.
#[derive(Debug, Default)]
pub(crate) struct SendQueue {
    bytes: Rope,
}

impl SendQueue {
    /// Nothing; it takes no memory.
    pub(crate) const fn new() -> Self {
        Self { bytes: Rope::new() }
    }

    /// Takes over the room of `spare`, which is empty, where it is larger and there is nothing in its own yet.
    pub(crate) fn take_room(&mut self, spare: &mut Self) {
        self.bytes.take_room(&mut spare.bytes);
    }

    /// Adds a copy of `bytes` behind the others.
    pub(crate) fn push(&mut self, pool: &mut Pool, bytes: &[u8]) {
        self.bytes.push(pool, bytes);
    }

    /// Adds `bytes` themselves behind the others.
    pub(crate) fn push_shared(&mut self, bytes: Bytes) {
        self.bytes.push_shared(bytes);
    }

    /// Copies what stands at `offset` from the first unacknowledged byte.
    ///
    /// # Panics
    /// In debug builds, if the queue holds less than that.
    pub(crate) fn copy(&self, offset: usize, out: &mut [u8]) {
        self.bytes.copy(offset, out);
    }

    /// The same, with the bytes added to `sum`.
    pub(crate) fn copy_and_sum(&self, offset: usize, out: &mut [u8], sum: Sum) -> Sum {
        self.bytes.copy_and_sum(offset, out, sum)
    }

    /// What stands there by reference, if it lies together where the program has it.
    pub(crate) fn share(&self, offset: usize, len: usize) -> Option<Bytes> {
        self.bytes.share(offset, len)
    }

    /// Lets go of the first `count` bytes, or of all if there are fewer.
    pub(crate) fn acknowledge(&mut self, pool: &mut Pool, count: usize) {
        self.bytes.release(pool, count.min(self.bytes.len()));
    }

    /// How many bytes wait.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.bytes.release(pool, self.bytes.len());
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
        fn is_a_queue_of_bytes(
            steps in vec((vec(any::<u8>(), 0..9_000), any::<bool>(), 0usize..9_000, any::<prop::sample::Index>()), 1..20)
        ) {
            let mut pool = Pool::new(0);
            let mut queue = SendQueue::default();
            let mut model = VecDeque::new();
            for (bytes, is_shared, acknowledged, place) in steps {
                model.extend(&bytes);
                if is_shared {
                    queue.push_shared(bytes.into());
                } else {
                    queue.push(&mut pool, &bytes);
                }
                let acknowledged = acknowledged.min(model.len());
                queue.acknowledge(&mut pool, acknowledged);
                model.drain(..acknowledged);
                prop_assert_eq!(queue.len(), model.len());
                if !model.is_empty() {
                    let offset = place.index(model.len());
                    let mut out = vec![0; (model.len() - offset).min(1460)];
                    queue.copy(offset, &mut out);
                    prop_assert!(out.iter().eq(model.iter().skip(offset).take(1460)));
                    let expected = Sum::new().add_bytes(&out);
                    if let Some(shared) = queue.share(offset, out.len()) {
                        prop_assert_eq!(&shared[..], &out[..]);
                    }
                    out.fill(0);
                    prop_assert_eq!(queue.copy_and_sum(offset, &mut out, Sum::new()), expected);
                    prop_assert!(out.iter().eq(model.iter().skip(offset).take(1460)));
                }
                prop_assert!(!model.is_empty() || pool.lent_bytes() == 0);
            }
            queue.clear(&mut pool);
            prop_assert_eq!(pool.lent_bytes(), 0);
        }
    }
}
