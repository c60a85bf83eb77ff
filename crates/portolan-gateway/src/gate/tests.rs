use super::*;

fn facts() -> HostFacts {
    let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    HostFacts {
        gateway: ips(&["10.7.0.1", "fd07::1"]),
        inside: ips(&["10.7.0.2", "fd07::2"]),
        host_addresses: ips(&["192.168.1.5", "2001:db8:5::5"]),
        ..HostFacts::default()
    }
}

fn gate(change: impl FnOnce(&mut Policy)) -> Gate {
    let mut policy = Policy::default();
    change(&mut policy);
    Gate::new(policy, facts())
}

fn target(text: &str) -> Target {
    text.parse().unwrap()
}

/// The reason of a denial, or where it is dialled.
fn ask(gate: &Gate, protocol: FlowProtocol, destination: &str) -> Result<String, String> {
    match gate.ask(protocol, destination.parse().unwrap()) {
        Ok(pass) => Ok(pass.dial.to_string()),
        Err(denial) => Err(denial.reason.to_string()),
    }
}

fn tcp(gate: &Gate, destination: &str) -> bool {
    ask(gate, FlowProtocol::Tcp, destination).is_ok()
}

#[test]
fn by_default_the_world_is_open_and_this_host_is_not() {
    let gate = gate(|_| {});
    for open in [
        "192.0.2.1:80",
        "10.0.0.1:22",
        "[2001:db8::1]:443",
        "192.168.1.5:8080",
        "[2001:db8:5::5]:1",
        "[::ffff:192.0.2.1]:80",
    ] {
        for protocol in [FlowProtocol::Tcp, FlowProtocol::Udp, FlowProtocol::Icmp] {
            assert!(ask(&gate, protocol, open).is_ok(), "{open}");
        }
    }
    for closed in [
        "127.0.0.1:80",
        "[::1]:80",
        "169.254.169.254:80",
        "169.254.1.1:80",
        "[fe80::1]:80",
        "[fd00:ec2::254]:80",
        "[::ffff:127.0.0.1]:80",
        "[2002:7f00:1::]:80",
        "[64:ff9b::169.254.169.254]:80",
        "224.0.0.251:5353",
        "[ff02::fb]:5353",
        "255.255.255.255:67",
        "0.0.0.0:80",
        "[::]:80",
        "10.7.0.1:80",
        "[fd07::1]:53",
        "10.7.0.2:80",
        "[64:ff9b::10.7.0.1]:80",
    ] {
        for protocol in [FlowProtocol::Tcp, FlowProtocol::Udp, FlowProtocol::Icmp] {
            assert!(ask(&gate, protocol, closed).is_err(), "{closed}");
        }
    }
}

#[test]
fn the_gateway_leads_to_loopback_on_the_ports_of_allow_host_alone() {
    let gate = gate(|policy| policy.allow_host = "5432".parse().unwrap());
    let ask = |destination| ask(&gate, FlowProtocol::Tcp, destination);
    assert_eq!(ask("10.7.0.1:5432").unwrap(), "127.0.0.1:5432");
    assert_eq!(ask("[fd07::1]:5432").unwrap(), "[::1]:5432");
    assert!(ask("10.7.0.1:5433").is_err());
    assert!(ask("127.0.0.1:5432").is_err());
}

#[test]
fn no_host_closes_the_addresses_of_the_host_in_every_spelling() {
    let gate = gate(|policy| policy.no_host = true);
    assert!(!tcp(&gate, "192.168.1.5:80"));
    assert!(!tcp(&gate, "[2001:db8:5::5]:80"));
    assert!(!tcp(&gate, "[64:ff9b::192.168.1.5]:80"));
    assert!(tcp(&gate, "192.168.1.6:80"));
    gate.set_host_addresses(&["192.168.1.6".parse().unwrap()]);
    assert!(tcp(&gate, "192.168.1.5:80"));
    assert!(!tcp(&gate, "192.168.1.6:80"));
}

#[test]
fn a_rule_that_allows_closes_the_rest() {
    let gate = gate(|policy| policy.allow(target("10.0.0.0/8:5432")));
    assert!(tcp(&gate, "10.1.2.3:5432"));
    assert!(!tcp(&gate, "10.1.2.3:5433"));
    assert!(!tcp(&gate, "11.1.2.3:5432"));
    assert_eq!(
        ask(&gate, FlowProtocol::Udp, "10.1.2.3:5432").unwrap_err(),
        "no rule allows it"
    );
}

