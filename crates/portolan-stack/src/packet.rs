use std::num::NonZeroU16;

/// A packet on its way in: an IP packet, and what a device has done or left to do about it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The packet, from the first byte of its IP header.
    pub bytes: &'a [u8],
    /// What the device said.
    pub offload: Offload,
}

/// A packet on its way out, written to the front of the buffer that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// How many bytes of the buffer it takes.
    pub len: usize,
    /// What the device is to do.
    pub offload: Offload,
}

/// The part of the work that a device does: the metadata of a virtio header, in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The state of the transport checksum.
    pub checksum: PacketChecksum,
    /// The data of each segment, if the packet is a super-segment: one that the device is to cut into
    /// pieces, or has merged from them (GSO, TSO, GRO).
    pub piece_len: Option<NonZeroU16>,
}

/// The state of a packet's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacketChecksum {
    /// It stands in the packet.
    #[default]
    Complete,
    /// It stands in the packet, and was found right already.
    Verified,
    /// The field holds the sum of the pseudo header, and the device is to complete it; of a packet that came,
    /// the sender's device never did, and there is nothing to verify.
    Partial,
}
