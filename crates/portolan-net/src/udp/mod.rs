//! Datagrams.

mod options;
mod poll;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::task::{Context, Poll};

use portolan_core::table::Scope;
use portolan_stack::{Datagram, HeaderFields, IcmpError, SendError, UdpId};
use smallvec::SmallVec;

use crate::shard::{Core, ShardRef, Waiting};
use crate::wakers::Wait;
use crate::{Stack, error};

/// A UDP socket, as tokio's.
///
/// All methods take `&self`, so that any number of tasks may send and receive. What is not received in time is
/// dropped and counted, at [`StackConfig::udp_buffer`](portolan_stack::StackConfig) bytes in each shard.
///
/// Everything is cancel-safe: a future that is dropped has sent or received nothing.
#[derive(Debug)]
pub struct UdpSocket {
    stack: Stack,
    /// One in every shard: a datagram comes to that which its ends fall to.
    parts: SmallVec<[(ShardRef, UdpId); 1]>,
}

/// Ports that are tried where port 0 is free in one shard and taken in another.
const TRIES: usize = 16;

impl UdpSocket {
    /// Opens a socket on a socket address, of which the port may be 0 for any free one.
    ///
    /// # Errors
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) and the like; the cause is a
    /// [`BindError`](portolan_core::table::BindError).
    pub fn bind(stack: &Stack, local: SocketAddr) -> io::Result<Self> {
        let mut tries = if local.port() == 0 && stack.shards().len() > 1 {
            TRIES
        } else {
            1
        };
        loop {
            tries -= 1;
            let mut wanted = local;
            let result = Self::in_every_shard(stack, |core| {
                let id = core.engine.bind_udp(wanted).map_err(error::bind)?;
                wanted = core.engine.udp_local(id).unwrap_or(wanted);
                Ok(id)
            });
            match result {
                Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                result => return result,
            }
        }
    }

    /// Opens a socket for all of a scope: a range of ports, a prefix, or every destination there is.
    /// [`UdpSocket::recv_msg`] says whom a peer wanted to reach, [`UdpSocket::send_msg`] answers from there.
    ///
    /// # Errors
    /// As [`UdpSocket::bind`].
    pub fn bind_scope(stack: &Stack, scope: Scope) -> io::Result<Self> {
        Self::in_every_shard(stack, |core| {
            core.engine.bind_udp_for(scope).map_err(error::scope)
        })
    }

    fn in_every_shard(
        stack: &Stack,
        mut bind: impl FnMut(&mut Core) -> io::Result<UdpId>,
    ) -> io::Result<Self> {
        let mut socket = Self {
            stack: stack.clone(),
            parts: SmallVec::new(),
        };
        for shard in stack.shards() {
            // If one cannot, dropping `socket` closes those that could.
            let id = shard.act(|core, _| {
                core.check()?;
                bind(core)
            })?;
            socket.parts.push((shard.clone(), id));
        }
        Ok(socket)
    }

    /// Sends a datagram from the socket's address, or the address of this host that fits; waits for room.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is too long, and the like; the cause is a
    /// [`SendError`](portolan_stack::SendError).
    pub async fn send_to(&self, bytes: &[u8], remote: SocketAddr) -> io::Result<usize> {
        self.send_msg(bytes, self.source(remote)?, remote).await
    }

    /// The same, at once.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room; else as [`UdpSocket::send_to`].
    pub fn try_send_to(&self, bytes: &[u8], remote: SocketAddr) -> io::Result<usize> {
        self.try_send_msg(bytes, self.source(remote)?, remote)
    }

    /// Sends a datagram from a socket address that the socket is for, also where it is for many.
    ///
    /// # Errors
    /// As [`UdpSocket::send_to`].
    pub async fn send_msg(&self, bytes: &[u8], source: SocketAddr, remote: SocketAddr) -> io::Result<usize> {
        let (shard, id) = self.part_for(source, remote);
        shard
            .wait(Wait::DatagramRoom(*id), |core, _| {
                send(core, *id, source, remote, bytes)
            })
            .await
    }

    /// The same, at once.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room; else as [`UdpSocket::send_to`].
    pub fn try_send_msg(&self, bytes: &[u8], source: SocketAddr, remote: SocketAddr) -> io::Result<usize> {
        let (shard, id) = self.part_for(source, remote);
        match shard.act(|core, _| send(core, *id, source, remote, bytes)) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Sends as many datagrams as there are pieces of `piece_len` bytes in `bytes`, the last of which may be shorter: at
    /// most 128, and 64 KiB together. Each must fit into a packet of the link; a link that can cuts them.
    ///
    /// # Errors
    /// As [`UdpSocket::try_send_msg`]; then none was sent.
    pub fn try_send_pieces(
        &self,
        bytes: &[u8],
        piece_len: NonZeroU16,
        source: SocketAddr,
        remote: SocketAddr,
    ) -> io::Result<usize> {
        let (shard, id) = self.part_for(source, remote);
        let send = |core: &mut Core, _| {
            let result = core
                .engine
                .send_pieces_from(*id, source, remote, bytes, piece_len);
            sent(core, result, bytes.len())
        };
        match shard.act(send) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Passes on what came from elsewhere, with the fields of the IP header that it came with: a datagram, or with
    /// `piece_len` pieces as [`UdpSocket::try_send_pieces`] sends.
    ///
    /// # Errors
    /// As [`UdpSocket::try_send_pieces`].
    pub fn try_pass_on(
        &self,
        bytes: &[u8],
        piece_len: Option<NonZeroU16>,
        fields: HeaderFields,
        (source, remote): (SocketAddr, SocketAddr),
    ) -> io::Result<()> {
        let (shard, id) = self.part_for(source, remote);
        match shard.act(|core, _| pass_on(core, *id, bytes, piece_len, fields, (source, remote))) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// The same with a datagram, waiting for room.
    ///
    /// # Errors
    /// As [`UdpSocket::send_to`].
    pub async fn pass_on(
        &self,
        bytes: &[u8],
        fields: HeaderFields,
        (source, remote): (SocketAddr, SocketAddr),
    ) -> io::Result<()> {
        let (shard, id) = self.part_for(source, remote);
        let pass_on = |core: &mut Core, _| pass_on(core, *id, bytes, None, fields, (source, remote));
        shard.wait(Wait::DatagramRoom(*id), pass_on).await
    }

    /// Answers a received datagram with an ICMP error that quotes it, so that its sender learns why nobody answers. `start`
    /// is as much of its data as is known: what [`UdpSocket::recv_msg`] put into the buffer.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if too many answers wait: the network would lose this one.
    pub fn reject(&self, datagram: &Datagram, start: &[u8], why: IcmpError) -> io::Result<()> {
        self.reject_between((datagram.local, datagram.remote), (start, datagram.len), why)
    }

    /// The same for a datagram of which the ends are known, with whom it was sent to first, the start of its data, and its
    /// length.
    ///
    /// # Errors
    /// As [`UdpSocket::reject`].
    pub fn reject_between(
        &self,
        (local, remote): (SocketAddr, SocketAddr),
        quoted: (&[u8], usize),
        why: IcmpError,
    ) -> io::Result<()> {
        let (shard, id) = self.part_for(local, remote);
        shard.act(|core, _| {
            core.check()?;
            error::sent(core.engine.reject_datagram(*id, (local, remote), quoted, why))
        })
    }

    /// Takes a datagram, and says how many bytes of it fitted into `buf` and who sent it; the rest of it is lost.
    ///
    /// # Errors
    /// If the stack's driver has ended.
    pub async fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let room = buf.len();
        let datagram = self.recv_msg(buf).await?;
        Ok((datagram.len.min(room), datagram.remote))
    }

    /// The same, with whom it was sent to and how long it was.
    ///
    /// # Errors
    /// If the stack's driver has ended.
    pub async fn recv_msg(&self, buf: &mut [u8]) -> io::Result<Datagram> {
        let waits = self
            .parts
            .iter()
            .map(|(shard, id)| Waiting::new(shard, Wait::Datagram(*id)));
        let mut waits: SmallVec<[Waiting<'_>; 1]> = waits.collect();
        std::future::poll_fn(|cx: &mut Context<'_>| {
            for (waiting, (_, id)) in waits.iter_mut().zip(&self.parts) {
                let result = waiting.poll(cx, |core, _| receive(core, *id, buf));
                if result.is_ready() {
                    return result;
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Takes a datagram that is there.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none.
    pub fn try_recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let room = buf.len();
        let datagram = self.try_recv_msg(buf)?;
        Ok((datagram.len.min(room), datagram.remote))
    }

    /// The same, with whom it was sent to and how long it was.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none.
    pub fn try_recv_msg(&self, buf: &mut [u8]) -> io::Result<Datagram> {
        for (shard, id) in &self.parts {
            if let Poll::Ready(result) = shard.act(|core, _| receive(core, *id, buf)) {
                return result;
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Connects the socket: from now on it hears `remote` alone, and of ICMP errors on the way there. A connected
    /// socket may be connected again.
    ///
    /// # Errors
    /// If `remote` cannot be reached from the socket's address.
    pub fn connect(&self, remote: SocketAddr) -> io::Result<()> {
        let source = self.source(remote)?;
        for (shard, id) in &self.parts {
            shard
                .act(|core, _| core.engine.connect_udp(*id, source.ip(), remote))
                .map_err(|error| error::connect(remote, error))?;
        }
        Ok(())
    }

    /// The remote of a connected socket.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) if there is none.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let (shard, id) = &self.parts[0];
        let remote = shard.look(|core| core.engine.udp_remote(*id));
        remote.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Sends a datagram to the remote of a connected socket; waits for room.
    ///
    /// # Errors
    /// As [`UdpSocket::send_to`]; also what ICMP told of an earlier datagram, as
    /// [`ConnectionRefused`](io::ErrorKind::ConnectionRefused).
    pub async fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let (shard, id) = self.part_for(self.local_addr()?, self.peer_addr()?);
        let send = |core: &mut Core, _| send_connected(core, *id, bytes);
        shard.wait(Wait::DatagramRoom(*id), send).await
    }

    /// The same, at once.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room; else as [`UdpSocket::send`].
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        let (shard, id) = self.part_for(self.local_addr()?, self.peer_addr()?);
        match shard.act(|core, _| send_connected(core, *id, bytes)) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Takes a datagram, and says how many bytes of it fitted into `buf`; the rest of it is lost.
    ///
    /// # Errors
    /// What ICMP told of a datagram that was sent, as [`ConnectionRefused`](io::ErrorKind::ConnectionRefused).
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.recv_from(buf).await.map(|(len, _)| len)
    }

    /// Takes a datagram that is there.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is none; else as [`UdpSocket::recv`].
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.try_recv_from(buf).map(|(len, _)| len)
    }

    /// The socket's own address; for a scope the unspecified one.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let (shard, id) = &self.parts[0];
        let local = shard.look(|core| core.engine.udp_local(*id));
        local.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Where a datagram to `remote` comes from.
    fn source(&self, remote: SocketAddr) -> io::Result<SocketAddr> {
        let mut local = self.local_addr()?;
        if local.is_ipv4() && remote.is_ipv6() {
            return Err(error::family(local, remote));
        }
        if local.ip().is_unspecified() {
            let source = self.stack.source_for(remote.ip());
            local.set_ip(source.ok_or_else(|| error::no_source(remote))?);
        }
        Ok(local)
    }

    fn part_for(&self, source: SocketAddr, remote: SocketAddr) -> &(ShardRef, UdpId) {
        &self.parts[self.stack.shard_of(source, remote)]
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        for (shard, id) in &self.parts {
            shard.act(|core, _| {
                core.wakers.forget_polled(Wait::Datagram(*id));
                core.wakers.forget_polled(Wait::DatagramRoom(*id));
                // Nobody else closes it, so it is there.
                let _ = core.engine.close_udp(*id);
            });
        }
    }
}

fn send(
    core: &mut Core,
    id: UdpId,
    source: SocketAddr,
    remote: SocketAddr,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    let result = core.engine.send_datagram_from(id, source, remote, bytes);
    sent(core, result, bytes.len())
}

fn pass_on(
    core: &mut Core,
    id: UdpId,
    bytes: &[u8],
    piece_len: Option<NonZeroU16>,
    fields: HeaderFields,
    ends: (SocketAddr, SocketAddr),
) -> Poll<io::Result<()>> {
    let result = core.engine.pass_datagram_on(id, ends, fields, piece_len, bytes);
    sent(core, result, bytes.len()).map_ok(|_| ())
}

fn send_connected(core: &mut Core, id: UdpId, bytes: &[u8]) -> Poll<io::Result<usize>> {
    let result = core.engine.send_to_peer(id, bytes);
    sent(core, result, bytes.len())
}

/// What became of a datagram of `len` bytes.
fn sent(core: &Core, result: Result<(), SendError>, len: usize) -> Poll<io::Result<usize>> {
    core.check()?;
    match result {
        Ok(()) => Poll::Ready(Ok(len)),
        Err(error) => error::send(error).map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
    }
}

fn receive(core: &mut Core, id: UdpId, buf: &mut [u8]) -> Poll<io::Result<Datagram>> {
    match core.engine.receive_datagram(id, buf) {
        Ok(Some(datagram)) => Poll::Ready(Ok(datagram)),
        Ok(None) => Poll::Pending,
        Err(error) => Poll::Ready(Err(error::receive(error))),
    }
}
