//! A TCP connection of the host, of which more is passed on than its bytes: urgent data, and whether the peer is there.
//!
//! Tokio's own stream does not hear of urgent data, so this one is registered for it too: it costs no call as long as
//! there is none. A mark that comes in the very moment between that look and a read which begins at it is not seen, and
//! the byte goes in line as any other: the kernel has no read that stops there.

mod sys;

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use portolan_relay::{Chunk, End};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// A TCP connection of the host.
#[derive(Debug)]
pub(crate) struct HostStream {
    io: AsyncFd<TcpStream>,
}

/// Where urgent data stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// There is none.
    None,
    /// After other data.
    Ahead,
    /// The next byte is it.
    Here,
}

/// A peer that was heard in the last second is there: no program asks more often (`TCP_KEEPIDLE` is in seconds).
const FRESH: Duration = Duration::from_secs(1);
/// After how long it is looked first whether a question was answered; each time after twice as long, up to the last.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(250);

/// How often and after how long it is looked whether the kernel has sent what it was given.
const TURNS: usize = 50;
const TURN: Duration = Duration::from_millis(1);

impl HostStream {
    /// Takes a connection that is there, or is being made, and does not block.
    ///
    /// # Errors
    /// If the runtime cannot wait for it.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        // Urgent data stays in line, where the mark tells it: else it would be lost to who reads a moment too late.
        SockRef::from(&stream).set_out_of_band_inline(true)?;
        Ok(Self {
            io: sys::register(stream)?,
        })
    }

    /// Connects. Segments leave as they come: it is who is relayed that gathers, or does not.
    ///
    /// # Errors
    /// What the host says of it.
    pub(crate) async fn connect(destination: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(destination);
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_tcp_nodelay(true)?;
        // Of who vanished the host is to hear at last, also if the program never asks.
        socket.set_keepalive(true)?;
        match socket.connect(&destination.into()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let stream = Self::new(socket.into())?;
        loop {
            let mut ready = stream.io.writable().await?;
            if let Some(error) = stream.io.get_ref().take_error()? {
                return Err(error);
            }
            match stream.io.get_ref().peer_addr() {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => ready.clear_ready(),
                Ok(_) | Err(_) => break,
            }
        }
        Ok(stream)
    }

    /// Where urgent data stands. The kernel is asked only from when it told of some until that was read.
    fn mark(&self) -> Mark {
        let mark = self.io.try_io(Interest::PRIORITY, |stream| {
            if sys::is_at_mark(stream.as_fd())? {
                return Ok(Mark::Here);
            }
            let mut urgent = [PollFd::new(stream, PollFlags::PRI)];
            match poll(&mut urgent, Some(&Timespec::default()))? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(Mark::Ahead),
            }
        });
        mark.unwrap_or(Mark::None)
    }
}

