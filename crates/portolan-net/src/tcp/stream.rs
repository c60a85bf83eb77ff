use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::time::Instant;

use super::connect::{self, ConnectOptions};
use super::connection::Connection;
use super::deadline::Deadline;
use super::split::{self, OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf};
use crate::{Stack, error};

/// A TCP connection, as tokio's.
///
/// Reading and writing are cancel-safe: a future that is dropped has read or written nothing, unless it was ready.
///
/// Dropped, it is closed as by Linux: what was written is still delivered, with a FIN behind it; if something was not
/// read, or comes later, the peer gets a RST.
#[derive(Debug)]
pub struct TcpStream {
    pub(super) connection: Connection,
    pub(super) read_deadline: Deadline,
    pub(super) write_deadline: Deadline,
}

/// What became of a connection that was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "it says whether the peer has everything"]
pub enum Closed {
    /// The peer has acknowledged all that was written, and the FIN behind it.
    Delivered,
    /// Nobody waits any more, but what was written is still being delivered.
    InBackground,
    /// The peer was told that the connection is no more; what was not delivered is lost.
    Reset,
}

impl TcpStream {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            read_deadline: Deadline::default(),
            write_deadline: Deadline::default(),
        }
    }

    /// Connects to a socket address, from the address of this host that fits, and an automatic port.
    ///
    /// Cancel-safe: dropped, it gives up the attempt.
    ///
    /// # Errors
    /// [`ConnectionRefused`](io::ErrorKind::ConnectionRefused), [`TimedOut`](io::ErrorKind::TimedOut),
    /// [`NetworkUnreachable`](io::ErrorKind::NetworkUnreachable) and the like. The text names the remote; the last source
    /// is a [`ConnectError`](portolan_stack::ConnectError) or a [`CloseReason`](portolan_stack::CloseReason).
    pub async fn connect(stack: &Stack, remote: SocketAddr) -> io::Result<Self> {
        Self::connect_with(stack, remote, ConnectOptions::default()).await
    }

    /// Connects from a given address, port, or both; the unspecified address and port 0 mean that either is chosen.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub async fn connect_from(stack: &Stack, local: SocketAddr, remote: SocketAddr) -> io::Result<Self> {
        let options = ConnectOptions {
            local: Some(local),
            ..ConnectOptions::default()
        };
        Self::connect_with(stack, remote, options).await
    }

    /// Connects from an address that need not be the stack's own, as a proxy does that shows its client's address
    /// (`IP_TRANSPARENT`). The peer's answers to it must come to this stack's link.
    ///
    /// Of an address that is not the stack's nothing is claimed but the four-tuple, so any number of connections may have
    /// one `source`. Port 0 means an automatic port.
    ///
    /// # Errors
    /// As [`TcpStream::connect`]; [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) if there is such a connection.
    pub async fn connect_transparent(
        stack: &Stack,
        source: SocketAddr,
        remote: SocketAddr,
    ) -> io::Result<Self> {
        let options = ConnectOptions {
            local: Some(source),
            transparent: true,
            ..ConnectOptions::default()
        };
        Self::connect_with(stack, remote, options).await
    }

    /// Connects with options.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub async fn connect_with(
        stack: &Stack,
        remote: SocketAddr,
        options: ConnectOptions,
    ) -> io::Result<Self> {
        let connection = connect::begin(stack, remote, &options)?;
        let connected = connection.connected().await;
        connected.map_err(|error| error::to(remote, error))?;
        Ok(Self::new(connection))
    }

    /// Connects until `deadline`, and not longer.
    ///
    /// # Errors
    /// As [`TcpStream::connect`]; after the deadline [`TimedOut`](io::ErrorKind::TimedOut).
    pub async fn connect_by(stack: &Stack, remote: SocketAddr, deadline: Instant) -> io::Result<Self> {
        match tokio::time::timeout_at(deadline, Self::connect(stack, remote)).await {
            Ok(result) => result,
            Err(elapsed) => Err(error::to(
                remote,
                io::Error::new(io::ErrorKind::TimedOut, elapsed),
            )),
        }
    }

    /// Copies what came to `buf` and leaves it to be read. At least one byte, unless `buf` is empty or the peer has
    /// finished; perhaps not all of them.
    ///
    /// # Errors
    /// As reading.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.connection.peek(buf).await
    }

    /// The same for those who poll. The task shares its place with that of `poll_read`: the last one is woken.
    ///
    /// # Errors
    /// As reading.
    pub fn poll_peek(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        self.connection.poll_peek(cx, buf)
    }

    /// Reads what is there into the room that `buf` has, and says how many bytes; 0 means that the peer has finished, or
    /// that there is no room. The task shares its place with that of `poll_read`: the last one is woken.
    ///
    /// # Errors
    /// As reading.
    pub fn poll_read_buf(&self, cx: &Context<'_>, buf: &mut impl BufMut) -> Poll<io::Result<usize>> {
        self.connection.poll_read_buf(cx, buf)
    }

    /// The same, at once.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is there yet; else as reading.
    pub fn try_read_buf(&self, buf: &mut impl BufMut) -> io::Result<usize> {
        self.connection.try_read_buf(buf)
    }

    /// Reads as [`TcpStream::poll_read_buf`] does, but not past a byte that the peer calls urgent, which is read alone:
    /// says how many bytes, and whether it is that one.
    ///
    /// # Errors
    /// As reading.
    pub fn poll_read_marked(
        &self,
        cx: &Context<'_>,
        buf: &mut impl BufMut,
    ) -> Poll<io::Result<(usize, bool)>> {
        self.connection.poll_read_marked(cx, buf)
    }

    /// Writes bytes of which the last, if all of them find room, is urgent (`MSG_OOB`); says how many. The task shares its
    /// place with that of `poll_write`: the last one is woken.
    ///
    /// # Errors
    /// As writing.
    pub fn poll_write_urgent(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.connection.poll_write_urgent(cx, bytes)
    }

    /// Leaves the peer's keepalive probes to be answered by [`TcpStream::answer_probe`]: what a relay needs that does not
    /// know whether somebody is there.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) if the connection is gone.
    pub fn hold_probes(&self) -> io::Result<()> {
        self.connection.hold_probes()
    }

    /// Waits until the peer asks whether somebody is there; cancel-safe but for one question.
    ///
    /// # Errors
    /// That of the connection once it fails.
    pub async fn disturbed(&self) -> io::Result<()> {
        self.connection.disturbed().await
    }

    /// Tells the peer that somebody is there.
    pub fn answer_probe(&self) {
        self.connection.answer_probe();
    }

    /// Takes up to `max` bytes that came in one piece, without a copy where the packet they came in was kept;
    /// `None` when the peer has finished.
    ///
    /// # Errors
    /// As reading.
    pub async fn read_chunk(&self, max: usize) -> io::Result<Option<Bytes>> {
        self.connection.read_chunk(max).await
    }

    /// The same for those who poll. The task shares its place with that of `poll_read`: the last one is woken.
    ///
    /// # Errors
    /// As reading.
    pub fn poll_read_chunk(&self, cx: &Context<'_>, max: usize) -> Poll<io::Result<Option<Bytes>>> {
        self.connection.poll_read_chunk(cx, max)
    }

    /// The same, at once.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is there yet; else as reading.
    pub fn try_read_chunk(&self, max: usize) -> io::Result<Option<Bytes>> {
        self.connection.try_read_chunk(max)
    }

    /// Whether all that the peer will ever send has been read: its FIN is here.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.connection.is_at_end()
    }

    /// Sends the front of `chunk` without a copy, as much as there is room for, and takes that off it.
    ///
    /// # Errors
    /// As writing.
    pub async fn write_chunk(&self, chunk: &mut Bytes) -> io::Result<usize> {
        self.connection.write_chunk(chunk).await
    }

    /// The same for those who poll. The task shares its place with that of `poll_write`: the last one is woken.
    ///
    /// # Errors
    /// As writing.
    pub fn poll_write_chunk(&self, cx: &Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<usize>> {
        self.connection.poll_write_chunk(cx, chunk)
    }

    /// Copies bytes from the front of `buf`, as many as there is room for, takes them off it, and says how many. The task
    /// shares its place with that of `poll_write`: the last one is woken.
    ///
    /// # Errors
    /// As writing.
    pub fn poll_write_buf(&self, cx: &Context<'_>, buf: &mut impl Buf) -> Poll<io::Result<usize>> {
        let result = self.connection.poll_write(cx, buf.chunk());
        if let Poll::Ready(Ok(len)) = result {
            buf.advance(len);
        }
        result
    }

    /// Waits until a read gives bytes, the end, or an error.
    ///
    /// # Errors
    /// If the stack's driver has ended.
    pub async fn readable(&self) -> io::Result<()> {
        self.connection.readable().await
    }

    /// Waits until a write takes bytes or gives an error.
    ///
    /// # Errors
    /// If the stack's driver has ended.
    pub async fn writable(&self) -> io::Result<()> {
        self.connection.writable().await
    }

    /// Waits until one of the things is the case that are asked for, and says which are. [`Ready::ERROR`] means that the
    /// connection has failed: reading and writing say why.
    ///
    /// # Errors
    /// If the stack's driver has ended.
    pub async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.connection.ready(interest).await
    }

    /// Waits until the connection fails, for a RST or because the peer does not answer; for ever, if it does not. It needs
    /// nobody who reads or writes.
    ///
    /// Cancel-safe.
    pub async fn failed(&self) -> io::Error {
        self.connection.failed().await
    }

    /// Reads what is there; 0 means that the peer has finished.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is there yet; else why the connection is over.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        self.connection.try_read(&mut buf)?;
        Ok(buf.filled().len())
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room yet; else why there never will be.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.connection.try_write_vectored(&[IoSlice::new(bytes)])
    }

    /// The same, of several pieces.
    ///
    /// # Errors
    /// As [`TcpStream::try_write`].
    pub fn try_write_vectored(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        self.connection.try_write_vectored(bytes)
    }

    /// Lets reads that nothing came for fail at this time with [`TimedOut`](io::ErrorKind::TimedOut); `None`, as at
    /// first, lets them wait. It counts for [`AsyncRead`], also of the half of a stream that is split for good.
    pub fn set_read_deadline(&mut self, deadline: Option<Instant>) {
        self.read_deadline.set(deadline);
    }

    /// The same for writes that find no room, and [`AsyncWrite`].
    pub fn set_write_deadline(&mut self, deadline: Option<Instant>) {
        self.write_deadline.set(deadline);
    }

    /// Says that nothing more will be written: a FIN follows what was. The other direction stays open. What
    /// [`AsyncWrite`]'s `poll_shutdown` does, by shared reference.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn finish(&self) -> io::Result<()> {
        self.connection.shutdown()
    }

    /// Waits until the peer has acknowledged all that was written, and the FIN behind it: what `close` with a linger time
    /// waits for. Say [`TcpStream::finish`] before; a limit is the caller's affair ([`tokio::time::timeout`]).
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// Why it was not delivered.
    pub async fn delivered(&self) -> io::Result<()> {
        self.connection.delivered().await
    }

    /// Closes the connection, and waits as Linux's `close` does with `SO_LINGER`: a FIN follows what was written, and what
    /// comes from here on is answered with a RST. With a time ([`TcpStream::set_linger`]) it waits so long at most until
    /// the peer has acknowledged everything; without one it does not wait. After that the connection goes on in the
    /// background, as that of a stream that was dropped. If something that came was not read, or the time is zero, the
    /// peer gets a RST at once.
    ///
    /// Dropped, the future waits no more, and the connection goes on in the background.
    ///
    /// # Errors
    /// Why the connection ended before everything was delivered, if it did while this waited.
    pub async fn close(self) -> io::Result<Closed> {
        self.connection.close().await
    }

    /// Ends the connection with a RST, as a drop after [`TcpStream::set_zero_linger`] does: what was not delivered is lost.
    pub fn reset(self) {
        self.connection.abort();
    }

    /// Our end. On a transparent listener it is whom the peer wanted to reach.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.connection.local_addr()
    }

    /// The other end.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.connection.peer_addr()
    }

    /// A reading and a writing half, for one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        split::split(&self.connection)
    }

    /// A reading and a writing half, for two tasks. The connection is closed when both are dropped; the writing
    /// half shuts its direction down when it is.
    #[must_use]
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        split::into_split(self)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = self.connection.poll_read(cx, buf);
        self.read_deadline.or_time_out(cx, result)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.connection.poll_write(cx, bytes);
        self.write_deadline.or_time_out(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.connection.poll_write_vectored(cx, bytes);
        self.write_deadline.or_time_out(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is held back, so there is nothing to do.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A FIN follows what was written; the other direction stays open.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.connection.shutdown())
    }
}
