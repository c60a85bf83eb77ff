//! What a UDP socket can be told: options, groups, and the errors it asked for.

use std::io;
use std::net::IpAddr;
use std::task::Poll;

use portolan_stack::{UdpError, UdpOption};

use smallvec::SmallVec;

use super::UdpSocket;
use crate::error;
use crate::shard::{Core, Waiting};
use crate::wakers::Wait;

impl UdpSocket {
    /// Sets an option, for what is sent and received from now on.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn set_option(&self, option: UdpOption) -> io::Result<()> {
        for (shard, id) in &self.parts {
            let set = shard.look(|core| core.engine.set_udp(*id, option));
            set.map_err(|error| io::Error::new(io::ErrorKind::NotConnected, error))?;
        }
        Ok(())
    }

    /// Lets the socket send to broadcast addresses, as `SO_BROADCAST` does.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn set_broadcast(&self, on: bool) -> io::Result<()> {
        self.set_option(UdpOption::Broadcast(on))
    }

    /// Sets how many routers a datagram may pass; 64 at first.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn set_ttl(&self, ttl: u8) -> io::Result<()> {
        self.set_option(UdpOption::HopLimit(ttl))
    }

    /// Joins a multicast group on the link, until the socket leaves it or is dropped.
    ///
    /// # Errors
    /// If the address is no group, or the socket is in it.
    pub fn join_multicast(&self, group: IpAddr) -> io::Result<()> {
        for (shard, id) in &self.parts {
            let joined = shard.look(|core| core.engine.join_group(*id, group));
            joined.map_err(error::state)?;
        }
        Ok(())
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    /// If the socket is not in it.
    pub fn leave_multicast(&self, group: IpAddr) -> io::Result<()> {
        for (shard, id) in &self.parts {
            let left = shard.look(|core| core.engine.leave_group(*id, group));
            left.map_err(error::state)?;
        }
        Ok(())
    }

    /// The next ICMP error about a datagram of this socket, with where that went and who says so, if it asked for them by
    /// [`UdpOption::ReportErrors`]. Receiving fails once when they come, unless the socket is for a scope.
    #[must_use]
    pub fn next_error(&self) -> Option<UdpError> {
        let mut parts = self.parts.iter();
        parts.find_map(|(shard, id)| shard.look(|core| core.engine.next_udp_error(*id)))
    }

    /// The same, waiting for one. Cancel-safe.
    ///
    /// # Errors
    /// If the stack's driver has ended.
    pub async fn error(&self) -> io::Result<UdpError> {
        let waits = self
            .parts
            .iter()
            .map(|(shard, id)| Waiting::new(shard, Wait::DatagramError(*id)));
        let mut waits: SmallVec<[Waiting<'_>; 1]> = waits.collect();
        std::future::poll_fn(|cx| {
            for (waiting, (_, id)) in waits.iter_mut().zip(&self.parts) {
                let next = |core: &mut Core, _| core.engine.next_udp_error(*id).map_or(Poll::Pending, told);
                let result = waiting.poll(cx, next);
                if result.is_ready() {
                    return result;
                }
            }
            Poll::Pending
        })
        .await
    }
}

fn told(error: UdpError) -> Poll<io::Result<UdpError>> {
    Poll::Ready(Ok(error))
}
