//! The format of services(5): `NAME PORT/PROTOCOL [ALIAS…] [# comment]`, a line each.

use std::fmt;

use crate::escape::Escaped;
use crate::{Port, Protocol};

/// The most text that is read, in bytes; Debian's file has 13 KB, the largest seen 700 KB.
const MAX_TEXT: usize = 4 << 20;
/// The longest name, in bytes. RFC 6335 allows 15; files in use have longer ones.
const MAX_NAME: usize = 64;
/// The most aliases of one line; glibc's own limit is the line's length.
const MAX_ALIASES: usize = 64;
/// How many faulty lines are kept to be shown; the others are counted.
const MAX_SHOWN: usize = 16;

/// One line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) port: Port,
    pub(super) protocol: Protocol,
    pub(super) name: Box<str>,
    /// With commas between them.
    pub(super) aliases: Box<str>,
}

/// The lines of a services file that could not be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    shown: Vec<Problem>,
    count: usize,
}

impl Problems {
    /// None at all.
    pub(super) const NONE: Self = Self {
        shown: Vec::new(),
        count: 0,
    };

    /// How many lines were faulty.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The first of them, at most 16.
    #[must_use]
    pub fn shown(&self) -> &[Problem] {
        &self.shown
    }

    fn push(&mut self, line: usize, kind: ProblemKind) {
        self.count += 1;
        if self.shown.len() < MAX_SHOWN {
            self.shown.push(Problem { line, kind });
        }
    }
}

/// A line of a services file that could not be used. It prints as `line 3: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub kind: ProblemKind,
}

/// What is wrong with a line of a services file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A name and nothing after it.
    NoPort,
    /// The second field is not PORT/PROTOCOL with a port of 0 to 65535.
    BadPort {
        /// The field, shortened.
        field: Box<str>,
    },
    /// A name that is too long or has other than printable ASCII characters, or a comma.
    BadName {
        /// The name, shortened.
        name: Box<str>,
    },
    /// More than 64 aliases; the first 64 are used.
    TooManyAliases,
    /// The text is longer than 4 MiB; the rest is not read.
    TooLong,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        match &self.kind {
            ProblemKind::NoPort => f.write_str("a name without PORT/PROTOCOL"),
            ProblemKind::BadPort { field } => {
                write!(f, "\"{}\" is not PORT/PROTOCOL", Escaped::new(field.as_bytes()))
            }
            ProblemKind::BadName { name } => write!(
                f,
                "\"{}\" is no service name: at most {MAX_NAME} printable ASCII characters, no comma",
                Escaped::new(name.as_bytes())
            ),
            ProblemKind::TooManyAliases => write!(f, "more than {MAX_ALIASES} aliases; the rest is not used"),
            ProblemKind::TooLong => write!(
                f,
                "the file is longer than {MAX_TEXT} bytes; the rest is not read"
            ),
        }
    }
}

/// Reads a services file. Lines of protocols without ports of our kind (`1/ddp`) are passed over.
///
/// Any bytes are fine. Time and memory are linear in the text, of which at most 4 MiB are read.
pub(super) fn parse(text: &[u8]) -> (Vec<Line>, Problems) {
    let mut lines = Vec::new();
    let mut problems = Problems::NONE;
    let read = text.get(..MAX_TEXT).unwrap_or(text);
    let mut number = 0;
    for line in read.split(|&byte| byte == b'\n') {
        number += 1;
        let line = line.split(|&byte| byte == b'#').next().unwrap_or_default();
        let mut words = line
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty());
        let Some(name) = words.next() else { continue };
        match parse_line(name, &mut words) {
            Ok(Some((line, rest))) => {
                lines.push(line);
                if let Some(kind) = rest {
                    problems.push(number, kind);
                }
            }
            Ok(None) => {}
            Err(kind) => problems.push(number, kind),
        }
    }
    if read.len() < text.len() {
        problems.push(number, ProblemKind::TooLong);
    }
    (lines, problems)
}

/// The line, and what had to be left out of it; `None` if its protocol is not ours.
fn parse_line<'a>(
    name: &[u8],
    words: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<Option<(Line, Option<ProblemKind>)>, ProblemKind> {
    let name = checked_name(name)?;
    let field = words.next().ok_or(ProblemKind::NoPort)?;
    let bad_port = || ProblemKind::BadPort {
        field: shortened(field),
    };
    let field_text = std::str::from_utf8(field).map_err(|_| bad_port())?;
    // services(5) of glibc also takes a comma between port and protocol.
    let (port, protocol) = field_text.split_once(['/', ',']).ok_or_else(bad_port)?;
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| is_number).ok_or_else(bad_port)?;
    if protocol.is_empty() {
        return Err(bad_port());
    }
    let Some(protocol) = Protocol::from_name(protocol) else {
        return Ok(None);
    };
    let mut aliases = String::new();
    let mut problem = None;
    for (index, alias) in words.enumerate() {
        if index == MAX_ALIASES {
            problem = Some(ProblemKind::TooManyAliases);
            break;
        }
        match checked_name(alias) {
            Ok(alias) => {
                if !aliases.is_empty() {
                    aliases.push(',');
                }
                aliases.push_str(alias);
            }
            Err(kind) => problem = Some(kind),
        }
    }
    let line = Line {
        port: Port::new(port),
        protocol,
        name: name.into(),
        aliases: aliases.into(),
    };
    Ok(Some((line, problem)))
}

