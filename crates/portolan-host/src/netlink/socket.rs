use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use super::Transport;

/// A netlink socket of the network namespace in which the thread that opened it was.
#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    fd: OwnedFd,
}

impl NetlinkSocket {
    /// A socket to the kernel's socket lists.
    pub(crate) fn sock_diag() -> io::Result<Self> {
        Self::open(Some(netlink::SOCK_DIAG))
    }

    /// A socket to the kernel's interfaces and routes.
    pub(crate) fn route() -> io::Result<Self> {
        // NETLINK_ROUTE is number 0, which `None` stands for.
        Self::open(None)
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        // A larger buffer lets the kernel prepare more of a dump ahead; the default does as well, slower.
        if sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER).is_err() {
            let _ = sockopt::set_socket_recv_buffer_size(&fd, RECEIVE_BUFFER);
        }
        // The kernel answers from the call itself: silence this long means that the answer was lost.
        sockopt::set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { fd })
    }
}

/// One that somebody else has opened, of any namespace.
impl From<OwnedFd> for NetlinkSocket {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl Transport for NetlinkSocket {
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        // A netlink socket that is not connected sends to the kernel (port 0).
        io::retry_on_intr(|| rustix::net::send(&self.fd, request, SendFlags::empty())).map(drop)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (_, length, sender) =
                io::retry_on_intr(|| rustix::net::recvfrom(&self.fd, &mut *buffer, RecvFlags::TRUNC))?;
            let sender = sender.and_then(|address| netlink::SocketAddrNetlink::try_from(address).ok());
            // A privileged process may write to any netlink socket; only the kernel is believed.
            if sender.is_none_or(|sender| sender.pid() == 0) {
                return Ok(length);
            }
        }
    }
}

const RECEIVE_BUFFER: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(5);
