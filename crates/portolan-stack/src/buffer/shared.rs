use slotmap::{SlotMap, new_key_type};

use super::{Pool, SparseBytes};

new_key_type! {
    /// A datagram that several rows have in common.
    pub(crate) struct SharedId;
}

/// Emptied buffers that are kept for the next datagrams.
const KEPT_BUFFERS: usize = 16;

/// Datagrams for several receivers: the bytes are there once.
#[derive(Debug, Default)]
pub(crate) struct SharedDatagrams {
    slots: SlotMap<SharedId, Shared>,
    spare: Vec<SparseBytes>,
}

#[derive(Debug)]
struct Shared {
    bytes: SparseBytes,
    len: usize,
    holders: usize,
}

impl SharedDatagrams {
    /// Keeps `bytes` for one holder.
    pub(crate) fn insert(&mut self, pool: &mut Pool, bytes: &[u8]) -> SharedId {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.write(pool, 0, bytes);
        self.slots.insert(Shared {
            bytes: buffer,
            len: bytes.len(),
            holders: 1,
        })
    }

    /// Adds a holder.
    pub(crate) fn hold(&mut self, id: SharedId) {
        if let Some(shared) = self.slots.get_mut(id) {
            shared.holders += 1;
        }
    }

    /// A holder lets go; with the last the memory goes back.
    pub(crate) fn release(&mut self, pool: &mut Pool, id: SharedId) {
        let Some(shared) = self.slots.get_mut(id) else {
            return;
        };
        shared.holders -= 1;
        if shared.holders > 0 {
            return;
        }
        if let Some(mut shared) = self.slots.remove(id) {
            shared.bytes.clear(pool);
            if self.spare.len() < KEPT_BUFFERS {
                self.spare.push(shared.bytes);
            }
        }
    }

    /// How long a datagram is.
    pub(crate) fn len(&self, id: SharedId) -> usize {
        self.slots.get(id).map_or(0, |shared| shared.len)
    }

    /// Copies as much of a datagram as `out` takes.
    pub(crate) fn copy(&self, id: SharedId, out: &mut [u8]) {
        if let Some(shared) = self.slots.get(id) {
            let len = shared.len.min(out.len());
            shared.bytes.read(0, &mut out[..len]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_holder_gives_the_memory_back() {
        let mut pool = Pool::new(0);
        let mut shared = SharedDatagrams::default();
        let id = shared.insert(&mut pool, &[7; 5000]);
        shared.hold(id);
        shared.release(&mut pool, id);
        let mut out = [0; 6000];
        shared.copy(id, &mut out);
        assert_eq!((shared.len(id), out[4999], out[5000]), (5000, 7, 0));
        shared.release(&mut pool, id);
        assert_eq!((shared.len(id), pool.lent_bytes()), (0, 0));
        shared.release(&mut pool, id);
    }
}
