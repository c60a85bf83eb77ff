use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use portolan_core::registry::Services;
use portolan_core::{
    Address, Element, Escaped, Host, HostName, NotationError, NotationErrorKind, PortSet, Protocol,
};
use thiserror::Error;

use super::rate::Limits;
use crate::flows::FlowProtocol;

/// The protocols of a target: what stands behind its slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetProtocol {
    /// TCP, also where nothing is written.
    Tcp,
    /// `/udp`.
    Udp,
    /// `/icmp`: echo requests.
    Icmp,
    /// `/both`: TCP and UDP.
    Both,
    /// `/any`: TCP, UDP and echo requests.
    Any,
}

impl TargetProtocol {
    /// Whether flows of `protocol` are meant.
    #[must_use]
    pub const fn includes(self, protocol: FlowProtocol) -> bool {
        match self {
            Self::Tcp => matches!(protocol, FlowProtocol::Tcp),
            Self::Udp => matches!(protocol, FlowProtocol::Udp),
            Self::Icmp => matches!(protocol, FlowProtocol::Icmp),
            Self::Both => matches!(protocol, FlowProtocol::Tcp | FlowProtocol::Udp),
            Self::Any => true,
        }
    }

    /// Its name behind a slash; nothing is TCP.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Tcp => "",
            Self::Udp => "/udp",
            Self::Icmp => "/icmp",
            Self::Both => "/both",
            Self::Any => "/any",
        }
    }
}

impl From<FlowProtocol> for TargetProtocol {
    fn from(protocol: FlowProtocol) -> Self {
        match protocol {
            FlowProtocol::Tcp => Self::Tcp,
            FlowProtocol::Udp => Self::Udp,
            FlowProtocol::Icmp => Self::Icmp,
        }
    }
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetHost {
    /// `*`: every address and every name.
    Any,
    /// A name, and the addresses that our resolver answered for it.
    Name(HostName),
    /// `*.example.org`: every name below this one, itself not included.
    Below(HostName),
    /// An address or a prefix; host bits are zero.
    Net(IpNet),
}

impl TargetHost {
    /// Whether a name in lower case is meant.
    #[must_use]
    pub fn includes_name(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Name(own) => own.as_str() == name,
            Self::Below(own) => name
                .strip_suffix(own.as_str())
                .and_then(|below| below.strip_suffix('.'))
                .is_some_and(|below| !below.is_empty()),
            Self::Net(_) => false,
        }
    }

    /// Whether an address is meant, whatever its name.
    #[must_use]
    pub fn includes_address(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Name(_) | Self::Below(_) => false,
            Self::Net(net) => net.contains(&address.to_canonical()),
        }
    }
}

/// A name without the dot that may end it: that is the same name.
fn without_dot(name: HostName) -> HostName {
    let bare = name.as_str().strip_suffix('.').map(str::parse);
    bare.and_then(Result::ok).unwrap_or(name)
}

/// As it is read; IPv6 in brackets.
impl fmt::Display for TargetHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Name(name) => name.fmt(f),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Net(net) => match (net, net.prefix_len() == net.max_prefix_len()) {
                (IpNet::V4(net), true) => net.addr().fmt(f),
                (IpNet::V4(net), false) => net.fmt(f),
                (IpNet::V6(net), true) => write!(f, "[{}]", net.addr()),
                (IpNet::V6(net), false) => write!(f, "[{net}]"),
            },
        }
    }
}

/// Whom a rule allows or denies: `HOST[:PORTS][/PROTOCOL][@RATES]`.
///
/// HOST is `*`, a name, `*.NAME`, an address or a prefix, IPv6 in brackets. No ports are all ports, no protocol is TCP.
/// PROTOCOL is `tcp`, `udp`, `icmp`, `both` or `any`. RATES are [`Limits`].
///
/// ```
/// use portolan_gateway::gate::Target;
///
/// for text in ["example.org:443", "*.example.org", "10.0.0.0/8:5432", "[2001:db8::/32]:53/udp", "*:80,443@10/s"] {
///     assert_eq!(text.parse::<Target>()?.to_string(), text);
/// }
/// # Ok::<(), portolan_gateway::gate::TargetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whom.
    pub host: TargetHost,
    /// On which ports.
    pub ports: PortSet,
    /// With which protocols.
    pub protocol: TargetProtocol,
    /// How much of it.
    pub limits: Limits,
}

