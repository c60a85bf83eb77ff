//! Multicast groups: who joined what.

use std::net::IpAddr;

use hashbrown::HashMap;

use super::claim::Transport;
use super::error::StateError;
use super::host::Device;
use super::keyed::Keyed;
use super::{PortTable, SocketId};

/// How many sockets joined each group on each device.
#[derive(Debug)]
pub(super) struct Memberships {
    counts: HashMap<(IpAddr, Device), usize, Keyed>,
}

impl Memberships {
    pub(super) fn new(keyed: Keyed) -> Self {
        Self {
            counts: HashMap::with_hasher(keyed),
        }
    }

    pub(super) fn end(&mut self, joined: &[(IpAddr, Device)]) {
        for membership in joined {
            let count = self
                .counts
                .get_mut(membership)
                .expect("a membership was counted when it began");
            *count -= 1;
            if *count == 0 {
                self.counts.remove(membership);
            }
        }
    }
}

impl PortTable {
    /// Joins a multicast group on a device, until the socket is closed (`IP_ADD_MEMBERSHIP`,
    /// `IPV6_JOIN_GROUP`).
    ///
    /// # Errors
    /// If the socket is not UDP, the address is not multicast, or the socket is a member already.
    pub fn join(&mut self, id: SocketId, group: IpAddr, device: Device) -> Result<(), StateError> {
        let index = self.index(id)?;
        if self.claim_of(index).transport != Transport::Udp {
            return Err(StateError::NotSupported);
        }
        if !group.is_multicast() {
            return Err(StateError::NotMulticast);
        }
        let joined = &mut self.extras.entry(index).or_default().joined;
        if joined.contains(&(group, device)) {
            return Err(StateError::AlreadyJoined);
        }
        joined.push((group, device));
        *self.memberships.counts.entry((group, device)).or_default() += 1;
        self.note_change(index);
        Ok(())
    }

    /// Leaves a multicast group that the socket joined on a device (`IP_DROP_MEMBERSHIP`, `IPV6_LEAVE_GROUP`).
    ///
    /// # Errors
    /// If there is no such socket, or it is not a member.
    pub fn leave(&mut self, id: SocketId, group: IpAddr, device: Device) -> Result<(), StateError> {
        let index = self.index(id)?;
        let joined = self.extras.get_mut(&index).map(|extras| &mut extras.joined);
        let place = joined.as_ref().and_then(|joined| {
            joined
                .iter()
                .position(|&membership| membership == (group, device))
        });
        let (Some(joined), Some(place)) = (joined, place) else {
            return Err(StateError::NotJoined);
        };
        joined.swap_remove(place);
        self.memberships.end(&[(group, device)]);
        self.note_change(index);
        Ok(())
    }

    /// Whether the host listens to this group on this device: somebody joined it, or it is one of the
    /// groups of all hosts, `224.0.0.1` and `ff02::1`, which no host leaves (RFC 1112, section 4;
    /// RFC 4291, section 2.8).
    pub(crate) fn host_joined(&self, group: IpAddr, device: Option<Device>) -> bool {
        let all_hosts = match group {
            IpAddr::V4(group) => group.octets() == [224, 0, 0, 1],
            IpAddr::V6(group) => matches!(group.segments(), [0xff01 | 0xff02, 0, 0, 0, 0, 0, 0, 1]),
        };
        all_hosts || device.is_some_and(|device| self.memberships.counts.contains_key(&(group, device)))
    }

    /// Whether this socket gets what comes for a group that the host joined: it joined it itself, or it
    /// gets every group.
    pub(crate) fn gets_group(&self, index: u32, group: IpAddr, device: Option<Device>) -> bool {
        let extras = self.extras.get(&index);
        let joined = extras.is_some_and(|extras| {
            extras
                .joined
                .iter()
                .any(|&(joined, on)| joined == group && Some(on) == device)
        });
        // IP_MULTICAST_ALL is off on an IPv6 socket, and IPV6_MULTICAST_ALL has no say in IPv4.
        let same_family = match self.claim_of(index).family {
            super::Family::Ipv4 => group.is_ipv4(),
            super::Family::Ipv6 => group.is_ipv6(),
        };
        joined || same_family && !extras.is_some_and(|extras| extras.multicast_joined_only)
    }
}
