//! Ports that are published as the program listens on them, and no longer than that.
//!
//! ```text
//!   look (sock_diag of the space) ─▶ what listens ─┬ new ──▶ Porter::take ─▶ Publisher, said once
//!         ▲                                        └ gone ─▶ withdrawn
//!         └─ 10 ms after a change, else 90 ms
//! ```
//! What listens: of TCP every listener; of UDP every bound socket without a peer, but for those with a port that the kernel
//! chooses by itself, which clients have. The address is the unspecified one or one of the space: what is bound to the
//! loopback of the program is its own business.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use portolan_core::{Automatic, Exception, Port, Protocol};
use tokio::time::Instant;

use super::bound::BoundSocket;
use super::{Place, Porter, PublishError, Published, Publisher, Refusal};

/// A socket of the program that waits for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listening {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address that it is bound to.
    pub address: IpAddr,
    /// The port.
    pub port: Port,
}

/// What becomes known of ports that are published by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A port was published; told once for each.
    Published(Published),
    /// One could not be, and why; it is tried again for as long as the program listens. Told once for each.
    Refused(String),
    /// So many could not be that no more is told of others.
    Silent,
    /// Nothing more is published: the program's sockets cannot be read.
    Ended(String),
}

/// Sockets of TCP that listen and sockets of UDP without a peer, appended to what is handed in; it was cleared.
pub type Look = Box<dyn FnMut(&mut Vec<Listening>) -> io::Result<()> + Send>;

/// What is to be published as the program listens.
pub struct AutoConfig {
    /// Where on the host.
    pub places: Vec<Automatic>,
    /// Which ports not.
    pub except: Vec<Exception>,
    /// The addresses of the space.
    pub inside: Vec<IpAddr>,
    /// Reads what listens there. It does not wait.
    pub look: Look,
    /// Takes the ports.
    pub porter: Porter,
    /// Is told of them.
    pub tell: Box<dyn FnMut(Notice) + Send>,
}

impl fmt::Debug for AutoConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { places, except, .. } = self;
        f.debug_struct("AutoConfig")
            .field("places", places)
            .field("except", except)
            .finish_non_exhaustive()
    }
}

/// How long between two looks where nothing changes. A port is published within it and a millisecond.
const PACE: Duration = Duration::from_millis(90);
/// The same while something does: programs open their ports one after the other.
const BRISK: Duration = Duration::from_millis(10);
/// So long after a change it is brisk.
const BRISK_FOR: Duration = Duration::from_secs(1);
/// How often ports that were refused are tried again, and how many of them each time.
const AGAIN: Duration = Duration::from_millis(500);
const AGAIN_AT_ONCE: usize = 64;
/// So many refusals are told.
const REFUSALS_MAX: usize = 100;
/// Looks that may fail one after the other.
const FAILURES_MAX: usize = 10;
/// The ports that Linux gives to clients unless it is told otherwise (ip-sysctl, `ip_local_port_range`), as in every new
/// network namespace.
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// A port of the program.
type Inner = (Protocol, Port);

/// Follows the program for as long as it can be looked at.
pub(super) async fn follow(publisher: Publisher, config: AutoConfig) {
    let mut follower = Follower {
        publisher,
        config,
        current: BTreeMap::new(),
        refused: VecDeque::new(),
        told: BTreeSet::new(),
        refusals: 0,
    };
    if let Err(error) = follower.run().await {
        (follower.config.tell)(Notice::Ended(error.to_string()));
    }
}

/// What is published by name.
#[derive(Debug, Default)]
struct Named {
    /// The ports of the program that are.
    inner: HashSet<Inner>,
    /// By protocol and port of the host.
    outer: HashMap<(Protocol, Port), Vec<Published>>,
}

struct Follower {
    publisher: Publisher,
    config: AutoConfig,
    /// The ports that the program listens on, with where each is published.
    current: BTreeMap<Inner, Vec<Published>>,
    /// Those that were refused, and where.
    refused: VecDeque<(Inner, Place)>,
    /// Of which something was told, and whether that was good news.
    told: BTreeSet<(Protocol, Port, usize, bool)>,
    refusals: usize,
}

impl Follower {
    async fn run(&mut self) -> io::Result<()> {
        let mut listening = Vec::new();
        let mut failures = 0;
        let mut changed_at = Instant::now();
        let mut again_at = Instant::now() + AGAIN;
        loop {
            listening.clear();
            match (self.config.look)(&mut listening) {
                Ok(()) => {
                    failures = 0;
                    if self.update(&listening).await? {
                        changed_at = Instant::now();
                    }
                }
                Err(error) if failures == FAILURES_MAX => return Err(error),
                // Not now: the kernel has no memory for an answer, say.
                Err(_) => failures += 1,
            }
            let now = Instant::now();
            if now >= again_at {
                self.try_again().await?;
                again_at = Instant::now() + AGAIN;
            }
            let is_brisk = now.duration_since(changed_at) < BRISK_FOR;
            tokio::time::sleep(if is_brisk { BRISK } else { PACE }).await;
        }
    }

