//! What is denied does not leave, not by one packet.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use portolan_gateway::gate::{DenyWith, Policy};
use portolan_gateway::outbound::OutboundOptions;
use portolan_net::TcpStream;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::namespace::{HOST_V4, in_namespace};
use crate::support::wire;
use crate::support::world::{Gateway, PATIENCE, addr, gateway, world_with};

#[test]
fn a_denied_connection_is_answered_as_the_policy_says_and_never_dialled() {
    in_namespace(
        "nothing_leaves::a_denied_connection_is_answered_as_the_policy_says_and_never_dialled",
        || async {
            // The default denies link-local addresses; this one is the host's own.
            let server = TcpListener::bind(addr(LINK_LOCAL, 0)).await.unwrap();
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
                let connecting = TcpStream::connect(&world.client, destination);
                match kind {
                    Some(kind) => {
                        let error = timeout(PATIENCE, connecting).await.unwrap().unwrap_err();
                        assert_eq!(error.kind(), kind);
                    }
                    None => {
                        // SYNs at 0 and 1 seconds.
                        let result = timeout(Duration::from_millis(1500), connecting).await;
                        assert!(result.is_err(), "silence is no answer: {result:?}");
                    }
                }
                let counts = world.counters.read();
                assert!(counts.denied >= 1);
                assert_eq!(counts.dialled, 0);
            }
            let waiting = timeout(Duration::ZERO, server.accept()).await;
            assert!(waiting.is_err(), "somebody came: {waiting:?}");
        },
    );
}

#[test]
fn nothing_reaches_the_loopback_of_the_host() {
    in_namespace(
        "nothing_leaves::nothing_reaches_the_loopback_of_the_host",
        || async {
            // On every address, of both families.
            let any = TcpListener::bind("[::]:0").await.unwrap();
            let port = any.local_addr().unwrap().port();
            let Gateway {
                mut link,
                flows,
                counters,
                ..
            } = gateway(Policy::default(), OutboundOptions::default(), 100);
            let destinations = [
                "127.0.0.1",
                "127.8.8.8",
                "0.0.0.0",
                "10.0.0.1",
                "::1",
                "::",
                "::ffff:127.0.0.1",
                "::127.0.0.1",
                "fd00::1",
            ];
            for destination in destinations {
                let destination = addr(destination, port);
                wire::send(&mut link, &wire::syn(source_for(destination), destination)).await;
            }
            // What comes behind them passes, so they have been judged.
            let good = addr(HOST_V4, port);
            wire::send(&mut link, &wire::syn(source_for(good), good)).await;
            let (stream, _) = timeout(PATIENCE, any.accept()).await.unwrap().unwrap();
            assert_eq!(stream.local_addr().unwrap().ip().to_canonical(), good.ip());
            assert_eq!(counters.read().dialled, 1, "nobody else was dialled");
            assert_eq!(flows.totals().opened, 1);
        },
    );
}

fn source_for(destination: SocketAddr) -> SocketAddr {
    addr(
        if destination.is_ipv4() {
            "10.0.0.2"
        } else {
            "fd00::2"
        },
        40_000,
    )
}

/// An address of the host that programs do not reach.
const LINK_LOCAL: &str = "169.254.7.7";
