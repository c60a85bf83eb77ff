//! Joining and leaving `SO_REUSEPORT` groups.
//!
//! Linux keeps groups as objects, which sockets join when they become receivers (UDP at bind, TCP at
//! listen) and leave by their own rules. Which sockets *look* alike later does not matter.

use super::PortTable;
use super::claim::Transport;
use super::slab::NONE;

impl PortTable {
    /// The socket whose group `index` is to join: the first with `SO_REUSEPORT` that is like it.
    ///
    /// UDP sockets are looked at in the order of their port, connected ones too; TCP listeners in the
    /// order in which connections look at them.
    pub(super) fn group_to_join(&self, index: u32) -> Option<u32> {
        let claim = self.claim_of(index);
        if !claim.reuses_port() {
            return None;
        }
        let order = |number: u32| match claim.transport {
            Transport::Tcp => &self.records[number].scan_order,
            Transport::Udp => &self.records[number].bind_order,
        };
        self.records
            .companions(&claim)
            .filter_map(|number| order(number).first_key_value())
            .min()
            .map(|(_, &socket)| socket)
    }

    /// Puts the socket, which has a seat, into the group of `companion`, or into one of its own. A
    /// companion without a group forms one with it. Without `SO_REUSEPORT` nothing happens.
    pub(super) fn join_group(&mut self, index: u32, companion: Option<u32>) {
        if !self.claim_of(index).reuses_port() {
            return;
        }
        let Some(companion) = companion else {
            let group = self.groups.form(index);
            self.enter_group(index, group, 0);
            return;
        };
        let mut group = self.seat_of(companion).map_or(NONE, |seat| seat.group);
        if group == NONE {
            group = self.groups.form(companion);
            self.enter_group(companion, group, 0);
        }
        let member = self.groups.join(group, index);
        self.enter_group(index, group, member);
    }

    fn enter_group(&mut self, index: u32, group: u32, member: u32) {
        let seat = &mut self.seats[self.sockets[index].seat()];
        seat.group = group;
        seat.member = member;
        self.note_change(index);
    }

    /// Takes the socket out of its group, if it is in one.
    pub(super) fn leave_group(&mut self, index: u32) {
        let Some(seat) = self.seat_of(index).copied() else {
            return;
        };
        if seat.group == NONE {
            return;
        }
        if let Some(moved) = self.groups.leave(seat.group, seat.member) {
            self.enter_group(moved, seat.group, seat.member);
        }
        self.enter_group(index, NONE, NONE);
    }

    /// Marks the socket's group, if it is in one, as having connections.
    pub(super) fn mark_group(&mut self, index: u32) {
        if let Some(seat) = self.seat_of(index)
            && seat.group != NONE
        {
            self.groups.mark_connected(seat.group);
            self.note_change(index);
        }
    }
}