    /// Publishes what is new, withdraws what is gone; says whether there was any.
    async fn update(&mut self, listening: &[Listening]) -> io::Result<bool> {
        let wanted: BTreeSet<Inner> = listening
            .iter()
            .filter(|listening| self.is_public(listening))
            .map(|listening| (listening.protocol, listening.port))
            .collect();
        let gone: Vec<Inner> = self
            .current
            .keys()
            .filter(|inner| !wanted.contains(inner))
            .copied()
            .collect();
        for inner in &gone {
            let published = self.current.remove(inner).unwrap_or_default();
            self.publisher.withdraw(&published);
        }
        if !gone.is_empty() {
            self.refused.retain(|(inner, _)| wanted.contains(inner));
        }
        let new: Vec<Inner> = wanted
            .into_iter()
            .filter(|inner| !self.current.contains_key(inner))
            .collect();
        if new.is_empty() {
            return Ok(!gone.is_empty());
        }
        let named = self.named();
        for inner in new {
            self.current.insert(inner, Vec::new());
            for index in 0..self.config.places.len() {
                let automatic = self.config.places[index];
                let (protocol, port) = inner;
                if !automatic.protocol().protocols().contains(&protocol) {
                    continue;
                }
                let place = Place {
                    protocol,
                    address: automatic.address(),
                    interface: automatic.interface(),
                    port,
                };
                self.publish(inner, place, &named).await?;
            }
        }
        Ok(true)
    }

    /// What is published by name.
    fn named(&self) -> Named {
        let mut named = Named::default();
        for published in self.publisher.list().into_iter().filter(|one| !one.is_auto) {
            let protocol = published.place.protocol;
            if published.target.is_none() {
                named.inner.insert((protocol, published.inner));
            }
            let outer = (protocol, published.place.port);
            named.outer.entry(outer).or_default().push(published);
        }
        named
    }

    /// Whether clients from outside are to reach it.
    fn is_public(&self, listening: &Listening) -> bool {
        let Listening {
            protocol,
            address,
            port,
        } = *listening;
        let address = address.to_canonical();
        let is_reachable = address.is_unspecified() || self.config.inside.contains(&address);
        let is_client = protocol == Protocol::Udp && EPHEMERAL.contains(&port.get());
        let is_excepted = self
            .config
            .except
            .iter()
            .any(|except| except.covers(protocol, port));
        is_reachable && !is_client && !is_excepted && port != Port::ZERO
    }

    /// Publishes a port at one place, unless the same port inside is published by name already.
    async fn publish(&mut self, inner: Inner, place: Place, named: &Named) -> io::Result<()> {
        if named.inner.contains(&inner) {
            return Ok(());
        }
        match self.take(inner, place, named).await? {
            Ok(published) => {
                self.current.entry(inner).or_default().push(published);
                if self.tell_once(&place, true) {
                    (self.config.tell)(Notice::Published(published));
                }
            }
            Err(refusal) => {
                self.refused.push_back((inner, place));
                if self.refusals <= REFUSALS_MAX && self.tell_once(&place, false) {
                    self.refusals += 1;
                    (self.config.tell)(if self.refusals > REFUSALS_MAX {
                        Notice::Silent
                    } else {
                        Notice::Refused(refusal)
                    });
                }
            }
        }
        Ok(())
    }

    /// Takes a port, and serves it.
    async fn take(
        &mut self,
        (_, port): Inner,
        place: Place,
        named: &Named,
    ) -> io::Result<Result<Published, String>> {
        let by_name = named.outer.get(&(place.protocol, place.port));
        let by_itself = self.current.get(&(place.protocol, port));
        let mut present = [by_name, by_itself].into_iter().flatten().flatten();
        if let Some(other) = present.find(|one| one.place.clashes(&place)) {
            let refusal = Refusal::Twice { inner: other.inner };
            return Ok(Err(PublishError::Refused { place, refusal }.to_string()));
        }
        let names_holder = !self.was_told(&place, false);
        let socket = match self.config.porter.take(&place, names_holder).await? {
            Ok(socket) => socket,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let published = Published {
            place,
            target: None,
            inner: port,
            is_chosen: false,
            is_auto: true,
        };
        let served = self
            .publisher
            .serve_sockets(vec![BoundSocket { socket, published }]);
        Ok(served.map(|()| published).map_err(|error| error.to_string()))
    }

    /// Tries some of the refused ones again.
    async fn try_again(&mut self) -> io::Result<()> {
        if self.refused.is_empty() {
            return Ok(());
        }
        let named = self.named();
        for _ in 0..self.refused.len().min(AGAIN_AT_ONCE) {
            let Some((inner, place)) = self.refused.pop_front() else {
                break;
            };
            self.publish(inner, place, &named).await?;
        }
        Ok(())
    }

    /// Whether this is to be told of the place: it was not before.
    fn tell_once(&mut self, place: &Place, is_good: bool) -> bool {
        let key = self.key(place, is_good);
        self.told.insert(key)
    }

    fn was_told(&self, place: &Place, is_good: bool) -> bool {
        self.told.contains(&self.key(place, is_good))
    }

    fn key(&self, place: &Place, is_good: bool) -> (Protocol, Port, usize, bool) {
        let is_there = |one: &Automatic| one.address() == place.address && one.interface() == place.interface;
        let index = self.config.places.iter().position(is_there).unwrap_or(0);
        (place.protocol, place.port, index, is_good)
    }
}
