//! Futures that are dropped before they are done lose nothing.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use portolan_net::{TcpListener, TcpStream, UdpSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{SERVER, addr, connected, hosts, pattern};

/// Polls a future once, and drops it.
fn start_and_drop<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn accept() {
    let hosts = hosts();
    let listener = TcpListener::bind(&hosts.server, addr(SERVER)).unwrap();
    for _ in 0..100 {
        assert!(start_and_drop(listener.accept()).is_pending());
    }
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let stack = hosts.client.clone();
            tokio::spawn(async move { TcpStream::connect(&stack, addr(SERVER)).await.unwrap() })
        })
        .collect();
    let mut accepted = 0;
    while accepted < 10 {
        // One that waits beside another, and is dropped when the other wins.
        tokio::select! {
            result = listener.accept() => { result.unwrap(); accepted += 1; }
            result = listener.accept() => { result.unwrap(); accepted += 1; }
        }
    }
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn connect() {
    let hosts = hosts();
    for _ in 0..10 {
        assert!(start_and_drop(TcpStream::connect(&hosts.client, addr(SERVER))).is_pending());
    }
    // Once the driver had its turn, the attempts that were given up are gone.
    let gone = async {
        while hosts.client.connection_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    let listener = TcpListener::bind(&hosts.server, addr(SERVER)).unwrap();
    TcpStream::connect(&hosts.client, addr(SERVER)).await.unwrap();
    listener.accept().await.unwrap();
}

#[tokio::test]
async fn read_and_write() {
    let hosts = hosts();
    let (mut there, mut here) = connected(&hosts).await;
    let sent = pattern(3 << 20);
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        let mut written = 0;
        let mut turn = 0u32;
        while written < sent.len() {
            turn += 1;
            if turn.is_multiple_of(3) {
                tokio::task::yield_now().await;
            }
            tokio::select! {
                biased;
                result = there.write(&sent[written..]) => written += result.unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
        there
    });
    let mut received = Vec::new();
    let mut bytes = vec![0; 5000];
    while received.len() < expected.len() {
        drop(start_and_drop(here.readable()));
        tokio::select! {
            biased;
            result = here.read(&mut bytes) => received.extend_from_slice(&bytes[..result.unwrap()]),
            () = tokio::task::yield_now() => {}
        }
    }
    assert!(received == expected);
    drop(writer.await.unwrap());
}

#[tokio::test]
async fn datagrams() {
    let hosts = hosts();
    let here = UdpSocket::bind(&hosts.server, addr("10.0.0.1:53")).unwrap();
    let there = UdpSocket::bind(&hosts.client, addr("10.0.0.2:0")).unwrap();
    let mut bytes = [0; 16];
    assert!(start_and_drop(here.recv_from(&mut bytes)).is_pending());
    there.send_to(b"first", addr("10.0.0.1:53")).await.unwrap();
    assert_eq!(here.recv_from(&mut bytes).await.unwrap().0, 5);
}
