use portolan_core::wire::{EtherType, LinkHeader, MacAddress, VlanTag};

use super::Sheet;

pub(super) fn draw(header: &LinkHeader<'_>, sheet: &mut Sheet<'_>) {
    match header {
        LinkHeader::Ethernet(frame) => {
            sheet.begin("Ethernet", 0);
            sheet.field(0, 48, "destination", address(frame.destination()));
            sheet.field(48, 48, "source", address(frame.source()));
            let mut place = 96;
            for tag in frame.tags() {
                sheet.field(place, 16, "type", format!("{}: a tag follows", tag.protocol));
                draw_tag(tag, place + 16, sheet);
                place += 32;
            }
            sheet.field(place, 16, "type", ethertype(frame.ethertype()));
        }
        LinkHeader::Cooked(frame) => {
            let repr = frame.repr();
            let protocol = ethertype(repr.protocol);
            if let Some(interface) = repr.interface {
                sheet.begin("Linux cooked v2", 0);
                sheet.field(0, 16, "protocol", protocol);
                sheet.field(16, 16, "reserved", "");
                sheet.field(32, 32, "interface", format!("index {interface}"));
                sheet.field(64, 16, "device type", "");
                sheet.field(80, 8, "packet type", repr.direction.name());
                sheet.field(88, 8, "address length", "");
                sheet.field(96, 64, "address", "");
            } else {
                sheet.begin("Linux cooked", 0);
                sheet.field(0, 16, "packet type", repr.direction.name());
                sheet.field(16, 16, "device type", "");
                sheet.field(32, 16, "address length", "");
                sheet.field(48, 64, "address", "");
                sheet.field(112, 16, "protocol", protocol);
            }
        }
        LinkHeader::Loopback { family, .. } => {
            sheet.begin("loopback", 0);
            let meaning = match family {
                2 => "IPv4",
                10 | 24 | 28 | 30 => "IPv6",
                _ => "unknown",
            };
            sheet.field(0, 32, "address family", meaning);
        }
        // IP comes first: there is nothing to draw.
        _ => {}
    }
}

fn draw_tag(tag: VlanTag, place: usize, sheet: &mut Sheet<'_>) {
    sheet.field(place, 3, "priority", "");
    sheet.field(place + 3, 1, "drop eligible", "");
    sheet.field(place + 4, 12, "VLAN", format!("VLAN {}", tag.id()));
}

fn address(address: MacAddress) -> String {
    match address {
        MacAddress::BROADCAST => "everyone".to_owned(),
        MacAddress(bytes) if bytes[0] & 1 == 1 => format!("{address}, a group"),
        _ => address.to_string(),
    }
}

fn ethertype(ethertype: EtherType) -> String {
    if ethertype.is_length() {
        return "a length: IEEE 802.3, not Ethernet II".to_owned();
    }
    ethertype.name().unwrap_or("unknown").to_owned()
}
