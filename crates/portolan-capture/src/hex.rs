//! Packets written as hexadecimal text: plain, or dumped by `tcpdump -x`, `xxd`, `hexdump -C` or Wireshark.
//!
//! A dump has lines that begin with an offset, `0x0010:`, `00000010:` or `0010` and two blanks, and may end
//! with the bytes as text. Where an offset is 0, or where another line stands between, a new packet begins.
//! Anything else is one packet, whose digits may be parted by blanks, colons, commas, dots and hyphens, and
//! may have `0x` or `\x` before them.

use thiserror::Error;

/// The most bytes that one packet may have: what capture programs take, too.
pub const MAX_PACKET: usize = 262_144;

/// Why a text is no packet. Offsets count bytes from the start of the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HexError {
    /// There is no digit at all.
    #[error("there is no hexadecimal digit")]
    Empty,
    /// A byte that has no place in such a text.
    #[error("{} at {offset} is no hexadecimal digit", Shown(*byte))]
    NotHex {
        /// Where it stands.
        offset: usize,
        /// What stands there.
        byte: u8,
    },
    /// A digit that has no second one: a byte has two.
    #[error("the digit at {offset} stands alone: a byte has two")]
    OddDigits {
        /// Where it stands.
        offset: usize,
    },
    /// A line's offset is not the number of bytes before it.
    #[error("the line at {offset} says it begins at {got:#x}, but {expected:#x} bytes came before it")]
    Gap {
        /// Where the line begins.
        offset: usize,
        /// What it says.
        got: usize,
        /// How many bytes came.
        expected: usize,
    },
    /// A packet has more bytes than [`MAX_PACKET`].
    #[error("the packet is longer than {MAX_PACKET} bytes at {offset}")]
    TooLong {
        /// Where the first byte too many stands.
        offset: usize,
    },
}

/// A byte as a person would name it.
struct Shown(u8);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            byte @ 0x21..=0x7E => write!(f, "'{}'", char::from(byte)),
            byte => write!(f, "byte 0x{byte:02x}"),
        }
    }
}

/// The packets in `text`; at least one, and none empty.
///
/// # Errors
/// [`HexError`], with the place of the fault.
pub fn packets(text: &[u8]) -> Result<Vec<Vec<u8>>, HexError> {
    // Without a colon only the very first line can be told from bytes that happen to be four zeros.
    let first = Lines::new(text).find(|line| !line.text.trim_ascii().is_empty());
    let first = first.map(|line| line.start);
    let is_dump = Lines::new(text).take(MAX_TITLE_LINES).any(|line| {
        DumpLine::parse(&line).is_some_and(|dump| dump.at == 0 && (dump.sure || Some(line.start) == first))
    });
    let packets = if is_dump { dump(text)? } else { vec![plain(text)?] };
    Ok(packets)
}

/// How many lines may stand before the first packet of a dump.
const MAX_TITLE_LINES: usize = 100;

fn plain(text: &[u8]) -> Result<Vec<u8>, HexError> {
    let mut bytes = Vec::new();
    let mut first: Option<(usize, u8)> = None;
    let mut place = 0;
    while let Some(&byte) = text.get(place) {
        let next = text.get(place + 1).copied().unwrap_or(0);
        let offset = place;
        place += 1;
        match (digit(byte), first) {
            // `0x` and `\x` are announcements, not digits.
            (_, None) if matches!((byte, next), (b'0' | b'\\', b'x' | b'X')) => place += 1,
            (Some(high), None) => first = Some((offset, high)),
            (Some(low), Some((_, high))) => {
                if bytes.len() == MAX_PACKET {
                    return Err(HexError::TooLong { offset });
                }
                bytes.push(high << 4 | low);
                first = None;
            }
            (None, Some((offset, _))) if is_separator(byte) => return Err(HexError::OddDigits { offset }),
            (None, _) if is_separator(byte) => {}
            (None, _) => return Err(HexError::NotHex { offset, byte }),
        }
    }
    match first {
        Some((offset, _)) => Err(HexError::OddDigits { offset }),
        None if bytes.is_empty() => Err(HexError::Empty),
        None => Ok(bytes),
    }
}

