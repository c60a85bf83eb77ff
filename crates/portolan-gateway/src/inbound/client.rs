//! As whom a client appears inside.

use std::net::{IpAddr, SocketAddr};

/// The addresses of both sides.
#[derive(Clone, Debug)]
pub(super) struct Faces {
    gateway: Vec<IpAddr>,
    inside: Vec<IpAddr>,
}

/// From where and to where a connection inside goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The source: the client's own address and port, or the gateway's address and port 0.
    pub(super) source: SocketAddr,
    /// The destination inside.
    pub(super) destination: SocketAddr,
}

impl Faces {
    pub(super) const fn new(gateway: Vec<IpAddr>, inside: Vec<IpAddr>) -> Self {
        Self { gateway, inside }
    }

    /// The way of a client to a port inside; `None` if the space has no address of its family, and none is named, and the
    /// client is not on the host's loopback, where each family stands for the other.
    ///
    /// The client appears as itself, unless its address would mean somebody else inside: loopback, the space itself or
    /// the gateway, a link that the space is not on, or nobody. Then it appears as the gateway.
    pub(super) fn way(&self, client: SocketAddr, target: Option<IpAddr>, port: u16) -> Option<Way> {
        let destination = match target {
            Some(target) => target,
            None => match of_family(&self.inside, client.ip()) {
                Some(inside) => inside,
                None if client.ip().is_loopback() => *self.inside.first()?,
                None => return None,
            },
        };
        let destination = SocketAddr::new(destination, port);
        let keeps_face = client.is_ipv4() == destination.is_ipv4() && self.may_appear(client.ip());
        let source = if keeps_face {
            client
        } else {
            SocketAddr::new(of_family(&self.gateway, destination.ip())?, 0)
        };
        Some(Way { source, destination })
    }

    /// The way of a client on this host's loopback to the address of the other family: a program that listens on one
    /// family only is there for `localhost`, whichever that is.
    pub(super) fn other_way(&self, way: &Way) -> Option<Way> {
        if !self.inside.contains(&way.destination.ip()) {
            // It was named.
            return None;
        }
        let is_other = |ip: &&IpAddr| ip.is_ipv4() != way.destination.is_ipv4();
        let inside = self.inside.iter().find(is_other)?;
        let gateway = self.gateway.iter().find(is_other)?;
        Some(Way {
            source: SocketAddr::new(*gateway, 0),
            destination: SocketAddr::new(*inside, way.destination.port()),
        })
    }

    fn may_appear(&self, client: IpAddr) -> bool {
        let is_elsewhere = match client {
            IpAddr::V4(ip) => !ip.is_broadcast() && ip.octets()[0] != 0,
            // The same address means another host on each link.
            IpAddr::V6(ip) => !ip.is_unicast_link_local() && ip.to_ipv4_mapped().is_none(),
        };
        is_elsewhere
            && !client.is_loopback()
            && !client.is_unspecified()
            && !client.is_multicast()
            && !self.inside.contains(&client)
            && !self.gateway.contains(&client)
    }
}

/// The first address of the same family.
fn of_family(addresses: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    addresses
        .iter()
        .copied()
        .find(|ip| ip.is_ipv4() == like.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faces() -> Faces {
        let list = |texts: [&str; 2]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Faces::new(list(["10.0.0.1", "fd00::1"]), list(["10.0.0.2", "fd00::2"]))
    }

    #[test]
    fn clients_appear_as_themselves_where_that_means_them() {
        for (client, source, destination) in [
            ("192.0.2.7:4000", "192.0.2.7:4000", "10.0.0.2:80"),
            ("[2001:db8::7]:4000", "[2001:db8::7]:4000", "[fd00::2]:80"),
            ("127.0.0.1:4000", "10.0.0.1:0", "10.0.0.2:80"),
            ("127.8.9.1:4000", "10.0.0.1:0", "10.0.0.2:80"),
            ("[::1]:4000", "[fd00::1]:0", "[fd00::2]:80"),
            ("10.0.0.2:4000", "10.0.0.1:0", "10.0.0.2:80"),
            ("10.0.0.1:4000", "10.0.0.1:0", "10.0.0.2:80"),
            ("[fd00::2]:4000", "[fd00::1]:0", "[fd00::2]:80"),
            ("0.0.0.0:4000", "10.0.0.1:0", "10.0.0.2:80"),
            ("[fe80::7]:4000", "[fd00::1]:0", "[fd00::2]:80"),
        ] {
            let way = Way {
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
            };
            assert_eq!(
                faces().way(client.parse().unwrap(), None, 80),
                Some(way),
                "{client}"
            );
        }
    }

    #[test]
    fn a_family_that_the_space_lacks_leads_nowhere_unless_an_address_is_named() {
        let mut faces = faces();
        faces.inside.truncate(1);
        faces.gateway.truncate(1);
        let client = "[2001:db8::7]:4000".parse().unwrap();
        assert_eq!(faces.way(client, None, 80), None);
        let loopback = faces.way("[::1]:4000".parse().unwrap(), None, 80).unwrap();
        assert_eq!(loopback.destination, "10.0.0.2:80".parse().unwrap());
        let way = faces.way(client, Some([10, 0, 0, 2].into()), 80).unwrap();
        assert_eq!(way.source, "10.0.0.1:0".parse().unwrap());
    }
}
