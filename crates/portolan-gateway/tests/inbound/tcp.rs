//! Connections in: who the program sees, and how they end.

use std::io::ErrorKind;
use std::net::SocketAddr;

use portolan_gateway::flows::Direction;
use portolan_gateway::inbound::PublishError;
use portolan_net::TcpListener;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::private::in_namespace;
use crate::support::{gateway, mapping, run};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Connects from a socket address of this host.
pub(crate) async fn connect(from: &str, to: &str) -> std::io::Result<TcpStream> {
    let socket = if from.starts_with('[') {
        TcpSocket::new_v6()
    } else {
        TcpSocket::new_v4()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr(from))?;
    socket.connect(addr(to)).await
}

/// How a client is turned away; the reset may be there before the connect has returned.
pub(crate) async fn told(connected: std::io::Result<TcpStream>) -> ErrorKind {
    let told = match connected {
        Err(error) => error,
        Ok(mut client) => client.read(&mut [0]).await.unwrap_err(),
    };
    told.kind()
}

/// Adds addresses of other networks to the namespace's loopback interface: they are no loopback addresses.
pub(crate) fn add_addresses() {
    for address in [
        "192.0.2.1/32",
        "192.0.2.2/32",
        "2001:db8::1/128",
        "10.0.0.2/32",
        "fd00::2/128",
    ] {
        let arguments = ["address", "add", address, "dev", "lo"];
        let status = std::process::Command::new("ip").args(arguments).status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn the_program_sees_the_client() {
    in_namespace("tcp::the_program_sees_the_client", || {
        add_addresses();
        run(async {
            let gateway = gateway();
            gateway.publish("8080:80");
            let v4 = TcpListener::bind(&gateway.program, addr("10.0.0.2:80")).unwrap();
            let v6 = TcpListener::bind(&gateway.program, addr("[fd00::2]:80")).unwrap();
            for (client, published, seen) in [
                ("192.0.2.1:4000", "192.0.2.2:8080", "192.0.2.1:4000"),
                ("192.0.2.1:4001", "192.0.2.1:8080", "192.0.2.1:4001"),
                ("[2001:db8::1]:4000", "[2001:db8::1]:8080", "[2001:db8::1]:4000"),
                // Nobody appears as the loopback or as the program itself, whatever the address on the way here.
                ("127.0.0.1:4000", "127.0.0.1:8080", "10.0.0.1:0"),
                ("127.0.0.1:4000", "192.0.2.1:8080", "10.0.0.1:0"),
                ("127.3.2.1:4000", "127.0.0.1:8080", "10.0.0.1:0"),
                ("10.0.0.2:4000", "192.0.2.1:8080", "10.0.0.1:0"),
                ("[::1]:4000", "[::1]:8080", "[fd00::1]:0"),
                ("[fd00::2]:4000", "[2001:db8::1]:8080", "[fd00::1]:0"),
            ] {
                let listener = if client.starts_with('[') { &v6 } else { &v4 };
                let (there, here) = tokio::join!(connect(client, published), listener.accept());
                let (mut there, (mut here, peer)) = (there.unwrap(), here.unwrap());
                let seen = addr(seen);
                assert_eq!(peer.ip(), seen.ip(), "{client}");
                assert!(peer.port() == seen.port() || seen.port() == 0, "{client}: {peer}");
                assert_eq!(gateway.ends(), [(here.local_addr().unwrap(), addr(client))]);
                assert_eq!(gateway.flows.list()[0].info.direction, Direction::In);
                there.write_all(b"question").await.unwrap();
                there.shutdown().await.unwrap();
                let mut text = String::new();
                here.read_to_string(&mut text).await.unwrap();
                here.write_all(b"answer").await.unwrap();
                here.shutdown().await.unwrap();
                there.read_to_string(&mut text).await.unwrap();
                assert_eq!(text, "questionanswer");
                gateway.all_over().await;
            }
        });
    });
}

#[test]
fn nobody_listening_is_a_reset_at_once() {
    run(async {
        let gateway = gateway();
        let port = gateway.publish("127.0.0.1:0:80").place.port.get();
        let told = told(TcpStream::connect(("127.0.0.1", port)).await).await;
        assert_eq!(told, ErrorKind::ConnectionReset);
        gateway.all_over().await;
    });
}

#[test]
fn resets_pass_both_ways() {
    run(async {
        let gateway = gateway();
        let port = gateway.publish("127.0.0.1:0:80").place.port.get();
        let listener = TcpListener::bind(&gateway.program, addr("10.0.0.2:80")).unwrap();
        for inside_resets in [true, false] {
            let there = TcpStream::connect(("127.0.0.1", port));
            let (there, here) = tokio::join!(there, listener.accept());
            let (mut there, (mut here, _)) = (there.unwrap(), here.unwrap());
            // A byte each way, so that both are known to be there.
            there.write_all(b"x").await.unwrap();
            here.write_all(b"x").await.unwrap();
            there.read_exact(&mut [0]).await.unwrap();
            here.read_exact(&mut [0]).await.unwrap();
            let error = if inside_resets {
                here.reset();
                there.read(&mut [0]).await.unwrap_err()
            } else {
                there.set_zero_linger().unwrap();
                drop(there);
                here.read(&mut [0]).await.unwrap_err()
            };
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            gateway.all_over().await;
        }
    });
}

/// A client on the loopback of the host may mean either family by `localhost`.
#[test]
fn a_program_of_one_family_is_there_for_the_hosts_loopback_of_both() {
    in_namespace(
        "tcp::a_program_of_one_family_is_there_for_the_hosts_loopback_of_both",
        || {
            add_addresses();
            run(async {
                let gateway = gateway();
                gateway.publish("8080:80");
                let listener = TcpListener::bind(&gateway.program, addr("10.0.0.2:80")).unwrap();
                let there = connect("[::1]:0", "[::1]:8080");
                let (there, here) = tokio::join!(there, listener.accept());
                assert_eq!(here.unwrap().1.ip(), addr("10.0.0.1:0").ip());
                drop(there);
                // A client outside would appear as somebody else: it is told that nobody listens.
                let told = told(connect("[2001:db8::1]:0", "[2001:db8::1]:8080").await).await;
                assert_eq!(told, ErrorKind::ConnectionReset);
            });
        },
    );
}

/// The client's port is used again as soon as the client may, and for two ports of the host at once.
#[test]
fn a_clients_port_comes_again_and_again() {
    in_namespace("tcp::a_clients_port_comes_again_and_again", || {
        add_addresses();
        run(async {
            let gateway = gateway();
            gateway.publish("8080:80");
            gateway.publish("8081:80");
            let listener = TcpListener::bind(&gateway.program, addr("10.0.0.2:80")).unwrap();
            for round in 0..30 {
                let there = connect("192.0.2.1:4000", "192.0.2.2:8080");
                let (there, here) = tokio::join!(there, listener.accept());
                let (mut there, (mut here, peer)) = (there.unwrap(), here.unwrap());
                assert_eq!(peer, addr("192.0.2.1:4000"), "round {round}");
                // The same client has a second connection from the same port, to another port of the host.
                let second = connect("192.0.2.1:4000", "192.0.2.2:8081");
                let (second, inner) = tokio::join!(second, listener.accept());
                assert_eq!(inner.as_ref().unwrap().1.ip(), peer.ip());
                drop((second, inner));
                here.shutdown().await.unwrap();
                assert_eq!(there.read(&mut [0]).await.unwrap(), 0);
                there.shutdown().await.unwrap();
                assert_eq!(here.read(&mut [0]).await.unwrap(), 0);
                drop(here);
                gateway.all_over().await;
                // Whatever the client's kernel keeps of it is gone at once.
                there.set_zero_linger().unwrap();
                drop(there);
            }
        });
    });
}

#[test]
fn ports_come_and_go_while_connections_stay() {
    run(async {
        let gateway = gateway();
        let listener = TcpListener::bind(&gateway.program, addr("10.0.0.2:80")).unwrap();
        let published = gateway.publish("127.0.0.1:0:80");
        assert_eq!(gateway.publisher.list(), [published]);
        let port = published.place.port.get();
        let again = gateway
            .publisher
            .publish(&mapping(&format!("127.0.0.1:{port}:81")), &|_, _| None);
        assert!(
            again
                .unwrap_err()
                .to_string()
                .contains("published already, and leads to port 80")
        );
        let there = TcpStream::connect(("127.0.0.1", port));
        let (there, here) = tokio::join!(there, listener.accept());
        let (mut there, (mut here, _)) = (there.unwrap(), here.unwrap());
        let not_meant = mapping("127.0.0.1:0:81");
        let error = gateway.publisher.unpublish(&not_meant).unwrap_err();
        assert!(matches!(error, PublishError::NotPublished { .. }), "{error}");
        assert_eq!(
            gateway.publisher.unpublish(&mapping("127.0.0.1:0:80")).unwrap(),
            [published]
        );
        assert!(gateway.publisher.list().is_empty());
        let refused = TcpStream::connect(("127.0.0.1", port)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        there.write_all(b"still").await.unwrap();
        let mut bytes = [0; 5];
        here.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"still");
        // The port is free again, for whoever wants it.
        gateway.publish(&format!("127.0.0.1:{port}:80"));
        drop(gateway.publisher);
    });
}

#[test]
fn a_thousand_clients_at_once() {
    run(async {
        let gateway = gateway();
        let port = gateway.publish("127.0.0.1:0:80").place.port.get();
        let listener = TcpListener::bind(&gateway.program, addr("10.0.0.2:80")).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut bytes = [0; 4];
                    stream.read_exact(&mut bytes).await.unwrap();
                    stream.write_all(&bytes).await.unwrap();
                    let _ = stream.read(&mut bytes).await;
                });
            }
        });
        let mut clients = Vec::new();
        for number in 0..1000_u32 {
            let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            client.write_all(&number.to_be_bytes()).await.unwrap();
            clients.push(client);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let mut bytes = [0; 4];
            client.read_exact(&mut bytes).await.unwrap();
            assert_eq!(u32::from_be_bytes(bytes) as usize, number);
        }
        assert_eq!(gateway.flows.count(), 1000);
        // One more than there may be is turned away.
        let told = told(TcpStream::connect(("127.0.0.1", port)).await).await;
        assert_eq!(told, ErrorKind::ConnectionReset);
        drop(clients);
        gateway.all_over().await;
    });
}
