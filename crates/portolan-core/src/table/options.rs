//! Socket options: those that decide who shares a port, and the rarer ones.

use std::net::IpAddr;

use super::claim::{Family, Reuse, Transport};
use super::error::SetError;
use super::host::Device;
use super::scope::Scope;
use super::seats::FastFlow;
use super::{PortTable, SocketId};
use crate::PortRange;

/// A socket option that the table knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketOption {
    /// `SO_REUSEADDR`. For TCP: share the port with sockets that do not listen. For UDP: share it with
    /// any socket that set it too; the last one bound gets the datagrams.
    ReuseAddress(bool),
    /// `SO_REUSEPORT`: share the port with sockets of the same user, which then divide what arrives.
    ReusePort(bool),
    /// `IPV6_V6ONLY`: refuse IPv4 on an IPv6 socket.
    V6Only(bool),
    /// `SO_BINDTODEVICE`: hear and use this device only.
    Device(Option<Device>),
    /// `IP_BIND_ADDRESS_NO_PORT`: a bind to port 0 leaves the choice of the port to connect or listen.
    BindAddressNoPort(bool),
    /// `IP_LOCAL_PORT_RANGE`: narrow the range of automatic ports for this socket.
    PortRange(Option<PortRange>),
    /// `IP_FREEBIND`, `IP_TRANSPARENT` and their IPv6 forms: bind addresses that are not the host's.
    ForeignAddress(bool),
    /// `IP_MULTICAST_ALL`: get the datagrams of every group that somebody on the host joined.
    MulticastAll(bool),
}

/// The options that few sockets set.
#[derive(Debug, Default)]
pub(super) struct Extras {
    pub(super) bind_address_no_port: bool,
    pub(super) port_range: Option<PortRange>,
    pub(super) foreign_address: bool,
    pub(super) multicast_joined_only: bool,
    /// The multicast groups that the socket joined, each on a device.
    pub(super) joined: Vec<(IpAddr, Device)>,
    /// What the socket receives for instead of a port that it is bound to.
    pub(super) scope: Option<Scope>,
}

impl Extras {
    /// What an accepted connection has of its listener's.
    pub(super) const fn inherited(&self) -> Self {
        Self {
            bind_address_no_port: self.bind_address_no_port,
            port_range: self.port_range,
            foreign_address: self.foreign_address,
            multicast_joined_only: self.multicast_joined_only,
            joined: Vec::new(),
            scope: None,
        }
    }
}

impl PortTable {
    /// Sets an option, at any time: before bind, after it, on a listener or on a connection.
    ///
    /// # Errors
    /// [`SetError`] if the socket, the device or the moment is wrong, or a privilege is missing.
    pub fn set(&mut self, id: SocketId, option: SocketOption) -> Result<(), SetError> {
        let index = self.index(id)?;
        let mut claim = self.claim_of(index);
        let reuse = |address, port| Reuse::Known { address, port };
        match option {
            SocketOption::ReuseAddress(on) => claim.reuse = reuse(on, claim.reuses_port()),
            SocketOption::ReusePort(on) => claim.reuse = reuse(claim.reuses_address(), on),
            SocketOption::V6Only(on) => {
                if claim.family != Family::Ipv6 {
                    return Err(SetError::NotIpv6);
                }
                if claim.is_bound() {
                    return Err(SetError::Bound);
                }
                claim.v6_only = on;
            }
            SocketOption::Device(device) => return self.set_device(index, device),
            SocketOption::BindAddressNoPort(on) => {
                self.extras.entry(index).or_default().bind_address_no_port = on;
            }
            SocketOption::PortRange(range) => {
                self.extras.entry(index).or_default().port_range = range;
            }
            SocketOption::ForeignAddress(on) => {
                self.extras.entry(index).or_default().foreign_address = on;
            }
            SocketOption::MulticastAll(on) => {
                self.extras.entry(index).or_default().multicast_joined_only = !on;
                self.note_change(index);
            }
        }
        self.adopt(index, &claim);
        Ok(())
    }

    fn set_device(&mut self, index: u32, device: Option<Device>) -> Result<(), SetError> {
        let mut claim = self.claim_of(index);
        if let Some(device) = device
            && !self.host.has_device(device)
        {
            return Err(SetError::NoSuchDevice(device));
        }
        if claim.device.is_some() && !claim.owner.privileged {
            return Err(SetError::NotPermitted);
        }
        claim.device = device;
        self.adopt(index, &claim);
        if claim.has_flow() {
            let hash = self.sockets[index].flow_hash();
            self.flows_mut(claim.transport).ask(hash, index);
        }
        // Linux enters a UDP socket anew in its tables after this option (udp_lib_rehash), which takes
        // it out of its group and makes the current four-tuple the one that is found at once.
        if claim.transport == Transport::Udp && claim.is_bound() {
            self.leave_group(index);
            let hash = claim.has_flow().then(|| self.sockets[index].flow_hash());
            self.renew_fast_flow(index, hash);
        }
        Ok(())
    }

    /// Points the entry in Linux's table by four-tuple, if the socket has one, to another four-tuple.
    pub(super) fn renew_fast_flow(&mut self, index: u32, hash: Option<u64>) {
        let seat = self.sockets[index].seat();
        if let Some(known) = self.seats.get(seat).and_then(|seat| seat.fast_flow)
            && known.hash != hash
        {
            self.fast_flows += 1;
            self.seats[seat].fast_flow = Some(FastFlow {
                hash,
                order: self.fast_flows,
            });
            self.note_change(index);
        }
    }
}
