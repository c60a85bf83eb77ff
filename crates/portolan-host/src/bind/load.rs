//! The sockets of a host, as the port table of `portolan-core` takes them.

use std::collections::HashMap;
use std::net::SocketAddr;

use portolan_core::table::{self, Device, Existing, Host, PortTable, SocketId, Transport};

use super::options::SocketOptions;
use crate::{Family, Snapshot, Socket, SocketAddress, SocketProtocol, State};

/// Sockets that are the same to every bind: a busy port has a million connections and few of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    family: table::Family,
    v6_only: bool,
    local: SocketAddr,
    state: table::State,
    device: Option<Device>,
    uid: u32,
    options: Option<SocketOptions>,
}

/// The sockets of one kind.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) existing: Existing,
    /// Whether IPV6_V6ONLY is not known: the kernel does not list it of connections.
    pub(super) v6_only_unknown: bool,
    /// Their indices in the snapshot.
    pub(super) sockets: Vec<usize>,
}

/// Sorts the sockets of a snapshot that hold a port of `transport` into groups, in the order in which they were
/// listed. `options` says what is known of the socket with an index.
pub(super) fn groups(
    snapshot: &Snapshot,
    transport: Transport,
    mut options: impl FnMut(usize) -> Option<SocketOptions>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<Kind, usize> = HashMap::new();
    for (index, socket) in snapshot.sockets.iter().enumerate() {
        if !is_of(socket, transport) {
            continue;
        }
        let Some(mut existing) = existing(socket, transport) else {
            continue;
        };
        let options = options(index);
        existing.reuse = options.map(|options| (options.reuse_address, options.reuse_port));
        let v6_only = socket
            .v6_only
            .or_else(|| options.and_then(|options| options.v6_only));
        existing.v6_only = v6_only.unwrap_or(false);
        let kind = Kind {
            family: existing.family,
            v6_only: existing.v6_only,
            local: existing.local,
            state: existing.state,
            device: existing.device,
            uid: existing.uid,
            options,
        };
        let group = *known.entry(kind).or_insert_with(|| {
            groups.push(Group {
                existing,
                v6_only_unknown: v6_only.is_none() && existing.family == table::Family::Ipv6,
                sockets: Vec::new(),
            });
            groups.len() - 1
        });
        groups[group].sockets.push(index);
    }
    groups
}

/// A table of `host` with these groups, a socket for each, and which group each socket stands for.
pub(super) fn table<'a>(
    host: &Host,
    groups: impl IntoIterator<Item = &'a Group>,
) -> (PortTable, HashMap<SocketId, &'a Group>) {
    // Nobody from outside chooses the keys: they are the host's own sockets.
    let mut table = PortTable::new(host.clone(), [0; 16]);
    let loaded = groups
        .into_iter()
        .map(|group| (table.load(&group.existing), group))
        .collect();
    (table, loaded)
}

fn is_of(socket: &Socket, transport: Transport) -> bool {
    match transport {
        // The segments of an MPTCP socket come through TCP sockets, which are listed by themselves.
        Transport::Tcp => socket.protocol == SocketProtocol::Tcp,
        Transport::Udp => socket.protocol == SocketProtocol::Udp,
    }
}

/// The socket as the table has it, or `None` if it holds no port.
fn existing(socket: &Socket, transport: Transport) -> Option<Existing> {
    let family = match socket.family {
        Family::Ipv4 => table::Family::Ipv4,
        Family::Ipv6 => table::Family::Ipv6,
        Family::Vsock | Family::Unix => return None,
    };
    let state = match socket.state {
        State::Listen => table::State::Listening,
        // A request for a connection rests on its listener and holds no port by itself.
        State::SynReceived => return None,
        State::TimeWait => table::State::TimeWait,
        State::Closed | State::Unconnected => table::State::Idle,
        State::SynSent
        | State::Established
        | State::FinWait1
        | State::FinWait2
        | State::CloseWait
        | State::Closing
        | State::LastAck => table::State::Connected,
    };
    let local = inet(&socket.local).filter(|local| local.port() != 0)?;
    let remote = socket.remote.as_ref().and_then(inet);
    Some(Existing {
        transport,
        family,
        v6_only: false,
        local,
        remote,
        state,
        device: Device::new(socket.device),
        uid: socket.uid.unwrap_or(0),
        reuse: None,
    })
}

fn inet(address: &SocketAddress) -> Option<SocketAddr> {
    match address {
        SocketAddress::Inet { address, port } => Some(SocketAddr::new(*address, port.get())),
        SocketAddress::Vsock { .. } | SocketAddress::Unix { .. } => None,
    }
}
