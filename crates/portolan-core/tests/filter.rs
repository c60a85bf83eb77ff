//! The filter against a plain walk over the rules, which shares no code with it.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portolan_core::filter::{
    Action, Chain, ConnectionState, ConnectionStates, Decision, Packet, Reject, Rule, RuleId, Verdict,
};
use portolan_core::table::Device;
use portolan_core::wire::{IpProtocol, UnreachableCode};
use portolan_core::{Port, PortRange, PortSet};
use proptest::prelude::*;

/// A rule as the walk sees it: lists, and nothing else.
#[derive(Clone, Debug)]
struct Plain {
    action: Action,
    protocol: Option<IpProtocol>,
    sources: Option<(Vec<IpNet>, bool)>,
    destinations: Option<(Vec<IpNet>, bool)>,
    source_ports: Option<Vec<(u16, u16)>>,
    destination_ports: Option<Vec<(u16, u16)>>,
    states: Vec<ConnectionState>,
    device: Option<u32>,
    opaque: bool,
}

impl Plain {
    fn rule(&self) -> Rule {
        let mut rule = Rule::new(self.action);
        if let Some(protocol) = self.protocol {
            rule = rule.protocol(protocol);
        }
        if let Some((prefixes, negated)) = &self.sources {
            let set = prefixes
                .iter()
                .copied()
                .collect::<portolan_core::filter::AddressSet>();
            rule = if *negated {
                rule.not_from(set)
            } else {
                rule.from(set)
            };
        }
        if let Some((prefixes, negated)) = &self.destinations {
            let set = prefixes
                .iter()
                .copied()
                .collect::<portolan_core::filter::AddressSet>();
            rule = if *negated { rule.not_to(set) } else { rule.to(set) };
        }
        let set = |ranges: &[(u16, u16)]| -> PortSet {
            ranges
                .iter()
                .map(|&(first, last)| PortRange::new(Port::new(first), Port::new(last)).unwrap())
                .collect()
        };
        if let Some(ranges) = &self.source_ports {
            rule = rule.from_ports(set(ranges));
        }
        if let Some(ranges) = &self.destination_ports {
            rule = rule.to_ports(set(ranges));
        }
        if !self.states.is_empty() {
            let states = self.states.iter().map(|&state| ConnectionStates::from(state));
            rule = rule.states(states.collect());
        }
        if let Some(device) = self.device {
            rule = rule.device(Device::new(device).unwrap());
        }
        if self.opaque {
            rule = rule.opaque("whatever");
        }
        rule
    }

    fn matches(&self, packet: &Packet) -> bool {
        let ported = matches!(packet.protocol, IpProtocol::TCP | IpProtocol::UDP);
        let at = |wanted: &Option<(Vec<IpNet>, bool)>, address: IpAddr| match wanted {
            None => true,
            Some((prefixes, negated)) => prefixes.iter().any(|prefix| prefix.contains(&address)) != *negated,
        };
        let on = |wanted: &Option<Vec<(u16, u16)>>, port: u16| match wanted {
            None => true,
            Some(ranges) => ported && ranges.iter().any(|&(first, last)| first <= port && port <= last),
        };
        (self.protocol.is_none() || self.protocol == Some(packet.protocol))
            && at(&self.sources, packet.source.ip())
            && at(&self.destinations, packet.destination.ip())
            && on(&self.source_ports, packet.source.port())
            && on(&self.destination_ports, packet.destination.port())
            && (self.states.is_empty() || self.states.contains(&packet.state))
            && (self.device.is_none() || self.device == packet.device.map(Device::get))
    }
}

/// The first that matches; those that cannot be judged are tried both ways.
fn walk(rules: &[Plain], policy: Action, packet: &Packet) -> Decision {
    let mut doubtful: Vec<(u32, Action)> = Vec::new();
    let mut decided = (policy, None);
    for (place, rule) in (0..).zip(rules) {
        if rule.matches(packet) {
            if rule.opaque {
                doubtful.push((place, rule.action));
            } else {
                decided = (rule.action, Some(RuleId::new(place)));
                break;
            }
        }
    }
    match doubtful.iter().find(|(_, action)| *action != decided.0) {
        Some(&(place, _)) => Decision {
            verdict: Verdict::Unknown,
            rule: Some(RuleId::new(place)),
        },
        None => Decision {
            verdict: decided.0.into(),
            rule: decided.1,
        },
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..16, 0u32..4).prop_map(|(net, host)| IpAddr::V4((0x0A00_0000 + net * 0x1_0000 + host).into())),
        any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        (0u16..4).prop_map(|last| IpAddr::from([0xFD00, 0, 0, 0, 0, 0, 0, last])),
    ]
}

fn prefixes() -> impl Strategy<Value = Option<(Vec<IpNet>, bool)>> {
    let prefix = (address(), 0u8..=32, any::<bool>()).prop_map(|(address, len, long)| {
        let len = match (address, long) {
            (IpAddr::V4(_), true) => 32,
            (IpAddr::V6(_), true) => 128,
            (_, false) => len,
        };
        IpNet::new(address, len).unwrap()
    });
    let set = (
        proptest::collection::vec(prefix, 0..4),
        proptest::bool::weighted(0.2),
    );
    proptest::option::of(set)
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0u16..12, Just(443), any::<u16>()]
}

