//! Datagrams.

use std::io::ErrorKind;

use portolan_net::UdpSocket;

use crate::support::{addr, hosts};

#[tokio::test]
async fn a_question_and_its_answer() {
    let hosts = hosts();
    for (bound, asked) in [
        ("10.0.0.1:53", "10.0.0.1:53"),
        ("0.0.0.0:54", "10.0.0.1:54"),
        ("[::]:55", "[2001:db8::1]:55"),
    ] {
        let here = UdpSocket::bind(&hosts.server, addr(bound)).unwrap();
        let there = UdpSocket::bind(
            &hosts.client,
            addr(if bound.starts_with('[') {
                "[::]:0"
            } else {
                "0.0.0.0:0"
            }),
        )
        .unwrap();
        assert_eq!(there.send_to(b"question", addr(asked)).await.unwrap(), 8);
        let mut bytes = [0; 100];
        let datagram = here.recv_msg(&mut bytes).await.unwrap();
        assert_eq!(
            (&bytes[..datagram.len], datagram.local),
            (&b"question"[..], addr(asked))
        );
        here.send_msg(b"answer", datagram.local, datagram.remote)
            .await
            .unwrap();
        let (len, from) = there.recv_from(&mut bytes[..3]).await.unwrap();
        assert_eq!(
            (len, &bytes[..3], from),
            (3, &b"ans"[..], addr(asked)),
            "{bound}: the rest is lost"
        );
        assert_eq!(
            there.try_recv_from(&mut bytes).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
    }
}

#[tokio::test]
async fn a_sender_waits_for_room_and_everything_arrives_in_order() {
    let hosts = hosts();
    let here = UdpSocket::bind(&hosts.server, addr("10.0.0.1:53")).unwrap();
    let there = UdpSocket::bind(&hosts.client, addr("10.0.0.2:0")).unwrap();
    // Nothing is sent before this task gives way to the driver.
    let mut sent = 0u32;
    while there
        .try_send_to(&sent.to_be_bytes(), addr("10.0.0.1:53"))
        .is_ok()
    {
        sent += 1;
    }
    assert!(sent > 1000, "{sent} datagrams of 4 bytes fill the buffer");
    let receiver = tokio::spawn(async move {
        let mut bytes = [0; 4];
        for number in 0..=sent {
            here.recv_from(&mut bytes).await.unwrap();
            assert_eq!(u32::from_be_bytes(bytes), number);
        }
    });
    there
        .send_to(&sent.to_be_bytes(), addr("10.0.0.1:53"))
        .await
        .unwrap();
    receiver.await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_sent() {
    let hosts = hosts();
    let there = UdpSocket::bind(&hosts.client, addr("10.0.0.2:0")).unwrap();
    let error = there
        .send_to(&[0; 65_508], addr("10.0.0.1:53"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let local = there.local_addr().unwrap();
    let error = UdpSocket::bind(&hosts.client, local).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(there);
    UdpSocket::bind(&hosts.client, local).unwrap();
}

#[tokio::test]
async fn a_connected_socket_hears_its_remote_alone_and_of_errors() {
    let hosts = hosts();
    let there = UdpSocket::bind(&hosts.client, addr("0.0.0.0:0")).unwrap();
    assert_eq!(there.peer_addr().unwrap_err().kind(), ErrorKind::NotConnected);
    there.connect(addr("10.0.0.1:53")).unwrap();
    assert_eq!(there.peer_addr().unwrap(), addr("10.0.0.1:53"));
    there.send(b"anybody?").await.unwrap();
    let error = there.recv(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

    let here = UdpSocket::bind(&hosts.server, addr("10.0.0.1:53")).unwrap();
    let stranger = UdpSocket::bind(&hosts.server, addr("10.0.0.1:54")).unwrap();
    let local = there.local_addr().unwrap();
    stranger.send_to(b"stranger", local).await.unwrap();
    here.send_to(b"friend", local).await.unwrap();
    let mut bytes = [0; 16];
    assert_eq!(there.recv(&mut bytes).await.unwrap(), 6);
    assert_eq!(
        there.try_recv(&mut bytes).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
}
