//! When two sockets on one port clash, and what forgives it.

use super::PortTable;
use super::arena::SocketId;
use super::claim::{Claim, Reuse, State, Transport};
use super::error::{Holder, InUse, Rule};
use super::records::Clash;
use super::slab::NONE;

/// Whether a clash is forgiven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pardon {
    Yes,
    No,
    /// It depends on options of the holder that are not known.
    Unknown,
}

/// Whether `holder` shares the port with `candidate`, whose addresses and devices it meets.
///
/// Both set `SO_REUSEADDR` (which beside a TCP listener does not help), or both set `SO_REUSEPORT` and
/// belong to one user (whom a connection in TIME-WAIT no longer has).
fn pardon(candidate: &Claim, holder: &Claim) -> Pardon {
    let address = candidate.reuses_address() && holder.state != State::Listening;
    let port = candidate.reuses_port()
        && (holder.state == State::TimeWait || candidate.owner.uid == holder.owner.uid);
    match holder.reuse {
        Reuse::Known {
            address: theirs,
            port: theirs_port,
        } if address && theirs || port && theirs_port => Pardon::Yes,
        Reuse::Known { .. } => Pardon::No,
        Reuse::Unknown if address || port => Pardon::Unknown,
        Reuse::Unknown => Pardon::No,
    }
}

/// The rule by which `holder` is in the way.
fn rule(candidate: &Claim, holder: &Claim, pardon: Pardon) -> Rule {
    if pardon == Pardon::Unknown {
        Rule::UnknownOptions
    } else if candidate.reuses_address() && holder.reuses_address() {
        Rule::BesideListener
    } else if candidate.reuses_port() && holder.reuses_port() {
        Rule::OtherUser
    } else {
        Rule::NotShared
    }
}

/// Linux's number of sockets on a UDP port from which on it looks at the candidate's address and the
/// wildcard apart (`udp_lib_get_port`).
const MANY_UDP_SOCKETS: usize = 10;

/// How many sockets a refusal names at most.
const NAMED: usize = 8;

impl PortTable {
    /// Whether `candidate` may have its port, which was asked for; `except` is the candidate itself.
    pub(super) fn check(&self, candidate: &Claim, except: Option<u32>) -> Result<(), InUse> {
        match candidate.transport {
            Transport::Tcp => self.check_tcp(candidate, except),
            Transport::Udp => self.check_udp(candidate),
        }
    }

    /// Whether an automatic choice may fall on the port of `candidate`.
    ///
    /// TCP wants a port on which nothing clashes, whatever the options; for UDP every clash must be
    /// forgiven.
    pub(super) fn is_free(&self, candidate: &Claim) -> bool {
        self.records
            .clashing(candidate)
            .all(|clash| match candidate.transport {
                Transport::Tcp => false,
                Transport::Udp => pardon(candidate, clash.claim) == Pardon::Yes,
            })
    }

    fn check_tcp(&self, candidate: &Claim, except: Option<u32>) -> Result<(), InUse> {
        let port = self.records.port(candidate.transport, candidate.port);
        if port.is_some_and(|port| port.memory.admits(candidate)) {
            return Ok(());
        }
        self.refuse(candidate, except, |_| true)
    }

    /// Among UDP sockets the first that clashes, unless both set `SO_REUSEADDR`, decides alone: if it
    /// shares by `SO_REUSEPORT`, the others are not looked at.
    fn check_udp(&self, candidate: &Claim) -> Result<(), InUse> {
        let (mut shares, mut refuses) = (false, false);
        for clash in self.records.clashing(candidate) {
            match pardon_by_port(candidate, clash.claim) {
                Some(Pardon::Yes) => shares = true,
                Some(Pardon::No | Pardon::Unknown) => refuses = true,
                None => {}
            }
        }
        if !refuses {
            return Ok(());
        }
        if !shares {
            return self.refuse(candidate, None, |_| true);
        }
        let many = self
            .records
            .port(candidate.transport, candidate.port)
            .is_some_and(|port| port.sockets > MANY_UDP_SOCKETS);
        let decided_by = if many && !candidate.address.is_unspecified() {
            let on_address = |holder: &Claim| !holder.address.is_unspecified();
            let on_wildcard = |holder: &Claim| holder.address.is_unspecified();
            [
                self.first_in_scan_order(candidate, on_address),
                self.first_in_scan_order(candidate, on_wildcard),
            ]
        } else {
            [self.first_in_bind_order(candidate), None]
        };
        for socket in decided_by.into_iter().flatten() {
            let holder = self.claim_of(socket);
            if pardon(candidate, &holder) != Pardon::Yes {
                return Err(self.in_use(candidate, &holder, vec![self.id(socket)]));
            }
        }
        Ok(())
    }