fn dump(text: &[u8]) -> Result<Vec<Vec<u8>>, HexError> {
    let mut packets: Vec<Vec<u8>> = Vec::new();
    let mut current: Vec<u8> = Vec::new();
    for line in Lines::new(text) {
        let parsed = DumpLine::parse(&line);
        if parsed.as_ref().is_none_or(|dump| dump.at == 0) && !current.is_empty() {
            packets.push(std::mem::take(&mut current));
        }
        let Some(parsed) = parsed else { continue };
        if parsed.at != current.len() {
            return Err(HexError::Gap {
                offset: line.start,
                got: parsed.at,
                expected: current.len(),
            });
        }
        parsed.append(&line, &mut current)?;
    }
    if !current.is_empty() {
        packets.push(current);
    }
    if packets.is_empty() {
        Err(HexError::Empty)
    } else {
        Ok(packets)
    }
}

struct Line<'a> {
    start: usize,
    text: &'a [u8],
}

struct Lines<'a> {
    text: &'a [u8],
    place: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, place: 0 }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.text.get(self.place..).filter(|rest| !rest.is_empty())?;
        let len = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let start = self.place;
        self.place += len + 1;
        Some(Line {
            start,
            text: &rest[..len],
        })
    }
}

/// A line that begins with an offset.
struct DumpLine {
    at: usize,
    /// Where the bytes begin in the line.
    body: usize,
    /// Whether a colon says that it is an offset.
    sure: bool,
}

impl DumpLine {
    fn parse(line: &Line<'_>) -> Option<Self> {
        let text = line.text;
        let mut place = text.iter().position(|byte| !byte.is_ascii_whitespace())?;
        if text[place..].starts_with(b"0x") {
            place += 2;
        }
        let digits = text[place..]
            .iter()
            .take_while(|byte| digit(**byte).is_some())
            .count();
        // Eight digits of offset reach beyond the longest packet.
        if !(4..=8).contains(&digits) {
            return None;
        }
        let at = text[place..place + digits].iter().fold(0, |number, byte| {
            number << 4 | usize::from(digit(*byte).unwrap_or(0))
        });
        place += digits;
        let sure = text.get(place) == Some(&b':');
        let rest = &text[place + usize::from(sure)..];
        let blanks = rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count();
        if !sure && blanks < 2 {
            return None;
        }
        // A second colon right behind belongs to an address or a time of day, not to a dump.
        let begins_with_byte = rest.get(blanks).is_none_or(|byte| digit(*byte).is_some());
        ((blanks > 0 || rest.is_empty()) && begins_with_byte).then_some(Self {
            at,
            body: text.len() - rest.len() + blanks,
            sure,
        })
    }

