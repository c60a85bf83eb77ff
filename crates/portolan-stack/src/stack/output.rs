//! A packet goes.

use std::net::IpAddr;

use portolan_core::Port;
use portolan_core::demux::FourTuple;
use portolan_core::wire::{
    ChecksumFill, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, PseudoHeader, TcpRepr, TcpSegment,
};

use super::{ConnectionId, Stack, UdpId};
use crate::packet::PacketChecksum;
use crate::tcp::{Cx, Outgoing};
use crate::{Instant, Offload, Transmit};

/// Answers that may wait; more are not sent, as if the network had lost them.
const MAX_ANSWERS: usize = 1024;
/// The largest IP packet, and with it the largest super-segment.
const MAX_PACKET: usize = 65_535;
/// Linux's default for both IP versions (RFC 1700's 64).
const HOP_LIMIT: u8 = 64;
/// ECT(0) (RFC 3168, section 5).
const ECN_CAPABLE: u8 = 2;

/// What may have something to send. Each stands in the queue once: they take turns.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ready {
    Connection(ConnectionId),
    Udp(UdpId),
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
        let buffer = buffer.get_mut(..self.max_packet_len())?;
        if let Some(Answer { tuple, segment }) = self.answers.pop_front() {
            return Some(self.emit(&tuple, &segment, None, buffer));
        }
        if let Some(transmit) = self.transmit_control(buffer) {
            self.counters.packets_out += 1;
            return Some(transmit);
        }
        while let Some(ready) = self.ready.pop_front() {
            let id = match ready {
                Ready::Connection(id) => id,
                Ready::Udp(id) => {
                    let Some(transmit) = self.transmit_udp(id, buffer) else {
                        continue;
                    };
                    self.counters.packets_out += 1;
                    return Some(transmit);
                }
            };
            let Some(entry) = self.connections.get_mut(id) else {
                continue;
            };
            let tuple = entry.tuple;
            let largest = largest_payload(&self.config, &tuple);
            let cx = Cx {
                now,
                config: &self.config.tcp,
                pool: &mut self.pool,
            };
            let segment = entry.connection.poll_transmit(&cx, largest);
            if let Some(segment) = segment {
                // To the back: connections take turns.
                self.ready.push_back(Ready::Connection(id));
                self.set_timer(id);
                return Some(self.emit(&tuple, &segment, Some(id), buffer));
            }
            entry.is_ready = false;
            self.set_timer(id);
            self.drop_if_done(id);
        }
        None
    }

    /// The longest packet that [`Stack::poll_transmit`] writes.
    #[must_use]
    pub const fn max_packet_len(&self) -> usize {
        if self.config.segmentation_offload {
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

    pub(super) fn push_answer(&mut self, tuple: &FourTuple, segment: Outgoing) {
        if self.answers.len() >= MAX_ANSWERS {
            self.counters.answers_dropped += 1;
            return;
        }
        self.answers.push_back(Answer {
            tuple: *tuple,
            segment,
        });
    }

    fn emit(
        &mut self,
        tuple: &FourTuple,
        segment: &Outgoing,
        from: Option<ConnectionId>,
        buffer: &mut [u8],
    ) -> Transmit {
        self.counters.packets_out += 1;
        let ip_len = ip_header_len(tuple);
        let options = segment.options.as_bytes();
        let header_len = TcpSegment::MIN_HEADER_LEN + options.len();
        let len = ip_len + header_len + segment.payload_len;
        let (ip, transport) = buffer[..len].split_at_mut(ip_len);
        if segment.payload_len > 0
            && let Some(entry) = from.and_then(|id| self.connections.get(id))
        {
            entry
                .connection
                .copy_payload(segment.seq, &mut transport[header_len..]);
        }
        let pseudo = PseudoHeader::new(tuple.local().ip(), tuple.remote().ip());
        let fill = match pseudo {
            Some(pseudo) if self.config.checksum_offload => ChecksumFill::Partial(pseudo),
            Some(pseudo) => ChecksumFill::Complete(pseudo),
            None => ChecksumFill::Zero,
        };
        let header = TcpRepr {
            source_port: Port::new(tuple.local().port()),
            destination_port: Port::new(tuple.remote().port()),
            seq: segment.seq,
            ack: segment.ack,
            flags: segment.flags,
            window: segment.window,
            urgent_pointer: 0,
            options,
        };
        header
            .emit(transport, fill)
            .expect("the buffer was cut to the header and the data");
        let ecn = if segment.ecn_capable { ECN_CAPABLE } else { 0 };
        self.emit_ip(tuple, IpProtocol::TCP, ecn, header_len + segment.payload_len, ip);
        Transmit {
            len,
            offload: Offload {
                checksum: if self.config.checksum_offload {
                    PacketChecksum::Partial
                } else {
                    PacketChecksum::Complete
                },
                piece_len: segment.piece_len,
            },
        }
    }

    pub(super) fn emit_ip(
        &mut self,
        tuple: &FourTuple,
        protocol: IpProtocol,
        ecn: u8,
        payload_len: usize,
        buffer: &mut [u8],
    ) {
        let written = match (tuple.local().ip(), tuple.remote().ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                // RFC 6864, section 4.1: of a packet that is never fragmented the field means nothing; a
                // device that cuts a super-segment counts from it.
                self.identification = self.identification.wrapping_add(1);
                Ipv4Repr {
                    dscp: 0,
                    ecn,
                    identification: self.identification,
                    dont_fragment: true,
                    more_fragments: false,
                    fragment_offset: 0,
                    time_to_live: HOP_LIMIT,
                    protocol,
                    source,
                    destination,
                    options: &[],
                    payload_len,
                }
                .emit(buffer)
            }
            (source, destination) => Ipv6Repr {
                dscp: 0,
                ecn,
                flow_label: 0,
                next_header: protocol,
                hop_limit: HOP_LIMIT,
                source: mapped(source),
                destination: mapped(destination),
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

/// The most data of a super-segment; 0 if there are to be none.
fn largest_payload(config: &super::StackConfig, tuple: &FourTuple) -> usize {
    if !config.segmentation_offload {
        return 0;
    }
    MAX_PACKET - ip_header_len(tuple) - TcpSegment::MAX_HEADER_LEN
}

pub(super) fn ip_header_len(tuple: &FourTuple) -> usize {
    if tuple.local().is_ipv4() {
        Ipv4Packet::MIN_HEADER_LEN
    } else {
        Ipv6Packet::HEADER_LEN
    }
}

fn mapped(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
