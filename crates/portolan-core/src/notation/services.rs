use super::error::{NotationError, NotationErrorKind};
use super::part::Part;
use crate::{Port, PortSet, Protocol};

/// Where notation looks up the names of services.
pub trait Services {
    /// The ports that `name`, in any case, stands for with `protocol`, or with any if there is none;
    /// the empty set if it is no service's name.
    fn ports(&self, name: &str, protocol: Option<Protocol>) -> PortSet;
}

impl<F: Fn(&str, Option<Protocol>) -> PortSet> Services for F {
    fn ports(&self, name: &str, protocol: Option<Protocol>) -> PortSet {
        self(name, protocol)
    }
}

/// Knows no names: ports are numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoServices;

impl Services for NoServices {
    fn ports(&self, _name: &str, _protocol: Option<Protocol>) -> PortSet {
        PortSet::new()
    }
}

/// Whether `text` is to be looked up: RFC 6335, section 5.1 gives each service name a letter.
pub(super) fn is_name(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// The ports of the service that `part` names.
pub(super) fn service(
    part: Part<'_>,
    protocol: Option<Protocol>,
    services: &dyn Services,
) -> Result<PortSet, NotationError> {
    // Registered names have letters, digits and hyphens; some older ones these too.
    let stranger = |char: char| !char.is_ascii_alphanumeric() && !matches!(char, '-' | '_' | '.' | '+');
    if let Some((offset, char)) = part.text().char_indices().find(|&(_, char)| stranger(char)) {
        return Err(part.unexpected(char, offset));
    }
    let ports = services.ports(part.text(), protocol);
    if ports.is_empty() {
        return Err(part.fault(NotationErrorKind::UnknownService, 0));
    }
    Ok(ports)
}

/// The one port of the service that `part` names.
pub(super) fn service_port(
    part: Part<'_>,
    protocol: Option<Protocol>,
    services: &dyn Services,
) -> Result<Port, NotationError> {
    let ports = service(part, protocol, services)?;
    match ports.ranges() {
        [range] if range.len() == 1 => Ok(range.first()),
        _ => Err(part.fault(NotationErrorKind::AmbiguousService { ports: ports.len() }, 0)),
    }
}