impl Target {
    /// A target on all ports, without limits.
    #[must_use]
    pub fn new(host: TargetHost, protocol: TargetProtocol) -> Self {
        Self {
            host,
            ports: PortSet::all(),
            protocol,
            limits: Limits::default(),
        }
    }

    /// Whether a flow of `protocol` to `port` is meant, whoever the host. Echo requests have no port, so only a target
    /// that names none means them.
    pub(super) fn includes_port(&self, protocol: FlowProtocol, port: u16) -> bool {
        self.protocol.includes(protocol)
            && match protocol {
                FlowProtocol::Tcp | FlowProtocol::Udp => self.ports.contains(portolan_core::Port::new(port)),
                FlowProtocol::Icmp => self.has_all_ports(),
            }
    }

    /// Whether it names no ports.
    pub(super) fn has_all_ports(&self) -> bool {
        self.ports.len() == 1 << 16
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            ports,
            protocol,
            limits,
        } = self;
        write!(f, "{host}")?;
        if !self.has_all_ports() {
            write!(f, ":{ports}")?;
        }
        write!(f, "{}{limits}", protocol.suffix())
    }
}

/// Why a text is no [`Target`]: one line of fewer than 400 characters, the input shortened and escaped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot read \"{input}\" at {at}: {kind}")]
pub struct TargetError {
    kind: TargetErrorKind,
    at: usize,
    input: Box<str>,
}

impl TargetError {
    fn new(kind: TargetErrorKind, at: usize, input: &str) -> Self {
        let input = Escaped::new(input).bounded(NotationError::MAX_SHOWN).to_string();
        Self {
            kind,
            at,
            input: input.into_boxed_str(),
        }
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> TargetErrorKind {
        self.kind
    }

    /// Where the fault begins: the offset in bytes from the beginning of the text, which is 0.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }
}

/// What can be wrong with a text that should be a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TargetErrorKind {
    /// A fault that other notations can have too.
    #[error("{0}; {remedy}", remedy = .0.remedy())]
    Notation(NotationErrorKind),
    /// Nothing is written.
    #[error("the target is missing; write HOST:PORTS, as in example.org:443")]
    Missing,
    /// A prefix length that is no number or too great.
    #[error(
        "the prefix length of an IPv{version} address is 0 to {max}; write it as 10.0.0.0/8 or [2001:db8::/32]"
    )]
    PrefixLength {
        /// 4 or 6.
        version: u8,
        /// 32 or 128.
        max: u8,
    },
    /// A prefix length behind what is no address.
    #[error("only an address has a prefix length; write a protocol there, as in example.org:443/udp")]
    PrefixOfName,
    /// A star elsewhere than at the beginning.
    #[error("a star stands alone or as the first label; write *.example.org")]
    Star,
    /// A zone: the space has one link alone.
    #[error("a target has no zone; leave the % and what follows out")]
    Zone,
    /// A suffix that is none of those a target can have.
    #[error("a target has no such protocol; write /tcp, /udp, /icmp, /both or /any")]
    Protocol,
    /// Ports of echo requests.
    #[error("echo requests have no ports; leave the ports out")]
    PortsOfIcmp,
    /// No rate at all, or one without a unit that is known.
    #[error("a rate is a number of flows, 10/s, 10/m or 10/h, or of bits a second, 500kbit, 10mbit or 1gbit")]
    Rate,
    /// A rate of nothing.
    #[error("a rate is above 0; use deny to close a target")]
    RateZero,
    /// Two rates of one kind.
    #[error("this kind of rate is there already; write one of flows and one of bits at most")]
    RateTwice,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let fault = |kind, at| TargetError::new(kind, at, text);
        let (subject, limits) = match text.split_once('@') {
            None => (text, Limits::default()),
            Some((subject, rates)) => {
                let limits =
                    Limits::parse(rates).map_err(|(kind, at)| fault(kind, subject.len() + 1 + at))?;
                (subject, limits)
            }
        };
        if subject.is_empty() {
            return Err(fault(TargetErrorKind::Missing, 0));
        }
        let parsed = parse_subject(subject);
        let (host, ports, protocol) = parsed.map_err(|(kind, at)| fault(kind, at))?;
        Ok(Self {
            host,
            ports,
            protocol,
            limits,
        })
    }
}

