use std::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{EmitError, IpProtocol, Ipv4Options, Layer, ParseError, PseudoHeader, Sum};

#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    version_and_ihl: u8,
    dscp_and_ecn: u8,
    total_length: U16,
    identification: U16,
    flags_and_fragment_offset: U16,
    time_to_live: u8,
    protocol: u8,
    checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1FFF;

/// A view of an IPv4 packet (RFC 791, section 3.1) whose lengths were checked.
///
/// The header checksum is not checked by parsing: ask [`Ipv4Packet::has_valid_checksum`].
#[derive(Clone, Copy, Debug)]
pub struct Ipv4Packet<'a> {
    header: &'a Header,
    bytes: &'a [u8],
    options: &'a [u8],
    payload: &'a [u8],
    cut: usize,
}

impl<'a> Ipv4Packet<'a> {
    /// The length of a header without options.
    pub const MIN_HEADER_LEN: usize = 20;
    /// The length of a header full of options.
    pub const MAX_HEADER_LEN: usize = 60;

    /// Reads a whole packet. Bytes behind the total length, such as Ethernet's padding, are left out.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::Version`], [`ParseError::HeaderLength`],
    /// [`ParseError::TotalLength`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let packet = Self::parse_truncated(bytes)?;
        let total = usize::from(packet.header.total_length.get());
        if total < packet.header_len() {
            return Err(ParseError::TotalLength {
                layer: Layer::Ipv4,
                minimum: packet.header_len(),
                got: total,
            });
        }
        if packet.cut > 0 {
            return Err(ParseError::Truncated {
                layer: Layer::Ipv4,
                needed: total,
                available: bytes.len(),
            });
        }
        Ok(packet)
    }

    /// Reads a packet of which the header is whole and the payload may be cut: one quoted in an ICMP
    /// message, or captured with a small snapshot length.
    ///
    /// A total length of 0 counts as "as long as the bytes are": Linux shows it to captures of packets
    /// beyond 64 KiB, before the device cuts them (BIG TCP).
    ///
    /// # Errors
    /// As [`Ipv4Packet::parse`], but not when only payload is missing.
    pub fn parse_truncated(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let truncated = |needed| ParseError::Truncated {
            layer: Layer::Ipv4,
            needed,
            available: bytes.len(),
        };
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| truncated(Self::MIN_HEADER_LEN))?;
        let version = header.version_and_ihl >> 4;
        if version != 4 {
            return Err(ParseError::Version {
                layer: Layer::Ipv4,
                expected: 4,
                got: version,
            });
        }
        let header_len = usize::from(header.version_and_ihl & 0x0F) * 4;
        if header_len < Self::MIN_HEADER_LEN {
            return Err(ParseError::HeaderLength {
                layer: Layer::Ipv4,
                minimum: Self::MIN_HEADER_LEN,
                got: header_len,
            });
        }
        let total = match usize::from(header.total_length.get()) {
            0 => bytes.len(),
            total if total < header_len => {
                return Err(ParseError::TotalLength {
                    layer: Layer::Ipv4,
                    minimum: header_len,
                    got: total,
                });
            }
            total => total,
        };
        let present = &bytes[..total.min(bytes.len())];
        let (header_bytes, payload) = present
            .split_at_checked(header_len)
            .ok_or_else(|| truncated(header_len))?;
        Ok(Self {
            header,
            bytes: present,
            options: &header_bytes[Self::MIN_HEADER_LEN..],
            payload,
            cut: total - present.len(),
        })
    }

    /// The length of the header with its options: 20 to 60.
    #[must_use]
    pub fn header_len(&self) -> usize {
        Self::MIN_HEADER_LEN + self.options.len()
    }

    /// Differentiated services code point, 0 to 63 (RFC 2474).
    #[must_use]
    pub fn dscp(&self) -> u8 {
        self.header.dscp_and_ecn >> 2
    }

    /// Explicit congestion notification, 0 to 3 (RFC 3168).
    #[must_use]
    pub fn ecn(&self) -> u8 {
        self.header.dscp_and_ecn & 3
    }

    /// The length of the whole packet as its header says.
    #[must_use]
    pub fn total_length(&self) -> u16 {
        self.header.total_length.get()
    }

    /// What fragments of one packet have in common.
    #[must_use]
    pub fn identification(&self) -> u16 {
        self.header.identification.get()
    }

    /// Whether routers must not fragment it.
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.header.flags_and_fragment_offset.get() & DONT_FRAGMENT != 0
    }

    /// Whether further fragments follow.
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.header.flags_and_fragment_offset.get() & MORE_FRAGMENTS != 0
    }

    /// Where the payload belongs in the whole one, in bytes: a multiple of 8 up to 65,528.
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        (self.header.flags_and_fragment_offset.get() & FRAGMENT_OFFSET) * 8
    }

    /// Whether this is a part of a larger packet.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.more_fragments() || self.fragment_offset() != 0
    }

    /// How many routers it may still pass.
    #[must_use]
    pub fn time_to_live(&self) -> u8 {
        self.header.time_to_live
    }

    /// What the payload is.
    #[must_use]
    pub fn protocol(&self) -> IpProtocol {
        IpProtocol::new(self.header.protocol)
    }

    /// The header checksum as it stands in the packet.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.header.checksum.get()
    }

    /// Whether the header checksum is right.
    #[must_use]
    pub fn has_valid_checksum(&self) -> bool {
        Sum::new().add_bytes(self.header_bytes()).is_valid()
    }

    /// The sender.
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        self.header.source.into()
    }

    /// The receiver.
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        self.header.destination.into()
    }

    /// The options, padding included.
    #[must_use]
    pub fn options(&self) -> Ipv4Options<'a> {
        Ipv4Options::new(self.options)
    }

    /// The header's bytes, options included.
    #[must_use]
    pub fn header_bytes(&self) -> &'a [u8] {
        &self.bytes[..self.header_len()]
    }

    /// What the packet carries.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// How many bytes of the payload are missing; 0 for a packet from [`Ipv4Packet::parse`].
    #[must_use]
    pub fn missing(&self) -> usize {
        self.cut
    }

    /// The pseudo header for the checksum of the transport protocol.
    #[must_use]
    pub fn pseudo_header(&self) -> PseudoHeader {
        PseudoHeader::V4 {
            source: self.source(),
            destination: self.destination(),
        }
    }

    /// The header's values.
    #[must_use]
    pub fn repr(&self) -> Ipv4Repr<'a> {
        Ipv4Repr {
            dscp: self.dscp(),
            ecn: self.ecn(),
            identification: self.identification(),
            dont_fragment: self.dont_fragment(),
            more_fragments: self.more_fragments(),
            fragment_offset: self.fragment_offset(),
            time_to_live: self.time_to_live(),
            protocol: self.protocol(),
            source: self.source(),
            destination: self.destination(),
            options: self.options,
            payload_len: self.payload.len() + self.cut,
        }
    }
}

