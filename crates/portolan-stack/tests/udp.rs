//! UDP, ICMP echo and port unreachable between two stacks.

use std::net::{IpAddr, SocketAddr};

use portolan_core::table::{Device, Host};
use portolan_core::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpPacket, IpProtocol};
use portolan_stack::{
    Datagram, Event, Instant, Offload, Packet, SendError, Stack, StackConfig, UdpId, UdpOption,
};

fn stack(last: u8) -> Stack {
    let mut host = Host::new();
    let device = Device::new(1).unwrap();
    host.add_address(device, IpAddr::from([10, 0, 0, last]), Some(24));
    host.add_address(
        device,
        IpAddr::from([0xFD00, 0, 0, 0, 0, 0, 0, u16::from(last)]),
        Some(64),
    );
    Stack::new(StackConfig::default(), host, [last; 16])
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Carries everything that either stack sends to the other, and gives the packets.
fn carry(now: Instant, stacks: [&mut Stack; 2]) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut buffer = [0; 1500];
    loop {
        let before = packets.len();
        for from in 0..2 {
            while let Some(transmit) = stacks[from].poll_transmit(now, &mut buffer) {
                packets.push(buffer[..transmit.len].to_vec());
                let (bytes, offload) = (&buffer[..transmit.len], transmit.offload);
                stacks[1 - from].handle_packet(now, Packet { bytes, offload });
            }
        }
        if packets.len() == before {
            return packets;
        }
    }
}

fn receive(stack: &mut Stack, id: UdpId) -> Option<(Datagram, Vec<u8>)> {
    let mut out = vec![0; 2000];
    let datagram = stack.receive_datagram(id, &mut out).unwrap()?;
    out.truncate(datagram.len);
    Some((datagram, out))
}

#[test]
fn datagrams_arrive_whole_and_are_answered_from_where_they_came_to() {
    let (mut a, mut b) = (stack(1), stack(2));
    for (server, client, wildcard) in [
        ("10.0.0.2:53", "10.0.0.1:0", "0.0.0.0:53"),
        ("[fd00::2]:54", "[fd00::1]:0", "[::]:54"),
    ] {
        let (server, client) = (address(server), address(client));
        let listening = b.bind_udp(address(wildcard)).unwrap();
        let asking = a.bind_udp(client).unwrap();
        let client = a.udp_local(asking).unwrap();
        assert_ne!(client.port(), 0);
        for question in [&b"what?"[..], b"", &[9; 1400]] {
            a.send_datagram(asking, client.ip(), server, question).unwrap();
            carry(Instant::START, [&mut a, &mut b]);
            assert_eq!(b.poll_event(), Some(Event::Datagrams(listening)));
            let (datagram, bytes) = receive(&mut b, listening).unwrap();
            assert_eq!(
                (datagram.local, datagram.remote, &bytes[..]),
                (server, client, question)
            );
            b.send_datagram(listening, datagram.local.ip(), datagram.remote, b"that")
                .unwrap();
            carry(Instant::START, [&mut a, &mut b]);
            let (answer, bytes) = receive(&mut a, asking).unwrap();
            assert_eq!(
                (answer.local, answer.remote, &bytes[..]),
                (client, server, &b"that"[..])
            );
            assert_eq!(receive(&mut a, asking), None);
        }
    }
    assert_eq!((a.buffered_bytes(), b.buffered_bytes()), (0, 0));
}

