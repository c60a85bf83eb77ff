//! Ends of connections, of handles and of drivers.

use std::io::ErrorKind;
use std::time::Duration;

use portolan_net::link::{self, Capabilities};
use portolan_net::{Stack, TcpListener, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{SERVER, addr, connected, hosts};

#[tokio::test]
async fn half_of_a_connection_stays_open() {
    let hosts = hosts();
    let (mut there, mut here) = connected(&hosts).await;
    there.write_all(b"question").await.unwrap();
    there.shutdown().await.unwrap();
    let mut question = String::new();
    here.read_to_string(&mut question).await.unwrap();
    here.write_all(b"answer").await.unwrap();
    drop(here);
    let mut answer = String::new();
    there.read_to_string(&mut answer).await.unwrap();
    assert_eq!((&*question, &*answer), ("question", "answer"));
    assert_eq!(
        there.write(b"more").await.unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
}

#[tokio::test]
async fn dropped_with_nothing_unread_it_ends_in_order() {
    let hosts = hosts();
    let (mut there, here) = connected(&hosts).await;
    drop(here);
    assert_eq!(there.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn dropped_with_something_unread_it_resets() {
    let hosts = hosts();
    let (mut there, here) = connected(&hosts).await;
    there.write_all(b"nobody reads this").await.unwrap();
    here.readable().await.unwrap();
    drop(here);
    assert_eq!(
        there.read(&mut [0; 8]).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn a_reset_on_demand() {
    let hosts = hosts();
    let (mut there, here) = connected(&hosts).await;
    here.reset();
    assert_eq!(
        there.read(&mut [0; 8]).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test]
async fn nobody_listens() {
    let hosts = hosts();
    let error = TcpStream::connect(&hosts.client, addr(SERVER)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let listener = TcpListener::bind(&hosts.server, addr(SERVER)).unwrap();
    let error = TcpListener::bind(&hosts.server, addr(SERVER)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    let error = TcpListener::bind(&hosts.server, addr("192.0.2.1:80")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    drop(listener);
    TcpListener::bind(&hosts.server, addr(SERVER)).unwrap();
}

#[tokio::test]
async fn a_closed_listener_resets_those_who_wait() {
    let hosts = hosts();
    let listener = TcpListener::bind(&hosts.server, addr(SERVER)).unwrap();
    let mut there = TcpStream::connect(&hosts.client, addr(SERVER)).await.unwrap();
    drop(listener);
    assert_eq!(
        there.read(&mut [0; 8]).await.unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_answers() {
    let (left, _right) = link::pair(Capabilities::plain(1500));
    let (stack, driver) = Stack::builder().address([10, 0, 0, 2], 24).build(left).unwrap();
    tokio::spawn(driver);
    let start = tokio::time::Instant::now();
    let deadline = start + Duration::from_secs(5);
    let error = TcpStream::connect_by(&stack, addr(SERVER), deadline)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(start.elapsed().as_secs(), 5);
    // Without a deadline it is the stack that gives up: seven SYNs, as Linux sends.
    let error = TcpStream::connect(&stack, addr(SERVER)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!((start.elapsed().as_secs() - 5) / 10, 12, "127 s, in paused time");
}

#[tokio::test(start_paused = true)]
async fn deadlines_of_reads_and_writes() {
    let hosts = hosts();
    let (mut there, mut here) = connected(&hosts).await;
    let start = tokio::time::Instant::now();
    let deadline = start + Duration::from_millis(200);
    here.set_read_deadline(Some(deadline));
    assert_eq!(
        here.read(&mut [0; 8]).await.unwrap_err().kind(),
        ErrorKind::TimedOut
    );
    assert_eq!(start.elapsed().as_millis() / 10, 20);
    there.write_all(b"late").await.unwrap();
    here.readable().await.unwrap();
    assert_eq!(
        here.read(&mut [0; 8]).await.unwrap(),
        4,
        "what is there is read all the same"
    );
    here.set_read_deadline(None);
    let read = tokio::time::timeout(Duration::from_secs(10), here.read(&mut [0; 8])).await;
    assert!(read.is_err(), "it waits again");

    there.set_write_deadline(Some(tokio::time::Instant::now() + Duration::from_secs(3)));
    let full = loop {
        match there.write(&[0; 65_536]).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn drivers_end_with_their_handles() {
    let hosts = hosts();
    let (there, here) = connected(&hosts).await;
    let [server_driver, client_driver]: [_; 2] = hosts.drivers.try_into().unwrap();
    drop((hosts.server, hosts.client));
    tokio::task::yield_now().await;
    assert!(!server_driver.is_finished(), "there is still a connection");
    drop(there);
    drop(here);
    server_driver.await.unwrap().unwrap();
    // The other end is gone by now, or the connection is over as well.
    drop(client_driver.await.unwrap());
}

#[tokio::test]
async fn without_a_driver_nothing_hangs() {
    let hosts = hosts();
    let (mut there, here) = connected(&hosts).await;
    let listener = TcpListener::bind(&hosts.client, addr("10.0.0.2:99")).unwrap();
    let waiting = tokio::spawn(async move { listener.accept().await.map(drop) });
    tokio::task::yield_now().await;
    hosts.drivers[1].abort();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(
        there.read(&mut [0; 8]).await.unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
    assert_eq!(
        there.write(&[0; 8]).await.unwrap_err().kind(),
        ErrorKind::BrokenPipe
    );
    let error = TcpStream::connect(&hosts.client, addr(SERVER)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    drop(here);
}
