//! What stands behind a test: ports, hosts, devices, marks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::error::FilterFault;
use super::expression::{End, Expression, InetTest, Span, Test};
use super::names::{Names, service_spans};
use super::tokens::Comparison;
use crate::Family;

/// The host behind `src` or `dst`, and the family it names in front (`inet:`, `unix:`, …).
pub(super) struct Host {
    pub(super) test: Test,
    pub(super) family: Option<Family>,
}

/// `[FAMILY:]ADDRESS[/PREFIX][:PORT]` as ss(8) reads it.
///
/// Where the last colon could be part of an IPv6 address as well as the beginning of a port, it is the
/// port's, as for ss: `::1:99` is port 99 of `::1`. Where only the whole is an address, it is the address.
pub(super) fn host(
    word: &str,
    end: End,
    hint: Option<Family>,
    names: &dyn Names,
) -> Result<Host, FilterFault> {
    let (family, rest) = family_prefix(word)?;
    let test = match family.or(hint) {
        Some(Family::Unix) => unix(rest, end),
        Some(Family::Vsock) => vsock(rest, end)?,
        None if rest.starts_with(['/', '@']) => unix(rest, end),
        Some(Family::Ipv4 | Family::Ipv6) | None => Test::Inet(inet(rest, end, family, names)?),
    };
    Ok(Host { test, family })
}

/// `[:]PORT` behind `sport` or `dport`, compared.
pub(super) fn port_test(
    word: &str,
    end: End,
    comparison: Comparison,
    hint: Option<Family>,
    names: &dyn Names,
) -> Result<(Expression, Option<Family>), FilterFault> {
    let (family, rest) = family_prefix(word)?;
    let digits = rest.strip_prefix(':').unwrap_or(rest);
    let vsock = family.or(hint) == Some(Family::Vsock);
    let test = |ports: Span| {
        Expression::Test(if vsock {
            Test::Vsock {
                end,
                cid: None,
                ports,
            }
        } else {
            Test::Inet(InetTest {
                end,
                addresses: None,
                ports,
                protocol: None,
            })
        })
    };
    if digits.is_empty() || digits == "*" {
        return Ok((Expression::Test(Test::Constant(true)), family));
    }
    let ports = if vsock {
        let port = number(digits).ok_or_else(|| FilterFault::NotAPort(digits.to_owned()))?;
        vec![Span::single(port)]
    } else {
        port_spans(digits, names)?
    };
    let single = || match ports.as_slice() {
        [Span { first, last }] if first == last => Ok(*first),
        _ => Err(FilterFault::AmbiguousService(digits.to_owned())),
    };
    let equal = || {
        let spans = ports.iter().map(|span| test(*span)).collect();
        Expression::joined(super::expression::Operator::Or, spans)
            .unwrap_or(Expression::Test(Test::Constant(false)))
    };
    let below = |port: u32| {
        port.checked_sub(1)
            .map_or(Span::NONE, |last| Span { first: 0, last })
    };
    let above = |port: u32| Span {
        first: port.saturating_add(1),
        last: u32::MAX,
    };
    let expression = match comparison {
        Comparison::Equal => equal(),
        // Sockets without ports at that end differ from every port, as for ss.
        Comparison::NotEqual => Expression::Not(Box::new(equal())),
        Comparison::LessOrEqual => test(Span {
            first: 0,
            last: single()?,
        }),
        Comparison::GreaterOrEqual => test(Span {
            first: single()?,
            last: u32::MAX,
        }),
        Comparison::Less => test(below(single()?)),
        Comparison::Greater => test(above(single()?)),
    };
    Ok((expression, family))
}

/// An interface by its name or index.
pub(super) fn device(word: &str, names: &dyn Names) -> Result<Test, FilterFault> {
    let index = names.interface(word).or_else(|| number(word));
    index
        .map(Test::Device)
        .ok_or_else(|| FilterFault::UnknownInterface(word.to_owned()))
}

/// `MARK` or `MARK/MASK`.
pub(super) fn mark(word: &str) -> Result<Test, FilterFault> {
    let (value, mask) = match word.split_once('/') {
        Some((value, mask)) => (number(value), number(mask)),
        None => (number(word), Some(u32::MAX)),
    };
    match (value, mask) {
        (Some(value), Some(mask)) => Ok(Test::Mark { value, mask }),
        (_, _) => Err(FilterFault::NotAMark(word.to_owned())),
    }
}

/// The ports that a number or a service name stands for.
pub(super) fn port_spans(text: &str, names: &dyn Names) -> Result<Vec<Span>, FilterFault> {
    if text.starts_with(|character: char| character.is_ascii_digit()) {
        let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        return match number(text) {
            Some(port) if port <= u32::from(u16::MAX) => Ok(vec![Span::single(port)]),
            Some(_) => Err(FilterFault::PortOutOfRange(text.to_owned())),
            None if all_digits => Err(FilterFault::PortOutOfRange(text.to_owned())),
            None => Err(FilterFault::NotAPort(text.to_owned())),
        };
    }
    let spans = service_spans(names, text);
    if spans.is_empty() {
        return Err(FilterFault::NotAPort(text.to_owned()));
    }
    Ok(spans)
}

/// An address or a prefix in every form ss(8) takes: `10.0.0.5`, `10.0.0.0/8`, `10/8`, `10/255.0.0.0`, `::1`.
pub(super) fn prefix(text: &str) -> Result<Option<IpNet>, FilterFault> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address = if let Ok(address) = address.parse::<Ipv6Addr>() {
        IpAddr::V6(address)
    } else {
        match short_ipv4(address) {
            Some(address) => IpAddr::V4(address),
            None => return Ok(None),
        }
    };
    let max = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => max,
        Some(given) => prefix_length(given, max).ok_or_else(|| FilterFault::PrefixTooLong {
            given: given.chars().take(20).collect(),
            address: if address.is_ipv4() { "IPv4" } else { "IPv6" },
            max,
        })?,
    };
    Ok(IpNet::new(address, length).ok().map(|net| net.trunc()))
}

