//! ICMP echo: pinging others, and answering for them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use portolan_stack::{
    BindEchoError, Echo, EchoError, EchoId, EchoRequest, HeaderFields, IcmpError, SendError,
};
use smallvec::SmallVec;

use crate::shard::{Core, ShardRef, Waiting};
use crate::wakers::Wait;
use crate::{Stack, error};

/// Takes the echo requests (pings) that come for addresses which are not the stack's own, to be answered from there: what
/// a gateway needs that pings for others. Those for the stack's own addresses it answers itself.
///
/// Requests come whole, put together from their fragments. What is not received in time is dropped and counted, at
/// [`StackConfig::udp_buffer`](portolan_stack::StackConfig) bytes in each shard.
///
/// All methods take `&self`, so that any number of tasks may receive and answer. There is one for a stack.
#[derive(Debug)]
pub struct EchoResponder {
    stack: Stack,
    /// Those in which requests are taken: all, once it is made.
    shards: SmallVec<[ShardRef; 1]>,
}

impl EchoResponder {
    /// Takes the requests from now on, until it is dropped.
    ///
    /// # Errors
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if another one takes them.
    pub fn bind(stack: &Stack) -> io::Result<Self> {
        let mut responder = Self {
            stack: stack.clone(),
            shards: SmallVec::new(),
        };
        for shard in stack.shards() {
            // If one cannot, dropping `responder` undoes those that could.
            shard.act(|core, _| {
                core.check()?;
                let taken = core.engine.take_echo_requests();
                taken.map_err(|error| io::Error::new(io::ErrorKind::AddrInUse, error))
            })?;
            responder.shards.push(shard.clone());
        }
        Ok(responder)
    }

