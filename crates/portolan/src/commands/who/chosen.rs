//! Whom `--kill` and `--close-socket` are for: those who hold a port, in one port space.

use portolan_core::{Escaped, Port, Protocol};
use portolan_host::{PortUse, Snapshot, SocketProtocol, Space, SpaceId, SpaceName, State};

use crate::exit::Failure;
use crate::footer::say;

/// Picks among `uses` those that hold their port, and leaves the rest alone.
///
/// Whoever listens, is bound or takes datagrams holds the port, and then those who are merely connected from it do
/// not. Where nobody does, a connection is what keeps the port taken. Unless a space was `named`, only the host's is
/// acted in: the same number elsewhere is another port.
///
/// # Errors
/// The port is held in other spaces only, and none was named.
pub(super) fn choose<'a>(
    snapshot: &Snapshot,
    uses: &'a [PortUse],
    named: bool,
) -> Result<Vec<&'a PortUse>, Failure> {
    let holding = uses
        .iter()
        .filter(|usage| {
            is_held_by(snapshot, usage) || !uses.iter().any(|other| outdoes(snapshot, other, usage))
        })
        .collect::<Vec<_>>();
    if named {
        return Ok(holding);
    }
    let (here, elsewhere): (Vec<_>, Vec<_>) = holding
        .into_iter()
        .partition(|usage| snapshot.space(usage.space).name == SpaceName::Host);
    let elsewhere = elsewhere
        .into_iter()
        .filter(|usage| usage.holder.is_somebody())
        .collect::<Vec<_>>();
    let Some(first) = elsewhere.first() else {
        return Ok(here);
    };
    let mut spaces = elsewhere
        .iter()
        .map(|usage| name(snapshot.space(usage.space)))
        .collect::<Vec<_>>();
    spaces.dedup();
    if here.iter().any(|usage| usage.holder.is_somebody()) {
        say(&format!(
            "those who hold it in other port spaces are left alone ({}); --space NAME is for them",
            spaces.join(", ")
        ));
        return Ok(here);
    }
    let add = spaces
        .iter()
        .map(|space| format!("--space {space}"))
        .collect::<Vec<_>>()
        .join(" or ");
    Err(Failure::Usage(format!(
        "nothing was done: nobody holds {}/{} in this port space, only in others; add {add} to act there",
        first.port,
        transport(first.protocol)
    )))
}

/// The name of a space, as it may be written to a terminal.
pub(super) fn name(space: &Space) -> String {
    Escaped::new(&space.name.to_string()).to_string()
}

/// ` in port space NAME`, or nothing for the host's.
pub(super) fn place(space: &Space) -> String {
    match space.name {
        SpaceName::Host => String::new(),
        _ => format!(" in port space {}", name(space)),
    }
}

/// Whether `other` holds the very port that `usage` is only connected from.
fn outdoes(snapshot: &Snapshot, other: &PortUse, usage: &PortUse) -> bool {
    port_of(other) == port_of(usage) && other.holder.is_somebody() && is_held_by(snapshot, other)
}

fn port_of(usage: &PortUse) -> (SpaceId, Port, Option<Protocol>) {
    (usage.space, usage.port, usage.protocol.transport())
}

/// Whether one of the sockets listens, is bound or takes datagrams.
fn is_held_by(snapshot: &Snapshot, usage: &PortUse) -> bool {
    usage.sockets.iter().any(|&index| {
        matches!(
            snapshot.sockets[index].state,
            State::Listen | State::Unconnected | State::Closed
        )
    })
}

/// MPTCP shares the ports of TCP.
fn transport(protocol: SocketProtocol) -> &'static str {
    match protocol {
        SocketProtocol::Mptcp => SocketProtocol::Tcp.name(),
        other => other.name(),
    }
}
