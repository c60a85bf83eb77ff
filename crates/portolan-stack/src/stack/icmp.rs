//! ICMP and ICMPv6: echo, and the errors that this host sends. Those that it gets are in `icmp_error`.

use std::net::{IpAddr, SocketAddr};

use portolan_core::demux::FourTuple;
use portolan_core::filter::ConnectionState;
use portolan_core::table::AddressKind;
use portolan_core::wire::{
    ChecksumFill, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpPacket, IpProtocol, Ipv6Packet,
    UnreachableCode,
};

use super::cut::{Cut, checksum_of};
use super::icmp_error::PathNews;
use super::output::{IpFields, ip_header_len};
use super::quote::quote_packet;
use super::{HeaderFields, Stack};
use crate::{Instant, Offload, Packet, PacketChecksum, Transmit};

/// RFC 1812, section 4.3.2.3, and RFC 4443, section 3.1: an error quotes as much as fits into these.
const LONGEST_ERROR_V4: usize = 576;
const LONGEST_ERROR_V6: usize = 1280;
/// ICMP 3/4.
const FRAGMENTATION_NEEDED: u8 = 4;
/// ICMP 3/2.
const PROTOCOL_UNREACHABLE: u8 = 2;
/// ICMPv6 4/1, and where the fixed header names what follows.
const UNKNOWN_NEXT_HEADER: u8 = 1;
const NEXT_HEADER_AT: usize = 6;

