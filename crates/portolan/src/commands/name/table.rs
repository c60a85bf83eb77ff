//! What `name` shows to people: a table of services, then the ranges that their ports lie in.

use std::io::{self, Write as _};

use portolan_core::registry::{Entry, Status};
use portolan_core::{PortClass, PortRange};
use unicode_width::UnicodeWidthStr as _;

use super::Finding;
use super::question::Subject;
use crate::output::Output;
use crate::terminal;

const HEADINGS: [&str; 6] = ["PORT", "PROTOCOL", "NAME", "ALIASES", "SOURCE", "DESCRIPTION"];
/// The columns between two fields.
const GAP: usize = 2;
/// A description with less room than this stands on a line of its own.
const LEAST_ROOM: usize = 20;

/// The fields of one line; those of a description stand last.
type Row = [String; HEADINGS.len()];

pub(super) fn print(
    findings: &[Finding<'_>],
    ephemeral: Option<PortRange>,
    output: &mut Output,
) -> io::Result<()> {
    let rows: Vec<Row> = findings.iter().flat_map(rows).collect();
    if !rows.is_empty() {
        let width = terminal::width();
        let head = HEADINGS.map(str::to_owned);
        let mut widths = [0; HEADINGS.len()];
        for row in std::iter::once(&head).chain(&rows) {
            for (width, field) in widths.iter_mut().zip(row) {
                *width = (*width).max(field.width());
            }
        }
        for row in std::iter::once(&head).chain(&rows) {
            print_row(row, &widths, width, output)?;
        }
    }
    let notes = notes(findings, ephemeral);
    if !rows.is_empty() && !notes.is_empty() {
        writeln!(output)?;
    }
    for note in notes {
        writeln!(output, "{note}")?;
    }
    Ok(())
}

/// The lines of one finding: neighbours that differ only in the protocol are one.
fn rows(finding: &Finding<'_>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for entry in &finding.entries {
        let row = row(*entry);
        match rows.iter_mut().rev().take(4).find(|other| {
            (&other[0], &other[2..]) == (&row[0], &row[2..]) && !other[1].split(',').any(|own| own == row[1])
        }) {
            Some(other) => {
                other[1].push(',');
                other[1].push_str(&row[1]);
            }
            None => rows.push(row),
        }
    }
    rows
}

fn row(entry: Entry<'_>) -> Row {
    let list = |names: Vec<&str>| names.join(", ");
    let name = match (entry.name(), entry.status()) {
        (Some(name), _) => name.to_owned(),
        (None, status) => format!("({status})"),
    };
    let mut description = match entry.status() {
        Status::Assigned => entry.description().to_owned(),
        // The status says the first word already: "Reserved: any private mail system".
        _ => entry
            .description()
            .split_once(": ")
            .map_or(String::new(), |(_, rest)| rest.to_owned()),
    };
    let former = list(entry.former_names().collect());
    if !former.is_empty() {
        let space = if description.is_empty() { "" } else { " " };
        description += &format!("{space}(formerly {former})");
    }
    let references = list(entry.references().collect());
    if !references.is_empty() {
        let space = if description.is_empty() { "" } else { " " };
        description += &format!("{space}[{references}]");
    }
    [
        entry.ports().to_string(),
        entry.protocol().to_string(),
        name,
        list(entry.aliases().collect()),
        entry.source().to_string(),
        description,
    ]
}

/// Prints one line, the description wrapped within `width` columns.
fn print_row(
    row: &Row,
    widths: &[usize; HEADINGS.len()],
    width: Option<usize>,
    output: &mut Output,
) -> io::Result<()> {
    let [fields @ .., description] = row;
    let mut line = String::new();
    for (field, width) in fields.iter().zip(widths) {
        line.push_str(field);
        line.push_str(&" ".repeat(width - field.width() + GAP));
    }
    let indent = line.width();
    let Some(width) = width else {
        return writeln!(output, "{}", format!("{line}{description}").trim_end());
    };
    let (indent, first) = if width >= indent + LEAST_ROOM {
        (indent, line)
    } else {
        // Too narrow for a last column: the description goes below, a little to the right.
        writeln!(output, "{}", line.trim_end())?;
        if description.is_empty() {
            return Ok(());
        }
        (4, " ".repeat(4))
    };
    let mut lines = wrap(description, width.saturating_sub(indent).max(LEAST_ROOM)).into_iter();
    let head = lines.next().unwrap_or_default();
    writeln!(output, "{}", format!("{first}{head}").trim_end())?;
    for rest in lines {
        writeln!(output, "{}{rest}", " ".repeat(indent))?;
    }
    Ok(())
}

/// `text` in lines of at most `room` columns, broken between words; a longer word keeps its line.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// The ranges that the ports lie in, a line each, and this machine's own ephemeral range where it matters.
fn notes(findings: &[Finding<'_>], ephemeral: Option<PortRange>) -> Vec<String> {
    let mut ports: Vec<PortRange> = Vec::new();
    for finding in findings {
        match finding.question.subject {
            Subject::Ports(range) => ports.push(range),
            Subject::Name(_) | Subject::Pattern(_) => {
                ports.extend(finding.entries.iter().map(|entry| entry.ports()));
            }
        }
    }
    let meets = |range: PortRange| {
        ports
            .iter()
            .any(|own| own.first() <= range.last() && range.first() <= own.last())
    };
    let mut notes: Vec<String> = [PortClass::System, PortClass::User, PortClass::Dynamic]
        .into_iter()
        .filter(|class| meets(class.range()))
        .map(|class| {
            format!(
                "{} ({}) ports: {}",
                class.name(),
                class.other_name(),
                class.range()
            )
        })
        .collect();
    let dynamic = PortClass::Dynamic.range();
    if let Some(own) = ephemeral.filter(|&own| own != dynamic && (meets(own) || meets(dynamic))) {
        notes.push(format!(
            "ephemeral ports of this machine: {own} (IANA's dynamic range: {dynamic})"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_wrapped_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible word", 5), ["incomprehensible", "word"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
