//! Datagrams out.
//!
//! ```text
//!   program ─▶ one socket of the stack for every destination ─▶ Burst ─▶ sendmmsg, in pieces ─▶ world
//!           ◀─                            task of each Source ◀─ recvmmsg, error queue       ◀─
//! ```

mod burst;
pub(super) mod sessions;
pub(super) mod socket;
pub(super) mod sys;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_core::table::Scope;
use portolan_core::wire::UnreachableCode;
use portolan_net::{Stack, UdpSocket};
use portolan_relay::Side;
use portolan_stack::{Datagram, HeaderFields, IcmpError};
use rustix::io::Errno;
use tokio::time::MissedTickBehavior;

use self::burst::{Burst, Run};
pub use self::sessions::UdpLimits;
use self::sessions::{SessionKey, Sessions};
use self::socket::{HostSocket, told};
use self::sys::{Outgoing, Received, SENT_AT_ONCE};
use super::answer::{Answer, is_no_room};
use super::{OutboundCounters, OutboundOptions};
use crate::flows::{Direction, FlowInfo, FlowProtocol, Flows};
use crate::gate::Gate;
use crate::links::Links;

/// Says whether a datagram from the first address to the second was an answer to somebody else, and has been passed on.
pub(super) type Elsewhere = Box<dyn Fn(SocketAddr, SocketAddr, &[u8]) -> bool + Send + Sync>;

/// Takes datagrams to every destination.
pub(super) struct Datagrams {
    gate: Gate,
    flows: Flows,
    shared: Arc<Shared>,
    pub(super) elsewhere: Option<Elsewhere>,
    pub(super) links: Links,
}

/// What the tasks of all sources share.
#[derive(Debug)]
struct Shared {
    socket: Arc<UdpSocket>,
    sessions: Mutex<Sessions<HostSocket, Datagram>>,
    counters: Arc<OutboundCounters>,
}

/// How often it is looked for sessions that are over.
const TICK: Duration = Duration::from_secs(1);

impl Datagrams {
    pub(super) fn new(
        stack: &Stack,
        gate: Gate,
        flows: Flows,
        options: OutboundOptions,
        counters: Arc<OutboundCounters>,
    ) -> io::Result<Self> {
        Ok(Self {
            gate,
            flows,
            shared: Arc::new(Shared {
                socket: Arc::new(UdpSocket::bind_scope(stack, Scope::TRANSPARENT)?),
                sessions: Mutex::new(Sessions::new(options.udp)),
                counters,
            }),
            elsewhere: None,
            links: Links::default(),
        })
    }

    pub(super) fn socket(&self) -> Arc<UdpSocket> {
        Arc::clone(&self.shared.socket)
    }

