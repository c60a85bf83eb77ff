//! Datagrams of a published port, many for one call, with the address of this host that each was sent to.
#![expect(
    unsafe_code,
    reason = "recvmmsg and control messages; each call below says why it is sound"
)]

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd as _};
use std::ptr;

use libc::{c_int, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

/// Datagrams, or runs of them that the kernel has joined, for one call.
const BATCH: usize = 32;
/// The longest datagram, or run of joined ones, in bytes.
const LEN: usize = 1 << 16;
/// Eight-byte words for the control messages of one: an address of each family, and the length of joined ones.
const CONTROL: usize = 16;

/// Memory that datagrams are received into; the kernel gives pages for what is used of it.
pub(super) struct Room {
    bytes: Vec<u8>,
    names: Vec<sockaddr_storage>,
    controls: Vec<[u64; CONTROL]>,
}

/// A datagram, or several of one length that came from one client to one address at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    /// The payload, or payloads one after the other.
    pub(super) bytes: &'a [u8],
    /// The length of each but the last, in bytes; 0 if there is one.
    pub(super) piece: usize,
    /// Who sent it, as the socket says it.
    pub(super) client: SocketAddr,
    /// The address of this host that it was sent to, if the socket tells ([`tell_addresses`]).
    pub(super) local: Option<IpAddr>,
}

/// Has the socket tell the address that each datagram was sent to, and join datagrams that belong together.
pub(super) fn tell_addresses(socket: &impl AsFd, is_ipv4: bool) -> io::Result<()> {
    if is_ipv4 {
        super::sys::set_option(socket, libc::SOL_IP, libc::IP_PKTINFO)
    } else {
        super::sys::set_option(socket, libc::SOL_IPV6, libc::IPV6_RECVPKTINFO)
    }
}

/// Has the kernel join datagrams that came at once; one that cannot gives each alone.
pub(super) fn join_datagrams(socket: &impl AsFd) {
    let _ = super::sys::set_option(socket, libc::SOL_UDP, libc::UDP_GRO);
}

impl Room {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; BATCH * LEN],
            // SAFETY: sockaddr_storage is numbers, for which zero bytes are a value.
            names: vec![unsafe { zeroed() }; BATCH],
            controls: vec![[0; CONTROL]; BATCH],
        }
    }

    /// Takes what is there, without waiting, and shows each to `each`. Gives whether there may be more.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is nothing.
    pub(super) fn receive(
        &mut self,
        socket: &impl AsFd,
        mut each: impl FnMut(Received<'_>),
    ) -> io::Result<bool> {
        // SAFETY: both are numbers and pointers, for which zero bytes are a value.
        let mut parts: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        for (number, (header, part)) in headers.iter_mut().zip(&mut parts).enumerate() {
            part.iov_base = self.bytes[number * LEN..][..LEN].as_mut_ptr().cast();
            part.iov_len = LEN;
            let header = &mut header.msg_hdr;
            header.msg_iov = ptr::from_mut(part);
            header.msg_iovlen = 1;
            header.msg_name = ptr::from_mut(&mut self.names[number]).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            header.msg_control = self.controls[number].as_mut_ptr().cast();
            header.msg_controllen = size_of::<[u64; CONTROL]>() as _;
        }
        // SAFETY: the descriptor is borrowed, so it is open. Each header leads to memory of the lengths that it says, no
        // two to the same, all of which lives through the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as _,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (number, header) in headers.iter().enumerate().take(count) {
            let Some(client) = address(&self.names[number]) else {
                continue;
            };
            let (local, piece) = control(&header.msg_hdr);
            let len = (header.msg_len as usize).min(LEN);
            each(Received {
                bytes: &self.bytes[number * LEN..][..len],
                piece,
                client,
                local,
            });
        }
        Ok(count == BATCH)
    }
}

