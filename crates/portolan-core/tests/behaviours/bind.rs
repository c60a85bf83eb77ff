//! Rows A, B, D and G: the number space, bind, privileges, release.

use serde_json::json;

use crate::host::Host;
use crate::kernel;

fn join(answers: impl IntoIterator<Item = String>) -> String {
    answers.into_iter().collect::<Vec<_>>().join(" ")
}

#[test]
fn a1_tcp_and_udp_have_spaces_of_their_own() {
    let mut host = Host::new();
    host.bound("tcp4", "10.9.0.1", 2000);
    assert_eq!(host.try_bind("udp4", "10.9.0.1", 2000), kernel("A1"));
}

#[test]
fn a7_listen_binds_an_unbound_socket() {
    let mut host = Host::new();
    let id = host.socket("tcp4");
    let answer = host.ask(json!({"op": "listen", "id": id}));
    let inside = (32_768..=60_999).contains(&answer["port"].as_u64().unwrap());
    let expected = kernel("A7");
    assert!(inside && expected.ends_with("True") && expected.starts_with("0.0.0.0"));
}

#[test]
fn b2_b4_wrong_families_and_second_binds() {
    let mut host = Host::new();
    // The first of the row's four is AF_UNSPEC, which only the system call has; the third is this one.
    assert_eq!(
        host.try_bind("tcp4", "::", 0),
        kernel("B2").split(' ').nth(2).unwrap()
    );
    let mut answers = Vec::new();
    for words in ["tcp4", "udp4"] {
        let id = host.bound(words, "127.0.0.1", 2000);
        answers.push(host.bind(id, "127.0.0.1", 2001));
        answers.push(host.bind(id, "127.0.0.1", 0));
    }
    let connected = host.socket("udp4");
    assert_eq!(host.connect(connected, "127.0.0.1", 9), "OK");
    answers.push(host.bind(connected, "127.0.0.1", 2002));
    let listener = host.socket("tcp4");
    assert_eq!(host.listen(listener), "OK");
    answers.push(host.bind(listener, "127.0.0.1", 2003));
    assert_eq!(join(answers), kernel("B4"));
}

#[test]
fn b5_b6_b7_which_addresses_may_be_bound() {
    let mut host = Host::new();
    let plain: Vec<_> = kernel("B5").split(' ').collect();
    assert_eq!(host.try_bind("tcp4", "1.2.3.4", 2000), plain[0]);
    assert_eq!(host.try_bind("udp4", "1.2.3.4", 2000), plain[4]);
    let six: Vec<_> = kernel("B6").split(' ').collect();
    assert_eq!(host.try_bind("tcp6", "2001:db8::9", 2000), six[0]);
    assert_eq!(host.try_bind("tcp6", "::ffff:1.2.3.4", 2000), six[4]);
    let addresses = [
        "224.0.0.1",
        "10.9.0.255",
        "255.255.255.255",
        "127.9.9.9",
        "10.9.0.0",
        "240.0.0.1",
    ];
    let answers = ["tcp4", "udp4"]
        .into_iter()
        .flat_map(|words| addresses.map(|address| (words, address)));
    let answers: Vec<_> = answers
        .map(|(words, address)| host.try_bind(words, address, 2001))
        .collect();
    assert_eq!(join(answers), kernel("B7"));
}

#[test]
fn b7b_a_tcp_socket_on_a_multicast_address_listens_and_connects() {
    let mut host = Host::new();
    let mut answers = Vec::new();
    for address in ["224.0.0.1", "255.255.255.255"] {
        let id = host.bound("tcp4", address, 2000);
        answers.push(host.listen(id));
        let id = host.bound("tcp4", address, 2001);
        answers.push(host.word(
            json!({"op": "connect", "id": id, "address": "10.9.0.100", "port": 9,
            "source": "10.9.0.1", "outcome": "refused"}),
        ));
    }
    assert_eq!(join(answers), kernel("B7b"));
}

