use portolan_core::{Port, PortRange};

use crate::{Socket, SocketAddress, SocketProtocol, State};

/// What to read from a host: the less, the faster.
///
/// Everything here is handed to the kernel where it can filter by itself, and applied to its answers where
/// it cannot (the text files of /proc/net).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The protocols to read.
    pub protocols: ProtocolSet,
    /// The states to read.
    pub states: StateSet,
    /// Only sockets whose local port lies in one of these; `None` for all.
    pub local_ports: Option<Vec<PortRange>>,
    /// The network namespaces to read.
    pub space: SpaceSelect,
    /// Whether to find the owners.
    pub owners: bool,
    /// Whether to read TCP's internals.
    pub tcp_info: bool,
}

impl Query {
    /// Every port that is open: TCP listeners and datagram sockets without a peer, with their owners, in
    /// every namespace.
    #[must_use]
    pub const fn listeners() -> Self {
        Self {
            protocols: ProtocolSet::PORTS,
            states: StateSet::OPEN,
            local_ports: None,
            space: SpaceSelect::Every,
            owners: true,
            tcp_info: false,
        }
    }

    /// Whether the socket's state and port are among those asked for.
    pub(crate) fn admits(&self, socket: &Socket) -> bool {
        let port_admitted = || {
            let Some(ranges) = &self.local_ports else {
                return true;
            };
            let port = match (&socket.local, socket.protocol) {
                // The "port" of a raw socket is an IP protocol number.
                (SocketAddress::Inet { .. }, SocketProtocol::Raw) | (SocketAddress::Unix { .. }, _) => None,
                (SocketAddress::Inet { port, .. }, _) => Some(*port),
                (SocketAddress::Vsock { port, .. }, _) => u16::try_from(*port).ok().map(Port::new),
            };
            port.is_some_and(|port| ranges.iter().any(|range| range.contains(port)))
        };
        self.states.contains(socket.state) && port_admitted()
    }
}

/// A set of [`SocketProtocol`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProtocolSet(u16);

impl ProtocolSet {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// Those with ports in the sense of a transport protocol, raw and vsock sockets included: all but unix.
    pub const PORTS: Self = Self(Self::ALL.0 & !(1 << SocketProtocol::Unix as u16));
    /// Every one.
    pub const ALL: Self = Self((1 << SocketProtocol::ALL.len()) - 1);

    /// This set and `protocol`.
    #[must_use]
    pub const fn with(self, protocol: SocketProtocol) -> Self {
        Self(self.0 | 1 << protocol as u16)
    }

    /// Whether `protocol` belongs to the set.
    #[must_use]
    pub const fn contains(self, protocol: SocketProtocol) -> bool {
        self.0 & 1 << protocol as u16 != 0
    }

    /// Whether no protocol belongs to the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The protocols of the set, in the order of [`SocketProtocol::ALL`].
    pub fn iter(self) -> impl Iterator<Item = SocketProtocol> {
        SocketProtocol::ALL
            .into_iter()
            .filter(move |protocol| self.contains(*protocol))
    }
}

impl FromIterator<SocketProtocol> for ProtocolSet {
    fn from_iter<I: IntoIterator<Item = SocketProtocol>>(protocols: I) -> Self {
        protocols.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// A set of [`State`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateSet(u16);

impl StateSet {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// Every one.
    pub const ALL: Self = Self((1 << State::ALL.len()) - 1);
    /// Those of an open port: listening, and taking datagrams from anyone.
    pub const OPEN: Self = Self::EMPTY.with(State::Listen).with(State::Unconnected);

    /// This set and `state`.
    #[must_use]
    pub const fn with(self, state: State) -> Self {
        Self(self.0 | 1 << state as u16)
    }

    /// This set without `state`.
    #[must_use]
    pub const fn without(self, state: State) -> Self {
        Self(self.0 & !(1 << state as u16))
    }

    /// The states of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The states of both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The states that are not in this set.
    #[must_use]
    pub const fn complement(self) -> Self {
        Self(Self::ALL.0 & !self.0)
    }

    /// Whether `state` belongs to the set.
    #[must_use]
    pub const fn contains(self, state: State) -> bool {
        self.0 & 1 << state as u16 != 0
    }

    /// Whether no state belongs to the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The states of the set, in the order of [`State::ALL`].
    pub fn iter(self) -> impl Iterator<Item = State> {
        State::ALL.into_iter().filter(move |state| self.contains(*state))
    }
}

impl FromIterator<State> for StateSet {
    fn from_iter<I: IntoIterator<Item = State>>(states: I) -> Self {
        states.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// Which network namespaces are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpaceSelect {
    /// Every one that can be found.
    #[default]
    Every,
    /// The one that this process runs in.
    Host,
    /// The one mounted under this name in /run/netns, or that of the container of this name or id.
    Named(String),
    /// The one in which this process lives.
    Process(i32),
    /// The one with this inode.
    Inode(u64),
}

impl SpaceSelect {
    /// What a person means by `text`: `host`, a PID (`812`, `pid:812`), `net:[INODE]`, or else a name.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        if text == "host" {
            return Self::Host;
        }
        if let Ok(pid) = text.strip_prefix("pid:").unwrap_or(text).parse::<i32>()
            && pid > 0
        {
            return Self::Process(pid);
        }
        let inode = text.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
        match inode.and_then(|digits| digits.parse().ok()) {
            Some(inode) => Self::Inode(inode),
            None => Self::Named(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        for protocol in SocketProtocol::ALL {
            assert!(ProtocolSet::ALL.contains(protocol));
            assert_eq!(
                ProtocolSet::EMPTY.with(protocol).iter().collect::<Vec<_>>(),
                [protocol]
            );
        }
        assert!(!ProtocolSet::PORTS.contains(SocketProtocol::Unix));
        for state in State::ALL {
            assert!(StateSet::ALL.contains(state));
            assert_eq!(StateSet::EMPTY.with(state).iter().collect::<Vec<_>>(), [state]);
            assert!(!StateSet::ALL.without(state).contains(state));
        }
        assert_eq!(StateSet::OPEN.complement().union(StateSet::OPEN), StateSet::ALL);
    }

    #[test]
    fn a_space_is_named_in_five_ways() {
        assert_eq!(SpaceSelect::from_text("host"), SpaceSelect::Host);
        assert_eq!(SpaceSelect::from_text("812"), SpaceSelect::Process(812));
        assert_eq!(SpaceSelect::from_text("pid:812"), SpaceSelect::Process(812));
        assert_eq!(
            SpaceSelect::from_text("net:[4026531840]"),
            SpaceSelect::Inode(4_026_531_840)
        );
        assert_eq!(SpaceSelect::from_text("blue"), SpaceSelect::Named("blue".into()));
        assert_eq!(
            SpaceSelect::from_text("net:[x]"),
            SpaceSelect::Named("net:[x]".into())
        );
        assert_eq!(SpaceSelect::from_text("-1"), SpaceSelect::Named("-1".into()));
    }
}
