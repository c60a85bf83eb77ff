//! A packet comes.

use std::net::SocketAddr;

use portolan_core::demux::{self, Delivery, FourTuple, Reason, Reply as Answering};
use portolan_core::filter::Hook;
use portolan_core::wire::{IpPacket, IpProtocol, SeqNum, TcpFlags, TcpSegment};

use super::time_wait::Verdict;
use super::waiting::WaitId;
use super::{ConnectionId, Holder, ListenerId, Stack};
use crate::packet::PacketChecksum;
use crate::tcp::{Cx, Reply, Reset, Segment};
use crate::{Instant, Packet};

/// The ECN field of a packet that a router marked (RFC 3168, section 5).
pub(super) const CONGESTION_EXPERIENCED: u8 = 3;

impl Stack {
    pub(super) fn take_packet(&mut self, now: Instant, packet: Packet<'_>) {
        self.counters.packets_in += 1;
        let Ok(ip) = IpPacket::parse(packet.bytes) else {
            self.counters.malformed += 1;
            return;
        };
        if let IpPacket::V4(header) = &ip
            && !header.has_valid_checksum()
        {
            self.counters.bad_checksums += 1;
            return;
        }
        if ip.is_fragment() {
            self.take_fragment(now, packet.bytes, &ip);
        } else {
            self.take_whole(now, packet, &ip);
        }
    }

    /// Takes a packet that is no fragment, or was put together.
    pub(super) fn take_whole(&mut self, now: Instant, packet: Packet<'_>, ip: &IpPacket<'_>) {
        match (ip.protocol(), ip) {
            (IpProtocol::TCP, _) => self.take_tcp(now, packet, ip),
            (IpProtocol::UDP, _) => self.take_udp(now, packet, ip),
            (IpProtocol::ICMP, IpPacket::V4(_)) | (IpProtocol::ICMPV6, IpPacket::V6(_)) => {
                self.take_icmp(now, packet, ip);
            }
            _ => {
                self.counters.other_protocols += 1;
                self.answer_unknown_protocol(now, packet.bytes, ip);
            }
        }
    }

    fn take_tcp(&mut self, now: Instant, packet: Packet<'_>, ip: &IpPacket<'_>) {
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
        let ecn = match ip {
            IpPacket::V4(header) => header.ecn(),
            IpPacket::V6(header) => header.ecn(),
        };
        let segment = Segment::new(&view, ecn == CONGESTION_EXPERIENCED, piece_len);
        let segment = match ip {
            IpPacket::V4(_) => segment,
            IpPacket::V6(_) => segment.over_ipv6(),
        };
        self.deliver(now, &tuple, &segment, None);
    }

