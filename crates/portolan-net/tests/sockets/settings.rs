//! What stacks and sockets can be told and asked, and what they refuse.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use portolan_net::filter::{Action, Chain, ConnectionStates, Filter, Hook, Reject, Rule};
use portolan_net::link::{self, Capabilities, Direction, Observer, Tap};
use portolan_net::{
    Closed, Device, IpProtocol, Keepalive, ListenOptions, Packet, SocketState, Stack, TcpConfig, TcpListener,
    TcpStream, UdpSocket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout};

use crate::support::{SERVER, SERVER_V6, addr, connected, hosts, sharded_hosts};

/// Only bounds a hang.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_filter_rejects_and_counts_in_every_shard() {
    for stack in [hosts, sharded_hosts] {
        let hosts = stack();
        let _listener = TcpListener::bind(&hosts.server, addr("[::]:80")).unwrap();
        assert!(hosts.server.filter().is_none());
        let forbidden = Rule::new(Action::Reject(Reject::Reset))
            .protocol(IpProtocol::TCP)
            .to_ports("80".parse().unwrap());
        let filter = Filter {
            input: Chain::new([forbidden], Action::Accept),
            output: Chain::accept_all(),
        };
        hosts.server.set_filter(Some(filter));
        assert!(hosts.server.filter().is_some());
        for _ in 0..8 {
            let refused = TcpStream::connect(&hosts.client, addr(SERVER)).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
        assert_eq!(hosts.server.rule_hits(Hook::Input).rules, [8]);
        hosts.server.set_filter(None);
        TcpStream::connect(&hosts.client, addr(SERVER)).await.unwrap();
    }
}

