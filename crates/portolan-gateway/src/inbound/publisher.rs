//! The published ports of a running gateway.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use portolan_core::{Mapping, Port, PortRange, Protocol};
use portolan_net::{Stack, UdpSocket};
use tokio::task::AbortHandle;

use super::auto::{self, AutoConfig};
use super::batch::Room;
use super::bound::{self, BoundSocket, HolderFinder};
use super::client::Faces;
use super::doors::{Door, Doors};
use super::run::Run;
use super::shortcut::{InsideSockets, Shortcut};
use super::udp::{self, Sessions};
use super::{Bound, DatagramCounters, Place, PublishError, Published, SessionLimits, tcp};
use crate::flows::Flows;

/// Whether a client may come in through a published port.
#[derive(Clone)]
pub struct Admit(Arc<Ask>);

type Ask = dyn Fn(&Published, SocketAddr) -> bool + Send + Sync;

impl Admit {
    /// Whoever this function says yes to, asked with the port and the client's own socket address.
    #[must_use]
    pub fn new(ask: impl Fn(&Published, SocketAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for Admit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admit")
    }
}

/// What a way past the device takes.
#[derive(Clone, Debug)]
pub struct ShortcutConfig {
    /// Sockets of the space that may have the gateway's address: `portolan_space::Sockets` marks them.
    pub sockets: InsideSockets,
}

/// What a [`Publisher`] stands on.
#[derive(Clone, Debug)]
pub struct PublisherConfig {
    /// The stack on the device of the space.
    pub stack: Stack,
    /// Where flows are noted.
    pub flows: Flows,
    /// The gateway's addresses, as the program sees them.
    pub gateway: Vec<IpAddr>,
    /// The addresses of the space.
    pub inside: Vec<IpAddr>,
    /// The socket of the stack for every destination, by which clients' datagrams are sent in their own names. Whoever
    /// receives by it asks [`Publisher::answer`] first.
    pub datagrams: Arc<UdpSocket>,
    /// Limits of sessions of UDP.
    pub sessions: SessionLimits,
    /// Who may come in; everybody without it.
    pub admit: Option<Admit>,
}

/// The published ports of a running gateway; live. This is a handle: the ports are free when the last one is gone, and
/// the connections that came through them stay.
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    hall: Arc<Hall>,
    tasks: [AbortHandle; 2],
}

/// What serving a client takes.
#[derive(Debug)]
pub(super) struct Hall {
    pub(super) stack: Stack,
    pub(super) flows: Flows,
    pub(super) faces: Faces,
    pub(super) doors: Doors,
    pub(super) shortcut: OnceLock<Shortcut>,
    pub(super) sessions: Sessions,
    pub(super) admit: Option<Admit>,
}

