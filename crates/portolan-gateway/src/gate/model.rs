//! The gate beside a slow model of it, which goes through the rules one by one; and what is learnt from it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 5] = ["a.example", "b.example", "x.a.example", "y.x.a.example", "c.test"];
const ADDRESSES: [&str; 14] = [
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.130",
    "198.51.100.7",
    "2001:db8::1",
    "2001:db8:1::1",
    "::ffff:192.0.2.1",
    "64:ff9b::192.0.2.2",
    "192.168.1.5",
    "10.7.0.1",
    "10.7.0.2",
    "127.0.0.1",
    "169.254.7.7",
    "fe80::7",
];
const HOSTS: [&str; 18] = [
    "*",
    "a.example",
    "b.example",
    "c.test",
    "*.a.example",
    "*.example",
    "*.test",
    "192.0.2.1",
    "192.0.2.0/24",
    "192.0.2.0/25",
    "198.51.100.0/24",
    "0.0.0.0/0",
    "[::/0]",
    "[2001:db8::/32]",
    "169.254.0.0/16",
    "[fe80::/10]",
    "127.0.0.0/8",
    "10.7.0.1",
];
const PORTS: [&str; 6] = ["", "", ":80", ":80-443", ":443", ":!80"];
const PROTOCOLS: [&str; 5] = ["", "/udp", "/icmp", "/both", "/any"];

fn facts() -> HostFacts {
    let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    HostFacts {
        gateway: ips(&["10.7.0.1"]),
        inside: ips(&["10.7.0.2"]),
        host_addresses: ips(&["192.168.1.5"]),
        ..HostFacts::default()
    }
}

fn targets() -> impl Strategy<Value = Target> {
    let parts = (0..HOSTS.len(), 0..PORTS.len(), 0..PROTOCOLS.len());
    parts.prop_map(|(host, ports, protocol)| {
        let protocol = PROTOCOLS[protocol];
        let ports = if protocol == "/icmp" { "" } else { PORTS[ports] };
        format!("{}{ports}{protocol}", HOSTS[host]).parse().unwrap()
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    let rules = proptest::collection::vec((any::<bool>(), targets()), 0..8);
    let flags = (proptest::bool::weighted(0.1), any::<bool>(), any::<bool>());
    (rules, flags).prop_map(|(rules, (no_out, no_host, allow_host))| {
        let mut policy = Policy {
            no_out,
            no_host,
            ..Policy::default()
        };
        if allow_host {
            policy.allow_host = "80".parse().unwrap();
        }
        for (allows, target) in rules {
            if allows {
                policy.allow(target)
            } else {
                policy.deny(target)
            }
        }
        policy
    })
}

/// Names with an address that was answered for them.
fn answers() -> impl Strategy<Value = Vec<(&'static str, IpAddr)>> {
    let pair = (0..NAMES.len(), 0..ADDRESSES.len());
    let pair = pair.prop_map(|(name, address)| (NAMES[name], ADDRESSES[address].parse().unwrap()));
    proptest::collection::vec(pair, 0..8)
}

/// Every flow there is in this world.
fn flows() -> impl Iterator<Item = (FlowProtocol, SocketAddr)> {
    let to = |address: &str, port| SocketAddr::new(address.parse().unwrap(), port);
    ADDRESSES.iter().flat_map(move |address| {
        let ports = [80, 443].into_iter();
        let with_ports = ports.flat_map(move |port| {
            [FlowProtocol::Tcp, FlowProtocol::Udp].map(|protocol| (protocol, to(address, port)))
        });
        with_ports.chain([(FlowProtocol::Icmp, to(address, 0))])
    })
}

/// What the gate should say, from the words of the documentation.
struct Model<'a> {
    policy: &'a Policy,
    /// Whether it allows, and what; the newest first.
    live: &'a [(bool, Target)],
    answers: &'a [(&'static str, IpAddr)],
}

