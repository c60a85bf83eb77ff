//! A claim: everything about a socket that decides who may bind beside it and what packets it gets.
//!
//! Sockets with equal claims are one entry of the table with a count, so that the million connections
//! of a busy server weigh as little in a decision as one of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::host::Device;
use crate::{Port, Protocol};

/// A protocol of this table: the two whose sockets bind, listen and connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl From<Transport> for Protocol {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
        }
    }
}

/// The address family a socket was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `AF_INET`.
    Ipv4,
    /// `AF_INET6`, which without `IPV6_V6ONLY` also speaks IPv4 by v4-mapped addresses.
    Ipv6,
}

/// Whose a socket is, and what that user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The user id, which `SO_REUSEPORT` compares.
    pub uid: u32,
    /// Whether the user may bind privileged ports and change the device of a socket (on Linux
    /// `CAP_NET_BIND_SERVICE` and `CAP_NET_RAW`).
    pub privileged: bool,
}

impl Owner {
    /// The user that may do everything.
    pub const ROOT: Self = Self {
        uid: 0,
        privileged: true,
    };

    /// A user without privileges, or root if the id is 0.
    #[must_use]
    pub const fn user(uid: u32) -> Self {
        Self {
            uid,
            privileged: uid == 0,
        }
    }
}

/// How far a socket has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Bound or not, but neither listening nor connected.
    Idle,
    /// A TCP listener, or a socket of either protocol that receives for a [`Scope`](super::Scope).
    Listening,
    /// A TCP connection in any state but TIME-WAIT, or a UDP socket with a remote.
    Connected,
    /// A TCP connection that only waits for stray segments (RFC 9293, section 3.6.1).
    TimeWait,
}

/// Whether the holder's `SO_REUSEADDR` and `SO_REUSEPORT` are known.
///
/// The kernel does not tell them to others (`sock_diag` lacks them), so a table that was loaded with a
/// kernel's sockets must be able to say that it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reuse {
    Known { address: bool, port: bool },
    Unknown,
}

/// See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) transport: Transport,
    pub(crate) family: Family,
    pub(crate) v6_only: bool,
    pub(crate) state: State,
    /// 0 as long as the socket has none.
    pub(crate) port: Port,
    /// The local address; v4-mapped ones as IPv4, so `0.0.0.0` on an IPv6 socket is `::ffff:0.0.0.0`.
    pub(crate) address: IpAddr,
    pub(crate) device: Option<Device>,
    pub(crate) owner: Owner,
    pub(crate) reuse: Reuse,
    /// The port was chosen by `connect`, so that other automatic connections may share it.
    pub(crate) by_connect: bool,
    /// The address was asked for, so that disconnecting does not give it back.
    pub(crate) address_locked: bool,
    /// The port was asked for, so that disconnecting does not give it back.
    pub(crate) port_locked: bool,
    /// What an IPv6 UDP socket keeps of a remote it was disconnected from: only datagrams from this
    /// address are delivered. Linux clears the port of the remote and forgets the address.
    pub(crate) filter: Option<Ipv6Addr>,
}

/// Whether the addresses of two claims meet, when one of them stands for a group of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    Never,
    Always,
    /// Only if both have the same specific address.
    OnSameAddress,
}

/// The IPv4 address that Linux gives an IPv6 socket without one (`LOOPBACK4_IPV6`).
///
/// It shows: a dual-stack socket with a native IPv6 flow counts as holding this IPv4 address, so a later
/// bind of `0.0.0.0` clashes with it, and for UDP a bind of 127.0.0.6.
const SHADOW: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// The length of [`Claim::bytes`] if there is no filter, and if there is one.
const WITHOUT_FILTER: usize = 28;
const LONGEST: usize = WITHOUT_FILTER + 16;

/// Stands in a [`Claim::shape`] for every specific address of its family.
const SOME_V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SOME_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

impl Claim {
    /// The claim of a new socket.
    pub(crate) const fn new(transport: Transport, family: Family, owner: Owner) -> Self {
        Self {
            transport,
            family,
            v6_only: false,
            state: State::Idle,
            port: Port::ZERO,
            address: wildcard(family),
            device: None,
            owner,
            reuse: Reuse::Known {
                address: false,
                port: false,
            },
            by_connect: false,
            address_locked: false,
            port_locked: false,
            filter: None,
        }
    }

