//! The sockets themselves: 28 bytes each, in one array, named by number and generation.

use super::slab::NONE;
use crate::Port;

/// The name of a socket in a table.
///
/// A name is never used for a second socket: the place is, with another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl SocketId {
    pub(crate) const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// The place of the socket, for arrays beside the table: small numbers, one for each socket that exists,
    /// given again after it is gone.
    #[must_use]
    pub const fn place(self) -> usize {
        self.index as usize
    }
}

/// What every socket costs. All that sockets have in common is in their claim's record; what only some
/// have (a place in a list of receivers, rare options) is elsewhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Socket {
    generation: u32,
    /// The record of its claim, or `NONE` if the place is free.
    pub(super) record: u32,
    /// Its neighbours among the sockets with this claim; of a free place, `next` is the next free one.
    pub(super) previous: u32,
    pub(super) next: u32,
    /// Its [`Seat`](super::seats::Seat), or `NONE`; of a tenant, its port and [`IS_PORT`].
    seat_or_port: u32,
    flow_hash: [u32; 2],
}

/// Flag of a port in the place of a seat. There are fewer seats than sockets, so none has this number.
const IS_PORT: u32 = 1 << 31;

impl Socket {
    /// Its [`Seat`](super::seats::Seat), or `NONE`.
    pub(super) const fn seat(&self) -> u32 {
        if self.seat_or_port & IS_PORT == 0 {
            self.seat_or_port
        } else {
            NONE
        }
    }

    /// Gives it a seat, or takes it with `NONE`. A tenant has none.
    pub(super) const fn set_seat(&mut self, seat: u32) {
        self.seat_or_port = seat;
    }

    /// The port, if the socket is a tenant: its record does not tell.
    pub(super) fn port(&self) -> Option<Port> {
        let is_port = self.seat_or_port & IS_PORT != 0 && self.seat_or_port != NONE;
        is_port.then(|| Port::new(self.seat_or_port as u16))
    }

    /// Makes the socket, which has no seat, a tenant of a port, or no tenant any more.
    pub(super) fn set_port(&mut self, port: Option<Port>) {
        debug_assert_eq!(self.seat(), NONE, "a tenant has no seat");
        self.seat_or_port = port.map_or(NONE, |port| IS_PORT | u32::from(port.get()));
    }

    /// The hash by which the socket's flow is found again in the flow table.
    pub(super) fn flow_hash(&self) -> u64 {
        u64::from(self.flow_hash[0]) << 32 | u64::from(self.flow_hash[1])
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of a u64")]
    pub(super) fn set_flow_hash(&mut self, hash: u64) {
        self.flow_hash = [(hash >> 32) as u32, hash as u32];
    }
}

/// All sockets of a table.
#[derive(Debug)]
pub(super) struct Arena {
    sockets: Vec<Socket>,
    free: u32,
    count: usize,
}

/// Flow tables keep two bits of a socket's number for themselves.
const MOST: usize = 1 << 30;

impl Arena {
    pub(super) const fn new() -> Self {
        Self {
            sockets: Vec::new(),
            free: NONE,
            count: 0,
        }
    }

    /// A new socket without a claim.
    pub(super) fn insert(&mut self) -> u32 {
        self.count += 1;
        if self.free != NONE {
            let index = self.free;
            self.free = self.sockets[index as usize].next;
            return index;
        }
        let len = self.sockets.len();
        assert!(len < MOST, "a table holds 2^30 sockets");
        if len == self.sockets.capacity() {
            // By half: by doubling, the free room would weigh as much as the sockets.
            self.sockets.reserve_exact((len / 2).max(4));
        }
        self.sockets.push(Socket {
            generation: 0,
            record: NONE,
            previous: NONE,
            next: NONE,
            seat_or_port: NONE,
            flow_hash: [0; 2],
        });
        u32::try_from(self.sockets.len() - 1).expect("checked against MOST above")
    }

    pub(super) fn remove(&mut self, index: u32) {
        let free = self.free;
        let socket = &mut self[index];
        socket.generation = socket.generation.wrapping_add(1);
        socket.record = NONE;
        socket.next = free;
        self.free = index;
        self.count -= 1;
    }

    /// The name of the socket in place `index`.
    pub(super) fn id(&self, index: u32) -> SocketId {
        SocketId {
            index,
            generation: self[index].generation,
        }
    }

    /// The name of the socket in this place, if there is one.
    pub(super) fn at_place(&self, place: usize) -> Option<SocketId> {
        let socket = self.sockets.get(place)?;
        (socket.record != NONE).then(|| self.id(place as u32))
    }

    /// The place of a socket, if there still is such a socket.
    pub(super) fn index(&self, id: SocketId) -> Option<u32> {
        let socket = self.sockets.get(id.index as usize)?;
        (socket.generation == id.generation && socket.record != NONE).then_some(id.index)
    }

    /// How many sockets there are.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) fn bytes(&self) -> usize {
        self.sockets.capacity() * size_of::<Socket>()
    }
}

impl std::ops::Index<u32> for Arena {
    type Output = Socket;

    fn index(&self, index: u32) -> &Socket {
        &self.sockets[index as usize]
    }
}

impl std::ops::IndexMut<u32> for Arena {
    fn index_mut(&mut self, index: u32) -> &mut Socket {
        &mut self.sockets[index as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_costs_28_bytes() {
        assert_eq!(size_of::<Socket>(), 28);
    }

    #[test]
    fn a_socket_has_a_seat_or_a_port() {
        let mut arena = Arena::new();
        let index = arena.insert();
        let socket = &mut arena[index];
        assert_eq!((socket.seat(), socket.port()), (NONE, None));
        for port in [Port::new(1), Port::MAX] {
            socket.set_port(Some(port));
            assert_eq!((socket.seat(), socket.port()), (NONE, Some(port)));
        }
        socket.set_port(None);
        socket.set_seat(7);
        assert_eq!((socket.seat(), socket.port()), (7, None));
    }

    #[test]
    fn the_name_of_a_closed_socket_leads_nowhere() {
        let mut arena = Arena::new();
        let index = arena.insert();
        arena[index].record = 0;
        let id = arena.id(index);
        assert_eq!(arena.index(id), Some(index));
        arena.remove(index);
        assert_eq!(arena.index(id), None);
        let again = arena.insert();
        arena[again].record = 0;
        assert_eq!(again, index);
        assert_eq!(arena.id(again).place(), id.place());
        assert_eq!(arena.index(id), None);
        assert_eq!(arena.len(), 1);
    }
}
