//! The virtio-net header that stands before each packet of a TUN device (Virtual I/O Device, version 1.2,
//! section 5.1.6), and what it means for the stack.
//!
//! The kernel is believed no more than the network: a container may have moved the packet into the device with
//! any header. What does not fit the packet behind it is refused.

use std::num::NonZeroU16;

use portolan_core::wire::{IpPacket, IpProtocol, TcpSegment, UdpDatagram};
use portolan_stack::{Offload, PacketChecksum};
use thiserror::Error;

/// The length of the header, in bytes: without the count of buffers that only a virtio device needs.
pub(crate) const HEADER_LEN: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// Or'ed to the type of a super-segment with CWR.
const GSO_ECN: u8 = 0x80;

/// Where the checksum stands in a TCP and in a UDP header.
const TCP_CHECKSUM_AT: u16 = 16;
const UDP_CHECKSUM_AT: u16 = 6;

/// Why a packet is not taken from, or not given to, a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub(crate) enum HeaderError {
    /// Fewer bytes than a header has.
    #[error("shorter than a virtio-net header")]
    Short,
    /// A kind of super-segment that nobody asked for.
    #[error("unknown kind of super-segment")]
    UnknownKind,
    /// The kind of super-segment is not that of the packet.
    #[error("the kind of super-segment does not fit the packet")]
    WrongKind,
    /// A super-segment without the length of its pieces.
    #[error("a super-segment with pieces of no length")]
    NoPieceLen,
    /// A super-segment whose checksum is said to be complete: its pieces would have none.
    #[error("a super-segment without a partial checksum")]
    NoPartialChecksum,
    /// The checksum is said to be where the packet has none.
    #[error("the checksum is not where the transport header has it")]
    ChecksumElsewhere,
    /// The packet behind the header is none.
    #[error("no IP packet with a whole transport header")]
    Malformed,
}

/// What `header` says of the `packet` behind it.
///
/// # Errors
/// [`HeaderError`] if it says what cannot be.
pub(crate) fn decode(header: [u8; HEADER_LEN], packet: &[u8]) -> Result<Offload, HeaderError> {
    let [flags, kind, ..] = header;
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (piece_len, checksum_start, checksum_offset) = (word(4), word(6), word(8));
    let checksum = if flags & NEEDS_CHECKSUM != 0 {
        PacketChecksum::Partial
    } else if flags & DATA_VALID != 0 {
        PacketChecksum::Verified
    } else {
        PacketChecksum::Complete
    };
    if checksum != PacketChecksum::Partial && kind == GSO_NONE {
        // Nothing is left to do: whatever the packet is, the stack sees to it.
        return Ok(Offload {
            checksum,
            piece_len: None,
        });
    }
    let transport = Transport::of(packet)?;
    if checksum != PacketChecksum::Partial {
        return Err(HeaderError::NoPartialChecksum);
    }
    if (checksum_start, checksum_offset) != (transport.start, transport.checksum_offset()) {
        return Err(HeaderError::ChecksumElsewhere);
    }
    let piece_len = match kind & !GSO_ECN {
        GSO_NONE if kind == GSO_NONE => None,
        GSO_TCPV4 | GSO_TCPV6 | GSO_UDP_L4 => {
            if kind & !GSO_ECN != transport.kind() {
                return Err(HeaderError::WrongKind);
            }
            Some(NonZeroU16::new(piece_len).ok_or(HeaderError::NoPieceLen)?)
        }
        _ => return Err(HeaderError::UnknownKind),
    };
    Ok(Offload { checksum, piece_len })
}

/// The header for a packet that goes.
///
/// # Errors
/// [`HeaderError::Malformed`] if something is left to the device, and the packet is not one of TCP or UDP.
pub(crate) fn encode(offload: Offload, packet: &[u8]) -> Result<[u8; HEADER_LEN], HeaderError> {
    let mut header = [0; HEADER_LEN];
    if offload.checksum != PacketChecksum::Partial {
        if offload.piece_len.is_some() {
            return Err(HeaderError::NoPartialChecksum);
        }
        if offload.checksum == PacketChecksum::Verified {
            header[0] = DATA_VALID;
        }
        return Ok(header);
    }
    let transport = Transport::of(packet)?;
    header[0] = NEEDS_CHECKSUM;
    header[6..8].copy_from_slice(&transport.start.to_le_bytes());
    header[8..10].copy_from_slice(&transport.checksum_offset().to_le_bytes());
    // A piece as long as all of the data is no piece, and Linux takes no UDP packet that says so.
    let piece_len = offload
        .piece_len
        .filter(|len| transport.data_len > usize::from(len.get()));
    if let Some(piece_len) = piece_len {
        header[1] = transport.kind();
        if transport.has_cwr {
            header[1] |= GSO_ECN;
        }
        header[2..4].copy_from_slice(&transport.header_end.to_le_bytes());
        header[4..6].copy_from_slice(&piece_len.get().to_le_bytes());
    }
    Ok(header)
}

