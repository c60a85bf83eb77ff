//! `connect`: a socket gets a remote.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::claim::{Claim, Family, State, Transport};
use super::ephemeral::PortChoice;
use super::error::{ConnectError, Unreachable};
use super::host::AddressKind;
use super::seats::FastFlow;
use super::stand_in::Taken;
use super::{PortTable, SocketId};
use crate::Port;
use crate::demux::{Found, FourTuple};

impl PortTable {
    /// Connects a socket to `remote`. One without a port gets an automatic one.
    ///
    /// `source` is the local address that routing picks for this remote; it counts when the socket is
    /// bound to a wildcard, or not at all. For TCP the four-tuple is taken from now on; a handshake that
    /// fails is told by [`disconnect`](Self::disconnect). A UDP socket may connect again.
    ///
    /// # Errors
    /// [`ConnectError`], after which the socket is as it was, except that a UDP socket keeps the
    /// automatic port that it got before its remote turned out unreachable.
    pub fn connect(
        &mut self,
        id: SocketId,
        remote: SocketAddr,
        source: IpAddr,
        choice: PortChoice,
    ) -> Result<Port, ConnectError> {
        self.connect_beside(id, remote, source, choice, &|_, _| None)
    }

    /// The same for a caller who keeps four-tuples of its own ([`hand_over`](Self::hand_over)): `taken` says which
    /// socket stands for one, if the caller has it. Only TCP asks.
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    pub fn connect_beside(
        &mut self,
        id: SocketId,
        remote: SocketAddr,
        source: IpAddr,
        choice: PortChoice,
        taken: &Taken<'_>,
    ) -> Result<Port, ConnectError> {
        let index = self.index(id)?;
        match self.claim_of(index).transport {
            Transport::Tcp => self.connect_tcp(index, remote, source, choice, taken),
            Transport::Udp => self.connect_udp(index, remote, source, choice),
        }
    }

    /// Connects a TCP socket from an address that is not the host's, as a proxy does that keeps its client's address
    /// (`IP_TRANSPARENT`); what answers must come back to this host. Port 0 means an automatic one.
    ///
    /// Nothing is claimed but the four-tuple: any number of connections may come from one such socket address.
    ///
    /// # Errors
    /// [`ConnectError`], after which the socket is as it was.
    pub fn connect_foreign(
        &mut self,
        id: SocketId,
        source: SocketAddr,
        remote: SocketAddr,
        choice: PortChoice,
        taken: &Taken<'_>,
    ) -> Result<Port, ConnectError> {
        let index = self.index(id)?;
        let claim = self.claim_of(index);
        if claim.transport != Transport::Tcp || claim.state != State::Idle || claim.is_bound() {
            return Err(ConnectError::AlreadyConnected);
        }
        let remote = reachable(&claim, remote)?;
        let wrong = |why| ConnectError::Unreachable {
            remote: remote.ip(),
            why,
        };
        if self.host.kind(source.ip()) != AddressKind::Foreign {
            return Err(wrong(Unreachable::MartianSource));
        }
        match self.host.kind(remote.ip()) {
            AddressKind::Local | AddressKind::Foreign => {}
            AddressKind::Wildcard | AddressKind::Multicast | AddressKind::Broadcast => {
                return Err(wrong(Unreachable::NotUnicast));
            }
        }
        let wanted = Claim {
            state: State::Connected,
            address: source.ip().to_canonical(),
            port: Port::new(source.port()),
            // Ports of other hosts' addresses are not in the way of this host's automatic ones.
            by_connect: true,
            ..claim
        };
        four_tuple(&wanted, remote)?;
        let port = self.find_flow_port(index, &wanted, remote, choice, taken)?;
        let wanted = Claim { port, ..wanted };
        let tuple = four_tuple(&wanted, remote)?;
        self.adopt(index, &wanted);
        self.enter_flow(index, &tuple);
        Ok(port)
    }

