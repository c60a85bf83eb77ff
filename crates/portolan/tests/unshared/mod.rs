//! Ports that no socket of this network namespace has but those that a test makes. A free port from the kernel is not
//! enough: connections in TIME-WAIT may rest on it, and a socket of another protocol may have its number.

#![allow(dead_code, reason = "no test program needs both")]

use std::fs;
use std::net::{Ipv4Addr, TcpListener};

/// A listener on loopback whose port no other socket has.
pub(crate) fn listener() -> TcpListener {
    let found = (0..1000).find_map(|_| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        (sockets(port) == 1).then_some(listener)
    });
    found.expect("each port of 1000 has other sockets too")
}

/// A port that no socket has, and that the kernel gives to none by itself, if it leaves any.
pub(crate) fn port() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let ends: Vec<u16> = range.split_whitespace().map(|end| end.parse().unwrap()).collect();
    // Test programs that run at the same time begin at different places.
    let begin = u16::try_from(std::process::id() % 20_000).unwrap();
    let all = || (0..20_000).map(|step| 10_000 + (begin + step) % 20_000);
    all()
        .filter(|port| !(ends[0]..=ends[1]).contains(port))
        .chain(all())
        .find(|port| sockets(*port) == 0)
        .expect("each port from 10000 to 29999 has a socket")
}

/// How many sockets have the port as their own.
fn sockets(port: u16) -> usize {
    let own = format!(":{port:04X}");
    ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6"]
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/net/{table}")).ok())
        .map(|table| {
            let local = |line: &&str| {
                line.split_whitespace()
                    .nth(1)
                    .is_some_and(|local| local.ends_with(&own))
            };
            table.lines().filter(local).count()
        })
        .sum()
}
