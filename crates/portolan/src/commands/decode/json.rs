use std::io::{self, Write};

use portolan_capture::anatomy::{self, describe_option};
use portolan_core::registry::Services;
use portolan_core::wire::{
    Icmpv4Message, Icmpv6Message, IpPacket, LinkHeader, ParseError, TcpFlags, TcpSegment, Transport,
};
use portolan_core::{Port, Protocol};
use serde::Serialize;

use super::text::{name, payload_len};
use super::{Losses, Packet, said, utc};

#[derive(Serialize)]
struct PacketJson<'a> {
    number: u64,
    time: Option<String>,
    interface: Option<u32>,
    link: Option<&'static str>,
    link_number: Option<u32>,
    length: u64,
    captured: usize,
    ethernet: Option<EthernetJson>,
    ip: Option<IpJson>,
    transport: Option<TransportJson<'a>>,
    fault: Option<String>,
    fields: Option<Vec<FieldJson>>,
}

#[derive(Serialize)]
struct EthernetJson {
    source: String,
    destination: String,
    vlans: Vec<u16>,
    ethertype: u16,
}

#[derive(Serialize)]
struct IpJson {
    version: u8,
    source: String,
    destination: String,
    protocol: u8,
    protocol_name: Option<&'static str>,
    hop_limit: u8,
    dscp: u8,
    ecn: u8,
    header_length: usize,
    length: usize,
    identification: Option<u32>,
    dont_fragment: Option<bool>,
    more_fragments: bool,
    fragment_offset: u16,
    checksum: Option<&'static str>,
    extensions: Vec<String>,
}

#[derive(Default, Serialize)]
struct TransportJson<'a> {
    protocol: String,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    source_service: Option<&'a str>,
    destination_service: Option<&'a str>,
    header_length: usize,
    payload_length: usize,
    checksum: Option<&'static str>,
    seq: Option<u32>,
    ack: Option<u32>,
    relative_seq: Option<u32>,
    relative_ack: Option<u32>,
    flags: Option<Vec<&'static str>>,
    window: Option<u16>,
    urgent_pointer: Option<u16>,
    options: Option<Vec<OptionJson>>,
    icmp: Option<IcmpJson>,
}

#[derive(Serialize)]
struct OptionJson {
    kind: Option<u8>,
    name: Option<&'static str>,
    text: String,
}

#[derive(Serialize)]
struct IcmpJson {
    r#type: u8,
    code: u8,
    name: &'static str,
    code_name: Option<&'static str>,
    identifier: Option<u16>,
    sequence: Option<u16>,
    mtu: Option<u32>,
    quoted: Option<QuotedJson>,
}

#[derive(Serialize)]
struct QuotedJson {
    source: String,
    destination: String,
    protocol: u8,
    source_port: Option<u16>,
    destination_port: Option<u16>,
}

#[derive(Serialize)]
struct FieldJson {
    header: &'static str,
    name: &'static str,
    bit_offset: usize,
    bits: usize,
    value: Option<u64>,
    hex: Option<String>,
    meaning: String,
}

/// Writes a packet as a JSON object, without a line's end.
pub(super) fn packet(
    packet: &Packet<'_>,
    with_fields: bool,
    services: &Services,
    output: &mut impl Write,
) -> io::Result<()> {
    let dissection = packet.dissection.as_ref();
    let ip = dissection.and_then(|dissection| dissection.ip.as_ref());
    let document = PacketJson {
        number: packet.number,
        time: packet.time.and_then(utc),
        interface: packet.interface,
        link: packet.link.map(|link| link.name()),
        link_number: packet
            .link_number
            .or_else(|| packet.link.map(|link| link.number())),
        length: packet.original_len,
        captured: packet.bytes.len(),
        ethernet: dissection.and_then(|dissection| ethernet(dissection.link.as_ref()?)),
        ip: ip.map(internet),
        transport: dissection.and_then(|dissection| {
            Some(transport(
                packet,
                dissection.ip.as_ref()?,
                dissection.transport.as_ref(),
                services,
            ))
        }),
        fault: match dissection {
            None => Some("the link type is not known".to_owned()),
            Some(dissection) => dissection.fault.map(|fault| fault.to_string()),
        },
        fields: with_fields.then(|| fields(packet, services)),
    };
    Ok(serde_json::to_writer(output, &document)?)
}

