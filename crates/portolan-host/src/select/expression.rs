use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Family, Socket, SocketAddress, SocketProtocol};

/// A condition on one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    Test(Test),
    Not(Box<Self>),
    /// Taken from left to right, `and` and `or` with the same rank. Kept flat, so that a long filter is a
    /// long loop and no deep recursion.
    Chain {
        first: Box<Self>,
        rest: Vec<(Operator, Self)>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    And,
    Or,
}

/// Which end of a socket is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Local,
    /// A socket without a peer counts as one towards port 0 of the unspecified address, as for ss.
    Remote,
    /// One of the two; a peer that does not exist counts for nothing.
    Either,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// Holds or fails for every socket.
    Constant(bool),
    Inet(InetTest),
    Unix {
        end: End,
        pattern: Vec<u8>,
    },
    Vsock {
        end: End,
        cid: Option<u32>,
        ports: Span,
    },
    Device(u32),
    Mark {
        value: u32,
        mask: u32,
    },
    Cgroup(u64),
    /// The local port lies in this range, from which the kernel chooses by itself.
    Autobound(Span),
    Protocol(SocketProtocol),
    /// The index of one of the selection's holders.
    Holder(usize),
}

/// An end with one of these addresses and one of these ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InetTest {
    pub(super) end: End,
    /// `None` for any address.
    pub(super) addresses: Option<Vec<IpNet>>,
    pub(super) ports: Span,
    /// Only sockets of this protocol: `53/udp`.
    pub(super) protocol: Option<SocketProtocol>,
}

/// Numbers from `first` to `last`; none if `first` is the higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Span {
    pub(super) const ALL: Self = Self {
        first: 0,
        last: u32::MAX,
    };
    pub(super) const NONE: Self = Self { first: 1, last: 0 };

    pub(super) const fn single(number: u32) -> Self {
        Self {
            first: number,
            last: number,
        }
    }

    const fn contains(self, number: u32) -> bool {
        self.first <= number && number <= self.last
    }
}

impl Expression {
    /// `parts` joined by one operator; `None` if there are none.
    pub(super) fn joined(operator: Operator, parts: Vec<Self>) -> Option<Self> {
        let mut parts = parts.into_iter();
        let first = parts.next()?;
        let rest = parts.map(|part| (operator, part)).collect::<Vec<_>>();
        Some(if rest.is_empty() {
            first
        } else {
            Self::Chain {
                first: Box::new(first),
                rest,
            }
        })
    }

    /// Whether the condition holds; `held_by` answers the tests of holders.
    pub(super) fn holds(&self, socket: &Socket, held_by: &impl Fn(usize) -> bool) -> bool {
        match self {
            Self::Test(test) => test.holds(socket, held_by),
            Self::Not(inner) => !inner.holds(socket, held_by),
            Self::Chain { first, rest } => {
                let mut so_far = first.holds(socket, held_by);
                for (operator, part) in rest {
                    so_far = match operator {
                        Operator::And => so_far && part.holds(socket, held_by),
                        Operator::Or => so_far || part.holds(socket, held_by),
                    };
                }
                so_far
            }
        }
    }

    /// Whether any test of the expression satisfies `predicate`.
    pub(super) fn any_test(&self, predicate: &mut impl FnMut(&Test) -> bool) -> bool {
        match self {
            Self::Test(test) => predicate(test),
            Self::Not(inner) => inner.any_test(predicate),
            Self::Chain { first, rest } => {
                first.any_test(predicate) || rest.iter().any(|(_, part)| part.any_test(predicate))
            }
        }
    }
}

impl Test {
    fn holds(&self, socket: &Socket, held_by: &impl Fn(usize) -> bool) -> bool {
        match self {
            Self::Constant(value) => *value,
            Self::Inet(test) => test.holds(socket),
            Self::Unix { end, pattern } => at_end(*end, socket, |address| match address {
                Some(SocketAddress::Unix { name }) => fits_unix(pattern, name),
                Some(_) => false,
                None => socket.family == Family::Unix && fits_unix(pattern, b""),
            }),
            Self::Vsock { end, cid, ports } => at_end(*end, socket, |address| match address {
                Some(SocketAddress::Vsock { cid: is, port }) => {
                    cid.is_none_or(|wanted| wanted == *is) && ports.contains(*port)
                }
                Some(_) | None => false,
            }),
            Self::Device(index) => socket.device == *index,
            Self::Mark { value, mask } => socket.mark.is_some_and(|mark| mark & mask == *value),
            Self::Cgroup(id) => socket.cgroup == Some(*id),
            Self::Autobound(range) => socket
                .local
                .port()
                .is_some_and(|port| range.contains(u32::from(port.get()))),
            Self::Protocol(protocol) => socket.protocol == *protocol,
            Self::Holder(index) => held_by(*index),
        }
    }
}

impl InetTest {
    fn holds(&self, socket: &Socket) -> bool {
        if self.protocol.is_some_and(|protocol| protocol != socket.protocol) {
            return false;
        }
        at_end(self.end, socket, |address| match address {
            Some(SocketAddress::Inet { address, port }) => {
                self.ports.contains(u32::from(port.get())) && self.takes(*address)
            }
            Some(SocketAddress::Unix { .. } | SocketAddress::Vsock { .. }) => false,
            None => {
                let unspecified = match socket.family {
                    Family::Ipv4 => IpAddr::from([0; 4]),
                    Family::Ipv6 => IpAddr::from([0u16; 8]),
                    Family::Vsock | Family::Unix => return false,
                };
                self.ports.contains(0) && self.takes(unspecified)
            }
        })
    }

    fn takes(&self, address: IpAddr) -> bool {
        self.addresses
            .as_ref()
            .is_none_or(|nets| nets.iter().any(|net| contains(net, address)))
    }
}

/// An IPv4 prefix takes IPv4-mapped addresses too; an IPv6 prefix takes no IPv4 address. So does the
/// kernel (net/ipv4/inet_diag.c, `inet_diag_bc_run`).
fn contains(net: &IpNet, address: IpAddr) -> bool {
    match (net, address) {
        (IpNet::V4(net), IpAddr::V4(address)) => net.contains(&address),
        (IpNet::V4(net), IpAddr::V6(address)) => address
            .to_ipv4_mapped()
            .is_some_and(|mapped| net.contains(&mapped)),
        (IpNet::V6(net), IpAddr::V6(address)) => net.contains(&address),
        (IpNet::V6(_), IpAddr::V4(_)) => false,
    }
}

/// Abstract names are written with an @ for the zero byte they begin with.
fn fits_unix(pattern: &[u8], name: &[u8]) -> bool {
    match name.split_first() {
        Some((0, rest)) => match pattern.split_first() {
            Some((b'@', pattern)) => super::glob::fits(pattern, rest, true),
            Some((b'*', _)) => super::glob::fits(pattern, rest, true),
            Some(_) | None => false,
        },
        Some(_) | None => super::glob::fits(pattern, name, true),
    }
}

fn at_end(end: End, socket: &Socket, holds: impl Fn(Option<&SocketAddress>) -> bool) -> bool {
    match end {
        End::Local => holds(Some(&socket.local)),
        End::Remote => holds(socket.remote.as_ref()),
        End::Either => {
            holds(Some(&socket.local)) || (socket.remote.is_some() && holds(socket.remote.as_ref()))
        }
    }
}
