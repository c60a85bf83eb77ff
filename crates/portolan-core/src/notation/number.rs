use std::str::FromStr;

use super::error::{Element, NotationError, NotationErrorKind};
use super::part::Part;
use super::services::{ServiceNames, is_name, service_port};
use crate::{Port, PortRange, Protocol};

/// Reads a decimal number; leading zeros change nothing (RFC 3986, section 3.2.3 allows them).
impl FromStr for Port {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        number(Part::whole(text))
    }
}

/// Reads `80-443`, or `80` as the range of one port.
impl FromStr for PortRange {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        range(Part::whole(text))
    }
}

pub(super) fn number(part: Part<'_>) -> Result<Port, NotationError> {
    if part.is_empty() {
        return Err(part.fault(NotationErrorKind::Missing(Element::Port), 0));
    }
    let mut value = 0u32;
    for (offset, char) in part.text().char_indices() {
        match (char, offset) {
            // Stops growing at the first value that no further digit can bring back into range.
            ('0'..='9', _) if value <= u32::from(u16::MAX) => value = value * 10 + (char as u32 - '0' as u32),
            ('0'..='9', _) => {}
            ('-', 0) => return Err(part.fault(NotationErrorKind::Negative, 0)),
            ('+', 0) => return Err(part.fault(NotationErrorKind::Sign, 0)),
            _ => return Err(part.unexpected(char, offset)),
        }
    }
    match u16::try_from(value) {
        Ok(value) => Ok(Port::new(value)),
        Err(_) => Err(part.fault(NotationErrorKind::OutOfRange, 0)),
    }
}

/// A number or the name of a service with one port.
pub(super) fn port(
    part: Part<'_>,
    protocol: Option<Protocol>,
    services: &dyn ServiceNames,
) -> Result<Port, NotationError> {
    if is_name(part.text()) {
        service_port(part, protocol, services)
    } else {
        number(part)
    }
}

pub(super) fn range(part: Part<'_>) -> Result<PortRange, NotationError> {
    let Some((first, last)) = part.split_once('-') else {
        return number(part).map(PortRange::single);
    };
    if first.is_empty() {
        let kind = match last.text().bytes().next() {
            Some(b'0'..=b'9') => NotationErrorKind::Negative,
            _ => NotationErrorKind::Missing(Element::RangeStart),
        };
        return Err(part.fault(kind, 0));
    }
    let first = number(first)?;
    if last.is_empty() {
        return Err(last.fault(NotationErrorKind::Missing(Element::RangeEnd), 0));
    }
    if last.text().starts_with('-') {
        return Err(last.unexpected('-', 0));
    }
    let last = number(last)?;
    PortRange::new(first, last).ok_or_else(|| part.fault(NotationErrorKind::Reversed { first, last }, 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_port_is_its_decimal_digits() {
        assert_eq!("0".parse(), Ok(Port::ZERO));
        assert_eq!("65535".parse(), Ok(Port::MAX));
        assert_eq!("0080".parse(), Ok(Port::new(80)));
    }

    #[test]
    fn each_bad_port_has_its_fault_and_place() {
        use NotationErrorKind as Kind;
        let cases = [
            ("", Kind::Missing(Element::Port), 0),
            ("65536", Kind::OutOfRange, 0),
            ("70000", Kind::OutOfRange, 0),
            ("4294967376", Kind::OutOfRange, 0),
            ("-1", Kind::Negative, 0),
            ("+80", Kind::Sign, 0),
            (" 80", Kind::Blank, 0),
            ("80\n", Kind::Blank, 2),
            ("8\u{a0}0", Kind::Blank, 1),
            ("80\0", Kind::Unexpected('\0'), 2),
            ("８０", Kind::ForeignDigit('８'), 0),
            ("8٠", Kind::ForeignDigit('٠'), 1),
            ("80x", Kind::Unexpected('x'), 2),
            ("8-0", Kind::Unexpected('-'), 1),
            ("0x50", Kind::Unexpected('x'), 1),
        ];
        for (text, kind, at) in cases {
            let error = text.parse::<Port>().unwrap_err();
            assert_eq!((*error.kind(), error.at()), (kind, at), "{text:?}");
        }
    }

    #[test]
    fn each_bad_range_has_its_fault_and_place() {
        use NotationErrorKind as Kind;
        let reversed = Kind::Reversed {
            first: Port::new(90),
            last: Port::new(80),
        };
        let cases = [
            ("", Kind::Missing(Element::Port), 0),
            ("80-", Kind::Missing(Element::RangeEnd), 3),
            ("-80", Kind::Negative, 0),
            ("-", Kind::Missing(Element::RangeStart), 0),
            ("90-80", reversed, 0),
            ("80--90", Kind::Unexpected('-'), 3),
            ("80-90-100", Kind::Unexpected('-'), 5),
            ("80-70000", Kind::OutOfRange, 3),
            ("80 -90", Kind::Blank, 2),
            ("80-+90", Kind::Sign, 3),
        ];
        for (text, kind, at) in cases {
            let error = text.parse::<PortRange>().unwrap_err();
            assert_eq!((*error.kind(), error.at()), (kind, at), "{text:?}");
        }
    }

    #[test]
    fn a_mebibyte_of_digits_is_one_short_error() {
        for digit in ["1", "9"] {
            let error = digit.repeat(1 << 20).parse::<Port>().unwrap_err();
            assert_eq!((*error.kind(), error.at()), (NotationErrorKind::OutOfRange, 0));
            assert!(error.to_string().chars().count() < 400);
        }
        assert_eq!("0".repeat(1 << 20).parse(), Ok(Port::ZERO));
    }

    proptest! {
        #[test]
        fn printing_and_reading_a_port_gives_the_same(number: u16) {
            let port = Port::new(number);
            prop_assert_eq!(port.to_string().parse(), Ok(port));
        }

        #[test]
        fn printing_and_reading_a_range_gives_the_same(a: u16, b: u16) {
            let range = PortRange::new(Port::new(a.min(b)), Port::new(a.max(b))).unwrap();
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }
    }
}
