//! The rules of a policy, ready to be asked.
//!
//! ```text
//!   destination ──▶ chain: rules by address and port ─┐
//!   its names ────▶ rules by name ────────────────────┼▶ the first in order of precedence ─▶ Verdict
//!                                            default ─┘
//! ```
//! Order of precedence: what was said to the running gateway, the newest first; what denies; what allows.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use portolan_core::Protocol;
use portolan_core::filter::{Action, AddressSet, Chain, Packet, Rule as ChainRule};
use portolan_core::wire::IpProtocol;

use super::policy::{Policy, Rule, RuleKind};
use super::rate::Limiter;
use super::special::AddressClass;
use super::target::{TargetHost, TargetProtocol};
use crate::flows::FlowProtocol;

/// A rule with what it has left.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) rule: Rule,
    /// The rule as text: of an allowed flow, who allowed it.
    pub(super) text: Arc<str>,
    /// Of a denied one, why.
    pub(super) denial: Arc<str>,
    pub(super) limiter: Option<Arc<Limiter>>,
    /// The class that the target lies in as a whole, and opens or closes by name.
    class: Option<AddressClass>,
}

impl Entry {
    pub(super) fn new(rule: Rule, now: Instant) -> Self {
        let text: Arc<str> = rule.target.to_string().into();
        let class = match &rule.target.host {
            TargetHost::Net(net) => {
                // Of a prefix that reaches beyond the class, an end lies outside.
                let [first, last] = [net.network(), net.broadcast()].map(AddressClass::of);
                first.filter(|_| first == last)
            }
            TargetHost::Any | TargetHost::Name(_) | TargetHost::Below(_) => None,
        };
        Self {
            denial: format!("the rule: {rule}").into(),
            limiter: Limiter::new(rule.target.limits, now).map(Arc::new),
            text,
            rule,
            class,
        }
    }

    pub(super) fn allows(&self) -> bool {
        match self.rule.kind {
            RuleKind::Allow | RuleKind::AllowName => true,
            RuleKind::Deny => false,
        }
    }
}

/// See the [module](self). It does not change; a change is a new one that shares the entries.
#[derive(Debug)]
pub(super) struct Rules {
    /// In order of precedence.
    entries: Vec<Arc<Entry>>,
    /// How many of them were said to the running gateway.
    live: usize,
    chain: Chain,
    /// Which entry a rule of the chain is of.
    chain_entries: Vec<u32>,
    /// The entries that name exactly this name, and those that name what is below; rising.
    exact: HashMap<Box<str>, Vec<u32>>,
    below: HashMap<Box<str>, Vec<u32>>,
    /// The entries for every name.
    any: Vec<u32>,
    default_allows: bool,
}

/// Which entry decides, and by which of the names.
#[derive(Clone, Debug)]
pub(super) struct Match<'a> {
    pub(super) entry: &'a Arc<Entry>,
    pub(super) name: Option<Arc<str>>,
}

impl Rules {
    pub(super) fn new(policy: &Policy, now: Instant) -> Self {
        let of = |allows: bool| {
            let rules = policy.rules.iter();
            rules.filter(move |rule| (rule.kind != RuleKind::Deny) == allows)
        };
        let ordered = of(false).chain(of(true)).cloned();
        let entries = ordered.map(|rule| Arc::new(Entry::new(rule, now))).collect();
        Self::compile(entries, 0, !policy.denies_by_default())
    }

    /// The same rules and one before them.
    pub(super) fn with(&self, rule: Rule, now: Instant) -> Self {
        let newest = Arc::new(Entry::new(rule, now));
        // What is said again replaces what was said before, so that the number of rules is bounded by that of targets.
        let says_the_same = |entry: &Entry| entry.rule.target == newest.rule.target;
        let (live, given) = self.entries.split_at(self.live);
        let live: Vec<_> = live
            .iter()
            .filter(|entry| !says_the_same(entry))
            .cloned()
            .collect();
        let count = live.len() + 1;
        let entries = std::iter::once(newest).chain(live).chain(given.iter().cloned());
        Self::compile(entries.collect(), count, self.default_allows)
    }

    fn compile(entries: Vec<Arc<Entry>>, live: usize, default_allows: bool) -> Self {
        let (mut chain, mut chain_entries) = (Vec::new(), Vec::new());
        let mut exact: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        let mut below: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        let mut any = Vec::new();
        for (place, entry) in (0u32..).zip(&entries) {
            let host = &entry.rule.target.host;
            match host {
                TargetHost::Any => any.push(place),
                TargetHost::Name(name) => exact.entry(name.as_str().into()).or_default().push(place),
                TargetHost::Below(name) => below.entry(name.as_str().into()).or_default().push(place),
                TargetHost::Net(_) => {}
            }
            let rules = chain_rules(entry);
            chain_entries.resize(chain_entries.len() + rules.len(), place);
            chain.extend(rules);
        }
        let policy = if default_allows {
            Action::Accept
        } else {
            Action::Drop
        };
        Self {
            chain: Chain::new(chain, policy),
            entries,
            live,
            chain_entries,
            exact,
            below,
            any,
            default_allows,
        }
    }

