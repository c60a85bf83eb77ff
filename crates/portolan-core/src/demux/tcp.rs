//! TCP: exact four-tuple, then listeners by score, then nobody.

use std::net::IpAddr;

use super::flows::{Found, FourTuple};
use super::score::{self, Contender, Reasons};
use super::{Delivery, Reason, Reply, Segment};
use crate::table::{AddressKind, Device, PortTable, SocketId, State, Transport};

impl PortTable {
    pub(super) fn deliver_tcp(
        &self,
        tuple: &FourTuple,
        device: Option<Device>,
        segment: Segment,
    ) -> Delivery {
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
        match self.host().kind(tuple.local().ip()) {
            AddressKind::Local => {}
            AddressKind::Broadcast | AddressKind::Multicast => {
                return nobody(Reason::NotUnicast, Reply::Nothing);
            }
            AddressKind::Foreign | AddressKind::Wildcard => {
                return nobody(Reason::NotForThisHost, Reply::Nothing);
            }
        }
        match self.host().kind(tuple.remote().ip()) {
            AddressKind::Broadcast | AddressKind::Multicast => {
                return nobody(Reason::NotUnicast, Reply::Nothing);
            }
            AddressKind::Local | AddressKind::Foreign | AddressKind::Wildcard => {}
        }
        match segment {
            Segment::Syn => self.listener(tuple, device).map_or_else(
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

    fn listener(&self, tuple: &FourTuple, device: Option<Device>) -> Option<(u32, Reason)> {
        let destination = tuple.local().ip();
        let specific = Reasons {
            alone: Reason::ListenerSpecific,
            group: Reason::ListenerGroupSpecific,
        };
        let wildcard = Reasons {
            alone: Reason::ListenerWildcard,
            group: Reason::ListenerGroupWildcard,
        };
        self.best_listener(tuple, device, Some(destination), specific)
            .or_else(|| self.best_listener(tuple, device, None, wildcard))
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
