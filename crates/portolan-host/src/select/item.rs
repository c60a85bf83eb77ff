//! Items: what a person writes to mean some of the sockets, one word each.

use super::error::FilterFault;
use super::expression::{End, Expression, InetTest, Operator, Span, Test};
use super::glob;
use super::holder::Holder;
use super::names::{Names, service_spans};
use super::operand::{port_spans, prefix};
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
pub(super) fn item(
    word: &str,
    names: &dyn Names,
    holders: &mut Vec<Holder>,
) -> Result<(ItemKind, Expression), FilterFault> {
    if let Some(holder) = keyed_holder(word, names)? {
        return Ok((ItemKind::Holder, held_by(holder, holders)));
    }
    for (key, kind) in [("port:", ItemKind::Port), ("service:", ItemKind::Port)] {
        if let Some(rest) = word.strip_prefix(key) {
            return Ok((kind, port_set(rest, names)?));
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
    if let Some(found) = address(word, names)? {
        return Ok(found);
    }
    if word.starts_with(|first: char| first.is_ascii_digit()) || word.contains([',', '/']) {
        return Ok((ItemKind::Port, port_set(word, names)?));
    }
    if word.starts_with('-') {
        return Err(FilterFault::NotAPort(word.to_owned()));
    }
    Ok(bare_word(word, names, holders))
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
fn port_set(word: &str, names: &dyn Names) -> Result<Expression, FilterFault> {
    let mut parts = Vec::new();
    for part in word.split(',') {
        let (ports, protocol) = match part.split_once('/') {
            Some((ports, name)) => match protocol_named(name) {
                Some(protocol) => (ports, Some(protocol)),
                None => return Err(FilterFault::NotAProtocol(name.to_owned())),
            },
            None => (part, None),
        };
        match range(ports)? {
            Some(span) => parts.push(port_test(span, protocol)),
            None => {
                for span in port_spans(decimal(ports), names)? {
                    parts.push(port_test(span, protocol));
                }
            }
        }
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