    /// All of the claim in few bytes, to be hashed: different claims give different bytes.
    pub(super) fn bytes(&self) -> ([u8; LONGEST], usize) {
        let octets = match self.address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        let reuse = match self.reuse {
            Reuse::Known { address, port } => u16::from(address) | u16::from(port) << 1,
            Reuse::Unknown => 1 << 2,
        };
        let flags = [
            self.v6_only,
            self.owner.privileged,
            self.by_connect,
            self.address_locked,
            self.port_locked,
            self.address.is_ipv4(),
            self.family == Family::Ipv4,
            self.transport == Transport::Tcp,
        ];
        let flags = flags.iter().fold(0, |bits, &flag| bits << 1 | u16::from(flag));
        let flags = flags << 5 | (self.state as u16) << 3 | reuse;
        let mut bytes = [0; LONGEST];
        bytes[..16].copy_from_slice(&octets);
        bytes[16..18].copy_from_slice(&flags.to_le_bytes());
        bytes[18..20].copy_from_slice(&self.port.get().to_le_bytes());
        bytes[20..24].copy_from_slice(&self.owner.uid.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.device.map_or(0, Device::get).to_le_bytes());
        let Some(filter) = self.filter else {
            return (bytes, WITHOUT_FILTER);
        };
        bytes[WITHOUT_FILTER..].copy_from_slice(&filter.octets());
        (bytes, LONGEST)
    }

    /// Whether the claim is that of a connection whose port [`connect`](super::PortTable::connect) chose, of which
    /// a host has many that differ in the port alone.
    pub(super) const fn is_automatic(&self) -> bool {
        // A socket of UDP has its own place in the orders of its port.
        matches!(self.transport, Transport::Tcp)
            && matches!(self.state, State::Connected)
            && matches!(self.reuse, Reuse::Known { .. })
            && self.by_connect
            && self.is_bound()
    }

    /// The claim without its port, which stands for all that differ in nothing else.
    pub(super) const fn class(mut self) -> Self {
        self.port = Port::ZERO;
        self
    }

    pub(crate) const fn is_bound(&self) -> bool {
        self.port.get() != 0
    }

    pub(crate) const fn reuses_address(&self) -> bool {
        matches!(self.reuse, Reuse::Known { address: true, .. })
    }

    pub(crate) const fn reuses_port(&self) -> bool {
        matches!(self.reuse, Reuse::Known { port: true, .. })
    }

    /// Whether the socket is looked for by its local address alone.
    pub(crate) const fn is_receiver(&self) -> bool {
        match (self.transport, self.state) {
            (Transport::Tcp, State::Listening) | (Transport::Udp, State::Idle) => self.is_bound(),
            (Transport::Tcp, State::Idle | State::Connected | State::TimeWait)
            | (Transport::Udp, State::Listening | State::Connected | State::TimeWait) => false,
        }
    }

    pub(crate) const fn has_flow(&self) -> bool {
        matches!(self.state, State::Connected | State::TimeWait)
    }

    /// The claim with its specific address, if it has one, replaced by one that stands for them all.
    pub(crate) fn shape(mut self) -> Self {
        if !self.address.is_unspecified() {
            self.address = match self.address {
                IpAddr::V4(_) => SOME_V4,
                IpAddr::V6(_) => SOME_V6,
            };
        }
        self
    }

    /// Whether both are bound to the same device, or one to none.
    pub(crate) fn devices_meet(&self, other: &Self) -> bool {
        self.device.is_none() || other.device.is_none() || self.device == other.device
    }

    /// Whether an arriving packet's device is one the socket hears.
    pub(crate) fn hears(&self, device: Option<Device>) -> bool {
        self.device.is_none() || self.device == device
    }

    /// Whether a socket that binds as `self` meets the addresses of holders with the shape `holder`.
    pub(crate) fn meets(&self, holder: &Self) -> Meeting {
        match (self.address, holder.address) {
            (IpAddr::V4(mine), IpAddr::V4(theirs)) => {
                // Only a mapped address of an IPv6 socket could be V6ONLY, and none is.
                if mine.is_unspecified() || theirs.is_unspecified() {
                    Meeting::Always
                } else {
                    Meeting::OnSameAddress
                }
            }
            (IpAddr::V4(mine), IpAddr::V6(theirs)) => {
                if holder.v6_only {
                    Meeting::Never
                } else if theirs.is_unspecified() {
                    Meeting::Always
                } else if self.family == Family::Ipv4
                    && (mine.is_unspecified() || mine == SHADOW && self.transport == Transport::Udp)
                {
                    // A native flow of a dual-stack socket: the shadow address decides. TCP looks
                    // specific addresses up in a table by address, where no shadow is found.
                    Meeting::Always
                } else {
                    Meeting::Never
                }
            }
            (IpAddr::V6(mine), IpAddr::V4(_)) => {
                if mine.is_unspecified() && !self.v6_only {
                    Meeting::Always
                } else {
                    Meeting::Never
                }
            }
            (IpAddr::V6(mine), IpAddr::V6(theirs)) => {
                if mine.is_unspecified() || theirs.is_unspecified() {
                    Meeting::Always
                } else {
                    Meeting::OnSameAddress
                }
            }
        }
    }

