use std::fmt;
use std::str::FromStr;

/// A signal (signal(7)), by its name or its number on this machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signal(rustix::process::Signal);

impl Signal {
    /// Asks a process to end.
    pub const TERM: Self = Self(rustix::process::Signal::TERM);
    /// Ends a process without asking.
    pub const KILL: Self = Self(rustix::process::Signal::KILL);

    /// The number on this machine.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0.as_raw()
    }

    /// The name without `SIG`, in capitals.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES
            .iter()
            .find_map(|(name, signal)| (*signal == self.0).then_some(*name))
            .unwrap_or("?")
    }

    pub(crate) const fn raw(self) -> rustix::process::Signal {
        self.0
    }
}

/// A name with or without `SIG`, in any case, or a number.
impl FromStr for Signal {
    type Err = ParseSignalError;

    fn from_str(text: &str) -> Result<Self, ParseSignalError> {
        let unknown = || ParseSignalError {
            text: shortened(text),
        };
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number: i32 = text.parse().map_err(|_| unknown())?;
            return NAMES
                .iter()
                .find(|(_, signal)| signal.as_raw() == number)
                .map(|(_, signal)| Self(*signal))
                .ok_or_else(unknown);
        }
        let has_prefix = text
            .get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case("SIG"));
        let name = if has_prefix { &text[3..] } else { text };
        NAMES
            .iter()
            .chain(&OTHER_NAMES)
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, signal)| Self(*signal))
            .ok_or_else(unknown)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIG{}", self.name())
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signal({self})")
    }
}

/// A text that names no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no signal {text}; give a name or a number, such as TERM, SIGHUP or 9")]
pub struct ParseSignalError {
    /// What was given, escaped and shortened.
    text: String,
}

/// What was given, fit for a message.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 20;
    let mut characters = text.chars();
    let mut short: String = characters.by_ref().take(SHOWN).collect();
    if characters.next().is_some() {
        short.push('…');
    }
    format!("{short:?}")
}

type Raw = rustix::process::Signal;

/// The signals that every Linux has, by their usual names.
const NAMES: [(&str, Raw); 30] = [
    ("HUP", Raw::HUP),
    ("INT", Raw::INT),
    ("QUIT", Raw::QUIT),
    ("ILL", Raw::ILL),
    ("TRAP", Raw::TRAP),
    ("ABRT", Raw::ABORT),
    ("BUS", Raw::BUS),
    ("FPE", Raw::FPE),
    ("KILL", Raw::KILL),
    ("USR1", Raw::USR1),
    ("SEGV", Raw::SEGV),
    ("USR2", Raw::USR2),
    ("PIPE", Raw::PIPE),
    ("ALRM", Raw::ALARM),
    ("TERM", Raw::TERM),
    ("CHLD", Raw::CHILD),
    ("CONT", Raw::CONT),
    ("STOP", Raw::STOP),
    ("TSTP", Raw::TSTP),
    ("TTIN", Raw::TTIN),
    ("TTOU", Raw::TTOU),
    ("URG", Raw::URG),
    ("XCPU", Raw::XCPU),
    ("XFSZ", Raw::XFSZ),
    ("VTALRM", Raw::VTALARM),
    ("PROF", Raw::PROF),
    ("WINCH", Raw::WINCH),
    ("IO", Raw::IO),
    ("PWR", Raw::POWER),
    ("SYS", Raw::SYS),
];

/// Second names of the same signals.
const OTHER_NAMES: [(&str, Raw); 3] = [("IOT", Raw::ABORT), ("CLD", Raw::CHILD), ("POLL", Raw::IO)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_named_in_many_ways() {
        for text in ["TERM", "SIGTERM", "term", "SigTerm", "15", "015"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        assert_eq!("9".parse(), Ok(Signal::KILL));
        assert_eq!("iot".parse::<Signal>().unwrap().to_string(), "SIGABRT");
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
    }

    #[test]
    fn every_name_and_number_leads_back() {
        for (name, raw) in NAMES {
            let signal: Signal = name.parse().unwrap();
            assert_eq!((signal.raw(), signal.name()), (raw, name));
            assert_eq!(signal.to_string().parse(), Ok(signal));
            assert_eq!(signal.number().to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn what_is_no_signal_is_said() {
        let cases = [
            ("", r#""""#),
            ("0", r#""0""#),
            ("-9", r#""-9""#),
            ("99", r#""99""#),
            ("4294967305", r#""4294967305""#),
            ("SIG", r#""SIG""#),
            ("TERM ", r#""TERM ""#),
            ("\u{1b}[m", r#""\u{1b}[m""#),
            ("ééé", r#""ééé""#),
            ("aaaaaaaaaaaaaaaaaaaaaaaaa", r#""aaaaaaaaaaaaaaaaaaaa…""#),
        ];
        for (text, shown) in cases {
            let error = text.parse::<Signal>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("there is no signal {shown}; give a name or a number, such as TERM, SIGHUP or 9")
            );
        }
    }
}
