//! Two registries of different age as one.
//!
//! 1. A key is what today's registry lists; the name is its name.
//! 2. If the older registry lists that name for the key, its order counts: the first name is the primary
//!    one and the rest are aliases (80: http, then www and www-http). Today's package keeps only one of
//!    several names, the last. Otherwise the key changed hands: the older names are former names.
//! 3. Ranges (x11 6000-6063) come from the older registry: today's package has none.
//! 4. Keys that only the older registry has were given back and are dropped.
//! 5. Rows without a name become *reserved* or *unassigned*.
//! 6. Nothing that names a person is read at all.

use std::collections::{BTreeMap, HashMap};

use crate::names::{Key, Transport};
use crate::packages::{Assigned, Former};

/// One row of the table: a key, or several neighbouring ports that one registration holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) transport: Transport,
    /// The primary name, then the aliases; empty for what is reserved or unassigned.
    pub(crate) names: Vec<String>,
    /// The names that the key had before it changed hands.
    pub(crate) former: Vec<String>,
    pub(crate) description: String,
    pub(crate) reference: String,
}

impl Row {
    /// How many keys the row stands for.
    pub(crate) fn keys(&self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

/// The merged table, sorted by first port, then protocol.
pub(crate) fn merge(assigned: BTreeMap<Key, Assigned>, former: Vec<Former>) -> Vec<Row> {
    let mut singles: HashMap<Key, Vec<&Former>> = HashMap::new();
    let mut rows = Vec::new();
    for row in &former {
        let key = Key {
            port: row.first,
            transport: row.transport,
        };
        if row.first == row.last {
            singles.entry(key).or_default().push(row);
        } else if !overlaps(&assigned, row) {
            rows.push(Row {
                first: row.first,
                last: row.last,
                transport: row.transport,
                names: vec![row.name.clone()],
                former: Vec::new(),
                description: row.description.clone(),
                reference: row.reference.clone(),
            });
        }
    }
    for (key, assigned) in &assigned {
        let former = singles.get(key).map_or(&[][..], Vec::as_slice);
        rows.push(merge_key(*key, assigned, former));
    }
    rows.sort_by_key(|row| (row.first, row.transport));
    rows
}

/// Whether today's registry gives a name to any key of the older range.
fn overlaps(assigned: &BTreeMap<Key, Assigned>, range: &Former) -> bool {
    (range.first..=range.last).any(|port| {
        let transport = range.transport;
        assigned
            .get(&Key { port, transport })
            .is_some_and(|now| !now.name.is_empty())
    })
}

fn merge_key(key: Key, assigned: &Assigned, former: &[&Former]) -> Row {
    let mut row = Row {
        first: key.port,
        last: key.port,
        transport: key.transport,
        names: Vec::new(),
        former: Vec::new(),
        description: assigned.description.clone(),
        reference: String::new(),
    };
    if assigned.name.is_empty() {
        row.description = status(&assigned.description);
        return row;
    }
    let mut older: Vec<&str> = Vec::new();
    for &Former { name, .. } in former {
        if !older.contains(&name.as_str()) {
            older.push(name);
        }
    }
    if older.contains(&assigned.name.as_str()) {
        row.names = older.into_iter().map(str::to_owned).collect();
        // Description and reference belong to a name, not to a key: those of the primary name count.
        let primary = former.iter().find(|former| former.name == row.names[0]);
        if let Some(primary) = primary {
            if primary.name != assigned.name && !primary.description.is_empty() {
                row.description.clone_from(&primary.description);
            }
            row.reference.clone_from(&primary.reference);
        }
    } else {
        row.names = vec![assigned.name.clone()];
        row.former = older.into_iter().map(str::to_owned).collect();
    }
    row
}

/// What a key without a name is, as the table's description says it.
fn status(description: &str) -> String {
    let lower = description.to_ascii_lowercase();
    if let Some(rest) = lower.strip_prefix("unassigned") {
        let rest = rest.trim();
        return if rest.is_empty() {
            "Unassigned".to_owned()
        } else {
            format!("Unassigned: {}", rest.trim_matches(['[', ']']))
        };
    }
    if lower.is_empty() || lower == "reserved" {
        "Reserved".to_owned()
    } else {
        format!("Reserved: {description}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages::{read_newer, read_older};

    fn merged(newer: &str, older: &str) -> Vec<Row> {
        merge(read_newer(newer).unwrap(), read_older(older).unwrap())
    }

    #[test]
    fn the_older_order_decides_which_of_several_names_is_first() {
        let rows = merged(
            r#"{"80/tcp":["www-http","World Wide Web HTTP"]}"#,
            r#"[{"ServiceName":"http","PortNumber":"80","TransportProtocol":"tcp","Description":"HTTP",
                 "Reference":"[RFC9110]"},
                {"ServiceName":"www","PortNumber":"80","TransportProtocol":"tcp"},
                {"ServiceName":"www-http","PortNumber":"80","TransportProtocol":"tcp"},
                {"ServiceName":"www","PortNumber":"80","TransportProtocol":"tcp"}]"#,
        );
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].names, ["http", "www", "www-http"]);
        assert_eq!(rows[0].description, "HTTP");
        assert_eq!(rows[0].reference, "RFC9110");
        assert_eq!(rows[0].former, [""; 0]);
    }

