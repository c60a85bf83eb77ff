use std::net::Ipv4Addr;

use super::{EmitError, IpPacket, Layer, ParseError, Sum, checksum};

const HEADER_LEN: usize = 8;

/// A view of an ICMP message (RFC 792): type, code, checksum, four bytes that depend on the type, data.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv4Packet<'a> {
    header: &'a [u8; HEADER_LEN],
    bytes: &'a [u8],
    payload: &'a [u8],
}

/// What an ICMP message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Icmpv4Message {
    /// Type 0.
    EchoReply {
        /// Which asker: Linux puts the "port" of the ping socket here.
        identifier: u16,
        /// Which of its questions.
        sequence: u16,
    },
    /// Type 3: the packet quoted could not be delivered.
    DestinationUnreachable {
        /// Why.
        code: u8,
        /// With code 4, what the next hop can take (RFC 1191); else 0.
        next_hop_mtu: u16,
    },
    /// Type 5: there is a shorter way.
    Redirect {
        /// For what.
        code: u8,
        /// Through whom.
        gateway: Ipv4Addr,
    },
    /// Type 8.
    EchoRequest {
        /// Which asker.
        identifier: u16,
        /// Which of its questions.
        sequence: u16,
    },
    /// Type 11: 0 in transit, 1 while fragments were awaited.
    TimeExceeded {
        /// Where.
        code: u8,
    },
    /// Type 12: the header quoted is wrong.
    ParameterProblem {
        /// How: 0, at `pointer`.
        code: u8,
        /// At which of its bytes.
        pointer: u8,
    },
    /// Any other type, as it stands.
    Other {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// The four bytes behind the checksum.
        rest: [u8; 4],
    },
}

impl<'a> Icmpv4Packet<'a> {
    /// The length of the header.
    pub const HEADER_LEN: usize = HEADER_LEN;

    /// Reads a message, all of `bytes`.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (header, payload) = bytes.split_first_chunk().ok_or(ParseError::Truncated {
            layer: Layer::Icmpv4,
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

    /// Whether the checksum is right.
    #[must_use]
    pub fn has_valid_checksum(&self) -> bool {
        Sum::new().add_bytes(self.bytes).is_valid()
    }

    /// What it says.
    #[must_use]
    pub fn message(&self) -> Icmpv4Message {
        let &[kind, code, _, _, a, b, c, d] = self.header;
        let [identifier, sequence] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        // A message whose unused bytes are not 0 is kept as it stands, so that nothing of it is lost.
        match (kind, code, [a, b, c, d]) {
            (0, 0, _) => Icmpv4Message::EchoReply { identifier, sequence },
            (3, 4, [0, 0, _, _]) => Icmpv4Message::DestinationUnreachable {
                code,
                next_hop_mtu: sequence,
            },
            (3, _, [0, 0, 0, 0]) => Icmpv4Message::DestinationUnreachable {
                code,
                next_hop_mtu: 0,
            },
            (5, _, gateway) => Icmpv4Message::Redirect {
                code,
                gateway: gateway.into(),
            },
            (8, 0, _) => Icmpv4Message::EchoRequest { identifier, sequence },
            (11, _, [0, 0, 0, 0]) => Icmpv4Message::TimeExceeded { code },
            (12, _, [pointer, 0, 0, 0]) => Icmpv4Message::ParameterProblem { code, pointer },
            (kind, code, rest) => Icmpv4Message::Other { kind, code, rest },
        }
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The packet that an error message quotes: its header and at least 8 bytes of what it carried (RFC 792).
    ///
    /// `None` if the message is no error message.
    #[must_use]
    pub fn quoted(&self) -> Option<Result<IpPacket<'a>, ParseError>> {
        matches!(self.kind(), 3 | 4 | 5 | 11 | 12).then(|| IpPacket::parse_truncated(self.payload))
    }
}

