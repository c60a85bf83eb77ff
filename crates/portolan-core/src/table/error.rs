//! Why the table refuses something: what happened, what is in the way, what would help.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::arena::SocketId;
use super::claim::{Claim, Family, State, Transport};
use super::host::Device;
use super::scope::Scope;
use crate::{Port, PortRange, Protocol};

/// The error numbers of Linux that the table's answers correspond to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of errno(3)")]
#[non_exhaustive]
pub enum Errno {
    EACCES,
    EADDRINUSE,
    EADDRNOTAVAIL,
    EAFNOSUPPORT,
    EAGAIN,
    EBADF,
    ECONNREFUSED,
    EINVAL,
    EISCONN,
    ENETUNREACH,
    ENODEV,
    ENOPROTOOPT,
    ENOTCONN,
    EOPNOTSUPP,
    EPERM,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The socket is not in the table (it was closed, or belongs to another one).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such socket; it was closed, or belongs to another table")]
pub struct NoSuchSocket;

/// Why a socket cannot have a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// There is no such socket.
    #[error(transparent)]
    NoSuchSocket(#[from] NoSuchSocket),
    /// The address is of the wrong family.
    #[error("{address} is no address for an {} socket", family_name(*.family))]
    AddressFamily {
        /// The address that was given.
        address: IpAddr,
        /// The family of the socket.
        family: Family,
    },
    /// The address is not one of this host.
    #[error("{address} is not an address of this host{}; use one that is, or the wildcard", on_device(*.device))]
    AddressNotLocal {
        /// The address that was given.
        address: IpAddr,
        /// The device that the socket is bound to, which may not have the address.
        device: Option<Device>,
    },
    /// TCP cannot use an IPv6 multicast address.
    #[error("{address} is a multicast address, which tcp cannot bind")]
    Multicast {
        /// The address that was given.
        address: IpAddr,
    },
    /// A link-local address means nothing without its device.
    #[error("{address} is link-local; say which device it is on")]
    MissingScope {
        /// The address that was given.
        address: IpAddr,
    },
    /// A v4-mapped address on a socket that refuses IPv4.
    #[error("{address} is an ipv4 address and the socket is IPV6_V6ONLY")]
    V6Only {
        /// The IPv4 address that was given as a mapped one.
        address: IpAddr,
    },
    /// The port takes a privilege.
    #[error(
        "permission denied: ports below {unprivileged_start} need CAP_NET_BIND_SERVICE; use a port from {unprivileged_start} up"
    )]
    Privileged {
        /// The port that was asked for.
        port: Port,
        /// The first port that takes no privilege.
        unprivileged_start: u32,
    },
    /// The socket has a port already.
    #[error("the socket is already bound, to port {port}")]
    AlreadyBound {
        /// The port it has.
        port: Port,
    },
    /// Another socket is in the way.
    #[error(transparent)]
    InUse(#[from] InUse),
    /// No automatic port is left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

impl BindError {
    /// What Linux would answer.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoSuchSocket(_) => Errno::EBADF,
            Self::AddressFamily { family, .. } => match family {
                Family::Ipv4 => Errno::EAFNOSUPPORT,
                // A sockaddr_in is too short for an IPv6 socket, which is what Linux looks at first.
                Family::Ipv6 => Errno::EINVAL,
            },
            Self::AddressNotLocal { .. } => Errno::EADDRNOTAVAIL,
            Self::Multicast { .. }
            | Self::MissingScope { .. }
            | Self::V6Only { .. }
            | Self::AlreadyBound { .. } => Errno::EINVAL,
            Self::Privileged { .. } => Errno::EACCES,
            Self::InUse(_) | Self::Exhausted(_) => Errno::EADDRINUSE,
        }
    }
}

/// Every port of the range is in use, reserved, or not for this socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no automatic {} port is left in {range}; close sockets, widen the range, or ask for a port",
    Protocol::from(*.transport)
)]
pub struct Exhausted {
    /// The protocol whose ports were tried.
    pub transport: Transport,
    /// The ports that were tried.
    pub range: PortRange,
}

/// A port is held by another socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InUse {
    /// The sockets in the way: one at least, and one for every kind of holder.
    pub in_the_way: Vec<SocketId>,
    /// What the first of them holds.
    pub holder: Holder,
    /// Why it does not share.
    pub rule: Rule,
    /// Whether a bind would surely fail; if not, it depends on options of the holder that are not known.
    pub certain: bool,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.holder, self.rule)
    }
}

/// What a socket in the way holds, as far as it matters for a bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The protocol.
    pub transport: Transport,
    /// The address, which for a connection is its concrete local address, and the port.
    pub local: SocketAddr,
    /// How far the socket has come.
    pub state: State,
    /// The address family of the socket.
    pub family: Family,
    /// Whether an IPv6 socket refuses IPv4.
    pub v6_only: bool,
    /// The device it is bound to.
    pub device: Option<Device>,
    /// Its user.
    pub uid: u32,
}

