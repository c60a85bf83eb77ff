//! A packet bit by bit: each header field's place, bits, value and meaning, as one would draw it on paper.

mod internet;
mod link;
mod transport;

pub use transport::describe as describe_option;

use portolan_core::wire::{Dissection, IpPacket};
use portolan_core::{Port, Protocol};

/// One field of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The header it belongs to, such as `IPv4` or `TCP`.
    pub header: &'static str,
    /// Its name, in the words of the standard.
    pub name: &'static str,
    /// Where it begins, in bits from the first of the packet.
    pub bit_offset: usize,
    /// How many bits it has.
    pub bits: usize,
    /// Its number, if it has at most 64 bits.
    pub value: Option<u64>,
    /// Its bytes, if it begins and ends at whole ones; empty otherwise.
    pub bytes: Vec<u8>,
    /// What it says, if that is more than its number.
    pub meaning: String,
}

/// The name of the service that a port has.
pub type ServiceName<'a> = &'a dyn Fn(Port, Protocol) -> Option<String>;

/// Every field of the headers of a packet, from the first byte on, as far as it can be read.
///
/// `bytes` is what `packet` was read from.
#[must_use]
pub fn fields(packet: &Dissection<'_>, bytes: &[u8], service: ServiceName<'_>) -> Vec<Field> {
    let mut sheet = Sheet {
        bytes,
        header: "",
        start: 0,
        fields: Vec::new(),
    };
    if let Some(header) = &packet.link {
        link::draw(header, &mut sheet);
        if let Some(ip) = &packet.ip {
            let start = header.header_len();
            sheet.begin("", start);
            match ip {
                IpPacket::V4(packet) => internet::draw_v4(packet, &mut sheet),
                IpPacket::V6(packet) => internet::draw_v6(packet, &mut sheet),
            }
            if let Some(found) = &packet.transport {
                sheet.begin("", start + ip.header_len());
                transport::draw(found, ip, service, &mut sheet);
            }
        }
    }
    sheet.fields
}

/// The fields drawn so far, and where the header at hand begins.
struct Sheet<'a> {
    bytes: &'a [u8],
    header: &'static str,
    /// In bytes.
    start: usize,
    fields: Vec<Field>,
}

impl Sheet<'_> {
    /// Goes on with the header that begins at byte `start` of the packet.
    fn begin(&mut self, header: &'static str, start: usize) {
        self.header = header;
        self.start = start;
    }

    /// Draws the field of `bits` bits that begins `offset` bits into the header. Nothing is drawn of what
    /// lies behind the packet's end.
    fn field(&mut self, offset: usize, bits: usize, name: &'static str, meaning: impl Into<String>) {
        let bit_offset = self.start * 8 + offset;
        let Some(covering) = self.bytes.get(bit_offset / 8..(bit_offset + bits).div_ceil(8)) else {
            return;
        };
        let value = (bits <= 64 && covering.len() <= 9).then(|| {
            let all = covering
                .iter()
                .fold(0u128, |number, byte| number << 8 | u128::from(*byte));
            let below = covering.len() * 8 - bit_offset % 8 - bits;
            let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
            (all >> below) as u64 & mask
        });
        let whole = bit_offset.is_multiple_of(8) && bits.is_multiple_of(8);
        self.fields.push(Field {
            header: self.header,
            name,
            bit_offset,
            bits,
            value,
            bytes: if whole { covering.to_vec() } else { Vec::new() },
            meaning: meaning.into(),
        });
    }
}

#[cfg(test)]
mod tests {
    use portolan_core::wire::LinkType;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn no_service(_: Port, _: Protocol) -> Option<String> {
        None
    }

    #[test]
    fn the_port_of_a_syn_is_found_bit_by_bit() {
        let mut bytes = vec![
            0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        bytes.extend([
            0xD4, 0x31, 0x01, 0xBB, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xFA, 0xF0, 0, 0, 0, 0,
        ]);
        let packet = Dissection::of(LinkType::Ip, &bytes);
        let named = |port: Port, _: Protocol| (port.get() == 443).then(|| "https".to_owned());
        let drawn = fields(&packet, &bytes, &named);
        let find = |name| drawn.iter().find(|field| field.name == name).unwrap();
        let port = find("destination port");
        assert_eq!(
            (port.header, port.bit_offset, port.bits, port.value),
            ("TCP", 176, 16, Some(443))
        );
        assert_eq!((&port.bytes[..], &port.meaning[..]), (&[0x01, 0xBB][..], "https"));
        let offset = find("data offset");
        assert_eq!((offset.bit_offset, offset.bits, offset.value), (256, 4, Some(5)));
        assert_eq!(offset.meaning, "20 bytes");
        assert_eq!(find("SYN").value, Some(1));
        assert_eq!(find("ACK").value, Some(0));
        assert_eq!(find("version").value, Some(4));
        assert!(find("header checksum").meaning.starts_with("wrong"), "{drawn:?}");
    }

    proptest! {
        #[test]
        fn the_fields_of_any_packet_follow_each_other_without_overlap(
            link in 0..LinkType::ALL.len(), mut bytes in vec(any::<u8>(), 0..160), guide in any::<Option<(bool, u8)>>()
        ) {
            let link = LinkType::ALL[link];
            if let Some((six, protocol)) = guide {
                let (version, place) = if six { (0x60, 6) } else { (0x47, 9) };
                if let Some(byte) = bytes.get_mut(0) { *byte = version; }
                if let Some(byte) = bytes.get_mut(place) { *byte = protocol; }
            }
            let packet = Dissection::of(link, &bytes);
            let mut end = 0;
            for field in fields(&packet, &bytes, &no_service) {
                prop_assert!(field.bit_offset == end, "a gap or an overlap before {:?}", field);
                prop_assert!(field.bits > 0);
                end = field.bit_offset + field.bits;
                prop_assert!(end <= bytes.len() * 8);
            }
        }
    }
}
