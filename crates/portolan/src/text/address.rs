//! The ends of sockets as people write them.

use std::fmt;

use portolan_core::Escaped;
use portolan_host::{Family, Socket, SocketAddress, Space};

/// One end of a socket: `127.0.0.1:80`, `[::1]:80`, `[fe80::1%eth0]:546`, `vsock 3:1024`, a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndText<'a> {
    address: Option<&'a SocketAddress>,
    zone: Option<&'a str>,
    zone_index: u32,
}

impl<'a> EndText<'a> {
    pub(crate) fn local(socket: &'a Socket, space: &'a Space) -> Self {
        Self::of(Some(&socket.local), socket, space)
    }

    /// Empty for a socket without a peer.
    pub(crate) fn remote(socket: &'a Socket, space: &'a Space) -> Self {
        Self::of(socket.remote.as_ref(), socket, space)
    }

    fn of(address: Option<&'a SocketAddress>, socket: &Socket, space: &'a Space) -> Self {
        let zone_index = match address {
            Some(address) => zone_index(address, socket),
            None => 0,
        };
        Self {
            address,
            zone: space.device_name(zone_index),
            zone_index,
        }
    }
}

/// The interface that an address needs to be complete, 0 if it needs none: a link-local IPv6 address means
/// nothing without one (RFC 4007, section 6).
pub(crate) fn zone_index(address: &SocketAddress, socket: &Socket) -> u32 {
    match (address.ip(), socket.family) {
        (Some(std::net::IpAddr::V6(ip)), Family::Ipv6) => {
            let multicast_on_link = ip.is_multicast() && matches!(ip.segments()[0] & 0xf, 1 | 2);
            if ip.is_unicast_link_local() || multicast_on_link {
                socket.device
            } else {
                0
            }
        }
        (_, _) => 0,
    }
}

impl fmt::Display for EndText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => Ok(()),
            Some(SocketAddress::Inet { address, port }) => match address {
                std::net::IpAddr::V4(address) => write!(f, "{address}:{port}"),
                std::net::IpAddr::V6(address) => match (self.zone, self.zone_index) {
                    (Some(zone), _) => write!(f, "[{address}%{}]:{port}", Escaped::new(zone)),
                    (None, 0) => write!(f, "[{address}]:{port}"),
                    (None, index) => write!(f, "[{address}%{index}]:{port}"),
                },
            },
            Some(SocketAddress::Vsock { cid, port }) => {
                match *cid {
                    u32::MAX => f.write_str("*:")?,
                    cid => write!(f, "{cid}:")?,
                }
                match *port {
                    u32::MAX => f.write_str("*"),
                    port => write!(f, "{port}"),
                }
            }
            Some(SocketAddress::Unix { name }) => match name.split_first() {
                None => f.write_str("(unnamed)"),
                Some((0, rest)) => write!(f, "@{}", Escaped::new(rest)),
                Some(_) => Escaped::new(name).fmt(f),
            },
            // A kind of address that this program does not know yet.
            Some(other) => write!(f, "{}", Escaped::new(&format!("{other:?}"))),
        }
    }
}
