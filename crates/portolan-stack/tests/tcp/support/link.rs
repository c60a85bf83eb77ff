//! One direction of an impaired link.

use std::collections::BTreeMap;

use portolan_stack::{Duration, Instant, Offload};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What the link does to packets. Chances are in 1,000.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Impairment {
    pub(crate) delay: Duration,
    /// Extra delay, up to this, of packets that are reordered.
    pub(crate) jitter: Duration,
    pub(crate) reorder: u32,
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    pub(crate) corrupt: u32,
    /// Bytes each second; 0 is without limit.
    pub(crate) rate: u64,
    /// Bytes that wait for the rate; more are dropped.
    pub(crate) queue: u64,
}

/// A packet under way.
#[derive(Clone, Debug)]
pub(crate) struct Flying {
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
}

#[derive(Debug)]
pub(crate) struct Link {
    impairment: Impairment,
    rng: ChaCha8Rng,
    flying: BTreeMap<(Instant, u64), Flying>,
    sent: u64,
    free_at: Instant,
    pub(crate) dropped: u64,
}

impl Link {
    pub(crate) fn new(impairment: Impairment, rng: ChaCha8Rng) -> Self {
        Self {
            impairment,
            rng,
            flying: BTreeMap::new(),
            sent: 0,
            free_at: Instant::START,
            dropped: 0,
        }
    }

    pub(crate) fn send(&mut self, now: Instant, mut packet: Flying) {
        let Impairment {
            delay,
            jitter,
            reorder,
            loss,
            duplicate,
            corrupt,
            rate,
            queue,
        } = self.impairment;
        if self.chance(loss) {
            self.dropped += 1;
            return;
        }
        let mut leaves = now;
        if rate > 0 {
            let waiting = self.free_at.since(now);
            if waiting.as_nanos() * rate / 1_000_000_000 > queue {
                self.dropped += 1;
                return;
            }
            let takes = Duration::from_nanos(packet.bytes.len() as u64 * 1_000_000_000 / rate);
            self.free_at = self.free_at.max(now) + takes;
            leaves = self.free_at;
        }
        if self.chance(corrupt) {
            let place = self.rng.random_range(0..packet.bytes.len());
            packet.bytes[place] ^= 1 << self.rng.random_range(0..8);
        }
        let copies = 1 + u32::from(self.chance(duplicate));
        for _ in 0..copies {
            let mut arrives = leaves + delay;
            if self.chance(reorder) {
                arrives += Duration::from_nanos(self.rng.random_range(0..=jitter.as_nanos()));
            }
            self.sent += 1;
            self.flying.insert((arrives, self.sent), packet.clone());
        }
    }

    pub(crate) fn next_arrival(&self) -> Option<Instant> {
        self.flying.keys().next().map(|&(at, _)| at)
    }

    pub(crate) fn receive(&mut self, now: Instant) -> Option<Flying> {
        let entry = self.flying.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    fn chance(&mut self, of_thousand: u32) -> bool {
        of_thousand > 0 && self.rng.random_range(0..1000) < of_thousand
    }
}
