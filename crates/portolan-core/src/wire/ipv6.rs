use std::net::Ipv6Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{EmitError, ExtensionHeaders, Fragment, IpProtocol, Layer, ParseError, PseudoHeader};

#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    version_class_flow: U32,
    payload_length: U16,
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

/// A view of an IPv6 packet (RFC 8200, section 3) whose lengths and extension headers were checked.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6Packet<'a> {
    header: &'a Header,
    header_bytes: &'a [u8],
    /// Extension headers and upper-layer data.
    rest: &'a [u8],
    /// Where the walk over the extension headers ended.
    upper: Upper,
    cut: usize,
}

#[derive(Clone, Copy, Debug)]
struct Upper {
    protocol: IpProtocol,
    offset: usize,
    fragment: Option<Fragment>,
    fault: Option<ParseError>,
}

impl<'a> Ipv6Packet<'a> {
    /// The length of the fixed header.
    pub const HEADER_LEN: usize = 40;

    /// Reads a whole packet, walking its extension headers. Bytes behind the payload length are left out.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::Version`], [`ParseError::TooManyExtensions`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let packet = Self::read(bytes, |announced, _| announced)?;
        if packet.cut > 0 {
            return Err(ParseError::Truncated {
                layer: Layer::Ipv6,
                needed: bytes.len() + packet.cut,
                available: bytes.len(),
            });
        }
        match packet.upper.fault {
            Some(fault) => Err(fault),
            None => Ok(packet),
        }
    }

    /// Reads a packet of which the fixed header is whole and the rest may be cut or broken: one quoted in
    /// an ICMP message, or captured with a small snapshot length.
    ///
    /// A payload length of 0 counts as "as long as the bytes are": that of a jumbogram (RFC 2675), or of a
    /// packet captured before the device cuts it. Where the extension headers cannot be followed,
    /// [`Ipv6Packet::payload`] begins with the one at fault; [`Ipv6Packet::chain_fault`] says why.
    ///
    /// # Errors
    /// [`ParseError::Truncated`] and [`ParseError::Version`] for the fixed header.
    pub fn parse_truncated(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::read(
            bytes,
            |announced, present| if announced == 0 { present } else { announced },
        )
    }

    fn read(bytes: &'a [u8], length: impl Fn(usize, usize) -> usize) -> Result<Self, ParseError> {
        let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| ParseError::Truncated {
            layer: Layer::Ipv6,
            needed: Self::HEADER_LEN,
            available: bytes.len(),
        })?;
        let version = (header.version_class_flow.get() >> 28) as u8;
        if version != 6 {
            return Err(ParseError::Version {
                layer: Layer::Ipv6,
                expected: 6,
                got: version,
            });
        }
        let length = length(usize::from(header.payload_length.get()), rest.len());
        let rest = &rest[..length.min(rest.len())];
        let mut chain = ExtensionHeaders::new(IpProtocol::new(header.next_header), rest);
        let fault = chain.by_ref().find_map(Result::err);
        Ok(Self {
            header,
            header_bytes: &bytes[..Self::HEADER_LEN],
            rest,
            upper: Upper {
                protocol: chain.next_header(),
                offset: chain.offset(),
                fragment: chain.fragment(),
                fault,
            },
            cut: length - rest.len(),
        })
    }

    /// Differentiated services code point, 0 to 63 (RFC 2474).
    #[must_use]
    pub fn dscp(&self) -> u8 {
        (self.header.version_class_flow.get() >> 22 & 0x3F) as u8
    }

    /// Explicit congestion notification, 0 to 3 (RFC 3168).
    #[must_use]
    pub fn ecn(&self) -> u8 {
        (self.header.version_class_flow.get() >> 20 & 3) as u8
    }

    /// The flow label, 20 bits (RFC 6437).
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        self.header.version_class_flow.get() & 0xF_FFFF
    }

    /// How many bytes follow the fixed header, as it says.
    #[must_use]
    pub fn payload_length(&self) -> u16 {
        self.header.payload_length.get()
    }

    /// What follows the fixed header: an extension header, or the upper-layer protocol.
    #[must_use]
    pub fn next_header(&self) -> IpProtocol {
        IpProtocol::new(self.header.next_header)
    }

    /// How many routers it may still pass.
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.header.hop_limit
    }

    /// The sender.
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        self.header.source.into()
    }

    /// The receiver, as the fixed header names it.
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        self.header.destination.into()
    }

    /// The extension headers.
    #[must_use]
    pub fn extensions(&self) -> ExtensionHeaders<'a> {
        ExtensionHeaders::new(self.next_header(), self.rest)
    }

    /// Why the extension headers could not be followed to their end; always `None` after
    /// [`Ipv6Packet::parse`].
    #[must_use]
    pub fn chain_fault(&self) -> Option<ParseError> {
        self.upper.fault
    }

    /// The length of the fixed header and all extension headers.
    #[must_use]
    pub fn header_len(&self) -> usize {
        Self::HEADER_LEN + self.upper.offset
    }

    /// The fixed header's bytes.
    #[must_use]
    pub fn header_bytes(&self) -> &'a [u8] {
        self.header_bytes
    }

    /// The upper-layer protocol, behind the extension headers.
    #[must_use]
    pub fn protocol(&self) -> IpProtocol {
        self.upper.protocol
    }

    /// The fragment header's values, if there is one.
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment> {
        self.upper.fragment
    }

    /// What the packet carries behind its extension headers.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.rest[self.upper.offset..]
    }

    /// How many bytes of the payload are missing; 0 for a packet from [`Ipv6Packet::parse`].
    #[must_use]
    pub fn missing(&self) -> usize {
        self.cut
    }

    /// The pseudo header for the checksum of the transport protocol.
    ///
    /// While a routing header has segments left, the final destination is the last of its addresses; for
    /// the types in use (2, 3 compressed, 4) that place differs, so the fixed header's destination, which is
    /// right at the receiver, is taken.
    #[must_use]
    pub fn pseudo_header(&self) -> PseudoHeader {
        PseudoHeader::V6 {
            source: self.source(),
            destination: self.destination(),
        }
    }

    /// The fixed header's values.
    #[must_use]
    pub fn repr(&self) -> Ipv6Repr {
        Ipv6Repr {
            dscp: self.dscp(),
            ecn: self.ecn(),
            flow_label: self.flow_label(),
            next_header: self.next_header(),
            hop_limit: self.hop_limit(),
            source: self.source(),
            destination: self.destination(),
            payload_len: self.rest.len() + self.cut,
        }
    }
}

