//! Why a packet goes where it goes.

use std::fmt;

/// Why a packet is a socket's, or nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The socket has exactly this four-tuple.
    FourTuple,
    /// A connection in TIME-WAIT has this four-tuple.
    TimeWait,
    /// A listener on the destination address.
    ListenerSpecific,
    /// A listener on a wildcard address, and none on the destination address.
    ListenerWildcard,
    /// A member of a `SO_REUSEPORT` group of listeners on the destination address.
    ListenerGroupSpecific,
    /// A member of a `SO_REUSEPORT` group of listeners on a wildcard address.
    ListenerGroupWildcard,
    /// A listener whose [`Scope`](crate::table::Scope) has the destination.
    ListenerScope,
    /// A UDP socket on the destination address.
    Specific,
    /// A UDP socket on a wildcard address.
    Wildcard,
    /// A member of a `SO_REUSEPORT` group of UDP sockets on the destination address.
    GroupSpecific,
    /// A member of a `SO_REUSEPORT` group of UDP sockets on a wildcard address.
    GroupWildcard,
    /// A UDP socket whose [`Scope`](crate::table::Scope) has the destination.
    Scope,
    /// Every socket on the port that wants this multicast group.
    Multicast,
    /// Every socket on the port that wants broadcasts.
    Broadcast,
    /// No socket holds the port in a way that reaches this packet.
    NobodyListens,
    /// The segment is no SYN, and no connection has its four-tuple.
    NoConnection,
    /// The destination is no address of this host.
    NotForThisHost,
    /// TCP does not answer packets to or from more than one host.
    NotUnicast,
    /// Nobody on this host joined the multicast group on this device.
    NotJoined,
}

impl Reason {
    /// A stable name, for machines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FourTuple => "four-tuple",
            Self::TimeWait => "time-wait",
            Self::ListenerSpecific => "listener-specific",
            Self::ListenerWildcard => "listener-wildcard",
            Self::ListenerGroupSpecific => "listener-group-specific",
            Self::ListenerGroupWildcard => "listener-group-wildcard",
            Self::ListenerScope => "listener-scope",
            Self::Specific => "specific",
            Self::Wildcard => "wildcard",
            Self::GroupSpecific => "group-specific",
            Self::GroupWildcard => "group-wildcard",
            Self::Scope => "scope",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::NobodyListens => "nobody-listens",
            Self::NoConnection => "no-connection",
            Self::NotForThisHost => "not-for-this-host",
            Self::NotUnicast => "not-unicast",
            Self::NotJoined => "not-joined",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FourTuple => "four-tuple",
            Self::TimeWait => "four-tuple in TIME-WAIT",
            Self::ListenerSpecific => "listener, this address",
            Self::ListenerWildcard => "listener, wildcard",
            Self::ListenerGroupSpecific => "listener, this address, member of a SO_REUSEPORT group",
            Self::ListenerGroupWildcard => "listener, wildcard, member of a SO_REUSEPORT group",
            Self::ListenerScope => "listener, a scope of ports or addresses",
            Self::Specific => "bound to this address",
            Self::Wildcard => "bound to a wildcard",
            Self::GroupSpecific => "bound to this address, member of a SO_REUSEPORT group",
            Self::GroupWildcard => "bound to a wildcard, member of a SO_REUSEPORT group",
            Self::Scope => "a scope of ports or addresses",
            Self::Multicast => "multicast, every socket that wants the group",
            Self::Broadcast => "broadcast, every socket on the port",
            Self::NobodyListens => "nobody holds the port for this packet",
            Self::NoConnection => "no such connection",
            Self::NotForThisHost => "the destination is no address of this host",
            Self::NotUnicast => "tcp is between two hosts, not for broadcast or multicast",
            Self::NotJoined => "nobody on this host joined the multicast group",
        })
    }
}

/// What the sender of a packet without a receiver is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Nothing.
    Nothing,
    /// A TCP segment with RST (RFC 9293, section 3.10.7.1).
    Reset,
    /// ICMP destination unreachable, port unreachable (RFC 1122, section 4.1.3.1; RFC 4443, section 3.1).
    PortUnreachable,
}
