//! `SO_REUSEPORT` groups: who is in one, and which member a packet goes to.

use super::slab::Slab;

/// Sockets that share what arrives on one address and port.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Sockets by their place in the arena. Leaving moves the last member to the free place, as Linux
    /// does, so members other than these two keep their share of the packets.
    members: Vec<u32>,
    /// A member that is bound to a specific address has connected. Such a group does not end the search
    /// for a receiver of a datagram, and never loses the mark.
    pub(super) has_connections: bool,
}

/// All groups of a table.
#[derive(Debug)]
pub(super) struct Groups {
    groups: Slab<Group>,
}

impl Groups {
    pub(super) const fn new() -> Self {
        Self { groups: Slab::new() }
    }

    /// A new group of one.
    pub(super) fn form(&mut self, socket: u32) -> u32 {
        self.groups.insert(Group {
            members: vec![socket],
            has_connections: false,
        })
    }

    /// Adds a member; the answer is its place.
    pub(super) fn join(&mut self, group: u32, socket: u32) -> u32 {
        let members = &mut self.groups[group].members;
        members.push(socket);
        u32::try_from(members.len() - 1).expect("fewer members than sockets")
    }

    /// Removes the member in this place. The answer is the socket that moved there, if one did.
    pub(super) fn leave(&mut self, group: u32, member: u32) -> Option<u32> {
        let members = &mut self.groups[group].members;
        members.swap_remove(member as usize);
        if members.is_empty() {
            self.groups.remove(group);
            return None;
        }
        members.get(member as usize).copied()
    }

    pub(super) fn mark_connected(&mut self, group: u32) {
        self.groups[group].has_connections = true;
    }

    pub(super) fn has_connections(&self, group: u32) -> bool {
        self.groups[group].has_connections
    }

    /// The member for a packet with this hash, of those that `may_receive`.
    ///
    /// The hash is scaled to the size of the group, so that the same packet meets the same member while
    /// the group stays; who may not receive leaves the packet to the next one.
    pub(super) fn select(&self, group: u32, hash: u64, may_receive: impl Fn(u32) -> bool) -> Option<u32> {
        let members = &self.groups[group].members;
        let first = usize::try_from(((hash >> 32) * members.len() as u64) >> 32)
            .expect("scaled below the number of members");
        let (before, from) = members.split_at(first);
        from.iter()
            .chain(before)
            .copied()
            .find(|&member| may_receive(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_gets_its_share_and_the_same_packet_the_same_member() {
        let mut groups = Groups::new();
        let group = groups.form(10);
        for socket in 11..14 {
            groups.join(group, socket);
        }
        let mut shares = [0; 4];
        for flow in 0..4000u64 {
            let hash = flow.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let member = groups.select(group, hash, |_| true).unwrap();
            assert_eq!(groups.select(group, hash, |_| true), Some(member));
            shares[member as usize - 10] += 1;
        }
        assert!(shares.iter().all(|&share| share > 900), "{shares:?}");
    }

    #[test]
    fn who_may_not_receive_is_passed_over() {
        let mut groups = Groups::new();
        let group = groups.form(1);
        groups.join(group, 2);
        for hash in [0, u64::MAX] {
            assert_eq!(groups.select(group, hash, |socket| socket == 2), Some(2));
            assert_eq!(groups.select(group, hash, |_| false), None);
        }
    }

    #[test]
    fn the_last_member_fills_the_gap() {
        let mut groups = Groups::new();
        let group = groups.form(1);
        groups.join(group, 2);
        groups.join(group, 3);
        assert_eq!(groups.leave(group, 0), Some(3));
        assert_eq!(groups.leave(group, 1), None);
        assert_eq!(groups.select(group, 0, |_| true), Some(3));
    }
}
