use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::address::{Zone, bracketed, ipv4, ipv6, zone};
use super::error::{Element, NotationError, NotationErrorKind};
use super::host::{Host, host};
use super::number::range;
use super::part::Part;
use super::services::{BUILT_IN, ServiceNames, is_name, service_port};
use crate::{Port, PortRange, Protocol};

/// A port outside that leads to one inside, as `docker run -p` writes it: `8080:80`,
/// `127.0.0.1:8080:80/udp`, `[::1]:8000-8010:9000-9010`.
///
/// ```text
/// [ADDRESS[%IFACE]:]PORT[-PORT]:[ADDRESS:]PORT[-PORT][/tcp|udp|both]
/// ```
/// Without an address outside it is every address of both families, also written `*`; without a protocol
/// it is TCP. Port 0 outside means any free port; `127.0.0.1::80` is `127.0.0.1:0:80`. Both sides have
/// the same number of ports. IPv6 addresses stand in brackets; inside may be a host name too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mapping {
    address: Option<IpAddr>,
    interface: Option<Zone>,
    outer: PortRange,
    target: Option<Host>,
    inner: PortRange,
    protocol: MappingProtocol,
}

/// The protocols that a [`Mapping`] is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum MappingProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// TCP and UDP.
    Both,
}

impl MappingProtocol {
    /// The protocols, TCP before UDP.
    #[must_use]
    pub const fn protocols(self) -> &'static [Protocol] {
        match self {
            Self::Tcp => &[Protocol::Tcp],
            Self::Udp => &[Protocol::Udp],
            Self::Both => &[Protocol::Tcp, Protocol::Udp],
        }
    }

    /// `tcp`, `udp` or `both`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Both => "both",
        }
    }
}

impl fmt::Display for MappingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Mapping {
    /// Reads a mapping; each side may be the name of a service with one port.
    ///
    /// # Errors
    /// A side that is missing, more parts than there are, sides of different lengths, an IPv6 address
    /// without brackets, port 0 inside, and whatever an address or a range can have.
    pub fn parse(text: &str, services: &dyn ServiceNames) -> Result<Self, NotationError> {
        mapping(Part::whole(text), services)
    }

    /// The address outside; `None` for every address of both families.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The interface that the outer address is confined to.
    #[must_use]
    pub const fn interface(&self) -> Option<Zone> {
        self.interface
    }

    /// The ports outside. The single port 0 means any free port.
    #[must_use]
    pub const fn outer(&self) -> PortRange {
        self.outer
    }

    /// The host inside, if one is written.
    #[must_use]
    pub const fn target(&self) -> Option<&Host> {
        self.target.as_ref()
    }

    /// The ports inside, as many as outside.
    #[must_use]
    pub const fn inner(&self) -> PortRange {
        self.inner
    }

    /// The protocols.
    #[must_use]
    pub const fn protocol(&self) -> MappingProtocol {
        self.protocol
    }

    /// The ports outside with those that they lead to, in rising order.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (Port, Port)> + Clone {
        self.outer.iter().zip(self.inner.iter())
    }
}

/// [`Mapping::parse`] with the names of the embedded registry.
impl FromStr for Mapping {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        Self::parse(text, &BUILT_IN)
    }
}

/// Leaves out what is not needed: `*`, and `/tcp`.
impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_bind_address(self.address, self.interface, f)?;
        write!(f, "{}:", self.outer)?;
        if let Some(target) = &self.target {
            write!(f, "{target}:")?;
        }
        self.inner.fmt(f)?;
        match self.protocol {
            MappingProtocol::Tcp => Ok(()),
            MappingProtocol::Udp | MappingProtocol::Both => write!(f, "/{}", self.protocol),
        }
    }
}