#[test]
fn what_does_not_fit_is_cut_refused_or_counted() {
    let (mut a, mut b) = (stack(1), stack(2));
    let (from, to) = (address("10.0.0.1:1000"), address("10.0.0.2:53"));
    let listening = b.bind_udp(to).unwrap();
    let asking = a.bind_udp(from).unwrap();
    a.send_datagram(asking, from.ip(), to, b"longer than three")
        .unwrap();
    carry(Instant::START, [&mut a, &mut b]);
    let mut three = [0; 3];
    let datagram = b.receive_datagram(listening, &mut three).unwrap().unwrap();
    assert_eq!((datagram.len, &three), (17, b"lon"));
    assert_eq!(b.receive_datagram(listening, &mut three), Ok(None));

    let long = a.send_datagram(asking, from.ip(), to, &[0; 65_508]);
    assert_eq!(
        long,
        Err(SendError::TooLong {
            len: 65_508,
            limit: 65_507
        })
    );
    for (source, remote) in [
        ("0.0.0.0", to),
        ("10.0.0.9", to),
        ("10.0.0.1", address("[fd00::2]:53")),
    ] {
        let source: IpAddr = source.parse().unwrap();
        let wrong = a.send_datagram(asking, source, remote, b"");
        assert_eq!(
            wrong,
            Err(SendError::WrongSource {
                source_address: source,
                destination: remote
            })
        );
    }

    let mut sent = 0;
    while a.send_datagram(asking, from.ip(), to, &[0; 872]).is_ok() {
        sent += 1;
    }
    // 208 KiB, each datagram with 128 bytes more.
    assert_eq!(sent, 208 * 1024 / 1000);
    carry(Instant::START, [&mut a, &mut b]);
    a.send_datagram(asking, from.ip(), to, &[0; 872]).unwrap();
    carry(Instant::START, [&mut a, &mut b]);
    assert_eq!(b.counters().datagrams_dropped, 1);
    b.close_udp(listening).unwrap();
    assert_eq!(b.buffered_bytes(), 0);
    assert!(b.receive_datagram(listening, &mut three).is_err());
    assert!(b.bind_udp(to).is_ok(), "the port is free at once");
}

#[test]
fn a_broadcast_reaches_a_socket_on_the_wildcard() {
    let (mut a, mut b) = (stack(1), stack(2));
    let first = b.bind_udp(address("0.0.0.0:67")).unwrap();
    let asking = a.bind_udp(address("10.0.0.1:68")).unwrap();
    let source = IpAddr::from([10, 0, 0, 1]);
    let destination = address("10.0.0.255:67");
    // As on Linux it must be allowed.
    assert_eq!(
        a.send_datagram(asking, source, destination, b"anyone?"),
        Err(SendError::Broadcast { destination })
    );
    a.set_udp(asking, UdpOption::Broadcast(true)).unwrap();
    a.send_datagram(asking, source, destination, b"anyone?").unwrap();
    let destination = address("10.0.0.2:0");
    assert_eq!(
        a.send_datagram(asking, source, destination, b"nobody"),
        Err(SendError::NoPort { destination })
    );
    carry(Instant::START, [&mut a, &mut b]);
    let (datagram, bytes) = receive(&mut b, first).unwrap();
    assert_eq!(
        (datagram.local, &bytes[..]),
        (address("10.0.0.255:67"), &b"anyone?"[..])
    );
}

#[test]
fn a_closed_port_is_told_with_the_packet_quoted_and_not_too_often() {
    let (mut a, mut b) = (stack(1), stack(2));
    for (from, to) in [("10.0.0.1:1000", "10.0.0.2:9"), ("[fd00::1]:1000", "[fd00::2]:9")] {
        let (from, to) = (address(from), address(to));
        let asking = a.bind_udp(from).unwrap();
        for _ in 0..10 {
            a.send_datagram(asking, from.ip(), to, &[5; 1300]).unwrap();
        }
        let packets = carry(Instant::START, [&mut a, &mut b]);
        let errors = &packets[10..];
        assert_eq!(errors.len(), 6);
        for error in errors {
            let ip = IpPacket::parse(error).unwrap();
            assert_eq!((ip.source(), ip.destination()), (to.ip(), from.ip()));
            let quoted = match ip.protocol() {
                IpProtocol::ICMP => {
                    let view = Icmpv4Packet::parse(ip.payload()).unwrap();
                    assert!(view.has_valid_checksum());
                    assert_eq!(error.len(), 576);
                    let message = Icmpv4Message::DestinationUnreachable {
                        code: 3,
                        next_hop_mtu: 0,
                    };
                    assert_eq!(view.message(), message);
                    view.quoted().unwrap().unwrap()
                }
                _ => {
                    let view = Icmpv6Packet::parse(ip.payload()).unwrap();
                    assert!(view.has_valid_checksum(ip.pseudo_header()));
                    assert_eq!(error.len(), 1280);
                    assert_eq!(view.message(), Icmpv6Message::DestinationUnreachable { code: 4 });
                    view.quoted().unwrap().unwrap()
                }
            };
            assert_eq!(quoted.ports().unwrap().1.get(), 9);
        }
    }
    assert_eq!(b.counters().no_socket, 20);
    assert_eq!(b.counters().answers_dropped, 8);
}