/// The values of an IPv4 header; its checksum is computed when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipv4Repr<'a> {
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// Explicit congestion notification, 0 to 3.
    pub ecn: u8,
    /// What fragments of one packet have in common.
    pub identification: u16,
    /// Whether routers must not fragment it.
    pub dont_fragment: bool,
    /// Whether further fragments follow.
    pub more_fragments: bool,
    /// Where the payload belongs in the whole one, in bytes: a multiple of 8.
    pub fragment_offset: u16,
    /// How many routers it may pass.
    pub time_to_live: u8,
    /// What the payload is.
    pub protocol: IpProtocol,
    /// The sender.
    pub source: Ipv4Addr,
    /// The receiver.
    pub destination: Ipv4Addr,
    /// The options with their padding: a multiple of 4 bytes, at most 40.
    pub options: &'a [u8],
    /// How many bytes follow the header.
    pub payload_len: usize,
}

impl Ipv4Repr<'_> {
    /// The length of the header.
    #[must_use]
    pub fn header_len(&self) -> usize {
        Ipv4Packet::MIN_HEADER_LEN + self.options.len()
    }

    /// Writes the header to the front of `buffer`, checksum included, and gives its length.
    ///
    /// # Errors
    /// [`EmitError::BufferTooSmall`], [`EmitError::OptionsLength`], [`EmitError::TooLong`], and
    /// [`EmitError::FieldRange`] for `dscp`, `ecn` or a `fragment_offset` that is no multiple of 8.
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let header_len = self.header_len();
        if header_len > Ipv4Packet::MAX_HEADER_LEN || !header_len.is_multiple_of(4) {
            return Err(EmitError::OptionsLength {
                layer: Layer::Ipv4,
                multiple: 4,
                maximum: Ipv4Packet::MAX_HEADER_LEN - Ipv4Packet::MIN_HEADER_LEN,
                got: self.options.len(),
            });
        }
        let total = header_len.saturating_add(self.payload_len);
        let total_length = u16::try_from(total).map_err(|_| EmitError::TooLong {
            layer: Layer::Ipv4,
            maximum: usize::from(u16::MAX),
            got: total,
        })?;
        let out_of_range = |field, maximum, got: u16| EmitError::FieldRange {
            layer: Layer::Ipv4,
            field,
            maximum,
            got: u32::from(got),
        };
        if self.dscp > 63 {
            return Err(out_of_range("DSCP", 63, u16::from(self.dscp)));
        }
        if self.ecn > 3 {
            return Err(out_of_range("ECN", 3, u16::from(self.ecn)));
        }
        if !self.fragment_offset.is_multiple_of(8) {
            return Err(out_of_range(
                "fragment offset, in whole eights,",
                65_528,
                self.fragment_offset,
            ));
        }
        let mut flags = self.fragment_offset / 8;
        if self.dont_fragment {
            flags |= DONT_FRAGMENT;
        }
        if self.more_fragments {
            flags |= MORE_FRAGMENTS;
        }
        let mut header = Header {
            version_and_ihl: 4 << 4 | (header_len / 4) as u8,
            dscp_and_ecn: self.dscp << 2 | self.ecn,
            total_length: total_length.into(),
            identification: self.identification.into(),
            flags_and_fragment_offset: flags.into(),
            time_to_live: self.time_to_live,
            protocol: self.protocol.get(),
            checksum: 0.into(),
            source: self.source.octets(),
            destination: self.destination.octets(),
        };
        let bytes = EmitError::reserve(Layer::Ipv4, buffer, header_len)?;
        let (fixed, options) = bytes.split_at_mut(Ipv4Packet::MIN_HEADER_LEN);
        let sum = Sum::new().add_bytes(header.as_bytes()).add_bytes(self.options);
        header.checksum = sum.checksum().into();
        fixed.copy_from_slice(header.as_bytes());
        options.copy_from_slice(self.options);
        Ok(header_len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(
            (dscp, ecn, identification, dont_fragment, more_fragments) in (0u8..64, 0u8..4, any::<u16>(), any::<bool>(), any::<bool>()),
            offset in 0u16..8192, time_to_live: u8, protocol: u8, source: u32, destination: u32,
            mut options in vec(any::<u8>(), 0..=40), payload in vec(any::<u8>(), 0..50), padding in 0usize..20,
        ) {
            options.truncate(options.len() / 4 * 4);
            let repr = Ipv4Repr {
                dscp, ecn, identification, dont_fragment, more_fragments, fragment_offset: offset * 8,
                time_to_live, protocol: IpProtocol::new(protocol), source: source.into(),
                destination: destination.into(), options: &options, payload_len: payload.len(),
            };
            let mut packet = vec![0; repr.header_len()];
            prop_assert_eq!(repr.emit(&mut packet), Ok(packet.len()));
            packet.extend(&payload);
            let len = packet.len();
            packet.extend(vec![0; padding]);
            let parsed = Ipv4Packet::parse(&packet).unwrap();
            prop_assert_eq!(parsed.repr(), repr);
            prop_assert_eq!(parsed.payload(), &payload);
            prop_assert!(parsed.has_valid_checksum());
            let mut again = vec![0; repr.header_len()];
            parsed.repr().emit(&mut again).unwrap();
            prop_assert_eq!(&again, parsed.header_bytes());
            for cut in 0..len {
                let fault = Ipv4Packet::parse(&packet[..cut]).unwrap_err();
                let is_truncated = matches!(fault, ParseError::Truncated { available, .. } if available == cut);
                prop_assert!(is_truncated, "{:?}", fault);
                if cut >= repr.header_len() {
                    let parsed = Ipv4Packet::parse_truncated(&packet[..cut]).unwrap();
                    prop_assert_eq!(parsed.missing(), len - cut);
                    prop_assert_eq!(parsed.repr(), repr);
                }
            }
        }

        #[test]
        fn any_bytes_parse_or_fail(bytes in vec(any::<u8>(), 0..100)) {
            if let Ok(packet) = Ipv4Packet::parse(&bytes) {
                prop_assert_eq!(packet.header_len() + packet.payload().len(), usize::from(packet.total_length()));
            }
        }
    }

    #[test]
    fn each_check_has_its_error() {
        let mut packet = [0u8; 24];
        packet[0] = 0x45;
        packet[3] = 24;
        assert!(Ipv4Packet::parse(&packet).is_ok());
        let with = |place: usize, value: u8| {
            let mut packet = packet;
            packet[place] = value;
            Ipv4Packet::parse(&packet).unwrap_err()
        };
        let layer = Layer::Ipv4;
        assert_eq!(
            with(0, 0x65),
            ParseError::Version {
                layer,
                expected: 4,
                got: 6
            }
        );
        assert_eq!(
            with(0, 0x44),
            ParseError::HeaderLength {
                layer,
                minimum: 20,
                got: 16
            }
        );
        assert_eq!(
            with(0, 0x4F),
            ParseError::TotalLength {
                layer,
                minimum: 60,
                got: 24
            }
        );
        assert_eq!(
            with(3, 19),
            ParseError::TotalLength {
                layer,
                minimum: 20,
                got: 19
            }
        );
        assert_eq!(
            with(3, 0),
            ParseError::TotalLength {
                layer,
                minimum: 20,
                got: 0
            }
        );
        assert_eq!(
            with(3, 25),
            ParseError::Truncated {
                layer,
                needed: 25,
                available: 24
            }
        );
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let repr = Ipv4Repr {
            dscp: 0,
            ecn: 0,
            identification: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            time_to_live: 64,
            protocol: IpProtocol::TCP,
            source: Ipv4Addr::LOCALHOST,
            destination: Ipv4Addr::LOCALHOST,
            options: &[],
            payload_len: 0,
        };
        let mut buffer = [0; 100];
        let fault = Ipv4Repr {
            payload_len: 65_516,
            ..repr
        }
        .emit(&mut buffer)
        .unwrap_err();
        assert_eq!(
            fault,
            EmitError::TooLong {
                layer: Layer::Ipv4,
                maximum: 65_535,
                got: 65_536
            }
        );
        assert!(
            Ipv4Repr {
                payload_len: usize::MAX,
                ..repr
            }
            .emit(&mut buffer)
            .is_err()
        );
        assert!(
            Ipv4Repr {
                options: &[0; 3],
                ..repr
            }
            .emit(&mut buffer)
            .is_err()
        );
        assert!(
            Ipv4Repr {
                options: &[0; 44],
                ..repr
            }
            .emit(&mut buffer)
            .is_err()
        );
        assert!(Ipv4Repr { dscp: 64, ..repr }.emit(&mut buffer).is_err());
        assert!(Ipv4Repr { ecn: 4, ..repr }.emit(&mut buffer).is_err());
        assert!(
            Ipv4Repr {
                fragment_offset: 4,
                ..repr
            }
            .emit(&mut buffer)
            .is_err()
        );
        assert!(repr.emit(&mut buffer[..19]).is_err());
    }
}
