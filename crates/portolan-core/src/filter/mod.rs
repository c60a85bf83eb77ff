//! The filter: may a packet pass?
//!
//! A [`Chain`] is an ordered list of [`Rule`]s and a policy. The first rule that matches decides; if none does, the
//! policy does. Rules look at protocol, addresses, ports, the device, and at the [`ConnectionState`] that whoever asks
//! has tracked. The answer names the rule that decided.
//!
//! ```
//! use portolan_core::Protocol;
//! use portolan_core::filter::{Action, Chain, ConnectionStates, Packet, Rule, RuleId, Verdict};
//!
//! let chain = Chain::new(
//!     [
//!         Rule::new(Action::Accept).states(ConnectionStates::ESTABLISHED | ConnectionStates::RELATED),
//!         Rule::new(Action::Drop).from(["203.0.113.0/24".parse()?]),
//!         Rule::new(Action::Accept).protocol(Protocol::Tcp).to_ports("80,443".parse()?),
//!     ],
//!     Action::Drop,
//! );
//! let packet = Packet::new(Protocol::Tcp, "198.51.100.7:5000".parse()?, "10.0.0.1:443".parse()?);
//! let decision = chain.decide(&packet);
//! assert_eq!((decision.verdict, decision.rule), (Verdict::Accept, Some(RuleId::new(2))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Cost
//!
//! Each rule is indexed under one of its conditions: the one that it shares with the fewest other rules. A packet is
//! compared with the rules that it finds under its own addresses and ports, not with all: see `index`.
//!
//! # What it does not know
//!
//! A rule may have a condition that this engine cannot judge, [`Rule::opaque`]. If it makes no difference, the answer
//! is as without it; if it does, the verdict is [`Verdict::Unknown`] with that rule, never a guess.

mod addresses;
mod chain;
mod index;
mod rule;

use std::net::SocketAddr;

pub use self::addresses::AddressSet;
pub use self::chain::{Chain, Decision};
pub use self::rule::{Action, ConnectionState, ConnectionStates, Reject, Rule, RuleId, Verdict};

use crate::table::Device;
use crate::wire::IpProtocol;

/// Where in its way through a host a packet is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hook {
    /// It came, and is for this host.
    Input,
    /// It is from this host, and goes.
    Output,
}

/// The chains of a host.
#[derive(Clone, Debug)]
pub struct Filter {
    /// For packets that come.
    pub input: Chain,
    /// For packets that go.
    pub output: Chain,
}

impl Filter {
    /// The chain of a hook.
    #[must_use]
    pub const fn chain(&self, hook: Hook) -> &Chain {
        match hook {
            Hook::Input => &self.input,
            Hook::Output => &self.output,
        }
    }
}

/// A packet, as far as the filter looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What the IP header carries.
    pub protocol: IpProtocol,
    /// Where it comes from; the port counts only if the protocol has ports.
    pub source: SocketAddr,
    /// Where it goes to.
    pub destination: SocketAddr,
    /// What it is to the conversations that are known.
    pub state: ConnectionState,
    /// The device it came on or leaves by, if that is known.
    pub device: Option<Device>,
}

impl Packet {
    /// A packet that begins something, on no known device.
    #[must_use]
    pub fn new(protocol: impl Into<IpProtocol>, source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            protocol: protocol.into(),
            source,
            destination,
            state: ConnectionState::New,
            device: None,
        }
    }
}
