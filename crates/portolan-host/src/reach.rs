//! From where an open socket can be reached, as far as the address it is bound to tells.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::{Family, Socket, SocketAddress, Space, State};

/// From where a socket takes what is sent to it, judged by the address and the device it is bound to.
///
/// Firewall rules are no part of it: they may close what the address leaves open, never the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindReach {
    /// The addresses it answers on.
    pub scope: BindScope,
    /// The name of the interface it is bound to (SO_BINDTODEVICE), or its index where the name is not known.
    pub device: Option<String>,
}

/// The addresses on which a socket answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum BindScope {
    /// Loopback: programs on this machine, in this network namespace.
    ThisMachine,
    /// A link-local address: neighbours on the same link.
    LinkLocal(IpAddr),
    /// A multicast group: whoever sends to the group.
    Group(IpAddr),
    /// One address of the machine.
    OneAddress(IpAddr),
    /// Every IPv4 address of the machine.
    EveryIpv4,
    /// Every IPv6 address of the machine, and no IPv4 address.
    EveryIpv6,
    /// Every address of the machine, of both families.
    Every,
    /// Every IPv6 address; whether IPv4 too is not known.
    EveryPerhapsIpv4,
    /// The virtual machines on this host, or its host.
    VirtualMachines,
}

impl BindReach {
    /// The reach of a socket that takes connections or datagrams from anyone; `None` for one that does not:
    /// a connection, a TCP socket that does not listen, a unix socket.
    #[must_use]
    pub fn of(socket: &Socket, space: &Space) -> Option<Self> {
        match socket.state {
            State::Listen | State::Unconnected => {}
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait
            | State::Closed => return None,
        }
        let device = (socket.device != 0).then(|| match space.device_name(socket.device) {
            Some(name) => name.to_owned(),
            None => socket.device.to_string(),
        });
        let scope = match &socket.local {
            // Only what comes in by the loopback interface, whatever the address.
            SocketAddress::Inet { .. } if socket.device == LOOPBACK_INDEX => BindScope::ThisMachine,
            SocketAddress::Inet { address, .. } => scope_of(*address, socket),
            SocketAddress::Vsock { cid: VSOCK_LOCAL, .. } => BindScope::ThisMachine,
            SocketAddress::Vsock { .. } => BindScope::VirtualMachines,
            SocketAddress::Unix { .. } => return None,
        };
        Some(Self { scope, device })
    }

    /// Whether the two together reach as far as a dual-stack socket: one every IPv4 address, the other every
    /// IPv6 address.
    #[must_use]
    pub fn completes(&self, other: &Self) -> bool {
        let families = [self.scope, other.scope];
        families.contains(&BindScope::EveryIpv4)
            && families.contains(&BindScope::EveryIpv6)
            && self.device == other.device
    }

    /// Whether anything outside of the machine can reach the socket as far as its address goes.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.scope, BindScope::ThisMachine)
    }

    /// The source addresses that can reach it from outside, as prefixes; none if it is closed to them.
    #[must_use]
    pub const fn sources(&self) -> &'static [&'static str] {
        match self.scope {
            BindScope::ThisMachine | BindScope::VirtualMachines => &[],
            BindScope::LinkLocal(IpAddr::V4(_)) => &["169.254.0.0/16"],
            BindScope::LinkLocal(IpAddr::V6(_)) => &["fe80::/10"],
            BindScope::Group(address) | BindScope::OneAddress(address) => match address {
                IpAddr::V4(_) => &["0.0.0.0/0"],
                IpAddr::V6(_) => &["::/0"],
            },
            BindScope::EveryIpv4 => &["0.0.0.0/0"],
            BindScope::EveryIpv6 => &["::/0"],
            BindScope::Every | BindScope::EveryPerhapsIpv4 => &["0.0.0.0/0", "::/0"],
        }
    }
}

/// For a column: `this machine`, `10.0.0.5 only`, `every address (IPv4 too)`.
impl fmt::Display for BindReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            BindScope::ThisMachine => return f.write_str("this machine"),
            // The link says more than the address, which stands beside it.
            BindScope::LinkLocal(address) => {
                return match &self.device {
                    Some(device) => write!(f, "link-local {device}"),
                    None => write!(f, "link-local {address}"),
                };
            }
            BindScope::Group(address) => write!(f, "multicast {address}")?,
            BindScope::OneAddress(address) => write!(f, "{address} only")?,
            BindScope::EveryIpv4 => f.write_str("every address (IPv4)")?,
            BindScope::EveryIpv6 => f.write_str("every IPv6 address")?,
            BindScope::Every => f.write_str("every address (IPv4 too)")?,
            BindScope::EveryPerhapsIpv4 => f.write_str("every address (IPv4 unknown)")?,
            BindScope::VirtualMachines => f.write_str("virtual machines")?,
        }
        match &self.device {
            Some(device) => write!(f, " of {device}"),
            None => Ok(()),
        }
    }
}