#[test]
fn b8_b9_ipv6_addresses() {
    let mut host = Host::new();
    let expected: Vec<_> = kernel("B8").split(';').next().unwrap().split(' ').collect();
    assert_eq!(host.try_bind("tcp6", "ff02::1", 2000), expected[0]);
    assert_eq!(host.try_bind("udp6", "ff02::1", 2000), expected[1]);
    assert_eq!(host.try_bind("udp6 dev:v0", "ff02::1", 2000), expected[2]);
    assert_eq!(host.try_bind("tcp6", "fe80::1", 2000), expected[3]);
    assert_eq!(host.try_bind("tcp6 dev:v0", "fe80::1", 2000), expected[4]);
    let only = host.try_bind("tcp6 only", "::ffff:10.9.0.1", 2001);
    let bound = host.bound("tcp6", "::", 2002);
    let late = host.set(bound, "v6_only", json!(true));
    let connecting = host.socket("tcp6 only");
    let connect = host.connect(connecting, "::ffff:10.9.0.100", 9);
    assert_eq!(join([only, late, connect]), kernel("B9"));
}

#[test]
fn b10_b11_the_order_of_checks_and_devices() {
    let mut host = Host::new();
    host.bound("tcp4", "0.0.0.0", 2000);
    let bound = host.bound("tcp4 uid5", "127.0.0.1", 2001);
    let answers = [
        host.try_bind("tcp4 uid5", "1.2.3.4", 80),
        host.bind(bound, "127.0.0.1", 80),
        host.bind(bound, "127.0.0.1", 2000),
        host.try_bind("tcp4 uid5", "1.2.3.4", 2000),
    ];
    assert_eq!(join(answers), kernel("B10"));
    let id = host.socket("tcp4 uid5");
    let answers = ["nope0", "v0", "d1"].map(|device| host.set(id, "device", json!(device)));
    assert_eq!(join(answers), kernel("B11"));
}

#[test]
fn b12_a_bind_without_a_port() {
    let mut host = Host::with_range(33_001, 33_001);
    let late = host.socket("tcp4 late");
    let answer = host.ask(json!({"op": "bind", "id": late, "address": "10.9.0.1", "port": 0}));
    let listening = host.ask(json!({"op": "listen", "id": late}));
    let chosen = if listening["port"] == 0 { "False" } else { "True" };
    let mut answers = vec![answer["port"].to_string(), chosen.to_owned()];
    host.close(late);
    let two: Vec<_> = (0..2).map(|_| host.bound("tcp4 late", "10.9.0.1", 0)).collect();
    answers.push(host.connect(two[0], "10.9.0.100", 7000));
    answers.push(host.connect(two[1], "10.9.0.100", 7001));
    two.into_iter().for_each(|id| host.close(id));
    host.bound("tcp4", "10.9.0.1", 0);
    answers.push(host.try_bind("tcp4", "10.9.0.1", 0));
    answers.push(host.try_bind("tcp4", "10.9.0.2", 0));
    assert_eq!(join(answers), kernel("B12"));
}

/// Options that change after bind count as they are now; only TCP remembers SO_REUSEPORT.
fn toggles(words: &str) -> String {
    let mut host = Host::new();
    let mut answers = Vec::new();
    for (port, option, before) in [
        (2000, "reuse_address", false),
        (2001, "reuse_address", true),
        (2002, "reuse_port", true),
        (2003, "reuse_port", false),
    ] {
        let letter = if option == "reuse_port" { "P" } else { "A" };
        let first = if before {
            format!("{words} {letter}")
        } else {
            words.to_owned()
        };
        let id = host.bound(&first, "10.9.0.1", port);
        host.set(id, option, json!(!before));
        answers.push(host.try_bind(&format!("{words} {letter}"), "10.9.0.1", port));
    }
    join(answers)
}

#[test]
fn b13_options_that_change_after_bind() {
    assert_eq!(toggles("tcp4"), kernel("B13"));
    // The row tries SO_REUSEPORT without and with a uid; the first four of its seven words suffice.
    let expected: Vec<_> = kernel("B13u").split(' ').collect();
    let mut host = Host::new();
    let late = host.bound("udp4", "10.9.0.1", 2000);
    host.set(late, "reuse_address", json!(true));
    assert_eq!(host.try_bind("udp4 A", "10.9.0.1", 2000), "OK");
    let cleared = host.bound("udp4 P", "10.9.0.1", 2001);
    host.set(cleared, "reuse_port", json!(false));
    assert_eq!(host.try_bind("udp4 P", "10.9.0.1", 2001), "EADDRINUSE");
    assert!(expected.contains(&"EADDRINUSE") && expected.last() == Some(&"OK"));
    let set = host.bound("udp4", "10.9.0.1", 2002);
    host.set(set, "reuse_port", json!(true));
    assert_eq!(host.try_bind("udp4 P", "10.9.0.1", 2002), "OK");
}

