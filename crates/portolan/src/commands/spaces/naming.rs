//! What the host sees of running spaces, told in their own words.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use portolan_core::{Port, PortRange};
use portolan_gateway::control::{PublishedItem, Status};
use portolan_host::{
    Owner, OwnerlessReason, Ownership, ProcRoot, Process, PublishedBy, Query, Snapshot, Socket,
    SocketAddress, SpaceName, SpaceSelect, State, Users,
};

/// Gives spaces of `portolan run` their names, and published ports to the programs behind them instead of to their
/// gateway. Costs one look into a directory where no space runs, and one into each space of which ports are shown.
pub(crate) fn name_spaces(snapshot: &mut Snapshot) {
    for status in super::statuses() {
        let Ok(namespace) = fs::metadata(format!("/proc/{}/ns/net", status.pid)) else {
            continue;
        };
        let mut names = snapshot.spaces.iter_mut();
        if let Some(space) = names.find(|space| space.inode == namespace.ino()) {
            space.name = SpaceName::Mounted(status.name.clone());
        }
        hand_over(snapshot, &status);
    }
}

/// Changes the owners of published ports, and of the connections that came to them: to those behind them, and where
/// nobody is to the space's program.
fn hand_over(snapshot: &mut Snapshot, status: &Status) {
    if snapshot.ownership.len() != snapshot.sockets.len() {
        return;
    }
    let host = snapshot
        .spaces
        .iter()
        .position(|space| space.name == SpaceName::Host);
    // All ports of an address may be published: each socket looks up its own.
    let mut places = HashMap::<(&str, u16), Vec<&PublishedItem>>::new();
    for item in &status.published {
        let place = (&*item.protocol, item.host.port);
        places.entry(place).or_default().push(item);
    }
    let user = rustix::process::geteuid().as_raw();
    let mut published = Vec::new();
    for (index, (socket, ownership)) in snapshot.sockets.iter().zip(&snapshot.ownership).enumerate() {
        let is_hosts = Some(socket.space.0 as usize) == host;
        let is_gateways = match ownership {
            Ownership::Held(owners) => owners
                .iter()
                .any(|owner| owner.pid.cast_unsigned() == status.gateway_pid),
            Ownership::Nobody(nobody) => match nobody.reason {
                // These are the kernel's alone, whoever had them or will have them.
                OwnerlessReason::TimeWait
                | OwnerlessReason::Orphan
                | OwnerlessReason::SynReceived
                | OwnerlessReason::AcceptQueue => false,
                // Of the gateway nobody but root sees the descriptors; the socket is this user's.
                _ => socket.uid == Some(user),
            },
        };
        if !is_hosts || !is_gateways || !(is_open(socket) || socket.remote.is_some()) {
            continue;
        }
        let Some(items) = place(socket).and_then(|place| places.get(&place)) else {
            continue;
        };
        if let Some(item) = items.iter().find(|item| is_at(socket, item)) {
            published.push((index, *item));
        }
    }
    if published.is_empty() {
        return;
    }
    let inside = behind(status, &published);
    let mut takers = HashMap::new();
    for (index, socket) in inside
        .sockets
        .iter()
        .enumerate()
        .filter(|(_, socket)| is_open(socket))
    {
        if let Some(place) = place(socket) {
            takers.entry(place).or_insert(index);
        }
    }
    for (index, item) in published {
        let taker = takers.get(&(&*item.protocol, item.inner.port)).copied();
        let owners = match taker.map(|taker| &inside.ownership[taker]) {
            Some(Ownership::Held(owners)) => {
                let processes = owners.iter().filter_map(|owner| {
                    let process = inside.processes.get(&owner.pid)?;
                    Some((owner.pid, process.clone()))
                });
                snapshot.processes.extend(processes);
                owners.clone()
            }
            _ => {
                let Some(program) = program(status.pid) else {
                    continue;
                };
                snapshot.processes.insert(status.pid, program);
                let owner = Owner {
                    pid: status.pid,
                    fds: Default::default(),
                };
                [owner].into_iter().collect()
            }
        };
        snapshot.ownership[index] = Ownership::Held(owners);
        let published = PublishedBy {
            space: status.name.clone(),
            inode: taker.map(|taker| inside.sockets[taker].inode),
        };
        snapshot.published.insert(index, published);
    }
}

/// Who takes what comes to these ports inside; nobody, if the space cannot be looked into.
fn behind(status: &Status, published: &[(usize, &PublishedItem)]) -> Snapshot {
    let ports = published.iter().map(|(_, item)| item.inner.port);
    let query = Query {
        local_ports: Some(ports.map(|port| PortRange::single(Port::new(port))).collect()),
        space: SpaceSelect::Process(status.pid),
        ..Query::listeners()
    };
    let inside = Snapshot::take(&query).unwrap_or_default();
    if inside.ownership.len() == inside.sockets.len() {
        inside
    } else {
        Snapshot::default()
    }
}

fn program(pid: i32) -> Option<Process> {
    Process::read(&ProcRoot::system().ok()?, pid, &mut Users::new()).ok()
}

fn is_open(socket: &Socket) -> bool {
    matches!(socket.state, State::Listen | State::Unconnected)
}

/// The protocol and port of a socket, to be compared with those of a [`PublishedItem`].
fn place(socket: &Socket) -> Option<(&'static str, u16)> {
    Some((socket.protocol.name(), socket.local.port()?.get()))
}

/// Whether a socket of the host is at the address where the port is published.
fn is_at(socket: &Socket, item: &PublishedItem) -> bool {
    match (item.host.address, &socket.local) {
        (Some(at), SocketAddress::Inet { address, .. }) => at.to_canonical() == address.to_canonical(),
        // What came to it has the address that the client asked for.
        (None, SocketAddress::Inet { address, .. }) => address.is_unspecified() || socket.remote.is_some(),
        (_, _) => false,
    }
}