    /// Brings a segment to its socket, and says which if it is a connection. `iss` is what a connection that it
    /// opens must begin with.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        segment: &Segment<'_>,
        iss: Option<SeqNum>,
    ) -> Option<ConnectionId> {
        let kind = if segment.has(TcpFlags::RST) {
            demux::Segment::Reset
        } else if segment.has(TcpFlags::SYN) && !segment.has(TcpFlags::ACK) {
            demux::Segment::Syn
        } else {
            demux::Segment::Other
        };
        let delivery = self.table.deliver_tcp(tuple, None, kind);
        if let Delivery::Socket { to, .. } = &delivery
            && let Holder::Connection(id) = *self.holder(to.place())
        {
            self.deliver_to_connection(now, id, segment);
            return Some(id);
        }
        // To the table the four-tuple is free.
        let waiting = self.waiting.find(&self.table, tuple);
        if self.filtering.is_on()
            && !self.admits_unconnected(now, tuple, segment, &delivery, waiting.is_some())
        {
            return None;
        }
        if let Some(waiting) = waiting {
            self.in_time_wait(now, waiting, tuple, segment);
            return None;
        }
        match delivery {
            Delivery::Socket { to, .. } => match *self.holder(to.place()) {
                Holder::Listener(id) => self.deliver_to_listener(now, id, tuple, segment, iss),
                Holder::Connection(_) => debug_assert!(false, "it has the segment"),
                Holder::Udp(_) => debug_assert!(false, "a UDP socket gets no segments"),
                Holder::Nobody => debug_assert!(false, "every socket of the table has a holder"),
            },
            Delivery::Sockets { .. } => debug_assert!(false, "TCP is for one socket"),
            Delivery::Nobody { .. }
                if kind == demux::Segment::Reset
                    && !self.held.is_empty()
                    && self.held.reset(tuple, segment.seq) =>
            {
                self.notice_syns();
            }
            Delivery::Nobody { reply, because } => {
                if let Some(index) = self.syn_queue.find(tuple) {
                    self.deliver_to_half_open(now, index, segment);
                    return None;
                }
                if self.take_cookie(now, tuple, segment) {
                    return None;
                }
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
        None
    }

    pub(super) fn deliver_to_connection(&mut self, now: Instant, id: ConnectionId, segment: &Segment<'_>) {
        let Some(entry) = self.connections.get_mut(id) else {
            return;
        };
        entry.tally.came(segment.payload.len(), segment.piece_len);
        let entry = if self.filtering.knows(entry.judged, Hook::Input) {
            entry
        } else if self.admits_connected(now, id, segment)
            && let Some(entry) = self.connections.get_mut(id)
        {
            entry
        } else {
            return;
        };
        let pool = &mut self.pool;
        let connection = entry.wake(&mut self.spares);
        let reply = connection.with_config(&self.config.tcp, |connection, config| {
            connection.arrive(&mut Cx { now, config, pool }, segment)
        });
        let answered = (!matches!(reply, Reply::None)).then_some(entry.tuple);
        let rest = entry.follow_up(id, &mut self.ready, &mut self.wheel, &mut self.notices);
        self.settle_rest(now, id, rest);
        if let Some(tuple) = answered {
            self.answer(&tuple, reply);
        }
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
        if let Some(index) = self.syn_queue.find(tuple) {
            self.deliver_to_half_open(now, index, segment);
            return;
        }
        let holds_syns = self.listeners.get(id).is_some_and(|listener| listener.holds_syns);
        if holds_syns && !segment.has(TcpFlags::FIN) {
            self.hold_syn(now, id, tuple, segment, iss);
        } else {
            self.take_syn(now, id, tuple, segment, iss);
        }
    }

    fn in_time_wait(&mut self, now: Instant, id: WaitId, tuple: &FourTuple, segment: &Segment<'_>) {
        let Some((waiting, _)) = self.waiting.get(&self.table, id) else {
            return;
        };
        let verdict = waiting.arrive(segment);
        if matches!(verdict, Verdict::Ignore | Verdict::Acknowledge(_))
            && segment.has(TcpFlags::ACK)
            && !segment.has(TcpFlags::RST)
        {
            self.restart_wait(now, id, tuple);
        }
        match verdict {
            Verdict::Ignore => {}
            Verdict::Acknowledge(outgoing) => self.push_answer(tuple, outgoing),
            Verdict::End => self.end_wait(id),
            Verdict::Reopen => {
                if self.listener_for(tuple).is_none() {
                    if let Verdict::Acknowledge(outgoing) = waiting.acknowledge() {
                        self.push_answer(tuple, outgoing);
                    }
                    return;
                }
                // RFC 6191, section 2: the new numbers lie beyond the old; Linux adds the largest unscaled window.
                let iss = waiting.snd_nxt + (65_535 + 2);
                self.end_wait(id);
                self.deliver(now, tuple, segment, Some(iss));
            }
        }
    }

    pub(super) fn answer(&mut self, tuple: &FourTuple, reply: Reply) {
        match reply {
            Reply::None => {}
            Reply::Reset(reset) => self.push_answer(tuple, reset.outgoing()),
            Reply::Acknowledgment(outgoing) => self.push_answer(tuple, outgoing),
        }
    }
}
