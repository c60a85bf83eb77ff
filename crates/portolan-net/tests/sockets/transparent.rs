//! Listeners for every destination, and SYNs that wait for a word.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_core::table::Scope;
use portolan_core::wire::UnreachableCode;
use portolan_net::{
    EchoResponder, IcmpError, ListenOptions, PingSocket, Pong, TcpListener, TcpStream, UdpSocket,
};
use portolan_stack::{PathError, UdpOption};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{addr, hosts, pattern, sharded_hosts};

/// Only bounds a hang.
const PATIENCE: Duration = Duration::from_secs(60);

const HOLDING: ListenOptions = ListenOptions {
    backlog: 128,
    hold_syns: true,
    config: None,
};

#[tokio::test]
async fn a_proxy_sees_whom_its_peers_want_and_refuses_for_them() {
    let hosts = hosts();
    let listener = TcpListener::bind_scope(&hosts.server, Scope::TRANSPARENT, HOLDING).unwrap();
    tokio::spawn(async move {
        loop {
            let syn = listener.next_syn().await.unwrap();
            match syn.local_addr().port() {
                80 => {
                    tokio::spawn(async move {
                        let wanted = syn.local_addr();
                        let mut stream = syn.accept().await.unwrap();
                        assert_eq!(stream.local_addr().unwrap(), wanted);
                        stream.write_all(wanted.to_string().as_bytes()).await.unwrap();
                    });
                }
                81 => syn.refuse(),
                82 => syn.reject(UnreachableCode::Host),
                _ => drop(syn),
            }
        }
    });
    for wanted in ["192.0.2.7:80", "198.51.100.1:80", "[2001:db8:9::9]:80"] {
        let mut there = TcpStream::connect(&hosts.client, addr(wanted)).await.unwrap();
        let mut heard = String::new();
        there.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, wanted);
    }
    for (wanted, kind) in [
        ("192.0.2.7:81", ErrorKind::ConnectionRefused),
        ("192.0.2.7:82", ErrorKind::HostUnreachable),
        ("192.0.2.7:83", ErrorKind::ConnectionRefused),
    ] {
        let error = TcpStream::connect(&hosts.client, addr(wanted)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{wanted}");
    }
}

#[tokio::test]
async fn a_syn_waits_until_there_is_a_word() {
    let hosts = hosts();
    let listener = TcpListener::bind_scope(&hosts.server, Scope::TRANSPARENT, HOLDING).unwrap();
    let there = TcpStream::connect(&hosts.client, addr("192.0.2.7:80"));
    let mut there = std::pin::pin!(there);
    assert!(timeout(Duration::from_millis(100), &mut there).await.is_err());
    let syn = listener.next_syn().await.unwrap();
    let (there, here) = tokio::join!(there, syn.accept());
    assert_eq!(
        there.unwrap().local_addr().unwrap(),
        here.unwrap().peer_addr().unwrap()
    );
}

#[tokio::test]
async fn a_syn_that_is_ignored_comes_again() {
    let hosts = hosts();
    let listener = TcpListener::bind_scope(&hosts.server, Scope::TRANSPARENT, HOLDING).unwrap();
    let there = TcpStream::connect(&hosts.client, addr("192.0.2.7:80"));
    let here = async {
        listener.next_syn().await.unwrap().ignore();
        listener.next_syn().await.unwrap().accept().await
    };
    let (there, here) = tokio::join!(there, here);
    assert_eq!(
        there.unwrap().local_addr().unwrap(),
        here.unwrap().peer_addr().unwrap()
    );
}

#[tokio::test]
async fn datagrams_to_everybody() {
    let hosts = hosts();
    let here = UdpSocket::bind_scope(&hosts.server, Scope::TRANSPARENT).unwrap();
    let there = UdpSocket::bind(&hosts.client, addr("10.0.0.2:0")).unwrap();
    there.send_to(b"question", addr("192.0.2.53:53")).await.unwrap();
    let mut bytes = [0; 16];
    let datagram = here.recv_msg(&mut bytes).await.unwrap();
    assert_eq!(datagram.local, addr("192.0.2.53:53"));
    here.send_msg(b"answer", datagram.local, datagram.remote)
        .await
        .unwrap();
    let (len, from) = there.recv_from(&mut bytes).await.unwrap();
    assert_eq!((len, from), (6, addr("192.0.2.53:53")));
}

