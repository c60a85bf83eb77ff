//! The static tables that build.rs makes, and the look-ups in them.

use std::cmp::Ordering;

use super::entry::{Entry, Source, Status};
use crate::{Port, PortRange, Protocol};

mod generated {
    include!(concat!(env!("OUT_DIR"), "/registry.rs"));
}

use generated::{KEYS, KINDS, NAME_FIRST, NAME_KEYS, NAMES, ROW_OF, ROWS, SPANS};

static TEXT: &str = include_str!(concat!(env!("OUT_DIR"), "/registry.txt"));

/// The entries of a port: IANA's, if any, then those by custom. A binary search over 12,400 numbers.
pub(super) fn entries<'a>(port: Port, protocol: Protocol) -> impl Iterator<Item = Entry<'a>> + Clone {
    let key = key(port, protocol);
    let first = KEYS.partition_point(|&other| other < key);
    let count = KEYS[first..].iter().take_while(|&&other| other == key).count();
    (first..first + count).map(move |index| entry(index).with_protocol(protocol))
}

/// The entries with this primary name, alias or former name, in any case: current names first, IANA's
/// before those by custom. A binary search over some 7,000 names.
pub(super) fn named<'a>(name: &str) -> impl Iterator<Item = Entry<'a>> + Clone + use<'a> {
    let place = NAMES.binary_search_by(|&own| compare_lower(text(own), name));
    let range = place.map_or(0..0, |place| {
        usize::from(NAME_FIRST[place])..usize::from(NAME_FIRST[place + 1])
    });
    NAME_KEYS[range].iter().map(|&index| entry(usize::from(index)))
}

/// Every entry, by port, then protocol.
pub(super) fn all<'a>() -> impl Iterator<Item = Entry<'a>> + Clone {
    (0..KEYS.len()).map(entry)
}

/// Every name in lower case, in order.
pub(super) fn names<'a>() -> impl Iterator<Item = &'a str> {
    NAMES.iter().map(|&name| text(name))
}

fn entry<'a>(index: usize) -> Entry<'a> {
    let row = ROW_OF[index];
    let port = Port::new((KEYS[index] >> 2) as u16);
    let protocol = match KEYS[index] & 3 {
        0 => Protocol::Tcp,
        1 => Protocol::Udp,
        2 => Protocol::Sctp,
        _ => Protocol::Dccp,
    };
    let (source, status) = match KINDS[usize::from(row)] {
        0 => (Source::Iana, Status::Assigned),
        1 => (Source::Iana, Status::Reserved),
        2 => (Source::Iana, Status::Unassigned),
        _ => (Source::Custom, Status::Assigned),
    };
    let ports = SPANS
        .iter()
        .find(|&&(spanning, ..)| spanning == row)
        .and_then(|&(_, first, last)| PortRange::new(Port::new(first), Port::new(last)))
        .unwrap_or_else(|| PortRange::single(port));
    let [name, aliases, former_names, description, reference] = ROWS[usize::from(row)].map(text);
    Entry {
        port,
        ports,
        protocol,
        name,
        aliases,
        former_names,
        description,
        reference,
        source,
        status,
    }
}

const fn key(port: Port, protocol: Protocol) -> u32 {
    let protocol = match protocol {
        Protocol::Tcp => 0,
        // UDP-Lite's ports are named by UDP's registry (RFC 3828, section 5).
        Protocol::Udp | Protocol::UdpLite => 1,
        Protocol::Sctp => 2,
        Protocol::Dccp => 3,
    };
    (port.get() as u32) << 2 | protocol
}

/// The string at a packed place: the offset above 12 bits of length.
fn text(packed: u32) -> &'static str {
    let offset = (packed >> 12) as usize;
    &TEXT[offset..offset + (packed & 0xfff) as usize]
}

/// Compares a name in lower case with one in any case.
fn compare_lower(lower: &str, name: &str) -> Ordering {
    lower
        .bytes()
        .cmp(name.bytes().map(|byte| byte.to_ascii_lowercase()))
}
