//! The sockets of one network namespace, read again and again.

use std::os::fd::OwnedFd;

use rustix::io::{self, Errno};

use crate::netlink::{DumpError, NetlinkSocket};
use crate::sock_diag::{Listed, SockDiag};
use crate::{Query, Socket, SocketProtocol, SpaceId};

/// Reads the sockets of one network namespace by a netlink socket that was opened there: nobody has to go in, and nothing
/// of /proc is read. Some 20 µs of kernel time for the listeners of TCP, and of each family of UDP.
#[derive(Debug)]
pub struct SocketLister {
    diag: SockDiag,
}

impl SocketLister {
    /// A lister over a socket of AF_NETLINK, NETLINK_SOCK_DIAG, whose namespace is read.
    #[must_use]
    pub fn new(netlink: OwnedFd) -> Self {
        Self {
            diag: SockDiag::new(NetlinkSocket::from(netlink)),
        }
    }

    /// Appends the sockets of this protocol that `query` asks for, without owners; `false` if the list changed again and
    /// again meanwhile, so that some may be missing. What `query` says of namespaces and protocols does not count.
    ///
    /// # Errors
    /// If the kernel does not answer, or does not list this protocol ([`Errno::PROTONOSUPPORT`]).
    pub fn list(
        &mut self,
        protocol: SocketProtocol,
        query: &Query,
        sockets: &mut Vec<Socket>,
    ) -> io::Result<bool> {
        match self.diag.list(protocol, query, SpaceId(0), sockets) {
            Ok(Listed::Whole) => Ok(true),
            Ok(Listed::Torn) => Ok(false),
            Ok(Listed::NotOffered) => Err(Errno::PROTONOSUPPORT),
            Err(DumpError::Refused(errno) | DumpError::Socket(errno)) => Err(errno),
            Err(DumpError::Damaged) => Err(Errno::BADMSG),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};

    use super::*;
    use crate::{State, StateSet};

    #[test]
    fn a_socket_that_does_not_wait_lists_as_well() {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let opened = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            flags,
            Some(netlink::SOCK_DIAG),
        );
        let mut lister = SocketLister::new(opened.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let query = Query {
            states: StateSet::EMPTY.with(State::Listen),
            owners: false,
            ..Query::listeners()
        };
        let mut listening = move || {
            let mut sockets = Vec::new();
            while !lister.list(SocketProtocol::Tcp, &query, &mut sockets).unwrap() {
                sockets.clear();
            }
            sockets
                .iter()
                .any(|socket| socket.local.port().is_some_and(|local| local.get() == port))
        };
        assert!(listening());
        drop(listener);
        assert!(!listening());
    }
}