impl Model<'_> {
    /// All rules in order of precedence.
    fn rules(&self) -> Vec<(bool, &Target)> {
        let live = self.live.iter().map(|(allows, target)| (*allows, target));
        let given = |allows: bool| {
            let rules = self.policy.rules.iter();
            let of_kind = rules.filter(move |rule| (rule.kind == RuleKind::Allow) == allows);
            of_kind.map(move |rule| (allows, &rule.target))
        };
        live.chain(given(false)).chain(given(true)).collect()
    }

    fn default_allows(&self) -> bool {
        self.policy.rules.iter().all(|rule| rule.kind == RuleKind::Deny)
    }

    /// Whether the target's ports and protocol are those of a flow.
    fn is_of_kind(target: &Target, protocol: FlowProtocol, port: u16) -> bool {
        let ports_fit = match protocol {
            FlowProtocol::Icmp => target.ports == portolan_core::PortSet::all(),
            FlowProtocol::Tcp | FlowProtocol::Udp => target.ports.iter().any(|own| own.get() == port),
        };
        let protocol_fits = match target.protocol {
            TargetProtocol::Any => true,
            TargetProtocol::Both => protocol != FlowProtocol::Icmp,
            TargetProtocol::Tcp => protocol == FlowProtocol::Tcp,
            TargetProtocol::Udp => protocol == FlowProtocol::Udp,
            TargetProtocol::Icmp => protocol == FlowProtocol::Icmp,
        };
        ports_fit && protocol_fits
    }

    fn names_host(target: &Target, name: &str) -> bool {
        match &target.host {
            TargetHost::Name(own) => own.as_str() == name,
            TargetHost::Below(own) => name.ends_with(&format!(".{own}")),
            TargetHost::Any | TargetHost::Net(_) => false,
        }
    }

    fn may_ask(&self, name: &str) -> bool {
        if self.policy.no_out {
            return false;
        }
        for (allows, target) in self.rules() {
            let is_meant = target.host == TargetHost::Any || Self::names_host(target, name);
            let closes = Self::is_of_kind(target, FlowProtocol::Tcp, 80)
                && target.ports == portolan_core::PortSet::all();
            if is_meant && (allows || closes) {
                return allows;
            }
        }
        self.default_allows()
    }

    /// Whether an address may be told for a name that may be asked.
    fn may_tell(&self, name: &str, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if AddressClass::of(address).is_some() {
            return false;
        }
        match address.to_string().as_str() {
            "10.7.0.1" | "10.7.0.2" => false,
            "192.168.1.5" => {
                let opens = |(allows, target): &(bool, &Target)| *allows && Self::names_host(target, name);
                let is_named = self.rules().iter().any(opens);
                !self.policy.no_host && !is_named
            }
            _ => true,
        }
    }

    fn first(
        &self,
        protocol: FlowProtocol,
        address: IpAddr,
        port: u16,
        by_name: bool,
    ) -> Option<(bool, &Target)> {
        let names: Vec<_> = self
            .answers
            .iter()
            .filter(|(_, own)| own.to_canonical() == address)
            .collect();
        self.rules().into_iter().find(|(_, target)| {
            let by_address = target.host.includes_address(address);
            let by_name = by_name && names.iter().any(|(name, _)| Self::names_host(target, name));
            Self::is_of_kind(target, protocol, port) && (by_address || by_name)
        })
    }

    fn allows(&self, protocol: FlowProtocol, destination: SocketAddr) -> bool {
        let (address, port) = (destination.ip().to_canonical(), destination.port());
        let first = self.first(protocol, address, port, true);
        if matches!(first, Some((false, _))) {
            return false;
        }
        let text = address.to_string();
        if text == "10.7.0.1" {
            return protocol != FlowProtocol::Icmp && port == 80 && !self.policy.allow_host.is_empty();
        }
        if self.policy.no_out || text == "10.7.0.2" || (self.policy.no_host && text == "192.168.1.5") {
            return false;
        }
        let closed = match text.as_str() {
            "127.0.0.1" => return false,
            "169.254.7.7" => Some("169.254.0.0/16"),
            "fe80::7" => Some("fe80::/10"),
            _ => None,
        };
        if let Some(class) = closed {
            // Only what denies and what means the class speaks of it.
            let speaks = |(allows, target): &(bool, &Target)| {
                let means_class = matches!(target.host, TargetHost::Net(net) if net.to_string() == class);
                let is_meant = if *allows {
                    means_class
                } else {
                    target.host.includes_address(address)
                };
                is_meant && Self::is_of_kind(target, protocol, port)
            };
            return self
                .rules()
                .into_iter()
                .find(speaks)
                .is_some_and(|(allows, _)| allows);
        }
        if text == "64:ff9b::c000:202" {
            let hidden = self.first(protocol, "192.0.2.2".parse().unwrap(), port, false);
            if matches!(hidden, Some((false, _))) {
                return false;
            }
        }
        first.map_or_else(|| self.default_allows(), |(allows, _)| allows)
    }
}

