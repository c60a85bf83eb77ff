use std::fmt;
use std::str::FromStr;

use portolan_core::PortSet;
use thiserror::Error;

use super::target::{Target, TargetHost, TargetProtocol};

/// What programs in a space may talk to. The default: the outside world, and nothing of this host but its outer addresses.
///
/// A rule that denies wins over one that allows. Any rule that allows makes *deny* the answer where no rule matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The rules, in the order of their coming.
    pub rules: Vec<Rule>,
    /// Nothing goes out, look-ups of names included; [`Policy::allow_host`] still holds.
    pub no_out: bool,
    /// The addresses of the host are closed too.
    pub no_host: bool,
    /// Ports of the host's loopback that the gateway address leads to, over TCP and UDP.
    pub allow_host: PortSet,
    /// Connections that are allowed by a name must show it, whether or not their rule asks for that.
    pub check_names: bool,
    /// How a program is told, if it is said.
    pub deny_with: Option<DenyWith>,
}

/// What a rule does with what its target means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// `--allow-out`.
    Allow,
    /// `--allow-name`: allow, if a TCP connection shows the name in its TLS ClientHello or its HTTP request.
    AllowName,
    /// `--deny-out`.
    Deny,
}

impl RuleKind {
    /// The word that begins a line of a policy file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::AllowName => "allow-name",
            Self::Deny => "deny",
        }
    }
}

/// One rule of a policy: `allow example.org:443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub kind: RuleKind,
    /// With whom.
    pub target: Target,
}

/// As a line of a policy file.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.word(), self.target)
    }
}

impl Policy {
    /// Adds `--allow-out TARGET`.
    pub fn allow(&mut self, target: Target) {
        let kind = RuleKind::Allow;
        self.rules.push(Rule { kind, target });
    }

    /// Adds `--allow-name TARGET`.
    ///
    /// # Errors
    /// If connections to the target show no name.
    pub fn allow_name(&mut self, target: Target) -> Result<(), AllowNameError> {
        let has_name = matches!(target.host, TargetHost::Name(_) | TargetHost::Below(_));
        if !has_name || target.protocol != TargetProtocol::Tcp {
            return Err(AllowNameError {
                target: target.to_string().into_boxed_str(),
            });
        }
        let kind = RuleKind::AllowName;
        self.rules.push(Rule { kind, target });
        Ok(())
    }

    /// Adds `--deny-out TARGET`.
    pub fn deny(&mut self, target: Target) {
        let kind = RuleKind::Deny;
        self.rules.push(Rule { kind, target });
    }

    /// Adds all of another policy; where they say different things of how a program is told, the other counts.
    pub fn extend(&mut self, other: Self) {
        let Self {
            rules,
            no_out,
            no_host,
            allow_host,
            check_names,
            deny_with,
        } = other;
        self.rules.extend(rules);
        self.no_out |= no_out;
        self.no_host |= no_host;
        self.check_names |= check_names;
        self.allow_host = self.allow_host.union(&allow_host);
        self.deny_with = deny_with.or(self.deny_with);
    }

    /// Whether what no rule matches is denied.
    #[must_use]
    pub fn denies_by_default(&self) -> bool {
        self.rules.iter().any(|rule| rule.kind != RuleKind::Deny)
    }
}

/// A target of `--allow-name` that is no name, or not of TCP.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "\"{target}\" shows no name: allow-name is for names over TCP, as in example.org:443; use allow for the rest"
)]
pub struct AllowNameError {
    target: Box<str>,
}

/// How a program learns that it was denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DenyWith {
    /// ICMP *administratively prohibited*, which Linux reports as EHOSTUNREACH (IPv4) or EACCES (IPv6).
    #[default]
    Icmp,
    /// A reset for TCP, *port unreachable* for the rest: ECONNREFUSED.
    Reset,
    /// Nothing: it waits until it gives up.
    Drop,
}

/// A text that is no [`DenyWith`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no such answer to what is denied; write icmp, reset or drop")]
pub struct ParseDenyWithError;

impl FromStr for DenyWith {
    type Err = ParseDenyWithError;

    fn from_str(text: &str) -> Result<Self, ParseDenyWithError> {
        match text {
            "icmp" => Ok(Self::Icmp),
            "reset" => Ok(Self::Reset),
            "drop" => Ok(Self::Drop),
            _ => Err(ParseDenyWithError),
        }
    }
}

impl fmt::Display for DenyWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Icmp => "icmp",
            Self::Reset => "reset",
            Self::Drop => "drop",
        })
    }
}
