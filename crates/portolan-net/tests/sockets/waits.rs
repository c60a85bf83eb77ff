//! Several tasks wait for one thing.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use portolan_net::{TcpListener, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, Ready};

use crate::support::{SERVER, addr, connected, hosts};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_accept_at_one_listener() {
    let hosts = hosts();
    let listener = Arc::new(TcpListener::bind(&hosts.server, addr(SERVER)).unwrap());
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let listener = Arc::clone(&listener);
            tokio::spawn(async move { listener.accept().await.unwrap() })
        })
        .collect();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(TcpStream::connect(&hosts.client, addr(SERVER)).await.unwrap());
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn tasks_wait_for_both_directions_of_a_stream() {
    let hosts = hosts();
    let (mut there, here) = connected(&hosts).await;
    let here = Arc::new(here);
    let readers: Vec<_> = (0..5)
        .map(|_| {
            let here = Arc::clone(&here);
            tokio::spawn(async move { here.readable().await })
        })
        .collect();
    tokio::task::yield_now().await;
    there.write_all(b"all of you").await.unwrap();
    for reader in readers {
        reader.await.unwrap().unwrap();
    }
    let mut here = Arc::into_inner(here).unwrap();
    let mut heard = [0; 10];
    here.read_exact(&mut heard).await.unwrap();
}

/// A stream that moves from one task to another wakes the one that has it.
#[tokio::test]
async fn the_last_task_that_reads_is_woken() {
    let hosts = hosts();
    let (mut there, mut here) = connected(&hosts).await;
    let read = tokio::time::timeout(Duration::from_millis(10), here.read(&mut [0; 8])).await;
    assert!(read.is_err());
    let reader = tokio::spawn(async move { here.read(&mut [0; 8]).await.unwrap() });
    tokio::task::yield_now().await;
    there.write_all(b"moved").await.unwrap();
    assert_eq!(reader.await.unwrap(), 5);
}

#[tokio::test]
async fn readiness_says_what_is_ready_and_what_has_ended() {
    let hosts = hosts();
    let (there, here) = connected(&hosts).await;
    let both = Interest::READABLE | Interest::WRITABLE;
    assert_eq!(there.ready(both).await.unwrap(), Ready::WRITABLE);
    here.try_write(b"ahoy").unwrap();
    assert_eq!(there.ready(Interest::READABLE).await.unwrap(), Ready::READABLE);
    let mut room = BytesMut::with_capacity(3);
    assert_eq!(there.try_read_buf(&mut room).unwrap(), 3);
    assert_eq!(&room[..], b"aho");
    assert_eq!(there.read_chunk(9).await.unwrap().unwrap(), "y");
    here.finish().unwrap();
    let ended = Ready::READABLE | Ready::READ_CLOSED;
    assert_eq!(there.ready(Interest::READABLE).await.unwrap(), ended);
    let failed = there.failed();
    let mut failed = std::pin::pin!(failed);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut failed).await;
    assert!(early.is_err(), "a half-close is no failure");
    here.reset();
    assert_eq!(failed.await.kind(), ErrorKind::ConnectionReset);
    assert_eq!(there.ready(Interest::ERROR).await.unwrap(), Ready::ERROR);
}

#[tokio::test]
async fn both_sides_done_is_no_failure() {
    let hosts = hosts();
    let (there, here) = connected(&hosts).await;
    there.finish().unwrap();
    here.finish().unwrap();
    assert_eq!(there.read_chunk(1).await.unwrap(), None);
    assert_eq!(here.read_chunk(1).await.unwrap(), None);
    let failed = tokio::time::timeout(Duration::from_millis(50), here.failed()).await;
    assert!(failed.is_err());
}
