//! Many segments of one connection from one decision: what a device would cut, for a link whose device does not.
//!
//! The first piece is written as any segment. The others are its headers with the few fields changed that
//! differ, and their sums are worked out from those fields.

use bytes::Bytes;
use portolan_core::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, SeqNum, Sum, TcpFlags, TcpSegment};

use super::{ConnectionId, Stack};
use crate::packet::PacketChecksum;
use crate::tcp::Outgoing;
use crate::{Offload, Transmit};

/// What is left of a super-segment that is sent piece by piece.
#[derive(Debug)]
pub(super) struct Burst {
    id: ConnectionId,
    /// The next piece; its data is the rest of all data.
    rest: Outgoing,
    piece_len: usize,
    /// The headers of the first piece, once it was written.
    template: Option<Template>,
}

impl Stack {
    /// The first piece of a segment that is longer than the link takes, and the segment itself if it is not.
    pub(super) fn begin_burst(&mut self, id: ConnectionId, segment: Outgoing) -> Outgoing {
        let Some(piece_len) = segment.piece_len.filter(|_| !self.config.segmentation_offload) else {
            return segment;
        };
        let mut burst = Burst {
            id,
            rest: Outgoing {
                piece_len: None,
                ..segment
            },
            piece_len: piece_len.get().into(),
            template: None,
        };
        let Piece {
            seq,
            flags,
            payload_len,
        } = next_piece(&mut burst.rest, burst.piece_len);
        let first = Outgoing {
            seq,
            flags,
            payload_len,
            ..burst.rest
        };
        self.burst = Some(burst);
        first
    }

    /// Keeps the headers of the first piece for the others.
    pub(super) fn keep_template(&mut self, packet: &[u8]) {
        if let Some(burst) = &mut self.burst
            && burst.template.is_none()
        {
            burst.template = Template::of(packet);
        }
    }

    /// Writes the next piece of the burst. A connection that ended, or whose peer acknowledged what was not sent,
    /// has no more of it.
    pub(super) fn transmit_burst(&mut self, buffer: &mut [u8], in_parts: bool) -> Option<(Transmit, Bytes)> {
        let burst = self.burst.as_mut()?;
        let connection = self.connections.get(burst.id).and_then(|entry| entry.awake());
        let (Some(connection), Some(template)) = (
            connection.filter(|connection| connection.holds(&burst.rest)),
            &burst.template,
        ) else {
            self.burst = None;
            return None;
        };
        let piece = next_piece(&mut burst.rest, burst.piece_len);
        let (len, offloads) = (piece.payload_len, self.config.checksum_offload);
        let headers_len = template.len;
        let mut shared = Bytes::new();
        let mut sum = None;
        if in_parts && let Some(bytes) = connection.share_payload(piece.seq, len) {
            shared = bytes;
            if !offloads {
                sum = Some(Sum::new().add_bytes(&shared));
            }
        } else {
            let payload = &mut buffer[headers_len..headers_len + len];
            if offloads {
                connection.copy_payload(piece.seq, payload);
            } else {
                sum = Some(connection.copy_and_sum_payload(piece.seq, payload));
            }
        }
        self.identification = self.identification.wrapping_add(u16::from(template.is_v4));
        template.write(buffer, piece, self.identification, sum);
        if burst.rest.payload_len == 0 {
            self.burst = None;
        }
        self.counters.packets_out += 1;
        let checksum = if offloads {
            PacketChecksum::Partial
        } else {
            PacketChecksum::Complete
        };
        let transmit = Transmit {
            len: headers_len + len - shared.len(),
            offload: Offload {
                checksum,
                piece_len: None,
            },
        };
        Some((transmit, shared))
    }
}

/// What is not the same in all pieces.
#[derive(Clone, Copy, Debug)]
struct Piece {
    seq: SeqNum,
    flags: TcpFlags,
    payload_len: usize,
}

/// Takes the next piece of so many bytes from the front of `rest`.
fn next_piece(rest: &mut Outgoing, len: usize) -> Piece {
    let mut piece = Piece {
        seq: rest.seq,
        flags: rest.flags,
        payload_len: rest.payload_len.min(len),
    };
    rest.seq += piece.payload_len as u32;
    rest.payload_len -= piece.payload_len;
    // RFC 3168, section 6.1.2: CWR stands in the first segment after the window was reduced.
    rest.flags -= TcpFlags::CWR;
    if rest.payload_len > 0 {
        piece.flags -= TcpFlags::PSH | TcpFlags::FIN;
    }
    piece
}