fn pinned(gate: &Gate, name: &str, addresses: &[&str]) {
    let pairs: Vec<_> = addresses
        .iter()
        .map(|address| (address.parse().unwrap(), Duration::from_secs(60)))
        .collect();
    assert_eq!(gate.answered(name, &pairs).len(), addresses.len());
}

fn may_be_asked(gate: &Gate, name: &str) -> bool {
    matches!(gate.ask_name(name), NameVerdict::Allowed { .. })
}

#[test]
fn a_deny_alone_keeps_the_rest_open_and_wins_over_allow() {
    let deny = gate(|policy| policy.deny(target("10.0.0.0/8:22")));
    assert!(!tcp(&deny, "10.1.2.3:22"));
    assert!(!tcp(&deny, "[::ffff:10.1.2.3]:22"));
    assert!(!tcp(&deny, "[64:ff9b::10.1.2.3]:22"));
    assert!(tcp(&deny, "10.1.2.3:23"));
    assert!(tcp(&deny, "192.0.2.1:22"));
    assert_eq!(
        ask(&deny, FlowProtocol::Tcp, "10.1.2.3:22").unwrap_err(),
        "the rule: deny 10.0.0.0/8:22"
    );
    let both = gate(|policy| {
        policy.allow(target("10.0.0.0/8"));
        policy.deny(target("10.1.0.0/16"));
    });
    assert!(tcp(&both, "10.2.0.1:80"));
    assert!(!tcp(&both, "10.1.0.1:80"));
}

#[test]
fn under_names_alone_an_address_is_open_only_as_the_answer_to_one() {
    let gate = gate(|policy| {
        policy.allow(target("example.org:443"));
        policy.allow(target("*.example.net:443/both"));
    });
    assert!(!tcp(&gate, "192.0.2.1:443"));
    for (name, may) in [
        ("example.org", true),
        ("EXAMPLE.ORG.", true),
        ("www.example.org", false),
        ("example.net", false),
        ("a.b.example.net", true),
        ("xexample.net", false),
        ("x\\.example.net", false),
        ("", false),
    ] {
        assert_eq!(may_be_asked(&gate, name), may, "{name}");
    }
    pinned(&gate, "example.org", &["192.0.2.1", "2001:db8::1"]);
    pinned(&gate, "a.example.net", &["192.0.2.2"]);
    assert!(
        tcp(&gate, "192.0.2.1:443")
            && tcp(&gate, "[2001:db8::1]:443")
            && tcp(&gate, "[::ffff:192.0.2.1]:443")
    );
    assert!(!tcp(&gate, "192.0.2.1:80"));
    assert!(ask(&gate, FlowProtocol::Udp, "192.0.2.1:443").is_err());
    assert!(ask(&gate, FlowProtocol::Udp, "192.0.2.2:443").is_ok());
    // Another resolver is another address.
    assert!(ask(&gate, FlowProtocol::Udp, "192.0.2.53:53").is_err());
    let pass = gate
        .ask(FlowProtocol::Tcp, "192.0.2.1:443".parse().unwrap())
        .unwrap();
    assert_eq!(
        (&*pass.rule, pass.name.as_deref()),
        ("example.org:443", Some("example.org"))
    );
}

#[test]
fn an_answer_opens_nothing_of_this_host() {
    let closed = [
        "127.0.0.1",
        "::1",
        "169.254.169.254",
        "fd00:ec2::254",
        "192.168.1.5",
        "10.7.0.1",
        "10.7.0.2",
        "64:ff9b::192.168.1.5",
        "::ffff:127.0.0.1",
        "224.0.0.1",
        "0.0.0.0",
    ];
    let by_name = gate(|policy| policy.allow(target("a.example")));
    for address in closed {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(
            by_name.answered("a.example", &[(address, Duration::ZERO)]),
            Vec::<IpAddr>::new(),
            "{address}"
        );
        assert!(
            by_name
                .ask(FlowProtocol::Tcp, SocketAddr::new(address, 80))
                .is_err()
        );
    }
    // By default the outer addresses of the host are open, by name as without.
    let open = gate(|_| {});
    pinned(&open, "me.example", &["192.168.1.5"]);
    let lines = by_name.ledger().denied_lines().join("\n");
    assert!(
        lines.contains("look-up of a.example (it resolves to ::1: loopback)"),
        "{lines}"
    );
    assert!(
        lines.contains("look-up of a.example (it resolves to 192.168.1.5: this host)"),
        "{lines}"
    );
}

