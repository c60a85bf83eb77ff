use std::sync::Arc;

use portolan_core::Protocol;
use portolan_core::filter::{Action, Chain, ConnectionStates, Filter, Hook, Reject, Rule};
use portolan_core::table::{Device, Scope};
use portolan_core::wire::{
    Icmpv4Message, Icmpv4Packet, IpPacket, IpProtocol, TcpFlags, TcpSegment, UnreachableCode,
};
use portolan_stack::{
    CloseReason, Duration, Event, Instant, Offload, Packet, PathError, ReadError, Stack, StackConfig, State,
    SynGone,
};

use crate::support::{address, carry, events, give, segment, sent, stack};

const NOW: Instant = Instant::from_millis(1);
const PROHIBITED: Action = Action::Reject(Reject::Unreachable(UnreachableCode::Prohibited));
const RESET: Action = Action::Reject(Reject::Reset);

fn pair() -> (Stack, Stack) {
    (stack(1, StackConfig::default()), stack(2, StackConfig::default()))
}

fn accepting(states: ConnectionStates) -> Rule {
    Rule::new(Action::Accept).states(states)
}

fn tcp(action: Action, ports: &str) -> Rule {
    Rule::new(action)
        .protocol(Protocol::Tcp)
        .to_ports(ports.parse().unwrap())
}

fn input(rules: impl IntoIterator<Item = Rule>, policy: Action) -> Option<Arc<Filter>> {
    Some(Arc::new(Filter {
        input: Chain::new(rules, policy),
        output: Chain::accept_all(),
    }))
}

fn output(rules: impl IntoIterator<Item = Rule>, policy: Action) -> Option<Arc<Filter>> {
    Some(Arc::new(Filter {
        input: Chain::accept_all(),
        output: Chain::new(rules, policy),
    }))
}

#[test]
fn a_new_connection_is_accepted_dropped_or_rejected_by_the_first_rule() {
    let (mut client, mut server) = pair();
    server.listen_for(Scope::TRANSPARENT, 8).unwrap();
    server.set_filter(input(
        [
            accepting(ConnectionStates::ESTABLISHED),
            tcp(Action::Accept, "80"),
            tcp(RESET, "81"),
            tcp(PROHIBITED, "82"),
        ],
        Action::Drop,
    ));
    for (remote, expected) in [
        ("10.0.0.2:80", Some(None)),
        ("10.0.0.2:81", Some(Some(CloseReason::Refused))),
        (
            "10.0.0.2:82",
            Some(Some(CloseReason::Unreachable(PathError::HostProhibited))),
        ),
        ("10.0.0.2:83", None),
    ] {
        let id = client
            .connect(NOW, address("10.0.0.1:0"), address(remote))
            .unwrap();
        carry(NOW, &mut client, &mut server);
        let told = events(&mut client);
        match expected {
            Some(None) => assert_eq!(told, [Event::Connected(id)], "{remote}"),
            Some(Some(reason)) => assert_eq!(told, [Event::Closed(id, reason)], "{remote}"),
            None => assert!(told.is_empty(), "{remote}"),
        }
    }
    assert_eq!(server.counters().filtered_in, 3);
    let hits = server.rule_hits(Hook::Input);
    assert_eq!((hits.rules, hits.policy), (&[1, 1, 1, 1][..], 1));
}