    /// Whether the two are alike enough to share datagrams or connections: same family, V6ONLY, device,
    /// user and address, and `SO_REUSEPORT` on the other.
    pub(crate) fn groups_with(&self, other: &Self) -> bool {
        self.transport == other.transport
            && self.port == other.port
            && self.family == other.family
            && self.v6_only == other.v6_only
            && self.device == other.device
            && self.owner.uid == other.owner.uid
            && other.reuses_port()
    }
}

/// The wildcard address of a family.
pub(crate) const fn wildcard(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(family: Family, v6_only: bool, address: &str) -> Claim {
        Claim {
            v6_only,
            address: address.parse().unwrap(),
            port: Port::new(80),
            ..Claim::new(Transport::Tcp, family, Owner::ROOT)
        }
    }

    #[test]
    fn the_matrix_of_address_kinds() {
        use Family::{Ipv4, Ipv6};
        use Meeting::{Always, Never, OnSameAddress};
        let kinds = [
            claim(Ipv4, false, "10.9.0.1"),
            claim(Ipv4, false, "0.0.0.0"),
            claim(Ipv6, true, "fd09::1"),
            claim(Ipv6, false, "::"),
            claim(Ipv6, true, "::"),
            claim(Ipv6, false, "10.9.0.1"),
            claim(Ipv6, false, "0.0.0.0"),
        ];
        let expected = [
            [OnSameAddress, Always, Never, Always, Never, OnSameAddress, Always],
            [Always, Always, Never, Always, Never, Always, Always],
            [Never, Never, OnSameAddress, Always, Always, Never, Never],
            [Always; 7],
            [Never, Never, Always, Always, Always, Never, Never],
            [OnSameAddress, Always, Never, Always, Never, OnSameAddress, Always],
            [Always, Always, Never, Always, Never, Always, Always],
        ];
        for (mine, row) in kinds.iter().zip(expected) {
            for (theirs, expected) in kinds.iter().zip(row) {
                assert_eq!(
                    mine.meets(&theirs.shape()),
                    expected,
                    "{mine:?} beside {theirs:?}"
                );
            }
        }
    }

    #[test]
    fn claims_that_differ_have_other_bytes() {
        let claim = claim(Family::Ipv6, false, "10.9.0.1");
        let known = |address, port| Reuse::Known { address, port };
        let changed: [fn(&mut Claim); 17] = [
            |_| {},
            |claim| claim.transport = Transport::Udp,
            |claim| claim.family = Family::Ipv4,
            |claim| claim.v6_only = true,
            |claim| claim.state = State::Listening,
            |claim| claim.state = State::Connected,
            |claim| claim.state = State::TimeWait,
            |claim| claim.port = Port::new(81),
            |claim| claim.address = "::a09:1".parse().unwrap(),
            |claim| claim.device = Device::new(1),
            |claim| claim.owner.uid = 1,
            |claim| claim.owner.privileged = false,
            |claim| claim.reuse = Reuse::Unknown,
            |claim| claim.by_connect = true,
            |claim| claim.address_locked = true,
            |claim| claim.port_locked = true,
            |claim| claim.filter = Some(Ipv6Addr::UNSPECIFIED),
        ];
        let mut claims: Vec<_> = changed
            .iter()
            .map(|change| {
                let mut claim = claim;
                change(&mut claim);
                claim
            })
            .collect();
        for reuse in [known(true, false), known(false, true), known(true, true)] {
            claims.push(Claim { reuse, ..claim });
        }
        let bytes: Vec<_> = claims.iter().map(Claim::bytes).collect();
        for (place, one) in bytes.iter().enumerate() {
            assert!(!bytes[..place].contains(one), "{:?}", claims[place]);
        }
    }

    #[test]
    fn a_native_flow_of_a_dual_stack_socket_holds_the_ipv4_wildcard_too() {
        let flow = claim(Family::Ipv6, false, "fd09::1").shape();
        let v4 = |address| claim(Family::Ipv4, false, address);
        assert_eq!(v4("0.0.0.0").meets(&flow), Meeting::Always);
        assert_eq!(v4("127.0.0.6").meets(&flow), Meeting::Never);
        assert_eq!(v4("10.9.0.1").meets(&flow), Meeting::Never);
        let udp = Claim {
            transport: Transport::Udp,
            ..v4("127.0.0.6")
        };
        assert_eq!(udp.meets(&flow), Meeting::Always);
        let mapped = claim(Family::Ipv6, false, "0.0.0.0");
        assert_eq!(mapped.meets(&flow), Meeting::Never);
    }
}
