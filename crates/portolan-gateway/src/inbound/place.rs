//! Where on the host a published port is, and where it leads.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use portolan_core::{Port, Protocol, Zone};

/// A socket address of the host that is published, or is to be: `8080/tcp`, `127.0.0.1:8080/udp`, `*%eth0:8080/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address; `None` for every address of both families.
    pub address: Option<IpAddr>,
    /// The interface that it is confined to.
    pub interface: Option<Zone>,
    /// The port; 0 where any is wanted.
    pub port: Port,
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Published {
    /// Where it is.
    pub place: Place,
    /// The address inside that it leads to; `None` for the space's own, of the client's family.
    pub target: Option<IpAddr>,
    /// The port inside.
    pub inner: Port,
    /// It was not asked for by number: port 0 was.
    pub is_chosen: bool,
    /// Nobody asked for it: the program listens there, and whatever it listens on is published.
    pub is_auto: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.interface) {
            (None, None) => {}
            (None, Some(interface)) => write!(f, "*%{interface}:")?,
            (Some(IpAddr::V4(ip)), None) => write!(f, "{ip}:")?,
            (Some(IpAddr::V4(ip)), Some(interface)) => write!(f, "{ip}%{interface}:")?,
            (Some(IpAddr::V6(ip)), None) => write!(f, "[{ip}]:")?,
            (Some(IpAddr::V6(ip)), Some(interface)) => write!(f, "[{ip}%{interface}]:")?,
        }
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl Place {
    /// Whether both cannot be had at once: the same port where their addresses and interfaces meet.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        let addresses_meet = match (self.address, other.address) {
            (Some(one), Some(other)) => {
                one == other
                    || (one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified()))
            }
            (None, _) | (_, None) => true,
        };
        let interfaces_meet =
            self.interface.is_none() || other.interface.is_none() || self.interface == other.interface;
        self.protocol == other.protocol && self.port == other.port && addresses_meet && interfaces_meet
    }

    /// The same without the protocol's own type: the address of one family, unspecified for every address.
    pub(super) const fn socket_address(&self, any: IpAddr) -> SocketAddr {
        let ip = match self.address {
            Some(ip) => ip,
            None => any,
        };
        SocketAddr::new(ip, self.port.get())
    }
}
