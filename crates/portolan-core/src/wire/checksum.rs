//! The Internet checksum (RFC 1071): over bytes in pieces, with pseudo headers, partial, and incremental.
//!
//! ```text
//!   PseudoHeader ─▶ .sum(protocol, len) ─▶ .add_bytes(segment) ─┬▶ .checksum()  what the field carries
//!                          │                                    └▶ .is_valid()  checksum field included
//!                          └▶ .folded()     what the field carries when the device is to complete it
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::IpProtocol;

/// A one's complement sum of 16-bit words in the making.
///
/// Pieces may have any length: an odd one shifts what follows by a byte (RFC 1071, section 2 (B)).
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// In words of 64 bits of the machine's order, whose quarters count alike; folded when it is asked for.
    words: u64,
    /// Whether an odd number of bytes came so far.
    odd: bool,
}

impl Sum {
    /// The sum of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: 0, odd: false }
    }

    /// With `bytes` added.
    #[must_use]
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        Self {
            words: sum_of(bytes),
            odd: bytes.len() % 2 == 1,
        }
        .behind(self)
    }

    /// With one 16-bit word added, as if its two bytes had been.
    #[must_use]
    #[inline]
    pub fn add_u16(self, word: u16) -> Self {
        self.join(Self::even(word.to_be().into()))
    }

    /// With 32 bits added, as if their four bytes had been.
    #[must_use]
    #[inline]
    pub fn add_u32(self, bits: u32) -> Self {
        self.join(Self::even(bits.to_be().into()))
    }

    /// With the bytes added that `other` is the sum of.
    #[must_use]
    #[inline]
    pub fn join(self, other: Self) -> Self {
        other.behind(self)
    }

    /// With `bytes` added, which are copied to the front of `to` in the same pass.
    ///
    /// # Panics
    /// If `to` is shorter.
    #[must_use]
    pub fn copy_bytes(self, bytes: &[u8], to: &mut [u8]) -> Self {
        let to = &mut to[..bytes.len()];
        let mut sum = self;
        for (from, to) in bytes.chunks(COPIED_AT_ONCE).zip(to.chunks_mut(COPIED_AT_ONCE)) {
            to.copy_from_slice(from);
            sum = sum.add_bytes(to);
        }
        sum
    }

    /// The sum itself, not complemented.
    ///
    /// Over a pseudo header this is what the checksum field must hold when the device, or the receiver of
    /// a virtio packet, is to complete the checksum (`VIRTIO_NET_HDR_F_NEEDS_CSUM`, `CHECKSUM_PARTIAL`).
    #[must_use]
    #[inline]
    pub const fn folded(self) -> u16 {
        fold(self.words).to_be()
    }

    /// The checksum: the complement of the sum.
    #[must_use]
    #[inline]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }

    /// Whether the sum is that of data which holds its own checksum.
    #[must_use]
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.folded() == 0xFFFF
    }

    /// The sum of whole words.
    const fn even(words: u64) -> Self {
        Self { words, odd: false }
    }

    /// The sum of what stands behind what `first` is the sum of.
    #[inline]
    const fn behind(self, first: Self) -> Self {
        // A piece that begins at an odd place has its high and low bytes exchanged; so has its sum.
        let words = if first.odd {
            self.words.rotate_left(8)
        } else {
            self.words
        };
        Self {
            words: add_words(first.words, words),
            odd: first.odd ^ self.odd,
        }
    }
}

/// Sums are equal if they fold to the same, and so does all that is added to both.
impl PartialEq for Sum {
    fn eq(&self, other: &Self) -> bool {
        (self.folded(), self.odd) == (other.folded(), other.odd)
    }
}

impl Eq for Sum {}

/// The Internet checksum of `bytes`.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().add_bytes(bytes).checksum()
}

/// The checksum after one 16-bit word of the data it covers went from `old` to `new` (RFC 1624, equation 3).
///
/// For a UDP checksum of 0, which means that there is none, do not call it.
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !add(add(!checksum, !old), new)
}

/// The checksum after 32 aligned bits, an IPv4 address for example, went from `old` to `new`.
#[must_use]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    let high = update(checksum, (old >> 16) as u16, (new >> 16) as u16);
    update(high, (old & 0xFFFF) as u16, (new & 0xFFFF) as u16)
}

/// The addresses that TCP's and UDP's checksums cover beside the segment (RFC 9293, section 3.1; RFC
/// 8200, section 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PseudoHeader {
    /// Between IPv4 addresses.
    V4 {
        /// The packet's source.
        source: Ipv4Addr,
        /// The packet's destination.
        destination: Ipv4Addr,
    },
    /// Between IPv6 addresses. With a routing header the destination is the final one.
    V6 {
        /// The packet's source.
        source: Ipv6Addr,
        /// The packet's final destination.
        destination: Ipv6Addr,
    },
}

