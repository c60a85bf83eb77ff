//! Descriptors of a process that relays: in a program of its own, since they are counted.
#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::time::Duration;

use portolan_relay::{Counters, Options, PipePool, relay, splice};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test]
async fn none_is_left_and_idle_connections_hold_no_pipe() {
    let pipes = Arc::new(PipePool::new(4));
    let before = open_descriptors();
    for round in 0..100 {
        let (mut client, one) = pair().await;
        let (other, mut server) = pair().await;
        let pool = Arc::clone(&pipes);
        let counters = Arc::new(Counters::default());
        let relay = tokio::spawn(async move {
            if round % 4 == 3 {
                relay(one, other, Options::default(), counters).await
            } else {
                splice(one, other, &pool, Options::default(), counters).await
            }
        });
        client.write_all(&[1; 1000]).await.unwrap();
        server.read_exact(&mut [0; 1000]).await.unwrap();
        // Four sockets, and no more pipes than the two directions ever had at once.
        assert!(open_descriptors() <= before + 4 + 4, "in round {round}");
        if round % 2 == 0 {
            // Bytes are in the pipe when it ends.
            let _ = timeout(Duration::from_millis(20), client.write_all(&vec![1; 32 << 20])).await;
            server.set_zero_linger().unwrap();
            drop(server);
        } else {
            client.shutdown().await.unwrap();
            drop(server);
        }
        drop(client);
        timeout(Duration::from_secs(10), relay).await.unwrap().unwrap();
    }
    let idle = pipes.count() * 2;
    assert!(idle <= 4);
    assert_eq!(open_descriptors(), before + idle);
}
