use thiserror::Error;

/// What a router or the other host says by ICMP of a packet that it could not pass on or take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum PathError {
    /// No route to the network (ICMP 3/0 and 3/11, ICMPv6 1/0).
    #[error("network unreachable")]
    NetworkUnreachable,
    /// The host does not answer on its network (ICMP 3/1 and 3/12, ICMPv6 1/2 and 1/3).
    #[error("host unreachable")]
    HostUnreachable,
    /// The host does not speak the protocol (ICMP 3/2).
    #[error("protocol unreachable")]
    ProtocolUnreachable,
    /// Nobody holds the port (ICMP 3/3, ICMPv6 1/4).
    #[error("port unreachable")]
    PortUnreachable,
    /// The packet is longer than the path takes (ICMP 3/4, ICMPv6 2/0).
    #[error("packet too big for the path")]
    TooBig,
    /// A source route failed (ICMP 3/5).
    #[error("source route failed")]
    SourceRouteFailed,
    /// There is no such network (ICMP 3/6).
    #[error("network unknown")]
    NetworkUnknown,
    /// There is no such host (ICMP 3/7).
    #[error("host unknown")]
    HostUnknown,
    /// The source is cut off (ICMP 3/8).
    #[error("source host isolated")]
    SourceIsolated,
    /// A filter forbids the network (ICMP 3/9).
    #[error("network administratively prohibited")]
    NetworkProhibited,
    /// A filter forbids the host or the packet (ICMP 3/10 and 3/13 to 3/15).
    #[error("host administratively prohibited")]
    HostProhibited,
    /// A filter or a policy forbids the packet (ICMPv6 1/1, 1/5, 1/6).
    #[error("administratively prohibited")]
    Prohibited,
    /// It passed too many routers, or not all of its fragments came (ICMP 11, ICMPv6 3).
    #[error("time exceeded")]
    TimeExceeded,
    /// Its header is wrong (ICMP 12, ICMPv6 4).
    #[error("parameter problem")]
    ParameterProblem,
}

impl PathError {
    /// Whether trying again is of no use, as far as Linux believes it: it is what a connected datagram socket is
    /// told (`icmp_err_convert` and `icmpv6_err_convert`).
    #[must_use]
    pub const fn is_hard(self) -> bool {
        match self {
            Self::NetworkUnreachable
            | Self::HostUnreachable
            | Self::SourceRouteFailed
            | Self::TimeExceeded => false,
            Self::ProtocolUnreachable
            | Self::PortUnreachable
            | Self::TooBig
            | Self::NetworkUnknown
            | Self::HostUnknown
            | Self::SourceIsolated
            | Self::NetworkProhibited
            | Self::HostProhibited
            | Self::Prohibited
            | Self::ParameterProblem => true,
        }
    }

    /// The name of the error number that Linux gives to programs.
    #[must_use]
    pub const fn errno_name(self) -> &'static str {
        match self {
            Self::NetworkUnreachable | Self::NetworkUnknown | Self::NetworkProhibited => "ENETUNREACH",
            Self::HostUnreachable | Self::HostProhibited | Self::TimeExceeded => "EHOSTUNREACH",
            Self::ProtocolUnreachable => "ENOPROTOOPT",
            Self::PortUnreachable => "ECONNREFUSED",
            Self::TooBig => "EMSGSIZE",
            Self::SourceRouteFailed => "EOPNOTSUPP",
            Self::HostUnknown => "EHOSTDOWN",
            Self::SourceIsolated => "ENONET",
            Self::Prohibited => "EACCES",
            Self::ParameterProblem => "EPROTO",
        }
    }

    /// What an ICMP error of this type and code says; `None` for other types, and for codes that nobody defined.
    pub(crate) const fn of_icmpv4(kind: u8, code: u8) -> Option<Self> {
        Some(match (kind, code) {
            (3, 0 | 11) => Self::NetworkUnreachable,
            (3, 1 | 12) => Self::HostUnreachable,
            (3, 2) => Self::ProtocolUnreachable,
            (3, 3) => Self::PortUnreachable,
            (3, 4) => Self::TooBig,
            (3, 5) => Self::SourceRouteFailed,
            (3, 6) => Self::NetworkUnknown,
            (3, 7) => Self::HostUnknown,
            (3, 8) => Self::SourceIsolated,
            (3, 9) => Self::NetworkProhibited,
            (3, 10 | 13..=15) => Self::HostProhibited,
            (11, _) => Self::TimeExceeded,
            (12, _) => Self::ParameterProblem,
            _ => return None,
        })
    }

    /// The same for ICMPv6.
    pub(crate) const fn of_icmpv6(kind: u8, code: u8) -> Option<Self> {
        Some(match (kind, code) {
            (1, 0) => Self::NetworkUnreachable,
            (1, 2 | 3) => Self::HostUnreachable,
            (1, 4) => Self::PortUnreachable,
            (1, 1 | 5 | 6) => Self::Prohibited,
            (2, 0) => Self::TooBig,
            (3, _) => Self::TimeExceeded,
            (4, _) => Self::ParameterProblem,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen of Linux: the error of a connect() whose SYN is answered so, and whether a connected UDP socket hears.
    #[test]
    fn errors_are_those_of_linux() {
        for (kind, code, errno, is_hard) in [
            (3, 0, "ENETUNREACH", false),
            (3, 1, "EHOSTUNREACH", false),
            (3, 2, "ENOPROTOOPT", true),
            (3, 3, "ECONNREFUSED", true),
            (3, 13, "EHOSTUNREACH", true),
        ] {
            let error = PathError::of_icmpv4(kind, code).unwrap();
            assert_eq!(
                (error.errno_name(), error.is_hard()),
                (errno, is_hard),
                "{kind}/{code}"
            );
        }
        assert_eq!(PathError::of_icmpv4(3, 16), None);
        assert_eq!(PathError::of_icmpv4(5, 0), None);
        assert_eq!(PathError::of_icmpv6(1, 7), None);
        assert_eq!(PathError::of_icmpv6(128, 0), None);
    }
}
