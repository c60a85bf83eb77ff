//! Port 53 of the gateway, over UDP and TCP.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_net::{Stack, TcpListener, TcpStream, UdpSocket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::places::{Place, Places};
use super::{Forwarder, Most};

/// The sockets.
pub(super) struct Server {
    udp: Vec<Arc<UdpSocket>>,
    tcp: Vec<TcpListener>,
}

const PORT: u16 = 53;
/// How many questions are answered at once; more over UDP are dropped, as by a full queue, and asked again.
const QUESTIONS_MAX: usize = 256;
/// How many connections there are at once; for one more the longest idle gives way (RFC 7766, section 6.2.3), and never one
/// with a question that was not answered.
const CONNECTIONS_MAX: usize = 64;
/// How many questions over UDP are answered in a second.
const RATE: f64 = 2_000.0;
/// The longest question; the longest name with EDNS and a cookie has some 330 bytes.
const QUESTION_MAX: usize = 4_096;
/// How long a connection may be silent (RFC 7766, section 6.2.3: some seconds).
const IDLE: Duration = Duration::from_secs(10);

impl Server {
    pub(super) fn bind(stack: &Stack, addresses: &[IpAddr]) -> io::Result<Self> {
        let mut server = Self {
            udp: Vec::new(),
            tcp: Vec::new(),
        };
        for &address in addresses {
            let local = SocketAddr::new(address, PORT);
            server.udp.push(Arc::new(UdpSocket::bind(stack, local)?));
            server.tcp.push(TcpListener::bind(stack, local)?);
        }
        Ok(server)
    }

    /// Serves until a socket fails, which is when the stack's driver has ended.
    pub(super) async fn run(self, forwarder: Arc<Forwarder>) -> io::Result<Infallible> {
        let questions = Arc::new(Semaphore::new(QUESTIONS_MAX));
        let places = Places::new(CONNECTIONS_MAX);
        // Dropped with this future, the tasks end with it.
        let mut tasks = JoinSet::new();
        for socket in self.udp {
            tasks.spawn(serve_udp(socket, forwarder.clone(), questions.clone()));
        }
        for listener in self.tcp {
            let (questions, places) = (questions.clone(), places.clone());
            tasks.spawn(serve_tcp(listener, forwarder.clone(), questions, places));
        }
        match tasks.join_next().await {
            Some(Ok(Err(error))) => Err(error),
            Some(Err(error)) => Err(io::Error::other(error)),
            None => std::future::pending().await,
            Some(Ok(Ok(never))) => match never {},
        }
    }
}

async fn serve_udp(
    socket: Arc<UdpSocket>,
    forwarder: Arc<Forwarder>,
    questions: Arc<Semaphore>,
) -> io::Result<Infallible> {
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; QUESTION_MAX];
    let mut left = Allowance::new(Instant::now());
    loop {
        let (count, asker) = socket.recv_from(&mut buffer).await?;
        while tasks.try_join_next().is_some() {}
        if !left.take(Instant::now()) {
            continue;
        }
        let Ok(permit) = questions.clone().try_acquire_owned() else {
            continue;
        };
        let (socket, forwarder) = (socket.clone(), forwarder.clone());
        let question = buffer[..count].to_vec();
        tasks.spawn(async move {
            let reply = forwarder.reply(&question, Most::Udp).await;
            drop(permit);
            if let Some(reply) = reply {
                // An asker that cannot be reached any more asks again if it wants to.
                let _ = socket.send_to(&reply, asker).await;
            }
        });
    }
}

async fn serve_tcp(
    listener: TcpListener,
    forwarder: Arc<Forwarder>,
    questions: Arc<Semaphore>,
    places: Arc<Places>,
) -> io::Result<Infallible> {
    let mut tasks = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let place = places.take().await;
        while tasks.try_join_next().is_some() {}
        let (forwarder, questions) = (forwarder.clone(), questions.clone());
        tasks.spawn(async move {
            // Whatever ends a connection, the program sees that it ended.
            let _ = serve_connection(stream, &forwarder, &questions, &place).await;
        });
    }
}

/// Answers one question after the other, each after its length (RFC 1035, section 4.2.2).
async fn serve_connection(
    mut stream: TcpStream,
    forwarder: &Forwarder,
    questions: &Semaphore,
    place: &Place,
) -> io::Result<()> {
    loop {
        let reading = place.idle(read_question(&mut stream));
        let Some(question) = reading.await.transpose()?.flatten() else {
            return Ok(());
        };
        let permit = questions.acquire().await.map_err(io::Error::other)?;
        let reply = forwarder.reply(&question, Most::Tcp).await;
        drop(permit);
        let Some(reply) = reply else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let message = [&length.to_be_bytes(), &reply[..]].concat();
        timeout(IDLE, stream.write_all(&message)).await??;
    }
}

/// The next question; `None` if it is longer than any.
async fn read_question(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    timeout(IDLE, stream.read_exact(&mut length)).await??;
    let length = usize::from(u16::from_be_bytes(length));
    if length > QUESTION_MAX {
        return Ok(None);
    }
    let mut question = vec![0; length];
    timeout(IDLE, stream.read_exact(&mut question)).await??;
    Ok(Some(question))
}

/// How many questions may come now: [`RATE`] a second, and a second's worth at once.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: RATE, at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * RATE).min(RATE);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}
