use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::error::{Element, NotationError, NotationErrorKind};
use super::part::Part;
use crate::{Port, is_printable};

/// An IP address, for a link-local one perhaps with the zone it is meant in: `10.0.0.1`, `fe80::1%eth0`.
///
/// It is read with and without brackets around IPv6 and printed without; [`Host`](crate::Host) adds
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    ip: IpAddr,
    zone: Option<Zone>,
}

impl Address {
    /// An address without a zone.
    #[must_use]
    pub const fn new(ip: IpAddr) -> Self {
        Self { ip, zone: None }
    }

    /// `ip` in `zone`, or `None` if the address is the same in every zone ([`takes_zone`]).
    #[must_use]
    pub fn with_zone(ip: Ipv6Addr, zone: Zone) -> Option<Self> {
        takes_zone(ip).then_some(Self {
            ip: IpAddr::V6(ip),
            zone: Some(zone),
        })
    }

    /// The address itself.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        self.ip
    }

    /// The address and port that an IPv6 address written without brackets was perhaps meant to be:
    /// `2001:db8::1:443` is a whole address, and one could have meant `[2001:db8::1]:443`.
    #[must_use]
    pub fn unbracketed_port(self) -> Option<(Ipv6Addr, Port)> {
        let IpAddr::V6(ip) = self.ip else { return None };
        let text = ip.to_string();
        let (before, after) = text.rsplit_once(':')?;
        Some((before.parse().ok()?, after.parse().ok()?))
    }

    /// The zone, if one was given.
    #[must_use]
    pub const fn zone(self) -> Option<Zone> {
        self.zone
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        Self::new(ip)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone {
            None => self.ip.fmt(f),
            Some(zone) => write!(f, "{}%{zone}", self.ip),
        }
    }
}

impl FromStr for Address {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        address(Part::whole(text))
    }
}

/// Whether an address means something else on another link (RFC 4007, sections 4 and 6): link-local
/// unicast, the loopback address, and multicast of less than global scope (RFC 4291, section 2.7).
#[must_use]
pub const fn takes_zone(ip: Ipv6Addr) -> bool {
    const MULTICAST_SCOPE_GLOBAL: u8 = 0xe;
    if ip.is_multicast() {
        ip.octets()[1] & 0x0f < MULTICAST_SCOPE_GLOBAL
    } else {
        ip.is_unicast_link_local() || ip.is_loopback()
    }
}

/// The zone of an address: an interface's name, `eth0`, or its index, `2`.
///
/// It is 1 to 15 bytes long as Linux's interface names are (IFNAMSIZ), without blanks, `/`, `:`, `%`
/// and brackets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone {
    // UTF-8, padded with zeros, which no zone holds.
    bytes: [u8; Self::MAX_LEN],
}

impl Zone {
    /// The length of the longest zone in bytes.
    pub const MAX_LEN: usize = 15;

    /// The name or number as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self
            .bytes
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(Self::MAX_LEN);
        std::str::from_utf8(&self.bytes[..len]).expect("a zone is made of a str")
    }

    /// The interface index, if the zone is a number above 0 rather than a name.
    #[must_use]
    pub fn index(&self) -> Option<u32> {
        let text = self.as_str();
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .filter(|&index| index > 0)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Zone").field(&self.as_str()).finish()
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Zone {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        zone(Part::whole(text))
    }
}

pub(super) fn zone(part: Part<'_>) -> Result<Zone, NotationError> {
    let text = part.text();
    if text.is_empty() {
        return Err(part.fault(NotationErrorKind::Missing(Element::Zone), 0));
    }
    let stranger = |char: char| {
        char.is_whitespace() || !is_printable(char) || matches!(char, '/' | ':' | '%' | '[' | ']')
    };
    if let Some((offset, char)) = text.char_indices().find(|&(_, char)| stranger(char)) {
        return Err(part.unexpected(char, offset));
    }
    let mut bytes = [0; Zone::MAX_LEN];
    let Some(place) = bytes.get_mut(..text.len()) else {
        return Err(part.fault(NotationErrorKind::ZoneLength, 0));
    };
    place.copy_from_slice(text.as_bytes());
    Ok(Zone { bytes })
}

