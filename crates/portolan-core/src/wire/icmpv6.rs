use std::net::Ipv6Addr;

use super::{ChecksumFill, EmitError, IpPacket, IpProtocol, Layer, ParseError, PseudoHeader};

const HEADER_LEN: usize = 8;

/// A view of an ICMPv6 message (RFC 4443): type, code, checksum, four bytes that depend on the type, data.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv6Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
    payload: &'a [u8],
}

/// What an ICMPv6 message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Icmpv6Message {
    /// Type 1: the packet quoted could not be delivered.
    DestinationUnreachable {
        /// Why.
        code: u8,
    },
    /// Type 2: the packet quoted is longer than the next hop can take.
    PacketTooBig {
        /// What it can take.
        mtu: u32,
    },
    /// Type 3: 0 in transit, 1 while fragments were awaited.
    TimeExceeded {
        /// Where.
        code: u8,
    },
    /// Type 4: the header quoted is wrong.
    ParameterProblem {
        /// How.
        code: u8,
        /// At which of the quoted packet's bytes.
        pointer: u32,
    },
    /// Type 128.
    EchoRequest {
        /// Which asker.
        identifier: u16,
        /// Which of its questions.
        sequence: u16,
    },
    /// Type 129.
    EchoReply {
        /// Which asker.
        identifier: u16,
        /// Which of its questions.
        sequence: u16,
    },
    /// Any other type, as it stands; [`Icmpv6Packet::redirect`] reads a redirect's addresses.
    Other {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// The four bytes behind the checksum.
        rest: [u8; 4],
    },
}

const REDIRECT: u8 = 137;

impl<'a> Icmpv6Packet<'a> {
    /// The length of the header.
    pub const HEADER_LEN: usize = HEADER_LEN;

    /// Reads a message, all of `bytes`.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, payload) = bytes.split_first_chunk().ok_or(ParseError::Truncated {
            layer: Layer::Icmpv6,
            needed: Self::HEADER_LEN,
            available: bytes.len(),
        })?;
        Ok(Self {
            header,
            bytes,
            payload,
        })
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.header[0]
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.header[1]
    }

    /// The checksum as it stands in the header.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// Whether the checksum is right between these addresses.
    #[must_use]
    pub fn has_valid_checksum(&self, pseudo: PseudoHeader) -> bool {
        pseudo
            .sum(IpProtocol::ICMPV6, self.bytes.len())
            .add_bytes(self.bytes)
            .is_valid()
    }

    /// What it says.
    #[must_use]
    pub fn message(&self) -> Icmpv6Message {
        let &[kind, code, _, _, a, b, c, d] = self.header;
        let number = u32::from_be_bytes([a, b, c, d]);
        let [identifier, sequence] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        // A message whose unused bytes are not 0 is kept as it stands, so that nothing of it is lost.
        match (kind, code, number) {
            (1, _, 0) => Icmpv6Message::DestinationUnreachable { code },
            (2, 0, _) => Icmpv6Message::PacketTooBig { mtu: number },
            (3, _, 0) => Icmpv6Message::TimeExceeded { code },
            (4, _, _) => Icmpv6Message::ParameterProblem {
                code,
                pointer: number,
            },
            (128, 0, _) => Icmpv6Message::EchoRequest { identifier, sequence },
            (129, 0, _) => Icmpv6Message::EchoReply { identifier, sequence },
            (kind, code, _) => Icmpv6Message::Other {
                kind,
                code,
                rest: [a, b, c, d],
            },
        }
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The better next hop and the destination it is for, if this is a whole redirect (RFC 4861, section 4.5).
    #[must_use]
    pub fn redirect(&self) -> Option<(Ipv6Addr, Ipv6Addr)> {
        if self.kind() != REDIRECT {
            return None;
        }
        let (target, rest) = self.payload.split_first_chunk::<16>()?;
        let destination = rest.first_chunk::<16>()?;
        Some(((*target).into(), (*destination).into()))
    }

    /// The packet that an error message quotes, as far as it fits.
    ///
    /// `None` if the message is no error message.
    #[must_use]
    pub fn quoted(&self) -> Option<Result<IpPacket<'a>, ParseError>> {
        matches!(self.kind(), 1..=4).then(|| IpPacket::parse_truncated(self.payload))
    }
}

