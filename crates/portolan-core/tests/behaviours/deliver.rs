//! Rows A5, A6, E and F: who gets a segment or a datagram.

use serde_json::json;

use crate::host::Host;
use crate::kernel;

const FROM: &str = "10.8.0.2:5555";

#[test]
fn a4_a5_a6_port_zero_is_a_number() {
    let mut host = Host::new();
    let udp = host.socket("udp4");
    assert_eq!(host.connect(udp, "127.0.0.1", 0), "OK");
    let syn = host.deliver("tcp", FROM, "10.8.0.1:0", "tun0");
    let datagram = host.deliver("udp", FROM, "10.8.0.1:0", "tun0");
    assert_eq!(
        (&syn["reply"], &datagram["reply"]),
        (&json!("rst"), &json!("icmp-port-unreachable"))
    );
    assert!(kernel("A5").starts_with("RA ") && kernel("A5").contains("icmp type=3 code=3"));
    let socket = host.bound("udp4", "0.0.0.0", 2000);
    let listener = host.listener("tcp4", "0.0.0.0", 2000);
    assert_eq!(
        host.who("udp", "10.8.0.2:0", "10.8.0.1:2000", &[("u", socket)]),
        "u"
    );
    assert_eq!(
        host.who("tcp", "10.8.0.2:0", "10.8.0.1:2000", &[("t", listener)]),
        "t"
    );
}

/// Two listeners, made in both orders; who gets a SYN in each.
fn both_orders(one: (&'static str, &str, &str), two: (&'static str, &str, &str), to: &str) -> String {
    let mut answers = Vec::new();
    for order in [[one, two], [two, one]] {
        let mut host = Host::new();
        let names = order.map(|(name, words, address)| (name, host.listener(words, address, 2000)));
        answers.push(host.who("tcp", FROM, to, &names));
    }
    answers.join(" ")
}

const TO: &str = "10.8.0.1:2000";

#[test]
fn e1_e2_e3_e4_e5_which_listener() {
    let specific = ("specific", "tcp4 P", "10.8.0.1");
    let wild = ("wildcard", "tcp4 P", "0.0.0.0");
    assert!(both_orders(specific, wild, TO).starts_with(kernel("E1")));
    let device = ("device", "tcp4 P dev:tun0", "0.0.0.0");
    assert_eq!(both_orders(specific, device, TO), kernel("E2"));
    for address in ["0.0.0.0", "10.8.0.1"] {
        let device = ("dev", "tcp4 P dev:tun0", address);
        let plain = ("plain", "tcp4 P", address);
        assert!(kernel("E3").starts_with(&both_orders(device, plain, TO)));
    }
    let four = ("v4", "tcp4 P", "0.0.0.0");
    let dual = ("dual", "tcp6 P", "::");
    let dual_device = ("dual", "tcp6 P dev:tun0", "::");
    let answers = [both_orders(four, dual, TO), both_orders(four, dual_device, TO)];
    assert_eq!(answers.join(" "), kernel("E4"));
    let mapped = ("mapped", "tcp6 P", "::ffff:10.8.0.1");
    let specific = ("v4", "tcp4 P", "10.8.0.1");
    let answers = [both_orders(mapped, four, TO), both_orders(mapped, specific, TO)];
    assert!(answers[0].starts_with("mapped") && answers[1] == "v4 v4");
    assert_eq!(kernel("E5"), "mapped v4");
}

/// Listeners that coexist by being on two devices, from one of which the binding is then removed.
fn device_removed(one: (&'static str, &str, &str), two: (&'static str, &str, &str), remove: &str) -> String {
    let mut answers = Vec::new();
    for order in [[one, two], [two, one]] {
        let mut host = Host::new();
        let names = order.map(|(name, words, address)| (name, host.listener(words, address, 2000)));
        for (name, id) in names {
            if remove.contains(name) {
                assert_eq!(host.set(id, "device", json!("")), "OK");
            }
        }
        answers.push(host.who("tcp", FROM, TO, &names));
    }
    answers.join(" ")
}

