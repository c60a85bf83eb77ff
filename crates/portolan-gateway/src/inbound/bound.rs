//! Taking ports of the host, all of a list or none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use portolan_core::{Host, Mapping, Port, Protocol};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use super::batch;
use super::descriptors::{self, RESERVE};
use super::many;
use super::{Place, PublishError, Published, Refusal};

/// Published ports whose sockets are there and listen, though nobody serves them yet. Dropped, they are free again.
#[derive(Debug, Default)]
pub struct Bound {
    pub(super) sockets: Vec<BoundSocket>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct BoundSocket {
    pub(super) socket: OwnedFd,
    pub(super) published: Published,
}

/// Who holds a port of the host: asked once, when one is taken.
pub type HolderFinder<'a> = dyn Fn(Protocol, SocketAddr) -> Option<String> + 'a;

/// Clients that wait to be accepted; the kernel takes less if `net.core.somaxconn` is less.
const BACKLOG: i32 = 4096;
/// Ports that are tried where one is to be free for TCP and UDP.
const TRIES: usize = 64;

impl Bound {
    /// Takes the ports of all mappings, or none. Raises the limit of descriptors as far as it goes if they need it.
    ///
    /// A mapping without an address is one socket for both families: IPv4 clients are seen as such. Where there is no
    /// IPv6 it is for IPv4 alone. Cost: some 6 µs a port, nearly all of it the kernel's; of very many divided by the
    /// processors there are, in threads that have ended when this returns.
    ///
    /// # Errors
    /// The port that is not to be had, and why; `finder` says who holds one that is taken.
    pub fn bind(mappings: &[Mapping], finder: &HolderFinder<'_>) -> Result<Self, PublishError> {
        Self::bind_beside(mappings, &[], finder)
    }

    /// The same, where `present` is published already.
    pub(super) fn bind_beside(
        mappings: &[Mapping],
        present: &[Published],
        finder: &HolderFinder<'_>,
    ) -> Result<Self, PublishError> {
        let mut bound = Self::default();
        check_descriptors(mappings)?;
        for mapping in mappings {
            let target = target(mapping)?;
            if mapping.outer().len() >= many::MANY {
                bound.bind_many(mapping, target, present, finder)?;
                continue;
            }
            for (outer, inner) in mapping.pairs() {
                bound.bind_pair(mapping, outer, target, inner, present, finder)?;
            }
        }
        Ok(bound)
    }

    /// How many sockets a mapping takes.
    pub(crate) fn count(mapping: &Mapping) -> usize {
        places(mapping).count()
    }

    /// Says in advance if there are too few descriptors for a mapping.
    pub(crate) fn check_descriptors(mapping: &Mapping) -> Result<(), PublishError> {
        check_descriptors(std::slice::from_ref(mapping))
    }

    /// The sockets, in the order of the mappings.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().map(|socket| socket.socket.as_fd()).collect()
    }

    /// What is published, in the order of the mappings.
    pub fn published(&self) -> impl ExactSizeIterator<Item = Published> + '_ {
        self.sockets.iter().map(|socket| socket.published)
    }

    /// Takes one port, for each protocol of the mapping.
    fn bind_pair(
        &mut self,
        mapping: &Mapping,
        outer: Port,
        target: Option<IpAddr>,
        inner: Port,
        present: &[Published],
        finder: &HolderFinder<'_>,
    ) -> Result<(), PublishError> {
        let protocols = mapping.protocol().protocols();
        let is_chosen = outer == Port::ZERO;
        let mut tries = if is_chosen { TRIES } else { 1 };
        'tries: loop {
            tries -= 1;
            let mut port = outer;
            let first = self.sockets.len();
            for &protocol in protocols {
                let place = Place {
                    protocol,
                    address: mapping.address(),
                    interface: mapping.interface(),
                    port,
                };
                match bind(&place) {
                    Ok((socket, got)) => {
                        // The same number for both protocols.
                        port = got;
                        self.sockets.push(BoundSocket {
                            socket: socket.into(),
                            published: Published {
                                place: Place { port, ..place },
                                target,
                                inner,
                                is_chosen,
                                is_auto: false,
                            },
                        });
                    }
                    Err(Errno::ADDRINUSE) if is_chosen && tries > 0 => {
                        self.sockets.truncate(first);
                        continue 'tries;
                    }
                    Err(_) if is_chosen && tries == 0 => {
                        return Err(PublishError::Refused {
                            place,
                            refusal: Refusal::NoneFree,
                        });
                    }
                    Err(errno) => {
                        let own = self.published().chain(present.iter().copied());
                        let refusal = refusal(errno, &place, own, finder);
                        return Err(PublishError::Refused { place, refusal });
                    }
                }
            }
            return Ok(());
        }
    }
}

/// Says in advance if there are too few descriptors: to find out at the last port would be late.
fn check_descriptors(mappings: &[Mapping]) -> Result<(), PublishError> {
    let ports: u64 = mappings.iter().map(|mapping| Bound::count(mapping) as u64).sum();
    descriptors::raise_descriptor_limit();
    let (limit, open) = descriptors::limit_and_use();
    let needed = ports + open + RESERVE;
    match limit {
        Some(limit) if needed > limit => Err(PublishError::Descriptors { ports, needed, limit }),
        _ => Ok(()),
    }
}

