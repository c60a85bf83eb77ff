//! Giving ports back: close, disconnect, shutdown.

use super::claim::{Claim, Family, State, Transport, wildcard};
use super::connect::ipv6;
use super::error::{NoSuchSocket, StateError};
use super::time_wait::TIME_WAIT;
use super::{PortTable, SocketId};
use crate::Port;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Close {
    /// It is gone: reset by either side, or the socket never had a connection.
    #[default]
    Gone,
    /// The peer closed first: it keeps TIME-WAIT, we keep nothing.
    Passive,
    /// We closed first, and the peer's FIN came: the four-tuple stays for 60 seconds, with its
    /// address, options and user.
    TimeWait,
}

impl PortTable {
    /// Closes a socket. What it held is free at once, unless a TCP connection goes into TIME-WAIT.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn close(&mut self, id: SocketId, how: Close) -> Result<(), NoSuchSocket> {
        let index = self.index(id)?;
        let claim = self.claim_of(index);
        let waits =
            how == Close::TimeWait && claim.transport == Transport::Tcp && claim.state == State::Connected;
        if waits {
            self.adopt(
                index,
                &Claim {
                    state: State::TimeWait,
                    ..claim
                },
            );
            let hash = self.sockets[index].flow_hash();
            self.tcp_flows.ask(hash, index);
            self.time_wait.push_back((self.now + TIME_WAIT, id));
        } else {
            self.remove(index);
        }
        Ok(())
    }

    /// Takes the remote from a socket, as `connect` with `AF_UNSPEC` does, or tells that the handshake
    /// of a connect failed. A TCP listener stops listening.
    ///
    /// A port that was asked for stays held, an automatic one is released. The address goes back to the
    /// wildcard unless it was asked for. There is no TIME-WAIT: the connection is reset.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn disconnect(&mut self, id: SocketId) -> Result<(), NoSuchSocket> {
        let index = self.index(id)?;
        match self.claim_of(index).transport {
            Transport::Tcp => self.disconnect_tcp(index),
            Transport::Udp => self.disconnect_udp(index),
        }
        Ok(())
    }

    /// Shuts down the receiving half (`SHUT_RD`). A listener stops listening; for others the table has
    /// nothing to change.
    ///
    /// # Errors
    /// If the socket neither listens nor is connected.
    pub fn shutdown_read(&mut self, id: SocketId) -> Result<(), StateError> {
        let index = self.index(id)?;
        match self.claim_of(index).state {
            State::Listening => {
                self.disconnect_tcp(index);
                Ok(())
            }
            State::Connected => Ok(()),
            State::Idle | State::TimeWait => Err(StateError::NotConnected),
        }
    }

    fn disconnect_tcp(&mut self, index: u32) {
        let claim = self.claim_of(index);
        match claim.state {
            State::Idle | State::TimeWait => return,
            State::Connected => self.leave_flow(index),
            State::Listening => {
                self.leave_scope(index);
                self.unseat(index);
            }
        }
        self.adopt(index, &idle(&claim));
    }

    fn disconnect_udp(&mut self, index: u32) {
        let claim = self.claim_of(index);
        let remote = self.tuple_of(index).map(|tuple| tuple.remote().ip());
        self.leave_flow(index);
        self.leave_scope(index);
        let mut free = Claim {
            // Linux clears the device of a UDP socket here, and only here.
            device: None,
            ..idle(&claim)
        };
        if claim.family == Family::Ipv6 {
            free.filter = remote.map(ipv6).or(claim.filter);
        }
        if !free.is_bound() {
            self.unseat(index);
            self.adopt(index, &free);
            return;
        }
        self.adopt(index, &free);
        if !claim.address_locked {
            self.leave_group(index);
            self.renew_fast_flow(index, None);
            if claim.address != free.address {
                self.move_to_front(index);
            }
        }
    }
}

/// The claim of a socket after it lost its remote or stopped listening.
fn idle(claim: &Claim) -> Claim {
    let mut free = Claim {
        state: State::Idle,
        ..*claim
    };
    if !claim.address_locked {
        free.address = wildcard(claim.family);
    }
    if !claim.port_locked {
        free.port = Port::ZERO;
        free.by_connect = false;
    }
    free
}