#[test]
fn bad_and_missing_checksums() {
    let (mut a, mut b) = (stack(1), stack(2));
    for (from, to, takes_none) in [
        ("10.0.0.1:1000", "10.0.0.2:53", true),
        ("[fd00::1]:1000", "[fd00::2]:53", false),
    ] {
        let (from, to) = (address(from), address(to));
        let listening = b.bind_udp(to).unwrap();
        let asking = a.bind_udp(from).unwrap();
        a.send_datagram(asking, from.ip(), to, b"sum").unwrap();
        let mut buffer = [0; 1500];
        let len = a.poll_transmit(Instant::START, &mut buffer).unwrap().len;
        let place = if to.is_ipv4() { 26 } else { 46 };
        for (sum, arrives) in [([1, 2], false), ([0, 0], takes_none)] {
            buffer[place..place + 2].copy_from_slice(&sum);
            let (bytes, offload) = (&buffer[..len], Offload::default());
            b.handle_packet(Instant::START, Packet { bytes, offload });
            assert_eq!(receive(&mut b, listening).is_some(), arrives, "{to} {sum:?}");
            assert_eq!(b.poll_transmit(Instant::START, &mut [0; 1500]), None);
        }
    }
    assert_eq!(b.counters().bad_checksums, 3);
}

#[test]
fn an_echo_is_answered() {
    let mut b = stack(2);
    for v6 in [false, true] {
        let request = echo_request(v6);
        let mut buffer = [0; 1500];
        let (bytes, offload) = (&request[..], Offload::default());
        b.handle_packet(Instant::START, Packet { bytes, offload });
        let len = b.poll_transmit(Instant::START, &mut buffer).unwrap().len;
        let (asked, ip) = (
            IpPacket::parse(&request).unwrap(),
            IpPacket::parse(&buffer[..len]).unwrap(),
        );
        assert_eq!(
            (ip.source(), ip.destination()),
            (asked.destination(), asked.source())
        );
        if v6 {
            let view = Icmpv6Packet::parse(ip.payload()).unwrap();
            assert!(view.has_valid_checksum(ip.pseudo_header()));
            assert_eq!(
                view.message(),
                Icmpv6Message::EchoReply {
                    identifier: 7,
                    sequence: 8
                }
            );
            assert_eq!(view.payload(), b"ping");
        } else {
            let view = Icmpv4Packet::parse(ip.payload()).unwrap();
            assert!(view.has_valid_checksum());
            assert_eq!(
                view.message(),
                Icmpv4Message::EchoReply {
                    identifier: 7,
                    sequence: 8
                }
            );
            assert_eq!(view.payload(), b"ping");
        }
        // One bit wrong, and it is dropped.
        let mut wrong = request;
        *wrong.last_mut().unwrap() ^= 1;
        b.handle_packet(
            Instant::START,
            Packet {
                bytes: &wrong,
                offload,
            },
        );
        assert_eq!(b.poll_transmit(Instant::START, &mut buffer), None);
    }
    assert_eq!(b.counters().bad_checksums, 2);
}

/// "ping" to stack 2, from 10.0.0.1 or fd00::1.
fn echo_request(v6: bool) -> Vec<u8> {
    use portolan_core::wire::{ChecksumFill, Ipv4Repr, Ipv6Repr};
    if v6 {
        let mut packet = vec![0; 48];
        packet.extend(b"ping");
        let ip = Ipv6Repr {
            dscp: 0,
            ecn: 0,
            flow_label: 0,
            next_header: IpProtocol::ICMPV6,
            hop_limit: 64,
            source: "fd00::1".parse().unwrap(),
            destination: "fd00::2".parse().unwrap(),
            payload_len: 12,
        };
        ip.emit(&mut packet).unwrap();
        let pseudo = IpPacket::parse(&packet).unwrap().pseudo_header();
        let message = Icmpv6Message::EchoRequest {
            identifier: 7,
            sequence: 8,
        };
        message
            .emit(&mut packet[40..], ChecksumFill::Complete(pseudo))
            .unwrap();
        return packet;
    }
    let mut packet = vec![0; 28];
    packet.extend(b"ping");
    let ip = Ipv4Repr {
        dscp: 0,
        ecn: 0,
        identification: 1,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        time_to_live: 64,
        protocol: IpProtocol::ICMP,
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
        options: &[],
        payload_len: 12,
    };
    ip.emit(&mut packet).unwrap();
    let message = Icmpv4Message::EchoRequest {
        identifier: 7,
        sequence: 8,
    };
    message.emit(&mut packet[20..]).unwrap();
    packet
}
