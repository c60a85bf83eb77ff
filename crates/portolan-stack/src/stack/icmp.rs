//! ICMP and ICMPv6: echo, and the errors that this host sends.

use std::net::{IpAddr, SocketAddr};

use portolan_core::demux::FourTuple;
use portolan_core::table::AddressKind;
use portolan_core::wire::{
    ChecksumFill, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpPacket, IpProtocol,
};

use super::Stack;
use super::output::ip_header_len;
use crate::{Instant, Offload, Packet, Transmit};

/// RFC 1812, section 4.3.2.3, and RFC 4443, section 3.1: an error quotes as much as fits into these.
const LONGEST_ERROR_V4: usize = 576;
const LONGEST_ERROR_V6: usize = 1280;
/// ICMP 3/3 and ICMPv6 1/4.
const PORT_UNREACHABLE_V4: u8 = 3;
const PORT_UNREACHABLE_V6: u8 = 4;

impl Stack {
    /// An ICMP packet comes. Echo requests to an address of this host are answered; all else is counted.
    pub(super) fn take_icmp(&mut self, packet: Packet<'_>, ip: &IpPacket<'_>) {
        if self.table.host().kind(ip.destination()) != AddressKind::Local {
            self.counters.not_for_this_host += 1;
            return;
        }
        let Some(reply) = self.echo_reply(packet, ip) else {
            return;
        };
        let ends = (
            SocketAddr::new(ip.destination(), 0),
            SocketAddr::new(ip.source(), 0),
        );
        if let Some(tuple) = FourTuple::new(ends.0, ends.1) {
            self.push_control(tuple, reply, &ip.payload()[Icmpv4Packet::HEADER_LEN..]);
        }
    }

    /// The header of the answer to an echo request.
    fn echo_reply(&mut self, packet: Packet<'_>, ip: &IpPacket<'_>) -> Option<Control> {
        let is_unchecked = packet.offload.checksum != crate::PacketChecksum::Complete;
        let (checked, control) = match ip {
            IpPacket::V4(_) => {
                let message = Icmpv4Packet::parse(ip.payload()).ok();
                let reply = message.map(|view| match view.message() {
                    Icmpv4Message::EchoRequest { identifier, sequence } => {
                        Some(Control::V4(Icmpv4Message::EchoReply { identifier, sequence }))
                    }
                    _ => None,
                });
                (message.is_some_and(|view| view.has_valid_checksum()), reply)
            }
            IpPacket::V6(header) => {
                let message = Icmpv6Packet::parse(ip.payload()).ok();
                let reply = message.map(|view| match view.message() {
                    Icmpv6Message::EchoRequest { identifier, sequence } => {
                        Some(Control::V6(Icmpv6Message::EchoReply { identifier, sequence }))
                    }
                    _ => None,
                });
                let pseudo = header.pseudo_header();
                (message.is_some_and(|view| view.has_valid_checksum(pseudo)), reply)
            }
        };
        match control {
            None => self.counters.malformed += 1,
            Some(_) if !checked && !is_unchecked => self.counters.bad_checksums += 1,
            Some(None) => self.counters.other_protocols += 1,
            Some(reply @ Some(_)) => return reply,
        }
        None
    }

    /// Tells the sender of a datagram that nobody has the port (RFC 1122, section 4.1.3.1).
    pub(super) fn answer_port_unreachable(&mut self, now: Instant, quoted: &[u8], ip: &IpPacket<'_>) {
        let (control, longest) = match ip {
            IpPacket::V4(_) => {
                let message = Icmpv4Message::DestinationUnreachable {
                    code: PORT_UNREACHABLE_V4,
                    next_hop_mtu: 0,
                };
                (Control::V4(message), LONGEST_ERROR_V4)
            }
            IpPacket::V6(_) => {
                let message = Icmpv6Message::DestinationUnreachable {
                    code: PORT_UNREACHABLE_V6,
                };
                (Control::V6(message), LONGEST_ERROR_V6)
            }
        };
        // RFC 1122, section 3.2.2: no error goes to many hosts, or to nobody in particular.
        let answers = match self.table.host().kind(ip.source()) {
            AddressKind::Local | AddressKind::Foreign => true,
            AddressKind::Wildcard | AddressKind::Broadcast | AddressKind::Multicast => false,
        };
        if !answers || !self.icmp_limit.allows(now, ip.source()) {
            self.counters.answers_dropped += 1;
            return;
        }
        let ends = (
            SocketAddr::new(ip.destination(), 0),
            SocketAddr::new(ip.source(), 0),
        );
        if let Some(tuple) = FourTuple::new(ends.0, ends.1) {
            let whole = ip.header_len() + ip.payload().len();
            let room = longest - ip_header_len(&tuple) - Icmpv4Packet::HEADER_LEN;
            let len = quoted.len().min(whole).min(room);
            self.push_control(tuple, control, &quoted[..len]);
        }
    }

    fn push_control(&mut self, tuple: FourTuple, control: Control, bytes: &[u8]) {
        let fits = ip_header_len(&tuple) + Icmpv4Packet::HEADER_LEN + bytes.len() <= self.config.mtu;
        if !fits || !self.control.push(&mut self.pool, (tuple, control), bytes) {
            self.counters.answers_dropped += 1;
        }
    }

    /// Writes the next ICMP packet.
    pub(super) fn transmit_control(&mut self, buffer: &mut [u8]) -> Option<Transmit> {
        let (&(tuple, control), payload_len) = self.control.first()?;
        let ip_len = ip_header_len(&tuple);
        let transport_len = Icmpv4Packet::HEADER_LEN + payload_len;
        let len = ip_len + transport_len;
        let (ip, transport) = buffer[..len].split_at_mut(ip_len);
        self.control
            .copy_first(&mut transport[Icmpv4Packet::HEADER_LEN..]);
        self.control.pop(&mut self.pool);
        let protocol = match control {
            Control::V4(message) => {
                let written = message.emit(transport);
                debug_assert!(written.is_ok(), "the buffer was cut to header and data");
                IpProtocol::ICMP
            }
            Control::V6(message) => {
                let fill = pseudo_header(&tuple).map_or(ChecksumFill::Zero, ChecksumFill::Complete);
                let written = message.emit(transport, fill);
                debug_assert!(written.is_ok(), "the buffer was cut to header and data");
                IpProtocol::ICMPV6
            }
        };
        self.emit_ip(&tuple, protocol, 0, transport_len, ip);
        Some(Transmit {
            len,
            offload: Offload::default(),
        })
    }
}

/// The header of an ICMP packet to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Control {
    V4(Icmpv4Message),
    V6(Icmpv6Message),
}

fn pseudo_header(tuple: &FourTuple) -> Option<portolan_core::wire::PseudoHeader> {
    let (source, destination): (IpAddr, IpAddr) = (tuple.local().ip(), tuple.remote().ip());
    portolan_core::wire::PseudoHeader::new(source, destination)
}
