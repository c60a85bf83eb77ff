//! UDP: connected four-tuple, then sockets by score; one receiver for a unicast datagram.

use std::net::{IpAddr, SocketAddr};

use super::flows::{Found, FourTuple};
use super::score::{self, Contender, Reasons};
use super::{Delivery, Reason, Reply};
use crate::table::{AddressKind, Device, PortTable, Transport};

impl PortTable {
    pub(super) fn deliver_udp(&self, tuple: &FourTuple, device: Option<Device>) -> Delivery {
        match self.host().kind(tuple.local().ip()) {
            AddressKind::Multicast => return self.deliver_multicast(tuple, device),
            AddressKind::Broadcast => return self.deliver_broadcast(tuple, device),
            AddressKind::Foreign => {
                let found = self.scope_of(Transport::Udp, tuple, device, false);
                return found.map_or(
                    Delivery::Nobody {
                        reply: Reply::Nothing,
                        because: Reason::NotForThisHost,
                    },
                    |socket| Delivery::Socket {
                        to: self.id(socket),
                        because: Reason::Scope,
                    },
                );
            }
            AddressKind::Wildcard => {
                return Delivery::Nobody {
                    reply: Reply::Nothing,
                    because: Reason::NotForThisHost,
                };
            }
            AddressKind::Local => {}
        }
        let scoped = |socket| (socket, Reason::Scope);
        let found = self
            .connected(tuple, device)
            .map(|socket| (socket, Reason::FourTuple))
            .or_else(|| self.on_address(tuple, device))
            .or_else(|| self.scope_on(Transport::Udp, tuple, device).map(scoped))
            .or_else(|| self.on_wildcard(tuple, device))
            .or_else(|| self.scope_beyond(Transport::Udp, tuple, device, true).map(scoped));
        found.map_or(
            Delivery::Nobody {
                reply: Reply::PortUnreachable,
                because: Reason::NobodyListens,
            },
            |(socket, because)| Delivery::Socket {
                to: self.id(socket),
                because,
            },
        )
    }

    /// The sockets connected to the source from the destination that hear the device, and how many of the
    /// source's address and port they ask for: one that is connected to port 0 takes every port.
    pub(super) fn connected_all(
        &self,
        tuple: &FourTuple,
        device: Option<Device>,
    ) -> impl Iterator<Item = (u32, i32)> {
        let from = |remote: SocketAddr, asked: i32| {
            let tuple = FourTuple::new(tuple.local(), remote).expect("a tuple of the same family");
            self.connected_exactly(&tuple)
                .into_iter()
                .map(move |socket| (socket, asked))
        };
        let some_are = !self.udp_flows().is_empty(tuple);
        let any_port = SocketAddr::new(tuple.remote().ip(), 0);
        let exactly = (some_are && tuple.remote() != any_port).then(|| from(tuple.remote(), 2));
        let all_ports = some_are.then(|| from(any_port, 1));
        exactly
            .into_iter()
            .flatten()
            .chain(all_ports.into_iter().flatten())
            .filter(move |&(socket, _)| self.candidate(socket).hears(device))
    }

    fn connected_exactly(&self, tuple: &FourTuple) -> smallvec::SmallVec<[u32; 4]> {
        match self.find_flow(Transport::Udp, tuple) {
            None => smallvec::SmallVec::new(),
            Some(Found::One(socket, _)) => smallvec::smallvec![socket],
            Some(Found::Ask(sockets)) => sockets.into_iter().collect(),
        }
    }

    /// The connected socket that Linux finds by the four-tuple at once.
    ///
    /// Of several that is the latest, unless the first of all sockets on the address is one of them: the
    /// kernel looks at that one before all else (`udp_v4_early_demux`).
    fn connected(&self, tuple: &FourTuple, device: Option<Device>) -> Option<u32> {
        let found = self.find_flow(Transport::Udp, tuple)?;
        let sockets = match &found {
            Found::One(socket, _) => std::slice::from_ref(socket),
            Found::Ask(sockets) => sockets,
        };
        let hears = |socket: u32| self.candidate(socket).hears(device);
        if let &[socket] = sockets
            && self.fast_flow_order(socket).is_some()
        {
            return hears(socket).then_some(socket);
        }
        let (port, address) = (tuple.local().port(), tuple.local().ip());
        self.first_on(Transport::Udp, port, address)
            .filter(|&first| sockets.contains(&first) && hears(first))
            .or_else(|| {
                let fast = sockets
                    .iter()
                    .filter(|&&socket| hears(socket))
                    .filter_map(|&socket| Some((self.fast_flow_order(socket)?, socket)));
                fast.max().map(|(_, socket)| socket)
            })
    }

    fn on_address(&self, tuple: &FourTuple, device: Option<Device>) -> Option<(u32, Reason)> {
        let (destination, source) = (tuple.local().ip(), tuple.remote().ip());
        // Those that connected again are not found at once: here they win by their score.
        let connected_again = self.connected_all(tuple, device).filter_map(|(socket, asked)| {
            let score = score::of_udp(self.candidate(socket), destination, source, asked)?;
            Some(Contender {
                order: self.scan_order_of(socket)?,
                score,
                socket,
                connected: true,
            })
        });
        let reasons = Reasons {
            alone: Reason::Specific,
            group: Reason::GroupSpecific,
        };
        self.best_udp(tuple, device, Some(destination), connected_again, reasons)
    }

    fn on_wildcard(&self, tuple: &FourTuple, device: Option<Device>) -> Option<(u32, Reason)> {
        let reasons = Reasons {
            alone: Reason::Wildcard,
            group: Reason::GroupWildcard,
        };
        self.best_udp(tuple, device, None, std::iter::empty(), reasons)
    }

    /// The first socket of the best score. A socket with `SO_REUSEPORT` stands for a member of its group;
    /// a group that never had a connection ends the search, one that had does not.
    fn best_udp(
        &self,
        tuple: &FourTuple,
        device: Option<Device>,
        address: Option<IpAddr>,
        connected: impl Iterator<Item = Contender>,
        reasons: Reasons,
    ) -> Option<(u32, Reason)> {
        let (destination, source) = (tuple.local().ip(), tuple.remote().ip());
        let score_of = |claim| score::of_udp(claim, destination, source, 0);
        let unconnected = self
            .receivers(Transport::Udp, tuple.local().port(), address)
            .filter(|(_, _, claim)| claim.hears(device) && score::speaks(claim, destination))
            .filter_map(|(order, socket, claim)| {
                Some(Contender {
                    order,
                    score: score_of(claim)?,
                    socket,
                    connected: false,
                })
            });
        let mut best: Option<(i32, u32, Reason)> = None;
        for contender in score::in_order(unconnected.chain(connected)) {
            if best.is_some_and(|(score, ..)| contender.score <= score) {
                continue;
            }
            let member = self
                .group_of(contender.socket)
                .filter(|_| !contender.connected && self.candidate(contender.socket).reuses_port())
                .and_then(|group| Some((group, self.group_member(group, tuple)?)));
            best = Some(match member {
                None if contender.connected => (contender.score, contender.socket, Reason::FourTuple),
                None => (contender.score, contender.socket, reasons.alone),
                Some((group, member)) if !self.group_has_connections(group) => {
                    return Some((member, reasons.group));
                }
                Some((_, member)) => {
                    let own = score_of(self.candidate(member)).unwrap_or(-1);
                    (contender.score.max(own), member, reasons.group)
                }
            });
        }
        best.map(|(_, socket, because)| (socket, because))
    }
}
