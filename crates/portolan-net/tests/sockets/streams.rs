//! Bytes go both ways.

use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use bytes::Bytes;
use portolan_net::link::Capabilities;
use portolan_net::{TcpListener, TcpStream};
use portolan_stack::StackConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{SERVER, SERVER_V6, addr, connected, hosts, hosts_with, pattern};

async fn exchange_megabytes(capabilities: Capabilities) {
    let hosts = hosts_with(StackConfig::default(), capabilities);
    let (mut there, mut here) = connected(&hosts).await;
    let sent = pattern(4 << 20);
    let expected = sent.clone();
    let sender = tokio::spawn(async move {
        there.write_all(&sent).await.unwrap();
        there.shutdown().await.unwrap();
        let mut back = Vec::new();
        there.read_to_end(&mut back).await.unwrap();
        back
    });
    let mut received = Vec::new();
    here.read_to_end(&mut received).await.unwrap();
    assert!(received == expected);
    here.write_all(&received).await.unwrap();
    here.shutdown().await.unwrap();
    assert!(sender.await.unwrap() == expected);
}

#[tokio::test]
async fn megabytes_go_there_and_back() {
    exchange_megabytes(Capabilities::plain(1500)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn megabytes_go_there_and_back_with_several_threads() {
    exchange_megabytes(Capabilities::plain(1500)).await;
}

#[tokio::test]
async fn megabytes_go_there_and_back_in_super_segments() {
    let capabilities = Capabilities {
        checksum_offload: true,
        segmentation_offload: true,
        ..Capabilities::plain(1500)
    };
    exchange_megabytes(capabilities).await;
}

#[tokio::test]
async fn ipv6_and_names_of_ends() {
    let hosts = hosts();
    let listener = TcpListener::bind(&hosts.server, addr(SERVER_V6)).unwrap();
    let there = TcpStream::connect(&hosts.client, addr(SERVER_V6)).await.unwrap();
    let (here, peer) = listener.accept().await.unwrap();
    assert_eq!(there.peer_addr().unwrap(), addr(SERVER_V6));
    assert_eq!(there.local_addr().unwrap(), peer);
    assert_eq!(here.local_addr().unwrap(), addr(SERVER_V6));
    assert_eq!(here.peer_addr().unwrap(), peer);
    there.set_nodelay(true).unwrap();
    assert!(there.info().unwrap().rtt.is_some());
}

#[tokio::test]
async fn a_host_talks_to_itself() {
    let hosts = hosts();
    for (listen, to) in [
        ("10.0.0.1:81", "10.0.0.1:81"),
        ("0.0.0.0:82", "127.0.0.1:82"),
        ("[::]:83", "[::1]:83"),
    ] {
        let listener = TcpListener::bind(&hosts.server, addr(listen)).unwrap();
        let mut there = TcpStream::connect(&hosts.server, addr(to)).await.unwrap();
        let (mut here, _) = listener.accept().await.unwrap();
        here.write_all(b"to myself").await.unwrap();
        drop(here);
        let mut heard = String::new();
        there.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "to myself", "{to}");
    }
}

#[tokio::test]
async fn pieces_are_gathered() {
    let hosts = hosts();
    let (mut there, mut here) = connected(&hosts).await;
    let pieces = [
        IoSlice::new(b"one, "),
        IoSlice::new(b""),
        IoSlice::new(b"two, "),
        IoSlice::new(b"three"),
    ];
    assert_eq!(there.write_vectored(&pieces).await.unwrap(), 15);
    let mut heard = [0; 15];
    here.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"one, two, three");
}

#[tokio::test]
async fn what_is_peeked_at_is_still_to_be_read() {
    let hosts = hosts();
    let (mut there, mut here) = connected(&hosts).await;
    there.write_all(b"look").await.unwrap();
    let mut bytes = [0; 16];
    assert_eq!(here.peek(&mut bytes[..2]).await.unwrap(), 2);
    assert_eq!(here.peek(&mut bytes).await.unwrap(), 4);
    assert_eq!(here.read(&mut bytes).await.unwrap(), 4);
    assert_eq!(&bytes[..4], b"look");
    there.shutdown().await.unwrap();
    assert_eq!(here.peek(&mut bytes).await.unwrap(), 0);
}

