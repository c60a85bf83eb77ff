//! Urgent data in the midst of other data: its place is the same on the other side.

use std::future::poll_fn;
use std::time::Duration;

use bytes::BytesMut;
use portolan_net::TcpStream;
use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::namespace::{HOST_V4, HOST_V6, in_namespace};
use crate::support::world::{PATIENCE, addr, pattern, world};

/// Bytes before an urgent one: fewer and more than are carried at once, and as many.
const LENS: [usize; 6] = [0, 1, 1000, 65_535, 65_536, 300_000];

/// Reads up to an urgent byte: how many came before it, and what it is.
async fn read_to_mark(stream: &TcpStream) -> (usize, u8) {
    let mut before = 0;
    loop {
        let mut room = BytesMut::with_capacity(1 << 16);
        let (len, is_urgent) = poll_fn(|cx| stream.poll_read_marked(cx, &mut room))
            .await
            .unwrap();
        if is_urgent {
            assert_eq!(len, 1);
            return (before, room[0]);
        }
        assert_ne!(len, 0, "the end after {before}");
        before += len;
    }
}

#[test]
fn urgent_data_keeps_its_place_both_ways() {
    in_namespace("urgent::urgent_data_keeps_its_place_both_ways", || async {
        let world = world();
        for host in [HOST_V4, HOST_V6] {
            let server = TcpListener::bind(addr(host, 0)).await.unwrap();
            let destination = server.local_addr().unwrap();
            let (there, here) = tokio::join!(TcpStream::connect(&world.client, destination), server.accept());
            let (mut there, (mut here, _)) = (there.unwrap(), here.unwrap());
            for (number, len) in LENS.into_iter().enumerate() {
                let urgent = b'0' + number as u8;
                // To the program, which reads while it is sent.
                let send = async {
                    here.write_all(&pattern(len)).await.unwrap();
                    SockRef::from(&here).send_out_of_band(&[urgent]).unwrap();
                };
                let ((), read) = timeout(PATIENCE, async { tokio::join!(send, read_to_mark(&there)) })
                    .await
                    .expect("the urgent byte");
                assert_eq!(read, (len, urgent), "{host}");
                // From the program.
                let send = async {
                    there.write_all(&pattern(len)).await.unwrap();
                    let written = poll_fn(|cx| there.poll_write_urgent(cx, &[urgent])).await;
                    assert_eq!(written.unwrap(), 1);
                };
                let mut bytes = vec![0; len];
                let received = async { tokio::join!(send, here.read_exact(&mut bytes)).1 };
                timeout(PATIENCE, received)
                    .await
                    .expect("the bytes before")
                    .unwrap();
                assert!(bytes == pattern(len));
                let mut told = [0];
                let out_of_band = async {
                    // It is not there before the bytes behind which it stands.
                    while rustix::net::recv(&here, &mut told, RecvFlags::OOB).is_err() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                };
                timeout(PATIENCE, out_of_band).await.expect("the urgent byte");
                assert_eq!(told, [urgent], "{host}");
            }
        }
    });
}