#[test]
fn established_traffic_asks_the_rules_once_in_each_direction() {
    let (mut client, mut server) = pair();
    let listener = server.listen(address("10.0.0.2:80"), 8).unwrap();
    let states = ConnectionStates::ESTABLISHED;
    server.set_filter(Some(Arc::new(Filter {
        input: Chain::new([accepting(states), tcp(Action::Accept, "80")], Action::Drop),
        output: Chain::new([accepting(states)], Action::Drop),
    })));
    let id = client
        .connect(NOW, address("10.0.0.1:0"), address("10.0.0.2:80"))
        .unwrap();
    carry(NOW, &mut client, &mut server);
    let accepted = server.accept(listener).unwrap();
    let (bytes, mut out, mut moved) = (vec![5; 60_000], vec![0; 60_000], 0);
    while moved < 1_000_000 {
        client.write(NOW, id, &bytes).unwrap();
        carry(NOW, &mut client, &mut server);
        moved += server.read(NOW, accepted, &mut out).unwrap();
        server.write(NOW, accepted, &bytes[..1000]).unwrap();
        carry(NOW, &mut client, &mut server);
        client.read(NOW, id, &mut out).unwrap();
    }
    assert!(server.counters().packets_in > 500);
    assert_eq!(server.counters().filtered_in + server.counters().filtered_out, 0);
    let (came, went) = (server.rule_hits(Hook::Input), server.rule_hits(Hook::Output));
    // The SYN, the acknowledgment that ends the handshake, and one look at all that followed; and the SYN-ACK, and one
    // look at all that went after it.
    assert_eq!((came.rules, came.policy), (&[2, 1][..], 0));
    assert_eq!((went.rules, went.policy), (&[2][..], 0));
}

#[test]
fn new_rules_count_for_flows_that_exist() {
    let (mut client, mut server) = pair();
    let listener = server.listen(address("10.0.0.2:80"), 8).unwrap();
    let connect = |client: &mut Stack, server: &mut Stack| {
        let id = client
            .connect(NOW, address("10.0.0.1:0"), address("10.0.0.2:80"))
            .unwrap();
        carry(NOW, client, server);
        (id, server.accept(listener))
    };
    let (kept, accepted) = connect(&mut client, &mut server);
    let accepted = accepted.unwrap();
    // What is established stays, and nothing new comes.
    server.set_filter(input([accepting(ConnectionStates::ESTABLISHED)], RESET));
    let (_, none) = connect(&mut client, &mut server);
    assert_eq!(none, None);
    client.write(NOW, kept, b"still here").unwrap();
    carry(NOW, &mut client, &mut server);
    assert_eq!(server.read(NOW, accepted, &mut [0; 32]), Ok(10));
    // Now nothing stays: the peer is told, with the numbers that it believes.
    server.set_filter(input([], RESET));
    client.write(NOW, kept, b"and now?").unwrap();
    carry(NOW, &mut client, &mut server);
    assert!(events(&mut client).contains(&Event::Closed(kept, CloseReason::Reset)));
    assert_eq!(
        server.read(NOW, accepted, &mut [0; 32]),
        Err(ReadError::WouldBlock),
        "what was rejected was not seen"
    );
    // Even if the numbers of filters, which are 14 bits, begin anew meanwhile.
    let (other, _) = {
        server.set_filter(None);
        connect(&mut client, &mut server)
    };
    server.set_filter(input([], Action::Accept));
    client.write(NOW, other, b"seen").unwrap();
    carry(NOW, &mut client, &mut server);
    let dropped = server.counters().filtered_in;
    let nothing = input([], Action::Drop);
    for _ in 0..16_383 {
        server.set_filter(nothing.clone());
    }
    client.write(NOW, other, b"not seen").unwrap();
    carry(NOW, &mut client, &mut server);
    assert!(server.counters().filtered_in > dropped);
    // And without a filter all is as before.
    server.set_filter(None);
    assert!(server.filter().is_none());
    let again = client
        .connect(NOW, address("10.0.0.1:0"), address("10.0.0.2:80"))
        .unwrap();
    carry(NOW, &mut client, &mut server);
    assert!(events(&mut client).contains(&Event::Connected(again)));
}

#[test]
fn what_may_not_go_is_lost_or_told_to_its_connection() {
    for (action, expected) in [
        (Action::Drop, None),
        (RESET, Some(CloseReason::Refused)),
        (
            PROHIBITED,
            Some(CloseReason::Unreachable(PathError::HostProhibited)),
        ),
    ] {
        let (mut client, _) = pair();
        client.set_filter(output([tcp(action, "25")], Action::Accept));
        let id = client
            .connect(NOW, address("10.0.0.1:0"), address("10.0.0.2:25"))
            .unwrap();
        assert!(sent(NOW, &mut client).is_empty());
        let told = events(&mut client);
        let expected: Vec<_> = expected
            .into_iter()
            .map(|reason| Event::Closed(id, reason))
            .collect();
        assert_eq!(told, expected, "{action:?}");
        assert_eq!(client.counters().filtered_out, 1);
        if action == Action::Drop {
            // It tries again, as if the network had lost it; a better filter lets it go.
            let later = NOW + Duration::from_millis(1100);
            client.set_filter(None);
            client.handle_timeout(later);
            assert_eq!(sent(later, &mut client).len(), 1);
        }
        let fine = client
            .connect(NOW, address("10.0.0.1:0"), address("10.0.0.2:80"))
            .unwrap();
        assert_eq!(sent(NOW, &mut client).len(), 1);
        assert_eq!(client.info(fine).unwrap().state, State::SynSent);
    }
}

