//! What the demultiplexer sees of the table.

use std::net::IpAddr;

use super::PortTable;
use super::claim::{Claim, State, Transport};
use super::seats::Order;
use super::slab::NONE;
use crate::demux::{Flows, Found, FourTuple};

/// A claim, seen as that of a possible receiver.
pub(crate) type Candidate = Claim;

impl PortTable {
    /// What a socket claims; of a tenant, without the port.
    pub(crate) fn candidate(&self, socket: u32) -> &Candidate {
        &self.records[self.sockets[socket].record].claim
    }

    pub(crate) const fn tcp_flows(&self) -> &Flows {
        self.flows(Transport::Tcp)
    }

    pub(crate) const fn udp_flows(&self) -> &Flows {
        self.flows(Transport::Udp)
    }

    #[inline]
    pub(crate) fn find_flow(&self, transport: Transport, tuple: &FourTuple) -> Option<Found> {
        self.flows(transport).find(tuple)
    }

    /// Of each kind of receiver on this address (`None`: on a wildcard) the first in the order of the
    /// port: its position, itself, and what it claims.
    pub(crate) fn receivers(
        &self,
        transport: Transport,
        port: u16,
        address: Option<IpAddr>,
    ) -> impl Iterator<Item = (Order, u32, &Candidate)> {
        self.records
            .receivers(transport, port.into(), address)
            .iter()
            .filter_map(|&number| {
                let record = &self.records[number];
                let (&order, &socket) = record.scan_order.first_key_value()?;
                Some((order, socket, &record.claim))
            })
    }

    /// All receivers on this address whose claim is wanted, in the order of the port.
    pub(crate) fn receiver_sockets(
        &self,
        transport: Transport,
        port: u16,
        address: Option<IpAddr>,
        wanted: impl Fn(&Candidate) -> bool,
    ) -> impl Iterator<Item = u32> {
        self.records
            .receivers(transport, port.into(), address)
            .iter()
            .map(|&number| &self.records[number])
            .filter(move |record| wanted(&record.claim))
            .flat_map(|record| record.scan_order.values().copied())
    }

    /// The `SO_REUSEPORT` group of a socket.
    pub(crate) fn group_of(&self, socket: u32) -> Option<u32> {
        self.seat_of(socket)
            .map(|seat| seat.group)
            .filter(|&group| group != NONE)
    }

    /// The member of a group that this flow's packets go to; connected ones are passed over.
    pub(crate) fn group_member(&self, group: u32, tuple: &FourTuple) -> Option<u32> {
        let hash = self.keyed.hash_value(tuple);
        self.groups.select(group, hash, |member| {
            self.candidate(member).state != State::Connected
        })
    }

    pub(crate) fn group_has_connections(&self, group: u32) -> bool {
        self.groups.has_connections(group)
    }

    /// The age of a connected UDP socket's entry in Linux's table by four-tuple, if that entry is for the
    /// remote that it has now; later ones are higher.
    pub(crate) fn fast_flow_order(&self, socket: u32) -> Option<u64> {
        let fast = self.seat_of(socket)?.fast_flow?;
        (fast.hash == Some(self.sockets[socket].flow_hash())).then_some(fast.order)
    }

    /// The first in the order of the port of the sockets that hold this very address, connected or not.
    pub(crate) fn first_on(&self, transport: Transport, port: u16, address: IpAddr) -> Option<u32> {
        self.records.first_on(transport, port.into(), address)
    }

    pub(crate) fn scan_order_of(&self, socket: u32) -> Option<Order> {
        self.seat_of(socket).map(|seat| seat.scan_order)
    }
}
