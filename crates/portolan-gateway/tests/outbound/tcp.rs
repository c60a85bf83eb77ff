//! Connections out, as the program sees them and as they are listed.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use portolan_gateway::flows::{Direction, FlowProtocol, FlowState};
use portolan_gateway::gate::Policy;
use portolan_gateway::outbound::OutboundOptions;
use portolan_net::TcpStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::namespace::{HOST_V4, HOST_V6, PROHIBITED, in_namespace};
use crate::support::world::{PATIENCE, addr, eventually, pattern, world, world_with};

#[test]
fn a_connection_is_listed_while_it_is_there_and_counted_when_it_is_gone() {
    in_namespace(
        "tcp::a_connection_is_listed_while_it_is_there_and_counted_when_it_is_gone",
        || async {
            let world = world();
            for host in [HOST_V4, HOST_V6] {
                let server = TcpListener::bind(addr(host, 0)).await.unwrap();
                let destination = server.local_addr().unwrap();
                let (there, here) =
                    tokio::join!(TcpStream::connect(&world.client, destination), server.accept());
                let (mut there, (mut here, _)) = (there.unwrap(), here.unwrap());
                there.write_all(b"question").await.unwrap();
                let mut bytes = [0; 8];
                here.read_exact(&mut bytes).await.unwrap();
                assert_eq!(&bytes, b"question");
                here.write_all(b"answer").await.unwrap();
                there.read_exact(&mut bytes[..6]).await.unwrap();

                let flows = world.flows.list_with(&world.gateway);
                assert_eq!(flows.len(), 1);
                let flow = &flows[0];
                assert_eq!(
                    (flow.info.protocol, flow.info.direction),
                    (FlowProtocol::Tcp, Direction::Out)
                );
                assert_eq!(flow.info.inside, there.local_addr().unwrap());
                assert_eq!(flow.info.outside, destination);
                assert_eq!(flow.state, FlowState::Open);
                assert_eq!((flow.traffic.bytes_out, flow.traffic.bytes_in), (8, 6));

                let tcp = flow.tcp.unwrap();
                assert_eq!(tcp.state.to_string(), "established");
                assert!(tcp.rtt.is_some());
                assert_eq!(tcp.bytes_retransmitted, 0);
                assert!(flow.traffic.packets_out >= 1 && flow.traffic.packets_in >= 1);

                there.shutdown().await.unwrap();
                assert_eq!(here.read(&mut bytes).await.unwrap(), 0);
                drop(here);
                assert_eq!(there.read(&mut bytes).await.unwrap(), 0);
                eventually("the flow ends", || world.flows.count() == 0).await;
            }
            let totals = world.flows.totals();
            assert_eq!((totals.opened, totals.most), (2, 1));
            assert_eq!((totals.traffic.bytes_out, totals.traffic.bytes_in), (16, 12));
            assert_eq!(world.counters.read().dialled, 2);
        },
    );
}

#[test]
fn a_thousand_connections_at_once() {
    in_namespace("tcp::a_thousand_connections_at_once", || async {
        const COUNT: usize = 1000;
        let world = world();
        let server = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        server.bind(&addr(HOST_V4, 0).into()).unwrap();
        server.listen(COUNT as i32).unwrap();
        server.set_nonblocking(true).unwrap();
        let server = TcpListener::from_std(server.into()).unwrap();
        let destination = server.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = server.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut number = [0; 4];
                    stream.read_exact(&mut number).await.unwrap();
                    stream.write_all(&number).await.unwrap();
                    // Until the client is done.
                    let _ = stream.read(&mut number).await;
                });
            }
        });
        let clients: Vec<_> = (0..COUNT as u32)
            .map(|number| {
                let client = world.client.clone();
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect(&client, destination).await.unwrap();
                    stream.write_all(&number.to_be_bytes()).await.unwrap();
                    let mut answer = [0; 4];
                    stream.read_exact(&mut answer).await.unwrap();
                    assert_eq!(u32::from_be_bytes(answer), number);
                    stream
                })
            })
            .collect();
        let mut streams = Vec::new();
        for client in clients {
            streams.push(client.await.unwrap());
        }
        assert_eq!(world.flows.count(), COUNT);
        drop(streams);
        eventually("the flows end", || world.flows.count() == 0).await;
    });
}

