//! Who talks to whom by datagrams, and for how long that is remembered.
//!
//! ```text
//!   socket of the program ─▶ Source: one socket of the host ─┬▶ Session with one destination
//!                                                            └▶ Session with another
//! ```
//! All that one socket of the program sends leaves from one port of the host, whomever it is for: RFC 4787 calls that
//! endpoint-independent mapping, and what finds its peers through a rendezvous (WebRTC, QUIC between hosts, games) needs it.
//! Only whom the program has sent to is heard (address and port-dependent filtering).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_stack::{Datagram, EchoRequest};
use slotmap::{SlotMap, new_key_type};
use tokio::task::AbortHandle;

use crate::flows::{FlowGuard, FlowState};
use crate::gate::Limiter;

/// How many sessions there may be, and for how long without a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpLimits {
    /// Pairs of a socket of the program and a destination. Beyond that the one gives way that was idle for longest: one
    /// whose question has its answer before one that was never answered before the others.
    pub sessions: usize,
    /// Sockets of the program; each has a descriptor of the host.
    pub sockets: usize,
    /// A session that was answered lasts so long (RFC 4787, section 4.3, recommends five minutes or more).
    pub stream: Duration,
    /// One that was not lasts so long (the least that RFC 4787 allows).
    pub unanswered: Duration,
    /// One with a name server that has answered all that it was asked lasts so long.
    pub lookup: Duration,
}

impl Default for UdpLimits {
    fn default() -> Self {
        Self {
            sessions: 32_768,
            sockets: 4096,
            stream: Duration::from_secs(300),
            unanswered: Duration::from_secs(120),
            lookup: Duration::from_secs(10),
        }
    }
}

new_key_type! {
    pub(in super::super) struct SessionKey;
}

/// What a session is of.
pub(in super::super) trait Packet: Copy {
    /// The program's end.
    fn inside(&self) -> SocketAddr;
    /// Whom it is for.
    fn destination(&self) -> SocketAddr;
}

impl Packet for Datagram {
    fn inside(&self) -> SocketAddr {
        self.remote
    }

    fn destination(&self) -> SocketAddr {
        self.local
    }
}

/// The identifier of an echo stands for the port.
impl Packet for EchoRequest {
    fn inside(&self) -> SocketAddr {
        SocketAddr::new(self.source, self.identifier)
    }

    fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.destination, 0)
    }
}

/// What a socket of the program and a destination have to do with each other.
#[derive(Debug)]
pub(in super::super) struct Session<P> {
    /// The last packet that the program sent: its ends are those of the session, and errors quote it.
    pub(in super::super) packet: P,
    /// Whom the host sends to.
    pub(in super::super) dial: SocketAddr,
    pub(in super::super) flow: FlowGuard,
    pub(in super::super) limiter: Option<Arc<Limiter>>,
    /// Until when nothing passes, because a limit is reached.
    blocked_until: Option<Instant>,
    /// Datagrams there less those back, as long as that matters.
    unanswered: u32,
    is_answered: bool,
    class: Class,
    used: Instant,
    /// When it took its place in the order in which sessions give way: up to [`GRAIN`] before it was used last.
    queued: Instant,
    older: Option<SessionKey>,
    newer: Option<SessionKey>,
}

impl<P> Session<P> {
    /// Whether a datagram of this length is within the limits of the rule. They count what passes, so one more passes
    /// than there is room for, and then none until that time has gone by.
    pub(in super::super) fn passes(&mut self, now: Instant, len: usize) -> bool {
        let Some(limiter) = &self.limiter else {
            return true;
        };
        if self.blocked_until.is_some_and(|until| now < until) {
            return false;
        }
        let wait = limiter.carry(len as u64, now);
        self.blocked_until = (!wait.is_zero()).then(|| now + wait);
        true
    }
}

/// Sessions that last equally long, in the order in which they give way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Lookup = 0,
    Unanswered = 1,
    Stream = 2,
}

const CLASSES: [Class; 3] = [Class::Lookup, Class::Unanswered, Class::Stream];

/// A socket of the program, by a socket of the host.
#[derive(Debug)]
struct Source<S> {
    socket: Arc<S>,
    /// The task that hears the answers.
    task: AbortHandle,
    /// By whom the host sends to.
    sessions: HashMap<SocketAddr, SessionKey>,
    /// How many datagrams the kernel has dropped, as far as it was counted.
    dropped: u32,
}

