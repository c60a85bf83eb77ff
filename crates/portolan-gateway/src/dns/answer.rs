//! What an upstream answers, and what of it the program is told.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::svcb::{SVCB, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::query::{Query, decode};
use crate::gate::Gate;

/// How many aliases are followed from the name that was asked.
const ALIASES_MAX: usize = 16;

/// The time to live of what is known here, in seconds: it may change at any time.
pub(super) const LOCAL_TTL: u32 = 5;

/// The reply for the program: addresses that the gate refuses are taken out. The others are pinned to the name that was
/// asked, for which they stand at the end of its aliases.
pub(super) fn judge(gate: &Gate, query: &Query, reply: Vec<u8>) -> Vec<u8> {
    let Some(mut message) = decode(&reply) else {
        return query.failed("the reply of the resolver cannot be read");
    };
    let Some(owners) = owners(query.name(), &message) else {
        return query.failed("the aliases of the name do not end");
    };
    let mut addresses = Vec::new();
    for record in &message.answers {
        if owners.contains(&&record.name) {
            let ttl = Duration::from_secs(record.ttl.into());
            addresses.extend(addresses_of(record).into_iter().map(|address| (address, ttl)));
        }
    }
    let told: HashSet<IpAddr> = gate.answered(query.text(), &addresses).into_iter().collect();
    let may_be_told = |record: &Record| {
        let addresses = addresses_of(record);
        addresses.is_empty()
            || (owners.contains(&&record.name) && addresses.iter().all(|address| told.contains(address)))
    };
    let kept: Vec<Record> = message
        .answers
        .iter()
        .filter(|record| may_be_told(record))
        .cloned()
        .collect();
    if kept.len() == message.answers.len() {
        return query.adopt(reply);
    }
    if !addresses.is_empty() && told.is_empty() {
        return query.refused("the name resolves to an address that is closed");
    }
    message.answers = kept;
    query.adopt(query.encode_or_fail(&message))
}

/// The name that was asked and its aliases, in order; `None` if they go in a circle or on for too long.
fn owners<'a>(asked: &'a Name, message: &'a Message) -> Option<Vec<&'a Name>> {
    let mut owners = vec![asked];
    let alias = |name: &Name| {
        let mut answers = message.answers.iter();
        answers.find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *name => Some(&target.0),
            _ => None,
        })
    };
    let mut last = asked;
    while let Some(next) = alias(last) {
        if owners.contains(&next) || owners.len() > ALIASES_MAX {
            return None;
        }
        owners.push(next);
        last = next;
    }
    Some(owners)
}

/// The addresses in a record, hints of service bindings included (RFC 9460, section 7.3).
fn addresses_of(record: &Record) -> Vec<IpAddr> {
    let hints = |binding: &SVCB| {
        let mut addresses = Vec::new();
        for (_, value) in &binding.svc_params {
            match value {
                SvcParamValue::Ipv4Hint(hint) => {
                    addresses.extend(hint.0.iter().map(|&A(address)| IpAddr::V4(address)))
                }
                SvcParamValue::Ipv6Hint(hint) => {
                    addresses.extend(hint.0.iter().map(|&AAAA(address)| IpAddr::V6(address)));
                }
                _ => {}
            }
        }
        addresses
    };
    match &record.data {
        RData::A(A(address)) => vec![IpAddr::V4(*address)],
        RData::AAAA(AAAA(address)) => vec![IpAddr::V6(*address)],
        RData::HTTPS(binding) => hints(&binding.0),
        RData::SVCB(binding) => hints(binding),
        _ => Vec::new(),
    }
}

/// The reply for a name of the host's /etc/hosts.
pub(super) fn from_hosts(gate: &Gate, query: &Query, addresses: &[IpAddr]) -> Vec<u8> {
    let asked = of_kind(query.kind(), addresses);
    let pairs: Vec<_> = asked.iter().map(|&address| (address, Duration::ZERO)).collect();
    let told = gate.answered(query.text(), &pairs);
    if told.is_empty() && !asked.is_empty() {
        return query.refused("the name stands for an address that is closed");
    }
    query.answers(records(query.name(), &told))
}

/// Those of the addresses that a type of record is for.
pub(super) fn of_kind(kind: RecordType, addresses: &[IpAddr]) -> Vec<IpAddr> {
    let is_asked = |address: &IpAddr| match address {
        IpAddr::V4(_) => matches!(kind, RecordType::A | RecordType::ANY),
        IpAddr::V6(_) => matches!(kind, RecordType::AAAA | RecordType::ANY),
    };
    addresses.iter().copied().filter(is_asked).collect()
}

/// Address records of what is known here.
pub(super) fn records(name: &Name, addresses: &[IpAddr]) -> Vec<Record> {
    let data = addresses.iter().map(|&address| match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    });
    data.map(|data| Record::from_rdata(name.clone(), LOCAL_TTL, data))
        .collect()
}