fn ports() -> impl Strategy<Value = Option<Vec<(u16, u16)>>> {
    let range = (port(), port()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let single = port().prop_map(|port| (port, port));
    proptest::option::of(proptest::collection::vec(prop_oneof![range, single], 0..4))
}

fn protocol() -> impl Strategy<Value = IpProtocol> {
    prop_oneof![
        Just(IpProtocol::TCP),
        Just(IpProtocol::UDP),
        Just(IpProtocol::ICMP)
    ]
}

fn state() -> impl Strategy<Value = ConnectionState> {
    prop_oneof![
        Just(ConnectionState::New),
        Just(ConnectionState::Established),
        Just(ConnectionState::Related),
        Just(ConnectionState::Invalid),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Accept),
        Just(Action::Drop),
        Just(Action::Reject(Reject::Reset)),
        Just(Action::Reject(Reject::Unreachable(UnreachableCode::Prohibited))),
    ]
}

fn rule() -> impl Strategy<Value = Plain> {
    (
        (
            action(),
            proptest::option::of(protocol()),
            prefixes(),
            prefixes(),
            ports(),
            ports(),
        ),
        proptest::collection::vec(state(), 0..3),
        proptest::option::weighted(0.1, 1u32..3),
        proptest::bool::weighted(0.1),
    )
        .prop_map(
            |(
                (action, protocol, sources, destinations, source_ports, destination_ports),
                states,
                device,
                opaque,
            )| {
                Plain {
                    action,
                    protocol,
                    sources,
                    destinations,
                    source_ports,
                    destination_ports,
                    states,
                    device,
                    opaque,
                }
            },
        )
}

fn packet() -> impl Strategy<Value = Packet> {
    let end = || (address(), port()).prop_map(|(address, port)| SocketAddr::new(address, port));
    (protocol(), end(), end(), state(), proptest::option::of(1u32..3)).prop_map(
        |(protocol, source, destination, state, device)| Packet {
            protocol,
            source,
            destination,
            state,
            device: device.and_then(Device::new),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_is_that_of_a_walk_over_the_rules(
        rules in proptest::collection::vec(rule(), 0..60),
        policy in action(),
        packets in proptest::collection::vec(packet(), 60),
    ) {
        let chain = Chain::new(rules.iter().map(Plain::rule), policy);
        prop_assert_eq!(chain.rules().len(), rules.len());
        for packet in &packets {
            prop_assert_eq!(chain.decide(packet), walk(&rules, policy, packet), "{:?}", packet);
        }
    }
}

#[test]
fn ten_thousand_rules_of_each_shape_keep_their_order() {
    let host = |number: u32| IpAddr::V4((0x0A00_0000 + number).into());
    let shapes: [&dyn Fn(u32) -> Rule; 4] = [
        &|number| Rule::new(Action::Accept).to(host(number / 2)),
        &|number| {
            Rule::new(Action::Accept)
                .to_ports(PortSet::from(PortRange::single(Port::new((number / 2) as u16))))
        },
        &|number| {
            Rule::new(Action::Accept)
                .to(host(number % 100))
                .to_ports(PortSet::from(PortRange::single(Port::new((number / 100) as u16))))
        },
        &|number| Rule::new(Action::Accept).from(host(number)).to(host(0)),
    ];
    for (shape, rule) in shapes.iter().enumerate() {
        let chain = Chain::new((0..10_000).map(rule), Action::Drop);
        for number in (0..10_000).step_by(37) {
            let (source, destination, expected) = match shape {
                0 => ((0, 9), (number, 1), (number < 5000).then_some(number * 2)),
                1 => ((0, 9), (0, number as u16), (number < 5000).then_some(number * 2)),
                2 => ((0, 9), (number % 100, (number / 100) as u16), Some(number)),
                _ => ((number, 9), (0, 1), Some(number)),
            };
            let end = |(address, port)| SocketAddr::new(host(address), port);
            let decision = chain.decide(&Packet::new(IpProtocol::TCP, end(source), end(destination)));
            assert_eq!(decision.rule, expected.map(RuleId::new), "{shape} {number}");
        }
    }
}

#[test]
fn what_cannot_be_judged_is_unknown_only_where_it_matters() {
    let packet = |port| {
        let to = SocketAddr::from(([10, 0, 0, 1], port));
        Packet::new(IpProtocol::TCP, SocketAddr::from(([10, 0, 0, 2], 9)), to)
    };
    let ports = |text: &str| text.parse::<PortSet>().unwrap();
    let chain = Chain::new(
        [
            Rule::new(Action::Accept).to_ports(ports("22")),
            Rule::new(Action::Drop)
                .to_ports(ports("20-90"))
                .opaque("a program of the kernel decides"),
            Rule::new(Action::Accept).to_ports(ports("80")),
        ],
        Action::Drop,
    );
    for (port, verdict, rule) in [
        (22, Verdict::Accept, Some(0)),
        (80, Verdict::Unknown, Some(1)),
        // Dropped either way.
        (81, Verdict::Drop, None),
        (443, Verdict::Drop, None),
    ] {
        let rule = rule.map(RuleId::new);
        assert_eq!(chain.decide(&packet(port)), Decision { verdict, rule }, "{port}");
    }
    let because = chain.rules()[1].opaque_reason();
    assert_eq!(because, Some("a program of the kernel decides"));
}
