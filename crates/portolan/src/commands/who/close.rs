//! Closing sockets under the feet of their programs.

use std::collections::BTreeSet;

use portolan_host::{
    DestroyError, Ownership, PortUse, Query, Snapshot, Socket, Sources, State, destroy_socket,
};

use super::chosen::place;
use crate::ask::ask;
use crate::commands::list::space_failure;
use crate::exit::{Answer, Failure};
use crate::footer::say;
use crate::text::address::EndText;

/// Closes the sockets of those who hold the ports, their connections too, and looks again with `query` what is left.
pub(super) fn run(
    snapshot: &Snapshot,
    uses: &[&PortUse],
    query: &Query,
    yes: bool,
) -> Result<Answer, Failure> {
    let mut indices = uses
        .iter()
        .flat_map(|usage| usage.sockets.iter().chain(&usage.connections))
        .copied()
        .collect::<Vec<_>>();
    indices.sort_unstable();
    indices.dedup();
    let Some(&first) = indices.first() else {
        return Ok(Answer::No);
    };
    let count = indices.len();
    let sockets = if count == 1 { "socket" } else { "sockets" };
    let place = place(snapshot.space(snapshot.sockets[first].space));
    if !yes
        && !ask(
            &format!("close {count} {sockets}{place}? their programs will see errors"),
            "--yes",
        )?
    {
        return Ok(Answer::No);
    }
    let mut failure = None;
    let mut aborted = Vec::new();
    for &index in &indices {
        let socket = &snapshot.sockets[index];
        let space = snapshot.space(socket.space);
        match destroy_socket(socket, space, &Sources::default()) {
            // Closing a listener takes the connections that wait for it along.
            Ok(()) | Err(DestroyError::Gone) => aborted.push(index),
            Err(error) => {
                failure.get_or_insert_with(|| (EndText::local(socket, space).to_string(), error));
            }
        }
    }
    let after = Snapshot::take(query).map_err(space_failure)?;
    let left = Left::of(snapshot, &aborted, &after);
    let closed = aborted.len() - left.open;
    say(&format!("closed {closed} of {count} {sockets}{place}"));
    for line in &left.lines {
        say(line);
    }
    match failure {
        None if left.lines.is_empty() => Ok(Answer::Yes),
        None => Ok(Answer::No),
        Some((address, error @ DestroyError::NotPermitted)) => {
            Err(Failure::NotPermitted(format!("{address}: {error}")))
        }
        Some((address, error)) => Err(Failure::System(format!("{address}: {error}"))),
    }
}

/// What of the aborted sockets is still there: the kernel aborts a socket and leaves it bound to the port that its
/// program chose, until the program closes it.
struct Left {
    /// How many still do what they did.
    open: usize,
    /// One line for each port and end, each once.
    lines: BTreeSet<String>,
}

impl Left {
    fn of(before: &Snapshot, aborted: &[usize], after: &Snapshot) -> Self {
        let mut left = Self {
            open: 0,
            lines: BTreeSet::new(),
        };
        for &index in aborted {
            let socket = &before.sockets[index];
            let Some(place) = after.sockets.iter().position(|other| is_same(socket, other)) else {
                continue;
            };
            let now = &after.sockets[place];
            let address = EndText::local(now, after.space(now.space));
            let closes = match after.ownership.get(place) {
                Some(Ownership::Held(owners)) => {
                    let pids = owners.iter().map(|owner| format!("pid {}", owner.pid));
                    let verb = if owners.len() == 1 { "closes" } else { "close" };
                    format!("{} {verb} it", pids.collect::<Vec<_>>().join(", "))
                }
                Some(Ownership::Nobody(_)) | None => "its program closes it".to_owned(),
            };
            let line = match now.state {
                State::Closed => {
                    let was = if socket.state == State::Listen {
                        "listens"
                    } else {
                        "is connected"
                    };
                    format!("{address} no longer {was}; the port stays bound until {closes}")
                }
                _ => {
                    left.open += 1;
                    format!(
                        "{address}: the program was told an error, and the socket stays open until {closes}"
                    )
                }
            };
            left.lines.insert(line);
        }
        left
    }
}

/// Whether it is the same socket, read later.
fn is_same(before: &Socket, after: &Socket) -> bool {
    before.cookie == after.cookie && before.protocol == after.protocol && before.inode == after.inode
}
