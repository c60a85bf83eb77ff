//! Pings out: ICMP echo by ping sockets of the host, where it gives them to us.
//!
//! A program that pings has an identifier; it gets a ping socket of the host for it, which has another. Where
//! `net.ipv4.ping_group_range` keeps us from that, the program is told that pings are prohibited, and it is counted.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_core::wire::UnreachableCode;
use portolan_net::{EchoResponder, Stack};
use portolan_relay::Side;
use portolan_stack::{EchoRequest, HeaderFields, IcmpError};
use rustix::io::Errno;
use socket2::SockAddr;
use tokio::time::MissedTickBehavior;

use super::answer::{Answer, is_no_room};
use super::udp::UdpLimits;
use super::udp::sessions::{Packet as _, SessionKey, Sessions};
use super::udp::socket::{HostSocket, told};
use super::udp::sys::{LONGEST, Outgoing, Received};
use super::{OutboundCounters, OutboundOptions};
use crate::flows::{Direction, FlowInfo, FlowProtocol, Flows};
use crate::gate::Gate;
use crate::links::Links;

/// How many pings there may be, and for how long without a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoLimits {
    /// Pairs of an identifier and a destination. Beyond that the one gives way that was idle for longest.
    pub sessions: usize,
    /// Identifiers; each has a descriptor of the host.
    pub sockets: usize,
    /// A pair lasts so long (RFC 5508, section 3.2: a minute or more).
    pub idle: Duration,
}

impl Default for EchoLimits {
    fn default() -> Self {
        Self {
            sessions: 1024,
            sockets: 256,
            idle: Duration::from_secs(60),
        }
    }
}

/// Takes pings for everybody.
#[derive(Debug)]
pub(super) struct Echoes {
    gate: Gate,
    flows: Flows,
    shared: Arc<Shared>,
    pub(super) links: Links,
}

#[derive(Debug)]
struct Shared {
    responder: EchoResponder,
    sessions: Mutex<Sessions<HostSocket, EchoRequest>>,
    counters: Arc<OutboundCounters>,
}

/// How often it is looked for sessions that are over.
const TICK: Duration = Duration::from_secs(1);
/// The header of an echo, in bytes: type, code, checksum, identifier, sequence number.
const HEADER_LEN: usize = 8;
/// Types of ICMP and ICMPv6.
const ECHO_V4: (u8, u8) = (8, 0);
const ECHO_V6: (u8, u8) = (128, 129);

impl Echoes {
    pub(super) fn new(
        stack: &Stack,
        gate: Gate,
        flows: Flows,
        options: OutboundOptions,
        counters: Arc<OutboundCounters>,
    ) -> io::Result<Self> {
        let EchoLimits {
            sessions,
            sockets,
            idle,
        } = options.echo;
        let limits = UdpLimits {
            sessions,
            sockets,
            stream: idle,
            unanswered: idle,
            lookup: idle,
        };
        Ok(Self {
            gate,
            flows,
            shared: Arc::new(Shared {
                responder: EchoResponder::bind(stack)?,
                sessions: Mutex::new(Sessions::new(limits)),
                counters,
            }),
            links: Links::default(),
        })
    }

