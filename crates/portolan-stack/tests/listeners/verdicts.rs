use std::net::{Ipv4Addr, SocketAddr};

use portolan_core::table::Scope;
use portolan_core::wire::{IpPacket, TcpFlags, TcpSegment, UnreachableCode};
use portolan_stack::{
    CloseReason, Duration, Event, Instant, ListenerId, NoSyn, Stack, StackConfig, SynGone, SynId, TcpConfig,
};

use crate::support::{address, carry, events, give, segment, sent, stack};

const NOW: Instant = Instant::from_millis(1);

/// A stack that holds every SYN to anyone.
fn proxy(config: StackConfig) -> (Stack, ListenerId) {
    let mut proxy = stack(2, config);
    let listener = proxy.listen_for(Scope::TRANSPARENT, 8).unwrap();
    proxy.hold_syns(listener, true);
    (proxy, listener)
}

fn told(proxy: &mut Stack) -> Vec<SynId> {
    let syns = events(proxy).into_iter().map(|event| match event {
        Event::Syn(id) => id,
        other => panic!("{other:?}"),
    });
    syns.collect()
}

fn flags_of(packet: &[u8]) -> TcpFlags {
    let ip = IpPacket::parse(packet).unwrap();
    TcpSegment::parse(ip.payload()).unwrap().flags()
}

#[test]
fn a_held_syn_is_answered_once_when_the_word_comes() {
    let (mut proxy, listener) = proxy(StackConfig::default());
    let mut config = StackConfig::default();
    config.tcp.initial_send_buffer = 1 << 20;
    let mut client = stack(1, config);
    let remote = address("192.0.2.7:443");
    let dialled = client.connect(NOW, address("10.0.0.1:4000"), remote).unwrap();
    let syn = sent(NOW, &mut client);
    // Four times the same SYN, and not a word.
    for second in 0..4 {
        let now = NOW + Duration::from_secs(second);
        give(now, &mut proxy, &syn);
        assert!(sent(now, &mut proxy).is_empty());
    }
    let syns = told(&mut proxy);
    let &[held] = &syns[..] else { panic!("{syns:?}") };
    assert_eq!(proxy.counters().syns_absorbed, 3);
    let view = proxy.held_syn(held).unwrap();
    assert_eq!((view.listener, view.tuple.local()), (listener, remote));
    assert_eq!(view.tuple.remote(), address("10.0.0.1:4000"));

    let later = NOW + Duration::from_millis(3500);
    let accepted = proxy.accept_syn(later, held).unwrap();
    assert_eq!(proxy.accept_syn(later, held), Err(NoSyn));
    let answer = sent(later, &mut proxy);
    assert_eq!(answer.len(), 1);
    assert_eq!(flags_of(&answer[0]), TcpFlags::SYN | TcpFlags::ACK);
    give(later, &mut client, &answer);
    assert_eq!(events(&mut client), [Event::Connected(dialled)]);
    carry(later, &mut client, &mut proxy);
    assert_eq!(events(&mut proxy), [Event::Connected(accepted)]);
    assert_eq!(proxy.accept(listener), None, "it is the program's already");
    // What was agreed on was kept with the SYN: more than 64 KiB pass in one flight of windows.
    let bytes = vec![7; 200_000];
    let written = client.write(later, dialled, &bytes).unwrap();
    assert!(written > 100_000);
    let (mut read, mut out) = (0, vec![0; 70_000]);
    while read < written {
        carry(later, &mut client, &mut proxy);
        read += proxy.read(later, accepted, &mut out).unwrap();
    }
    let info = proxy.info(accepted).unwrap();
    assert_eq!(info.send_mss, 1448, "timestamps were offered and taken");
    assert_eq!((proxy.held_syn_count(), read), (0, written));
}

