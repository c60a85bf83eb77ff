//! TCP: exact four-tuple, then listeners by score, then nobody.

use std::net::IpAddr;

use super::flows::{Found, FourTuple};
use super::score::{self, Contender, Reasons};
use super::{Delivery, Reason, Reply, Segment};
use crate::table::{AddressKind, Device, PortTable, SocketId, State, Transport};

impl PortTable {
    /// Whose an arriving segment of this four-tuple is: as [`PortTable::deliver`], for a caller who has the four-tuple.
    #[must_use]
    pub fn deliver_tcp(&self, tuple: &FourTuple, device: Option<Device>, segment: Segment) -> Delivery {
        if let Some(found) = self.find_flow(Transport::Tcp, tuple) {
            let asked = match found {
                Found::One(socket, generation) => {
                    return Delivery::Socket {
                        to: SocketId::new(socket, generation),
                        because: Reason::FourTuple,
                    };
                }
                Found::Ask(sockets) => sockets,
            };
            // Of several that hear the device, the latest.
            let heard = asked
                .into_iter()
                .rev()
                .find(|&socket| self.candidate(socket).hears(device));
            if let Some(socket) = heard {
                return Delivery::Socket {
                    to: self.id(socket),
                    because: match self.candidate(socket).state {
                        State::TimeWait => Reason::TimeWait,
                        State::Idle | State::Listening | State::Connected => Reason::FourTuple,
                    },
                };
            }
        }
        let nobody = |because, reply| Delivery::Nobody { reply, because };
        let is_own = match self.host().kind(tuple.local().ip()) {
            AddressKind::Local => true,
            // Somebody else's address, but a transparent listener may stand in for it.
            AddressKind::Foreign if self.scope_of(Transport::Tcp, tuple, device, false).is_some() => false,
            AddressKind::Broadcast | AddressKind::Multicast => {
                return nobody(Reason::NotUnicast, Reply::Nothing);
            }
            AddressKind::Foreign | AddressKind::Wildcard => {
                return nobody(Reason::NotForThisHost, Reply::Nothing);
            }
        };
        match self.host().kind(tuple.remote().ip()) {
            // RFC 9293, section 3.9.2.3; Linux calls these sources martian.
            AddressKind::Broadcast | AddressKind::Multicast | AddressKind::Wildcard => {
                return nobody(Reason::NotUnicast, Reply::Nothing);
            }
            AddressKind::Local | AddressKind::Foreign => {}
        }
        match segment {
            Segment::Syn => self.listener(tuple, device, is_own).map_or_else(
                || nobody(Reason::NobodyListens, Reply::Reset),
                |(socket, because)| Delivery::Socket {
                    to: self.id(socket),
                    because,
                },
            ),
            Segment::Other => nobody(Reason::NoConnection, Reply::Reset),
            // RFC 9293, section 3.10.7.1: "An incoming segment containing a RST is discarded."
            Segment::Reset => nobody(Reason::NoConnection, Reply::Nothing),
        }
    }

    fn listener(&self, tuple: &FourTuple, device: Option<Device>, is_own: bool) -> Option<(u32, Reason)> {
        let destination = tuple.local().ip();
        let specific = Reasons {
            alone: Reason::ListenerSpecific,
            group: Reason::ListenerGroupSpecific,
        };
        let wildcard = Reasons {
            alone: Reason::ListenerWildcard,
            group: Reason::ListenerGroupWildcard,
        };
        // In the order that `table::Scope` tells.
        let scoped = |socket| (socket, Reason::ListenerScope);
        if !is_own {
            return self.scope_of(Transport::Tcp, tuple, device, false).map(scoped);
        }
        self.best_listener(tuple, device, Some(destination), specific)
            .or_else(|| self.scope_on(Transport::Tcp, tuple, device).map(scoped))
            .or_else(|| self.best_listener(tuple, device, None, wildcard))
            .or_else(|| self.scope_beyond(Transport::Tcp, tuple, device, true).map(scoped))
    }

    /// The first listener of the best score; but the first that has `SO_REUSEPORT` and betters the score
    /// ends the search, with a member of its group.
    fn best_listener(
        &self,
        tuple: &FourTuple,
        device: Option<Device>,
        address: Option<IpAddr>,
        reasons: Reasons,
    ) -> Option<(u32, Reason)> {
        let destination = tuple.local().ip();
        let contenders = self
            .receivers(Transport::Tcp, tuple.local().port(), address)
            .filter(|(_, _, claim)| claim.hears(device) && score::speaks(claim, destination))
            .map(|(order, socket, claim)| Contender {
                order,
                score: score::of_listener(claim, destination),
                socket,
                connected: false,
            });
        let mut best: Option<(i32, u32)> = None;
        for contender in score::in_order(contenders) {
            if best.is_some_and(|(score, _)| contender.score <= score) {
                continue;
            }
            if self.candidate(contender.socket).reuses_port()
                && let Some(group) = self.group_of(contender.socket)
                && let Some(member) = self.group_member(group, tuple)
            {
                return Some((member, reasons.group));
            }
            best = Some((contender.score, contender.socket));
        }
        best.map(|(_, socket)| (socket, reasons.alone))
    }
}
