use std::fmt;
use std::str::FromStr;

use super::address::{Address, address, ipv4};
use super::endpoint::{Endpoint, endpoint, needs_brackets};
use super::error::{Element, NotationError, NotationErrorKind};
use super::host::host_name;
use super::mapping::{Mapping, mapping};
use super::number::{number, range};
use super::part::Part;
use super::port_set::port_set;
use super::protocol::suffix;
use super::services::{BUILT_IN, ServiceNames, is_name, service};
use super::url::{Url, url};
use crate::{Port, PortRange, PortSet, Protocol};

/// Anything that Portolan's notation can say, found out from the text alone.
///
/// The first rule that fits decides; text that fits it and is wrong is an error, not tried further:
///
/// 1. With `://` it is a URL.
/// 2. An IPv4 address, or an IPv6 address with or without brackets, is an address. Hence
///    `2001:db8::1:443`, in which 443 may have been meant as a port, is an address without one
///    ([`Address::unbracketed_port`] tells), and `2001:db8::1:65535`, which is none, but has one before
///    its last colon, is an error that asks for brackets.
/// 3. With a colon outside of brackets it is a mapping if ports stand before the first colon
///    (`8080:80`), if there are more colons (`127.0.0.1:8080:80`) or if it ends in `/both`; else an
///    endpoint (`localhost:80`).
/// 4. With a comma, or with `!` first, it is a set of ports.
/// 5. Digits, with a hyphen between or without, are a range or a port.
/// 6. All else is the name of a service.
///
/// `/tcp` and the other protocols may follow in rules 3 to 6. Sets that are one range or one port are
/// given as such, so that each value has one form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notation {
    /// `443`, `443/tcp`.
    Port {
        /// The port.
        port: Port,
        /// The protocol, if one is written.
        protocol: Option<Protocol>,
    },
    /// `8000-8010`, `8000-8010/udp`.
    Range {
        /// Two ports or more.
        range: PortRange,
        /// The protocol, if one is written.
        protocol: Option<Protocol>,
    },
    /// `22,80-443,https`, `1-1024,!22/tcp`.
    Set {
        /// No port, or two ranges or more.
        ports: PortSet,
        /// The protocol, if one is written.
        protocol: Option<Protocol>,
    },
    /// `https`, `domain/udp`.
    Service {
        /// The name in lower case.
        name: Box<str>,
        /// The ports that it stands for; never empty.
        ports: PortSet,
        /// The protocol, if one is written.
        protocol: Option<Protocol>,
    },
    /// `10.0.0.1`, `fe80::1%eth0`.
    Address(Address),
    /// `10.0.0.1:80`, `[::1]:53/udp`, `*:80`, `localhost:https`.
    Endpoint {
        /// Host and port.
        endpoint: Endpoint,
        /// The protocol, if one is written.
        protocol: Option<Protocol>,
    },
    /// `https://example.org/`.
    Url(Url),
    /// `127.0.0.1:8080:80/udp`.
    Mapping(Mapping),
}

impl Notation {
    /// Reads any notation, service names included.
    ///
    /// # Errors
    /// The first fault by the rule that fits the text. Cost and memory are linear in the text's length;
    /// an error keeps a short piece of it.
    pub fn parse(text: &str, services: &dyn ServiceNames) -> Result<Self, NotationError> {
        let part = Part::whole(text);
        if part.is_empty() {
            return Err(part.fault(NotationErrorKind::Missing(Element::Notation), 0));
        }
        if text.contains("://") {
            return url(part, services).map(Self::Url);
        }
        if let Ok(address) = address(part) {
            return Ok(Self::Address(address));
        }
        if colons_outside_brackets(text) > 0 {
            with_colon(part, services)
        } else {
            without_colon(part, services)
        }
    }

    fn from_ports(ports: PortSet, protocol: Option<Protocol>) -> Self {
        match *ports.ranges() {
            [range] if range.len() == 1 => Self::Port {
                port: range.first(),
                protocol,
            },
            [range] => Self::Range { range, protocol },
            _ => Self::Set { ports, protocol },
        }
    }
}

/// [`Notation::parse`] with the names of the embedded registry.
impl FromStr for Notation {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        Self::parse(text, &BUILT_IN)
    }
}

impl fmt::Display for Notation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self {
            Self::Port { port, protocol } => {
                port.fmt(f)?;
                protocol
            }
            Self::Range { range, protocol } => {
                range.fmt(f)?;
                protocol
            }
            Self::Set { ports, protocol } => {
                ports.fmt(f)?;
                protocol
            }
            Self::Service {
                name,
                protocol,
                ports: _,
            } => {
                f.write_str(name)?;
                protocol
            }
            Self::Endpoint { endpoint, protocol } => {
                endpoint.fmt(f)?;
                protocol
            }
            Self::Address(address) => return address.fmt(f),
            Self::Url(url) => return url.fmt(f),
            Self::Mapping(mapping) => return mapping.fmt(f),
        };
        match protocol {
            None => Ok(()),
            Some(protocol) => write!(f, "/{protocol}"),
        }
    }
}

