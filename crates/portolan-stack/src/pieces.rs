//! Cutting a super-segment in software, for links whose devices do not.

use std::num::NonZeroU16;

use portolan_core::wire::{
    ChecksumFill, IpPacket, IpProtocol, Ipv4Repr, Ipv6Packet, Ipv6Repr, ParseError, PseudoHeader, TcpFlags,
    TcpRepr, TcpSegment, UdpDatagram,
};

use crate::{Packet, PacketChecksum};

/// The packets that a super-segment, or super-datagram, stands for, one after the other.
///
/// A packet that is no super-segment gives one piece, itself; a checksum that was left to the device is
/// completed in either case. So a link without offloads sends the pieces of whatever
/// [`Stack::poll_transmit`](crate::Stack::poll_transmit) writes.
///
/// ```
/// # use portolan_stack::{Packet, Pieces};
/// # fn send(_packet: &[u8]) {}
/// # fn example(packet: Packet<'_>) -> Result<(), portolan_core::wire::ParseError> {
/// let mut pieces = Pieces::new(packet)?;
/// let mut buffer = [0; 65_535];
/// while let Some(len) = pieces.write_next(&mut buffer) {
///     send(&buffer[..len]);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pieces<'a> {
    packet: Packet<'a>,
    /// What to cut, or `None` for a packet that goes as it is.
    whole: Option<Whole<'a>>,
    is_done: bool,
}

#[derive(Debug)]
struct Whole<'a> {
    ip: IpPacket<'a>,
    ip_header: &'a [u8],
    transport: Transport<'a>,
    piece_len: Option<NonZeroU16>,
    /// How much of the data was written, in how many pieces.
    written: usize,
    pieces: u16,
}

#[derive(Debug)]
enum Transport<'a> {
    Tcp(TcpSegment<'a>),
    Udp(UdpDatagram<'a>),
}

impl<'a> Pieces<'a> {
    /// The pieces of `packet`.
    ///
    /// # Errors
    /// If its headers do not hold what they must.
    pub fn new(packet: Packet<'a>) -> Result<Self, ParseError> {
        let ip = IpPacket::parse(packet.bytes)?;
        let needs_work =
            packet.offload.piece_len.is_some() || packet.offload.checksum == PacketChecksum::Partial;
        let transport = match ip.protocol() {
            _ if !needs_work || ip.is_fragment() => None,
            IpProtocol::TCP => Some(Transport::Tcp(TcpSegment::parse(ip.payload())?)),
            IpProtocol::UDP => Some(Transport::Udp(UdpDatagram::parse(ip.payload())?)),
            _ => None,
        };
        let whole = transport.map(|transport| Whole {
            transport,
            ip_header: &packet.bytes[..ip.header_len()],
            ip,
            piece_len: packet.offload.piece_len,
            written: 0,
            pieces: 0,
        });
        Ok(Self {
            packet,
            whole,
            is_done: false,
        })
    }

    /// Writes the next piece to the front of `buffer` and gives its length; `None` after the last, or if the
    /// buffer is too short for it. Does not allocate.
    pub fn write_next(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if self.is_done {
            return None;
        }
        let Some(whole) = &mut self.whole else {
            self.is_done = true;
            let len = self.packet.bytes.len();
            buffer.get_mut(..len)?.copy_from_slice(self.packet.bytes);
            return Some(len);
        };
        let len = whole.write_next(buffer)?;
        self.is_done = whole.written == whole.transport.payload().len();
        Some(len)
    }
}

impl<'a> Transport<'a> {
    fn payload(&self) -> &'a [u8] {
        match self {
            Self::Tcp(segment) => segment.payload(),
            Self::Udp(datagram) => datagram.payload(),
        }
    }

    fn header_len(&self) -> usize {
        match self {
            Self::Tcp(segment) => segment.header_len(),
            Self::Udp(_) => UdpDatagram::HEADER_LEN,
        }
    }
}

impl Whole<'_> {
    fn write_next(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let payload = self.transport.payload();
        let most = self.piece_len.map_or(payload.len(), |len| usize::from(len.get()));
        let end = payload.len().min(self.written + most);
        let data = &payload[self.written..end];
        let (is_first, is_last) = (self.written == 0, end == payload.len());

        let (ip_len, header_len) = (self.ip_header.len(), self.transport.header_len());
        let transport_len = header_len + data.len();
        let buffer = buffer.get_mut(..ip_len + transport_len)?;
        let pseudo = self.write_ip(buffer, transport_len)?;
        let transport = &mut buffer[ip_len..];
        transport[header_len..].copy_from_slice(data);
        let fill = ChecksumFill::Complete(pseudo);
        match &self.transport {
            Transport::Udp(datagram) => datagram.repr().emit(transport, fill).ok()?,
            Transport::Tcp(segment) => {
                let mut flags = segment.flags();
                if !is_last {
                    flags -= TcpFlags::FIN | TcpFlags::PSH;
                }
                if !is_first {
                    // RFC 3168, section 6.1.2: the answer to one mark is told once.
                    flags -= TcpFlags::CWR;
                }
                let repr = segment.repr();
                let header = TcpRepr {
                    seq: repr.seq + self.written as u32,
                    flags,
                    ..repr
                };
                header.emit(transport, fill).ok()?
            }
        };
        self.written = end;
        self.pieces = self.pieces.wrapping_add(1);
        Some(ip_len + transport_len)
    }

    fn write_ip(&self, buffer: &mut [u8], transport_len: usize) -> Option<PseudoHeader> {
        match &self.ip {
            IpPacket::V4(packet) => {
                let repr = packet.repr();
                Ipv4Repr {
                    identification: repr.identification.wrapping_add(self.pieces),
                    payload_len: transport_len,
                    ..repr
                }
                .emit(buffer)
                .ok()?;
            }
            IpPacket::V6(packet) => {
                let extensions = &self.ip_header[Ipv6Packet::HEADER_LEN..];
                Ipv6Repr {
                    payload_len: extensions.len() + transport_len,
                    ..packet.repr()
                }
                .emit(buffer)
                .ok()?;
                buffer[Ipv6Packet::HEADER_LEN..self.ip_header.len()].copy_from_slice(extensions);
            }
        }
        Some(self.ip.pseudo_header())
    }
}