/// The values of IPv6's fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipv6Repr {
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
    /// Explicit congestion notification, 0 to 3.
    pub ecn: u8,
    /// The flow label, 20 bits.
    pub flow_label: u32,
    /// What follows: the first extension header, or the upper-layer protocol.
    pub next_header: IpProtocol,
    /// How many routers it may pass.
    pub hop_limit: u8,
    /// The sender.
    pub source: Ipv6Addr,
    /// The receiver.
    pub destination: Ipv6Addr,
    /// How many bytes follow the fixed header, extension headers included.
    pub payload_len: usize,
}

impl Ipv6Repr {
    /// Writes the fixed header to the front of `buffer` and gives its length, 40.
    ///
    /// # Errors
    /// [`EmitError::BufferTooSmall`], [`EmitError::TooLong`], [`EmitError::FieldRange`].
    pub fn emit(&self, buffer: &mut [u8]) -> Result<usize, EmitError> {
        let Self {
            dscp,
            ecn,
            flow_label,
            next_header,
            hop_limit,
            source,
            destination,
            payload_len,
        } = *self;
        let layer = Layer::Ipv6;
        for (field, maximum, got) in [
            ("DSCP", 63, u32::from(dscp)),
            ("ECN", 3, u32::from(ecn)),
            ("flow label", 0xF_FFFF, flow_label),
        ] {
            if got > maximum {
                return Err(EmitError::FieldRange {
                    layer,
                    field,
                    maximum,
                    got,
                });
            }
        }
        let payload_length = u16::try_from(payload_len).map_err(|_| EmitError::TooLong {
            layer,
            maximum: usize::from(u16::MAX),
            got: payload_len,
        })?;
        let header = Header {
            version_class_flow: (6 << 28 | u32::from(dscp) << 22 | u32::from(ecn) << 20 | flow_label).into(),
            payload_length: payload_length.into(),
            next_header: next_header.get(),
            hop_limit,
            source: source.octets(),
            destination: destination.octets(),
        };
        EmitError::reserve(layer, buffer, Ipv6Packet::HEADER_LEN)?.copy_from_slice(header.as_bytes());
        Ok(Ipv6Packet::HEADER_LEN)
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
            dscp in 0u8..64, ecn in 0u8..4, flow_label in 0u32..1 << 20, hop_limit: u8, source: u128,
            destination: u128, payload in vec(any::<u8>(), 0..50), padding in 0usize..20,
        ) {
            let repr = Ipv6Repr {
                dscp, ecn, flow_label, next_header: IpProtocol::UDP, hop_limit, source: source.into(),
                destination: destination.into(), payload_len: payload.len(),
            };
            let mut packet = vec![0; 40];
            prop_assert_eq!(repr.emit(&mut packet), Ok(40));
            packet.extend(&payload);
            let len = packet.len();
            packet.extend(vec![0; padding]);
            let parsed = Ipv6Packet::parse(&packet).unwrap();
            prop_assert_eq!(parsed.repr(), repr);
            prop_assert_eq!(parsed.payload(), &payload);
            for cut in 0..len {
                let fault = Ipv6Packet::parse(&packet[..cut]).unwrap_err();
                let is_truncated = matches!(fault, ParseError::Truncated { available, .. } if available == cut);
                prop_assert!(is_truncated, "{:?}", fault);
                if cut >= 40 {
                    prop_assert_eq!(Ipv6Packet::parse_truncated(&packet[..cut]).unwrap().missing(), len - cut);
                }
            }
        }

