//! Which shard a packet is for.
//!
//! ```text
//!   TCP, UDP     keyed hash of both ends, the same in both directions
//!   ICMP error   that of the packet it quotes
//!   fragments    of TCP: where the first one went; of all else: hash of both addresses
//! ```
//!
//! A UDP socket is in every shard, so it is found wherever a datagram is put together; a connection is in one.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use portolan_core::wire::{Icmpv4Packet, Icmpv6Packet, IpPacket, IpProtocol};
use siphasher::sip::SipHasher13;

/// The rule by which flows are shared out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Steering {
    key: [u8; 16],
    shards: usize,
}

/// Where the fragments of TCP packets go whose first one was seen: the newest ones.
#[derive(Debug)]
pub(crate) struct TcpFragments {
    /// Source, destination, identification, shard.
    seen: [Option<(IpAddr, IpAddr, u32, usize)>; SEEN],
    next: usize,
}

/// TCP avoids fragments, so there are few at a time; of those forgotten the sender repeats the data.
const SEEN: usize = 32;

impl Steering {
    pub(crate) const fn new(key: [u8; 16], shards: usize) -> Self {
        Self { key, shards }
    }

    pub(crate) const fn shards(&self) -> usize {
        self.shards
    }

    /// The shard of a conversation between two socket addresses, in whichever order.
    pub(crate) fn of_ends(&self, one: SocketAddr, other: SocketAddr) -> usize {
        if self.shards == 1 {
            return 0;
        }
        let key = |end: SocketAddr| (end.ip().to_canonical(), end.port());
        let (one, other) = (key(one), key(other));
        let (low, high) = if one <= other { (one, other) } else { (other, one) };
        let mut hasher = self.hasher();
        write_ip(&mut hasher, low.0);
        write_ip(&mut hasher, high.0);
        hasher.write_u32(u32::from(low.1) << 16 | u32::from(high.1));
        self.shard(&hasher)
    }

    /// The shard of a packet; `None` if nobody can take it: a later fragment of a TCP packet whose first one did
    /// not come, or no packet at all.
    pub(crate) fn of_packet(&self, bytes: &[u8], fragments: &mut TcpFragments) -> Option<usize> {
        if self.shards == 1 {
            return Some(0);
        }
        let ip = IpPacket::parse(bytes).ok()?;
        let (source, destination) = (ip.source(), ip.destination());
        if ip.is_fragment() {
            if ip.protocol() != IpProtocol::TCP {
                return Some(self.of_addresses(source, destination));
            }
            let id = identification(&ip);
            let Some(ends) = ends(&ip) else {
                return fragments.find(source, destination, id);
            };
            let shard = self.of_ends(ends.0, ends.1);
            fragments.note(source, destination, id, shard);
            return Some(shard);
        }
        if let Some((source, destination)) = ends(&ip) {
            return Some(self.of_ends(source, destination));
        }
        let quoted = match (&ip, ip.protocol()) {
            (IpPacket::V4(_), IpProtocol::ICMP) => Icmpv4Packet::parse(ip.payload()).ok()?.quoted(),
            (IpPacket::V6(_), IpProtocol::ICMPV6) => Icmpv6Packet::parse(ip.payload()).ok()?.quoted(),
            _ => None,
        };
        let Some(Ok(quoted)) = quoted else {
            return Some(self.of_addresses(source, destination));
        };
        Some(match ends(&quoted) {
            Some((source, destination)) => self.of_ends(source, destination),
            None => self.of_addresses(quoted.source(), quoted.destination()),
        })
    }

    /// Where the search for an automatic port begins, as nobody outside can tell.
    pub(crate) fn offset(&self, local: IpAddr, remote: SocketAddr) -> u32 {
        let mut hasher = self.hasher();
        write_ip(&mut hasher, local);
        write_ip(&mut hasher, remote.ip());
        // Ports of conversations are hashed as 4 bytes, so this is never the hash of one.
        hasher.write_u16(remote.port());
        hasher.finish() as u32
    }

    fn of_addresses(&self, one: IpAddr, other: IpAddr) -> usize {
        let mut hasher = self.hasher();
        write_ip(&mut hasher, one.min(other));
        write_ip(&mut hasher, one.max(other));
        self.shard(&hasher)
    }

    fn hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.key)
    }

    fn shard(&self, hasher: &SipHasher13) -> usize {
        let product = u128::from(hasher.finish()) * self.shards as u128;
        (product >> 64) as usize
    }
}

impl TcpFragments {
    pub(crate) const fn new() -> Self {
        Self {
            seen: [None; SEEN],
            next: 0,
        }
    }

    fn note(&mut self, source: IpAddr, destination: IpAddr, id: u32, shard: usize) {
        self.seen[self.next] = Some((source, destination, id, shard));
        self.next = (self.next + 1) % SEEN;
    }

