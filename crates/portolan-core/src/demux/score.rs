//! How well a receiver fits a packet: Linux's scores, and the scan that picks the best.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::Reason;
use crate::table::{Candidate, Family};

/// A receiver that a packet could go to. Only the first of equal ones is a candidate: later ones
/// with the same score never win.
pub(super) struct Contender {
    /// The position in the order of the port: lower is looked at first.
    pub(super) order: i64,
    pub(super) score: i32,
    pub(super) socket: u32,
    /// It has a remote, which is the packet's source, so it is no member of a group here.
    pub(super) connected: bool,
}

/// The contenders for one packet, in the order in which they are looked at.
pub(super) fn in_order(contenders: impl Iterator<Item = Contender>) -> SmallVec<[Contender; 8]> {
    let mut row: SmallVec<[Contender; 8]> = SmallVec::new();
    // Most often there is one: to collect them would take longer than all else.
    contenders.for_each(|contender| row.push(contender));
    if row.len() > 1 {
        row.sort_unstable_by_key(|contender| contender.order);
    }
    row
}

/// Whether a receiver's addresses admit packets of the destination's family.
///
/// An IPv6 socket hears IPv4 if it is bound to a mapped address, or to `::` without V6ONLY.
pub(super) fn speaks(receiver: &Candidate, destination: IpAddr) -> bool {
    match (destination, receiver.address) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => true,
        (IpAddr::V4(_), IpAddr::V6(_)) => !receiver.v6_only,
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// TCP (`compute_score`, inet_hashtables.c): a device counts one, and so does being an IPv4 socket.
pub(super) fn of_listener(receiver: &Candidate, destination: IpAddr) -> i32 {
    let is_ipv4 = destination.is_ipv4() && receiver.family == Family::Ipv4;
    1 + i32::from(receiver.device.is_some()) + i32::from(is_ipv4)
}

/// UDP over IPv4 (`compute_score`, ipv4/udp.c), or `None` if the filter left by an earlier remote keeps
/// the source out. `asked` is how many of the source's address and port the socket is connected to.
pub(super) fn of_udp(receiver: &Candidate, destination: IpAddr, source: IpAddr, asked: i32) -> Option<i32> {
    let device = i32::from(receiver.device.is_some());
    match (destination, source) {
        // The filter is of the IPv6 half of the socket; its IPv4 half has forgotten the remote.
        (IpAddr::V4(_), _) => {
            let family = match receiver.family {
                Family::Ipv4 => 2,
                Family::Ipv6 => 1,
            };
            Some(family + 4 * device + 4 * asked)
        }
        (IpAddr::V6(_), IpAddr::V6(source)) => match receiver.filter {
            Some(only) if only != source => None,
            filter => Some(device + asked + i32::from(filter.is_some())),
        },
        (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// The four reasons of a search by local address.
#[derive(Clone, Copy)]
pub(super) struct Reasons {
    pub(super) alone: Reason,
    pub(super) group: Reason,
}