/// The transport header of a packet, as a device sees it.
struct Transport {
    is_tcp: bool,
    is_ipv4: bool,
    has_cwr: bool,
    /// Where it begins, and where the data does, from the first byte of the IP header.
    start: u16,
    header_end: u16,
    data_len: usize,
}

impl Transport {
    fn of(packet: &[u8]) -> Result<Self, HeaderError> {
        let ip = IpPacket::parse(packet).map_err(|_| HeaderError::Malformed)?;
        if ip.is_fragment() {
            return Err(HeaderError::Malformed);
        }
        let (is_tcp, header_len, data_len, has_cwr) = match ip.protocol() {
            IpProtocol::TCP => {
                let segment = TcpSegment::parse(ip.payload()).map_err(|_| HeaderError::Malformed)?;
                let has_cwr = segment.flags().contains(portolan_core::wire::TcpFlags::CWR);
                (true, segment.header_len(), segment.payload().len(), has_cwr)
            }
            IpProtocol::UDP => {
                let len = ip.payload().len();
                let data_len = len
                    .checked_sub(UdpDatagram::HEADER_LEN)
                    .ok_or(HeaderError::Malformed)?;
                (false, UdpDatagram::HEADER_LEN, data_len, false)
            }
            _ => return Err(HeaderError::Malformed),
        };
        let start = u16::try_from(ip.header_len()).map_err(|_| HeaderError::Malformed)?;
        let header_end = u16::try_from(ip.header_len() + header_len).map_err(|_| HeaderError::Malformed)?;
        Ok(Self {
            is_tcp,
            is_ipv4: matches!(ip, IpPacket::V4(_)),
            has_cwr,
            start,
            header_end,
            data_len,
        })
    }

    const fn checksum_offset(&self) -> u16 {
        if self.is_tcp {
            TCP_CHECKSUM_AT
        } else {
            UDP_CHECKSUM_AT
        }
    }