    #[test]
    fn a_key_that_changed_hands_keeps_its_former_names() {
        let rows = merged(
            r#"{"7680/tcp":["ms-do","Microsoft Delivery Optimization"]}"#,
            r#"[{"ServiceName":"pando-pub","PortNumber":"7680","TransportProtocol":"tcp",
                 "Description":"Pando Media","Reference":"[RFC1]"}]"#,
        );
        assert_eq!(rows[0].names, ["ms-do"]);
        assert_eq!(rows[0].former, ["pando-pub"]);
        assert_eq!(rows[0].description, "Microsoft Delivery Optimization");
        assert_eq!(rows[0].reference, "");
    }

    #[test]
    fn ranges_come_from_the_older_registry_unless_a_key_in_them_has_a_name_today() {
        let older = r#"[{"ServiceName":"x11","PortNumber":"6000-6063","TransportProtocol":"tcp"},
                        {"ServiceName":"ircu","PortNumber":"6665-6669","TransportProtocol":"tcp"},
                        {"ServiceName":"swx","PortNumber":"7300-7359"}]"#;
        let rows = merged(r#"{"6667/tcp":["chat",""],"6001/udp":["other",""]}"#, older);
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.first, row.last, row.names[0].as_str()))
            .collect();
        assert_eq!(
            shown,
            [(6000, 6063, "x11"), (6001, 6001, "other"), (6667, 6667, "chat")]
        );
        assert_eq!(rows[0].keys(), 64);
    }

    #[test]
    fn what_only_the_older_registry_has_is_dropped() {
        let rows = merged(
            "{}",
            r#"[{"ServiceName":"ni-ftp","PortNumber":"47","TransportProtocol":"tcp"}]"#,
        );
        assert_eq!(rows, []);
    }

    #[test]
    fn rows_without_a_name_are_reserved_or_unassigned() {
        for (description, expected) in [
            ("Reserved", "Reserved"),
            ("Unassigned", "Unassigned"),
            ("unassigned", "Unassigned"),
            ("Unassigned [was netstat]", "Unassigned: was netstat"),
            ("De-registered", "Reserved: De-registered"),
            ("any private mail system", "Reserved: any private mail system"),
            ("", "Reserved"),
        ] {
            let rows = merged(&format!(r#"{{"4/tcp":["",{description:?}]}}"#), "[]");
            assert_eq!(rows[0].names, [""; 0]);
            assert_eq!(rows[0].description, expected);
        }
    }

    #[test]
    fn no_person_reaches_the_table() {
        let rows = merged(
            r#"{"22/tcp":["ssh","The Secure Shell"]}"#,
            r#"[{"ServiceName":"ssh","PortNumber":"22","TransportProtocol":"tcp","Description":"SSH",
                 "Assignee":"[Jane_Doe]","Contact":"[Jane_Doe]","Reference":"[Jane <jane&example.org>]",
                 "AssignmentNotes":"ask Jane"}]"#,
        );
        assert!(!format!("{rows:?}").contains("Jane"), "{rows:?}");
    }

    #[test]
    fn rows_are_sorted_by_port_then_protocol() {
        let rows = merged(
            r#"{"9/sctp":["d",""],"9/udp":["d",""],"9/tcp":["d",""],"9/dccp":["d",""],"7/udp":["e",""]}"#,
            "[]",
        );
        let order: Vec<_> = rows
            .iter()
            .map(|row| format!("{}/{}", row.first, row.transport))
            .collect();
        assert_eq!(order, ["7/udp", "9/tcp", "9/udp", "9/sctp", "9/dccp"]);
    }
}
