//! Whose each socket is: what the sockets say of themselves, joined with what the processes hold.
//!
//! ```text
//!   sockets ──┐
//!             ├─▶ attribute() ─▶ one Ownership per socket
//!   holdings ─┘        │
//!                      └─▶ unresolved(): inodes nobody was seen to hold; look again, then attribute()
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_core::Port;
use smallvec::SmallVec;

use crate::{
    Family, Holding, InodeSet, ListenerRef, Owner, Ownerless, OwnerlessReason, Ownership, Socket,
    SocketProtocol, SpaceId, State,
};

/// How far the view over processes reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Every process of our PID namespace was read.
    pub(crate) complete: bool,
    /// Our PID namespace is the initial one, so that no process lives outside it.
    pub(crate) initial_pid_namespace: bool,
}

/// The inodes of `sockets` that no holding leads to.
pub(crate) fn unresolved(sockets: &[Socket], holdings: &[Holding]) -> InodeSet {
    let held: InodeSet = holdings.iter().map(|holding| holding.inode).collect();
    sockets
        .iter()
        .map(|socket| socket.inode)
        .filter(|inode| *inode != 0 && !held.contains(inode))
        .collect()
}

/// Gives each socket its owners, or the reason why it has none.
///
/// `listeners` are where a connection that was not accepted may wait; they need not be among `sockets`.
/// `gone` are the inodes that a second look at the sockets no longer showed.
pub(crate) fn attribute(
    sockets: &[Socket],
    listeners: &[Socket],
    holdings: &mut [Holding],
    gone: &InodeSet,
    view: View,
) -> Vec<Ownership> {
    holdings.sort_unstable_by_key(|holding| (holding.inode, holding.pid, holding.fd));
    let index = HoldingIndex::new(holdings);
    let mut queues = None;
    sockets
        .iter()
        .map(|socket| {
            let held = index.of(socket.inode);
            if !held.is_empty() {
                return Ownership::Held(owners(held));
            }
            let nobody = |reason| {
                Ownership::Nobody(Ownerless {
                    reason,
                    listener: None,
                })
            };
            if socket.inode != 0 {
                return nobody(reason_of_held_elsewhere(socket, gone, view));
            }
            match reason_without_inode(socket.protocol, socket.state) {
                Some(reason) => nobody(reason),
                None => {
                    let queues = queues.get_or_insert_with(|| AcceptQueues::new(listeners));
                    match queues.listener(socket) {
                        Some((listener, candidates)) => Ownership::Nobody(Ownerless {
                            reason: OwnerlessReason::AcceptQueue,
                            listener: Some(ListenerRef {
                                port: listener.local.port().unwrap_or_default(),
                                inode: (candidates == 1).then_some(listener.inode),
                                pid: index
                                    .of(listener.inode)
                                    .first()
                                    .filter(|_| candidates == 1)
                                    .map(|holding| holding.pid),
                                candidates,
                            }),
                        }),
                        None if matches!(socket.state, State::Established | State::CloseWait) => {
                            nobody(OwnerlessReason::Vanished)
                        }
                        None => nobody(OwnerlessReason::Kernel),
                    }
                }
            }
        })
        .collect()
}

/// Why a socket with an inode is held by no process that we saw.
fn reason_of_held_elsewhere(socket: &Socket, gone: &InodeSet, view: View) -> OwnerlessReason {
    if gone.contains(&socket.inode) {
        OwnerlessReason::Vanished
    } else if !view.complete {
        OwnerlessReason::OtherUser
    } else if !view.initial_pid_namespace {
        OwnerlessReason::OtherPidNamespace
    } else {
        OwnerlessReason::Kernel
    }
}

/// Why a socket in this state has no inode; `None` if it may be waiting to be accepted.
fn reason_without_inode(protocol: SocketProtocol, state: State) -> Option<OwnerlessReason> {
    match state {
        State::TimeWait => Some(OwnerlessReason::TimeWait),
        State::SynReceived => Some(OwnerlessReason::SynReceived),
        State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => Some(OwnerlessReason::Orphan),
        State::Established | State::CloseWait | State::Closed => match protocol {
            SocketProtocol::Tcp | SocketProtocol::Mptcp | SocketProtocol::Sctp | SocketProtocol::Unix => None,
            SocketProtocol::Udp | SocketProtocol::UdpLite | SocketProtocol::Raw | SocketProtocol::Vsock => {
                Some(OwnerlessReason::Kernel)
            }
        },
        State::Listen | State::SynSent | State::Unconnected => Some(OwnerlessReason::Kernel),
    }
}

/// The holders of one socket; `held` is sorted by process and descriptor.
fn owners(held: &[Holding]) -> SmallVec<[Owner; 1]> {
    held.chunk_by(|a, b| a.pid == b.pid)
        .map(|of_process| Owner {
            pid: of_process[0].pid,
            fds: of_process.iter().map(|holding| holding.fd).collect(),
        })
        .collect()
}

