use portolan_core::table::Scope;
use portolan_core::wire::TcpFlags;
use portolan_stack::{Duration, Instant, SocketHandle, SocketInfo, Stack, StackConfig};

use crate::support::{address, carry, events, give, segment, sent, stack};

const NOW: Instant = Instant::from_millis(10_000);

/// State, local end, remote end, and both queues of each, sorted.
fn listed(stack: &Stack) -> Vec<String> {
    let line = |socket: SocketInfo| {
        let SocketInfo {
            protocol,
            state,
            local,
            remote,
            receive_queue,
            send_queue,
            ..
        } = socket;
        let protocol = protocol.name().unwrap();
        let remote = remote.map_or_else(|| "-".into(), |remote| remote.to_string());
        format!("{protocol} {state} {local} {remote} {receive_queue} {send_queue}")
    };
    let mut lines: Vec<_> = stack.sockets().map(line).collect();
    lines.sort();
    lines
}

fn one(stack: &Stack, state: &str) -> SocketInfo {
    let mut found = stack.sockets().filter(|socket| socket.state.name() == state);
    let socket = found.next().unwrap_or_else(|| panic!("none is {state}"));
    assert!(found.next().is_none());
    socket
}

#[test]
fn sockets_of_every_state_are_listed_once() {
    let mut server = stack(2, StackConfig::default());
    let mut client = stack(1, StackConfig::default());
    assert_eq!(server.sockets().count(), 0);
    let listener = server.listen(address("10.0.0.2:80"), 7).unwrap();
    let every = server.listen_for(Scope::TRANSPARENT, 3).unwrap();
    server.hold_syns(every, true);
    let udp = server.bind_udp(address("0.0.0.0:53")).unwrap();
    let echo = server.bind_echo(address("10.0.0.2:0").ip(), 77).unwrap();
    assert_eq!(
        listed(&server),
        [
            "icmp unconnected 10.0.0.2:77 - 0 0",
            "tcp listen 10.0.0.2:80 - 0 7",
            "tcp listen [::]:0 - 0 3",
            "udp unconnected 0.0.0.0:53 - 0 0",
        ]
    );
    let scoped = server.sockets().find(|socket| socket.scope.is_some()).unwrap();
    assert_eq!(scoped.scope, Some(Scope::TRANSPARENT));
    assert_eq!(scoped.handle, Some(SocketHandle::Listener(every)));

    server.close_echo(echo).unwrap();

    // One that is held, one that was answered, one that waits to be accepted.
    give(
        NOW,
        &mut server,
        &[
            segment(1000, address("192.0.2.9:25"), 5, TcpFlags::SYN),
            segment(1001, address("10.0.0.2:80"), 5, TcpFlags::SYN),
        ],
    );
    sent(NOW, &mut server);
    let dialled = client
        .connect(NOW, address("10.0.0.1:1002"), address("10.0.0.2:80"))
        .unwrap();
    carry(NOW, &mut client, &mut server);
    let asking = client.bind_udp(address("10.0.0.1:99")).unwrap();
    client
        .send_datagram(
            asking,
            address("10.0.0.1:99").ip(),
            address("10.0.0.2:53"),
            b"12345",
        )
        .unwrap();
    assert_eq!(one(&client, "unconnected").send_queue, 5);
    carry(NOW, &mut client, &mut server);
    assert_eq!(
        listed(&server),
        [
            "tcp established 10.0.0.2:80 10.0.0.1:1002 0 0",
            "tcp listen 10.0.0.2:80 - 1 7",
            "tcp listen [::]:0 - 0 3",
            "tcp syn-received 10.0.0.2:80 10.0.0.1:1001 0 0",
            "tcp syn-received 192.0.2.9:25 10.0.0.1:1000 0 0",
            "udp unconnected 0.0.0.0:53 - 5 0",
        ]
    );
    for socket in server.sockets() {
        // Both handshakes wait for something, by a time.
        assert_eq!(
            socket.timer.is_some(),
            socket.state.name() == "syn-received",
            "{socket:?}"
        );
    }
    events(&mut server);

    // Bytes, packets and age of a connection, at both ends.
    let accepted = server.accept(listener).unwrap();
    let later = NOW + Duration::from_secs(5);
    client.write(later, dialled, &[1; 3000]).unwrap();
    carry(later, &mut client, &mut server);
    server.write(later, accepted, &[1; 10]).unwrap();
    let socket = one(&server, "established");
    assert_eq!((socket.receive_queue, socket.send_queue), (3000, 10));
    carry(later, &mut client, &mut server);
    for (stack, came, went) in [(&server, 3000, 10), (&client, 10, 3000)] {
        let socket = one(stack, "established");
        let traffic = socket.traffic.unwrap();
        assert_eq!((traffic.bytes_in, traffic.bytes_out), (came, went));
        assert_eq!(socket.age(later), Some(Duration::from_secs(5)));
        assert!(socket.tcp.unwrap().rtt.is_some());
    }
    // Nothing was lost: what one end sent the other got, but for the handshake, which came before the connection there.
    let (here, there) = (&client, &server);
    let [here, there] = [here, there].map(|stack| one(stack, "established").traffic.unwrap());
    assert_eq!(here.packets_out, there.packets_in + 2);
    assert_eq!(here.packets_in, there.packets_out + 1);
    // Closed on both sides: TIME-WAIT on one, nothing on the other.
    server.read(later, accepted, &mut [0; 4000]).unwrap();
    client.read(later, dialled, &mut [0; 4000]).unwrap();
    client.close(later, dialled).unwrap();
    carry(later, &mut client, &mut server);
    assert_eq!(one(&server, "close-wait").remote, Some(address("10.0.0.1:1002")));
    assert_eq!(one(&client, "fin-wait-2").local, address("10.0.0.1:1002"));
    server.close(later, accepted).unwrap();
    carry(later, &mut client, &mut server);
    let waiting = one(&client, "time-wait");
    assert_eq!(
        (waiting.local, waiting.remote),
        (address("10.0.0.1:1002"), Some(address("10.0.0.2:80")))
    );
    assert_eq!(
        server.sockets().filter(|socket| socket.traffic.is_some()).count(),
        0
    );
    client.close_udp(asking).unwrap();
    server.close_udp(udp).unwrap();
    server.close_listener(later, listener);
    server.close_listener(later, every);
    client.handle_timeout(later + Duration::from_secs(61));
    assert_eq!(client.sockets().count(), 0);
    // A half-open connection outlives its listener until it is due.
    server.handle_timeout(later + Duration::from_secs(61));
    assert_eq!(listed(&server), Vec::<String>::new());
}

#[test]
fn sleeping_connections_are_listed_and_sleep_on() {
    let config = StackConfig {
        awake_connections: 0,
        ..StackConfig::default()
    };
    let (mut client, mut server) = (stack(1, config), stack(2, config));
    server.listen(address("10.0.0.2:80"), 100).unwrap();
    for port in 1..=50 {
        let local = address(&format!("10.0.0.1:{port}"));
        client.connect(NOW, local, address("10.0.0.2:80")).unwrap();
    }
    carry(NOW, &mut client, &mut server);
    let remotes = |stack: &Stack| {
        let established = stack
            .sockets()
            .filter(|socket| socket.state.name() == "established");
        let mut ports: Vec<_> = established.map(|socket| socket.remote.unwrap().port()).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(remotes(&server), (1..=50).collect::<Vec<_>>());
    assert_eq!(remotes(&server).len(), remotes(&client).len());
}