/// Sends a datagram to a client from an address of this host: that to which the client's own came.
pub(super) fn send_from(
    socket: &impl AsFd,
    local: Option<IpAddr>,
    client: SocketAddr,
    bytes: &[u8],
) -> io::Result<()> {
    let (mut name, name_len) = name(client);
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut words = [0_u64; CONTROL];
    // SAFETY: msghdr is numbers and pointers, for which zero bytes are a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = ptr::from_mut(&mut name).cast();
    header.msg_namelen = name_len;
    header.msg_iov = ptr::from_mut(&mut part);
    header.msg_iovlen = 1;
    if let Some(local) = local {
        header.msg_control = words.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&words) as _;
        let len = match (client, local) {
            (SocketAddr::V4(_), IpAddr::V4(ip)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(ip.octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                push(&header, libc::SOL_IP, libc::IP_PKTINFO, info)
            }
            (_, local) => {
                let ip = match local {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
                    ipi6_ifindex: 0,
                };
                push(&header, libc::SOL_IPV6, libc::IPV6_PKTINFO, info)
            }
        };
        header.msg_controllen = len as _;
    }
    // SAFETY: the descriptor is borrowed, so it is open. The header leads to a name, one part and control messages of the
    // lengths that it says, which live through the call; the kernel writes none of them.
    let sent = unsafe {
        libc::sendmsg(
            socket.as_fd().as_raw_fd(),
            &raw const header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Writes a control message as the first of a header, which has room for it; gives its length with padding.
fn push<T: Copy>(header: &libc::msghdr, level: c_int, kind: c_int, value: T) -> usize {
    const { assert!(size_of::<T>() <= 32) };
    let len = size_of::<T>() as u32;
    // SAFETY: the header's control memory is CONTROL words long: more than a header of a message and 32 bytes, so
    // CMSG_FIRSTHDR gives a place in it, aligned as words are, with room for `value` behind it.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(header);
        (*first).cmsg_level = level;
        (*first).cmsg_type = kind;
        (*first).cmsg_len = libc::CMSG_LEN(len) as _;
        libc::CMSG_DATA(first).cast::<T>().write_unaligned(value);
        libc::CMSG_SPACE(len) as usize
    }
}

/// The address of this host that a datagram was sent to, and the length of joined ones.
fn control(header: &libc::msghdr) -> (Option<IpAddr>, usize) {
    let (mut local, mut piece) = (None, 0);
    // SAFETY: the kernel has written whole control messages into the memory of the header, and their total length into
    // the header; these functions stay within it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: it is not null, so it leads to a message within that memory, which nobody changes meanwhile.
        let message = unsafe { &*next };
        // SAFETY: as above; the data is behind the header of the message.
        let data = unsafe { libc::CMSG_DATA(next) };
        // SAFETY: a sum of numbers.
        let before = unsafe { libc::CMSG_LEN(0) } as usize;
        let len = (message.cmsg_len as usize).saturating_sub(before);
        match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_IP, libc::IP_PKTINFO) => {
                if let Some(info) = value::<libc::in_pktinfo>(data, len) {
                    local = Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into());
                }
            }
            (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(info) = value::<libc::in6_pktinfo>(data, len) {
                    local = Some(IpAddr::from(info.ipi6_addr.s6_addr).to_canonical());
                }
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                piece = value::<c_int>(data, len).map_or(0, |piece| usize::try_from(piece).unwrap_or(0));
            }
            _ => {}
        }
        // SAFETY: as for the first.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    (local, piece)
}

/// The value of a control message, if it is that long. For structures of numbers alone.
fn value<T: Copy>(data: *const u8, len: usize) -> Option<T> {
    // SAFETY: the message has `len` bytes at `data`, and T, which has no more, is numbers, for which any bytes are a value.
    (len >= size_of::<T>()).then(|| unsafe { data.cast::<T>().read_unaligned() })
}

