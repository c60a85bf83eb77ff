//! A packet goes.

use std::net::IpAddr;

use bytes::Bytes;
use portolan_core::Port;
use portolan_core::demux::FourTuple;
use portolan_core::filter::{ConnectionState, Hook};
use portolan_core::wire::{
    ChecksumFill, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, PseudoHeader, Sum, TcpRepr,
    TcpSegment,
};

use super::{ConnectionId, Stack, UdpId};
use crate::packet::PacketChecksum;
use crate::tcp::{Connection, Cx, HOP_LIMIT, Outgoing};
use crate::{Instant, Offload, Transmit};

/// Answers that may wait; more are not sent, as if the network had lost them.
const MAX_ANSWERS: usize = 1024;
/// The largest IP packet, and with it the largest super-segment.
const MAX_PACKET: usize = 65_535;
/// ECT(0) (RFC 3168, section 5).
const ECN_CAPABLE: u8 = 2;

/// What may have something to send. Each stands in the queue once: they take turns.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ready {
    Connection(ConnectionId),
    Udp(UdpId),
    /// An entry of the SYN queue, or a place where one was.
    HalfOpen(u32),
}

/// What of an IP header is not the same for all.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpFields {
    pub(super) protocol: IpProtocol,
    pub(super) dscp: u8,
    pub(super) ecn: u8,
    pub(super) hop_limit: u8,
    /// Whether IPv4 routers must not cut it.
    pub(super) dont_fragment: bool,
}

impl IpFields {
    /// Those of most packets.
    pub(super) const fn new(protocol: IpProtocol, ecn: u8) -> Self {
        Self {
            protocol,
            dscp: 0,
            ecn,
            hop_limit: HOP_LIMIT,
            dont_fragment: true,
        }
    }
}

/// A segment that belongs to no connection.
#[derive(Debug)]
pub(super) struct Answer {
    tuple: FourTuple,
    segment: Outgoing,
}

impl Stack {
    /// Writes the next packet to the front of `buffer`, if there is one to send now.
    ///
    /// The buffer must have [`Stack::max_packet_len`] bytes; into a shorter one nothing is written. Does not
    /// allocate.
    pub fn poll_transmit(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        self.transmit(now, buffer, false).map(|(transmit, _)| transmit)
    }

    /// As [`Stack::poll_transmit`], but leaves out the data of a segment that [`Stack::write_chunk`] took by
    /// reference: the packet is what was written to `buffer`, followed by the bytes that are given. They are
    /// empty for packets that were written whole.
    pub fn poll_transmit_parts(&mut self, now: Instant, buffer: &mut [u8]) -> Option<(Transmit, Bytes)> {
        self.transmit(now, buffer, true)
    }

    fn transmit(&mut self, now: Instant, buffer: &mut [u8], in_parts: bool) -> Option<(Transmit, Bytes)> {
        let buffer = buffer.get_mut(..self.max_packet_len())?;
        if let Some(Answer { tuple, segment }) = self.answers.pop_front() {
            return Some(self.emit(now, &tuple, &segment, None, buffer, in_parts));
        }
        if let Some(transmit) = self.transmit_control(now, buffer) {
            self.counters.packets_out += 1;
            return Some((transmit, Bytes::new()));
        }
        if let piece @ Some(_) = self.transmit_burst(buffer, in_parts) {
            return piece;
        }
        while let Some(ready) = self.ready.pop_front() {
            let id = match ready {
                Ready::Connection(id) => id,
                Ready::HalfOpen(index) => {
                    let Some((tuple, segment)) = self.answer_syn(now, index) else {
                        continue;
                    };
                    if self.filtering.is_on()
                        && !self.lets_answer_out(IpProtocol::TCP, &tuple, ConnectionState::Established)
                    {
                        continue;
                    }
                    return Some(self.emit(now, &tuple, &segment, None, buffer, in_parts));
                }
                Ready::Udp(id) => {
                    let Some(transmit) = self.transmit_udp(now, id, buffer) else {
                        continue;
                    };
                    self.counters.packets_out += 1;
                    return Some((transmit, Bytes::new()));
                }
            };
            self.renew_path(now, id);
            let Some(entry) = self.connections.get_mut(id) else {
                continue;
            };
            let tuple = entry.tuple;
            let largest = largest_payload(&self.config, &tuple);
            let judged = entry.judged;
            let Some(connection) = entry.awake_mut() else {
                self.rest_from_sending(now, id);
                continue;
            };
            let pool = &mut self.pool;
            let segment = connection.with_config(&self.config.tcp, |connection, config| {
                let segment = connection.poll_transmit(&Cx { now, config, pool }, largest)?;
                Some(segment.marked_by(config))
            });
            let Some(segment) = segment else {
                self.rest_from_sending(now, id);
                continue;
            };
            // A bare acknowledgment is most often all there is; after data the connection takes note of what it waits for.
            let is_done = segment.payload_len == 0 && !connection.has_work();
            let sent_at_once = segment
                .piece_len
                .map_or(segment.payload_len, |len| len.get().into());
            if !self.filtering.knows(judged, Hook::Output) && !self.lets_out(now, id) {
                // As if the network had lost it. To the back: connections take turns.
                self.ready.push_back(Ready::Connection(id));
                self.set_timer(id);
                continue;
            }
            let sent = segment.payload_len;
            let segment = self.begin_burst(id, segment);
            let written = self.emit(now, &tuple, &segment, Some(id), buffer, in_parts);
            if self.burst.is_some() {
                self.keep_template(buffer);
            }
            self.note_transmitted(now, id, (sent, sent_at_once), is_done);
            return Some(written);
        }
        None
    }

