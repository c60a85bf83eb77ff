//! TCP over a link.
//!
//! ```text
//!   gateway that asks                      gateway that is asked
//!     SYN held ── open ──────────────────▶ connects to its program, as the other space
//!     SYN-ACK, RST or ICMP ◀── opened ──── done: and a socket of the loopback; or the error
//!     relay ◀══════ the loopback ════════▶ relay
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use portolan_net::TcpStream as InnerStream;
use portolan_relay::{Options, relay};
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::channel::Channel;
use super::frame::{Frame, Ports};
use super::{Inner, of_family};
use crate::flows::{Direction, FlowGuard, FlowInfo, FlowProtocol, FlowState};

/// Asks the other gateway for a connection, and gives this gateway's end of it.
pub(super) async fn connect(
    channel: Option<Arc<Channel>>,
    source: SocketAddr,
    destination: SocketAddr,
) -> io::Result<TcpStream> {
    let ports = Ports {
        is_ipv4: destination.is_ipv4(),
        source: source.port(),
        destination: destination.port(),
    };
    let gone = || io::Error::from(Errno::HOSTUNREACH);
    let channel = channel.ok_or_else(gone)?;
    let answered = channel.ask(|id| Frame::Open { id, ports }).ok_or_else(gone)?;
    let socket = answered.await.map_err(|_| gone())??.ok_or_else(gone)?;
    let socket = std::net::TcpStream::from(socket);
    socket.set_nonblocking(true)?;
    let stream = TcpStream::from_std(socket)?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Begins a connection to the program for another space, by a task of its own.
pub(super) fn begin(inner: &Arc<Inner>, key: usize, channel: &Arc<Channel>, id: u32, ports: Ports) {
    let refuse = |errno: Errno| {
        let errno = errno.raw_os_error() as u16;
        channel.say(&Frame::Opened { id, errno }, None);
    };
    let peer = &inner.peers[key];
    let Ok(turn) = Arc::clone(&peer.beginning).try_acquire_owned() else {
        return refuse(Errno::NOBUFS);
    };
    let Some(serving) = inner.serving.get() else {
        return refuse(Errno::HOSTUNREACH);
    };
    let (Some(source), Some(inside)) = (
        peer.address(ports.is_ipv4),
        of_family(&serving.inside, ports.is_ipv4),
    ) else {
        return refuse(Errno::AFNOSUPPORT);
    };
    let source = SocketAddr::new(source, ports.source);
    let inside = SocketAddr::new(inside, ports.destination);
    let flow = serving.flows.open(FlowInfo {
        protocol: FlowProtocol::Tcp,
        direction: Direction::In,
        inside,
        outside: source,
        rule: Arc::clone(&peer.rule),
    });
    let Ok(flow) = flow else {
        return refuse(Errno::NOBUFS);
    };
    let (inner, channel) = (Arc::clone(inner), Arc::clone(channel));
    tokio::spawn(async move {
        let connected = lead(&inner, source, inside).await;
        drop(turn);
        match connected {
            Ok((program, ours, theirs)) => {
                channel.say(&Frame::Opened { id, errno: 0 }, Some(theirs));
                drop((channel, inner));
                carry(program, ours, flow).await;
            }
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or_else(|| match error.kind() {
                    io::ErrorKind::ConnectionRefused => Errno::CONNREFUSED,
                    io::ErrorKind::TimedOut => Errno::TIMEDOUT,
                    _ => Errno::HOSTUNREACH,
                });
                let errno = errno.raw_os_error() as u16;
                channel.say(&Frame::Opened { id, errno }, None);
            }
        }
    });
}

async fn carry(program: InnerStream, ours: TcpStream, flow: FlowGuard) {
    let _ = program.set_nodelay(true);
    flow.set_state(FlowState::Open);
    relay(program, ours, Options::default(), flow.counters()).await;
}

/// Connects to the program, and makes the way between the gateways.
async fn lead(
    inner: &Inner,
    source: SocketAddr,
    inside: SocketAddr,
) -> io::Result<(InnerStream, TcpStream, OwnedFd)> {
    let serving = inner.serving.get().ok_or(io::ErrorKind::NotConnected)?;
    let program = match InnerStream::connect_transparent(&serving.stack, source, inside).await {
        // What was there before it, from the same port, is not quite over.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            let source = SocketAddr::new(source.ip(), 0);
            InnerStream::connect_transparent(&serving.stack, source, inside).await?
        }
        connected => connected?,
    };
    match timeout(PATIENCE, pair())
        .await
        .unwrap_or_else(|elapsed| Err(elapsed.into()))
    {
        Ok((ours, theirs)) => Ok((program, ours, theirs)),
        Err(error) => {
            program.reset();
            Err(error)
        }
    }
}

/// The loopback answers at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Two connected sockets, which carry resets as well; the second is for another process.
async fn pair() -> io::Result<(TcpStream, OwnedFd)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    let own = ours.local_addr()?;
    loop {
        let (theirs, from) = listener.accept().await?;
        // Others may connect there as well, for that moment.
        if from == own {
            let _ = ours.set_nodelay(true);
            return Ok((ours, theirs.into_std()?.into()));
        }
    }
}
