//! Which addresses a port space gets: private ones that lead nowhere else from this host.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

/// The addresses of a port space: the program's, and the gateway's before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnets {
    /// IPv4: always.
    pub v4: Subnet<Ipv4Addr>,
    /// IPv6: where the kernel has it.
    pub v6: Option<Subnet<Ipv6Addr>>,
}

/// One subnet of a port space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet<A> {
    /// The program's address.
    pub inside: A,
    /// The address that the engine answers for, next hop of everything else.
    pub gateway: A,
    /// Length of their common prefix, in bits.
    pub prefix_len: u8,
}

/// Every private prefix is in use on this host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "no private IPv4 subnet is free for a port space: routes of this host cover all of 10.0.0.0/8, \
     172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 and 198.18.0.0/15; remove a route that is not needed"
)]
pub struct NoFreeSubnet;

/// RFC 1918, then the shared space of RFC 6598 and the benchmarks' of RFC 2544, for hosts that route all of it.
const POOLS: [Ipv4Net; 5] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
];
/// Network, gateway, program, broadcast.
const V4_LEN: u8 = 30;
/// What RFC 4193 makes a site of; hosts on it have 64 bits.
const V6_LEN: u8 = 64;

impl Subnets {
    /// Chooses subnets that overlap none of `taken`, the prefixes that this host routes or has addresses of.
    ///
    /// Default routes do not count. Where a choice is free, `seed` decides it, so that two spaces hardly ever get
    /// the same. The IPv6 subnet is a unique local one with a random global identifier (RFC 4193, section 3.2).
    /// Cost: the number of prefixes times its logarithm.
    ///
    /// # Errors
    /// If every private prefix is covered.
    pub fn choose(taken: &[IpNet], ipv6: bool, seed: u64) -> Result<Self, NoFreeSubnet> {
        let v4 = POOLS
            .iter()
            .find_map(|pool| choose_v4(*pool, taken, seed))
            .ok_or(NoFreeSubnet)?;
        let base = u32::from(v4.network());
        let v6 = ipv6.then(|| choose_v6(taken, seed)).map(|net| {
            let base = u128::from(net.network());
            Subnet {
                inside: (base + 2).into(),
                gateway: (base + 1).into(),
                prefix_len: V6_LEN,
            }
        });
        Ok(Self {
            v4: Subnet {
                inside: (base + 2).into(),
                gateway: (base + 1).into(),
                prefix_len: V4_LEN,
            },
            v6,
        })
    }
}

impl Subnets {
    /// As [`Subnets::choose`], and `more` of them for others that the program is to see: none overlaps another.
    ///
    /// # Errors
    /// If every private prefix is covered.
    pub fn choose_several(
        taken: &[IpNet],
        ipv6: bool,
        seed: u64,
        more: usize,
    ) -> Result<(Self, Vec<Self>), NoFreeSubnet> {
        let own = Self::choose(taken, ipv6, seed)?;
        let mut taken = taken.to_vec();
        taken.extend(own.nets());
        let others = (0..more).map(|_| {
            let other = Self::choose(&taken, ipv6, seed)?;
            taken.extend(other.nets());
            Ok(other)
        });
        Ok((own, others.collect::<Result<_, _>>()?))
    }

    /// The prefixes.
    fn nets(&self) -> impl Iterator<Item = IpNet> + use<> {
        let v4 = Ipv4Net::new_assert(self.v4.inside, self.v4.prefix_len).trunc();
        let v6 = self
            .v6
            .map(|v6| Ipv6Net::new_assert(v6.inside, v6.prefix_len).trunc());
        std::iter::once(v4.into()).chain(v6.map(IpNet::from))
    }
}

/// The first free subnet of the pool from a place that the seed gives, around to that place.
fn choose_v4(pool: Ipv4Net, taken: &[IpNet], seed: u64) -> Option<Ipv4Net> {
    let first = u64::from(u32::from(pool.network()));
    let size = 1_u64 << (32 - pool.prefix_len());
    let step = 1_u64 << (32 - V4_LEN);
    // Offsets from the start of the pool that are not free, first and one past the last, in order.
    let mut holes: Vec<(u64, u64)> = taken
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(net) if net.prefix_len() > 0 => Some(net),
            IpNet::V4(_) | IpNet::V6(_) => None,
        })
        .filter_map(|net| {
            let start = u64::from(u32::from(net.network())).max(first);
            let end = (u64::from(u32::from(net.broadcast())) + 1).min(first + size);
            (start < end).then(|| (start - first, end - first))
        })
        .collect();
    holes.sort_unstable();
    let search = |from: u64, to: u64| {
        let mut at = from;
        for &(start, end) in &holes {
            if at + step <= start {
                break;
            }
            if end > at {
                at = end.next_multiple_of(step);
            }
        }
        (at + step <= to).then_some(at)
    };
    let start = seed % (size / step) * step;
    let offset = search(start, size).or_else(|| search(0, size))?;
    let network = u32::try_from(first + offset).ok()?;
    Ipv4Net::new(network.into(), V4_LEN).ok()
}

