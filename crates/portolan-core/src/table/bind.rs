//! `bind`: a socket takes an address and a port.

use std::net::{IpAddr, SocketAddr};

use super::claim::{Claim, Family, State, Transport, wildcard};
use super::ephemeral::PortChoice;
use super::error::{BindError, Exhausted};
use super::host::Device;
use super::options::Extras;
use super::{PortTable, SocketId};
use crate::Port;

impl PortTable {
    /// Binds a socket to an address and a port; port 0 asks for an automatic one.
    ///
    /// v4-mapped addresses are given as such, on IPv6 sockets only. A link-local address with a scope id
    /// binds the socket to that device. The answer is the port, which is 0 if
    /// [`BindAddressNoPort`](super::SocketOption::BindAddressNoPort) leaves the choice to connect or listen.
    ///
    /// # Errors
    /// [`BindError`], after which the socket is as it was, except that it has lost the address of an
    /// earlier bind without a port. The checks come in the order in which Linux makes them.
    pub fn bind(&mut self, id: SocketId, local: SocketAddr, choice: PortChoice) -> Result<Port, BindError> {
        let index = self.index(id)?;
        let claim = self.claim_of(index);
        let extras = self.extras.get(&index);
        let late = extras.is_some_and(|extras| extras.bind_address_no_port);
        let mut wanted = self.admit(&claim, local, extras)?;
        if !wanted.is_bound() && late {
            self.adopt(index, &wanted);
            return Ok(Port::ZERO);
        }
        match self.find_port(index, &wanted, choice) {
            Ok(port) => {
                wanted.port_locked = wanted.is_bound();
                wanted.port = port;
                self.take_port(index, &wanted);
                Ok(port)
            }
            Err(error) => {
                self.forget_address(index);
                Err(error)
            }
        }
    }

    /// The port that was asked for, if it may be had, or an automatic one.
    fn find_port(&mut self, index: u32, wanted: &Claim, choice: PortChoice) -> Result<Port, BindError> {
        if wanted.is_bound() {
            self.check(wanted, None)?;
            return Ok(wanted.port);
        }
        let is_free = |table: &Self, port| table.is_free(&Claim { port, ..*wanted });
        Ok(self.choose_bound(index, choice, is_free)?)
    }

    /// A bind that finds its port taken loses the address that an earlier bind without a port left: Linux
    /// writes the new address before it asks for the port, and clears it if the port is refused.
    fn forget_address(&mut self, index: u32) {
        let claim = self.claim_of(index);
        let address = wildcard(claim.family);
        self.adopt(index, &Claim { address, ..claim });
    }

    /// All checks of a bind except for the conflict: what the socket would claim.
    pub(super) fn admit(
        &self,
        claim: &Claim,
        local: SocketAddr,
        extras: Option<&Extras>,
    ) -> Result<Claim, BindError> {
        let port = Port::new(local.port());
        let foreign_too = extras.is_some_and(|extras| extras.foreign_address);
        let mut wanted = *claim;
        wanted.address = canonical(claim.family, local.ip())?;
        match claim.family {
            Family::Ipv4 => {
                self.check_address(&wanted, foreign_too)?;
                self.check_privilege(claim, port)?;
                check_unbound(claim)?;
            }
            Family::Ipv6 => {
                if claim.transport == Transport::Tcp && local.ip().is_multicast() {
                    return Err(BindError::Multicast { address: local.ip() });
                }
                self.check_privilege(claim, port)?;
                check_unbound(claim)?;
                if claim.v6_only && wanted.address.is_ipv4() {
                    return Err(BindError::V6Only {
                        address: wanted.address,
                    });
                }
                wanted.device = scope(local).or(claim.device);
                if wanted.device.is_none() && needs_scope(local.ip()) {
                    return Err(BindError::MissingScope { address: local.ip() });
                }
                self.check_address(&wanted, foreign_too)?;
                // A specific IPv6 address leaves no room for IPv4: Linux turns V6ONLY on.
                wanted.v6_only |= wanted.address.is_ipv6() && !wanted.address.is_unspecified();
            }
        }
        wanted.port = port;
        // ::ffff:0.0.0.0 is locked too: it is no wildcard of its family. A lock of an earlier bind stays.
        wanted.address_locked |= wanted.address != wildcard(claim.family);
        Ok(wanted)
    }

    /// Gives the socket its port: the claim, the place in the orders of the port, the group.
    pub(super) fn take_port(&mut self, index: u32, claim: &Claim) {
        self.adopt(index, claim);
        match claim.transport {
            Transport::Tcp => {
                self.records
                    .port_mut(claim.transport, claim.port)
                    .memory
                    .note(claim);
            }
            Transport::Udp => {
                let group = self.group_to_join(index);
                self.seat(index);
                self.join_group(index, group);
            }
        }
    }

    fn check_address(&self, wanted: &Claim, foreign_too: bool) -> Result<(), BindError> {
        if foreign_too || self.host.may_bind(wanted.address, wanted.device) {
            return Ok(());
        }
        Err(BindError::AddressNotLocal {
            address: wanted.address,
            device: wanted.device,
        })
    }

    fn check_privilege(&self, claim: &Claim, port: Port) -> Result<(), BindError> {
        if claim.owner.privileged || !self.host.is_privileged(port) {
            return Ok(());
        }
        Err(BindError::Privileged {
            port,
            unprivileged_start: self.host.unprivileged_start(),
        })
    }

    /// Whether some automatic port would be free for `wanted`, whose port is 0.
    pub(super) fn any_free(&self, wanted: &Claim, extras: Option<&Extras>) -> Result<Port, Exhausted> {
        let range = self.range_of(extras);
        range
            .iter()
            .find(|&port| {
                port != Port::ZERO && !self.host.is_reserved(port) && self.is_free(&Claim { port, ..*wanted })
            })
            .ok_or(Exhausted {
                transport: wanted.transport,
                range,
            })
    }
}

/// The address as a claim has it: v4-mapped ones as IPv4.
fn canonical(family: Family, address: IpAddr) -> Result<IpAddr, BindError> {
    match (family, address) {
        (Family::Ipv4, IpAddr::V4(_)) => Ok(address),
        (Family::Ipv6, IpAddr::V6(_)) => Ok(address.to_canonical()),
        (Family::Ipv4, IpAddr::V6(_)) | (Family::Ipv6, IpAddr::V4(_)) => {
            Err(BindError::AddressFamily { address, family })
        }
    }
}

fn check_unbound(claim: &Claim) -> Result<(), BindError> {
    if claim.is_bound() || claim.state != State::Idle {
        return Err(BindError::AlreadyBound { port: claim.port });
    }
    Ok(())
}

/// The device that the scope id of a link-local address names.
fn scope(local: SocketAddr) -> Option<Device> {
    match local {
        SocketAddr::V6(local) if needs_scope((*local.ip()).into()) => Device::new(local.scope_id()),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    }
}

/// Whether an address has a meaning on its device only.
fn needs_scope(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => {
            // Multicast of scope 1 (interface) and 2 (link): RFC 4291, section 2.7.
            let link_multicast = address.is_multicast() && matches!(address.octets()[1] & 0x0f, 1 | 2);
            address.is_unicast_link_local() || link_multicast
        }
    }
}