    const fn kind(&self) -> u8 {
        match (self.is_tcp, self.is_ipv4) {
            (true, true) => GSO_TCPV4,
            (true, false) => GSO_TCPV6,
            (false, _) => GSO_UDP_L4,
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_core::Port;
    use portolan_core::wire::{ChecksumFill, Ipv4Repr, Ipv6Repr, PseudoHeader, SeqNum, TcpFlags, TcpRepr};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A packet with `data`, of TCP or UDP, over IPv4 or IPv6, its checksum left to the device.
    fn packet(is_tcp: bool, is_ipv4: bool, flags: TcpFlags, data: &[u8]) -> Vec<u8> {
        let (ip_len, transport_len) = (if is_ipv4 { 20 } else { 40 }, if is_tcp { 20 } else { 8 });
        let mut bytes = vec![0; ip_len + transport_len];
        bytes.extend(data);
        let payload_len = bytes.len() - ip_len;
        let protocol = if is_tcp { IpProtocol::TCP } else { IpProtocol::UDP };
        if is_ipv4 {
            let repr = Ipv4Repr {
                dscp: 0,
                ecn: 0,
                identification: 1,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                time_to_live: 64,
                protocol,
                source: [10, 0, 0, 1].into(),
                destination: [10, 0, 0, 2].into(),
                options: &[],
                payload_len,
            };
            repr.emit(&mut bytes).unwrap();
        } else {
            let repr = Ipv6Repr {
                dscp: 0,
                ecn: 0,
                flow_label: 0,
                next_header: protocol,
                hop_limit: 64,
                source: "fd00::1".parse().unwrap(),
                destination: "fd00::2".parse().unwrap(),
                payload_len,
            };
            repr.emit(&mut bytes).unwrap();
        }
        let pseudo: PseudoHeader = IpPacket::parse(&bytes).unwrap().pseudo_header();
        if is_tcp {
            let repr = TcpRepr {
                source_port: Port::new(1),
                destination_port: Port::new(2),
                seq: SeqNum::new(0),
                ack: SeqNum::new(0),
                flags,
                window: 0,
                urgent_pointer: 0,
                options: &[],
            };
            repr.emit(&mut bytes[ip_len..], ChecksumFill::Partial(pseudo))
                .unwrap();
        } else {
            let len = payload_len as u16;
            bytes[ip_len..ip_len + 8].copy_from_slice(&[0, 1, 0, 2, (len >> 8) as u8, len as u8, 0, 0]);
        }
        bytes
    }

    fn partial(piece_len: u16) -> Offload {
        Offload {
            checksum: PacketChecksum::Partial,
            piece_len: NonZeroU16::new(piece_len),
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_standard() {
        let tcp = packet(true, true, TcpFlags::CWR, &[0; 3000]);
        assert_eq!(
            encode(partial(1460), &tcp),
            Ok([1, 0x81, 40, 0, 0xB4, 5, 20, 0, 16, 0])
        );
        assert_eq!(encode(partial(3000), &tcp), Ok([1, 0, 0, 0, 0, 0, 20, 0, 16, 0]));
        let udp = packet(false, false, TcpFlags::empty(), &[0; 3000]);
        assert_eq!(
            encode(partial(1000), &udp),
            Ok([1, 5, 48, 0, 0xE8, 3, 40, 0, 6, 0])
        );
        assert_eq!(encode(Offload::default(), &udp), Ok([0; HEADER_LEN]));
        assert_eq!(encode(Offload::default(), b"anything"), Ok([0; HEADER_LEN]));
        assert_eq!(encode(partial(0), b"anything"), Err(HeaderError::Malformed));
    }

    #[test]
    fn what_does_not_fit_the_packet_is_refused() {
        let tcp = packet(true, true, TcpFlags::empty(), &[0; 3000]);
        let udp = packet(false, true, TcpFlags::empty(), &[0; 3000]);
        let good = [1, 1, 40, 0, 0xB4, 5, 20, 0, 16, 0];
        assert_eq!(decode(good, &tcp), Ok(partial(1460)));
        let with = |changes: &[(usize, u8)]| {
            let mut header = good;
            changes.iter().for_each(|&(at, byte)| header[at] = byte);
            header
        };
        for (header, packet, error) in [
            (with(&[(4, 0), (5, 0)]), &tcp, HeaderError::NoPieceLen),
            (with(&[(0, 0)]), &tcp, HeaderError::NoPartialChecksum),
            (with(&[(0, 2)]), &tcp, HeaderError::NoPartialChecksum),
            (with(&[(1, 4)]), &tcp, HeaderError::WrongKind),
            (with(&[(1, 5)]), &tcp, HeaderError::WrongKind),
            (with(&[(1, 3)]), &tcp, HeaderError::UnknownKind),
            (with(&[(1, 0x80)]), &tcp, HeaderError::UnknownKind),
            (with(&[(6, 21)]), &tcp, HeaderError::ChecksumElsewhere),
            (with(&[(7, 255)]), &tcp, HeaderError::ChecksumElsewhere),
            (with(&[(8, 6)]), &tcp, HeaderError::ChecksumElsewhere),
            (good, &udp, HeaderError::ChecksumElsewhere),
            (with(&[(8, 6)]), &udp, HeaderError::WrongKind),
            (good, &tcp[..30].to_vec(), HeaderError::Malformed),
        ] {
            assert_eq!(decode(header, packet), Err(error), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            is_tcp: bool, is_ipv4: bool, cwr: bool, len in 0usize..4000, piece_len: u16, checksum in 0..3
        ) {
            let flags = if cwr { TcpFlags::CWR } else { TcpFlags::ACK };
            let packet = packet(is_tcp, is_ipv4, flags, &vec![0; len]);
            let checksum = match checksum {
                0 => PacketChecksum::Complete,
                1 => PacketChecksum::Verified,
                _ => PacketChecksum::Partial,
            };
            let piece_len = NonZeroU16::new(piece_len).filter(|_| checksum == PacketChecksum::Partial);
            let header = encode(Offload { checksum, piece_len }, &packet).unwrap();
            let needed = piece_len.filter(|piece| len > usize::from(piece.get()));
            prop_assert_eq!(decode(header, &packet), Ok(Offload { checksum, piece_len: needed }));
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(header: [u8; HEADER_LEN], bytes in vec(any::<u8>(), 0..100), v4: bool) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = if v4 { 0x45 } else { 0x60 };
            }
            if let Ok(offload) = decode(header, &bytes) {
                prop_assert!(offload.piece_len.is_none() || offload.checksum == PacketChecksum::Partial);
            }
        }
    }
}