    /// Takes a request, and as much of its data as fits into `buf`; the rest of it is lost.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// If the stack's driver has ended.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<EchoRequest> {
        let waits = self.shards.iter();
        let waits = waits.map(|shard| Waiting::new(shard, Wait::EchoRequests));
        let mut waits: SmallVec<[Waiting<'_>; 1]> = waits.collect();
        std::future::poll_fn(|cx: &mut Context<'_>| {
            for waiting in &mut waits {
                let result = waiting.poll(cx, |core, _| receive(core, buf));
                if result.is_ready() {
                    return result;
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Takes a request that is there.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<EchoRequest> {
        for shard in &self.shards {
            if let Poll::Ready(result) = shard.act(|core, _| receive(core, buf)) {
                return result;
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Answers a request with `data`, which is the request's own if all is well, from the address that was asked.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if too many answers wait: the network would lose this one.
    pub fn reply(&self, request: &EchoRequest, data: &[u8]) -> io::Result<()> {
        self.pass_back(request, HeaderFields::default(), data)
    }

    /// The same with a reply that came from elsewhere, with the fields of the IP header that it came with.
    ///
    /// # Errors
    /// As [`EchoResponder::reply`].
    pub fn pass_back(&self, request: &EchoRequest, fields: HeaderFields, data: &[u8]) -> io::Result<()> {
        self.answer(request, |core| core.engine.answer_echo(request, fields, data))
    }

    /// Answers a request with an ICMP error, which quotes `start`, as much of its data as is known.
    ///
    /// # Errors
    /// As [`EchoResponder::reply`].
    pub fn reject(&self, request: &EchoRequest, start: &[u8], why: IcmpError) -> io::Result<()> {
        self.answer(request, |core| core.engine.reject_echo(request, start, why))
    }

    /// Any shard can answer; one asker's are answered by one, in order.
    fn answer(
        &self,
        request: &EchoRequest,
        act: impl FnOnce(&mut Core) -> Result<(), SendError>,
    ) -> io::Result<()> {
        let local = SocketAddr::new(request.destination, 0);
        let remote = SocketAddr::new(request.source, 0);
        let shard = &self.shards[self.stack.shard_of(local, remote)];
        shard.act(|core, _| {
            core.check()?;
            error::sent(act(core))
        })
    }
}

impl Drop for EchoResponder {
    fn drop(&mut self) {
        for shard in &self.shards {
            shard.act(|core, _| core.engine.leave_echo_requests());
        }
    }
}

fn receive(core: &mut Core, buf: &mut [u8]) -> Poll<io::Result<EchoRequest>> {
    core.engine
        .receive_echo_request(buf)
        .map_or(Poll::Pending, |request| Poll::Ready(Ok(request)))
}

/// Pings: sends ICMP echo requests, and hears the replies to them and the errors about them.
///
/// As Linux's ping sockets it has an identifier of its own. All methods take `&self`.
#[derive(Debug)]
pub struct PingSocket {
    stack: Stack,
    /// One in every shard, with the same identifier: a reply comes to that which its addresses fall to.
    parts: SmallVec<[(ShardRef, EchoId); 1]>,
}

/// What a [`PingSocket`] hears of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pong {
    /// It was answered.
    Reply(Echo),
    /// It did not get through.
    Error(EchoError),
}

/// Identifiers that are tried where one is free in one shard and taken in another.
const TRIES: usize = 16;

impl PingSocket {
    /// Opens a socket on an address of the stack, or on the unspecified one of a family for all of that.
    ///
    /// # Errors
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) if the address is not the stack's;
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if no identifier is free.
    pub fn bind(stack: &Stack, local: IpAddr) -> io::Result<Self> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            match Self::in_every_shard(stack, local) {
                Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
    }

    fn in_every_shard(stack: &Stack, local: IpAddr) -> io::Result<Self> {
        let mut socket = Self {
            stack: stack.clone(),
            parts: SmallVec::new(),
        };
        let mut wanted = 0;
        for shard in stack.shards() {
            // If one cannot, dropping `socket` closes those that could.
            let id = shard.act(|core, _| {
                core.check()?;
                let id = core.engine.bind_echo(local, wanted).map_err(bind_error)?;
                wanted = core.engine.echo_local(id).map_or(0, |(_, identifier)| identifier);
                io::Result::Ok(id)
            })?;
            socket.parts.push((shard.clone(), id));
        }
        Ok(socket)
    }

    /// Asks `remote` for an echo of `data`, from the socket's address or that of the stack that fits.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if too many ICMP packets wait to be sent, and the like; the cause is a
    /// [`SendError`].
    pub fn send_to(&self, data: &[u8], remote: IpAddr, sequence: u16) -> io::Result<()> {
        let (local, _) = self.local()?;
        let source = if local.is_unspecified() {
            self.stack.source_for(remote).unwrap_or(local)
        } else {
            local
        };
        let (shard, id) = &self.parts[0];
        shard.act(|core, _| {
            core.check()?;
            error::sent(core.engine.send_echo(*id, source, remote, sequence, data))
        })
    }

    /// Takes the next reply, and as much of its data as fits into `buf`; or the next error.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// If the stack's driver has ended.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<Pong> {
        let waits = self.parts.iter();
        let waits = waits.map(|(shard, id)| Waiting::new(shard, Wait::Echo(*id)));
        let mut waits: SmallVec<[Waiting<'_>; 1]> = waits.collect();
        std::future::poll_fn(|cx: &mut Context<'_>| {
            for (waiting, (_, id)) in waits.iter_mut().zip(&self.parts) {
                let result = waiting.poll(cx, |core, _| receive_echo(core, *id, buf));
                if result.is_ready() {
                    return result;
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Sets how many routers a request may pass; 64 at first.
    pub fn set_ttl(&self, ttl: u8) {
        for (shard, id) in &self.parts {
            // Nobody else closes it, so it is there.
            let _ = shard.look(|core| core.engine.set_echo_hop_limit(*id, ttl));
        }
    }

    /// The socket's address, which may be the unspecified one, and its identifier.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local(&self) -> io::Result<(IpAddr, u16)> {
        let (shard, id) = &self.parts[0];
        let local = shard.look(|core| core.engine.echo_local(*id));
        local.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for PingSocket {
    fn drop(&mut self) {
        for (shard, id) in &self.parts {
            // Nobody else closes it, so it is there.
            let _ = shard.act(|core, _| core.engine.close_echo(*id));
        }
    }
}

fn receive_echo(core: &mut Core, id: EchoId, buf: &mut [u8]) -> Poll<io::Result<Pong>> {
    if let Some(error) = core.engine.next_echo_error(id) {
        return Poll::Ready(Ok(Pong::Error(error)));
    }
    match core.engine.receive_echo(id, buf) {
        Ok(Some(echo)) => Poll::Ready(Ok(Pong::Reply(echo))),
        Ok(None) => Poll::Pending,
        Err(error) => Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, error))),
    }
}

fn bind_error(error: BindEchoError) -> io::Error {
    let kind = match error {
        BindEchoError::NotLocal(_) => io::ErrorKind::AddrNotAvailable,
        _ => io::ErrorKind::AddrInUse,
    };
    io::Error::new(kind, error)
}
