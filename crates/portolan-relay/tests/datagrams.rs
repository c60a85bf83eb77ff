//! Relayed datagrams: answers find their client, and sessions have bounds.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use portolan_relay::{DatagramEnd, FixedDestination, UdpOptions, UdpRelay};
use tokio::net::UdpSocket;
use tokio::time::{sleep, timeout};

/// Answers each datagram with the address from which it came and the datagram.
async fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let answer = [from.to_string().as_bytes(), b" ", &buffer[..len]].concat();
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    address
}

async fn client(relay: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(relay).await.unwrap();
    socket
}

async fn ask(socket: &UdpSocket, text: &str) -> Option<String> {
    ask_for(socket, text, Duration::from_secs(10)).await
}

async fn ask_for(socket: &UdpSocket, text: &str, patience: Duration) -> Option<String> {
    socket.send(text.as_bytes()).await.unwrap();
    let mut buffer = [0; 2048];
    let len = timeout(patience, socket.recv(&mut buffer)).await.ok()?.ok()?;
    Some(String::from_utf8(buffer[..len].to_vec()).unwrap())
}

async fn forwarded(
    destination: SocketAddr,
    options: UdpOptions,
) -> (SocketAddr, Arc<UdpRelay<FixedDestination>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let relay = Arc::new(UdpRelay::new(FixedDestination { socket, destination }, options));
    let running = Arc::clone(&relay);
    tokio::spawn(async move { running.run().await });
    (address, relay)
}

#[tokio::test]
async fn each_client_has_a_source_of_its_own_and_its_own_answers() {
    let (relay, state) = forwarded(echo().await, UdpOptions::default()).await;
    let (one, other) = (client(relay).await, client(relay).await);
    let first = ask(&one, "one").await.unwrap();
    let second = ask(&other, "other").await.unwrap();
    assert!(first.ends_with(" one") && second.ends_with(" other"));
    assert_ne!(first.split(' ').next(), second.split(' ').next());
    let again = ask(&one, "again").await.unwrap();
    assert_eq!(
        first.split(' ').next(),
        again.split(' ').next(),
        "a session keeps its source"
    );
    assert_eq!(state.sessions(), 2);
    assert_eq!(state.counters().sent.load(Ordering::Relaxed), 3);
    assert_eq!(state.counters().answered.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn sessions_are_bounded_and_end_when_idle() {
    let options = UdpOptions {
        idle: Duration::from_secs(2),
        sessions: 3,
        sessions_per_client: 2,
    };
    let (relay, state) = forwarded(echo().await, options).await;
    let clients = [client(relay).await, client(relay).await, client(relay).await];
    assert!(ask(&clients[0], "a").await.is_some());
    assert!(ask(&clients[1], "b").await.is_some());
    assert_eq!(
        ask_for(&clients[2], "c", Duration::from_millis(200)).await,
        None,
        "one address has two sessions at most"
    );
    assert_eq!(state.counters().refused.load(Ordering::Relaxed), 1);
    let ended = async {
        while state.sessions() > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(30), ended)
        .await
        .expect("idle sessions end");
    assert!(ask(&clients[2], "c").await.is_some(), "there is room again");
}

/// An end whose datagrams are a list, and that notes what it is told.
struct Scripted {
    datagrams: Mutex<Vec<(&'static [u8], SocketAddr, SocketAddr)>>,
    told: Arc<Mutex<Vec<String>>>,
}

impl DatagramEnd for Scripted {
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, SocketAddr)> {
        let next = self.datagrams.lock().unwrap().pop();
        match next {
            Some((bytes, client, destination)) => {
                sleep(Duration::from_millis(20)).await;
                buffer[..bytes.len()].copy_from_slice(bytes);
                Ok((bytes.len(), client, destination))
            }
            None => {
                // Both have been told by then, unless one never is.
                let start = Instant::now();
                while self.told.lock().unwrap().len() < 2 && start.elapsed() < Duration::from_secs(10) {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }

    fn answer(&self, bytes: &[u8], from: SocketAddr, to: SocketAddr) -> io::Result<()> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.split(' ').next_back().unwrap_or_default();
        self.told
            .lock()
            .unwrap()
            .push(format!("{from} answers {to}: {text}"));
        Ok(())
    }

    fn unreachable(&self, client: SocketAddr, destination: SocketAddr) {
        self.told
            .lock()
            .unwrap()
            .push(format!("{destination} is not there for {client}"));
    }
}

#[tokio::test]
async fn destinations_are_kept_apart_and_refusals_are_told() {
    let there = echo().await;
    let nobody = UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let client: SocketAddr = "[2001:db8::1]:4711".parse().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let end = Scripted {
        datagrams: Mutex::new(vec![(b"hello", client, there), (b"lost", client, nobody)]),
        told: Arc::clone(&told),
    };
    let relay = UdpRelay::new(end, UdpOptions::default());
    assert_eq!(
        relay.run().await.unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
    assert_eq!(relay.sessions(), 0, "sessions end with the end");
    let mut told = told.lock().unwrap().clone();
    told.sort();
    let mut expected = [
        format!("{nobody} is not there for {client}"),
        format!("{there} answers {client}: hello"),
    ];
    expected.sort();
    assert_eq!(*told, expected);
}