impl<S> Drop for Source<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// All sessions; see the [module](self). `S` is a socket of the host, `P` what is sent by it.
#[derive(Debug)]
pub(in super::super) struct Sessions<S, P> {
    limits: UdpLimits,
    sources: HashMap<SocketAddr, Source<S>>,
    sessions: SlotMap<SessionKey, Session<P>>,
    /// By the program's end and the destination.
    by_ends: HashMap<(SocketAddr, SocketAddr), SessionKey>,
    /// Those of each class, the longest idle first.
    queues: [Queue; CLASSES.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    oldest: Option<SessionKey>,
    newest: Option<SessionKey>,
}

/// The order among sessions is as fine as this: a busy one is not moved with every datagram.
const GRAIN: Duration = Duration::from_secs(1);

impl<S, P: Packet> Sessions<S, P> {
    pub(in super::super) fn new(limits: UdpLimits) -> Self {
        Self {
            limits,
            sources: HashMap::new(),
            sessions: SlotMap::with_key(),
            by_ends: HashMap::new(),
            queues: Default::default(),
        }
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub(in super::super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(in super::super) fn find(&self, inside: SocketAddr, destination: SocketAddr) -> Option<SessionKey> {
        self.by_ends.get(&(inside, destination)).copied()
    }

    /// The session of a socket of the program with one whom the host has sent to.
    pub(in super::super) fn find_dialled(&self, inside: SocketAddr, dial: SocketAddr) -> Option<SessionKey> {
        self.sources.get(&inside)?.sessions.get(&dial).copied()
    }

    pub(in super::super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session<P>> {
        self.sessions.get_mut(key)
    }

    /// The socket of the host for a socket of the program.
    pub(in super::super) fn socket(&self, inside: SocketAddr) -> Option<Arc<S>> {
        Some(Arc::clone(&self.sources.get(&inside)?.socket))
    }

    /// Makes room for one more session, and for one more socket if it needs one. Says how many sessions gave way.
    pub(in super::super) fn make_room(&mut self, needs_socket: bool) -> usize {
        let mut given_way = 0;
        while self.sessions.len() >= self.limits.sessions.max(1)
            || (needs_socket && self.sources.len() >= self.limits.sockets.max(1))
        {
            let Some(oldest) = self.queues.iter().find_map(|queue| queue.oldest) else {
                break;
            };
            if self.takes_its_place(oldest) {
                continue;
            }
            self.close(oldest);
            given_way += 1;
        }
        given_way
    }

    /// Notes the socket of the host for a socket of the program, and the task that hears it.
    pub(in super::super) fn add_source(&mut self, inside: SocketAddr, socket: Arc<S>, task: AbortHandle) {
        let source = Source {
            socket,
            task,
            sessions: HashMap::new(),
            dropped: 0,
        };
        self.sources.insert(inside, source);
    }

    /// Begins a session for a packet; there must be a source for it.
    pub(in super::super) fn open(
        &mut self,
        now: Instant,
        packet: P,
        dial: SocketAddr,
        flow: FlowGuard,
        limiter: Option<Arc<Limiter>>,
    ) -> Option<SessionKey> {
        let ends = (packet.inside(), packet.destination());
        let source = self.sources.get_mut(&ends.0)?;
        let key = self.sessions.insert(Session {
            packet,
            dial,
            flow,
            limiter,
            blocked_until: None,
            unanswered: 0,
            is_answered: false,
            class: Class::Unanswered,
            used: now,
            queued: now,
            older: None,
            newer: None,
        });
        source.sessions.insert(dial, key);
        self.by_ends.insert(ends, key);
        self.append(key);
        Some(key)
    }

    /// The program sent datagrams.
    pub(in super::super) fn sent(&mut self, key: SessionKey, now: Instant, count: u32) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.unanswered = session.unanswered.saturating_add(count);
            self.use_now(key, now);
        }
    }

    /// The destination answered.
    pub(in super::super) fn heard(&mut self, key: SessionKey, now: Instant, count: u32) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.unanswered = session.unanswered.saturating_sub(count);
            if !session.is_answered {
                session.is_answered = true;
                session.flow.set_state(FlowState::Open);
            }
            self.use_now(key, now);
        }
    }