impl End for HostStream {
    /// By the task's own place: a future that waits beside others would be a part of every idle connection.
    async fn read_chunk(&self, room: &mut BytesMut, max: usize) -> io::Result<Chunk> {
        poll_fn(|cx| {
            loop {
                let Poll::Ready(ready) = self.io.poll_read_ready(cx) else {
                    // Who waits keeps no memory.
                    *room = BytesMut::new();
                    return Poll::Pending;
                };
                match self.try_read(ready?, room, max) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Poll::Ready(read),
                }
            }
        })
        .await
    }

    async fn write_chunk(&self, chunk: &mut Bytes, is_last: bool) -> io::Result<()> {
        // The last bytes and the FIN go in one segment.
        let more = if is_last {
            SendFlags::MORE
        } else {
            SendFlags::empty()
        };
        self.send(chunk, more).await
    }

    async fn write_urgent(&self, chunk: &mut Bytes) -> io::Result<()> {
        self.send(chunk, SendFlags::OOB).await
    }

    fn must_finish(&self) {
        // With no time to linger, close sends RST instead of FIN. If that is refused, it is a FIN.
        let _ = SockRef::from(self.io.get_ref()).set_linger(Some(Duration::ZERO));
    }

    fn finish(&self) -> io::Result<()> {
        // What was written is delivered after the close.
        SockRef::from(self.io.get_ref()).set_linger(None)?;
        rustix::net::shutdown(self.io.get_ref(), rustix::net::Shutdown::Write).map_err(io::Error::from)
    }

    async fn failed(&self) -> io::Error {
        loop {
            if let Err(error) = self.io.ready(Interest::ERROR).await {
                return error;
            }
            match self.io.get_ref().take_error() {
                Ok(Some(error)) | Err(error) => return error,
                // Somebody else was told, by a read or a write: that one ends the relay.
                Ok(None) => std::future::pending().await,
            }
        }
    }

    /// Has the kernel ask the peer, unless it was just heard, and waits for an answer.
    async fn is_there(&self) {
        let asked = Instant::now();
        let _asking = Asking::begin(&self.io);
        let mut pause = FIRST_LOOK;
        loop {
            match sys::last_heard(self.io.as_fd()) {
                Ok(heard) if heard < FRESH.max(asked.elapsed()) => return,
                // If the host cannot tell, it is not known.
                Ok(_) | Err(_) => tokio::time::sleep(pause).await,
            }
            pause = (2 * pause).min(LAST_LOOK);
        }
    }

    async fn sent(&self) {
        // A reset throws away what the kernel has not sent: who does not take it is not waited for.
        for _ in 0..TURNS {
            if sys::unsent(self.io.as_fd()).map_or(true, |unsent| unsent == 0) {
                return;
            }
            tokio::time::sleep(TURN).await;
        }
    }

    fn reset(self) {
        self.must_finish();
    }
}

impl HostStream {
    fn try_read(
        &self,
        mut ready: AsyncFdReadyGuard<'_, TcpStream>,
        room: &mut BytesMut,
        max: usize,
    ) -> io::Result<Chunk> {
        let mark = self.mark();
        let is_urgent = mark == Mark::Here;
        let max = if is_urgent { 1 } else { max };
        // Takes the memory of chunks that are gone again, if it can.
        room.reserve(max);
        let mut part = room.split_off(0);
        let read = sys::read(self.io.as_fd(), &mut part, max);
        let is_empty = match &read {
            // The kernel may have stopped before the mark.
            Ok(len) => (1..max).contains(len) && mark == Mark::None,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if is_empty {
            ready.clear_ready();
        }
        let bytes = part.split().freeze();
        *room = part;
        let is_urgent = is_urgent && !bytes.is_empty();
        read.map(|_| Chunk { bytes, is_urgent })
    }

    async fn send(&self, chunk: &mut Bytes, flags: SendFlags) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | flags;
        let taken = poll_fn(|cx| {
            loop {
                let mut ready = std::task::ready!(self.io.poll_write_ready(cx))?;
                let sent = ready.try_io(|io| Ok(rustix::net::send(io.get_ref(), chunk, flags)?));
                if let Ok(sent) = sent {
                    return Poll::Ready(sent);
                }
            }
        })
        .await?;
        chunk.advance(taken);
        Ok(())
    }
}

/// The kernel asks a peer that is idle for a second; dropped, it asks as it does of itself.
struct Asking<'a> {
    socket: SockRef<'a>,
    idle: Duration,
}

impl<'a> Asking<'a> {
    fn begin(stream: &'a AsyncFd<TcpStream>) -> Option<Self> {
        let socket = SockRef::from(stream.get_ref());
        let idle = socket.tcp_keepalive_time().ok()?;
        socket.set_keepalive(true).ok()?;
        let soon = socket2::TcpKeepalive::new().with_time(FRESH);
        socket.set_tcp_keepalive(&soon).ok()?;
        Some(Self { socket, idle })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let usual = socket2::TcpKeepalive::new().with_time(self.idle);
        let _ = self.socket.set_tcp_keepalive(&usual);
    }
}
