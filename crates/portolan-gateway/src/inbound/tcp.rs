//! TCP in: a connection of the host is accepted, and one inside begun for it.
//!
//! ```text
//!   client ─▶ accept ─▶ begin ─▶ TcpStream::connect_transparent ─┬▶ relay ─▶ program
//!                                                                     └▶ refused: the client is reset at once
//! ```

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use portolan_net::TcpStream as InnerStream;
use portolan_relay::{End as _, Options, relay, splice};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with, sockopt};
use tokio::net::TcpStream;

use super::client::Way;
use super::doors::Door;
use super::publisher::Hall;
use super::shortcut::Shortcut;
use crate::flows::{Direction, FlowGuard, FlowInfo, FlowProtocol, FlowState};
use crate::host_stream::HostStream;

/// Connections of one port that are accepted before others have their turn.
const BURST: usize = 32;

/// A descriptor kept for the moment when there is no other: with it a client is accepted, and told that there is no
/// place. Else it would wait for nothing, and its port would be ready for ever.
#[derive(Debug)]
pub(super) struct Spare(Option<OwnedFd>);

impl Spare {
    pub(super) fn new() -> Self {
        Self(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).ok())
    }

    /// Turns one client away.
    fn turn_away(&mut self, door: &Door) {
        self.0 = None;
        if let Ok((client, _)) = acceptfrom_with(&door.socket, SocketFlags::CLOEXEC) {
            reset(client);
        }
        *self = Self::new();
    }
}

/// Accepts clients that wait at a door, a burst at most.
pub(super) fn accept(hall: &Arc<Hall>, door: &Door, spare: &mut Spare) {
    for _ in 0..BURST {
        let (client, address) =
            match acceptfrom_with(&door.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(accepted) => accepted,
                Err(Errno::MFILE | Errno::NFILE) => {
                    spare.turn_away(door);
                    continue;
                }
                // Errors of a connection that is gone before it was accepted; the next one is another.
                Err(Errno::CONNABORTED | Errno::INTR | Errno::PROTO) => continue,
                Err(_) => return,
            };
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        let Some(address) = address.map(canonical) else {
            continue;
        };
        begin(hall, door, client, address);
    }
}

/// Begins to serve one client, by a task that ends with it. What does not wait is done here: the task is the smaller.
fn begin(hall: &Arc<Hall>, door: &Door, client: OwnedFd, address: SocketAddr) {
    let published = door.published;
    if !hall.admits(&published, address) {
        return reset(client);
    }
    let Some(way) = hall.faces.way(address, published.target, published.inner.get()) else {
        return reset(client);
    };
    let info = FlowInfo {
        protocol: FlowProtocol::Tcp,
        direction: Direction::In,
        inside: way.destination,
        outside: address,
        rule: door.rule(),
    };
    let client = std::net::TcpStream::from(client);
    // What comes is passed on as it comes; Nagle's algorithm is for those who write.
    let _ = client.set_nodelay(true);
    // The hall and not the door: the port is free as soon as nobody is to come through it any more.
    let hall = Arc::clone(hall);
    if address.ip().is_loopback() && hall.shortcut.get().is_some() {
        if let Ok(client) = TcpStream::from_std(client) {
            tokio::spawn(from_loopback(hall, client, way, info));
        }
        return;
    }
    let Ok(client) = HostStream::new(client) else {
        return;
    };
    match hall.flows.open(info) {
        Ok(flow) => drop(tokio::spawn(through_the_stack(hall, client, way, flow))),
        Err(_) => client.reset(),
    }
}

/// Serves a client of the host's loopback: past the device if it can be.
async fn from_loopback(hall: Arc<Hall>, client: TcpStream, way: Way, info: FlowInfo) {
    let client = match hall.shortcut.get() {
        Some(shortcut) => past_the_device(&hall, shortcut, client, way, &info).await,
        None => Some(client),
    };
    let Some(Ok(client)) = client.map(|client| HostStream::new(client.into_std()?)) else {
        return;
    };
    match hall.flows.open(info) {
        Ok(flow) => through_the_stack(hall, client, way, flow).await,
        Err(_) => client.reset(),
    }
}

/// Connects inside between sockets of the kernel, and relays. Gives the client back if there is no way: what the stack
/// then says is the truth, since it comes from outside.
async fn past_the_device(
    hall: &Hall,
    shortcut: &Shortcut,
    client: TcpStream,
    way: Way,
    info: &FlowInfo,
) -> Option<TcpStream> {
    let (inner, way) = match shortcut.connect(way).await {
        Ok(inner) => (inner, way),
        Err(_) => {
            let Some(way) = hall.faces.other_way(&way) else {
                return Some(client);
            };
            match shortcut.connect(way).await {
                Ok(inner) => (inner, way),
                Err(_) => return Some(client),
            }
        }
    };
    let info = FlowInfo {
        direction: Direction::Spliced,
        inside: way.destination,
        ..info.clone()
    };
    let Ok(flow) = hall.flows.open(info) else {
        client.reset();
        return None;
    };
    let _ = inner.set_nodelay(true);
    flow.set_state(FlowState::Open);
    splice(
        inner,
        client,
        &shortcut.pipes,
        Options::default(),
        flow.counters(),
    )
    .await;
    None
}

/// Connects inside over the stack, and relays.
async fn through_the_stack(hall: Arc<Hall>, client: HostStream, way: Way, flow: FlowGuard) {
    let is_loopback = flow.info().outside.ip().is_loopback();
    let connected = tokio::select! {
        connected = connect(&hall, way) => connected,
        // It has given up: so do we.
        error = client.failed() => Err(error),
    };
    let connected = match connected {
        Err(error) if is_loopback && error.kind() == io::ErrorKind::ConnectionRefused => {
            match hall.faces.other_way(&way) {
                Some(way) => connect(&hall, way).await,
                None => Err(error),
            }
        }
        connected => connected,
    };
    drop(hall);
    let Ok(inner) = connected else {
        return client.reset();
    };
    let _ = inner.set_nodelay(true);
    // Whether the client is there only the client knows.
    let _ = inner.hold_probes();
    flow.set_state(FlowState::Open);
    relay(inner, client, Options::default(), flow.counters()).await;
}

/// Connects inside from the client's own address.
async fn connect(hall: &Hall, way: Way) -> io::Result<InnerStream> {
    let Way { source, destination } = way;
    if source.port() == 0 {
        return InnerStream::connect_from(&hall.stack, source, destination).await;
    }
    match InnerStream::connect_transparent(&hall.stack, source, destination).await {
        // The same client has a connection from there to the same port inside already, by another port or address of
        // the host: of the two it keeps its address, and gets another port.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            let source = SocketAddr::new(source.ip(), 0);
            InnerStream::connect_transparent(&hall.stack, source, destination).await
        }
        connected => connected,
    }
}

/// Ends a connection with a RST.
fn reset(client: OwnedFd) {
    // If the kernel refuses, the client gets a FIN.
    let _ = sockopt::set_socket_linger(&client, Some(std::time::Duration::ZERO));
}

/// IPv4 addresses as such also where a socket of both families tells them; no zone, which means nothing inside.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
