//! A relay between a stack of our own and the system: what the ends see is what they would see of each other.
#![cfg(target_os = "linux")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_net::link::{self, Capabilities};
use portolan_relay::{Counters, Ending, Options, Side, relay};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Only bounds a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection through a relay.
struct Path {
    /// In a stack of its own.
    inside: portolan_net::TcpStream,
    /// A socket of the system.
    outside: tokio::net::TcpStream,
    counters: Arc<Counters>,
    relay: JoinHandle<Ending>,
    _stacks: [portolan_net::Stack; 2],
}

fn host(number: u8, link: impl portolan_net::Link + 'static) -> portolan_net::Stack {
    let builder = portolan_net::Stack::builder().address([10, 0, 0, number], 24);
    let (stack, driver) = builder.build(link).unwrap();
    tokio::spawn(driver);
    stack
}

async fn path(options: Options) -> Path {
    let (left, right) = link::pair(Capabilities::plain(1500));
    let (gateway, program) = (host(1, left), host(2, right));
    let wanted: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let listener = portolan_net::TcpListener::bind(&gateway, wanted).unwrap();
    let inside = portolan_net::TcpStream::connect(&program, wanted);
    let (inside, accepted) = tokio::join!(inside, listener.accept());
    let system = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = tokio::net::TcpStream::connect(system.local_addr().unwrap())
        .await
        .unwrap();
    let outside = system.accept().await.unwrap().0;
    let counters = Arc::new(Counters::default());
    Path {
        inside: inside.unwrap(),
        outside,
        relay: tokio::spawn(relay(
            accepted.unwrap().0,
            dialled,
            options,
            Arc::clone(&counters),
        )),
        counters,
        _stacks: [gateway, program],
    }
}

async fn ending(relay: JoinHandle<Ending>) -> Ending {
    timeout(PATIENCE, relay).await.expect("an end").unwrap()
}

#[tokio::test]
async fn a_half_close_goes_through_and_the_other_way_goes_on() {
    for inside_first in [true, false] {
        let Path {
            mut inside,
            mut outside,
            counters,
            relay,
            _stacks,
        } = path(Options::default()).await;
        let (mut question, mut answer) = (String::new(), String::new());
        if inside_first {
            inside.write_all(b"question").await.unwrap();
            inside.finish().unwrap();
            outside.read_to_string(&mut question).await.unwrap();
            outside.write_all(b"a long answer").await.unwrap();
            outside.shutdown().await.unwrap();
            inside.read_to_string(&mut answer).await.unwrap();
        } else {
            outside.write_all(b"question").await.unwrap();
            outside.shutdown().await.unwrap();
            inside.read_to_string(&mut question).await.unwrap();
            inside.write_all(b"a long answer").await.unwrap();
            inside.finish().unwrap();
            outside.read_to_string(&mut answer).await.unwrap();
        }
        assert_eq!((&*question, &*answer), ("question", "a long answer"));
        assert!(matches!(ending(relay).await, Ending::Finished));
        let came = [Side::One, Side::Other].map(|side| counters.from(side));
        assert_eq!(came, if inside_first { [8, 13] } else { [13, 8] });
    }
}