/// A fault and its place in the part that was read.
pub(super) type Fault = (TargetErrorKind, usize);

/// `HOST[:PORTS][/PROTOCOL]`.
fn parse_subject(text: &str) -> Result<(TargetHost, PortSet, TargetProtocol), Fault> {
    let (host, rest_at) = parse_host(text)?;
    let rest = &text[rest_at..];
    let (ports_text, protocol) = match rest.find('/') {
        None => (rest, TargetProtocol::Tcp),
        Some(slash) => {
            let at = rest_at + slash + 1;
            (
                &rest[..slash],
                parse_protocol(&text[at..]).map_err(|kind| (kind, at))?,
            )
        }
    };
    let Some(ports_text) = ports_text.strip_prefix(':') else {
        return match ports_text.chars().next() {
            None => Ok((host, PortSet::all(), protocol)),
            Some(char) => Err((NotationErrorKind::Unexpected(char).into(), rest_at)),
        };
    };
    let named_by = match protocol {
        TargetProtocol::Tcp => Some(Protocol::Tcp),
        TargetProtocol::Udp => Some(Protocol::Udp),
        TargetProtocol::Both | TargetProtocol::Any => None,
        TargetProtocol::Icmp => return Err((TargetErrorKind::PortsOfIcmp, rest_at)),
    };
    let ports = PortSet::parse(ports_text, named_by, &Services::built_in());
    let ports = ports.map_err(|error| ((*error.kind()).into(), rest_at + 1 + error.at()))?;
    Ok((host, ports, protocol))
}

impl From<NotationErrorKind> for TargetErrorKind {
    fn from(kind: NotationErrorKind) -> Self {
        Self::Notation(kind)
    }
}

fn parse_protocol(text: &str) -> Result<TargetProtocol, TargetErrorKind> {
    const NAMES: [(&str, TargetProtocol); 5] = [
        ("tcp", TargetProtocol::Tcp),
        ("udp", TargetProtocol::Udp),
        ("icmp", TargetProtocol::Icmp),
        ("both", TargetProtocol::Both),
        ("any", TargetProtocol::Any),
    ];
    if text.is_empty() {
        return Err(NotationErrorKind::Missing(Element::Protocol).into());
    }
    let mut names = NAMES.iter();
    let found = names.find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map_or(Err(TargetErrorKind::Protocol), |&(_, protocol)| Ok(protocol))
}

