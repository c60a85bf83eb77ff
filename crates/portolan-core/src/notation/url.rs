use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::address::{Address, bracketed, ipv6, zone};
use super::endpoint::needs_brackets;
use super::error::{Element, NotationError, NotationErrorKind};
use super::host::{Host, host};
use super::number::number;
use super::part::Part;
use super::scheme::scheme;
use super::services::{BUILT_IN, ServiceNames, service_port};
use crate::{Port, Protocol, is_printable};

/// A URL with a host: `http://host:8080/api`, `https://[2001:db8::1]/`.
///
/// The scheme and the host are kept in lower case; what stands around the host and port is kept as it
/// was written and not decoded (RFC 3986). A zone is written `%25eth0` (RFC 6874) and read as `%eth0`
/// too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Box<str>,
    userinfo: Option<Box<str>>,
    host: Host,
    written_port: Option<Port>,
    default_port: Option<Port>,
    protocol: Protocol,
    rest: Box<str>,
}

impl Url {
    /// Reads a URL. A scheme that is not [known](scheme) has the port of the service of its name.
    ///
    /// # Errors
    /// No scheme or no host, a host or port that is none, a scheme without a port in a URL without one,
    /// blanks and characters that would not be seen.
    pub fn parse(text: &str, services: &dyn ServiceNames) -> Result<Self, NotationError> {
        url(Part::whole(text), services)
    }

    /// The scheme in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// What stands before `@`: a user, perhaps a password after a colon.
    #[must_use]
    pub fn userinfo(&self) -> Option<&str> {
        self.userinfo.as_deref()
    }

    /// The host, never [`Host::Any`].
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port that is written, or else the scheme's.
    #[must_use]
    pub fn port(&self) -> Port {
        self.written_port
            .or(self.default_port)
            .expect("a URL without either is refused")
    }

    /// The port, if one is written.
    #[must_use]
    pub const fn written_port(&self) -> Option<Port> {
        self.written_port
    }

    /// The port that the scheme stands for, if it is known.
    #[must_use]
    pub const fn default_port(&self) -> Option<Port> {
        self.default_port
    }

    /// The protocol that the scheme is carried by; TCP if it is not known.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The path with its first slash; empty if there is none.
    #[must_use]
    pub fn path(&self) -> &str {
        let end = self.rest.find(['?', '#']).unwrap_or(self.rest.len());
        &self.rest[..end]
    }

    /// What stands between `?` and `#` or the end.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        let before_fragment = self.rest.split('#').next().unwrap_or_default();
        before_fragment.split_once('?').map(|(_, query)| query)
    }

    /// What stands behind `#`.
    #[must_use]
    pub fn fragment(&self) -> Option<&str> {
        self.rest.split_once('#').map(|(_, fragment)| fragment)
    }
}

/// [`Url::parse`] with the names of the embedded registry.
impl FromStr for Url {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        Self::parse(text, &BUILT_IN)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        if let Some(userinfo) = &self.userinfo {
            write!(f, "{userinfo}@")?;
        }
        match &self.host {
            Host::Address(address) => match (address.ip(), address.zone()) {
                (ip, Some(zone)) => write!(f, "[{ip}%25{zone}]")?,
                (_, None) => self.host.fmt(f)?,
            },
            Host::Any | Host::Name(_) => self.host.fmt(f)?,
        }
        if let Some(port) = self.written_port {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.rest)
    }
}

