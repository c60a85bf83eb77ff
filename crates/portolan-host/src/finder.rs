//! One socket among those of a network namespace, by the packet that would be its.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::{self, Errno};

use crate::SocketProtocol;
use crate::netlink::{DumpError, NetlinkSocket};
use crate::sock_diag::SockDiag;

/// Finds sockets of one network namespace by a netlink socket that was opened there: nobody has to go in, and nothing of
/// /proc is read. The kernel looks each up as it does for a packet, in some 5 µs whatever the number of sockets.
#[derive(Debug)]
pub struct SocketFinder {
    diag: SockDiag,
}

impl SocketFinder {
    /// A finder over a socket of AF_NETLINK, NETLINK_SOCK_DIAG, in whose namespace is looked.
    #[must_use]
    pub fn new(netlink: OwnedFd) -> Self {
        Self {
            diag: SockDiag::new(NetlinkSocket::from(netlink)),
        }
    }

    /// The inode of the socket of TCP or UDP that a packet from `remote` to `local` would be given to; `None` if there is
    /// none, or no process has it any more.
    ///
    /// # Errors
    /// If the kernel does not answer, or does not know the protocol.
    pub fn find(
        &mut self,
        protocol: SocketProtocol,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> io::Result<Option<u64>> {
        self.diag
            .find(protocol, local, remote)
            .map_err(|error| match error {
                DumpError::Refused(errno) | DumpError::Socket(errno) => errno,
                DumpError::Damaged => Errno::BADMSG,
            })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd, AsRawFd as _};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};

    use super::*;

    fn inode(socket: impl AsFd) -> Option<u64> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd())).unwrap();
        let text = link.to_str().unwrap();
        Some(text["socket:[".len()..text.len() - 1].parse().unwrap())
    }

    fn finder() -> SocketFinder {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let opened = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            flags,
            Some(netlink::SOCK_DIAG),
        );
        SocketFinder::new(opened.unwrap())
    }

    #[test]
    fn connections_are_found_by_their_ends_and_listeners_by_theirs() {
        let mut finder = finder();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                println!("skipped: no {address} here");
                continue;
            };
            let server = listener.local_addr().unwrap();
            let client = TcpStream::connect(server).unwrap();
            let local = client.local_addr().unwrap();
            let stranger = SocketAddr::new(server.ip(), 9);
            let mut find = |local, remote| finder.find(SocketProtocol::Tcp, local, remote).unwrap();
            assert_eq!(find(local, server), inode(&client));
            assert_eq!(find(server, stranger), inode(&listener));
            let (accepted, _) = listener.accept().unwrap();
            assert_eq!(find(server, local), inode(&accepted));
            drop(listener);
            assert_eq!(find(server, stranger), None);
        }
    }

    #[test]
    fn sockets_of_udp_are_found_connected_or_not_and_from_the_other_family() {
        let mut finder = finder();
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (here, there) = (client.local_addr().unwrap(), server.local_addr().unwrap());
        client.connect(there).unwrap();
        let mut find = |local, remote| finder.find(SocketProtocol::Udp, local, remote).unwrap();
        assert_eq!(find(here, there), inode(&client));
        assert_eq!(find(there, here), inode(&server));
        let Ok(both) = UdpSocket::bind("[::]:0") else {
            return println!("skipped: no IPv6 here");
        };
        let local = SocketAddr::new(here.ip(), both.local_addr().unwrap().port());
        assert_eq!(find(local, there), inode(&both));
        drop(both);
        assert_eq!(find(local, there), None);
    }
}