    /// Takes them until the driver of the stack ends.
    pub(super) async fn run(self) -> io::Result<()> {
        let mut bytes = vec![0; LONGEST];
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_sessions = !self.shared.sessions().is_empty();
            tokio::select! {
                request = self.shared.responder.recv(&mut bytes[HEADER_LEN..]) => {
                    let request = request?;
                    let len = request.len.min(LONGEST - HEADER_LEN);
                    if let Err(answer) = self.pass_on(&request, &mut bytes[..HEADER_LEN + len]) {
                        self.answer(&request, &bytes[HEADER_LEN..HEADER_LEN + len], answer);
                    }
                    tokio::task::consume_budget().await;
                }
                _ = tick.tick(), if has_sessions => self.shared.sessions().expire(Instant::now()),
            }
        }
    }

    /// Sends a request, for which there is room for a header before its data.
    fn pass_on(&self, request: &EchoRequest, message: &mut [u8]) -> Result<(), Answer> {
        let now = Instant::now();
        let (inside, destination) = (request.inside(), request.destination());
        if let Some(is_up) = self.links.is_up(destination.ip()) {
            return self.link(request, &message[HEADER_LEN..], is_up);
        }
        let mut sessions = self.shared.sessions();
        let key = match sessions.find(inside, destination) {
            Some(key) => key,
            None => self.open(&mut sessions, now, request)?,
        };
        let (Some(socket), Some(session)) = (sessions.socket(inside), sessions.get_mut(key)) else {
            return Ok(());
        };
        let data_len = message.len() - HEADER_LEN;
        if !session.passes(now, data_len) {
            OutboundCounters::count(&self.shared.counters.limited);
            return Ok(());
        }
        session.packet = *request;
        session.flow.count(Side::One, 1, data_len);
        let dial = session.dial;
        sessions.sent(key, now, 1);
        drop(sessions);

        message[..HEADER_LEN].fill(0);
        message[0] = if dial.is_ipv4() { ECHO_V4.0 } else { ECHO_V6.0 };
        message[6..HEADER_LEN].copy_from_slice(&request.sequence.to_be_bytes());
        socket.set_fields(HeaderFields {
            hop_limit: request.hop_limit,
            traffic_class: request.traffic_class,
        });
        let to = SockAddr::from(dial);
        let outgoing = [Outgoing {
            to: &to,
            bytes: message,
            piece_len: None,
        }];
        if socket.send(&outgoing).is_ok() {
            return Ok(());
        }
        // It may have been an error of an earlier request, which is told once.
        self.shared.tell_errors(&socket, inside);
        socket.send(&outgoing).map(|_| ()).map_err(|error| {
            OutboundCounters::count(&self.shared.counters.lost);
            Answer::to_error(&error)
        })
    }

    /// Has a linked space answer.
    fn link(&self, request: &EchoRequest, data: &[u8], is_up: bool) -> Result<(), Answer> {
        if self.gate.ask(FlowProtocol::Icmp, request.destination()).is_err() {
            OutboundCounters::count(&self.shared.counters.denied);
            return Err(Answer::to_denied(self.gate.deny_with()));
        }
        if !is_up {
            return Err(Answer::Unreachable(UnreachableCode::Host));
        }
        let Some(answers) = self.links.ping(request.destination().ip()) else {
            OutboundCounters::count(&self.shared.counters.lost);
            return Ok(());
        };
        let (shared, request, data) = (Arc::clone(&self.shared), *request, data.to_vec());
        tokio::spawn(async move {
            if answers.await && shared.responder.reply(&request, &data).is_err() {
                OutboundCounters::count(&shared.counters.lost);
            }
        });
        Ok(())
    }

    /// Begins a session, if that is allowed and possible.
    fn open(
        &self,
        sessions: &mut Sessions<HostSocket, EchoRequest>,
        now: Instant,
        request: &EchoRequest,
    ) -> Result<SessionKey, Answer> {
        let counters = &self.shared.counters;
        let (inside, destination) = (request.inside(), request.destination());
        let Ok(pass) = self.gate.ask(FlowProtocol::Icmp, destination) else {
            OutboundCounters::count(&counters.denied);
            return Err(Answer::to_denied(self.gate.deny_with()));
        };
        let needs_socket = sessions.socket(inside).is_none();
        OutboundCounters::add(&counters.evicted, sessions.make_room(needs_socket));
        if sessions.socket(inside).is_none() {
            let socket = HostSocket::ping(pass.dial.is_ipv4()).map_err(|error| {
                if is_no_room(&error) {
                    OutboundCounters::count(&counters.no_room);
                } else if Errno::from_io_error(&error) == Some(Errno::ACCESS) {
                    counters.count_no_ping();
                }
                Answer::to_error(&error)
            })?;
            let socket = Arc::new(socket);
            let hearing = hear(Arc::clone(&self.shared), Arc::clone(&socket), inside);
            sessions.add_source(inside, socket, tokio::spawn(hearing).abort_handle());
        }
        let flow = self.flows.open(FlowInfo {
            protocol: FlowProtocol::Icmp,
            direction: Direction::Out,
            inside,
            outside: destination,
            rule: Arc::clone(&pass.rule),
        });
        let limiter = pass.limiter.filter(|limiter| limiter.limits_bytes());
        // The flows count those for which there is no room.
        let key = flow
            .ok()
            .and_then(|flow| sessions.open(now, *request, pass.dial, flow, limiter));
        key.ok_or_else(|| {
            sessions.drop_source_without_sessions(inside);
            Answer::Unreachable(UnreachableCode::Host)
        })
    }

    fn answer(&self, request: &EchoRequest, data: &[u8], answer: Answer) {
        let why = match answer {
            // There are no ports to be closed.
            Answer::Refused => UnreachableCode::Host,
            Answer::Unreachable(why) => why,
            Answer::Silence => return,
        };
        self.shared.reject(request, data, IcmpError::Unreachable(why));
    }
}