    /// Ends what was idle for too long.
    pub(in super::super) fn expire(&mut self, now: Instant) {
        for class in CLASSES {
            let lasts = self.lasts(class);
            while let Some(oldest) = self.queues[class as usize].oldest {
                let used = self.sessions.get(oldest).map(|session| session.used);
                if used.is_some_and(|used| now.saturating_duration_since(used) < lasts) {
                    break;
                }
                self.close(oldest);
            }
        }
    }

    /// The kernel says how many datagrams it has dropped so far; gives how many of those are new.
    pub(in super::super) fn note_dropped(&mut self, inside: SocketAddr, dropped: u32) -> u32 {
        let Some(source) = self.sources.get_mut(&inside) else {
            return 0;
        };
        dropped.wrapping_sub(std::mem::replace(&mut source.dropped, dropped))
    }

    /// Ends a source of which nothing came.
    pub(in super::super) fn drop_source_without_sessions(&mut self, inside: SocketAddr) {
        if self
            .sources
            .get(&inside)
            .is_some_and(|source| source.sessions.is_empty())
        {
            self.sources.remove(&inside);
        }
    }

    /// Ends all of a socket of the program.
    pub(in super::super) fn close_source(&mut self, inside: SocketAddr) {
        let Some(source) = self.sources.remove(&inside) else {
            return;
        };
        for &key in source.sessions.values() {
            self.close(key);
        }
    }

    /// Ends everything.
    pub(in super::super) fn clear(&mut self) {
        *self = Self::new(self.limits);
    }

    fn close(&mut self, key: SessionKey) {
        self.unlink(key);
        let Some(session) = self.sessions.remove(key) else {
            return;
        };
        let ends = (session.packet.inside(), session.packet.destination());
        self.by_ends.remove(&ends);
        if let Some(source) = self.sources.get_mut(&ends.0) {
            // Another destination may lead to the same place, and be newer.
            if source.sessions.get(&session.dial) == Some(&key) {
                source.sessions.remove(&session.dial);
            }
            if source.sessions.is_empty() {
                self.sources.remove(&ends.0);
            }
        }
        if self.sessions.is_empty() {
            // What very many sessions took is given back.
            self.clear();
        }
    }

    const fn lasts(&self, class: Class) -> Duration {
        match class {
            Class::Lookup => self.limits.lookup,
            Class::Unanswered => self.limits.unanswered,
            Class::Stream => self.limits.stream,
        }
    }

    fn use_now(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let class = match session.is_answered {
            false => Class::Unanswered,
            true if session.dial.port() == DOMAIN && session.unanswered == 0 => Class::Lookup,
            true => Class::Stream,
        };
        let is_moved = class != session.class || now.saturating_duration_since(session.queued) >= GRAIN;
        if is_moved {
            self.unlink(key);
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.class = class;
            session.used = now;
        }
        if is_moved {
            self.requeue(key);
        }
    }

    /// Moves a session that has been used since it took its place behind those that have not: else a flood of new ones
    /// within [`GRAIN`] would end a busy one before the first of its own.
    fn takes_its_place(&mut self, key: SessionKey) -> bool {
        let is_late = self
            .sessions
            .get(key)
            .is_some_and(|session| session.queued < session.used);
        if is_late {
            self.unlink(key);
            self.requeue(key);
        }
        is_late
    }

    fn requeue(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.queued = session.used;
        }
        self.append(key);
    }

    /// Puts a session behind all others of its class.
    fn append(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let queue = &mut self.queues[session.class as usize];
        session.newer = None;
        session.older = queue.newest.replace(key);
        match session.older {
            None => queue.oldest = Some(key),
            Some(older) => {
                if let Some(older) = self.sessions.get_mut(older) {
                    older.newer = Some(key);
                }
            }
        }
    }

    fn unlink(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let (class, older, newer) = (session.class as usize, session.older, session.newer);
        match older.and_then(|older| self.sessions.get_mut(older)) {
            Some(older) => older.newer = newer,
            None => self.queues[class].oldest = newer,
        }
        match newer.and_then(|newer| self.sessions.get_mut(newer)) {
            Some(newer) => newer.older = older,
            None => self.queues[class].newest = older,
        }
    }
}

/// The port of name servers.
const DOMAIN: u16 = 53;