/// The host, and where what follows it begins.
fn parse_host(text: &str) -> Result<(TargetHost, usize), Fault> {
    if let Some(inside) = text.strip_prefix('[') {
        let Some(close) = inside.find(']') else {
            return Err((NotationErrorKind::UnclosedBracket.into(), 0));
        };
        let after = close + 2;
        let (net, end) = match inside[..close].find('/') {
            Some(slash) => {
                let address = parse_address(&inside[..slash], 1)?;
                (with_length(address, &inside[slash + 1..close], slash + 2)?, after)
            }
            None => parse_length(text, parse_address(&inside[..close], 1)?, after)?,
        };
        return Ok((TargetHost::Net(net), end));
    }
    // An IPv6 prefix needs no brackets if nothing follows it.
    if let Some((address, length)) = text.split_once('/')
        && address.matches(':').count() > 1
        && length.bytes().all(|byte| byte.is_ascii_digit())
    {
        let net = with_length(parse_address(address, 0)?, length, address.len() + 1)?;
        return Ok((TargetHost::Net(net), text.len()));
    }
    let without_protocol = text.split('/').next().unwrap_or(text);
    if without_protocol.matches(':').count() > 1 && !without_protocol.starts_with('*') {
        let error = without_protocol.parse::<Host>().err();
        let (kind, at) = error.map_or((NotationErrorKind::Ipv6Groups, 0), |error| {
            (*error.kind(), error.at())
        });
        return Err((kind.into(), at));
    }
    let end = text.find([':', '/']).unwrap_or(text.len());
    let host = &text[..end];
    if host.is_empty() {
        return Err((NotationErrorKind::Missing(Element::Host).into(), 0));
    }
    if host == "*" {
        return Ok((TargetHost::Any, end));
    }
    if let Some(below) = host.strip_prefix("*.") {
        let name = below.parse::<HostName>();
        let name = name.map_err(|error| ((*error.kind()).into(), 2 + error.at()))?;
        return Ok((TargetHost::Below(without_dot(name)), end));
    }
    if let Some(at) = host.find('*') {
        return Err((TargetErrorKind::Star, at));
    }
    match host.parse::<Host>() {
        Ok(Host::Any) => Ok((TargetHost::Any, end)),
        Ok(Host::Name(name)) => {
            let length = text[end..].strip_prefix('/');
            if length.is_some_and(|length| length.starts_with(|char: char| char.is_ascii_digit())) {
                return Err((TargetErrorKind::PrefixOfName, end + 1));
            }
            Ok((TargetHost::Name(without_dot(name)), end))
        }
        Ok(Host::Address(address)) => {
            let (net, end) = parse_length(text, address.ip(), end)?;
            Ok((TargetHost::Net(net), end))
        }
        Err(error) => Err(((*error.kind()).into(), error.at())),
    }
}

/// An address without brackets that begins `at` bytes into the whole.
fn parse_address(text: &str, at: usize) -> Result<IpAddr, Fault> {
    let address = text.parse::<Address>();
    let address = address.map_err(|error| ((*error.kind()).into(), at + error.at()))?;
    match address.zone() {
        None => Ok(address.ip()),
        Some(_) => Err((TargetErrorKind::Zone, at + text.find('%').unwrap_or(0))),
    }
}

/// The prefix length that may stand at `at`, behind an address, and where what follows begins.
fn parse_length(text: &str, address: IpAddr, at: usize) -> Result<(IpNet, usize), Fault> {
    let rest = text[at..].strip_prefix('/').unwrap_or("");
    if !rest.starts_with(|char: char| char.is_ascii_digit()) {
        return Ok((IpNet::from(address.to_canonical()), at));
    }
    let digits = rest.find([':', '/']).unwrap_or(rest.len());
    Ok((with_length(address, &rest[..digits], at + 1)?, at + 1 + digits))
}

