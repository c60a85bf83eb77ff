//! Links: spaces that reach each other by name, when both say so.
//!
//! ```text
//!   program of web ─▶ db.portolan ─▶ gateway of web ══ link ══ gateway of db ─▶ program of db
//!                                                                  (sees web's address, and the port)
//! ```
//! Each gateway has an address of its own choosing for each space that it is linked with: the two spaces know nothing of
//! each other's addresses. A connection is asked for over the link, and the gateway at the other end connects to its own
//! program first: what that answers is the answer. The bytes then go by a connection between the two gateways, over the
//! host's loopback, made for it and handed over by the link. Datagrams go over the link itself.
//!
//! Who may link is not judged here: as with [`control`](crate::control), the one who lets clients in knows them.

mod channel;
mod connections;
mod datagrams;
mod frame;
mod pings;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use portolan_net::{Stack, UdpSocket};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use self::channel::{Channel, lock};
use self::datagrams::Sessions;
use self::frame::Frame;
use crate::control::SpaceName;
use crate::flows::Flows;

/// A space that is to be linked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Its name.
    pub name: SpaceName,
    /// Its addresses, as the program here sees them: one of each family that the space has.
    pub addresses: Vec<IpAddr>,
}

/// The links of one space. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Links {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    own: Option<SpaceName>,
    peers: Vec<Peer>,
    by_address: HashMap<IpAddr, usize>,
    serving: OnceLock<Serving>,
    sessions: Sessions,
}

/// A space that this one is linked with, or will be.
#[derive(Debug)]
struct Peer {
    config: LinkConfig,
    /// What lets its flows pass, for the table of flows.
    rule: Arc<str>,
    channel: Mutex<Option<Arc<Channel>>>,
    /// It was told once that the other side does not want this.
    is_told: AtomicBool,
    /// Connections that are being begun for it.
    beginning: Arc<Semaphore>,
    /// Pings between the two that wait for an answer.
    pinging: Arc<Semaphore>,
}

/// What links are served with.
#[derive(Debug)]
struct Serving {
    stack: Stack,
    flows: Flows,
    /// For datagrams from and to everybody.
    socket: Arc<UdpSocket>,
    inside: Vec<IpAddr>,
}

/// What is to be done with a connection of another space that says it is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// This space carries the link by it.
    Carry(LinkKey),
    /// The link goes by another connection; both want it.
    Wait,
}

/// One of the links of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkKey(usize);

/// Connections that one space may have begun here at once.
const BEGINNING_MAX: usize = 1_024;
/// Pings that may wait for an answer at once; each keeps its data, of up to 64 KiB.
const PINGING_MAX: usize = 64;

impl Links {
    /// The links of the space `own`.
    #[must_use]
    pub fn new(own: SpaceName, peers: Vec<LinkConfig>) -> Self {
        let addresses = peers.iter().enumerate();
        let by_address =
            addresses.flat_map(|(key, peer)| peer.addresses.iter().map(move |&address| (address, key)));
        let inner = Inner {
            by_address: by_address.collect(),
            peers: peers.iter().cloned().map(Peer::new).collect(),
            own: Some(own),
            ..Inner::default()
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Says what they are served with. The first call counts.
    pub(crate) fn serve(&self, stack: &Stack, flows: &Flows, socket: Arc<UdpSocket>, inside: Vec<IpAddr>) {
        let serving = Serving {
            stack: stack.clone(),
            flows: flows.clone(),
            socket,
            inside,
        };
        // A gateway begins once.
        if self.inner.serving.set(serving).is_ok() && !self.inner.peers.is_empty() {
            tokio::spawn(datagrams::sweep(Arc::clone(&self.inner)));
            tokio::spawn(datagrams::tell_errors(Arc::clone(&self.inner)));
        }
    }

    /// The spaces, and whether they are there.
    #[must_use]
    pub fn list(&self) -> Vec<(SpaceName, bool)> {
        let peers = self.inner.peers.iter();
        peers
            .map(|peer| (peer.config.name.clone(), peer.channel().is_some()))
            .collect()
    }

    /// All of them with their addresses.
    pub(crate) fn configs(&self) -> impl Iterator<Item = &LinkConfig> {
        self.inner.peers.iter().map(|peer| &peer.config)
    }

    /// The addresses of a space of this name, if the link with it is up.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let mut peers = self.inner.peers.iter();
        let peer = peers.find(|peer| peer.config.name.as_str() == name && peer.channel().is_some());
        peer.map_or_else(Vec::new, |peer| peer.config.addresses.clone())
    }

    /// Whether an address is that of a linked space, and if so, whether the link is up.
    pub(crate) fn is_up(&self, address: IpAddr) -> Option<bool> {
        let &key = self.inner.by_address.get(&address)?;
        Some(self.inner.peers[key].channel().is_some())
    }

    /// Both try to reach each other, and the link goes by the connection of the one whose name comes first: is that the
    /// other one?
    fn is_carried_by(&self, name: &SpaceName) -> bool {
        self.inner.own.as_ref().is_some_and(|own| own > name)
    }

    /// What to do with a connection of a space that says it is `name`, and linked with this one.
    ///
    /// # Errors
    /// Why there is no link, as a text for the other side.
    pub fn offer(&self, name: &str) -> Result<Offer, String> {
        let peers = &self.inner.peers;
        let key = peers.iter().position(|peer| peer.config.name.as_str() == name);
        let Some(key) = key else {
            let own = self.inner.own.as_ref().map_or("", SpaceName::as_str);
            return Err(format!("the space {own} was started without --link {name}"));
        };
        let is_carried = self.is_carried_by(&peers[key].config.name) && peers[key].channel().is_none();
        Ok(if is_carried {
            Offer::Carry(LinkKey(key))
        } else {
            Offer::Wait
        })
    }

    /// Carries a link by a connection whose sides have agreed on it, until that ends.
    pub async fn carry(&self, link: LinkKey, stream: UnixStream) {
        let inner = &self.inner;
        let peer = &inner.peers[link.0];
        let channel = Arc::new(Channel::new(stream));
        {
            let mut current = lock(&peer.channel);
            if current.is_some() {
                return;
            }
            *current = Some(Arc::clone(&channel));
        }
        // Dropped in the middle, it takes the link down as well.
        let _up = Up(peer);
        let hear = |frame: Frame<'_>| match frame {
            Frame::Open { id, ports } => connections::begin(inner, link.0, &channel, id, ports),
            Frame::Datagram { ports, bytes } => datagrams::deliver(inner, link.0, ports, bytes),
            Frame::Refused { ports } => datagrams::refuse(inner, link.0, ports),
            Frame::Ping { id, is_ipv4 } => pings::answer(inner, link.0, &channel, id, is_ipv4),
            Frame::Opened { .. } | Frame::Pong { .. } => {}
        };
        channel.run(hear).await;
    }