    /// A segment went, with so many bytes in pieces of so many. If the connection has more it waits for its next turn.
    fn note_transmitted(&mut self, now: Instant, id: ConnectionId, sent: (usize, usize), is_done: bool) {
        let Some(entry) = self.connections.get_mut(id) else {
            return;
        };
        entry.tally.went(sent.0, sent.1);
        let sooner = entry.awake_mut().and_then(Connection::take_sooner);
        if let (Some(deadline), Some(socket)) = (sooner, entry.socket) {
            self.wheel.arm(socket.place() as u32, deadline);
        }
        if is_done {
            entry.is_ready = false;
            self.settle_down(now, id);
        } else {
            self.ready.push_back(Ready::Connection(id));
        }
    }

    /// A connection has nothing more to send now.
    fn rest_from_sending(&mut self, now: Instant, id: ConnectionId) {
        if let Some(entry) = self.connections.get_mut(id) {
            entry.is_ready = false;
        }
        self.set_timer(id);
        self.settle_down(now, id);
    }

    /// The longest packet that [`Stack::poll_transmit`] writes.
    #[must_use]
    pub const fn max_packet_len(&self) -> usize {
        if self.config.segmentation_offload || self.config.udp_segmentation_offload {
            MAX_PACKET
        } else {
            self.config.mtu
        }
    }

    /// The data of a segment that fills a packet of the link (RFC 9293, section 3.7.1).
    pub(super) fn link_mss(&self, tuple: &FourTuple) -> u16 {
        let headers = ip_header_len(tuple) + TcpSegment::MIN_HEADER_LEN;
        // The MTU is at most 65,535 and at least 576.
        (self.config.mtu - headers) as u16
    }

    /// The data of a segment that the path takes; at most that of the link.
    pub(super) fn path_mss(&self, tuple: &FourTuple, now: Instant) -> u16 {
        let headers = ip_header_len(tuple) + TcpSegment::MIN_HEADER_LEN;
        // Between 552 and 65,535 bytes.
        (self.path_mtu(now, tuple) - headers) as u16
    }

    /// The longest packet that the path takes; at most that of the link.
    pub(super) fn path_mtu(&self, now: Instant, tuple: &FourTuple) -> usize {
        let path = self.paths.find(now, tuple.remote().ip());
        path.map_or(self.config.mtu, |path| self.config.mtu.min(path.mtu.into()))
    }

    /// What the fragments of the next datagram have in common, and no other datagram between these ends for long:
    /// a count from a place that nobody can guess (RFC 7739, section 5.3).
    pub(super) fn next_fragment_id(&mut self, tuple: &FourTuple) -> u32 {
        self.fragmented = self.fragmented.wrapping_add(1);
        self.secrets.fragment_offset(tuple).wrapping_add(self.fragmented)
    }

    /// Whether routers must cut packets, since the path takes less than the shortest that are sent.
    fn is_cut_on_the_way(&self, now: Instant, tuple: &FourTuple) -> bool {
        let path = self.paths.find(now, tuple.remote().ip());
        path.is_some_and(|path| path.is_locked)
    }

    /// Asks whether the path of a connection is still as narrow as it was told.
    fn renew_path(&mut self, now: Instant, id: ConnectionId) {
        if let Some(entry) = self.connections.get(id)
            && entry.awake().is_some_and(Connection::is_path_limited)
        {
            let path_mss = self.path_mss(&entry.tuple, now);
            self.with_connection(now, id, |connection, _| connection.set_path_mss(path_mss));
        }
    }

    pub(super) fn push_answer(&mut self, tuple: &FourTuple, segment: Outgoing) {
        if self.filtering.is_on()
            && !self.lets_answer_out(IpProtocol::TCP, tuple, ConnectionState::Established)
        {
            return;
        }
        if self.answers.len() >= MAX_ANSWERS {
            self.counters.answers_dropped += 1;
            return;
        }
        self.answers.push_back(Answer {
            tuple: *tuple,
            segment,
        });
    }