impl Stack {
    /// An ICMP packet comes. Echo requests to an address of this host are answered, those to another are the program's if
    /// it takes them, errors find their socket; all else is counted.
    pub(super) fn take_icmp(&mut self, now: Instant, packet: Packet<'_>, ip: &IpPacket<'_>) {
        let is_own = match self.table.host().kind(ip.destination()) {
            AddressKind::Local => true,
            // Somebody else's address, but a program may stand in for it.
            AddressKind::Foreign => false,
            AddressKind::Wildcard | AddressKind::Broadcast | AddressKind::Multicast => {
                self.counters.not_for_this_host += 1;
                return;
            }
        };
        let Some(message) = self.checked_icmp(packet, ip) else {
            return;
        };
        let news = PathNews::read(ip);
        if !is_own && !self.takes_echo(&message) && !news.as_ref().is_some_and(|news| self.is_about_us(news))
        {
            self.counters.not_for_this_host += 1;
            return;
        }
        if self.filtering.is_on() && !self.admits_icmp(now, &message, news.as_ref(), packet, ip) {
            return;
        }
        if !is_own && message.is_echo_request() {
            self.keep_echo_request(&message, ip);
            return;
        }
        let Some(reply) = message.echo_reply() else {
            match (news, self.asker(&message, ip)) {
                (Some(news), _) => self.take_path_news(now, &news),
                (None, Some((id, sequence))) => self.take_echo_reply(id, sequence, ip),
                (None, None) => self.counters.other_protocols += 1,
            }
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

    /// What an ICMP packet says, if its checksum is right.
    fn checked_icmp(&mut self, packet: Packet<'_>, ip: &IpPacket<'_>) -> Option<Control> {
        let parsed = match ip {
            IpPacket::V4(_) => Icmpv4Packet::parse(ip.payload())
                .map(|view| (Control::V4(view.message()), view.has_valid_checksum())),
            IpPacket::V6(header) => Icmpv6Packet::parse(ip.payload()).map(|view| {
                let pseudo = header.pseudo_header();
                (Control::V6(view.message()), view.has_valid_checksum(pseudo))
            }),
        };
        let is_unchecked = packet.offload.checksum != PacketChecksum::Complete;
        match parsed {
            Err(_) => self.counters.malformed += 1,
            Ok((_, checked)) if !checked && !is_unchecked => self.counters.bad_checksums += 1,
            Ok((message, _)) => return Some(message),
        }
        None
    }

    /// Tells the sender of a datagram that nobody has the port (RFC 1122, section 4.1.3.1).
    pub(super) fn answer_port_unreachable(&mut self, now: Instant, quoted: &[u8], ip: &IpPacket<'_>) {
        self.answer_unreachable(now, UnreachableCode::Port, quoted, ip);
    }

    /// Tells the sender of a packet why it is not taken.
    pub(super) fn answer_unreachable(
        &mut self,
        now: Instant,
        why: UnreachableCode,
        quoted: &[u8],
        ip: &IpPacket<'_>,
    ) {
        let control = Control::unreachable(why, ip.source().is_ipv4());
        self.answer_error(now, control, quoted, ip);
    }

    /// Tells the sender of a packet that this host does not speak its protocol (RFC 1122, section 3.2.2.1; RFC 8200,
    /// section 4).
    pub(super) fn answer_unknown_protocol(&mut self, now: Instant, quoted: &[u8], ip: &IpPacket<'_>) {
        if self.table.host().kind(ip.destination()) != AddressKind::Local {
            return;
        }
        let control = match ip {
            IpPacket::V4(_) => Control::V4(Icmpv4Message::DestinationUnreachable {
                code: PROTOCOL_UNREACHABLE,
                next_hop_mtu: 0,
            }),
            // "No next header" is no protocol, and nothing follows it.
            IpPacket::V6(packet) if packet.protocol() == IpProtocol::NO_NEXT_HEADER => return,
            IpPacket::V6(packet) => {
                let last = packet.extensions().flatten().last();
                let named_at = last.map_or(NEXT_HEADER_AT, |last| Ipv6Packet::HEADER_LEN + last.offset());
                Control::V6(Icmpv6Message::ParameterProblem {
                    code: UNKNOWN_NEXT_HEADER,
                    pointer: named_at as u32,
                })
            }
        };
        self.answer_error(now, control, quoted, ip);
    }

    /// Answers a packet with an ICMP error that quotes it, from the address that it was sent to, if the rules allow it
    /// (RFC 1122, section 3.2.2; RFC 4443, section 2.4) and not too many were sent.
    pub(super) fn answer_error(&mut self, now: Instant, control: Control, quoted: &[u8], ip: &IpPacket<'_>) {
        let to_one = |address| match self.table.host().kind(address) {
            AddressKind::Local | AddressKind::Foreign => true,
            AddressKind::Wildcard | AddressKind::Broadcast | AddressKind::Multicast => false,
        };
        let is_answered = to_one(ip.source())
            && to_one(ip.destination())
            && (ip.fragment_offset() == 0 || ip.source().is_ipv6())
            && PathNews::is_answered(ip);
        if !is_answered || !self.icmp_limit.allows(now, ip.source()) {
            self.counters.answers_dropped += 1;
            return;
        }
        let ends = (
            SocketAddr::new(ip.destination(), 0),
            SocketAddr::new(ip.source(), 0),
        );
        if let Some(tuple) = FourTuple::new(ends.0, ends.1) {
            let longest = match control {
                Control::V4(_) => LONGEST_ERROR_V4,
                Control::V6(_) => LONGEST_ERROR_V6,
            };
            let whole = ip.header_len() + ip.payload().len();
            let room = longest - ip_header_len(&tuple) - Icmpv4Packet::HEADER_LEN;
            let len = quoted.len().min(whole).min(room);
            self.push_control(tuple, control, &quoted[..len]);
        }
    }

    /// Tells the peer of `tuple` why the packet that is quoted is not taken.
    pub(super) fn push_unreachable(&mut self, tuple: &FourTuple, why: UnreachableCode, quoted: &[u8]) {
        let control = Control::unreachable(why, tuple.local().is_ipv4());
        self.push_control(*tuple, control, quoted);
    }

    /// Answers a packet by the program's own word: the limits of other ICMP errors do not apply. Says whether there was
    /// room for the answer.
    pub(super) fn reject(&mut self, packet: &Rejected<'_>, why: IcmpError) -> bool {
        let Rejected {
            tuple,
            protocol,
            header,
            data_len,
            start,
        } = *packet;
        let is_v4 = tuple.local().is_ipv4();
        let longest = if is_v4 { LONGEST_ERROR_V4 } else { LONGEST_ERROR_V6 };
        let room = longest - ip_header_len(&tuple) - Icmpv4Packet::HEADER_LEN;
        let mut quoted = [0; LONGEST_ERROR_V6];
        let len = quote_packet(&tuple, protocol, &header, data_len, start, &mut quoted[..room]);
        let answer = why.teller(&tuple).unwrap_or(tuple);
        self.queue_control(
            answer,
            why.control(is_v4),
            HeaderFields::default(),
            &quoted[..len],
        )
    }

    fn push_control(&mut self, tuple: FourTuple, control: Control, bytes: &[u8]) {
        if !self.queue_control(tuple, control, HeaderFields::default(), bytes) {
            self.counters.answers_dropped += 1;
        }
    }

    /// Queues an ICMP packet; `false` if there is no room for it. One that the filter drops is gone.
    pub(super) fn queue_control(
        &mut self,
        tuple: FourTuple,
        control: Control,
        fields: HeaderFields,
        bytes: &[u8],
    ) -> bool {
        if self.filtering.is_on() && !self.lets_answer_out(control.protocol(), &tuple, control.state()) {
            return true;
        }
        let answer = ToAnswer {
            tuple,
            control,
            fields,
        };
        self.control.push(&mut self.pool, answer, bytes)
    }

    /// Writes the next ICMP packet.
    pub(super) fn transmit_control(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        let (&answer, data_len) = self.control.first()?;
        let ToAnswer {
            tuple,
            control,
            fields,
        } = answer;
        let is_request = control.is_echo_request();
        let fields = IpFields {
            hop_limit: fields.hop_limit,
            dscp: fields.traffic_class >> 2,
            // As Linux: routers may cut what answers, so that nobody has to tell how long it may be.
            dont_fragment: is_request,
            ..IpFields::new(control.protocol(), fields.traffic_class & 3)
        };
        let longest = if is_request {
            self.path_mtu(now, &tuple)
        } else {
            self.config.mtu
        };
        let ip_len = ip_header_len(&tuple);
        let transport_len = Icmpv4Packet::HEADER_LEN + data_len;
        let (len, is_last) = if self.control_cut.is_none() && ip_len + transport_len <= longest {
            let (ip, transport) = buffer[..ip_len + transport_len].split_at_mut(ip_len);
            self.control
                .copy_first(&mut transport[Icmpv4Packet::HEADER_LEN..]);
            control.emit(&tuple, transport);
            self.emit_ip(now, &tuple, fields, transport_len, ip);
            (ip_len + transport_len, true)
        } else {
            let mut cut = match self.control_cut {
                Some(cut) => cut,
                None => {
                    let identification = self.next_fragment_id(&tuple);
                    let copy = |offset, out: &mut [u8]| self.control.copy_part(offset, out);
                    Cut::new(control.header(&tuple, data_len, copy), identification, longest)
                }
            };
            let copy = |offset, out: &mut [u8]| self.control.copy_part(offset, out);
            let written = cut.write_next(&tuple, fields, data_len, copy, buffer);
            self.control_cut = Some(cut);
            self.counters.fragments_out += 1;
            written
        };
        if is_last {
            self.control_cut = None;
            self.control.pop(&mut self.pool);
        }
        Some(Transmit {
            len,
            offload: Offload::default(),
        })
    }
}

/// What the sender of a packet is told by ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IcmpError {
    /// It cannot be delivered. Linux tells a connected UDP socket at once of a port and of what is prohibited
    /// (`ECONNREFUSED`; `EHOSTUNREACH` for IPv4, `EACCES` for IPv6), and of the others one that asks for errors.
    Unreachable(UnreachableCode),
    /// It is longer than the path takes: its sender should send no more than `mtu` bytes (`EMSGSIZE`).
    TooBig {
        /// The longest packet that the path takes.
        mtu: u16,
    },
    /// It passed too many routers.
    TimeExceeded,
    /// A host on the way said so, and is quoted with its address: that is how a traceroute finds its way.
    Relayed {
        /// That host, if it is not the destination.
        by: Option<IpAddr>,
        /// What it said.
        word: RelayedError,
    },
}

/// The ICMP error of another host, with its own code (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelayedError {
    /// *Destination unreachable*, but for packets that are too long.
    Unreachable {
        /// The code.
        code: u8,
    },
    /// The packet is longer than the path takes.
    TooBig {
        /// What it takes, in bytes with the IP header.
        mtu: u16,
    },
    /// *Time exceeded*.
    TimeExceeded {
        /// The code.
        code: u8,
    },
}

