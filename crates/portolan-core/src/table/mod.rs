//! The port table: who may hold a port, and who does.
//!
//! One [`PortTable`] is one host's worth of ports, TCP and UDP. It says yes or no to bind, listen and
//! connect exactly as Linux 6.18 does (`docs/bind-rules.md` tells the rules), chooses automatic ports,
//! and with [`crate::demux`] says whose an arriving packet is. It never sends, sleeps or reads a clock:
//!
//! ```text
//!   socket() ─▶ set() ─▶ bind() ─┬▶ listen() ─▶ accept() ─▶ close(how) ─▶ TIME-WAIT ─▶ advance(now)
//!                                └▶ connect() ─▶ disconnect() | close(how)
//!   deliver(packet) ─▶ the sockets that get it, and why       explain_bind(wish) ─▶ yes | no | unknown
//! ```
//!
//! The same table is driven by a transport stack with its own sockets, and loaded with the sockets of a
//! kernel ([`PortTable::load`]) to predict what that kernel would do.
//!
//! # Cost
//!
//! No operation's cost grows with the number of sockets. Connections are found by their four-tuple; a bind
//! compares itself with the *shapes* of claims on its port (see `records`), of which a port with a million
//! connections has as many as one with ten. The hashes are keyed with the secret given to
//! [`PortTable::new`], so that nobody who sends packets can choose them to collide.

mod accept;
mod arena;
mod bind;
mod claim;
mod conflict;
mod connect;
mod ephemeral;
mod error;
mod explain;
mod groups;
mod host;
mod keyed;
mod listen;
mod load;
mod membership;
mod memory;
mod options;
mod ports;
mod records;
mod release;
mod reuseport;
mod scope;
mod seats;
mod slab;
mod stand_in;
mod time_wait;
mod view;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use hashbrown::HashMap;

pub use self::accept::Accepted;
pub use self::arena::SocketId;
pub use self::claim::{Family, Owner, State, Transport};
pub use self::ephemeral::PortChoice;
pub use self::error::{
    BindError, ConnectError, Errno, Exhausted, Holder, InUse, ListenError, NoSuchSocket, Rule, ScopeError,
    SetError, StateError, Unreachable,
};
pub use self::explain::{BindAnswer, BindWish};
pub use self::host::{AddressKind, Device, Host};
pub use self::load::Existing;
pub use self::options::SocketOption;
pub use self::release::Close;
pub use self::scope::{Addresses, Scope};
pub use self::stand_in::Taken;
pub use self::time_wait::TIME_WAIT;

pub(crate) use self::keyed::Keyed;
pub(crate) use self::view::Candidate;

use self::arena::Arena;
use self::claim::Claim;
use self::ephemeral::Ephemeral;
use self::groups::Groups;
use self::membership::Memberships;
use self::options::Extras;
use self::records::{Home, Records};
use self::scope::Scopes;
use self::seats::{Order, Orders, Seat};
use self::slab::{NONE, Slab};
use crate::demux::{Flows, FourTuple};

/// The ports of one host. See the [module](self).
#[derive(Debug)]
pub struct PortTable {
    host: Host,
    keyed: Keyed,
    sockets: Arena,
    records: Records,
    seats: Slab<Seat>,
    orders: Orders,
    fast_flows: u64,
    groups: Groups,
    tcp_flows: Flows,
    udp_flows: Flows,
    tcp_scopes: Scopes,
    udp_scopes: Scopes,
    extras: HashMap<u32, Extras, Keyed>,
    memberships: Memberships,
    time_wait: VecDeque<(Duration, SocketId)>,
    now: Duration,
    ephemeral: Ephemeral,
    /// How often something changed that decides who gets a datagram.
    udp_changes: u64,
}

impl PortTable {
    /// An empty table for `host`.
    ///
    /// The secret keys every hash and every choice: two tables with the same secret and the same calls
    /// give the same answers. Whoever faces a network takes it from the system's randomness.
    #[must_use]
    pub fn new(host: Host, secret: [u8; 16]) -> Self {
        let keyed = Keyed::new(secret);
        Self {
            host,
            keyed: keyed.purpose(0),
            sockets: Arena::new(),
            records: Records::new(keyed.purpose(1)),
            seats: Slab::new(),
            orders: Orders::default(),
            fast_flows: 0,
            groups: Groups::new(),
            tcp_flows: Flows::new(keyed.purpose(2)),
            udp_flows: Flows::new(keyed.purpose(3)),
            tcp_scopes: Scopes::default(),
            udp_scopes: Scopes::default(),
            extras: HashMap::with_hasher(keyed.purpose(4)),
            memberships: Memberships::new(keyed.purpose(5)),
            time_wait: VecDeque::new(),
            now: Duration::ZERO,
            ephemeral: Ephemeral::new(keyed.purpose(6)),
            udp_changes: 0,
        }
    }