/// What the gateway of a network does: the server sees the client's address, and its answers come back here.
#[tokio::test]
async fn a_connection_comes_from_an_address_that_is_not_ours() {
    for stack in [hosts, sharded_hosts] {
        let hosts = stack();
        for (server, sources) in [
            (
                "10.0.0.1:80",
                ["203.0.113.9:40000", "203.0.113.9:22", "10.0.0.77:40000"],
            ),
            (
                "[2001:db8::1]:80",
                [
                    "[2001:db8:9::9]:40000",
                    "[2001:db8:9::9]:22",
                    "[2001:db8::77]:40000",
                ],
            ),
        ] {
            let listener = TcpListener::bind(&hosts.server, addr(server)).unwrap();
            let other = SocketAddr::new(addr(server).ip(), 81);
            let beside = TcpListener::bind(&hosts.server, other).unwrap();
            for source in sources.map(addr) {
                let there = TcpStream::connect_transparent(&hosts.client, source, addr(server));
                let (there, here) = tokio::join!(there, listener.accept());
                let (mut there, (mut here, peer)) = (there.unwrap(), here.unwrap());
                assert_eq!((peer, there.local_addr().unwrap()), (source, source));
                there.write_all(b"question").await.unwrap();
                there.finish().unwrap();
                let mut heard = String::new();
                here.read_to_string(&mut heard).await.unwrap();
                assert_eq!(heard, "question");
                // The client has another connection from the same port to another one.
                let second = TcpStream::connect_transparent(&hosts.client, source, other);
                let (second, accepted) = tokio::join!(second, beside.accept());
                assert_eq!(
                    (second.unwrap().local_addr().unwrap(), accepted.unwrap().1),
                    (source, source)
                );
                // But not twice to the same.
                let again = TcpStream::connect_transparent(&hosts.client, source, addr(server));
                assert_eq!(again.await.unwrap_err().kind(), ErrorKind::AddrNotAvailable);
                here.write_all(b"answer").await.unwrap();
                here.finish().unwrap();
                let mut heard = String::new();
                there.read_to_string(&mut heard).await.unwrap();
                assert_eq!(heard, "answer");
            }
            // A port of no foreign address is taken from the host itself.
            let source = SocketAddr::new(sources.map(addr)[0].ip(), 0);
            let there = TcpStream::connect_transparent(&hosts.client, source, addr(server));
            let (there, here) = tokio::join!(there, listener.accept());
            let (chosen, seen) = (there.unwrap().local_addr().unwrap(), here.unwrap().1);
            assert!(chosen.ip() == source.ip() && chosen.port() >= 32_768 && seen == chosen);
            let closed = SocketAddr::new(addr(server).ip(), 82);
            let refused = TcpStream::connect_transparent(&hosts.client, sources.map(addr)[0], closed);
            assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    }
}

#[tokio::test]
async fn without_being_asked_for_no_foreign_address_is_used() {
    let hosts = hosts();
    let foreign = addr("203.0.113.9:40000");
    let refused = TcpStream::connect_from(&hosts.client, foreign, addr("10.0.0.1:80")).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    for source in ["224.0.0.1:1", "10.0.0.255:1", "[2001:db8::1]:1"] {
        let refused = TcpStream::connect_transparent(&hosts.client, addr(source), addr("10.0.0.1:80")).await;
        assert_ne!(refused.unwrap_err().kind(), ErrorKind::TimedOut, "{source}");
    }
}

/// Datagrams of many clients come from their own addresses, and the answers back to the one socket.
#[tokio::test]
async fn datagrams_come_from_addresses_that_are_not_ours() {
    for stack in [hosts, sharded_hosts] {
        let hosts = stack();
        let gateway = UdpSocket::bind_scope(&hosts.client, Scope::TRANSPARENT).unwrap();
        for (server, sources) in [
            ("10.0.0.1:53", ["203.0.113.9:40000", "198.51.100.7:53"]),
            (
                "[2001:db8::1]:53",
                ["[2001:db8:9::9]:40000", "[2001:db8:9::7]:53"],
            ),
        ] {
            let here = UdpSocket::bind(&hosts.server, addr(server)).unwrap();
            for source in sources.map(addr) {
                let mut bytes = [0; 16];
                gateway.send_msg(b"question", source, addr(server)).await.unwrap();
                assert_eq!(here.recv_from(&mut bytes).await.unwrap(), (8, source));
                here.send_to(b"answer", source).await.unwrap();
                let answer = gateway.recv_msg(&mut bytes).await.unwrap();
                assert_eq!(
                    (answer.local, answer.remote, answer.len),
                    (source, addr(server), 6)
                );
            }
        }
    }
}

#[tokio::test]
async fn a_datagram_is_answered_by_an_icmp_error_that_its_sender_hears() {
    for stack in [hosts, sharded_hosts] {
        let hosts = stack();
        let gateway = UdpSocket::bind_scope(&hosts.server, Scope::TRANSPARENT).unwrap();
        let unreachable = IcmpError::Unreachable;
        for (own, to) in [
            ("10.0.0.2:0", "192.0.2.9:53"),
            ("[2001:db8::2]:0", "[2001:db8:9::9]:53"),
        ] {
            let forbidden = if addr(own).is_ipv4() {
                ErrorKind::HostUnreachable
            } else {
                ErrorKind::PermissionDenied
            };
            for (why, kind) in [
                (unreachable(UnreachableCode::Port), ErrorKind::ConnectionRefused),
                (unreachable(UnreachableCode::Prohibited), forbidden),
                (IcmpError::TooBig { mtu: 1300 }, ErrorKind::Other),
            ] {
                let there = UdpSocket::bind(&hosts.client, addr(own)).unwrap();
                there.connect(addr(to)).unwrap();
                // Empty ones, and such as do not fit into an error.
                for len in [0, 9, 1200] {
                    there.send(&pattern(len)).await.unwrap();
                    let mut bytes = [0; 2000];
                    let datagram = gateway.recv_msg(&mut bytes).await.unwrap();
                    assert_eq!((datagram.local, datagram.len), (addr(to), len));
                    gateway.reject(&datagram, &bytes[..len], why).unwrap();
                    let error = timeout(PATIENCE, there.recv(&mut bytes))
                        .await
                        .unwrap()
                        .unwrap_err();
                    assert_eq!(error.kind(), kind, "{why:?} {len}");
                }
            }
        }
    }
}

/// What the sender inside says of a datagram from outside comes back to the gateway's socket, with both ends.
#[tokio::test]
async fn a_program_without_a_socket_is_known_by_its_icmp_error() {
    let hosts = hosts();
    let gateway = UdpSocket::bind_scope(&hosts.client, Scope::TRANSPARENT).unwrap();
    gateway.set_option(UdpOption::ReportErrors(true)).unwrap();
    for (source, closed) in [
        ("203.0.113.9:4000", "10.0.0.1:9"),
        ("[2001:db8:9::9]:4000", "[2001:db8::1]:9"),
    ] {
        gateway
            .send_msg(b"anybody?", addr(source), addr(closed))
            .await
            .unwrap();
        let error = timeout(PATIENCE, gateway.error()).await.unwrap().unwrap();
        assert_eq!((error.local, error.remote), (addr(source), addr(closed)));
        assert_eq!(error.error, PathError::PortUnreachable);
        assert!(gateway.next_error().is_none());
        // It is no matter of others for whom the socket speaks.
        let nothing = gateway.try_recv_msg(&mut [0; 9]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        gateway.try_send_msg(b"you?", addr(source), addr(closed)).unwrap();
        timeout(PATIENCE, gateway.error()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn pings_to_anybody_are_answered_by_the_program() {
    for stack in [hosts, sharded_hosts] {
        let hosts = stack();
        let responder = EchoResponder::bind(&hosts.server).unwrap();
        let taken = EchoResponder::bind(&hosts.server).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        for (own, to, any) in [
            ("10.0.0.1", "192.0.2.9", "0.0.0.0"),
            ("2001:db8::1", "2001:db8:9::9", "::"),
        ] {
            let [own, to, any] = [own, to, any].map(|text| text.parse::<IpAddr>().unwrap());
            let ping = PingSocket::bind(&hosts.client, any).unwrap();
            let mut bytes = vec![0; 70_000];
            // The second comes in fragments.
            for (sequence, len) in [(1, 56), (2, 5000)] {
                let data = pattern(len);
                ping.send_to(&data, to, sequence).unwrap();
                let request = timeout(PATIENCE, responder.recv(&mut bytes))
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(
                    (request.destination, request.sequence, request.len),
                    (to, sequence, len)
                );
                assert_eq!(request.identifier, ping.local().unwrap().1);
                assert!(bytes[..len] == data, "other data");
                responder.reply(&request, &bytes[..len]).unwrap();
                let pong = timeout(PATIENCE, ping.recv(&mut bytes)).await.unwrap().unwrap();
                let Pong::Reply(echo) = pong else {
                    panic!("{pong:?}")
                };
                assert_eq!((echo.remote, echo.sequence, echo.len), (to, sequence, len));
                assert!(bytes[..len] == data, "other data back");
            }
            ping.send_to(b"anybody?", to, 3).unwrap();
            let request = responder.recv(&mut bytes).await.unwrap();
            let why = IcmpError::Unreachable(UnreachableCode::Host);
            responder.reject(&request, &bytes[..request.len], why).unwrap();
            let pong = timeout(PATIENCE, ping.recv(&mut bytes)).await.unwrap().unwrap();
            let Pong::Error(error) = pong else {
                panic!("{pong:?}")
            };
            assert_eq!(
                (error.sequence, error.error.error),
                (3, PathError::HostUnreachable)
            );
            // The stack answers for itself.
            ping.send_to(b"you?", own, 4).unwrap();
            let pong = timeout(PATIENCE, ping.recv(&mut bytes)).await.unwrap().unwrap();
            assert!(
                matches!(pong, Pong::Reply(echo) if echo.remote == own),
                "{pong:?}"
            );
            assert_eq!(
                responder.try_recv(&mut bytes).unwrap_err().kind(),
                ErrorKind::WouldBlock
            );
        }
        drop(responder);
        EchoResponder::bind(&hosts.server).unwrap();
    }
}