/// Closes the list of packets and the document.
pub(super) fn end_of_packets(losses: &Losses, output: &mut impl Write) -> io::Result<()> {
    output.write_all(b"],\"damaged_blocks\":")?;
    serde_json::to_writer(&mut *output, &losses.damaged_blocks)?;
    output.write_all(b",\"broken_off\":")?;
    serde_json::to_writer(&mut *output, &losses.broken_off.as_ref().map(said))?;
    output.write_all(b"}\n")
}

fn ethernet(header: &LinkHeader<'_>) -> Option<EthernetJson> {
    let LinkHeader::Ethernet(frame) = header else {
        return None;
    };
    Some(EthernetJson {
        source: frame.source().to_string(),
        destination: frame.destination().to_string(),
        vlans: frame.tags().map(|tag| tag.id()).collect(),
        ethertype: frame.ethertype().get(),
    })
}

fn internet(ip: &IpPacket<'_>) -> IpJson {
    let common = IpJson {
        version: 4,
        source: ip.source().to_string(),
        destination: ip.destination().to_string(),
        protocol: ip.protocol().get(),
        protocol_name: ip.protocol().name(),
        hop_limit: 0,
        dscp: 0,
        ecn: 0,
        header_length: ip.header_len(),
        length: ip.header_len() + ip.payload().len() + ip.missing(),
        identification: None,
        dont_fragment: None,
        more_fragments: false,
        fragment_offset: ip.fragment_offset(),
        checksum: None,
        extensions: Vec::new(),
    };
    match ip {
        IpPacket::V4(packet) => IpJson {
            hop_limit: packet.time_to_live(),
            dscp: packet.dscp(),
            ecn: packet.ecn(),
            identification: Some(u32::from(packet.identification())),
            dont_fragment: Some(packet.dont_fragment()),
            more_fragments: packet.more_fragments(),
            checksum: Some(if packet.has_valid_checksum() {
                "valid"
            } else {
                "wrong"
            }),
            extensions: packet
                .options()
                .filter_map(Result::ok)
                .map(|option| {
                    option
                        .name()
                        .map_or_else(|| format!("option-{}", option.kind), str::to_owned)
                })
                .collect(),
            ..common
        },
        IpPacket::V6(packet) => IpJson {
            version: 6,
            hop_limit: packet.hop_limit(),
            dscp: packet.dscp(),
            ecn: packet.ecn(),
            identification: packet.fragment().map(|fragment| fragment.identification),
            more_fragments: packet.fragment().is_some_and(|fragment| fragment.more),
            extensions: packet
                .extensions()
                .filter_map(Result::ok)
                .map(|header| header.kind().to_string())
                .collect(),
            ..common
        },
    }
}

