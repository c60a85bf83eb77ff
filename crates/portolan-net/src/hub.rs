//! What the shards of a stack have in common: who the host is, and who gets which packet.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use portolan_core::table::Host;
use portolan_core::{Port, PortRange};
use portolan_stack::Packet;

use crate::inbox::Inbox;
use crate::steering::Steering;

#[derive(Debug)]
pub(crate) struct Hub {
    host: Host,
    /// The addresses with the lengths of their prefixes.
    addresses: Vec<(IpAddr, u8)>,
    steering: Steering,
    /// From the links of other shards.
    inboxes: Box<[Inbox]>,
    /// From the host itself.
    loopback: Box<[Inbox]>,
    dropped: AtomicU64,
    /// Moves the choice of automatic ports on.
    chosen_ports: AtomicU32,
}

impl Hub {
    pub(crate) fn new(host: Host, addresses: Vec<(IpAddr, u8)>, steering: Steering) -> Self {
        Self {
            host,
            addresses,
            steering,
            inboxes: (0..steering.shards()).map(|_| Inbox::new()).collect(),
            loopback: (0..steering.shards()).map(|_| Inbox::new()).collect(),
            dropped: AtomicU64::new(0),
            chosen_ports: AtomicU32::new(0),
        }
    }

    pub(crate) const fn steering(&self) -> &Steering {
        &self.steering
    }

    pub(crate) fn inbox(&self, shard: usize) -> &Inbox {
        &self.inboxes[shard]
    }

    pub(crate) fn loopback(&self, shard: usize) -> &Inbox {
        &self.loopback[shard]
    }

    pub(crate) fn count_dropped(&self, packets: u64) {
        if packets > 0 {
            self.dropped.fetch_add(packets, Ordering::Relaxed);
        }
    }

    /// Packets that were for no shard, or for one that was behind.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Brings a packet to its shard if it is for this host itself; no link carries those.
    pub(crate) fn loop_back(&self, packet: Packet<'_>) -> bool {
        if !destination(packet.bytes).is_some_and(|address| self.is_own(address)) {
            return false;
        }
        // The host makes no fragments of TCP packets.
        match self
            .steering
            .of_packet(packet.bytes, &mut crate::steering::TcpFragments::new())
        {
            Some(shard) => {
                let dropped = self.loopback(shard).put(std::iter::once(packet));
                self.count_dropped(dropped);
            }
            None => self.count_dropped(1),
        }
        true
    }

    /// The address from which this host talks to `remote`: that of the same network, or the first of its family.
    pub(crate) fn source_for(&self, remote: IpAddr) -> Option<IpAddr> {
        let remote = remote.to_canonical();
        if self.is_own(remote) {
            return Some(remote);
        }
        let family = self
            .addresses
            .iter()
            .filter(|(address, _)| address.is_ipv4() == remote.is_ipv4());
        // Of those that share equally much the first: `max_by_key` would take the last.
        let best = family.rev().max_by_key(|(address, prefix_bits)| {
            let common = common_bits(*address, remote);
            if common >= *prefix_bits {
                *prefix_bits + 1
            } else {
                0
            }
        });
        best.map(|&(address, _)| address)
    }

    /// The automatic ports in the order in which to try them for a connection between these addresses, only
    /// those for which the connection falls to `shard`.
    pub(crate) fn ports_for(
        &self,
        shard: usize,
        local: IpAddr,
        remote: SocketAddr,
    ) -> impl Iterator<Item = SocketAddr> {
        let range: PortRange = self.host.ephemeral();
        let first = u32::from(range.first().get());
        let count = u32::from(range.last().get()) - first + 1;
        // RFC 6056, section 3.3.3: from a place that only this host and this remote make, on from the last choice.
        let start = self.steering.offset(local, remote);
        let turn = self.chosen_ports.fetch_add(1, Ordering::Relaxed);
        let start = start.wrapping_add(turn.wrapping_mul(self.steering.shards() as u32));
        (0..count)
            .map(move |step| (first + (start.wrapping_add(step)) % count) as u16)
            .filter(|&port| !self.host.is_reserved(Port::new(port)))
            .map(move |port| SocketAddr::new(local, port))
            .filter(move |&local| self.steering.of_ends(local, remote) == shard)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.iter().any(|&(own, _)| own == address)
    }
}

/// Where an IP packet goes.
fn destination(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.first()? >> 4 {
        4 => bytes
            .get(16..)?
            .first_chunk::<4>()
            .map(|octets| IpAddr::from(*octets)),
        6 => bytes
            .get(24..)?
            .first_chunk::<16>()
            .map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

/// How many bits at the front two addresses of one family share.
fn common_bits(one: IpAddr, other: IpAddr) -> u8 {
    let bits = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
    };
    bits as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(shards: usize) -> Hub {
        let addresses = [
            ("10.0.0.1", 24),
            ("10.1.0.1", 16),
            ("10.1.2.1", 24),
            ("2001:db8::1", 64),
        ];
        let addresses = addresses.map(|(address, bits)| (address.parse().unwrap(), bits));
        Hub::new(Host::new(), addresses.to_vec(), Steering::new([1; 16], shards))
    }

    #[test]
    fn the_source_is_of_the_same_network() {
        let hub = hub(1);
        for (remote, source) in [
            ("10.0.0.9", "10.0.0.1"),
            ("10.1.9.9", "10.1.0.1"),
            ("10.1.2.9", "10.1.2.1"),
            ("192.0.2.1", "10.0.0.1"),
            ("10.1.2.1", "10.1.2.1"),
            ("127.0.0.1", "127.0.0.1"),
            ("2001:db9::1", "2001:db8::1"),
            ("::ffff:10.1.9.9", "10.1.0.1"),
        ] {
            let got = hub.source_for(remote.parse().unwrap());
            assert_eq!(got, Some(source.parse().unwrap()), "{remote}");
        }
    }

    #[test]
    fn the_ports_of_all_shards_are_the_range_and_each_is_in_one() {
        let hub = hub(4);
        let local = "10.0.0.1".parse().unwrap();
        let remote = "10.0.0.2:80".parse().unwrap();
        let mut all: Vec<_> = (0..4)
            .flat_map(|shard| hub.ports_for(shard, local, remote))
            .collect();
        assert_eq!(all.len(), 60_999 - 32_768 + 1);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 60_999 - 32_768 + 1);
        assert!(
            hub.ports_for(2, local, remote)
                .all(|local| hub.steering.of_ends(remote, local) == 2)
        );
    }
}