#[test]
fn a_star_is_every_address_and_every_name() {
    let gate = gate(|policy| policy.allow(target("*:443")));
    assert!(may_be_asked(&gate, "a.example"));
    assert!(tcp(&gate, "192.0.2.1:443"));
    assert!(!tcp(&gate, "192.0.2.1:80"));
    assert!(!tcp(&gate, "127.0.0.1:443"));
    assert!(!tcp(&gate, "169.254.169.254:443"));
}

#[test]
fn link_local_and_metadata_open_to_a_rule_that_names_them_and_loopback_to_none() {
    let gate = gate(|policy| {
        policy.allow(target("169.254.0.0/16:80"));
        policy.allow(target("169.254.169.254:80"));
        policy.allow(target("127.0.0.1:80"));
        policy.allow(target("0.0.0.0/0:81"));
    });
    assert!(tcp(&gate, "169.254.1.1:80"));
    assert!(tcp(&gate, "169.254.169.254:80"));
    assert!(!tcp(&gate, "169.254.1.1:81"));
    assert!(!tcp(&gate, "127.0.0.1:80"));
    // The prefix alone means the link, and not what clouds put there.
    let link = gate_of("allow 169.254.0.0/16");
    assert!(tcp(&link, "169.254.1.1:80"));
    assert!(!tcp(&link, "169.254.169.254:80"));
}

fn gate_of(text: &str) -> Gate {
    Gate::new(text.parse().unwrap(), facts())
}

#[test]
fn a_name_that_is_denied_is_not_looked_up() {
    let gate = gate_of("deny *.evil.example/any\ndeny ads.example:443");
    assert!(!may_be_asked(&gate, "a.evil.example"));
    assert!(may_be_asked(&gate, "evil.example"));
    // It is closed on one port alone.
    assert!(may_be_asked(&gate, "ads.example"));
    pinned(&gate, "ads.example", &["192.0.2.7"]);
    assert!(!tcp(&gate, "192.0.2.7:443"));
    assert!(tcp(&gate, "192.0.2.7:80"));
}

#[test]
fn no_out_leaves_allow_host() {
    let gate = gate_of("no-out\nallow-host 5432\nallow 192.0.2.1");
    assert!(!tcp(&gate, "192.0.2.1:80"));
    assert!(!may_be_asked(&gate, "a.example"));
    assert!(tcp(&gate, "10.7.0.1:5432"));
}

#[test]
fn what_is_said_later_counts_first() {
    let gate = gate_of("allow a.example:443\ndeny 192.0.2.0/24");
    assert!(!tcp(&gate, "192.0.2.1:80"));
    gate.allow(target("192.0.2.1:80"));
    assert!(tcp(&gate, "192.0.2.1:80"));
    gate.deny(target("192.0.2.0/24:80"));
    assert!(!tcp(&gate, "192.0.2.1:80"));
    gate.allow(target("192.0.2.1:80"));
    assert!(tcp(&gate, "192.0.2.1:80"));
    assert!(!tcp(&gate, "192.0.2.2:80"));
    gate.allow(target("b.example"));
    assert!(may_be_asked(&gate, "b.example"));
    gate.deny(target("b.example"));
    assert!(!may_be_asked(&gate, "b.example"));
    // What is open stays open to the rest.
    let open = gate_of("");
    open.allow(target("192.0.2.1:80"));
    assert!(tcp(&open, "192.0.2.2:80"));
}

