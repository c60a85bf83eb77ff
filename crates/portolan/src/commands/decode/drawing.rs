use std::fmt::Write as _;
use std::io::{self, Write};

use portolan_capture::anatomy::{self, Field};
use portolan_core::registry::Services;
use portolan_core::{Escaped, Port, Protocol};

use super::Packet;

/// How much of the payload is shown, in characters.
const MAX_PAYLOAD: usize = 64;
/// The most bytes of a field that are shown.
const MAX_BYTES: usize = 8;

/// Draws the headers of a packet, a field a line.
pub(super) fn draw(packet: &Packet<'_>, services: &Services, output: &mut impl Write) -> io::Result<()> {
    let Some(dissection) = &packet.dissection else {
        return Ok(());
    };
    let service = |port: Port, protocol: Protocol| services.name(port, protocol).map(str::to_owned);
    let fields = anatomy::fields(dissection, packet.bytes, &service);
    let mut header = "";
    for field in &fields {
        if field.header != header {
            header = field.header;
            writeln!(output, "       {header}, from byte {}", field.bit_offset / 8)?;
            writeln!(
                output,
                "         BYTE.BIT BITS FIELD                 HEX              DECIMAL     BINARY             MEANING"
            )?;
        }
        writeln!(output, "{}", line(field).trim_end())?;
    }
    let end = fields
        .last()
        .map_or(0, |field| (field.bit_offset + field.bits).div_ceil(8));
    let payload = &packet.bytes[end.min(packet.bytes.len())..];
    if !payload.is_empty() {
        writeln!(
            output,
            "       {} further bytes, from byte {end}: {}",
            payload.len(),
            Escaped::new(&payload[..payload.len().min(4 * MAX_PAYLOAD)]).bounded(MAX_PAYLOAD)
        )?;
    }
    writeln!(output)
}

fn line(field: &Field) -> String {
    let place = format!("{}.{}", field.bit_offset / 8, field.bit_offset % 8);
    let decimal = field
        .value
        .filter(|_| field.bits <= 32)
        .map(|value| value.to_string());
    format!(
        "         {place:<8} {:>4} {:<21} {:<16} {:<11} {:<18} {}",
        field.bits,
        field.name,
        hex(field),
        decimal.unwrap_or_default(),
        binary(field),
        field.meaning
    )
}

/// `0x01BB`; longer fields byte by byte.
fn hex(field: &Field) -> String {
    match field.value {
        Some(value) if field.bits <= 32 => format!("0x{value:0width$X}", width = field.bits.div_ceil(4)),
        _ => {
            let mut text = String::new();
            for byte in field.bytes.iter().take(MAX_BYTES) {
                let _ = write!(text, "{byte:02X}");
            }
            if field.bytes.len() > MAX_BYTES {
                text.replace_range(14.., "…");
            }
            text
        }
    }
}

/// `00000001 10111011`, for fields of up to 16 bits.
fn binary(field: &Field) -> String {
    match field.value {
        Some(value) if field.bits <= 16 => {
            let digits = format!("{value:0width$b}", width = field.bits);
            match digits.len().checked_sub(8) {
                Some(split) if split > 0 => format!("{} {}", &digits[..split], &digits[split..]),
                _ => digits,
            }
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_drawn_as_on_paper() {
        let field = Field {
            header: "TCP",
            name: "destination port",
            bit_offset: 176,
            bits: 16,
            value: Some(443),
            bytes: vec![0x01, 0xBB],
            meaning: "https".to_owned(),
        };
        let line = line(&field);
        let words = line.split_whitespace().collect::<Vec<_>>();
        assert_eq!(
            words,
            [
                "22.0",
                "16",
                "destination",
                "port",
                "0x01BB",
                "443",
                "00000001",
                "10111011",
                "https"
            ]
        );
        let address = Field {
            bits: 128,
            value: None,
            bytes: vec![0xFE; 16],
            ..field
        };
        assert_eq!(
            (hex(&address), binary(&address)),
            ("FEFEFEFEFEFEFE…".to_owned(), String::new())
        );
    }
}