impl PseudoHeader {
    /// For a packet from `source` to `destination`; `None` if they are of different families.
    #[must_use]
    pub const fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4 { source, destination }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6 { source, destination }),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// The sum over the pseudo header of a transport packet of `length` bytes, its header included.
    #[must_use]
    #[inline]
    pub fn sum(self, protocol: IpProtocol, length: usize) -> Sum {
        let addresses = match self {
            Self::V4 { source, destination } => {
                u64::from(u32::from_ne_bytes(source.octets()))
                    + u64::from(u32::from_ne_bytes(destination.octets()))
            }
            Self::V6 { source, destination } => {
                add_words(words_of(&source.octets()), words_of(&destination.octets()))
            }
        };
        // IPv4 has 16 bits of length and IPv6 32; the high half is zero wherever 16 are enough. Longer
        // than 32 bits no packet is.
        Sum::even(addresses)
            .add_u32(length as u32)
            .add_u16(protocol.get().into())
    }
}

/// What to do about the checksum of a transport header that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumFill {
    /// Compute it over header and payload.
    Complete(PseudoHeader),
    /// Compute it, given the header alone: what follows is known.
    Known {
        /// The addresses.
        pseudo: PseudoHeader,
        /// The sum of the payload.
        payload: Sum,
        /// How long the payload is.
        payload_len: usize,
    },
    /// Put the sum of the pseudo header, for the device to complete.
    Partial(PseudoHeader),
    /// Put the sum of the pseudo header, given the header alone.
    PartialKnown {
        /// The addresses.
        pseudo: PseudoHeader,
        /// How long the payload is.
        payload_len: usize,
    },
    /// Leave 0.
    Zero,
}

impl ChecksumFill {
    /// The field's value for `packet`, whose checksum field is zero now.
    pub(super) fn value(self, protocol: IpProtocol, packet: &[u8]) -> u16 {
        match self {
            Self::Complete(pseudo) => pseudo.sum(protocol, packet.len()).add_bytes(packet).checksum(),
            Self::Known {
                pseudo,
                payload,
                payload_len,
            } => {
                let header = pseudo.sum(protocol, packet.len() + payload_len).add_bytes(packet);
                header.join(payload).checksum()
            }
            Self::Partial(pseudo) => pseudo.sum(protocol, packet.len()).folded(),
            Self::PartialKnown { pseudo, payload_len } => {
                pseudo.sum(protocol, packet.len() + payload_len).folded()
            }
            Self::Zero => 0,
        }
    }
}

/// One's complement addition: the carry comes back in at the bottom.
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// What is copied is added while it is in the nearest cache.
const COPIED_AT_ONCE: usize = 2048;

/// The sum of `bytes`, an odd last byte as a word's first half.
///
/// The words are added in the machine's order and the sum is turned once at the end, which gives the
/// same (RFC 1071, section 2 (B)); several at a time, since 2¹⁶ = 1 modulo 2¹⁶ - 1 lets wider words stand for
/// their halves.
#[inline]
fn sum_of(bytes: &[u8]) -> u64 {
    if bytes.len() < 128 {
        return words_of(bytes);
    }
    sum_of_many(bytes)
}

/// The same for a header: nothing is set up for it.
#[inline]
fn words_of(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = 0;
    for word in words {
        sum = add_words(sum, u64::from_ne_bytes(*word));
    }
    // The rest as the front of a word whose other bytes are zero: its parts stand where they stood.
    let (quarter, rest) = rest.as_chunks::<4>();
    if let Some(part) = quarter.first() {
        sum = add_words(sum, u32::from_ne_bytes(*part).into());
    }
    let (pair, rest) = rest.as_chunks::<2>();
    if let Some(part) = pair.first() {
        sum = add_words(sum, u16::from_ne_bytes(*part).into());
    }
    if let Some(last) = rest.first() {
        sum = add_words(sum, u16::from_ne_bytes([*last, 0]).into());
    }
    sum
}

