use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A set of addresses, kept as the fewest prefixes that make it up.
///
/// A look-up is a binary search. v4-mapped addresses count as IPv4.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressSet {
    /// Rising, none within another.
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl AddressSet {
    /// Whether `address` is in the set.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let next = self.v4.partition_point(|prefix| prefix.network() <= address);
                next > 0 && self.v4[next - 1].contains(&address)
            }
            IpAddr::V6(address) => {
                let next = self.v6.partition_point(|prefix| prefix.network() <= address);
                next > 0 && self.v6[next - 1].contains(&address)
            }
        }
    }

    /// The prefixes, rising, IPv4 first.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.v4.iter().copied().map(IpNet::V4);
        v4.chain(self.v6.iter().copied().map(IpNet::V6))
    }

    /// Whether there is no address in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<IpNet> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(prefix) => v4.push(prefix.trunc()),
                IpNet::V6(prefix) => v6.push(prefix.trunc()),
            }
        }
        Self {
            v4: Ipv4Net::aggregate(&v4),
            v6: Ipv6Net::aggregate(&v6),
        }
    }
}

impl<const N: usize> From<[IpNet; N]> for AddressSet {
    fn from(prefixes: [IpNet; N]) -> Self {
        prefixes.into_iter().collect()
    }
}

impl From<IpAddr> for AddressSet {
    fn from(address: IpAddr) -> Self {
        std::iter::once(IpNet::from(address.to_canonical())).collect()
    }
}

/// As nftables writes an anonymous set: `{ 10.0.0.0/8, fd00::/8 }`, or the one prefix alone.
impl fmt::Display for AddressSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut prefixes = self.prefixes();
        match (prefixes.next(), prefixes.next()) {
            (Some(only), None) => write!(f, "{only}"),
            (first, second) => {
                f.write_str("{ ")?;
                for (place, prefix) in first.into_iter().chain(second).chain(prefixes).enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    write!(f, "{comma}{prefix}")?;
                }
                f.write_str(" }")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_set_prints_as_the_fewest_prefixes() {
        let set = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.parse::<IpNet>().unwrap())
                .collect::<AddressSet>()
        };
        let joined = set(&["fd00::/8", "10.0.0.0/9", "10.128.0.0/9", "10.1.2.3/32"]);
        assert_eq!(joined.to_string(), "{ 10.0.0.0/8, fd00::/8 }");
        assert_eq!(set(&["10.9.9.9/8"]).to_string(), "10.0.0.0/8");
        assert!(set(&["0.0.0.0/0"]).contains("::ffff:1.2.3.4".parse().unwrap()));
        assert!(!set(&["0.0.0.0/0"]).contains("::1".parse().unwrap()));
        assert!(set(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn contains_agrees_with_a_list(
            prefixes in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..20),
            addresses in proptest::collection::vec(any::<u32>(), 20),
        ) {
            let prefixes: Vec<IpNet> = prefixes
                .iter()
                .map(|&(bits, len)| IpNet::new(IpAddr::V4(bits.into()), len).unwrap())
                .collect();
            let set: AddressSet = prefixes.iter().copied().collect();
            let near = prefixes.iter().flat_map(|prefix| [prefix.network(), prefix.broadcast(), prefix.addr()]);
            for address in addresses.iter().map(|&bits| IpAddr::V4(bits.into())).chain(near) {
                let expected = prefixes.iter().any(|prefix| prefix.contains(&address));
                prop_assert_eq!(set.contains(address), expected, "{}", address);
            }
        }
    }
}