#[test]
fn b14_b15_three_sockets_are_pairs() {
    let mut host = Host::new();
    host.bound("tcp4 A", "10.9.0.1", 2000);
    host.bound("tcp4 A", "10.9.0.1", 2000);
    let answers = [
        host.try_bind("tcp4", "10.9.0.2", 2000),
        host.try_bind("tcp4", "0.0.0.0", 2000),
    ];
    assert_eq!(join(answers), kernel("B14"));
    host.bound("tcp4", "10.9.0.2", 2001);
    host.bound("tcp4 A", "10.9.0.1", 2001);
    assert_eq!(host.try_bind("tcp4 A", "10.9.0.1", 2001), kernel("B15"));
}

#[test]
fn b16_a_native_flow_of_a_dual_stack_socket_blocks_the_ipv4_wildcard() {
    let mut host = Host::new();
    let mut flow = |words, address, port| {
        let id = host.bound(words, address, port);
        assert_eq!(host.connect(id, "fd09::100", 7000), "OK");
        ["0.0.0.0", "127.0.0.6", "127.0.0.1"].map(|address| host.try_bind("tcp4", address, port))
    };
    let [wild, shadow, loopback] = flow("tcp6", "::", 2000);
    let [only, ..] = flow("tcp6 only", "::", 2001);
    let [specific, ..] = flow("tcp6", "fd09::1", 2002);
    let answer = format!("{wild} 127.0.0.6:{shadow} 127.0.0.1:{loopback} {only} {specific}");
    assert_eq!(answer, kernel("B16"));
}

#[test]
fn b17_c1_parity_keeps_bind_and_connect_apart() {
    let mut host = Host::new();
    let ports: Vec<_> = (0..60)
        .map(|_| host.automatic("tcp4", "10.9.0.1").unwrap())
        .collect();
    assert!(ports.iter().all(|port| port % 2 == 1) && kernel("B17").starts_with("all odd"));
    let ports: Vec<_> = (0..60)
        .map(|_| host.automatic("udp4", "10.9.0.1").unwrap())
        .collect();
    assert!(ports.iter().any(|port| port % 2 == 0) && ports.iter().any(|port| port % 2 == 1));
    for (low, parity) in [(32_768, 0), (32_769, 1)] {
        let mut host = Host::with_range(low, 60_998);
        for _ in 0..60 {
            let id = host.socket("tcp4");
            let answer = host.connect_answer(id, "10.9.0.100", 7000);
            assert_eq!(answer["port"].as_u64().unwrap() % 2, parity);
        }
    }
    assert_eq!(kernel("C1"), "all even; all odd");
}

#[test]
fn b18_b19_b20_exhaustion_reserved_ports_and_own_ranges() {
    let mut host = Host::with_range(33_010, 33_013);
    let mut fill = |words: &str, address| {
        let count = (0..9).map_while(|_| host.automatic(words, address)).count();
        (count, host.try_bind(words, address, 0))
    };
    let (count, error) = fill("tcp4", "10.9.0.1");
    let (other, _) = fill("tcp4", "10.9.0.2");
    let (udp, udp_error) = fill("udp4", "10.9.0.1");
    assert_eq!((count, other, udp), (4, 4, 4));
    assert!(kernel("B18").starts_with(&format!("{count} {error}; other addr OK")));
    assert!(kernel("B18").contains(&format!("udp {udp} {udp_error}")));
    let id = host.socket("udp4");
    assert!(kernel("B18").ends_with(&host.connect(id, "10.9.0.100", 7)));

    let mut host = Host::configured(33_020, 33_021, 1024, &[33_020]);
    assert_eq!(host.try_bind("tcp4", "10.9.0.1", 33_020), "OK");
    let [first, second] = [host.socket("tcp4"), host.socket("tcp4")];
    let got = host.connect_answer(first, "10.9.0.100", 7000)["port"].to_string();
    let next = host.connect(second, "10.9.0.100", 7000);
    assert_eq!(format!("OK; connect got {got}, next {next}"), kernel("B19"));

    let mut host = Host::new();
    let id = host.socket("tcp4");
    let set = host.set(id, "port_range", json!([40_500, 40_501]));
    let answer = host.ask(json!({"op": "bind", "id": id, "address": "10.9.0.1", "port": 0}));
    let inside = matches!(answer["port"].as_u64(), Some(40_500 | 40_501));
    let id = host.socket("tcp4");
    host.set(id, "port_range", json!([40_500, 40_501]));
    let outside = host.bind(id, "10.9.0.1", 2000);
    let inside = if inside { "True" } else { "False" };
    assert_eq!(format!("{set} {inside} {outside}"), kernel("B20"));
}

