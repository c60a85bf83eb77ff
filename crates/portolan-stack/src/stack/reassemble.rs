//! Fragments come: they wait for each other, and the whole datagram goes the way of any other.
//!
//! Fragments to any address wait, since a listener may be for every destination; the memory is bounded.

use portolan_core::table::AddressKind;
use portolan_core::wire::{
    ExtensionHeader, Icmpv4Message, Icmpv6Message, IpPacket, IpProtocol, Ipv6Packet, checksum,
};

use super::Stack;
use super::icmp::Control;
use super::input::CONGESTION_EXPERIENCED;
use crate::buffer::{FragmentKey, MAX_HEAD, Piece, Taken};
use crate::{Instant, Offload, Packet};

/// The longest IP packet: IPv6's payload length does not count the fixed header.
const LONGEST: usize = 65_535 + Ipv6Packet::HEADER_LEN;
/// What of a first fragment is kept to be quoted: no ICMP error is longer than this.
const QUOTED: usize = 1280;
/// The length of an IPv6 fragment header.
const FRAGMENT_HEADER: usize = 8;
/// Where IPv6's fixed header says what follows it, and how much.
const NEXT_HEADER_AT: usize = 6;
const PAYLOAD_LENGTH_AT: usize = 4;
/// ICMP 11/1 and ICMPv6 3/1: fragment reassembly time exceeded.
const REASSEMBLY: u8 = 1;
/// ICMPv6 4/3: the first fragment does not hold all headers (RFC 7112, section 5).
const INCOMPLETE_HEADERS: u8 = 3;

/// The fragment header that makes an IPv6 packet a fragment, and where the field stands that names it.
struct Place<'a> {
    header: ExtensionHeader<'a>,
    named_at: usize,
}

impl Stack {
    pub(super) fn take_fragment(&mut self, now: Instant, bytes: &[u8], ip: &IpPacket<'_>) {
        self.counters.fragments += 1;
        let piece = match ip {
            IpPacket::V4(packet) => {
                let more = packet.more_fragments();
                let payload = packet.payload();
                Some(Piece {
                    key: FragmentKey {
                        source: ip.source(),
                        destination: ip.destination(),
                        identification: packet.identification().into(),
                        protocol: packet.protocol().get(),
                    },
                    offset: packet.fragment_offset(),
                    more,
                    head: packet.header_bytes(),
                    // As Linux: what does not fill a unit of 8 bytes before the end is left out.
                    payload: if more {
                        &payload[..payload.len() / 8 * 8]
                    } else {
                        payload
                    },
                    ecn: packet.ecn(),
                })
            }
            IpPacket::V6(packet) => self.piece_of_ipv6(now, bytes, ip, packet),
        };
        let Some(piece) = piece else {
            self.counters.malformed += 1;
            return;
        };
        let evicted = self.fragments.evicted();
        let taken = self.fragments.insert(&mut self.pool, now, &piece);
        self.counters.reassembly_no_room += self.fragments.evicted() - evicted;
        match taken {
            Taken::Waits => {}
            Taken::Whole => self.take_reassembled(now, &piece.key),
            Taken::Overlap => self.counters.reassembly_overlaps += 1,
            Taken::Mismatch => self.counters.malformed += 1,
            Taken::NoRoom => self.counters.reassembly_no_room += 1,
        }
    }

    /// Gives up what waited too long, and tells the sender if the first fragment came (RFC 1122, section 3.3.2; RFC
    /// 8200, section 4.5).
    pub(super) fn expire_fragments(&mut self, now: Instant) {
        let mut first = [0; QUOTED];
        while let Some(expired) = self.fragments.pop_expired(&mut self.pool, now, &mut first) {
            self.counters.reassembly_timeouts += 1;
            let Some(quoted) = expired.first.map(|len| &first[..len]) else {
                continue;
            };
            let Ok(ip) = IpPacket::parse_truncated(quoted) else {
                continue;
            };
            let control = match ip {
                IpPacket::V4(_) => Control::V4(Icmpv4Message::TimeExceeded { code: REASSEMBLY }),
                IpPacket::V6(_) => Control::V6(Icmpv6Message::TimeExceeded { code: REASSEMBLY }),
            };
            if self.table.host().kind(ip.destination()) == AddressKind::Local {
                self.answer_error(now, control, quoted, &ip);
            }
        }
    }

