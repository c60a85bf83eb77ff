//! Text that others wrote (process names, banners, what was typed) made safe for a terminal.
//!
//! ```
//! use portolan_core::Escaped;
//!
//! assert_eq!(Escaped::new("tab\there").to_string(), r"tab\there");
//! assert_eq!(Escaped::new(b"\x1b[2J\xff").to_string(), r"\x1b[2J\xff");
//! assert_eq!(Escaped::new("1".repeat(100).as_str()).bounded(20).to_string(), "111111111…(91 more)");
//! ```

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::str::Utf8Chunk;

/// Shows untrusted text so that it can neither steer a terminal nor pretend to be other text.
///
/// Every C0 and C1 control, DEL, format character (Unicode category Cf: bidirectional overrides,
/// zero-width characters, soft hyphens, tags) and line or paragraph separator stands there as an escape:
/// `\n`, `\t`, `\r`, `\x1b` below U+0080, `\u{202e}` above. A byte that is not UTF-8 is `\xNN`. A
/// backslash is doubled, so that no escape can be forged and different texts stay different. All else is
/// printed unchanged. Nothing is allocated; the formatter's width is not obeyed.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    max: Option<usize>,
}

impl<'a> Escaped<'a> {
    /// Escapes bytes or a `str`.
    #[must_use]
    pub fn new<T: AsRef<[u8]> + ?Sized>(text: &'a T) -> Self {
        Self {
            bytes: text.as_ref(),
            max: None,
        }
    }

    /// The same in at most `max` characters: what does not fit gives way to `…(N more)`, N being the
    /// number of characters (or bytes that are not UTF-8) left out.
    ///
    /// No escape is cut in two. Where `max` leaves no room for the count there is only `…`; with a
    /// `max` of 0, nothing.
    #[must_use]
    pub const fn bounded(self, max: usize) -> Self {
        Self {
            bytes: self.bytes,
            max: Some(max),
        }
    }

    fn write_bounded(&self, f: &mut fmt::Formatter<'_>, max: usize) -> fmt::Result {
        let mut width = 0usize;
        let fits = pieces(self.bytes).all(|piece| {
            width += piece.width();
            width <= max
        });
        if fits {
            return pieces(self.bytes).try_for_each(|piece| piece.write(f));
        }
        let count = |chunk: Utf8Chunk<'_>| chunk.valid().chars().count() + chunk.invalid().len();
        let pieces_total: usize = self.bytes.utf8_chunks().map(count).sum();
        // The count shown is at most the count of all pieces, so room for that one is room enough.
        let with_count = "…( more)".chars().count() + pieces_total.max(1).ilog10() as usize + 1;
        let (room, counted) = if max > with_count {
            (max - with_count, true)
        } else {
            (max.saturating_sub(1), false)
        };
        let mut used = 0;
        let mut shown = 0;
        for piece in pieces(self.bytes) {
            if used + piece.width() > room {
                break;
            }
            used += piece.width();
            shown += 1;
            piece.write(f)?;
        }
        match (counted, max) {
            (true, _) => write!(f, "…({} more)", pieces_total - shown),
            (false, 0) => Ok(()),
            (false, _) => f.write_char('…'),
        }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.max {
            None => pieces(self.bytes).try_for_each(|piece| piece.write(f)),
            Some(max) => self.write_bounded(f, max),
        }
    }
}

/// The text of raw bytes for a JSON string: valid UTF-8 as it is, each other byte as the four
/// characters `\xNN`.
///
/// The JSON encoder does its own escaping of what it is given, so controls stay raw here. Borrows if all
/// of it is UTF-8. A backslash is not doubled: text keeps its plain form, at the price that a literal
/// `\xff` and a byte 0xFF look the same.
#[must_use]
pub fn json_text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}").expect("a String takes all that is written");
        }
    }
    Cow::Owned(text)
}

/// Whether a terminal may be shown `char` as it is, by the rules of [`Escaped`].
///
/// The backslash is, though [`Escaped`] doubles it.
#[must_use]
pub fn is_printable(char: char) -> bool {
    !char.is_control() && !is_format_or_separator(char)
}

/// Categories Cf, Zl and Zp of Unicode 16, and the rest of the block of tags and the "default
/// ignorable" U+2065, which later versions may fill with more of the same.
///
/// The variation selectors among the tags (U+E0100 to U+E01EF, category Mn) belong to ordinary CJK text.
fn is_format_or_separator(char: char) -> bool {
    matches!(
        char,
        '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e00ff}'
            | '\u{e01f0}'..='\u{e0fff}'
    )
}

/// The smallest part that is shown whole: a character, or a byte that belongs to none.
#[derive(Clone, Copy)]
enum Piece {
    Char(char),
    Byte(u8),
}

fn pieces(bytes: &[u8]) -> impl Iterator<Item = Piece> {
    bytes.utf8_chunks().flat_map(|chunk| {
        let chars = chunk.valid().chars().map(Piece::Char);
        chars.chain(chunk.invalid().iter().copied().map(Piece::Byte))
    })
}

impl Piece {
    /// The number of characters that [`Piece::write`] writes.
    fn width(self) -> usize {
        match self {
            Self::Char('\n' | '\r' | '\t' | '\\') => 2,
            Self::Char(char) if is_printable(char) => 1,
            Self::Char('\0'..='\x7f') | Self::Byte(_) => 4,
            Self::Char(char) => r"\u{}".len() + (char as u32).ilog(16) as usize + 1,
        }
    }

