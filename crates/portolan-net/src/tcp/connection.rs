use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use portolan_core::demux::FourTuple;
use portolan_stack::{CloseReason, ConnectionId, ConnectionInfo, ConnectionStats, Instant, State, TcpConfig};
use tokio::io::{Interest, ReadBuf, Ready};

use super::stream::Closed;
use crate::error;
use crate::shard::{Core, ShardRef, Waiting};
use crate::wakers::Wait;

/// A connection that a program holds: what a stream and its halves have in common. Dropped, it is let go.
#[derive(Debug)]
pub(super) struct Connection {
    shard: ShardRef,
    id: ConnectionId,
    /// How long closing waits for the peer, in milliseconds; 0 is a RST.
    linger: AtomicU32,
}

/// [`Connection::linger`] of a connection that nobody waits for.
const NO_LINGER: u32 = u32::MAX;

impl Connection {
    pub(super) const fn new(shard: ShardRef, id: ConnectionId) -> Self {
        Self {
            shard,
            id,
            linger: AtomicU32::new(NO_LINGER),
        }
    }

    pub(super) fn poll_read(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.shard.act(|core, now| {
            let result = read(core, now, self.id, buf);
            self.or_wait_to_read(core, cx, result)
        })
    }

    pub(super) fn poll_read_buf(&self, cx: &Context<'_>, buf: &mut impl BufMut) -> Poll<io::Result<usize>> {
        self.shard.act(|core, now| {
            let result = read_buf(core, now, self.id, buf);
            self.or_wait_to_read(core, cx, result)
        })
    }

    /// Reads up to the next urgent byte, or that alone: says which.
    pub(super) fn poll_read_marked(
        &self,
        cx: &Context<'_>,
        buf: &mut impl BufMut,
    ) -> Poll<io::Result<(usize, bool)>> {
        self.shard.act(|core, now| {
            let (most, is_urgent) = match core.engine.urgent_ahead(self.id) {
                None => (usize::MAX, false),
                Some(0) => (1, true),
                Some(ahead) => (ahead, false),
            };
            let result = read_buf(core, now, self.id, &mut buf.limit(most));
            self.or_wait_to_read(core, cx, result)
                .map_ok(|len| (len, is_urgent && len > 0))
        })
    }

    /// Writes bytes of which the last is urgent.
    pub(super) fn poll_write_urgent(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shard.act(|core, now| {
            let result = match core.engine.write_urgent(now, self.id, bytes) {
                Ok(len) => Poll::Ready(Ok(len)),
                Err(error) => error::write(error).map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
            };
            self.or_wait_to_write(core, cx, result)
        })
    }

    pub(super) fn poll_read_chunk(&self, cx: &Context<'_>, max: usize) -> Poll<io::Result<Option<Bytes>>> {
        self.shard.act(|core, now| {
            let result = read_chunk(core, now, self.id, max);
            self.or_wait_to_read(core, cx, result)
        })
    }

    pub(super) fn poll_peek(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        self.shard.act(|core, _| {
            let result = peek(core, self.id, buf);
            self.or_wait_to_read(core, cx, result)
        })
    }

