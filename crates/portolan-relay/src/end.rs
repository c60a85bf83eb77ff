//! What a relay needs of an end of its connections.

use std::future::{Future, poll_fn};
use std::io;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use rustix::net::{SendFlags, sockopt};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes that were read.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// None at the end.
    pub bytes: Bytes,
    /// Whether the other side said of the last of them that it is urgent.
    pub is_urgent: bool,
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes,
            is_urgent: false,
        }
    }
}

/// What comes of a connection beside its bytes.
#[derive(Debug)]
pub enum Disturbance {
    /// It failed.
    Failed(io::Error),
    /// The other side asks whether anybody is there.
    Asked,
}

/// One end of a stream of bytes in each direction, such as a TCP connection.
///
/// Both directions are used at once, hence by shared reference, but each by one task. The futures must be safe to
/// drop: bytes that were not given, or not taken, stay where they are.
pub trait End: Send + Sync {
    /// The next bytes that came, at most `max`; none, if the other side will send no more. `room` is memory to read
    /// into for ends that have no chunks of their own, kept from call to call.
    fn read_chunk(&self, room: &mut BytesMut, max: usize) -> impl Future<Output = io::Result<Chunk>> + Send;

    /// Waits until there is room, and takes bytes from the front of `chunk`: at least one. `is_last` says that
    /// [`End::finish`] follows as soon as all of it is taken: the bytes may wait for that.
    fn write_chunk(&self, chunk: &mut Bytes, is_last: bool) -> impl Future<Output = io::Result<()>> + Send;

    /// Waits until there is room, and takes bytes, of which the last is urgent; an end that knows no such takes them as
    /// others.
    fn write_urgent(&self, chunk: &mut Bytes) -> impl Future<Output = io::Result<()>> + Send {
        self.write_chunk(chunk, false)
    }

    /// Whether it is known already that nothing will come after what was read. No means as well that it is not known yet.
    fn is_at_end(&self) -> bool {
        false
    }

    /// Has the other side see a failure (RST) if this end is dropped before [`End::finish`], also with the whole process:
    /// it would take less than all for all.
    fn must_finish(&self) {}

    /// Says that no more bytes will be written (FIN).
    ///
    /// # Errors
    /// If the connection has failed.
    fn finish(&self) -> io::Result<()>;

    /// Waits until the connection fails; for ever, if it does not.
    fn failed(&self) -> impl Future<Output = io::Error> + Send;

    /// Waits until the connection fails, or the other side asks whether anybody is there (a keepalive probe).
    fn disturbed(&self) -> impl Future<Output = Disturbance> + Send {
        async { Disturbance::Failed(self.failed().await) }
    }

    /// Waits until it is known that the other side is there; for ever, if it is not. An end that cannot ask says so at once.
    fn is_there(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Tells the other side, which asked, that somebody is there.
    fn answer(&self) {}

    /// Waits until what was written is on its way to the other side, or for as long as a moment: to be said before
    /// [`End::reset`], which is no reason to wait for who does not take it.
    fn sent(&self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Ends the connection at once, in a way that the other side sees as a failure (RST).
    fn reset(self);
}

impl End for TcpStream {
    async fn read_chunk(&self, room: &mut BytesMut, max: usize) -> io::Result<Chunk> {
        loop {
            // Takes the memory of chunks that are gone again, if it can.
            room.reserve(max);
            let mut part = room.split_off(0);
            match self.try_read_buf(&mut part) {
                Ok(_) => {
                    let chunk = part.split().freeze();
                    *room = part;
                    return Ok(chunk.into());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Who waits keeps no memory.
                    drop(part);
                    *room = BytesMut::new();
                    self.readable().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn write_chunk(&self, chunk: &mut Bytes, is_last: bool) -> io::Result<()> {
        let mut flags = SendFlags::NOSIGNAL;
        // The last bytes and the FIN go in one segment.
        flags.set(SendFlags::MORE, is_last);
        loop {
            let send = || rustix::net::send(self, chunk, flags).map_err(io::Error::from);
            match self.try_io(Interest::WRITABLE, send) {
                Ok(taken) => {
                    chunk.advance(taken);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }

    fn must_finish(&self) {
        // With no time to linger, close sends RST instead of FIN. If that is refused, it is a FIN.
        let _ = self.set_zero_linger();
    }

    fn finish(&self) -> io::Result<()> {
        // What was written is delivered after the close.
        sockopt::set_socket_linger(self, None)?;
        rustix::net::shutdown(self, rustix::net::Shutdown::Write).map_err(io::Error::from)
    }

    async fn failed(&self) -> io::Error {
        loop {
            if let Err(error) = self.ready(Interest::ERROR).await {
                return error;
            }
            match self.take_error() {
                Ok(Some(error)) | Err(error) => return error,
                // Somebody else was told, by a read or a write: that one ends the relay.
                Ok(None) => std::future::pending().await,
            }
        }
    }

    fn reset(self) {
        self.must_finish();
    }
}

/// From how many bytes on a chunk is worth the memory that it lies in: a quarter of the most that is read at once.
const KEPT_LEN: usize = 16 << 10;

/// How often and after how long it is looked whether a stack has sent what it was given.
const TURNS: usize = 50;
const TURN: Duration = Duration::from_millis(1);

/// A connection of a stack of our own.
impl End for portolan_net::TcpStream {
    /// The stack's buffers are of pages, so many are gathered in one chunk: whoever takes it is asked once.
    async fn read_chunk(&self, room: &mut BytesMut, max: usize) -> io::Result<Chunk> {
        poll_fn(|cx| {
            room.reserve(max);
            let mut part = room.split_off(0).limit(max);
            let result = self.poll_read_marked(cx, &mut part);
            let mut part = part.into_inner();
            let bytes = part.split().freeze();
            // Who waits keeps no memory.
            *room = if result.is_pending() {
                BytesMut::new()
            } else {
                part
            };
            result.map_ok(|(_, is_urgent)| Chunk { bytes, is_urgent })
        })
        .await
    }

    /// The stack keeps a long chunk itself until the peer has it, and a copy of a short one: a few bytes may lie in memory
    /// for many.
    async fn write_chunk(&self, chunk: &mut Bytes, _is_last: bool) -> io::Result<()> {
        poll_fn(|cx| {
            if chunk.len() >= KEPT_LEN {
                return self.poll_write_chunk(cx, chunk);
            }
            self.poll_write_buf(cx, chunk)
        })
        .await
        .map(|_| ())
    }

    async fn write_urgent(&self, chunk: &mut Bytes) -> io::Result<()> {
        let taken = poll_fn(|cx| self.poll_write_urgent(cx, chunk)).await?;
        chunk.advance(taken);
        Ok(())
    }

    fn is_at_end(&self) -> bool {
        Self::is_at_end(self)
    }

    fn finish(&self) -> io::Result<()> {
        Self::finish(self)
    }

    async fn failed(&self) -> io::Error {
        Self::failed(self).await
    }

    async fn disturbed(&self) -> Disturbance {
        match Self::disturbed(self).await {
            Ok(()) => Disturbance::Asked,
            Err(error) => Disturbance::Failed(error),
        }
    }

    fn answer(&self) {
        self.answer_probe();
    }

    async fn sent(&self) {
        // The stack sends in its next turn what the window lets it.
        for _ in 0..TURNS {
            if self.info().map_or(0, |info| info.not_sent) == 0 {
                return;
            }
            tokio::time::sleep(TURN).await;
        }
    }

    fn reset(self) {
        Self::reset(self);
    }
}