    fn write(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Char('\n') => f.write_str("\\n"),
            Self::Char('\r') => f.write_str("\\r"),
            Self::Char('\t') => f.write_str("\\t"),
            Self::Char('\\') => f.write_str("\\\\"),
            Self::Char(char) if is_printable(char) => f.write_char(char),
            Self::Char(char @ '\0'..='\x7f') => write!(f, "\\x{:02x}", char as u32),
            Self::Char(char) => write!(f, "\\u{{{:x}}}", char as u32),
            Self::Byte(byte) => write!(f, "\\x{byte:02x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_kind_of_text_has_its_form() {
        let cases: &[(&[u8], &str)] = &[
            (b"nginx", "nginx"),
            ("naïve 漢字 🦀 e\u{301}".as_bytes(), "naïve 漢字 🦀 e\u{301}"),
            (b"a\nb\rc\td", r"a\nb\rc\td"),
            (b"\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
            (b"\0\x7f", r"\x00\x7f"),
            (b"\\x1b", r"\\x1b"),
            ("\u{85}\u{9b}".as_bytes(), r"\u{85}\u{9b}"),
            (b"\x85\xff\xc3(", r"\x85\xff\xc3("),
            (
                "\u{202e}\u{200b}\u{ad}\u{feff}".as_bytes(),
                r"\u{202e}\u{200b}\u{ad}\u{feff}",
            ),
            (
                "\u{e0041}\u{2028}\u{2029}".as_bytes(),
                r"\u{e0041}\u{2028}\u{2029}",
            ),
            (b"", ""),
        ];
        for (input, expected) in cases {
            assert_eq!(Escaped::new(input).to_string(), *expected, "{input:?}");
        }
    }

    #[test]
    fn a_text_that_fits_is_not_shortened() {
        assert_eq!(Escaped::new("12345").bounded(5).to_string(), "12345");
        assert_eq!(Escaped::new("").bounded(0).to_string(), "");
    }

    #[test]
    fn what_is_left_out_is_counted_and_no_escape_is_cut() {
        assert_eq!(
            Escaped::new("1234567890abcdef").bounded(15).to_string(),
            "12345…(11 more)"
        );
        assert_eq!(
            Escaped::new(&[0xff; 100]).bounded(19).to_string(),
            r"\xff\xff…(98 more)"
        );
        assert_eq!(Escaped::new("1234567890").bounded(4).to_string(), "123…");
        assert_eq!(Escaped::new("1234567890").bounded(1).to_string(), "…");
        assert_eq!(Escaped::new("1234567890").bounded(0).to_string(), "");
    }

    #[test]
    fn json_text_keeps_controls_for_the_encoder_and_spells_out_bad_bytes() {
        assert!(matches!(
            json_text("a\n\u{202e}\\".as_bytes()),
            Cow::Borrowed("a\n\u{202e}\\")
        ));
        assert_eq!(json_text(b"a\xff\x80\nb"), "a\\xff\\x80\nb");
    }

    fn unescape(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some(char) = rest.chars().next() {
            let mut take = char.len_utf8();
            let mut buffer = [0; 4];
            if char != '\\' {
                bytes.extend_from_slice(char.encode_utf8(&mut buffer).as_bytes());
            } else {
                take = 2;
                match rest.as_bytes()[1] {
                    b'n' => bytes.push(b'\n'),
                    b'r' => bytes.push(b'\r'),
                    b't' => bytes.push(b'\t'),
                    b'\\' => bytes.push(b'\\'),
                    b'x' => {
                        take = 4;
                        bytes.push(u8::from_str_radix(&rest[2..4], 16).unwrap());
                    }
                    _ => {
                        take = rest.find('}').unwrap() + 1;
                        let code = u32::from_str_radix(&rest[3..take - 1], 16).unwrap();
                        let char = char::from_u32(code).unwrap();
                        bytes.extend_from_slice(char.encode_utf8(&mut buffer).as_bytes());
                    }
                }
            }
            rest = &rest[take..];
        }
        bytes
    }

    proptest! {
        #[test]
        fn the_text_is_printable_and_leads_back_to_the_bytes(bytes in any::<Vec<u8>>(), text in any::<String>()) {
            for input in [bytes.as_slice(), text.as_bytes()] {
                let escaped = Escaped::new(input).to_string();
                prop_assert!(escaped.chars().all(is_printable), "{escaped:?}");
                prop_assert_eq!(unescape(&escaped), input);
            }
        }

        #[test]
        fn a_bound_holds_and_its_count_is_right(bytes in any::<Vec<u8>>(), max in 0usize..60) {
            let whole = Escaped::new(&bytes).to_string();
            let short = Escaped::new(&bytes).bounded(max).to_string();
            prop_assert!(short.chars().count() <= max);
            if whole.chars().count() <= max {
                prop_assert_eq!(short, whole);
            } else if let Some((kept, count)) = short.rsplit_once("…(") {
                let left = count.strip_suffix(" more)").unwrap().parse::<usize>().unwrap();
                prop_assert!(whole.starts_with(kept));
                prop_assert_eq!(pieces(&unescape(kept)).count() + left, pieces(&bytes).count());
            } else {
                prop_assert!(whole.starts_with(short.trim_end_matches('…')));
            }
        }
    }
}