/// A unique local prefix; one of 2^40, so that a second try is for hosts whose administrator chose the same.
fn choose_v6(taken: &[IpNet], seed: u64) -> Ipv6Net {
    let mut identifier = seed;
    loop {
        let network = 0xfd_u128 << 120 | u128::from(identifier & 0xff_ffff_ffff) << 80;
        let net = Ipv6Net::new_assert(network.into(), V6_LEN);
        let overlaps = |other: &IpNet| match other {
            // Whoever routes all unique local addresses somewhere leaves none: the longer prefix then wins inside.
            IpNet::V6(other) => other.prefix_len() > 8 && (other.contains(&net) || net.contains(other)),
            IpNet::V4(_) => false,
        };
        if !taken.iter().any(overlaps) {
            return net;
        }
        // An odd step visits all 2^40.
        identifier = identifier.wrapping_add(0x9e_3779_b97f);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn an_empty_host_gives_a_subnet_of_ten() {
        let subnets = Subnets::choose(&[], true, 0).unwrap();
        assert_eq!(subnets.v4.inside, Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(subnets.v4.gateway, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(subnets.v4.prefix_len, 30);
        assert_eq!(
            subnets.v6.unwrap().gateway,
            "fd00::1".parse::<Ipv6Addr>().unwrap()
        );
        assert_eq!(Subnets::choose(&[], false, 0).unwrap().v6, None);
    }

    #[test]
    fn routes_of_the_host_are_left_alone() {
        let table = [
            (nets(&["0.0.0.0/0", "::/0"]), Some("10.0.0.2")),
            (nets(&["10.0.0.0/30"]), Some("10.0.0.6")),
            (nets(&["10.0.0.7/32"]), Some("10.0.0.2")),
            (nets(&["10.0.0.0/8"]), Some("172.16.0.2")),
            (
                nets(&["10.0.0.0/9", "10.128.0.0/9", "172.16.0.0/12"]),
                Some("192.168.0.2"),
            ),
            (nets(&["0.0.0.0/1"]), Some("172.16.0.2")),
            (nets(&["0.0.0.0/1", "128.0.0.0/1"]), None),
        ];
        for (taken, expected) in table {
            let got = Subnets::choose(&taken, false, 0)
                .ok()
                .map(|subnets| subnets.v4.inside.to_string());
            assert_eq!(got.as_deref(), expected, "{taken:?}");
        }
    }

    #[test]
    fn several_do_not_overlap() {
        let taken = nets(&["10.0.0.4/30"]);
        let (own, more) = Subnets::choose_several(&taken, true, 0, 3).unwrap();
        let all: Vec<IpNet> = more.iter().chain([&own]).flat_map(Subnets::nets).collect();
        assert_eq!(all.len(), 8);
        for (place, net) in all.iter().enumerate() {
            assert!(!net.contains(&taken[0]) && !taken[0].contains(net));
            assert!(
                all[..place]
                    .iter()
                    .all(|other| !net.contains(other) && !other.contains(net))
            );
        }
        assert_eq!(own, Subnets::choose(&taken, true, 0).unwrap());
    }

    #[test]
    fn an_identifier_that_is_taken_is_passed_over() {
        let taken = nets(&["fd00:0:0::/48", "fd9e:3779:b97f::/64"]);
        let subnets = Subnets::choose(&taken, true, 0).unwrap();
        let net = IpNet::new(subnets.v6.unwrap().gateway.into(), 64).unwrap();
        assert!(
            !taken
                .iter()
                .any(|other| other.contains(&net.network()) || net.contains(&other.network()))
        );
    }

    proptest! {
        #[test]
        fn whatever_is_chosen_overlaps_nothing(
            taken in proptest::collection::vec((any::<u32>(), 1_u8..=32, any::<bool>()), 0..200),
            seed in any::<u64>(),
        ) {
            let taken: Vec<IpNet> = taken
                .into_iter()
                .map(|(address, len, near)| {
                    let address = if near { address >> 8 | 10 << 24 } else { address };
                    IpNet::new(Ipv4Addr::from(address).into(), len).unwrap().trunc()
                })
                .collect();
            if let Ok(subnets) = Subnets::choose(&taken, true, seed) {
                let ours = IpNet::new(subnets.v4.inside.into(), V4_LEN).unwrap().trunc();
                for other in &taken {
                    prop_assert!(!ours.contains(&other.network()) && !other.contains(&ours.network()), "{ours} {other}");
                }
                prop_assert!(ours.contains(&std::net::IpAddr::from(subnets.v4.gateway)));
            }
        }

        #[test]
        fn none_is_found_only_if_there_is_none(holes in proptest::collection::vec(0_u32..16, 1..3), seed in any::<u64>()) {
            // All of the pools is taken, but for some places in one of them.
            let mut taken = nets(&["172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15"]);
            taken.extend((0..16).filter(|n| !holes.contains(n)).map(|n| {
                IpNet::new(Ipv4Addr::from(10 << 24 | n << 20).into(), 12).unwrap()
            }));
            let chosen = Subnets::choose(&taken, false, seed).unwrap();
            prop_assert!(holes.contains(&(u32::from(chosen.v4.inside) >> 20 & 0xf)));
        }
    }
}
