use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{ChecksumFill, EmitError, IpProtocol, Layer, ParseError, PseudoHeader};
use crate::Port;

#[derive(Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    source_port: U16,
    destination_port: U16,
    length: U16,
    checksum: U16,
}

/// A view of a UDP datagram (RFC 768) whose length was checked.
///
/// The checksum is not checked by parsing: ask [`UdpDatagram::has_valid_checksum`].
#[derive(Clone, Copy, Debug)]
pub struct UdpDatagram<'a> {
    header: &'a Header,
    bytes: &'a [u8],
}

impl<'a> UdpDatagram<'a> {
    /// The length of the header.
    pub const HEADER_LEN: usize = 8;

    /// Reads a whole datagram. Bytes behind its length are left out.
    ///
    /// # Errors
    /// [`ParseError::Truncated`], [`ParseError::TotalLength`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let datagram = Self::parse_truncated(bytes)?;
        let length = usize::from(datagram.length());
        if length < Self::HEADER_LEN {
            return Err(ParseError::TotalLength {
                layer: Layer::Udp,
                minimum: Self::HEADER_LEN,
                got: length,
            });
        }
        if length > bytes.len() {
            return Err(ParseError::Truncated {
                layer: Layer::Udp,
                needed: length,
                available: bytes.len(),
            });
        }
        Ok(datagram)
    }

    /// Reads a datagram of which the payload may be cut.
    ///
    /// A length of 0 counts as "as long as the bytes are": that of a jumbogram (RFC 2675, section 4).
    ///
    /// # Errors
    /// [`ParseError::Truncated`] for the header, [`ParseError::TotalLength`].
    pub fn parse_truncated(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| ParseError::Truncated {
            layer: Layer::Udp,
            needed: Self::HEADER_LEN,
            available: bytes.len(),
        })?;
        let length = match usize::from(header.length.get()) {
            0 => bytes.len(),
            length if length < Self::HEADER_LEN => {
                return Err(ParseError::TotalLength {
                    layer: Layer::Udp,
                    minimum: Self::HEADER_LEN,
                    got: length,
                });
            }
            length => length.min(bytes.len()),
        };
        Ok(Self {
            header,
            bytes: &bytes[..length],
        })
    }

    /// The sender's port; 0 if it wants no answer.
    #[must_use]
    pub fn source_port(&self) -> Port {
        Port::new(self.header.source_port.get())
    }

    /// The receiver's port.
    #[must_use]
    pub fn destination_port(&self) -> Port {
        Port::new(self.header.destination_port.get())
    }

    /// The length of header and data, as the header says.
    #[must_use]
    pub fn length(&self) -> u16 {
        self.header.length.get()
    }

    /// The checksum as it stands in the header; 0 if the sender made none.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.header.checksum.get()
    }

    /// The data.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[Self::HEADER_LEN..]
    }

    /// Whether the checksum is right between these addresses, or absent between IPv4 addresses. Between
    /// IPv6 addresses it must be there (RFC 8200, section 8.1).
    #[must_use]
    pub fn has_valid_checksum(&self, pseudo: PseudoHeader) -> bool {
        match (self.checksum(), pseudo) {
            (0, PseudoHeader::V4 { .. }) => true,
            (0, PseudoHeader::V6 { .. }) => false,
            (_, pseudo) => pseudo
                .sum(IpProtocol::UDP, self.bytes.len())
                .add_bytes(self.bytes)
                .is_valid(),
        }
    }

    /// Whether the field holds the sum of the pseudo header alone: the sender left the checksum to a
    /// device, and the capture was made before it.
    #[must_use]
    pub fn has_partial_checksum(&self, pseudo: PseudoHeader) -> bool {
        pseudo.sum(IpProtocol::UDP, self.bytes.len()).folded() == self.checksum()
    }

    /// The header's values.
    #[must_use]
    pub fn repr(&self) -> UdpRepr {
        UdpRepr {
            source_port: self.source_port(),
            destination_port: self.destination_port(),
        }
    }
}

/// The values of a UDP header; length and checksum are computed when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpRepr {
    /// The sender's port.
    pub source_port: Port,
    /// The receiver's port.
    pub destination_port: Port,
}

