//! How much of it: new flows and bytes, for each rule.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::target::{Fault, TargetErrorKind};

/// The limits of a rule: `@10/s`, `@500kbit`, `@10/s,1mbit`.
///
/// Flows are new ones in a second (`/s`), a minute (`/m`) or an hour (`/h`); bits are those of the payload, both ways
/// together, in a second: `bit`, `kbit`, `mbit`, `gbit`, in powers of 1,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// New flows.
    pub flows: Option<FlowRate>,
    /// Bits a second.
    pub bits: Option<NonZeroU64>,
}

/// New flows in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRate {
    /// How many; as many may come at once.
    pub count: NonZeroU64,
    /// In which time.
    pub per: RateUnit,
}

/// The time of a [`FlowRate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateUnit {
    /// `/s`.
    Second,
    /// `/m`.
    Minute,
    /// `/h`.
    Hour,
}

impl RateUnit {
    /// How long it is.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
        })
    }

    const fn letter(self) -> char {
        match self {
            Self::Second => 's',
            Self::Minute => 'm',
            Self::Hour => 'h',
        }
    }
}

/// What a rule may have at most of either, so that sums fit.
const RATE_MAX: u64 = 1_000_000_000_000;

impl Limits {
    /// Reads what stands behind the `@`.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let mut limits = Self::default();
        let mut at = 0;
        for item in text.split(',') {
            let twice = match parse_rate(item).map_err(|kind| (kind, at))? {
                Rate::Flows(rate) => limits.flows.replace(rate).is_some(),
                Rate::Bits(bits) => limits.bits.replace(bits).is_some(),
            };
            if twice {
                return Err((TargetErrorKind::RateTwice, at));
            }
            at += item.len() + 1;
        }
        Ok(limits)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.flows.is_none() && self.bits.is_none()
    }
}

enum Rate {
    Flows(FlowRate),
    Bits(NonZeroU64),
}

fn parse_rate(item: &str) -> Result<Rate, TargetErrorKind> {
    let digits = item.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = item.split_at(digits);
    let number: u64 = number.parse().map_err(|_| TargetErrorKind::Rate)?;
    let scaled = |factor: u64| {
        let number = number.checked_mul(factor).filter(|&number| number <= RATE_MAX);
        let number = number.ok_or(TargetErrorKind::Rate)?;
        NonZeroU64::new(number).ok_or(TargetErrorKind::RateZero)
    };
    let flows = |per| {
        Ok(Rate::Flows(FlowRate {
            count: scaled(1)?,
            per,
        }))
    };
    match unit.to_ascii_lowercase().as_str() {
        "/s" => flows(RateUnit::Second),
        "/m" => flows(RateUnit::Minute),
        "/h" => flows(RateUnit::Hour),
        "bit" => Ok(Rate::Bits(scaled(1)?)),
        "kbit" => Ok(Rate::Bits(scaled(1_000)?)),
        "mbit" => Ok(Rate::Bits(scaled(1_000_000)?)),
        "gbit" => Ok(Rate::Bits(scaled(1_000_000_000)?)),
        _ => Err(TargetErrorKind::Rate),
    }
}

/// `@10/s,1mbit`, or nothing.
impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '@';
        if let Some(FlowRate { count, per }) = self.flows {
            write!(f, "{before}{count}/{}", per.letter())?;
            before = ',';
        }
        if let Some(bits) = self.bits {
            const UNITS: [(u64, &str); 3] = [(1_000_000_000, "gbit"), (1_000_000, "mbit"), (1_000, "kbit")];
            let units = UNITS.into_iter().find(|(factor, _)| bits.get() % factor == 0);
            let (factor, unit) = units.unwrap_or((1, "bit"));
            write!(f, "{before}{}{unit}", bits.get() / factor)?;
        }
        Ok(())
    }
}

/// What a rule with limits has left. Shared by its flows.
#[derive(Debug)]
pub struct Limiter {
    flows: Option<Mutex<Bucket>>,
    bytes: Option<Mutex<Bucket>>,
}