impl Holder {
    pub(super) fn new(claim: &Claim) -> Self {
        Self {
            transport: claim.transport,
            local: SocketAddr::new(claim.address, claim.port.get()),
            state: claim.state,
            family: claim.family,
            v6_only: claim.v6_only,
            device: claim.device,
            uid: claim.owner.uid,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.transport, self.state) {
            (_, State::Listening) => "a listener",
            (Transport::Tcp, State::Idle) => "a bound socket",
            (Transport::Tcp, State::Connected) => "a connection",
            (_, State::TimeWait) => "a connection in TIME-WAIT",
            (Transport::Udp, State::Idle) => "a socket",
            (Transport::Udp, State::Connected) => "a connected socket",
        };
        write!(f, "{what} on {} holds ", self.local)?;
        match self.local.ip() {
            address if !address.is_unspecified() => write!(f, "that address"),
            IpAddr::V6(_) if self.v6_only => write!(f, "every ipv6 address"),
            IpAddr::V6(_) => write!(f, "every address"),
            IpAddr::V4(_) => write!(f, "every ipv4 address"),
        }?;
        if let Some(device) = self.device {
            write!(f, " of device {}", device.get())?;
        }
        Ok(())
    }
}

/// Why two sockets whose addresses and devices meet do not share a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rule {
    /// Neither option is set on both.
    #[error("two sockets share a port only if both set SO_REUSEADDR or both set SO_REUSEPORT")]
    NotShared,
    /// `SO_REUSEADDR` is set on both, but the holder listens.
    #[error("beside a listener SO_REUSEADDR does not help, only SO_REUSEPORT on both by one user")]
    BesideListener,
    /// `SO_REUSEPORT` is set on both, by different users.
    #[error("SO_REUSEPORT shares a port only among the sockets of one user")]
    OtherUser,
    /// The holder's options are not known.
    #[error(
        "whether it set SO_REUSEADDR or SO_REUSEPORT cannot be read, and on that it depends whether it shares"
    )]
    UnknownOptions,
}

/// Why a socket cannot have a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// There is no such socket.
    #[error(transparent)]
    NoSuchSocket(#[from] NoSuchSocket),
    /// The socket is bound, connected, or has a scope.
    #[error("the socket has a port, a remote or a scope already; take a new one")]
    NotFresh,
    /// The user may not have this scope.
    #[error(
        "permission denied for {scope}: addresses that are not this host's and privileged ports take a privilege"
    )]
    Privileged {
        /// The scope.
        scope: Scope,
    },
    /// Another socket has the same scope.
    #[error("another socket receives for {scope} already")]
    InUse {
        /// The scope.
        scope: Scope,
        /// The other socket.
        holder: SocketId,
    },
}

impl ScopeError {
    /// What Linux answers in the like case: setting `IP_TRANSPARENT` without the privilege, or binding twice.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoSuchSocket(_) => Errno::EBADF,
            Self::NotFresh => Errno::EINVAL,
            Self::Privileged { .. } => Errno::EPERM,
            Self::InUse { .. } => Errno::EADDRINUSE,
        }
    }
}

/// Why a socket cannot listen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// There is no such socket.
    #[error(transparent)]
    NoSuchSocket(#[from] NoSuchSocket),
    /// UDP has no listeners.
    #[error("a udp socket cannot listen; it receives as soon as it is bound")]
    NotSupported,
    /// The socket is connected.
    #[error("the socket is connected; a listener has no remote")]
    Connected,
    /// Another socket is in the way.
    #[error(transparent)]
    InUse(#[from] InUse),
    /// No automatic port is left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

impl ListenError {
    /// What Linux would answer.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoSuchSocket(_) => Errno::EBADF,
            Self::NotSupported => Errno::EOPNOTSUPP,
            Self::Connected => Errno::EINVAL,
            Self::InUse(_) | Self::Exhausted(_) => Errno::EADDRINUSE,
        }
    }
}

