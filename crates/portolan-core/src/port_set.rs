use std::fmt;

use crate::{Port, PortRange};

/// A set of ports, kept as the fewest ranges that hold them.
///
/// Equal sets compare equal however they were made. Memory is 4 bytes per range, at most 32,768 ranges.
///
/// ```
/// use portolan_core::{Port, PortSet};
///
/// let set: PortSet = "1-1024,8080,!22".parse()?;
/// assert!(set.contains(Port::new(21)) && !set.contains(Port::new(22)));
/// assert_eq!(set.len(), 1024);
/// assert_eq!(set.to_string(), "1-21,23-1024,8080");
/// # Ok::<(), portolan_core::NotationError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortSet {
    /// Rising, and between any two there is a port that belongs to neither.
    ranges: Vec<PortRange>,
}

impl PortSet {
    /// The set without ports.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// Every port, 0 to 65535.
    #[must_use]
    pub fn all() -> Self {
        PortRange::ALL.into()
    }

    /// Whether `port` is in the set. Cost: a binary search of the ranges.
    #[must_use]
    pub fn contains(&self, port: Port) -> bool {
        let next = self.ranges.partition_point(|range| range.last() < port);
        self.ranges.get(next).is_some_and(|range| range.contains(port))
    }

    /// How many ports: 0 to 65536.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.ranges.iter().map(|range| range.len()).sum()
    }

    /// Whether there is no port in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ports in rising order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Port> + Clone {
        self.ranges.iter().flat_map(|range| range.iter())
    }

    /// The fewest ranges that hold the set, rising; no two of them touch.
    #[must_use]
    pub fn ranges(&self) -> &[PortRange] {
        &self.ranges
    }

    /// The ports that are in this set or in `other`.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.ranges.iter().chain(&other.ranges).copied().collect()
    }

    /// The ports of this set that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let mut holes = other.ranges.iter().peekable();
        for range in &self.ranges {
            let last = u32::from(range.last().get());
            let mut first = u32::from(range.first().get());
            // The last hole may reach into the next range, so it stays.
            while let Some(hole) = holes.peek() {
                let (hole_first, hole_last) = (u32::from(hole.first().get()), u32::from(hole.last().get()));
                if hole_first > last {
                    break;
                }
                if first < hole_first {
                    ranges.push(range_of(first, hole_first - 1));
                }
                first = first.max(hole_last + 1);
                if hole_last > last {
                    break;
                }
                holes.next();
            }
            if first <= last {
                ranges.push(range_of(first, last));
            }
        }
        Self { ranges }
    }

    /// The ports that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.difference(&Self::all().difference(other))
    }
}

/// A range within 0 to 65535, both ends given in order.
fn range_of(first: u32, last: u32) -> PortRange {
    let port = |number: u32| Port::new(u16::try_from(number).expect("ends come from ports"));
    PortRange::new(port(first), port(last)).expect("the first end is not the higher one")
}

/// Sorts the ranges and joins those that overlap or touch.
fn normalise(ranges: &mut Vec<PortRange>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let touch = u32::from(next.first().get()) <= u32::from(kept.last().get()) + 1;
        if touch {
            *kept = PortRange::new(kept.first(), kept.last().max(next.last())).expect("ends only move apart");
        }
        touch
    });
}

impl From<PortRange> for PortSet {
    fn from(range: PortRange) -> Self {
        Self { ranges: vec![range] }
    }
}

impl From<Port> for PortSet {
    fn from(port: Port) -> Self {
        PortRange::single(port).into()
    }
}

impl Extend<PortRange> for PortSet {
    fn extend<I: IntoIterator<Item = PortRange>>(&mut self, ranges: I) {
        self.ranges.extend(ranges);
        normalise(&mut self.ranges);
    }
}

impl FromIterator<PortRange> for PortSet {
    fn from_iter<I: IntoIterator<Item = PortRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        set.extend(ranges);
        set
    }
}

impl FromIterator<Port> for PortSet {
    fn from_iter<I: IntoIterator<Item = Port>>(ports: I) -> Self {
        ports.into_iter().map(PortRange::single).collect()
    }
}

/// The ranges with commas between, as the notation reads them; the empty set is `!0-65535`.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.ranges.split_first() else {
            return write!(f, "!{}", PortRange::ALL);
        };
        first.fmt(f)?;
        others.iter().try_for_each(|range| write!(f, ",{range}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<PortRange>> {
        let range = (any::<u16>(), 0u16..40).prop_map(|(first, length)| {
            PortRange::new(Port::new(first), Port::new(first.saturating_add(length))).unwrap()
        });
        proptest::collection::vec(range, 0..20)
    }

    fn model(ranges: &[PortRange]) -> BTreeSet<Port> {
        ranges.iter().flat_map(|range| range.iter()).collect()
    }

    #[test]
    fn neighbours_join_and_the_ends_are_no_trouble() {
        let set: PortSet = [65535, 0, 1, 2, 65534].into_iter().map(Port::new).collect();
        assert_eq!(set.to_string(), "0-2,65534-65535");
        assert_eq!(PortSet::all().len(), 65_536);
        assert_eq!(PortSet::all().difference(&PortSet::all()), PortSet::new());
        assert!(!PortSet::new().contains(Port::ZERO));
    }

    proptest! {
        #[test]
        fn it_is_a_set(a in ranges(), b in ranges(), probe: u16) {
            let (set_a, set_b): (PortSet, PortSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            let (model_a, model_b) = (model(&a), model(&b));
            prop_assert!(set_a.iter().eq(model_a.iter().copied()));
            prop_assert_eq!(set_a.len() as usize, model_a.len());
            prop_assert_eq!(set_a.contains(Port::new(probe)), model_a.contains(&Port::new(probe)));
            for port in model_a.iter().copied() {
                prop_assert!(set_a.contains(port));
            }
            prop_assert!(set_a.union(&set_b).iter().eq(model_a.union(&model_b).copied()));
            prop_assert!(set_a.difference(&set_b).iter().eq(model_a.difference(&model_b).copied()));
            prop_assert!(set_a.intersection(&set_b).iter().eq(model_a.intersection(&model_b).copied()));
        }

        #[test]
        fn ranges_are_rising_and_do_not_touch(a in ranges()) {
            let set: PortSet = a.into_iter().collect();
            for pair in set.ranges().windows(2) {
                prop_assert!(u32::from(pair[0].last().get()) + 1 < u32::from(pair[1].first().get()));
            }
        }
    }
}