#[test]
fn segments_without_a_connection_are_invalid_and_get_the_answer_of_the_rule() {
    let (_, mut server) = pair();
    let to = address("10.0.0.2:80");
    let answers = |server: &mut Stack, flags| {
        give(NOW, server, &[segment(9, to, 77, flags)]);
        sent(NOW, server)
    };
    assert_eq!(
        answers(&mut server, TcpFlags::ACK).len(),
        1,
        "a RST, without rules"
    );
    let invalid = Rule::new(Action::Drop).states(ConnectionStates::INVALID);
    server.set_filter(input([invalid.clone()], Action::Accept));
    assert!(answers(&mut server, TcpFlags::ACK).is_empty());
    assert!(answers(&mut server, TcpFlags::RST).is_empty());
    assert_eq!(answers(&mut server, TcpFlags::SYN).len(), 1);
    // RST with the right numbers: for a SYN it acknowledges, for others it takes their acknowledgment.
    server.set_filter(input([], RESET));
    let syn = answers(&mut server, TcpFlags::SYN);
    let ip = IpPacket::parse(&syn[0]).unwrap();
    let view = TcpSegment::parse(ip.payload()).unwrap();
    assert_eq!(view.flags(), TcpFlags::RST | TcpFlags::ACK);
    assert_eq!(view.ack().since(portolan_core::wire::SeqNum::new(77)), 1);
    assert!(
        answers(&mut server, TcpFlags::RST).is_empty(),
        "a RST is never answered"
    );
    // A SYN that is held belongs to a conversation: its RST is not invalid.
    let listener = server.listen(to, 8).unwrap();
    server.hold_syns(listener, true);
    server.set_filter(input([invalid], Action::Accept));
    give(NOW, &mut server, &[segment(9, to, 77, TcpFlags::SYN)]);
    let told = events(&mut server);
    let [Event::Syn(held)] = told[..] else {
        panic!("{told:?}")
    };
    give(NOW, &mut server, &[segment(9, to, 78, TcpFlags::RST)]);
    assert_eq!(events(&mut server), [Event::SynGone(held, SynGone::Reset)]);
}

#[test]
fn datagrams_that_answer_are_established_and_others_are_rejected_not_too_often() {
    let (mut client, mut server) = pair();
    client.set_filter(Some(Arc::new(Filter {
        input: Chain::new([accepting(ConnectionStates::ESTABLISHED)], PROHIBITED),
        output: Chain::new(
            [
                accepting(ConnectionStates::ESTABLISHED | ConnectionStates::RELATED),
                Rule::new(Action::Accept).to_ports("53".parse().unwrap()),
            ],
            Action::Drop,
        ),
    })));
    let (here, there) = (address("10.0.0.1:4000"), address("10.0.0.2:53"));
    let asking = client.bind_udp(here).unwrap();
    let answering = server.bind_udp(there).unwrap();
    let mut out = [0; 64];
    // Unasked: rejected, at most six times at once.
    for _ in 0..20 {
        server
            .send_datagram(answering, there.ip(), here, b"buy!")
            .unwrap();
    }
    let unasked = sent(NOW, &mut server);
    give(NOW, &mut client, &unasked);
    assert_eq!(client.receive_datagram(asking, &mut out).unwrap(), None);
    let errors = sent(NOW, &mut client);
    assert_eq!(errors.len(), 6);
    let ip = IpPacket::parse(&errors[0]).unwrap();
    let icmp = Icmpv4Packet::parse(ip.payload()).unwrap();
    assert!(matches!(
        icmp.message(),
        Icmpv4Message::DestinationUnreachable { code: 13, .. }
    ));
    // Asked: a hundred questions and answers are three looks at the rules.
    for _ in 0..100 {
        client.send_datagram(asking, here.ip(), there, b"what?").unwrap();
        carry(NOW, &mut client, &mut server);
        assert!(server.receive_datagram(answering, &mut out).unwrap().is_some());
        server
            .send_datagram(answering, there.ip(), here, b"that")
            .unwrap();
        carry(NOW, &mut client, &mut server);
        assert!(client.receive_datagram(asking, &mut out).unwrap().is_some());
    }
    let (came, went) = (client.rule_hits(Hook::Input), client.rule_hits(Hook::Output));
    assert_eq!((came.rules, came.policy), (&[1][..], 20));
    // Six errors are related; of the questions one is new, and one established.
    assert_eq!((went.rules, went.policy), (&[7, 1][..], 0));
    // To elsewhere nothing goes.
    client
        .send_datagram(asking, here.ip(), address("10.0.0.2:54"), b"x")
        .unwrap();
    assert!(sent(NOW, &mut client).is_empty());
    assert_eq!(client.counters().filtered_out, 1);
}

