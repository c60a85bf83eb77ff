//! Our views and emitters beside etherparse's: each reads what the other wrote.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice, VlanId};
use portolan_core::Port;
use portolan_core::wire::{
    ChecksumFill, ChecksumState, Dissection, EtherType, EthernetRepr, ExtensionRepr, IpPacket, IpProtocol,
    Ipv4Repr, Ipv6Repr, LinkHeader, LinkType, MacAddress, PseudoHeader, SeqNum, TcpFlags, TcpRepr, Transport,
    UdpRepr, VlanTag,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// What both must agree on.
#[derive(Debug, PartialEq)]
struct Facts {
    addresses: (IpAddr, IpAddr),
    ports: (u16, u16),
    tcp: Option<TcpFacts>,
    checksum: u16,
    vlans: Vec<u16>,
    payload: Vec<u8>,
}

/// Sequence number, acknowledgment number, the nine flags from FIN up, window, option bytes.
type TcpFacts = (u32, u32, [bool; 9], u16, Vec<u8>);

fn ours(packet: &[u8]) -> (Facts, Option<ChecksumState>) {
    let found = Dissection::of(LinkType::Ethernet, packet);
    let Some(LinkHeader::Ethernet(ethernet)) = found.link else {
        panic!("no ethernet: {found:?}")
    };
    let ip = found.ip.unwrap_or_else(|| panic!("no ip: {found:?}"));
    let strict = IpPacket::parse(ethernet.payload()).expect("a valid packet parses strictly");
    assert_eq!(strict.payload(), ip.payload());
    let (source, destination) = found.ports().expect("ports");
    let (tcp, checksum, payload) = match found.transport {
        Some(Transport::Tcp(segment)) => {
            let flags = std::array::from_fn(|bit| segment.flags().bits() & 1 << bit != 0);
            let options = segment.options().as_bytes().to_vec();
            let numbers = (
                segment.seq().get(),
                segment.ack().get(),
                flags,
                segment.window(),
                options,
            );
            (Some(numbers), segment.checksum(), segment.payload())
        }
        Some(Transport::Udp(datagram)) => (None, datagram.checksum(), datagram.payload()),
        other => panic!("neither TCP nor UDP: {other:?}"),
    };
    let facts = Facts {
        addresses: found.addresses().expect("addresses"),
        ports: (source.get(), destination.get()),
        tcp,
        checksum,
        vlans: ethernet.tags().map(|tag| tag.id()).collect(),
        payload: payload.to_vec(),
    };
    let state = found
        .transport
        .and_then(|transport| transport.checksum_state(&ip));
    (facts, state)
}

fn theirs(packet: &[u8]) -> Facts {
    let sliced = SlicedPacket::from_ethernet(packet).expect("etherparse reads it");
    let addresses: (IpAddr, IpAddr) = match sliced.net.as_ref().expect("net") {
        NetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Arp(_) => panic!("ARP"),
    };
    let (ports, tcp, checksum, payload) = match sliced.transport.as_ref().expect("transport") {
        TransportSlice::Tcp(tcp) => {
            let flags = [
                tcp.fin(),
                tcp.syn(),
                tcp.rst(),
                tcp.psh(),
                tcp.ack(),
                tcp.urg(),
                tcp.ece(),
                tcp.cwr(),
                tcp.ns(),
            ];
            let numbers = (
                tcp.sequence_number(),
                tcp.acknowledgment_number(),
                flags,
                tcp.window_size(),
                tcp.options().to_vec(),
            );
            let ports = (tcp.source_port(), tcp.destination_port());
            (ports, Some(numbers), tcp.checksum(), tcp.payload())
        }
        TransportSlice::Udp(udp) => {
            let ports = (udp.source_port(), udp.destination_port());
            (ports, None, udp.checksum(), udp.payload())
        }
        other => panic!("neither TCP nor UDP: {other:?}"),
    };
    let vlans = sliced.vlan_ids().into_iter().map(VlanId::value).collect();
    Facts {
        addresses,
        ports,
        tcp,
        checksum,
        vlans,
        payload: payload.to_vec(),
    }
}

#[derive(Clone, Debug)]
struct Case {
    addresses: (IpAddr, IpAddr),
    ports: (u16, u16),
    /// Sequence number, acknowledgment number, flags, window, option bytes.
    tcp: Option<(u32, u32, u16, u16, Vec<u8>)>,
    vlans: Vec<u16>,
    destination_options: Option<[u8; 6]>,
    payload: Vec<u8>,
}

fn case() -> impl Strategy<Value = Case> {
    let addresses = prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| (a.into(), b.into())),
    ];
    let options = vec(1u8..=1, 0..=10).prop_map(|words| words.repeat(4));
    let tcp = option::of((any::<u32>(), any::<u32>(), 0u16..512, any::<u16>(), options));
    (
        addresses,
        any::<(u16, u16)>(),
        tcp,
        vec(0u16..4096, 0..=2),
        option::of(any::<[u8; 4]>()),
        vec(any::<u8>(), 0..64),
    )
        .prop_map(|(addresses, ports, tcp, vlans, pad, payload)| Case {
            addresses,
            ports,
            tcp,
            vlans,
            // One PadN option over the whole header.
            destination_options: pad.map(|[a, b, c, d]| [1, 4, a, b, c, d]),
            payload,
        })
}