/// Looks names up as the forwarder does, and says what was told.
fn look_up(gate: &Gate, answers: &[(&'static str, IpAddr)]) -> Vec<(&'static str, IpAddr)> {
    let mut told = Vec::new();
    for &(name, address) in answers {
        let is_asked = matches!(gate.ask_name(name), NameVerdict::Allowed { .. });
        if is_asked && !gate.answered(name, &[(address, Duration::ZERO)]).is_empty() {
            told.push((name, address));
        }
    }
    told
}

proptest! {
    #[test]
    fn the_gate_says_what_the_model_says(
        policy in policies(),
        live in proptest::collection::vec((any::<bool>(), targets()), 0..4),
        answers in answers(),
    ) {
        let gate = Gate::new(policy.clone(), facts());
        let mut newest_first = Vec::new();
        for (allows, target) in live {
            if allows { gate.allow(target.clone()) } else { gate.deny(target.clone()) }
            // What is said again replaces what was said.
            newest_first.retain(|(_, other)| *other != target);
            newest_first.insert(0, (allows, target));
        }
        let model = Model { policy: &policy, live: &newest_first, answers: &[] };
        let told = look_up(&gate, &answers);
        for name in NAMES {
            let is_asked = matches!(gate.ask_name(name), NameVerdict::Allowed { .. });
            prop_assert_eq!(is_asked, model.may_ask(name), "{}", name);
        }
        let expected: Vec<_> = answers
            .iter()
            .copied()
            .filter(|(name, address)| model.may_ask(name) && model.may_tell(name, *address))
            .collect();
        prop_assert_eq!(&told, &expected);
        let model = Model { answers: &told, ..model };
        for (protocol, destination) in flows() {
            let asked = gate.ask(protocol, destination);
            prop_assert_eq!(asked.is_ok(), model.allows(protocol, destination), "{:?} {}", protocol, destination);
        }
    }

    #[test]
    fn a_policy_is_printed_and_read(policy in policies()) {
        prop_assert_eq!(policy.to_string().parse::<Policy>(), Ok(policy));
    }

    #[test]
    fn what_is_learnt_allows_exactly_what_was_reached(
        policy in policies(),
        answers in answers(),
        reached in proptest::collection::vec(any::<bool>(), 80),
    ) {
        let gate = Gate::new(policy, facts());
        let told = look_up(&gate, &answers);
        // What was reached: by name, if the address has one, or by address.
        let mut known = BTreeSet::new();
        for ((protocol, destination), _) in flows().zip(&reached).filter(|(_, reached)| **reached) {
            if let Ok(pass) = gate.ask(protocol, destination) {
                let address = destination.ip().to_canonical();
                let name = pass.name.filter(|_| address != facts().host_addresses[0]);
                let host = name.map_or_else(|| address.to_string(), |name| name.to_string());
                // Ports of the host are opened for both protocols.
                if facts().gateway.contains(&address) {
                    known.extend([FlowProtocol::Tcp, FlowProtocol::Udp].map(|both| (both, host.clone(), destination.port())));
                }
                known.insert((protocol, host, destination.port()));
            }
        }
        let learnt = gate.learn();
        prop_assert_eq!(learnt.left_out, 0);
        let again = Gate::new(learnt.policy.to_string().parse().unwrap(), facts());
        let told_again = look_up(&again, &told);
        for (protocol, destination) in flows() {
            let address = destination.ip().to_canonical();
            let names = told_again.iter().filter(|(_, own)| own.to_canonical() == address);
            let mut hosts = names.map(|(name, _)| (*name).to_owned()).chain([address.to_string()]);
            let was_reached = hosts.any(|host| known.contains(&(protocol, host, destination.port())));
            let may = again.ask(protocol, destination).is_ok();
            prop_assert_eq!(may, was_reached, "{:?} {}: {}", protocol, destination, learnt.policy);
        }
    }
}