impl Drop for Echoes {
    fn drop(&mut self) {
        // The tasks of the sockets end with them.
        self.shared.sessions().clear();
    }
}

/// Hears the replies for an identifier of the program, and the errors.
async fn hear(shared: Arc<Shared>, socket: Arc<HostSocket>, inside: SocketAddr) {
    loop {
        let Ok(ready) = socket.ready().await else {
            return shared.sessions().close_source(inside);
        };
        if ready.is_error() {
            shared.tell_errors(&socket, inside);
        }
        if ready.is_readable() {
            // An error comes by its queue as well.
            let _ = socket.receive(|received| shared.pass_back(received, inside));
        }
    }
}

impl Shared {
    /// Passes back the replies that are there, a batch at most.
    fn pass_back(&self, received: &Received, inside: SocketAddr) {
        let now = Instant::now();
        let mut sessions = self.sessions();
        for arrived in received.iter() {
            let from = SocketAddr::new(arrived.from.ip(), 0);
            let reply = if from.is_ipv4() { ECHO_V4.1 } else { ECHO_V6.1 };
            let Some((header, data)) = arrived.bytes.split_first_chunk::<HEADER_LEN>() else {
                continue;
            };
            let key = sessions.find_dialled(inside, from);
            let Some((key, session)) = key.and_then(|key| Some((key, sessions.get_mut(key)?))) else {
                OutboundCounters::count(&self.counters.unasked);
                continue;
            };
            if header[0] != reply || !session.passes(now, data.len()) {
                continue;
            }
            let mut request = session.packet;
            request.sequence = u16::from_be_bytes([header[6], header[7]]);
            session.flow.count(Side::Other, 1, data.len());
            sessions.heard(key, now, 1);
            if self.responder.pass_back(&request, arrived.fields, data).is_err() {
                OutboundCounters::count(&self.counters.lost);
            }
        }
    }

    /// Tells the program what became of its requests.
    fn tell_errors(&self, socket: &HostSocket, inside: SocketAddr) {
        while let Ok(Some(error)) = socket.next_error() {
            let mut sessions = self.sessions();
            let key = sessions.find_dialled(inside, SocketAddr::new(error.to.ip(), 0));
            let Some(session) = key.and_then(|key| sessions.get_mut(key)) else {
                continue;
            };
            let mut request = session.packet;
            drop(sessions);
            let quoted = &error.start[..error.len];
            if let (Some(why), Some((header, data))) =
                (told(&error), quoted.split_first_chunk::<HEADER_LEN>())
            {
                request.sequence = u16::from_be_bytes([header[6], header[7]]);
                self.reject(&request, data, why);
            }
        }
    }

    fn reject(&self, request: &EchoRequest, data: &[u8], why: IcmpError) {
        if self.responder.reject(request, data, why).is_err() {
            OutboundCounters::count(&self.counters.lost);
        }
    }

    /// No code that holds the lock can leave the sessions half changed, so a panic elsewhere does not matter.
    fn sessions(&self) -> MutexGuard<'_, Sessions<HostSocket, EchoRequest>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