#[test]
fn a_refused_syn_gets_a_reset_and_a_rejected_one_an_error() {
    let (mut proxy, _) = proxy(StackConfig::default());
    let mut client = stack(1, StackConfig::default());
    for (local, remote) in [
        ("10.0.0.1:0", "192.0.2.7:443"),
        ("[fd00::1]:0", "[2001:db8::7]:443"),
    ] {
        let id = client.connect(NOW, address(local), address(remote)).unwrap();
        give(NOW, &mut proxy, &sent(NOW, &mut client));
        let held = told(&mut proxy)[0];
        proxy.refuse_syn(held).unwrap();
        assert_eq!(proxy.refuse_syn(held), Err(NoSyn));
        carry(NOW, &mut client, &mut proxy);
        assert_eq!(events(&mut client), [Event::Closed(id, CloseReason::Refused)]);
        for (code, errno) in [
            (UnreachableCode::NoRoute, "ENETUNREACH"),
            (UnreachableCode::Host, "EHOSTUNREACH"),
            (UnreachableCode::Port, "ECONNREFUSED"),
            (
                UnreachableCode::Prohibited,
                if local.starts_with('[') {
                    "EACCES"
                } else {
                    "EHOSTUNREACH"
                },
            ),
        ] {
            let id = client.connect(NOW, address(local), address(remote)).unwrap();
            give(NOW, &mut proxy, &sent(NOW, &mut client));
            let held = told(&mut proxy)[0];
            proxy.reject_syn(held, code).unwrap();
            carry(NOW, &mut client, &mut proxy);
            let told = match events(&mut client)[..] {
                [Event::Closed(closed, CloseReason::Refused)] if closed == id => "ECONNREFUSED",
                [Event::Closed(closed, CloseReason::Unreachable(why))] if closed == id => why.errno_name(),
                ref other => panic!("{other:?}"),
            };
            assert_eq!(told, errno, "{remote} {code}");
        }
    }
    assert_eq!(proxy.counters().answers_dropped, 0);
}

#[test]
fn a_thousand_rejections_are_a_thousand_answers() {
    let (mut proxy, _) = proxy(StackConfig::default());
    for port in 1000..2000 {
        give(
            NOW,
            &mut proxy,
            &[segment(port, address("192.0.2.7:443"), 5, TcpFlags::SYN)],
        );
        let held = told(&mut proxy)[0];
        proxy.reject_syn(held, UnreachableCode::Host).unwrap();
        assert_eq!(sent(NOW, &mut proxy).len(), 1, "{port}");
    }
}

#[test]
fn what_nobody_decides_ends_in_silence() {
    let config = StackConfig {
        syn_hold: Duration::from_secs(5),
        ..StackConfig::default()
    };
    let (mut proxy, _) = proxy(config);
    let to = address("192.0.2.7:443");
    give(NOW, &mut proxy, &[segment(1, to, 5, TcpFlags::SYN)]);
    let held = told(&mut proxy)[0];
    let deadline = NOW + Duration::from_secs(5);
    assert_eq!(proxy.poll_timeout(), Some(deadline));
    proxy.handle_timeout(NOW + Duration::from_millis(4999));
    assert!(proxy.held_syn(held).is_some());
    proxy.handle_timeout(deadline);
    assert_eq!(events(&mut proxy), [Event::SynGone(held, SynGone::TimedOut)]);
    assert_eq!(proxy.poll_timeout(), None);
    assert!(sent(deadline, &mut proxy).is_empty());
    // The peer asks again, and so does the stack.
    give(deadline, &mut proxy, &[segment(1, to, 5, TcpFlags::SYN)]);
    assert_ne!(told(&mut proxy), [held]);
    // A program may also say that it does not care.
    give(deadline, &mut proxy, &[segment(2, to, 5, TcpFlags::SYN)]);
    let second = told(&mut proxy)[0];
    proxy.drop_syn(second).unwrap();
    assert!(events(&mut proxy).is_empty() && sent(deadline, &mut proxy).is_empty());
}

#[test]
fn a_peer_may_take_its_syn_back_or_begin_anew() {
    let (mut proxy, listener) = proxy(StackConfig::default());
    let to = address("192.0.2.7:443");
    give(NOW, &mut proxy, &[segment(1, to, 5, TcpFlags::SYN)]);
    let first = told(&mut proxy)[0];
    // A RST counts only right behind the SYN.
    for seq in [5, 7, 0] {
        give(NOW, &mut proxy, &[segment(1, to, seq, TcpFlags::RST)]);
        assert!(events(&mut proxy).is_empty());
    }
    give(NOW, &mut proxy, &[segment(1, to, 6, TcpFlags::RST)]);
    assert_eq!(events(&mut proxy), [Event::SynGone(first, SynGone::Reset)]);
    assert_eq!(proxy.accept_syn(NOW, first), Err(NoSyn));

    give(NOW, &mut proxy, &[segment(1, to, 5, TcpFlags::SYN)]);
    let second = told(&mut proxy)[0];
    give(NOW, &mut proxy, &[segment(1, to, 99, TcpFlags::SYN)]);
    let news = events(&mut proxy);
    let [Event::SynGone(gone, SynGone::Replaced), Event::Syn(third)] = news[..] else {
        panic!("{news:?}")
    };
    assert_eq!(gone, second);
    // What goes before the program heard of it is no news.
    give(NOW, &mut proxy, &[segment(2, to, 5, TcpFlags::SYN)]);
    give(NOW, &mut proxy, &[segment(2, to, 6, TcpFlags::RST)]);
    assert!(events(&mut proxy).is_empty());

    proxy.close_listener(NOW, listener);
    assert_eq!(
        events(&mut proxy),
        [Event::SynGone(third, SynGone::ListenerClosed)]
    );
    assert_eq!(proxy.held_syn_count(), 0);
    assert!(sent(NOW, &mut proxy).is_empty());
}

