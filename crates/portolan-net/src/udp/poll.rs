//! For those who poll. As of tokio's sockets one task may receive so and one send: the last that asked is woken.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use portolan_stack::Datagram;
use tokio::io::ReadBuf;

use super::{UdpSocket, receive, send, send_connected};
use crate::wakers::Wait;

impl UdpSocket {
    /// As [`UdpSocket::recv_msg`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_recv_msg(&self, cx: &Context<'_>, buf: &mut [u8]) -> Poll<io::Result<Datagram>> {
        for (shard, id) in &self.parts {
            let result = shard.poll(cx, Wait::Datagram(*id), |core, _| receive(core, *id, buf));
            if result.is_ready() {
                return result;
            }
        }
        Poll::Pending
    }

    /// As [`UdpSocket::recv_from`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_recv_from(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<SocketAddr>> {
        let room = buf.initialize_unfilled();
        let most = room.len();
        let datagram = ready!(self.poll_recv_msg(cx, room))?;
        buf.advance(datagram.len.min(most));
        Poll::Ready(Ok(datagram.remote))
    }

    /// As [`UdpSocket::recv`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_recv(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_recv_from(cx, buf).map_ok(|_| ())
    }

    /// As [`UdpSocket::send_msg`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_send_msg(
        &self,
        cx: &Context<'_>,
        bytes: &[u8],
        source: SocketAddr,
        remote: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let (shard, id) = self.part_for(source, remote);
        let wait = Wait::DatagramRoom(*id);
        shard.poll(cx, wait, |core, _| send(core, *id, source, remote, bytes))
    }

    /// As [`UdpSocket::send_to`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_send_to(
        &self,
        cx: &Context<'_>,
        bytes: &[u8],
        remote: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.poll_send_msg(cx, bytes, self.source(remote)?, remote)
    }

    /// As [`UdpSocket::send`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_send(&self, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (shard, id) = self.part_for(self.local_addr()?, self.peer_addr()?);
        let wait = Wait::DatagramRoom(*id);
        shard.poll(cx, wait, |core, _| send_connected(core, *id, bytes))
    }
}
