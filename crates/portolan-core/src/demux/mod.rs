//! The demultiplexer: whose is this packet?
//!
//! ```text
//!                     ┌▶ four-tuple ─▶ connection or TIME-WAIT
//!   tcp segment ──────┼▶ listeners on the address ─┬▶ score ─▶ the newest best, or a member of its group
//!                     │  else on a wildcard ───────┘
//!                     └▶ nobody ─▶ RST
//!                     ┌▶ four-tuple ─▶ connected socket
//!   udp datagram ─────┼▶ sockets on the address, else on a wildcard ─▶ score ─▶ one of them
//!                     ├▶ multicast, broadcast ─▶ every match
//!                     └▶ nobody ─▶ ICMP port unreachable
//! ```
//!
//! [`PortTable::deliver`] changes nothing and allocates nothing for a packet that goes to one socket. The
//! answer carries the [`Reason`].

mod flows;
mod multicast;
mod reason;
mod score;
mod tcp;
mod udp;

use std::net::SocketAddr;

pub use self::flows::FourTuple;
pub use self::reason::{Reason, Reply};

pub(crate) use self::flows::{Flows, Found};

use crate::table::{Device, PortTable, SocketId, Transport};

/// What a TCP segment is to someone who looks for its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Segment {
    /// SYN without ACK and RST: it asks for a connection.
    #[default]
    Syn,
    /// A segment with RST, which is never answered.
    Reset,
    /// Any other.
    Other,
}

/// A packet that arrived, as far as the demultiplexer looks at it.
///
/// Whether its checksums and lengths are right has been checked before. Of a fragmented datagram this is
/// the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The protocol.
    pub transport: Transport,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes to.
    pub destination: SocketAddr,
    /// The device it arrived on, if that is known.
    pub device: Option<Device>,
    /// What a TCP segment it is; for UDP without meaning.
    pub segment: Segment,
}

/// Who gets a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// One socket.
    Socket {
        /// The socket.
        to: SocketId,
        /// Why it.
        because: Reason,
    },
    /// A copy for each of these sockets (multicast and broadcast); at least one.
    Sockets {
        /// The sockets.
        to: Vec<SocketId>,
        /// Why they.
        because: Reason,
    },
    /// Nobody.
    Nobody {
        /// What the sender is answered.
        reply: Reply,
        /// Why.
        because: Reason,
    },
}

impl Delivery {
    /// The sockets that get the packet.
    #[must_use]
    pub fn sockets(&self) -> &[SocketId] {
        match self {
            Self::Socket { to, .. } => std::slice::from_ref(to),
            Self::Sockets { to, .. } => to,
            Self::Nobody { .. } => &[],
        }
    }

    /// Why.
    #[must_use]
    pub const fn because(&self) -> Reason {
        match self {
            Self::Socket { because, .. } | Self::Sockets { because, .. } | Self::Nobody { because, .. } => {
                *because
            }
        }
    }

    /// What the sender is answered.
    #[must_use]
    pub const fn reply(&self) -> Reply {
        match self {
            Self::Socket { .. } | Self::Sockets { .. } => Reply::Nothing,
            Self::Nobody { reply, .. } => *reply,
        }
    }
}

impl PortTable {
    /// Whose an arriving packet is.
    #[must_use]
    pub fn deliver(&self, packet: &Packet) -> Delivery {
        // Packets do not mix families, so ends of two families belong to nobody.
        let Some(tuple) = FourTuple::new(packet.destination, packet.source) else {
            return Delivery::Nobody {
                reply: Reply::Nothing,
                because: Reason::NotForThisHost,
            };
        };
        match packet.transport {
            Transport::Tcp => self.deliver_tcp(&tuple, packet.device, packet.segment),
            Transport::Udp => self.deliver_udp(&tuple, packet.device),
        }
    }
}