#[tokio::test]
async fn chunks_go_by_reference() {
    let hosts = hosts();
    let (there, here) = connected(&hosts).await;
    let sent = Bytes::from(pattern(300_000));
    let mut rest = sent.clone();
    let writer = tokio::spawn(async move {
        while !rest.is_empty() {
            there.write_chunk(&mut rest).await.unwrap();
        }
        there
    });
    let mut received = Vec::new();
    while received.len() < sent.len() {
        let chunk = here.read_chunk(10_000).await.unwrap().unwrap();
        assert!((1..=10_000).contains(&chunk.len()));
        received.extend_from_slice(&chunk);
    }
    assert!(received == sent);
    drop(writer.await.unwrap());
    assert_eq!(here.read_chunk(10_000).await.unwrap(), None, "the end");
}

#[tokio::test]
async fn at_once_or_not_at_all() {
    let hosts = hosts();
    let (there, here) = connected(&hosts).await;
    let mut bytes = [0; 1000];
    assert_eq!(
        here.try_read(&mut bytes).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    there.writable().await.unwrap();
    assert_eq!(there.try_write(b"now").unwrap(), 3);
    here.readable().await.unwrap();
    assert_eq!(here.try_read(&mut bytes).unwrap(), 3);
    let listener = TcpListener::bind(&hosts.server, addr(SERVER)).unwrap();
    assert_eq!(listener.try_accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let _one = TcpStream::connect(&hosts.client, addr(SERVER)).await.unwrap();
    // The client knows before the server does, whose handshake ends with the next packet.
    tokio::time::timeout(Duration::from_secs(5), async {
        while listener.try_accept().is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_writer_waits_for_a_slow_reader() {
    let mut config = StackConfig::default();
    config.tcp.send_buffer = 32 << 10;
    config.tcp.receive_buffer = 32 << 10;
    let hosts = hosts_with(config, Capabilities::plain(1500));
    let (there, mut here) = connected(&hosts).await;
    let block = pattern(1000);
    let mut written = 0;
    while let Ok(result) = tokio::time::timeout(Duration::from_millis(50), there.writable()).await {
        result.unwrap();
        match there.try_write(&block) {
            Ok(len) => written += len,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    // What one side holds and what the other does, and no more.
    assert!(
        (32 << 10..=64 << 10).contains(&written),
        "{written} bytes were taken"
    );
    let mut bytes = vec![0; written];
    here.read_exact(&mut bytes).await.unwrap();
    there.writable().await.unwrap();
}

#[tokio::test]
async fn halves_work_alone_and_together() {
    let hosts = hosts();
    let (mut there, mut here) = connected(&hosts).await;
    {
        let (mut read, mut write) = there.split();
        let mut bytes = [0; 4];
        let echo = async {
            let mut bytes = [0; 4];
            here.read_exact(&mut bytes).await.unwrap();
            here.write_all(&bytes).await.unwrap();
        };
        let (_, result, _) = tokio::join!(write.write_all(b"ping"), read.read_exact(&mut bytes), echo);
        result.unwrap();
        assert_eq!(&bytes, b"ping");
    }
    let (read, write) = there.into_split();
    let (other_read, other_write) = here.into_split();
    let error = read.reunite(other_write).unwrap_err();
    let mut there = error.0.reunite(write).unwrap();
    let mut here = other_read.reunite(error.1).unwrap();
    there.write_all(b"whole").await.unwrap();
    let mut bytes = [0; 5];
    here.read_exact(&mut bytes).await.unwrap();

    let (mut read, write) = there.into_split();
    drop(write);
    assert_eq!(
        here.read(&mut bytes).await.unwrap(),
        0,
        "the writing half sends a FIN when it goes"
    );
    here.write_all(b"still").await.unwrap();
    read.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_at_once() {
    let hosts = hosts();
    let listener = TcpListener::bind(&hosts.server, addr(SERVER)).unwrap();
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
    let clients: Vec<_> = (0..1000u32)
        .map(|number| {
            let stack = hosts.client.clone();
            tokio::spawn(async move {
                let mut there = TcpStream::connect(&stack, addr(SERVER)).await.unwrap();
                let sent: Vec<u8> = pattern(2000).iter().map(|byte| byte ^ number as u8).collect();
                there.write_all(&sent).await.unwrap();
                there.shutdown().await.unwrap();
                let mut back = Vec::new();
                there.read_to_end(&mut back).await.unwrap();
                assert!(back == sent, "connection {number}");
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}