    /// The link of this place among those that the space was made with, and the name of the other space.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<(LinkKey, SpaceName)> {
        let peer = self.inner.peers.get(place)?;
        Some((LinkKey(place), peer.config.name.clone()))
    }

    /// Uses a connection to the control socket of a linked space, until it ends. Gives what the other side has against
    /// it, if it has not been given before.
    pub async fn reach(&self, link: LinkKey, stream: UnixStream) -> Option<String> {
        let peer = &self.inner.peers[link.0];
        let own = self.inner.own.as_ref()?;
        match crate::control::ask_link(&stream, own).await {
            Ok(()) => {
                if self.is_carried_by(&peer.config.name) {
                    // It is there for as long as the other side is.
                    let _ = stream.readable().await;
                } else {
                    self.carry(link, stream).await;
                    return None;
                }
                close(&stream);
                None
            }
            Err(why) => {
                close(&stream);
                why.filter(|_| !peer.is_told.swap(true, Ordering::Relaxed))
            }
        }
    }

    /// Connects to the program of the linked space that has this address; `None` if there is no such space.
    pub(crate) fn connect(
        &self,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Option<impl Future<Output = io::Result<tokio::net::TcpStream>> + use<>> {
        let &key = self.inner.by_address.get(&destination.ip())?;
        let channel = self.inner.peers[key].channel();
        Some(connections::connect(channel, source, destination))
    }

    /// Waits until the linked space that has this address answers a ping; for long if it does not, and not at all if there
    /// is no such space, its link is down, or too many wait.
    pub(crate) fn ping(&self, address: IpAddr) -> Option<impl Future<Output = bool> + Send + use<>> {
        let &key = self.inner.by_address.get(&address)?;
        pings::ask(&self.inner.peers[key], address.is_ipv4())
    }

    /// Passes on a datagram of the program, if it belongs to a session of a link.
    pub(crate) fn pass_on(&self, inside: SocketAddr, outside: SocketAddr, bytes: &[u8]) -> bool {
        !self.inner.peers.is_empty() && datagrams::pass_on(&self.inner, inside, outside, bytes)
    }

    /// Begins a session of datagrams with a linked space. `false` if the link is down, or there is no room.
    pub(crate) fn begin(&self, inside: SocketAddr, outside: SocketAddr) -> bool {
        datagrams::begin(&self.inner, inside, outside)
    }
}

/// A link that is up for as long as this is held.
struct Up<'a>(&'a Peer);

impl Drop for Up<'_> {
    fn drop(&mut self) {
        *lock(&self.0.channel) = None;
    }
}

/// Whoever else holds the connection sees its end too.
fn close(stream: &UnixStream) {
    let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Both);
}

impl Peer {
    fn new(config: LinkConfig) -> Self {
        Self {
            rule: format!("link {}", config.name.as_str()).into(),
            config,
            channel: Mutex::default(),
            is_told: AtomicBool::new(false),
            beginning: Arc::new(Semaphore::new(BEGINNING_MAX)),
            pinging: Arc::new(Semaphore::new(PINGING_MAX)),
        }
    }

    fn channel(&self) -> Option<Arc<Channel>> {
        lock(&self.channel).clone()
    }

    /// Its address of a family.
    fn address(&self, is_ipv4: bool) -> Option<IpAddr> {
        of_family(&self.config.addresses, is_ipv4)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links")
            .field("own", &self.own)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}

fn of_family(addresses: &[IpAddr], is_ipv4: bool) -> Option<IpAddr> {
    addresses.iter().copied().find(|ip| ip.is_ipv4() == is_ipv4)
}