        #[test]
        fn any_bytes_parse_or_fail(mut bytes in vec(any::<u8>(), 40..200), next in prop_oneof![Just(0u8), Just(44), any::<u8>()]) {
            bytes[0] = 0x60;
            bytes[6] = next;
            let packet = Ipv6Packet::parse_truncated(&bytes).unwrap();
            prop_assert!(packet.header_len() + packet.payload().len() <= bytes.len());
            if let Ok(strict) = Ipv6Packet::parse(&bytes) && packet.payload_length() != 0 {
                prop_assert_eq!((strict.protocol(), strict.payload()), (packet.protocol(), packet.payload()));
            }
        }
    }

    #[test]
    fn a_broken_chain_still_shows_the_addresses() {
        let mut packet = [0u8; 44];
        packet[0] = 0x60;
        packet[5] = 4;
        packet[6] = IpProtocol::ROUTING.get();
        packet[23] = 1;
        let fault = ParseError::Truncated {
            layer: Layer::Ipv6Extension,
            needed: 8,
            available: 4,
        };
        packet[41] = 0;
        assert_eq!(Ipv6Packet::parse(&packet).unwrap_err(), fault);
        let parsed = Ipv6Packet::parse_truncated(&packet).unwrap();
        assert_eq!(parsed.chain_fault(), Some(fault));
        assert_eq!(
            (parsed.source(), parsed.protocol()),
            (Ipv6Addr::LOCALHOST, IpProtocol::ROUTING)
        );
        assert_eq!(parsed.payload().len(), 4);
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let repr = Ipv6Repr {
            dscp: 0,
            ecn: 0,
            flow_label: 0,
            next_header: IpProtocol::TCP,
            hop_limit: 64,
            source: Ipv6Addr::LOCALHOST,
            destination: Ipv6Addr::LOCALHOST,
            payload_len: 0,
        };
        let mut buffer = [0; 40];
        assert!(Ipv6Repr { dscp: 64, ..repr }.emit(&mut buffer).is_err());
        assert!(Ipv6Repr { ecn: 4, ..repr }.emit(&mut buffer).is_err());
        assert!(
            Ipv6Repr {
                flow_label: 1 << 20,
                ..repr
            }
            .emit(&mut buffer)
            .is_err()
        );
        assert!(
            Ipv6Repr {
                payload_len: 65_536,
                ..repr
            }
            .emit(&mut buffer)
            .is_err()
        );
        assert!(repr.emit(&mut buffer[..39]).is_err());
        assert!(repr.emit(&mut buffer).is_ok());
    }
}
