use std::fmt;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{EmitError, Layer, ParseError};

/// The address of a network interface on an Ethernet: six bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Every station.
    pub const BROADCAST: Self = Self([0xFF; 6]);
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What an Ethernet header says follows it (IEEE 802 numbers, kept by IANA).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct EtherType(u16);

impl EtherType {
    /// IPv4.
    pub const IPV4: Self = Self(0x0800);
    /// ARP.
    pub const ARP: Self = Self(0x0806);
    /// An 802.1Q customer tag.
    pub const VLAN: Self = Self(0x8100);
    /// IPv6.
    pub const IPV6: Self = Self(0x86DD);
    /// An 802.1ad service tag.
    pub const SERVICE_VLAN: Self = Self(0x88A8);

    /// The type with this number.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether the field is the length of an IEEE 802.3 frame instead (below 1536).
    #[must_use]
    pub const fn is_length(self) -> bool {
        self.0 < 1536
    }

    /// Whether a VLAN tag follows.
    #[must_use]
    pub const fn is_vlan(self) -> bool {
        matches!(self, Self::VLAN | Self::SERVICE_VLAN)
    }

    /// The usual name, if this crate knows the type.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::IPV4 => Some("IPv4"),
            Self::ARP => Some("ARP"),
            Self::VLAN => Some("802.1Q"),
            Self::IPV6 => Some("IPv6"),
            Self::SERVICE_VLAN => Some("802.1ad"),
            _ => None,
        }
    }
}

impl fmt::Display for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "0x{:04x}", self.0),
        }
    }
}

/// One VLAN tag: where it came from and its 16 bits of control information (IEEE 802.1Q, 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VlanTag {
    /// The type that announced the tag: [`EtherType::VLAN`] or [`EtherType::SERVICE_VLAN`].
    pub protocol: EtherType,
    /// Priority (3 bits), drop eligible (1 bit), VLAN identifier (12 bits).
    pub control: u16,
}

impl VlanTag {
    /// The VLAN identifier, 0 to 4095.
    #[must_use]
    pub const fn id(self) -> u16 {
        self.control & 0x0FFF
    }

    /// The priority code point, 0 to 7.
    #[must_use]
    pub const fn priority(self) -> u8 {
        (self.control >> 13) as u8
    }
}

#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    destination: MacAddress,
    source: MacAddress,
    ethertype: U16,
}

#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Tag {
    control: U16,
    ethertype: U16,
}

const MAX_TAGS: usize = 2;

/// A view of an Ethernet II frame without preamble and frame check sequence.
///
/// ```text
///   0            6            12       14 (18, 22 with tags)
///   │destination │source      │type    │payload …
/// ```
#[derive(Clone, Copy, Debug)]
pub struct EthernetFrame<'a> {
    header: &'a Header,
    tags: [Option<VlanTag>; MAX_TAGS],
    ethertype: EtherType,
    header_len: usize,
    payload: &'a [u8],
}

impl<'a> EthernetFrame<'a> {
    /// The length of a header without tags.
    pub const HEADER_LEN: usize = 14;
    /// How many VLAN tags are read; a third one is left to the payload.
    pub const MAX_TAGS: usize = MAX_TAGS;

    /// Reads the header and its tags.
    ///
    /// # Errors
    /// [`ParseError::Truncated`] for [`Layer::Ethernet`] or [`Layer::Vlan`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let truncated = |layer, needed| ParseError::Truncated {
            layer,
            needed,
            available: bytes.len(),
        };
        let (header, mut payload) =
            Header::ref_from_prefix(bytes).map_err(|_| truncated(Layer::Ethernet, Self::HEADER_LEN))?;
        let mut ethertype = EtherType(header.ethertype.get());
        let mut header_len = Self::HEADER_LEN;
        let mut tags = [None; Self::MAX_TAGS];
        for slot in &mut tags {
            if !ethertype.is_vlan() {
                break;
            }
            header_len += size_of::<Tag>();
            let (tag, rest) =
                Tag::ref_from_prefix(payload).map_err(|_| truncated(Layer::Vlan, header_len))?;
            *slot = Some(VlanTag {
                protocol: ethertype,
                control: tag.control.get(),
            });
            ethertype = EtherType(tag.ethertype.get());
            payload = rest;
        }
        Ok(Self {
            header,
            tags,
            ethertype,
            header_len,
            payload,
        })
    }

    /// The station it is for.
    #[must_use]
    pub fn destination(&self) -> MacAddress {
        self.header.destination
    }

    /// The station it is from.
    #[must_use]
    pub fn source(&self) -> MacAddress {
        self.header.source
    }

    /// The type of the payload, behind the tags.
    #[must_use]
    pub fn ethertype(&self) -> EtherType {
        self.ethertype
    }

    /// The VLAN tags, the outer one first.
    pub fn tags(&self) -> impl Iterator<Item = VlanTag> + use<> {
        IntoIterator::into_iter(self.tags).flatten()
    }

    /// The length of the header with its tags: 14, 18 or 22.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// What follows the header; short frames are padded to 46 bytes, so it can be longer than the packet.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The header's values.
    #[must_use]
    pub fn repr(&self) -> EthernetRepr {
        EthernetRepr {
            destination: self.destination(),
            source: self.source(),
            tags: self.tags,
            ethertype: self.ethertype,
        }
    }
}

