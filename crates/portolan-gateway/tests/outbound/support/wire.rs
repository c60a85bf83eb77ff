//! Packets by hand, onto the wire to the gateway.

use std::future::poll_fn;
use std::net::SocketAddr;

use portolan_core::Port;
use portolan_core::wire::{
    ChecksumFill, IpProtocol, Ipv4Repr, Ipv6Repr, PseudoHeader, SeqNum, TcpFlags, TcpRepr, TcpSegment,
    UdpRepr,
};
use portolan_net::link::{Batch, Link as _, MemoryLink};
use portolan_stack::{Offload, Packet};

/// Puts a packet onto the wire.
pub(crate) async fn send(link: &mut MemoryLink, bytes: &[u8]) {
    let mut batch = Batch::new(1, bytes.len());
    assert!(batch.push(Packet {
        bytes,
        offload: Offload::default(),
    }));
    poll_fn(|cx| link.poll_send(cx, &mut batch)).await.unwrap();
}

/// A SYN.
pub(crate) fn syn(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let repr = TcpRepr {
        source_port: Port::new(source.port()),
        destination_port: Port::new(destination.port()),
        seq: SeqNum::new(1),
        ack: SeqNum::new(0),
        flags: TcpFlags::SYN,
        window: 65_535,
        urgent_pointer: 0,
        options: &[],
    };
    let mut segment = [0; TcpSegment::MIN_HEADER_LEN];
    let pseudo = PseudoHeader::new(source.ip(), destination.ip()).unwrap();
    repr.emit(&mut segment, ChecksumFill::Complete(pseudo)).unwrap();
    in_ip(source, destination, IpProtocol::TCP, &segment)
}

/// An IP packet with this in it.
pub(crate) fn in_ip(
    source: SocketAddr,
    destination: SocketAddr,
    protocol: IpProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0; 40 + payload.len()];
    let len = match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => Ipv4Repr {
            dscp: 0,
            ecn: 0,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            time_to_live: 64,
            protocol,
            source: *source.ip(),
            destination: *destination.ip(),
            options: &[],
            payload_len: payload.len(),
        }
        .emit(&mut packet),
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => Ipv6Repr {
            dscp: 0,
            ecn: 0,
            flow_label: 0,
            next_header: protocol,
            hop_limit: 64,
            source: *source.ip(),
            destination: *destination.ip(),
            payload_len: payload.len(),
        }
        .emit(&mut packet),
        _ => panic!("both ends of a packet are of one family"),
    }
    .unwrap();
    packet.truncate(len);
    packet.extend_from_slice(payload);
    packet
}

/// A datagram without data.
pub(crate) fn datagram(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut bytes = [0; 8];
    let repr = UdpRepr {
        source_port: Port::new(source.port()),
        destination_port: Port::new(destination.port()),
    };
    let pseudo = PseudoHeader::new(source.ip(), destination.ip()).unwrap();
    repr.emit(&mut bytes, ChecksumFill::Complete(pseudo)).unwrap();
    in_ip(source, destination, IpProtocol::UDP, &bytes)
}
