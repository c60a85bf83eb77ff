use std::net::IpAddr;

use super::{IpProtocol, Ipv4Packet, Ipv6Packet, ParseError, PseudoHeader, SeqNum};
use crate::Port;

/// An IP packet of either version.
#[derive(Clone, Copy, Debug)]
pub enum IpPacket<'a> {
    /// Version 4.
    V4(Ipv4Packet<'a>),
    /// Version 6.
    V6(Ipv6Packet<'a>),
}

impl<'a> IpPacket<'a> {
    /// Reads a whole packet; its first four bits say of which version.
    ///
    /// # Errors
    /// [`ParseError::UnknownIpVersion`], and those of [`Ipv4Packet::parse`] and [`Ipv6Packet::parse`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        match version(bytes) {
            4 => Ipv4Packet::parse(bytes).map(Self::V4),
            6 => Ipv6Packet::parse(bytes).map(Self::V6),
            got => Err(ParseError::UnknownIpVersion { got }),
        }
    }

    /// Reads a packet of which the payload may be cut; see [`Ipv4Packet::parse_truncated`] and
    /// [`Ipv6Packet::parse_truncated`].
    ///
    /// # Errors
    /// As [`IpPacket::parse`], for the header.
    pub fn parse_truncated(bytes: &'a [u8]) -> Result<Self, ParseError> {
        match version(bytes) {
            4 => Ipv4Packet::parse_truncated(bytes).map(Self::V4),
            6 => Ipv6Packet::parse_truncated(bytes).map(Self::V6),
            got => Err(ParseError::UnknownIpVersion { got }),
        }
    }

    /// The sender.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.source().into(),
            Self::V6(packet) => packet.source().into(),
        }
    }

    /// The receiver.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.destination().into(),
            Self::V6(packet) => packet.destination().into(),
        }
    }

    /// The protocol of the payload, behind any extension headers.
    #[must_use]
    pub fn protocol(&self) -> IpProtocol {
        match self {
            Self::V4(packet) => packet.protocol(),
            Self::V6(packet) => packet.protocol(),
        }
    }

    /// The length of the header, with options or extension headers.
    #[must_use]
    pub fn header_len(&self) -> usize {
        match self {
            Self::V4(packet) => packet.header_len(),
            Self::V6(packet) => packet.header_len(),
        }
    }

    /// What it carries.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        match self {
            Self::V4(packet) => packet.payload(),
            Self::V6(packet) => packet.payload(),
        }
    }

    /// How many bytes of the payload are missing.
    #[must_use]
    pub fn missing(&self) -> usize {
        match self {
            Self::V4(packet) => packet.missing(),
            Self::V6(packet) => packet.missing(),
        }
    }

    /// Where the payload belongs in the whole one, in bytes; 0 for a whole packet and a first fragment.
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        match self {
            Self::V4(packet) => packet.fragment_offset(),
            Self::V6(packet) => packet.fragment().map_or(0, |fragment| fragment.offset),
        }
    }

    /// Whether this is a part of a larger packet. An IPv6 fragment header alone does not make it one: a
    /// fragment may be "atomic", first and last in one (RFC 6946).
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        match self {
            Self::V4(packet) => packet.is_fragment(),
            Self::V6(packet) => packet
                .fragment()
                .is_some_and(|fragment| fragment.more || fragment.offset != 0),
        }
    }

    /// Whether the sender named places on the way (IPv4's source routes, IPv6's routing header) of which
    /// some may still be ahead, so that the destination need not be the final one.
    #[must_use]
    pub fn is_source_routed(&self) -> bool {
        match self {
            Self::V4(packet) => packet.options().flatten().any(|option| option.is_source_route()),
            Self::V6(packet) => packet
                .extensions()
                .flatten()
                .any(|header| header.segments_left().is_some_and(|left| left > 0)),
        }
    }

    /// The pseudo header for the checksum of the transport protocol.
    #[must_use]
    pub fn pseudo_header(&self) -> PseudoHeader {
        match self {
            Self::V4(packet) => packet.pseudo_header(),
            Self::V6(packet) => packet.pseudo_header(),
        }
    }

    /// Source and destination port, if the protocol has ports and the packet begins with them. Four bytes
    /// of payload are enough, so this works for quoted and cut packets.
    #[must_use]
    pub fn ports(&self) -> Option<(Port, Port)> {
        self.protocol().transport()?;
        if self.fragment_offset() != 0 {
            return None;
        }
        let &[a, b, c, d] = self.payload().first_chunk()?;
        Some((
            Port::new(u16::from_be_bytes([a, b])),
            Port::new(u16::from_be_bytes([c, d])),
        ))
    }

    /// The sequence number, if it is TCP and the packet begins with one; 8 bytes of payload are enough. By it
    /// a sender checks that a quoted packet is really one of its own (RFC 5927, section 4.1).
    #[must_use]
    pub fn tcp_seq(&self) -> Option<SeqNum> {
        if self.protocol() != IpProtocol::TCP || self.fragment_offset() != 0 {
            return None;
        }
        let number = self.payload().get(4..8)?.try_into().ok()?;
        Some(SeqNum::new(u32::from_be_bytes(number)))
    }
}

/// The first four bits; 0 for nothing at all.
fn version(bytes: &[u8]) -> u8 {
    bytes.first().map_or(0, |byte| byte >> 4)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_packet_of_neither_version_is_named() {
        assert_eq!(
            IpPacket::parse(&[0x50; 60]).unwrap_err(),
            ParseError::UnknownIpVersion { got: 5 }
        );
        assert_eq!(
            IpPacket::parse(&[]).unwrap_err(),
            ParseError::UnknownIpVersion { got: 0 }
        );
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut packet = [0u8; 32];
        packet[0] = 0x45;
        packet[3] = 32;
        packet[9] = 6;
        assert!(IpPacket::parse(&packet).unwrap().ports().is_some());
        packet[7] = 1;
        let later = IpPacket::parse(&packet).unwrap();
        assert_eq!(
            (later.ports(), later.tcp_seq(), later.is_fragment()),
            (None, None, true)
        );
    }

    #[test]
    fn a_route_with_places_ahead_is_seen() {
        let mut four = [0u8; 24];
        four[0] = 0x46;
        four[3] = 24;
        assert!(!IpPacket::parse(&four).unwrap().is_source_routed());
        four[20..23].copy_from_slice(&[131, 3, 4]);
        assert!(IpPacket::parse(&four).unwrap().is_source_routed());
        let mut six = [0u8; 48];
        six[0] = 0x60;
        six[5] = 8;
        six[6] = IpProtocol::ROUTING.get();
        six[40] = IpProtocol::NO_NEXT_HEADER.get();
        assert!(!IpPacket::parse(&six).unwrap().is_source_routed());
        six[43] = 1;
        assert!(IpPacket::parse(&six).unwrap().is_source_routed());
    }

    proptest! {
        #[test]
        fn whole_packets_read_the_same_when_cuts_are_allowed(mut bytes in vec(any::<u8>(), 40..120), six: bool) {
            bytes[0] = if six { 0x60 } else { 0x45 };
            let len = bytes.len() as u16;
            if six {
                bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            } else {
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
            }
            if let Ok(strict) = IpPacket::parse(&bytes) {
                let loose = IpPacket::parse_truncated(&bytes).unwrap();
                prop_assert_eq!((strict.ports(), strict.payload(), strict.missing()), (loose.ports(), loose.payload(), 0));
            }
        }
    }
}
