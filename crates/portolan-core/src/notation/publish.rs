use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::error::NotationError;
use super::mapping::{self, Mapping, MappingProtocol};
use super::number::range;
use super::part::Part;
use super::services::{BUILT_IN, ServiceNames};
use crate::{Port, PortRange, Protocol, Zone};

/// What is to be published: one of the forms that `run -p` takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Publication {
    /// These ports: `8080:80`.
    Mapping(Mapping),
    /// Whatever the program listens on, as it does: `auto`, `127.0.0.1:auto`, `auto/tcp`.
    Automatic(Automatic),
    /// But not these of its ports: `!22`, `!1-1023`, `!53/udp`.
    Exception(Exception),
}

/// Ports that are published as a program listens on them, at the same number: `[ADDRESS[%IFACE]:]auto[/tcp|udp|both]`.
///
/// Without an address it is every address of both families; without a protocol it is both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Automatic {
    address: Option<IpAddr>,
    interface: Option<Zone>,
    protocol: MappingProtocol,
}

/// Ports that [`Automatic`] leaves out: `!PORT[-PORT][/tcp|udp|both]`. Without a protocol it is both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exception {
    ports: PortRange,
    protocol: MappingProtocol,
}

impl Publication {
    /// Reads one of the forms. A port may be the name of a service in a mapping.
    ///
    /// # Errors
    /// As [`Mapping::parse`]; of an exception, what a range or a protocol can have.
    pub fn parse(text: &str, services: &dyn ServiceNames) -> Result<Self, NotationError> {
        let part = Part::whole(text);
        if text.starts_with('!') {
            return exception(part.from(1)).map(Self::Exception);
        }
        if let Some(found) = automatic(part)? {
            return Ok(Self::Automatic(found));
        }
        Mapping::parse(text, services).map(Self::Mapping)
    }
}

impl Automatic {
    /// The address outside; `None` for every address of both families.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The interface that the address is confined to.
    #[must_use]
    pub const fn interface(&self) -> Option<Zone> {
        self.interface
    }

    /// The protocols.
    #[must_use]
    pub const fn protocol(&self) -> MappingProtocol {
        self.protocol
    }
}

impl Exception {
    /// Whether this port is left out.
    #[must_use]
    pub fn covers(&self, protocol: Protocol, port: Port) -> bool {
        self.ports.contains(port) && self.protocol.protocols().contains(&protocol)
    }
}

/// [`Publication::parse`] with the names of the embedded registry.
impl FromStr for Publication {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        Self::parse(text, &BUILT_IN)
    }
}

impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mapping(mapping) => mapping.fmt(f),
            Self::Automatic(automatic) => automatic.fmt(f),
            Self::Exception(exception) => exception.fmt(f),
        }
    }
}

impl fmt::Display for Automatic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        mapping::fmt_bind_address(self.address, self.interface, f)?;
        f.write_str(AUTO)?;
        suffix(self.protocol, f)
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "!{}", self.ports)?;
        suffix(self.protocol, f)
    }
}

/// The protocol, unless it is the one that goes without saying.
fn suffix(protocol: MappingProtocol, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match protocol {
        MappingProtocol::Both => Ok(()),
        MappingProtocol::Tcp | MappingProtocol::Udp => write!(f, "/{protocol}"),
    }
}

/// `None` if it is something else: the word stands where a mapping has its ports.
fn automatic(part: Part<'_>) -> Result<Option<Automatic>, NotationError> {
    let place = part.split_once('/').map_or(part, |(place, _)| place);
    let Some(before) = place.text().strip_suffix(AUTO) else {
        return Ok(None);
    };
    let (address, interface) = match before.strip_suffix(':') {
        None if before.is_empty() => (None, None),
        // The name of a service, or the right side of a mapping.
        None => return Ok(None),
        Some(address) if mapping::is_address(part.until(address.len())) => {
            mapping::bind_address(part.until(address.len()))?
        }
        Some(_) => return Ok(None),
    };
    Ok(Some(Automatic {
        address,
        interface,
        protocol: protocol(part)?.1,
    }))
}

fn exception(part: Part<'_>) -> Result<Exception, NotationError> {
    let (ports, protocol) = protocol(part)?;
    Ok(Exception {
        ports: range(ports)?,
        protocol,
    })
}

/// What stands before the protocol, and the protocol.
fn protocol(part: Part<'_>) -> Result<(Part<'_>, MappingProtocol), NotationError> {
    if part.text().contains('/') {
        mapping::protocol_suffix(part)
    } else {
        Ok((part, MappingProtocol::Both))
    }
}

/// The word for whatever the program listens on.
const AUTO: &str = "auto";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NotationErrorKind as Kind;

    #[test]
    fn each_form_is_told_from_the_others_and_writes_itself() {
        for (text, canonical) in [
            ("auto", "auto"),
            ("*:auto", "auto"),
            ("auto/both", "auto"),
            ("auto/TCP", "auto/tcp"),
            ("127.0.0.1:auto", "127.0.0.1:auto"),
            ("[::1]:auto/udp", "[::1]:auto/udp"),
            ("*%eth0:auto", "*%eth0:auto"),
        ] {
            let read: Publication = text.parse().unwrap();
            assert!(matches!(read, Publication::Automatic(_)), "{text}");
            assert_eq!(read.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(read));
        }
        for (text, canonical) in [("!22", "!22"), ("!1-1023", "!1-1023"), ("!53/udp", "!53/udp")] {
            let read: Publication = text.parse().unwrap();
            assert!(matches!(read, Publication::Exception(_)), "{text}");
            assert_eq!(read.to_string(), canonical);
        }
        let mapping: Publication = "8080:http".parse().unwrap();
        assert_eq!(mapping.to_string(), "8080:80");
        assert!(matches!(mapping, Publication::Mapping(_)));
    }

    #[test]
    fn each_fault_has_its_place() {
        for (text, kind, at) in [
            ("!", Kind::Missing(crate::Element::Port), 1),
            ("!70000", Kind::OutOfRange, 1),
            ("!53/sctp", Kind::MappingProtocol, 4),
            ("auto/", Kind::Missing(crate::Element::Protocol), 5),
            ("127.0.0:auto", Kind::Ipv4Numbers, 0),
            (":auto", Kind::Missing(crate::Element::Address), 0),
        ] {
            let error = text.parse::<Publication>().unwrap_err();
            assert_eq!((*error.kind(), error.at()), (kind, at), "{text}");
        }
        // A mapping to a service of that name, which nobody knows.
        for text in ["80:auto", "8080:127.0.0.1:auto", "!auto"] {
            assert!(text.parse::<Publication>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_exception_covers_its_ports_with_its_protocols() {
        let Publication::Exception(exception) = "!50-53/udp".parse().unwrap() else {
            panic!("it is an exception");
        };
        assert!(exception.covers(Protocol::Udp, Port::new(53)));
        assert!(!exception.covers(Protocol::Udp, Port::new(54)));
        assert!(!exception.covers(Protocol::Tcp, Port::new(53)));
    }
}
