//! Datagrams: a session for each client and destination, with a socket of the system that only this client's datagrams
//! leave from, so that answers are known to be for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Where clients' datagrams come from and answers go to.
pub trait DatagramEnd: Send + Sync + 'static {
    /// Waits for a datagram; gives its length in `buffer`, its source and its destination. Safe to drop.
    fn receive(
        &self,
        buffer: &mut [u8],
    ) -> impl Future<Output = io::Result<(usize, SocketAddr, SocketAddr)>> + Send;

    /// Sends an answer without waiting: one that there is no room for is lost, as datagrams are.
    ///
    /// # Errors
    /// What became of it; it is only counted.
    fn answer(&self, bytes: &[u8], from: SocketAddr, to: SocketAddr) -> io::Result<()>;

    /// Tells a client that nobody is at the destination of a datagram of its (ICMP port unreachable), if there is a way.
    fn unreachable(&self, client: SocketAddr, destination: SocketAddr);
}

/// A socket of the system whose clients all mean one destination: a forwarded port.
#[derive(Debug)]
pub struct FixedDestination {
    /// What clients send to.
    pub socket: UdpSocket,
    /// What they mean.
    pub destination: SocketAddr,
}

impl DatagramEnd for FixedDestination {
    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, SocketAddr)> {
        let (len, client) = self.socket.recv_from(buffer).await?;
        Ok((len, client, self.destination))
    }

    fn answer(&self, bytes: &[u8], _from: SocketAddr, to: SocketAddr) -> io::Result<()> {
        rustix::net::sendto(&self.socket, bytes, SendFlags::empty(), &to)?;
        Ok(())
    }

    /// A socket has no way to say so.
    fn unreachable(&self, _client: SocketAddr, _destination: SocketAddr) {}
}

/// Limits of a [`UdpRelay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// A session in which nothing moved for so long is over (RFC 4787, section 4.3: two minutes or more).
    pub idle: Duration,
    /// The most sessions; each has a descriptor. A datagram that would need one more is dropped and counted.
    pub sessions: usize,
    /// The most of them for one client's address, so that one cannot take all.
    pub sessions_per_client: usize,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(120),
            sessions: 4096,
            sessions_per_client: 1024,
        }
    }
}

/// What a [`UdpRelay`] has done.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct UdpCounters {
    /// Datagrams from clients that were sent on.
    pub sent: AtomicU64,
    /// Answers that were passed on.
    pub answered: AtomicU64,
    /// Datagrams that were dropped because there are too many sessions.
    pub refused: AtomicU64,
    /// Datagrams that the system did not take, and answers that the client's side did not take.
    pub lost: AtomicU64,
}

/// Relays datagrams between clients and the destinations that they mean.
#[derive(Debug)]
pub struct UdpRelay<E> {
    end: Arc<E>,
    options: UdpOptions,
    counters: Arc<UdpCounters>,
    table: Arc<Mutex<Table>>,
}

type Key = (SocketAddr, SocketAddr);

#[derive(Debug, Default)]
struct Table {
    sessions: HashMap<Key, Session>,
    /// How many sessions each client's address has.
    clients: HashMap<std::net::IpAddr, usize>,
}

#[derive(Debug)]
struct Session {
    socket: Arc<UdpSocket>,
    moved: Arc<Mutex<Instant>>,
    task: AbortHandle,
}

/// The longest datagram there is, in bytes.
const MAX_DATAGRAM: usize = 65_535;

impl<E: DatagramEnd> UdpRelay<E> {
    /// A relay behind `end`.
    #[must_use]
    pub fn new(end: E, options: UdpOptions) -> Self {
        Self {
            end: Arc::new(end),
            options,
            counters: Arc::default(),
            table: Arc::default(),
        }
    }

    /// What it has done.
    #[must_use]
    pub fn counters(&self) -> Arc<UdpCounters> {
        Arc::clone(&self.counters)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        lock(&self.table).sessions.len()
    }

