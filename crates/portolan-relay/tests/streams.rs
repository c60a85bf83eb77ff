//! A relayed connection beside a direct one: what the ends see is the same.
#![cfg(target_os = "linux")]

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use portolan_relay::{Counters, Ending, Options, PipePool, Relays, Side, relay, splice};
use rustix::net::{RecvFlags, SendFlags, sockopt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How the two ends are connected.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Direct,
    Splice,
    /// With no pipes to be had.
    SpliceWithoutPipes,
    Relay,
}

const WAYS: [Way; 4] = [Way::Direct, Way::Splice, Way::SpliceWithoutPipes, Way::Relay];

/// A connection from a client to a server, and what relays it.
struct Path {
    client: TcpStream,
    server: TcpStream,
    counters: Arc<Counters>,
    pipes: Arc<PipePool>,
    relay: Option<JoinHandle<Ending>>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn path(way: Way, options: Options) -> Path {
    let counters = Arc::new(Counters::default());
    let pipes = Arc::new(PipePool::new(if way == Way::SpliceWithoutPipes { 0 } else { 8 }));
    let (client, one) = pair().await;
    if way == Way::Direct {
        let server = one;
        return Path {
            client,
            server,
            counters,
            pipes,
            relay: None,
        };
    }
    let (other, server) = pair().await;
    let count = Arc::clone(&counters);
    let pool = Arc::clone(&pipes);
    let relay = tokio::spawn(async move {
        if way == Way::Relay {
            relay(one, other, options, count).await
        } else {
            splice(one, other, &pool, options, count).await
        }
    });
    Path {
        client,
        server,
        counters,
        pipes,
        relay: Some(relay),
    }
}

/// What reading to the end gives: the bytes, and the error that cut them short.
async fn read_all(stream: &mut TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let result = timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await;
    (bytes, result.expect("an end").err().map(|error| error.kind()))
}

async fn ending(path: Path) -> Option<Ending> {
    drop((path.client, path.server));
    match path.relay {
        None => None,
        Some(relay) => Some(timeout(Duration::from_secs(30), relay).await.unwrap().unwrap()),
    }
}

#[tokio::test]
async fn a_half_close_goes_through_each_way_and_the_other_goes_on() {
    for way in WAYS {
        let mut path = path(way, Options::default()).await;
        path.client.write_all(b"question").await.unwrap();
        path.client.shutdown().await.unwrap();
        assert_eq!(
            read_all(&mut path.server).await,
            (b"question".to_vec(), None),
            "{way:?}"
        );
        sleep(Duration::from_millis(20)).await;
        path.server.write_all(b"a long answer").await.unwrap();
        path.server.shutdown().await.unwrap();
        assert_eq!(
            read_all(&mut path.client).await,
            (b"a long answer".to_vec(), None),
            "{way:?}"
        );
        if way != Way::Direct {
            assert_eq!(path.counters.from(Side::One), 8);
            assert_eq!(path.counters.from(Side::Other), 13);
            assert!(matches!(ending(path).await, Some(Ending::Finished)), "{way:?}");
        }
    }
}

#[tokio::test]
async fn a_reset_of_either_side_resets_the_other() {
    for way in WAYS {
        for from_client in [true, false] {
            let mut path = path(way, Options::default()).await;
            let (mut one, mut other) = (path.client, path.server);
            if !from_client {
                (one, other) = (other, one);
            }
            one.write_all(b"last words").await.unwrap();
            // Both have something to read, and the connection is known to be whole.
            other.read_exact(&mut [0; 4]).await.unwrap();
            one.set_zero_linger().unwrap();
            drop(one);
            let (_, error) = read_all(&mut other).await;
            assert_eq!(error, Some(ErrorKind::ConnectionReset), "{way:?} {from_client}");
            if let Some(relay) = path.relay.take() {
                let side = if from_client { Side::One } else { Side::Other };
                let ending = relay.await.unwrap();
                assert!(
                    matches!(ending, Ending::Failed(failed, _) if failed == side),
                    "{ending:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_reset_after_a_half_close_resets_too() {
    for way in WAYS {
        let mut path = path(way, Options::default()).await;
        path.client.shutdown().await.unwrap();
        assert_eq!(read_all(&mut path.server).await, (Vec::new(), None));
        path.client.set_zero_linger().unwrap();
        drop(path.client);
        // The server writes on; as to a direct client, that fails in the end.
        let failed = timeout(Duration::from_secs(10), async {
            loop {
                if let Err(error) = path.server.write_all(b"x").await {
                    return error.kind();
                }
                sleep(Duration::from_millis(1)).await;
            }
        });
        let kind = failed.await.unwrap();
        assert!(
            [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&kind),
            "{way:?} {kind:?}"
        );
    }
}

#[tokio::test]
async fn who_has_not_heard_the_end_sees_a_reset_when_the_relay_is_dropped() {
    for way in [Way::Splice, Way::SpliceWithoutPipes, Way::Relay] {
        let mut path = path(way, Options::default()).await;
        path.client.write_all(b"half of it").await.unwrap();
        path.server.read_exact(&mut [0; 10]).await.unwrap();
        path.server.write_all(b"all").await.unwrap();
        path.server.shutdown().await.unwrap();
        let mut all = [0; 3];
        path.client.read_exact(&mut all).await.unwrap();
        assert_eq!(path.client.read(&mut all).await.unwrap(), 0, "{way:?}");
        path.relay.unwrap().abort();
        assert_eq!(
            read_all(&mut path.server).await,
            (Vec::new(), Some(ErrorKind::ConnectionReset)),
            "{way:?}"
        );
        assert_eq!(read_all(&mut path.client).await, (Vec::new(), None), "{way:?}");
    }
}

/// Writes `before`, an urgent byte, and `after`, and says that this is all.
async fn write_urgent(stream: &mut TcpStream, before: &[u8], urgent: u8, after: &[u8]) {
    stream.write_all(before).await.unwrap();
    stream.writable().await.unwrap();
    assert_eq!(rustix::net::send(&*stream, &[urgent], SendFlags::OOB), Ok(1));
    stream.write_all(after).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_urgent_byte_keeps_its_place_and_what_follows_comes() {
    for way in [Way::Direct, Way::Splice, Way::SpliceWithoutPipes] {
        for (before, after) in [
            (&b"12345"[..], &b"678"[..]),
            (b"", b"678"),
            (b"12345", b""),
            (b"", b""),
        ] {
            let mut path = path(way, Options::default()).await;
            sockopt::set_socket_oobinline(&path.server, true).unwrap();
            write_urgent(&mut path.client, before, b'!', after).await;
            // A read of the kernel ends at the mark.
            let mut parts = Vec::new();
            let reading = async {
                loop {
                    let mut part = [0; 16];
                    path.server.readable().await.unwrap();
                    match path.server.try_read(&mut part) {
                        Ok(0) => break,
                        Ok(len) => parts.extend_from_slice(&part[..len]),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    }
                }
            };
            timeout(Duration::from_secs(30), reading).await.unwrap();
            assert_eq!(parts, [before, b"!", after].concat(), "{way:?}");
            assert!(
                matches!(ending(path).await, None | Some(Ending::Finished)),
                "{way:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_urgent_byte_is_told_to_be_urgent_through_a_splice() {
    for way in [Way::Direct, Way::Splice] {
        let mut path = path(way, Options::default()).await;
        write_urgent(&mut path.client, b"12345", b'!', b"678").await;
        let server = &path.server;
        let urgent = timeout(Duration::from_secs(30), async {
            let mut byte = [0];
            while rustix::net::recv(server, &mut byte, RecvFlags::OOB | RecvFlags::DONTWAIT).is_err() {
                sleep(Duration::from_millis(1)).await;
            }
            byte
        });
        assert_eq!(urgent.await.unwrap(), *b"!", "{way:?}");
        // Tokio's own reads take the mark for the end of what is there.
        let mut rest = Vec::new();
        let reading = async {
            while rest.len() < 8 {
                path.server.readable().await.unwrap();
                let _ = path.server.try_read_buf(&mut rest);
            }
        };
        timeout(Duration::from_secs(30), reading).await.unwrap();
        assert_eq!(rest, b"12345678", "{way:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_arrives_both_ways_at_slow_readers() {
    let total: u64 = if cfg!(debug_assertions) { 48 << 20 } else { 1 << 30 };
    for way in [Way::Splice, Way::SpliceWithoutPipes, Way::Relay] {
        let path = path(way, Options::default()).await;
        let (client_read, client_write) = path.client.into_split();
        let (server_read, server_write) = path.server.into_split();
        let sums = tokio::join!(
            tokio::spawn(write_numbers(client_write, total, 1)),
            tokio::spawn(write_numbers(server_write, total, 2)),
            tokio::spawn(read_numbers(server_read, 1)),
            tokio::spawn(read_numbers(client_read, 2)),
        );
        assert_eq!(sums.0.unwrap().unwrap(), total, "{way:?}");
        assert_eq!(sums.1.unwrap().unwrap(), total);
        assert_eq!(sums.2.unwrap().unwrap(), total);
        assert_eq!(sums.3.unwrap().unwrap(), total);
        assert!(matches!(path.relay.unwrap().await.unwrap(), Ending::Finished));
        assert_eq!(path.counters.from(Side::One), total);
        assert_eq!(path.counters.from(Side::Other), total);
        assert!(path.pipes.count() <= 2, "{}", path.pipes.count());
    }
}

/// Bytes of a generator that a reader with the same seed can foretell: no hash is stronger.
struct Numbers(u64);

impl Numbers {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

async fn write_numbers(mut to: tokio::net::tcp::OwnedWriteHalf, total: u64, seed: u64) -> io::Result<u64> {
    let mut numbers = Numbers(seed);
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..total >> 16 {
        numbers.fill(&mut buffer);
        to.write_all(&buffer).await?;
    }
    to.shutdown().await?;
    Ok(total)
}

async fn read_numbers(mut from: tokio::net::tcp::OwnedReadHalf, seed: u64) -> io::Result<u64> {
    let mut numbers = Numbers(seed);
    let mut total = 0_u64;
    let (mut expected, mut got) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        // A reader that pauses now and then: the relay must wait with it.
        if total.is_multiple_of(8 << 20) {
            sleep(Duration::from_millis(30)).await;
        }
        match from.read_exact(&mut got).await {
            Ok(len) => {
                numbers.fill(&mut expected);
                assert!(got == expected, "another byte after {total}");
                total += len as u64;
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(total),
            Err(error) => return Err(error),
        }
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_writer() {
    for way in WAYS {
        let mut path = path(way, Options::default()).await;
        let mut written = 0_u64;
        let bytes = vec![7; 1 << 16];
        while let Ok(result) = timeout(Duration::from_millis(500), path.client.write(&bytes)).await {
            written += result.unwrap() as u64;
            // The buffers of four sockets, at most 6 MiB each (tcp_wmem, tcp_rmem), and one pipe.
            assert!(written < 40 << 20, "{way:?} swallows without end");
        }
        path.client.shutdown().await.unwrap();
        let (bytes, error) = read_all(&mut path.server).await;
        assert_eq!((bytes.len() as u64, error), (written, None), "{way:?}");
    }
}

#[tokio::test]
async fn what_moves_nothing_is_ended_and_what_moves_is_not() {
    for way in [Way::Splice, Way::Relay] {
        let options = Options {
            idle: Some(Duration::from_millis(300)),
            ..Options::default()
        };
        let mut path = path(way, options).await;
        for _ in 0..12 {
            sleep(Duration::from_millis(50)).await;
            path.client.write_all(b"x").await.unwrap();
        }
        let (bytes, error) = read_all(&mut path.server).await;
        assert_eq!((bytes.len(), error), (12, Some(ErrorKind::ConnectionReset)));
        assert!(matches!(path.relay.take().unwrap().await.unwrap(), Ending::Idle));
    }
}

#[tokio::test]
async fn draining_lets_relays_finish_and_then_ends_them() {
    let relays = Relays::new(2);
    let admitted = || Options {
        idle: None,
        permit: relays.admit(),
    };
    let (first, second) = (
        path(Way::Splice, admitted()).await,
        path(Way::Relay, admitted()).await,
    );
    assert_eq!(relays.running(), 2);
    assert!(relays.admit().is_none(), "two is the limit");
    let drain = tokio::spawn({
        let relays = relays.clone();
        async move { relays.drain(Duration::from_millis(300)).await }
    });
    sleep(Duration::from_millis(50)).await;
    assert!(matches!(ending(first).await, Some(Ending::Finished)));
    assert!(relays.admit().is_none(), "a place is free, but they are drained");
    assert_eq!(drain.await.unwrap(), 1);
    assert!(matches!(second.relay.unwrap().await.unwrap(), Ending::Drained));
    assert_eq!(relays.running(), 0);
}
