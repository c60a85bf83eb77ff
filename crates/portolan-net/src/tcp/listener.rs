use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use portolan_core::table::Scope;
use portolan_core::wire::UnreachableCode;
use portolan_stack::{ListenError, ListenerId, SynId, TcpConfig};
use smallvec::SmallVec;

use super::TcpStream;
use super::connection::Connection;
use crate::shard::{Core, ShardRef, Waiting};
use crate::wakers::Wait;
use crate::{Stack, error};

/// A socket that takes connections, as tokio's.
///
/// All methods take `&self`, so that any number of tasks may accept. Dropped, it resets the connections that wait.
#[derive(Debug)]
pub struct TcpListener {
    holds_syns: bool,
    /// One in every shard: a connection comes to that which its flow falls to.
    parts: SmallVec<[(ShardRef, ListenerId); 1]>,
    /// Which part is asked first, so that none starves.
    turn: AtomicUsize,
}

/// Whom a listener is for, and how many may wait.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// How many connections may wait to be accepted in each shard, at most 4096.
    pub backlog: usize,
    /// Hold each SYN until [`TcpListener::next_syn`] has given it out and the program has said what to answer.
    pub hold_syns: bool,
    /// How the connections behave that come to it, if not as the stack's do.
    pub config: Option<TcpConfig>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 1024,
            hold_syns: false,
            config: None,
        }
    }
}

/// A SYN that waits for a word: until then the peer gets no answer.
///
/// Dropped without one it is refused.
#[derive(Debug)]
pub struct HeldSyn {
    shard: ShardRef,
    id: SynId,
    local: SocketAddr,
    remote: SocketAddr,
    has_verdict: bool,
}

/// Ports that are tried where port 0 is free in one shard and taken in another.
const TRIES: usize = 16;

