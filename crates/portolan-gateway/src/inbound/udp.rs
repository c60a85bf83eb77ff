//! UDP in: a session for each client, which the program sees with the client's own address and port.
//!
//! ```text
//!   client ─▶ Room::receive ─▶ Run ─▶ Sessions::send ─▶ stack ─▶ program
//!          ◀─ send_from ◀──────────── Sessions::answer ◀──────────
//! ```
//!
//! Answers leave from the address of the host that the client sent to. If nobody listens inside, the client hears
//! nothing: only the host's own kernel could tell it, and it has a socket there.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_net::UdpSocket;
use portolan_relay::Side;

use super::batch::{self, Received, Room};
use super::client::Way;
use super::doors::Door;
use super::publisher::Hall;
use super::run::Run;
use super::tcp::canonical;
use crate::flows::{Direction, FlowGuard, FlowInfo, FlowProtocol, FlowState};

/// Batches of one port before others have their turn.
const BURST: usize = 2;

/// Limits of sessions with clients of published UDP ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// One in which nothing moved for so long is over (RFC 4787, section 4.3: two minutes or more).
    pub idle: Duration,
    /// The same for one that the program has never answered.
    pub unanswered: Duration,
    /// The most there may be; a datagram that would need one more is dropped and counted. Each is some 600 bytes.
    pub sessions: usize,
    /// The most of them for one client's address, so that one cannot take all.
    pub sessions_per_client: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(120),
            unanswered: Duration::from_secs(30),
            sessions: 32_768,
            sessions_per_client: 16_384,
        }
    }
}

/// What became of the datagrams of published ports.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct DatagramCounters {
    /// Those of clients that were sent on.
    pub sent: AtomicU64,
    /// Answers that were passed on.
    pub answered: AtomicU64,
    /// Those dropped because there are too many sessions, or since their client is not admitted.
    pub refused: AtomicU64,
    /// Those that the stack or the host did not take.
    pub lost: AtomicU64,
}

/// The sessions of all published UDP ports.
#[derive(Debug)]
pub(super) struct Sessions {
    socket: Arc<UdpSocket>,
    limits: SessionLimits,
    pub(super) counters: Arc<DatagramCounters>,
    begun: Instant,
    table: Mutex<Table>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Table {
    by_client: HashMap<ClientKey, Arc<Session>>,
    /// By the ends that the program sees: its own and the client's.
    by_inside: HashMap<(SocketAddr, SocketAddr), Arc<Session>>,
    /// How many sessions each door has.
    doors: HashMap<u64, usize>,
    /// How many sessions each client's address has.
    clients: HashMap<IpAddr, usize>,
}

/// Who a datagram is from: door, the address of the host that it came to, and client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ClientKey {
    door: u64,
    local: Option<IpAddr>,
    client: SocketAddr,
}

#[derive(Debug)]
pub(super) struct Session {
    key: ClientKey,
    /// The client as the door's socket says it.
    client: SocketAddr,
    door: Arc<Door>,
    way: Way,
    flow: FlowGuard,
    /// When something moved, in seconds after `begun`.
    moved: AtomicU32,
    is_answered: AtomicBool,
}

impl Session {
    /// Whether a datagram that came to its door is of it.
    pub(super) fn is_of(&self, received: &Received<'_>) -> bool {
        self.client == received.client && self.key.local == received.local
    }
}

/// Ports of the gateway, and of clients whose own port is taken, for sessions.
const PORTS: std::ops::Range<u16> = 32_768..61_000;
/// How often sessions are looked at.
const SWEEP: Duration = Duration::from_secs(5);

