//! Datagrams in batches, and the queue of errors: the calls that neither std nor rustix has a safe face for.
#![expect(
    unsafe_code,
    reason = "recvmmsg, sendmmsg and control messages; each block below says why it is sound"
)]
#![allow(
    clippy::unnecessary_cast,
    reason = "lengths have other types in other C libraries"
)]

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

use libc::{
    c_int, c_uint, c_void, cmsghdr, iovec, mmsghdr, msghdr, sock_extended_err, sockaddr_storage, socklen_t,
};
use portolan_stack::HeaderFields;
use socket2::SockAddr;

/// The longest datagram there is, in bytes.
pub(in super::super) const LONGEST: usize = 65_535;
/// How many are received in one call.
const RECEIVED_AT_ONCE: usize = 16;
/// How many are sent in one call.
pub(in super::super) const SENT_AT_ONCE: usize = 64;
/// Room for the control messages of one datagram: none here takes more than 64 bytes with its header, and there are at
/// most four.
const CONTROL_LEN: usize = 256;

/// Memory for control messages, aligned as they are.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// Memory for datagrams that are received. The kernel writes to as much of it as they take, and no more of it is ever
/// resident.
pub(in super::super) struct Received {
    bytes: Box<[u8]>,
    names: [sockaddr_storage; RECEIVED_AT_ONCE],
    controls: [Control; RECEIVED_AT_ONCE],
    /// What the last call told of each.
    lens: [(usize, socklen_t, usize); RECEIVED_AT_ONCE],
    count: usize,
}

/// A datagram that was received, or several of one sender that came together.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Arrived<'a> {
    pub(in super::super) from: SocketAddr,
    pub(in super::super) bytes: &'a [u8],
    /// The length of each but the last, if there are several.
    pub(in super::super) piece_len: Option<NonZeroU16>,
    /// How many the kernel has dropped so far for want of room, since the socket was made.
    pub(in super::super) dropped: Option<u32>,
    /// What of the IP header goes along.
    pub(in super::super) fields: HeaderFields,
}

impl Received {
    pub(in super::super) fn new() -> Self {
        Self {
            bytes: vec![0; RECEIVED_AT_ONCE * LONGEST].into_boxed_slice(),
            // SAFETY: a sockaddr_storage is integers only, for which zero is a value.
            names: unsafe { zeroed() },
            controls: [Control([0; CONTROL_LEN]); RECEIVED_AT_ONCE],
            lens: [(0, 0, 0); RECEIVED_AT_ONCE],
            count: 0,
        }
    }

    /// Receives what is there, as much as there is room for.
    pub(in super::super) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.count = 0;
        let mut parts: [MaybeUninit<iovec>; RECEIVED_AT_ONCE] = [MaybeUninit::uninit(); RECEIVED_AT_ONCE];
        // SAFETY: an mmsghdr is integers and pointers, for which zero is a value.
        let mut headers: [mmsghdr; RECEIVED_AT_ONCE] = unsafe { zeroed() };
        for (index, bytes) in self.bytes.chunks_exact_mut(LONGEST).enumerate() {
            let part = parts[index].write(iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: LONGEST,
            });
            let header = &mut headers[index].msg_hdr;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut self.names[index]).cast();
            header.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
            header.msg_control = (&raw mut self.controls[index]).cast();
            header.msg_controllen = CONTROL_LEN as _;
        }
        // SAFETY: every pointer in `headers` is to memory of `self` or `parts`, which outlive the call, and each length is
        // that of its memory. There is no timeout.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                RECEIVED_AT_ONCE as c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        self.count = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
        for (lens, header) in self.lens.iter_mut().zip(&headers[..self.count]) {
            let told = &header.msg_hdr;
            *lens = (
                header.msg_len as usize,
                told.msg_namelen,
                told.msg_controllen as usize,
            );
        }
        Ok(())
    }

    /// What the last call received.
    pub(in super::super) fn iter(&self) -> impl Iterator<Item = Arrived<'_>> {
        (0..self.count).filter_map(|index| {
            let (len, name_len, control_len) = self.lens[index];
            let bytes = self.bytes.get(index * LONGEST..)?.get(..len)?;
            let from = socket_addr(&self.names[index], name_len)?;
            let mut piece_len = None;
            let mut dropped = None;
            let mut fields = HeaderFields::default();
            for (level, kind, data) in messages(&self.controls[index].0, control_len) {
                match (level, kind) {
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        piece_len = int(data)
                            .and_then(|len| u16::try_from(len).ok())
                            .and_then(NonZeroU16::new)
                            .filter(|len| usize::from(len.get()) < bytes.len());
                    }
                    (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => dropped = int(data).map(|count| count as u32),
                    // A byte alone, where all others are integers.
                    (libc::SOL_IP, libc::IP_TOS) => fields.traffic_class = *data.first()?,
                    (libc::SOL_IP, libc::IP_TTL) | (libc::SOL_IPV6, libc::IPV6_HOPLIMIT) => {
                        fields.hop_limit = int(data)? as u8;
                    }
                    (libc::SOL_IPV6, libc::IPV6_TCLASS) => fields.traffic_class = int(data)? as u8,
                    _ => {}
                }
            }
            Some(Arrived {
                from,
                bytes,
                piece_len,
                dropped,
                fields,
            })
        })
    }
}

