//! One direction of a bad network: pure, deterministic for a seed, and without a clock of its own.

use std::collections::BTreeMap;

use portolan_stack::{Duration, Instant, Offload, Packet};

/// What a network does to the packets of one direction. By default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    /// Bytes each second that leave the queue; 0 is without limit.
    pub rate: u64,
    /// Bytes that may wait for the rate; what comes on top is dropped.
    pub queue: u64,
    /// How long every packet is under way.
    pub delay: Duration,
    /// Up to so much longer, by chance; packets keep their order.
    pub jitter: Duration,
    /// Which packets are lost.
    pub loss: Loss,
    /// The chance of a packet to be overtaken, 0 to 1.
    pub reorder: f64,
    /// How much longer such a packet is under way, at most.
    pub reorder_delay: Duration,
    /// The chance of a packet to come twice, 0 to 1.
    pub duplicate: f64,
    /// The chance of a packet to have one bit turned over, 0 to 1.
    pub corrupt: f64,
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each with the same chance, 0 to 1.
    Random(f64),
    /// All of a burst (Gilbert's model): after each packet a burst begins or ends with these chances, 0 to 1. On average
    /// `begin / (begin + end)` of all packets are lost, `1 / end` in a row.
    Bursts {
        /// The chance that a burst begins.
        begin: f64,
        /// The chance that it ends.
        end: f64,
    },
}

/// What has happened to the packets of a [`Path`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathCounts {
    /// Packets that set out.
    pub sent: u64,
    /// Of these, those that were lost by chance.
    pub lost: u64,
    /// Those that found the queue full, or too much under way.
    pub overflowed: u64,
    /// Those that came twice.
    pub duplicated: u64,
    /// Those that were overtaken, or could have been.
    pub reordered: u64,
    /// Those with a bit turned over.
    pub corrupted: u64,
}

/// One direction of a network, with the packets that are under way.
#[derive(Debug)]
pub struct Path {
    impairment: Impairment,
    chances: Chances,
    /// By the time of arrival, and the order of sending.
    flying: BTreeMap<(Instant, u64), Flying>,
    /// Memory that those take, in bytes.
    weight: usize,
    /// Buffers of packets that have arrived.
    spare: Vec<Vec<u8>>,
    /// Makes the times of arrival of all packets different.
    departures: u64,
    /// When the rate lets the next packet go.
    free_at: Instant,
    /// No packet that keeps its order arrives before.
    in_order_from: Instant,
    in_burst: bool,
    counts: PathCounts,
}

#[derive(Debug)]
struct Flying {
    bytes: Vec<u8>,
    offload: Offload,
}

/// A row of random numbers for each thing that can happen: so what happens to the hundredth packet depends neither on the
/// other things that are asked for, nor on how full the queue was.
#[derive(Debug)]
struct Chances {
    loss: Random,
    corrupt: Random,
    duplicate: Random,
    reorder: Random,
    jitter: Random,
}

impl Chances {
    const fn new(seed: u64) -> Self {
        let mut seeds = Random(seed);
        Self {
            loss: Random(seeds.next()),
            corrupt: Random(seeds.next()),
            duplicate: Random(seeds.next()),
            reorder: Random(seeds.next()),
            jitter: Random(seeds.next()),
        }
    }
}

/// Buffers that are kept.
const SPARE: usize = 1024;

/// Memory that the packets under way may take, in bytes, whatever the delay: two seconds at 100 Mbit/s.
const WEIGHT_MAX: usize = 32 << 20;
/// What a packet takes beside its bytes, about.
const OVERHEAD: usize = 128;

