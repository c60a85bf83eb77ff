use std::net::IpAddr;

use super::{
    EtherType, Icmpv4Packet, Icmpv6Packet, IpPacket, IpProtocol, LinkHeader, LinkPayload, LinkType,
    ParseError, TcpSegment, UdpDatagram, UdpLiteDatagram,
};
use crate::Port;

/// A captured packet taken apart, as far down as it can be read.
///
/// Nothing is required of it: what is whole is there, and `fault` says which check the first header that is
/// not whole failed.
#[derive(Clone, Copy, Debug)]
pub struct Dissection<'a> {
    /// The header before IP.
    pub link: Option<LinkHeader<'a>>,
    /// What the link header announces, if that is not IP.
    pub not_ip: Option<EtherType>,
    /// The IP packet; its payload may be cut.
    pub ip: Option<IpPacket<'a>>,
    /// What IP carries.
    pub transport: Option<Transport<'a>>,
    /// Why it ends where it ends.
    pub fault: Option<ParseError>,
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Transport<'a> {
    /// TCP.
    Tcp(TcpSegment<'a>),
    /// UDP; the payload may be cut.
    Udp(UdpDatagram<'a>),
    /// UDP-Lite.
    UdpLite(UdpLiteDatagram<'a>),
    /// ICMP for IPv4.
    Icmpv4(Icmpv4Packet<'a>),
    /// ICMP for IPv6.
    Icmpv6(Icmpv6Packet<'a>),
    /// A fragment that is not the first: a piece from the middle of something.
    Fragment {
        /// Of what.
        protocol: IpProtocol,
    },
    /// A protocol that is not taken apart here. SCTP's and DCCP's ports are still in
    /// [`IpPacket::ports`].
    Other {
        /// Which.
        protocol: IpProtocol,
    },
}

impl<'a> Dissection<'a> {
    /// Takes `bytes`, captured on a link of type `link`, apart.
    #[must_use]
    pub fn of(link: LinkType, bytes: &'a [u8]) -> Self {
        let mut found = Self {
            link: None,
            not_ip: None,
            ip: None,
            transport: None,
            fault: None,
        };
        if let Err(fault) = found.read(link, bytes) {
            found.fault = Some(fault);
        }
        found
    }

    fn read(&mut self, link: LinkType, bytes: &'a [u8]) -> Result<(), ParseError> {
        let header = LinkHeader::parse(link, bytes)?;
        self.link = Some(header);
        match header.next()? {
            LinkPayload::Other(ethertype) => {
                self.not_ip = Some(ethertype);
                return Ok(());
            }
            LinkPayload::Ip => {}
        }
        let ip = IpPacket::parse_truncated(header.payload())?;
        self.ip = Some(ip);
        if let IpPacket::V6(packet) = ip
            && let Some(fault) = packet.chain_fault()
        {
            return Err(fault);
        }
        self.transport = Some(Transport::of(&ip)?);
        Ok(())
    }

    /// Source and destination address.
    #[must_use]
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        self.ip.map(|ip| (ip.source(), ip.destination()))
    }

    /// Source and destination port.
    #[must_use]
    pub fn ports(&self) -> Option<(Port, Port)> {
        self.ip.and_then(|ip| ip.ports())
    }
}

impl<'a> Transport<'a> {
    /// Reads what `ip` carries.
    ///
    /// # Errors
    /// Those of the protocol's `parse`, except that a cut payload is none.
    pub fn of(ip: &IpPacket<'a>) -> Result<Self, ParseError> {
        let protocol = ip.protocol();
        let payload = ip.payload();
        if ip.fragment_offset() != 0 {
            return Ok(Self::Fragment { protocol });
        }
        match protocol {
            IpProtocol::TCP => TcpSegment::parse(payload).map(Self::Tcp),
            IpProtocol::UDP => UdpDatagram::parse_truncated(payload).map(Self::Udp),
            IpProtocol::UDP_LITE if ip.missing() == 0 => UdpLiteDatagram::parse(payload).map(Self::UdpLite),
            IpProtocol::ICMP => Icmpv4Packet::parse(payload).map(Self::Icmpv4),
            IpProtocol::ICMPV6 => Icmpv6Packet::parse(payload).map(Self::Icmpv6),
            protocol => Ok(Self::Other { protocol }),
        }
    }

    /// The length of the transport header; 0 where there is none or it is not known here.
    #[must_use]
    pub fn header_len(&self) -> usize {
        match self {
            Self::Tcp(segment) => segment.header_len(),
            Self::Udp(_) => UdpDatagram::HEADER_LEN,
            Self::UdpLite(_) => UdpLiteDatagram::HEADER_LEN,
            Self::Icmpv4(_) => Icmpv4Packet::HEADER_LEN,
            Self::Icmpv6(_) => Icmpv6Packet::HEADER_LEN,
            Self::Fragment { .. } | Self::Other { .. } => 0,
        }
    }

    /// Whether the checksum of a packet that is whole is right, partial or wrong; `None` if there is none
    /// to check. `ip` is the packet it came in.
    #[must_use]
    pub fn checksum_state(&self, ip: &IpPacket<'_>) -> Option<ChecksumState> {
        if ip.missing() > 0 || ip.is_fragment() {
            return match self {
                Self::Fragment { .. } | Self::Other { .. } => None,
                _ => Some(ChecksumState::Unchecked),
            };
        }
        let pseudo = ip.pseudo_header();
        let (valid, partial) = match self {
            Self::Tcp(segment) => (
                segment.has_valid_checksum(pseudo),
                segment.has_partial_checksum(pseudo),
            ),
            Self::Udp(datagram) if datagram.checksum() == 0 && datagram.has_valid_checksum(pseudo) => {
                return Some(ChecksumState::Absent);
            }
            Self::Udp(datagram) => (
                datagram.has_valid_checksum(pseudo),
                datagram.has_partial_checksum(pseudo),
            ),
            Self::UdpLite(datagram) => (datagram.has_valid_checksum(pseudo), false),
            Self::Icmpv4(packet) => (packet.has_valid_checksum(), false),
            Self::Icmpv6(packet) => (packet.has_valid_checksum(pseudo), false),
            Self::Fragment { .. } | Self::Other { .. } => return None,
        };
        Some(match (valid, partial) {
            (true, _) => ChecksumState::Valid,
            (false, true) => ChecksumState::Offloaded,
            // It covers the final destination, which is not in the fixed header yet.
            (false, false) if ip.is_source_routed() => ChecksumState::Unchecked,
            (false, false) => ChecksumState::Wrong,
        })
    }
}

/// What can be said of a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChecksumState {
    /// It is right.
    Valid,
    /// It is the sum of the pseudo header only: the device was to complete it, and the capture was made
    /// before that.
    Offloaded,
    /// It is wrong.
    Wrong,
    /// The sender made none (UDP over IPv4).
    Absent,
    /// It cannot be checked: bytes are missing, it covers several fragments, or the final destination of a
    /// source-routed packet is not known.
    Unchecked,
}

impl ChecksumState {
    /// In a word, as JSON carries it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Offloaded => "offloaded",
            Self::Wrong => "wrong",
            Self::Absent => "absent",
            Self::Unchecked => "unchecked",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Layer;

    proptest! {
        #[test]
        fn any_bytes_on_any_link_are_taken_apart(
            link in 0..LinkType::ALL.len(), mut bytes in vec(any::<u8>(), 0..200), guide in any::<Option<(bool, u8)>>()
        ) {
            let link = LinkType::ALL[link];
            if let Some((six, protocol)) = guide {
                let (version, place) = if six { (0x60, 6) } else { (0x45, 9) };
                if let Some(byte) = bytes.get_mut(0) { *byte = version; }
                if let Some(byte) = bytes.get_mut(place) { *byte = protocol; }
            }
            let found = Dissection::of(link, &bytes);
            let explained = found.fault.is_some() || found.transport.is_some() || found.not_ip.is_some();
            prop_assert!(explained);
            if let (Some(ip), Some(transport)) = (found.ip, found.transport) {
                prop_assert!(transport.header_len() <= ip.payload().len());
                let state = transport.checksum_state(&ip);
                prop_assert!(state.is_none() || ip.missing() == 0 || state == Some(ChecksumState::Unchecked));
            }
        }
    }

    #[test]
    fn a_cut_header_still_shows_addresses_and_ports() {
        let mut bytes = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        bytes.extend([0, 80, 1, 187, 0, 0, 0]);
        let found = Dissection::of(LinkType::Ip, &bytes);
        assert_eq!(
            found.fault,
            Some(ParseError::Truncated {
                layer: Layer::Tcp,
                needed: 20,
                available: 7
            })
        );
        assert_eq!(found.ports(), Some((Port::new(80), Port::new(443))));
        assert_eq!(
            found.addresses(),
            Some(([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
        );
    }
}
