//! C's memory: buffers, vectors of them, socket addresses and control messages.
//!
//! Everything here takes pointers as the system calls of the same names do: each is null, or points at what its type and
//! length say, and stays so during the call. packetdrill promises no less than it would to the kernel.
#![expect(unsafe_code, reason = "pointers of C are read and written")]

use std::ffi::{c_int, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libc::{iovec, msghdr, sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, socklen_t};

use crate::errno::Errno;

/// A place of C's to read from or write to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    start: *mut u8,
    len: usize,
}

impl Span {
    /// `len` bytes from `start` on.
    pub(crate) fn new(start: *const c_void, len: usize) -> Self {
        Self {
            start: start.cast_mut().cast(),
            len,
        }
    }

    /// Whether nothing can be read or written although there should be room.
    pub(crate) fn is_faulty(self) -> bool {
        self.start.is_null() && self.len > 0
    }

    /// A copy of what stands there.
    pub(crate) fn read(self) -> Result<Vec<u8>, Errno> {
        if self.is_faulty() {
            return Err(Errno(libc::EFAULT));
        }
        if self.len == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: it is not null, so by the module's contract it points at `len` bytes.
        Ok(unsafe { std::slice::from_raw_parts(self.start, self.len) }.to_vec())
    }

    /// Writes as much of `bytes` as there is room for, and says how much.
    pub(crate) fn write(self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.len);
        if len > 0 && !self.start.is_null() {
            // SAFETY: it is not null, so by the module's contract `len` bytes may be written there; `bytes` is our own.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, len) };
        }
        len
    }
}

/// The places of a vector.
pub(crate) fn spans(vector: *const iovec, count: usize) -> Result<Vec<Span>, Errno> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if vector.is_null() {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: it is not null, so by the module's contract it points at `count` elements.
    let vector = unsafe { std::slice::from_raw_parts(vector, count) };
    Ok(vector
        .iter()
        .map(|part| Span::new(part.iov_base, part.iov_len))
        .collect())
}

/// How many bytes the places hold.
pub(crate) fn total(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.len).sum()
}

/// What stands in the places, one after the other.
pub(crate) fn gather(spans: &[Span]) -> Result<Vec<u8>, Errno> {
    let parts = spans
        .iter()
        .map(|span| span.read())
        .collect::<Result<Vec<_>, _>>()?;
    Ok(parts.concat())
}

/// Fills the places one after the other.
pub(crate) fn scatter(spans: &[Span], mut bytes: &[u8]) {
    for span in spans {
        let len = span.write(bytes);
        bytes = &bytes[len..];
    }
}

/// Reads a value; `None` from null.
pub(crate) fn load<T: Copy>(place: *const T) -> Option<T> {
    // SAFETY: null gives `None`; else by the module's contract a value of the type stands there. It may stand anywhere.
    (!place.is_null()).then(|| unsafe { place.read_unaligned() })
}

/// Writes a value; nothing to null.
pub(crate) fn store<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: it is not null, so by the module's contract a value of the type may be written there.
        unsafe { place.write_unaligned(value) };
    }
}

/// The elements of an array, to be changed.
pub(crate) fn elements<'a, T>(first: *mut T, count: usize) -> Result<&'a mut [T], Errno> {
    if count == 0 {
        return Ok(&mut []);
    }
    if first.is_null() {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: it is not null, so by the module's contract it points at `count` elements, which nobody else touches
    // during the call; the caller keeps the slice no longer.
    Ok(unsafe { std::slice::from_raw_parts_mut(first, count) })
}

/// A socket address; `Ok(None)` for AF_UNSPEC. Addresses of IPv4 in IPv6 are given as those of IPv4.
pub(crate) fn load_address(address: *const sockaddr, len: socklen_t) -> Result<Option<SocketAddr>, Errno> {
    if (len as usize) < size_of::<sa_family_t>() {
        return Err(Errno(libc::EINVAL));
    }
    let family = load(address.cast::<sa_family_t>()).ok_or(Errno(libc::EFAULT))?;
    match c_int::from(family) {
        libc::AF_UNSPEC => Ok(None),
        libc::AF_INET if len as usize >= size_of::<sockaddr_in>() => {
            let v4 = load(address.cast::<sockaddr_in>()).ok_or(Errno(libc::EFAULT))?;
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Ok(Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 if len as usize >= size_of::<sockaddr_in6>() => {
            let v6 = load(address.cast::<sockaddr_in6>()).ok_or(Errno(libc::EFAULT))?;
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Ok(Some(SocketAddr::new(
                IpAddr::V6(ip).to_canonical(),
                u16::from_be(v6.sin6_port),
            )))
        }
        libc::AF_INET | libc::AF_INET6 => Err(Errno(libc::EINVAL)),
        _ => Err(Errno(libc::EAFNOSUPPORT)),
    }
}

/// Writes a socket address in the family of the socket, cut to the room there is, and its whole length.
pub(crate) fn store_address(place: *mut sockaddr, len: *mut socklen_t, address: SocketAddr, is_v6: bool) {
    let Some(room) = load(len) else {
        return;
    };
    let place = Span::new(place.cast_const().cast(), room as usize);
    let mut bytes = Vec::with_capacity(size_of::<sockaddr_in6>());
    match address.ip() {
        IpAddr::V4(ip) if !is_v6 => {
            bytes.extend((libc::AF_INET as sa_family_t).to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend(ip.octets());
            bytes.extend([0; 8]);
        }
        ip => {
            let ip = match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            bytes.extend((libc::AF_INET6 as sa_family_t).to_ne_bytes());
            bytes.extend(address.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
            bytes.extend([0; 4]);
        }
    }
    place.write(&bytes);
    store(len, bytes.len() as socklen_t);
}

/// Writes the control message TCP_CM_INQ, if there is one and room for it, and how long the control data is.
pub(crate) fn store_control(message: *mut msghdr, unread: Option<i32>) {
    const TCP_CM_INQ: c_int = 36;
    let Some(mut header) = load(message) else {
        return;
    };
    let mut bytes = Vec::new();
    if let Some(unread) = unread {
        // struct cmsghdr: length, level and type, then the data, filled up to eight bytes.
        bytes.extend((size_of::<libc::cmsghdr>() + size_of::<c_int>()).to_ne_bytes());
        bytes.extend(libc::SOL_TCP.to_ne_bytes());
        bytes.extend(TCP_CM_INQ.to_ne_bytes());
        bytes.extend(unread.to_ne_bytes());
        bytes.extend([0; 4]);
    }
    header.msg_flags = 0;
    if bytes.len() > header.msg_controllen {
        header.msg_flags |= libc::MSG_CTRUNC;
        bytes.clear();
    }
    Span::new(header.msg_control, header.msg_controllen).write(&bytes);
    header.msg_controllen = bytes.len();
    store(message, header);
}
