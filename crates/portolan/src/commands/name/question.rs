//! What can be asked of `name`: a port, a range, a name or a pattern, each perhaps of one protocol.

use std::fmt;

use portolan_core::registry::{Glob, Services};
use portolan_core::{Escaped, NotationError, PortRange, Protocol};

/// One argument, read.
#[derive(Debug, PartialEq)]
pub(super) struct Question {
    /// The argument as it was typed.
    pub(super) text: String,
    pub(super) subject: Subject,
    pub(super) protocol: Option<Protocol>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Subject {
    Ports(PortRange),
    Name(String),
    Pattern(Pattern),
}

/// A text that is known to be a [`Glob`].
#[derive(Debug, PartialEq)]
pub(super) struct Pattern(String);

impl Pattern {
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    pub(super) fn glob(&self) -> Glob<'_> {
        Glob::new(&self.0).expect("a Pattern is made of a Glob's text")
    }
}

/// Why an argument cannot be read, and where.
#[derive(Debug, PartialEq)]
pub(super) enum QuestionError {
    /// What stands for ports is no notation of them.
    Ports(NotationError),
    /// Something else: the argument, the offset and what is wrong there.
    Other { text: String, at: usize, fault: String },
}

impl fmt::Display for QuestionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(error) => error.fmt(f),
            Self::Other { text, at, fault } => {
                let shown = Escaped::new(text).bounded(60);
                write!(f, "cannot read \"{shown}\" at {at}: {fault}")
            }
        }
    }
}

impl Question {
    /// Reads `PORT`, `PORT-PORT`, a name or a pattern, with `/PROTOCOL` or without.
    ///
    /// `services` decides whether a slash belongs to a name: a few registered ones have it (`cl/1`).
    pub(super) fn parse(text: &str, services: &Services) -> Result<Self, QuestionError> {
        let fault = |at: usize, fault: &str| QuestionError::Other {
            text: text.to_owned(),
            at,
            fault: fault.to_owned(),
        };
        if text.is_empty() {
            return Err(fault(0, "it is empty; give a port, a service name or a pattern"));
        }
        let is_known = services.named(text).next().is_some();
        let (base, protocol) = match text.rsplit_once('/').filter(|_| !is_known) {
            None => (text, None),
            Some((base, name)) => {
                let protocol = Protocol::from_name(name).ok_or_else(|| {
                    fault(
                        base.len() + 1,
                        "no such protocol; there are tcp, udp, udplite, sctp and dccp",
                    )
                })?;
                (base, Some(protocol))
            }
        };
        if let Some((at, char)) = base
            .char_indices()
            .find(|(_, char)| !char.is_ascii_graphic() || *char == ',')
        {
            let remedy = match char {
                ',' | ' ' => "; give several as arguments of their own",
                _ => "; ports are digits 0 to 9, service names printable ASCII",
            };
            return Err(fault(
                at,
                &format!(
                    "'{}' cannot stand here{remedy}",
                    Escaped::new(char.encode_utf8(&mut [0; 4]))
                ),
            ));
        }
        // A wildcard that is a name's own (sql*net) still finds that name, as a pattern.
        let subject = if Glob::is_glob(base) {
            Glob::new(base).map_err(|error| fault(0, &error.to_string()))?;
            Subject::Pattern(Pattern(base.to_owned()))
        } else if base.bytes().any(|byte| byte.is_ascii_alphabetic()) {
            // RFC 6335, section 5.1: a name has at least one letter.
            Subject::Name(base.to_owned())
        } else {
            Subject::Ports(base.parse().map_err(QuestionError::Ports)?)
        };
        Ok(Self {
            text: text.to_owned(),
            subject,
            protocol,
        })
    }
}

#[cfg(test)]
mod tests {
    use portolan_core::Port;

    use super::*;

    fn parse(text: &str) -> Result<Question, QuestionError> {
        Question::parse(text, &Services::built_in())
    }

    #[test]
    fn ports_ranges_names_and_patterns_are_told_apart() {
        let range = |first, last| Subject::Ports(PortRange::new(Port::new(first), Port::new(last)).unwrap());
        let name = |text: &str| Subject::Name(text.to_owned());
        for (text, subject, protocol) in [
            ("443", range(443, 443), None),
            ("443/UDP", range(443, 443), Some(Protocol::Udp)),
            ("8000-8100/sctp", range(8000, 8100), Some(Protocol::Sctp)),
            ("https", name("https"), None),
            ("3com-tsmux/tcp", name("3com-tsmux"), Some(Protocol::Tcp)),
            ("cl/1", name("cl/1"), None),
            ("*sql?", Subject::Pattern(Pattern("*sql?".to_owned())), None),
            (
                "ssh*/tcp",
                Subject::Pattern(Pattern("ssh*".to_owned())),
                Some(Protocol::Tcp),
            ),
        ] {
            let question = parse(text).unwrap();
            assert_eq!(
                (question.subject, question.protocol),
                (subject, protocol),
                "{text}"
            );
        }
    }

    #[test]
    fn faults_are_named_with_their_place() {
        for (text, at) in [
            ("", 0),
            ("70000", 0),
            ("80-70000", 3),
            ("80-", 3),
            ("-80", 0),
            ("+80", 0),
            ("443/xyz", 4),
            ("443/", 4),
            ("/tcp", 0),
            ("https,ssh", 5),
            ("a\0b", 1),
            ("８０", 0),
            ("http s", 4),
        ] {
            let found = match parse(text).unwrap_err() {
                QuestionError::Ports(error) => error.at(),
                QuestionError::Other { at, .. } => at,
            };
            assert_eq!(found, at, "{text:?}");
        }
        assert!(parse("90-80").is_err());
    }

    #[test]
    fn a_message_stays_one_short_line_whatever_was_typed() {
        for text in [
            "9".repeat(1 << 20),
            "*".repeat(1 << 20),
            "\u{1b}[2J\n".repeat(100),
        ] {
            let message = parse(&text).unwrap_err().to_string();
            assert!(message.len() < 400, "{message}");
            assert!(!message.contains(char::is_control), "{message:?}");
        }
    }
}