#[tokio::test]
async fn a_reset_of_either_side_resets_the_other() {
    for of_inside in [true, false] {
        let Path {
            mut inside,
            mut outside,
            relay,
            _stacks,
            ..
        } = path(Options::default()).await;
        // The connection is known to be whole.
        inside.write_all(b"x").await.unwrap();
        outside.read_exact(&mut [0]).await.unwrap();
        let error = if of_inside {
            inside.reset();
            timeout(PATIENCE, outside.read(&mut [0]))
                .await
                .unwrap()
                .unwrap_err()
        } else {
            outside.set_zero_linger().unwrap();
            drop(outside);
            timeout(PATIENCE, inside.failed()).await.unwrap()
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{of_inside}");
        let side = if of_inside { Side::One } else { Side::Other };
        let ending = ending(relay).await;
        assert!(
            matches!(ending, Ending::Failed(failed, _) if failed == side),
            "{ending:?}"
        );
    }
}

/// The relay waits for room on one side and sees there is none to wait for.
#[tokio::test]
async fn a_reset_is_seen_while_the_other_side_does_not_read() {
    for of_inside in [true, false] {
        let Path {
            inside,
            outside,
            relay,
            _stacks,
            ..
        } = path(Options::default()).await;
        let flood = vec![7; 1 << 16];
        if of_inside {
            while timeout(Duration::from_millis(500), writes(&inside, &flood))
                .await
                .is_ok()
            {}
            inside.reset();
        } else {
            while timeout(Duration::from_millis(500), outside.writable())
                .await
                .is_ok()
            {
                let _ = outside.try_write(&flood);
            }
            outside.set_zero_linger().unwrap();
            drop(outside);
        }
        let side = if of_inside { Side::One } else { Side::Other };
        let ending = ending(relay).await;
        assert!(
            matches!(ending, Ending::Failed(failed, _) if failed == side),
            "{ending:?}"
        );
    }
}

async fn writes(stream: &portolan_net::TcpStream, bytes: &[u8]) {
    loop {
        stream.writable().await.unwrap();
        if stream.try_write(bytes).is_ok() {
            return;
        }
    }
}

/// The byte at a place of a stream: no two near ones are alike.
fn byte(place: u64, seed: u64) -> u8 {
    ((place + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn pattern(start: u64, len: usize, seed: u64) -> Vec<u8> {
    (start..start + len as u64)
        .map(|place| byte(place, seed))
        .collect()
}

async fn writes_all(mut to: impl tokio::io::AsyncWrite + Unpin, total: u64, seed: u64) {
    let mut at = 0;
    while at < total {
        // Short writes and long ones, so that chunks are copied and kept.
        let len = (1 + at % 70_000).min(total - at);
        to.write_all(&pattern(at, len as usize, seed)).await.unwrap();
        at += len;
    }
    to.shutdown().await.unwrap();
}

async fn reads_all(mut from: impl tokio::io::AsyncRead + Unpin, seed: u64) -> u64 {
    let (mut at, mut got) = (0_u64, vec![0; 1 << 16]);
    loop {
        // A reader that pauses now and then: the relay must wait with it.
        if at % 512 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let len = from.read(&mut got).await.unwrap();
        if len == 0 {
            return at;
        }
        assert!(got[..len] == pattern(at, len, seed), "another byte after {at}");
        at += len as u64;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_arrives_both_ways() {
    let total = if cfg!(debug_assertions) {
        16 << 20
    } else {
        256 << 20
    };
    let Path {
        inside,
        outside,
        counters,
        relay,
        _stacks,
    } = path(Options::default()).await;
    let (inside_read, inside_write) = inside.into_split();
    let (outside_read, outside_write) = outside.into_split();
    let done = tokio::join!(
        tokio::spawn(writes_all(inside_write, total, 1)),
        tokio::spawn(writes_all(outside_write, total, 2)),
        tokio::spawn(reads_all(outside_read, 1)),
        tokio::spawn(reads_all(inside_read, 2)),
    );
    done.0.unwrap();
    done.1.unwrap();
    assert_eq!((done.2.unwrap(), done.3.unwrap()), (total, total));
    assert!(matches!(ending(relay).await, Ending::Finished));
    assert_eq!(
        [Side::One, Side::Other].map(|side| counters.from(side)),
        [total; 2]
    );
}

#[tokio::test]
async fn what_moves_nothing_is_ended() {
    let options = Options {
        idle: Some(Duration::from_millis(200)),
        ..Options::default()
    };
    let Path {
        mut inside,
        outside: _outside,
        relay,
        _stacks,
        ..
    } = path(options).await;
    let error = timeout(PATIENCE, inside.read(&mut [0]))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert!(matches!(ending(relay).await, Ending::Idle));
}
