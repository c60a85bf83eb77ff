use thiserror::Error;

/// The header, or part of one, that a check belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layer {
    /// Ethernet II.
    Ethernet,
    /// An IEEE 802.1Q or 802.1ad tag.
    Vlan,
    /// Linux cooked capture, version 1.
    CookedV1,
    /// Linux cooked capture, version 2.
    CookedV2,
    /// The four bytes of address family before a packet of BSD's loopback.
    Loopback,
    /// IP, before the version is known.
    Ip,
    /// IPv4.
    Ipv4,
    /// An option of the IPv4 header.
    Ipv4Option,
    /// The fixed header of IPv6.
    Ipv6,
    /// An extension header of IPv6.
    Ipv6Extension,
    /// TCP.
    Tcp,
    /// An option of the TCP header.
    TcpOption,
    /// UDP.
    Udp,
    /// UDP-Lite.
    UdpLite,
    /// ICMP for IPv4.
    Icmpv4,
    /// ICMP for IPv6.
    Icmpv6,
}

impl Layer {
    /// The name people use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "Ethernet",
            Self::Vlan => "802.1Q tag",
            Self::CookedV1 => "Linux cooked",
            Self::CookedV2 => "Linux cooked v2",
            Self::Loopback => "loopback",
            Self::Ip => "IP",
            Self::Ipv4 => "IPv4",
            Self::Ipv4Option => "IPv4 option",
            Self::Ipv6 => "IPv6",
            Self::Ipv6Extension => "IPv6 extension",
            Self::Tcp => "TCP",
            Self::TcpOption => "TCP option",
            Self::Udp => "UDP",
            Self::UdpLite => "UDP-Lite",
            Self::Icmpv4 => "ICMP",
            Self::Icmpv6 => "ICMPv6",
        }
    }
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Which check a packet failed, with what was found and what had to be.
///
/// A bad packet is ordinary: count it, say it, go on. Lengths are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes end before the header, or before what the header announces.
    #[error("{layer} header or data cut short: {needed} bytes needed, {available} present")]
    Truncated {
        /// Whose bytes are missing.
        layer: Layer,
        /// How many there have to be.
        needed: usize,
        /// How many there are.
        available: usize,
    },
    /// The version field names another protocol.
    #[error("{layer} version is {got}, expected {expected}")]
    Version {
        /// The header read.
        layer: Layer,
        /// The version it must have.
        expected: u8,
        /// The version it has.
        got: u8,
    },
    /// The version of an IP packet is neither 4 nor 6.
    #[error("IP version is {got}, expected 4 or 6")]
    UnknownIpVersion {
        /// The version it has.
        got: u8,
    },
    /// The header-length field is smaller than the fixed part of the header.
    #[error("{layer} header length is {got}, expected {minimum} or more")]
    HeaderLength {
        /// The header read.
        layer: Layer,
        /// The least it can be.
        minimum: usize,
        /// What the field says.
        got: usize,
    },
    /// The length of the whole is smaller than its header.
    #[error("{layer} total length is {got}, less than its header of {minimum}")]
    TotalLength {
        /// The header read.
        layer: Layer,
        /// The length of the header.
        minimum: usize,
        /// What the field says.
        got: usize,
    },
    /// The checksum coverage of UDP-Lite lies outside the datagram (RFC 3828, section 3.1).
    #[error("UDP-Lite checksum coverage is {got}, expected 0 or 8 to {maximum}")]
    Coverage {
        /// The length of the datagram.
        maximum: usize,
        /// What the field says.
        got: usize,
    },
    /// An option has a length byte below 2, so that where the next begins is unknown.
    #[error("{layer} {kind} at {offset} has length {got}, expected 2 or more")]
    OptionLength {
        /// The header whose option it is.
        layer: Layer,
        /// The option's kind.
        kind: u8,
        /// Where it begins, counted from the first option.
        offset: usize,
        /// What its length byte says.
        got: u8,
    },
    /// An option reaches over the end of the header.
    #[error("{layer} {kind} at {offset} needs {needed} bytes, {available} present")]
    OptionTruncated {
        /// The header whose option it is.
        layer: Layer,
        /// The option's kind.
        kind: u8,
        /// Where it begins, counted from the first option.
        offset: usize,
        /// How many bytes it needs.
        needed: usize,
        /// How many bytes the header still has.
        available: usize,
    },
    /// An option of a known kind has a length that this kind cannot have.
    #[error("{layer} {kind} at {offset} has length {got}, which this kind cannot have")]
    OptionSize {
        /// The header whose option it is.
        layer: Layer,
        /// The option's kind.
        kind: u8,
        /// Where it begins, counted from the first option.
        offset: usize,
        /// What its length byte says.
        got: u8,
    },
    /// An IPv6 packet has more extension headers than are followed.
    #[error("more than {limit} IPv6 extension headers")]
    TooManyExtensions {
        /// How many are followed.
        limit: usize,
    },
    /// The address family before a loopback packet is none that is known.
    #[error("loopback address family is {got}, expected that of IPv4 (2) or IPv6 (10, 24, 28, 30)")]
    AddressFamily {
        /// The family, in the byte order that makes it the smaller number.
        got: u32,
    },
}

/// Why a header was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The buffer ends before the header does.
    #[error("{layer} needs a buffer of {needed} bytes, got {available}")]
    BufferTooSmall {
        /// The header to write.
        layer: Layer,
        /// How many bytes it takes.
        needed: usize,
        /// How many bytes there are.
        available: usize,
    },
    /// The options have a length that the header cannot express.
    #[error("{layer} options are {got} bytes, expected a multiple of {multiple} up to {maximum}")]
    OptionsLength {
        /// The header to write.
        layer: Layer,
        /// The unit the header counts in.
        multiple: usize,
        /// The most it can carry.
        maximum: usize,
        /// What was given.
        got: usize,
    },
    /// The whole is longer than the length field can say.
    #[error("{layer} length is {got}, more than {maximum}")]
    TooLong {
        /// The header to write.
        layer: Layer,
        /// The most the field can say.
        maximum: usize,
        /// What was given.
        got: usize,
    },
    /// A value does not fit the bits of its field.
    #[error("{layer} {field} is {got}, more than {maximum}")]
    FieldRange {
        /// The header to write.
        layer: Layer,
        /// The field.
        field: &'static str,
        /// The most it can hold.
        maximum: u32,
        /// What was given.
        got: u32,
    },
}

impl EmitError {
    /// The first `needed` bytes of `buffer`, or the error that says how many are missing.
    pub(super) fn reserve(layer: Layer, buffer: &mut [u8], needed: usize) -> Result<&mut [u8], Self> {
        let available = buffer.len();
        buffer.get_mut(..needed).ok_or(Self::BufferTooSmall {
            layer,
            needed,
            available,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_the_check_and_both_values() {
        let fault = ParseError::Truncated {
            layer: Layer::Tcp,
            needed: 20,
            available: 7,
        };
        assert_eq!(
            fault.to_string(),
            "TCP header or data cut short: 20 bytes needed, 7 present"
        );
        let fault = ParseError::OptionSize {
            layer: Layer::TcpOption,
            kind: 2,
            offset: 4,
            got: 3,
        };
        assert_eq!(
            fault.to_string(),
            "TCP option 2 at 4 has length 3, which this kind cannot have"
        );
    }
}
