//! Fragments: cut in any way they arrive whole, and what is wrong with them is answered or dropped.

use std::net::{IpAddr, SocketAddr};

use portolan_core::Port;
use portolan_core::table::{Device, Host};
use portolan_core::wire::{
    ChecksumFill, ExtensionRepr, Fragment, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet,
    IpPacket, IpProtocol, Ipv4Repr, Ipv6Repr, PseudoHeader, UdpRepr,
};
use portolan_stack::{Duration, Instant, Offload, Packet, Stack, StackConfig, UdpId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

const NOW: Instant = Instant::from_millis(1000);

fn stack() -> (Stack, UdpId) {
    let mut host = Host::new();
    let device = Device::new(1).unwrap();
    host.add_address(device, IpAddr::from([10, 0, 0, 1]), Some(24));
    host.add_address(device, "fd00::1".parse().unwrap(), Some(64));
    let mut stack = Stack::new(StackConfig::default(), host, [1; 16]);
    let socket = stack.bind_udp("[::]:53".parse().unwrap()).unwrap();
    (stack, socket)
}

/// A datagram from port 9 of 10.0.0.2 or fd00::2 to port 53 of the stack: the payload of IP.
fn datagram(v6: bool, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend(data);
    let pseudo = if v6 {
        PseudoHeader::new("fd00::2".parse().unwrap(), "fd00::1".parse().unwrap())
    } else {
        PseudoHeader::new([10, 0, 0, 2].into(), [10, 0, 0, 1].into())
    };
    let header = UdpRepr {
        source_port: Port::new(9),
        destination_port: Port::new(53),
    };
    header
        .emit(&mut bytes, ChecksumFill::Complete(pseudo.unwrap()))
        .unwrap();
    bytes
}

/// How a datagram is sent.
#[derive(Clone, Copy, Default)]
struct Way {
    v6: bool,
    identification: u32,
    ecn: u8,
    /// IPv6: destination options before the fragment header.
    options: bool,
}

/// The packet with `payload[start..end]`, of a datagram with this payload.
fn fragment(way: Way, payload: &[u8], start: usize, end: usize) -> Vec<u8> {
    piece(way, start as u16, end < payload.len(), &payload[start..end])
}

fn piece(way: Way, offset: u16, more: bool, data: &[u8]) -> Vec<u8> {
    if !way.v6 {
        let mut packet = vec![0; 20];
        packet.extend(data);
        let header = Ipv4Repr {
            dscp: 0,
            ecn: way.ecn,
            identification: way.identification as u16,
            dont_fragment: false,
            more_fragments: more,
            fragment_offset: offset,
            time_to_live: 64,
            protocol: IpProtocol::UDP,
            source: [10, 0, 0, 2].into(),
            destination: [10, 0, 0, 1].into(),
            options: &[],
            payload_len: data.len(),
        };
        header.emit(&mut packet).unwrap();
        return packet;
    }
    let mut extensions = Vec::new();
    if way.options {
        let options = ExtensionRepr::Other {
            kind: IpProtocol::DESTINATION_OPTIONS,
            body: &[1, 4, 0, 0, 0, 0],
        };
        extensions.resize(8, 0);
        options.emit(IpProtocol::FRAGMENT, &mut extensions).unwrap();
    }
    let fragment = ExtensionRepr::Fragment(Fragment {
        offset,
        more,
        identification: way.identification,
    });
    let at = extensions.len();
    extensions.resize(at + 8, 0);
    fragment.emit(IpProtocol::UDP, &mut extensions[at..]).unwrap();
    let mut packet = vec![0; 40];
    packet.extend(&extensions);
    packet.extend(data);
    let header = Ipv6Repr {
        dscp: 0,
        ecn: way.ecn,
        flow_label: 0,
        next_header: if way.options {
            IpProtocol::DESTINATION_OPTIONS
        } else {
            IpProtocol::FRAGMENT
        },
        hop_limit: 64,
        source: "fd00::2".parse().unwrap(),
        destination: "fd00::1".parse().unwrap(),
        payload_len: extensions.len() + data.len(),
    };
    header.emit(&mut packet).unwrap();
    packet
}

fn handle(stack: &mut Stack, bytes: &[u8]) {
    let offload = Offload::default();
    stack.handle_packet(NOW, Packet { bytes, offload });
}

fn receive(stack: &mut Stack, socket: UdpId) -> Option<(SocketAddr, Vec<u8>)> {
    let mut out = vec![0; 70_000];
    let datagram = stack.receive_datagram(socket, &mut out).unwrap()?;
    out.truncate(datagram.len);
    Some((datagram.remote, out))
}

fn sent(stack: &mut Stack, now: Instant) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 1500];
    let transmit = stack.poll_transmit(now, &mut buffer)?;
    buffer.truncate(transmit.len);
    Some(buffer)
}

