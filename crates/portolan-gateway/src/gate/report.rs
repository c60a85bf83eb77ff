//! What was allowed and denied, for people and for programs.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use portolan_core::Escaped;
use serde::Serialize;

use super::ledger::{Asked, Ledger, Line};

/// The document that `--report` writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// 1.
    pub version: u32,
    /// What was denied.
    pub denied: Vec<DeniedItem>,
    /// How many denials were of destinations beyond [`Ledger::DESTINATIONS_MAX`].
    pub denied_others: u64,
    /// What was allowed.
    pub allowed: Vec<AllowedItem>,
    /// How many flows were to destinations beyond the same bound.
    pub allowed_others: u64,
}

/// A destination that was denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeniedItem {
    /// Where.
    #[serde(flatten)]
    pub destination: Destination,
    /// How many times.
    pub count: u64,
    /// Why.
    pub reason: Box<str>,
}

/// A destination that was allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AllowedItem {
    /// Where.
    #[serde(flatten)]
    pub destination: Destination,
    /// How many flows.
    pub count: u64,
    /// The rule that allowed them, as text.
    pub rule: Box<str>,
}

/// A destination as JSON has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Destination {
    /// `tcp`, `udp`, `icmp`, or `dns` for a look-up.
    pub protocol: &'static str,
    /// The address; a look-up has none.
    pub address: Option<IpAddr>,
    /// The port, where there is one.
    pub port: Option<u16>,
    /// The name, where one is known.
    pub name: Option<Box<str>>,
}

impl From<&Line> for Destination {
    fn from(line: &Line) -> Self {
        let (protocol, address, port) = match line.asked {
            Asked::Tcp(address, port) => ("tcp", Some(address), Some(port)),
            Asked::Udp(address, port) => ("udp", Some(address), Some(port)),
            Asked::Icmp(address) => ("icmp", Some(address), None),
            Asked::Dns => ("dns", None, None),
        };
        Self {
            protocol,
            address,
            port,
            name: line.name.as_deref().map(|name| written(name).into()),
        }
    }
}

impl Ledger {
    /// All of it, to be written as JSON.
    #[must_use]
    pub fn report(&self) -> Report {
        let (denied, denied_others) = self.denied();
        let (allowed, allowed_others) = self.allowed();
        let denied = denied.iter().map(|(line, count)| DeniedItem {
            destination: line.into(),
            count: *count,
            reason: (*line.because).into(),
        });
        let allowed = allowed.iter().map(|(line, count)| AllowedItem {
            destination: line.into(),
            count: *count,
            rule: (*line.because).into(),
        });
        Report {
            version: 1,
            denied: denied.collect(),
            denied_others,
            allowed: allowed.collect(),
            allowed_others,
        }
    }

    /// What was denied, a line each: `denied: 3 connections to 203.0.113.9:25 (no rule allows it)`. Safe for a terminal.
    #[must_use]
    pub fn denied_lines(&self) -> Vec<String> {
        let (denied, others) = self.denied();
        let lines = denied.iter().map(|(line, count)| {
            let (what, rest) = (Subject(line, *count != 1), Because(line));
            format!("denied: {count} {what}{rest}")
        });
        let more = (others > 0).then(|| {
            let max = Self::DESTINATIONS_MAX;
            format!("denied: {others} more, to destinations beyond the first {max}")
        });
        lines.chain(more).collect()
    }
}

/// `connection to 203.0.113.9:25 (no rule allows it)`. Safe for a terminal.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Subject(self, false), Because(self))
    }
}

/// What was asked for, of one or of many.
struct Subject<'a>(&'a Line, bool);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(line, many) = *self;
        let s = if many { "s" } else { "" };
        match line.asked {
            Asked::Tcp(address, port) => write!(f, "connection{s} to {}", SocketAddr::new(address, port)),
            Asked::Udp(address, port) => write!(f, "UDP flow{s} to {}", SocketAddr::new(address, port)),
            Asked::Icmp(address) => write!(f, "echo request{s} to {address}"),
            Asked::Dns => {
                let name = line.name.as_deref().unwrap_or_default();
                write!(f, "look-up{s} of {}", Escaped::new(written(name)))
            }
        }
    }
}

