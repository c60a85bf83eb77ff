use portolan_core::{Port, PortRange};

/// A set of ports as ranges: rising, apart, not neighbouring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u16, u16)>);

impl Ranges {
    pub(super) fn all() -> Self {
        Self(vec![(0, u16::MAX)])
    }

    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// The ports of `first..=last`; numbers beyond 65535 name no port.
    pub(super) fn spanning(first: u32, last: u32) -> Self {
        let last = last.min(u32::from(u16::MAX));
        match u16::try_from(first) {
            Ok(first) if u32::from(first) <= last => Self(vec![(first, last as u16)]),
            Ok(_) | Err(_) => Self::none(),
        }
    }

    pub(super) fn is_all(&self) -> bool {
        self.0 == [(0, u16::MAX)]
    }

    pub(super) fn union(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self.0.sort_unstable();
        let mut merged = Vec::<(u16, u16)>::with_capacity(self.0.len());
        for (first, last) in self.0 {
            match merged.last_mut() {
                Some(before) if u32::from(first) <= u32::from(before.1) + 1 => before.1 = before.1.max(last),
                Some(_) | None => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    pub(super) fn complement(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut next = 0u32;
        for (first, last) in &self.0 {
            if u32::from(*first) > next {
                gaps.push((next as u16, first - 1));
            }
            next = u32::from(*last) + 1;
        }
        if next <= u32::from(u16::MAX) {
            gaps.push((next as u16, u16::MAX));
        }
        Self(gaps)
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        self.complement().union(other.complement()).complement()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = PortRange> {
        self.0
            .iter()
            .filter_map(|(first, last)| PortRange::new(Port::new(*first), Port::new(*last)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(ranges: &Ranges, port: u16) -> bool {
        ranges.iter().any(|range| range.contains(Port::new(port)))
    }

    fn some_ranges() -> impl Strategy<Value = Ranges> {
        proptest::collection::vec((0u32..70_000, 0u32..70_000), 0..6).prop_map(|spans| {
            let parts = spans.into_iter().map(|(a, b)| Ranges::spanning(a, b));
            parts.fold(Ranges::none(), Ranges::union)
        })
    }

    proptest! {
        #[test]
        fn the_operations_are_those_of_sets(a in some_ranges(), b in some_ranges(), port in any::<u16>()) {
            prop_assert_eq!(holds(&a.complement(), port), !holds(&a, port));
            prop_assert_eq!(holds(&a.intersection(&b), port), holds(&a, port) && holds(&b, port));
            prop_assert!(a.complement().complement() == a);
            let either = holds(&a, port) || holds(&b, port);
            prop_assert_eq!(holds(&a.union(b), port), either);
        }
    }

    #[test]
    fn the_ends_of_the_number_space_belong_to_it() {
        assert!(Ranges::spanning(0, 65_535).is_all());
        assert_eq!(Ranges::spanning(65_536, 70_000), Ranges::none());
        assert_eq!(Ranges::all().complement(), Ranges::none());
        assert!(Ranges::none().complement().is_all());
    }
}
