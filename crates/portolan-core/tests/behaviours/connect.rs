//! Rows C: connect, disconnect and the sharing of automatic ports.

use serde_json::json;

use crate::host::Host;
use crate::kernel;

fn join<'a>(answers: impl IntoIterator<Item = &'a str>) -> String {
    answers.into_iter().collect::<Vec<_>>().join(" ")
}

#[test]
fn c2_automatic_ports_are_shared_towards_other_peers() {
    let mut host = Host::with_range(33_030, 33_033);
    let mut ports = Vec::new();
    let error = loop {
        let id = host.socket("tcp4");
        let answer = host.connect_answer(id, "10.9.0.100", 7000);
        match answer["port"].as_u64() {
            Some(port) => ports.push(port - 33_030),
            None => break answer["error"].as_str().unwrap().to_owned(),
        }
    };
    let id = host.socket("tcp4");
    let other = host.connect(id, "10.9.0.100", 7001);
    let even = ports[..2].iter().all(|port| port % 2 == 0);
    let even = if even { "True" } else { "False" };
    let answer = format!(
        "{} {error}; {other}; offsets, first two even: {even}",
        ports.len()
    );
    assert_eq!(answer, kernel("C2"));
}

#[test]
fn c3_c10_one_port_different_peers() {
    let mut host = Host::new();
    let sockets = [(); 3].map(|()| host.bound("tcp4 A", "10.9.0.1", 2000));
    let answers = [7000, 7001, 7000];
    let answers: Vec<_> = sockets
        .iter()
        .zip(answers)
        .map(|(&id, port)| host.connect(id, "10.9.0.100", port))
        .collect();
    assert_eq!(join(answers.iter().map(String::as_str)), kernel("C3"));
    // Without timestamps, a four-tuple in TIME-WAIT is not connected again; another one is.
    host.close_into_time_wait(sockets[0]);
    let same = host.bound("tcp4 A", "10.9.0.1", 2000);
    let same = host.connect(same, "10.9.0.100", 7000);
    let other = host.bound("tcp4 A", "10.9.0.1", 2000);
    let other = host.connect(other, "10.9.0.100", 7002);
    assert!(kernel("C10").ends_with(&format!("{same} {other}")));
}

#[test]
fn c4_c4b_automatic_connections_and_binds_on_one_port() {
    let mut host = Host::with_range(33_040, 33_040);
    let flow = host.socket("tcp4");
    assert_eq!(host.connect(flow, "10.9.0.100", 7000), "OK");
    let mut answers = Vec::new();
    for words in ["tcp4", "tcp4 A", "tcp4 P"] {
        answers.push(host.try_bind(words, "10.9.0.1", 33_040));
    }
    answers.push(format!("wild {}", host.try_bind("tcp4", "0.0.0.0", 33_040)));
    answers.push(format!(
        "other addr {}",
        host.try_bind("tcp4", "10.9.0.2", 33_040)
    ));
    for words in ["tcp4", "tcp4 A"] {
        let mut host = Host::with_range(33_040, 33_040);
        host.bound(words, "10.9.0.1", 33_040);
        let id = host.socket("tcp4");
        answers.push(format!(
            "auto connect vs bound {}",
            host.connect(id, "10.9.0.100", 7000)
        ));
    }
    assert_eq!(answers.join(" "), kernel("C4"));

    let mut host = Host::with_range(33_045, 33_045);
    let bound = host.bound("tcp4", "10.9.0.2", 33_045);
    let ids = [(); 3].map(|()| host.socket("tcp4"));
    let blocked = host.connect(ids[0], "10.9.0.100", 7000);
    host.close(bound);
    let free = host.connect(ids[1], "10.9.0.100", 7000);
    let shared = host.connect(ids[2], "10.9.0.100", 7001);
    assert_eq!(join([&*blocked, &*free, &*shared]), kernel("C4b"));
}

#[test]
fn c5_errors_of_connect() {
    let mut host = Host::new();
    let expected: Vec<_> = kernel("C5").split(' ').collect();
    let id = host.socket("tcp4");
    host.connect(id, "10.9.0.100", 7000);
    assert_eq!(host.connect(id, "10.9.0.100", 7000), expected[0]);
    let listener = host.listener("tcp4", "0.0.0.0", 2000);
    assert_eq!(host.connect(listener, "10.9.0.100", 7000), expected[1]);
    // The third and fourth are of connects that are under way.
    for (address, expected) in ["224.0.0.1", "255.255.255.255"].iter().zip(&expected[4..]) {
        let id = host.socket("tcp4");
        assert_eq!(host.connect(id, address, 9), *expected);
    }
    let id = host.socket("tcp4");
    let line = json!({"op": "connect", "id": id, "address": "0.0.0.0", "port": 2000, "source": "127.0.0.1"});
    assert_eq!(host.word(line), expected[7]);
}