/// Datagrams to be sent to one address.
#[derive(Clone, Copy)]
pub(in super::super) struct Outgoing<'a> {
    pub(in super::super) to: &'a SockAddr,
    /// One, or several of one length, of which the last may be shorter.
    pub(in super::super) bytes: &'a [u8],
    /// That length, if there are several.
    pub(in super::super) piece_len: Option<NonZeroU16>,
}

/// Sends up to [`SENT_AT_ONCE`] of them, and says how many went.
///
/// # Errors
/// Why the first did not, if none went.
pub(in super::super) fn send(socket: BorrowedFd<'_>, outgoing: &[Outgoing<'_>]) -> io::Result<usize> {
    let count = outgoing.len().min(SENT_AT_ONCE);
    let mut parts: [MaybeUninit<iovec>; SENT_AT_ONCE] = [MaybeUninit::uninit(); SENT_AT_ONCE];
    let mut controls: [MaybeUninit<Segment>; SENT_AT_ONCE] = [MaybeUninit::uninit(); SENT_AT_ONCE];
    // SAFETY: an mmsghdr is integers and pointers, for which zero is a value.
    let mut headers: [mmsghdr; SENT_AT_ONCE] = unsafe { zeroed() };
    for (index, outgoing) in outgoing[..count].iter().enumerate() {
        let part = parts[index].write(iovec {
            iov_base: outgoing.bytes.as_ptr().cast_mut().cast(),
            iov_len: outgoing.bytes.len(),
        });
        let header = &mut headers[index].msg_hdr;
        header.msg_iov = part;
        header.msg_iovlen = 1;
        header.msg_name = outgoing.to.as_ptr().cast_mut().cast();
        header.msg_namelen = outgoing.to.len();
        if let Some(piece_len) = outgoing.piece_len {
            let control = controls[index].write(Segment::new(piece_len));
            header.msg_control = ptr::from_mut(control).cast();
            header.msg_controllen = size_of::<Segment>() as _;
        }
    }
    // SAFETY: every pointer in `headers` is to memory of `outgoing`, `parts` or `controls`, which outlive the call, and
    // each length is that of its memory. The kernel only reads it, whatever the pointers' types say.
    let result = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count as c_uint,
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A control message that has a datagram cut into pieces (UDP_SEGMENT).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Segment {
    header: cmsghdr,
    piece_len: u16,
}

impl Segment {
    fn new(piece_len: NonZeroU16) -> Self {
        // SAFETY: a cmsghdr is integers only, for which zero is a value. Some C libraries have padding fields in it.
        let mut header: cmsghdr = unsafe { zeroed() };
        header.cmsg_len = (size_of::<cmsghdr>() + size_of::<u16>()) as _;
        header.cmsg_level = libc::SOL_UDP;
        header.cmsg_type = libc::UDP_SEGMENT;
        Self {
            header,
            piece_len: piece_len.get(),
        }
    }
}

/// What the kernel tells of a datagram that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct QueuedError {
    /// Whom the datagram was for.
    pub(in super::super) to: SocketAddr,
    /// How many bytes of it are known, and the first of them.
    pub(in super::super) len: usize,
    pub(in super::super) start: [u8; 64],
    /// Who tells it.
    pub(in super::super) origin: u8,
    /// The type and code of the ICMP message.
    pub(in super::super) kind: u8,
    pub(in super::super) code: u8,
    /// The longest packet that the path takes, if that is the matter.
    pub(in super::super) info: u32,
    /// The host that sent the ICMP message.
    pub(in super::super) told_by: Option<IpAddr>,
}