/// One's complement addition of four words at once.
#[inline]
const fn add_words(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// Words of 64 bits that one chain of carries goes through. The chains of two blocks do not wait for each other.
const CHAIN: usize = 8;

fn sum_of_many(bytes: &[u8]) -> u64 {
    let (words, _) = bytes.as_chunks::<8>();
    let (blocks, _) = words.as_chunks::<CHAIN>();
    let (mut sum, mut carries) = (0u64, 0);
    for block in blocks {
        let (mut part, mut carry) = (0u64, false);
        for word in block {
            (part, carry) = part.carrying_add(u64::from_ne_bytes(*word), carry);
        }
        (sum, carry) = sum.carrying_add(part, carry);
        carries += u64::from(carry);
    }
    let rest = &bytes[blocks.len() * CHAIN * 8..];
    add_words(add_words(sum, carries), words_of(rest))
}

/// The 16-bit one's complement sum of the four 16-bit parts.
const fn fold(sum: u64) -> u16 {
    // Both halves of a number and its turned self add up to the sum of the halves; the carry of the low half comes in
    // at the bottom of the high one.
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071, section 4.1, in the plainest way.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        }
        while sum > 0xFFFF {
            sum = (sum >> 16) + (sum & 0xFFFF);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().add_bytes(&bytes).folded(), 0xddf2);
        assert_eq!(checksum(&bytes), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // Section 4: a sum that the older equation of RFC 1141 gets wrong.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn the_largest_packet_of_ones_folds() {
        assert_eq!(checksum(&vec![0xFF; 65_535]), naive(&vec![0xFF; 65_535]));
    }

    proptest! {
        #[test]
        fn wide_and_naive_sums_agree(bytes in vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes));
        }

        #[test]
        fn a_copy_is_the_same_bytes_and_the_same_sum(bytes in vec(any::<u8>(), 0..6000), room in 0usize..9) {
            let mut to = vec![0; bytes.len() + room];
            prop_assert_eq!(Sum::new().copy_bytes(&bytes, &mut to), Sum::new().add_bytes(&bytes));
            prop_assert_eq!(&to[..bytes.len()], &bytes[..]);
        }

        #[test]
        fn pieces_sum_to_the_whole(bytes in vec(any::<u8>(), 0..200), a: usize, b: usize) {
            let a = a % (bytes.len() + 1);
            let b = a + b % (bytes.len() - a + 1);
            let sum = |bytes| Sum::new().add_bytes(bytes);
            let pieces = sum(&bytes[..a]).add_bytes(&bytes[a..b]).add_bytes(&bytes[b..]);
            prop_assert_eq!(pieces, sum(&bytes));
            prop_assert_eq!(sum(&bytes[..a]).join(sum(&bytes[a..])), sum(&bytes));
            let number = u32::try_from(a).unwrap() << 16 | u32::try_from(b).unwrap();
            prop_assert_eq!(sum(&bytes).add_u32(number), sum(&bytes).add_bytes(&number.to_be_bytes()));
        }

        #[test]
        fn data_with_its_checksum_is_valid(mut bytes in vec(any::<u8>(), 2..200)) {
            bytes[0] = 0;
            bytes[1] = 0;
            let sum = checksum(&bytes);
            bytes[..2].copy_from_slice(&sum.to_be_bytes());
            prop_assert!(Sum::new().add_bytes(&bytes).is_valid());
        }

        #[test]
        fn an_incremental_update_is_a_recomputation(
            mut bytes in vec(any::<u8>(), 8..64), new: u32, place: usize
        ) {
            // One word of the data is never zero: over zeros alone the two representations of zero differ.
            bytes[0] |= 1;
            let place = 2 + place % (bytes.len() - 5) / 2 * 2;
            let before = checksum(&bytes);
            let old = u32::from_be_bytes(bytes[place..place + 4].try_into().unwrap());
            bytes[place..place + 4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update_u32(before, old, new), checksum(&bytes));
        }

        #[test]
        fn the_pseudo_headers_are_those_of_the_rfcs(source: u128, destination: u128, protocol: u8, length in 0usize..100_000) {
            let protocol = IpProtocol::new(protocol);
            let [v4_source, v4_destination] = [source, destination].map(|bits| Ipv4Addr::from(bits as u32));
            let mut bytes = [v4_source.octets(), v4_destination.octets()].concat();
            bytes.extend([0, protocol.get()]);
            bytes.extend(((length % 65_536) as u16).to_be_bytes());
            let pseudo = PseudoHeader::V4 { source: v4_source, destination: v4_destination };
            prop_assert_eq!(pseudo.sum(protocol, length % 65_536).checksum(), naive(&bytes));

            let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
            bytes.extend((length as u32).to_be_bytes());
            bytes.extend([0, 0, 0, protocol.get()]);
            let pseudo = PseudoHeader::V6 { source: source.into(), destination: destination.into() };
            prop_assert_eq!(pseudo.sum(protocol, length).checksum(), naive(&bytes));
        }
    }
}
