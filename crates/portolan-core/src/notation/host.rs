use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::address::{Address, bracketed, ipv4, ipv6};
use super::error::{Element, NotationError, NotationErrorKind};
use super::part::Part;

/// The host of an endpoint or a URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// `*`: every address, of both families.
    Any,
    /// An address; `0.0.0.0` and `::` are every address of their family.
    Address(Address),
    /// A name that is still to be resolved.
    Name(HostName),
}

/// IPv6 addresses in brackets, so that a port can follow.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Address(address) => match address.ip() {
                IpAddr::V4(_) => address.fmt(f),
                IpAddr::V6(_) => write!(f, "[{address}]"),
            },
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl FromStr for Host {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        host(Part::whole(text))
    }
}

/// A host name in lower case: labels of letters, digits, hyphens and underscores with dots between.
///
/// Labels have 1 to 63 bytes and neither begin nor end with a hyphen, the name has at most 253
/// (RFC 1123, section 2.1). Underscores are no part of host names there but of many in use. The last
/// label is not a number, or `10.0.0.256` would be a name. One dot may stand at the end. Names in other
/// scripts are written as `xn--` labels (RFC 5890).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Box<str>);

impl HostName {
    /// The length of the longest name in bytes, a dot at its end not counted.
    pub const MAX_LEN: usize = 253;

    /// The name in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for HostName {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        host_name(Part::whole(text))
    }
}

pub(super) fn host(part: Part<'_>) -> Result<Host, NotationError> {
    let text = part.text();
    if text == "*" {
        return Ok(Host::Any);
    }
    if text.starts_with('[') {
        let (address, rest) = bracketed(part)?;
        return match rest.text().chars().next() {
            None => Ok(Host::Address(address)),
            Some(char) => Err(rest.unexpected(char, 0)),
        };
    }
    if text.contains(':') {
        let address = ipv6(part)?;
        return Err(part.fault(NotationErrorKind::NeedsBrackets { address, port: None }, 0));
    }
    if let Some((before, zone)) = part.split_once('%')
        && ipv4(before).is_ok()
    {
        return Err(zone.fault(NotationErrorKind::ZoneOnIpv4, 0));
    }
    if ends_in_number(text) {
        return ipv4(part).map(|ip| Host::Address(Address::new(ip.into())));
    }
    host_name(part).map(Host::Name)
}

/// Whether a text is an IPv4 address or meant as one: names do not end so.
fn ends_in_number(text: &str) -> bool {
    let last = text
        .strip_suffix('.')
        .unwrap_or(text)
        .rsplit('.')
        .next()
        .unwrap_or_default();
    !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit())
}

pub(super) fn host_name(part: Part<'_>) -> Result<HostName, NotationError> {
    let text = part.text();
    if text.is_empty() {
        return Err(part.fault(NotationErrorKind::Missing(Element::Host), 0));
    }
    let stranger = |char: char| !char.is_ascii_alphanumeric() && !matches!(char, '-' | '_' | '.');
    if let Some((offset, char)) = text.char_indices().find(|&(_, char)| stranger(char)) {
        return Err(part.unexpected(char, offset));
    }
    let labels = part.until(text.strip_suffix('.').unwrap_or(text).len());
    if labels.text().len() > HostName::MAX_LEN {
        return Err(part.fault(NotationErrorKind::HostLength, HostName::MAX_LEN));
    }
    for label in labels.split('.') {
        let text = label.text();
        if text.is_empty() || text.len() > 63 || text.starts_with('-') || text.ends_with('-') {
            return Err(label.fault(NotationErrorKind::HostLabel, 0));
        }
    }
    if ends_in_number(text) {
        return Err(part.fault(NotationErrorKind::Ipv4Numbers, 0));
    }
    Ok(HostName(text.to_ascii_lowercase().into_boxed_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_are_told_apart() {
        assert_eq!("*".parse(), Ok(Host::Any));
        assert!(matches!("0.0.0.0".parse(), Ok(Host::Address(_))));
        assert!(matches!("[fe80::1%eth0]".parse(), Ok(Host::Address(_))));
        for name in [
            "localhost",
            "a.b-c.example.",
            "_sip._udp.example",
            "1a",
            "3com.example",
            "xn--bcher-kva",
        ] {
            assert_eq!(name.parse::<Host>().unwrap(), Host::Name(name.parse().unwrap()));
        }
        assert_eq!("EXAMPLE.org".parse::<HostName>().unwrap().as_str(), "example.org");
    }

    #[test]
    fn each_bad_host_has_its_fault_and_place() {
        use NotationErrorKind as Kind;
        let address = "::1".parse().unwrap();
        let long_label = format!("a.{}.b", "x".repeat(64));
        let long = "abcdefg.".repeat(40);
        let cases = [
            ("", Kind::Missing(Element::Host), 0),
            ("::1", Kind::NeedsBrackets { address, port: None }, 0),
            ("10.0.0.256", Kind::Ipv4Range, 7),
            ("10.0.1", Kind::Ipv4Numbers, 0),
            ("80", Kind::Ipv4Numbers, 0),
            ("a..b", Kind::HostLabel, 2),
            ("-a.b", Kind::HostLabel, 0),
            ("a-.b", Kind::HostLabel, 0),
            (".", Kind::HostLabel, 0),
            (&long_label, Kind::HostLabel, 2),
            (&long, Kind::HostLength, 253),
            ("a b", Kind::Blank, 1),
            ("bücher.example", Kind::Unexpected('ü'), 1),
            ("a*", Kind::Unexpected('*'), 1),
            ("10.0.0.1%eth0", Kind::ZoneOnIpv4, 9),
        ];
        for (text, kind, at) in cases {
            let error = text.parse::<Host>().unwrap_err();
            assert_eq!((*error.kind(), error.at()), (kind, at), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_printed_again_or_refused_with_a_place_in_it(text in "[a-zA-Z0-9._-]{0,20}|\\PC*") {
            match text.parse::<Host>() {
                Ok(host) => prop_assert_eq!(host.to_string().parse(), Ok(host)),
                Err(error) => prop_assert!(error.at() <= text.len()),
            }
        }
    }
}
