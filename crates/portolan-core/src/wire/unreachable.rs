use std::fmt;

/// Why a packet is refused by *destination unreachable*, for both versions of ICMP: the four kinds that nftables has
/// as `icmpx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnreachableCode {
    /// There is no way to the network.
    NoRoute,
    /// The host does not answer.
    Host,
    /// Nobody has the port.
    Port,
    /// Somebody forbids it.
    Prohibited,
}

impl UnreachableCode {
    /// The code of an ICMP message of type 3 (RFC 792; RFC 1812, section 5.2.7.1).
    #[must_use]
    pub const fn icmpv4(self) -> u8 {
        match self {
            Self::NoRoute => 0,
            Self::Host => 1,
            Self::Port => 3,
            Self::Prohibited => 13,
        }
    }

    /// The code of an ICMPv6 message of type 1 (RFC 4443, section 3.1).
    #[must_use]
    pub const fn icmpv6(self) -> u8 {
        match self {
            Self::NoRoute => 0,
            Self::Prohibited => 1,
            Self::Host => 3,
            Self::Port => 4,
        }
    }
}

/// As nftables spells it: `no-route`, `host-unreachable`, `port-unreachable`, `admin-prohibited`.
impl fmt::Display for UnreachableCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoRoute => "no-route",
            Self::Host => "host-unreachable",
            Self::Port => "port-unreachable",
            Self::Prohibited => "admin-prohibited",
        })
    }
}