    /// Adds the line's bytes to `bytes`: groups of two, four or more digits, 16 bytes at most, up to the text
    /// column.
    fn append(&self, line: &Line<'_>, bytes: &mut Vec<u8>) -> Result<(), HexError> {
        let text = line.text;
        let mut place = self.body;
        let mut count = 0;
        while count < 16 && place < text.len() {
            let group = text[place..]
                .iter()
                .take_while(|byte| digit(**byte).is_some())
                .count();
            if group == 0 {
                let byte = text[place];
                if matches!(byte, b'|' | b'\r') {
                    break;
                }
                return Err(HexError::NotHex {
                    offset: line.start + place,
                    byte,
                });
            }
            if group % 2 == 1 {
                return Err(HexError::OddDigits {
                    offset: line.start + place + group - 1,
                });
            }
            for pair in text[place..place + group]
                .as_chunks::<2>()
                .0
                .iter()
                .take(16 - count)
            {
                if bytes.len() == MAX_PACKET {
                    return Err(HexError::TooLong {
                        offset: line.start + place,
                    });
                }
                let [high, low] = pair.map(|byte| digit(byte).unwrap_or(0));
                bytes.push(high << 4 | low);
                count += 1;
            }
            place += group;
            let gap = text[place..].iter().take_while(|byte| **byte == b' ').count();
            // Two blanks part bytes from their text, but for the gap after eight that some programs leave.
            if gap == 0 && place < text.len() && text[place] != b'\r' {
                return Err(HexError::NotHex {
                    offset: line.start + place,
                    byte: text[place],
                });
            }
            if gap > 2 || gap == 2 && count != 8 {
                break;
            }
            place += gap;
        }
        Ok(())
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn is_separator(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b':' | b',' | b'.' | b'-')
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_text_in_many_dresses() {
        for text in [
            "4500003c",
            "45 00 00 3C\n",
            "45:00:00:3c",
            "0x4500 0x003c",
            "0x45,0x00,0x00,0x3c",
            r"\x45\x00\x00\x3c",
            "4500-003c",
        ] {
            assert_eq!(
                packets(text.as_bytes()),
                Ok(vec![vec![0x45, 0, 0, 0x3C]]),
                "{text}"
            );
        }
    }

    #[test]
    fn the_fault_and_its_place() {
        let fault = |text: &str| packets(text.as_bytes()).unwrap_err();
        assert_eq!(fault(""), HexError::Empty);
        assert_eq!(fault(" \n"), HexError::Empty);
        assert_eq!(
            fault("45 0g"),
            HexError::NotHex {
                offset: 4,
                byte: b'g'
            }
        );
        assert_eq!(fault("4500\0"), HexError::NotHex { offset: 4, byte: 0 });
        assert_eq!(fault("450"), HexError::OddDigits { offset: 2 });
        assert_eq!(fault("45 0 0"), HexError::OddDigits { offset: 3 });
        assert_eq!(fault("é").to_string(), "byte 0xc3 at 0 is no hexadecimal digit");
        assert_eq!(fault(&"0".repeat(1 << 20)), HexError::TooLong { offset: 524_289 });
        assert_eq!(
            fault("0000  45 00\n0010  00"),
            HexError::Gap {
                offset: 12,
                got: 16,
                expected: 2
            }
        );
    }

    #[test]
    fn the_dumps_of_four_programs() {
        let bytes = (0x40..0x5A).collect::<Vec<u8>>();
        let tcpdump = "12:00:00.1 IP 10.0.0.1.1 > 10.0.0.2.2: Flags [S]\n\
            \t0x0000:  4041 4243 4445 4647 4849 4a4b 4c4d 4e4f  @ABCDEFGHIJKLMNO\n\
            \t0x0010:  5051 5253 5455 5657 5859                 PQRSTUVWXY\n";
        let xxd = "00000000: 4041 4243 4445 4647 4849 4a4b 4c4d 4e4f  @ABCDEFGHIJKLMNO\n\
            00000010: 5051 5253 5455 5657 5859                 PQRSTUVWXY\n";
        let wireshark = "0000   40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f   @ABCDEFGHIJKLMNO\r\n\
            0010   50 51 52 53 54 55 56 57 58 59                     PQRSTUVWXY\r\n";
        let tshark = "0000  40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f   @ABCDEFGHIJKLMNO\n\
            0010  50 51 52 53 54 55 56 57 58 59                     PQRSTUVWXY\n";
        let hexdump = "00000000  40 41 42 43 44 45 46 47  48 49 4a 4b 4c 4d 4e 4f  |@ABCDEFGHIJKLMNO|\n\
            00000010  50 51 52 53 54 55 56 57  58 59                    |PQRSTUVWXY|\n\
            0000001a\n";
        for text in [tcpdump, xxd, wireshark, tshark, hexdump] {
            assert_eq!(packets(text.as_bytes()), Ok(vec![bytes.clone()]), "{text}");
            let twice = format!("{text}\n{text}");
            assert_eq!(
                packets(twice.as_bytes()),
                Ok(vec![bytes.clone(), bytes.clone()]),
                "{twice}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes in vec(any::<u8>(), 1..200), gap in 0usize..3) {
            let separator = ["", " ", ":"][gap];
            let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(separator);
            prop_assert_eq!(packets(text.as_bytes()), Ok(vec![bytes.clone()]));
            let lines = bytes.chunks(16).enumerate().map(|(line, bytes)| {
                let bytes = bytes.iter().map(|byte| format!(" {byte:02x}")).collect::<String>();
                format!("{:04x}: {bytes}\n", line * 16)
            });
            prop_assert_eq!(packets(lines.collect::<String>().as_bytes()), Ok(vec![bytes]));
        }

        #[test]
        fn any_text_is_read_or_refused(text in vec(prop_oneof![Just(b'0'), Just(b'\n'), Just(b' '), Just(b':'), Just(b'x'), any::<u8>()], 0..120)) {
            if let Ok(packets) = packets(&text) {
                prop_assert!(!packets.is_empty() && packets.iter().all(|packet| !packet.is_empty()));
            }
        }
    }
}
