//! Items: what a person writes to mean some of the sockets, one word each.

use super::error::FilterFault;
use super::expression::{End, Expression, InetTest, Operator, Span, Test};
use super::glob;
use super::holder::Holder;
use super::names::{Names, service_spans};
use super::operand::{port_spans, prefix};
use super::parse::Fault;
use crate::SocketProtocol;

/// What kind of thing an item names. Items of one kind are alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ItemKind {
    Protocol,
    Port,
    Address,
    Holder,
}

/// The kind and the test of one word. Commas separate alternatives: `22,80-443,https`.
///
/// A fault comes with the byte of the word where it begins.
pub(super) fn item(
    word: &str,
    names: &dyn Names,
    holders: &mut Vec<Holder>,
) -> Result<(ItemKind, Expression), Fault> {
    let at_value = |fault| (word.find(':').map_or(0, |colon| colon + 1), fault);
    if let Some(holder) = keyed_holder(word, names).map_err(at_value)? {
        return Ok((ItemKind::Holder, held_by(holder, holders)));
    }
    for key in ["port:", "service:"] {
        if let Some(rest) = word.strip_prefix(key) {
            let ports = port_set(rest, names).map_err(|(at, fault)| (key.len() + at, fault))?;
            return Ok((ItemKind::Port, ports));
        }
    }
    if let Some(protocol) = protocol_named(word) {
        return Ok((ItemKind::Protocol, Expression::Test(Test::Protocol(protocol))));
    }
    if word.starts_with(['/', '@']) || word.starts_with("unix:") {
        let pattern = word.strip_prefix("unix:").unwrap_or(word).as_bytes().to_vec();
        let test = Test::Unix {
            end: End::Either,
            pattern,
        };
        return Ok((ItemKind::Address, Expression::Test(test)));
    }
    if let Some(found) = address(word, names).map_err(|fault| (place(word, &fault), fault))? {
        return Ok(found);
    }
    if word.starts_with(|first: char| first.is_ascii_digit()) || word.contains([',', '/']) {
        return Ok((ItemKind::Port, port_set(word, names)?));
    }
    let mut characters = word.chars();
    match characters.next() {
        Some('-') => Err((0, FilterFault::NotAPort(word.to_owned()))),
        // Digits that were meant as a port and are no name: process:+80 is one.
        Some('+') if characters.next().is_some_and(char::is_numeric) => Err((0, FilterFault::Sign)),
        Some(digit) if digit.is_numeric() => Err((0, FilterFault::ForeignDigit(digit))),
        Some(_) | None => Ok(bare_word(word, names, holders)),
    }
}

/// Where in a word or a value its fault begins.
pub(super) fn place(word: &str, fault: &FilterFault) -> usize {
    match fault {
        FilterFault::PrefixTooLong { .. } => word.find('/').map_or(0, |slash| slash + 1),
        FilterFault::UnknownInterface(zone) => {
            word.find(&format!("%{zone}")).map_or(0, |percent| percent + 1)
        }
        // Behind an address only a port can be one of these.
        FilterFault::PortOutOfRange(port) | FilterFault::NotAPort(port) => word
            .len()
            .checked_sub(port.len())
            .filter(|at| word.get(*at..) == Some(port))
            .unwrap_or(0),
        _ => 0,
    }
}

/// A word that could name a service and a holder means both. It counts as a port if it is a service.
fn bare_word(word: &str, names: &dyn Names, holders: &mut Vec<Holder>) -> (ItemKind, Expression) {
    let holder = held_by(
        Holder::Named {
            name: word.to_owned(),
            uid: names.user(word),
        },
        holders,
    );
    let services = if glob::is_pattern(word) {
        Vec::new()
    } else {
        service_spans(names, word)
    };
    if services.is_empty() {
        return (ItemKind::Holder, holder);
    }
    let mut parts = services
        .into_iter()
        .map(|span| port_test(span, None))
        .collect::<Vec<_>>();
    parts.push(holder);
    let both = Expression::joined(Operator::Or, parts);
    (
        ItemKind::Port,
        both.unwrap_or(Expression::Test(Test::Constant(false))),
    )
}

fn keyed_holder(word: &str, names: &dyn Names) -> Result<Option<Holder>, FilterFault> {
    let Some((key, value)) = word.split_once(':') else {
        return Ok(None);
    };
    if value.is_empty() {
        return Ok(None);
    }
    let name = value.to_owned();
    Ok(Some(match key {
        "process" => Holder::Process(name),
        "user" => Holder::User {
            uid: value.parse().ok().or_else(|| names.user(value)),
            name,
        },
        "unit" => Holder::Unit(name),
        "container" => Holder::Container(name),
        "pid" => match value.parse::<i32>() {
            Ok(pid) if pid > 0 => Holder::Pid(pid),
            Ok(_) | Err(_) => return Err(FilterFault::NotAPid(name)),
        },
        _ => return Ok(None),
    }))
}

fn held_by(holder: Holder, holders: &mut Vec<Holder>) -> Expression {
    holders.push(holder);
    Expression::Test(Test::Holder(holders.len() - 1))
}

fn protocol_named(word: &str) -> Option<SocketProtocol> {
    SocketProtocol::ALL
        .into_iter()
        .find(|protocol| protocol.name() == word)
}