proptest! {
    #[test]
    fn datagrams_cut_in_any_way_and_mixed_arrive_whole(
        datas in vec(vec(any::<u8>(), 0..9000), 1..4), cuts in vec(any::<Index>(), 1..20), swaps in vec(any::<Index>(), 1..60),
        v6: bool, options: bool,
    ) {
        let (mut stack, socket) = stack();
        let mut packets = Vec::new();
        for (identification, data) in datas.iter().enumerate() {
            let payload = datagram(v6, data);
            let way = Way { v6, options, identification: identification as u32, ..Way::default() };
            let mut edges: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len()) / 8 * 8).collect();
            edges.extend([0, payload.len()]);
            edges.sort_unstable();
            edges.dedup();
            packets.extend(edges.windows(2).map(|pair| fragment(way, &payload, pair[0], pair[1])));
        }
        for (place, swap) in swaps.iter().enumerate() {
            let len = packets.len();
            packets.swap(place % len, swap.index(len));
        }
        for packet in &packets {
            handle(&mut stack, packet);
        }
        let mut got: Vec<_> = std::iter::from_fn(|| receive(&mut stack, socket)).map(|(_, data)| data).collect();
        let mut expected = datas;
        got.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(got, expected);
        prop_assert_eq!(stack.buffered_bytes(), 0);
        prop_assert_eq!(sent(&mut stack, NOW), None);
    }

    #[test]
    fn any_fragments_leave_nothing_behind(
        pieces in vec((any::<u8>(), 0u16..8192, any::<bool>(), 0usize..2000, any::<u16>()), 0..100)
    ) {
        let (mut stack, socket) = stack();
        let data = [3; 2000];
        for (kind, offset, more, len, identification) in pieces {
            let way = Way {
                v6: kind & 1 != 0, options: kind & 2 != 0, ecn: kind >> 6, identification: u32::from(identification % 5),
            };
            handle(&mut stack, &piece(way, offset * 8, more, &data[..len]));
        }
        stack.handle_timeout(NOW + Duration::from_secs(61));
        while receive(&mut stack, socket).is_some() {}
        while sent(&mut stack, NOW).is_some() {}
        prop_assert_eq!(stack.buffered_bytes(), 0);
        prop_assert_eq!(stack.poll_timeout(), None);
    }
}

#[test]
fn the_longest_datagrams_arrive() {
    for (v6, longest) in [(false, 65_535 - 20 - 8), (true, 65_535 - 8)] {
        let (mut stack, socket) = stack();
        let way = Way { v6, ..Way::default() };
        let data = vec![7; longest];
        let payload = datagram(v6, &data);
        for start in (0..payload.len()).step_by(1480) {
            handle(
                &mut stack,
                &fragment(way, &payload, start, payload.len().min(start + 1480)),
            );
        }
        let (remote, got) = receive(&mut stack, socket).unwrap();
        assert_eq!((remote.port(), got == data), (9, true));
        assert_eq!(stack.counters().datagrams_reassembled, 1);
    }
}

#[test]
fn an_overlap_drops_the_datagram() {
    for v6 in [false, true] {
        let (mut stack, socket) = stack();
        let payload = datagram(v6, &[1; 100]);
        let way = Way { v6, ..Way::default() };
        for (start, end) in [(0, 48), (40, 80), (48, 80), (80, 108)] {
            handle(&mut stack, &fragment(way, &payload, start, end));
        }
        assert_eq!(receive(&mut stack, socket), None);
        assert_eq!(stack.counters().reassembly_overlaps, 1);
        // What came behind the overlap waits for its beginning, which does not come.
        stack.handle_timeout(NOW + Duration::from_secs(60));
        assert_eq!(
            (stack.counters().reassembly_timeouts, stack.buffered_bytes()),
            (1, 0)
        );
    }
}

#[test]
fn a_lone_fragment_header_makes_no_fragment() {
    // RFC 6946: it does not meet a real fragment with the same identification.
    let (mut stack, socket) = stack();
    let way = Way {
        v6: true,
        ..Way::default()
    };
    let payload = datagram(true, b"atomic");
    handle(&mut stack, &piece(way, 8, true, &[0; 8]));
    handle(&mut stack, &piece(way, 0, false, &payload));
    assert_eq!(receive(&mut stack, socket).unwrap().1, b"atomic");
    assert_eq!(stack.counters().fragments, 1);
}

