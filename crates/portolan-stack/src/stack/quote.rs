//! The start of a packet that came, for an ICMP error about it.

use std::net::{IpAddr, SocketAddr};

use portolan_core::Port;
use portolan_core::demux::FourTuple;
use portolan_core::wire::{ChecksumFill, IpProtocol, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpRepr, TcpSegment};

use super::output::ip_header_len;
use crate::tcp::Segment;

/// The longest IP header that is written.
const LONGEST_IP_HEADER: usize = Ipv6Packet::HEADER_LEN;
/// A TCP header without options behind the longer of both IP headers.
pub(super) const LONGEST_QUOTE: usize = LONGEST_IP_HEADER + TcpSegment::MIN_HEADER_LEN;
/// The longest IPv4 packet, and the longest payload of an IPv6 one.
const LONGEST: usize = 65_535;

/// Writes the headers of a segment as the peer sent it, without options and data, and says how long they are.
/// Addresses, ports and numbers are right, which is what a peer looks for; the rest is made anew.
pub(super) fn quote(tuple: &FourTuple, segment: &Segment<'_>, buffer: &mut [u8; LONGEST_QUOTE]) -> usize {
    let mut transport = [0; TcpSegment::MIN_HEADER_LEN];
    let (from, to): (SocketAddr, SocketAddr) = (tuple.remote(), tuple.local());
    let header = TcpRepr {
        source_port: Port::new(from.port()),
        destination_port: Port::new(to.port()),
        seq: segment.seq,
        ack: segment.ack,
        flags: segment.flags,
        window: segment.window,
        urgent_pointer: 0,
        options: &[],
    };
    let written = header.emit(&mut transport, ChecksumFill::Zero);
    debug_assert!(written.is_ok(), "the buffer is of the header's length");
    quote_packet(tuple, IpProtocol::TCP, &transport, 0, &[], buffer)
}

/// Writes a packet as the peer sent it, as far as it is known and there is room: its transport header, how many bytes of
/// data followed it, and the first of those. Says how much it wrote.
pub(super) fn quote_packet(
    tuple: &FourTuple,
    protocol: IpProtocol,
    header: &[u8],
    data_len: usize,
    start: &[u8],
    buffer: &mut [u8],
) -> usize {
    let ip_len = ip_header_len(tuple);
    let (ip, payload) = buffer.split_at_mut(ip_len);
    let payload_len = (header.len() + data_len).min(LONGEST - LONGEST_IP_HEADER);
    let known = header.iter().chain(&start[..start.len().min(data_len)]);
    let mut len = 0;
    for (to, &from) in payload.iter_mut().zip(known) {
        *to = from;
        len += 1;
    }
    let written = match (tuple.remote().ip(), tuple.local().ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Ipv4Repr {
            dscp: 0,
            ecn: 0,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            time_to_live: 64,
            protocol,
            source,
            destination,
            options: &[],
            payload_len,
        }
        .emit(ip),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Repr {
            dscp: 0,
            ecn: 0,
            flow_label: 0,
            next_header: protocol,
            hop_limit: 64,
            source,
            destination,
            payload_len,
        }
        .emit(ip),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return 0,
    };
    debug_assert!(
        written.is_ok(),
        "there is room for the header, and the length is bounded"
    );
    ip_len + len
}
