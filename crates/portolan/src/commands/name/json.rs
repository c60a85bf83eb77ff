//! The JSON document of `name`; docs/json.md describes it.

use std::io::{self, Write as _};

use portolan_core::registry::{Entry, Services};
use portolan_core::{PortClass, PortRange};
use serde::Serialize;

use super::Finding;
use super::question::Subject;
use crate::output::Output;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    names: Vec<Name<'a>>,
    unmatched: Vec<Unmatched<'a>>,
    ranges: Ranges,
    ephemeral: Option<Range>,
}

/// One service on one port (or range of ports) of one protocol.
#[derive(Serialize)]
struct Name<'a> {
    query: &'a str,
    port: u16,
    last_port: u16,
    protocol: &'static str,
    name: Option<&'a str>,
    aliases: Vec<&'a str>,
    former_names: Vec<&'a str>,
    description: Option<&'a str>,
    references: Vec<&'a str>,
    source: &'static str,
    status: &'static str,
    range: &'static str,
}

/// An argument for which no service was found.
#[derive(Serialize)]
struct Unmatched<'a> {
    query: &'a str,
    similar: Vec<&'a str>,
}

#[derive(Serialize)]
struct Ranges {
    system: Range,
    user: Range,
    dynamic: Range,
}

#[derive(Serialize)]
struct Range {
    first: u16,
    last: u16,
}

impl From<PortRange> for Range {
    fn from(range: PortRange) -> Self {
        Self {
            first: range.first().get(),
            last: range.last().get(),
        }
    }
}

pub(super) fn print(
    findings: &[Finding<'_>],
    services: &Services,
    ephemeral: Option<PortRange>,
    output: &mut Output,
) -> io::Result<()> {
    let names = findings.iter().flat_map(|finding| {
        let query = finding.question.text.as_str();
        finding.entries.iter().map(move |&entry| name(query, entry))
    });
    let unmatched = findings.iter().filter(|finding| !finding.is_named());
    let document = Document {
        version: 1,
        names: names.collect(),
        unmatched: unmatched
            .map(|finding| Unmatched {
                query: &finding.question.text,
                similar: match &finding.question.subject {
                    Subject::Name(name) => services.similar(name, 3),
                    Subject::Ports(_) | Subject::Pattern(_) => Vec::new(),
                },
            })
            .collect(),
        ranges: Ranges {
            system: PortClass::System.range().into(),
            user: PortClass::User.range().into(),
            dynamic: PortClass::Dynamic.range().into(),
        },
        ephemeral: ephemeral.map(Range::from),
    };
    serde_json::to_writer(&mut *output, &document)?;
    output.write_all(b"\n")
}

fn name<'a>(query: &'a str, entry: Entry<'a>) -> Name<'a> {
    Name {
        query,
        port: entry.ports().first().get(),
        last_port: entry.ports().last().get(),
        protocol: entry.protocol().name(),
        name: entry.name(),
        aliases: entry.aliases().collect(),
        former_names: entry.former_names().collect(),
        description: Some(entry.description()).filter(|text| !text.is_empty()),
        references: entry.references().collect(),
        source: entry.source().name(),
        status: entry.status().name(),
        range: entry.ports().first().class().name(),
    }
}
