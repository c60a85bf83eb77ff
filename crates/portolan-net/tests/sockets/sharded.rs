//! Stacks whose flows are shared out over several drivers.

use std::io::ErrorKind;

use portolan_net::link::{self, Capabilities};
use portolan_net::{Stack, TcpListener, TcpStream, UdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{SERVER, addr, pattern};

/// A server with two shards and a client with two, whose links are connected crosswise if `crosses`, so that every
/// packet comes to the wrong queue.
fn sharded(crosses: bool) -> (Stack, Stack) {
    let (left, mut right): (Vec<_>, Vec<_>) = (0..2).map(|_| link::pair(Capabilities::plain(1500))).unzip();
    if crosses {
        right.reverse();
    }
    let host = |number: u8, links| {
        // With one secret both share out alike.
        let builder = Stack::builder().address([10, 0, 0, number], 24).secret([9; 16]);
        let (stack, drivers) = builder.build_sharded(links).unwrap();
        for driver in drivers {
            tokio::spawn(driver);
        }
        stack
    };
    (host(1, left), host(2, right))
}

async fn many_echoes(crosses: bool) {
    let (server, client) = sharded(crosses);
    let listener = TcpListener::bind(&server, addr(SERVER)).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut here, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = here.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    let clients: Vec<_> = (0..100)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut there = TcpStream::connect(&client, addr(SERVER)).await.unwrap();
                let port = there.local_addr().unwrap().port();
                let sent = pattern(30_000);
                there.write_all(&sent).await.unwrap();
                there.shutdown().await.unwrap();
                let mut back = Vec::new();
                there.read_to_end(&mut back).await.unwrap();
                assert!(back == sent);
                port
            })
        })
        .collect();
    let mut ports = Vec::new();
    for echo in clients {
        ports.push(echo.await.unwrap());
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 100, "each has a port of its own");
    for stack in [&server, &client] {
        let packets: Vec<_> = stack
            .counters()
            .iter()
            .map(|counters| counters.packets_in)
            .collect();
        assert!(
            packets.iter().all(|&count| count > 500),
            "both shards work: {packets:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_come_to_their_shards() {
    many_echoes(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_that_come_to_the_wrong_queue_are_handed_over() {
    many_echoes(true).await;
}

#[tokio::test]
async fn a_port_is_one_port_in_all_shards() {
    let (server, client) = sharded(false);
    let listener = TcpListener::bind(&server, addr("10.0.0.1:0")).unwrap();
    let local = listener.local_addr().unwrap();
    assert_eq!(
        TcpListener::bind(&server, local).unwrap_err().kind(),
        ErrorKind::AddrInUse
    );
    let here = UdpSocket::bind(&server, addr("10.0.0.1:53")).unwrap();
    let mut bytes = [0; 8];
    for _ in 0..20 {
        let there = UdpSocket::bind(&client, addr("10.0.0.2:0")).unwrap();
        there.connect(addr("10.0.0.1:53")).unwrap();
        there.send(b"question").await.unwrap();
        let (len, from) = here.recv_from(&mut bytes).await.unwrap();
        assert_eq!((len, from), (8, there.local_addr().unwrap()));
        here.send_to(b"answer", from).await.unwrap();
        assert_eq!(there.recv(&mut bytes).await.unwrap(), 6);
    }
    let nobody = TcpStream::connect(&client, addr("10.0.0.1:9")).await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::ConnectionRefused);
}