fn inet(word: &str, end: End, family: Option<Family>, names: &dyn Names) -> Result<InetTest, FilterFault> {
    let (address, port) = split_host(word)?;
    let any = InetTest {
        end,
        addresses: None,
        ports: Span::ALL,
        protocol: None,
    };
    let with_port = |test: InetTest, port: &str| -> Result<InetTest, FilterFault> {
        Ok(match port {
            "" | "*" => test,
            port => match port_spans(port, names)?.as_slice() {
                [span] => InetTest { ports: *span, ..test },
                _ => return Err(FilterFault::AmbiguousService(port.to_owned())),
            },
        })
    };
    let Some(port) = port else {
        return Ok(InetTest {
            addresses: addresses(&address, family, names)?,
            ..any
        });
    };
    let split = addresses(&address, family, names).and_then(|addresses| {
        with_port(
            InetTest {
                addresses,
                ..any.clone()
            },
            port,
        )
    });
    split.or_else(|fault| match prefix(word)? {
        // The colon belonged to an IPv6 address.
        Some(net) => Ok(InetTest {
            addresses: Some(vec![net]),
            ..any
        }),
        None => Err(fault),
    })
}

/// The address without brackets, and what follows the colon behind it.
///
/// `[2001:db8::]/32` is more than ss takes, and plain enough.
fn split_host(word: &str) -> Result<(String, Option<&str>), FilterFault> {
    if let Some(rest) = word.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return Err(FilterFault::UnclosedBracket(word.to_owned()));
        };
        let (length, port) = match after.split_once(':') {
            Some((length, port)) => (length, Some(port)),
            None => (after, None),
        };
        return Ok((format!("{address}{length}"), port));
    }
    let slash = word.find('/').unwrap_or(0);
    Ok(match word[slash..].rfind(':') {
        Some(colon) => (word[..slash + colon].to_owned(), Some(&word[slash + colon + 1..])),
        None => (word.to_owned(), None),
    })
}

/// The prefixes that a host stands for; `None` for any.
fn addresses(
    text: &str,
    family: Option<Family>,
    names: &dyn Names,
) -> Result<Option<Vec<IpNet>>, FilterFault> {
    if matches!(text, "" | "*" | "any" | "all" | "default") {
        return Ok(None);
    }
    if let Some(net) = prefix(text)? {
        return Ok(Some(vec![net]));
    }
    let could_be_a_name = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.contains(|character: char| character.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let found = if could_be_a_name {
        names.addresses(text)
    } else {
        Vec::new()
    };
    let nets = found
        .into_iter()
        .filter(|address| match family {
            Some(Family::Ipv4) => address.is_ipv4(),
            Some(Family::Ipv6) => address.is_ipv6(),
            Some(Family::Vsock | Family::Unix) | None => true,
        })
        .map(IpNet::from)
        .collect::<Vec<_>>();
    if nets.is_empty() {
        return Err(FilterFault::NotAnAddress(text.to_owned()));
    }
    Ok(Some(nets))
}

fn family_prefix(word: &str) -> Result<(Option<Family>, &str), FilterFault> {
    let known = [
        ("unix:", Family::Unix),
        ("vsock:", Family::Vsock),
        ("inet:", Family::Ipv4),
        ("inet6:", Family::Ipv6),
    ];
    for (prefix, family) in known {
        if let Some(rest) = word.strip_prefix(prefix) {
            return Ok((Some(family), rest));
        }
    }
    for (prefix, name) in [("link:", "packet"), ("netlink:", "netlink")] {
        if word.starts_with(prefix) {
            return Err(FilterFault::UnlistedFamily(name));
        }
    }
    Ok((None, word))
}

fn unix(pattern: &str, end: End) -> Test {
    Test::Unix {
        end,
        pattern: pattern.as_bytes().to_vec(),
    }
}

fn vsock(text: &str, end: End) -> Result<Test, FilterFault> {
    let (cid, port) = text.split_once(':').unwrap_or((text, "*"));
    let one = |text: &str| match text {
        "" | "*" => Ok(None),
        text => number(text)
            .map(Some)
            .ok_or_else(|| FilterFault::NotAPort(text.to_owned())),
    };
    Ok(Test::Vsock {
        end,
        cid: one(cid)?,
        ports: one(port)?.map_or(Span::ALL, Span::single),
    })
}

/// One to four numbers with dots, the missing ones being zero, as iproute2 reads them (`127/8`).
fn short_ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    for (count, part) in text.split('.').enumerate() {
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octets.get_mut(count)? = part.parse().ok()?;
    }
    Some(octets.into())
}

/// `8`, or for IPv4 a mask of ones and then zeros: `255.0.0.0`.
fn prefix_length(text: &str, max: u8) -> Option<u8> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<u8>().ok().filter(|length| *length <= max);
    }
    let mask = u32::from(text.parse::<Ipv4Addr>().ok().filter(|_| max == 32)?);
    (mask.leading_ones() + mask.trailing_zeros() >= 32).then(|| mask.leading_ones() as u8)
}

/// A number as C writes it, as ss takes it: decimal, `0x50`, `0120`.
pub(super) fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hexadecimal) => (hexadecimal, 16),
        None => match text.strip_prefix('0') {
            Some(octal) if !octal.is_empty() => (octal, 8),
            Some(_) | None => (text, 10),
        },
    };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}