    fn first_in_bind_order(&self, candidate: &Claim) -> Option<u32> {
        self.deciding_records(candidate, |_| true)
            .filter_map(|number| self.records[number].bind_order.first_key_value())
            .min()
            .map(|(_, &socket)| socket)
    }

    fn first_in_scan_order(&self, candidate: &Claim, wanted: impl Fn(&Claim) -> bool) -> Option<u32> {
        self.deciding_records(candidate, wanted)
            .filter_map(|number| self.records[number].scan_order.first_key_value())
            .min()
            .map(|(_, &socket)| socket)
    }

    /// The records whose sockets decide on a UDP candidate: clashing, and not both `SO_REUSEADDR`.
    fn deciding_records(
        &self,
        candidate: &Claim,
        wanted: impl Fn(&Claim) -> bool,
    ) -> impl Iterator<Item = u32> {
        self.records
            .clashing(candidate)
            .filter(|clash| pardon_by_port(candidate, clash.claim).is_some() && wanted(clash.claim))
            .flat_map(|clash| clash.all_records().to_vec())
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// Refuses if a clash that is `wanted` is not forgiven, and names who is in the way.
    fn refuse(
        &self,
        candidate: &Claim,
        except: Option<u32>,
        wanted: impl Fn(&Claim) -> bool,
    ) -> Result<(), InUse> {
        let mut in_the_way: Vec<SocketId> = Vec::new();
        let mut worst: Option<(Claim, Pardon)> = None;
        for clash in self.records.clashing(candidate) {
            let pardon = pardon(candidate, clash.claim);
            if pardon == Pardon::Yes || !wanted(clash.claim) {
                continue;
            }
            let Some(socket) = self.any_of(&clash, except) else {
                continue;
            };
            let is_worse = match &worst {
                None => true,
                Some((_, before)) => *before == Pardon::Unknown && pardon == Pardon::No,
            };
            if is_worse {
                worst = Some((self.claim_of(socket), pardon));
                in_the_way.insert(0, self.id(socket));
            } else if in_the_way.len() < NAMED {
                in_the_way.push(self.id(socket));
            }
        }
        match worst {
            Some((holder, _)) => Err(self.in_use(candidate, &holder, in_the_way)),
            None => Ok(()),
        }
    }

    /// A socket of the clash other than `except`.
    fn any_of(&self, clash: &Clash<'_>, except: Option<u32>) -> Option<u32> {
        let of_records = clash.records.iter().map(|&number| self.records[number].first);
        let of_tenants = Some(clash.tenant).filter(|&first| first != NONE);
        of_records.chain(of_tenants).find_map(|first| {
            if Some(first) != except {
                return Some(first);
            }
            let next = self.sockets[first].next;
            (next != NONE).then_some(next)
        })
    }

    fn in_use(&self, candidate: &Claim, holder: &Claim, in_the_way: Vec<SocketId>) -> InUse {
        let pardon = pardon(candidate, holder);
        InUse {
            in_the_way,
            holder: Holder::new(holder),
            rule: rule(candidate, holder, pardon),
            // What a port remembers of sockets that were there before the table was loaded could let a
            // SO_REUSEPORT socket in.
            certain: pardon == Pardon::No
                && !(candidate.transport == Transport::Tcp
                    && candidate.reuses_port()
                    && self.has_unknown_kin(candidate)),
        }
    }

    /// Whether a socket of the same user and with unknown options is on the port.
    fn has_unknown_kin(&self, candidate: &Claim) -> bool {
        self.records
            .port(candidate.transport, candidate.port)
            .is_some_and(|port| {
                port.shapes.iter().any(|shape| {
                    shape.claim.reuse == Reuse::Unknown && shape.claim.owner.uid == candidate.owner.uid
                })
            })
    }
}

/// What a UDP holder says to the candidate, or `None` if both set `SO_REUSEADDR` and it has no say.
fn pardon_by_port(candidate: &Claim, holder: &Claim) -> Option<Pardon> {
    if candidate.reuses_address() && holder.reuses_address() {
        return None;
    }
    Some(pardon(candidate, holder))
}