#[test]
fn b21_listen() {
    let mut host = Host::new();
    let udp = host.socket("udp4");
    let connected = host.socket("tcp4");
    host.connect(connected, "10.9.0.100", 7000);
    let listener = host.listener("tcp4", "10.9.0.1", 2000);
    let answers = [host.listen(udp), host.listen(connected), host.listen(listener)];
    assert_eq!(join(answers), kernel("B21"));
}

#[test]
fn b21b_shutdown_of_a_listener() {
    let mut host = Host::new();
    let mut answers = Vec::new();
    for explicit in [true, false] {
        let id = host.socket("tcp4");
        if explicit {
            assert_eq!(host.bind(id, "0.0.0.0", 2000), "OK");
        }
        let port = host.ask(json!({"op": "listen", "id": id}))["port"]
            .as_u64()
            .unwrap();
        assert_eq!(
            host.word(json!({"op": "shutdown", "id": id, "how": "read"})),
            "OK"
        );
        let other = host.socket("tcp4");
        answers.push(host.bind(other, "0.0.0.0", u16::try_from(port).unwrap()));
        let reply = host.deliver("tcp", "10.8.0.2:5", &format!("10.8.0.1:{port}"), "tun0");
        assert_eq!(reply["reply"], "rst");
        answers.push("RA".to_owned());
        let again = host.ask(json!({"op": "listen", "id": id}));
        answers.push(again["error"].as_str().unwrap_or("OK").to_owned());
        answers.push(if again["port"] == port {
            "same".to_owned()
        } else {
            "new port".to_owned()
        });
    }
    assert_eq!(join(answers), kernel("B21b"));
}

#[test]
fn b23_a_specific_ipv6_address_leaves_ipv4_alone() {
    let mut host = Host::new();
    host.bound("tcp6", "fd09::1", 2000);
    let one = host.try_bind("tcp4", "0.0.0.0", 2000);
    host.bound("tcp4", "0.0.0.0", 2001);
    let two = host.try_bind("tcp6", "fd09::1", 2001);
    assert!(kernel("B23").starts_with(&format!("{one} {two};")));
}

#[test]
fn b24_b25_both_options_and_users() {
    let mut host = Host::new();
    let mut answers = Vec::new();
    for (group, thirds) in [("P", ["A", "-"]), ("A P", ["A", "P"])] {
        for protocol in ["tcp", "udp"] {
            for third in thirds {
                let port = 2000 + u16::try_from(answers.len()).unwrap();
                for _ in 0..2 {
                    host.bound(&format!("{protocol}4 {group}"), "10.9.0.1", port);
                }
                let answer = host.try_bind(&format!("{protocol}4 {third}"), "10.9.0.1", port);
                answers.push(format!("{protocol} {answer}"));
            }
        }
    }
    assert_eq!(answers.join(", "), kernel("B24"));
    host.bound("tcp4 P", "10.9.0.1", 2100);
    let other = host.try_bind("tcp4 P uid5", "10.9.0.1", 2100);
    let same = host.try_bind("tcp4 P", "10.9.0.1", 2100);
    assert_eq!(join([other, same]), kernel("B25"));
}

