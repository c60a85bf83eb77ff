//! The few requests to rtnetlink(7) that a port space needs: each is a header, a struct and some attributes.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// NLM_F_REQUEST.
const REQUEST: u16 = 0x1;
/// NLM_F_ACK.
const ACKNOWLEDGE: u16 = 0x4;
/// NLM_F_CREATE and NLM_F_EXCL.
pub(crate) const CREATE: u16 = 0x600;
/// NLM_F_DUMP.
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// struct nlmsghdr: length, type, flags, sequence number, port.
const HEADER_LEN: usize = 16;

/// A request under construction.
pub(crate) struct Request(Vec<u8>);

impl Request {
    /// Begins a request of this type (RTM_*).
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend([0; HEADER_LEN]);
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
        Self(bytes)
    }

    /// Appends a fixed part, a multiple of four bytes long.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends an attribute.
    pub(crate) fn attribute(self, kind: u16, value: &[u8]) -> Self {
        self.nest(kind, |request| request.bytes(value))
    }

    /// Appends an attribute that is an address.
    pub(crate) fn address(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    /// Appends an attribute that holds what `inner` appends. The length of an attribute counts its own header, but
    /// not the padding to four bytes behind it.
    pub(crate) fn nest(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        let mut request = inner(self);
        let len = (request.0.len() - start) as u16;
        request.0[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        let padded = request.0.len().next_multiple_of(4);
        request.0.resize(padded, 0);
        request
    }

    fn finish(mut self, flags: u16) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[6] |= flags.to_ne_bytes()[0];
        self.0[7] |= flags.to_ne_bytes()[1];
        self.0
    }
}

/// A socket to the routing side of the network namespace in which the thread was that opened it.
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// Opens it.
    pub(crate) fn open() -> io::Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self(socket))
    }

    /// Sends a request, and waits for the kernel's yes or no.
    pub(crate) fn ask(&self, request: Request) -> io::Result<()> {
        self.send(&request.finish(ACKNOWLEDGE))?;
        let mut buffer = [0; 8192];
        let (len, _) = recv(&self.0, &mut buffer, RecvFlags::empty())?;
        match messages(&buffer[..len]).next() {
            Some((NLMSG_ERROR, payload)) => acknowledged(payload),
            _ => Err(unexpected()),
        }
    }

    /// Asks for a dump, and shows each message of it: its type, and what follows its header.
    pub(crate) fn dump(&self, request: Request, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.send(&request.finish(DUMP))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (len, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            for (kind, payload) in messages(&buffer[..len]) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return acknowledged(payload),
                    _ => each(kind, payload),
                }
            }
        }
    }

    fn send(&self, request: &[u8]) -> io::Result<()> {
        sendto(
            &self.0,
            request,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        Ok(())
    }
}

fn acknowledged(payload: &[u8]) -> io::Result<()> {
    match payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.wrapping_neg())),
        None => Err(unexpected()),
    }
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "netlink answered with something else")
}

/// The messages of a datagram, as (type, payload); a damaged one ends them.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*rest.get(4..)?.first_chunk()?);
        let payload = rest.get(HEADER_LEN..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    })
}

/// The attributes behind a fixed part, as (type, value); a damaged one ends them.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        // The two highest bits are flags: nested, and network byte order.
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & 0x3fff;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nested_attributes_come_back_as_they_were_written() {
        let request = Request::new(16, CREATE)
            .bytes(&[7; 16])
            .attribute(3, b"port0\0")
            .nest(18, |request| request.attribute(1, b"veth").attribute(2, &[9]))
            .finish(ACKNOWLEDGE);
        let (kind, payload) = messages(&request).next().unwrap();
        assert_eq!((kind, &payload[..16]), (16, &[7; 16][..]));
        let outer: Vec<_> = attributes(&payload[16..]).collect();
        assert_eq!(outer[0], (3, &b"port0\0"[..]));
        let inner: Vec<_> = attributes(outer[1].1).collect();
        assert_eq!(inner, [(1, &b"veth"[..]), (2, &[9][..])]);
        assert_eq!(
            u16::from_ne_bytes([request[6], request[7]]),
            REQUEST | CREATE | ACKNOWLEDGE
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER_LEN + 1);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4 + 1);
        }
    }
}
