use std::net::IpAddr;

use portolan_core::table::StateError;
use portolan_core::wire::IpProtocol;

use super::super::output::IpFields;
use super::{NoSocket, Stack, UdpId};
use crate::tcp::HOP_LIMIT;

/// How a UDP socket sends and what it wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UdpOption {
    /// How many routers a datagram may pass (`IP_TTL`, `IPV6_UNICAST_HOPS`); 64 at first.
    HopLimit(u8),
    /// The same for multicast (`IP_MULTICAST_TTL`, `IPV6_MULTICAST_HOPS`); 1 at first.
    MulticastHopLimit(u8),
    /// Whether sockets of this host hear what is sent to a group that they joined (`IP_MULTICAST_LOOP`); at first they
    /// do.
    MulticastLoop(bool),
    /// Differentiated services and ECN (`IP_TOS`, `IPV6_TCLASS`); 0 at first.
    TrafficClass(u8),
    /// What becomes of datagrams that are longer than the path takes.
    DontFragment(DontFragment),
    /// Let it send to broadcast addresses (`SO_BROADCAST`); at first it must not.
    Broadcast(bool),
    /// Tell every ICMP error, to an unconnected socket too, by [`Stack::next_udp_error`] (`IP_RECVERR`). Its next call fails
    /// then, unless it is a socket with a scope.
    ReportErrors(bool),
    /// Take datagrams as a device merged them, with the length of each (`UDP_GRO`).
    TakeMerged(bool),
}

/// What becomes of datagrams that are longer than the path takes (`IP_MTU_DISCOVER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DontFragment {
    /// They go in fragments of what the path is known to take; whatever fits is not to be cut by routers.
    #[default]
    Want,
    /// They are refused, and nothing is to be cut by routers.
    Do,
    /// They go in fragments of what the link takes, and routers may cut everything.
    Dont,
    /// What the path is known to take does not count: for programs that probe it themselves.
    Probe,
}

/// The fields of an IP header that go along with a datagram which is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderFields {
    /// How many routers it may pass; hop limit, or time to live.
    pub hop_limit: u8,
    /// Differentiated services and ECN.
    pub traffic_class: u8,
}

impl Default for HeaderFields {
    /// Those of what this host sends itself.
    fn default() -> Self {
        Self {
            hop_limit: HOP_LIMIT,
            traffic_class: 0,
        }
    }
}

/// The options of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    hop_limit: u8,
    multicast_hop_limit: u8,
    traffic_class: u8,
    pub(super) multicast_loop: bool,
    pub(super) may_broadcast: bool,
    pub(super) dont_fragment: DontFragment,
    pub(super) reports_errors: bool,
    pub(super) takes_merged: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            hop_limit: HOP_LIMIT,
            // RFC 1112, section 6.1.
            multicast_hop_limit: 1,
            traffic_class: 0,
            multicast_loop: true,
            may_broadcast: false,
            dont_fragment: DontFragment::default(),
            reports_errors: false,
            takes_merged: false,
        }
    }
}

impl Manner {
    /// The IP header's fields of a datagram to `remote`; `passed` are those that it came with, if it is passed on.
    pub(super) fn fields(&self, remote: IpAddr, passed: Option<HeaderFields>) -> IpFields {
        let own = || HeaderFields {
            hop_limit: if remote.is_multicast() {
                self.multicast_hop_limit
            } else {
                self.hop_limit
            },
            traffic_class: self.traffic_class,
        };
        let HeaderFields {
            hop_limit,
            traffic_class,
        } = passed.unwrap_or_else(own);
        IpFields {
            protocol: IpProtocol::UDP,
            dscp: traffic_class >> 2,
            ecn: traffic_class & 3,
            hop_limit,
            dont_fragment: self.dont_fragment != DontFragment::Dont,
        }
    }
}

impl Stack {
    /// Sets an option of a UDP socket, for what is sent and received from now on.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn set_udp(&mut self, id: UdpId, option: UdpOption) -> Result<(), NoSocket> {
        let socket = self.udp.get_mut(id).ok_or(NoSocket)?;
        let manner = &mut socket.manner;
        match option {
            UdpOption::HopLimit(limit) => manner.hop_limit = limit,
            UdpOption::MulticastHopLimit(limit) => manner.multicast_hop_limit = limit,
            UdpOption::MulticastLoop(on) => manner.multicast_loop = on,
            UdpOption::Broadcast(on) => manner.may_broadcast = on,
            UdpOption::TrafficClass(class) => manner.traffic_class = class,
            UdpOption::DontFragment(policy) => manner.dont_fragment = policy,
            UdpOption::TakeMerged(on) => manner.takes_merged = on,
            UdpOption::ReportErrors(on) => {
                manner.reports_errors = on;
                if !on {
                    socket.errors.clear();
                }
            }
        }
        Ok(())
    }

    /// Joins a multicast group on the link, until the socket leaves it or is closed.
    ///
    /// Nothing is sent for it: on a link between two ends, such as a TUN device, the other end sends to a group what its
    /// routes say, and asks nobody.
    ///
    /// # Errors
    /// [`StateError`] if there is no such socket, the address is no group, or the socket is in it.
    pub fn join_group(&mut self, id: UdpId, group: IpAddr) -> Result<(), StateError> {
        let device = self.config.device;
        let socket = self.udp.get(id).ok_or_else(table_error)?;
        if group.is_ipv6() && socket.local.is_ipv4() {
            return Err(StateError::NotSupported);
        }
        self.table.join(socket.socket, group, device)
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    /// [`StateError`] if there is no such socket, or it is not in the group.
    pub fn leave_group(&mut self, id: UdpId, group: IpAddr) -> Result<(), StateError> {
        let device = self.config.device;
        let socket = self.udp.get(id).ok_or_else(table_error)?;
        self.table.leave(socket.socket, group, device)
    }
}

fn table_error() -> StateError {
    portolan_core::table::NoSuchSocket.into()
}
