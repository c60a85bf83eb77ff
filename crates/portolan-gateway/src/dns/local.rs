//! Names that are answered here and never asked of anybody: `portolan`, `localhost`, and the addresses of the gateway
//! turned round.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::Spaces;
use super::answer::{LOCAL_TTL, of_kind, records};
use super::query::Query;
use crate::gate::Gate;

/// The domain of spaces and of what belongs to them. It is no name of the public DNS.
const DOMAIN: &str = "portolan";
/// The host, as far as `--allow-host` opens it.
const HOST: &str = "host.portolan";

/// See the [module](self).
pub(super) struct Local {
    gate: Gate,
    spaces: Spaces,
}

impl Local {
    pub(super) fn new(gate: Gate, spaces: Spaces) -> Self {
        Self { gate, spaces }
    }

    /// The reply to a question about what is known here.
    pub(super) fn answer(&self, query: &Query) -> Option<Vec<u8>> {
        let text = query.text();
        let labels: Vec<&str> = text.rsplit('.').collect();
        match labels[..] {
            [DOMAIN] => Some(query.nothing()),
            [DOMAIN, name] => Some(self.own(query, name)),
            [DOMAIN, ..] => Some(query.no_such_name()),
            // RFC 6761, section 6.3: loopback, without asking anybody.
            ["localhost", ..] => {
                let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                Some(addresses(query, &loopback))
            }
            ["arpa", "in-addr" | "ip6", ..] => self.reverse(query),
            _ => None,
        }
    }

    /// `NAME.portolan`.
    fn own(&self, query: &Query, name: &str) -> Vec<u8> {
        match name {
            "host" | "gateway" => addresses(query, self.gate.gateway()),
            _ => {
                let found = (self.spaces)(name);
                if found.is_empty() {
                    return query.no_such_name();
                }
                self.gate.known(query.text(), &found);
                addresses(query, &found)
            }
        }
    }

    /// The name of an address of the gateway, or of a linked space. Loopback means another host outside than here, so it is not asked for.
    fn reverse(&self, query: &Query) -> Option<Vec<u8>> {
        let address = address_of_reverse(query.text())?;
        let name = if self.gate.gateway().contains(&address) {
            Some(HOST)
        } else {
            self.gate.linked_name(address)
        };
        if let Some(name) = name {
            if !matches!(query.kind(), RecordType::PTR | RecordType::ANY) {
                return Some(query.nothing());
            }
            let host = Name::from_ascii(format!("{name}.")).ok()?;
            let record = Record::from_rdata(query.name().clone(), LOCAL_TTL, RData::PTR(PTR(host)));
            return Some(query.answers(vec![record]));
        }
        let known_to_nobody = address.is_loopback() || self.gate.inside().contains(&address);
        known_to_nobody.then(|| query.no_such_name())
    }
}

fn addresses(query: &Query, addresses: &[IpAddr]) -> Vec<u8> {
    query.answers(records(query.name(), &of_kind(query.kind(), addresses)))
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for, if it is a whole one (RFC 1035, section 3.5;
/// RFC 3596, section 2.5).
fn address_of_reverse(text: &str) -> Option<IpAddr> {
    if let Some(numbers) = text.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut numbers = numbers.rsplit('.');
        for octet in &mut octets {
            *octet = numbers.next()?.parse().ok()?;
        }
        return numbers.next().is_none().then(|| Ipv4Addr::from(octets).into());
    }
    let mut digits = text.strip_suffix(".ip6.arpa")?.rsplit('.');
    let mut bits = 0u128;
    for _ in 0..32 {
        let digit = digits.next().filter(|digit| digit.len() == 1)?;
        bits = bits << 4 | u128::from(u8::from_str_radix(digit, 16).ok()?);
    }
    digits.next().is_none().then(|| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_addresses_are_read_backwards() {
        let ip6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        let cases = [
            ("1.2.0.192.in-addr.arpa", Some("192.0.2.1")),
            ("2.0.192.in-addr.arpa", None),
            ("9.1.2.0.192.in-addr.arpa", None),
            ("256.2.0.192.in-addr.arpa", None),
            (ip6, Some("2001:db8::1")),
            ("0.ip6.arpa", None),
            (
                "+.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
                None,
            ),
            ("in-addr.arpa", None),
        ];
        for (text, address) in cases {
            let expected = address.map(|address| address.parse().unwrap());
            assert_eq!(address_of_reverse(text), expected, "{text}");
        }
    }
}
