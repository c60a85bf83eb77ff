//! Which rules a packet has to be compared with.
//!
//! ```text
//!   destination address ─▶ prefixes that hold it ─┐
//!   source address ──────▶ prefixes that hold it ─┼▶ lists of rules, each rising ─▶ the first that matches
//!   destination port ────▶ ranges that hold it ───┤
//!   source port ─────────▶ ranges that hold it ───┤
//!                          rules with none of it ─┘
//! ```
//!
//! Each rule stands under *one* of its conditions, the one with the least company: how many rules have a condition that
//! holds whenever this one does. Ten thousand rules for as many addresses are found by address, as many for the ports of
//! one address by port, and a hundred addresses times a hundred ports leave a hundred to compare. Rules that no address
//! and port tells apart are compared one by one, as in every filter.

use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::rule::{AddressCondition, Rule, has_ports};
use super::{AddressSet, Packet};
use crate::PortSet;
use crate::prefix_index::{Prefix, PrefixIndex, address_bits, port_bits, port_prefixes};

/// Places of rules, rising.
type Places = SmallVec<[u32; 2]>;

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    by: [Dimension; 4],
    rest: Vec<u32>,
}

/// Rules by one part of a packet. Addresses of IPv6 have an index of their own.
#[derive(Clone, Debug, Default)]
struct Dimension {
    narrow: PrefixIndex<Places>,
    v6: PrefixIndex<Places>,
    /// The first of its rules.
    first: Option<u32>,
}

/// Under which key a condition is entered: is it of IPv6, and the prefix.
type Key = (bool, Prefix);

impl Index {
    /// An index of these rules, which name their places.
    pub(super) fn new<'a>(rules: impl Iterator<Item = (u32, &'a Rule)> + Clone) -> Self {
        let mut company: [(PrefixIndex<u32>, PrefixIndex<u32>); 4] = Default::default();
        for (_, rule) in rules.clone() {
            for (keys, (narrow, v6)) in conditions(rule).iter().zip(&mut company) {
                for &(is_v6, prefix) in keys.iter().flatten() {
                    *(if is_v6 { &mut *v6 } else { &mut *narrow }).entry(prefix) += 1;
                }
            }
        }
        let mut index = Self::default();
        for (place, rule) in rules {
            let conditions = conditions(rule);
            let best = conditions
                .iter()
                .zip(&company)
                .enumerate()
                .filter_map(|(number, (keys, (narrow, v6)))| {
                    let company = keys.as_ref()?.iter().map(|&(is_v6, prefix)| {
                        let counts = if is_v6 { v6 } else { narrow };
                        counts
                            .covering_prefix(prefix)
                            .map(|(_, &count)| count)
                            .sum::<u32>()
                    });
                    Some((company.max().unwrap_or(0), number))
                })
                .min();
            let Some((_, number)) = best else {
                index.rest.push(place);
                continue;
            };
            let dimension = &mut index.by[number];
            dimension.first.get_or_insert(place);
            for &(is_v6, prefix) in conditions[number].iter().flatten() {
                let part = if is_v6 {
                    &mut dimension.v6
                } else {
                    &mut dimension.narrow
                };
                part.entry(prefix).push(place);
            }
        }
        index
    }

    /// The first rule that the packet matches, as `matches` says. Without allocation.
    #[inline]
    pub(super) fn first_match(&self, packet: &Packet, matches: impl Fn(u32) -> bool) -> Option<u32> {
        let mut first = u32::MAX;
        let look = |places: &[u32], first: &mut u32| {
            let earlier = places.iter().copied().take_while(|&place| place < *first);
            for place in earlier {
                if matches(place) {
                    *first = place;
                    break;
                }
            }
        };
        look(&self.rest, &mut first);
        let [destinations, sources, destination_ports, source_ports] = &self.by;
        let (destination, source) = (packet.destination, packet.source);
        for (dimension, address) in [(destinations, destination.ip()), (sources, source.ip())] {
            if dimension.may_better(first) {
                dimension
                    .on_address(address)
                    .for_each(|places| look(places, &mut first));
            }
        }
        if has_ports(packet.protocol) {
            let ports = [
                (destination_ports, destination.port()),
                (source_ports, source.port()),
            ];
            for (dimension, port) in ports {
                if dimension.may_better(first) {
                    let lists = dimension.under(port_bits(port));
                    lists.for_each(|places| look(places, &mut first));
                }
            }
        }
        (first != u32::MAX).then_some(first)
    }
}

impl Dimension {
    /// Whether it has a rule before the one in place `first`.
    fn may_better(&self, first: u32) -> bool {
        self.first.is_some_and(|own| own < first)
    }

    fn on_address(&self, address: IpAddr) -> impl Iterator<Item = &[u32]> {
        let address = address.to_canonical();
        let part = if address.is_ipv6() { &self.v6 } else { &self.narrow };
        part.covering(address_bits(address).0)
            .map(|(_, places)| places.as_slice())
    }

    fn under(&self, bits: u128) -> impl Iterator<Item = &[u32]> {
        self.narrow.covering(bits).map(|(_, places)| places.as_slice())
    }
}

/// The keys of a rule's conditions on destination, source, destination port and source port; `None` where it has none
/// that helps to find it.
fn conditions(rule: &Rule) -> [Option<Vec<Key>>; 4] {
    [
        address_keys(rule.destinations.as_ref()),
        address_keys(rule.sources.as_ref()),
        port_keys(rule.destination_ports.as_ref()),
        port_keys(rule.source_ports.as_ref()),
    ]
}

fn address_keys(condition: Option<&AddressCondition>) -> Option<Vec<Key>> {
    // What is outside of a set is found under no prefix of it.
    let set: &AddressSet = condition
        .filter(|condition| !condition.negated)
        .map(|condition| &condition.set)?;
    let key = |prefix: IpNet| {
        let (bits, _) = address_bits(prefix.addr());
        (
            matches!(prefix, IpNet::V6(_)),
            Prefix::new(bits, prefix.prefix_len()),
        )
    };
    Some(set.prefixes().map(key).collect())
}

fn port_keys(ports: Option<&PortSet>) -> Option<Vec<Key>> {
    let ranges = ports?.ranges().iter();
    Some(
        ranges
            .flat_map(|&range| port_prefixes(range))
            .map(|prefix| (false, prefix))
            .collect(),
    )
}