/// An address of either family, IPv6 with or without brackets.
pub(super) fn address(part: Part<'_>) -> Result<Address, NotationError> {
    if part.is_empty() {
        return Err(part.fault(NotationErrorKind::Missing(Element::Address), 0));
    }
    if part.text().starts_with('[') {
        let (address, rest) = bracketed(part)?;
        return match rest.text().chars().next() {
            None => Ok(address),
            Some(char) => Err(rest.unexpected(char, 0)),
        };
    }
    if part.text().contains(':') {
        return ipv6(part);
    }
    if let Some((before, zone)) = part.split_once('%') {
        ipv4(before)?;
        return Err(zone.fault(NotationErrorKind::ZoneOnIpv4, 0));
    }
    ipv4(part).map(|ip| Address::new(ip.into()))
}

/// `[fe80::1%eth0]` at the beginning, and what follows it.
pub(super) fn bracketed(part: Part<'_>) -> Result<(Address, Part<'_>), NotationError> {
    let inside = part.from(1);
    let Some(close) = inside.text().find(']') else {
        return Err(part.fault(NotationErrorKind::UnclosedBracket, 0));
    };
    if close == 0 {
        return Err(inside.fault(NotationErrorKind::Missing(Element::Address), 0));
    }
    Ok((ipv6(inside.until(close))?, inside.from(close + 1)))
}

/// An IPv6 address without brackets.
pub(super) fn ipv6(part: Part<'_>) -> Result<Address, NotationError> {
    let (ip_part, zone_part) = match part.split_once('%') {
        None => (part, None),
        Some((ip, zone)) => (ip, Some(zone)),
    };
    let Ok(ip) = ip_part.text().parse::<Ipv6Addr>() else {
        return Err(ipv6_fault(ip_part));
    };
    let Some(zone_part) = zone_part else {
        return Ok(Address::new(ip.into()));
    };
    let zone = zone(zone_part)?;
    Address::with_zone(ip, zone)
        .ok_or_else(|| part.fault(NotationErrorKind::ZoneOnGlobal(ip), ip_part.text().len()))
}

/// What is wrong with a text that is no IPv6 address.
fn ipv6_fault(part: Part<'_>) -> NotationError {
    let stranger = |char: char| !char.is_ascii_hexdigit() && char != ':' && char != '.';
    if let Some((offset, char)) = part.text().char_indices().find(|&(_, char)| stranger(char)) {
        return part.unexpected(char, offset);
    }
    // With more groups than these there are too many, whatever is in them.
    for group in part.split(':').take(9) {
        if group.text().contains('.') {
            if let Err(error) = ipv4(group) {
                return error;
            }
        } else if group.text().len() > 4 {
            return group.fault(NotationErrorKind::Ipv6Group, 0);
        }
    }
    part.fault(NotationErrorKind::Ipv6Groups, 0)
}