    /// Whether what no rule matches is allowed.
    pub(super) const fn default_allows(&self) -> bool {
        self.default_allows
    }

    /// The first rule for a flow to a canonical destination, which is known by these names.
    pub(super) fn first(
        &self,
        protocol: FlowProtocol,
        destination: SocketAddr,
        names: &[Arc<str>],
    ) -> Option<Match<'_>> {
        let unspecified = SocketAddr::new(destination.ip(), 0);
        let packet = Packet::new(ip_protocol(protocol), unspecified, destination);
        let decision = self.chain.decide(&packet);
        let by_address = decision.rule.map(|rule| self.chain_entries[rule.place()]);
        let mut first = by_address.unwrap_or(u32::MAX);
        let mut by_name = None;
        for name in names {
            let places = self.places_of_name(name).filter(|&place| {
                let target = &self.entries[place as usize].rule.target;
                target.includes_port(protocol, destination.port())
            });
            if let Some(place) = places.min()
                && place < first
            {
                first = place;
                by_name = Some(name.clone());
            }
        }
        let entry = self.entries.get(first as usize)?;
        Some(Match { entry, name: by_name })
    }

    /// The first rule that speaks of a name and all its ports, or allows any of them. `name` is in lower case.
    pub(super) fn first_of_name(&self, name: &str) -> Option<&Arc<Entry>> {
        let places = self.places_of_name(name).chain(self.any.iter().copied());
        let telling = places.filter(|&place| {
            let entry = &self.entries[place as usize];
            let target = &entry.rule.target;
            entry.allows() || (target.has_all_ports() && target.protocol.includes(FlowProtocol::Tcp))
        });
        telling.min().map(|place| &self.entries[place as usize])
    }

    /// Whether a rule allows anything by this name, and not by the address.
    pub(super) fn allows_by_name(&self, name: &str) -> bool {
        let mut places = self.places_of_name(name);
        places.any(|place| self.entries[place as usize].allows())
    }

    /// The first rule that opens or closes an address of a class by name.
    pub(super) fn opener(&self, protocol: FlowProtocol, destination: SocketAddr) -> Option<&Arc<Entry>> {
        let class = AddressClass::of(destination.ip()).filter(|class| class.can_be_opened())?;
        let mut entries = self.entries.iter();
        entries.find(|entry| {
            let target = &entry.rule.target;
            (!entry.allows() || entry.class == Some(class))
                && target.host.includes_address(destination.ip())
                && target.includes_port(protocol, destination.port())
        })
    }

    fn places_of_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = u32> + 'a {
        // A label may hold any byte, dots too; such names are written with backslashes, and no rule names them.
        let name = if name.contains('\\') { "" } else { name };
        let parents = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
        let below = parents.filter_map(|parent| self.below.get(parent));
        self.exact.get(name).into_iter().chain(below).flatten().copied()
    }
}

/// An entry as rules of the filter, which know one protocol each; none if it is about names alone.
fn chain_rules(entry: &Entry) -> Vec<ChainRule> {
    let target = &entry.rule.target;
    let addresses: Option<AddressSet> = match &target.host {
        TargetHost::Any => None,
        TargetHost::Net(net) => Some([*net].into()),
        TargetHost::Name(_) | TargetHost::Below(_) => return Vec::new(),
    };
    let action = if entry.allows() {
        Action::Accept
    } else {
        Action::Drop
    };
    let rule = || match &addresses {
        None => ChainRule::new(action),
        Some(addresses) => ChainRule::new(action).to(addresses.clone()),
    };
    let with_ports = |protocol: Protocol| {
        let rule = rule().protocol(protocol);
        if target.has_all_ports() {
            rule
        } else {
            rule.to_ports(target.ports.clone())
        }
    };
    match target.protocol {
        TargetProtocol::Any if target.has_all_ports() => vec![rule()],
        TargetProtocol::Both | TargetProtocol::Any => {
            vec![with_ports(Protocol::Tcp), with_ports(Protocol::Udp)]
        }
        TargetProtocol::Tcp => vec![with_ports(Protocol::Tcp)],
        TargetProtocol::Udp => vec![with_ports(Protocol::Udp)],
        TargetProtocol::Icmp => vec![rule().protocol(IpProtocol::ICMP)],
    }
}

/// What stands for a protocol in the chain. Echo of either family is that of IPv4 there: the address tells them apart.
fn ip_protocol(protocol: FlowProtocol) -> IpProtocol {
    match protocol {
        FlowProtocol::Tcp => Protocol::Tcp.into(),
        FlowProtocol::Udp => Protocol::Udp.into(),
        FlowProtocol::Icmp => IpProtocol::ICMP,
    }
}