pub(super) fn url(part: Part<'_>, services: &dyn ServiceNames) -> Result<Url, NotationError> {
    let unseen = |char: char| char.is_whitespace() || !is_printable(char);
    if let Some((offset, char)) = part.text().char_indices().find(|&(_, char)| unseen(char)) {
        return Err(part.unexpected(char, offset));
    }
    let Some(end) = part.text().find("://") else {
        return Err(part.fault(NotationErrorKind::Missing(Element::SchemeEnd), 0));
    };
    let scheme_part = part.until(end);
    let after = part.from(end + "://".len());
    check_scheme(scheme_part)?;
    let name = scheme_part.text().to_ascii_lowercase();

    // RFC 3986, section 3.2: the authority ends at the first of these, whatever stands in it.
    let authority_end = after
        .text()
        .find(['/', '?', '#'])
        .unwrap_or_else(|| after.text().len());
    let (authority, rest) = (after.until(authority_end), after.from(authority_end));
    // The last one: "@" in a password is often left as it is.
    let (userinfo, place) = match authority.rsplit_once('@') {
        None => (None, authority),
        Some((userinfo, place)) => (Some(userinfo.text()), place),
    };
    let (host, port_part) = host_and_port(place)?;
    // RFC 3986, section 3.2.3: the colon may stand without a port.
    let written_port = match port_part {
        Some(part) if !part.is_empty() => Some(number(part)?),
        Some(_) | None => None,
    };
    let (default_port, protocol) = match scheme(&name) {
        Some(known) => (Some(known.port), known.protocol),
        None => {
            let port = service_port(scheme_part, Some(Protocol::Tcp), services).ok();
            (port, Protocol::Tcp)
        }
    };
    if written_port.is_none() && default_port.is_none() {
        return Err(scheme_part.fault(NotationErrorKind::UnknownScheme, 0));
    }
    Ok(Url {
        scheme: name.into_boxed_str(),
        userinfo: userinfo.map(Box::from),
        host,
        written_port,
        default_port,
        protocol,
        rest: Box::from(rest.text()),
    })
}

/// RFC 3986, section 3.1: a letter, then letters, digits, `+`, `-` and `.`.
fn check_scheme(part: Part<'_>) -> Result<(), NotationError> {
    if part.is_empty() {
        return Err(part.fault(NotationErrorKind::Missing(Element::Scheme), 0));
    }
    let stranger = |(offset, char): (usize, char)| {
        !char.is_ascii_alphabetic()
            && (offset == 0 || !char.is_ascii_digit() && !matches!(char, '+' | '-' | '.'))
    };
    match part.text().char_indices().find(|&at| stranger(at)) {
        Some((offset, char)) => Err(part.unexpected(char, offset)),
        None => Ok(()),
    }
}

fn host_and_port(part: Part<'_>) -> Result<(Host, Option<Part<'_>>), NotationError> {
    if part.text().starts_with('[') {
        let (address, rest) = url_bracketed(part)?;
        return match rest.text().chars().next() {
            None => Ok((Host::Address(address), None)),
            Some(':') => Ok((Host::Address(address), Some(rest.from(1)))),
            Some(char) => Err(rest.unexpected(char, 0)),
        };
    }
    let (host_part, port) = match part.split_once(':') {
        None => (part, None),
        Some((host, port)) => {
            if let Some(colon) = port.text().find(':') {
                needs_brackets(part)?;
                return Err(port.unexpected(':', colon));
            }
            (host, Some(port))
        }
    };
    if host_part.is_empty() {
        return Err(host_part.fault(NotationErrorKind::Missing(Element::Host), 0));
    }
    match host(host_part)? {
        Host::Any => Err(host_part.unexpected('*', 0)),
        host => Ok((host, port)),
    }
}