impl IcmpError {
    /// The ends of the answer, if it comes from another host than the packet was for.
    fn teller(self, tuple: &FourTuple) -> Option<FourTuple> {
        let Self::Relayed {
            by: Some(by),
            word: _,
        } = self
        else {
            return None;
        };
        let is_one = !by.is_unspecified() && !by.is_multicast() && !by.is_loopback();
        let source = SocketAddr::new(by, tuple.local().port());
        is_one.then(|| FourTuple::new(source, tuple.remote())).flatten()
    }

    const fn control(self, is_v4: bool) -> Control {
        match self {
            Self::Unreachable(why) => Control::unreachable(why, is_v4),
            Self::TooBig { mtu } => RelayedError::TooBig { mtu }.control(is_v4),
            Self::TimeExceeded => RelayedError::TimeExceeded { code: 0 }.control(is_v4),
            Self::Relayed { by: _, word } => word.control(is_v4),
        }
    }
}

impl RelayedError {
    const fn control(self, is_v4: bool) -> Control {
        if is_v4 {
            Control::V4(match self {
                Self::Unreachable { code } => Icmpv4Message::DestinationUnreachable {
                    code,
                    next_hop_mtu: 0,
                },
                Self::TooBig { mtu } => Icmpv4Message::DestinationUnreachable {
                    code: FRAGMENTATION_NEEDED,
                    next_hop_mtu: mtu,
                },
                Self::TimeExceeded { code } => Icmpv4Message::TimeExceeded { code },
            })
        } else {
            Control::V6(match self {
                Self::Unreachable { code } => Icmpv6Message::DestinationUnreachable { code },
                Self::TooBig { mtu } => Icmpv6Message::PacketTooBig { mtu: mtu as u32 },
                Self::TimeExceeded { code } => Icmpv6Message::TimeExceeded { code },
            })
        }
    }
}