/// `22`, `80-443`, `https`, `53/udp`, and several of them with commas.
fn port_set(word: &str, names: &dyn Names) -> Result<Expression, Fault> {
    let mut parts = Vec::new();
    let mut start = 0;
    for part in word.split(',') {
        let at_part = |fault| (start + place(part, &fault), fault);
        if part.is_empty() {
            return Err((start, FilterFault::EmptyItem));
        }
        let (ports, protocol) = match part.split_once('/') {
            Some((ports, name)) => match protocol_named(name) {
                Some(protocol) => (ports, Some(protocol)),
                None => {
                    let at = start + ports.len() + 1;
                    return Err((at, FilterFault::NotAProtocol(name.to_owned())));
                }
            },
            None => (part, None),
        };
        match range(ports).map_err(at_part)? {
            Some(span) => parts.push(port_test(span, protocol)),
            None => {
                for span in port_spans(decimal(ports), names).map_err(at_part)? {
                    parts.push(port_test(span, protocol));
                }
            }
        }
        start += part.len() + 1;
    }
    Ok(Expression::joined(Operator::Or, parts).unwrap_or(Expression::Test(Test::Constant(false))))
}

/// Leading zeros mean nothing here, though C would read an octal number.
fn decimal(text: &str) -> &str {
    let all_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.trim_start_matches('0') {
        trimmed if all_digits && !trimmed.is_empty() => trimmed,
        _ => text,
    }
}

/// `8000-8100`; a service name may hold a hyphen too, so only digits before it make a range.
fn range(text: &str) -> Result<Option<Span>, FilterFault> {
    let Some((first, last)) = text.split_once('-') else {
        return Ok(None);
    };
    if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let number = |digits: &str| match digits.parse::<u32>() {
        Ok(port) if port <= u32::from(u16::MAX) && !digits.starts_with('+') => Ok(port),
        Ok(_) => Err(FilterFault::PortOutOfRange(digits.to_owned())),
        Err(_) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(FilterFault::PortOutOfRange(digits.to_owned()))
        }
        Err(_) => Err(FilterFault::NotAPort(text.to_owned())),
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(FilterFault::ReversedRange { first, last });
    }
    Ok(Some(Span { first, last }))
}

fn port_test(ports: Span, protocol: Option<SocketProtocol>) -> Expression {
    Expression::Test(Test::Inet(InetTest {
        end: End::Either,
        addresses: None,
        ports,
        protocol,
    }))
}

/// `10.0.0.5`, `10.0.0.0/8`, `[::1]`, `::1`, `fe80::1%eth0`, `10.0.0.5:80`, `[::1]:80`, `:80`, `*:80`,
/// `localhost`, `localhost:80`.
fn address(word: &str, names: &dyn Names) -> Result<Option<(ItemKind, Expression)>, FilterFault> {
    let (host, port) = if let Some(rest) = word.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err(FilterFault::UnclosedBracket(word.to_owned()));
        };
        match after.strip_prefix(':') {
            Some(port) => (host.to_owned(), Some(port)),
            None => (format!("{host}{after}"), None),
        }
    } else if word.matches(':').count() == 1 {
        let (host, port) = word.split_once(':').unwrap_or((word, ""));
        (host.to_owned(), Some(port))
    } else {
        (word.to_owned(), None)
    };
    let (host, device) = match host.split_once('%') {
        Some((host, zone)) => {
            let zone = zone.to_owned();
            let index = names.interface(&zone).or_else(|| zone.parse().ok());
            let index = index.ok_or(FilterFault::UnknownInterface(zone))?;
            (host.to_owned(), Some(Test::Device(index)))
        }
        None => (host, None),
    };
    // A bare number is a port, though `10` could be the short form of 10.0.0.0.
    let is_address = host.contains(['.', ':']);
    let addresses = match host.as_str() {
        "" | "*" if port.is_some() => None,
        "localhost" => Some(localhost()),
        text if is_address => match prefix(text)? {
            Some(net) => Some(vec![net]),
            None if looks_like_ipv4(text) || text.contains(':') || port.is_some() => {
                return Err(FilterFault::NotAnAddress(word.to_owned()));
            }
            None => return Ok(None),
        },
        _ if port.is_some() => return Err(FilterFault::NotAnAddress(word.to_owned())),
        _ => return Ok(None),
    };
    let spans = match port {
        None | Some("*") => vec![Span::ALL],
        Some(text) => match range(text)? {
            Some(span) => vec![span],
            None => port_spans(decimal(text), names)?,
        },
    };
    let kind = if port.is_some() {
        ItemKind::Port
    } else {
        ItemKind::Address
    };
    let ends = spans.into_iter().map(|ports| {
        Expression::Test(Test::Inet(InetTest {
            end: End::Either,
            addresses: addresses.clone(),
            ports,
            protocol: None,
        }))
    });
    let ends = Expression::joined(Operator::Or, ends.collect());
    let parts = ends
        .into_iter()
        .chain(device.map(Expression::Test))
        .collect::<Vec<_>>();
    Ok(Expression::joined(Operator::And, parts).map(|expression| (kind, expression)))
}

fn looks_like_ipv4(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || b"./".contains(&byte))
}

fn localhost() -> Vec<ipnet::IpNet> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    // RFC 6761, section 6.3: the name always means the loopback addresses.
    let ipv4 = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    vec![ipv4.into(), ipnet::Ipv6Net::from(Ipv6Addr::LOCALHOST).into()]
}