#[test]
fn b26_the_mapped_wildcard_is_narrowed_for_good() {
    let mut host = Host::new();
    let mut answers = Vec::new();
    for (port, words, end) in [
        (2000, "tcp", "refused"),
        (2001, "tcp", "taken"),
        (2002, "tcp", "disconnected"),
        (2003, "udp", "disconnected"),
    ] {
        if end == "taken" {
            let holder = host.bound("tcp4 A", "10.9.0.1", port);
            host.connect(holder, "10.9.0.100", 7000);
        }
        let words6 = if end == "taken" {
            format!("{words}6 A")
        } else {
            format!("{words}6")
        };
        let id = host.bound(&words6, "::ffff:0.0.0.0", port);
        let mut line = json!({"op": "connect", "id": id, "address": "::ffff:10.9.0.100", "port": 7000,
            "source": "10.9.0.1"});
        if end == "refused" {
            line["outcome"] = json!("refused");
        }
        let mut answer = vec![host.word(line)];
        if end == "disconnected" {
            assert_eq!(host.disconnect(id), "OK");
        }
        answer.push(host.try_bind(&format!("{words}4"), "10.9.0.2", port));
        answer.push(host.try_bind(&format!("{words}4"), "10.9.0.1", port));
        answers.push(join(answer));
    }
    assert_eq!(answers.join("; "), kernel("B26"));
}

#[test]
fn b27_an_automatic_udp_port_looks_at_every_socket() {
    let mut host = Host::with_range(33_030, 33_030);
    // Behind: one without P on the IPv4 address; in front: one with P on a device of its own.
    host.bound("udp4 dev:v0", "10.9.0.1", 33_030);
    host.bound("udp4 P dev:d1", "10.9.0.1", 33_030);
    let given = host.socket("udp4 P");
    let automatic = host.socket("udp4 P");
    let connecting = host.socket("udp4 P");
    let automatic = host.bind(automatic, "10.9.0.1", 0);
    let connect = host.connect(connecting, "10.9.0.100", 7000);
    let given = host.bind(given, "10.9.0.1", 33_030);
    assert_eq!(join([given, automatic, connect]), kernel("B27"));
}

#[test]
fn d1_d2_privileged_ports() {
    let mut host = Host::new();
    let answers = [
        host.try_bind("tcp4 uid5", "0.0.0.0", 1023),
        host.try_bind("tcp4 uid5", "0.0.0.0", 1024),
        host.try_bind("tcp4 uid5", "0.0.0.0", 0),
        host.try_bind("udp4 uid5", "0.0.0.0", 53),
        host.try_bind("tcp6 uid5", "::", 80),
        host.try_bind("tcp6 uid5", "::ffff:0.0.0.0", 80),
    ];
    assert_eq!(join(answers), kernel("D1"));
    let mut host = Host::configured(32_768, 60_999, 80, &[]);
    let answers = [
        host.try_bind("tcp4 uid5", "0.0.0.0", 80),
        host.try_bind("tcp4 uid5", "0.0.0.0", 79),
    ];
    assert!(kernel("D2").starts_with(&join(answers)));
}

#[test]
fn f17_many_sockets_do_not_change_the_answer() {
    let mut answers = Vec::new();
    for (protocol, count) in [("udp", 10), ("udp", 11), ("tcp", 11)] {
        let mut host = Host::new();
        for last in 1..=count {
            host.bound(&format!("{protocol}4"), &format!("127.0.0.{last}"), 2000);
        }
        answers.push(host.try_bind(&format!("{protocol}4"), "0.0.0.0", 2000));
    }
    assert_eq!(join(answers), kernel("F17"));
}

#[test]
fn g1_g2_when_the_port_is_free_again() {
    let mut host = Host::new();
    let again = |host: &mut Host, port| host.try_bind("tcp4", "10.9.0.1", port);
    let id = host.bound("tcp4", "10.9.0.1", 2000);
    host.close(id);
    let bound = again(&mut host, 2000);
    let id = host.listener("tcp4", "10.9.0.1", 2001);
    host.close(id);
    let listener = again(&mut host, 2001);
    let mut after = |port, how| {
        let id = host.bound("tcp4", "10.9.0.1", port);
        assert_eq!(host.connect(id, "10.9.0.100", 7000), "OK");
        assert_eq!(host.word(json!({"op": "close", "id": id, "how": how})), "OK");
        again(&mut host, port)
    };
    let [active, passive, reset] =
        [(2002, "time_wait"), (2003, "passive"), (2004, "reset")].map(|(port, how)| after(port, how));
    assert!(kernel("G1").starts_with(&join([bound, listener, active, passive, reset])));
    host.ask(json!({"op": "advance", "seconds": 59}));
    assert_eq!(again(&mut host, 2002), "EADDRINUSE");
    host.ask(json!({"op": "advance", "seconds": 1}));
    assert_eq!(again(&mut host, 2002), "OK");
    assert_eq!(kernel("G2"), "yes");
}