#[cfg(test)]
mod tests {
    use portolan_core::Port;
    use portolan_core::wire::SeqNum;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::Offload;

    const HEADER: TcpRepr<'_> = TcpRepr {
        source_port: Port::new(1),
        destination_port: Port::new(2),
        seq: SeqNum::new(0xFFFF_FFF0),
        ack: SeqNum::new(5),
        flags: TcpFlags::all(),
        window: 9,
        urgent_pointer: 0,
        options: &[1, 1, 1, 0],
    };

    fn super_segment(v6: bool, payload: &[u8]) -> Vec<u8> {
        let ip_len = if v6 { 40 } else { 20 };
        let mut packet = vec![0; ip_len + HEADER.header_len()];
        packet.extend(payload);
        let payload_len = packet.len() - ip_len;
        if v6 {
            let ip = Ipv6Repr {
                dscp: 0,
                ecn: 2,
                flow_label: 7,
                next_header: IpProtocol::TCP,
                hop_limit: 64,
                source: "fd00::1".parse().unwrap(),
                destination: "fd00::2".parse().unwrap(),
                payload_len,
            };
            ip.emit(&mut packet).unwrap();
        } else {
            let ip = Ipv4Repr {
                dscp: 0,
                ecn: 2,
                identification: 0xFFFF,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                time_to_live: 64,
                protocol: IpProtocol::TCP,
                source: [10, 0, 0, 1].into(),
                destination: [10, 0, 0, 2].into(),
                options: &[],
                payload_len,
            };
            ip.emit(&mut packet).unwrap();
        }
        let pseudo = IpPacket::parse(&packet).unwrap().pseudo_header();
        HEADER
            .emit(&mut packet[ip_len..], ChecksumFill::Partial(pseudo))
            .unwrap();
        packet
    }

    proptest! {
        #[test]
        fn the_pieces_are_whole_segments_and_together_the_data(
            v6: bool, payload in vec(any::<u8>(), 0..5000), piece_len in 1u16..3000
        ) {
            let bytes = super_segment(v6, &payload);
            let offload = Offload { checksum: PacketChecksum::Partial, piece_len: NonZeroU16::new(piece_len) };
            let mut pieces = Pieces::new(Packet { bytes: &bytes, offload }).unwrap();
            let mut buffer = [0; 6000];
            let (mut data, mut count, mut flags) = (Vec::<u8>::new(), 0u16, TcpFlags::empty());
            while let Some(len) = pieces.write_next(&mut buffer) {
                let ip = IpPacket::parse(&buffer[..len]).unwrap();
                if let IpPacket::V4(ip) = &ip {
                    prop_assert!(ip.has_valid_checksum());
                    prop_assert_eq!(ip.identification(), 0xFFFFu16.wrapping_add(count));
                }
                let segment = TcpSegment::parse(ip.payload()).unwrap();
                prop_assert!(segment.has_valid_checksum(ip.pseudo_header()));
                prop_assert_eq!(segment.seq(), HEADER.seq + data.len() as u32);
                prop_assert!(segment.payload().len() <= usize::from(piece_len));
                prop_assert_eq!(segment.flags().contains(TcpFlags::CWR), count == 0);
                prop_assert!(!flags.intersects(TcpFlags::FIN | TcpFlags::PSH), "only on the last");
                flags = segment.flags();
                data.extend(segment.payload());
                count += 1;
            }
            prop_assert!(flags.contains(TcpFlags::FIN | TcpFlags::PSH));
            prop_assert_eq!(count, (payload.len() as u16).div_ceil(piece_len).max(1));
            prop_assert_eq!(data, payload);
        }

        #[test]
        fn any_bytes_give_pieces_or_an_error(bytes in vec(any::<u8>(), 0..200), piece_len: u16, v6: bool) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            let offload = Offload { checksum: PacketChecksum::Partial, piece_len: NonZeroU16::new(piece_len) };
            if let Ok(mut pieces) = Pieces::new(Packet { bytes: &bytes, offload }) {
                let mut buffer = [0; 300];
                let count = std::iter::from_fn(|| pieces.write_next(&mut buffer)).take(300).count();
                prop_assert!(count < 300);
            }
        }
    }
}