impl Sessions {
    pub(super) fn new(socket: Arc<UdpSocket>, limits: SessionLimits) -> Self {
        Self {
            socket,
            limits,
            counters: Arc::default(),
            begun: Instant::now(),
            table: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    fn now(&self) -> u32 {
        self.begun.elapsed().as_secs() as u32
    }

    /// The session of a client, a new one if it has none; `None` if it may not have one.
    fn session(&self, hall: &Hall, door: &Arc<Door>, received: &Received<'_>) -> Option<Arc<Session>> {
        let key = ClientKey {
            door: door.number,
            local: received.local,
            client: received.client,
        };
        let mut table = self.table();
        if let Some(session) = table.by_client.get(&key) {
            return Some(Arc::clone(session));
        }
        let client = canonical(received.client);
        let of_client = table.clients.get(&client.ip()).copied().unwrap_or(0);
        if door.is_closed.load(Ordering::Relaxed)
            || table.by_client.len() >= self.limits.sessions
            || of_client >= self.limits.sessions_per_client
            || !hall.admits(&door.published, client)
        {
            return None;
        }
        let published = door.published;
        let way = hall.faces.way(client, published.target, published.inner.get())?;
        let way = self.free_way(&table, way, client)?;
        let info = FlowInfo {
            protocol: FlowProtocol::Udp,
            direction: Direction::In,
            inside: way.destination,
            outside: client,
            rule: door.rule(),
        };
        let session = Arc::new(Session {
            key,
            client: received.client,
            door: Arc::clone(door),
            way,
            flow: hall.flows.open(info).ok()?,
            moved: AtomicU32::new(self.now()),
            is_answered: AtomicBool::new(false),
        });
        table.by_client.insert(key, Arc::clone(&session));
        table
            .by_inside
            .insert((way.destination, way.source), Arc::clone(&session));
        *table.clients.entry(client.ip()).or_default() += 1;
        *table.doors.entry(key.door).or_default() += 1;
        Some(session)
    }

    /// The way with a source that no other session has: the client's own if it can be, else another port.
    fn free_way(&self, table: &Table, way: Way, client: SocketAddr) -> Option<Way> {
        let is_free = |way: &Way| !table.by_inside.contains_key(&(way.destination, way.source));
        if way.source.port() != 0 && is_free(&way) {
            return Some(way);
        }
        // From a place that is always the same for a client, and that nobody outside can guess.
        let start = self.hasher.hash_one((client, way.destination)) as usize;
        let ports = PORTS.len();
        (0..ports)
            .map(|step| Way {
                source: SocketAddr::new(
                    way.source.ip(),
                    PORTS.start + ((start.wrapping_add(step)) % ports) as u16,
                ),
                ..way
            })
            .find(is_free)
    }

    /// Sends a client's datagrams on, and forgets them.
    fn send(&self, run: &mut Run) {
        let Some(session) = run.session() else {
            return;
        };
        let Way { source, destination } = session.way;
        let together = run.piece_len().is_some_and(|piece_len| {
            // Refused for want of room, or since one does not fit into a packet: one by one then.
            self.socket
                .try_send_pieces(run.bytes(), piece_len, source, destination)
                .is_ok()
        });
        let (mut packets, mut bytes) = (run.count(), run.bytes().len());
        if !together {
            for datagram in run.pieces() {
                if self.socket.try_send_msg(datagram, source, destination).is_err() {
                    packets -= 1;
                    bytes -= datagram.len();
                }
            }
        }
        let lost = run.count() - packets;
        self.counters.lost.fetch_add(lost as u64, Ordering::Relaxed);
        self.counters.sent.fetch_add(packets as u64, Ordering::Relaxed);
        session.flow.count(Side::Other, packets as u64, bytes);
        run.clear();
    }

    /// Passes on a datagram of the program, if it is an answer to a client.
    pub(super) fn answer(&self, inside: SocketAddr, outside: SocketAddr, bytes: &[u8]) -> bool {
        let Some(session) = self.table().by_inside.get(&(inside, outside)).cloned() else {
            return false;
        };
        session.moved.store(self.now(), Ordering::Relaxed);
        session.is_answered.store(true, Ordering::Relaxed);
        session.flow.set_state(FlowState::Open);
        match batch::send_from(&session.door.socket, session.key.local, session.client, bytes) {
            Ok(()) => {
                self.counters.answered.fetch_add(1, Ordering::Relaxed);
                session.flow.count(Side::One, 1, bytes.len());
            }
            Err(_) => {
                self.counters.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        true
    }

    /// Whether a door has clients.
    pub(super) fn has_clients(&self, door: &Door) -> bool {
        self.table().doors.contains_key(&door.number)
    }

    /// Ends the sessions that are over, and those of doors for which `is_over` says so.
    pub(super) fn sweep(&self, is_over: impl Fn(&Door) -> bool) {
        let now = self.now();
        let table = &mut *self.table();
        let Table {
            by_client,
            by_inside,
            doors,
            clients,
        } = table;
        by_client.retain(|_, session| {
            let idle =
                Duration::from_secs(u64::from(now.wrapping_sub(session.moved.load(Ordering::Relaxed))));
            let limit = if session.is_answered.load(Ordering::Relaxed) {
                self.limits.idle
            } else {
                self.limits.unanswered
            };
            if idle < limit && !is_over(&session.door) {
                return true;
            }
            by_inside.remove(&(session.way.destination, session.way.source));
            less(doors, &session.key.door);
            less(clients, &canonical(session.client).ip());
            false
        });
        if by_client.is_empty() {
            // What a great many took is given back.
            *table = Table::default();
        }
    }

    /// Nothing that holds the lock can leave the table half changed, so a panic elsewhere does not matter.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One less of these; none is no entry.
fn less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Takes what waits at a door, a burst at most, and sends it on.
pub(super) fn receive(hall: &Hall, door: &Arc<Door>, room: &mut Room, run: &mut Run) {
    let sessions = &hall.sessions;
    let now = sessions.now();
    for _ in 0..BURST {
        let more = room.receive(&door.socket, |received| {
            if run.append(&received) {
                return;
            }
            // Most datagrams come in runs of one client.
            let last = run
                .session()
                .filter(|session| session.is_of(&received))
                .map(Arc::clone);
            sessions.send(run);
            match last.or_else(|| sessions.session(hall, door, &received)) {
                Some(session) => {
                    session.moved.store(now, Ordering::Relaxed);
                    run.begin(session, &received);
                }
                None => {
                    sessions.counters.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        sessions.send(run);
        match more {
            Ok(true) => {}
            // An ICMP error of an answer says nothing of the others.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(false) | Err(_) => return,
        }
    }
}

/// Ends what is over, now and then, for as long as there are ports.
pub(super) async fn sweep(hall: Arc<Hall>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        hall.sessions.sweep(|_| false);
        hall.doors.close_unused(|door| hall.sessions.has_clients(door));
    }
}