#[test]
fn the_sender_is_told_when_the_rest_does_not_come() {
    for (v6, life) in [(false, 30), (true, 60)] {
        let (mut stack, _) = stack();
        let way = Way { v6, ..Way::default() };
        let payload = datagram(v6, &[1; 1000]);
        let first = fragment(way, &payload, 0, 800);
        handle(&mut stack, &first);
        let end = NOW + Duration::from_secs(life);
        assert_eq!(stack.poll_timeout(), Some(end));
        stack.handle_timeout(end);
        let error = sent(&mut stack, end).unwrap();
        let ip = IpPacket::parse(&error).unwrap();
        let sender: IpAddr = if v6 {
            "fd00::2".parse().unwrap()
        } else {
            [10, 0, 0, 2].into()
        };
        assert_eq!(ip.destination(), sender);
        if v6 {
            let view = Icmpv6Packet::parse(ip.payload()).unwrap();
            assert!(view.has_valid_checksum(ip.pseudo_header()));
            assert_eq!(view.message(), Icmpv6Message::TimeExceeded { code: 1 });
            assert_eq!(view.payload(), first);
        } else {
            let view = Icmpv4Packet::parse(ip.payload()).unwrap();
            assert!(view.has_valid_checksum());
            assert_eq!(view.message(), Icmpv4Message::TimeExceeded { code: 1 });
            assert_eq!((error.len(), view.payload()), (576, &first[..548]));
        }
        // Without the first fragment nobody is told.
        handle(&mut stack, &fragment(way, &payload, 800, 1008));
        stack.handle_timeout(NOW + Duration::from_secs(life));
        assert_eq!(sent(&mut stack, end), None);
        assert_eq!(stack.counters().reassembly_timeouts, 2);
    }
}

#[test]
fn wrong_ipv6_fragments_are_answered() {
    let way = Way {
        v6: true,
        ..Way::default()
    };
    for (offset, more, len, code, pointer) in [
        // RFC 8200, section 4.5: no multiple of 8, too long in the end; RFC 7112: headers cut.
        (8, true, 9, 0, 4),
        (65_528, false, 100, 0, 42),
        (0, true, 0, 3, 0),
    ] {
        let (mut stack, _) = stack();
        handle(&mut stack, &piece(way, offset, more, &[0; 100][..len]));
        let error = sent(&mut stack, NOW).unwrap();
        let ip = IpPacket::parse(&error).unwrap();
        let view = Icmpv6Packet::parse(ip.payload()).unwrap();
        assert_eq!(view.message(), Icmpv6Message::ParameterProblem { code, pointer });
        assert_eq!(stack.counters().malformed, 1);
        assert_eq!(stack.buffered_bytes(), 0);
    }
}

#[test]
fn unknown_protocols_are_answered() {
    let (mut stack, _) = stack();
    let mut packet = piece(Way::default(), 0, false, &[1; 40]);
    packet[9] = 200;
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum = portolan_core::wire::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    handle(&mut stack, &packet);
    let error = sent(&mut stack, NOW).unwrap();
    let ip = IpPacket::parse(&error).unwrap();
    let view = Icmpv4Packet::parse(ip.payload()).unwrap();
    let message = Icmpv4Message::DestinationUnreachable {
        code: 2,
        next_hop_mtu: 0,
    };
    assert_eq!((view.message(), view.payload()), (message, &packet[..]));

    let way = Way {
        v6: true,
        options: true,
        ..Way::default()
    };
    let mut packet = piece(way, 0, false, &[1; 40]);
    packet[48] = 200;
    handle(&mut stack, &packet);
    let error = sent(&mut stack, NOW).unwrap();
    let ip = IpPacket::parse(&error).unwrap();
    let view = Icmpv6Packet::parse(ip.payload()).unwrap();
    assert_eq!(
        view.message(),
        Icmpv6Message::ParameterProblem { code: 1, pointer: 48 }
    );
}

#[test]
fn no_error_answers_an_error() {
    let (mut stack, _) = stack();
    // An ICMP error in fragments of which the second does not come.
    let mut packet = piece(Way::default(), 0, true, &[3; 40]);
    packet[9] = 1;
    packet[10..12].copy_from_slice(&[0, 0]);
    let sum = portolan_core::wire::checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    handle(&mut stack, &packet);
    let end = NOW + Duration::from_secs(30);
    stack.handle_timeout(end);
    assert_eq!(stack.counters().reassembly_timeouts, 1);
    assert_eq!(sent(&mut stack, end), None);
}