    /// A new socket, neither bound nor connected.
    pub fn socket(&mut self, transport: Transport, family: Family, owner: Owner) -> SocketId {
        let index = self.sockets.insert();
        self.adopt(index, &Claim::new(transport, family, owner));
        self.sockets.id(index)
    }

    /// The host whose ports these are.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The name of the socket in this place ([`SocketId::place`]), if there is one.
    #[must_use]
    pub fn at_place(&self, place: usize) -> Option<SocketId> {
        self.sockets.at_place(place)
    }

    /// How many sockets there are, TIME-WAIT included.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "this counts, it is no collection")]
    pub const fn len(&self) -> usize {
        self.sockets.len()
    }

    /// The local socket address, whose port is 0 as long as the socket has none.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn local(&self, id: SocketId) -> Result<SocketAddr, NoSuchSocket> {
        let claim = self.claim_of(self.index(id)?);
        Ok(SocketAddr::new(claim.address, claim.port.get()))
    }

    /// The other end, if the socket is connected.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn remote(&self, id: SocketId) -> Result<Option<SocketAddr>, NoSuchSocket> {
        Ok(self.tuple_of(self.index(id)?).map(|tuple| tuple.remote()))
    }

    /// How far the socket has come.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn state(&self, id: SocketId) -> Result<State, NoSuchSocket> {
        Ok(self.claim_of(self.index(id)?).state)
    }

    /// What a socket holds, for a message about it.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn holder(&self, id: SocketId) -> Result<Holder, NoSuchSocket> {
        Ok(Holder::new(&self.claim_of(self.index(id)?)))
    }

    /// Gives up the free room of what grows with connections, but for the places of sockets: a place remembers which
    /// sockets it had. O(n) in what is left.
    pub fn trim(&mut self) {
        self.records.trim();
        self.tcp_flows.trim();
        self.udp_flows.trim();
        self.extras.shrink_to_fit();
        self.time_wait.shrink_to_fit();
    }

    /// The bytes that the sockets, claims and four-tuples are allocated in, free room included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.sockets.bytes()
            + self.records.bytes()
            + self.seats.bytes()
            + self.tcp_flows.bytes()
            + self.udp_flows.bytes()
            + self.time_wait.capacity() * size_of::<(Duration, SocketId)>()
    }

    /// A number that is another one after whatever changes who gets a datagram: as long as it is the same,
    /// [`deliver`](Self::deliver) gives the same answer for the same packet of UDP.
    #[must_use]
    pub const fn udp_version(&self) -> u64 {
        self.udp_changes
    }

    /// How many four-tuples there are, TIME-WAIT included.
    #[must_use]
    pub fn flow_count(&self) -> usize {
        self.tcp_flows.len() + self.udp_flows.len()
    }
}

/// The parts that the operations are made of.
impl PortTable {
    fn index(&self, id: SocketId) -> Result<u32, NoSuchSocket> {
        self.sockets.index(id).ok_or(NoSuchSocket)
    }

    pub(crate) fn id(&self, index: u32) -> SocketId {
        self.sockets.id(index)
    }

    fn claim_of(&self, index: u32) -> Claim {
        let socket = &self.sockets[index];
        let claim = self.records[socket.record].claim;
        match socket.port() {
            Some(port) => Claim { port, ..claim },
            None => claim,
        }
    }

    fn home_of(&self, index: u32) -> Home {
        let socket = &self.sockets[index];
        Home {
            record: socket.record,
            port: socket.port(),
        }
    }

    fn seat_of(&self, index: u32) -> Option<&Seat> {
        self.seats.get(self.sockets[index].seat())
    }

    const fn flows(&self, transport: Transport) -> &Flows {
        match transport {
            Transport::Tcp => &self.tcp_flows,
            Transport::Udp => &self.udp_flows,
        }
    }

    const fn flows_mut(&mut self, transport: Transport) -> &mut Flows {
        match transport {
            Transport::Tcp => &mut self.tcp_flows,
            Transport::Udp => &mut self.udp_flows,
        }
    }

    fn tuple_of(&self, index: u32) -> Option<FourTuple> {
        let claim = self.claim_of(index);
        claim
            .has_flow()
            .then(|| {
                self.flows(claim.transport)
                    .tuple(self.sockets[index].flow_hash(), index)
            })
            .flatten()
    }

    /// Gives the socket another claim: out of the one record, into the other.
    fn adopt(&mut self, index: u32, claim: &Claim) {
        self.adopt_as(index, claim, claim.is_automatic());
    }

