use std::collections::BTreeMap;

use portolan_core::Port;

use crate::{OwnerlessReason, Ownership, Snapshot, Socket, SocketProtocol, SpaceId, State};

/// What one process, or nobody, does with one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// The namespace of the port.
    pub space: SpaceId,
    /// The protocol of the port.
    pub protocol: SocketProtocol,
    /// The port.
    pub port: Port,
    /// Who uses it.
    pub holder: PortHolder,
    /// The sockets that hold the port, as indices of [`Snapshot::sockets`]: those that listen, are bound or
    /// take datagrams; where there are none, the connections, since then one of them took the port.
    pub sockets: Vec<usize>,
    /// The connections through a listener of the same process, as indices of [`Snapshot::sockets`].
    pub connections: Vec<usize>,
    /// How many connections wait to be accepted.
    pub waiting: usize,
}

/// Who uses a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortHolder {
    /// The process with this id.
    Process(i32),
    /// No process that was seen, for this reason.
    Nobody(OwnerlessReason),
}

impl PortHolder {
    /// Whether somebody holds the port: a process, or one that may not be seen, or the kernel.
    ///
    /// What is left of a connection when its process closed it holds nothing.
    #[must_use]
    pub const fn is_somebody(self) -> bool {
        match self {
            Self::Process(_)
            | Self::Nobody(
                OwnerlessReason::OtherUser | OwnerlessReason::OtherPidNamespace | OwnerlessReason::Kernel,
            ) => true,
            Self::Nobody(
                OwnerlessReason::TimeWait
                | OwnerlessReason::Orphan
                | OwnerlessReason::SynReceived
                | OwnerlessReason::AcceptQueue
                | OwnerlessReason::Vanished,
            ) => false,
        }
    }
}

impl Snapshot {
    /// The sockets that `wanted` picks, by port and by who uses it, in the order of port, protocol,
    /// namespace and holder.
    ///
    /// Sockets without a port are left out, and so are all if owners were not asked for.
    pub fn port_uses(&self, mut wanted: impl FnMut(SocketProtocol, Port) -> bool) -> Vec<PortUse> {
        let mut uses: BTreeMap<(Port, SocketProtocol, SpaceId, PortHolder), PortUse> = BTreeMap::new();
        let picked = self.sockets.iter().zip(&self.ownership).enumerate();
        for (index, (socket, ownership)) in picked {
            let Some(port) = socket.local.port() else { continue };
            if !wanted(socket.protocol, port) {
                continue;
            }
            let mut note = |holder: PortHolder, kind: Kind| {
                let usage = uses
                    .entry((port, socket.protocol, socket.space, holder))
                    .or_insert_with(|| PortUse {
                        space: socket.space,
                        protocol: socket.protocol,
                        port,
                        holder,
                        sockets: Vec::new(),
                        connections: Vec::new(),
                        waiting: 0,
                    });
                match kind {
                    Kind::Holds => usage.sockets.push(index),
                    Kind::Connected => usage.connections.push(index),
                    Kind::Waits(count) => usage.waiting += count as usize,
                }
            };
            match ownership {
                Ownership::Held(owners) => {
                    for owner in owners {
                        note(PortHolder::Process(owner.pid), Kind::of(socket.state));
                    }
                    // Of several that share a listener, one will accept: nobody is counted twice.
                    if let Some(first) = owners.first() {
                        note(PortHolder::Process(first.pid), Kind::waits_for(socket));
                    }
                }
                // The listener's own queue has it counted.
                Ownership::Nobody(ownerless) if ownerless.listener.is_some() => {}
                Ownership::Nobody(ownerless) => {
                    note(PortHolder::Nobody(ownerless.reason), Kind::of(socket.state));
                    note(PortHolder::Nobody(ownerless.reason), Kind::waits_for(socket));
                }
            }
        }
        let mut uses = uses.into_values().collect::<Vec<_>>();
        for usage in &mut uses {
            if usage.sockets.is_empty() {
                std::mem::swap(&mut usage.sockets, &mut usage.connections);
            }
        }
        uses
    }
}

