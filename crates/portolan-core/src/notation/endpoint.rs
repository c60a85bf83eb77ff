use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::address::{bracketed, ipv6};
use super::error::{Element, NotationError, NotationErrorKind};
use super::host::{Host, host};
use super::number::port;
use super::part::Part;
use super::services::{BUILT_IN, ServiceNames};
use crate::{Address, Port, Protocol};

/// A host and a port: `10.0.0.1:80`, `[fe80::1%eth0]:22`, `*:80`, `localhost:8080`.
///
/// Text with two or more colons outside of brackets is never read as IPv6 address and port:
/// `2001:db8::1:443` is a whole address. See [`Notation`](crate::Notation).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: Port,
}

impl Endpoint {
    /// Reads `HOST:PORT`, the port being a number or the name of a service of `protocol`. Without a
    /// host, `:80`, it is `*`.
    ///
    /// # Errors
    /// A missing port, an IPv6 address without brackets, a host or port that is none.
    pub fn parse(
        text: &str,
        protocol: Option<Protocol>,
        services: &dyn ServiceNames,
    ) -> Result<Self, NotationError> {
        endpoint(Part::whole(text), protocol, services)
    }
}

/// [`Endpoint::parse`] with the names of the embedded registry.
impl FromStr for Endpoint {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        Self::parse(text, None, &BUILT_IN)
    }
}

impl From<SocketAddr> for Endpoint {
    /// The address without its scope id, which is a number that only the host can name.
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Host::Address(Address::new(address.ip())),
            port: Port::new(address.port()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

pub(super) fn endpoint(
    part: Part<'_>,
    protocol: Option<Protocol>,
    services: &dyn ServiceNames,
) -> Result<Endpoint, NotationError> {
    if part.is_empty() {
        return Err(part.fault(NotationErrorKind::Missing(Element::Notation), 0));
    }
    let (host_part, port_part) = split(part)?;
    let host = if host_part.is_empty() {
        Host::Any
    } else {
        host(host_part)?
    };
    if port_part
        .text()
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'-')
        && port_part
            .text()
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_digit())
        && let Some(hyphen) = port_part.text().find('-')
    {
        return Err(port_part.fault(NotationErrorKind::NotOnePort, hyphen));
    }
    let port = port(port_part, protocol, services)?;
    Ok(Endpoint { host, port })
}

/// What stands before and after the colon of an endpoint.
fn split(part: Part<'_>) -> Result<(Part<'_>, Part<'_>), NotationError> {
    if part.text().starts_with('[') {
        let (_, rest) = bracketed(part)?;
        return match rest.text().chars().next() {
            None => Err(rest.fault(NotationErrorKind::Missing(Element::Port), 0)),
            Some(':') => Ok((part.until(part.text().len() - rest.text().len()), rest.from(1))),
            Some(char) => Err(rest.unexpected(char, 0)),
        };
    }
    needs_brackets(part)?;
    let Some((host, port)) = part.split_once(':') else {
        return Err(part.fault_at_end(NotationErrorKind::Missing(Element::Port)));
    };
    match port.text().find(':') {
        None => Ok((host, port)),
        Some(colon) => Err(port.unexpected(':', colon)),
    }
}