/// The places that a mapping asks for.
pub(super) fn places(mapping: &Mapping) -> impl Iterator<Item = Place> + '_ {
    mapping.outer().iter().flat_map(move |port| {
        mapping.protocol().protocols().iter().map(move |protocol| Place {
            protocol: *protocol,
            address: mapping.address(),
            interface: mapping.interface(),
            port,
        })
    })
}

/// The address inside that a mapping names. Nobody outside reaches what a program bound to its own loopback.
pub(super) fn target(mapping: &Mapping) -> Result<Option<IpAddr>, PublishError> {
    let refused = |target: &Host| PublishError::Target {
        target: target.to_string(),
    };
    match mapping.target() {
        None | Some(Host::Any) => Ok(None),
        Some(host @ Host::Address(address)) => {
            let ip = address.ip().to_canonical();
            if ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() {
                return Err(refused(host));
            }
            Ok(Some(ip))
        }
        Some(host @ Host::Name(_)) => Err(refused(host)),
    }
}

/// Takes one port.
pub(super) fn bind_place(place: &Place, finder: &HolderFinder<'_>) -> Result<OwnedFd, PublishError> {
    let refused = |errno| PublishError::Refused {
        place: *place,
        refusal: refusal(errno, place, std::iter::empty(), finder),
    };
    bind(place).map(|(socket, _)| socket.into()).map_err(refused)
}

/// This process may have no more descriptors.
pub(super) const fn no_descriptor() -> Refusal {
    Refusal::Descriptors { errno: Errno::MFILE }
}

/// A socket for the place, and the port that it has.
pub(super) fn bind(place: &Place) -> Result<(Socket, Port), Errno> {
    match place.address {
        Some(address) => bind_to(place, address, true),
        None => match bind_to(place, Ipv6Addr::UNSPECIFIED.into(), false) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT) => {
                bind_to(place, Ipv4Addr::UNSPECIFIED.into(), false)
            }
            result => result,
        },
    }
}

fn bind_to(place: &Place, address: IpAddr, is_one_family: bool) -> Result<(Socket, Port), Errno> {
    let is_tcp = place.protocol == Protocol::Tcp;
    let kind = if is_tcp { Type::STREAM } else { Type::DGRAM };
    let domain = if address.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    let socket = Socket::new(domain, kind.nonblocking(), None).map_err(errno)?;
    if address.is_ipv6() {
        socket.set_only_v6(is_one_family).map_err(errno)?;
    }
    if is_tcp {
        // Connections of before that are in TIME-WAIT do not keep the port. Of UDP it would share the port instead.
        socket.set_reuse_address(true).map_err(errno)?;
    }
    let mut scope = 0;
    if let Some(interface) = place.interface {
        socket
            .bind_device(Some(interface.as_str().as_bytes()))
            .map_err(errno)?;
        scope = rustix::net::netdevice::name_to_index(&socket, interface.as_str())?;
    }
    let wanted = match place.socket_address(address) {
        SocketAddr::V6(wanted) => SocketAddrV6::new(*wanted.ip(), wanted.port(), 0, scope).into(),
        wanted @ SocketAddr::V4(_) => wanted,
    };
    if !is_tcp {
        // Before the first datagram can come. Of a given address the answers leave from it anyhow.
        if address.is_unspecified() {
            batch::tell_addresses(&socket, address.is_ipv4()).map_err(errno)?;
        }
        batch::join_datagrams(&socket);
    }
    rustix::net::bind(&socket, &wanted)?;
    if is_tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    let port = match place.port {
        Port::ZERO => {
            let local = socket.local_addr().map_err(errno)?;
            Port::new(local.as_socket().map_or(0, |local| local.port()))
        }
        port => port,
    };
    Ok((socket, port))
}

/// What a refusal means, for people.
pub(super) fn refusal(
    errno: Errno,
    place: &Place,
    mut own: impl Iterator<Item = Published>,
    finder: &HolderFinder<'_>,
) -> Refusal {
    // The right to a low port is asked before the port.
    if matches!(errno, Errno::ADDRINUSE | Errno::ACCESS)
        && let Some(published) = own.find(|published| published.place.clashes(place))
    {
        return Refusal::Twice {
            inner: published.inner,
        };
    }
    match errno {
        Errno::ADDRINUSE => Refusal::InUse {
            holder: holder(place, finder),
        },
        Errno::ACCESS if place.port != Port::ZERO => Refusal::LowPort {
            port: place.port,
            first: first_unprivileged(),
        },
        Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT => Refusal::NoAddress,
        Errno::NODEV | Errno::NXIO => Refusal::NoInterface,
        Errno::INVAL if place.interface.is_none() && is_link_local(place.address) => Refusal::NeedsInterface,
        Errno::MFILE | Errno::NFILE => Refusal::Descriptors { errno },
        errno => Refusal::System { errno },
    }
}

const fn is_link_local(address: Option<IpAddr>) -> bool {
    matches!(address, Some(IpAddr::V6(ip)) if ip.is_unicast_link_local())
}

fn holder(place: &Place, finder: &HolderFinder<'_>) -> Option<String> {
    let ask = |any: IpAddr| finder(place.protocol, place.socket_address(any));
    match place.address {
        Some(address) => ask(address),
        None => ask(Ipv6Addr::UNSPECIFIED.into()).or_else(|| ask(Ipv4Addr::UNSPECIFIED.into())),
    }
}

/// The first port that needs no privilege (ip-sysctl, `ip_unprivileged_port_start`).
fn first_unprivileged() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
