//! The demultiplexer: whose is this packet?
//!
//! ```text
//!                     ┌▶ four-tuple ─▶ connection or TIME-WAIT
//!   tcp segment ──────┼▶ listeners on the address ─┬▶ score ─▶ the newest best, or a member of its group
//!                     │  else on a wildcard ───────┤
//!                     │  else of a scope ──────────┴▶ the most specific
//!                     └▶ nobody ─▶ RST
//!                     ┌▶ four-tuple ─▶ connected socket
//!   udp datagram ─────┼▶ sockets on the address, else on a wildcard, else of a scope ─▶ score ─▶ one of them
//!                     ├▶ multicast, broadcast ─▶ every match
//!                     └▶ nobody ─▶ ICMP port unreachable
//! ```
//!
//! [`PortTable::deliver`] changes nothing and allocates nothing for a packet that goes to one socket. The
//! answer carries the [`Reason`].

mod flows;
mod multicast;
mod reason;
mod scope;
mod score;
mod tcp;
mod udp;

use std::net::SocketAddr;

pub use self::flows::FourTuple;
pub use self::reason::{Reason, Reply};

pub(crate) use self::flows::{BATCH, Flows, Found};

use crate::table::{Device, PortTable, SocketId, Transport};

/// How many four-tuples are looked up together at most.
pub const MAX_BATCH: usize = BATCH;

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
    /// Whose each of several arriving packets is, told to `tell` in their order, by place. The same as
    /// [`PortTable::deliver`] for each, in a fraction of the time if there are many connections: their entries are
    /// waited for together.
    pub fn deliver_batch(&self, packets: &[Packet], mut tell: impl FnMut(usize, Delivery)) {
        const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);
        let nowhere = FourTuple::new(NOWHERE, NOWHERE).expect("both are of one family");
        for (group, packets) in packets.chunks(BATCH).enumerate() {
            let mut tuples = [nowhere; BATCH];
            for (tuple, packet) in tuples.iter_mut().zip(packets) {
                if packet.transport == Transport::Tcp {
                    *tuple = FourTuple::new(packet.destination, packet.source).unwrap_or(nowhere);
                }
            }
            let found = self.find_connections(&tuples[..packets.len()]);
            for (place, (packet, found)) in packets.iter().zip(found).enumerate() {
                let delivery = match found {
                    Some(to) => Delivery::Socket {
                        to,
                        because: Reason::FourTuple,
                    },
                    None => self.deliver(packet),
                };
                tell(group * BATCH + place, delivery);
            }
        }
    }

    /// The TCP connections that have these four-tuples, for as many as fit into a batch; `None` where the
    /// four-tuple alone does not tell, or there is none. Nothing but the table of four-tuples is looked at.
    ///
    /// # Panics
    /// If there are more than [`MAX_BATCH`].
    #[must_use]
    pub fn find_connections(&self, tuples: &[FourTuple]) -> [Option<SocketId>; MAX_BATCH] {
        assert!(
            tuples.len() <= MAX_BATCH,
            "a batch has at most {MAX_BATCH} four-tuples"
        );
        let mut found = [None; MAX_BATCH];
        self.tcp_flows().find_batch(tuples, &mut found);
        found.map(|found| found.map(|(socket, generation)| SocketId::new(socket, generation)))
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Accepted, Close, Family, Host, Owner, PortChoice};

    /// Connections of both families, some of them in TIME-WAIT, listeners, sockets of UDP, and nobody: whatever a
    /// packet finds, in a batch it finds the same.
    #[test]
    fn a_batch_is_what_its_packets_are_one_by_one() {
        let mut host = Host::new();
        let device = Device::new(1).unwrap();
        for address in ["10.8.0.1", "fd08::1"] {
            host.add_address(device, address.parse().unwrap(), Some(24));
        }
        let mut table = PortTable::new(host, [5; 16]);
        let mut packets = Vec::new();
        for (family, local) in [(Family::Ipv4, "10.8.0.1:80"), (Family::Ipv6, "[fd08::1]:80")] {
            let local: SocketAddr = local.parse().unwrap();
            let listener = table.socket(Transport::Tcp, family, Owner::ROOT);
            table.bind(listener, local, PortChoice::Any).unwrap();
            table.listen(listener, PortChoice::Any).unwrap();
            let udp = table.socket(Transport::Udp, family, Owner::ROOT);
            table.bind(udp, local, PortChoice::Any).unwrap();
            for port in 1..=60 {
                let remote = match family {
                    Family::Ipv4 => SocketAddr::new([10, 8, 0, 9].into(), port),
                    Family::Ipv6 => SocketAddr::new("fd08::9".parse().unwrap(), port),
                };
                if port % 3 > 0 {
                    let ends = Accepted {
                        local,
                        remote,
                        device: None,
                    };
                    let id = table.accept(listener, ends).unwrap();
                    if port % 5 == 0 {
                        table.close(id, Close::TimeWait).unwrap();
                    }
                }
                for (transport, segment) in [
                    (Transport::Tcp, Segment::Other),
                    (Transport::Tcp, Segment::Syn),
                    (Transport::Tcp, Segment::Reset),
                    (Transport::Udp, Segment::Other),
                ] {
                    packets.push(Packet {
                        transport,
                        source: remote,
                        destination: local,
                        device: None,
                        segment,
                    });
                }
            }
        }
        // Ends of two families belong to nobody.
        packets[7].destination = packets[packets.len() - 1].destination;
        let mut expected = packets.iter().enumerate();
        for len in [packets.len(), 1, MAX_BATCH, MAX_BATCH + 1] {
            table.deliver_batch(&packets[..len], |place, delivery| {
                assert_eq!(delivery, table.deliver(&packets[place]));
                let (next, _) = expected.next().unwrap();
                assert_eq!(next, place);
            });
            expected = packets.iter().enumerate();
        }
    }
}
