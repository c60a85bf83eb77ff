use portolan_stack::{Offload, Packet};

/// Packets in a row, in one piece of memory that is used again and again.
///
/// Before each packet there is [`Batch::HEADROOM`] bytes of room that belongs to the link: for a virtio and an
/// Ethernet header, say, so that headers and packet are one write.
#[derive(Debug)]
pub struct Batch {
    bytes: Box<[u8]>,
    slots: Vec<Slot>,
    /// How many packets it may hold; the vector never grows beyond.
    limit: usize,
    /// The first packet that was not popped.
    first: usize,
    /// Where free room begins.
    end: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    start: usize,
    len: usize,
    offload: Offload,
}

/// Room at the end of a [`Batch`] for one packet: fill it, then [`commit`](Space::commit).
#[derive(Debug)]
pub struct Space<'a> {
    batch: &'a mut Batch,
}

impl Batch {
    /// Bytes before each packet that the link may write to.
    pub const HEADROOM: usize = 32;
    /// The longest packet there is.
    pub const MAX_PACKET: usize = 65_535;

    /// Room for `packets` packets, of `bytes` bytes in all, or for one of the longest if that is more.
    #[must_use]
    pub fn new(packets: usize, bytes: usize) -> Self {
        let limit = packets.max(1);
        Self {
            bytes: vec![0; bytes.max(Self::HEADROOM + Self::MAX_PACKET)].into_boxed_slice(),
            slots: Vec::with_capacity(limit),
            limit,
            first: 0,
            end: 0,
        }
    }

    /// How many packets there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.slots.len() - self.first
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Room for one more packet of up to `len` bytes; `None` if there is not as much.
    pub fn space(&mut self, len: usize) -> Option<Space<'_>> {
        let is_free = self.slots.len() < self.limit && self.bytes.len() - self.end >= Self::HEADROOM + len;
        is_free.then_some(Space { batch: self })
    }

    /// Adds a copy of a packet; `false` if there is no room for it.
    pub fn push(&mut self, packet: Packet<'_>) -> bool {
        let Some(mut space) = self.space(packet.bytes.len()) else {
            return false;
        };
        space.bytes()[..packet.bytes.len()].copy_from_slice(packet.bytes);
        space.commit(packet.bytes.len(), packet.offload);
        true
    }

    /// The first packet.
    #[must_use]
    pub fn front(&self) -> Option<Packet<'_>> {
        self.iter().next()
    }

    /// The first packet with the headroom before it: the packet begins at [`Batch::HEADROOM`].
    pub fn front_with_headroom(&mut self) -> Option<(&mut [u8], Offload)> {
        let slot = *self.slots.get(self.first)?;
        let bytes = &mut self.bytes[slot.start - Self::HEADROOM..slot.start + slot.len];
        Some((bytes, slot.offload))
    }

    /// Removes the first packet.
    pub fn pop_front(&mut self) {
        self.first = (self.first + 1).min(self.slots.len());
        if self.is_empty() {
            self.clear();
        }
    }

    /// Removes every packet.
    pub fn clear(&mut self) {
        self.slots.clear();
        self.first = 0;
        self.end = 0;
    }

    /// The packets, first to last.
    pub fn iter(&self) -> impl Iterator<Item = Packet<'_>> {
        self.slots[self.first..].iter().map(|slot| Packet {
            bytes: &self.bytes[slot.start..slot.start + slot.len],
            offload: slot.offload,
        })
    }
}

impl Space<'_> {
    /// Where the packet goes: at least as many bytes as were asked for.
    pub fn bytes(&mut self) -> &mut [u8] {
        let start = self.batch.end + Batch::HEADROOM;
        &mut self.batch.bytes[start..]
    }

    /// The same with the headroom before it: the packet begins at [`Batch::HEADROOM`].
    pub fn with_headroom(&mut self) -> &mut [u8] {
        &mut self.batch.bytes[self.batch.end..]
    }

    /// The packet is there, and has `len` bytes.
    ///
    /// # Panics
    /// If there was no room for so many.
    pub fn commit(self, len: usize, offload: Offload) {
        let start = self.batch.end + Batch::HEADROOM;
        assert!(
            len <= self.batch.bytes.len() - start,
            "a packet of {len} bytes was never there"
        );
        self.batch.slots.push(Slot { start, len, offload });
        self.batch.end = start + len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(bytes: &[u8]) -> Packet<'_> {
        Packet {
            bytes,
            offload: Offload::default(),
        }
    }

    #[test]
    fn packets_come_out_in_order_and_room_is_used_again() {
        let mut batch = Batch::new(2, 0);
        for round in 0..3u8 {
            assert!(batch.push(packet(&[round; 40])));
            assert!(batch.push(packet(&[round + 100; 50])));
            assert!(!batch.push(packet(&[0])), "two is the limit");
            assert_eq!(batch.front().unwrap().bytes, [round; 40]);
            batch.pop_front();
            let (bytes, _) = batch.front_with_headroom().unwrap();
            assert_eq!(bytes.len(), Batch::HEADROOM + 50);
            assert_eq!(bytes[Batch::HEADROOM..], [round + 100; 50]);
            batch.pop_front();
            assert!(batch.is_empty());
            batch.pop_front();
        }
    }

    #[test]
    fn the_longest_packet_fits_and_no_second_one() {
        let mut batch = Batch::new(8, 0);
        assert!(batch.push(packet(&vec![1; Batch::MAX_PACKET])));
        assert!(batch.space(1).is_none());
        assert_eq!(batch.len(), 1);
    }

    #[test]
    fn what_a_link_writes_to_headroom_is_not_the_packet() {
        let mut batch = Batch::new(8, 0);
        let mut space = batch.space(4).unwrap();
        space.with_headroom()[..Batch::HEADROOM].fill(7);
        space.bytes()[..4].copy_from_slice(b"WXYZ");
        space.commit(4, Offload::default());
        assert_eq!(batch.front().unwrap().bytes, b"WXYZ");
    }
}