impl Limiter {
    /// A limiter with everything left, or `None` if nothing is limited.
    pub(super) fn new(limits: Limits, now: Instant) -> Option<Self> {
        let flows = limits
            .flows
            .map(|rate| Bucket::new(rate.count.get(), rate.per.duration(), rate.count.get(), now));
        let bytes = limits.bits.map(|bits| {
            let rate = (bits.get() / 8).max(1);
            // A tenth of a second at once, and a whole segment of 64 KiB at least.
            Bucket::new(rate, Duration::from_secs(1), (rate / 10).max(65_536), now)
        });
        (!limits.is_none()).then(|| Self {
            flows: flows.map(Mutex::new),
            bytes: bytes.map(Mutex::new),
        })
    }

    /// Takes one new flow, if one is left.
    pub(super) fn take_flow(&self, now: Instant) -> bool {
        self.flows
            .as_ref()
            .is_none_or(|bucket| lock(bucket).take_if_left(now))
    }

    /// Counts bytes that were carried, and says how long to wait before the next are: zero if there are some left.
    #[must_use]
    pub fn carry(&self, bytes: u64, now: Instant) -> Duration {
        match &self.bytes {
            None => Duration::ZERO,
            Some(bucket) => lock(bucket).take_anyhow(bytes, now),
        }
    }

    /// Whether bytes are limited, so that [`Limiter::carry`] can ever say to wait.
    #[must_use]
    pub const fn limits_bytes(&self) -> bool {
        self.bytes.is_some()
    }
}

fn lock(bucket: &Mutex<Bucket>) -> std::sync::MutexGuard<'_, Bucket> {
    bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A token bucket, counted in nanoseconds: when it will be full again.
#[derive(Debug)]
struct Bucket {
    /// Nanoseconds that `count` tokens take to come back, as a fraction.
    count: u64,
    per: Duration,
    /// How much may be taken at once.
    depth: u64,
    /// The time at which everything taken will have come back.
    full_at: Instant,
}

impl Bucket {
    const fn new(count: u64, per: Duration, depth: u64, now: Instant) -> Self {
        Self {
            count,
            per,
            depth,
            full_at: now,
        }
    }

    /// How long `tokens` take to come back.
    fn cost(&self, tokens: u64) -> Duration {
        let nanos = u128::from(tokens) * self.per.as_nanos() / u128::from(self.count);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn take_if_left(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.cost(1);
        let left = full_at.saturating_duration_since(now) <= self.cost(self.depth);
        if left {
            self.full_at = full_at;
        }
        left
    }

    fn take_anyhow(&mut self, tokens: u64, now: Instant) -> Duration {
        let begin = self.full_at.max(now);
        self.full_at = begin.checked_add(self.cost(tokens)).unwrap_or(begin);
        let owed = self.full_at.saturating_duration_since(now);
        owed.saturating_sub(self.cost(self.depth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(text: &str, now: Instant) -> Limiter {
        Limiter::new(Limits::parse(text).unwrap(), now).unwrap()
    }

    #[test]
    fn so_many_flows_at_once_and_so_many_in_a_time() {
        let now = Instant::now();
        let limiter = limiter("10/s", now);
        let at = |millis| now + Duration::from_millis(millis);
        assert_eq!((0..100).filter(|_| limiter.take_flow(now)).count(), 10);
        assert!(!limiter.take_flow(at(99)));
        assert!(limiter.take_flow(at(100)));
        assert!(!limiter.take_flow(at(199)));
        let in_ten_seconds = (200..10_200)
            .filter(|&millis| limiter.take_flow(at(millis)))
            .count();
        assert!((99..=101).contains(&in_ten_seconds), "{in_ten_seconds}");
        // After a pause it is full, and no more than full.
        assert_eq!((0..100).filter(|_| limiter.take_flow(at(60_000))).count(), 10);
        assert!(!limiter.limits_bytes());
        assert_eq!(limiter.carry(1 << 40, now), Duration::ZERO);
    }

    #[test]
    fn bytes_wait_for_as_long_as_their_bits_take() {
        let now = Instant::now();
        // 1,000,000 bytes a second, of which 100,000 may go at once.
        let limiter = limiter("8mbit", now);
        assert_eq!(limiter.carry(100_000, now), Duration::ZERO);
        assert_eq!(limiter.carry(50_000, now), Duration::from_millis(50));
        assert_eq!(limiter.carry(0, now + Duration::from_millis(50)), Duration::ZERO);
        // Whoever does not wait owes the more, and nothing overflows.
        assert!(limiter.carry(u64::MAX, now) > Duration::from_secs(60));
        assert!(limiter.carry(u64::MAX, now) > Duration::from_secs(60));
        assert!(limiter.take_flow(now));
    }
}