impl UdpRepr {
    /// Writes the header to the front of `datagram`, behind which the data stands already, and gives the
    /// header's length, 8.
    ///
    /// # Errors
    /// [`EmitError::BufferTooSmall`], [`EmitError::TooLong`].
    pub fn emit(&self, datagram: &mut [u8], fill: ChecksumFill) -> Result<usize, EmitError> {
        let length = u16::try_from(datagram.len()).map_err(|_| EmitError::TooLong {
            layer: Layer::Udp,
            maximum: usize::from(u16::MAX),
            got: datagram.len(),
        })?;
        let header = Header {
            source_port: self.source_port.get().into(),
            destination_port: self.destination_port.get().into(),
            length: length.into(),
            checksum: 0.into(),
        };
        EmitError::reserve(Layer::Udp, datagram, UdpDatagram::HEADER_LEN)?.copy_from_slice(header.as_bytes());
        let sum = match (fill, fill.value(IpProtocol::UDP, datagram)) {
            // RFC 768: a computed 0 is sent as all ones, which is the same number; 0 means none.
            (ChecksumFill::Complete(_), 0) => 0xFFFF,
            (_, sum) => sum,
        };
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        Ok(UdpDatagram::HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(
            ports: (u16, u16), payload in vec(any::<u8>(), 0..50), source: IpAddr, destination: IpAddr, padding in 0usize..9
        ) {
            let repr = UdpRepr { source_port: Port::new(ports.0), destination_port: Port::new(ports.1) };
            let mut datagram = vec![0xFF; 8];
            datagram.extend(&payload);
            prop_assert_eq!(repr.emit(&mut datagram, ChecksumFill::Zero), Ok(8));
            let len = datagram.len();
            datagram.extend(vec![0; padding]);
            let parsed = UdpDatagram::parse(&datagram).unwrap();
            prop_assert_eq!((parsed.repr(), parsed.payload(), parsed.checksum()), (repr, &payload[..], 0));
            datagram.truncate(len);
            if let Some(pseudo) = PseudoHeader::new(source, destination) {
                repr.emit(&mut datagram, ChecksumFill::Complete(pseudo)).unwrap();
                let parsed = UdpDatagram::parse(&datagram).unwrap();
                prop_assert!(parsed.has_valid_checksum(pseudo) && parsed.checksum() != 0);
                repr.emit(&mut datagram, ChecksumFill::Partial(pseudo)).unwrap();
                prop_assert!(UdpDatagram::parse(&datagram).unwrap().has_partial_checksum(pseudo));
            }
            for cut in 0..len {
                prop_assert!(UdpDatagram::parse(&datagram[..cut]).is_err());
                prop_assert_eq!(UdpDatagram::parse_truncated(&datagram[..cut]).is_ok(), cut >= 8);
            }
        }
    }

    #[test]
    fn a_computed_zero_is_sent_as_all_ones() {
        let pseudo = PseudoHeader::new(IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 1])).unwrap();
        let repr = UdpRepr {
            source_port: Port::ZERO,
            destination_port: Port::ZERO,
        };
        let mut datagram = [0u8; 10];
        repr.emit(&mut datagram, ChecksumFill::Complete(pseudo)).unwrap();
        // Data that brings the sum to all ones makes the checksum 0.
        let missing = UdpDatagram::parse(&datagram).unwrap().checksum();
        datagram[8..].copy_from_slice(&missing.to_be_bytes());
        repr.emit(&mut datagram, ChecksumFill::Complete(pseudo)).unwrap();
        let parsed = UdpDatagram::parse(&datagram).unwrap();
        assert_eq!(parsed.checksum(), 0xFFFF);
        assert!(parsed.has_valid_checksum(pseudo));
    }

    #[test]
    fn a_length_outside_the_datagram_is_refused() {
        let layer = Layer::Udp;
        let with = |length| UdpDatagram::parse(&[0, 1, 0, 2, 0, length, 0, 0, 0]).map(|_| ());
        assert_eq!(
            with(7),
            Err(ParseError::TotalLength {
                layer,
                minimum: 8,
                got: 7
            })
        );
        assert_eq!(
            with(0),
            Err(ParseError::TotalLength {
                layer,
                minimum: 8,
                got: 0
            })
        );
        assert_eq!(
            with(10),
            Err(ParseError::Truncated {
                layer,
                needed: 10,
                available: 9
            })
        );
        assert_eq!(with(9), Ok(()));
        let long = UdpRepr {
            source_port: Port::ZERO,
            destination_port: Port::ZERO,
        }
        .emit(&mut vec![0; 65_536], ChecksumFill::Zero);
        assert_eq!(
            long,
            Err(EmitError::TooLong {
                layer,
                maximum: 65_535,
                got: 65_536
            })
        );
    }

    #[test]
    fn no_checksum_is_valid_over_ipv4_only() {
        let datagram = UdpDatagram::parse(&[0, 1, 0, 2, 0, 8, 0, 0]).unwrap();
        let four = IpAddr::from([127, 0, 0, 1]);
        let six = IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(datagram.has_valid_checksum(PseudoHeader::new(four, four).unwrap()));
        assert!(!datagram.has_valid_checksum(PseudoHeader::new(six, six).unwrap()));
    }
}
