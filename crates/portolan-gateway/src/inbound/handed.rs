//! Sockets that another process has taken for a mapping: one that may take low ports, where this one may not any more.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use portolan_core::{Mapping, Protocol};
use rustix::net::{AddressFamily, SocketType, sockopt};
use socket2::{SockRef, Socket, Type};

use super::bound::{self, BoundSocket};
use super::{Bound, Place, PublishError, Published, sys};

impl Bound {
    /// What these sockets publish, which were taken for the mapping in the order of its ports. They do not wait from now
    /// on.
    ///
    /// # Errors
    /// [`PublishError::WrongSocket`], [`PublishError::Target`].
    pub(super) fn of_handed(mapping: &Mapping, sockets: Vec<OwnedFd>) -> Result<Self, PublishError> {
        let target = bound::target(mapping)?;
        let offsets = mapping.pairs().flat_map(|(_, inner)| {
            // One for each protocol.
            mapping.protocol().protocols().iter().map(move |_| inner)
        });
        let network = network_here();
        let mut bound = Self::default();
        for ((place, inner), socket) in bound::places(mapping).zip(offsets).zip(sockets) {
            check(&place, &socket, network).map_err(|fault| PublishError::WrongSocket { place, fault })?;
            bound.sockets.push(BoundSocket {
                socket,
                published: Published {
                    place,
                    target,
                    inner,
                    is_chosen: false,
                    is_auto: false,
                },
            });
        }
        Ok(bound)
    }
}

/// The network namespace of this process, where the kernel tells (from Linux 5.14 on).
fn network_here() -> Option<u64> {
    let socket = Socket::new(socket2::Domain::IPV4, Type::DGRAM, None).ok()?;
    sys::network_cookie(&socket).ok()
}

/// Says what is wrong with a socket for this place, and has it not wait.
fn check(place: &Place, socket: &OwnedFd, network: Option<u64>) -> Result<(), &'static str> {
    const KIND: &str = "is of another kind";
    let kind = match place.protocol {
        Protocol::Tcp => SocketType::STREAM,
        _ => SocketType::DGRAM,
    };
    let family = sockopt::socket_domain(socket).map_err(|_| KIND)?;
    if sockopt::socket_type(socket) != Ok(kind)
        || ![AddressFamily::INET, AddressFamily::INET6].contains(&family)
    {
        return Err(KIND);
    }
    if kind == SocketType::STREAM && sockopt::socket_acceptconn(socket) != Ok(true) {
        return Err("does not listen");
    }
    if network.is_some() && sys::network_cookie(socket).ok() != network {
        return Err("is of another network namespace");
    }
    let socket = SockRef::from(socket);
    let local = socket.local_addr().ok().and_then(|local| local.as_socket());
    let is_there = local.is_some_and(|local| {
        local.port() == place.port.get()
            && match place.address {
                Some(address) => local.ip() == address,
                // Of both families, or of the one that there is.
                None => {
                    local.ip() == Ipv4Addr::UNSPECIFIED
                        || (local.ip() == Ipv6Addr::UNSPECIFIED && socket.only_v6().is_ok_and(|only| !only))
                }
            }
    });
    if !is_there {
        return Err("is bound to another place");
    }
    let device = socket.device().map_err(|_| KIND)?;
    if device.as_deref() != place.interface.as_ref().map(|zone| zone.as_str().as_bytes()) {
        return Err("is bound to another interface");
    }
    socket.set_nonblocking(true).map_err(|_| KIND)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_socket_is_what_the_mapping_says_or_refused() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        let every = TcpListener::bind("0.0.0.0:0").unwrap();
        let every_port = every.local_addr().unwrap().port();
        let deaf = Socket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp_port = udp.local_addr().unwrap().port();
        let (pipe, _other) = std::io::pipe().unwrap();
        let copy = |socket: &dyn std::os::fd::AsFd| socket.as_fd().try_clone_to_owned().unwrap();
        for (mapping, socket, fault) in [
            (format!("127.0.0.1:{port}:80"), copy(&tcp), None),
            (format!("127.0.0.1:{udp_port}:53/udp"), copy(&udp), None),
            (format!("{every_port}:80"), copy(&every), None),
            (
                format!("127.0.0.1:{port}:80/udp"),
                copy(&tcp),
                Some("another kind"),
            ),
            (
                format!("127.0.0.1:{udp_port}:53"),
                copy(&udp),
                Some("another kind"),
            ),
            (format!("127.0.0.1:{port}:80"), copy(&pipe), Some("another kind")),
            (
                format!("127.0.0.1:{port}:80"),
                copy(&deaf),
                Some("does not listen"),
            ),
            (format!("127.0.0.2:{port}:80"), copy(&tcp), Some("another place")),
            (format!("{port}:80"), copy(&tcp), Some("another place")),
            (
                format!("127.0.0.1:{every_port}:80"),
                copy(&every),
                Some("another place"),
            ),
            ("127.0.0.1:79:80".to_owned(), copy(&tcp), Some("another place")),
            (
                format!("127.0.0.1%lo:{port}:80"),
                copy(&tcp),
                Some("another interface"),
            ),
        ] {
            let said = Bound::of_handed(&mapping.parse().unwrap(), vec![socket]);
            match (said, fault) {
                (Ok(bound), None) => assert_eq!(bound.sockets.len(), 1, "{mapping}"),
                (Err(PublishError::WrongSocket { fault: said, .. }), Some(fault)) => {
                    assert!(said.ends_with(fault) || said == fault, "{mapping}: {said}");
                }
                (said, fault) => panic!("{mapping}: {said:?} where {fault:?}"),
            }
        }
        // Who has it does not wait for it any more.
        assert_eq!(tcp.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
}