#[test]
fn e3b_e4b_scores_without_groups() {
    let device = ("dev", "tcp4 dev:tun0", "0.0.0.0");
    let plain = ("plain", "tcp4 dev:tun1", "0.0.0.0");
    assert_eq!(device_removed(device, plain, "plain"), kernel("E3b"));
    let four = ("v4", "tcp4 dev:tun0", "0.0.0.0");
    let dual = ("dual", "tcp6 dev:tun1", "::");
    let first = device_removed(four, dual, "v4 dual");
    let four = ("v4", "tcp4 dev:tun1", "0.0.0.0");
    let dual = ("dual", "tcp6 dev:tun0", "::");
    // A tie goes to the newest: the second of each order.
    let second = device_removed(four, dual, "v4");
    let expected: Vec<_> = kernel("E4b").split(' ').collect();
    assert_eq!(first, expected[..2].join(" "));
    assert_eq!(second, expected[2..].join(" "));
}

#[test]
fn e6_e27_dual_stack_and_bound_only() {
    let mut host = Host::new();
    let dual = host.listener("tcp6", "::", 2000);
    assert_eq!(host.who("tcp", FROM, TO, &[("dual", dual)]), "dual");
    host.listener("tcp6 only", "::", 2001);
    let refused = host.deliver("tcp", FROM, "10.8.0.1:2001", "tun0");
    assert_eq!(refused["reply"], "rst");
    assert!(kernel("E6").ends_with("RA seq=0 ack=1 win=0"));
    host.bound("tcp4", "0.0.0.0", 2002);
    assert_eq!(host.deliver("tcp", FROM, "10.8.0.1:2002", "tun0")["reply"], "rst");
    assert!(kernel("E27").starts_with("RA"));
}

#[test]
fn e7_e8_groups_of_listeners() {
    let mut host = Host::new();
    let words = ["tcp4 P", "tcp4 P", "tcp4 A P", "tcp4 P"];
    let names: Vec<_> = ["a", "b", "c", "d"]
        .into_iter()
        .zip(words)
        .map(|(name, words)| (name, host.listener(words, "0.0.0.0", 2000)))
        .collect();
    let mut shares = std::collections::BTreeMap::new();
    for port in 20_000..20_200 {
        let from = format!("10.8.0.2:{port}");
        let who = host.who("tcp", &from, TO, &names);
        assert_eq!(host.who("tcp", &from, TO, &names), who);
        *shares.entry(who).or_insert(0) += 1;
    }
    assert!(
        shares.len() == 4 && shares.values().all(|&share| share >= 25),
        "{shares:?}"
    );
    assert!(kernel("E7").starts_with("all used: True"));
    let specific = host.listener("tcp4 P", "10.8.0.1", 2000);
    let all = [&names[..], &[("s", specific)]].concat();
    assert_eq!(host.spread("tcp", "10.8.0.2", TO, &all), "s");
    assert_eq!(kernel("E8"), "50 of 50");
}

#[test]
fn e10_e11_flows_beat_listeners_and_keep_to_their_device() {
    let mut host = Host::new();
    let plain = host.listener("tcp4", "0.0.0.0", 2000);
    let device = host.listener("tcp4 dev:tun0", "0.0.0.0", 2001);
    for (listener, new, port) in [(plain, 100, 2000), (device, 101, 2001)] {
        let answer = host.ask(json!({"op": "accept", "id": listener, "new": new, "source": FROM,
            "destination": format!("10.8.0.1:{port}"), "device": "tun0"}));
        assert_eq!(answer, json!({"ok": true}));
        host.close(listener);
    }
    let names = [("plain", 100), ("device", 101)];
    assert_eq!(host.who("tcp", FROM, TO, &names), "plain");
    assert_eq!(host.who_on("tun1", "tcp", FROM, TO, &names), "plain");
    assert_eq!(host.who("tcp", FROM, "10.8.0.1:2001", &names), "device");
    let answer = host.deliver("tcp", FROM, "10.8.0.1:2001", "tun1");
    assert_eq!(answer["reply"], "rst");
    assert_eq!(kernel("E11"), "none, answer R; delivered, answer A");
    assert_eq!(kernel("E10"), "b'hi'");
}

