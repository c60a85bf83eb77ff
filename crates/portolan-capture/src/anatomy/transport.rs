use portolan_core::wire::{
    ChecksumState, Icmpv4Message, Icmpv6Message, IpPacket, IpProtocol, TcpFlags, TcpOption, TcpSegment,
    Transport,
};
use portolan_core::{Port, Protocol};

use super::{ServiceName, Sheet};

pub(super) fn draw(
    found: &Transport<'_>,
    ip: &IpPacket<'_>,
    service: ServiceName<'_>,
    sheet: &mut Sheet<'_>,
) {
    let start = sheet.start;
    let checksum = checksum(found, ip);
    match found {
        Transport::Tcp(segment) => {
            sheet.begin("TCP", start);
            draw_ports(ip, service, sheet);
            draw_tcp(segment, checksum, sheet);
        }
        Transport::Udp(_) => {
            sheet.begin("UDP", start);
            draw_ports(ip, service, sheet);
            sheet.field(32, 16, "length", "bytes, this header included");
            sheet.field(48, 16, "checksum", checksum);
        }
        Transport::UdpLite(_) => {
            sheet.begin("UDP-Lite", start);
            draw_ports(ip, service, sheet);
            sheet.field(32, 16, "checksum coverage", "bytes, 0 for all");
            sheet.field(48, 16, "checksum", checksum);
        }
        Transport::Icmpv4(packet) => {
            let message = packet.message();
            sheet.begin("ICMP", start);
            draw_kind(message.name(), message.code_name(), checksum, sheet);
            match message {
                Icmpv4Message::EchoRequest { .. } | Icmpv4Message::EchoReply { .. } => draw_echo(sheet),
                Icmpv4Message::DestinationUnreachable { code: 4, .. } => {
                    sheet.field(32, 16, "unused", "");
                    sheet.field(48, 16, "next-hop MTU", "bytes");
                }
                Icmpv4Message::Redirect { gateway, .. } => {
                    sheet.field(32, 32, "gateway", gateway.to_string());
                }
                Icmpv4Message::ParameterProblem { .. } => {
                    sheet.field(32, 8, "pointer", "byte of the quoted packet");
                    sheet.field(40, 24, "unused", "");
                }
                _ => sheet.field(32, 32, "rest of header", ""),
            }
        }
        Transport::Icmpv6(packet) => {
            let message = packet.message();
            sheet.begin("ICMPv6", start);
            draw_kind(message.name(), message.code_name(), checksum, sheet);
            match message {
                Icmpv6Message::EchoRequest { .. } | Icmpv6Message::EchoReply { .. } => draw_echo(sheet),
                Icmpv6Message::PacketTooBig { .. } => sheet.field(32, 32, "MTU", "bytes"),
                Icmpv6Message::ParameterProblem { .. } => {
                    sheet.field(32, 32, "pointer", "byte of the quoted packet");
                }
                _ => sheet.field(32, 32, "rest of header", ""),
            }
        }
        // SCTP and DCCP begin with the ports too; the rest of their headers is not drawn.
        Transport::Other {
            protocol: IpProtocol::SCTP,
        } => {
            sheet.begin("SCTP", start);
            draw_ports(ip, service, sheet);
        }
        Transport::Other {
            protocol: IpProtocol::DCCP,
        } => {
            sheet.begin("DCCP", start);
            draw_ports(ip, service, sheet);
        }
        // A piece from the middle, and what has no ports.
        _ => {}
    }
}

fn draw_ports(ip: &IpPacket<'_>, service: ServiceName<'_>, sheet: &mut Sheet<'_>) {
    let (Some((source, destination)), Some(protocol)) = (ip.ports(), ip.protocol().transport()) else {
        return;
    };
    let meaning = |port: Port, protocol: Protocol| {
        service(port, protocol).unwrap_or_else(|| format!("no service known; a {} port", port.class().name()))
    };
    sheet.field(0, 16, "source port", meaning(source, protocol));
    sheet.field(16, 16, "destination port", meaning(destination, protocol));
}

fn draw_kind(name: &str, code: Option<&str>, checksum: String, sheet: &mut Sheet<'_>) {
    sheet.field(0, 8, "type", name);
    sheet.field(8, 8, "code", code.unwrap_or(""));
    sheet.field(16, 16, "checksum", checksum);
}

fn draw_echo(sheet: &mut Sheet<'_>) {
    sheet.field(32, 16, "identifier", "which asker");
    sheet.field(48, 16, "sequence number", "");
}