fn colons_outside_brackets(text: &str) -> usize {
    let mut inside = false;
    let outside = |byte: &u8| {
        match byte {
            b'[' => inside = true,
            b']' => inside = false,
            _ => {}
        }
        *byte == b':' && !inside
    };
    text.as_bytes().iter().copied().filter(outside).count()
}

fn with_colon(part: Part<'_>, services: &dyn ServiceNames) -> Result<Notation, NotationError> {
    // Whatever follows a slash, the colons are counted before it.
    let (body, for_both) = match part.rsplit_once('/') {
        None => (part, false),
        Some((body, name)) => (body, name.text().eq_ignore_ascii_case("both")),
    };
    let first = body.text().split(':').next().unwrap_or_default();
    let many = colons_outside_brackets(body.text()) > 1;
    if many {
        needs_brackets(body)?;
        // Only IPv6 has "::", but for the free port of 127.0.0.1::80.
        if body.text().contains("::") && !body.text().contains('[') && !first.contains(['.', '*']) {
            address(body)?;
        }
    }
    let ports_first = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    if many || ports_first || for_both {
        return mapping(part, services).map(Notation::Mapping);
    }
    let (body, protocol) = suffix(part)?;
    let endpoint = endpoint(body, protocol, services)?;
    Ok(Notation::Endpoint { endpoint, protocol })
}