    /// Takes them until the driver of the stack ends.
    pub(super) async fn run(self) -> io::Result<()> {
        let mut burst = Burst::new();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_sessions = !self.shared.sessions().is_empty();
            let room = burst.room().expect("an empty burst has room for any datagram");
            tokio::select! {
                first = self.shared.socket.recv_msg(room) => {
                    self.take(&mut burst, &first?);
                    while let Some(room) = burst.room() {
                        match self.shared.socket.try_recv_msg(room) {
                            Ok(datagram) => self.take(&mut burst, &datagram),
                            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                            Err(error) => return Err(error),
                        }
                    }
                    self.flush(&mut burst);
                    // There may always be more; the driver and the answers have their turn in between.
                    tokio::task::yield_now().await;
                }
                _ = tick.tick(), if has_sessions => self.shared.sessions().expire(Instant::now()),
            }
        }
    }

    /// Finds out whom a datagram is for, and keeps it until the burst goes.
    fn take(&self, burst: &mut Burst, datagram: &Datagram) {
        if burst.append(datagram) {
            return;
        }
        let (inside, destination) = (datagram.remote, datagram.local);
        if let Some(elsewhere) = &self.elsewhere
            && elsewhere(inside, destination, burst.last(datagram))
        {
            return;
        }
        if let Some(is_up) = self.links.is_up(destination.ip()) {
            if let Err(answer) = self.link(datagram, burst.last(datagram), is_up) {
                self.answer(datagram, burst.last(datagram), answer);
            }
            return;
        }
        let now = Instant::now();
        let mut sessions = self.shared.sessions();
        let key = match sessions.find(inside, destination) {
            Some(key) => key,
            None => match self.open(&mut sessions, now, datagram) {
                Ok(key) => key,
                Err(answer) => {
                    drop(sessions);
                    return self.answer(datagram, burst.last(datagram), answer);
                }
            },
        };
        let socket = sessions.socket(inside);
        if let (Some(session), Some(socket)) = (sessions.get_mut(key), socket) {
            if session.limiter.is_some() && !session.passes(now, datagram.len) {
                OutboundCounters::count(&self.shared.counters.limited);
                return;
            }
            let is_alone = session.limiter.is_some();
            burst.begin(key, socket, session.dial, datagram, is_alone);
        }
    }

    /// Begins a session with a linked space, if that is allowed, by a datagram to it.
    fn link(&self, datagram: &Datagram, bytes: &[u8], is_up: bool) -> Result<(), Answer> {
        let (inside, destination) = (datagram.remote, datagram.local);
        if self.gate.ask(FlowProtocol::Udp, destination).is_err() {
            OutboundCounters::count(&self.shared.counters.denied);
            return Err(Answer::to_denied(self.gate.deny_with()));
        }
        if !is_up {
            return Err(Answer::Unreachable(UnreachableCode::Host));
        }
        if !self.links.begin(inside, destination) || !self.links.pass_on(inside, destination, bytes) {
            OutboundCounters::count(&self.shared.counters.no_room);
        }
        Ok(())
    }

    /// Begins a session, if that is allowed.
    fn open(
        &self,
        sessions: &mut Sessions<HostSocket, Datagram>,
        now: Instant,
        datagram: &Datagram,
    ) -> Result<SessionKey, Answer> {
        let counters = &self.shared.counters;
        let (inside, destination) = (datagram.remote, datagram.local);
        let Ok(pass) = self.gate.ask(FlowProtocol::Udp, destination) else {
            OutboundCounters::count(&counters.denied);
            return Err(Answer::to_denied(self.gate.deny_with()));
        };
        let needs_socket = sessions.socket(inside).is_none();
        OutboundCounters::add(&counters.evicted, sessions.make_room(needs_socket));
        // It may have been the last session of its socket that gave way.
        if sessions.socket(inside).is_none() {
            let socket = HostSocket::new(pass.dial.is_ipv4()).map_err(|error| {
                if is_no_room(&error) {
                    OutboundCounters::count(&counters.no_room);
                }
                Answer::to_error(&error)
            })?;
            let socket = Arc::new(socket);
            let hearing = hear(Arc::clone(&self.shared), Arc::clone(&socket), inside);
            sessions.add_source(inside, socket, tokio::spawn(hearing).abort_handle());
        }
        let flow = self.flows.open(FlowInfo {
            protocol: FlowProtocol::Udp,
            direction: Direction::Out,
            inside,
            outside: destination,
            rule: Arc::clone(&pass.rule),
        });
        let limiter = pass.limiter.filter(|limiter| limiter.limits_bytes());
        // The flows count those for which there is no room.
        let key = flow
            .ok()
            .and_then(|flow| sessions.open(now, *datagram, pass.dial, flow, limiter));
        key.ok_or_else(|| {
            sessions.drop_source_without_sessions(inside);
            Answer::Refused
        })
    }

    fn answer(&self, datagram: &Datagram, start: &[u8], answer: Answer) {
        let why = match answer {
            Answer::Refused => UnreachableCode::Port,
            Answer::Unreachable(why) => why,
            Answer::Silence => return,
        };
        self.shared.reject(datagram, start, IcmpError::Unreachable(why));
    }

    /// Sends what was kept.
    fn flush(&self, burst: &mut Burst) {
        let mut rest = &burst.runs[..];
        while let Some(first) = rest.first() {
            let goes_along =
                |run: &&Run| Arc::ptr_eq(&run.socket, &first.socket) && run.fields() == first.fields();
            let (runs, others) = rest.split_at(rest.iter().take_while(goes_along).count());
            self.send(burst, runs);
            rest = others;
        }
        let now = Instant::now();
        let mut sessions = self.shared.sessions();
        for run in &burst.runs {
            if let Some(session) = sessions.get_mut(run.session) {
                session.packet = run.datagram;
                session
                    .flow
                    .count(Side::One, run.count.into(), burst.bytes(run).len());
                sessions.sent(run.session, now, run.count);
            }
        }
        drop(sessions);
        burst.clear();
    }

    /// Sends runs of one socket.
    fn send(&self, burst: &Burst, runs: &[Run]) {
        let Some(first) = runs.first() else {
            return;
        };
        let socket = &*first.socket;
        socket.set_fields(first.fields());
        let mut next = 0;
        let mut tried_again = false;
        while let Some(run) = runs.get(next) {
            let sent = if socket.takes_pieces() {
                let mut outgoing = [run.together(burst.bytes(run)); SENT_AT_ONCE];
                let rest = &runs[next..];
                for (outgoing, run) in outgoing.iter_mut().zip(rest) {
                    *outgoing = run.together(burst.bytes(run));
                }
                socket.send(&outgoing[..rest.len().min(SENT_AT_ONCE)])
            } else {
                self.send_apart(socket, run, burst.bytes(run)).map(|()| 1)
            };
            let error = match sent {
                Ok(sent) => {
                    next += sent;
                    tried_again = false;
                    continue;
                }
                Err(error) => error,
            };
            let lost = |count: u32| OutboundCounters::add(&self.shared.counters.lost, count as usize);
            match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => lost(run.count),
                // The device cannot, or a piece is longer than its packets.
                Some(Errno::IO | Errno::INVAL | Errno::MSGSIZE) if run.count > 1 && socket.takes_pieces() => {
                    if Errno::from_io_error(&error) == Some(Errno::IO) {
                        socket.refuses_pieces();
                    }
                    if self.send_apart(socket, run, burst.bytes(run)).is_err() {
                        lost(run.count);
                    }
                }
                // It may be an error of an earlier datagram, which is told once.
                _ if !tried_again => {
                    tried_again = true;
                    self.shared.tell_errors(socket, run.datagram.remote);
                    continue;
                }
                _ => {
                    lost(run.count);
                    self.answer(&run.datagram, &[], Answer::to_error(&error));
                }
            }
            tried_again = false;
            next += 1;
        }
    }

    /// Sends the datagrams of a run one by one.
    fn send_apart(&self, socket: &HostSocket, run: &Run, bytes: &[u8]) -> io::Result<()> {
        let outgoing: Vec<Outgoing<'_>> = run.apart(bytes).collect();
        let mut rest = &outgoing[..];
        while !rest.is_empty() {
            let sent = socket.send(rest)?;
            rest = &rest[sent..];
        }
        Ok(())
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        // The tasks of the sources end with them.
        self.shared.sessions().clear();
    }
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams")
            .field("sessions", &self.shared.sessions().len())
            .finish_non_exhaustive()
    }
}

