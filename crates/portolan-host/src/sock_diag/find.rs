use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;

use super::inet::{family_number, protocol_number};
use super::{BY_FAMILY, SockDiag};
use crate::SocketProtocol;
use crate::netlink::{DumpError, Request, Transport, dump, u32_at};

/// The inode in `struct inet_diag_msg`.
const INODE_AT: usize = 68;

impl<T: Transport> SockDiag<T> {
    /// The inode of the socket that the kernel would give a packet from `remote` to `local`; `None` if there is none, or
    /// no process has it any more.
    pub(crate) fn find(
        &mut self,
        protocol: SocketProtocol,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<u64>, DumpError> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(protocol, local, remote, self.sequence);
        let mut inode = 0;
        let found = dump(
            &mut self.transport,
            &mut self.buffer,
            self.sequence,
            &request,
            |payload| inode = u32_at(payload, INODE_AT).unwrap_or(0),
        );
        match found {
            Ok(_) => Ok((inode > 0).then_some(u64::from(inode))),
            Err(DumpError::Refused(Errno::NOENT)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// `struct inet_diag_req_v2` for one socket, of any cookie.
fn request(protocol: SocketProtocol, local: SocketAddr, remote: SocketAddr, sequence: u32) -> Vec<u8> {
    // For UDP the kernel takes the ends the other way round (net/ipv4/udp_diag.c, udp_dump_one).
    let (first, second) = match protocol {
        SocketProtocol::Udp | SocketProtocol::UdpLite => (remote, local),
        _ => (local, remote),
    };
    let (number, _) = protocol_number(protocol);
    Request::new(BY_FAMILY, Request::REQUEST | Request::ACKNOWLEDGE, sequence)
        .bytes(&[family_number(local.ip()), number, 0, 0])
        .bytes(&u32::MAX.to_ne_bytes())
        .bytes(&first.port().to_be_bytes())
        .bytes(&second.port().to_be_bytes())
        .bytes(&octets(first.ip()))
        .bytes(&octets(second.ip()))
        .bytes(&[0; 4])
        // INET_DIAG_NOCOOKIE, twice.
        .bytes(&[0xFF; 8])
        .finish()
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    }
}