    /// Writes a segment to the front of `buffer`. In parts, its data is left out if it can be referred to.
    fn emit(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        segment: &Outgoing,
        from: Option<ConnectionId>,
        buffer: &mut [u8],
        in_parts: bool,
    ) -> (Transmit, Bytes) {
        self.counters.packets_out += 1;
        let ip_len = ip_header_len(tuple);
        let options = segment.options.as_bytes();
        let header_len = TcpSegment::MIN_HEADER_LEN + options.len();
        let payload_len = segment.payload_len;
        let len = ip_len + header_len + payload_len;
        let (ip, transport) = buffer[..len].split_at_mut(ip_len);
        let (header, payload) = transport.split_at_mut(header_len);
        let mut shared = Bytes::new();
        let mut sum = Sum::new();
        if payload_len > 0
            && let Some(connection) = from.and_then(|id| self.connections.get(id)?.awake())
        {
            if in_parts && let Some(bytes) = connection.share_payload(segment.seq, payload_len) {
                shared = bytes;
                if !self.config.checksum_offload {
                    sum = sum.add_bytes(&shared);
                }
            } else if self.config.checksum_offload {
                connection.copy_payload(segment.seq, payload);
            } else {
                sum = connection.copy_and_sum_payload(segment.seq, payload);
            }
        }
        let pseudo = tuple.pseudo_header();
        let fill = if self.config.checksum_offload {
            ChecksumFill::PartialKnown { pseudo, payload_len }
        } else {
            ChecksumFill::Known {
                pseudo,
                payload: sum,
                payload_len,
            }
        };
        let repr = TcpRepr {
            source_port: Port::new(tuple.local().port()),
            destination_port: Port::new(tuple.remote().port()),
            seq: segment.seq,
            ack: segment.ack,
            flags: segment.flags,
            window: segment.window,
            urgent_pointer: segment.urgent_pointer,
            options,
        };
        repr.emit(header, fill).expect("the buffer was cut to the header");
        let ecn = if segment.ecn_capable { ECN_CAPABLE } else { 0 };
        let fields = IpFields {
            dscp: segment.dscp,
            hop_limit: segment.hop_limit,
            ..IpFields::new(IpProtocol::TCP, ecn)
        };
        self.emit_ip(now, tuple, fields, header_len + payload_len, ip);
        let transmit = Transmit {
            len: len - shared.len(),
            offload: Offload {
                checksum: if self.config.checksum_offload {
                    PacketChecksum::Partial
                } else {
                    PacketChecksum::Complete
                },
                piece_len: segment.piece_len,
            },
        };
        (transmit, shared)
    }

    pub(super) fn emit_ip(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        fields: IpFields,
        payload_len: usize,
        buffer: &mut [u8],
    ) {
        let IpFields {
            protocol,
            dscp,
            ecn,
            hop_limit,
            dont_fragment,
        } = fields;
        let written = match tuple.pseudo_header() {
            PseudoHeader::V4 { source, destination } => {
                // RFC 6864, section 4.1: of a packet that is never fragmented the field means nothing; a
                // device that cuts a super-segment counts from it.
                self.identification = self.identification.wrapping_add(1);
                Ipv4Repr {
                    dscp,
                    ecn,
                    identification: self.identification,
                    dont_fragment: dont_fragment && !self.is_cut_on_the_way(now, tuple),
                    more_fragments: false,
                    fragment_offset: 0,
                    time_to_live: hop_limit,
                    protocol,
                    source,
                    destination,
                    options: &[],
                    payload_len,
                }
                .emit(buffer)
            }
            PseudoHeader::V6 { source, destination } => Ipv6Repr {
                dscp,
                ecn,
                flow_label: 0,
                next_header: protocol,
                hop_limit,
                source,
                destination,
                payload_len,
            }
            .emit(buffer),
        };
        debug_assert!(
            written.is_ok(),
            "no packet is longer than 65,535 bytes: {written:?}"
        );
    }
}

/// The most data that a connection gives at once: a super-segment, or a burst that is cut here. 0 is one
/// segment: what is paced must not go at once.
fn largest_payload(config: &super::StackConfig, tuple: &FourTuple) -> usize {
    if config.tcp.pacing && !config.segmentation_offload {
        return 0;
    }
    MAX_PACKET - ip_header_len(tuple) - TcpSegment::MAX_HEADER_LEN
}

pub(super) fn ip_header_len(tuple: &FourTuple) -> usize {
    if tuple.is_ipv4() {
        Ipv4Packet::MIN_HEADER_LEN
    } else {
        Ipv6Packet::HEADER_LEN
    }
}

pub(super) fn mapped(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
