//! Addresses that are not the outside world, however they are written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

/// A kind of address that is closed unless the policy says otherwise, or always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// `0.0.0.0/8` and `::`: "this network"; Linux takes 0.0.0.0 for loopback (RFC 1122, section 3.2.1.3).
    Unspecified,
    /// `127.0.0.0/8` and `::1`: this host itself.
    Loopback,
    /// `169.254.0.0/16` and `fe80::/10`: the link (RFC 3927; RFC 4291, section 2.5.6).
    LinkLocal,
    /// Where clouds hand out credentials to whoever asks.
    Metadata,
    /// `224.0.0.0/4` and `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
}

impl AddressClass {
    /// The class of an address; that of an IPv4 address within an IPv6 one counts too. `None`: the outside world.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address).or_else(|| hidden(address).into_iter().find_map(of_v4)),
        }
    }

    /// Whether a rule that names addresses of this class, and no others, opens them.
    pub(super) const fn can_be_opened(self) -> bool {
        match self {
            Self::LinkLocal | Self::Metadata => true,
            Self::Unspecified | Self::Loopback | Self::Multicast | Self::Broadcast => false,
        }
    }

    /// The reason for a denial.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Unspecified => "not an address of a host",
            Self::Loopback => "loopback is closed",
            Self::LinkLocal => "link-local addresses are closed",
            Self::Metadata => "cloud metadata is closed",
            Self::Multicast => "multicast is closed",
            Self::Broadcast => "broadcast is closed",
        }
    }
}

/// `loopback`, `link-local`, …
impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::LinkLocal => "link-local",
            Self::Metadata => "cloud metadata",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
        })
    }
}

/// Metadata services: of most clouds; of Alibaba; of Oracle; of Azure (its "wire server").
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// Metadata services: of Amazon; of Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

fn of_v4(address: Ipv4Addr) -> Option<AddressClass> {
    if METADATA_V4.contains(&address) {
        Some(AddressClass::Metadata)
    } else if address.octets()[0] == 0 {
        Some(AddressClass::Unspecified)
    } else if address.is_loopback() {
        Some(AddressClass::Loopback)
    } else if address.is_link_local() {
        Some(AddressClass::LinkLocal)
    } else if address.is_multicast() {
        Some(AddressClass::Multicast)
    } else if address.is_broadcast() {
        Some(AddressClass::Broadcast)
    } else {
        None
    }
}

fn of_v6(address: Ipv6Addr) -> Option<AddressClass> {
    if METADATA_V6.contains(&address) {
        Some(AddressClass::Metadata)
    } else if address.is_unspecified() {
        Some(AddressClass::Unspecified)
    } else if address.is_loopback() {
        Some(AddressClass::Loopback)
    } else if address.is_unicast_link_local() {
        Some(AddressClass::LinkLocal)
    } else if address.is_multicast() {
        Some(AddressClass::Multicast)
    } else {
        None
    }
}

/// The IPv4 addresses that a translator or a tunnel on the way would make of an IPv6 address.
///
/// A network's own NAT64 prefix cannot be known here; rules by prefix can close it.
pub(super) fn hidden(address: Ipv6Addr) -> SmallVec<[Ipv4Addr; 4]> {
    let bytes = address.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| bytes[place]));
    let last = at([12, 13, 14, 15]);
    let mut found = SmallVec::new();
    match address.segments() {
        // IPv4-compatible (RFC 4291, section 2.5.5.1), and IPv4-translated (RFC 2765, section 2.1).
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => found.push(last),
        // NAT64, the well-known prefix (RFC 6052, section 2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => found.push(last),
        // NAT64, for use within a network (RFC 8215): a prefix of any of these lengths may be taken from it, and
        // the address stands behind the prefix, byte 8 being skipped (RFC 6052, section 2.2). What reads as an
        // address of 0.0.0.0/8 is a part of a longer prefix.
        [0x64, 0xff9b, 1, ..] => {
            let readings = [at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12]), last];
            found.extend(readings.into_iter().filter(|address| address.octets()[0] != 0));
        }
        // 6to4 (RFC 3056, section 2).
        [0x2002, ..] => found.push(at([2, 3, 4, 5])),
        // Teredo (RFC 4380, section 4): its server, and the client with all bits inverted.
        [0x2001, 0, ..] => found.extend([at([4, 5, 6, 7]), Ipv4Addr::from(!last.to_bits())]),
        // ISATAP (RFC 5214, section 6.1).
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => found.push(last),
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_closed_address_is_closed() {
        use AddressClass as Class;
        let cases = [
            ("0.0.0.0", Some(Class::Unspecified)),
            ("0.1.2.3", Some(Class::Unspecified)),
            ("127.0.0.1", Some(Class::Loopback)),
            ("127.255.255.254", Some(Class::Loopback)),
            ("169.254.0.1", Some(Class::LinkLocal)),
            ("169.254.169.254", Some(Class::Metadata)),
            ("224.0.0.251", Some(Class::Multicast)),
            ("239.255.255.255", Some(Class::Multicast)),
            ("255.255.255.255", Some(Class::Broadcast)),
            ("::", Some(Class::Unspecified)),
            ("::1", Some(Class::Loopback)),
            ("fe80::1", Some(Class::LinkLocal)),
            ("febf:ffff::1", Some(Class::LinkLocal)),
            ("fd00:ec2::254", Some(Class::Metadata)),
            ("ff02::fb", Some(Class::Multicast)),
            ("::ffff:127.0.0.1", Some(Class::Loopback)),
            ("::ffff:169.254.169.254", Some(Class::Metadata)),
            ("::127.0.0.1", Some(Class::Loopback)),
            ("::ffff:0:127.0.0.1", Some(Class::Loopback)),
            ("64:ff9b::169.254.169.254", Some(Class::Metadata)),
            ("64:ff9b::127.0.0.1", Some(Class::Loopback)),
            ("64:ff9b:1::127.0.0.1", Some(Class::Loopback)),
            ("64:ff9b:1:a9fe:a9:fe00::", Some(Class::Metadata)),
            ("64:ff9b:1:ffa9:fe:a9fe::", Some(Class::Metadata)),
            ("64:ff9b:1:ffff:a9:fea9:fe00:0", Some(Class::Metadata)),
            ("2002:7f00:1::1", Some(Class::Loopback)),
            ("2002:a9fe:a9fe::", Some(Class::Metadata)),
            ("2001:0:102:304:0:0:80ff:fffe", Some(Class::Loopback)),
            ("2001:0:7f00:1:0:0:fefd:fcfb", Some(Class::Loopback)),
            ("2001:db8::5efe:127.0.0.1", Some(Class::Loopback)),
            ("2001:db8::200:5efe:169.254.1.1", Some(Class::LinkLocal)),
            ("192.0.2.1", None),
            ("10.0.0.1", None),
            ("128.0.0.1", None),
            ("2001:db8::1", None),
            ("fd00::1", None),
            ("64:ff9b::192.0.2.1", None),
            ("64:ff9b:1::192.0.2.1", None),
            ("2002:c000:201::1", None),
            ("2001:0:102:304:0:0:3fff:fdfe", None),
        ];
        for (text, class) in cases {
            assert_eq!(AddressClass::of(text.parse().unwrap()), class, "{text}");
        }
    }
}