#[test]
fn when_there_are_as_many_flows_as_there_may_be_another_is_refused() {
    in_namespace(
        "tcp::when_there_are_as_many_flows_as_there_may_be_another_is_refused",
        || async {
            let world = world_with(Policy::default(), OutboundOptions::default(), 2);
            let server = TcpListener::bind(addr(HOST_V4, 0)).await.unwrap();
            let destination = server.local_addr().unwrap();
            let held = [
                TcpStream::connect(&world.client, destination).await.unwrap(),
                TcpStream::connect(&world.client, destination).await.unwrap(),
            ];
            let error = TcpStream::connect(&world.client, destination).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            assert_eq!(world.flows.totals().refused, 1);
            drop(held);
            // Their relays end when the server's side is done as well.
            for _ in 0..2 {
                drop(server.accept().await.unwrap());
            }
            eventually("the flows end", || world.flows.count() == 0).await;
            TcpStream::connect(&world.client, destination).await.unwrap();
        },
    );
}

/// A route that forbids is EACCES to a program of the host; inside it is what a router tells who does so.
#[test]
fn what_the_host_may_not_reach_is_prohibited() {
    in_namespace("tcp::what_the_host_may_not_reach_is_prohibited", || async {
        let world = world();
        let error = TcpStream::connect(&world.client, addr(PROHIBITED, 80))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostUnreachable);
        assert!(error.to_string().contains("prohibited"), "{error}");
    });
}

/// A ClientHello in two pieces for the allowed name passes with every byte; another name, none, or silence do not.
#[test]
fn a_connection_that_must_show_its_name_passes_nothing_before() {
    in_namespace(
        "tcp::a_connection_that_must_show_its_name_passes_nothing_before",
        || async {
            let server = TcpListener::bind(addr(HOST_V4, 0)).await.unwrap();
            let destination = server.local_addr().unwrap();
            let mut policy = Policy::default();
            let target = format!("good.example:{}", destination.port());
            policy.allow_name(target.parse().unwrap()).unwrap();
            let world = world_with(policy, OutboundOptions::default(), 100);
            let pinned = world
                .gate
                .answered("good.example", &[(destination.ip(), PATIENCE)]);
            assert_eq!(pinned, [destination.ip()]);
            for (request, passes) in [
                ("GET / HTTP/1.1\r\nHost: good.example\r\n\r\n", true),
                ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", false),
                ("SSH-2.0-x\r\n", false),
            ] {
                let connecting = TcpStream::connect(&world.client, destination);
                let (there, here) = tokio::join!(connecting, server.accept());
                let (mut there, (mut here, _)) = (there.unwrap(), here.unwrap());
                let (first, second) = request.as_bytes().split_at(9);
                there.write_all(first).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
                // It may have been reset for the first part.
                let _ = there.write_all(second).await;
                let mut bytes = vec![0; request.len()];
                let read = timeout(PATIENCE, here.read_exact(&mut bytes)).await.unwrap();
                match read {
                    Ok(_) => assert!(passes && bytes == request.as_bytes(), "{request}"),
                    Err(error) => {
                        assert!(!passes, "{request}");
                        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                        assert_eq!(bytes[0], 0, "nothing came");
                    }
                }
            }
            assert_eq!(world.counters.read().denied, 2);
        },
    );
}

/// 400 kbit/s are 50,000 bytes a second, with as much at once at the beginning.
#[test]
fn a_rule_limits_what_is_carried() {
    in_namespace("tcp::a_rule_limits_what_is_carried", || async {
        let server = TcpListener::bind(addr(HOST_V4, 0)).await.unwrap();
        let destination = server.local_addr().unwrap();
        let mut policy = Policy::default();
        policy.allow(format!("{destination}@400kbit").parse().unwrap());
        let world = world_with(policy, OutboundOptions::default(), 100);
        let (there, here) = tokio::join!(TcpStream::connect(&world.client, destination), server.accept());
        let (mut there, (mut here, _)) = (there.unwrap(), here.unwrap());
        let sent = pattern(100_000);
        let began = Instant::now();
        let sending = async {
            there.write_all(&sent).await.unwrap();
            there.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let ((), result) = tokio::join!(sending, here.read_to_end(&mut received));
        result.unwrap();
        assert_eq!(received, sent);
        assert!(
            began.elapsed() > Duration::from_millis(500),
            "{:?}",
            began.elapsed()
        );
    });
}
