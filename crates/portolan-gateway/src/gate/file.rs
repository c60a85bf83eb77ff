//! Policy files: a statement a line, comments after `#`.
//!
//! ```text
//! allow example.org:443        # as --allow-out
//! allow-name *.example.net:443 # as --allow-name
//! deny 10.0.0.0/8:22           # as --deny-out
//! allow-host 5432
//! deny-with reset
//! no-host
//! no-out
//! check-names
//! ```

use std::fmt;
use std::str::FromStr;

use portolan_core::{Escaped, NotationError, PortSet};
use thiserror::Error;

use super::policy::{AllowNameError, DenyWith, ParseDenyWithError, Policy};
use super::target::{Target, TargetError};

/// Why a text is no policy: the first fault, and its line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {kind}")]
pub struct PolicyError {
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong in it.
    pub kind: PolicyErrorKind,
}

/// What can be wrong in a line of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyErrorKind {
    /// A word that begins no statement.
    #[error(
        "no statement begins with \"{0}\"; write allow, allow-name, deny, allow-host, deny-with, no-host, no-out or check-names"
    )]
    Word(Box<str>),
    /// A statement without what it is about.
    #[error("\"{0}\" is about nothing; write what behind it, as in allow example.org:443")]
    MissingArgument(&'static str),
    /// More than the statement has room for.
    #[error("\"{0}\" stands behind a statement that is whole; write one statement a line, comments after #")]
    Surplus(Box<str>),
    /// A target that is none.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A target that cannot show a name.
    #[error(transparent)]
    AllowName(#[from] AllowNameError),
    /// Ports that are none.
    #[error(transparent)]
    Ports(#[from] NotationError),
    /// An answer to what is denied that is none.
    #[error(transparent)]
    DenyWith(#[from] ParseDenyWithError),
    /// More rules than a gate keeps.
    #[error("there are more than {max} rules; join them, as prefixes or lists of ports", max = Policy::RULES_MAX)]
    TooMany,
}

impl Policy {
    /// How many rules a policy has at most: a rule takes some 500 bytes.
    pub const RULES_MAX: usize = 100_000;
}

/// Reads a policy file.
impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let mut policy = Self::default();
        for (number, line) in text.lines().enumerate() {
            read_line(&mut policy, line).map_err(|kind| PolicyError {
                line: number + 1,
                kind,
            })?;
        }
        Ok(policy)
    }
}

fn read_line(policy: &mut Policy, line: &str) -> Result<(), PolicyErrorKind> {
    let statement = line.split('#').next().unwrap_or_default();
    let mut words = statement.split_ascii_whitespace();
    let Some(word) = words.next() else {
        return Ok(());
    };
    let mut argument = |word| words.next().ok_or(PolicyErrorKind::MissingArgument(word));
    match word {
        "allow" => policy.allow(argument("allow")?.parse()?),
        "allow-name" => policy.allow_name(argument("allow-name")?.parse::<Target>()?)?,
        "deny" => policy.deny(argument("deny")?.parse()?),
        "allow-host" => {
            let ports: PortSet = argument("allow-host")?.parse()?;
            policy.allow_host = policy.allow_host.union(&ports);
        }
        "deny-with" => policy.deny_with = Some(argument("deny-with")?.parse::<DenyWith>()?),
        "no-host" => policy.no_host = true,
        "no-out" => policy.no_out = true,
        "check-names" => policy.check_names = true,
        other => return Err(PolicyErrorKind::Word(shown(other))),
    }
    if policy.rules.len() > Policy::RULES_MAX {
        return Err(PolicyErrorKind::TooMany);
    }
    match words.next() {
        None => Ok(()),
        Some(surplus) => Err(PolicyErrorKind::Surplus(shown(surplus))),
    }
}

fn shown(word: &str) -> Box<str> {
    let shown = Escaped::new(word).bounded(NotationError::MAX_SHOWN);
    shown.to_string().into_boxed_str()
}

/// As a policy file, which reads as an equal policy.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rules,
            no_out,
            no_host,
            allow_host,
            check_names,
            deny_with,
        } = self;
        for (word, says) in [
            ("no-out", no_out),
            ("no-host", no_host),
            ("check-names", check_names),
        ] {
            if *says {
                writeln!(f, "{word}")?;
            }
        }
        if !allow_host.is_empty() {
            writeln!(f, "allow-host {allow_host}")?;
        }
        if let Some(deny_with) = deny_with {
            writeln!(f, "deny-with {deny_with}")?;
        }
        rules.iter().try_for_each(|rule| writeln!(f, "{rule}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read_and_printed() {
        let text = "\
# what the build needs
allow example.org:443   # the index
  allow-name *.Example.net:443
deny 10.0.0.0/8:22
\tallow-host 5432,6379

allow [2001:db8::/32]:53/udp
allow 10.0.0.7:8080@10/s,1mbit
deny-with reset
no-host
";
        let policy: Policy = text.parse().unwrap();
        let printed = "\
no-host
allow-host 5432,6379
deny-with reset
allow example.org:443
allow-name *.example.net:443
deny 10.0.0.0/8:22
allow [2001:db8::/32]:53/udp
allow 10.0.0.7:8080@10/s,1mbit
";
        assert_eq!(policy.to_string(), printed);
        assert_eq!(printed.parse(), Ok(policy));
        assert_eq!("".parse(), Ok(Policy::default()));
    }

    #[test]
    fn each_fault_is_told_with_its_line() {
        let cases = [
            ("allow", "line 1: \"allow\" is about nothing"),
            ("\n\nalow x", "line 3: no statement begins with \"alow\""),
            (
                "allow example.org:70000",
                "line 1: cannot read \"example.org:70000\" at 12: the port is above 65535",
            ),
            ("no-out now", "line 1: \"now\" stands behind"),
            ("allow a.example b.example", "line 1: \"b.example\" stands behind"),
            (
                "allow-name 10.0.0.0/8:443",
                "line 1: \"10.0.0.0/8:443\" shows no name",
            ),
            ("allow-host x y", "line 1: cannot read \"x\" at 0"),
            ("deny-with fire", "line 1: no such answer"),
            ("\u{1b}[2J", "line 1: no statement begins with \"\\x1b[2J\""),
        ];
        for (text, begins) in cases {
            let error = text.parse::<Policy>().unwrap_err().to_string();
            assert!(error.starts_with(begins), "{text:?}: {error}");
            assert!(
                error.chars().count() < 400 && !error.contains('\u{1b}'),
                "{error}"
            );
        }
    }
}