impl Publisher {
    /// No port yet. To be called in a runtime, where a task serves the ports from now on.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn new(config: PublisherConfig) -> io::Result<Self> {
        let hall = Arc::new(Hall {
            stack: config.stack,
            flows: config.flows,
            faces: Faces::new(config.gateway, config.inside),
            doors: Doors::new()?,
            shortcut: OnceLock::new(),
            sessions: Sessions::new(config.datagrams, config.sessions),
            admit: config.admit,
        });
        let tasks = [
            tokio::spawn(serve(Arc::clone(&hall))).abort_handle(),
            tokio::spawn(udp::sweep(Arc::clone(&hall))).abort_handle(),
        ];
        Ok(Self {
            shared: Arc::new(Shared { hall, tasks }),
        })
    }

    /// Lets clients on the host's loopback in past the device and the stack from now on; the first call counts. Without it
    /// they pass the stack as all others do, as they should when packets are captured or a bad network is put around the
    /// program.
    pub fn take_shortcut(&self, config: ShortcutConfig) {
        let shortcut = Shortcut::new(config.sockets);
        // A second one would do the same.
        let _ = self.shared.hall.shortcut.set(shortcut);
    }

    /// Serves ports that are bound.
    ///
    /// # Errors
    /// [`PublishError::Wait`]; then none of them is.
    pub fn serve(&self, bound: Bound) -> Result<(), PublishError> {
        self.serve_sockets(bound.sockets)
    }

    pub(super) fn serve_sockets(&self, sockets: Vec<BoundSocket>) -> Result<(), PublishError> {
        let ports = sockets.len();
        let opened = self.shared.hall.doors.open(sockets);
        opened.map_err(|errno| PublishError::Wait { ports, errno })
    }

    /// Publishes what the program listens on, as it does, from now on. To be called in a runtime, in which a task does it.
    pub fn follow(&self, config: AutoConfig) {
        tokio::spawn(auto::follow(self.clone(), config));
    }

    /// Publishes these no longer, as the program has closed its sockets. Those of UDP have no clients then.
    pub(super) fn withdraw(&self, published: &[Published]) {
        let hall = &self.shared.hall;
        hall.sessions.sweep(|door| published.contains(&door.published));
        hall.doors.close(|one| published.contains(one), |_| false);
    }

    /// Publishes ports, all of the mapping or none, and says which they are.
    ///
    /// # Errors
    /// As [`Bound::bind`].
    pub fn publish(
        &self,
        mapping: &Mapping,
        finder: &HolderFinder<'_>,
    ) -> Result<Vec<Published>, PublishError> {
        self.end_clients_of_closed_ports(mapping);
        let bound = Bound::bind_beside(std::slice::from_ref(mapping), &self.list(), finder)?;
        let published = bound.published().collect();
        self.serve(bound)?;
        Ok(published)
    }

    /// Publishes ports by sockets that another process has taken, all of the mapping or none, and says which they are.
    ///
    /// # Errors
    /// [`PublishError::WrongSocket`], [`PublishError::Target`], [`PublishError::Wait`].
    pub(crate) fn publish_taken(
        &self,
        mapping: &Mapping,
        sockets: Vec<OwnedFd>,
    ) -> Result<Vec<Published>, PublishError> {
        let bound = Bound::of_handed(mapping, sockets)?;
        let published = bound.published().collect();
        self.serve(bound)?;
        Ok(published)
    }

    /// Ports of UDP that are published no longer, but have clients yet, are in nobody's way.
    fn end_clients_of_closed_ports(&self, mapping: &Mapping) {
        let hall = &self.shared.hall;
        let is_wanted = |door: &Door| {
            door.is_closed.load(Ordering::Relaxed) && mapping.outer().contains(door.published.place.port)
        };
        hall.sessions.sweep(is_wanted);
        hall.doors.close_unused(|door| hall.sessions.has_clients(door));
    }

    /// Publishes the ports of a mapping no longer, and says which they were. A mapping from port 0 means whichever ports
    /// were chosen for it, which may be named by their numbers too. Connections stay.
    ///
    /// # Errors
    /// [`PublishError::NotPublished`] if one of them is not; then nothing is changed.
    pub fn unpublish(&self, mapping: &Mapping) -> Result<Vec<Published>, PublishError> {
        let present = self.list();
        let is_meant = |published: &Published| is_of(published, mapping);
        let meant = present.iter().filter(|one| is_meant(one));
        let meant: HashSet<Place> = meant.map(|one| named(one, mapping)).collect();
        if let Some(place) = bound::places(mapping).find(|place| !meant.contains(place)) {
            return Err(PublishError::NotPublished { place });
        }
        let hall = &self.shared.hall;
        Ok(hall.doors.close(is_meant, |door| hall.sessions.has_clients(door)))
    }

    /// Publishes no longer what is published at these ports of the host, at whatever address and wherever it leads, and says
    /// what that was; of one protocol, or of any. Connections stay.
    ///
    /// # Errors
    /// [`PublishError::NotPublished`] if nothing is published at one of them; then nothing is changed.
    pub fn unpublish_ports(
        &self,
        ports: PortRange,
        protocol: Option<Protocol>,
    ) -> Result<Vec<Published>, PublishError> {
        let is_meant = |published: &Published| {
            ports.contains(published.place.port)
                && protocol.is_none_or(|protocol| protocol == published.place.protocol)
        };
        let present = self.list();
        let there: HashSet<Port> = present
            .iter()
            .filter(|one| is_meant(one))
            .map(|one| one.place.port)
            .collect();
        if let Some(port) = ports.iter().find(|port| !there.contains(port)) {
            return Err(PublishError::NotPublished {
                place: Place {
                    protocol: protocol.unwrap_or(Protocol::Tcp),
                    address: None,
                    interface: None,
                    port,
                },
            });
        }
        let hall = &self.shared.hall;
        Ok(hall.doors.close(is_meant, |door| hall.sessions.has_clients(door)))
    }

    /// Passes on a datagram that the program sends from `inside` to `outside`, if it is an answer to a client of a
    /// published port; else it is for somebody else.
    #[must_use]
    pub fn answer(&self, inside: SocketAddr, outside: SocketAddr, bytes: &[u8]) -> bool {
        self.shared.hall.sessions.answer(inside, outside, bytes)
    }

    /// What became of datagrams.
    #[must_use]
    pub fn datagram_counters(&self) -> Arc<DatagramCounters> {
        Arc::clone(&self.shared.hall.sessions.counters)
    }

    /// What is published.
    #[must_use]
    pub fn list(&self) -> Vec<Published> {
        self.shared.hall.doors.list()
    }
}

/// The place that was asked for when this was published.
fn asked(published: &Published) -> Place {
    let port = if published.is_chosen {
        Port::ZERO
    } else {
        published.place.port
    };
    Place {
        port,
        ..published.place
    }
}

/// The place by which a mapping names this: where it was chosen, by the port that was asked for or by what came of it.
fn named(published: &Published, mapping: &Mapping) -> Place {
    if mapping.outer().first() == Port::ZERO {
        asked(published)
    } else {
        published.place
    }
}

/// Whether this was published by such a mapping.
fn is_of(published: &Published, mapping: &Mapping) -> bool {
    let place = named(published, mapping);
    let (outer, inner) = (mapping.outer(), mapping.inner());
    let offset = place.port.get().wrapping_sub(outer.first().get());
    outer.contains(place.port)
        && published.inner.get() == inner.first().get().wrapping_add(offset)
        && place.address == mapping.address()
        && place.interface == mapping.interface()
        && mapping.protocol().protocols().contains(&place.protocol)
}

impl Hall {
    pub(super) fn admits(&self, published: &Published, client: SocketAddr) -> bool {
        self.admit
            .as_ref()
            .is_none_or(|admit| (admit.0)(published, client))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Serves whoever comes, until nobody wants ports served any more.
async fn serve(hall: Arc<Hall>) {
    let mut spare = tcp::Spare::new();
    let (mut ready, mut room, mut run) = (Vec::new(), None, Run::default());
    while hall.doors.ready(&mut ready).await.is_ok() {
        for door in ready.drain(..) {
            if door.is_tcp() {
                tcp::accept(&hall, &door, &mut spare);
            } else {
                udp::receive(&hall, &door, room.get_or_insert_with(Room::new), &mut run);
            }
        }
        // The connections that have begun have their turn before the next.
        tokio::task::yield_now().await;
    }
}
