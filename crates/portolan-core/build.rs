//! Makes the registry's static tables from `data/iana-ports.tsv` and `data/local.tsv`.
//!
//! The tables are made here and not committed: the TSV is what people read and compare, and a second
//! copy of it in the repository could differ. The output is one string and a few arrays of integers,
//! which compile in a moment; twelve thousand struct literals would not.
//!
//! ```text
//! KEYS[i]     port << 2 | protocol, rising; a key's IANA row stands before its rows by custom
//! ROW_OF[i]   its row, shared by every key with the same texts
//! ROWS[r]     name, aliases, former names, description, reference: offset << 12 | length in TEXT
//! KINDS[r]    0 assigned, 1 reserved, 2 unassigned, 3 by custom
//! SPANS       (row, first, last) of the rows that are a range of ports
//! NAMES[n]    every name in lower case, rising
//! NAME_FIRST  NAME_KEYS[NAME_FIRST[n]..NAME_FIRST[n + 1]] are the keys with the name NAMES[n]
//! ```

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const ASSIGNED: u8 = 0;
const RESERVED: u8 = 1;
const UNASSIGNED: u8 = 2;
const CUSTOM: u8 = 3;

fn main() {
    let data = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("data");
    let mut tables = Tables::default();
    let mut keys = Vec::new();
    for (file, custom) in [("iana-ports.tsv", false), ("local.tsv", true)] {
        let path = data.join(file);
        println!("cargo::rerun-if-changed={}", path.display());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            tables
                .read_line(line, custom, &mut keys)
                .unwrap_or_else(|| panic!("{file}:{}: not a row of the table: {line:?}", index + 1));
        }
    }
    println!("cargo::rerun-if-changed=build.rs");

    // Stable: the rows by custom were read last and stay behind IANA's.
    keys.sort_by_key(|&(key, _)| key);
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let source = tables.source(&keys);
    fs::write(Path::new(&out).join("registry.rs"), source).expect("OUT_DIR can be written");
    fs::write(Path::new(&out).join("registry.txt"), &tables.text).expect("OUT_DIR can be written");
}

#[derive(Default)]
struct Tables {
    text: String,
    /// Where each string lies in `text`, packed.
    strings: HashMap<String, u32>,
    rows: Vec<Row>,
    /// The row with these fields, this kind and this range.
    row_of: HashMap<RowKey, u16>,
}

/// What makes two rows the same: their strings, their kind and their range.
type RowKey = ([u32; 5], u8, Option<(u16, u16)>);

struct Row {
    fields: [u32; 5],
    kind: u8,
    span: Option<(u16, u16)>,
    /// The names in lower case; whether each is a former one.
    names: Vec<(String, bool)>,
}

