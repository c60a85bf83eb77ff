//! Pings out.

use std::time::Duration;

use portolan_gateway::flows::{Direction, FlowProtocol};
use portolan_net::{PingSocket, Pong};
use portolan_stack::PathError;
use tokio::time::timeout;

use crate::support::namespace::{
    BLACK_HOLE, HOST_V4, HOST_V6, NO_ROUTE, PROHIBITED, UNREACHABLE, in_namespace, skipped,
};
use crate::support::world::{PATIENCE, World, pattern, world};

/// Who may have ping sockets. Says so where that cannot be set.
fn allow_pings(groups: &str) -> bool {
    let result = std::fs::write("/proc/sys/net/ipv4/ping_group_range", groups);
    if let Err(error) = &result {
        skipped(&format!("cannot set net.ipv4.ping_group_range: {error}"));
    }
    result.is_ok()
}

/// Asks, and gives what is heard of it.
async fn ping(world: &World, host: &str, data: &[u8], sequence: u16) -> (Pong, Vec<u8>) {
    let own = if host.contains(':') { "fd00::2" } else { "10.0.0.2" };
    let socket = PingSocket::bind(&world.client, own.parse().unwrap()).unwrap();
    socket.send_to(data, host.parse().unwrap(), sequence).unwrap();
    let mut bytes = vec![0; 65_535];
    let pong = timeout(PATIENCE, socket.recv(&mut bytes)).await.unwrap().unwrap();
    if let Pong::Reply(echo) = pong {
        bytes.truncate(echo.len);
    }
    (pong, bytes)
}

#[test]
fn pings_are_answered_by_whom_they_are_for() {
    in_namespace("echo::pings_are_answered_by_whom_they_are_for", || async {
        if !allow_pings("0 0") {
            return;
        }
        let world = world();
        for (number, host) in [HOST_V4, HOST_V6].into_iter().enumerate() {
            for (sequence, len) in [(1, 0), (2, 56), (65_535, 1472), (7, 30_000)] {
                let data = pattern(len);
                let (pong, bytes) = ping(&world, host, &data, sequence).await;
                let Pong::Reply(echo) = pong else {
                    panic!("{pong:?}");
                };
                assert_eq!((echo.remote, echo.sequence), (host.parse().unwrap(), sequence));
                assert_eq!(bytes, data);
            }
            let flows = world.flows.list();
            let flow = &flows[number * 4];
            assert_eq!(
                (flow.info.protocol, flow.info.direction),
                (FlowProtocol::Icmp, Direction::Out)
            );
            assert_eq!(flow.info.outside.ip(), host.parse::<std::net::IpAddr>().unwrap());
            assert_eq!((flow.traffic.packets_out, flow.traffic.packets_in), (1, 1));
        }
    });
}

#[test]
fn what_cannot_be_pinged_is_told_and_silence_is_silence() {
    in_namespace(
        "echo::what_cannot_be_pinged_is_told_and_silence_is_silence",
        || async {
            if !allow_pings("0 0") {
                return;
            }
            let world = world();
            for (host, expected) in [
                (UNREACHABLE, PathError::HostUnreachable),
                (PROHIBITED, PathError::HostProhibited),
                (NO_ROUTE, PathError::NetworkUnreachable),
                // What the policy denies.
                ("169.254.7.7", PathError::HostProhibited),
            ] {
                let (pong, _) = ping(&world, host, b"anybody?", 3).await;
                let Pong::Error(told) = pong else {
                    panic!("{host}: {pong:?}");
                };
                assert_eq!(told.error.error, expected, "{host}");
            }
            assert_eq!(world.counters.read().denied, 1);
            let silent = timeout(
                Duration::from_millis(300),
                ping(&world, BLACK_HOLE, b"anybody?", 1),
            )
            .await;
            assert!(silent.is_err(), "{silent:?}");
        },
    );
}

#[test]
fn without_ping_sockets_pings_are_prohibited_and_counted() {
    in_namespace(
        "echo::without_ping_sockets_pings_are_prohibited_and_counted",
        || async {
            if !allow_pings("1 0") {
                return;
            }
            let world = world();
            for (host, expected) in [
                (HOST_V4, PathError::HostProhibited),
                (HOST_V6, PathError::Prohibited),
            ] {
                let (pong, _) = ping(&world, host, b"anybody?", 3).await;
                let Pong::Error(told) = pong else {
                    panic!("{host}: {pong:?}");
                };
                assert_eq!(told.error.error, expected);
            }
            assert_eq!(world.counters.read().no_ping, 2);
            world.counters.ping_refused().await;
            assert_eq!(world.flows.totals().opened, 0);
        },
    );
}
