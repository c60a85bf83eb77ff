//! `listen`: a TCP socket waits for connections.

use super::claim::{Claim, State, Transport};
use super::ephemeral::PortChoice;
use super::error::ListenError;
use super::{PortTable, SocketId};
use crate::Port;

impl PortTable {
    /// Makes a TCP socket a listener. One without a port gets an automatic one.
    ///
    /// The port is asked for again, now as a listener: of two sockets that share a port by `SO_REUSEADDR`
    /// only one can listen. A listener may listen again.
    ///
    /// # Errors
    /// [`ListenError`], after which the socket is as it was.
    pub fn listen(&mut self, id: SocketId, choice: PortChoice) -> Result<Port, ListenError> {
        let index = self.index(id)?;
        let claim = self.claim_of(index);
        match (claim.transport, claim.state) {
            (Transport::Udp, _) => return Err(ListenError::NotSupported),
            (Transport::Tcp, State::Connected | State::TimeWait) => {
                return Err(ListenError::Connected);
            }
            (Transport::Tcp, State::Listening) => return Ok(claim.port),
            (Transport::Tcp, State::Idle) => {}
        }
        let mut wanted = Claim {
            state: State::Listening,
            ..claim
        };
        if claim.is_bound() {
            self.check(&wanted, Some(index))?;
        } else {
            wanted.port = self.choose_bound(index, choice, |table, port| {
                table.is_free(&Claim { port, ..wanted })
            })?;
        }
        self.take_port(index, &wanted);
        let group = self.group_to_join(index);
        self.seat(index);
        self.join_group(index, group);
        Ok(wanted.port)
    }
}