#[test]
fn a_thousand_black_holed_dials_do_not_delay_the_others() {
    let config = StackConfig {
        held_syns: 2000,
        held_syns_per_destination: 100,
        ..StackConfig::default()
    };
    let (mut proxy, _) = proxy(config);
    let dead = address("192.0.2.7:443");
    for port in 1000..2000 {
        give(NOW, &mut proxy, &[segment(port, dead, 5, TcpFlags::SYN)]);
    }
    assert_eq!(told(&mut proxy).len(), 100);
    assert_eq!(proxy.counters().syns_over_quota, 900);
    // Another port of the same host is the same destination; another host is not.
    give(
        NOW,
        &mut proxy,
        &[segment(1, address("192.0.2.7:80"), 5, TcpFlags::SYN)],
    );
    assert!(told(&mut proxy).is_empty());
    give(
        NOW,
        &mut proxy,
        &[segment(1, address("192.0.2.8:443"), 5, TcpFlags::SYN)],
    );
    let alive = told(&mut proxy);
    assert!(proxy.accept_syn(NOW, alive[0]).is_ok());
    assert_eq!(sent(NOW, &mut proxy).len(), 1);
    // One decision makes room for one.
    give(NOW, &mut proxy, &[segment(5000, dead, 5, TcpFlags::SYN)]);
    assert!(told(&mut proxy).is_empty());
}

#[test]
fn a_sweep_of_a_dead_network_does_not_delay_the_others_and_holds_no_more_than_its_room() {
    let config = StackConfig {
        held_syns: 1000,
        ..StackConfig::default()
    };
    let (mut proxy, _) = proxy(config);
    let mut told_in_all = 0;
    for host in 0..20_000u32 {
        let dead = SocketAddr::new(Ipv4Addr::from_bits(0xCB00_0000 + host).into(), 80);
        give(NOW, &mut proxy, &[segment(4000, dead, 5, TcpFlags::SYN)]);
        if host % 100 == 0 {
            // A host that answers: its SYN is told at once, and accepted.
            let alive = address("192.0.2.8:443");
            let port = 10_000 + (host / 100) as u16;
            give(NOW, &mut proxy, &[segment(port, alive, 5, TcpFlags::SYN)]);
            let mut accepted = 0;
            for event in events(&mut proxy) {
                if let Event::Syn(id) = event {
                    told_in_all += 1;
                    if proxy.held_syn(id).is_some_and(|held| held.tuple.local() == alive) {
                        proxy.accept_syn(NOW, id).unwrap();
                        accepted += 1;
                    }
                }
            }
            assert_eq!(accepted, 1, "{host}");
        }
    }
    assert_eq!(proxy.held_syn_count(), 1000);
    assert_eq!(proxy.counters().syns_evicted, 19_000);
    assert!(told_in_all > 19_000);
    let each = proxy.held_syn_bytes() / 1000;
    assert!(
        each <= 160,
        "{each} bytes each, all tables and free room included"
    );
}

#[test]
fn a_held_syn_is_answered_as_its_listener_was_told_to() {
    let (mut proxy, listener) = proxy(StackConfig::default());
    let own = TcpConfig {
        sack: false,
        timestamps: false,
        max_segment: Some(1000),
        ..TcpConfig::default()
    };
    proxy.configure_listener(listener, &own).unwrap();
    let mut client = stack(1, StackConfig::default());
    let dialled = client
        .connect(NOW, address("10.0.0.1:4000"), address("192.0.2.7:443"))
        .unwrap();
    let syn = sent(NOW, &mut client);
    give(NOW, &mut proxy, &syn);
    let held = told(&mut proxy)[0];
    let accepted = proxy.accept_syn(NOW, held).unwrap();
    carry(NOW, &mut proxy, &mut client);
    carry(NOW, &mut client, &mut proxy);
    let info = proxy.info(accepted).unwrap();
    assert_eq!((info.timestamps, info.sack, info.send_mss), (false, false, 1000));
    assert_eq!(client.info(dialled).unwrap().send_mss, 1000);
}
