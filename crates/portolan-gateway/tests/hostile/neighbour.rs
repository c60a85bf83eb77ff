//! A well-behaved program beside the hostile one: echoes over TCP and UDP, IPv4 and IPv6, that must go on, whatever happens.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portolan_net::{Stack, TcpStream, UdpSocket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::namespace::{HOST_V4, HOST_V6};
use crate::world::{GATEWAY, PATIENCE, addr};

/// The neighbour's own addresses. No hostile frame has them as its source: who is root in a space may of course end the
/// flows of another program there by speaking in its name.
pub(crate) const NEIGHBOUR: [&str; 2] = ["10.0.0.9", "fd00::9"];
/// The port of a server on the host that sends back what it gets, over TCP and UDP.
pub(crate) const ECHO: u16 = 7;
/// A name that the resolver knows, and its address: not the host's own, which names below a domain do not open.
pub(crate) const NAME: &str = "good.example";
pub(crate) const NAMED: [u8; 4] = [198, 18, 0, 5];

/// The server waits for a first word on so many connections, the latest ones.
const SILENT: usize = 1_000;
const FLOWS: usize = 4;
/// Bytes of one echo.
const LEN: usize = 2_000;

/// Flows that go on for as long as this lives.
pub(crate) struct Neighbour {
    stack: Stack,
    /// How many echoes have come back: TCP over IPv4, over IPv6, UDP over IPv4, over IPv6.
    echoes: [Arc<AtomicU64>; FLOWS],
    /// They end with it.
    tasks: JoinSet<()>,
}

impl Neighbour {
    /// Begins its flows in a stack that has its addresses.
    pub(crate) async fn new(stack: &Stack) -> Self {
        let mut neighbour = Self {
            stack: stack.clone(),
            echoes: Default::default(),
            tasks: JoinSet::new(),
        };
        for (family, host) in [HOST_V4, HOST_V6].into_iter().enumerate() {
            let stream = connect(stack, family).await;
            let echoes = Arc::clone(&neighbour.echoes[family]);
            neighbour.tasks.spawn(echo_stream(stream, echoes));
            let socket = UdpSocket::bind(stack, addr(NEIGHBOUR[family], 5_000)).unwrap();
            socket.connect(addr(host, ECHO)).unwrap();
            let echoes = Arc::clone(&neighbour.echoes[2 + family]);
            neighbour.tasks.spawn(echo_datagrams(socket, echoes));
        }
        neighbour.moves_on().await;
        neighbour
    }

