//! Halves of a stream.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::TcpStream;
use super::connection::Connection;
use super::deadline::Deadline;

/// The borrowed reading half of a [`TcpStream`].
#[derive(Debug)]
pub struct ReadHalf<'a>(&'a Connection);

/// The borrowed writing half of a [`TcpStream`].
#[derive(Debug)]
pub struct WriteHalf<'a>(&'a Connection);

/// The reading half of a [`TcpStream`].
#[derive(Debug)]
pub struct OwnedReadHalf {
    connection: Arc<Connection>,
    deadline: Deadline,
}

/// The writing half of a [`TcpStream`]. Dropped, it sends a FIN.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    connection: Arc<Connection>,
    deadline: Deadline,
    shuts_down: bool,
}

/// The halves are of two streams.
#[derive(Debug)]
pub struct ReuniteError(pub OwnedReadHalf, pub OwnedWriteHalf);

pub(super) const fn split(connection: &Connection) -> (ReadHalf<'_>, WriteHalf<'_>) {
    (ReadHalf(connection), WriteHalf(connection))
}

pub(super) fn into_split(stream: TcpStream) -> (OwnedReadHalf, OwnedWriteHalf) {
    let connection = Arc::new(stream.connection);
    let write = OwnedWriteHalf {
        connection: Arc::clone(&connection),
        deadline: stream.write_deadline,
        shuts_down: true,
    };
    let read = OwnedReadHalf {
        connection,
        deadline: stream.read_deadline,
    };
    (read, write)
}

impl OwnedReadHalf {
    /// Makes the stream whole again.
    ///
    /// # Errors
    /// If the halves are of two streams.
    pub fn reunite(self, other: OwnedWriteHalf) -> Result<TcpStream, ReuniteError> {
        if !Arc::ptr_eq(&self.connection, &other.connection) {
            return Err(ReuniteError(self, other));
        }
        let mut other = other;
        let write_deadline = std::mem::take(&mut other.deadline);
        other.forget();
        let connection =
            Arc::into_inner(self.connection).expect("there are two halves, and this was the last");
        Ok(TcpStream {
            connection,
            read_deadline: self.deadline,
            write_deadline,
        })
    }

    /// As [`TcpStream::set_read_deadline`].
    pub fn set_read_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    /// As [`TcpStream::peek`].
    ///
    /// # Errors
    /// As reading.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.connection.peek(buf).await
    }

    /// As [`TcpStream::read_chunk`].
    ///
    /// # Errors
    /// As reading.
    pub async fn read_chunk(&self, max: usize) -> io::Result<Option<Bytes>> {
        self.connection.read_chunk(max).await
    }

    /// As [`TcpStream::readable`].
    ///
    /// # Errors
    /// If the stack's driver has ended.
    pub async fn readable(&self) -> io::Result<()> {
        self.connection.readable().await
    }

    /// As [`TcpStream::try_read`].
    ///
    /// # Errors
    /// As there.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        self.connection.try_read(&mut buf)?;
        Ok(buf.filled().len())
    }

    /// Our end.
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
}

impl OwnedWriteHalf {
    /// Makes the stream whole again.
    ///
    /// # Errors
    /// If the halves are of two streams.
    pub fn reunite(self, other: OwnedReadHalf) -> Result<TcpStream, ReuniteError> {
        other.reunite(self)
    }

    /// Drops the half without a FIN.
    pub fn forget(mut self) {
        self.shuts_down = false;
    }

    /// As [`TcpStream::set_write_deadline`].
    pub fn set_write_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    /// As [`TcpStream::write_chunk`].
    ///
    /// # Errors
    /// As writing.
    pub async fn write_chunk(&self, chunk: &mut Bytes) -> io::Result<usize> {
        self.connection.write_chunk(chunk).await
    }

    /// As [`TcpStream::writable`].
    ///
    /// # Errors
    /// If the stack's driver has ended.
    pub async fn writable(&self) -> io::Result<()> {
        self.connection.writable().await
    }

    /// As [`TcpStream::try_write`].
    ///
    /// # Errors
    /// As there.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.connection.try_write_vectored(&[IoSlice::new(bytes)])
    }

    /// Our end.
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
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.shuts_down {
            // If the connection is over, no FIN is needed.
            let _ = self.connection.shutdown();
        }
    }
}

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves are of two streams")
    }
}

impl std::error::Error for ReuniteError {}

impl AsyncRead for ReadHalf<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buf)
    }
}

impl AsyncRead for OwnedReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = self.connection.poll_read(cx, buf);
        self.deadline.or_time_out(cx, result)
    }
}

impl AsyncWrite for WriteHalf<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.shutdown())
    }
}

impl AsyncWrite for OwnedWriteHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = self.connection.poll_write(cx, bytes);
        self.deadline.or_time_out(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = self.connection.poll_write_vectored(cx, bytes);
        self.deadline.or_time_out(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.connection.shutdown();
        if result.is_ok() {
            self.shuts_down = false;
        }
        Poll::Ready(result)
    }
}