    /// The same, where the socket is or is not to be a tenant of its port.
    fn adopt_as(&mut self, index: u32, claim: &Claim, as_tenant: bool) {
        let is_new = self.sockets[index].record == NONE;
        if !is_new && self.claim_of(index) == *claim {
            return;
        }
        // In before out: a port whose only socket changes keeps its memory.
        let home = self.records.enter(claim, as_tenant);
        if !is_new {
            self.unlink(index);
        }
        let first = std::mem::replace(self.records.first_mut(claim.transport, home), index);
        let socket = &mut self.sockets[index];
        socket.record = home.record;
        if socket.port() != home.port {
            socket.set_port(home.port);
        }
        socket.previous = NONE;
        socket.next = first;
        if first != NONE {
            self.sockets[first].previous = index;
        }
        self.note_change(index);
        self.take_seat(index);
    }

    /// Takes the socket out of its record, and the record out of the table with its last socket.
    fn unlink(&mut self, index: u32) {
        self.note_change(index);
        self.leave_seat(index);
        let socket = self.sockets[index];
        if socket.next != NONE {
            self.sockets[socket.next].previous = socket.previous;
        }
        if socket.previous != NONE {
            self.sockets[socket.previous].next = socket.next;
        }
        let (home, transport) = (self.home_of(index), self.candidate(index).transport);
        let first = self.records.first_mut(transport, home);
        if *first == index {
            *first = socket.next;
        }
        self.records.leave(home);
    }

    /// Notes that who gets a datagram may have changed, if the socket is one of UDP.
    fn note_change(&mut self, index: u32) {
        if self.candidate(index).transport == Transport::Udp {
            self.udp_changes += 1;
        }
    }

    /// Enters the socket in the orders of its record, if it has a seat.
    fn take_seat(&mut self, index: u32) {
        self.note_change(index);
        let socket = self.sockets[index];
        if let Some(seat) = self.seats.get(socket.seat()) {
            let record = &mut self.records[socket.record];
            record.scan_order.insert(seat.scan_order, index);
            if record.claim.transport == Transport::Udp {
                record.bind_order.insert(seat.bind_order, index);
            }
        }
    }

    /// Removes the socket from the orders of its record.
    fn leave_seat(&mut self, index: u32) {
        let socket = self.sockets[index];
        if let Some(seat) = self.seats.get(socket.seat()) {
            let record = &mut self.records[socket.record];
            record.scan_order.remove(&seat.scan_order);
            record.bind_order.remove(&seat.bind_order);
        }
    }

    /// Seats the socket at the end of the order where Linux puts it: at the front, but IPv6 sockets with
    /// `SO_REUSEPORT` at the back.
    fn seat(&mut self, index: u32) {
        let claim = self.claim_of(index);
        let order: Order = if claim.family == Family::Ipv6 && claim.reuses_port() {
            self.orders.at_back()
        } else {
            self.orders.at_front()
        };
        let seat = self.seats.insert(Seat::new(order, order));
        self.sockets[index].set_seat(seat);
        self.take_seat(index);
    }

    /// Gives the seat back, and with it the membership in a group.
    fn unseat(&mut self, index: u32) {
        self.leave_group(index);
        self.leave_seat(index);
        let seat = self.sockets[index].seat();
        if seat != NONE {
            self.seats.remove(seat);
            self.sockets[index].set_seat(NONE);
        }
    }

    /// Moves the socket to the front of those that packets look at.
    fn move_to_front(&mut self, index: u32) {
        self.leave_seat(index);
        let order = self.orders.at_front();
        let seat = self.sockets[index].seat();
        if seat != NONE {
            self.seats[seat].scan_order = order;
        }
        self.take_seat(index);
    }

    /// Enters the flow of a socket in the table of four-tuples.
    fn enter_flow(&mut self, index: u32, tuple: &FourTuple) -> u64 {
        let claim = self.claim_of(index);
        let (transport, ask) = (claim.transport, claim.device.is_some());
        // Which of a UDP socket's connects Linux finds at once depends on its seat.
        let ask = ask || transport == Transport::Udp;
        let SocketId { index, generation } = self.sockets.id(index);
        let hash = self.flows_mut(transport).insert(tuple, (index, generation), ask);
        self.sockets[index].set_flow_hash(hash);
        self.note_change(index);
        hash
    }

    /// Removes the flow of a socket, if it has one, from the table of four-tuples.
    fn leave_flow(&mut self, index: u32) {
        let claim = self.claim_of(index);
        if claim.has_flow() {
            let (transport, hash) = (claim.transport, self.sockets[index].flow_hash());
            self.flows_mut(transport).remove(hash, index);
            self.note_change(index);
        }
    }

    /// Takes the socket out of the table.
    fn remove(&mut self, index: u32) {
        self.leave_flow(index);
        self.leave_scope(index);
        self.unseat(index);
        self.forget_stand_in(index);
        self.unlink(index);
        if !self.extras.is_empty()
            && let Some(extras) = self.extras.remove(&index)
        {
            self.memberships.end(&extras.joined);
        }
        self.sockets.remove(index);
    }
}