/// A name as people write it: that of the root, which has no letters, is a dot.
fn written(name: &str) -> &str {
    if name.is_empty() { "." } else { name }
}

/// The name, if it is not said yet, and the reason.
struct Because<'a>(&'a Line);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { asked, name, because } = self.0;
        match name {
            Some(name) if *asked != Asked::Dns => write!(f, " ({}: {because})", Escaped::new(&**name)),
            _ => write!(f, " ({because})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(asked: Asked, name: Option<&str>, because: &str) -> Line {
        Line {
            asked,
            name: name.map(Into::into),
            because: because.into(),
        }
    }

    fn ledger() -> Ledger {
        let ledger = Ledger::default();
        let v4 = "203.0.113.9".parse().unwrap();
        let v6 = "2001:db8::9".parse().unwrap();
        let firsts: Vec<bool> = [
            line(Asked::Tcp(v4, 25), None, "no rule allows it"),
            line(Asked::Tcp(v4, 25), None, "no rule allows it"),
            line(Asked::Tcp(v4, 25), None, "no rule allows it"),
            line(Asked::Tcp(v6, 25), Some("m.example"), "no rule allows it"),
            line(Asked::Udp(v6, 53), None, "--no-out"),
            line(Asked::Icmp(v4), None, "--no-out"),
            line(Asked::Dns, Some("evil\u{1b}.example"), "--no-out"),
            line(Asked::Dns, Some(""), "--no-out"),
        ]
        .into_iter()
        .map(|line| ledger.deny(line))
        .collect();
        assert_eq!(firsts, [true, false, false, true, true, true, true, true]);
        ledger.allow(line(Asked::Tcp(v4, 443), Some("a.example"), "a.example:443"));
        ledger
    }

    #[test]
    fn denials_are_told_with_their_count_and_their_reason() {
        assert_eq!(
            ledger().denied_lines(),
            [
                "denied: 3 connections to 203.0.113.9:25 (no rule allows it)",
                "denied: 1 connection to [2001:db8::9]:25 (m.example: no rule allows it)",
                "denied: 1 UDP flow to [2001:db8::9]:53 (--no-out)",
                "denied: 1 echo request to 203.0.113.9 (--no-out)",
                "denied: 1 look-up of . (--no-out)",
                "denied: 1 look-up of evil\\x1b.example (--no-out)",
            ]
        );
    }

    #[test]
    fn the_report_has_the_shape_that_is_documented() {
        let report = serde_json::to_value(ledger().report()).unwrap();
        assert_eq!(report["version"], 1);
        assert_eq!(
            report["denied"][0],
            serde_json::json!({"protocol": "tcp", "address": "203.0.113.9", "port": 25, "name": null,
                "count": 3, "reason": "no rule allows it"})
        );
        assert_eq!(
            report["denied"][5],
            serde_json::json!({"protocol": "dns", "address": null, "port": null, "name": "evil\u{1b}.example",
                "count": 1, "reason": "--no-out"})
        );
        assert_eq!(
            report["allowed"],
            serde_json::json!([{"protocol": "tcp", "address": "203.0.113.9", "port": 443, "name": "a.example",
                "count": 1, "rule": "a.example:443"}])
        );
    }

    #[test]
    fn destinations_beyond_the_bound_are_counted_together() {
        let ledger = Ledger::default();
        let firsts = (0..10_000).filter(|&port| {
            let address = "203.0.113.9".parse().unwrap();
            ledger.deny(line(Asked::Tcp(address, port), None, "no rule allows it"))
        });
        assert_eq!(firsts.count(), Ledger::DESTINATIONS_MAX + 1);
        let (lines, others) = ledger.denied();
        assert_eq!(lines.len() as u64 + others, 10_000);
        assert_eq!(
            ledger.denied_lines().last().unwrap(),
            "denied: 5904 more, to destinations beyond the first 4096"
        );
    }
}