    /// Relays until the clients' end fails; dropping the future ends every session.
    ///
    /// # Errors
    /// Why the clients' end failed.
    pub async fn run(&self) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        let mut buffer = vec![0; MAX_DATAGRAM];
        let result = loop {
            let received = tokio::select! {
                received = self.end.receive(&mut buffer) => received,
                Some(_) = tasks.join_next() => continue,
            };
            match received {
                Ok((len, client, destination)) => {
                    self.send(&mut tasks, &buffer[..len], (client, destination));
                }
                Err(error) => break Err(error),
            }
        };
        *lock(&self.table) = Table::default();
        result
    }

    fn send(&self, tasks: &mut JoinSet<()>, bytes: &[u8], key: Key) {
        // Not by tokio, which does not know yet that a new socket is writable.
        let sent = self
            .session(tasks, key)
            .and_then(|socket| Ok(rustix::net::send(&*socket, bytes, SendFlags::empty())?));
        let counter = match sent {
            Ok(_) => &self.counters.sent,
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => &self.counters.refused,
            Err(error) => {
                // An error of a datagram before: its ICMP message came back meanwhile.
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    self.end.unreachable(key.0, key.1);
                }
                &self.counters.lost
            }
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn session(&self, tasks: &mut JoinSet<()>, key: Key) -> io::Result<Arc<UdpSocket>> {
        let mut table = lock(&self.table);
        let table = &mut *table;
        let count = table.sessions.len();
        let place = match table.sessions.entry(key) {
            Entry::Occupied(session) => {
                *lock(&session.get().moved) = Instant::now();
                return Ok(Arc::clone(&session.get().socket));
            }
            Entry::Vacant(place) => place,
        };
        let of_client = table.clients.entry(key.0.ip()).or_default();
        if count >= self.options.sessions || *of_client >= self.options.sessions_per_client {
            if *of_client == 0 {
                table.clients.remove(&key.0.ip());
            }
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let socket = match connected(key.1) {
            Ok(socket) => Arc::new(socket),
            Err(error) => {
                if *of_client == 0 {
                    table.clients.remove(&key.0.ip());
                }
                return Err(error);
            }
        };
        *of_client += 1;
        let moved = Arc::new(Mutex::new(Instant::now()));
        let answers = Answers {
            end: Arc::clone(&self.end),
            counters: Arc::clone(&self.counters),
            table: Arc::clone(&self.table),
            socket: Arc::clone(&socket),
            moved: Arc::clone(&moved),
            idle: self.options.idle,
            key,
        };
        let task = tasks.spawn(answers.run());
        place.insert(Session {
            socket: Arc::clone(&socket),
            moved,
            task,
        });
        Ok(socket)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task of a session: passes answers on until nothing has moved for too long.
struct Answers<E> {
    end: Arc<E>,
    counters: Arc<UdpCounters>,
    table: Arc<Mutex<Table>>,
    socket: Arc<UdpSocket>,
    moved: Arc<Mutex<Instant>>,
    idle: Duration,
    key: Key,
}

impl<E: DatagramEnd> Answers<E> {
    async fn run(self) {
        loop {
            let end = *lock(&self.moved) + self.idle;
            tokio::select! {
                ready = self.socket.ready(Interest::READABLE | Interest::ERROR) => match ready {
                    Ok(ready) => {
                        if ready.is_error() {
                            self.tell_error();
                        }
                        if ready.is_readable() {
                            self.pass_on();
                        }
                    }
                    Err(_) => break,
                },
                () = sleep_until(end) => {
                    if *lock(&self.moved) + self.idle <= Instant::now() {
                        break;
                    }
                }
            }
        }
        let mut table = lock(&self.table);
        if table.sessions.remove(&self.key).is_some() {
            let client = self.key.0.ip();
            if let Some(count) = table.clients.get_mut(&client) {
                *count -= 1;
                if *count == 0 {
                    table.clients.remove(&client);
                }
            }
        }
    }

    /// Takes the error of a datagram that was sent. With none there is nothing to take, and tokio waits for the next.
    fn tell_error(&self) {
        let error = self.socket.try_io(Interest::ERROR, || {
            self.socket
                .take_error()?
                .ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        if error.is_ok_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            self.end.unreachable(self.key.0, self.key.1);
        }
    }

    /// Passes on the answers that are there, a burst at most.
    fn pass_on(&self) {
        let (client, destination) = self.key;
        BUFFER.with_borrow_mut(|buffer| {
            for _ in 0..BURST {
                match self.socket.try_recv(buffer) {
                    Ok(len) => {
                        *lock(&self.moved) = Instant::now();
                        let counter = match self.end.answer(&buffer[..len], destination, client) {
                            Ok(()) => &self.counters.answered,
                            Err(_) => &self.counters.lost,
                        };
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        self.end.unreachable(client, destination);
                    }
                    // Nothing more, or an error of one datagram, which the next call no longer sees.
                    Err(_) => return,
                }
            }
        });
    }
}

/// Datagrams of one session before others have their turn.
const BURST: usize = 64;

thread_local! {
    /// One for each thread, not for each session: it is in use only between two waits.
    static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; MAX_DATAGRAM]);
}

/// A socket that sends to this address and hears it alone.
fn connected(destination: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match destination {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(destination)?;
    UdpSocket::from_std(socket)
}

/// Nothing that holds a lock here can leave its value half changed, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
