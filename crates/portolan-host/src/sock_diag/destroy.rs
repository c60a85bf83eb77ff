use std::net::IpAddr;

use super::inet::protocol_number;
use crate::netlink::{DumpError, NetlinkSocket, Request, acknowledge};
use crate::{Family, Socket, SocketAddress};

/// SOCK_DESTROY.
const DESTROY: u16 = 21;

/// Asks the kernel to abort `socket`, which lives in the network namespace of this thread. Its program gets
/// ECONNABORTED from its next call.
///
/// The request carries the socket's cookie: if the four-tuple belongs to another socket by now, the kernel
/// answers ENOENT.
pub(crate) fn destroy(socket: &Socket) -> Result<(), DumpError> {
    let mut netlink = NetlinkSocket::sock_diag().map_err(DumpError::Socket)?;
    acknowledge(&mut netlink, 1, &request(socket, 1))
}

fn request(socket: &Socket, sequence: u32) -> Vec<u8> {
    let (number, _) = protocol_number(socket.protocol);
    let family = match socket.family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
        Family::Vsock => 40,
        Family::Unix => 1,
    };
    let (local_port, local) = end(Some(&socket.local));
    let (remote_port, remote) = end(socket.remote.as_ref());
    Request::new(DESTROY, Request::REQUEST | Request::ACKNOWLEDGE, sequence)
        .bytes(&[family, number, 0, 0])
        .bytes(&u32::MAX.to_ne_bytes())
        .bytes(&local_port)
        .bytes(&remote_port)
        .bytes(&local)
        .bytes(&remote)
        .bytes(&socket.device.to_ne_bytes())
        // Two words, the lower one first on any machine.
        .bytes(&((socket.cookie & u64::from(u32::MAX)) as u32).to_ne_bytes())
        .bytes(&((socket.cookie >> 32) as u32).to_ne_bytes())
        .finish()
}

/// A port and an address as `struct inet_diag_sockid` holds them.
fn end(address: Option<&SocketAddress>) -> ([u8; 2], [u8; 16]) {
    let mut octets = [0; 16];
    let Some(SocketAddress::Inet { address, port }) = address else {
        return ([0; 2], octets);
    };
    match address {
        IpAddr::V4(address) => octets[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => octets = address.octets(),
    }
    (port.get().to_be_bytes(), octets)
}
