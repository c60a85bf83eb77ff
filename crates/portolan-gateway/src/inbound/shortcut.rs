//! The way of clients on the host's loopback: from socket to socket in the kernel, past the device and the stack.
//!
//! ```text
//!   client ─▶ accept ═ splice ═▶ socket of the space, with the gateway's address ─ lo ─▶ program
//! ```
//!
//! The socket connects to the space's own address, so what the program bound to its loopback is not reached.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use portolan_relay::PipePool;
use rustix::net::AddressFamily;
use socket2::Socket;
use tokio::net::{TcpSocket, TcpStream};

use super::client::Way;
use super::sys;

/// Opens TCP sockets of the space that may have the gateway's address, wherever it is called: `portolan_space::Sockets`
/// does, as marked ones. They do not wait.
#[derive(Clone)]
pub struct InsideSockets(Arc<Open>);

/// Domain, and how many at most.
type Open = dyn Fn(u16, usize) -> io::Result<Vec<OwnedFd>> + Send + Sync;

impl InsideSockets {
    /// Sockets from a function that takes the domain and how many there may be, and gives at least one.
    #[must_use]
    pub fn new(open: impl Fn(u16, usize) -> io::Result<Vec<OwnedFd>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }

    fn open(&self, domain: AddressFamily, count: usize) -> io::Result<Vec<OwnedFd>> {
        (self.0)(domain.as_raw(), count)
    }
}

impl fmt::Debug for InsideSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InsideSockets")
    }
}

/// Connections inside that have the gateway's address and do not pass the device.
#[derive(Debug)]
pub(super) struct Shortcut {
    sockets: InsideSockets,
    /// Fresh ones, of IPv4 and of IPv6: to ask for one takes longer than to connect it.
    fresh: [Mutex<Vec<OwnedFd>>; 2],
    pub(super) pipes: PipePool,
}

/// Sockets that are asked for at once; so many descriptors of each family may lie idle.
const BATCH: usize = 16;
/// Pipes, with two descriptors each. More connections than that with bytes under way copy their bytes.
const PIPES: usize = 256;

impl Shortcut {
    pub(super) fn new(sockets: InsideSockets) -> Self {
        Self {
            sockets,
            fresh: [Mutex::default(), Mutex::default()],
            pipes: PipePool::new(PIPES),
        }
    }

    /// Connects from the gateway's address to the program.
    pub(super) async fn connect(&self, way: Way) -> io::Result<TcpStream> {
        let socket = self.socket(way.destination)?;
        // The port is chosen for the four-tuple, at connect: there are more of these.
        sys::bind_without_port(&socket)?;
        socket.bind(&SocketAddr::new(way.source.ip(), 0).into())?;
        TcpSocket::from_std_stream(socket.into())
            .connect(way.destination)
            .await
    }

    fn socket(&self, destination: SocketAddr) -> io::Result<Socket> {
        let (place, domain) = match destination {
            SocketAddr::V4(_) => (&self.fresh[0], AddressFamily::INET),
            SocketAddr::V6(_) => (&self.fresh[1], AddressFamily::INET6),
        };
        let mut fresh = place.lock().unwrap_or_else(PoisonError::into_inner);
        if fresh.is_empty() {
            *fresh = self.sockets.open(domain, BATCH)?;
        }
        let socket = fresh.pop().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Socket::from(socket))
    }
}
