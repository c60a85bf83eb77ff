//! UDP sockets that are connected, hear of errors, send long datagrams, or talk to many.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use portolan_core::table::{Device, Host, SocketOption, StateError};
use portolan_core::wire::{IpPacket, Ipv4Packet, checksum};
use portolan_stack::{
    DontFragment, Event, HeaderFields, Instant, Offload, Packet, PathError, Pieces, ReceiveError, SendError,
    Stack, StackConfig, UdpId, UdpOption,
};

const NOW: Instant = Instant::from_millis(1000);

fn stack_with(last: u8, config: StackConfig) -> Stack {
    let mut host = Host::new();
    let device = Device::new(1).unwrap();
    host.add_address(device, IpAddr::from([10, 0, 0, last]), Some(24));
    let v6 = IpAddr::from([0xFD00, 0, 0, 0, 0, 0, 0, u16::from(last)]);
    host.add_address(device, v6, Some(64));
    Stack::new(config, host, [last; 16])
}

fn stack(last: u8) -> Stack {
    stack_with(last, StackConfig::default())
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What the stack sends.
fn sent(stack: &mut Stack) -> Vec<(Vec<u8>, Offload)> {
    let mut buffer = vec![0; stack.max_packet_len()];
    std::iter::from_fn(|| {
        let transmit = stack.poll_transmit(NOW, &mut buffer)?;
        Some((buffer[..transmit.len].to_vec(), transmit.offload))
    })
    .collect()
}

fn handle(stack: &mut Stack, bytes: &[u8]) {
    let offload = Offload::default();
    stack.handle_packet(NOW, Packet { bytes, offload });
}

/// Carries everything between the stacks, and gives the lengths of the packets.
fn carry(a: &mut Stack, b: &mut Stack) -> Vec<usize> {
    let mut lens = Vec::new();
    loop {
        let before = lens.len();
        for (bytes, offload) in sent(a) {
            lens.push(bytes.len());
            b.handle_packet(
                NOW,
                Packet {
                    bytes: &bytes,
                    offload,
                },
            );
        }
        for (bytes, offload) in sent(b) {
            lens.push(bytes.len());
            a.handle_packet(
                NOW,
                Packet {
                    bytes: &bytes,
                    offload,
                },
            );
        }
        if lens.len() == before {
            return lens;
        }
    }
}

fn receive(stack: &mut Stack, id: UdpId) -> Option<Vec<u8>> {
    let mut out = vec![0; 70_000];
    let datagram = stack.receive_datagram(id, &mut out).unwrap()?;
    out.truncate(datagram.len);
    Some(out)
}

fn events(stack: &mut Stack) -> Vec<Event> {
    std::iter::from_fn(|| stack.poll_event()).collect()
}

/// An ICMP error from 192.0.2.1 that quotes an IPv4 packet.
fn icmp_error(kind: u8, code: u8, mtu: u16, packet: &[u8]) -> Vec<u8> {
    let quoted = &packet[..28];
    let mut error = packet[..20].to_vec();
    error.extend([kind, code, 0, 0, 0, 0]);
    error.extend(mtu.to_be_bytes());
    error.extend(quoted);
    let sum = checksum(&error[20..]);
    error[22..24].copy_from_slice(&sum.to_be_bytes());
    let (total, destination) = ((error.len() as u16).to_be_bytes(), packet[12..16].to_vec());
    error[2..4].copy_from_slice(&total);
    error[9] = 1;
    error[12..16].copy_from_slice(&[192, 0, 2, 1]);
    error[16..20].copy_from_slice(&destination);
    error[10..12].copy_from_slice(&[0, 0]);
    let sum = checksum(&error[..20]);
    error[10..12].copy_from_slice(&sum.to_be_bytes());
    error
}

#[test]
fn a_connected_socket_hears_its_peer_alone() {
    for (here, there, other) in [
        ("10.0.0.1", "10.0.0.2:53", "10.0.0.2:54"),
        ("fd00::1", "[fd00::2]:53", "[fd00::2]:54"),
    ] {
        let (mut a, mut b) = (stack(1), stack(2));
        let client = a.bind_udp(SocketAddr::new(ip(here), 0)).unwrap();
        assert_eq!(a.send_to_peer(client, b"who?"), Err(SendError::NotConnected));
        a.connect_udp(client, ip(here), address(there)).unwrap();
        assert_eq!(a.udp_remote(client), Some(address(there)));
        let local = a.udp_local(client).unwrap();
        let server = b.bind_udp(address(there)).unwrap();
        let stranger = b.bind_udp(address(other)).unwrap();
        let source = address(there).ip();
        b.send_datagram(server, source, local, b"known").unwrap();
        b.send_datagram(stranger, source, local, b"unknown").unwrap();
        a.send_to_peer(client, b"hello").unwrap();
        carry(&mut a, &mut b);
        assert_eq!(receive(&mut a, client).unwrap(), b"known");
        assert_eq!(receive(&mut a, client), None);
        assert_eq!(receive(&mut b, server).unwrap(), b"hello");
        assert_eq!(a.counters().no_socket, 1);

        a.disconnect_udp(client).unwrap();
        assert_eq!(a.udp_remote(client), None);
        let local = a.udp_local(client).unwrap();
        b.send_datagram(stranger, source, local, b"unknown").unwrap();
        carry(&mut a, &mut b);
        assert_eq!(receive(&mut a, client).unwrap(), b"unknown");
    }
}

#[test]
fn a_closed_port_is_told_to_a_connected_socket_once() {
    for (here, there) in [("10.0.0.1", "10.0.0.2:9"), ("fd00::1", "[fd00::2]:9")] {
        let (mut a, mut b) = (stack(1), stack(2));
        let client = a.bind_udp(SocketAddr::new(ip(here), 0)).unwrap();
        a.connect_udp(client, ip(here), address(there)).unwrap();
        let refused = PathError::PortUnreachable;
        a.send_to_peer(client, b"one").unwrap();
        carry(&mut a, &mut b);
        assert_eq!(events(&mut a), [Event::DatagramError(client)]);
        assert_eq!(a.send_to_peer(client, b"two"), Err(SendError::Path(refused)));
        assert_eq!(a.send_to_peer(client, b"three"), Ok(()));
        carry(&mut a, &mut b);
        let told = a.receive_datagram(client, &mut [0; 9]);
        assert_eq!(told, Err(ReceiveError::Path(refused)));
        assert_eq!(a.receive_datagram(client, &mut [0; 9]), Ok(None));
        assert_eq!(a.next_udp_error(client), None, "nobody asked");
    }
}

/// What Linux was seen to do: a connected socket hears of hard errors, one that asked for all hears of all.
#[test]
fn errors_reach_who_wants_them() {
    use PathError::{HostProhibited, HostUnreachable, PortUnreachable, TooBig};
    for (is_connected, reports, expected) in [
        (
            true,
            false,
            [Some(PortUnreachable), None, Some(HostProhibited), Some(TooBig)],
        ),
        (false, false, [None; 4]),
        (
            false,
            true,
            [PortUnreachable, HostUnreachable, HostProhibited, TooBig].map(Some),
        ),
        (
            true,
            true,
            [PortUnreachable, HostUnreachable, HostProhibited, TooBig].map(Some),
        ),
    ] {
        let mut a = stack(1);
        let (here, there) = (address("10.0.0.1:1000"), address("10.0.0.2:53"));
        let socket = a.bind_udp(here).unwrap();
        if is_connected {
            a.connect_udp(socket, here.ip(), there).unwrap();
        }
        a.set_udp(socket, UdpOption::ReportErrors(reports)).unwrap();
        for ((kind, code), expected) in [(3, 3), (3, 1), (3, 13), (3, 4)].into_iter().zip(expected) {
            a.send_datagram(socket, here.ip(), there, b"data").unwrap();
            let (packet, _) = sent(&mut a).remove(0);
            handle(&mut a, &icmp_error(kind, code, 1000, &packet));
            let told = a.receive_datagram(socket, &mut [0; 9]);
            assert_eq!(told.err(), expected.map(ReceiveError::Path), "{kind}/{code}");
            let queued = a.next_udp_error(socket);
            assert_eq!(queued.map(|told| told.error), expected.filter(|_| reports));
            if let Some(queued) = queued {
                assert_eq!((queued.remote, queued.reporter), (there, ip("192.0.2.1")));
                assert_eq!(queued.mtu, (code == 4).then_some(1000));
            }
            // Of what the socket never sent, nothing.
            let mut strange = packet;
            strange[21] ^= 1;
            handle(&mut a, &icmp_error(kind, code, 1000, &strange));
            assert_eq!(a.receive_datagram(socket, &mut [0; 9]), Ok(None));
        }
    }
}

#[test]
fn errors_that_nobody_takes_are_bounded() {
    let mut a = stack(1);
    let (here, there) = (address("10.0.0.1:1000"), address("10.0.0.2:53"));
    let socket = a.bind_udp(here).unwrap();
    a.set_udp(socket, UdpOption::ReportErrors(true)).unwrap();
    a.send_datagram(socket, here.ip(), there, b"data").unwrap();
    let (packet, _) = sent(&mut a).remove(0);
    for code in (0..100).map(|n| n % 4) {
        handle(&mut a, &icmp_error(3, code, 1000, &packet));
    }
    assert_eq!(std::iter::from_fn(|| a.next_udp_error(socket)).count(), 64);
}

#[test]
fn long_datagrams_go_in_fragments() {
    for (here, there, longest, headers) in [
        ("10.0.0.1", "10.0.0.2:53", 65_507, 20),
        ("fd00::1", "[fd00::2]:53", 65_527, 48),
    ] {
        let (mut a, mut b) = (stack(1), stack(2));
        let server = b.bind_udp(address(there)).unwrap();
        let client = a.bind_udp(SocketAddr::new(ip(here), 0)).unwrap();
        for len in [1473, 3000, longest] {
            let data: Vec<u8> = (0..len).map(|n| (n % 249) as u8).collect();
            a.send_datagram(client, ip(here), address(there), &data).unwrap();
            let lens = carry(&mut a, &mut b);
            let pieces = (len + 8usize).div_ceil((1500 - headers) / 8 * 8);
            assert_eq!(lens.len(), pieces);
            assert!(lens.iter().all(|&len| len <= 1500));
            assert!(receive(&mut b, server) == Some(data));
        }
        let long = a.send_datagram(client, ip(here), address(there), &vec![0; longest + 1]);
        assert_eq!(
            long,
            Err(SendError::TooLong {
                len: longest + 1,
                limit: longest
            })
        );
        // Two at once have different identifications.
        for fill in [1, 2] {
            a.send_datagram(client, ip(here), address(there), &[fill; 3000])
                .unwrap();
        }
        let mut packets = sent(&mut a);
        packets.reverse();
        for (packet, _) in &packets {
            handle(&mut b, packet);
        }
        let mut got = [receive(&mut b, server).unwrap(), receive(&mut b, server).unwrap()];
        got.sort();
        assert!(got == [vec![1; 3000], vec![2; 3000]]);
        assert_eq!((a.buffered_bytes(), b.buffered_bytes()), (0, 0));
    }
}

#[test]
fn a_socket_says_whether_routers_may_cut() {
    let (here, there) = (address("10.0.0.1:1000"), address("10.0.0.2:53"));
    // Policy; the longest packets and whether they may be cut, before and after the path is told to be narrower.
    for (policy, before, after) in [
        (DontFragment::Want, (1500, false), (1000, false)),
        (DontFragment::Do, (1500, false), (1000, false)),
        (DontFragment::Dont, (1500, true), (1500, true)),
        (DontFragment::Probe, (1500, false), (1500, false)),
    ] {
        let mut a = stack(1);
        let socket = a.bind_udp(here).unwrap();
        a.set_udp(socket, UdpOption::DontFragment(policy)).unwrap();
        let probe = |a: &mut Stack, len: usize| {
            a.send_datagram(socket, here.ip(), there, &vec![1; len - 28])?;
            let packets = sent(a);
            let first = Ipv4Packet::parse(&packets[0].0).unwrap();
            Ok((packets.len(), !first.dont_fragment()))
        };
        assert_eq!(probe(&mut a, before.0), Ok((1, before.1)));
        a.send_datagram(socket, here.ip(), there, &[1; 1400]).unwrap();
        let (packet, _) = sent(&mut a).remove(0);
        handle(&mut a, &icmp_error(3, 4, 1000, &packet));
        assert_eq!(probe(&mut a, after.0), Ok((1, after.1)), "{policy:?}");
        let longer = probe(&mut a, after.0 + 8);
        match policy {
            // Fragments may be cut further.
            DontFragment::Want | DontFragment::Dont => assert_eq!(longer, Ok((2, true))),
            DontFragment::Do | DontFragment::Probe => {
                let limit = after.0 - 28;
                assert_eq!(
                    longer,
                    Err(SendError::TooLong {
                        len: limit + 8,
                        limit
                    })
                );
            }
        }
    }
}

#[test]
fn what_became_too_long_while_it_waited_is_not_cut_against_the_will() {
    let (here, there) = (address("10.0.0.1:1000"), address("10.0.0.2:53"));
    let mut a = stack(1);
    let socket = a.bind_udp(here).unwrap();
    a.set_udp(socket, UdpOption::DontFragment(DontFragment::Do))
        .unwrap();
    a.send_datagram(socket, here.ip(), there, &[1; 1400]).unwrap();
    let (packet, _) = sent(&mut a).remove(0);
    a.send_datagram(socket, here.ip(), there, &[1; 1400]).unwrap();
    a.send_datagram(socket, here.ip(), there, b"short").unwrap();
    handle(&mut a, &icmp_error(3, 4, 1000, &packet));
    assert_eq!(sent(&mut a).len(), 1);
    assert_eq!(events(&mut a), [Event::DatagramError(socket)]);
    let told = a.receive_datagram(socket, &mut []);
    assert_eq!(told, Err(ReceiveError::Path(PathError::TooBig)));
}

#[test]
fn hop_limits_and_traffic_classes_are_a_sockets_own() {
    for (here, there, group) in [
        ("10.0.0.1", "10.0.0.2:53", "239.1.1.1:53"),
        ("fd00::1", "[fd00::2]:53", "[ff05::1]:53"),
    ] {
        let (mut a, mut b) = (stack(1), stack(2));
        let server = b.bind_udp(address(there)).unwrap();
        let client = a.bind_udp(SocketAddr::new(ip(here), 0)).unwrap();
        let seen = |packet: &[u8]| match IpPacket::parse(packet).unwrap() {
            IpPacket::V4(packet) => (packet.time_to_live(), packet.dscp() << 2 | packet.ecn()),
            IpPacket::V6(packet) => (packet.hop_limit(), packet.dscp() << 2 | packet.ecn()),
        };
        let send = |a: &mut Stack, to: &str, len| {
            a.send_datagram(client, ip(here), address(to), &vec![1; len])
                .unwrap();
            sent(a)
        };
        assert_eq!(seen(&send(&mut a, there, 1)[0].0), (64, 0));
        assert_eq!(seen(&send(&mut a, group, 1)[0].0), (1, 0));
        for option in [
            UdpOption::HopLimit(7),
            UdpOption::MulticastHopLimit(9),
            UdpOption::TrafficClass(0xB9),
        ] {
            a.set_udp(client, option).unwrap();
        }
        assert_eq!(seen(&send(&mut a, group, 1)[0].0), (9, 0xB9));
        let fragments = send(&mut a, there, 2000);
        for (packet, _) in &fragments {
            assert_eq!(seen(packet), (7, 0xB9));
            handle(&mut b, packet);
        }
        let datagram = b.receive_datagram(server, &mut [0; 2000]).unwrap().unwrap();
        assert_eq!((datagram.hop_limit, datagram.traffic_class), (7, 0xB9));
        // What is passed on keeps what it came with, and the socket its own.
        let fields = HeaderFields {
            hop_limit: 61,
            traffic_class: 0x03,
        };
        let ends = (
            SocketAddr::new(ip(here), a.udp_local(client).unwrap().port()),
            address(there),
        );
        for piece_len in [None, NonZeroU16::new(600)] {
            a.pass_datagram_on(client, ends, fields, piece_len, &[1; 1000])
                .unwrap();
            let passed = sent(&mut a);
            assert_eq!(passed.len(), if piece_len.is_some() { 2 } else { 1 });
            for (packet, _) in &passed {
                assert_eq!(seen(packet), (61, 0x03));
            }
        }
        assert_eq!(seen(&send(&mut a, there, 1)[0].0), (7, 0xB9));
    }
}

#[test]
fn a_group_reaches_every_member_and_the_bytes_are_there_once() {
    for (here, there, group) in [
        ("10.0.0.1", "0.0.0.0:5000", "239.1.1.1:5000"),
        ("fd00::1", "[::]:5000", "[ff05::7]:5000"),
    ] {
        let (mut a, mut b) = (stack(1), stack(2));
        let group = address(group);
        let client = a.bind_udp(SocketAddr::new(ip(here), 0)).unwrap();
        let members: Vec<UdpId> = (0..5)
            .map(|_| {
                let share = [SocketOption::ReuseAddress(true)];
                b.bind_udp_with(address(there), &share).unwrap()
            })
            .collect();
        let data = [7; 1000];
        a.send_datagram(client, ip(here), group, &data).unwrap();
        carry(&mut a, &mut b);
        assert_eq!(receive(&mut b, members[0]), None, "nobody joined");
        for &member in &members {
            b.join_group(member, group.ip()).unwrap();
            let again = b.join_group(member, group.ip());
            assert_eq!(again, Err(StateError::AlreadyJoined));
        }
        a.send_datagram(client, ip(here), group, &data).unwrap();
        carry(&mut a, &mut b);
        assert_eq!(b.buffered_bytes(), 4096, "one chunk for all five");
        for &member in &members {
            assert_eq!(receive(&mut b, member).unwrap(), data);
            assert_eq!(receive(&mut b, member), None);
        }
        assert_eq!(b.buffered_bytes(), 0);

        // Without members nothing comes; a closed member lets go of what it did not read.
        for &member in &members[1..] {
            b.leave_group(member, group.ip()).unwrap();
            b.set_udp(member, UdpOption::HopLimit(1)).unwrap();
        }
        assert_eq!(b.leave_group(members[1], group.ip()), Err(StateError::NotJoined));
        a.send_datagram(client, ip(here), group, &data).unwrap();
        carry(&mut a, &mut b);
        assert_eq!(receive(&mut b, members[0]).unwrap(), data);
        for &member in &members {
            b.close_udp(member).unwrap();
        }
        assert_eq!(b.buffered_bytes(), 0);
        a.send_datagram(client, ip(here), group, &data).unwrap();
        carry(&mut a, &mut b);
        assert_eq!(b.buffered_bytes(), 0);
    }
}

#[test]
fn what_goes_to_many_is_heard_at_home() {
    let mut a = stack(1);
    let share = [SocketOption::ReuseAddress(true)];
    let one = a.bind_udp_with(address("0.0.0.0:5000"), &share).unwrap();
    let two = a.bind_udp_with(address("0.0.0.0:5000"), &share).unwrap();
    a.join_group(two, ip("239.1.1.1")).unwrap();
    a.set_udp(one, UdpOption::Broadcast(true)).unwrap();
    let send = |a: &mut Stack, to| {
        a.send_datagram(one, ip("10.0.0.1"), address(to), b"all").unwrap();
        assert_eq!(sent(a).len(), 1);
        [receive(a, one).is_some(), receive(a, two).is_some()]
    };
    assert_eq!(send(&mut a, "10.0.0.255:5000"), [true, true]);
    // A member, and as on Linux who did not say that it wants its own groups alone.
    assert_eq!(send(&mut a, "239.1.1.1:5000"), [true, true]);
    a.set_udp(one, UdpOption::MulticastLoop(false)).unwrap();
    assert_eq!(send(&mut a, "239.1.1.1:5000"), [false, false]);
    assert_eq!(send(&mut a, "10.0.0.2:5000"), [false, false]);
}

#[test]
fn many_datagrams_go_in_one_call_and_a_device_may_cut_them() {
    let data: Vec<u8> = (0..5000).map(|n| (n % 251) as u8).collect();
    let piece_len = NonZeroU16::new(1200).unwrap();
    for (here, there) in [("10.0.0.1", "10.0.0.2:53"), ("fd00::1", "[fd00::2]:53")] {
        let mut outcomes = Vec::new();
        for offload in [false, true] {
            let config = StackConfig {
                udp_segmentation_offload: offload,
                ..StackConfig::default()
            };
            let (mut a, mut b) = (stack_with(1, config), stack(2));
            let server = b.bind_udp(address(there)).unwrap();
            let client = a.bind_udp(SocketAddr::new(ip(here), 999)).unwrap();
            a.send_pieces(client, ip(here), address(there), &data, piece_len)
                .unwrap();
            let packets = sent(&mut a);
            assert_eq!(packets.len(), if offload { 1 } else { 5 });
            // As a device that merges gives them, and to one who takes them merged.
            for takes_merged in [false, true] {
                b.set_udp(server, UdpOption::TakeMerged(takes_merged)).unwrap();
                for (bytes, offload) in &packets {
                    let (bytes, offload) = (&bytes[..], *offload);
                    b.handle_packet(NOW, Packet { bytes, offload });
                }
                let mut out = vec![0; 6000];
                let first = b.receive_datagram(server, &mut out).unwrap().unwrap();
                let is_merged = offload && takes_merged;
                assert_eq!(first.piece_len, is_merged.then_some(piece_len));
                let mut got = out[..first.len].to_vec();
                while let Some(next) = receive(&mut b, server) {
                    got.extend(next);
                }
                assert!(got == data);
            }
            // Cut by software.
            let mut wire = Vec::new();
            for (bytes, offload) in &packets {
                let (bytes, offload) = (&bytes[..], *offload);
                let mut pieces = Pieces::new(Packet { bytes, offload }).unwrap();
                let mut piece = [0; 1500];
                while let Some(len) = pieces.write_next(&mut piece) {
                    wire.push(piece[..len].to_vec());
                }
            }
            for bytes in &wire {
                handle(&mut b, bytes);
            }
            let lens: Vec<_> = std::iter::from_fn(|| receive(&mut b, server))
                .map(|piece| piece.len())
                .collect();
            assert_eq!(lens, [1200, 1200, 1200, 1200, 200]);
            outcomes.push(wire);
        }
        assert!(
            outcomes[0] == outcomes[1],
            "super-datagrams and their pieces are the same"
        );
    }
}

#[test]
fn a_sender_that_found_no_room_is_told_when_there_is() {
    let mut a = stack(1);
    let (here, there) = (address("10.0.0.1:1000"), address("10.0.0.2:53"));
    let socket = a.bind_udp(here).unwrap();
    let send = |a: &mut Stack| a.send_datagram(socket, here.ip(), there, &[1; 1400]);
    while send(&mut a).is_ok() {}
    assert_eq!(send(&mut a), Err(SendError::WouldBlock));
    assert_eq!(events(&mut a), []);
    assert!(sent(&mut a).len() > 100);
    assert_eq!(events(&mut a), [Event::DatagramRoom(socket)]);
    send(&mut a).unwrap();
    sent(&mut a);
    assert_eq!(events(&mut a), []);
}
