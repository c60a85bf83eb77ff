//! A packet comes.

use std::net::SocketAddr;

use portolan_core::demux::{self, Delivery, FourTuple, Reason, Reply as Answering};
use portolan_core::table::{Accepted, Close, SocketId, Transport};
use portolan_core::wire::{IpPacket, IpProtocol, SeqNum, TcpFlags, TcpSegment};

use super::time_wait::Verdict;
use super::{ConnectionId, Holder, ListenerId, Stack};
use crate::packet::PacketChecksum;
use crate::tcp::{CloseReason, Connection, Cx, Reply, Reset, Segment};
use crate::{Instant, Packet};

/// The ECN field of a packet that a router marked (RFC 3168, section 5).
const CONGESTION_EXPERIENCED: u8 = 3;

impl Stack {
    pub(super) fn take_packet(&mut self, now: Instant, packet: Packet<'_>) {
        self.counters.packets_in += 1;
        let Ok(ip) = IpPacket::parse(packet.bytes) else {
            self.counters.malformed += 1;
            return;
        };
        let ecn = match &ip {
            IpPacket::V4(header) => {
                if !header.has_valid_checksum() {
                    self.counters.bad_checksums += 1;
                    return;
                }
                header.ecn()
            }
            IpPacket::V6(header) => header.ecn(),
        };
        if ip.is_fragment() {
            self.counters.fragments += 1;
            return;
        }
        match (ip.protocol(), &ip) {
            (IpProtocol::TCP, _) => self.take_tcp(now, packet, &ip, ecn == CONGESTION_EXPERIENCED),
            (IpProtocol::UDP, _) => self.take_udp(now, packet, &ip),
            (IpProtocol::ICMP, IpPacket::V4(_)) | (IpProtocol::ICMPV6, IpPacket::V6(_)) => {
                self.take_icmp(packet, &ip);
            }
            _ => self.counters.other_protocols += 1,
        }
    }

    fn take_tcp(&mut self, now: Instant, packet: Packet<'_>, ip: &IpPacket<'_>, is_marked: bool) {
        let Ok(view) = TcpSegment::parse(ip.payload()) else {
            self.counters.malformed += 1;
            return;
        };
        let checked = match packet.offload.checksum {
            PacketChecksum::Complete => view.has_valid_checksum(ip.pseudo_header()),
            PacketChecksum::Verified | PacketChecksum::Partial => true,
        };
        if !checked {
            self.counters.bad_checksums += 1;
            return;
        }
        let source = SocketAddr::new(ip.source(), view.source_port().get());
        let destination = SocketAddr::new(ip.destination(), view.destination_port().get());
        let Some(tuple) = FourTuple::new(destination, source) else {
            self.counters.malformed += 1;
            return;
        };
        let piece_len = packet.offload.piece_len.map(|len| usize::from(len.get()));
        let segment = Segment::new(&view, is_marked, piece_len);
        self.deliver(now, &tuple, &segment, None);
    }

    /// Brings a segment to its socket. `iss` is what a connection that it opens must begin with.
    fn deliver(&mut self, now: Instant, tuple: &FourTuple, segment: &Segment<'_>, iss: Option<SeqNum>) {
        let kind = if segment.has(TcpFlags::RST) {
            demux::Segment::Reset
        } else if segment.has(TcpFlags::SYN) && !segment.has(TcpFlags::ACK) {
            demux::Segment::Syn
        } else {
            demux::Segment::Other
        };
        let delivery = self.table.deliver(&demux::Packet {
            transport: Transport::Tcp,
            source: tuple.remote(),
            destination: tuple.local(),
            device: None,
            segment: kind,
        });
        match delivery {
            Delivery::Socket { to, .. } => match *self.holder(to.place()) {
                Holder::Connection(id) => self.deliver_to_connection(now, id, segment),
                Holder::Listener(id) => self.deliver_to_listener(now, id, tuple, segment, iss),
                Holder::TimeWait(ref waiting) => {
                    let verdict = waiting.arrive(segment);
                    self.in_time_wait(now, to, tuple, segment, verdict);
                }
                Holder::Udp(_) => debug_assert!(false, "a UDP socket gets no segments"),
                Holder::Nobody => debug_assert!(false, "every socket of the table has a holder"),
            },
            Delivery::Sockets { .. } => debug_assert!(false, "TCP is for one socket"),
            Delivery::Nobody { reply, because } => {
                if matches!(because, Reason::NotForThisHost | Reason::NotUnicast) {
                    self.counters.not_for_this_host += 1;
                } else {
                    self.counters.no_socket += 1;
                }
                if reply == Answering::Reset {
                    self.answer(tuple, Reset::answering(segment));
                }
            }
        }
    }