#[test]
fn e17_tcp_is_between_two_hosts() {
    let mut host = Host::new();
    host.listener("tcp4", "0.0.0.0", 2000);
    let answers = [
        (FROM, "10.8.0.255:2000"),
        (FROM, "224.0.0.1:2000"),
        ("255.255.255.255:5", TO),
    ]
    .map(|(from, to)| {
        let answer = host.deliver("tcp", from, to, "tun0");
        if answer["reply"].is_null() {
            "nothing"
        } else {
            "something"
        }
    });
    assert_eq!(answers.join(" | "), kernel("E17"));
}

#[test]
fn f1_the_last_bound_wins() {
    let mut host = Host::new();
    let names = ["1", "2", "3"].map(|name| (name, host.bound("udp4 A", "10.8.0.1", 2000)));
    let first = host.who("udp", FROM, TO, &names);
    host.close(names[2].1);
    let second = host.who("udp", FROM, TO, &names);
    assert_eq!(format!("{first}; after closing 3: {second}"), kernel("F1"));
}

#[test]
fn f2_f3_which_udp_socket() {
    let mut answers = Vec::new();
    let mut host = Host::new();
    let conn = host.bound("udp4 A", "10.8.0.1", 2000);
    host.connect(conn, "10.8.0.2", 5555);
    let names = [("conn", conn), ("unconn", host.bound("udp4 A", "10.8.0.1", 2000))];
    answers.push(host.who("udp", FROM, TO, &names));
    answers.push(host.who("udp", "10.8.0.2:5556", TO, &names));
    for pair in [
        [("spec", "udp4 A", "10.8.0.1"), ("wild", "udp4 A", "0.0.0.0")],
        [
            ("spec", "udp4 A", "10.8.0.1"),
            ("wild+dev", "udp4 A dev:tun0", "0.0.0.0"),
        ],
        [
            ("wild", "udp4 A", "0.0.0.0"),
            ("wild+dev", "udp4 A dev:tun0", "0.0.0.0"),
        ],
    ] {
        let mut host = Host::new();
        let names = pair.map(|(name, words, address)| (name, host.bound(words, address, 2000)));
        answers.push(host.who("udp", FROM, TO, &names));
    }
    assert_eq!(answers.join(" "), kernel("F2"));

    let mut answers = Vec::new();
    let four = ("v4", "udp4 A", "0.0.0.0");
    let dual = ("dual", "udp6 A", "::");
    let device = ("dual+dev", "udp6 A dev:tun0", "::");
    for pair in [[four, dual], [dual, four], [four, device]] {
        let mut host = Host::new();
        let names = pair.map(|(name, words, address)| (name, host.bound(words, address, 2000)));
        answers.push(host.who("udp", FROM, TO, &names));
    }
    assert_eq!(answers, ["v4", "v4", "dual+dev"]);
    let mut host = Host::new();
    host.bound("udp6 only", "::", 2000);
    let nobody = host.deliver("udp", FROM, TO, "tun0");
    assert_eq!(nobody["reply"], "icmp-port-unreachable");
    assert!(kernel("F3").ends_with("dual+dev none icmp type=3 code=3"));
}

