//! What connections in TIME-WAIT weigh at the side that closed first, and that nothing is left of them after.

use std::net::{IpAddr, SocketAddr};

use portolan_core::table::{Device, Host, PortChoice, TIME_WAIT};
use portolan_stack::{Duration, Event, Instant, ListenerId, Packet, SocketInfo, Stack, StackConfig};

use super::counting;

/// The table that they are found by has just doubled: 7/8 of 2^16 places is the most that half of it took.
const COUNT: u32 = 58_000;

const SERVERS: [&str; 2] = ["10.0.0.1:80", "[fd00::1]:80"];
const CLIENTS: [&str; 2] = ["10.0.0.2", "fd00::2"];

fn stack(addresses: [IpAddr; 2]) -> Stack {
    let config = StackConfig {
        pool_bytes: 0,
        awake_connections: 4,
        ..StackConfig::default()
    };
    let mut host = Host::new();
    for address in addresses {
        host.add_address(Device::new(1).unwrap(), address, Some(24));
    }
    Stack::new(config, host, [9; 16])
}

fn settle(now: Instant, server: &mut Stack, client: &mut Stack, packet: &mut [u8]) {
    let mut carry = |from: &mut Stack, to: &mut Stack| {
        let mut carried = false;
        while let Some(transmit) = from.poll_transmit(now, packet) {
            let (bytes, offload) = (&packet[..transmit.len], transmit.offload);
            to.handle_packet(now, Packet { bytes, offload });
            carried = true;
        }
        carried
    };
    while carry(client, server) | carry(server, client) {}
}

fn is_waiting(info: &SocketInfo) -> bool {
    info.state.name() == "time-wait"
}

/// Opens a connection of this number and closes it at the server first.
fn round(
    now: Instant,
    server: &mut Stack,
    listeners: [ListenerId; 2],
    client: &mut Stack,
    number: u32,
    packet: &mut [u8],
) {
    let family = (number % 2) as usize;
    let port = (2_000 + number / 2) as u16;
    let local = SocketAddr::new(CLIENTS[family].parse().unwrap(), port);
    let id = client
        .connect(now, local, SERVERS[family].parse().unwrap())
        .unwrap();
    settle(now, server, client, packet);
    let accepted = server.accept(listeners[family]).unwrap();
    server.close(now, accepted).unwrap();
    settle(now, server, client, packet);
    client.close(now, id).unwrap();
    settle(now, server, client, packet);
    for end in [server, client] {
        while let Some(event) = end.poll_event() {
            assert!(!matches!(event, Event::Readable(_)), "{event:?}");
        }
    }
}

#[test]
fn a_connection_in_time_wait_weighs_less_than_64_bytes_and_nothing_after() {
    let servers = SERVERS.map(|end| end.parse::<SocketAddr>().unwrap());
    let mut server = stack(servers.map(|end| end.ip()));
    let listeners = servers.map(|end| server.listen(end, 16).unwrap());
    let mut packet = vec![0; server.max_packet_len()];
    let mut now = Instant::from_millis(1);
    let before = counting::held();
    let mut client = stack(CLIENTS.map(|address| address.parse().unwrap()));
    for number in 0..COUNT {
        round(now, &mut server, listeners, &mut client, number, &mut packet);
        now += Duration::from_micros(100);
    }
    let last = now;
    drop(client);
    assert_eq!(server.connection_count(), 0);
    assert_eq!(server.sockets().filter(is_waiting).count(), COUNT as usize);
    let each = (counting::held() - before) as f64 / f64::from(COUNT);
    println!("{COUNT} connections in TIME-WAIT: {each:.1} bytes each");
    assert!(each <= 64.0, "{each}");
    // Two listeners, and for both ends one socket in TIME-WAIT.
    assert_eq!(server.table().len(), 4);

    // Each waits for a minute, and the first is due first.
    let first = server.poll_timeout().unwrap();
    let minute = Duration::from(TIME_WAIT);
    assert_eq!(first, Instant::from_millis(1) + minute);
    server.handle_timeout(first);
    assert_eq!(server.sockets().filter(is_waiting).count(), COUNT as usize - 1);
    server.handle_timeout(last + minute);
    assert_eq!(server.sockets().filter(is_waiting).count(), 0);
    assert_eq!(server.poll_timeout(), None);
    assert_eq!(server.table().len(), 2);
    // What a stack that has done something keeps, whatever their number was.
    let left = counting::held().saturating_sub(before);
    println!("{left} bytes after");
    assert!(left < 160 << 10, "{left}");
}

/// The table has the port only, the stack the four-tuple: together they refuse what Linux refuses.
#[test]
fn a_port_and_a_four_tuple_that_wait_are_not_given_again() {
    let servers = SERVERS.map(|end| end.parse::<SocketAddr>().unwrap());
    let mut server = stack(servers.map(|end| end.ip()));
    let mut client = stack(CLIENTS.map(|address| address.parse().unwrap()));
    let listener = server.listen(servers[0], 16).unwrap();
    let mut packet = vec![0; server.max_packet_len()];
    let mut now = Instant::from_millis(1);
    let local = SocketAddr::new(CLIENTS[0].parse().unwrap(), 0);
    let mut close_first = |now, client: &mut Stack, server: &mut Stack, local| {
        let id = client.connect(now, local, servers[0]).unwrap();
        settle(now, server, client, &mut packet);
        let accepted = server.accept(listener).unwrap();
        client.close(now, id).unwrap();
        settle(now, server, client, &mut packet);
        server.close(now, accepted).unwrap();
        settle(now, server, client, &mut packet);
        let waiting = client.sockets().filter(is_waiting).last().unwrap();
        assert_eq!(waiting.remote, Some(servers[0]));
        waiting.local
    };
    let bound = SocketAddr::new(local.ip(), 2000);
    assert_eq!(close_first(now, &mut client, &mut server, bound), bound);
    // Somebody asked for this port: nobody else has it, whatever the remote.
    let elsewhere = SocketAddr::new(servers[0].ip(), 81);
    assert!(client.connect(now, bound, elsewhere).is_err());
    assert!(
        client.listen(bound, 1).is_err(),
        "the connection had no SO_REUSEADDR"
    );
    now += Duration::from(TIME_WAIT);
    client.handle_timeout(now);
    assert!(client.connect(now, bound, elsewhere).is_ok());

    // An automatic port may be had for another remote, but not for this one.
    let automatic = close_first(now, &mut client, &mut server, local);
    let exactly = PortChoice::Exactly(automatic.port().into());
    let refused = client.connect_by(now, local, servers[0], exactly);
    assert!(refused.is_err(), "{refused:?}");
    assert!(client.connect_by(now, local, elsewhere, exactly).is_ok());
    now += Duration::from(TIME_WAIT);
    assert!(client.connect_by(now, local, servers[0], exactly).is_ok());
}