#[test]
fn a_rule_with_a_rate_lets_so_many_flows_through() {
    let gate = gate_of("allow 192.0.2.1:80@3/h\nallow 192.0.2.2");
    let passed = (0..10).filter(|_| tcp(&gate, "192.0.2.1:80")).count();
    assert_eq!(passed, 3);
    assert!(tcp(&gate, "192.0.2.2:80"));
    let reason = ask(&gate, FlowProtocol::Tcp, "192.0.2.1:80").unwrap_err();
    assert_eq!(reason, "more flows than 192.0.2.1:80@3/h allows");
    // It is one rule still, whatever else is said.
    gate.allow(target("192.0.2.3"));
    assert!(!tcp(&gate, "192.0.2.1:80"));
}

#[test]
fn a_connection_shows_the_name_that_it_was_allowed_for() {
    for text in [
        "allow-name *.example.org:443",
        "check-names\nallow *.example.org:443\nallow 192.0.2.9:22",
    ] {
        let gate = gate_of(text);
        pinned(&gate, "a.example.org", &["192.0.2.1"]);
        assert_eq!(
            gate.ask_name("a.example.org"),
            NameVerdict::Allowed {
                rule: "*.example.org:443".into(),
                wants_name: true,
            }
        );
        let pass = gate
            .ask(FlowProtocol::Tcp, "192.0.2.1:443".parse().unwrap())
            .unwrap();
        assert!(pass.wants_name);
        assert_eq!(gate.check_name(&pass, "A.example.org"), Ok(()));
        assert_eq!(gate.check_name(&pass, "b.example.org"), Ok(()));
        let denial = gate.check_name(&pass, "fronted.example.com").unwrap_err();
        assert_eq!((&*denial.reason, denial.first), ("no rule allows it", true));
        assert!(!gate.check_name(&pass, "fronted.example.com").unwrap_err().first);
        assert!(gate.no_name(&pass).first);
        assert_eq!(
            gate.ledger().denied_lines(),
            [
                "denied: 1 connection to 192.0.2.1:443 (a.example.org: the connection shows no name)",
                "denied: 2 connections to 192.0.2.1:443 (fronted.example.com: no rule allows it)",
            ]
        );
    }
    let gate = gate_of("check-names\nallow 192.0.2.9:22");
    let pass = gate
        .ask(FlowProtocol::Tcp, "192.0.2.9:22".parse().unwrap())
        .unwrap();
    assert!(!pass.wants_name);
}

#[test]
fn the_first_denial_of_a_destination_is_told() {
    let gate = gate_of("allow 192.0.2.1");
    let (tell, told) = std::sync::mpsc::channel();
    gate.on_first_denial(move |line| tell.send(line.to_string()).unwrap());
    for _ in 0..3 {
        assert!(!tcp(&gate, "203.0.113.9:25"));
        assert!(!may_be_asked(&gate, "evil.example"));
    }
    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(
        told,
        [
            "connection to 203.0.113.9:25 (no rule allows it)",
            "look-up of evil.example (no rule allows it)"
        ]
    );
    assert_eq!(
        gate.ledger().denied_lines()[0],
        "denied: 3 connections to 203.0.113.9:25 (no rule allows it)"
    );
}

#[test]
fn what_was_reached_is_learnt() {
    let gate = gate_of("allow-host 1-9999");
    pinned(&gate, "a.example", &["192.0.2.1"]);
    pinned(&gate, "me.example", &["192.168.1.5"]);
    for destination in [
        "192.0.2.1:443",
        "192.0.2.1:80",
        "192.0.2.2:22",
        "[2001:db8::1]:1",
        "10.7.0.1:5432",
        "192.168.1.5:8",
    ] {
        assert!(tcp(&gate, destination));
    }
    assert!(ask(&gate, FlowProtocol::Icmp, "192.0.2.3:0").is_ok());
    assert!(ask(&gate, FlowProtocol::Udp, "192.0.2.3:53").is_ok());
    assert!(!tcp(&gate, "127.0.0.1:1"));
    let learned = gate.learn();
    assert_eq!(learned.left_out, 0);
    assert_eq!(
        learned.policy.to_string(),
        "allow-host 5432\nallow 192.0.2.2:22\nallow 192.0.2.3:53/udp\nallow 192.0.2.3/icmp\nallow 192.168.1.5:8\n\
        allow [2001:db8::1]:1\nallow a.example:80,443\n"
    );
    assert_eq!(gate_of("").learn().policy.to_string(), "no-out\n");
}