#[test]
fn c6_a_socket_connects_to_itself() {
    let mut host = Host::new();
    let id = host.bound("tcp4", "127.0.0.1", 2000);
    assert!(kernel("C6").starts_with(&host.connect(id, "127.0.0.1", 2000)));
    let who = host.who("tcp", "127.0.0.1:2000", "127.0.0.1:2000", &[("me", id)]);
    assert_eq!(who, "me");
}

#[test]
fn c7_after_a_refusal() {
    let mut host = Host::new();
    let mut answers = Vec::new();
    for explicit in [true, false] {
        let id = host.socket("tcp4");
        if explicit {
            assert_eq!(host.bind(id, "10.9.0.1", 2000), "OK");
        }
        answers.push(host.word(
            json!({"op": "connect", "id": id, "address": "10.9.0.100", "port": 9,
            "source": "10.9.0.1", "choose": 40_000, "outcome": "refused"}),
        ));
        let port = if explicit { 2000 } else { 40_000 };
        let other = host.socket("tcp4");
        let held = host.bind(other, "10.9.0.1", port) == "EADDRINUSE";
        host.close(other);
        answers.push(format!("port held: {}", if held { "yes" } else { "no" }));
        let again = host.connect_answer(id, "10.9.0.100", 7000);
        answers.push(again["error"].as_str().unwrap_or("OK").to_owned());
        answers.push(if again["port"] == port {
            "same".to_owned()
        } else {
            "new".to_owned()
        });
    }
    assert_eq!(answers.join(" "), kernel("C7"));
}

#[test]
fn c8_disconnect_releases_what_was_automatic() {
    for protocol in ["tcp", "udp"] {
        for explicit in [true, false] {
            let mut host = Host::new();
            let id = host.socket(&format!("{protocol}4"));
            if explicit {
                assert_eq!(host.bind(id, "0.0.0.0", 2000), "OK");
            }
            let port = host.connect_answer(id, "10.9.0.100", 7000)["port"]
                .as_u64()
                .unwrap();
            assert_eq!(host.disconnect(id), "OK");
            let answer = host.try_bind(&format!("{protocol}4"), "10.9.0.1", u16::try_from(port).unwrap());
            let held = if answer == "EADDRINUSE" { "yes" } else { "no" };
            let row = kernel("C8")
                .split("; ")
                .filter(|part| part.starts_with(protocol))
                .nth(usize::from(!explicit))
                .unwrap();
            assert!(row.ends_with(&format!("held: {held}")), "{row}");
        }
    }
}

#[test]
fn c8b_an_ipv6_socket_keeps_the_address_of_its_remote() {
    let mut answers = Vec::new();
    for (words, local, peer, sources) in [
        ("udp4", "0.0.0.0", "10.8.0.2", ["10.8.0.2:999", "10.8.0.3:999"]),
        ("udp6", "::", "fd08::2", ["[fd08::2]:999", "[fd08::3]:999"]),
        ("udp6", "::", "::ffff:10.8.0.2", ["10.8.0.3:999", "[fd08::2]:999"]),
    ] {
        let mut host = Host::new();
        let id = host.bound(words, local, 2000);
        assert_eq!(host.connect(id, peer, 777), "OK");
        assert_eq!(host.disconnect(id), "OK");
        for source in sources {
            let to = if source.starts_with('[') {
                "[fd08::1]:2000"
            } else {
                "10.8.0.1:2000"
            };
            answers.push(host.who("udp", source, to, &[("got", id)]));
        }
    }
    assert_eq!(answers.join(" "), kernel("C8b"));
}

#[test]
fn c11_c12_udp_connects() {
    let mut host = Host::with_range(33_060, 33_060);
    let [one, two] = [host.socket("udp4"), host.socket("udp4")];
    let answers = [
        host.connect(one, "10.9.0.100", 7),
        host.connect(two, "10.9.0.100", 8),
    ];
    assert_eq!(answers.join(" "), kernel("C11"));

    let mut host = Host::new();
    let id = host.bound("udp4", "0.0.0.0", 2000);
    host.connect(id, "10.8.0.2", 777);
    let other = host.deliver("udp", "10.8.0.2:778", "10.8.0.1:2000", "tun0");
    assert_eq!(other["reply"], "icmp-port-unreachable");
    assert_eq!(
        host.who("udp", "10.8.0.2:777", "10.8.0.1:2000", &[("s", id)]),
        "s"
    );
    assert!(kernel("C12").ends_with("right source: s"));
}