/// Four decimal numbers; unlike inet_aton(3) neither fewer nor octal nor hexadecimal ones.
pub(super) fn ipv4(part: Part<'_>) -> Result<Ipv4Addr, NotationError> {
    if let Ok(ip) = part.text().parse() {
        return Ok(ip);
    }
    let stranger = |char: char| !char.is_ascii_digit() && char != '.';
    if let Some((offset, char)) = part.text().char_indices().find(|&(_, char)| stranger(char)) {
        return Err(part.unexpected(char, offset));
    }
    if part.split('.').take(4).count() < 4 {
        return Err(part.fault(NotationErrorKind::Ipv4Numbers, 0));
    }
    let mut numbers = part.split('.');
    for number in numbers.by_ref().take(4) {
        if number.is_empty() {
            return Err(number.fault(NotationErrorKind::Ipv4Numbers, 0));
        }
        let text = number.text();
        if text.parse::<u8>().is_err() || (text.len() > 1 && text.starts_with('0')) {
            return Err(number.fault(NotationErrorKind::Ipv4Range, 0));
        }
    }
    // Four good numbers would have been read above, so there is a fifth.
    let fifth = numbers.next().unwrap_or(part);
    Err(fifth.fault(NotationErrorKind::Ipv4Numbers, 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_in_both_forms_and_printed_in_one() {
        let cases = [
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]", "::1"),
            ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
            ("[fe80::1%2]", "fe80::1%2"),
            ("ff02::1%wlan0", "ff02::1%wlan0"),
            ("::1%lo", "::1%lo"),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ];
        for (text, printed) in cases {
            assert_eq!(
                text.parse::<Address>().map(|address| address.to_string()),
                Ok(printed.into())
            );
        }
    }

    #[test]
    fn each_bad_address_has_its_fault_and_place() {
        use NotationErrorKind as Kind;
        let global = "2001:db8::1".parse().unwrap();
        let cases = [
            ("", Kind::Missing(Element::Address), 0),
            ("[::1", Kind::UnclosedBracket, 0),
            ("[]", Kind::Missing(Element::Address), 1),
            ("[::1]x", Kind::Unexpected('x'), 5),
            ("2001:db8::1%eth0", Kind::ZoneOnGlobal(global), 11),
            ("10.0.0.1%eth0", Kind::ZoneOnIpv4, 9),
            ("fe80::1%", Kind::Missing(Element::Zone), 8),
            ("fe80::1%sixteen-letters-", Kind::ZoneLength, 8),
            ("fe80::1%a b", Kind::Blank, 9),
            ("fe80::1%a%b", Kind::Unexpected('%'), 9),
            ("2001:db8::12345", Kind::Ipv6Group, 10),
            ("1:2:3", Kind::Ipv6Groups, 0),
            ("1::2::3", Kind::Ipv6Groups, 0),
            ("1:2:3:4:5:6:7:8:9", Kind::Ipv6Groups, 0),
            ("::g", Kind::Unexpected('g'), 2),
            ("::ffff:10.0.0.256", Kind::Ipv4Range, 14),
            ("10.0.0", Kind::Ipv4Numbers, 0),
            ("10.0.0.1.2", Kind::Ipv4Numbers, 9),
            ("10..0.1", Kind::Ipv4Numbers, 3),
            ("10.0.0.256", Kind::Ipv4Range, 7),
            ("10.0.0.01", Kind::Ipv4Range, 7),
            ("10.0.0.１", Kind::ForeignDigit('１'), 7),
            ("[10.0.0.1]", Kind::Ipv6Groups, 1),
        ];
        for (text, kind, at) in cases {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!((*error.kind(), error.at()), (kind, at), "{text:?}");
        }
    }

    #[test]
    fn an_address_may_have_been_meant_with_a_port() {
        let meant = |text: &str| text.parse::<Address>().unwrap().unbracketed_port();
        let address = "2001:db8::1".parse().unwrap();
        assert_eq!(meant("2001:db8::1:443"), Some((address, Port::new(443))));
        for text in ["::1", "fe80::22", "2001:db8::1:bb", "10.0.0.1", "::ffff:10.0.0.1"] {
            assert_eq!(meant(text), None, "{text}");
        }
    }

    #[test]
    fn a_zone_is_a_name_or_an_index() {
        let zone = |text: &str| text.parse::<Zone>().unwrap();
        assert_eq!(zone("eth0").index(), None);
        assert_eq!(zone("12").index(), Some(12));
        assert_eq!(zone("0").index(), None);
        assert_eq!(zone("999999999999999").index(), None);
        assert_eq!(zone("fifteen-letters").as_str(), "fifteen-letters");
    }

    proptest! {
        #[test]
        fn printing_and_reading_gives_the_same(bytes: [u8; 16], name in "[a-z0-9.@_-]{1,15}") {
            let [a, b, c, d, ..] = bytes;
            let zone = name.parse::<Zone>().unwrap();
            let mut link_local = bytes;
            (link_local[0], link_local[1]) = (0xfe, 0x80 | bytes[1] & 0x3f);
            for address in [
                Address::new(Ipv4Addr::new(a, b, c, d).into()),
                Address::new(Ipv6Addr::from(bytes).into()),
                Address::with_zone(link_local.into(), zone).unwrap(),
            ] {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }

        #[test]
        fn any_text_is_read_or_refused_with_a_place_in_it(text in "[0-9a-f:.%\\[\\]]{0,40}|\\PC*") {
            match text.parse::<Address>() {
                Ok(address) => prop_assert_eq!(address.to_string().parse(), Ok(address)),
                Err(error) => prop_assert!(error.at() <= text.len()),
            }
        }
    }
}