fn transport<'a>(
    packet: &Packet<'_>,
    ip: &IpPacket<'_>,
    found: Option<&Transport<'_>>,
    services: &'a Services,
) -> TransportJson<'a> {
    let (source, destination) = ip.ports().unzip();
    let protocol = ip.protocol().transport();
    let common = TransportJson {
        protocol: ip.protocol().to_string(),
        source_port: source.map(Port::get),
        destination_port: destination.map(Port::get),
        source_service: name(services, source, protocol),
        destination_service: name(services, destination, protocol),
        header_length: found.map_or(0, Transport::header_len),
        payload_length: found.map_or(0, |found| payload_len(found, ip)),
        checksum: found
            .and_then(|found| found.checksum_state(ip))
            .map(|state| state.name()),
        ..TransportJson::default()
    };
    match found {
        Some(Transport::Tcp(segment)) => tcp(packet, segment, common),
        Some(Transport::Icmpv4(message)) => {
            let (identifier, sequence, mtu) = match message.message() {
                Icmpv4Message::EchoRequest { identifier, sequence }
                | Icmpv4Message::EchoReply { identifier, sequence } => {
                    (Some(identifier), Some(sequence), None)
                }
                Icmpv4Message::DestinationUnreachable {
                    code: 4,
                    next_hop_mtu,
                } => (None, None, Some(u32::from(next_hop_mtu))),
                _ => (None, None, None),
            };
            let said = message.message();
            let icmp = IcmpJson {
                r#type: message.kind(),
                code: message.code(),
                name: said.name(),
                code_name: said.code_name(),
                identifier,
                sequence,
                mtu,
                quoted: quoted(message.quoted()),
            };
            TransportJson {
                icmp: Some(icmp),
                ..common
            }
        }
        Some(Transport::Icmpv6(message)) => {
            let (identifier, sequence, mtu) = match message.message() {
                Icmpv6Message::EchoRequest { identifier, sequence }
                | Icmpv6Message::EchoReply { identifier, sequence } => {
                    (Some(identifier), Some(sequence), None)
                }
                Icmpv6Message::PacketTooBig { mtu } => (None, None, Some(mtu)),
                _ => (None, None, None),
            };
            let said = message.message();
            let icmp = IcmpJson {
                r#type: message.kind(),
                code: message.code(),
                name: said.name(),
                code_name: said.code_name(),
                identifier,
                sequence,
                mtu,
                quoted: quoted(message.quoted()),
            };
            TransportJson {
                icmp: Some(icmp),
                ..common
            }
        }
        _ => common,
    }
}

fn tcp<'a>(packet: &Packet<'_>, segment: &TcpSegment<'_>, common: TransportJson<'a>) -> TransportJson<'a> {
    let numbers = packet.numbers.unwrap_or_default();
    let flags = segment.flags();
    TransportJson {
        seq: Some(segment.seq().get()),
        ack: flags.contains(TcpFlags::ACK).then(|| segment.ack().get()),
        relative_seq: numbers.seq,
        relative_ack: numbers.ack,
        flags: Some(flags.iter_names().map(|(name, _)| name).collect()),
        window: Some(segment.window()),
        urgent_pointer: Some(segment.urgent_pointer()),
        options: Some(
            segment
                .options()
                .map(|option| match option {
                    Ok(option) => OptionJson {
                        kind: Some(option.kind()),
                        name: Some(option.name()),
                        text: describe_option(&option),
                    },
                    Err(fault) => OptionJson {
                        kind: None,
                        name: None,
                        text: fault.to_string(),
                    },
                })
                .collect(),
        ),
        ..common
    }
}

fn quoted(packet: Option<Result<IpPacket<'_>, ParseError>>) -> Option<QuotedJson> {
    let ip = packet?.ok()?;
    let (source_port, destination_port) = ip.ports().unzip();
    Some(QuotedJson {
        source: ip.source().to_string(),
        destination: ip.destination().to_string(),
        protocol: ip.protocol().get(),
        source_port: source_port.map(Port::get),
        destination_port: destination_port.map(Port::get),
    })
}

fn fields(packet: &Packet<'_>, services: &Services) -> Vec<FieldJson> {
    let Some(dissection) = &packet.dissection else {
        return Vec::new();
    };
    let service = |port: Port, protocol: Protocol| services.name(port, protocol).map(str::to_owned);
    anatomy::fields(dissection, packet.bytes, &service)
        .into_iter()
        .map(|field| FieldJson {
            header: field.header,
            name: field.name,
            bit_offset: field.bit_offset,
            bits: field.bits,
            value: field.value,
            hex: (!field.bytes.is_empty())
                .then(|| field.bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
            meaning: field.meaning,
        })
        .collect()
}