    /// Waits until each of its flows has carried an echo that began after this call.
    pub(crate) async fn moves_on(&self) {
        let before = self.counts();
        let waiting = async {
            // The one that was under way, and another one.
            while self
                .counts()
                .iter()
                .zip(before)
                .any(|(now, before)| *now < before + 2)
            {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let result = timeout(PATIENCE, waiting).await;
        assert!(
            result.is_ok(),
            "the neighbour stands still: {before:?}, now {:?}",
            self.counts()
        );
    }

    /// How many echoes there were.
    pub(crate) fn counts(&self) -> [u64; FLOWS] {
        [0, 1, 2, 3].map(|flow: usize| self.echoes[flow].load(Ordering::Relaxed))
    }

    /// It begins something new: connections, and a look-up of a name.
    pub(crate) async fn begins(&self) {
        for family in [0, 1] {
            let mut stream = connect(&self.stack, family).await;
            stream.write_all(b"hello").await.unwrap();
            let mut heard = [0; 5];
            timeout(PATIENCE, stream.read_exact(&mut heard))
                .await
                .unwrap()
                .unwrap();
            assert_eq!(&heard, b"hello");
            self.looks_up(family).await;
        }
    }

    /// It asks again if it hears nothing, or that nobody could be asked, as resolvers do: the host's has a queue that others
    /// fill as well.
    pub(crate) async fn looks_up(&self, family: usize) {
        const SERVFAIL: u8 = 2;
        let socket = UdpSocket::bind(&self.stack, addr(NEIGHBOUR[family], 0)).unwrap();
        socket.connect(addr(GATEWAY[family], 53)).unwrap();
        let question = question(0x1234, NAME, 1);
        let mut reply = [0; 1_500];
        let asking = async {
            loop {
                socket.send(&question).await.unwrap();
                if let Ok(Ok(len)) = timeout(Duration::from_millis(500), socket.recv(&mut reply)).await
                    && reply[3] & 0x0f != SERVFAIL
                {
                    break len;
                }
            }
        };
        let len = timeout(PATIENCE, asking).await.expect("a name is found");
        assert_eq!(reply[..2], question[..2]);
        assert_eq!(reply[3] & 0x0f, 0, "{:x?}", &reply[..len]);
        assert!(reply[..len].ends_with(&NAMED), "{:x?}", &reply[..len]);
    }
}

async fn connect(stack: &Stack, family: usize) -> TcpStream {
    let host = addr([HOST_V4, HOST_V6][family], ECHO);
    let local = addr(NEIGHBOUR[family], 0);
    let trying = async {
        // One that found no room tries again.
        loop {
            match timeout(
                Duration::from_secs(3),
                TcpStream::connect_from(stack, local, host),
            )
            .await
            {
                Ok(Ok(stream)) => break stream,
                Ok(Err(_)) => sleep(Duration::from_millis(20)).await,
                Err(_) => {}
            }
        }
    };
    timeout(PATIENCE, trying).await.expect("the neighbour connects")
}

async fn echo_stream(mut stream: TcpStream, echoes: Arc<AtomicU64>) {
    let mut heard = vec![0; LEN];
    loop {
        let said = pattern(echoes.load(Ordering::Relaxed));
        stream.write_all(&said).await.unwrap();
        stream.read_exact(&mut heard).await.unwrap();
        assert!(heard == said, "an echo that is none");
        echoes.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(1)).await;
    }
}

async fn echo_datagrams(socket: UdpSocket, echoes: Arc<AtomicU64>) {
    let mut heard = vec![0; LEN];
    loop {
        let said = &pattern(echoes.load(Ordering::Relaxed))[..1_000];
        // What is full drops datagrams; then it is said again.
        let _ = socket.send(said).await;
        let hearing = async {
            loop {
                match socket.recv(&mut heard).await {
                    Ok(len) if heard[..len] == *said => break,
                    // One that came late, or an error.
                    Ok(_) | Err(_) => {}
                }
            }
        };
        if timeout(Duration::from_millis(300), hearing).await.is_ok() {
            echoes.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Bytes that are others in every echo.
fn pattern(number: u64) -> Vec<u8> {
    let word = |place: u64| (number << 16 | place).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (0..LEN as u64).map(|place| (word(place) >> 56) as u8).collect()
}

/// A question for a name, of this type.
pub(crate) fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// Serves echoes on the host.
pub(crate) async fn serve_echoes() {
    for host in [HOST_V4, HOST_V6] {
        let address: SocketAddr = addr(host, ECHO);
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        tokio::spawn(async move {
            // Who opens connections without end and says nothing is not to use up the descriptors of this process, which
            // the gateway has its own from.
            let mut silent = VecDeque::new();
            loop {
                match listener.accept().await {
                    Ok((mut stream, _)) => {
                        let (keep, crowded_out) = oneshot::channel::<()>();
                        silent.push_back(keep);
                        if silent.len() > SILENT {
                            silent.pop_front();
                        }
                        tokio::spawn(async move {
                            tokio::select! {
                                _ = stream.readable() => {}
                                _ = crowded_out => return,
                            }
                            let (mut read, mut write) = stream.split();
                            // Clients come and go as they like.
                            let _ = tokio::io::copy(&mut read, &mut write).await;
                        });
                    }
                    // No descriptor is left, for the moment.
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
        });
        let socket = tokio::net::UdpSocket::bind(address).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = vec![0; 70_000];
            loop {
                if let Ok((len, from)) = socket.recv_from(&mut buffer).await {
                    let _ = socket.send_to(&buffer[..len], from).await;
                }
            }
        });
    }
}
