//! What connections weigh that the stack opened itself, each with an automatic port: no more than accepted ones.

use std::net::{IpAddr, SocketAddr};

use portolan_core::Port;
use portolan_core::table::{Device, Host};
use portolan_core::wire::{
    ChecksumFill, IpProtocol, Ipv4Packet, Ipv4Repr, PseudoHeader, SeqNum, TcpFlags, TcpOption,
    TcpOptionBlock, TcpRepr, TcpSegment,
};
use portolan_stack::{Duration, Event, Instant, Packet, Stack};

use super::{JUST_DOUBLED, config, counting};

const HERE: &str = "10.0.0.1";

/// The SYN-ACK that Linux would answer a SYN with.
fn answer(syn: &[u8]) -> Vec<u8> {
    let ip = Ipv4Packet::parse(syn).unwrap();
    let segment = TcpSegment::parse(ip.payload()).unwrap();
    assert_eq!(segment.flags(), TcpFlags::SYN);
    let echo_reply = segment.options().flatten().find_map(|option| match option {
        TcpOption::Timestamps { value, .. } => Some(value),
        _ => None,
    });
    let mut options = TcpOptionBlock::new();
    for option in [
        TcpOption::MaximumSegmentSize(1460),
        TcpOption::SackPermitted,
        TcpOption::Timestamps {
            value: 1,
            echo_reply: echo_reply.expect("a stack offers timestamps"),
        },
        TcpOption::NoOperation,
        TcpOption::WindowScale(7),
    ] {
        options.push(option).unwrap();
    }
    let header = TcpRepr {
        source_port: segment.destination_port(),
        destination_port: segment.source_port(),
        seq: SeqNum::new(7),
        ack: segment.seq() + 1,
        flags: TcpFlags::SYN | TcpFlags::ACK,
        window: 65_535,
        urgent_pointer: 0,
        options: options.as_bytes(),
    };
    let mut packet = vec![0; Ipv4Packet::MIN_HEADER_LEN + header.header_len()];
    let (ip_header, transport) = packet.split_at_mut(Ipv4Packet::MIN_HEADER_LEN);
    Ipv4Repr {
        dscp: 0,
        ecn: 0,
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        time_to_live: 64,
        protocol: IpProtocol::TCP,
        source: ip.destination(),
        destination: ip.source(),
        options: &[],
        payload_len: transport.len(),
    }
    .emit(ip_header)
    .unwrap();
    let pseudo = PseudoHeader::new(ip.destination().into(), ip.source().into()).unwrap();
    header.emit(transport, ChecksumFill::Complete(pseudo)).unwrap();
    packet
}

#[test]
fn a_connection_that_was_opened_weighs_less_than_512_bytes() {
    // To one server each has a port of its own, to several some share one.
    for (count, servers) in [(JUST_DOUBLED, 3), (20_000, 1)] {
        let here: IpAddr = HERE.parse().unwrap();
        let mut host = Host::new();
        host.add_address(Device::new(1).unwrap(), here, Some(8));
        let mut stack = Stack::new(config(), host, [9; 16]);
        let mut packet = vec![0; stack.max_packet_len()];
        let mut now = Instant::from_millis(1);
        let before = counting::held();
        for number in 0..count {
            let server = SocketAddr::from(([10, 64, 0, (number % servers) as u8], 443));
            stack.connect(now, SocketAddr::new(here, 0), server).unwrap();
            let transmit = stack.poll_transmit(now, &mut packet).unwrap();
            let bytes = answer(&packet[..transmit.len]);
            let offload = transmit.offload;
            stack.handle_packet(
                now,
                Packet {
                    bytes: &bytes,
                    offload,
                },
            );
            while stack.poll_transmit(now, &mut packet).is_some() {}
            assert!(matches!(stack.poll_event(), Some(Event::Connected(_))));
            assert_eq!(stack.poll_event(), None);
            now += Duration::from_micros(10);
        }
        let end = now + Duration::from_secs(2);
        while let Some(next) = stack.poll_timeout().filter(|&next| next <= end) {
            now = now.max(next);
            stack.handle_timeout(now);
            while stack.poll_transmit(now, &mut packet).is_some() {}
        }
        assert_eq!(stack.connection_count(), count as usize);
        let shared = stack.table().flow_count() - ports_in_use(&stack, here);
        assert_eq!(shared > 0, servers > 1, "{shared} share a port");
        let each = (counting::held() - before) as f64 / f64::from(count);
        println!("{count} connections opened to {servers} servers: {each:.1} bytes each");
        assert!(each <= 512.0, "{each}");
    }
}

/// How many ports have a connection.
fn ports_in_use(stack: &Stack, here: IpAddr) -> usize {
    let mut ports: Vec<Port> = (0..stack.table().len())
        .filter_map(|place| stack.table().at_place(place))
        .map(|socket| stack.table().local(socket).unwrap())
        .inspect(|local| assert_eq!(local.ip(), here))
        .map(|local| Port::new(local.port()))
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports.len()
}