impl Tables {
    /// Adds the row of one line and its keys; `None` if the line is malformed.
    fn read_line(&mut self, line: &str, custom: bool, keys: &mut Vec<(u32, u16)>) -> Option<()> {
        let fields: Vec<&str> = line.split('\t').collect();
        let (ports, protocol, texts) = match (custom, fields.as_slice()) {
            (false, &[ports, protocol, name, aliases, former, description, reference]) => {
                (ports, protocol, [name, aliases, former, description, reference])
            }
            (true, &[ports, protocol, name, aliases, description]) if !name.is_empty() => {
                (ports, protocol, [name, aliases, "", description, ""])
            }
            _ => return None,
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        let protocol = ["tcp", "udp", "sctp", "dccp"]
            .iter()
            .position(|&known| known == protocol)?;
        let kind = match (custom, texts[0].is_empty()) {
            (true, _) => CUSTOM,
            (false, false) => ASSIGNED,
            (false, true) if texts[3].starts_with("Unassigned") => UNASSIGNED,
            (false, true) if texts[3].starts_with("Reserved") => RESERVED,
            (false, true) => return None,
        };
        let span = (first < last).then_some((first, last));
        let row = self.row(texts, kind, span)?;
        for port in first..=last {
            keys.push((u32::from(port) << 2 | protocol as u32, row));
        }
        (first <= last).then_some(())
    }

    fn row(&mut self, texts: [&str; 5], kind: u8, span: Option<(u16, u16)>) -> Option<u16> {
        let fields = texts.map(|text| self.string(text));
        if let Some(&row) = self.row_of.get(&(fields, kind, span)) {
            return Some(row);
        }
        let row = u16::try_from(self.rows.len()).ok()?;
        self.row_of.insert((fields, kind, span), row);
        let [name, aliases, former, ..] = texts;
        let current = [name].into_iter().chain(aliases.split(','));
        let names = current
            .map(|name| (name, false))
            .chain(former.split(',').map(|name| (name, true)))
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, former)| (name.to_ascii_lowercase(), former))
            .collect();
        self.rows.push(Row {
            fields,
            kind,
            span,
            names,
        });
        Some(row)
    }

    /// Where `string` lies in the text, which gets it if it is new.
    fn string(&mut self, string: &str) -> u32 {
        if string.is_empty() {
            return 0;
        }
        if let Some(&packed) = self.strings.get(string) {
            return packed;
        }
        let (offset, len) = (self.text.len(), string.len());
        assert!(
            offset < 1 << 20 && len < 1 << 12,
            "the packing of strings is too small"
        );
        let packed = u32::try_from(offset << 12 | len).expect("checked above");
        self.text.push_str(string);
        self.strings.insert(string.to_owned(), packed);
        packed
    }

    /// The Rust source of the tables.
    fn source(&mut self, keys: &[(u32, u16)]) -> String {
        // The current names of a key come before the former ones of another, IANA's before custom's.
        let mut by_name: BTreeMap<String, Vec<(bool, bool, u16)>> = BTreeMap::new();
        for (index, &(_, row)) in keys.iter().enumerate() {
            let index = u16::try_from(index).expect("fewer than 65,536 keys");
            let row = &self.rows[usize::from(row)];
            for (name, former) in &row.names {
                let place = (*former, row.kind == CUSTOM, index);
                by_name.entry(name.clone()).or_default().push(place);
            }
        }
        let (mut names, mut firsts, mut name_keys) = (Vec::new(), vec![0], Vec::new());
        for (name, mut places) in by_name {
            places.sort_unstable();
            places.dedup();
            names.push(self.string(&name));
            name_keys.extend(places.into_iter().map(|(_, _, index)| index));
            firsts.push(u16::try_from(name_keys.len()).expect("fewer than 65,536 names of keys"));
        }

        let mut source = String::new();
        array(&mut source, "KEYS", "u32", keys.iter().map(|&(key, _)| key));
        array(&mut source, "ROW_OF", "u16", keys.iter().map(|&(_, row)| row));
        array(
            &mut source,
            "ROWS",
            "[u32; 5]",
            self.rows.iter().map(|row| format!("{:?}", row.fields)),
        );
        array(&mut source, "KINDS", "u8", self.rows.iter().map(|row| row.kind));
        let spans = self
            .rows
            .iter()
            .enumerate()
            .filter_map(|(index, row)| row.span.map(|(first, last)| format!("({index},{first},{last})")));
        array(&mut source, "SPANS", "(u16, u16, u16)", spans);
        array(&mut source, "NAMES", "u32", names.into_iter());
        array(&mut source, "NAME_FIRST", "u16", firsts.into_iter());
        array(&mut source, "NAME_KEYS", "u16", name_keys.into_iter());
        source
    }
}

fn array(
    source: &mut String,
    name: &str,
    element: &str,
    values: impl Iterator<Item = impl std::fmt::Display>,
) {
    let mut body = String::new();
    let mut count = 0;
    for value in values {
        write!(body, "{value},").expect("a String takes all");
        count += 1;
    }
    writeln!(
        source,
        "pub(super) static {name}: [{element}; {count}] = [{body}];"
    )
    .expect("a String takes all");
}