/// The socket address that the kernel has written.
fn address(name: &sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: a storage is longer than this and aligned for it, and of this family it holds one.
            let name = unsafe { &*ptr::from_ref(name).cast::<sockaddr_in>() };
            let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*ptr::from_ref(name).cast::<sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(name.sin6_port), 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// The same, the other way.
fn name(address: SocketAddr) -> (sockaddr_storage, socklen_t) {
    let mut name = MaybeUninit::<sockaddr_storage>::zeroed();
    match address {
        SocketAddr::V4(address) => {
            let name_v4 = name.as_mut_ptr().cast::<sockaddr_in>();
            // SAFETY: a storage is longer than this, aligned for it, and ours.
            unsafe {
                (*name_v4).sin_family = libc::AF_INET as _;
                (*name_v4).sin_port = address.port().to_be();
                (*name_v4).sin_addr.s_addr = u32::from_ne_bytes(address.ip().octets());
            }
        }
        SocketAddr::V6(address) => {
            let name_v6 = name.as_mut_ptr().cast::<sockaddr_in6>();
            // SAFETY: as above.
            unsafe {
                (*name_v6).sin6_family = libc::AF_INET6 as _;
                (*name_v6).sin6_port = address.port().to_be();
                (*name_v6).sin6_addr.s6_addr = address.ip().octets();
                (*name_v6).sin6_scope_id = address.scope_id();
            }
        }
    }
    let len = match address {
        SocketAddr::V4(_) => size_of::<sockaddr_in>(),
        SocketAddr::V6(_) => size_of::<sockaddr_in6>(),
    };
    // SAFETY: all of it is numbers, zero where nothing was written.
    (unsafe { name.assume_init() }, len as socklen_t)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn addresses_come_as_they_go() {
        for text in ["192.0.2.1:53", "[2001:db8::1]:5353"] {
            let address_in: SocketAddr = text.parse().unwrap();
            assert_eq!(address(&name(address_in).0), Some(address_in));
        }
        // SAFETY: numbers, of no family.
        assert_eq!(address(&unsafe { zeroed() }), None);
    }

    /// The host has more than one loopback address: the answer leaves from the one that was asked.
    #[test]
    fn a_datagram_says_where_it_came_to_and_is_answered_from_there() {
        let server = UdpSocket::bind("0.0.0.0:0").unwrap();
        tell_addresses(&server, true).unwrap();
        join_datagrams(&server);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let asked: SocketAddr = ([127, 0, 0, 7], server.local_addr().unwrap().port()).into();
        for number in 0..3 {
            client.send_to(&[number; 5], asked).unwrap();
        }
        let mut room = Room::new();
        let mut seen = Vec::new();
        let own = client.local_addr().unwrap();
        let take = |received: Received<'_>| {
            assert_eq!((received.client, received.local), (own, Some(asked.ip())));
            seen.push(received.bytes.to_vec());
        };
        assert!(!room.receive(&server, take).unwrap());
        assert_eq!(seen.concat(), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2]);
        let nothing = room.receive(&server, |_| panic!("nothing is there")).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        send_from(&server, Some(asked.ip()), own, b"answer").unwrap();
        let mut bytes = [0; 16];
        assert_eq!(client.recv_from(&mut bytes).unwrap(), (6, asked));
    }

    /// One socket for both families tells, and takes, IPv4 addresses as such.
    #[test]
    fn a_socket_of_both_families_answers_each_from_where_it_was_asked() {
        use socket2::{Domain, Socket, Type};
        let Ok(server) = Socket::new(Domain::IPV6, Type::DGRAM, None) else {
            return;
        };
        server.set_only_v6(false).unwrap();
        let any: SocketAddr = (Ipv6Addr::UNSPECIFIED, 0).into();
        if server.bind(&any.into()).is_err() {
            return;
        }
        tell_addresses(&server, false).unwrap();
        let port = server.local_addr().unwrap().as_socket().unwrap().port();
        for (client, asked) in [("127.0.0.1:0", "127.0.0.7"), ("[::1]:0", "::1")] {
            let Ok(client) = UdpSocket::bind(client) else {
                continue;
            };
            let asked = SocketAddr::new(asked.parse().unwrap(), port);
            client.send_to(b"question", asked).unwrap();
            let mut from = None;
            let take = |received: Received<'_>| {
                assert_eq!(received.local, Some(asked.ip()));
                from = Some(received.client);
            };
            Room::new().receive(&server, take).unwrap();
            send_from(&server, Some(asked.ip()), from.unwrap(), b"answer").unwrap();
            let mut bytes = [0; 16];
            assert_eq!(client.recv_from(&mut bytes).unwrap(), (6, asked));
        }
    }
}
