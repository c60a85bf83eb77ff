//! Closing sockets under the feet of their programs.

use portolan_host::{DestroyError, PortUse, Snapshot, Sources, destroy_socket};

use crate::ask::ask;
use crate::exit::{Answer, Failure};
use crate::footer::say;
use crate::text::address::EndText;

/// Closes every socket of the ports: those that hold them, and their connections.
pub(super) fn run(snapshot: &Snapshot, uses: &[PortUse], yes: bool) -> Result<Answer, Failure> {
    let mut indices = uses
        .iter()
        .flat_map(|usage| usage.sockets.iter().chain(&usage.connections))
        .collect::<Vec<_>>();
    indices.sort_unstable();
    indices.dedup();
    if indices.is_empty() {
        return Ok(Answer::No);
    }
    let count = indices.len();
    let sockets = if count == 1 { "socket" } else { "sockets" };
    if !yes
        && !ask(
            &format!("close {count} {sockets}? their programs will see errors"),
            "--yes",
        )?
    {
        return Ok(Answer::No);
    }
    let mut closed = 0;
    let mut failure = None;
    for &index in indices {
        let socket = &snapshot.sockets[index];
        let space = snapshot.space(socket.space);
        match destroy_socket(socket, space, &Sources::default()) {
            Ok(()) => closed += 1,
            // Closing a listener takes the connections that wait for it along.
            Err(DestroyError::Gone) => {}
            Err(error) => {
                failure.get_or_insert_with(|| (EndText::local(socket, space).to_string(), error));
            }
        }
    }
    say(&format!("closed {closed} of {count} {sockets}"));
    match failure {
        None => Ok(Answer::Yes),
        Some((address, error @ DestroyError::NotPermitted)) => {
            Err(Failure::NotPermitted(format!("{address}: {error}")))
        }
        Some((address, error)) => Err(Failure::System(format!("{address}: {error}"))),
    }
}