    fn connect_tcp(
        &mut self,
        index: u32,
        remote: SocketAddr,
        source: IpAddr,
        choice: PortChoice,
        taken: &Taken<'_>,
    ) -> Result<Port, ConnectError> {
        let claim = self.claim_of(index);
        if claim.state != State::Idle {
            return Err(ConnectError::AlreadyConnected);
        }
        let remote = reachable(&claim, remote)?;
        self.check_source(&claim, remote)?;
        match self.host.kind(remote.ip()) {
            AddressKind::Multicast | AddressKind::Broadcast => {
                return Err(ConnectError::Unreachable {
                    remote: remote.ip(),
                    why: Unreachable::NotUnicast,
                });
            }
            AddressKind::Wildcard | AddressKind::Local | AddressKind::Foreign => {}
        }
        let mut wanted = Claim {
            state: State::Connected,
            ..claim
        };
        if self.takes_source(&claim) {
            wanted.address = source.to_canonical();
        }
        let remote = concrete(&wanted, remote);
        four_tuple(&wanted, remote)?;
        match self.find_flow_port(index, &wanted, remote, choice, taken) {
            Ok(port) => {
                wanted.by_connect |= !claim.is_bound();
                wanted.port = port;
                let tuple = four_tuple(&wanted, remote)?;
                self.adopt(index, &wanted);
                self.enter_flow(index, &tuple);
                Ok(port)
            }
            Err(error) => {
                // A socket that asked for ::ffff:0.0.0.0 keeps the address that it was about to use:
                // its address is locked, so Linux does not reset it to a wildcard.
                if claim.address_locked {
                    let address = wanted.address;
                    self.adopt(index, &Claim { address, ..claim });
                }
                Err(error)
            }
        }
    }

    /// The port of a connection: the one that the socket has, if the four-tuple is free, or an automatic one.
    fn find_flow_port(
        &mut self,
        index: u32,
        wanted: &Claim,
        remote: SocketAddr,
        choice: PortChoice,
        taken: &Taken<'_>,
    ) -> Result<Port, ConnectError> {
        if wanted.is_bound() {
            self.check_flow(wanted, remote, taken)?;
            return Ok(wanted.port);
        }
        let is_free = |table: &Self, port| table.is_shareable(&Claim { port, ..*wanted }, remote, taken);
        Ok(self.choose_connected(index, wanted.address, remote, choice, is_free)?)
    }

    fn connect_udp(
        &mut self,
        index: u32,
        remote: SocketAddr,
        source: IpAddr,
        choice: PortChoice,
    ) -> Result<Port, ConnectError> {
        let claim = self.claim_of(index);
        if claim.state == State::Listening {
            return Err(ConnectError::AlreadyConnected);
        }
        if !claim.is_bound() {
            let port = self.choose_bound(index, choice, |table, port| {
                table.is_free(&Claim { port, ..claim })
            })?;
            self.take_port(index, &Claim { port, ..claim });
        }
        let claim = self.claim_of(index);
        let remote = reachable(&claim, remote)?;
        self.check_source(&claim, remote)?;
        if self.host.kind(remote.ip()) == AddressKind::Broadcast {
            return Err(ConnectError::Broadcast { remote: remote.ip() });
        }
        let narrows = claim.address.is_unspecified();
        let mut wanted = Claim {
            state: State::Connected,
            filter: None,
            ..claim
        };
        if narrows {
            wanted.address = source.to_canonical();
        }
        let remote = concrete(&wanted, remote);
        let tuple = match four_tuple(&wanted, remote) {
            Ok(tuple) => Some(tuple),
            // The address was bound, and the stand-in that goes with it is no source of a route.
            Err(error) if claim.state == State::Idle => return Err(error),
            // A dual-stack socket that had a native IPv6 remote keeps that local address when it
            // connects to IPv4: Linux lets it, and no packet reaches it any more.
            Err(_) => {
                wanted.filter = Some(ipv6(remote.ip()));
                None
            }
        };
        self.leave_flow(index);
        self.adopt(index, &wanted);
        let hash = tuple.map_or(0, |tuple| self.enter_flow(index, &tuple));
        self.connected_udp(index, hash, narrows);
        Ok(wanted.port)
    }

    /// What connecting does to the groups and orders of UDP; `narrowed` if the socket just gave up a
    /// wildcard for a concrete address.
    pub(super) fn connected_udp(&mut self, index: u32, hash: u64, narrowed: bool) {
        if narrowed {
            self.leave_group(index);
            self.move_to_front(index);
            self.renew_fast_flow(index, Some(hash));
        }
        self.mark_group(index);
        let seat = self.sockets[index].seat();
        if self.seats[seat].fast_flow.is_none() {
            self.leave_group(index);
            self.fast_flows += 1;
            self.seats[seat].fast_flow = Some(FastFlow {
                hash: Some(hash),
                order: self.fast_flows,
            });
            self.note_change(index);
        }
    }

    /// Whether connecting gives a TCP socket the address that routing picks: it is bound to a wildcard,
    /// or to an address that no packet can come from.
    fn takes_source(&self, claim: &Claim) -> bool {
        match self.host.kind(claim.address) {
            AddressKind::Wildcard | AddressKind::Multicast | AddressKind::Broadcast => true,
            AddressKind::Local | AddressKind::Foreign => false,
        }
    }

