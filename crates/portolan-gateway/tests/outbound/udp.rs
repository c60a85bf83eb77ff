//! Datagrams out.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use portolan_gateway::flows::{Direction, FlowProtocol, FlowState};
use portolan_gateway::gate::{DenyWith, Policy};
use portolan_gateway::outbound::{OutboundOptions, UdpLimits};
use portolan_net::UdpSocket;
use portolan_stack::{PathError, UdpOption};
use tokio::time::timeout;

use crate::support::namespace::{HOST_V4, HOST_V6, NO_ROUTE, PROHIBITED, UNREACHABLE, in_namespace};
use crate::support::wire;
use crate::support::world::{
    Gateway, PATIENCE, World, addr, eventually, gateway, pattern, world, world_with,
};

/// A socket of the program.
fn program(world: &World, server: SocketAddr) -> UdpSocket {
    let own = if server.is_ipv4() { "10.0.0.2" } else { "fd00::2" };
    UdpSocket::bind(&world.client, addr(own, 0)).unwrap()
}

/// Gives every datagram back, and the port that it came from first if it is short.
async fn echo(host: &str) -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind(addr(host, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = vec![0; 65_535];
        loop {
            let (len, from) = socket.recv_from(&mut bytes).await.unwrap();
            socket.send_to(&bytes[..len], from).await.unwrap();
        }
    });
    address
}

async fn ask(socket: &UdpSocket, server: SocketAddr, question: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; 65_535];
    let asking = async {
        socket.send_to(question, server).await.unwrap();
        let (len, from) = socket.recv_from(&mut answer).await.unwrap();
        assert_eq!(from, server);
        len
    };
    let len = timeout(PATIENCE, asking).await.expect("there is an answer");
    answer.truncate(len);
    answer
}

#[test]
fn datagrams_of_every_length_are_answered_and_listed() {
    in_namespace(
        "udp::datagrams_of_every_length_are_answered_and_listed",
        || async {
            let world = world();
            for host in [HOST_V4, HOST_V6] {
                let server = echo(host).await;
                let socket = program(&world, server);
                // The longest are in fragments on both sides.
                for len in [0, 1, 1400, 1472, 1473, 9000, 65_000] {
                    let question = pattern(len);
                    assert_eq!(ask(&socket, server, &question).await, question, "{len} bytes");
                }
                let flows = world.flows.list();
                let flow = flows.iter().find(|flow| flow.info.outside == server).unwrap();
                assert_eq!(
                    (flow.info.protocol, flow.info.direction),
                    (FlowProtocol::Udp, Direction::Out)
                );
                assert_eq!(flow.info.inside.port(), socket.local_addr().unwrap().port());
                assert_eq!(flow.state, FlowState::Open);
                assert_eq!((flow.traffic.packets_out, flow.traffic.packets_in), (7, 7));
                let bytes = 1 + 1400 + 1472 + 1473 + 9000 + 65_000;
                assert_eq!((flow.traffic.bytes_out, flow.traffic.bytes_in), (bytes, bytes));
            }
            assert_eq!(world.flows.count(), 2);
        },
    );
}

#[test]
fn bursts_arrive_whole_and_in_order() {
    in_namespace("udp::bursts_arrive_whole_and_in_order", || async {
        let world = world();
        let server = tokio::net::UdpSocket::bind(addr(HOST_V4, 0)).await.unwrap();
        let destination = server.local_addr().unwrap();
        let socket = program(&world, destination);
        let mut bytes = [0; 2048];
        let mut number = 0_u32;
        for len in [64, 1400, 700] {
            for _ in 0..20 {
                // As many as the sockets hold; the last is shorter, as the last piece of a row may be.
                let lens: Vec<usize> = std::iter::repeat_n(len, 39).chain([len - 9]).collect();
                for (index, &len) in lens.iter().enumerate() {
                    let mut datagram = vec![0; len];
                    datagram[..4].copy_from_slice(&(number + index as u32).to_be_bytes());
                    socket.send_to(&datagram, destination).await.unwrap();
                }
                for &len in &lens {
                    let receiving = server.recv_from(&mut bytes);
                    let (received, _) = timeout(PATIENCE, receiving).await.unwrap().unwrap();
                    assert_eq!(received, len);
                    assert_eq!(bytes[..4], number.to_be_bytes());
                    number += 1;
                }
            }
        }
        assert_eq!(world.counters.read().lost, 0);
    });
}