    pub(super) fn poll_write(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    pub(super) fn poll_write_vectored(
        &self,
        cx: &Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shard.act(|core, now| {
            let result = write(core, now, self.id, bytes);
            self.or_wait_to_write(core, cx, result)
        })
    }

    pub(super) fn poll_write_chunk(&self, cx: &Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<usize>> {
        self.shard.act(|core, now| {
            let result = write_chunk(core, now, self.id, chunk);
            self.or_wait_to_write(core, cx, result)
        })
    }

    pub(super) fn try_read(&self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        now_or_would_block(self.shard.act(|core, now| read(core, now, self.id, buf)))
    }

    pub(super) fn try_read_buf(&self, buf: &mut impl BufMut) -> io::Result<usize> {
        now_or_would_block(self.shard.act(|core, now| read_buf(core, now, self.id, buf)))
    }

    pub(super) fn try_read_chunk(&self, max: usize) -> io::Result<Option<Bytes>> {
        now_or_would_block(self.shard.act(|core, now| read_chunk(core, now, self.id, max)))
    }

    pub(super) fn try_write_vectored(&self, bytes: &[IoSlice<'_>]) -> io::Result<usize> {
        now_or_would_block(self.shard.act(|core, now| write(core, now, self.id, bytes)))
    }

    pub(super) async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        let wait = Wait::Readable(self.id);
        self.shard
            .wait(wait, |core, _| peek(core, self.id, &mut ReadBuf::new(buf)))
            .await
    }

    pub(super) async fn read_chunk(&self, max: usize) -> io::Result<Option<Bytes>> {
        let wait = Wait::Readable(self.id);
        self.shard
            .wait(wait, |core, now| read_chunk(core, now, self.id, max))
            .await
    }

    pub(super) async fn write_chunk(&self, chunk: &mut Bytes) -> io::Result<usize> {
        let wait = Wait::Writable(self.id);
        self.shard
            .wait(wait, |core, now| write_chunk(core, now, self.id, chunk))
            .await
    }

    /// Until a read gives bytes, the end, or an error.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.ready(Interest::READABLE).await.map(|_| ())
    }

    /// Until a write takes bytes or gives an error.
    pub(super) async fn writable(&self) -> io::Result<()> {
        self.ready(Interest::WRITABLE).await.map(|_| ())
    }

    /// Until one of the things is the case that are asked for: says which are.
    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        let wait = |wanted: bool, wait| wanted.then(|| Waiting::new(&self.shard, wait));
        let mut waits = [
            wait(interest.is_readable(), Wait::Readable(self.id)),
            wait(interest.is_writable(), Wait::Writable(self.id)),
            wait(interest.is_error(), Wait::Closed(self.id)),
        ];
        std::future::poll_fn(|cx| {
            for waiting in waits.iter_mut().flatten() {
                let result = waiting.poll(cx, |core, now| match readiness(core, now, self.id, interest) {
                    Ready::EMPTY => Poll::Pending,
                    ready => Poll::Ready(Ok(ready)),
                });
                if result.is_ready() {
                    return result;
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Until the connection is no more, for another reason than that both sides were done.
    pub(super) async fn failed(&self) -> io::Error {
        let has_failed = |core: &mut Core, _| match core.engine.close_reason(self.id) {
            None | Some(CloseReason::Finished) => Poll::Pending,
            Some(reason) => Poll::Ready(Err::<Infallible, _>(error::closed(reason))),
        };
        match self.shard.wait(Wait::Closed(self.id), has_failed).await {
            Err(error) => error,
        }
    }

    /// Until the connection has failed, or the peer asks whether somebody is there.
    pub(super) async fn disturbed(&self) -> io::Result<()> {
        let is_disturbed = |core: &mut Core, _| match core.engine.close_reason(self.id) {
            None if core.engine.take_probe(self.id) => Poll::Ready(Ok(())),
            None | Some(CloseReason::Finished) => Poll::Pending,
            Some(reason) => Poll::Ready(Err(error::closed(reason))),
        };
        self.shard.wait(Wait::Closed(self.id), is_disturbed).await
    }

    /// The peer's probes are the program's to answer.
    pub(super) fn hold_probes(&self) -> io::Result<()> {
        let hold = |core: &mut Core, now| core.engine.hold_probes(now, self.id, true);
        self.shard.act(hold).map_err(not_connected)
    }

    pub(super) fn answer_probe(&self) {
        // Without a connection nobody asks.
        let _ = self.shard.act(|core, now| core.engine.answer_probe(now, self.id));
    }

    /// Until the handshake is done, or failed.
    pub(super) async fn connected(&self) -> io::Result<()> {
        let is_connected = |core: &mut Core, now| {
            // Writing nothing says why a connection is over.
            if let Err(error) = core.engine.write(now, self.id, &[])
                && let Some(error) = error::write(error)
            {
                return Poll::Ready(Err(error));
            }
            match core.engine.info(self.id).map(|info| info.state) {
                Some(State::SynSent | State::SynReceived) => Poll::Pending,
                Some(_) | None => Poll::Ready(Ok(())),
            }
        };
        self.shard.wait(Wait::Writable(self.id), is_connected).await
    }

    /// A FIN follows what was written.
    pub(super) fn shutdown(&self) -> io::Result<()> {
        self.shard.act(|core, now| {
            core.check()?;
            core.engine.finish(now, self.id).map_err(not_connected)
        })
    }

    /// Ends the connection with a RST.
    pub(super) fn abort(&self) {
        // Without a connection there is nothing to end.
        let _ = self.shard.act(|core, now| core.engine.abort(now, self.id));
    }

    /// Until all that was written is acknowledged, and the FIN.
    pub(super) async fn delivered(&self) -> io::Result<()> {
        let is_delivered = |core: &mut Core, _| {
            let reason = core.engine.close_reason(self.id);
            match core.engine.info(self.id).map(|info| info.state) {
                Some(State::FinWait2 | State::TimeWait) => Poll::Ready(Ok(())),
                _ if reason == Some(CloseReason::Finished) => Poll::Ready(Ok(())),
                _ => reason.map_or(Poll::Pending, |reason| Poll::Ready(Err(error::closed(reason)))),
            }
        };
        self.shard.wait(Wait::Delivered(self.id), is_delivered).await
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.shard
            .look(|core| matches!(core.engine.peek(self.id), Ok([])))
    }

    pub(super) fn set_linger(&self, linger: Option<Duration>) {
        let millis =
            |time: Duration| u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(NO_LINGER - 1);
        let millis = linger.map_or(NO_LINGER, |time| millis(time).min(NO_LINGER - 1));
        self.linger.store(millis, Ordering::Relaxed);
    }

    pub(super) fn linger(&self) -> Option<Duration> {
        let millis = self.linger.load(Ordering::Relaxed);
        (millis != NO_LINGER).then(|| Duration::from_millis(millis.into()))
    }

    /// What Linux's `close` does: a RST, or a FIN behind what was written and a wait for the peer to have it all.
    pub(super) async fn close(self) -> io::Result<Closed> {
        let linger = self.linger();
        let begun = self.shard.act(|core, now| {
            core.check()?;
            let is_unread = core.engine.peek(self.id).is_ok_and(|bytes| !bytes.is_empty());
            if is_unread || linger == Some(Duration::ZERO) {
                return Ok(Some(Closed::Reset));
            }
            // What comes from here on is nobody's: it is answered with a RST.
            core.engine.shutdown_read(now, self.id).map_err(not_connected)?;
            core.engine.finish(now, self.id).map_err(not_connected)?;
            Ok(linger.is_none().then_some(Closed::InBackground))
        });
        match (begun, linger) {
            (Ok(None), Some(time)) => match tokio::time::timeout(time, self.delivered()).await {
                Ok(delivered) => delivered.map(|()| Closed::Delivered),
                Err(_) => Ok(Closed::InBackground),
            },
            (begun, _) => begun.map(|closed| closed.unwrap_or(Closed::InBackground)),
        }
    }

    pub(super) fn config(&self) -> io::Result<TcpConfig> {
        let config = self.shard.look(|core| core.engine.configuration(self.id));
        config.ok_or_else(|| not_connected(portolan_stack::NoConnection))
    }

    pub(super) fn set_config(&self, config: &TcpConfig) -> io::Result<()> {
        let set = |core: &mut Core, now| core.engine.configure(now, self.id, config);
        self.shard.act(set).map_err(not_connected)
    }

    pub(super) fn statistics(&self) -> Option<ConnectionStats> {
        self.shard.act(|core, now| core.engine.statistics(now, self.id))
    }

    pub(super) fn set_no_delay(&self, no_delay: bool) -> io::Result<()> {
        let set = |core: &mut Core, now| core.engine.set_no_delay(now, self.id, no_delay);
        self.shard.act(set).map_err(not_connected)
    }

    pub(super) fn info(&self) -> io::Result<ConnectionInfo> {
        let info = self.shard.look(|core| core.engine.info(self.id));
        info.ok_or_else(|| not_connected(portolan_stack::NoConnection))
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.four_tuple().map(|tuple| tuple.local())
    }

    pub(super) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.four_tuple().map(|tuple| tuple.remote())
    }

    fn four_tuple(&self) -> io::Result<FourTuple> {
        let tuple = self.shard.look(|core| core.engine.four_tuple(self.id));
        tuple.ok_or_else(|| not_connected(portolan_stack::NoConnection))
    }

    fn or_wait_to_read<T>(
        &self,
        core: &mut Core,
        cx: &Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_pending() {
            core.wakers.set_reader(self.id, cx);
            return core.pending();
        }
        result
    }

    fn or_wait_to_write<T>(
        &self,
        core: &mut Core,
        cx: &Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_pending() {
            core.wakers.set_writer(self.id, cx);
            return core.pending();
        }
        result
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shard.act(|core, now| {
            core.wakers.forget(self.id);
            if *self.linger.get_mut() == 0 {
                let _ = core.engine.abort(now, self.id);
            }
            // Nobody else closes it, so it is there.
            let _ = core.engine.close(now, self.id);
        });
    }
}

fn read(core: &mut Core, now: Instant, id: ConnectionId, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    let room = buf.remaining();
    let put = |bytes: &[u8]| buf.put_slice(bytes);
    read_by(core, now, id, room, put).map_ok(|_| ())
}

fn read_buf(
    core: &mut Core,
    now: Instant,
    id: ConnectionId,
    buf: &mut impl BufMut,
) -> Poll<io::Result<usize>> {
    let room = if buf.has_remaining_mut() {
        buf.chunk_mut().len()
    } else {
        0
    };
    read_by(core, now, id, room, |bytes| buf.put_slice(bytes))
}

/// Gives up to `room` bytes to `put`, and says how many. They go from the engine's buffers right to the caller's, which
/// need not be made zero before.
fn read_by(
    core: &mut Core,
    now: Instant,
    id: ConnectionId,
    room: usize,
    mut put: impl FnMut(&[u8]),
) -> Poll<io::Result<usize>> {
    let mut len = 0;
    while len < room {
        match core.engine.peek(id) {
            Ok([]) => break,
            Ok(bytes) => {
                let bytes = &bytes[..bytes.len().min(room - len)];
                put(bytes);
                let copied = bytes.len();
                core.engine.consume(now, id, copied);
                len += copied;
            }
            Err(_) if len > 0 => break,
            Err(error) => return error::read(error).map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
    Poll::Ready(Ok(len))
}

/// What a connection is ready for, of what is asked for; as of tokio's sockets, an error makes it ready for all.
fn readiness(core: &mut Core, now: Instant, id: ConnectionId, interest: Interest) -> Ready {
    let mut ready = Ready::EMPTY;
    if interest.is_readable() {
        match core.engine.peek(id) {
            Ok([]) => ready |= Ready::READABLE | Ready::READ_CLOSED,
            Err(error) if error::read(error).is_none() => {}
            Ok(_) | Err(_) => ready |= Ready::READABLE,
        }
    }
    if interest.is_writable() {
        match core.engine.poll_writable(now, id) {
            Ok(()) => ready |= Ready::WRITABLE,
            Err(error) if error::write(error).is_none() => {}
            Err(_) => ready |= Ready::WRITABLE | Ready::WRITE_CLOSED,
        }
    }
    if interest.is_error()
        && core
            .engine
            .close_reason(id)
            .is_some_and(|reason| reason != CloseReason::Finished)
    {
        ready |= Ready::ERROR;
    }
    ready
}

fn peek(core: &Core, id: ConnectionId, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
    match core.engine.peek(id) {
        Ok(bytes) => {
            let len = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..len]);
            Poll::Ready(Ok(len))
        }
        Err(error) => error::read(error).map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
    }
}

fn read_chunk(
    core: &mut Core,
    now: Instant,
    id: ConnectionId,
    max: usize,
) -> Poll<io::Result<Option<Bytes>>> {
    match core.engine.read_chunk(now, id, max) {
        Ok(chunk) => Poll::Ready(Ok((!chunk.is_empty() || max == 0).then_some(chunk))),
        Err(error) => error::read(error).map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
    }
}

fn write(core: &mut Core, now: Instant, id: ConnectionId, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    core.check()?;
    let mut written = 0;
    for slice in bytes {
        match core.engine.write(now, id, slice) {
            Ok(len) => {
                written += len;
                if len < slice.len() {
                    break;
                }
            }
            Err(_) if written > 0 => break,
            Err(error) => return error::write(error).map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
    Poll::Ready(Ok(written))
}

fn write_chunk(
    core: &mut Core,
    now: Instant,
    id: ConnectionId,
    chunk: &mut Bytes,
) -> Poll<io::Result<usize>> {
    core.check()?;
    match core.engine.write_chunk(now, id, chunk) {
        Ok(len) => Poll::Ready(Ok(len)),
        Err(error) => error::write(error).map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
    }
}

fn now_or_would_block<T>(result: Poll<io::Result<T>>) -> io::Result<T> {
    match result {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn not_connected(error: portolan_stack::NoConnection) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, error)
}
