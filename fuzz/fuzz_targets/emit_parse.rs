//! Headers made from any values: what is emitted parses back to the same values, with valid checksums.
#![no_main]

use libfuzzer_sys::{arbitrary, arbitrary::Arbitrary, fuzz_target};
use portolan_core::Port;
use portolan_core::wire::{
    ChecksumFill, IpPacket, IpProtocol, Ipv4Repr, Ipv6Repr, PseudoHeader, SeqNum, TcpFlags, TcpRepr, TcpSegment,
    UdpDatagram, UdpRepr,
};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    six: bool,
    udp: bool,
    addresses: (u128, u128),
    ports: (u16, u16),
    numbers: (u32, u32),
    flags: u16,
    window: u16,
    urgent_pointer: u16,
    class: (u8, u8),
    identification: u16,
    fragment: (bool, bool, u16),
    hops: u8,
    ip_options: &'a [u8],
    tcp_options: &'a [u8],
    payload: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let [source_port, destination_port] = [input.ports.0, input.ports.1].map(Port::new);
    let pseudo = if input.six {
        PseudoHeader::V6 { source: input.addresses.0.into(), destination: input.addresses.1.into() }
    } else {
        PseudoHeader::V4 {
            source: (input.addresses.0 as u32).into(),
            destination: (input.addresses.1 as u32).into(),
        }
    };
    let fill = ChecksumFill::Complete(pseudo);
    let mut segment = vec![0; 60];
    let header_len;
    let protocol;
    if input.udp {
        protocol = IpProtocol::UDP;
        header_len = UdpDatagram::HEADER_LEN;
        segment.truncate(header_len);
        segment.extend(input.payload);
        let repr = UdpRepr { source_port, destination_port };
        if repr.emit(&mut segment, fill).is_err() {
            assert!(segment.len() > 65_535);
            return;
        }
        let parsed = UdpDatagram::parse(&segment).expect("what was emitted parses");
        assert_eq!((parsed.repr(), parsed.payload()), (repr, input.payload));
        assert!(parsed.has_valid_checksum(pseudo));
    } else {
        protocol = IpProtocol::TCP;
        let repr = TcpRepr {
            source_port,
            destination_port,
            seq: SeqNum::new(input.numbers.0),
            ack: SeqNum::new(input.numbers.1),
            flags: TcpFlags::from_bits_truncate(input.flags),
            window: input.window,
            urgent_pointer: input.urgent_pointer,
            options: input.tcp_options,
        };
        header_len = repr.header_len();
        segment.resize(header_len, 0);
        segment.extend(input.payload);
        if repr.emit(&mut segment, fill).is_err() {
            assert!(input.tcp_options.len() > 40 || input.tcp_options.len() % 4 != 0);
            return;
        }
        let parsed = TcpSegment::parse(&segment).expect("what was emitted parses");
        assert_eq!((parsed.repr(), parsed.payload()), (repr, input.payload));
        assert!(parsed.has_valid_checksum(pseudo));
    }
    let mut packet = vec![0; 60];
    match pseudo {
        PseudoHeader::V4 { source, destination } => {
            let repr = Ipv4Repr {
                dscp: input.class.0,
                ecn: input.class.1,
                identification: input.identification,
                dont_fragment: input.fragment.0,
                more_fragments: input.fragment.1,
                fragment_offset: input.fragment.2,
                time_to_live: input.hops,
                protocol,
                source,
                destination,
                options: input.ip_options,
                payload_len: segment.len(),
            };
            let Ok(len) = repr.emit(&mut packet) else { return };
            packet.truncate(len);
            packet.extend(&segment);
            let Ok(IpPacket::V4(parsed)) = IpPacket::parse(&packet) else { panic!("no IPv4") };
            assert_eq!((parsed.repr(), parsed.payload()), (repr, &segment[..]));
            assert!(parsed.has_valid_checksum());
        }
        PseudoHeader::V6 { source, destination } => {
            let repr = Ipv6Repr {
                dscp: input.class.0,
                ecn: input.class.1,
                flow_label: input.numbers.0 & 0xF_FFFF,
                next_header: protocol,
                hop_limit: input.hops,
                source,
                destination,
                payload_len: segment.len(),
            };
            let Ok(len) = repr.emit(&mut packet) else { return };
            packet.truncate(len);
            packet.extend(&segment);
            let Ok(IpPacket::V6(parsed)) = IpPacket::parse(&packet) else { panic!("no IPv6") };
            assert_eq!((parsed.repr(), parsed.payload()), (repr, &segment[..]));
        }
    }
    assert!(header_len <= segment.len());
});