/// A packet that came, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rejected<'a> {
    /// Its ends, as its destination sees them.
    pub(super) tuple: FourTuple,
    pub(super) protocol: IpProtocol,
    /// Its transport header.
    pub(super) header: [u8; 8],
    /// How many bytes of data followed it.
    pub(super) data_len: usize,
    /// The first of those.
    pub(super) start: &'a [u8],
}

/// An ICMP packet that waits to be sent: what goes before its data.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToAnswer {
    tuple: FourTuple,
    control: Control,
    fields: HeaderFields,
}

/// The header of an ICMP packet of either version.
#[derive(Clone, Copy, Debug)]
pub(super) enum Control {
    V4(Icmpv4Message),
    V6(Icmpv6Message),
}

impl Control {
    pub(super) const fn protocol(&self) -> IpProtocol {
        match self {
            Self::V4(_) => IpProtocol::ICMP,
            Self::V6(_) => IpProtocol::ICMPV6,
        }
    }

    pub(super) const fn is_echo_request(&self) -> bool {
        matches!(
            self,
            Self::V4(Icmpv4Message::EchoRequest { .. }) | Self::V6(Icmpv6Message::EchoRequest { .. })
        )
    }

    /// Writes the header before data that stands in the packet already.
    pub(super) fn emit(&self, tuple: &FourTuple, packet: &mut [u8]) {
        let written = match self {
            Self::V4(message) => message.emit(packet),
            Self::V6(message) => {
                let fill = pseudo_header(tuple).map_or(ChecksumFill::Zero, ChecksumFill::Complete);
                message.emit(packet, fill)
            }
        };
        debug_assert!(written.is_ok(), "the packet begins with room for the header");
    }

    /// The header before `data_len` bytes of data that `copy` copies from an offset.
    fn header(&self, tuple: &FourTuple, data_len: usize, copy: impl FnMut(usize, &mut [u8])) -> [u8; 8] {
        let mut header = [0; 8];
        let pseudo = match self {
            Self::V4(_) => None,
            Self::V6(_) => pseudo_header(tuple).map(|pseudo| (pseudo, IpProtocol::ICMPV6)),
        };
        self.emit(tuple, &mut header);
        header[2..4].copy_from_slice(&[0, 0]);
        let sum = checksum_of(pseudo, &header, data_len, copy);
        header[2..4].copy_from_slice(&sum.to_be_bytes());
        header
    }

    /// What such a packet is to the conversations that are known, when this host sends it.
    const fn state(&self) -> ConnectionState {
        match self {
            Self::V4(Icmpv4Message::EchoReply { .. }) | Self::V6(Icmpv6Message::EchoReply { .. }) => {
                ConnectionState::Established
            }
            Self::V4(Icmpv4Message::EchoRequest { .. }) | Self::V6(Icmpv6Message::EchoRequest { .. }) => {
                ConnectionState::New
            }
            Self::V4(_) | Self::V6(_) => ConnectionState::Related,
        }
    }

    const fn unreachable(why: UnreachableCode, is_v4: bool) -> Self {
        if is_v4 {
            Self::V4(Icmpv4Message::DestinationUnreachable {
                code: why.icmpv4(),
                next_hop_mtu: 0,
            })
        } else {
            Self::V6(Icmpv6Message::DestinationUnreachable { code: why.icmpv6() })
        }
    }

    /// The answer to an echo request.
    pub(super) const fn echo_reply(self) -> Option<Self> {
        match self {
            Self::V4(Icmpv4Message::EchoRequest { identifier, sequence }) => {
                Some(Self::V4(Icmpv4Message::EchoReply { identifier, sequence }))
            }
            Self::V6(Icmpv6Message::EchoRequest { identifier, sequence }) => {
                Some(Self::V6(Icmpv6Message::EchoReply { identifier, sequence }))
            }
            Self::V4(_) | Self::V6(_) => None,
        }
    }
}

fn pseudo_header(tuple: &FourTuple) -> Option<portolan_core::wire::PseudoHeader> {
    let (source, destination): (IpAddr, IpAddr) = (tuple.local().ip(), tuple.remote().ip());
    portolan_core::wire::PseudoHeader::new(source, destination)
}