impl Path {
    /// A path on which nothing is under way. The same seed does the same again.
    #[must_use]
    pub const fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            chances: Chances::new(seed),
            flying: BTreeMap::new(),
            weight: 0,
            spare: Vec::new(),
            departures: 0,
            free_at: Instant::START,
            in_order_from: Instant::START,
            in_burst: false,
            counts: PathCounts {
                sent: 0,
                lost: 0,
                overflowed: 0,
                duplicated: 0,
                reordered: 0,
                corrupted: 0,
            },
        }
    }

    /// Changes the network; what is under way arrives as it would have.
    pub const fn set(&mut self, impairment: Impairment) {
        self.impairment = impairment;
    }

    /// Sends a packet. A super-segment shares one fate.
    pub fn send(&mut self, now: Instant, packet: Packet<'_>) {
        let impairment = self.impairment;
        self.counts.sent += 1;
        // Every number is drawn for every packet, whatever becomes of it.
        let is_lost = self.is_lost(impairment.loss);
        let turned = self
            .chances
            .corrupt
            .chance(impairment.corrupt)
            .then(|| self.chances.corrupt.below(8 * packet.bytes.len() as u64));
        let is_double = self.chances.duplicate.chance(impairment.duplicate);
        if is_lost {
            self.counts.lost += 1;
            return;
        }
        let mut leaves = now;
        if impairment.rate > 0 {
            let nanos = |bytes: u64| (u128::from(bytes) * 1_000_000_000 / u128::from(impairment.rate)) as u64;
            if self.free_at.since(now).as_nanos() > nanos(impairment.queue) {
                self.counts.overflowed += 1;
                return;
            }
            leaves = self.free_at.max(now) + Duration::from_nanos(nanos(packet.bytes.len() as u64));
            self.free_at = leaves;
        }
        self.counts.corrupted += u64::from(turned.is_some());
        self.counts.duplicated += u64::from(is_double);
        for _ in 0..1 + u32::from(is_double) {
            let mut arrives = leaves + impairment.delay + self.chances.jitter.up_to(impairment.jitter);
            if self.chances.reorder.chance(impairment.reorder) {
                arrives += self.chances.reorder.up_to(impairment.reorder_delay);
                self.counts.reordered += 1;
            } else {
                arrives = arrives.max(self.in_order_from);
                self.in_order_from = arrives;
            }
            self.fly(arrives, packet, turned);
        }
    }

    /// Has a packet arrive at a time, with one of its bits turned over if one is given.
    fn fly(&mut self, arrives: Instant, packet: Packet<'_>, turned: Option<u64>) {
        let weight = packet.bytes.len() + OVERHEAD;
        if self.weight + weight > WEIGHT_MAX {
            self.counts.overflowed += 1;
            return;
        }
        self.weight += weight;
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(packet.bytes);
        if let Some(bit) = turned
            && let Some(byte) = bytes.get_mut((bit / 8) as usize)
        {
            *byte ^= 1 << (bit % 8);
        }
        self.departures += 1;
        let offload = packet.offload;
        self.flying
            .insert((arrives, self.departures), Flying { bytes, offload });
    }

    /// When the next packet arrives.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        self.flying.keys().next().map(|&(at, _)| at)
    }

    /// Offers the packets that have arrived to `take`, until it refuses one: that one stays. Says how many were taken.
    pub fn receive(&mut self, now: Instant, mut take: impl FnMut(Packet<'_>) -> bool) -> usize {
        let mut count = 0;
        while let Some(entry) = self.flying.first_entry() {
            let Flying { bytes, offload } = entry.get();
            let packet = Packet {
                bytes,
                offload: *offload,
            };
            if entry.key().0 > now || !take(packet) {
                break;
            }
            count += 1;
            let mut bytes = entry.remove().bytes;
            self.weight -= bytes.len() + OVERHEAD;
            if self.spare.len() < SPARE {
                bytes.clear();
                self.spare.push(bytes);
            }
        }
        count
    }

    /// What has happened so far.
    #[must_use]
    pub const fn counts(&self) -> PathCounts {
        self.counts
    }

    fn is_lost(&mut self, loss: Loss) -> bool {
        match loss {
            Loss::None => false,
            Loss::Random(chance) => self.chances.loss.chance(chance),
            Loss::Bursts { begin, end } => {
                let is_lost = self.in_burst;
                self.in_burst ^= self.chances.loss.chance(if is_lost { end } else { begin });
                is_lost
            }
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and the same everywhere for ever.
#[derive(Debug)]
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `limit`; 0 if that is 0.
    const fn below(&mut self, limit: u64) -> u64 {
        ((self.next() as u128 * limit as u128) >> 64) as u64
    }

    /// True with this chance. One that is 0 takes no number, so that what is not used changes nothing.
    fn chance(&mut self, chance: f64) -> bool {
        // 53 bits are what a float of this size has.
        chance > 0.0 && ((self.next() >> 11) as f64) < chance * (1u64 << 53) as f64
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        if longest == Duration::ZERO {
            return longest;
        }
        Duration::from_nanos(self.below(longest.as_nanos().saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends numbered packets, one a millisecond, and gives (arrival in microseconds, number) of each.
    fn run(impairment: Impairment, seed: u64, count: u32) -> (Vec<(u64, u32)>, u64) {
        let mut path = Path::new(impairment, seed);
        for number in 0..count {
            let mut bytes = [0; 1000];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            let offload = Offload::default();
            path.send(
                Instant::from_millis(number.into()),
                Packet {
                    bytes: &bytes,
                    offload,
                },
            );
        }
        let mut arrived = Vec::new();
        while let Some(at) = path.next_arrival() {
            path.receive(at, |packet| {
                let number = u32::from_be_bytes(packet.bytes[..4].try_into().unwrap());
                arrived.push((at.as_micros(), number));
                true
            });
        }
        (arrived, path.counts().lost + path.counts().overflowed)
    }

    #[test]
    fn by_default_nothing_happens() {
        let (arrived, dropped) = run(Impairment::default(), 1, 100);
        assert!(
            arrived
                .iter()
                .copied()
                .eq((0..100).map(|number| (1000 * u64::from(number), number)))
        );
        assert_eq!(dropped, 0);
    }

    #[test]
    fn a_seed_does_the_same_again_and_another_does_not() {
        let impairment = Impairment {
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(5),
            loss: Loss::Random(0.1),
            reorder: 0.1,
            reorder_delay: Duration::from_millis(20),
            duplicate: 0.1,
            corrupt: 0.1,
            ..Impairment::default()
        };
        assert_eq!(run(impairment, 7, 1000), run(impairment, 7, 1000));
        assert_ne!(run(impairment, 7, 1000), run(impairment, 8, 1000));
    }

    #[test]
    fn losses_are_as_many_as_asked_for() {
        let (_, dropped) = run(
            Impairment {
                loss: Loss::Random(0.1),
                ..Impairment::default()
            },
            1,
            10_000,
        );
        assert!((900..1100).contains(&dropped), "{dropped}");
        let loss = Loss::Bursts {
            begin: 0.02,
            end: 0.2,
        };
        let (arrived, dropped) = run(
            Impairment {
                loss,
                ..Impairment::default()
            },
            1,
            20_000,
        );
        assert!(
            (1400..2300).contains(&dropped),
            "{dropped} of 20,000: one in eleven"
        );
        let gaps = arrived
            .windows(2)
            .filter(|pair| pair[1].1 != pair[0].1 + 1)
            .count() as u64;
        assert!(
            (4..7).contains(&(dropped / gaps)),
            "{dropped} lost in {gaps} rows: five in a row"
        );
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_does_not() {
        let jitter = Duration::from_millis(30);
        let (arrived, _) = run(
            Impairment {
                jitter,
                ..Impairment::default()
            },
            3,
            1000,
        );
        assert!(arrived.is_sorted_by_key(|&(_, number)| number));
        assert!(arrived.iter().any(|&(at, number)| at > 1000 * u64::from(number)));
        let (arrived, _) = run(
            Impairment {
                reorder: 0.2,
                reorder_delay: jitter,
                ..Impairment::default()
            },
            3,
            1000,
        );
        assert!(!arrived.is_sorted_by_key(|&(_, number)| number));
        assert_eq!(arrived.len(), 1000);
    }

    #[test]
    fn a_rate_spreads_packets_and_a_full_queue_drops_them() {
        let impairment = Impairment {
            rate: 500_000,
            queue: 10_000,
            ..Impairment::default()
        };
        let (arrived, dropped) = run(impairment, 1, 1000);
        // A packet takes 2 ms, and one is sent each millisecond: half of them get through.
        assert!(arrived.windows(2).all(|pair| pair[1].0 - pair[0].0 == 2000));
        assert!((480..=500).contains(&dropped), "{dropped}");
    }

    #[test]
    fn who_is_lost_depends_on_the_seed_and_its_number_alone() {
        let lossy = Impairment {
            loss: Loss::Random(0.05),
            ..Impairment::default()
        };
        let worse = Impairment {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(5),
            duplicate: 0.1,
            corrupt: 0.1,
            reorder: 0.1,
            reorder_delay: Duration::from_millis(1),
            ..lossy
        };
        let survivors = |impairment| {
            let mut path = Path::new(impairment, 7);
            let survives = |number: u32| {
                let (before, bytes) = (path.counts().lost, number.to_be_bytes());
                let offload = Offload::default();
                path.send(
                    Instant::START,
                    Packet {
                        bytes: &bytes,
                        offload,
                    },
                );
                path.counts().lost == before
            };
            (0..1000).map(survives).collect::<Vec<_>>()
        };
        assert_eq!(survivors(lossy), survivors(worse));
        assert!(survivors(lossy).contains(&false));
    }

    #[test]
    fn what_is_under_way_takes_so_much_memory_and_no_more() {
        let delay = Duration::from_secs(60);
        let mut path = Path::new(
            Impairment {
                delay,
                ..Impairment::default()
            },
            1,
        );
        let offload = Offload::default();
        for bytes in [&[0; 20][..], &[0; 1500]].into_iter().cycle().take(100_000) {
            path.send(Instant::START, Packet { bytes, offload });
        }
        assert!(path.weight <= WEIGHT_MAX && path.counts().overflowed > 0);
        let there = path.receive(Instant::START + delay, |_| true);
        assert_eq!(there as u64, 100_000 - path.counts().overflowed);
        assert_eq!(path.weight, 0);
    }

    #[test]
    fn copies_and_turned_bits() {
        let (arrived, _) = run(
            Impairment {
                duplicate: 0.5,
                ..Impairment::default()
            },
            1,
            1000,
        );
        assert!((1400..1600).contains(&arrived.len()), "{}", arrived.len());
        let mut path = Path::new(
            Impairment {
                corrupt: 1.0,
                ..Impairment::default()
            },
            1,
        );
        let offload = Offload::default();
        path.send(
            Instant::START,
            Packet {
                bytes: &[0; 100],
                offload,
            },
        );
        path.send(Instant::START, Packet { bytes: &[], offload });
        let mut ones = 0;
        path.receive(Instant::START, |packet| {
            ones += packet.bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
            true
        });
        assert_eq!(ones, 1);
    }
}
