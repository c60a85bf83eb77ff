//! UDP to many: a copy for every socket that matches, groups of `SO_REUSEPORT` included.

use std::net::IpAddr;

use super::flows::FourTuple;
use super::score;
use super::{Delivery, Reason, Reply};
use crate::table::{Device, PortTable, Transport};

impl PortTable {
    pub(super) fn deliver_multicast(&self, tuple: &FourTuple, device: Option<Device>) -> Delivery {
        let group = tuple.local().ip();
        if !self.host_joined(group, device) {
            return Delivery::Nobody {
                reply: Reply::Nothing,
                because: Reason::NotJoined,
            };
        }
        let wants = |socket| self.gets_group(socket, group, device);
        self.deliver_to_all(tuple, device, Reason::Multicast, wants)
    }

    pub(super) fn deliver_broadcast(&self, tuple: &FourTuple, device: Option<Device>) -> Delivery {
        self.deliver_to_all(tuple, device, Reason::Broadcast, |_| true)
    }

    /// Sockets on this very address or on a wildcard, and those connected to the source from it.
    fn deliver_to_all(
        &self,
        tuple: &FourTuple,
        device: Option<Device>,
        because: Reason,
        wants: impl Fn(u32) -> bool,
    ) -> Delivery {
        let (destination, source) = (tuple.local().ip(), tuple.remote().ip());
        let on = |address: Option<IpAddr>| {
            self.receiver_sockets(Transport::Udp, tuple.local().port(), address, move |claim| {
                claim.hears(device)
                    && score::speaks(claim, destination)
                    && score::of_udp(claim, destination, source, 0).is_some()
            })
        };
        let to: Vec<_> = on(Some(destination))
            .chain(on(None))
            .chain(self.connected_all(tuple, device).map(|(socket, _)| socket))
            .filter(|&socket| wants(socket))
            .map(|socket| self.id(socket))
            .collect();
        if to.is_empty() {
            return Delivery::Nobody {
                reply: Reply::Nothing,
                because: Reason::NobodyListens,
            };
        }
        Delivery::Sockets { to, because }
    }
}
