//! How many ICMP errors may be sent: RFC 1812, section 4.3.2.8, and RFC 4443, section 2.4 (f), ask for a limit.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::{Duration, Instant};

/// Linux's `icmp_msgs_per_sec` and `icmp_msgs_burst`.
const ALL: Rate = Rate {
    interval: Duration::from_millis(1),
    burst: 50,
};
/// Linux's `icmp_ratelimit`: one a second to one peer, after a burst of six.
const PEER: Rate = Rate {
    interval: Duration::from_secs(1),
    burst: 6,
};
/// Peers share this many buckets by a keyed hash, so that many peers take no more memory than few.
const BUCKETS: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Rate {
    interval: Duration,
    burst: u32,
}

/// A token bucket, kept as the time at which it is full again.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    full_at: Instant,
}

/// The buckets of a stack.
#[derive(Debug)]
pub(super) struct IcmpLimit {
    key: [u8; 16],
    all: Bucket,
    peers: [Bucket; BUCKETS],
}

impl IcmpLimit {
    pub(super) const fn new(key: [u8; 16]) -> Self {
        let full = Bucket {
            full_at: Instant::START,
        };
        Self {
            key,
            all: full,
            peers: [full; BUCKETS],
        }
    }

    /// Whether an error may go to `peer` now; if so, it counts.
    pub(super) fn allows(&mut self, now: Instant, peer: IpAddr) -> bool {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match peer {
            IpAddr::V4(peer) => hasher.write(&peer.octets()),
            // A network of 64 bits is one peer: it has as many addresses as it likes.
            IpAddr::V6(peer) => hasher.write(&peer.octets()[..8]),
        }
        let place = hasher.finish() as usize % BUCKETS;
        self.peers[place].takes(now, PEER) && self.all.takes(now, ALL)
    }
}

impl Bucket {
    fn takes(&mut self, now: Instant, rate: Rate) -> bool {
        let full_at = self.full_at.max(now) + rate.interval;
        let is_within = full_at.since(now) <= rate.interval * rate.burst;
        if is_within {
            self.full_at = full_at;
        }
        is_within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_gets_six_at_once_and_one_a_second_and_all_together_fifty() {
        let mut limit = IcmpLimit::new([0; 16]);
        let peer = IpAddr::from([10, 0, 0, 2]);
        let count =
            |limit: &mut IcmpLimit, now, tries| (0..tries).filter(|_| limit.allows(now, peer)).count();
        assert_eq!(count(&mut limit, Instant::START, 100), 6);
        assert_eq!(count(&mut limit, Instant::from_millis(999), 100), 0);
        assert_eq!(count(&mut limit, Instant::from_millis(2000), 100), 2);
        let others = (0..=255).flat_map(|high| (0..=255).map(move |low| IpAddr::from([10, 1, high, low])));
        let now = Instant::from_millis(100_000);
        assert_eq!(others.filter(|&other| limit.allows(now, other)).count(), 50);
    }
}
