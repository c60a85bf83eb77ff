use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::path::Path;

use portolan_core::{Address, Port, PortRange, PortSet, Protocol};
use rand::seq::SliceRandom as _;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt};
use thiserror::Error;

use crate::own_ephemeral_ports;

/// Which free ports are wanted.
#[derive(Clone, Debug)]
pub struct PickRequest {
    /// How many.
    pub count: usize,
    /// Where to look; `None` is what the kernel chooses from itself: the ephemeral range without the
    /// reserved ports (`net.ipv4.ip_local_port_range`, `ip_local_reserved_ports`).
    pub range: Option<PortSet>,
    /// TCP, UDP or both; a port counts as free only if it is with each of them.
    pub protocols: Vec<Protocol>,
    /// The address to be free on; `None` is every address of both families.
    pub address: Option<Address>,
    /// Whether to keep the ports bound. Each then takes a descriptor for each protocol.
    pub hold: bool,
}

/// A free port, and the sockets that hold it for as long as they are open.
#[derive(Debug)]
pub struct PickedPort {
    /// The port.
    pub port: Port,
    /// A bound socket for each protocol of the request, in its order, or none if they are not to be
    /// held. TCP's do not listen yet.
    pub sockets: Vec<OwnedFd>,
}

/// Why there are no ports to be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PickError {
    /// Too few ports of the range are free.
    #[error("{found} of {wanted} free ports found among {tried}; widen the range or free some")]
    TooFew {
        /// How many were asked for.
        wanted: usize,
        /// How many are free.
        found: usize,
        /// How many were tried, or the size of the range.
        tried: usize,
    },
    /// Too few are free, and there might be enough if privileged ports could be tried.
    #[error(
        "{found} of {wanted} free ports found; {refused} could not be tried: ports below {first_unprivileged} need \
         CAP_NET_BIND_SERVICE; choose from {first_unprivileged} up"
    )]
    NotPermitted {
        /// How many were asked for.
        wanted: usize,
        /// How many are free.
        found: usize,
        /// How many the kernel refused to this user.
        refused: usize,
        /// The first port that needs no privilege (`net.ipv4.ip_unprivileged_port_start`).
        first_unprivileged: u16,
    },
    /// The zone of the address names no interface.
    #[error("no interface {zone} is here: {source}; ip link shows them")]
    Interface {
        /// The zone as it was written.
        zone: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address is not one of this host, or its family is not available.
    #[error("cannot bind on {address}: {source}; ip address shows this host's addresses")]
    Address {
        /// The address.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
    /// A protocol that ports cannot be picked for.
    #[error("cannot pick ports of {0}; tcp and udp are possible")]
    Protocol(Protocol),
    /// The kernel refused for a reason that no other port changes.
    #[error("cannot make or bind a socket: {0}")]
    Socket(#[source] io::Error),
}

/// Finds free ports by binding them, in random order.
///
/// "Free" is strict: no other socket, of whatever address, state and options, is in the way of a bind
/// without SO_REUSEADDR, so a port with connections in TIME-WAIT is not free. Without an address both
/// families are taken by one dual-stack socket, or by an IPv4 one where there is no IPv6. Port 0 is never
/// picked. The ports are distinct.
///
/// # Errors
/// [`PickError::TooFew`] and [`PickError::NotPermitted`] when ports run out; the others before or at the
/// first that is tried.
pub fn pick_ports(request: &PickRequest) -> Result<Vec<PickedPort>, PickError> {
    let range = match &request.range {
        Some(range) => range.clone(),
        None => automatic_ports(Path::new("/proc")),
    };
    let mut candidates: Vec<Port> = range.iter().filter(|port| port.non_zero().is_some()).collect();
    let place = Place::of(request.address)?;
    candidates.shuffle(&mut rand::rng());

    let mut picked = Vec::new();
    let mut refused = 0;
    for &port in &candidates {
        if picked.len() == request.count {
            break;
        }
        match hold(&place, port, &request.protocols)? {
            Held::Yes(mut sockets) => {
                if !request.hold {
                    sockets.clear();
                }
                picked.push(PickedPort { port, sockets });
            }
            Held::InUse => {}
            Held::NotPermitted => refused += 1,
        }
    }
    let (wanted, found) = (request.count, picked.len());
    if found == wanted {
        Ok(picked)
    } else if refused > 0 {
        Err(PickError::NotPermitted {
            wanted,
            found,
            refused,
            first_unprivileged: first_unprivileged(Path::new("/proc")),
        })
    } else {
        Err(PickError::TooFew {
            wanted,
            found,
            tried: candidates.len(),
        })
    }
}

/// Lets a TCP socket of [`PickedPort::sockets`] listen, with as long a backlog as the system gives.
///
/// # Errors
/// What listen(2) says.
pub fn start_listening(socket: &OwnedFd) -> io::Result<()> {
    // The kernel lowers it to net.core.somaxconn.
    const BACKLOG_MAX: i32 = 65_535;
    Ok(listen(socket, BACKLOG_MAX)?)
}

/// The ports that the kernel itself chooses from.
fn automatic_ports(proc_root: &Path) -> PortSet {
    // The kernel's own default where /proc does not tell (net/ipv4/af_inet.c, inet_init_net).
    const DEFAULT: (u16, u16) = (32_768, 60_999);
    let range = own_ephemeral_ports().or_else(|| PortRange::new(Port::new(DEFAULT.0), Port::new(DEFAULT.1)));
    let reserved = fs::read_to_string(proc_root.join("sys/net/ipv4/ip_local_reserved_ports"))
        .ok()
        .and_then(|text| text.trim_end().parse::<PortSet>().ok())
        .unwrap_or_default();
    let range: PortSet = range.into_iter().collect();
    range.difference(&reserved)
}

fn first_unprivileged(proc_root: &Path) -> u16 {
    // The value of a kernel that was never told another.
    const DEFAULT: u16 = 1024;
    fs::read_to_string(proc_root.join("sys/net/ipv4/ip_unprivileged_port_start"))
        .ok()
        .and_then(|text| text.trim_end().parse().ok())
        .unwrap_or(DEFAULT)
}

/// Where to bind.
enum Place {
    /// One dual-stack socket for both families.
    BothFamilies,
    /// This kernel or this namespace has no IPv6.
    EveryIpv4,
    One {
        address: Address,
        scope_id: u32,
    },
}

impl Place {
    fn of(address: Option<Address>) -> Result<Self, PickError> {
        let Some(address) = address else {
            return Ok(if has_ipv6() {
                Self::BothFamilies
            } else {
                Self::EveryIpv4
            });
        };
        let scope_id = match address.zone() {
            None => 0,
            Some(zone) => match zone.index() {
                Some(index) => index,
                None => interface_index(zone.as_str()).map_err(|errno| PickError::Interface {
                    zone: zone.to_string(),
                    source: errno.into(),
                })?,
            },
        };
        Ok(Self::One { address, scope_id })
    }

    fn family(&self) -> AddressFamily {
        match self {
            Self::EveryIpv4 => AddressFamily::INET,
            Self::BothFamilies => AddressFamily::INET6,
            Self::One { address, .. } => match address.ip() {
                IpAddr::V4(_) => AddressFamily::INET,
                IpAddr::V6(_) => AddressFamily::INET6,
            },
        }
    }

    fn with_port(&self, port: Port) -> SocketAddr {
        let port = port.get();
        match self {
            Self::EveryIpv4 => (Ipv4Addr::UNSPECIFIED, port).into(),
            Self::BothFamilies => (Ipv6Addr::UNSPECIFIED, port).into(),
            Self::One { address, scope_id } => match address.ip() {
                IpAddr::V4(ip) => (ip, port).into(),
                IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, *scope_id).into(),
            },
        }
    }
}

/// Whether an IPv6 socket can be bound at all: the family may be missing, or switched off by
/// `ipv6.disable=1`, which lets sockets be made but never bound.
fn has_ipv6() -> bool {
    let bound = || {
        let socket = socket_with(
            AddressFamily::INET6,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)))
    };
    bound().is_ok()
}

