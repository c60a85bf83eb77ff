//! Scopes: receivers for more than one socket address, up to every destination there is.
//!
//! A bind takes one port on one address, or on all addresses of the host. A socket with a [`Scope`] receives what is for
//! a range of ports on an address, on every address of the host, on a prefix, or on any address at all, also those that
//! are not the host's: that is how a proxy takes whatever a program sends (a *transparent* listener).

use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::claim::{Claim, State, Transport};
use super::error::ScopeError;
use super::host::AddressKind;
use super::{PortTable, SocketId};
use crate::prefix_index::{Prefix, PrefixIndex, address_bits, port_bits, port_prefixes};
use crate::{Port, PortRange};

/// Which destinations a socket receives for.
///
/// Of the receivers of a packet the most specific one wins, by address first, then by port:
///
/// ```text
///   1  bound to the address and the port          5  shorter prefixes, the longest first
///   2  a scope of exactly this address            within 2, 4 and 5: the narrowest range of ports,
///   3  bound to the wildcard and the port         of equally narrow ones the one that begins lower
///   4  a scope of all addresses of the host
/// ```
///
/// Scopes never clash with binds, and with each other only if they are equal. The cost of a look-up is one probe for each
/// length of prefix in use, whatever the number of scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The addresses.
    pub addresses: Addresses,
    /// The ports.
    pub ports: PortRange,
}

/// The addresses of a [`Scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// Every address of the host, of both families, as they are at the time of the packet.
    Own,
    /// One address, or all of a prefix, the host's or not. Bits behind the prefix do not count.
    Prefix(IpNet),
    /// Every unicast address there is, of both families.
    Every,
}

impl Scope {
    /// Every destination there is.
    pub const TRANSPARENT: Self = Self {
        addresses: Addresses::Every,
        ports: PortRange::ALL,
    };

    /// The ports `ports` of the one address `address`.
    #[must_use]
    pub fn address(address: IpAddr, ports: PortRange) -> Self {
        Self {
            addresses: Addresses::Prefix(address.to_canonical().into()),
            ports,
        }
    }

    /// Whether `address` and `port` are of this scope; `is_own` says whether the address is the host's.
    #[must_use]
    pub fn contains(&self, address: IpAddr, port: Port, is_own: bool) -> bool {
        let on_address = match self.addresses {
            Addresses::Own => is_own,
            Addresses::Prefix(prefix) => prefix.contains(&address.to_canonical()),
            Addresses::Every => true,
        };
        on_address && self.ports.contains(port)
    }

    fn normalised(self) -> Self {
        let addresses = match self.addresses {
            Addresses::Prefix(prefix) => Addresses::Prefix(prefix.trunc()),
            addresses @ (Addresses::Own | Addresses::Every) => addresses,
        };
        Self { addresses, ..self }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.addresses {
            Addresses::Own => write!(f, "own:{}", self.ports),
            Addresses::Prefix(IpNet::V6(prefix)) => write!(f, "[{prefix}]:{}", self.ports),
            Addresses::Prefix(IpNet::V4(prefix)) => write!(f, "{prefix}:{}", self.ports),
            Addresses::Every => write!(f, "*:{}", self.ports),
        }
    }
}

/// Ranges of ports and who has them, by the prefixes that the ranges are made up of.
type Ranges = PrefixIndex<SmallVec<[(PortRange, u32); 1]>>;

/// The scopes of one protocol.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    own: Ranges,
    v4: PrefixIndex<Ranges>,
    v6: PrefixIndex<Ranges>,
}

impl Scopes {
    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.v4.is_empty() && self.v6.is_empty()
    }

    /// Who has exactly this scope.
    fn holder(&mut self, scope: &Scope) -> Option<u32> {
        let first = port_prefixes(scope.ports).next()?;
        let holder = |ranges: &mut Ranges| {
            let here = ranges.get_mut(first)?;
            here.iter()
                .find(|(range, _)| *range == scope.ports)
                .map(|&(_, socket)| socket)
        };
        let mut found = None;
        self.visit(scope.addresses, |ranges| found = found.or_else(|| holder(ranges)));
        self.tidy(scope.addresses);
        found
    }

    fn insert(&mut self, scope: &Scope, socket: u32) {
        self.visit(scope.addresses, |ranges| {
            for prefix in port_prefixes(scope.ports) {
                let here = ranges.entry(prefix);
                here.push((scope.ports, socket));
                here.sort_unstable_by_key(|&(range, _)| narrowness(range));
            }
        });
    }

    fn remove(&mut self, scope: &Scope) {
        self.visit(scope.addresses, |ranges| {
            for prefix in port_prefixes(scope.ports) {
                if let Some(here) = ranges.get_mut(prefix) {
                    here.retain(|(range, _)| *range != scope.ports);
                    if here.is_empty() {
                        ranges.remove(prefix);
                    }
                }
            }
        });
        self.tidy(scope.addresses);
    }

    /// Forgets prefixes without ranges.
    fn tidy(&mut self, addresses: Addresses) {
        match addresses {
            Addresses::Own => {}
            Addresses::Prefix(prefix) => forget_if_empty(self.of_family(prefix), key(prefix)),
            Addresses::Every => {
                forget_if_empty(&mut self.v4, Prefix::new(0, 0));
                forget_if_empty(&mut self.v6, Prefix::new(0, 0));
            }
        }
    }

    /// Calls `act` on the ranges of these addresses: of both families if they are of both.
    fn visit(&mut self, addresses: Addresses, mut act: impl FnMut(&mut Ranges)) {
        match addresses {
            Addresses::Own => act(&mut self.own),
            Addresses::Prefix(prefix) => act(self.of_family(prefix).entry(key(prefix))),
            Addresses::Every => {
                act(self.v4.entry(Prefix::new(0, 0)));
                act(self.v6.entry(Prefix::new(0, 0)));
            }
        }
    }

    const fn of_family(&mut self, prefix: IpNet) -> &mut PrefixIndex<Ranges> {
        match prefix {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        }
    }

    /// The socket whose scope is exactly this address, or a shorter prefix; with the length of the prefix.
    fn on_prefix(&self, address: IpAddr, port: u16, whole: bool) -> Option<u32> {
        let index = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let (bits, width) = address_bits(address);
        index
            .covering(bits)
            .filter(|&(len, _)| (len == width) == whole)
            .find_map(|(_, ranges)| on_port(ranges, port))
    }
}

