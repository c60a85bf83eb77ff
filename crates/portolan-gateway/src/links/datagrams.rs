//! UDP over a link: sessions are kept to be listed, and so that what nobody asked for begins nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portolan_core::wire::UnreachableCode;
use portolan_relay::Side;
use portolan_stack::{IcmpError, PathError, UdpOption};

use super::channel::lock;
use super::frame::{Frame, Ports};
use super::{Inner, of_family};
use crate::flows::{Direction, FlowGuard, FlowInfo, FlowProtocol, FlowState};

/// The sessions of all links, by the ends that the program sees: its own and the other.
#[derive(Debug)]
pub(super) struct Sessions {
    begun: Instant,
    table: Mutex<HashMap<(SocketAddr, SocketAddr), Session>>,
}

#[derive(Debug)]
struct Session {
    flow: FlowGuard,
    /// When something moved, in seconds after `begun`.
    moved: AtomicU32,
    /// The last datagram of the program: its length, and the start of its data.
    sent: (usize, [u8; QUOTED_LEN]),
}

/// As much of a datagram as an ICMP error quotes of it here.
const QUOTED_LEN: usize = 64;
/// One in which nothing moved for so long is over (RFC 4787, section 4.3: two minutes or more).
const IDLE: Duration = Duration::from_secs(120);
/// The most there may be; a datagram that would need one more is dropped.
const SESSIONS_MAX: usize = 16_384;
/// How often they are looked at.
const SWEEP: Duration = Duration::from_secs(5);

impl Default for Sessions {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            table: Mutex::default(),
        }
    }
}

impl Sessions {
    fn now(&self) -> u32 {
        self.begun.elapsed().as_secs() as u32
    }
}

/// Passes on a datagram of the program, if it belongs to a session; one that the link cannot take is lost.
pub(super) fn pass_on(inner: &Inner, inside: SocketAddr, outside: SocketAddr, bytes: &[u8]) -> bool {
    let Some(&key) = inner.by_address.get(&outside.ip()) else {
        return false;
    };
    let mut table = lock(&inner.sessions.table);
    let Some(session) = table.get_mut(&(inside, outside)) else {
        return false;
    };
    let quoted = bytes.len().min(QUOTED_LEN);
    session.sent.0 = bytes.len();
    session.sent.1[..quoted].copy_from_slice(&bytes[..quoted]);
    session.moved.store(inner.sessions.now(), Ordering::Relaxed);
    let ports = Ports {
        is_ipv4: outside.is_ipv4(),
        source: inside.port(),
        destination: outside.port(),
    };
    let channel = inner.peers[key].channel();
    if channel.is_some_and(|channel| channel.try_say(&Frame::Datagram { ports, bytes })) {
        session.flow.count(Side::One, 1, bytes.len());
    }
    true
}

/// Begins a session of the program with a linked space.
pub(super) fn begin(inner: &Inner, inside: SocketAddr, outside: SocketAddr) -> bool {
    let Some(&key) = inner.by_address.get(&outside.ip()) else {
        return false;
    };
    inner.peers[key].channel().is_some() && open(inner, key, Direction::Out, inside, outside)
}

fn open(inner: &Inner, key: usize, direction: Direction, inside: SocketAddr, outside: SocketAddr) -> bool {
    let Some(serving) = inner.serving.get() else {
        return false;
    };
    let mut table = lock(&inner.sessions.table);
    if table.len() >= SESSIONS_MAX {
        return false;
    }
    let flow = serving.flows.open(FlowInfo {
        protocol: FlowProtocol::Udp,
        direction,
        inside,
        outside,
        rule: Arc::clone(&inner.peers[key].rule),
    });
    let Ok(flow) = flow else {
        return false;
    };
    let moved = AtomicU32::new(inner.sessions.now());
    let sent = (0, [0; QUOTED_LEN]);
    table.insert((inside, outside), Session { flow, moved, sent });
    true
}

/// Gives the program a datagram of another space; lost if there is no room for it.
pub(super) fn deliver(inner: &Inner, key: usize, ports: Ports, bytes: &[u8]) {
    let peer = &inner.peers[key];
    let Some(serving) = inner.serving.get() else {
        return;
    };
    let (Some(outside), Some(inside)) = (
        peer.address(ports.is_ipv4),
        of_family(&serving.inside, ports.is_ipv4),
    ) else {
        return;
    };
    let outside = SocketAddr::new(outside, ports.source);
    let inside = SocketAddr::new(inside, ports.destination);
    let is_known = lock(&inner.sessions.table).contains_key(&(inside, outside));
    if !is_known && !open(inner, key, Direction::In, inside, outside) {
        return;
    }
    let is_taken = serving.socket.try_send_msg(bytes, outside, inside).is_ok();
    if let Some(session) = lock(&inner.sessions.table).get(&(inside, outside))
        && is_taken
    {
        session.moved.store(inner.sessions.now(), Ordering::Relaxed);
        session.flow.set_state(FlowState::Open);
        session.flow.count(Side::Other, 1, bytes.len());
    }
}

/// Tells the program that nobody holds the port of the other space that its datagram was for.
pub(super) fn refuse(inner: &Inner, key: usize, ports: Ports) {
    let Some(serving) = inner.serving.get() else {
        return;
    };
    let (Some(outside), Some(inside)) = (
        inner.peers[key].address(ports.is_ipv4),
        of_family(&serving.inside, ports.is_ipv4),
    ) else {
        return;
    };
    let outside = SocketAddr::new(outside, ports.destination);
    let inside = SocketAddr::new(inside, ports.source);
    let table = lock(&inner.sessions.table);
    // What the program did not send is not refused.
    if let Some(session) = table.get(&(inside, outside)) {
        let (len, start) = &session.sent;
        let quoted = (&start[..(*len).min(QUOTED_LEN)], *len);
        let why = IcmpError::Unreachable(UnreachableCode::Port);
        // The network loses it as well if too many wait.
        let _ = serving.socket.reject_between((outside, inside), quoted, why);
    }
}

/// Tells other spaces of their datagrams for which nobody holds the port here, until the stack ends.
pub(super) async fn tell_errors(inner: Arc<Inner>) {
    let Some(serving) = inner.serving.get() else {
        return;
    };
    if serving.socket.set_option(UdpOption::ReportErrors(true)).is_err() {
        return;
    }
    while let Ok(error) = serving.socket.error().await {
        let (outside, inside) = (error.local, error.remote);
        let Some(&key) = inner.by_address.get(&outside.ip()) else {
            continue;
        };
        let is_known = lock(&inner.sessions.table).contains_key(&(inside, outside));
        if error.error == PathError::PortUnreachable
            && is_known
            && let Some(channel) = inner.peers[key].channel()
        {
            let ports = Ports {
                is_ipv4: outside.is_ipv4(),
                source: outside.port(),
                destination: inside.port(),
            };
            channel.try_say(&Frame::Refused { ports });
        }
        tokio::task::consume_budget().await;
    }
}

/// Ends sessions that are over, now and then, for as long as the gateway runs.
pub(super) async fn sweep(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let now = inner.sessions.now();
        let mut table = lock(&inner.sessions.table);
        table.retain(|_, session| {
            let idle = now.wrapping_sub(session.moved.load(Ordering::Relaxed));
            Duration::from_secs(idle.into()) < IDLE
        });
    }
}