#[test]
fn echoes_are_new_and_errors_are_related_or_invalid() {
    let (mut client, mut server) = pair();
    let here = address("10.0.0.1:4000");
    let asking = client.bind_udp(here).unwrap();
    client.set_filter(input([accepting(ConnectionStates::RELATED)], Action::Drop));
    let errors = |client: &Stack| (client.counters().icmp_errors, client.counters().filtered_in);
    // Port unreachable about a datagram of ours is heard.
    client
        .send_datagram(asking, here.ip(), address("10.0.0.2:99"), b"anyone?")
        .unwrap();
    carry(NOW, &mut client, &mut server);
    assert_eq!(errors(&client), (1, 0));
    // The same about nobody's is not.
    client.close_udp(asking).unwrap();
    let again = client.bind_udp(address("10.0.0.1:4001")).unwrap();
    client
        .send_datagram(again, here.ip(), address("10.0.0.2:99"), b"anyone?")
        .unwrap();
    let question = sent(NOW, &mut client);
    client.close_udp(again).unwrap();
    give(NOW, &mut server, &question);
    give(NOW, &mut client, &sent(NOW, &mut server));
    assert_eq!(errors(&client), (1, 1));
    // An echo request is new here.
    let mut request = vec![0; 28];
    let ip = portolan_core::wire::Ipv4Repr {
        dscp: 0,
        ecn: 0,
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        time_to_live: 64,
        protocol: IpProtocol::ICMP,
        source: [10, 0, 0, 2].into(),
        destination: [10, 0, 0, 1].into(),
        options: &[],
        payload_len: 8,
    };
    ip.emit(&mut request).unwrap();
    let echo = Icmpv4Message::EchoRequest {
        identifier: 1,
        sequence: 1,
    };
    echo.emit(&mut request[20..]).unwrap();
    give(NOW, &mut client, &[request.clone()]);
    assert!(sent(NOW, &mut client).is_empty());
    client.set_filter(input([], Action::Accept));
    give(NOW, &mut client, &[request]);
    assert_eq!(sent(NOW, &mut client).len(), 1);
    // A reply to a request of ours is of a conversation; the same unasked is not.
    client.set_filter(input([accepting(ConnectionStates::ESTABLISHED)], Action::Drop));
    let asker = client.bind_echo(here.ip(), 7).unwrap();
    client
        .send_echo(asker, here.ip(), address("10.0.0.2:0").ip(), 1, b"ping")
        .unwrap();
    let question = sent(NOW, &mut client);
    give(NOW, &mut server, &question);
    let answer = sent(NOW, &mut server);
    give(NOW, &mut client, &answer);
    assert_eq!(
        client.receive_echo(asker, &mut [0; 8]).unwrap().unwrap().sequence,
        1
    );
    client.close_echo(asker).unwrap();
    let dropped = client.counters().filtered_in;
    give(NOW, &mut client, &answer);
    assert_eq!(client.counters().filtered_in, dropped + 1);
}