fn without_colon(part: Part<'_>, services: &dyn ServiceNames) -> Result<Notation, NotationError> {
    if part.text().starts_with('[') {
        return address(part).map(Notation::Address);
    }
    let (body, protocol) = suffix(part)?;
    let text = body.text();
    if text == "*" || ipv4(body).is_ok() {
        return Err(body.fault_at_end(NotationErrorKind::Missing(Element::Port)));
    }
    if text.contains(',') || text.starts_with('!') {
        let ports = port_set(body, protocol, services)?;
        return Ok(Notation::from_ports(ports, protocol));
    }
    if !is_name(text) {
        let dotted = text.contains('.') && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        return if dotted {
            address(body).map(Notation::Address)
        } else if text.starts_with('-') {
            number(body).map(|port| Notation::Port { port, protocol })
        } else {
            range(body).map(|range| Notation::from_ports(range.into(), protocol))
        };
    }
    match service(body, protocol, services) {
        Ok(ports) => Ok(Notation::Service {
            name: text.to_ascii_lowercase().into_boxed_str(),
            ports,
            protocol,
        }),
        Err(error) if *error.kind() != NotationErrorKind::UnknownService => {
            // A fault in an address says more as one.
            if text.contains('%') {
                address(body).map(Notation::Address)
            } else {
                Err(error)
            }
        }
        Err(_) if text.contains('.') && host_name(body).is_ok() => {
            Err(body.fault_at_end(NotationErrorKind::Missing(Element::Port)))
        }
        // "80-abc" is a range with a fault in it.
        Err(_) => port_set(body, protocol, services).map(|ports| Notation::from_ports(ports, protocol)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(name: &str, protocol: Option<Protocol>) -> PortSet {
        match (name.to_ascii_lowercase().as_str(), protocol) {
            ("https", _) => Port::new(443).into(),
            ("http", None | Some(Protocol::Tcp)) => Port::new(80).into(),
            ("x11", _) => PortRange::new(Port::new(6000), Port::new(6063)).unwrap().into(),
            _ => PortSet::new(),
        }
    }

    fn parse(text: &str) -> Result<Notation, NotationError> {
        Notation::parse(text, &names)
    }

    fn kind_of(notation: &Notation) -> &'static str {
        match notation {
            Notation::Port { .. } => "port",
            Notation::Range { .. } => "range",
            Notation::Set { .. } => "set",
            Notation::Service { .. } => "service",
            Notation::Address(_) => "address",
            Notation::Endpoint { .. } => "endpoint",
            Notation::Url(_) => "url",
            Notation::Mapping(_) => "mapping",
        }
    }

    #[test]
    fn each_text_is_what_the_rules_say_and_is_read_again_as_printed() {
        let cases = [
            ("443", "port", "443"),
            ("443/TCP", "port", "443/tcp"),
            ("80-80", "port", "80"),
            ("8000-8010/udp", "range", "8000-8010/udp"),
            ("80,81", "range", "80-81"),
            ("22,80-443,https/tcp", "set", "22,80-443/tcp"),
            ("!22", "set", "0-21,23-65535"),
            ("1,!1", "set", "!0-65535"),
            ("HTTPS", "service", "https"),
            ("http/tcp", "service", "http/tcp"),
            ("x11", "service", "x11"),
            ("10.0.0.1", "address", "10.0.0.1"),
            ("[::1]", "address", "::1"),
            ("fe80::1%eth0", "address", "fe80::1%eth0"),
            ("2001:db8::1:443", "address", "2001:db8::1:443"),
            ("8080::80", "address", "8080::80"),
            ("10.0.0.1:80", "endpoint", "10.0.0.1:80"),
            ("[::1]:53/udp", "endpoint", "[::1]:53/udp"),
            (":80", "endpoint", "*:80"),
            ("http:80", "endpoint", "http:80"),
            ("localhost:https", "endpoint", "localhost:443"),
            ("https://host/", "url", "https://host/"),
            ("http://host:8080/api", "url", "http://host:8080/api"),
            ("8080:80", "mapping", "8080:80"),
            ("8000-8010:9000-9010", "mapping", "8000-8010:9000-9010"),
            ("127.0.0.1::80", "mapping", "127.0.0.1:0:80"),
            (
                "[::1]:8000-8010:9000-9010",
                "mapping",
                "[::1]:8000-8010:9000-9010",
            ),
            ("8080:[::1]:80/both", "mapping", "8080:[::1]:80/both"),
        ];
        for (text, kind, printed) in cases {
            let notation = parse(text).unwrap();
            assert_eq!(
                (kind_of(&notation), notation.to_string().as_str()),
                (kind, printed),
                "{text:?}"
            );
            assert_eq!(parse(printed), Ok(notation), "{text:?}");
        }
    }

    #[test]
    fn each_bad_text_has_its_fault_and_place() {
        use NotationErrorKind as Kind;
        let address = "2001:db8::1".parse().unwrap();
        let global = "2001:db8::1".parse().unwrap();
        let cases = [
            ("", Kind::Missing(Element::Notation), 0),
            ("70000", Kind::OutOfRange, 0),
            ("-1", Kind::Negative, 0),
            ("+80", Kind::Sign, 0),
            ("80-", Kind::Missing(Element::RangeEnd), 3),
            (
                "90-80",
                Kind::Reversed {
                    first: Port::new(90),
                    last: Port::new(80),
                },
                0,
            ),
            ("80-abc", Kind::Unexpected('a'), 3),
            ("[::1", Kind::UnclosedBracket, 0),
            ("[::1:80", Kind::UnclosedBracket, 0),
            (
                "2001:db8::1:65535",
                Kind::NeedsBrackets {
                    address,
                    port: Some(Port::MAX),
                },
                12,
            ),
            (
                "2001:db8::1:65535/tcp",
                Kind::NeedsBrackets {
                    address,
                    port: Some(Port::MAX),
                },
                12,
            ),
            ("2001:db8::1%eth0", Kind::ZoneOnGlobal(global), 11),
            ("[2001:db8::1%eth0]:80", Kind::ZoneOnGlobal(global), 12),
            ("2001:db8::g", Kind::Unexpected('g'), 10),
            ("22,,80", Kind::Missing(Element::Item), 3),
            ("22, 80", Kind::Blank, 3),
            ("80\0", Kind::Unexpected('\0'), 2),
            ("８０", Kind::ForeignDigit('８'), 0),
            ("443/", Kind::Missing(Element::Protocol), 4),
            ("443/icmp", Kind::UnknownProtocol, 4),
            ("10.0.0.0/8", Kind::UnknownProtocol, 9),
            ("10.0.0.1/tcp", Kind::Missing(Element::Port), 8),
            ("10.0.0.256", Kind::Ipv4Range, 7),
            ("10.0.0.1%eth0", Kind::ZoneOnIpv4, 9),
            ("example.org", Kind::Missing(Element::Port), 11),
            ("localhost:", Kind::Missing(Element::Port), 10),
            ("localhost:80-90", Kind::NotOnePort, 12),
            ("*", Kind::Missing(Element::Port), 1),
            ("nosuch", Kind::UnknownService, 0),
            ("http/udp", Kind::UnknownService, 0),
            ("http ", Kind::Blank, 4),
            ("8000-8010:80", Kind::RangeLengths { outer: 11, inner: 1 }, 10),
        ];
        for (text, kind, at) in cases {
            let error = parse(text).unwrap_err();
            assert_eq!((*error.kind(), error.at()), (kind, at), "{text:?}");
        }
    }

    #[test]
    fn an_error_is_one_short_line_that_a_terminal_can_show() {
        let long = [
            "1", "a", ",", ":", "[", "::", "\u{202e}", "1:", "80,", "x.", "-", "\0", "%", "http://",
        ];
        for piece in long {
            let text = piece.repeat((1 << 16) / piece.len());
            if let Err(error) = parse(&text) {
                let shown = error.to_string();
                assert!(shown.chars().count() < 400, "{shown}");
                assert!(shown.chars().all(crate::is_printable), "{shown}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_printed_again_or_refused_with_a_place_in_it(
            text in "[0-9a-fxhtps:.,!%*/\\[\\]-]{0,30}|\\PC*|.*"
        ) {
            match parse(&text) {
                Ok(notation) => {
                    let printed = notation.to_string();
                    let again = parse(&printed);
                    prop_assert_eq!(again.as_ref(), Ok(&notation), "{}", printed);
                }
                Err(error) => {
                    prop_assert!(error.at() <= text.len() && text.is_char_boundary(error.at()));
                    let shown = error.to_string();
                    prop_assert!(shown.chars().count() < 400, "{}", shown);
                    prop_assert!(shown.chars().all(crate::is_printable), "{}", shown);
                }
            }
        }
    }
}