    /// Whether Linux has a route from the address that the socket is bound to.
    ///
    /// A loopback address does not leave the host. An IPv6 socket on a mapped broadcast or multicast address
    /// sends from it; an IPv4 socket does not, see [`takes_source`](Self::takes_source).
    fn check_source(&self, claim: &Claim, remote: SocketAddr) -> Result<(), ConnectError> {
        let (IpAddr::V4(source), remote) = (claim.address, remote.ip()) else {
            return Ok(());
        };
        let is_mapped = claim.family == Family::Ipv6;
        let why = match self.host.kind(source.into()) {
            AddressKind::Multicast if is_mapped => Unreachable::MartianSource,
            AddressKind::Broadcast if is_mapped && source.is_broadcast() => Unreachable::MartianSource,
            AddressKind::Broadcast if is_mapped => Unreachable::SourceNotLocal,
            AddressKind::Local if source.is_loopback() => match self.host.kind(remote) {
                AddressKind::Foreign => Unreachable::MartianSource,
                AddressKind::Broadcast if remote != IpAddr::V4(Ipv4Addr::BROADCAST) => {
                    Unreachable::MartianSource
                }
                _ => return Ok(()),
            },
            _ => return Ok(()),
        };
        Err(ConnectError::Unreachable { remote, why })
    }

    /// Whether an automatic connection may use this port: nobody asked for it, and the four-tuple is free.
    fn is_shareable(&self, wanted: &Claim, remote: SocketAddr, taken: &Taken<'_>) -> bool {
        if self.records.holders(wanted.transport, wanted.port).is_none() {
            return true;
        }
        let port = self.records.port(wanted.transport, wanted.port);
        port.is_none_or(|port| port.explicit == 0) && self.check_flow(wanted, remote, taken).is_ok()
    }

    /// Whether the four-tuple is free. It is unique per device: only flows that hear every device or the
    /// socket's own count.
    fn check_flow(&self, wanted: &Claim, remote: SocketAddr, taken: &Taken<'_>) -> Result<(), ConnectError> {
        let tuple = four_tuple(wanted, remote)?;
        let holder = match self.flows(wanted.transport).find(&tuple) {
            None => None,
            Some(Found::One(holder, _)) => Some(holder),
            Some(Found::Ask(holders)) => holders
                .into_iter()
                .find(|&holder| self.candidate(holder).hears(wanted.device)),
        };
        match holder
            .map(|holder| self.id(holder))
            .or_else(|| taken(self, &tuple))
        {
            None => Ok(()),
            Some(holder) => Err(ConnectError::FlowExists {
                local: tuple.local(),
                remote: tuple.remote(),
                holder,
            }),
        }
    }
}

/// The remote as IPv4 if it is v4-mapped, if the socket can reach it.
fn reachable(claim: &Claim, remote: SocketAddr) -> Result<SocketAddr, ConnectError> {
    let family_fits = match claim.family {
        Family::Ipv4 => remote.is_ipv4(),
        Family::Ipv6 => remote.is_ipv6(),
    };
    let canonical = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    // An IPv6 socket that is bound to a mapped address has no address to reach IPv6 from.
    let bound_to_mapped = claim.family == Family::Ipv6 && claim.address.is_ipv4();
    let wrong = ConnectError::AddressFamily {
        remote: remote.ip(),
        local: claim.address,
        family: claim.family,
    };
    if !family_fits {
        return Err(wrong);
    }
    if claim.family == Family::Ipv6 {
        if canonical.is_ipv4() && claim.v6_only {
            return Err(ConnectError::Unreachable {
                remote: canonical.ip(),
                why: Unreachable::V6Only,
            });
        }
        if bound_to_mapped && canonical.is_ipv6() && !canonical.ip().is_unspecified() {
            return Err(wrong);
        }
    }
    Ok(canonical)
}

/// The remote with a wildcard replaced by what it means: this host.
fn concrete(claim: &Claim, remote: SocketAddr) -> SocketAddr {
    if !remote.ip().is_unspecified() {
        return remote;
    }
    let address: IpAddr = match (claim.family, claim.address) {
        (Family::Ipv4, address) if !address.is_unspecified() => address,
        (_, IpAddr::V4(_)) => Ipv4Addr::LOCALHOST.into(),
        (_, IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(address, remote.port())
}

/// An address as IPv6 sockets write it.
pub(super) fn ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn four_tuple(claim: &Claim, remote: SocketAddr) -> Result<FourTuple, ConnectError> {
    let local = SocketAddr::new(claim.address, claim.port.get());
    FourTuple::new(local, remote).ok_or_else(|| ConnectError::AddressFamily {
        remote: remote.ip(),
        local: claim.address,
        family: claim.family,
    })
}
