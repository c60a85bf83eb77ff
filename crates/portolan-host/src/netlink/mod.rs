//! Netlink as this crate needs it: framing, requests, and dumps that survive a changing kernel.
//!
//! Layouts are those of include/uapi/linux/netlink.h: a message is a 16-byte header, in the machine's byte
//! order, and a payload padded to four bytes; an attribute is the same with a 4-byte header.

mod attribute;
mod dump;
mod message;
mod request;
mod socket;

pub(crate) use attribute::Attributes;
#[cfg(test)]
pub(crate) use dump::script;
pub(crate) use dump::{Consistency, DumpError, acknowledge, dump};
pub(crate) use message::{Message, Messages};
pub(crate) use request::Request;
pub(crate) use socket::NetlinkSocket;

use rustix::io;

/// Where datagrams of netlink messages go and come from: a socket, or a test's script.
pub(crate) trait Transport {
    /// Sends one datagram to the kernel.
    fn send(&mut self, request: &[u8]) -> io::Result<()>;

    /// Takes the next datagram and returns its length as the kernel sent it. A greater length than that of
    /// `buffer` means that the rest is lost.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// Lengths of messages and attributes are padded to a multiple of this.
const ALIGNMENT: usize = 4;

/// The two bytes at `at`, in the machine's order; `None` past the end.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The four bytes at `at`, in the machine's order; `None` past the end.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The eight bytes at `at`, in the machine's order; `None` past the end.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