    fn find(&self, source: IpAddr, destination: IpAddr, id: u32) -> Option<usize> {
        let wanted = (source, destination, id);
        let newest_first = (1..=SEEN).map(|back| self.seen[(self.next + SEEN - back) % SEEN]);
        newest_first
            .flatten()
            .find(|&(source, destination, id, _)| (source, destination, id) == wanted)
            .map(|(_, _, _, shard)| shard)
    }
}

/// Source and destination, if the packet has ports.
fn ends(ip: &IpPacket<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let (source, destination) = ip.ports()?;
    Some((
        SocketAddr::new(ip.source(), source.get()),
        SocketAddr::new(ip.destination(), destination.get()),
    ))
}

/// What the fragments of one packet have in common.
fn identification(ip: &IpPacket<'_>) -> u32 {
    match ip {
        IpPacket::V4(packet) => packet.identification().into(),
        IpPacket::V6(packet) => packet.fragment().map_or(0, |fragment| fragment.identification),
    }
}

fn write_ip(hasher: &mut SipHasher13, address: IpAddr) {
    match address {
        IpAddr::V4(address) => hasher.write_u32(address.to_bits()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
}

#[cfg(test)]
mod tests {
    use portolan_core::wire::{Icmpv4Message, Ipv4Repr};

    use super::*;

    const STEERING: Steering = Steering::new([7; 16], 8);

    fn packet(protocol: IpProtocol, from: u8, to: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 20 + payload.len()];
        Ipv4Repr {
            dscp: 0,
            ecn: 0,
            identification: 77,
            dont_fragment: false,
            more_fragments: more,
            fragment_offset: offset,
            time_to_live: 64,
            protocol,
            source: [10, 0, 0, from].into(),
            destination: [10, 0, 0, to].into(),
            options: &[],
            payload_len: payload.len(),
        }
        .emit(&mut bytes)
        .unwrap();
        bytes[20..].copy_from_slice(payload);
        bytes
    }

    fn ports(source: u16, destination: u16) -> Vec<u8> {
        let mut payload = vec![0; 20];
        payload[..2].copy_from_slice(&source.to_be_bytes());
        payload[2..4].copy_from_slice(&destination.to_be_bytes());
        payload
    }

    #[test]
    fn both_directions_and_errors_about_them_come_to_one_shard() {
        let mut fragments = TcpFragments::new();
        let mut used = [false; 8];
        for port in 1000..1200 {
            let there = packet(IpProtocol::TCP, 1, 2, 0, false, &ports(port, 80));
            let back = packet(IpProtocol::TCP, 2, 1, 0, false, &ports(80, port));
            let shard = STEERING.of_packet(&there, &mut fragments).unwrap();
            assert_eq!(STEERING.of_packet(&back, &mut fragments), Some(shard));
            let mut error = vec![0; 8];
            Icmpv4Message::TimeExceeded { code: 0 }.emit(&mut error).unwrap();
            error.extend_from_slice(&there);
            let error = packet(IpProtocol::ICMP, 9, 1, 0, false, &error);
            assert_eq!(STEERING.of_packet(&error, &mut fragments), Some(shard));
            let ends = |host, port| SocketAddr::from(([10, 0, 0, host], port));
            assert_eq!(STEERING.of_ends(ends(2, 80), ends(1, port)), shard);
            used[shard] = true;
        }
        assert_eq!(used, [true; 8], "every shard gets some");
    }

    #[test]
    fn fragments_stay_together() {
        let mut fragments = TcpFragments::new();
        for port in 2000..2020 {
            let whole = packet(IpProtocol::TCP, 1, 2, 0, false, &ports(port, 80));
            let first = packet(IpProtocol::TCP, 1, 2, 0, true, &ports(port, 80)[..16]);
            let later = packet(IpProtocol::TCP, 1, 2, 16, false, &[0; 4]);
            let shard = STEERING.of_packet(&whole, &mut fragments);
            assert_eq!(STEERING.of_packet(&first, &mut fragments), shard);
            assert_eq!(
                STEERING.of_packet(&later, &mut fragments),
                shard,
                "the newest counts"
            );
            let first = packet(IpProtocol::UDP, 1, 2, 0, true, &ports(port, 80)[..16]);
            let later = packet(IpProtocol::UDP, 1, 2, 16, false, &[0; 4]);
            assert_eq!(
                STEERING.of_packet(&first, &mut fragments),
                STEERING.of_packet(&later, &mut fragments)
            );
        }
        let stray = packet(IpProtocol::TCP, 3, 2, 16, false, &[0; 4]);
        assert_eq!(STEERING.of_packet(&stray, &mut fragments), None);
    }
}
