//! One direction of a bad network, between the device and the stack.

use std::collections::BTreeMap;

use portolan_stack::{Duration, Instant, Offload};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What happens to packets. Chances are in 1,000.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Impairment {
    pub(crate) delay: Duration,
    /// Extra delay, up to this, of packets that are reordered.
    pub(crate) jitter: Duration,
    pub(crate) reorder: u32,
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    /// Bytes each second; 0 is without limit.
    pub(crate) rate: u64,
    /// Bytes that wait for the rate; more are dropped.
    pub(crate) queue: u64,
    /// From so many waiting bytes on, packets that may be are marked (ECN); 0 is never.
    pub(crate) mark: u64,
}

/// A packet under way.
#[derive(Debug)]
pub(crate) struct Flying {
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
}

/// Packets under way, in the order in which they arrive.
#[derive(Debug)]
pub(crate) struct Impaired {
    impairment: Impairment,
    rng: ChaCha8Rng,
    flying: BTreeMap<(Instant, u64), Flying>,
    /// Buffers of packets that arrived, for the next.
    spare: Vec<Vec<u8>>,
    sent: u64,
    free_at: Instant,
    pub(crate) dropped: u64,
    pub(crate) marked: u64,
}

impl Impaired {
    pub(crate) fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            rng: ChaCha8Rng::seed_from_u64(seed),
            flying: BTreeMap::new(),
            spare: Vec::new(),
            sent: 0,
            free_at: Instant::START,
            dropped: 0,
            marked: 0,
        }
    }

    pub(crate) fn send(&mut self, now: Instant, bytes: &[u8], offload: Offload) {
        let Impairment {
            delay,
            jitter,
            reorder,
            loss,
            duplicate,
            rate,
            queue,
            mark,
        } = self.impairment;
        // Every packet takes the same draws, so that a seed drops the same places of every stream.
        let (lost, late, twice) = (self.chance(loss), self.chance(reorder), self.chance(duplicate));
        if lost {
            self.dropped += 1;
            return;
        }
        let mut leaves = now;
        let mut is_marked = false;
        if rate > 0 {
            let waiting = self.free_at.since(now).as_nanos() as u128 * u128::from(rate) / 1_000_000_000;
            let is_full = waiting > u128::from(queue);
            is_marked = mark > 0 && waiting > u128::from(mark);
            if is_full {
                self.dropped += 1;
                return;
            }
            let takes = Duration::from_nanos(bytes.len() as u64 * 1_000_000_000 / rate);
            self.free_at = self.free_at.max(now) + takes;
            leaves = self.free_at;
        }
        for _ in 0..1 + u32::from(twice) {
            let mut arrives = leaves + delay;
            if late {
                arrives += Duration::from_nanos(self.rng.random_range(0..=jitter.as_nanos()));
            }
            let mut copy = self.spare.pop().unwrap_or_default();
            copy.clear();
            copy.extend_from_slice(bytes);
            if is_marked && mark_congestion(&mut copy) {
                self.marked += 1;
            }
            self.sent += 1;
            self.flying
                .insert((arrives, self.sent), Flying { bytes: copy, offload });
        }
    }

    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        self.flying.keys().next().map(|&(at, _)| at)
    }

    pub(crate) fn receive(&mut self, now: Instant) -> Option<Flying> {
        let entry = self.flying.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(crate) fn give_back(&mut self, flying: Flying) {
        self.spare.push(flying.bytes);
    }

    /// Changes the network from now on.
    pub(crate) fn set(&mut self, impairment: Impairment) {
        self.impairment = impairment;
    }

    fn chance(&mut self, of_thousand: u32) -> bool {
        self.rng.random_range(0..1000) < of_thousand
    }
}

/// Sets CE in a packet of IPv4 that is capable of it (RFC 3168, section 5); the checksum follows.
fn mark_congestion(packet: &mut [u8]) -> bool {
    if packet.len() < 20 || packet[0] >> 4 != 4 || packet[1] & 3 == 0 {
        return false;
    }
    let old = u16::from_be_bytes([packet[0], packet[1]]);
    packet[1] |= 3;
    let new = u16::from_be_bytes([packet[0], packet[1]]);
    let checksum = u16::from_be_bytes([packet[10], packet[11]]);
    let checksum = portolan_core::wire::update(checksum, old, new);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    true
}