/// The values of an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EthernetRepr {
    /// The station it is for.
    pub destination: MacAddress,
    /// The station it is from.
    pub source: MacAddress,
    /// The VLAN tags, the outer one first; a gap before a tag is passed over.
    pub tags: [Option<VlanTag>; MAX_TAGS],
    /// The type of the payload.
    pub ethertype: EtherType,
}

impl EthernetRepr {
    /// The length of the header.
    #[must_use]
    pub fn header_len(&self) -> usize {
        EthernetFrame::HEADER_LEN + self.tags.iter().flatten().count() * size_of::<Tag>()
    }

    /// Writes the header to the front of `buffer` and gives its length.
    ///
    /// # Errors
    /// [`EmitError::BufferTooSmall`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Self {
            destination,
            source,
            tags,
            ethertype,
        } = self;
        let needed = self.header_len();
        let header = EmitError::reserve(Layer::Ethernet, buffer, needed)?;
        header[..6].copy_from_slice(&destination.0);
        header[6..12].copy_from_slice(&source.0);
        let mut at = 12;
        for tag in tags.iter().flatten() {
            header[at..at + 2].copy_from_slice(&tag.protocol.0.to_be_bytes());
            header[at + 2..at + 4].copy_from_slice(&tag.control.to_be_bytes());
            at += 4;
        }
        header[at..at + 2].copy_from_slice(&ethertype.0.to_be_bytes());
        Ok(needed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags() -> impl Strategy<Value = [Option<VlanTag>; 2]> {
        let tag = |protocol| any::<u16>().prop_map(move |control| VlanTag { protocol, control });
        prop_oneof![
            Just([None, None]),
            tag(EtherType::VLAN).prop_map(|tag| [Some(tag), None]),
            (tag(EtherType::SERVICE_VLAN), tag(EtherType::VLAN)).prop_map(|(a, b)| [Some(a), Some(b)]),
        ]
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(
            destination: [u8; 6], source: [u8; 6], tags in tags(), ethertype: u16, payload: [u8; 4]
        ) {
            // With fewer than two tags the payload's type must not be a tag's itself.
            let ethertype = EtherType(ethertype);
            prop_assume!(!ethertype.is_vlan());
            let repr = EthernetRepr {
                destination: MacAddress(destination), source: MacAddress(source), tags, ethertype,
            };
            let mut frame = vec![0; repr.header_len()];
            prop_assert_eq!(repr.emit(&mut frame), Ok(repr.header_len()));
            frame.extend(payload);
            let parsed = EthernetFrame::parse(&frame).unwrap();
            prop_assert_eq!(parsed.repr(), repr);
            prop_assert_eq!(parsed.payload(), &payload);
            prop_assert_eq!(parsed.header_len(), repr.header_len());
            for len in 0..repr.header_len() {
                let fault = EthernetFrame::parse(&frame[..len]).unwrap_err();
                let is_truncated = matches!(fault, ParseError::Truncated { available, .. } if available == len);
                prop_assert!(is_truncated, "{:?}", fault);
                let refused = repr.emit(&mut frame.clone()[..len]);
                prop_assert!(refused.is_err());
            }
        }
    }

    #[test]
    fn a_third_tag_is_payload() {
        let mut frame = [0u8; 26];
        for at in [12, 16, 20] {
            frame[at..at + 2].copy_from_slice(&0x8100u16.to_be_bytes());
        }
        let parsed = EthernetFrame::parse(&frame).unwrap();
        assert_eq!(parsed.tags().count(), 2);
        assert_eq!(parsed.ethertype(), EtherType::VLAN);
        assert_eq!(parsed.payload().len(), 4);
    }
}