/// An address outside and the colon behind it; nothing for every address.
pub(super) fn fmt_bind_address(
    address: Option<IpAddr>,
    interface: Option<Zone>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let zone = |f: &mut fmt::Formatter<'_>| match interface {
        None => Ok(()),
        Some(interface) => write!(f, "%{interface}"),
    };
    match address {
        None if interface.is_none() => Ok(()),
        None => {
            f.write_str("*")?;
            zone(f)?;
            f.write_str(":")
        }
        Some(IpAddr::V4(ip)) => {
            write!(f, "{ip}")?;
            zone(f)?;
            f.write_str(":")
        }
        Some(IpAddr::V6(ip)) => {
            write!(f, "[{ip}")?;
            zone(f)?;
            f.write_str("]:")
        }
    }
}

pub(super) fn mapping(part: Part<'_>, services: &dyn ServiceNames) -> Result<Mapping, NotationError> {
    if part.is_empty() {
        return Err(part.fault(NotationErrorKind::Missing(Element::Notation), 0));
    }
    let (sides, protocol) = protocol_suffix(part)?;
    let mut parts = [sides; 4];
    let mut count = 0;
    for piece in pieces(sides) {
        let piece = piece?;
        let Some(place) = parts.get_mut(count) else {
            return Err(piece.fault(NotationErrorKind::TooManyParts, 0));
        };
        *place = piece;
        count += 1;
    }
    let (outer_address, outer, target, inner) = match (count, parts) {
        (2, [outer, inner, ..]) => (None, outer, None, inner),
        (3, [first, outer, inner, _]) if is_address(first) => (Some(first), outer, None, inner),
        (3, [outer, target, inner, _]) => (None, outer, Some(target), inner),
        (4, [address, outer, target, inner]) => (Some(address), outer, Some(target), inner),
        _ => return Err(sides.fault_at_end(NotationErrorKind::Missing(Element::MappingTarget))),
    };
    let (address, interface) = match outer_address {
        None => (None, None),
        Some(part) => bind_address(part)?,
    };
    let outer_ports = if outer.is_empty() && outer_address.is_some() {
        PortRange::single(Port::ZERO)
    } else {
        ports(outer, protocol, services)?
    };
    let target = match target {
        None => None,
        Some(part) if part.is_empty() => {
            return Err(part.fault(NotationErrorKind::Missing(Element::Address), 0));
        }
        Some(part) => match host(part)? {
            Host::Any => return Err(part.unexpected('*', 0)),
            host => Some(host),
        },
    };
    let inner_ports = ports(inner, protocol, services)?;
    // Port 0 is not one of several: it stands for "any".
    if outer_ports.first() == Port::ZERO && outer_ports.len() > 1 {
        return Err(outer.fault(NotationErrorKind::PortZero, 0));
    }
    if inner_ports.first() == Port::ZERO {
        return Err(inner.fault(NotationErrorKind::PortZero, 0));
    }
    if outer_ports.len() != inner_ports.len() {
        let (outer, inner_len) = (outer_ports.len(), inner_ports.len());
        let kind = NotationErrorKind::RangeLengths {
            outer,
            inner: inner_len,
        };
        return Err(inner.fault(kind, 0));
    }
    Ok(Mapping {
        address,
        interface,
        outer: outer_ports,
        target,
        inner: inner_ports,
        protocol,
    })
}

pub(super) fn protocol_suffix(part: Part<'_>) -> Result<(Part<'_>, MappingProtocol), NotationError> {
    let Some((sides, name)) = part.rsplit_once('/') else {
        return Ok((part, MappingProtocol::default()));
    };
    if name.is_empty() {
        return Err(name.fault(NotationErrorKind::Missing(Element::Protocol), 0));
    }
    [MappingProtocol::Tcp, MappingProtocol::Udp, MappingProtocol::Both]
        .into_iter()
        .find(|protocol| protocol.name().eq_ignore_ascii_case(name.text()))
        .map(|protocol| (sides, protocol))
        .ok_or_else(|| name.fault(NotationErrorKind::MappingProtocol, 0))
}