/// The loopback interface is the first of every network namespace (net/core/dev.c, LOOPBACK_IFINDEX).
const LOOPBACK_INDEX: u32 = 1;
/// VMADDR_CID_LOCAL of vsock(7).
const VSOCK_LOCAL: u32 = 1;

fn scope_of(address: IpAddr, socket: &Socket) -> BindScope {
    // A socket on an IPv4-mapped address is an IPv4 socket in all but name.
    let address = address.to_canonical();
    if address.is_unspecified() {
        return match (socket.family, address) {
            (Family::Ipv4, _) | (_, IpAddr::V4(_)) => BindScope::EveryIpv4,
            (Family::Ipv6 | Family::Vsock | Family::Unix, IpAddr::V6(_)) => match socket.v6_only {
                Some(true) => BindScope::EveryIpv6,
                Some(false) => BindScope::Every,
                None => BindScope::EveryPerhapsIpv4,
            },
        };
    }
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if address.is_loopback() {
        BindScope::ThisMachine
    } else if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        BindScope::Group(address)
    } else if link_local {
        BindScope::LinkLocal(address)
    } else {
        BindScope::OneAddress(address)
    }
}

#[cfg(test)]
mod tests {
    use portolan_core::Port;

    use super::*;
    use crate::{Queues, SocketProtocol, SpaceId, SpaceName};

    fn bound(address: &str, device: u32, v6_only: Option<bool>) -> Socket {
        let address = address.parse::<IpAddr>().unwrap();
        Socket {
            protocol: SocketProtocol::Tcp,
            family: if address.is_ipv4() {
                Family::Ipv4
            } else {
                Family::Ipv6
            },
            state: State::Listen,
            local: SocketAddress::Inet {
                address,
                port: Port::new(80),
            },
            remote: None,
            space: SpaceId(0),
            inode: 1,
            uid: None,
            cookie: 0,
            device,
            mark: None,
            cgroup: None,
            v6_only,
            queues: Queues::default(),
            tcp_info: None,
        }
    }

    fn space() -> Space {
        let mut space = Space::new(SpaceName::Host, 1);
        space.devices.insert(2, "eth0".to_owned());
        space
    }

    #[test]
    fn the_bind_address_tells_the_reach() {
        let cases = [
            ("127.0.0.1", 0, None, "this machine", false),
            ("127.0.0.53", 0, None, "this machine", false),
            ("::1", 0, None, "this machine", false),
            ("::ffff:127.0.0.1", 0, None, "this machine", false),
            ("0.0.0.0", 1, None, "this machine", false),
            ("0.0.0.0", 0, None, "every address (IPv4)", true),
            ("::ffff:0.0.0.0", 0, Some(false), "every address (IPv4)", true),
            ("::", 0, Some(false), "every address (IPv4 too)", true),
            ("::", 0, Some(true), "every IPv6 address", true),
            ("::", 0, None, "every address (IPv4 unknown)", true),
            ("10.0.0.5", 0, None, "10.0.0.5 only", true),
            ("::ffff:10.0.0.5", 0, None, "10.0.0.5 only", true),
            ("2001:db8::5", 0, None, "2001:db8::5 only", true),
            ("fe80::1", 2, None, "link-local eth0", true),
            ("fe80::1", 7, None, "link-local 7", true),
            ("169.254.1.1", 0, None, "link-local 169.254.1.1", true),
            ("224.0.0.251", 0, None, "multicast 224.0.0.251", true),
            ("0.0.0.0", 2, None, "every address (IPv4) of eth0", true),
        ];
        for (address, device, v6_only, text, open) in cases {
            let reach = BindReach::of(&bound(address, device, v6_only), &space()).unwrap();
            assert_eq!(reach.to_string(), text, "{address} device {device}");
            assert_eq!(reach.is_open(), open, "{address}");
            assert_eq!(
                reach.sources().is_empty(),
                !open,
                "{address}: sources {:?}",
                reach.sources()
            );
        }
    }

    #[test]
    fn what_takes_nothing_from_strangers_has_no_reach() {
        let mut socket = bound("0.0.0.0", 0, None);
        socket.state = State::Established;
        assert_eq!(BindReach::of(&socket, &space()), None);
        socket.state = State::Closed;
        assert_eq!(BindReach::of(&socket, &space()), None);
    }
}