#[test]
fn f4_groups_of_udp_sockets() {
    let mut host = Host::new();
    let names = ["a", "b", "c", "d"].map(|name| (name, host.bound("udp4 P", "0.0.0.0", 2000)));
    let mut shares = std::collections::BTreeMap::new();
    for port in 20_000..20_200 {
        let who = host.who("udp", &format!("10.8.0.2:{port}"), TO, &names);
        *shares.entry(who).or_insert(0) += 1;
    }
    assert!(
        shares.len() == 4 && shares.values().all(|&share| share >= 25),
        "{shares:?}"
    );
    let dual = host.bound("udp6 P", "::", 2000);
    let all = [&names[..], &[("dual", dual)]].concat();
    assert_eq!(host.spread("udp", "10.8.0.2", TO, &all), "a+b+c+d");
    assert_eq!(
        kernel("F4"),
        "each >= 25: True; stable True; v4 datagrams go to v4"
    );
}

/// Members bound (`a`), connected (`ac`), disconnected (`ad`), closed (`ax`), in this order; who gets the
/// datagrams of strangers, and who those of the peer.
fn spread(steps: &str, words: &str, local: &str, many: u8) -> String {
    let mut host = Host::new();
    let mut names: Vec<(&str, u64)> = Vec::new();
    let (peer, from, to) = if words.starts_with("udp6") {
        ("fd08::2", "[fd08::2]", "[fd08::1]:2000")
    } else {
        ("10.8.0.2", "10.8.0.2", TO)
    };
    for last in 0..many {
        host.bound("udp4 P", &format!("127.0.0.{}", last + 2), 2000);
    }
    let mut is_connected = std::collections::BTreeSet::new();
    for step in steps.split(' ') {
        let (name, act) = step.split_at(1);
        let id = names.iter().find(|(known, _)| *known == name).map(|(_, id)| *id);
        match act {
            "" => names.push((name, host.bound(words, local, 2000))),
            "c" => {
                assert_eq!(host.connect(id.unwrap(), peer, 777), "OK");
                is_connected.insert(name);
            }
            "d" => {
                assert_eq!(host.disconnect(id.unwrap()), "OK");
                is_connected.remove(name);
            }
            _ => {
                host.close(id.unwrap());
                names.retain(|(known, _)| *known != name);
                is_connected.remove(name);
            }
        }
    }
    let strangers = host.spread("udp", from, to, &names);
    if is_connected.is_empty() {
        return strangers;
    }
    let own = host.who("udp", &format!("{from}:777"), to, &names);
    format!("{strangers}>{own}")
}

const STEPS: [&str; 10] = [
    "a b c",
    "a ac b c",
    "a b c ac",
    "a b ac c",
    "a b bc c",
    "a b bc c d",
    "a b ac ad c",
    "a ac ad b c",
    "a b ac ax c",
    "a b ac bc",
];

#[test]
fn f5_groups_with_connected_members() {
    let all = |words, local, many| STEPS.map(|steps| spread(steps, words, local, many)).join(" ");
    assert_eq!(all("udp4 P", "10.8.0.1", 0), kernel("F5b"));
    assert_eq!(all("udp6 P only", "fd08::1", 0), kernel("F5c"));
    let wild = [all("udp4 P", "0.0.0.0", 0), all("udp6 P only", "::", 0)];
    assert_eq!(wild.join("; "), kernel("F5d"));
    assert_eq!(all("udp4 P", "10.8.0.1", 14), kernel("F5e"));
    assert_eq!(kernel("F5"), "conn; others: b+c");
}

#[test]
fn f5f_the_slot_of_a_connected_member_goes_to_its_neighbour() {
    let mut tenths = Vec::new();
    for steps in ["a ac b c", "a b c ac"] {
        let mut host = Host::new();
        let mut ids = std::collections::BTreeMap::new();
        for step in steps.split(' ') {
            let name = &step[..1];
            if step.len() == 1 {
                ids.insert(name, host.bound("udp4 P", "10.8.0.1", 2000));
            } else {
                assert_eq!(host.connect(ids[name], "10.8.0.2", 777), "OK");
            }
        }
        let names: Vec<_> = ids.into_iter().collect();
        let share = (20_000..21_000)
            .filter(|port| host.who("udp", &format!("10.8.0.2:{port}"), TO, &names) == "b")
            .count();
        tenths.push(((share + 50) / 100).to_string());
    }
    // One of three slots goes to the neighbour: two thirds, against a half of two slots.
    assert_eq!(tenths.join(" "), kernel("F5f"));
}