/// Finds the holdings of an inode in a slice sorted by inode.
struct HoldingIndex<'a> {
    holdings: &'a [Holding],
    first: HashMap<u64, u32, foldhash::fast::RandomState>,
}

impl<'a> HoldingIndex<'a> {
    fn new(holdings: &'a [Holding]) -> Self {
        let mut first = HashMap::with_capacity_and_hasher(holdings.len(), Default::default());
        for (place, holding) in holdings.iter().enumerate().rev() {
            first.insert(holding.inode, place as u32);
        }
        Self { holdings, first }
    }

    fn of(&self, inode: u64) -> &'a [Holding] {
        let Some(&first) = self.first.get(&inode) else {
            return &[];
        };
        let rest = &self.holdings[first as usize..];
        let len = rest.iter().take_while(|holding| holding.inode == inode).count();
        &rest[..len]
    }
}

/// The listeners by namespace and port, to find the one whose accept queue a connection waits in.
struct AcceptQueues<'a>(HashMap<(SpaceId, SocketProtocol, Port), Vec<&'a Socket>>);

impl<'a> AcceptQueues<'a> {
    fn new(listeners: &'a [Socket]) -> Self {
        let mut queues: HashMap<_, Vec<_>> = HashMap::new();
        for listener in listeners.iter().filter(|socket| socket.state == State::Listen) {
            if let Some(port) = listener.local.port() {
                queues
                    .entry((listener.space, listener.protocol, port))
                    .or_default()
                    .push(listener);
            }
        }
        Self(queues)
    }

    /// The listener that Linux would have given the connection to (compute_score in
    /// net/ipv4/inet_hashtables.c): one of its address before one of every address.
    ///
    /// Of a SO_REUSEPORT group any member may be the one: those with somebody waiting, if there are such. The count
    /// says how many it may be.
    fn listener(&self, connection: &Socket) -> Option<(&'a Socket, usize)> {
        let port = connection.local.port()?;
        let address = connection.local.ip()?;
        let listeners = self.0.get(&(connection.space, connection.protocol, port))?;
        let rank = |listener: &Socket| {
            let waits = listener.queues.receive > 0;
            Some((fit(listener, address)?, waits, listener.family == Family::Ipv4))
        };
        let best = listeners.iter().filter_map(|listener| rank(listener)).max()?;
        let mut equal = listeners.iter().filter(|listener| rank(listener) == Some(best));
        let first = equal.next()?;
        Some((first, 1 + equal.count()))
    }
}