/// Refuses IPv6 addresses without brackets, with a port and without.
pub(super) fn needs_brackets(part: Part<'_>) -> Result<(), NotationError> {
    if let Ok(address) = ipv6(part) {
        return Err(part.fault_at_end(NotationErrorKind::Ipv6WithoutPort { address }));
    }
    match part.rsplit_once(':') {
        Some((before, after)) => match ipv6(before) {
            Ok(address) => {
                let port = after.text().parse().ok();
                Err(after.fault(NotationErrorKind::NeedsBrackets { address, port }, 0))
            }
            Err(_) => Ok(()),
        },
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::PortSet;

    fn names(name: &str, _protocol: Option<Protocol>) -> PortSet {
        match name {
            "https" => Port::new(443).into(),
            "two" => [1, 2].into_iter().map(Port::new).collect(),
            _ => PortSet::new(),
        }
    }

    fn parse(text: &str) -> Result<Endpoint, NotationError> {
        Endpoint::parse(text, None, &names)
    }

    #[test]
    fn endpoints_have_one_canonical_form() {
        let cases = [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[2001:DB8::1]:443", "[2001:db8::1]:443"),
            ("[fe80::1%eth0]:22", "[fe80::1%eth0]:22"),
            ("*:80", "*:80"),
            (":80", "*:80"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::]:80", "[::]:80"),
            ("localhost:8080", "localhost:8080"),
            ("Example.ORG:https", "example.org:443"),
        ];
        for (text, canonical) in cases {
            let endpoint = parse(text).unwrap();
            assert_eq!(endpoint.to_string(), canonical, "{text:?}");
            assert_eq!(canonical.parse(), Ok(endpoint), "{text:?}");
        }
    }

    #[test]
    fn each_bad_endpoint_has_its_fault_and_place() {
        use NotationErrorKind as Kind;
        let address = "2001:db8::1".parse().unwrap();
        let brackets = |port: u16| Kind::NeedsBrackets {
            address,
            port: Some(Port::new(port)),
        };
        let port = Kind::Missing(Element::Port);
        let cases = [
            ("", Kind::Missing(Element::Notation), 0),
            ("localhost", port, 9),
            ("localhost:", port, 10),
            (":", port, 1),
            ("[::1]", port, 5),
            ("[::1]:", port, 6),
            ("[::1:80", Kind::UnclosedBracket, 0),
            ("[::1]80", Kind::Unexpected('8'), 5),
            ("2001:db8::1:65535", brackets(65535), 12),
            ("2001:db8::1:10443", brackets(10443), 12),
            (
                "2001:db8::1:99999",
                Kind::NeedsBrackets { address, port: None },
                12,
            ),
            (
                "2001:db8::1:443",
                Kind::Ipv6WithoutPort {
                    address: "2001:db8::1:443".parse().unwrap(),
                },
                15,
            ),
            ("10.0.0.1:80:90", Kind::Unexpected(':'), 11),
            ("10.0.0.1:80-90", Kind::NotOnePort, 11),
            ("10.0.0.1:-1", Kind::Negative, 9),
            ("10.0.0.1:+80", Kind::Sign, 9),
            ("10.0.0.1:70000", Kind::OutOfRange, 9),
            ("10.0.0.1:two", Kind::AmbiguousService { ports: 2 }, 9),
            ("10.0.0.1:nosuch", Kind::UnknownService, 9),
            ("10.0.0.300:80", Kind::Ipv4Range, 7),
            ("8080:80", Kind::Ipv4Numbers, 0),
            (
                "[2001:db8::1%eth0]:80",
                Kind::ZoneOnGlobal("2001:db8::1".parse().unwrap()),
                12,
            ),
            (" localhost:80", Kind::Blank, 0),
        ];
        for (text, kind, at) in cases {
            let error = parse(text).unwrap_err();
            assert_eq!((*error.kind(), error.at()), (kind, at), "{text:?}");
        }
    }

    #[test]
    fn an_address_that_could_hide_a_port_says_how_to_write_it() {
        let error = parse("2001:db8::1:443").unwrap_err().to_string();
        assert!(error.ends_with("for port 443 write [2001:db8::1]:443"), "{error}");
        let error = parse("fe80::abc").unwrap_err().to_string();
        assert!(error.ends_with("write [fe80::abc]:PORT"), "{error}");
    }

    proptest! {
        #[test]
        fn printing_and_reading_gives_the_same(ip: IpAddr, port: u16, name in "[a-z]([a-z0-9.]{0,9}[a-z])?") {
            let port = Port::new(port);
            let mut hosts = vec![Host::Any, Host::Address(ip.into())];
            hosts.extend(name.parse().map(Host::Name));
            for host in hosts {
                let endpoint = Endpoint { host, port };
                prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
            }
        }

        #[test]
        fn any_text_is_read_or_refused_with_a_place_in_it(text in "[0-9a-f:.%*\\[\\]]{0,30}|\\PC*") {
            match parse(&text) {
                Ok(endpoint) => prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint)),
                Err(error) => prop_assert!(error.at() <= text.len()),
            }
        }
    }
}
