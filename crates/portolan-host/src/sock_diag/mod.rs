//! The kernel's socket lists by NETLINK_SOCK_DIAG: include/uapi/linux/{sock,inet,unix,vm_sockets}_diag.h.

mod destroy;
mod find;
mod inet;
mod port_filter;
mod unix;
mod vsock;

#[cfg(test)]
mod tests;

pub(crate) use destroy::destroy;

use rustix::io::{self, Errno};

use crate::netlink::{Consistency, DumpError, NetlinkSocket, Transport, dump};
use crate::{Query, Socket, SocketProtocol, SpaceId};

/// SOCK_DIAG_BY_FAMILY: list the sockets of a family.
const BY_FAMILY: u16 = 20;

/// A connection to the kernel's socket lists of one network namespace.
#[derive(Debug)]
pub(crate) struct SockDiag<T = NetlinkSocket> {
    transport: T,
    buffer: Vec<u8>,
    sequence: u32,
}

/// What came of asking for the sockets of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// All of them.
    Whole,
    /// Perhaps not all, or some twice: the list changed under each of our attempts.
    Torn,
    /// The kernel does not list this protocol here.
    NotOffered,
}

impl SockDiag {
    /// Connects to the network namespace in which this thread is.
    pub(crate) fn open() -> io::Result<Self> {
        NetlinkSocket::sock_diag().map(Self::new)
    }
}

impl<T: Transport> SockDiag<T> {
    pub(crate) fn new(transport: T) -> Self {
        Self {
            transport,
            buffer: vec![0; BUFFER],
            sequence: 0,
        }
    }

    /// Appends the sockets of `protocol` that `query` asks for to `sockets`.
    ///
    /// On an error `sockets` is as it was.
    pub(crate) fn list(
        &mut self,
        protocol: SocketProtocol,
        query: &Query,
        space: SpaceId,
        sockets: &mut Vec<Socket>,
    ) -> Result<Listed, DumpError> {
        match protocol {
            SocketProtocol::Tcp
            | SocketProtocol::Udp
            | SocketProtocol::UdpLite
            | SocketProtocol::Raw
            | SocketProtocol::Mptcp
            | SocketProtocol::Sctp => self.list_inet(protocol, query, space, sockets),
            SocketProtocol::Vsock => self.list_vsock(query, space, sockets),
            SocketProtocol::Unix => self.list_unix(query, space, sockets),
        }
    }

    /// Dumps until the answer is whole, [`ATTEMPTS`] times at most. `take` gets the list as it was before
    /// the attempt and the payload of a message.
    fn list_whole<L>(
        &mut self,
        list: &mut Vec<L>,
        request: impl Fn(u32) -> Vec<u8>,
        mut take: impl FnMut(&mut Vec<L>, &[u8]),
    ) -> Result<Listed, DumpError> {
        let before = list.len();
        for _ in 0..ATTEMPTS {
            list.truncate(before);
            self.sequence = self.sequence.wrapping_add(1);
            let request = request(self.sequence);
            let ended = dump(
                &mut self.transport,
                &mut self.buffer,
                self.sequence,
                &request,
                |payload| take(list, payload),
            );
            match ended {
                Ok(Consistency::Whole) => return Ok(Listed::Whole),
                Ok(Consistency::Torn) => {}
                // No module for this family or protocol, an older kernel, or one built without it.
                Err(DumpError::Refused(
                    Errno::NOENT
                    | Errno::INVAL
                    | Errno::PROTONOSUPPORT
                    | Errno::AFNOSUPPORT
                    | Errno::OPNOTSUPP,
                )) => {
                    list.truncate(before);
                    return Ok(Listed::NotOffered);
                }
                Err(error) => {
                    list.truncate(before);
                    return Err(error);
                }
            }
        }
        Ok(Listed::Torn)
    }
}

/// How often a list is read again when it changed meanwhile.
const ATTEMPTS: usize = 4;

/// The kernel fills 32 KiB at most for one call of recv(2), whatever it is offered.
const BUFFER: usize = 64 << 10;
