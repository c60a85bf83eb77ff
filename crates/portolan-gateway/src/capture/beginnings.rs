//! Which packets begin a flow.

use std::collections::HashMap;
use std::net::SocketAddr;

use portolan_capture::Direction;
use portolan_core::wire::{IpPacket, IpProtocol, TcpFlags, TcpSegment, UdpDatagram};

use crate::flows::FlowProtocol;

/// A flow that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Beginning {
    pub(super) protocol: FlowProtocol,
    pub(super) inside: SocketAddr,
    pub(super) outside: SocketAddr,
}

/// The flows that have begun, with what tells a new one between the same ends from a packet that came again: of TCP the
/// initial sequence number.
#[derive(Debug, Default)]
pub(super) struct Beginnings(HashMap<Beginning, u32>);

/// So many flows are remembered, in some 6 MiB; then all of them are forgotten, and what goes on of them begins again.
const MAX: usize = 65_536;

impl Beginnings {
    /// The flow that begins with this packet.
    pub(super) fn look(&mut self, direction: Direction, packet: &[u8]) -> Option<Beginning> {
        let ip = IpPacket::parse(packet).ok()?;
        // A flow begins with a packet that has a header.
        if ip.fragment_offset() > 0 {
            return None;
        }
        let (protocol, ports, number) = match ip.protocol() {
            IpProtocol::TCP => {
                let segment = TcpSegment::parse(ip.payload()).ok()?;
                let flags = segment.flags();
                if !flags.contains(TcpFlags::SYN) || flags.contains(TcpFlags::ACK) {
                    return None;
                }
                let ports = (segment.source_port(), segment.destination_port());
                (FlowProtocol::Tcp, ports, segment.seq().get())
            }
            IpProtocol::UDP => {
                // The rest of a datagram that is cut is in fragments to come.
                let datagram = UdpDatagram::parse_truncated(ip.payload()).ok()?;
                let ports = (datagram.source_port(), datagram.destination_port());
                (FlowProtocol::Udp, ports, 0)
            }
            _ => return None,
        };
        let source = SocketAddr::new(ip.source(), ports.0.get());
        let destination = SocketAddr::new(ip.destination(), ports.1.get());
        let (inside, outside) = match direction {
            Direction::Out => (source, destination),
            Direction::In => (destination, source),
        };
        let beginning = Beginning {
            protocol,
            inside,
            outside,
        };
        if self.0.get(&beginning) == Some(&number) {
            return None;
        }
        if self.0.len() >= MAX {
            self.0.clear();
        }
        self.0.insert(beginning, number);
        Some(beginning)
    }
}