/// How well a listener fits a connection to `address`: 2 for its very address, 1 for a wildcard, or not.
fn fit(listener: &Socket, address: IpAddr) -> Option<u8> {
    let canonical = address.to_canonical();
    match listener.local.ip()? {
        held if held.to_canonical() == canonical => Some(2),
        IpAddr::V4(held) => (held == Ipv4Addr::UNSPECIFIED && canonical.is_ipv4()).then_some(1),
        IpAddr::V6(held) => {
            let takes = canonical.is_ipv6() || listener.v6_only != Some(true);
            (held == Ipv6Addr::UNSPECIFIED && takes).then_some(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::{Queues, SocketAddress};

    const SEEING_ALL: View = View {
        complete: true,
        initial_pid_namespace: true,
    };

    fn tcp(state: State, local: &str, inode: u64) -> Socket {
        let local: std::net::SocketAddr = local.parse().unwrap();
        Socket {
            protocol: SocketProtocol::Tcp,
            family: if local.is_ipv4() {
                Family::Ipv4
            } else {
                Family::Ipv6
            },
            state,
            local: SocketAddress::Inet {
                address: local.ip(),
                port: Port::new(local.port()),
            },
            remote: None,
            space: SpaceId(0),
            inode,
            uid: Some(0),
            cookie: 0,
            device: 0,
            mark: None,
            cgroup: None,
            v6_only: None,
            queues: Queues::default(),
            tcp_info: None,
        }
    }

    fn reason_of(socket: Socket, listeners: &[Socket], gone: &[u64], view: View) -> OwnerlessReason {
        let gone = gone.iter().copied().collect();
        match attribute(&[socket], listeners, &mut [], &gone, view).remove(0) {
            Ownership::Nobody(ownerless) => ownerless.reason,
            held @ Ownership::Held(_) => panic!("held by {held:?}"),
        }
    }

    #[test]
    fn every_holder_is_named_once_with_all_its_descriptors() {
        let sockets = [
            tcp(State::Listen, "0.0.0.0:80", 7),
            tcp(State::Listen, "0.0.0.0:81", 8),
        ];
        let mut holdings = [
            Holding {
                inode: 7,
                pid: 20,
                fd: 4,
            },
            Holding {
                inode: 8,
                pid: 10,
                fd: 3,
            },
            Holding {
                inode: 7,
                pid: 10,
                fd: 9,
            },
            Holding {
                inode: 7,
                pid: 10,
                fd: 6,
            },
        ];
        let ownership = attribute(&sockets, &[], &mut holdings, &InodeSet::default(), SEEING_ALL);
        assert_eq!(
            ownership,
            [
                Ownership::Held(smallvec![
                    Owner {
                        pid: 10,
                        fds: smallvec![6, 9]
                    },
                    Owner {
                        pid: 20,
                        fds: smallvec![4]
                    }
                ]),
                Ownership::Held(smallvec![Owner {
                    pid: 10,
                    fds: smallvec![3]
                }]),
            ]
        );
        assert!(unresolved(&sockets, &holdings).is_empty());
    }

    #[test]
    fn a_socket_without_inode_says_why_by_its_state() {
        for (state, reason) in [
            (State::TimeWait, OwnerlessReason::TimeWait),
            (State::SynReceived, OwnerlessReason::SynReceived),
            (State::FinWait1, OwnerlessReason::Orphan),
            (State::FinWait2, OwnerlessReason::Orphan),
            (State::Closing, OwnerlessReason::Orphan),
            (State::LastAck, OwnerlessReason::Orphan),
        ] {
            assert_eq!(
                reason_of(tcp(state, "10.0.0.1:80", 0), &[], &[], SEEING_ALL),
                reason,
                "{state}"
            );
        }
    }

    #[test]
    fn a_connection_not_yet_accepted_names_the_listener_that_linux_would_choose() {
        let mut only_v6 = tcp(State::Listen, "[::]:80", 3);
        only_v6.v6_only = Some(true);
        let listeners = [
            only_v6,
            tcp(State::Listen, "0.0.0.0:80", 4),
            tcp(State::Listen, "10.0.0.1:80", 5),
            tcp(State::Listen, "10.0.0.1:81", 6),
        ];
        let mut holdings = [Holding {
            inode: 5,
            pid: 42,
            fd: 3,
        }];
        for (local, inode, pid) in [
            ("10.0.0.1:80", 5, Some(42)),
            ("10.0.0.2:80", 4, None),
            ("[::ffff:10.0.0.1]:80", 5, Some(42)),
            ("[2001:db8::1]:80", 3, None),
        ] {
            let waiting = [tcp(State::Established, local, 0)];
            let found = attribute(
                &waiting,
                &listeners,
                &mut holdings,
                &InodeSet::default(),
                SEEING_ALL,
            );
            let Ownership::Nobody(Ownerless {
                reason,
                listener: Some(listener),
            }) = &found[0]
            else {
                panic!("{local}: {found:?}");
            };
            assert_eq!(*reason, OwnerlessReason::AcceptQueue);
            assert_eq!((listener.inode, listener.pid), (Some(inode), pid), "{local}");
        }
        let elsewhere = tcp(State::Established, "10.0.0.1:8080", 0);
        assert_eq!(
            reason_of(elsewhere, &listeners, &[], SEEING_ALL),
            OwnerlessReason::Vanished
        );
    }

    #[test]
    fn of_listeners_that_share_a_port_one_is_named_only_if_it_alone_has_a_queue() {
        let mut listeners = [4, 5, 6].map(|inode| tcp(State::Listen, "10.0.0.1:80", inode));
        let mut holdings = [4, 5, 6].map(|inode| Holding {
            inode,
            pid: inode as i32,
            fd: 3,
        });
        let mut told = |queues: [u32; 3]| {
            for (listener, queue) in listeners.iter_mut().zip(queues) {
                listener.queues.receive = queue;
            }
            let waiting = [tcp(State::Established, "10.0.0.1:80", 0)];
            match &attribute(
                &waiting,
                &listeners,
                &mut holdings,
                &InodeSet::default(),
                SEEING_ALL,
            )[0]
            {
                Ownership::Nobody(ownerless) => ownerless.listener.unwrap(),
                held @ Ownership::Held(_) => panic!("held by {held:?}"),
            }
        };
        let group = |candidates| ListenerRef {
            port: Port::new(80),
            inode: None,
            pid: None,
            candidates,
        };
        assert_eq!(told([0, 0, 0]), group(3));
        assert_eq!(told([2, 0, 1]), group(2));
        assert_eq!(
            told([0, 7, 0]),
            ListenerRef {
                inode: Some(5),
                pid: Some(5),
                ..group(1)
            }
        );
    }

    #[test]
    fn an_inode_that_nobody_holds_is_explained_by_what_we_could_see() {
        let socket = || tcp(State::Listen, "0.0.0.0:80", 7);
        let partly = View {
            complete: false,
            ..SEEING_ALL
        };
        let contained = View {
            initial_pid_namespace: false,
            ..SEEING_ALL
        };
        assert_eq!(reason_of(socket(), &[], &[], SEEING_ALL), OwnerlessReason::Kernel);
        assert_eq!(reason_of(socket(), &[], &[], partly), OwnerlessReason::OtherUser);
        assert_eq!(
            reason_of(socket(), &[], &[], contained),
            OwnerlessReason::OtherPidNamespace
        );
        assert_eq!(reason_of(socket(), &[], &[7], partly), OwnerlessReason::Vanished);
        assert_eq!(unresolved(&[socket()], &[]), InodeSet::from_iter([7]));
    }
}
