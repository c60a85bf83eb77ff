use std::net::IpAddr;

use portolan_core::table::{Addresses, Scope, ScopeError};
use portolan_core::{Port, PortRange};
use portolan_stack::{ConnectOptions, Event, Instant, ListenError, ReadError, SendError, StackConfig};

use crate::support::{address, carry, events, stack};

const NOW: Instant = Instant::from_millis(1);

#[test]
fn a_transparent_listener_takes_connections_to_anyone_as_if_it_were_they() {
    let (mut client, mut proxy) = (stack(1, StackConfig::default()), stack(2, StackConfig::default()));
    let listener = proxy.listen_for(Scope::TRANSPARENT, 8).unwrap();
    assert_eq!(proxy.scope(listener), Some(Scope::TRANSPARENT));
    for (local, remote) in [
        ("10.0.0.1:0", "192.0.2.55:443"),
        ("[fd00::1]:0", "[2001:db8::9]:25"),
        ("10.0.0.1:0", "10.0.0.2:81"),
    ] {
        let remote = address(remote);
        let id = client.connect(NOW, address(local), remote).unwrap();
        carry(NOW, &mut client, &mut proxy);
        assert!(events(&mut client).contains(&Event::Connected(id)), "{remote}");
        assert_eq!(events(&mut proxy), [Event::Acceptable(listener)]);
        let accepted = proxy.accept(listener).unwrap();
        let tuple = proxy.four_tuple(accepted).unwrap();
        assert_eq!(tuple.local(), remote);
        assert_eq!(tuple.remote(), client.four_tuple(id).unwrap().local());
        proxy.write(NOW, accepted, b"from afar").unwrap();
        carry(NOW, &mut client, &mut proxy);
        let mut out = [0; 16];
        assert_eq!(client.read(NOW, id, &mut out), Ok(9));
        assert_eq!(&out[..9], b"from afar");
        // Without the listener the connection lives on, and others are not answered: the address is not ours.
        events(&mut client);
    }
    proxy.close_listener(NOW, listener);
    let before = proxy.counters().not_for_this_host;
    let id = client
        .connect(NOW, address("10.0.0.1:0"), address("192.0.2.55:444"))
        .unwrap();
    carry(NOW, &mut client, &mut proxy);
    assert_eq!(proxy.counters().not_for_this_host, before + 1);
    assert_eq!(client.read(NOW, id, &mut [0; 1]), Err(ReadError::WouldBlock));
}

#[test]
fn ranges_and_prefixes_share_a_host_with_plain_listeners() {
    let (mut client, mut host) = (stack(1, StackConfig::default()), stack(2, StackConfig::default()));
    let range = |first, last| PortRange::new(Port::new(first), Port::new(last)).unwrap();
    let plain = host.listen(address("0.0.0.0:8080"), 8).unwrap();
    let ports = Scope {
        addresses: Addresses::Own,
        ports: range(8000, 8999),
    };
    let many = host.listen_for(ports, 8).unwrap();
    let net = Scope {
        addresses: Addresses::Prefix("10.7.0.0/16".parse().unwrap()),
        ports: PortRange::ALL,
    };
    let prefix = host.listen_for(net, 8).unwrap();
    for (remote, expected) in [
        ("10.0.0.2:8080", Some(plain)),
        ("10.0.0.2:8081", Some(many)),
        ("10.7.1.2:8081", Some(prefix)),
        ("10.0.0.2:9000", None),
    ] {
        client
            .connect(NOW, address("10.0.0.1:0"), address(remote))
            .unwrap();
        carry(NOW, &mut client, &mut host);
        let expected: Vec<_> = expected.into_iter().map(Event::Acceptable).collect();
        assert_eq!(events(&mut host), expected, "{remote}");
    }
    let again = host.listen_for(ports, 8).unwrap_err();
    assert!(matches!(again, ListenError::Scope(ScopeError::InUse { .. })));
}

