//! The short way in: a whole TCP segment without IP options or extension headers, which most packets are.
//!
//! It reads each header once, and remembers whose the last segment was. What it does not take, it leaves
//! untouched and uncounted for [`Stack::take_packet`].

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use portolan_core::demux::FourTuple;
use portolan_core::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, Sum, TcpSegment};

use super::Stack;
use super::batch::FoundConnection;
use super::input::CONGESTION_EXPERIENCED;
use crate::packet::PacketChecksum;
use crate::tcp::Segment;
use crate::{Instant, Offload};

/// A segment that can go the short way.
struct Plain<'a> {
    /// Both ends as we see them.
    tuple: FourTuple,
    ecn: u8,
    /// Where the TCP header stands.
    ip_len: usize,
    view: TcpSegment<'a>,
}

impl Stack {
    /// Takes a packet, or its headers and, apart, its data, if it can go the short way; says whether. `found` is
    /// the connection that it was for a moment ago, if that was looked up.
    pub(super) fn take_plain(
        &mut self,
        now: Instant,
        bytes: &[u8],
        apart: Option<&Bytes>,
        offload: Offload,
        found: Option<FoundConnection>,
    ) -> bool {
        let Some(plain) = Plain::read(bytes, apart.map_or(0, |data| data.len())) else {
            return false;
        };
        let payload = apart.map_or_else(|| plain.view.payload(), |data| &data[..]);
        if apart.is_some() && !plain.view.payload().is_empty() {
            return false;
        }
        let is_right = match offload.checksum {
            PacketChecksum::Complete => plain.has_valid_checksum(bytes, apart),
            PacketChecksum::Verified | PacketChecksum::Partial => true,
        };
        if !is_right {
            return false;
        }
        let piece_len = offload.piece_len.map(|len| usize::from(len.get()));
        let mut segment = Segment::new(&plain.view, plain.ecn == CONGESTION_EXPERIENCED, piece_len);
        if !plain.tuple.local().is_ipv4() {
            segment = segment.over_ipv6();
        }
        if let Some(data) = apart {
            segment.payload = payload;
            segment.owner = Some(data);
            segment.piece_len = piece_len.unwrap_or(payload.len()).max(1);
        }
        self.counters.packets_in += 1;
        if let Some((tuple, id)) = self.last_flow
            && tuple == plain.tuple
        {
            self.deliver_to_connection(now, id, &segment);
            return true;
        }
        // A connection that still has its socket still has its four-tuple.
        if let Some(FoundConnection { socket, id }) = found
            && let Some(entry) = self.connections.get(id)
            && entry.socket == Some(socket)
        {
            self.deliver_to_connection(now, id, &segment);
            return true;
        }
        if let Some(id) = self.deliver(now, &plain.tuple, &segment, None)
            && self
                .connections
                .get(id)
                .is_some_and(|entry| entry.socket.is_some())
        {
            self.last_flow = Some((plain.tuple, id));
        }
        true
    }
}

impl<'a> Plain<'a> {
    /// Reads the headers at the front of `bytes`, which `apart` more bytes follow elsewhere.
    #[inline]
    fn read(bytes: &'a [u8], apart: usize) -> Option<Self> {
        if *bytes.first()? == 0x45 {
            Self::read_v4(bytes, apart)
        } else {
            Self::read_v6(bytes, apart)
        }
    }

    #[inline]
    fn read_v4(bytes: &'a [u8], apart: usize) -> Option<Self> {
        let (header, transport) = bytes.split_first_chunk::<{ Ipv4Packet::MIN_HEADER_LEN }>()?;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let is_fragment = header[6] & 0x3F != 0 || header[7] != 0;
        if total != bytes.len() + apart || is_fragment || header[9] != IpProtocol::TCP.get() {
            return None;
        }
        if !Sum::new().add_bytes(header).is_valid() {
            return None;
        }
        let view = TcpSegment::parse(transport).ok()?;
        let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
        let destination = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
        Some(Self {
            tuple: FourTuple::v4((destination, source), ports(&view)),
            ecn: header[1] & 3,
            ip_len: header.len(),
            view,
        })
    }

    fn read_v6(bytes: &'a [u8], apart: usize) -> Option<Self> {
        let (header, transport) = bytes.split_first_chunk::<{ Ipv6Packet::HEADER_LEN }>()?;
        let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if header[0] >> 4 != 6 || transport.len() + apart != len || header[6] != IpProtocol::TCP.get() {
            return None;
        }
        let view = TcpSegment::parse(transport).ok()?;
        let [source, destination] = [8, 24].map(|at| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&header[at..at + 16]);
            Ipv6Addr::from(octets)
        });
        let (local, remote) = ports(&view);
        let tuple = FourTuple::new((destination, local).into(), (source, remote).into())?;
        Some(Self {
            tuple,
            ecn: header[1] >> 4 & 3,
            ip_len: header.len(),
            view,
        })
    }

    fn has_valid_checksum(&self, bytes: &[u8], apart: Option<&Bytes>) -> bool {
        let segment = &bytes[self.ip_len..];
        let len = segment.len() + apart.map_or(0, |data| data.len());
        let sum = self
            .tuple
            .pseudo_header()
            .sum(IpProtocol::TCP, len)
            .add_bytes(segment);
        // A header without data has an even length.
        apart.map_or(sum, |data| sum.add_bytes(data)).is_valid()
    }
}

/// Ours and the peer's.
#[inline]
fn ports(view: &TcpSegment<'_>) -> (u16, u16) {
    (view.destination_port().get(), view.source_port().get())
}