impl TcpListener {
    /// Listens on a socket address, of which the port may be 0 for any free one.
    ///
    /// # Errors
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) and the like; the cause is a [`ListenError`].
    pub fn bind(stack: &Stack, local: SocketAddr) -> io::Result<Self> {
        Self::bind_with(stack, local, ListenOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`TcpListener::bind`].
    pub fn bind_with(stack: &Stack, local: SocketAddr, options: ListenOptions) -> io::Result<Self> {
        let mut tries = if local.port() == 0 && stack.shards().len() > 1 {
            TRIES
        } else {
            1
        };
        loop {
            tries -= 1;
            let mut wanted = local;
            let result = Self::in_every_shard(stack, options, |core| {
                let id = core.engine.listen(wanted, options.backlog)?;
                wanted = core.engine.local(id).unwrap_or(wanted);
                Ok(id)
            });
            match result {
                Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
    }

    /// Listens for all of a scope: a range of ports, a prefix, or every destination there is
    /// ([`Scope::TRANSPARENT`]). [`TcpStream::local_addr`] says whom a peer wanted to reach.
    ///
    /// # Errors
    /// As [`TcpListener::bind`].
    pub fn bind_scope(stack: &Stack, scope: Scope, options: ListenOptions) -> io::Result<Self> {
        Self::in_every_shard(stack, options, |core| {
            core.engine.listen_for(scope, options.backlog)
        })
    }

    fn in_every_shard(
        stack: &Stack,
        options: ListenOptions,
        mut listen: impl FnMut(&mut Core) -> Result<ListenerId, ListenError>,
    ) -> io::Result<Self> {
        let mut listener = Self {
            holds_syns: options.hold_syns,
            parts: SmallVec::new(),
            turn: AtomicUsize::new(0),
        };
        for shard in stack.shards() {
            // If one cannot, dropping `listener` closes those that could.
            let id = shard.act(|core, _| {
                core.check()?;
                let id = listen(core).map_err(error::listen)?;
                core.engine.hold_syns(id, options.hold_syns);
                if let Some(config) = &options.config {
                    // It was made a moment ago, so it is there.
                    let _ = core.engine.configure_listener(id, config);
                }
                io::Result::Ok(id)
            })?;
            listener.parts.push((shard.clone(), id));
        }
        Ok(listener)
    }

    /// The next connection, and its peer.
    ///
    /// Cancel-safe: a connection that was not given out stays in the queue.
    ///
    /// # Errors
    /// If the stack's driver has ended.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.next(Wait::Acceptable, Self::take).await
    }

    /// The same for those who poll: the last task that asked is woken.
    ///
    /// # Errors
    /// As [`TcpListener::accept`].
    pub fn poll_accept(&self, cx: &Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.parts.len() {
            let (shard, id) = &self.parts[first.wrapping_add(step) % self.parts.len()];
            let result = shard.poll(cx, Wait::Acceptable(*id), |core, _| Self::take(core, shard, *id));
            if result.is_ready() {
                return result;
            }
        }
        Poll::Pending
    }

    /// The same, at once.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if no connection waits; else as [`TcpListener::accept`].
    pub fn try_accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self.poll_parts(Self::take) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// The next SYN of a listener that holds them.
    ///
    /// Cancel-safe, as [`TcpListener::accept`].
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) of a listener that answers SYNs itself; if the stack's driver has
    /// ended.
    pub async fn next_syn(&self) -> io::Result<HeldSyn> {
        if !self.holds_syns {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "this listener answers SYNs itself; make it with ListenOptions { hold_syns: true, .. }",
            ));
        }
        self.next(Wait::Syn, |core, shard, listener| {
            while let Some(id) = core.pop_syn(listener) {
                if let Some(held) = core.engine.held_syn(id) {
                    return Poll::Ready(Ok(HeldSyn {
                        shard: shard.clone(),
                        id,
                        local: held.tuple.local(),
                        remote: held.tuple.remote(),
                        has_verdict: false,
                    }));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The socket address that it listens on; for a scope the unspecified one.
    ///
    /// # Errors
    /// If the listener is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let (shard, id) = &self.parts[0];
        let local = shard.look(|core| core.engine.local(*id));
        local.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Asks the parts in turn until one has something, and waits at all of them meanwhile.
    async fn next<T>(
        &self,
        wait: impl Fn(ListenerId) -> Wait,
        take: impl Fn(&mut Core, &ShardRef, ListenerId) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        let waits = self
            .parts
            .iter()
            .map(|(shard, id)| Waiting::new(shard, wait(*id)));
        let mut waits: SmallVec<[Waiting<'_>; 1]> = waits.collect();
        std::future::poll_fn(|cx: &mut Context<'_>| {
            let first = self.turn.fetch_add(1, Ordering::Relaxed);
            for step in 0..self.parts.len() {
                let index = first.wrapping_add(step) % self.parts.len();
                let (shard, id) = &self.parts[index];
                let result = waits[index].poll(cx, |core, _| take(core, shard, *id));
                if result.is_ready() {
                    return result;
                }
            }
            Poll::Pending
        })
        .await
    }

    fn poll_parts<T>(
        &self,
        take: impl Fn(&mut Core, &ShardRef, ListenerId) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.parts.len() {
            let (shard, id) = &self.parts[first.wrapping_add(step) % self.parts.len()];
            let result = shard.act(|core, _| match take(core, shard, *id) {
                Poll::Pending => core.pending(),
                ready => ready,
            });
            if result.is_ready() {
                return result;
            }
        }
        Poll::Pending
    }

    fn take(
        core: &mut Core,
        shard: &ShardRef,
        listener: ListenerId,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let Some(id) = core.engine.accept(listener) else {
            return Poll::Pending;
        };
        let tuple = core
            .engine
            .four_tuple(id)
            .expect("a connection that was just accepted is there");
        let stream = TcpStream::new(Connection::new(shard.clone(), id));
        Poll::Ready(Ok((stream, tuple.remote())))
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        for (shard, id) in &self.parts {
            shard.act(|core, now| {
                core.forget_syns(*id);
                core.wakers.forget_polled(Wait::Acceptable(*id));
                core.engine.close_listener(now, *id);
            });
        }
    }
}

impl HeldSyn {
    /// Whom the peer wants to reach.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The peer.
    #[must_use]
    pub const fn peer_addr(&self) -> SocketAddr {
        self.remote
    }

    /// Answers it, and waits for the handshake to be done.
    ///
    /// # Errors
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) if it waited too long, or the peer took it back;
    /// otherwise why the handshake failed.
    pub async fn accept(mut self) -> io::Result<TcpStream> {
        self.has_verdict = true;
        let accepted = self.shard.act(|core, now| core.engine.accept_syn(now, self.id));
        let id = accepted.map_err(|error| io::Error::new(io::ErrorKind::ConnectionAborted, error))?;
        let connection = Connection::new(self.shard.clone(), id);
        connection.connected().await?;
        Ok(TcpStream::new(connection))
    }

    /// Answers with a RST: nobody listens.
    pub fn refuse(self) {
        drop(self);
    }

    /// Does not answer: to the peer the SYN was lost, and it will ask again. Each time is a new SYN that waits for a word;
    /// to be asked once, keep this one for as long as there is to be silence.
    pub fn ignore(mut self) {
        self.has_verdict = true;
        // If it is gone, so is the peer's wish.
        let _ = self.shard.act(|core, _| core.engine.drop_syn(self.id));
    }

    /// Answers that the destination is unreachable, and why.
    pub fn reject(mut self, why: UnreachableCode) {
        self.has_verdict = true;
        // If it is gone, so is the peer's wish.
        let _ = self.shard.act(|core, _| core.engine.reject_syn(self.id, why));
    }
}

impl Drop for HeldSyn {
    fn drop(&mut self) {
        if !self.has_verdict {
            // If it is gone, so is the peer's wish.
            let _ = self.shard.act(|core, _| core.engine.refuse_syn(self.id));
        }
    }
}