    /// RFC 8200, section 4.5, with its errors.
    fn piece_of_ipv6<'a>(
        &mut self,
        now: Instant,
        bytes: &'a [u8],
        ip: &IpPacket<'_>,
        packet: &Ipv6Packet<'a>,
    ) -> Option<Piece<'a>> {
        let Place { header, .. } = fragment_place(packet)?;
        let fragment = header.fragment()?;
        let head_len = Ipv6Packet::HEADER_LEN + header.offset() + FRAGMENT_HEADER;
        let end = Ipv6Packet::HEADER_LEN + usize::from(packet.payload_length());
        let (head, payload) = bytes.get(..end)?.split_at_checked(head_len)?;
        if head.len() > MAX_HEAD {
            return None;
        }
        let unfragmentable = head_len - FRAGMENT_HEADER - Ipv6Packet::HEADER_LEN;
        // In the order in which Linux looks.
        let problem = if fragment.offset == 0 && lacks_headers(packet) {
            Some((INCOMPLETE_HEADERS, 0))
        } else if unfragmentable + usize::from(fragment.offset) + payload.len() > 65_535 {
            Some((0, Ipv6Packet::HEADER_LEN + header.offset() + 2))
        } else if fragment.more && !payload.len().is_multiple_of(8) {
            Some((0, PAYLOAD_LENGTH_AT))
        } else {
            None
        };
        if let Some((code, pointer)) = problem {
            let message = Icmpv6Message::ParameterProblem {
                code,
                pointer: pointer as u32,
            };
            if self.table.host().kind(ip.destination()) == AddressKind::Local {
                self.answer_error(now, Control::V6(message), bytes, ip);
            }
            return None;
        }
        Some(Piece {
            key: FragmentKey {
                source: ip.source(),
                destination: ip.destination(),
                identification: fragment.identification,
                protocol: 0,
            },
            offset: fragment.offset,
            more: fragment.more,
            head,
            payload,
            ecn: packet.ecn(),
        })
    }

    fn take_reassembled(&mut self, now: Instant, key: &FragmentKey) {
        // A buffer for all datagrams that will ever be put together, made with the first.
        let mut buffer = std::mem::take(&mut self.whole);
        buffer.resize(MAX_HEAD + LONGEST, 0);
        let taken = self.fragments.take_whole(&mut self.pool, key, &mut buffer);
        let packet = taken.and_then(|(head, payload, is_marked)| join(&mut buffer, head, payload, is_marked));
        match packet.map(|range| &buffer[range]) {
            Some(bytes)
                if let Ok(ip) = IpPacket::parse(bytes)
                    && !ip.is_fragment() =>
            {
                self.counters.datagrams_reassembled += 1;
                let offload = Offload::default();
                self.take_whole(now, Packet { bytes, offload }, &ip);
            }
            _ => self.counters.malformed += 1,
        }
        self.whole = buffer;
    }
}

/// Makes one packet of a first fragment's head and the payload behind it, and says where it is.
fn join(buffer: &mut [u8], head: usize, payload: usize, is_marked: bool) -> Option<std::ops::Range<usize>> {
    if buffer[0] >> 4 == 4 {
        let total = u16::try_from(head + payload).ok()?;
        buffer[2..4].copy_from_slice(&total.to_be_bytes());
        buffer[6..8].copy_from_slice(&[0, 0]);
        if is_marked {
            buffer[1] |= CONGESTION_EXPERIENCED;
        }
        buffer[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum(&buffer[..head]);
        buffer[10..12].copy_from_slice(&sum.to_be_bytes());
        return Some(0..head + payload);
    }
    let unfragmentable = head - FRAGMENT_HEADER;
    let length = u16::try_from(unfragmentable - Ipv6Packet::HEADER_LEN + payload).ok()?;
    let next_header = buffer[unfragmentable];
    let named_at = fragment_place(&Ipv6Packet::parse_truncated(&buffer[..head]).ok()?)?.named_at;
    buffer[named_at] = next_header;
    buffer.copy_within(..unfragmentable, FRAGMENT_HEADER);
    let packet = &mut buffer[FRAGMENT_HEADER..];
    packet[PAYLOAD_LENGTH_AT..PAYLOAD_LENGTH_AT + 2].copy_from_slice(&length.to_be_bytes());
    if is_marked {
        packet[1] |= CONGESTION_EXPERIENCED << 4;
    }
    Some(FRAGMENT_HEADER..head + payload)
}

fn fragment_place<'a>(packet: &Ipv6Packet<'a>) -> Option<Place<'a>> {
    let mut named_at = NEXT_HEADER_AT;
    for header in packet.extensions() {
        let header = header.ok()?;
        let is_part = header
            .fragment()
            .is_some_and(|fragment| fragment.more || fragment.offset != 0);
        if is_part {
            return Some(Place { header, named_at });
        }
        named_at = Ipv6Packet::HEADER_LEN + header.offset();
    }
    None
}

/// Whether a first fragment ends before the header of the upper layer does (RFC 7112, section 5).
fn lacks_headers(packet: &Ipv6Packet<'_>) -> bool {
    let needed = match packet.protocol() {
        IpProtocol::TCP => 20,
        IpProtocol::UDP | IpProtocol::ICMPV6 => 8,
        _ => 1,
    };
    packet.payload().len() < needed
}
