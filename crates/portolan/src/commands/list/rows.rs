//! Which sockets stand in which row, in which order.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;

use portolan_core::registry::Services;
use portolan_host::{Ownership, Snapshot, Socket, SocketAddress, SpaceId, StateSet};

use super::args::{Sort, SortKey};
use crate::text::service::service_name;

/// The selected sockets in rows: one each, but sockets of the same processes on the same port together.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Indices of the snapshot's sockets, those of a row beside each other.
    order: Vec<u32>,
    /// Where each row begins and ends in `order`.
    rows: Vec<(u32, u32)>,
}

impl Rows {
    /// The rows of the sockets with the indices `selected`; with `grouped`, sockets that belong together
    /// share one.
    pub(super) fn new(
        snapshot: &Snapshot,
        services: &Services,
        selected: impl Iterator<Item = usize>,
        sort: Sort,
        grouped: bool,
    ) -> Self {
        let mut rows = Self {
            order: by_port(snapshot, selected),
            rows: Vec::new(),
        };
        if grouped {
            rows.group(snapshot);
        } else {
            rows.rows = (0..rows.order.len() as u32).map(|at| (at, at + 1)).collect();
        }
        rows.sort(snapshot, services, sort);
        rows
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The sockets of each row, at least one.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.rows
            .iter()
            .map(|(start, end)| &self.order[*start as usize..*end as usize])
    }

    /// Every socket, row by row.
    pub(super) fn sockets(&self) -> impl Iterator<Item = usize> {
        self.iter().flatten().map(|index| *index as usize)
    }

    /// Puts together what is open on one port, of one protocol, in one space, and held by the same
    /// processes. Such sockets are neighbours already but for others on the same port.
    fn group(&mut self, snapshot: &Snapshot) {
        let mut start = 0;
        while start < self.order.len() {
            let first = &snapshot.sockets[self.order[start] as usize];
            let run = self.order[start..]
                .iter()
                .take_while(|index| is_beside(first, &snapshot.sockets[**index as usize]))
                .count();
            if run > 1 {
                self.group_run(snapshot, start, run);
            } else {
                self.rows.push((start as u32, start as u32 + 1));
            }
            start += run.max(1);
        }
    }

    fn group_run(&mut self, snapshot: &Snapshot, start: usize, run: usize) {
        let mut groups = Vec::<Vec<u32>>::new();
        let mut places = HashMap::<(SpaceId, Vec<i32>), usize>::new();
        for index in &self.order[start..start + run] {
            let place = match snapshot.ownership.get(*index as usize) {
                Some(Ownership::Held(owners)) => {
                    let mut pids = owners.iter().map(|owner| owner.pid).collect::<Vec<_>>();
                    pids.sort_unstable();
                    let space = snapshot.sockets[*index as usize].space;
                    *places.entry((space, pids)).or_insert(groups.len())
                }
                // Nobody says that two of these belong together.
                Some(Ownership::Nobody(_)) | None => groups.len(),
            };
            match groups.get_mut(place) {
                Some(group) => group.push(*index),
                None => groups.push(vec![*index]),
            }
        }
        let mut at = start;
        for group in groups {
            self.order[at..at + group.len()].copy_from_slice(&group);
            self.rows.push((at as u32, (at + group.len()) as u32));
            at += group.len();
        }
    }

    fn sort(&mut self, snapshot: &Snapshot, services: &Services, sort: Sort) {
        let order = &self.order;
        let first = |row: &(u32, u32)| order[row.0 as usize] as usize;
        let socket = |row: &(u32, u32)| &snapshot.sockets[first(row)];
        // Every sort is stable, so that rows of equal keys keep the order of ports.
        match sort.key {
            SortKey::Port => {}
            SortKey::Address => self
                .rows
                .sort_by(|a, b| compare_ends(&socket(a).local, &socket(b).local)),
            SortKey::Remote => self
                .rows
                .sort_by(|a, b| match (&socket(a).remote, &socket(b).remote) {
                    (Some(a), Some(b)) => compare_ends(a, b),
                    (a, b) => a.is_some().cmp(&b.is_some()),
                }),
            SortKey::Protocol => self.rows.sort_by_key(|row| socket(row).protocol),
            SortKey::State => self.rows.sort_by_key(|row| socket(row).state),
            SortKey::Service => self.rows.sort_by_cached_key(|row| {
                let name = service_name(services, socket(row));
                (name.is_none(), name)
            }),
            SortKey::Owner => self.rows.sort_by_cached_key(|row| {
                let process = first_pid(snapshot, first(row)).and_then(|pid| snapshot.processes.get(&pid));
                let name = process.map(|process| process.name.as_os_str());
                (name.is_none(), name)
            }),
            SortKey::Pid => self.rows.sort_by_cached_key(|row| {
                let pid = first_pid(snapshot, first(row));
                (pid.is_none(), pid)
            }),
            SortKey::User => self.rows.sort_by_cached_key(|row| {
                let process = first_pid(snapshot, first(row)).and_then(|pid| snapshot.processes.get(&pid));
                let user = process.and_then(|process| process.user.as_deref());
                (
                    user.is_none(),
                    user,
                    process.map(|process| process.uid).or_else(|| socket(row).uid),
                )
            }),
            SortKey::Receive => self.rows.sort_by_key(|row| socket(row).queues.receive),
            SortKey::Send => self.rows.sort_by_key(|row| socket(row).queues.send),
            SortKey::Space => self.rows.sort_by_key(|row| socket(row).space),
        }
        if sort.descending {
            self.rows.reverse();
        }
    }
}