/// Takes an error out of the queue of a socket for which [`tell_all`] was called; `None` if there is no more.
pub(in super::super) fn next_error(socket: BorrowedFd<'_>) -> io::Result<Option<QueuedError>> {
    let mut start = [0; 64];
    let mut part = iovec {
        iov_base: start.as_mut_ptr().cast::<c_void>(),
        iov_len: start.len(),
    };
    let mut control = Control([0; CONTROL_LEN]);
    // SAFETY: both are integers and pointers only, for which zero is a value.
    let (mut name, mut header): (sockaddr_storage, msghdr) = unsafe { (zeroed(), zeroed()) };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<sockaddr_storage>() as socklen_t;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL_LEN as _;
    // SAFETY: the pointers in `header` are to locals that outlive the call, and each length is that of its memory.
    let result = unsafe {
        libc::recvmsg(
            socket.as_raw_fd(),
            &raw mut header,
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
    let Ok(len) = usize::try_from(result) else {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock {
            Ok(None)
        } else {
            Err(error)
        };
    };
    let Some(to) = socket_addr(&name, header.msg_namelen) else {
        return Ok(None);
    };
    for (level, kind, data) in messages(&control.0, header.msg_controllen as usize) {
        let is_error = matches!(
            (level, kind),
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)
        );
        if is_error && data.len() >= size_of::<sock_extended_err>() {
            // SAFETY: there are as many bytes as the struct takes, which is integers only; the read needs no alignment.
            let told: sock_extended_err = unsafe { ptr::read_unaligned(data.as_ptr().cast()) };
            return Ok(Some(QueuedError {
                to,
                len: len.min(start.len()),
                start,
                origin: told.ee_origin,
                kind: told.ee_type,
                code: told.ee_code,
                info: told.ee_info,
                told_by: offender(&data[size_of::<sock_extended_err>()..]),
            }));
        }
    }
    Ok(None)
}

/// SO_EE_OFFENDER: the address in the sockaddr that follows an error, at byte 4 of one of IPv4 and at 8 of one of IPv6.
fn offender(address: &[u8]) -> Option<IpAddr> {
    let family = u16::from_ne_bytes(*address.first_chunk()?);
    match c_int::from(family) {
        libc::AF_INET => address
            .get(4..)?
            .first_chunk::<4>()
            .map(|octets| (*octets).into()),
        libc::AF_INET6 => address
            .get(8..)?
            .first_chunk::<16>()
            .map(|octets| (*octets).into()),
        _ => None,
    }
}

/// Has a socket queue what ICMP tells of each datagram, have several datagrams of one sender come together, and say with
/// which hop limit and traffic class they came and how many were dropped.
pub(in super::super) fn tell_all(socket: BorrowedFd<'_>, is_v4: bool) -> io::Result<()> {
    if is_v4 {
        set(socket, libc::SOL_IP, libc::IP_RECVERR, 1)?;
        set(socket, libc::SOL_IP, libc::IP_RECVTTL, 1)?;
        set(socket, libc::SOL_IP, libc::IP_RECVTOS, 1)?;
    } else {
        set(socket, libc::SOL_IPV6, libc::IPV6_RECVERR, 1)?;
        set(socket, libc::SOL_IPV6, libc::IPV6_RECVHOPLIMIT, 1)?;
        set(socket, libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    }
    set(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    // Linux from 5.0 on.
    let _ = set(socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    Ok(())
}

fn set(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the value is a local of the length that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The control messages in the first `len` bytes of `control`: level, type and data.
fn messages(control: &[u8; CONTROL_LEN], len: usize) -> impl Iterator<Item = (c_int, c_int, &[u8])> {
    let mut rest = &control[..len.min(CONTROL_LEN)];
    std::iter::from_fn(move || {
        if rest.len() < size_of::<cmsghdr>() {
            return None;
        }
        // SAFETY: there are as many bytes as the struct takes, which is integers only; the read needs no alignment.
        let header: cmsghdr = unsafe { ptr::read_unaligned(rest.as_ptr().cast()) };
        let len = header.cmsg_len as usize;
        let data = rest.get(size_of::<cmsghdr>()..len)?;
        rest = rest
            .get(len.next_multiple_of(align_of::<cmsghdr>())..)
            .unwrap_or_default();
        Some((header.cmsg_level, header.cmsg_type, data))
    })
}

fn int(data: &[u8]) -> Option<c_int> {
    Some(c_int::from_ne_bytes(*data.first_chunk()?))
}

fn socket_addr(name: &sockaddr_storage, len: socklen_t) -> Option<SocketAddr> {
    if len as usize > size_of::<sockaddr_storage>() {
        return None;
    }
    // SAFETY: the kernel has written an address of this length, and all bytes have values.
    let name = unsafe { SockAddr::new(ptr::read(ptr::from_ref(name).cast()), len) };
    name.as_socket()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use super::*;

    fn socket() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        tell_all(socket.as_fd(), true).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn pieces_are_sent_and_received_in_one_call() {
        let ((one, from), (other, to)) = (socket(), socket());
        let to = SockAddr::from(to);
        let bytes: Vec<u8> = (0..250).collect();
        let outgoing = [
            Outgoing {
                to: &to,
                bytes: &bytes,
                piece_len: NonZeroU16::new(100),
            },
            Outgoing {
                to: &to,
                bytes: b"",
                piece_len: None,
            },
            Outgoing {
                to: &to,
                bytes: b"last",
                piece_len: None,
            },
        ];
        assert_eq!(send(one.as_fd(), &outgoing).unwrap(), 3);
        let mut received = Received::new();
        let mut datagrams = Vec::new();
        while datagrams.len() < 5 {
            received.receive(other.as_fd()).unwrap();
            for arrived in received.iter() {
                assert_eq!(arrived.from, from);
                let piece_len = arrived.piece_len.map_or(LONGEST, |len| len.get().into());
                if arrived.bytes.is_empty() {
                    datagrams.push(Vec::new());
                }
                datagrams.extend(arrived.bytes.chunks(piece_len).map(<[u8]>::to_vec));
            }
        }
        let expected: [&[u8]; 5] = [&bytes[..100], &bytes[100..200], &bytes[200..], b"", b"last"];
        assert_eq!(datagrams, expected);
        let error = received.receive(other.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(received.iter().count(), 0);
    }

    #[test]
    fn errors_are_queued_with_whom_they_are_about() {
        let (one, _) = socket();
        let closed = {
            let (_, closed) = socket();
            closed
        };
        let to = SockAddr::from(closed);
        let outgoing = Outgoing {
            to: &to,
            bytes: b"hello",
            piece_len: None,
        };
        assert_eq!(next_error(one.as_fd()).unwrap(), None);
        assert_eq!(send(one.as_fd(), &[outgoing]).unwrap(), 1);
        let error = next_error(one.as_fd()).unwrap().unwrap();
        assert_eq!(
            (error.to, error.origin, error.kind, error.code),
            (closed, libc::SO_EE_ORIGIN_ICMP, 3, 3)
        );
        assert_eq!(error.told_by, Some(closed.ip()));
        assert_eq!(&error.start[..error.len], b"hello");
        assert_eq!(next_error(one.as_fd()).unwrap(), None);
    }
}