/// What a socket is to its port.
#[derive(Clone, Copy)]
enum Kind {
    Holds,
    Connected,
    /// So many connections wait for it to accept them.
    Waits(u32),
}

impl Kind {
    const fn waits_for(socket: &Socket) -> Self {
        match socket.state {
            State::Listen => Self::Waits(socket.queues.receive),
            _ => Self::Waits(0),
        }
    }

    const fn of(state: State) -> Self {
        match state {
            State::Listen | State::Unconnected | State::Closed => Self::Holds,
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => Self::Connected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, ListenerRef, Owner, Ownerless, Queues, SocketAddress};

    fn socket(protocol: SocketProtocol, state: State, port: u16) -> Socket {
        Socket {
            protocol,
            family: Family::Ipv4,
            state,
            local: SocketAddress::Inet {
                address: [127, 0, 0, 1].into(),
                port: Port::new(port),
            },
            remote: None,
            space: SpaceId(0),
            inode: 0,
            uid: None,
            cookie: 0,
            device: 0,
            mark: None,
            cgroup: None,
            v6_only: None,
            queues: Queues::default(),
            tcp_info: None,
        }
    }

    fn held(pids: &[i32]) -> Ownership {
        Ownership::Held(
            pids.iter()
                .map(|&pid| Owner {
                    pid,
                    fds: vec![3].into(),
                })
                .collect(),
        )
    }

    fn nobody(reason: OwnerlessReason, listener: Option<ListenerRef>) -> Ownership {
        Ownership::Nobody(Ownerless { reason, listener })
    }

    #[test]
    fn connections_count_for_the_process_that_listens_and_hold_the_port_of_one_that_does_not() {
        use SocketProtocol::{Tcp, Udp};
        let listener = ListenerRef {
            port: Port::new(80),
            inode: Some(9),
            pid: Some(10),
            candidates: 1,
        };
        let mut with_queue = socket(Tcp, State::Listen, 80);
        with_queue.queues.receive = 1;
        let (sockets, ownership) = [
            (with_queue, held(&[10, 11])),
            (socket(Tcp, State::Established, 80), held(&[11])),
            (
                socket(Tcp, State::Established, 80),
                nobody(OwnerlessReason::AcceptQueue, Some(listener)),
            ),
            (
                socket(Tcp, State::TimeWait, 80),
                nobody(OwnerlessReason::TimeWait, None),
            ),
            (socket(Tcp, State::Established, 80), held(&[12])),
            (socket(Udp, State::Unconnected, 80), held(&[10])),
            (socket(Tcp, State::Listen, 81), held(&[10])),
        ]
        .into_iter()
        .unzip();
        let snapshot = Snapshot {
            sockets,
            ownership,
            ..Snapshot::default()
        };
        let uses = snapshot.port_uses(|_, port| port.get() == 80);
        let seen = uses
            .iter()
            .map(|u| {
                (
                    u.protocol,
                    u.holder,
                    u.sockets.clone(),
                    u.connections.clone(),
                    u.waiting,
                )
            })
            .collect::<Vec<_>>();
        assert_eq!(
            seen,
            [
                (Tcp, PortHolder::Process(10), vec![0], vec![], 1),
                (Tcp, PortHolder::Process(11), vec![0], vec![1], 0),
                (Tcp, PortHolder::Process(12), vec![4], vec![], 0),
                (
                    Tcp,
                    PortHolder::Nobody(OwnerlessReason::TimeWait),
                    vec![3],
                    vec![],
                    0
                ),
                (Udp, PortHolder::Process(10), vec![5], vec![], 0),
            ]
        );
        assert!(!uses[3].holder.is_somebody());
        assert!(uses[0].holder.is_somebody());
    }
}