/// A prefix of an address. That of a v4-mapped one is what it is of IPv4.
fn with_length(address: IpAddr, length: &str, at: usize) -> Result<IpNet, Fault> {
    let (version, max) = if address.is_ipv4() { (4, 32) } else { (6, 128) };
    let fault = (TargetErrorKind::PrefixLength { version, max }, at);
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(fault);
    }
    let length: u8 = length.parse().map_err(|_| fault)?;
    let (address, length) = match address.to_canonical() {
        canonical if canonical == address || length < 96 => (address, length),
        canonical => (canonical, length - 96),
    };
    let net = IpNet::new(address, length).map_err(|_| fault)?;
    Ok(net.trunc())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_are_read_in_every_form_and_printed_in_one() {
        let cases = [
            ("example.org:443", "example.org:443"),
            ("Example.ORG.", "example.org"),
            ("example.org/udp", "example.org/udp"),
            ("example.org:https/tcp", "example.org:443"),
            ("example.org:53/UDP", "example.org:53/udp"),
            ("*.example.org:80,443-444/both", "*.example.org:80,443-444/both"),
            ("*", "*"),
            ("*/any", "*/any"),
            ("*:!22", "*:0-21,23-65535"),
            ("10.0.0.7", "10.0.0.7"),
            ("10.0.0.7/32:22", "10.0.0.7:22"),
            ("10.9.9.9/8", "10.0.0.0/8"),
            ("10.0.0.0/8:5432/udp", "10.0.0.0/8:5432/udp"),
            ("10.0.0.1/icmp", "10.0.0.1/icmp"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("[2001:db8::1]/udp", "[2001:db8::1]/udp"),
            ("[2001:db8::]/32:443/udp", "[2001:db8::/32]:443/udp"),
            ("[2001:db8::/32]:443", "[2001:db8::/32]:443"),
            ("2001:db8::/32", "[2001:db8::/32]"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("[::ffff:10.0.0.0/104]", "10.0.0.0/8"),
            ("example.org@10/s", "example.org@10/s"),
            ("10.0.0.0/8:80@500kbit,6/m", "10.0.0.0/8:80@6/m,500kbit"),
            ("a.b@1500bit", "a.b@1500bit"),
            ("a.b@1000000kbit", "a.b@1gbit"),
        ];
        for (text, printed) in cases {
            let target = text.parse::<Target>().unwrap();
            assert_eq!(target.to_string(), printed, "{text}");
            assert_eq!(printed.parse(), Ok(target), "{text}");
        }
    }

    #[test]
    fn each_bad_target_has_its_fault_and_place() {
        use NotationErrorKind as Notation;
        use TargetErrorKind as Kind;
        let address = "2001:db8::1".parse().unwrap();
        let needs_brackets = |port: Option<u16>| Notation::NeedsBrackets {
            address,
            port: port.map(portolan_core::Port::new),
        };
        let cases = [
            ("", Kind::Missing, 0),
            ("@10/s", Kind::Missing, 0),
            (":443", Notation::Missing(Element::Host).into(), 0),
            ("example.org:", Notation::Missing(Element::Port).into(), 12),
            ("example.org:70000", Notation::OutOfRange.into(), 12),
            ("example.org:80,", Notation::Missing(Element::Item).into(), 15),
            (
                "example.org:443/",
                Notation::Missing(Element::Protocol).into(),
                16,
            ),
            ("example.org:443/sctp", Kind::Protocol, 16),
            ("example.org/24", Kind::PrefixOfName, 12),
            ("example.org:80/icmp", Kind::PortsOfIcmp, 11),
            ("exa mple.org", Notation::Blank.into(), 3),
            ("a..b:80", Notation::HostLabel.into(), 2),
            ("a.*.b", Kind::Star, 2),
            ("*.", Notation::Missing(Element::Host).into(), 2),
            ("10.0.0.0/33", Kind::PrefixLength { version: 4, max: 32 }, 9),
            ("10.0.0.0/8x:80", Kind::PrefixLength { version: 4, max: 32 }, 9),
            ("10.0.0.256:80", Notation::Ipv4Range.into(), 7),
            (
                "[2001:db8::/129]:80",
                Kind::PrefixLength { version: 6, max: 128 },
                12,
            ),
            ("[2001:db8::1:80", Notation::UnclosedBracket.into(), 0),
            ("[2001:db8::1]80", Notation::Unexpected('8').into(), 13),
            ("[fe80::1%eth0]:80", Kind::Zone, 8),
            ("2001:db8::1", needs_brackets(None).into(), 0),
            ("example.org@", Kind::Rate, 12),
            ("example.org@10", Kind::Rate, 12),
            ("example.org@10/s,5/m", Kind::RateTwice, 17),
            ("example.org@1mbit,0/s", Kind::RateZero, 18),
            ("example.org@9999999999999gbit", Kind::Rate, 12),
        ];
        for (text, kind, at) in cases {
            let error = text.parse::<Target>().unwrap_err();
            assert_eq!((error.kind(), error.at()), (kind, at), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_printed_again_or_refused_with_a_place_in_it(
            text in "[a-z0-9.:/@*\\[\\],%-]{0,30}|(10.0.0.0|\\[::1\\]|a.b)[:/@][0-9a-z/,@:]{0,12}|\\PC*",
        ) {
            match text.parse::<Target>() {
                Ok(target) => prop_assert_eq!(target.to_string().parse(), Ok(target)),
                Err(error) => {
                    prop_assert!(error.at() <= text.len());
                    prop_assert!(error.to_string().chars().count() < 400);
                }
            }
        }
    }
}