/// Why a socket cannot connect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no such socket.
    #[error(transparent)]
    NoSuchSocket(#[from] NoSuchSocket),
    /// The remote address is of the wrong family.
    #[error("{remote} is no address for an {} socket that is bound to {local}", family_name(*.family))]
    AddressFamily {
        /// The address that was given.
        remote: IpAddr,
        /// The address that the socket is bound to.
        local: IpAddr,
        /// The family of the socket.
        family: Family,
    },
    /// The socket listens or is connected.
    #[error("the socket is already connected or listening")]
    AlreadyConnected,
    /// The remote cannot be reached from this socket.
    #[error("{remote} cannot be reached from this socket: {why}")]
    Unreachable {
        /// The address that was given.
        remote: IpAddr,
        /// Why.
        why: Unreachable,
    },
    /// UDP sends to a broadcast address only if `SO_BROADCAST` allows it.
    #[error("{remote} is a broadcast address, which needs SO_BROADCAST")]
    Broadcast {
        /// The address that was given.
        remote: IpAddr,
    },
    /// The four-tuple is taken.
    #[error("a connection from {local} to {remote} exists already (it may be in TIME-WAIT)")]
    FlowExists {
        /// Our end.
        local: SocketAddr,
        /// The other end.
        remote: SocketAddr,
        /// The socket that has it.
        holder: SocketId,
    },
    /// No automatic port is left towards this remote.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// Why a remote is unreachable for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// An IPv4 remote from a socket that refuses IPv4.
    #[error("it is ipv4 and the socket is IPV6_V6ONLY")]
    V6Only,
    /// TCP to more than one host.
    #[error("tcp connects to one host, not to a multicast or broadcast address")]
    NotUnicast,
    /// A loopback, multicast or broadcast address does not go onto a network as a source.
    #[error("the address that the socket is bound to cannot be a source there")]
    MartianSource,
    /// The broadcast address of a subnet is no address of this host.
    #[error("the socket is bound to a broadcast address, which has no route")]
    SourceNotLocal,
}

impl ConnectError {
    /// What Linux would answer.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoSuchSocket(_) => Errno::EBADF,
            // The stand-in that a socket on an IPv6 address has for an IPv4 one is no source of a route.
            Self::AddressFamily {
                remote: IpAddr::V4(_),
                family: Family::Ipv6,
                ..
            } => Errno::EINVAL,
            Self::AddressFamily { .. } => Errno::EAFNOSUPPORT,
            Self::AlreadyConnected => Errno::EISCONN,
            Self::Unreachable {
                why: Unreachable::MartianSource,
                ..
            } => Errno::EINVAL,
            Self::Unreachable { .. } => Errno::ENETUNREACH,
            Self::Broadcast { .. } => Errno::EACCES,
            Self::FlowExists { .. } => Errno::EADDRNOTAVAIL,
            Self::Exhausted(Exhausted { transport, .. }) => match transport {
                Transport::Tcp => Errno::EADDRNOTAVAIL,
                Transport::Udp => Errno::EAGAIN,
            },
        }
    }
}

/// Why an option cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// There is no such socket.
    #[error(transparent)]
    NoSuchSocket(#[from] NoSuchSocket),
    /// `IPV6_V6ONLY` cannot change once the socket has a port.
    #[error("IPV6_V6ONLY cannot change on a bound socket; set it before bind")]
    Bound,
    /// `IPV6_V6ONLY` is for IPv6 sockets.
    #[error("IPV6_V6ONLY is for ipv6 sockets")]
    NotIpv6,
    /// The host has no such device.
    #[error("there is no device {}", .0.get())]
    NoSuchDevice(Device),
    /// Changing the device takes a privilege.
    #[error("changing the device of a socket needs CAP_NET_RAW")]
    NotPermitted,
}

impl SetError {
    /// What Linux would answer.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoSuchSocket(_) => Errno::EBADF,
            Self::Bound => Errno::EINVAL,
            Self::NotIpv6 => Errno::ENOPROTOOPT,
            Self::NoSuchDevice(_) => Errno::ENODEV,
            Self::NotPermitted => Errno::EPERM,
        }
    }
}

/// Why an operation does not fit the state of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// There is no such socket.
    #[error(transparent)]
    NoSuchSocket(#[from] NoSuchSocket),
    /// The socket is not connected.
    #[error("the socket is not connected")]
    NotConnected,
    /// The socket does not listen.
    #[error("the socket does not listen")]
    NotListening,
    /// The operation is not for this protocol.
    #[error("this is not possible for the socket's protocol")]
    NotSupported,
    /// The address to join is not multicast.
    #[error("this is no multicast address")]
    NotMulticast,
    /// The socket is a member already.
    #[error("the socket joined this group on this device already")]
    AlreadyJoined,
    /// The socket is no member.
    #[error("the socket did not join this group on this device")]
    NotJoined,
}

impl StateError {
    /// What Linux would answer.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoSuchSocket(_) => Errno::EBADF,
            Self::NotConnected => Errno::ENOTCONN,
            Self::NotListening => Errno::EINVAL,
            Self::NotSupported => Errno::EOPNOTSUPP,
            Self::NotMulticast => Errno::EINVAL,
            Self::AlreadyJoined => Errno::EADDRINUSE,
            Self::NotJoined => Errno::EADDRNOTAVAIL,
        }
    }
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

fn on_device(device: Option<Device>) -> String {
    device.map_or_else(String::new, |device| {
        format!(" that the socket's device {} may use", device.get())
    })
}