/// Hears the answers to a socket of the program, and the errors.
async fn hear(shared: Arc<Shared>, socket: Arc<HostSocket>, inside: SocketAddr) {
    loop {
        let Ok(ready) = socket.ready().await else {
            return shared.sessions().close_source(inside);
        };
        if ready.is_error() {
            shared.tell_errors(&socket, inside);
        }
        if ready.is_readable() {
            let received = socket.receive(|received| shared.pass_on(received, inside));
            // An error comes by its queue as well.
            for Waiting { from, fields, bytes } in received.unwrap_or_default() {
                if shared
                    .socket
                    .pass_on(&bytes, fields, (from, inside))
                    .await
                    .is_err()
                {
                    OutboundCounters::count(&shared.counters.lost);
                }
            }
        }
    }
}

/// A datagram that found no room in the stack, and whom it is from.
struct Waiting {
    from: SocketAddr,
    fields: HeaderFields,
    bytes: Vec<u8>,
}

impl Shared {
    /// Passes on the answers that are there, a batch at most. Gives those for which there is no room yet.
    fn pass_on(&self, received: &Received, inside: SocketAddr) -> Vec<Waiting> {
        let mut waiting = Vec::new();
        let now = Instant::now();
        let mut sessions = self.sessions();
        for arrived in received.iter() {
            if let Some(dropped) = arrived.dropped {
                let new = sessions.note_dropped(inside, dropped);
                OutboundCounters::add(&self.counters.overflowed, new as usize);
            }
            let piece_len = arrived
                .piece_len
                .map_or(arrived.bytes.len(), |len| len.get().into());
            let pieces = arrived.bytes.len().div_ceil(piece_len.max(1)).max(1);
            let key = sessions.find_dialled(inside, arrived.from);
            let Some((key, session)) = key.and_then(|key| Some((key, sessions.get_mut(key)?))) else {
                OutboundCounters::add(&self.counters.unasked, pieces);
                continue;
            };
            if session.limiter.is_some() && !session.passes(now, arrived.bytes.len()) {
                OutboundCounters::add(&self.counters.limited, pieces);
                continue;
            }
            let from = session.packet.local;
            session
                .flow
                .count(Side::Other, pieces as u64, arrived.bytes.len());
            sessions.heard(key, now, pieces as u32);
            // Together if they may; one by one if there is no room for all, or one does not fit into a packet.
            let fields = arrived.fields;
            let pass_on =
                |bytes, piece_len| self.socket.try_pass_on(bytes, piece_len, fields, (from, inside));
            if arrived.piece_len.is_some()
                && waiting.is_empty()
                && pass_on(arrived.bytes, arrived.piece_len).is_ok()
            {
                continue;
            }
            for number in 0..pieces {
                let end = ((number + 1) * piece_len).min(arrived.bytes.len());
                let piece = &arrived.bytes[number * piece_len..end];
                let kept = || Waiting {
                    from,
                    fields,
                    bytes: piece.to_vec(),
                };
                if !waiting.is_empty() {
                    waiting.push(kept());
                    continue;
                }
                match pass_on(piece, None) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => waiting.push(kept()),
                    Err(_) => OutboundCounters::count(&self.counters.lost),
                }
            }
        }
        waiting
    }

    /// Tells the program what became of datagrams of one of its sockets.
    fn tell_errors(&self, socket: &HostSocket, inside: SocketAddr) {
        while let Ok(Some(error)) = socket.next_error() {
            let mut sessions = self.sessions();
            let key = sessions.find_dialled(inside, error.to);
            let session = key.and_then(|key| sessions.get_mut(key));
            if let (Some(why), Some(session)) = (told(&error), session) {
                let mut datagram = session.packet;
                datagram.len = datagram.len.max(error.len);
                drop(sessions);
                self.reject(&datagram, &error.start[..error.len], why);
            }
        }
    }

    fn reject(&self, datagram: &Datagram, start: &[u8], why: IcmpError) {
        if self.socket.reject(datagram, start, why).is_err() {
            OutboundCounters::count(&self.counters.lost);
        }
    }

    /// No code that holds the lock can leave the sessions half changed, so a panic elsewhere does not matter.
    fn sessions(&self) -> MutexGuard<'_, Sessions<HostSocket, Datagram>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
