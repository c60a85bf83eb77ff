//! Values under prefixes of bits: of addresses, and of ports by the ranges that they make up.
//!
//! A prefix is found by its bits in one hash table; which lengths are in use stands in a bit map. So a look-up costs one
//! probe for each *length* in use, at most 33 for IPv4 and 17 for ports, however many prefixes there are. The keys come from
//! whoever configures the host, never from a packet, so that no packet can make a probe slow.

use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::PortRange;

/// Values under prefixes of up to 128 bits.
#[derive(Clone, Debug)]
pub(crate) struct PrefixIndex<T> {
    /// Bit L is set if a prefix of length L is in use.
    lengths: [u64; 3],
    values: HashMap<Prefix, T, FixedState>,
    /// How many prefixes there are of each length in use.
    counts: HashMap<u8, u32, FixedState>,
}

/// The first `len` bits of a number; the other bits of `bits` are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Prefix {
    bits: u128,
    len: u8,
}

impl Prefix {
    /// The first `len` bits of `bits`, at most 128.
    pub(crate) const fn new(bits: u128, len: u8) -> Self {
        let mask = match len {
            0 => 0,
            1..=127 => u128::MAX << (128 - len),
            _ => u128::MAX,
        };
        Self {
            bits: bits & mask,
            len,
        }
    }
}

impl<T> Default for PrefixIndex<T> {
    fn default() -> Self {
        Self {
            lengths: [0; 3],
            values: HashMap::with_hasher(FixedState::with_seed(0)),
            counts: HashMap::with_hasher(FixedState::with_seed(0)),
        }
    }
}

impl<T> PrefixIndex<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn get_mut(&mut self, prefix: Prefix) -> Option<&mut T> {
        self.values.get_mut(&prefix)
    }

    /// The value under exactly this prefix, made if there is none.
    pub(crate) fn entry(&mut self, prefix: Prefix) -> &mut T
    where
        T: Default,
    {
        let Self {
            lengths,
            values,
            counts,
        } = self;
        values.entry(prefix).or_insert_with(|| {
            lengths[usize::from(prefix.len / 64)] |= 1 << (prefix.len % 64);
            *counts.entry(prefix.len).or_default() += 1;
            T::default()
        })
    }

    pub(crate) fn remove(&mut self, prefix: Prefix) {
        if self.values.remove(&prefix).is_none() {
            return;
        }
        let count = self
            .counts
            .get_mut(&prefix.len)
            .expect("a prefix is counted when it is entered");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&prefix.len);
            self.lengths[usize::from(prefix.len / 64)] &= !(1 << (prefix.len % 64));
        }
    }

    /// The values under prefixes of `bits`, the longest prefix first, each with its length.
    #[inline]
    pub(crate) fn covering(&self, bits: u128) -> impl Iterator<Item = (u8, &T)> {
        self.covering_prefix(Prefix::new(bits, 128))
    }

    /// The values under prefixes of `prefix`, itself included, the longest first.
    #[inline]
    pub(crate) fn covering_prefix(&self, prefix: Prefix) -> impl Iterator<Item = (u8, &T)> {
        let Prefix { bits, len: longest } = prefix;
        let mut lengths = self.lengths;
        std::iter::from_fn(move || {
            let word = (0..lengths.len()).rev().find(|&word| lengths[word] != 0)?;
            let bit = 63 - lengths[word].leading_zeros();
            lengths[word] &= !(1 << bit);
            Some((word as u32 * 64 + bit) as u8)
        })
        .skip_while(move |&len| len > longest)
        .filter_map(move |len| Some((len, self.values.get(&Prefix::new(bits, len))?)))
    }
}

/// The bits of an address, from the highest on, with how many there are.
pub(crate) fn address_bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

/// The bits of a port, from the highest on.
pub(crate) fn port_bits(port: u16) -> u128 {
    u128::from(port) << 112
}

/// The fewest prefixes that make up a range of ports: at most 30, a single port or the whole one.
pub(crate) fn port_prefixes(range: PortRange) -> impl Iterator<Item = Prefix> {
    let last = u32::from(range.last().get());
    let mut next = u32::from(range.first().get());
    std::iter::from_fn(move || {
        if next > last {
            return None;
        }
        // The largest block that begins here and ends within the range.
        let aligned = if next == 0 { 16 } else { next.trailing_zeros() };
        let fitting = (last - next + 1).ilog2();
        let free_bits = aligned.min(fitting);
        let prefix = Prefix::new(u128::from(next) << 112, (16 - free_bits) as u8);
        next += 1 << free_bits;
        Some(prefix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Port;
    use proptest::prelude::*;

    #[test]
    fn the_longest_prefix_comes_first_and_goes_alone() {
        let mut index = PrefixIndex::<&str>::default();
        let (bits, _) = address_bits("10.1.2.3".parse().unwrap());
        for (len, name) in [(0, "all"), (8, "ten"), (32, "one"), (24, "net")] {
            *index.entry(Prefix::new(bits, len)) = name;
        }
        let all = |index: &PrefixIndex<&'static str>, address: &str| {
            let (bits, _) = address_bits(address.parse().unwrap());
            index.covering(bits).map(|(_, &name)| name).collect::<Vec<_>>()
        };
        assert_eq!(all(&index, "10.1.2.3"), ["one", "net", "ten", "all"]);
        assert_eq!(all(&index, "10.1.2.4"), ["net", "ten", "all"]);
        index.remove(Prefix::new(bits, 24));
        assert_eq!(all(&index, "10.1.2.3"), ["one", "ten", "all"]);
        assert_eq!(index.lengths, [1 | 1 << 8 | 1 << 32, 0, 0]);
        let (long, len) = address_bits("fd00::1".parse().unwrap());
        *index.entry(Prefix::new(long, len)) = "six";
        assert_eq!(all(&index, "fd00::1"), ["six", "all"]);
    }

    proptest! {
        #[test]
        fn prefixes_make_up_exactly_the_range(a: u16, b: u16) {
            let range = PortRange::new(Port::new(a.min(b)), Port::new(a.max(b))).unwrap();
            let prefixes: Vec<_> = port_prefixes(range).collect();
            prop_assert!(prefixes.len() <= 30);
            for port in 0..=u16::MAX {
                let covering = prefixes
                    .iter()
                    .filter(|prefix| Prefix::new(port_bits(port), prefix.len) == **prefix)
                    .count();
                prop_assert_eq!(covering, usize::from(range.contains(Port::new(port))));
            }
        }
    }
}