#[test]
fn a_transparent_udp_socket_hears_whom_a_datagram_was_for_and_answers_as_them() {
    let (mut client, mut proxy) = (stack(1, StackConfig::default()), stack(2, StackConfig::default()));
    let every = proxy.bind_udp_for(Scope::TRANSPARENT).unwrap();
    let mut out = [0; 64];
    for (local, remote) in [
        ("10.0.0.1:4000", "192.0.2.53:53"),
        ("[fd00::1]:4000", "[2001:db8::53]:5353"),
    ] {
        let (local, remote) = (address(local), address(remote));
        let socket = client.bind_udp(local).unwrap();
        client.send_datagram(socket, local.ip(), remote, b"who?").unwrap();
        carry(NOW, &mut client, &mut proxy);
        assert_eq!(events(&mut proxy), [Event::Datagrams(every)]);
        let datagram = proxy.receive_datagram(every, &mut out).unwrap().unwrap();
        assert_eq!(
            (datagram.local, datagram.remote, &out[..datagram.len]),
            (remote, local, &b"who?"[..])
        );
        proxy
            .send_datagram_from(every, datagram.local, datagram.remote, b"me")
            .unwrap();
        carry(NOW, &mut client, &mut proxy);
        let answer = client.receive_datagram(socket, &mut out).unwrap().unwrap();
        assert_eq!((answer.remote, &out[..answer.len]), (remote, &b"me"[..]));
    }
    // Only from addresses and ports of the scope.
    let narrow = Scope::address("192.0.2.9".parse().unwrap(), PortRange::single(Port::new(53)));
    let narrow = proxy.bind_udp_for(narrow).unwrap();
    let to = address("10.0.0.1:4000");
    for (source, is_right) in [
        ("192.0.2.9:53", true),
        ("192.0.2.9:54", false),
        ("192.0.2.8:53", false),
    ] {
        let source = address(source);
        let expected = if is_right {
            Ok(())
        } else {
            Err(SendError::WrongSource {
                source_address: source.ip(),
                destination: to,
            })
        };
        assert_eq!(proxy.send_datagram_from(narrow, source, to, b"x"), expected);
    }
    for source in ["0.0.0.0", "224.0.0.1"] {
        let source: IpAddr = source.parse().unwrap();
        assert!(
            proxy
                .send_datagram_from(every, (source, 53).into(), to, b"x")
                .is_err()
        );
    }
    proxy.close_udp(every).unwrap();
    assert!(proxy.bind_udp_for(Scope::TRANSPARENT).is_ok());
}

/// RFC 6191: the peer of a proxy that keeps its client's address and port cannot wait for another port.
#[test]
fn who_keeps_a_clients_address_takes_over_what_waits() {
    for timestamps in [true, false] {
        let mut config = StackConfig::default();
        config.tcp.timestamps = timestamps;
        let (mut proxy, mut host) = (stack(1, config), stack(2, StackConfig::default()));
        let (client, server) = (address("192.0.2.7:5000"), address("10.0.0.2:80"));
        let listener = host.listen(server, 8).unwrap();
        let options = ConnectOptions {
            transparent: true,
            ..ConnectOptions::default()
        };
        let mut now = Instant::from_millis(1000);
        let first = proxy.connect_as(now, client, server, options).unwrap();
        carry(now, &mut proxy, &mut host);
        let accepted = host.accept(listener).unwrap();
        proxy.close(now, first).unwrap();
        carry(now, &mut proxy, &mut host);
        host.close(now, accepted).unwrap();
        carry(now, &mut proxy, &mut host);
        assert_eq!(proxy.connection_count(), 0, "it waits");
        now = Instant::from_millis(1010);
        let second = proxy.connect_as(now, client, server, options);
        if !timestamps {
            assert!(second.is_err(), "nothing tells old segments from new ones");
            continue;
        }
        let second = second.unwrap();
        carry(now, &mut proxy, &mut host);
        let accepted = host.accept(listener).unwrap();
        assert_eq!(proxy.write(now, second, b"again"), Ok(5));
        carry(now, &mut proxy, &mut host);
        let mut read = [0; 8];
        assert_eq!(host.read(now, accepted, &mut read), Ok(5));
        assert!(
            proxy.connect_as(now, client, server, options).is_err(),
            "it is in use"
        );
    }
}