#[test]
fn a_closed_port_is_told() {
    in_namespace("udp::a_closed_port_is_told", || async {
        let world = world();
        for host in [HOST_V4, HOST_V6] {
            let closed = std::net::UdpSocket::bind(addr(host, 0))
                .unwrap()
                .local_addr()
                .unwrap();
            let socket = program(&world, closed);
            socket.connect(closed).unwrap();
            for _ in 0..3 {
                socket.send(b"anybody?").await.unwrap();
                let error = timeout(PATIENCE, socket.recv(&mut [0; 8]))
                    .await
                    .unwrap()
                    .unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
        }
    });
}

#[test]
fn what_the_host_cannot_reach_is_told() {
    in_namespace("udp::what_the_host_cannot_reach_is_told", || async {
        let world = world();
        for (destination, expected) in [
            (UNREACHABLE, PathError::HostUnreachable),
            (PROHIBITED, PathError::HostProhibited),
            (NO_ROUTE, PathError::NetworkUnreachable),
        ] {
            let destination = addr(destination, 9);
            let socket = program(&world, destination);
            socket.set_option(UdpOption::ReportErrors(true)).unwrap();
            socket.send_to(b"anybody?", destination).await.unwrap();
            let mut told = None;
            eventually("it is told", || {
                told = told.or_else(|| socket.next_error());
                told.is_some()
            })
            .await;
            let told = told.unwrap();
            assert_eq!((told.error, told.remote), (expected, destination));
        }
    });
}

/// A socket has one port for everybody, as without a gateway; strangers are not heard.
#[test]
fn a_socket_of_the_program_has_one_port_for_everybody() {
    in_namespace(
        "udp::a_socket_of_the_program_has_one_port_for_everybody",
        || async {
            let world = world();
            let mut ports = Vec::new();
            let mut bytes = [0; 16];
            let servers = [
                tokio::net::UdpSocket::bind(addr(HOST_V4, 0)).await.unwrap(),
                tokio::net::UdpSocket::bind(addr(HOST_V4, 0)).await.unwrap(),
            ];
            let socket = program(&world, servers[0].local_addr().unwrap());
            for server in &servers {
                socket
                    .send_to(b"who am I?", server.local_addr().unwrap())
                    .await
                    .unwrap();
                let (_, from) = timeout(PATIENCE, server.recv_from(&mut bytes))
                    .await
                    .unwrap()
                    .unwrap();
                ports.push(from);
            }
            assert_eq!(ports[0].port(), ports[1].port());
            let stranger = tokio::net::UdpSocket::bind(addr(HOST_V4, 0)).await.unwrap();
            stranger.send_to(b"let me in", ports[0]).await.unwrap();
            eventually("the stranger is counted", || world.counters.read().unasked == 1).await;
            servers[1].send_to(b"you", ports[0]).await.unwrap();
            let (len, from) = timeout(PATIENCE, socket.recv_from(&mut bytes))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(
                (&bytes[..len], from),
                (&b"you"[..], servers[1].local_addr().unwrap())
            );
        },
    );
}

#[test]
fn sessions_are_bounded_and_the_longest_idle_gives_way() {
    in_namespace(
        "udp::sessions_are_bounded_and_the_longest_idle_gives_way",
        || async {
            let udp = UdpLimits {
                sessions: 8,
                sockets: 4,
                ..UdpLimits::default()
            };
            let world = world_with(
                Policy::default(),
                OutboundOptions {
                    udp,
                    ..OutboundOptions::default()
                },
                100,
            );
            let server = echo(HOST_V4).await;
            // One socket for many, and many sockets.
            let mut others = Vec::new();
            let socket = program(&world, server);
            for _ in 0..20 {
                others.push(echo(HOST_V4).await);
            }
            for &other in &others {
                assert_eq!(ask(&socket, other, b"one for many").await, b"one for many");
                assert!(world.flows.count() <= 8);
            }
            assert_eq!(world.counters.read().evicted, 12);
            for _ in 0..20 {
                assert_eq!(ask(&program(&world, server), server, b"many").await, b"many");
            }
            assert!(world.flows.count() <= 8);
            // Who gave way begins anew.
            assert_eq!(ask(&socket, others[0], b"again").await, b"again");
            assert_eq!(world.counters.read().no_room, 0);
        },
    );
}

#[test]
fn sessions_end_when_they_are_idle() {
    in_namespace("udp::sessions_end_when_they_are_idle", || async {
        let udp = UdpLimits {
            stream: Duration::from_millis(100),
            unanswered: Duration::from_millis(100),
            ..UdpLimits::default()
        };
        let world = world_with(
            Policy::default(),
            OutboundOptions {
                udp,
                ..OutboundOptions::default()
            },
            100,
        );
        let server = echo(HOST_V4).await;
        ask(&program(&world, server), server, b"question").await;
        eventually("the session ends", || world.flows.count() == 0).await;
        assert_eq!(world.flows.totals().traffic.packets_in, 1);
        assert_eq!(
            ask(&program(&world, server), server, b"question").await,
            b"question"
        );
    });
}

#[test]
fn a_denied_datagram_is_answered_as_the_policy_says_and_never_sent() {
    in_namespace(
        "udp::a_denied_datagram_is_answered_as_the_policy_says_and_never_sent",
        || async {
            // The default denies link-local addresses; this one is the host's own.
            let server = tokio::net::UdpSocket::bind(addr("169.254.7.7", 0)).await.unwrap();
            let destination = server.local_addr().unwrap();
            for (deny_with, kind) in [
                (DenyWith::Icmp, Some(ErrorKind::HostUnreachable)),
                (DenyWith::Reset, Some(ErrorKind::ConnectionRefused)),
                (DenyWith::Drop, None),
            ] {
                let policy = Policy {
                    deny_with: Some(deny_with),
                    ..Policy::default()
                };
                let world = world_with(policy, OutboundOptions::default(), 100);
                let socket = program(&world, destination);
                socket.connect(destination).unwrap();
                socket.send(b"let me out").await.unwrap();
                eventually("it is denied", || world.counters.read().denied == 1).await;
                if let Some(kind) = kind {
                    let error = timeout(PATIENCE, socket.recv(&mut [0; 8]))
                        .await
                        .unwrap()
                        .unwrap_err();
                    assert_eq!(error.kind(), kind);
                }
                assert_eq!(world.flows.totals().opened, 0);
            }
            let error = server.try_recv_from(&mut [0; 16]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "something came");
        },
    );
}

#[test]
fn no_datagram_reaches_the_loopback_of_the_host() {
    in_namespace("udp::no_datagram_reaches_the_loopback_of_the_host", || async {
        let any = tokio::net::UdpSocket::bind("[::]:0").await.unwrap();
        let port = any.local_addr().unwrap().port();
        let Gateway { mut link, flows, .. } = gateway(Policy::default(), OutboundOptions::default(), 100);
        let good = addr(HOST_V4, port);
        for destination in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "10.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "fd00::1",
            "ff02::1",
            // What comes behind them passes, so they have been judged.
            HOST_V4,
        ] {
            let destination = addr(destination, port);
            let source = addr(
                if destination.is_ipv4() {
                    "10.0.0.2"
                } else {
                    "fd00::2"
                },
                40_000,
            );
            wire::send(&mut link, &wire::datagram(source, destination)).await;
        }
        let (len, _) = timeout(PATIENCE, any.recv_from(&mut [0; 16]))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(len, 0);
        let error = any.try_recv_from(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "something else came");
        let opened: Vec<_> = flows.list().into_iter().map(|flow| flow.info.outside).collect();
        assert_eq!(opened, [good]);
    });
}