/// By port, protocol, state, then addresses. The key holds nearly all of it in one number.
fn by_port(snapshot: &Snapshot, selected: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut keyed = selected
        .map(|index| (packed_key(&snapshot.sockets[index]), index as u32))
        .collect::<Vec<_>>();
    keyed.sort_unstable_by(|(a_key, a), (b_key, b)| {
        a_key.cmp(b_key).then_with(|| {
            let (a_socket, b_socket) = (&snapshot.sockets[*a as usize], &snapshot.sockets[*b as usize]);
            compare_ends(&a_socket.local, &b_socket.local)
                .then_with(|| match (&a_socket.remote, &b_socket.remote) {
                    (Some(a), Some(b)) => compare_ends(a, b),
                    (a, b) => a.is_some().cmp(&b.is_some()),
                })
                .then(a.cmp(b))
        })
    });
    keyed.into_iter().map(|(_, index)| index).collect()
}

/// Port (unix sockets last), protocol, state, and the first bits of both ends.
fn packed_key(socket: &Socket) -> u128 {
    let port = match &socket.local {
        SocketAddress::Inet { port, .. } => u32::from(port.get()),
        SocketAddress::Vsock { port, .. } => (*port).min(0xff_fffe),
        _ => 0xff_ffff,
    };
    let ends = |address: Option<&SocketAddress>| match address.and_then(SocketAddress::ip) {
        Some(IpAddr::V4(address)) => u64::from(u32::from(address)),
        Some(IpAddr::V6(address)) => 1 << 32 | (u128::from(address) >> 96) as u64,
        None => 0,
    };
    // Between two IPv4 addresses the key leaves only the peer's port open, and has room for it.
    let remote_port = match &socket.remote {
        Some(SocketAddress::Inet {
            address: IpAddr::V4(_),
            port,
        }) => port.get(),
        _ => 0,
    };
    u128::from(port) << 104
        | (socket.protocol as u128) << 96
        | (socket.state as u128) << 88
        | u128::from(ends(Some(&socket.local))) << 55
        | u128::from(ends(socket.remote.as_ref())) << 22
        | u128::from(remote_port) << 6
}

fn compare_ends(a: &SocketAddress, b: &SocketAddress) -> Ordering {
    match (a, b) {
        (
            SocketAddress::Inet {
                address: a,
                port: a_port,
            },
            SocketAddress::Inet {
                address: b,
                port: b_port,
            },
        ) => (a, a_port).cmp(&(b, b_port)),
        (SocketAddress::Vsock { cid: a, port: a_port }, SocketAddress::Vsock { cid: b, port: b_port }) => {
            (a, a_port).cmp(&(b, b_port))
        }
        (SocketAddress::Unix { name: a }, SocketAddress::Unix { name: b }) => a.cmp(b),
        // The order of unlike kinds is decided by the packed key.
        _ => Ordering::Equal,
    }
}

/// Whether two sockets may stand in one row: open, and on the same port of the same protocol.
fn is_beside(first: &Socket, other: &Socket) -> bool {
    let port = first.local.port();
    port.is_some()
        && port == other.local.port()
        && first.protocol == other.protocol
        && first.state == other.state
        && StateSet::OPEN.contains(first.state)
}

fn first_pid(snapshot: &Snapshot, socket: usize) -> Option<i32> {
    match snapshot.ownership.get(socket) {
        Some(Ownership::Held(owners)) => owners.iter().map(|owner| owner.pid).min(),
        Some(Ownership::Nobody(_)) | None => None,
    }
}