#[test]
fn f5g_groups_and_devices() {
    let mut answers = Vec::new();
    for (words, address) in [
        ("udp4 P", "10.8.0.1"),
        ("udp4 P", "0.0.0.0"),
        ("udp6 P only", "fd08::1"),
        ("udp6 P only", "::"),
    ] {
        let device = format!("{words} dev:tun0");
        for order in [
            [("dev", &*device), ("plain", words)],
            [("plain", words), ("dev", &*device)],
        ] {
            let mut host = Host::new();
            let names = order.map(|(name, words)| (name, host.bound(words, address, 2000)));
            let (from, to) = if words.starts_with("udp6") {
                ("[fd08::2]:5", "[fd08::1]:2000")
            } else {
                (FROM, TO)
            };
            answers.push(host.who("udp", from, to, &names));
        }
    }
    assert_eq!(answers.join(" "), kernel("F5g"));
}

#[test]
fn f6_f7_f8_f16_broadcast_multicast_nobody_and_devices() {
    let mut host = Host::new();
    let conn = host.bound("udp4 A", "0.0.0.0", 2000);
    host.connect(conn, "10.8.0.2", 999);
    let names = [
        ("w1", host.bound("udp4 A", "0.0.0.0", 2000)),
        ("w2", host.bound("udp4 A", "0.0.0.0", 2000)),
        ("bc", host.bound("udp4 A", "10.8.0.255", 2000)),
        ("spec", host.bound("udp4 A", "10.8.0.1", 2000)),
        ("conn", conn),
    ];
    let first = host.who("udp", FROM, "10.8.0.255:2000", &names);
    let group = ["rp1", "rp2"].map(|name| (name, host.bound("udp4 P", "0.0.0.0", 2001)));
    let second = host.who("udp", FROM, "10.8.0.255:2001", &group);
    assert_eq!(format!("{first}; {second}"), kernel("F6"));

    let mut host = Host::new();
    let names = [
        ("joined", host.bound("udp4 A", "0.0.0.0", 2000)),
        ("notjoined", host.bound("udp4 A", "0.0.0.0", 2000)),
        ("notall", host.bound("udp4 A", "0.0.0.0", 2000)),
        ("boundgroup", host.bound("udp4 A", "239.1.1.1", 2000)),
    ];
    assert_eq!(host.set(names[2].1, "multicast_all", json!(false)), "OK");
    let nobody = host.who("udp", FROM, "239.1.1.1:2000", &names);
    let join = json!({"op": "join", "id": names[0].1, "group": "239.1.1.1", "device": "tun0"});
    assert_eq!(host.word(join), "OK");
    let some = host.who("udp", FROM, "239.1.1.1:2000", &names);
    assert_eq!(
        format!("{some}; nobody joined: {nobody}, wire nothing"),
        kernel("F7")
    );

    let mut host = Host::new();
    let replies = ["10.8.0.1:9", "10.8.0.255:9", "224.0.0.1:9"]
        .map(|to| host.deliver("udp", FROM, to, "tun0")["reply"].clone());
    assert_eq!(
        replies,
        [json!("icmp-port-unreachable"), json!(null), json!(null)]
    );
    assert!(kernel("F8").starts_with("icmp type=3 code=3"));
    let device = host.bound("udp4 dev:tun0", "0.0.0.0", 2000);
    assert_eq!(host.who_on("tun0", "udp", FROM, TO, &[("d", device)]), "d");
    let other = host.deliver("udp", FROM, TO, "tun1");
    assert_eq!(other["reply"], "icmp-port-unreachable");
    assert!(kernel("F16").starts_with("none, icmp type=3 code=3"));
}