#[test]
fn rules_for_a_device_see_where_packets_come_and_where_they_go() {
    let (mut client, mut server) = pair();
    let config = *server.config();
    let other = Device::new(77).unwrap();
    let listener = server.listen(address("10.0.0.2:80"), 8).unwrap();
    let on_link = |action| Rule::new(action).device(config.device);
    server.set_filter(Some(Arc::new(Filter {
        input: Chain::new(
            [
                Rule::new(Action::Drop)
                    .device(other)
                    .states(ConnectionStates::ESTABLISHED),
                on_link(Action::Accept),
            ],
            Action::Drop,
        ),
        output: Chain::new(
            [
                Rule::new(Action::Drop).device(config.loopback),
                on_link(Action::Accept),
            ],
            Action::Drop,
        ),
    })));
    // What begins elsewhere is dropped, on the link it is accepted.
    let id = client
        .connect(NOW, address("10.0.0.1:0"), address("10.0.0.2:80"))
        .unwrap();
    let syn = sent(NOW, &mut client);
    let packet = |bytes| Packet {
        bytes,
        offload: Offload::default(),
    };
    server.handle_packet_on(NOW, other, packet(&syn[0]));
    assert_eq!(
        (
            server.counters().filtered_in,
            server.rule_hits(Hook::Input).policy
        ),
        (1, 1)
    );
    give(NOW, &mut server, &syn);
    carry(NOW, &mut client, &mut server);
    let accepted = server.accept(listener).unwrap();
    // A flow that the rules let pass on the link is asked about elsewhere, each time, and stays known on the link.
    client.write(NOW, id, b"over the link").unwrap();
    carry(NOW, &mut client, &mut server);
    client.write(NOW, id, b"elsewhere").unwrap();
    let data = sent(NOW, &mut client);
    server.handle_packet_on(NOW, other, packet(&data[0]));
    server.handle_packet_on(NOW, other, packet(&data[0]));
    assert_eq!(server.rule_hits(Hook::Input).rules[0], 2);
    assert_eq!(server.read(NOW, accepted, &mut [0; 64]), Ok(13));
    give(NOW, &mut server, &data);
    assert_eq!(server.read(NOW, accepted, &mut [0; 64]), Ok(9));
    carry(NOW, &mut client, &mut server);
    // What goes to the host itself goes by the loopback device.
    let asked = server.rule_hits(Hook::Output).rules[0];
    let datagrams = server.bind_udp(address("10.0.0.2:0")).unwrap();
    for (remote, went) in [("10.0.0.1:9", 1), ("10.0.0.2:9", 0), ("127.0.0.1:9", 0)] {
        server
            .send_datagram(
                datagrams,
                address("10.0.0.2:0").ip(),
                address(remote),
                b"datagram",
            )
            .unwrap();
        assert_eq!(sent(NOW, &mut server).len(), went, "{remote}");
    }
    assert_eq!(server.rule_hits(Hook::Output).rules[0] - asked, 2);
}

#[test]
fn datagrams_are_judged_by_the_device_they_came_on() {
    let mut server = stack(2, StackConfig::default());
    let mut client = stack(1, StackConfig::default());
    let config = *server.config();
    let here = server.bind_udp(address("10.0.0.2:53")).unwrap();
    let there = client.bind_udp(address("10.0.0.1:0")).unwrap();
    server.set_filter(input(
        [Rule::new(Action::Accept).device(config.device)],
        Action::Drop,
    ));
    client
        .send_datagram(
            there,
            address("10.0.0.1:0").ip(),
            address("10.0.0.2:53"),
            b"question",
        )
        .unwrap();
    let datagram = sent(NOW, &mut client);
    for _ in 0..2 {
        // The link's flow is known by now; what comes on the loopback device is asked about all the same.
        give(NOW, &mut server, &datagram);
        let offload = Offload::default();
        let bytes = &datagram[0][..];
        server.handle_packet_on(NOW, config.loopback, Packet { bytes, offload });
    }
    assert_eq!(server.counters().filtered_in, 2);
    let mut buffer = [0; 64];
    let received = std::iter::from_fn(|| server.receive_datagram(here, &mut buffer).unwrap());
    assert_eq!(received.count(), 2);
}
