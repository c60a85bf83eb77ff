//! What goes to standard error: one line each, which can neither steer a terminal nor pretend to be two.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use portolan_core::{Escaped, is_printable};

/// A line of failure has fewer characters than this, `portolan: ` included.
const MAX_LINE: usize = 400;
/// Stands before every line.
const PREFIX: &str = "portolan: ";
/// Of a failure that is too long, so much of the end is kept: there stands what to do.
const TAIL: usize = 160;

/// Prints a line of any length. Nothing is left to tell anyone if standard error is closed.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{PREFIX}{}", one_line(text));
}

/// The same without a name before it, for what other programs look for.
pub(crate) fn say_line(text: &str) {
    let _ = writeln!(io::stderr(), "{}", one_line(text));
}

/// Prints a failure, shortened in the middle if it is long.
pub(crate) fn say_failure(text: &str) {
    let text = shortened(&one_line(text), MAX_LINE - 1 - PREFIX.len());
    let _ = writeln!(io::stderr(), "{PREFIX}{text}");
}

/// The text with every control, format character and line break as an escape, in the forms of [`Escaped`].
///
/// Backslashes stay as they are: the parts that others wrote were escaped where they were put in, and this
/// is what holds for every text, whoever put it together.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        if is_printable(char) {
            line.push(char);
        } else {
            // Writing to a String does not fail.
            let _ = write!(line, "{}", Escaped::new(char.encode_utf8(&mut [0; 4])));
        }
    }
    line
}

/// At most `max` characters: the beginning and the end, and between them how many were left out.
fn shortened(text: &str, max: usize) -> String {
    let length = text.chars().count();
    if length <= max {
        return text.to_owned();
    }
    let gap = |left_out: usize| format!("…({left_out} more)…");
    let tail = TAIL.min(max / 2);
    let head = max.saturating_sub(tail + gap(length).chars().count());
    let left_out = length - head - tail;
    text.chars()
        .take(head)
        .chain(gap(left_out).chars())
        .chain(text.chars().skip(length - tail))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown_and_not_done() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a\u{1b}[31m\nb\u{85}", r"a\x1b[31m\nb\u{85}"),
            ("q\u{202e}x", r"q\u{202e}x"),
            (r"already \x1b escaped", r"already \x1b escaped"),
        ] {
            assert_eq!(one_line(text), expected);
        }
    }

    #[test]
    fn a_long_text_keeps_its_end_and_says_how_much_is_missing() {
        let text = format!("{}; write 80", "9".repeat(9000));
        let short = shortened(&text, 100);
        assert_eq!(short.chars().count(), 100, "{short}");
        assert!(
            short.starts_with("999") && short.ends_with("; write 80"),
            "{short}"
        );
        assert!(short.contains("…(8923 more)…"), "{short}");
    }

    proptest! {
        #[test]
        fn every_text_is_one_short_line(text in any::<String>(), repeat in 1usize..200) {
            let line = shortened(&one_line(&text.repeat(repeat)), MAX_LINE - 1 - PREFIX.len());
            prop_assert!(line.chars().all(is_printable), "{:?}", line);
            prop_assert!(PREFIX.len() + line.chars().count() < MAX_LINE);
        }
    }
}