fn checked_name(name: &[u8]) -> Result<&str, ProblemKind> {
    let is_plain = name.iter().all(|&byte| byte.is_ascii_graphic() && byte != b',');
    std::str::from_utf8(name)
        .ok()
        .filter(|_| is_plain && name.len() <= MAX_NAME)
        .ok_or_else(|| ProblemKind::BadName {
            name: shortened(name),
        })
}

/// At most 32 characters of `bytes`, for a message.
fn shortened(bytes: &[u8]) -> Box<str> {
    let head = String::from_utf8_lossy(bytes.get(..64).unwrap_or(bytes));
    let mut short: String = head.chars().take(32).collect();
    if short.len() < bytes.len() {
        short.push('…');
    }
    short.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(text: &str) -> Vec<String> {
        let (lines, problems) = parse(text.as_bytes());
        assert_eq!(problems, Problems::NONE, "{text:?}");
        lines
            .into_iter()
            .map(|line| format!("{} {}/{} {}", line.name, line.port, line.protocol, line.aliases))
            .collect()
    }

    #[test]
    fn lines_blanks_comments_and_aliases_are_read() {
        assert_eq!(
            names(
                "# head\n\nhttp\t80/tcp  www web # WWW\r\n ntp 123/UDP#time\nrtmp 1/ddp\nx 9,tcp\nsctp 9/sctp"
            ),
            ["http 80/tcp www,web", "ntp 123/udp ", "x 9/tcp ", "sctp 9/sctp "]
        );
    }

    #[test]
    fn faulty_lines_are_named_and_the_others_used() {
        let text =
            b"a\nb 70000/tcp\nc 80\nd +80/tcp\n\xff 80/tcp\ne 80/\ngood 1/tcp fine \x1b[31m,x\nf,g 2/tcp\n";
        let (lines, problems) = parse(text);
        assert_eq!(lines.len(), 1);
        assert_eq!(&*lines[0].aliases, "fine");
        assert_eq!(problems.count(), 8);
        let shown: Vec<String> = problems.shown().iter().map(ToString::to_string).collect();
        assert_eq!(shown[0], "line 1: a name without PORT/PROTOCOL");
        assert_eq!(shown[1], "line 2: \"70000/tcp\" is not PORT/PROTOCOL");
        assert_eq!(shown[3], "line 4: \"+80/tcp\" is not PORT/PROTOCOL");
        assert!(shown[6].starts_with("line 7: "), "{shown:?}");
        assert!(!shown.concat().contains('\u{1b}'), "{shown:?}");
    }

    #[test]
    fn hostile_sizes_stay_within_bounds() {
        let long = format!("{} 80/tcp\n", "a".repeat(1 << 20));
        let (lines, problems) = parse(long.as_bytes());
        assert_eq!((lines.len(), problems.count()), (0, 1));
        assert!(problems.shown()[0].to_string().len() < 200);

        let (lines, problems) = parse(format!("a 80/tcp{}\n", " b".repeat(1000)).as_bytes());
        assert_eq!(lines[0].aliases.split(',').count(), MAX_ALIASES);
        assert_eq!(problems.shown()[0].kind, ProblemKind::TooManyAliases);

        let (_, problems) = parse("x\n".repeat(1000).as_bytes());
        assert_eq!((problems.count(), problems.shown().len()), (1000, MAX_SHOWN));

        let endless = vec![b'\n'; MAX_TEXT + 1];
        let (_, problems) = parse(&endless);
        assert_eq!(problems.shown()[0].kind, ProblemKind::TooLong);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(text in prop::collection::vec(any::<u8>(), 0..400)) {
            let (lines, problems) = parse(&text);
            let rows = text.split(|&byte| byte == b'\n').count();
            prop_assert!(lines.len() <= rows && problems.count() <= rows);
        }

        #[test]
        fn near_lines_are_survived(text in "([a-c#,/ \\t0-9\u{e9}]|/tcp|/udp|\n|65535|65536){0,60}") {
            let (lines, _) = parse(text.as_bytes());
            for line in lines {
                prop_assert!(!line.name.is_empty() && line.name.len() <= MAX_NAME);
            }
        }
    }
}
