//! Loading sockets that exist, as a kernel lists them.

use std::net::SocketAddr;

use super::claim::{Claim, Family, Owner, Reuse, State, Transport, wildcard};
use super::host::Device;
use super::{PortTable, SocketId};
use crate::demux::FourTuple;

/// A socket that exists already, with what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Existing {
    /// The protocol.
    pub transport: Transport,
    /// The family it was made with.
    pub family: Family,
    /// Whether an IPv6 socket refuses IPv4.
    pub v6_only: bool,
    /// Its own address and port. A connection has its concrete address.
    pub local: SocketAddr,
    /// The other end, if it is connected.
    pub remote: Option<SocketAddr>,
    /// How far it has come.
    pub state: State,
    /// The device it is bound to.
    pub device: Option<Device>,
    /// Its user.
    pub uid: u32,
    /// `SO_REUSEADDR` and `SO_REUSEPORT`, if they are known. The kernel does not tell: see
    /// [`BindAnswer::Unknown`](super::BindAnswer::Unknown).
    pub reuse: Option<(bool, bool)>,
}

impl PortTable {
    /// Enters a socket that exists, without asking whether it could be bound. Load sockets in the order
    /// in which they were bound, as far as that is known: of equal receivers the last one wins.
    pub fn load(&mut self, existing: &Existing) -> SocketId {
        let address = existing.local.ip().to_canonical();
        let tuple = existing
            .remote
            .and_then(|remote| FourTuple::new(existing.local, remote));
        let claim = Claim {
            v6_only: existing.v6_only,
            state: match (existing.state, tuple) {
                // A flow without its other end is no flow.
                (State::Connected | State::TimeWait, None) => State::Idle,
                (state, _) => state,
            },
            port: existing.local.port().into(),
            address,
            device: existing.device,
            reuse: existing
                .reuse
                .map_or(Reuse::Unknown, |(address, port)| Reuse::Known { address, port }),
            address_locked: address != wildcard(existing.family),
            port_locked: true,
            ..Claim::new(existing.transport, existing.family, Owner::user(existing.uid))
        };
        let index = self.sockets.insert();
        self.adopt(index, &claim);
        if claim.is_bound() && (claim.transport == Transport::Udp || claim.is_receiver()) {
            let group = self.group_to_join(index);
            self.seat(index);
            self.join_group(index, group);
        }
        if let Some(tuple) = tuple
            && claim.has_flow()
        {
            let hash = self.enter_flow(index, &tuple);
            if claim.transport == Transport::Udp && claim.is_bound() {
                self.connected_udp(index, hash, false);
            }
        }
        self.sockets.id(index)
    }
}
