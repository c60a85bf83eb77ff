//! Two hosts, `10.0.0.1` and `10.0.0.2`, with a wire between them.

use std::net::SocketAddr;

use portolan_net::link::{self, Capabilities};
use portolan_net::{Stack, TcpListener, TcpStream};
use portolan_stack::StackConfig;
use tokio::task::JoinHandle;

pub(crate) const SERVER: &str = "10.0.0.1:80";
pub(crate) const SERVER_V6: &str = "[2001:db8::1]:80";

pub(crate) struct Hosts {
    pub(crate) server: Stack,
    pub(crate) client: Stack,
    /// The server's, then the client's.
    pub(crate) drivers: Vec<JoinHandle<std::io::Result<()>>>,
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn hosts() -> Hosts {
    hosts_with(StackConfig::default(), Capabilities::plain(1500))
}

/// Both hosts behave the same.
pub(crate) fn hosts_with(config: StackConfig, capabilities: Capabilities) -> Hosts {
    hosts_of(1, config, capabilities)
}

/// Hosts whose flows are shared out over two drivers each. Packets come to the wrong one, and are handed over.
pub(crate) fn sharded_hosts() -> Hosts {
    hosts_of(2, StackConfig::default(), Capabilities::plain(1500))
}

fn hosts_of(shards: usize, config: StackConfig, capabilities: Capabilities) -> Hosts {
    let (left, mut right): (Vec<_>, Vec<_>) = (0..shards).map(|_| link::pair(capabilities)).unzip();
    right.reverse();
    let mut drivers = Vec::new();
    let mut host = |number: u8, links| {
        let (stack, own) = Stack::builder()
            .address([10, 0, 0, number], 24)
            .address([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)], 64)
            .config(config)
            .secret([number; 16])
            .build_sharded(links)
            .unwrap();
        drivers.extend(own.into_iter().map(tokio::spawn));
        stack
    };
    let (server, client) = (host(1, left), host(2, right));
    Hosts {
        server,
        client,
        drivers,
    }
}

/// A connection: the client's end and the server's.
pub(crate) async fn connected(hosts: &Hosts) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(&hosts.server, addr("10.0.0.1:0")).unwrap();
    let there = TcpStream::connect(&hosts.client, listener.local_addr().unwrap());
    let (there, here) = tokio::join!(there, listener.accept());
    (there.unwrap(), here.unwrap().0)
}

/// Bytes that are different at every place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|place| (place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect()
}
