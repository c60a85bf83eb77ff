use std::str::FromStr;

use super::error::{Element, NotationError, NotationErrorKind};
use super::part::Part;
use crate::Protocol;

/// Reads a name in any case: `tcp`, `udp`, `udplite`, `sctp`, `dccp`.
impl FromStr for Protocol {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        protocol(Part::whole(text))
    }
}

fn protocol(part: Part<'_>) -> Result<Protocol, NotationError> {
    if part.is_empty() {
        return Err(part.fault(NotationErrorKind::Missing(Element::Protocol), 0));
    }
    Protocol::from_name(part.text()).ok_or_else(|| part.fault(NotationErrorKind::UnknownProtocol, 0))
}

/// Cuts `/tcp` off, if a slash is there.
pub(super) fn suffix(part: Part<'_>) -> Result<(Part<'_>, Option<Protocol>), NotationError> {
    match part.rsplit_once('/') {
        None => Ok((part, None)),
        Some((before, name)) => Ok((before, Some(protocol(name)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protocol_is_read_as_it_is_printed() {
        for protocol in Protocol::ALL {
            assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }
        assert_eq!("TCP".parse(), Ok(Protocol::Tcp));
    }

    #[test]
    fn other_names_are_errors() {
        for text in ["", "icmp", "tcp ", "6"] {
            assert!(text.parse::<Protocol>().is_err(), "{text:?}");
        }
    }
}