fn draw_tcp(segment: &TcpSegment<'_>, checksum: String, sheet: &mut Sheet<'_>) {
    let flags = segment.flags();
    let unless = |flag, unset| if flags.contains(flag) { "" } else { unset };
    sheet.field(32, 32, "sequence number", "");
    sheet.field(
        64,
        32,
        "acknowledgment number",
        unless(TcpFlags::ACK, "without ACK: means nothing"),
    );
    sheet.field(96, 4, "data offset", format!("{} bytes", segment.header_len()));
    sheet.field(100, 3, "reserved", "");
    let names = [
        ("AE", TcpFlags::AE, "accurate ECN"),
        ("CWR", TcpFlags::CWR, "congestion window reduced"),
        ("ECE", TcpFlags::ECE, "congestion seen"),
        ("URG", TcpFlags::URG, "urgent pointer counts"),
        ("ACK", TcpFlags::ACK, "acknowledgment counts"),
        ("PSH", TcpFlags::PSH, "hand over now"),
        ("RST", TcpFlags::RST, "reset the connection"),
        ("SYN", TcpFlags::SYN, "a connection begins"),
        ("FIN", TcpFlags::FIN, "no more data"),
    ];
    for (place, (name, flag, meaning)) in names.into_iter().enumerate() {
        sheet.field(
            103 + place,
            1,
            name,
            if flags.contains(flag) { meaning } else { "" },
        );
    }
    sheet.field(112, 16, "window", "before scaling");
    sheet.field(128, 16, "checksum", checksum);
    sheet.field(
        144,
        16,
        "urgent pointer",
        unless(TcpFlags::URG, "without URG: means nothing"),
    );
    let mut options = segment.options();
    let start = TcpSegment::MIN_HEADER_LEN * 8;
    let mut place = 0;
    while let Some(option) = options.next() {
        let len = options.offset() - place;
        let meaning = option.map_or_else(|fault| fault.to_string(), |option| describe(&option));
        sheet.field(start + place * 8, len * 8, "option", meaning);
        place += len;
    }
    let padding = segment.header_len() * 8 - start - place * 8;
    // The walk steps over the end-of-list and what follows it.
    if padding > 0 {
        sheet.field(start + place * 8, padding, "padding", "end of options");
    }
}

/// A TCP option in words: `mss 1460`, `timestamps 7 echo 9`.
#[must_use]
pub fn describe(option: &TcpOption<'_>) -> String {
    let name = option.name();
    match option {
        TcpOption::MaximumSegmentSize(size) => format!("{name} {size}"),
        TcpOption::WindowScale(shift) => format!("{name} {shift}"),
        TcpOption::Sack(blocks) => {
            let blocks = blocks
                .iter()
                .map(|block| format!(" {}-{}", block.left(), block.right()));
            format!("{name}{}", blocks.collect::<String>())
        }
        TcpOption::Timestamps { value, echo_reply } => format!("{name} {value} echo {echo_reply}"),
        TcpOption::UserTimeout { minutes, value } => {
            format!("{name} {value} {}", if *minutes { "minutes" } else { "seconds" })
        }
        TcpOption::Authentication {
            key_id,
            receive_next_key_id,
            mac,
        } => {
            format!(
                "{name} key {key_id} next {receive_next_key_id}, {} bytes",
                mac.len()
            )
        }
        TcpOption::FastOpenCookie([]) => format!("{name} cookie request"),
        TcpOption::FastOpenCookie(cookie) => format!("{name} cookie of {} bytes", cookie.len()),
        TcpOption::Multipath(data) => {
            format!("{name} subtype {}", data.first().map_or(0, |byte| byte >> 4))
        }
        TcpOption::Unknown { kind, data } => format!("kind {kind}, {} bytes", data.len()),
        _ => name.to_owned(),
    }
}

fn checksum(found: &Transport<'_>, ip: &IpPacket<'_>) -> String {
    let text = match found.checksum_state(ip) {
        Some(ChecksumState::Valid) => "valid",
        Some(ChecksumState::Offloaded) => "offloaded: the device was to complete it",
        Some(ChecksumState::Wrong) => "wrong",
        Some(ChecksumState::Absent) => "none was made",
        Some(ChecksumState::Unchecked) => "cannot be checked: not all that it covers is here",
        _ => "",
    };
    text.to_owned()
}