fn interface_index(name: &str) -> Result<u32, Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::netdevice::name_to_index(&socket, name)
}

enum Held {
    Yes(Vec<OwnedFd>),
    InUse,
    NotPermitted,
}

fn hold(place: &Place, port: Port, protocols: &[Protocol]) -> Result<Held, PickError> {
    let mut sockets = Vec::with_capacity(protocols.len());
    for &protocol in protocols {
        match bound_socket(place, port, protocol)? {
            Ok(socket) => sockets.push(socket),
            Err(Errno::ADDRINUSE) => return Ok(Held::InUse),
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Held::NotPermitted),
            Err(errno) => {
                return Err(match place {
                    Place::One { address, .. } => PickError::Address {
                        address: *address,
                        source: errno.into(),
                    },
                    Place::BothFamilies | Place::EveryIpv4 => PickError::Socket(errno.into()),
                });
            }
        }
    }
    Ok(Held::Yes(sockets))
}

/// The outer error is for what no other port changes, the inner one is what bind(2) said.
fn bound_socket(place: &Place, port: Port, protocol: Protocol) -> Result<Result<OwnedFd, Errno>, PickError> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        other => return Err(PickError::Protocol(other)),
    };
    let socket = socket_with(place.family(), kind, SocketFlags::CLOEXEC, Some(number))
        .map_err(|errno| PickError::Socket(errno.into()))?;
    if place.family() == AddressFamily::INET6 {
        // Whatever net.ipv6.bindv6only says: with no address given, IPv4 is held too.
        let only_ipv6 = matches!(place, Place::One { .. });
        sockopt::set_ipv6_v6only(&socket, only_ipv6).map_err(|errno| PickError::Socket(errno.into()))?;
    }
    Ok(bind(&socket, &place.with_port(port)).map(|()| socket))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn request(count: usize) -> PickRequest {
        PickRequest {
            count,
            range: None,
            protocols: vec![Protocol::Tcp],
            address: None,
            hold: true,
        }
    }

    fn numbers(picked: &[PickedPort]) -> BTreeSet<u16> {
        picked.iter().map(|picked| picked.port.get()).collect()
    }

    #[test]
    fn picked_ports_are_distinct_and_held_on_both_families() {
        let picked = pick_ports(&request(20)).unwrap();
        let ports = numbers(&picked);
        assert_eq!(ports.len(), 20);
        for &port in &ports {
            let error = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            if has_ipv6() {
                assert!(TcpListener::bind((Ipv6Addr::LOCALHOST, port)).is_err());
            }
        }
        let range = automatic_ports(Path::new("/proc"));
        assert!(ports.iter().all(|&port| range.contains(Port::new(port))));
    }

    #[test]
    fn a_port_taken_on_one_address_or_by_one_protocol_is_not_free() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = Port::new(taken.local_addr().unwrap().port());
        let wanted = |protocols: &[Protocol]| PickRequest {
            range: Some(port.into()),
            protocols: protocols.to_vec(),
            ..request(1)
        };
        for protocols in [&[Protocol::Udp][..], &[Protocol::Tcp, Protocol::Udp]] {
            let error = pick_ports(&wanted(protocols)).unwrap_err();
            assert!(
                matches!(
                    error,
                    PickError::TooFew {
                        wanted: 1,
                        found: 0,
                        tried: 1
                    }
                ),
                "{error}"
            );
        }
        let elsewhere = PickRequest {
            address: Some("127.0.0.2".parse().unwrap()),
            ..wanted(&[Protocol::Udp])
        };
        assert_eq!(
            numbers(&pick_ports(&elsewhere).unwrap()),
            BTreeSet::from([port.get()])
        );
    }

    #[test]
    fn port_zero_and_other_protocols_are_never_picked() {
        let zero = PickRequest {
            range: Some(Port::ZERO.into()),
            ..request(1)
        };
        assert!(matches!(
            pick_ports(&zero),
            Err(PickError::TooFew { tried: 0, .. })
        ));
        let sctp = PickRequest {
            protocols: vec![Protocol::Sctp],
            ..request(1)
        };
        assert!(matches!(
            pick_ports(&sctp),
            Err(PickError::Protocol(Protocol::Sctp))
        ));
    }

    #[test]
    fn an_address_or_interface_of_others_is_told() {
        let on = |address: &str| PickRequest {
            address: Some(address.parse().unwrap()),
            ..request(1)
        };
        // 192.0.2.0/24 is for documents (RFC 5737).
        assert!(matches!(
            pick_ports(&on("192.0.2.1")),
            Err(PickError::Address { .. })
        ));
        let error = pick_ports(&on("fe80::1%no-such-device")).unwrap_err();
        assert!(matches!(error, PickError::Interface { .. }), "{error}");
    }

    #[test]
    fn reserved_ports_are_left_out_of_the_automatic_ones() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("sys/net/ipv4");
        fs::create_dir_all(&dir).unwrap();
        let all = automatic_ports(root.path());
        let first = all.iter().next().unwrap();
        fs::write(dir.join("ip_local_reserved_ports"), format!("{first},1-9\n")).unwrap();
        let some = automatic_ports(root.path());
        assert_eq!(all.difference(&some), first.into());
    }
}