impl Icmpv6Message {
    /// The type.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::DestinationUnreachable { .. } => 1,
            Self::PacketTooBig { .. } => 2,
            Self::TimeExceeded { .. } => 3,
            Self::ParameterProblem { .. } => 4,
            Self::EchoRequest { .. } => 128,
            Self::EchoReply { .. } => 129,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::PacketTooBig { .. } | Self::EchoRequest { .. } | Self::EchoReply { .. } => 0,
            Self::DestinationUnreachable { code }
            | Self::TimeExceeded { code }
            | Self::ParameterProblem { code, .. }
            | Self::Other { code, .. } => *code,
        }
    }

    /// The type in words.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.kind() {
            1 => "destination unreachable",
            2 => "packet too big",
            3 => "time exceeded",
            4 => "parameter problem",
            128 => "echo request",
            129 => "echo reply",
            130 => "multicast listener query",
            131 => "multicast listener report",
            132 => "multicast listener done",
            133 => "router solicitation",
            134 => "router advertisement",
            135 => "neighbor solicitation",
            136 => "neighbor advertisement",
            REDIRECT => "redirect",
            143 => "multicast listener report v2",
            _ => "unknown type",
        }
    }

    /// The code in words, for types whose codes have names (IANA, ICMPv6 Parameters).
    #[must_use]
    pub const fn code_name(&self) -> Option<&'static str> {
        Some(match (self.kind(), self.code()) {
            (1, 0) => "no route to destination",
            (1, 1) => "communication administratively prohibited",
            (1, 2) => "beyond scope of source address",
            (1, 3) => "address unreachable",
            (1, 4) => "port unreachable",
            (1, 5) => "source address failed ingress/egress policy",
            (1, 6) => "reject route to destination",
            (1, 7) => "error in source routing header",
            (3, 0) => "hop limit exceeded in transit",
            (3, 1) => "fragment reassembly time exceeded",
            (4, 0) => "erroneous header field",
            (4, 1) => "unrecognized next header type",
            (4, 2) => "unrecognized IPv6 option",
            (4, 3) => "incomplete header chain in first fragment",
            _ => return None,
        })
    }

    /// Writes the header to the front of `packet`, behind which the data stands already, and gives the
    /// header's length, 8.
    ///
    /// # Errors
    /// [`EmitError::BufferTooSmall`].
    pub fn emit(&self, packet: &mut [u8], fill: ChecksumFill) -> Result<usize, EmitError> {
        let [a, b, c, d] = match *self {
            Self::DestinationUnreachable { .. } | Self::TimeExceeded { .. } => [0; 4],
            Self::PacketTooBig { mtu } => mtu.to_be_bytes(),
            Self::ParameterProblem { pointer, .. } => pointer.to_be_bytes(),
            Self::EchoRequest { identifier, sequence } | Self::EchoReply { identifier, sequence } => {
                (u32::from(identifier) << 16 | u32::from(sequence)).to_be_bytes()
            }
            Self::Other { rest, .. } => rest,
        };
        let header = EmitError::reserve(Layer::Icmpv6, packet, Icmpv6Packet::HEADER_LEN)?;
        header.copy_from_slice(&[self.kind(), self.code(), 0, 0, a, b, c, d]);
        let sum = fill.value(IpProtocol::ICMPV6, packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        Ok(Icmpv6Packet::HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Icmpv6Message> {
        (any::<u8>(), any::<u8>(), any::<u32>()).prop_map(|(choice, code, number)| {
            let (identifier, sequence) = ((number >> 16) as u16, number as u16);
            match choice % 6 {
                0 => Icmpv6Message::DestinationUnreachable { code },
                1 => Icmpv6Message::PacketTooBig { mtu: number },
                2 => Icmpv6Message::TimeExceeded { code },
                3 => Icmpv6Message::ParameterProblem {
                    code,
                    pointer: number,
                },
                4 => Icmpv6Message::EchoRequest { identifier, sequence },
                _ => Icmpv6Message::EchoReply { identifier, sequence },
            }
        })
    }

    const PSEUDO: PseudoHeader = PseudoHeader::V6 {
        source: Ipv6Addr::LOCALHOST,
        destination: Ipv6Addr::LOCALHOST,
    };

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(message in message(), payload in vec(any::<u8>(), 0..40)) {
            let mut packet = vec![0xFF; 8];
            packet.extend(&payload);
            prop_assert_eq!(message.emit(&mut packet, ChecksumFill::Complete(PSEUDO)), Ok(8));
            let parsed = Icmpv6Packet::parse(&packet).unwrap();
            prop_assert_eq!((parsed.message(), parsed.payload()), (message, &payload[..]));
            prop_assert_eq!((parsed.kind(), parsed.code()), (message.kind(), message.code()));
            prop_assert!(parsed.has_valid_checksum(PSEUDO));
        }

        #[test]
        fn what_is_parsed_is_emitted_again(mut packet in vec(any::<u8>(), 0..60), kind in prop_oneof![0u8..6, 127u8..140]) {
            if let Some(first) = packet.first_mut() {
                *first = kind;
            }
            match Icmpv6Packet::parse(&packet) {
                Err(fault) => {
                    prop_assert_eq!(fault, ParseError::Truncated { layer: Layer::Icmpv6, needed: 8, available: packet.len() });
                }
                Ok(parsed) => {
                    prop_assert_eq!(parsed.redirect().is_some(), kind == 137 && packet.len() >= 40);
                    let mut again = packet.clone();
                    parsed.message().emit(&mut again, ChecksumFill::Zero).unwrap();
                    prop_assert_eq!(&again[..2], &packet[..2]);
                    prop_assert_eq!(&again[4..], &packet[4..]);
                }
            }
        }
    }
}
