//! Breaking text into lines of a width, and measuring it.

use unicode_width::UnicodeWidthChar as _;
use unicode_width::UnicodeWidthStr as _;

/// The columns a text takes on a terminal.
pub(crate) fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.width() }
}

/// Breaks `text` into lines of at most `room` columns; every character is in one of them.
///
/// A line ends at a newline of the text, else after the last blank, comma, slash or hyphen that fits, else
/// wherever the room ends. An address ends at its colons, and `tail` bytes at the end of each of the text's
/// own lines (the port) are never broken apart; only a line whose tail alone is wider than the room is wider.
pub(crate) fn wrap(text: &str, room: usize, tail: impl Fn(&str) -> usize) -> Vec<&str> {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let protected = line.len() - tail(line).min(line.len());
        let mut start = 0;
        while width(&line[start..]) > room {
            let end = break_at(line, start, protected, room);
            if end >= line.len() {
                break;
            }
            lines.push(line[start..end].trim_end());
            start = end;
            while line[start..].starts_with(' ') {
                start += 1;
            }
        }
        lines.push(&line[start..]);
    }
    lines
}

/// Where the line that begins at `start` ends: at least one character on, at most at `line.len()`.
fn break_at(line: &str, start: usize, protected: usize, room: usize) -> usize {
    let mut used = 0;
    let mut best = None;
    let mut hard = None;
    for (offset, character) in line[start..].char_indices() {
        let at = start + offset;
        used += character.width().unwrap_or(0);
        let end = at + character.len_utf8();
        if used > room {
            // A blank that finds no room ends the line as well as one that does.
            if character == ' ' && at <= protected {
                best = Some(at);
            }
            break;
        }
        if end <= protected {
            hard = Some(end);
            if matches!(character, ' ' | ',' | '/' | '-' | ':') {
                best = Some(end);
            }
        }
    }
    match best.or(hard) {
        Some(end) if end > start => end,
        // Nothing may be broken off: the protected tail begins here, or one character is too wide.
        _ if start < protected => start + line[start..].chars().next().map_or(1, char::len_utf8),
        _ => line.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_break_where_a_reader_would() {
        let plain = |_: &str| 0;
        assert_eq!(
            wrap("every address (IPv4 too)", 13, plain),
            ["every address", "(IPv4 too)"]
        );
        assert_eq!(
            wrap("systemd-resolved.service", 10, plain),
            ["systemd-", "resolved.s", "ervice"]
        );
        assert_eq!(wrap("a\nb", 10, plain), ["a", "b"]);
        assert_eq!(wrap("", 10, plain), [""]);
        let port = |line: &str| line.len() - line.rfind("]:").unwrap();
        assert_eq!(
            wrap("[2001:db8:1:2:3:4:5:6]:65535", 12, port),
            ["[2001:db8:1:", "2:3:4:5:", "6]:65535"]
        );
        assert_eq!(
            wrap("[2001:db8::1]:65535", 3, port),
            ["[20", "01:", "db8", "::", "1", "]:65535"]
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_lines_fit(text in "[a-z漢 ,:/é-]{0,60}", room in 2usize..30) {
            let lines = wrap(&text, room, |_| 0);
            let squeezed = |text: &str| text.replace(' ', "");
            prop_assert_eq!(squeezed(&lines.concat()), squeezed(&text));
            prop_assert!(lines.iter().all(|line| width(line) <= room), "{lines:?}");
        }
    }
}