/// The parts between colons, those in brackets not counted.
fn pieces(part: Part<'_>) -> impl Iterator<Item = Result<Part<'_>, NotationError>> {
    let mut rest = Some(part);
    std::iter::from_fn(move || {
        let piece = rest.take()?;
        let closed = if piece.text().starts_with('[') {
            match piece.text().find(']') {
                Some(close) => close + 1,
                None => return Some(Err(piece.fault(NotationErrorKind::UnclosedBracket, 0))),
            }
        } else {
            0
        };
        match piece.text()[closed..].find(':') {
            None => Some(Ok(piece)),
            Some(colon) => {
                rest = Some(piece.from(closed + colon + 1));
                Some(Ok(piece.until(closed + colon)))
            }
        }
    })
}

/// Whether the first of three parts is an address, and not the ports outside.
pub(super) fn is_address(part: Part<'_>) -> bool {
    let text = part.text();
    text.is_empty() || text.starts_with(['*', '[']) || text.contains(['.', '%'])
}

/// The address outside, and the interface after its percent sign. Here that is no zone but a device to
/// bind to, so every address can have one.
pub(super) fn bind_address(part: Part<'_>) -> Result<(Option<IpAddr>, Option<Zone>), NotationError> {
    if part.is_empty() {
        return Err(part.fault(NotationErrorKind::Missing(Element::Address), 0));
    }
    let bracketed_text = part.text().starts_with('[');
    let Some((before, after)) = part.split_once('%') else {
        return if part.text() == "*" {
            Ok((None, None))
        } else if bracketed_text {
            let (address, rest) = bracketed(part)?;
            match rest.text().chars().next() {
                None => Ok((Some(address.ip()), None)),
                Some(char) => Err(rest.unexpected(char, 0)),
            }
        } else {
            Ok((Some(ipv4(part)?.into()), None))
        };
    };
    if bracketed_text {
        let Some(inside) = after.text().strip_suffix(']') else {
            return Err(part.fault(NotationErrorKind::UnclosedBracket, 0));
        };
        let interface = zone(after.until(inside.len()))?;
        let ip = ipv6(before.from(1))?.ip();
        return Ok((Some(ip), Some(interface)));
    }
    let ip = match before.text() {
        "*" => None,
        _ => Some(ipv4(before)?.into()),
    };
    Ok((ip, Some(zone(after)?)))
}

fn ports(
    part: Part<'_>,
    protocol: MappingProtocol,
    services: &dyn ServiceNames,
) -> Result<PortRange, NotationError> {
    if !is_name(part.text())
        || part.text().starts_with(|char: char| char.is_ascii_digit()) && part.text().contains('-')
    {
        return range(part);
    }
    // For both protocols the name has to mean the same port with each.
    let protocol = match protocol {
        MappingProtocol::Tcp => Some(Protocol::Tcp),
        MappingProtocol::Udp => Some(Protocol::Udp),
        MappingProtocol::Both => None,
    };
    service_port(part, protocol, services).map(PortRange::single)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PortSet;

    fn names(name: &str, protocol: Option<Protocol>) -> PortSet {
        match (name, protocol) {
            ("http", _) => Port::new(80).into(),
            ("domain", Some(Protocol::Udp)) => Port::new(53).into(),
            _ => PortSet::new(),
        }
    }

    #[test]
    fn mappings_have_one_canonical_form() {
        let cases = [
            ("8080:80", "8080:80"),
            ("127.0.0.1:8080:80/udp", "127.0.0.1:8080:80/udp"),
            ("[::1]:8000-8010:9000-9010", "[::1]:8000-8010:9000-9010"),
            ("8080:80/TCP", "8080:80"),
            ("53:53/both", "53:53/both"),
            ("0:80", "0:80"),
            ("127.0.0.1::80", "127.0.0.1:0:80"),
            ("*:8080:80", "8080:80"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80"),
            ("8080:10.0.0.2:80", "8080:10.0.0.2:80"),
            ("8080:[2001:DB8::1]:80", "8080:[2001:db8::1]:80"),
            ("8080:db.example:5432", "8080:db.example:5432"),
            ("127.0.0.1:8080:10.0.0.2:80", "127.0.0.1:8080:10.0.0.2:80"),
            ("127.0.0.1%lo:8080:80", "127.0.0.1%lo:8080:80"),
            ("*%eth0:8080:80", "*%eth0:8080:80"),
            ("[fe80::1%eth0]:8080:80", "[fe80::1%eth0]:8080:80"),
            ("[2001:db8::1%eth0]:8080:80", "[2001:db8::1%eth0]:8080:80"),
            ("http:8080", "80:8080"),
            ("5300:domain/udp", "5300:53/udp"),
            ("80-80:90", "80:90"),
        ];
        for (text, canonical) in cases {
            let mapping = Mapping::parse(text, &names).unwrap();
            assert_eq!(mapping.to_string(), canonical, "{text:?}");
            assert_eq!(canonical.parse(), Ok(mapping), "{text:?}");
        }
    }

    #[test]
    fn each_port_outside_has_one_inside() {
        let mapping = "8000-8002:9000-9002".parse::<Mapping>().unwrap();
        let pairs = mapping.pairs().map(|(outer, inner)| (outer.get(), inner.get()));
        assert!(pairs.eq([(8000, 9000), (8001, 9001), (8002, 9002)]));
    }

    #[test]
    fn each_bad_mapping_has_its_fault_and_place() {
        use NotationErrorKind as Kind;
        let cases = [
            ("", Kind::Missing(Element::Notation), 0),
            ("80", Kind::Missing(Element::MappingTarget), 2),
            ("8080:", Kind::Missing(Element::Port), 5),
            (":80", Kind::Missing(Element::Port), 0),
            (":8080:80", Kind::Missing(Element::Address), 0),
            ("8080::80", Kind::Missing(Element::Address), 5),
            ("8080:80/", Kind::Missing(Element::Protocol), 8),
            ("8080:80/sctp", Kind::MappingProtocol, 8),
            ("8000-8010:80", Kind::RangeLengths { outer: 11, inner: 1 }, 10),
            (
                "8010-8000:80-90",
                Kind::Reversed {
                    first: Port::new(8010),
                    last: Port::new(8000),
                },
                0,
            ),
            ("0-5:1-6", Kind::PortZero, 0),
            ("8080:0", Kind::PortZero, 5),
            ("8080:70000", Kind::OutOfRange, 5),
            ("[::1:8080:80", Kind::UnclosedBracket, 0),
            ("[::1]x:8080:80", Kind::Unexpected('x'), 5),
            ("10.0.0.256:8080:80", Kind::Ipv4Range, 7),
            ("8080:*:80", Kind::Unexpected('*'), 5),
            ("1:2:3:4:5", Kind::TooManyParts, 8),
            ("8080: 80", Kind::Blank, 5),
            ("8080:nosuch", Kind::UnknownService, 5),
            ("localhost.example:8080:80", Kind::Unexpected('l'), 0),
            ("*%:8080:80", Kind::Missing(Element::Zone), 2),
        ];
        for (text, kind, at) in cases {
            let error = Mapping::parse(text, &names).unwrap_err();
            assert_eq!((*error.kind(), error.at()), (kind, at), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_reading_gives_the_same(
            address: Option<IpAddr>,
            target: Option<IpAddr>,
            interface in proptest::option::of("[a-z0-9.]{1,15}"),
            ports: [u16; 2],
            more in 0u16..100,
            protocol in proptest::sample::select(vec![MappingProtocol::Tcp, MappingProtocol::Udp, MappingProtocol::Both]),
        ) {
            let [outer, inner] = ports.map(|first| {
                let first = first.clamp(1, u16::MAX - more);
                PortRange::new(Port::new(first), Port::new(first + more)).unwrap()
            });
            let interface = interface.map(|name| name.parse().unwrap());
            let target = target.map(|ip| Host::Address(ip.into()));
            let mapping = Mapping { address, interface, outer, target, inner, protocol };
            prop_assert_eq!(mapping.to_string().parse(), Ok(mapping));
        }

        #[test]
        fn any_text_is_read_and_printed_again_or_refused_with_a_place_in_it(
            text in "[0-9a-f:.%*/\\[\\]-]{0,30}|\\PC*"
        ) {
            match Mapping::parse(&text, &names) {
                Ok(mapping) => prop_assert_eq!(mapping.to_string().parse(), Ok(mapping)),
                Err(error) => prop_assert!(error.at() <= text.len()),
            }
        }
    }
}