/// `[ADDRESS%25ZONE]`, the percent sign of the zone being encoded (RFC 6874, section 2).
fn url_bracketed(part: Part<'_>) -> Result<(Address, Part<'_>), NotationError> {
    let Some(close) = part.text().find(']') else {
        return Err(part.fault(NotationErrorKind::UnclosedBracket, 0));
    };
    let Some(percent) = part.text()[..close]
        .find("%25")
        .filter(|percent| percent + 3 < close)
    else {
        return bracketed(part);
    };
    let IpAddr::V6(ip) = ipv6(part.until(percent).from(1))?.ip() else {
        return bracketed(part);
    };
    let zone = zone(part.until(close).from(percent + 3))?;
    let address = Address::with_zone(ip, zone)
        .ok_or_else(|| part.fault(NotationErrorKind::ZoneOnGlobal(ip), percent))?;
    Ok((address, part.from(close + 1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_port_is_the_written_one_or_the_schemes() {
        let cases = [
            ("https://host/", 443),
            ("http://host:8080/api", 8080),
            ("ssh://git@example.org/x.git", 22),
            ("postgres://u:p@db.example/name", 5432),
            ("redis://localhost", 6379),
            ("wss://host?x=1", 443),
            ("ldap://[::1]/dc=example", 389),
            ("nosuch://host:7/", 7),
            ("http://host:/", 80),
            ("mysql://10.0.0.1", 3306),
        ];
        for (text, port) in cases {
            let url = text.parse::<Url>().unwrap();
            assert_eq!(url.port(), Port::new(port), "{text}");
            assert_eq!(url.to_string().parse(), Ok(url), "{text}");
        }
    }

    #[test]
    fn every_part_is_kept() {
        let text = "HTTPS://me:p@ss@[fe80::1%25eth0]:8443/a/b?q=1?&r=%20#top#2";
        let url = text.parse::<Url>().unwrap();
        assert_eq!(url.scheme(), "https");
        assert_eq!(url.userinfo(), Some("me:p@ss"));
        assert_eq!(url.host().to_string(), "[fe80::1%eth0]");
        assert_eq!(
            (url.written_port(), url.default_port()),
            (Some(Port::new(8443)), Some(Port::new(443)))
        );
        assert_eq!(url.path(), "/a/b");
        assert_eq!(url.query(), Some("q=1?&r=%20"));
        assert_eq!(url.fragment(), Some("top#2"));
        assert_eq!(url.to_string(), text.replace("HTTPS", "https"));
        assert_eq!(text.replace("%25", "%").parse(), Ok(url));
        let bare = "http://h".parse::<Url>().unwrap();
        assert_eq!(
            (bare.path(), bare.query(), bare.fragment(), bare.userinfo()),
            ("", None, None, None)
        );
    }

    #[test]
    fn an_unknown_scheme_has_the_port_of_the_service_of_its_name() {
        let services = |name: &str, _| match name {
            "acr-nema" => Port::new(104).into(),
            _ => crate::PortSet::new(),
        };
        assert_eq!(
            Url::parse("acr-nema://h/", &services).unwrap().port(),
            Port::new(104)
        );
        assert!(Url::parse("nosuch://h/", &services).is_err());
    }

    #[test]
    fn each_bad_url_has_its_fault_and_place() {
        use NotationErrorKind as Kind;
        let global = "2001:db8::1".parse().unwrap();
        let brackets = Kind::NeedsBrackets {
            address: global,
            port: Some(Port::new(65535)),
        };
        let cases = [
            ("", Kind::Missing(Element::SchemeEnd), 0),
            ("http:/host", Kind::Missing(Element::SchemeEnd), 0),
            ("://host", Kind::Missing(Element::Scheme), 0),
            ("1http://host", Kind::Unexpected('1'), 0),
            ("ht_tp://host", Kind::Unexpected('_'), 2),
            ("http://", Kind::Missing(Element::Host), 7),
            ("file:///etc", Kind::Missing(Element::Host), 7),
            ("http://:80/", Kind::Missing(Element::Host), 7),
            ("http://a b/", Kind::Blank, 8),
            ("http://host/\0", Kind::Unexpected('\0'), 12),
            ("http://host:70000/", Kind::OutOfRange, 12),
            ("http://host:-1/", Kind::Negative, 12),
            ("http://host:https/", Kind::Unexpected('h'), 12),
            ("http://host:80:80/", Kind::Unexpected(':'), 14),
            ("http://[::1/", Kind::UnclosedBracket, 7),
            ("http://[::1]x/", Kind::Unexpected('x'), 12),
            ("http://2001:db8::1:65535/", brackets, 19),
            (
                "http://[2001:db8::1%25eth0]/",
                Kind::ZoneOnGlobal("2001:db8::1".parse().unwrap()),
                19,
            ),
            ("http://*/", Kind::Unexpected('*'), 7),
            ("http://10.0.0.256/", Kind::Ipv4Range, 14),
            ("nosuch://host/", Kind::UnknownScheme, 0),
        ];
        for (text, kind, at) in cases {
            let error = text.parse::<Url>().unwrap_err();
            assert_eq!((*error.kind(), error.at()), (kind, at), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_printed_again_or_refused_with_a_place_in_it(
            text in "(http|x-y)://([a-z:]{1,6}@)?([a-z.]{1,9}|\\[[0-9a-f:%z]{0,12}\\])(:[0-9]{0,6})?[/?#\\PC]{0,12}|\\PC*"
        ) {
            match text.parse::<Url>() {
                Ok(url) => prop_assert_eq!(url.to_string().parse(), Ok(url)),
                Err(error) => prop_assert!(error.at() <= text.len()),
            }
        }
    }
}