impl Icmpv4Message {
    /// The type.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::EchoReply { .. } => 0,
            Self::DestinationUnreachable { .. } => 3,
            Self::Redirect { .. } => 5,
            Self::EchoRequest { .. } => 8,
            Self::TimeExceeded { .. } => 11,
            Self::ParameterProblem { .. } => 12,
            Self::Other { kind, .. } => *kind,
        }
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::EchoReply { .. } | Self::EchoRequest { .. } => 0,
            Self::DestinationUnreachable { code, .. }
            | Self::Redirect { code, .. }
            | Self::TimeExceeded { code }
            | Self::ParameterProblem { code, .. }
            | Self::Other { code, .. } => *code,
        }
    }

    /// The type in words.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self.kind() {
            0 => "echo reply",
            3 => "destination unreachable",
            4 => "source quench",
            5 => "redirect",
            8 => "echo request",
            9 => "router advertisement",
            10 => "router solicitation",
            11 => "time exceeded",
            12 => "parameter problem",
            13 => "timestamp request",
            14 => "timestamp reply",
            _ => "unknown type",
        }
    }

    /// The code in words, for types whose codes have names (IANA, ICMP Parameters).
    #[must_use]
    pub const fn code_name(&self) -> Option<&'static str> {
        Some(match (self.kind(), self.code()) {
            (3, 0) => "network unreachable",
            (3, 1) => "host unreachable",
            (3, 2) => "protocol unreachable",
            (3, 3) => "port unreachable",
            (3, 4) => "fragmentation needed",
            (3, 5) => "source route failed",
            (3, 6) => "network unknown",
            (3, 7) => "host unknown",
            (3, 8) => "source host isolated",
            (3, 9) => "network administratively prohibited",
            (3, 10) => "host administratively prohibited",
            (3, 11) => "network unreachable for this type of service",
            (3, 12) => "host unreachable for this type of service",
            (3, 13) => "communication administratively prohibited",
            (3, 14) => "host precedence violation",
            (3, 15) => "precedence cutoff",
            (5, 0) => "for the network",
            (5, 1) => "for the host",
            (5, 2) => "for the type of service and network",
            (5, 3) => "for the type of service and host",
            (11, 0) => "time to live exceeded in transit",
            (11, 1) => "fragment reassembly time exceeded",
            (12, 0) => "pointer indicates the error",
            (12, 1) => "required option missing",
            (12, 2) => "bad length",
            _ => return None,
        })
    }

    /// Writes the header to the front of `packet`, behind which the data stands already, checksum included,
    /// and gives the header's length, 8.
    ///
    /// # Errors
    /// [`EmitError::BufferTooSmall`].
    pub fn emit(&self, packet: &mut [u8]) -> Result<usize, EmitError> {
        let pair = |[a, b]: [u8; 2], [c, d]: [u8; 2]| [a, b, c, d];
        let [a, b, c, d] = match *self {
            Self::EchoReply { identifier, sequence } | Self::EchoRequest { identifier, sequence } => {
                pair(identifier.to_be_bytes(), sequence.to_be_bytes())
            }
            Self::DestinationUnreachable {
                code: 4,
                next_hop_mtu,
            } => pair([0, 0], next_hop_mtu.to_be_bytes()),
            Self::DestinationUnreachable { .. } | Self::TimeExceeded { .. } => [0; 4],
            Self::Redirect { gateway, .. } => gateway.octets(),
            Self::ParameterProblem { pointer, .. } => [pointer, 0, 0, 0],
            Self::Other { rest, .. } => rest,
        };
        let header = EmitError::reserve(Layer::Icmpv4, packet, Icmpv4Packet::HEADER_LEN)?;
        header.copy_from_slice(&[self.kind(), self.code(), 0, 0, a, b, c, d]);
        let sum = checksum(packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        Ok(Icmpv4Packet::HEADER_LEN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = Icmpv4Message> {
        (any::<u8>(), any::<u8>(), any::<u16>(), any::<u16>()).prop_map(|(choice, code, a, b)| {
            match choice % 7 {
                0 => Icmpv4Message::EchoReply {
                    identifier: a,
                    sequence: b,
                },
                1 => Icmpv4Message::EchoRequest {
                    identifier: a,
                    sequence: b,
                },
                2 => Icmpv4Message::DestinationUnreachable {
                    code: 4,
                    next_hop_mtu: a,
                },
                3 => Icmpv4Message::DestinationUnreachable {
                    code: code % 4,
                    next_hop_mtu: 0,
                },
                4 => Icmpv4Message::Redirect {
                    code,
                    gateway: (u32::from(a) << 16 | u32::from(b)).into(),
                },
                5 => Icmpv4Message::TimeExceeded { code },
                _ => Icmpv4Message::ParameterProblem {
                    code,
                    pointer: a as u8,
                },
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(message in message(), payload in vec(any::<u8>(), 0..40)) {
            let mut packet = vec![0xFF; 8];
            packet.extend(&payload);
            prop_assert_eq!(message.emit(&mut packet), Ok(8));
            let parsed = Icmpv4Packet::parse(&packet).unwrap();
            prop_assert_eq!((parsed.message(), parsed.payload()), (message, &payload[..]));
            prop_assert_eq!((parsed.kind(), parsed.code()), (message.kind(), message.code()));
            prop_assert!(parsed.has_valid_checksum());
        }

        #[test]
        fn what_is_parsed_is_emitted_again(mut packet in vec(any::<u8>(), 0..40), kind in 0u8..20) {
            if let Some(first) = packet.first_mut() {
                *first = kind;
            }
            match Icmpv4Packet::parse(&packet) {
                Err(fault) => {
                    prop_assert_eq!(fault, ParseError::Truncated { layer: Layer::Icmpv4, needed: 8, available: packet.len() });
                }
                Ok(parsed) => {
                    let mut again = packet.clone();
                    parsed.message().emit(&mut again).unwrap();
                    prop_assert_eq!(&again[..2], &packet[..2]);
                    prop_assert_eq!(&again[4..], &packet[4..]);
                }
            }
        }
    }

    #[test]
    fn the_quoted_packet_gives_the_ports() {
        let mut packet = vec![3, 3, 0, 0, 0, 0, 0, 0];
        packet.extend([
            0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 2,
        ]);
        packet.extend([0x30, 0x39, 0, 53, 0, 40, 0, 0]);
        let parsed = Icmpv4Packet::parse(&packet).unwrap();
        assert_eq!(parsed.message().code_name(), Some("port unreachable"));
        let quoted = parsed.quoted().unwrap().unwrap();
        assert_eq!(
            quoted
                .ports()
                .map(|(source, destination)| (source.get(), destination.get())),
            Some((12_345, 53))
        );
        assert_eq!(quoted.missing(), 32);
        assert!(Icmpv4Packet::parse(&[8; 8]).unwrap().quoted().is_none());
        assert!(
            Icmpv4Packet::parse(&[11, 0, 0, 0, 0, 0, 0, 0])
                .unwrap()
                .quoted()
                .unwrap()
                .is_err()
        );
    }
}