    fn deliver_to_connection(&mut self, now: Instant, id: ConnectionId, segment: &Segment<'_>) {
        let Some(entry) = self.connections.get(id) else {
            return;
        };
        let tuple = entry.tuple;
        if entry.half_open && !segment.has(TcpFlags::SYN | TcpFlags::RST) {
            match entry.listener.and_then(|listener| self.listeners.get(listener)) {
                Some(listener) if !listener.takes_established() => {
                    // As Linux does: the peer sends again, and then there may be room.
                    self.counters.accepts_dropped += 1;
                    return;
                }
                Some(_) => {}
                None => {
                    self.with_connection(now, id, |connection, cx| connection.end(cx, CloseReason::Reset));
                    self.answer(&tuple, Reset::answering(segment));
                    return;
                }
            }
        }
        let reply = self.with_connection(now, id, |connection, cx| connection.arrive(cx, segment));
        self.answer(&tuple, reply.unwrap_or(Reply::None));
    }

    /// RFC 9293, section 3.10.7.2; Linux drops what is no clean SYN.
    fn deliver_to_listener(
        &mut self,
        now: Instant,
        id: ListenerId,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        iss: Option<SeqNum>,
    ) {
        let Some(listener) = self.listeners.get_mut(id) else {
            return;
        };
        if segment.has(TcpFlags::FIN) || !listener.takes_syn() {
            self.counters.syns_dropped += 1;
            return;
        }
        let ends = Accepted {
            local: tuple.local(),
            remote: tuple.remote(),
            device: None,
        };
        let Ok(socket) = self.table.accept(listener.socket, ends) else {
            self.counters.syns_dropped += 1;
            return;
        };
        listener.on_half_open();
        let mut opening = self.opening(tuple, now);
        opening.iss = iss.unwrap_or(opening.iss);
        let cx = Cx {
            now,
            config: &self.config.tcp,
            pool: &mut self.pool,
        };
        let connection = Connection::accept(&cx, opening, segment);
        let id = self.insert(socket, *tuple, connection, Some(id));
        self.settle(now, id);
    }

    fn in_time_wait(
        &mut self,
        now: Instant,
        socket: SocketId,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        verdict: Verdict,
    ) {
        match verdict {
            Verdict::Ignore => {}
            Verdict::Acknowledge(outgoing) => self.push_answer(tuple, outgoing),
            Verdict::End => self.give_up(socket, Close::Gone),
            Verdict::Reopen => {
                let Holder::TimeWait(waiting) = self.holder(socket.place()) else {
                    return;
                };
                if !self.is_listened_to(tuple) {
                    if let Verdict::Acknowledge(outgoing) = waiting.acknowledge() {
                        self.push_answer(tuple, outgoing);
                    }
                    return;
                }
                // RFC 6191, section 2: the new numbers lie beyond the old; Linux adds the largest unscaled window.
                let iss = waiting.snd_nxt + (65_535 + 2);
                self.give_up(socket, Close::Gone);
                self.deliver(now, tuple, segment, Some(iss));
            }
        }
    }

    /// Whether a SYN from elsewhere to this end would find a listener.
    fn is_listened_to(&self, tuple: &FourTuple) -> bool {
        // Port 0 of the remote: nobody can be connected to it under this tuple.
        let stranger = SocketAddr::new(tuple.remote().ip(), 0);
        let delivery = self.table.deliver(&demux::Packet {
            transport: Transport::Tcp,
            source: stranger,
            destination: tuple.local(),
            device: None,
            segment: demux::Segment::Syn,
        });
        matches!(delivery, Delivery::Socket { to, .. } if matches!(self.holder(to.place()), Holder::Listener(_)))
    }

    fn answer(&mut self, tuple: &FourTuple, reply: Reply) {
        match reply {
            Reply::None => {}
            Reply::Reset(reset) => self.push_answer(tuple, reset.outgoing()),
        }
    }
}
