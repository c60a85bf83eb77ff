//! Who may open a connection, and with what (RFC 9293, sections 3.7.1, 3.9.1.1 and 3.9.2).

use std::net::{IpAddr, SocketAddr};

use portolan_core::Port;
use portolan_core::wire::{
    ChecksumFill, IpPacket, IpProtocol, Ipv4Repr, Ipv6Repr, SeqNum, TcpFlags, TcpRepr, TcpSegment,
};
use portolan_stack::{ConnectError, Instant, StackConfig};

use crate::support::{address, give, sent, stack};

/// A segment without data or TCP options; `options` are those of an IPv4 header.
fn segment(ends: (IpAddr, IpAddr), seq: u32, ack: u32, flags: TcpFlags, options: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 100];
    let header_len = match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let ip = Ipv4Repr {
                dscp: 0,
                ecn: 0,
                identification: 0,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                time_to_live: 64,
                protocol: IpProtocol::TCP,
                source,
                destination,
                options,
                payload_len: 20,
            };
            ip.emit(&mut packet).unwrap();
            20 + options.len()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = Ipv6Repr {
                dscp: 0,
                ecn: 0,
                flow_label: 0,
                next_header: IpProtocol::TCP,
                hop_limit: 64,
                source,
                destination,
                payload_len: 20,
            };
            ip.emit(&mut packet).unwrap();
            40
        }
        _ => panic!("two families"),
    };
    packet.truncate(header_len + 20);
    let pseudo = IpPacket::parse(&packet).unwrap().pseudo_header();
    let tcp = TcpRepr {
        source_port: Port::new(4000),
        destination_port: Port::new(80),
        seq: SeqNum::new(seq),
        ack: SeqNum::new(ack),
        flags,
        window: 65_535,
        urgent_pointer: 0,
        options: &[],
    };
    tcp.emit(&mut packet[header_len..], ChecksumFill::Complete(pseudo))
        .unwrap();
    packet
}

fn ends(source: &str, destination: &str) -> (IpAddr, IpAddr) {
    (source.parse().unwrap(), destination.parse().unwrap())
}

const NOW: Instant = Instant::from_millis(1_000_000);

#[test]
fn a_syn_to_many_or_from_nobody_is_dropped() {
    let mut host = stack(1, StackConfig::default());
    host.listen(address("[::]:80"), 16).unwrap();
    let cases = [
        ("10.0.0.9", "10.0.0.255"),
        ("10.0.0.9", "255.255.255.255"),
        ("10.0.0.9", "224.0.0.1"),
        ("10.0.0.255", "10.0.0.1"),
        ("255.255.255.255", "10.0.0.1"),
        ("224.0.0.1", "10.0.0.1"),
        ("0.0.0.0", "10.0.0.1"),
        ("fd00::9", "ff02::1"),
        ("ff02::1", "fd00::1"),
        ("::", "fd00::1"),
    ];
    for (source, destination) in cases {
        let syn = segment(ends(source, destination), 7, 0, TcpFlags::SYN, &[]);
        give(NOW, &mut host, &[syn]);
        assert!(sent(NOW, &mut host).is_empty(), "{source} to {destination}");
        assert_eq!(host.half_open_count(), 0, "{source} to {destination}");
    }
    for (source, destination) in [("10.0.0.9", "10.0.0.1"), ("fd00::9", "fd00::1")] {
        let syn = segment(ends(source, destination), 7, 0, TcpFlags::SYN, &[]);
        give(NOW, &mut host, &[syn]);
        assert_eq!(sent(NOW, &mut host).len(), 1, "{source} to {destination}");
    }
    assert_eq!(host.half_open_count(), 2);
}

#[test]
fn nobody_connects_to_many() {
    let mut host = stack(1, StackConfig::default());
    for remote in [
        "10.0.0.255:80",
        "255.255.255.255:80",
        "224.0.0.1:80",
        "[ff02::1]:80",
    ] {
        let remote: SocketAddr = address(remote);
        let local = address(if remote.is_ipv4() {
            "10.0.0.1:0"
        } else {
            "[fd00::1]:0"
        });
        let refused = host.connect(NOW, local, remote).unwrap_err();
        assert!(
            matches!(refused, ConnectError::Connect(_)),
            "{remote}: {refused:?}"
        );
        assert!(sent(NOW, &mut host).is_empty());
    }
    assert_eq!(host.sockets().count(), 0);
}

#[test]
fn options_of_ip_are_passed_over() {
    let mut host = stack(1, StackConfig::default());
    host.listen(address("10.0.0.1:80"), 16).unwrap();
    // RFC 791, section 3.1: padding, and a record of the route with room for one router; then one that nobody knows.
    for options in [&[1, 1, 1, 0][..], &[7, 7, 4, 0, 0, 0, 0, 0], &[0x9E, 4, 0, 0]] {
        let syn = segment(ends("10.0.0.9", "10.0.0.1"), 7, 0, TcpFlags::SYN, options);
        give(NOW, &mut host, &[syn]);
        let answers = sent(NOW, &mut host);
        assert_eq!(answers.len(), 1, "{options:?}");
        let ip = IpPacket::parse(&answers[0]).unwrap();
        let answer = TcpSegment::parse(ip.payload()).unwrap();
        assert_eq!(answer.flags(), TcpFlags::SYN | TcpFlags::ACK);
        let IpPacket::V4(v4) = &ip else { panic!("IPv6") };
        assert_eq!(v4.header_len(), 20);
    }
}

#[test]
fn a_peer_that_names_no_segment_size_gets_the_default_of_its_protocol() {
    for (source, destination, mss) in [("10.0.0.9", "10.0.0.1", 536), ("fd00::9", "fd00::1", 1220)] {
        let mut host = stack(1, StackConfig::default());
        let listener = host.listen(address("[::]:80"), 16).unwrap();
        let ends = ends(source, destination);
        give(NOW, &mut host, &[segment(ends, 7, 0, TcpFlags::SYN, &[])]);
        let answer = sent(NOW, &mut host).remove(0);
        let ip = IpPacket::parse(&answer).unwrap();
        let iss = TcpSegment::parse(ip.payload()).unwrap().seq();
        let ack = segment(ends, 8, (iss + 1).get(), TcpFlags::ACK, &[]);
        give(NOW, &mut host, &[ack]);
        let id = host.accept(listener).unwrap();
        assert_eq!(host.info(id).unwrap().send_mss, mss);
    }
}
