//! Rules: conditions, all of which must hold, and what is done then.

use std::fmt;

use bitflags::bitflags;

use super::{AddressSet, Packet};
use crate::table::Device;
use crate::wire::{IpProtocol, UnreachableCode};
use crate::{Port, PortSet};

/// How a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    /// By a TCP segment with RST; what is not TCP is told *port unreachable*.
    Reset,
    /// By ICMP *destination unreachable*.
    Unreachable(UnreachableCode),
}

/// What a rule does with a packet that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Let it pass.
    Accept,
    /// Forget it.
    Drop,
    /// Forget it, and tell the sender.
    Reject(Reject),
}

/// The filter's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The packet passes.
    Accept,
    /// The packet is forgotten.
    Drop,
    /// The packet is forgotten, and the sender is told.
    Reject(Reject),
    /// It depends on a condition that cannot be judged here.
    Unknown,
}

impl From<Action> for Verdict {
    fn from(action: Action) -> Self {
        match action {
            Action::Accept => Self::Accept,
            Action::Drop => Self::Drop,
            Action::Reject(how) => Self::Reject(how),
        }
    }
}

/// As nftables writes it: `accept`, `drop`, `reject with tcp reset`, `reject with icmpx host-unreachable`.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reject(Reject::Reset) => f.write_str("reject with tcp reset"),
            Self::Reject(Reject::Unreachable(code)) => write!(f, "reject with icmpx {code}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// What a packet is to the conversations that are known, as conntrack tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// It begins one.
    New,
    /// It belongs to one that has been answered.
    Established,
    /// It is about one: an ICMP error.
    Related,
    /// It should belong to one, and there is none.
    Invalid,
}

bitflags! {
    /// A set of [`ConnectionState`]s.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ConnectionStates: u8 {
        /// [`ConnectionState::New`].
        const NEW = 1;
        /// [`ConnectionState::Established`].
        const ESTABLISHED = 1 << 1;
        /// [`ConnectionState::Related`].
        const RELATED = 1 << 2;
        /// [`ConnectionState::Invalid`].
        const INVALID = 1 << 3;
    }
}

impl From<ConnectionState> for ConnectionStates {
    fn from(state: ConnectionState) -> Self {
        match state {
            ConnectionState::New => Self::NEW,
            ConnectionState::Established => Self::ESTABLISHED,
            ConnectionState::Related => Self::RELATED,
            ConnectionState::Invalid => Self::INVALID,
        }
    }
}

/// The place of a rule in its chain, from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u32);

impl RuleId {
    /// The rule in this place.
    #[must_use]
    pub const fn new(place: u32) -> Self {
        Self(place)
    }

    /// The place, from 0 on.
    #[must_use]
    pub const fn place(self) -> usize {
        self.0 as usize
    }
}

/// A set of addresses that a rule asks for, or asks not to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct AddressCondition {
    pub(super) set: AddressSet,
    pub(super) negated: bool,
}

/// A rule: an [`Action`] under conditions, all of which must hold. A new one has none and matches every packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    action: Action,
    protocol: Option<IpProtocol>,
    pub(super) sources: Option<AddressCondition>,
    pub(super) destinations: Option<AddressCondition>,
    pub(super) source_ports: Option<PortSet>,
    pub(super) destination_ports: Option<PortSet>,
    states: ConnectionStates,
    device: Option<Device>,
    opaque: Option<Box<str>>,
}

impl Rule {
    /// A rule without conditions.
    #[must_use]
    pub const fn new(action: Action) -> Self {
        Self {
            action,
            protocol: None,
            sources: None,
            destinations: None,
            source_ports: None,
            destination_ports: None,
            states: ConnectionStates::all(),
            device: None,
            opaque: None,
        }
    }

    /// Only packets of this protocol.
    #[must_use]
    pub fn protocol(mut self, protocol: impl Into<IpProtocol>) -> Self {
        self.protocol = Some(protocol.into());
        self
    }

    /// Only packets from these addresses.
    #[must_use]
    pub fn from(mut self, sources: impl Into<AddressSet>) -> Self {
        self.sources = Some(AddressCondition {
            set: sources.into(),
            negated: false,
        });
        self
    }

    /// Only packets from other addresses than these.
    #[must_use]
    pub fn not_from(mut self, sources: impl Into<AddressSet>) -> Self {
        self.sources = Some(AddressCondition {
            set: sources.into(),
            negated: true,
        });
        self
    }

    /// Only packets to these addresses.
    #[must_use]
    pub fn to(mut self, destinations: impl Into<AddressSet>) -> Self {
        self.destinations = Some(AddressCondition {
            set: destinations.into(),
            negated: false,
        });
        self
    }

    /// Only packets to other addresses than these.
    #[must_use]
    pub fn not_to(mut self, destinations: impl Into<AddressSet>) -> Self {
        self.destinations = Some(AddressCondition {
            set: destinations.into(),
            negated: true,
        });
        self
    }

    /// Only packets from these ports. Packets of protocols without ports do not match.
    #[must_use]
    pub fn from_ports(mut self, ports: PortSet) -> Self {
        self.source_ports = Some(ports);
        self
    }

    /// Only packets to these ports. Packets of protocols without ports do not match.
    #[must_use]
    pub fn to_ports(mut self, ports: PortSet) -> Self {
        self.destination_ports = Some(ports);
        self
    }

    /// Only packets in one of these states.
    #[must_use]
    pub fn states(mut self, states: ConnectionStates) -> Self {
        self.states = states;
        self
    }

    /// Only packets that came on this device, or leave by it; packets whose device is not known do not match.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.device = Some(device);
        self
    }

    /// Only packets for which something holds that this engine cannot judge; `reason` says what.
    #[must_use]
    pub fn opaque(mut self, reason: impl Into<Box<str>>) -> Self {
        self.opaque = Some(reason.into());
        self
    }

    /// What the rule does.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }

    /// What the rule asks for that cannot be judged here.
    #[must_use]
    pub fn opaque_reason(&self) -> Option<&str> {
        self.opaque.as_deref()
    }

    /// Whether all conditions hold, those that can be judged.
    #[must_use]
    pub fn matches(&self, packet: &Packet) -> bool {
        let Self {
            action: _,
            protocol,
            sources,
            destinations,
            source_ports,
            destination_ports,
            states,
            device,
            opaque: _,
        } = self;
        let on_port = |wanted: &Option<PortSet>, port: u16| {
            wanted
                .as_ref()
                .is_none_or(|ports| has_ports(packet.protocol) && ports.contains(Port::new(port)))
        };
        let on_address = |wanted: &Option<AddressCondition>, address| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.set.contains(address) != wanted.negated)
        };
        // The cheapest first.
        states.contains(packet.state.into())
            && protocol.is_none_or(|protocol| protocol == packet.protocol)
            && device.is_none_or(|device| packet.device == Some(device))
            && on_port(destination_ports, packet.destination.port())
            && on_port(source_ports, packet.source.port())
            && on_address(destinations, packet.destination.ip())
            && on_address(sources, packet.source.ip())
    }
}

/// Whether the packets of this protocol name ports.
pub(super) fn has_ports(protocol: IpProtocol) -> bool {
    crate::Protocol::from_number(protocol.get()).is_some()
}
