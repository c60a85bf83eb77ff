//! `accept`: a listener's connection becomes a socket.

use std::net::{IpAddr, SocketAddr};

use super::claim::{Claim, State};
use super::error::StateError;
use super::host::Device;
use super::{PortTable, SocketId};
use crate::demux::FourTuple;

/// A connection that a listener got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The address and port that the SYN came to.
    pub local: SocketAddr,
    /// Where it came from.
    pub remote: SocketAddr,
    /// The device it came on. The connection is bound to it only if the listener is, or if it comes from
    /// an IPv6 link-local address, which means something on that device alone.
    pub device: Option<Device>,
}

impl PortTable {
    /// Enters a connection that `listener` got as a socket of its own.
    ///
    /// It has the listener's options, device and user, holds the concrete address that the connection
    /// came to, and counts as an automatic port: disconnecting releases it. That the listener is the one
    /// who gets the connection is the caller's knowledge, from [`crate::demux`].
    ///
    /// # Errors
    /// If `listener` does not listen, or the ends are not of one family.
    pub fn accept(&mut self, listener: SocketId, connection: Accepted) -> Result<SocketId, StateError> {
        let listener = self.index(listener)?;
        let listening = self.claim_of(listener);
        if listening.state != State::Listening {
            return Err(StateError::NotListening);
        }
        let Accepted {
            local,
            remote,
            device: arrived_on,
        } = connection;
        let tuple = FourTuple::new(local, remote).ok_or(StateError::NotSupported)?;
        let device = match tuple.remote().ip() {
            IpAddr::V6(remote) if remote.is_unicast_link_local() => listening.device.or(arrived_on),
            _ => listening.device,
        };
        let claim = Claim {
            state: State::Connected,
            device,
            address: tuple.local().ip(),
            port: tuple.local().port().into(),
            port_locked: false,
            by_connect: false,
            ..listening
        };
        let index = self.sockets.insert();
        self.adopt(index, &claim);
        self.enter_flow(index, &tuple);
        if let Some(extras) = self.extras.get(&listener) {
            let inherited = extras.inherited();
            self.extras.insert(index, inherited);
        }
        Ok(self.sockets.id(index))
    }
}
