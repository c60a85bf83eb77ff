use super::error::{NotationError, NotationErrorKind};
use super::part::Part;
use crate::registry::Services;
use crate::{Port, PortSet, Protocol};

/// Where notation looks up the names of services.
pub trait ServiceNames {
    /// The ports that `name`, in any case, stands for with `protocol`, or with any if there is none;
    /// the empty set if it is no service's name.
    fn ports(&self, name: &str, protocol: Option<Protocol>) -> PortSet;
}

impl<F: Fn(&str, Option<Protocol>) -> PortSet> ServiceNames for F {
    fn ports(&self, name: &str, protocol: Option<Protocol>) -> PortSet {
        self(name, protocol)
    }
}

/// What `FromStr` asks: it has no place for an argument.
pub(super) const BUILT_IN: Services = Services::built_in();

/// Whether `text` is to be looked up: RFC 6335, section 5.1 gives each service name a letter.
pub(super) fn is_name(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// The ports of the service that `part` names.
pub(super) fn service(
    part: Part<'_>,
    protocol: Option<Protocol>,
    services: &dyn ServiceNames,
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
    services: &dyn ServiceNames,
) -> Result<Port, NotationError> {
    let ports = service(part, protocol, services)?;
    match ports.ranges() {
        [range] if range.len() == 1 => Ok(range.first()),
        _ => Err(part.fault(NotationErrorKind::AmbiguousService { ports: ports.len() }, 0)),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Endpoint, NotationErrorKind, PortSet, Protocol};

    #[test]
    fn the_registry_gives_the_names() {
        let ports = |text: &str| text.parse::<PortSet>().unwrap().to_string();
        assert_eq!(ports("22,80-443,HTTPS"), "22,80-443");
        assert_eq!(ports("ssh,x11"), "22,6000-6063");
        assert_eq!("localhost:https".parse::<Endpoint>().unwrap().port.get(), 443);
        let error = "localhost:x11".parse::<Endpoint>().unwrap_err();
        assert_eq!(*error.kind(), NotationErrorKind::AmbiguousService { ports: 64 });
    }

    #[test]
    fn a_name_counts_for_the_protocol_that_is_asked_for() {
        let parse = |protocol| PortSet::parse("telnet", protocol, &super::BUILT_IN);
        assert_eq!(parse(None).unwrap().to_string(), "23");
        assert!(parse(Some(Protocol::Tcp)).is_ok());
        assert!(parse(Some(Protocol::Dccp)).is_err());
    }
}