#[tokio::test]
async fn all_sockets_are_listed_and_those_of_every_shard_once() {
    for stack in [hosts, sharded_hosts] {
        let hosts = stack();
        let listener = TcpListener::bind(&hosts.server, addr("[::]:80")).unwrap();
        let _datagrams = UdpSocket::bind(&hosts.server, addr("10.0.0.1:53")).unwrap();
        let mut streams = Vec::new();
        for _ in 0..5 {
            let there = TcpStream::connect(&hosts.client, addr(SERVER));
            let (there, here) = tokio::join!(there, listener.accept());
            streams.push((there.unwrap(), here.unwrap()));
        }
        let sockets = hosts.server.sockets();
        let of = |state| sockets.iter().filter(|socket| socket.state == state).count();
        assert_eq!((of(SocketState::Listen), of(SocketState::Unconnected)), (1, 1));
        let connected: Vec<_> = sockets.iter().filter(|socket| socket.tcp.is_some()).collect();
        assert_eq!(connected.len(), 5);
        for (there, _) in &streams {
            let own = Some(there.local_addr().unwrap());
            assert_eq!(connected.iter().filter(|socket| socket.remote == own).count(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn connections_behave_as_they_are_told() {
    let hosts = hosts();
    let keepalive = Some(Keepalive {
        idle: Duration::from_secs(5).into(),
        interval: Duration::from_secs(1).into(),
        probes: 3,
    });
    let config = TcpConfig {
        statistics: true,
        no_delay: true,
        ..TcpConfig::default()
    };
    let options = ListenOptions {
        config: Some(config),
        ..ListenOptions::default()
    };
    let listener = TcpListener::bind_with(&hosts.server, addr(SERVER), options).unwrap();
    let there = TcpStream::connect(&hosts.client, addr(SERVER));
    let (there, here) = tokio::join!(there, listener.accept());
    let (mut there, mut here) = (there.unwrap(), here.unwrap().0);
    assert!(here.nodelay().unwrap() && !there.nodelay().unwrap());
    there.set_nodelay(true).unwrap();
    assert!(there.nodelay().unwrap());
    there.write_all(b"four").await.unwrap();
    here.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(here.statistics().unwrap().bytes_received, 4);
    assert!(there.statistics().is_none());
    there.set_keepalive(keepalive).unwrap();
    assert_eq!(there.config().unwrap().keepalive, keepalive);
    assert!(there.nodelay().unwrap(), "the other settings stay");
    // The peer does not answer any more.
    hosts.server.set_filter(Some(Filter {
        input: Chain::new([], Action::Drop),
        output: Chain::accept_all(),
    }));
    let start = Instant::now();
    let error = there.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 8);
}

/// Keeps the traffic class and the hop limit of the last packet that went.
struct Fields(Arc<Mutex<(u8, u8)>>);

impl Observer for Fields {
    fn observe(&mut self, direction: Direction, packet: Packet<'_>) {
        if direction == Direction::Out {
            *self.0.lock().unwrap() = match *packet.bytes {
                [0x40..=0x4F, tos, _, _, _, _, _, _, ttl, ..] => (tos, ttl),
                [first, second, _, _, _, _, _, hops, ..] => (first << 4 | second >> 4, hops),
                _ => (0, 0),
            };
        }
    }
}

#[tokio::test]
async fn traffic_class_and_hop_limit_are_set_while_it_runs() {
    let (left, right) = link::pair(Capabilities::plain(1500));
    let last = Arc::new(Mutex::new((0, 0)));
    let left = Tap::new(left, Fields(Arc::clone(&last)));
    let host = |number: u8| {
        Stack::builder()
            .address([10, 0, 0, number], 24)
            .address([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)], 64)
    };
    let (server, driver) = host(1).build(right).unwrap();
    tokio::spawn(driver);
    let (client, driver) = host(2).build(left).unwrap();
    tokio::spawn(driver);
    let listener = TcpListener::bind(&server, addr("[::]:80")).unwrap();
    for remote in [SERVER, SERVER_V6] {
        let (there, here) = tokio::join!(TcpStream::connect(&client, addr(remote)), listener.accept());
        let (mut there, mut here) = (there.unwrap(), here.unwrap().0);
        assert_eq!((there.tos().unwrap(), there.ttl().unwrap()), (0, 64));
        there.set_tos(0xB9).unwrap();
        there.set_ttl(3).unwrap();
        assert_eq!(there.set_ttl(0).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(there.set_ttl(256).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!((there.tos().unwrap(), there.ttl().unwrap()), (0xB8, 3));
        there.write_all(b"expedited").await.unwrap();
        here.read_exact(&mut [0; 9]).await.unwrap();
        assert_eq!(*last.lock().unwrap(), (0xB8, 3));
    }
}

#[tokio::test]
async fn a_stream_waits_until_all_is_delivered_or_is_reset_when_dropped() {
    let hosts = hosts();
    let (there, mut here) = connected(&hosts).await;
    there.try_write(b"last words").unwrap();
    there.finish().unwrap();
    timeout(PATIENCE, there.delivered()).await.unwrap().unwrap();
    let mut heard = String::new();
    here.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "last words");
    let (there, mut here) = connected(&hosts).await;
    there.set_zero_linger();
    drop(there);
    assert_eq!(
        here.read(&mut [0]).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    assert_eq!(
        here.delivered().await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test(start_paused = true)]
async fn owned_halves_have_deadlines() {
    let hosts = hosts();
    let (mut there, _here) = connected(&hosts).await;
    let deadline = Instant::now() + Duration::from_secs(3);
    there.set_read_deadline(Some(deadline));
    let (mut read, mut write) = there.into_split();
    write.set_write_deadline(Some(deadline + Duration::from_secs(3)));
    let error = read.read(&mut [0]).await.unwrap_err();
    assert_eq!(
        (error.kind(), Instant::now() >= deadline),
        (ErrorKind::TimedOut, true)
    );
    let full = loop {
        if let Err(error) = write.write(&[0; 65_536]).await {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::TimedOut);
    let mut whole = read.reunite(write).unwrap();
    let error = whole.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "the deadline came along");
}

#[tokio::test]
async fn those_who_poll_are_woken() {
    for stack in [hosts, sharded_hosts] {
        let hosts = stack();
        let listener = TcpListener::bind(&hosts.server, addr(SERVER)).unwrap();
        let here = UdpSocket::bind(&hosts.server, addr("10.0.0.1:53")).unwrap();
        let there = UdpSocket::bind(&hosts.client, addr("10.0.0.2:0")).unwrap();
        let accepting = std::future::poll_fn(|cx| listener.poll_accept(cx));
        let connecting = TcpStream::connect(&hosts.client, addr(SERVER));
        let (accepted, connected) = timeout(PATIENCE, async { tokio::join!(accepting, connecting) })
            .await
            .unwrap();
        assert_eq!(accepted.unwrap().1, connected.unwrap().local_addr().unwrap());
        let mut room = [0; 9];
        let mut buf = ReadBuf::new(&mut room);
        let receiving = std::future::poll_fn(|cx| here.poll_recv_from(cx, &mut buf));
        let sending = std::future::poll_fn(|cx| there.poll_send_to(cx, b"question", addr("10.0.0.1:53")));
        let (from, sent) = timeout(PATIENCE, async { tokio::join!(receiving, sending) })
            .await
            .unwrap();
        assert_eq!((from.unwrap(), sent.unwrap()), (there.local_addr().unwrap(), 8));
        assert_eq!(buf.filled(), b"question");
        assert_eq!(
            here.try_recv_msg(&mut [0; 9]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        let nobody = std::future::poll_fn(|cx| Poll::Ready(listener.poll_accept(cx).is_pending()));
        assert!(nobody.await);
        assert_eq!(listener.try_accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[tokio::test]
async fn what_linux_refuses_is_refused() {
    let hosts = hosts();
    let socket = UdpSocket::bind(&hosts.client, addr("0.0.0.0:0")).unwrap();
    for (to, kind) in [
        ("[2001:db8::1]:53", ErrorKind::InvalidInput),
        ("10.0.0.1:0", ErrorKind::InvalidInput),
        ("10.0.0.255:53", ErrorKind::PermissionDenied),
        ("255.255.255.255:53", ErrorKind::PermissionDenied),
    ] {
        assert_eq!(
            socket.send_to(b"x", addr(to)).await.unwrap_err().kind(),
            kind,
            "{to}"
        );
        assert_eq!(
            socket.try_send_to(b"x", addr(to)).unwrap_err().kind(),
            kind,
            "{to}"
        );
    }
    socket.set_broadcast(true).unwrap();
    socket.send_to(b"x", addr("10.0.0.255:53")).await.unwrap();
    // As on Linux an IPv6 wildcard is for IPv4 too.
    let here = UdpSocket::bind(&hosts.server, addr("10.0.0.1:53")).unwrap();
    let both = UdpSocket::bind(&hosts.client, addr("[::]:0")).unwrap();
    both.send_to(b"x", addr("10.0.0.1:53")).await.unwrap();
    timeout(PATIENCE, here.recv_from(&mut [0]))
        .await
        .unwrap()
        .unwrap();

    let listener = TcpListener::bind(&hosts.server, addr(SERVER)).unwrap();
    let asked = timeout(PATIENCE, listener.next_syn()).await.unwrap().unwrap_err();
    assert_eq!(asked.kind(), ErrorKind::InvalidInput);
    let mixed = TcpStream::connect_from(&hosts.client, addr("10.0.0.2:0"), addr("[2001:db8::1]:80")).await;
    let mixed = mixed.unwrap_err();
    assert_eq!(mixed.kind(), ErrorKind::InvalidInput);
    assert!(mixed.to_string().contains("10.0.0.2:0"), "{mixed}");
}

#[tokio::test]
async fn without_an_address_of_the_family_the_network_is_unreachable() {
    let (left, _right) = link::pair(Capabilities::plain(1500));
    let (stack, driver) = Stack::builder().address([10, 0, 0, 2], 24).build(left).unwrap();
    tokio::spawn(driver);
    let remote = addr("[2001:db8::1]:80");
    let unreached = TcpStream::connect(&stack, remote).await.unwrap_err();
    assert_eq!(unreached.kind(), ErrorKind::NetworkUnreachable);
    let text = unreached.to_string();
    assert!(
        text.contains("[2001:db8::1]:80") && text.contains("no IPv6 address"),
        "{text}"
    );
    let socket = UdpSocket::bind(&stack, addr("[::]:0")).unwrap();
    let unreached = socket.send_to(b"x", remote).await.unwrap_err();
    assert_eq!(unreached.kind(), ErrorKind::NetworkUnreachable);
}

#[tokio::test]
async fn errors_name_the_peer() {
    let hosts = hosts();
    let refused = TcpStream::connect(&hosts.client, addr(SERVER)).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "cannot reach 10.0.0.1:80: connection refused: nobody listens on that port"
    );
}

#[test]
fn a_stack_that_cannot_work_is_not_built() {
    let build = |address: &str, bits, mtu| {
        let address: IpAddr = address.parse().unwrap();
        let (left, _right) = link::pair(Capabilities::plain(mtu));
        let built = Stack::builder().address(address, bits).build(left);
        built.map(drop).map_err(|error| (error.kind(), error.to_string()))
    };
    build("10.0.0.1", 32, 576).unwrap();
    build("2001:db8::1", 128, 1280).unwrap();
    for (address, bits, mtu, named) in [
        ("10.0.0.1", 33, 1500, "10.0.0.1/33"),
        ("2001:db8::1", 200, 1500, "2001:db8::1/200"),
        ("0.0.0.0", 0, 1500, "0.0.0.0"),
        ("224.0.0.1", 24, 1500, "224.0.0.1"),
        ("10.0.0.1", 24, 20, "20 bytes"),
        ("2001:db8::1", 64, 1279, "1279 bytes"),
        ("10.0.0.1", 24, 100_000, "100000 bytes"),
    ] {
        let (kind, text) = build(address, bits, mtu).unwrap_err();
        assert!(kind == ErrorKind::InvalidInput && text.contains(named), "{text}");
    }
}

#[tokio::test]
async fn rules_tell_the_link_from_the_host_itself() {
    let lan = Device::new(7).unwrap();
    for shards in [1, 2] {
        let (left, right): (Vec<_>, Vec<_>) =
            (0..shards).map(|_| link::pair(Capabilities::plain(1500))).unzip();
        let (server, drivers) = Stack::builder()
            .address([10, 0, 0, 1], 24)
            .device(lan)
            .build_sharded(left)
            .unwrap();
        drivers.into_iter().for_each(|driver| drop(tokio::spawn(driver)));
        let (client, drivers) = Stack::builder()
            .address([10, 0, 0, 2], 24)
            .build_sharded(right)
            .unwrap();
        drivers.into_iter().for_each(|driver| drop(tokio::spawn(driver)));
        let _listener = TcpListener::bind(&server, addr("[::]:80")).unwrap();
        for (refused, from_client, from_itself) in [(lan, true, false), (Device::LOOPBACK, false, true)] {
            let new = Rule::new(Action::Reject(Reject::Reset)).states(ConnectionStates::NEW);
            server.set_filter(Some(Filter {
                input: Chain::new([new.device(refused)], Action::Accept),
                output: Chain::accept_all(),
            }));
            for (stack, is_refused) in [(&client, from_client), (&server, from_itself)] {
                for _ in 0..4 {
                    let connected = timeout(PATIENCE, TcpStream::connect(stack, addr(SERVER)))
                        .await
                        .unwrap();
                    assert_eq!(connected.is_err(), is_refused, "{refused:?}, {shards} shards");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn closing_waits_as_long_as_it_is_to_linger() {
    let hosts = hosts();
    // The peer has everything: no longer than that.
    let (there, mut here) = connected(&hosts).await;
    there.set_linger(Some(Duration::from_secs(30)));
    assert_eq!(there.linger(), Some(Duration::from_secs(30)));
    there.try_write(b"last words").unwrap();
    let start = Instant::now();
    assert_eq!(there.close().await.unwrap(), Closed::Delivered);
    assert!(start.elapsed() < Duration::from_secs(1));
    let mut heard = String::new();
    here.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "last words");
    // The peer does not answer for a while: the connection goes on in the background.
    let (there, mut here) = connected(&hosts).await;
    hosts.server.set_filter(Some(Filter {
        input: Chain::new([], Action::Drop),
        output: Chain::accept_all(),
    }));
    there.set_linger(Some(Duration::from_secs(2)));
    there.try_write(b"last words").unwrap();
    let start = Instant::now();
    assert_eq!(there.close().await.unwrap(), Closed::InBackground);
    assert_eq!(start.elapsed().as_secs(), 2);
    hosts.server.set_filter(None);
    heard.clear();
    here.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "last words");
    // Without a time nobody waits; something unread, or no time at all, makes it a RST.
    let (there, mut here) = connected(&hosts).await;
    there.try_write(b"last words").unwrap();
    assert_eq!(there.close().await.unwrap(), Closed::InBackground);
    heard.clear();
    here.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "last words");
    for linger in [Duration::ZERO, Duration::from_secs(30)] {
        let (there, mut here) = connected(&hosts).await;
        here.write_all(b"unread").await.unwrap();
        there.readable().await.unwrap();
        there.set_linger(Some(linger));
        assert_eq!(there.close().await.unwrap(), Closed::Reset);
        assert_eq!(
            here.read(&mut [0; 8]).await.unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }
}
