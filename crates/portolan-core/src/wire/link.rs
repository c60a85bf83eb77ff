use super::{CookedFrame, EtherType, EthernetFrame, Layer, ParseError};

/// What stands before the IP header in a captured packet (`LINKTYPE_*`, tcpdump.org/linktypes.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkType {
    /// An Ethernet II header.
    Ethernet,
    /// Nothing: the packet begins with an IP header of either version.
    Ip,
    /// Nothing: the packet begins with an IPv4 header.
    Ipv4,
    /// Nothing: the packet begins with an IPv6 header.
    Ipv6,
    /// Linux cooked capture, version 1: what `tcpdump -i any` wrote until 2018.
    CookedV1,
    /// Linux cooked capture, version 2.
    CookedV2,
    /// Four bytes of address family in the byte order of the capturing host.
    Null,
    /// Four bytes of address family in network order (OpenBSD).
    Loop,
}

impl LinkType {
    /// Every link type, each as `--link` names it.
    pub const ALL: [Self; 8] = [
        Self::Ethernet,
        Self::Ip,
        Self::Ipv4,
        Self::Ipv6,
        Self::CookedV1,
        Self::CookedV2,
        Self::Null,
        Self::Loop,
    ];

    /// The type with this `LINKTYPE_*` number, as capture files carry it.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Ethernet),
            // 101 is LINKTYPE_RAW; 12 and 14 are what some systems wrote for it (DLT_RAW).
            101 | 12 | 14 => Some(Self::Ip),
            228 => Some(Self::Ipv4),
            229 => Some(Self::Ipv6),
            113 => Some(Self::CookedV1),
            276 => Some(Self::CookedV2),
            0 => Some(Self::Null),
            108 => Some(Self::Loop),
            _ => None,
        }
    }

    /// The `LINKTYPE_*` number.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Ethernet => 1,
            Self::Ip => 101,
            Self::Ipv4 => 228,
            Self::Ipv6 => 229,
            Self::CookedV1 => 113,
            Self::CookedV2 => 276,
            Self::Null => 0,
            Self::Loop => 108,
        }
    }

    /// A short name: `ethernet`, `ip`, `ipv4`, `ipv6`, `sll`, `sll2`, `null`, `loop`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "ethernet",
            Self::Ip => "ip",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::CookedV1 => "sll",
            Self::CookedV2 => "sll2",
            Self::Null => "null",
            Self::Loop => "loop",
        }
    }
}

/// The header before IP, as far as the capture has one.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum LinkHeader<'a> {
    /// Ethernet II.
    Ethernet(EthernetFrame<'a>),
    /// Linux cooked, of either version.
    Cooked(CookedFrame<'a>),
    /// The address family of BSD's loopback.
    Loopback {
        /// The family, in the byte order that makes it the smaller number.
        family: u32,
        /// What follows it.
        payload: &'a [u8],
    },
    /// None: IP comes first.
    None {
        /// All bytes.
        payload: &'a [u8],
    },
}

impl<'a> LinkHeader<'a> {
    /// Reads what `link` says stands first.
    ///
    /// # Errors
    /// [`ParseError::Truncated`].
    pub fn parse(link: LinkType, bytes: &'a [u8]) -> Result<Self, ParseError> {
        match link {
            LinkType::Ethernet => EthernetFrame::parse(bytes).map(Self::Ethernet),
            LinkType::CookedV1 => CookedFrame::parse_v1(bytes).map(Self::Cooked),
            LinkType::CookedV2 => CookedFrame::parse_v2(bytes).map(Self::Cooked),
            LinkType::Ip | LinkType::Ipv4 | LinkType::Ipv6 => Ok(Self::None { payload: bytes }),
            LinkType::Null | LinkType::Loop => {
                let (family, payload) = bytes.split_first_chunk().ok_or(ParseError::Truncated {
                    layer: Layer::Loopback,
                    needed: 4,
                    available: bytes.len(),
                })?;
                // The capturing host's order is not known here, but no family is above 255.
                let family = u32::from_be_bytes(*family).min(u32::from_le_bytes(*family));
                Ok(Self::Loopback { family, payload })
            }
        }
    }

    /// The length of the header: 0 to 22.
    #[must_use]
    pub fn header_len(&self) -> usize {
        match self {
            Self::Ethernet(frame) => frame.header_len(),
            Self::Cooked(frame) => frame.repr().header_len(),
            Self::Loopback { .. } => 4,
            Self::None { .. } => 0,
        }
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        match self {
            Self::Ethernet(frame) => frame.payload(),
            Self::Cooked(frame) => frame.payload(),
            Self::Loopback { payload, .. } | Self::None { payload } => payload,
        }
    }

    /// What the header says follows it.
    ///
    /// # Errors
    /// [`ParseError::AddressFamily`].
    pub fn next(&self) -> Result<LinkPayload, ParseError> {
        match self {
            Self::Ethernet(frame) => Ok(LinkPayload::of(frame.ethertype())),
            Self::Cooked(frame) => Ok(LinkPayload::of(frame.protocol())),
            Self::None { .. } => Ok(LinkPayload::Ip),
            // AF_INET is 2 everywhere; AF_INET6 is 10 on Linux, 24 on NetBSD and OpenBSD, 28 on FreeBSD,
            // 30 on macOS.
            Self::Loopback {
                family: 2 | 10 | 24 | 28 | 30,
                ..
            } => Ok(LinkPayload::Ip),
            Self::Loopback { family, .. } => Err(ParseError::AddressFamily { got: *family }),
        }
    }
}

/// What a link header says follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkPayload {
    /// An IP packet; its own first bits say of which version.
    Ip,
    /// Something else.
    Other(EtherType),
}

impl LinkPayload {
    const fn of(ethertype: EtherType) -> Self {
        match ethertype {
            EtherType::IPV4 | EtherType::IPV6 => Self::Ip,
            other => Self::Other(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_leads_back_to_the_link_type() {
        for link in LinkType::ALL {
            assert_eq!(LinkType::from_number(link.number()), Some(link));
        }
        assert_eq!(LinkType::from_number(147), None);
    }

    #[test]
    fn a_loopback_family_is_read_in_either_byte_order() {
        for bytes in [[30, 0, 0, 0, 0x60], [0, 0, 0, 30, 0x60]] {
            let header = LinkHeader::parse(LinkType::Null, &bytes).unwrap();
            assert_eq!(header.next(), Ok(LinkPayload::Ip));
            assert_eq!(header.payload(), [0x60]);
        }
        let header = LinkHeader::parse(LinkType::Loop, &[0, 0, 0, 9]).unwrap();
        assert_eq!(header.next(), Err(ParseError::AddressFamily { got: 9 }));
        assert!(LinkHeader::parse(LinkType::Null, &[2, 0, 0]).is_err());
    }
}