fn emit(case: &Case) -> Vec<u8> {
    let (source, destination) = case.addresses;
    let pseudo = PseudoHeader::new(source, destination).expect("one family");
    let [source_port, destination_port] = [case.ports.0, case.ports.1].map(Port::new);
    let fill = ChecksumFill::Complete(pseudo);
    let (protocol, mut segment) = if let Some((seq, ack, flags, window, options)) = &case.tcp {
        let repr = TcpRepr {
            source_port,
            destination_port,
            seq: SeqNum::new(*seq),
            ack: SeqNum::new(*ack),
            flags: TcpFlags::from_bits(*flags).expect("nine bits"),
            window: *window,
            urgent_pointer: 0,
            options,
        };
        let mut segment = vec![0; repr.header_len()];
        segment.extend(&case.payload);
        repr.emit(&mut segment, fill).expect("TCP fits");
        (IpProtocol::TCP, segment)
    } else {
        let repr = UdpRepr {
            source_port,
            destination_port,
        };
        let mut segment = vec![0; 8];
        segment.extend(&case.payload);
        repr.emit(&mut segment, fill).expect("UDP fits");
        (IpProtocol::UDP, segment)
    };
    let (ethertype, header) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let repr = Ipv4Repr {
                dscp: 0,
                ecn: 0,
                identification: 7,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                time_to_live: 64,
                protocol,
                source,
                destination,
                options: &[1, 1, 1, 0],
                payload_len: segment.len(),
            };
            let mut header = vec![0; repr.header_len()];
            repr.emit(&mut header).expect("IPv4 fits");
            (EtherType::IPV4, header)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut next_header = protocol;
            if let Some(body) = &case.destination_options {
                let repr = ExtensionRepr::Other {
                    kind: IpProtocol::DESTINATION_OPTIONS,
                    body,
                };
                let mut extension = vec![0; repr.header_len()];
                repr.emit(protocol, &mut extension).expect("the extension fits");
                extension.extend(&segment);
                segment = extension;
                next_header = repr.kind();
            }
            let repr = Ipv6Repr {
                dscp: 0,
                ecn: 0,
                flow_label: 5,
                next_header,
                hop_limit: 64,
                source,
                destination,
                payload_len: segment.len(),
            };
            let mut header = vec![0; 40];
            repr.emit(&mut header).expect("IPv6 fits");
            (EtherType::IPV6, header)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => unreachable!("one family"),
    };
    let mut tags = case.vlans.iter().map(|control| VlanTag {
        protocol: EtherType::VLAN,
        control: *control,
    });
    let ethernet = EthernetRepr {
        destination: MacAddress([1; 6]),
        source: MacAddress([2; 6]),
        tags: [tags.next(), tags.next()],
        ethertype,
    };
    let mut packet = vec![0; ethernet.header_len()];
    ethernet.emit(&mut packet).expect("Ethernet fits");
    packet.extend(header);
    packet.extend(segment);
    packet
}

fn build(case: &Case) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [1; 6]);
    let ip = match case.addresses {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => unreachable!("one family"),
    };
    let mut packet = Vec::new();
    let written = if let Some((seq, ack, flags, window, options)) = &case.tcp {
        let mut header = TcpHeader::new(case.ports.0, case.ports.1, *seq, *window);
        header.acknowledgment_number = *ack;
        let bits: [&mut bool; 9] = [
            &mut header.fin,
            &mut header.syn,
            &mut header.rst,
            &mut header.psh,
            &mut header.ack,
            &mut header.urg,
            &mut header.ece,
            &mut header.cwr,
            &mut header.ns,
        ];
        for (place, bit) in bits.into_iter().enumerate() {
            *bit = flags & 1 << place != 0;
        }
        header.set_options_raw(options).expect("options fit");
        ip.tcp_header(header).write(&mut packet, &case.payload)
    } else {
        ip.udp(case.ports.0, case.ports.1)
            .write(&mut packet, &case.payload)
    };
    written.expect("written to memory");
    packet
}

proptest! {
    #[test]
    fn etherparse_reads_what_we_emit(case in case()) {
        let packet = emit(&case);
        let (facts, state) = ours(&packet);
        prop_assert_eq!(&facts.payload, &case.payload);
        prop_assert_eq!(state, Some(ChecksumState::Valid));
        prop_assert_eq!(facts, theirs(&packet));
    }

    #[test]
    fn we_read_what_etherparse_emits(case in case()) {
        let packet = build(&case);
        let (facts, state) = ours(&packet);
        prop_assert_eq!(&facts.payload, &case.payload);
        prop_assert_eq!(facts.ports, case.ports);
        prop_assert_eq!(facts.addresses, case.addresses);
        prop_assert_eq!(state, Some(ChecksumState::Valid));
        prop_assert_eq!(facts, theirs(&packet));
    }
}