fn forget_if_empty(index: &mut PrefixIndex<Ranges>, key: Prefix) {
    if index.get_mut(key).is_some_and(|ranges| ranges.is_empty()) {
        index.remove(key);
    }
}

/// The narrower range first; of equally narrow ones the lower.
fn narrowness(range: PortRange) -> (u32, Port) {
    (range.len(), range.first())
}

fn on_port(ranges: &Ranges, port: u16) -> Option<u32> {
    ranges
        .covering(port_bits(port))
        .filter_map(|(_, here)| here.first())
        .min_by_key(|(range, _)| narrowness(*range))
        .map(|&(_, socket)| socket)
}

fn key(prefix: IpNet) -> Prefix {
    let (bits, _) = address_bits(prefix.addr());
    Prefix::new(bits, prefix.prefix_len())
}

impl PortTable {
    /// Makes a socket that is not bound the receiver of a scope. A TCP socket listens from then on; connections are
    /// entered by [`accept`](Self::accept) with the address that they were for. Close or disconnect gives the scope back.
    ///
    /// It takes a privilege to receive for addresses that are not the host's, or for privileged ports.
    ///
    /// # Errors
    /// [`ScopeError`], after which the socket is as it was.
    pub fn receive_for(&mut self, id: SocketId, scope: Scope) -> Result<(), ScopeError> {
        let index = self.index(id)?;
        let claim = self.claim_of(index);
        let scope = scope.normalised();
        if claim.is_bound() || claim.state != State::Idle {
            return Err(ScopeError::NotFresh);
        }
        if !claim.owner.privileged && self.needs_privilege(&scope) {
            return Err(ScopeError::Privileged { scope });
        }
        let scopes = self.scopes_mut(claim.transport);
        if let Some(holder) = scopes.holder(&scope) {
            let holder = self.id(holder);
            return Err(ScopeError::InUse { scope, holder });
        }
        scopes.insert(&scope, index);
        self.extras.entry(index).or_default().scope = Some(scope);
        self.adopt(
            index,
            &Claim {
                state: State::Listening,
                ..claim
            },
        );
        Ok(())
    }

    /// The scope that a socket receives for, if it has one.
    #[must_use]
    pub fn scope(&self, id: SocketId) -> Option<Scope> {
        self.extras.get(&self.sockets.index(id)?)?.scope
    }

    /// Takes the scope from a socket, if it has one.
    pub(super) fn leave_scope(&mut self, index: u32) {
        if self.extras.is_empty() {
            return;
        }
        let transport = self.claim_of(index).transport;
        if let Some(scope) = self.extras.get_mut(&index).and_then(|extras| extras.scope.take()) {
            self.scopes_mut(transport).remove(&scope);
        }
    }

    fn needs_privilege(&self, scope: &Scope) -> bool {
        let beyond_host = match scope.addresses {
            Addresses::Own => false,
            Addresses::Prefix(prefix) => {
                prefix.prefix_len() != prefix.max_prefix_len()
                    || self.host.kind(prefix.addr()) != AddressKind::Local
            }
            Addresses::Every => true,
        };
        beyond_host || u32::from(scope.ports.first().get()) < self.host.unprivileged_start()
    }

    const fn scopes_mut(&mut self, transport: Transport) -> &mut Scopes {
        match transport {
            Transport::Tcp => &mut self.tcp_scopes,
            Transport::Udp => &mut self.udp_scopes,
        }
    }

    const fn scopes(&self, transport: Transport) -> &Scopes {
        match transport {
            Transport::Tcp => &self.tcp_scopes,
            Transport::Udp => &self.udp_scopes,
        }
    }

    /// The receiver whose scope has exactly this address.
    #[inline]
    pub(crate) fn scope_on_address(&self, transport: Transport, address: IpAddr, port: u16) -> Option<u32> {
        let scopes = self.scopes(transport);
        if scopes.is_empty() {
            return None;
        }
        scopes.on_prefix(address, port, true)
    }

    /// The receiver whose scope has this address among others; `is_own` if it is an address of the host.
    #[inline]
    pub(crate) fn scope_around(
        &self,
        transport: Transport,
        address: IpAddr,
        port: u16,
        is_own: bool,
    ) -> Option<u32> {
        let scopes = self.scopes(transport);
        if scopes.is_empty() {
            return None;
        }
        is_own
            .then(|| on_port(&scopes.own, port))
            .flatten()
            .or_else(|| scopes.on_prefix(address, port, false))
    }
}