/// The longest headers of TCP without extension headers: IPv6's and a full TCP header.
const LONGEST: usize = Ipv6Packet::HEADER_LEN + TcpSegment::MAX_HEADER_LEN;
/// Where fields stand (RFC 791, section 3.1; RFC 8200, section 3; RFC 9293, section 3.1).
const V4_TOTAL_LENGTH: usize = 2;
const V4_IDENTIFICATION: usize = 4;
const V4_CHECKSUM: usize = 10;
const V6_PAYLOAD_LENGTH: usize = 4;
const TCP_SEQ: usize = 4;
const TCP_FLAGS: usize = 12;
const TCP_CHECKSUM: usize = 16;

/// Headers whose fields that change from piece to piece are zero, and the sums of the others.
#[derive(Clone, Copy, Debug)]
struct Template {
    bytes: [u8; LONGEST],
    len: usize,
    ip_len: usize,
    is_v4: bool,
    /// Of the IPv4 header.
    ip: Sum,
    /// Of the pseudo header and the TCP header, and of the first alone; both without the length.
    tcp: Sum,
    pseudo: Sum,
}

impl Template {
    /// The headers at the front of a packet that the stack wrote.
    fn of(packet: &[u8]) -> Option<Self> {
        let is_v4 = *packet.first()? >> 4 == 4;
        let ip_len = if is_v4 {
            Ipv4Packet::MIN_HEADER_LEN
        } else {
            Ipv6Packet::HEADER_LEN
        };
        let tcp_len = usize::from(packet.get(ip_len + TCP_FLAGS)? >> 4) * 4;
        let len = ip_len + tcp_len;
        let mut bytes = [0; LONGEST];
        bytes.get_mut(..len)?.copy_from_slice(packet.get(..len)?);
        let addresses = if is_v4 {
            bytes[V4_TOTAL_LENGTH..V4_IDENTIFICATION + 2].fill(0);
            bytes[V4_CHECKSUM..V4_CHECKSUM + 2].fill(0);
            12..20
        } else {
            bytes[V6_PAYLOAD_LENGTH..V6_PAYLOAD_LENGTH + 2].fill(0);
            8..40
        };
        let tcp = &mut bytes[ip_len..len];
        tcp[TCP_SEQ..TCP_SEQ + 4].fill(0);
        // The data offset stays.
        tcp[TCP_FLAGS] &= 0xF0;
        tcp[TCP_FLAGS + 1] = 0;
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].fill(0);
        let pseudo = Sum::new()
            .add_bytes(&bytes[addresses])
            .add_u16(u16::from(IpProtocol::TCP.get()));
        Some(Self {
            ip: Sum::new().add_bytes(&bytes[..ip_len]),
            tcp: pseudo.add_bytes(&bytes[ip_len..len]),
            pseudo,
            bytes,
            len,
            ip_len,
            is_v4,
        })
    }

    /// Writes the headers of `piece`, whose data has the sum `payload`, or is to be summed by the device.
    fn write(&self, to: &mut [u8], piece: Piece, identification: u16, payload: Option<Sum>) {
        to[..self.len].copy_from_slice(&self.bytes[..self.len]);
        let (ip, tcp) = to[..self.len].split_at_mut(self.ip_len);
        let tcp_len = (tcp.len() + piece.payload_len) as u16;
        let put = |header: &mut [u8], at: usize, word: u16| {
            header[at..at + 2].copy_from_slice(&word.to_be_bytes());
        };
        if self.is_v4 {
            let total = self.ip_len as u16 + tcp_len;
            put(ip, V4_TOTAL_LENGTH, total);
            put(ip, V4_IDENTIFICATION, identification);
            put(
                ip,
                V4_CHECKSUM,
                self.ip.add_u16(total).add_u16(identification).checksum(),
            );
        } else {
            put(ip, V6_PAYLOAD_LENGTH, tcp_len);
        }
        tcp[TCP_SEQ..TCP_SEQ + 4].copy_from_slice(&piece.seq.get().to_be_bytes());
        let offset_and_flags = u16::from(tcp[TCP_FLAGS]) << 8 | piece.flags.bits();
        put(tcp, TCP_FLAGS, offset_and_flags);
        let sum = match payload {
            Some(payload) => {
                let header = self
                    .tcp
                    .add_u16(tcp_len)
                    .add_u32(piece.seq.get())
                    .add_u16(piece.flags.bits());
                header.join(payload).checksum()
            }
            None => self.pseudo.add_u16(tcp_len).folded(),
        };
        put(tcp, TCP_CHECKSUM, sum);
    }
}
