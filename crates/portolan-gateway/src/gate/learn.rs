use std::collections::BTreeMap;

use ipnet::IpNet;
use portolan_core::{HostName, Port, PortSet};

use super::Gate;
use super::ledger::Asked;
use super::policy::{Policy, RuleKind};
use super::target::{Target, TargetHost, TargetProtocol};

/// A policy that allows what was reached, and how much of that it leaves out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The policy; printed, it is a policy file.
    pub policy: Policy,
    /// How many flows were to destinations beyond [`Ledger::DESTINATIONS_MAX`](super::Ledger::DESTINATIONS_MAX), so
    /// that the policy closes them.
    pub left_out: u64,
}

impl Gate {
    /// A policy that allows exactly what the program has reached so far: by name what it looked up, by address the rest,
    /// each with its ports. If it reached nothing, nothing is allowed.
    #[must_use]
    pub fn learn(&self) -> Learned {
        let (allowed, left_out) = self.ledger().allowed();
        let given = self.policy();
        let mut policy = Policy {
            check_names: given.check_names || given.rules.iter().any(|rule| rule.kind == RuleKind::AllowName),
            deny_with: given.deny_with,
            ..Policy::default()
        };
        let mut ports: BTreeMap<(String, TargetKey), (TargetHost, PortSet)> = BTreeMap::new();
        for (line, _) in allowed {
            let (address, port, key) = match line.asked {
                Asked::Tcp(address, port) => (address, port, TargetKey::Tcp),
                Asked::Udp(address, port) => (address, port, TargetKey::Udp),
                Asked::Icmp(address) => (address, 0, TargetKey::Icmp),
                Asked::Dns => continue,
            };
            if self.gateway().contains(&address) {
                policy.allow_host = policy.allow_host.union(&Port::new(port).into());
                continue;
            }
            // No rule can name what is no host's name, and none opens an address of this host by a name.
            let name = line.name.filter(|_| !self.is_of_host(address));
            let name = name.and_then(|name| name.parse::<HostName>().ok());
            let host = name.map_or_else(|| TargetHost::Net(IpNet::from(address)), TargetHost::Name);
            let entry = ports.entry((host.to_string(), key));
            let (_, ports) = entry.or_insert_with(|| (host, PortSet::new()));
            *ports = ports.union(&Port::new(port).into());
        }
        for ((_, key), (host, ports)) in ports {
            let protocol = match key {
                TargetKey::Tcp => TargetProtocol::Tcp,
                TargetKey::Udp => TargetProtocol::Udp,
                TargetKey::Icmp => TargetProtocol::Icmp,
            };
            let mut target = Target::new(host, protocol);
            if key != TargetKey::Icmp {
                target.ports = ports;
            }
            policy.allow(target);
        }
        policy.no_out = policy.rules.is_empty();
        Learned { policy, left_out }
    }
}

/// Protocols in the order in which a policy lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TargetKey {
    Tcp,
    Udp,
    Icmp,
}
