use portolan_core::wire::{ExtensionHeader, IpProtocol, Ipv4Option, Ipv4Packet, Ipv6Packet, checksum};

use super::Sheet;

pub(super) fn draw_v4(packet: &Ipv4Packet<'_>, sheet: &mut Sheet<'_>) {
    sheet.begin("IPv4", sheet.start);
    sheet.field(0, 4, "version", "");
    sheet.field(4, 4, "header length", format!("{} bytes", packet.header_len()));
    sheet.field(8, 6, "DSCP", "");
    sheet.field(14, 2, "ECN", ecn(packet.ecn()));
    let total = match (packet.total_length(), packet.missing()) {
        (0, _) => "captured before the device cut it into packets".to_owned(),
        (_, missing) => bytes(missing),
    };
    sheet.field(16, 16, "total length", total);
    sheet.field(32, 16, "identification", "");
    sheet.field(48, 1, "reserved", "");
    let fragmenting = if packet.dont_fragment() {
        "do not fragment"
    } else {
        "may be fragmented"
    };
    sheet.field(49, 1, "DF", fragmenting);
    let more = if packet.more_fragments() {
        "more fragments follow"
    } else {
        "last fragment"
    };
    sheet.field(50, 1, "MF", more);
    sheet.field(
        51,
        13,
        "fragment offset",
        format!("at byte {}", packet.fragment_offset()),
    );
    sheet.field(64, 8, "time to live", "hops left");
    sheet.field(72, 8, "protocol", protocol(packet.protocol()));
    let sum = if packet.has_valid_checksum() {
        "valid".to_owned()
    } else {
        let mut header = packet.header_bytes().to_vec();
        header[10..12].fill(0);
        format!("wrong, should be 0x{:04x}", checksum(&header))
    };
    sheet.field(80, 16, "header checksum", sum);
    sheet.field(96, 32, "source address", packet.source().to_string());
    sheet.field(128, 32, "destination address", packet.destination().to_string());
    let mut place = Ipv4Packet::MIN_HEADER_LEN * 8;
    for option in packet.options() {
        let Ok(option) = option else { break };
        let len = match option.kind {
            Ipv4Option::NO_OPERATION => 1,
            _ => option.data.len() + 2,
        };
        sheet.field(place, len * 8, "option", option.name().unwrap_or("unknown"));
        place += len * 8;
    }
    let rest = packet.header_len() * 8 - place;
    if rest > 0 {
        sheet.field(place, rest, "padding", "end of options");
    }
}

pub(super) fn draw_v6(packet: &Ipv6Packet<'_>, sheet: &mut Sheet<'_>) {
    let start = sheet.start;
    sheet.begin("IPv6", start);
    sheet.field(0, 4, "version", "");
    sheet.field(4, 6, "DSCP", "");
    sheet.field(10, 2, "ECN", ecn(packet.ecn()));
    sheet.field(12, 20, "flow label", "");
    sheet.field(32, 16, "payload length", bytes(packet.missing()));
    sheet.field(48, 8, "next header", protocol(packet.next_header()));
    sheet.field(56, 8, "hop limit", "hops left");
    sheet.field(64, 128, "source address", packet.source().to_string());
    sheet.field(192, 128, "destination address", packet.destination().to_string());
    for header in packet.extensions() {
        let Ok(header) = header else { break };
        draw_extension(&header, start + Ipv6Packet::HEADER_LEN + header.offset(), sheet);
    }
}

fn draw_extension(header: &ExtensionHeader<'_>, start: usize, sheet: &mut Sheet<'_>) {
    let name = match header.kind() {
        IpProtocol::HOP_BY_HOP => "hop-by-hop options",
        IpProtocol::ROUTING => "routing header",
        IpProtocol::FRAGMENT => "fragment header",
        IpProtocol::AUTHENTICATION => "authentication header",
        IpProtocol::DESTINATION_OPTIONS => "destination options",
        _ => "extension header",
    };
    sheet.begin(name, start);
    sheet.field(0, 8, "next header", protocol(header.next_header()));
    if let Some(fragment) = header.fragment() {
        sheet.field(8, 8, "reserved", "");
        sheet.field(16, 13, "fragment offset", format!("at byte {}", fragment.offset));
        sheet.field(29, 2, "reserved", "");
        let more = if fragment.more {
            "more fragments follow"
        } else {
            "last fragment"
        };
        sheet.field(31, 1, "M", more);
        sheet.field(32, 32, "identification", "");
        return;
    }
    let len = header.bytes().len();
    sheet.field(8, 8, "length", format!("{len} bytes"));
    if let Some(left) = header.segments_left() {
        sheet.field(16, 8, "routing type", "");
        sheet.field(24, 8, "segments left", format!("{left} to be visited"));
        sheet.field(32, len * 8 - 32, "data", "");
    } else {
        sheet.field(16, len * 8 - 16, "data", "");
    }
}

fn bytes(missing: usize) -> String {
    match missing {
        0 => "bytes".to_owned(),
        missing => format!("bytes, {missing} of which were not captured"),
    }
}

fn protocol(protocol: IpProtocol) -> String {
    protocol.name().unwrap_or("unknown").to_owned()
}

const fn ecn(ecn: u8) -> &'static str {
    match ecn {
        0 => "not capable",
        1 => "capable, ECT(1)",
        2 => "capable, ECT(0)",
        _ => "congestion experienced",
    }
}
