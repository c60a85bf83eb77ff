//! The single facts about Linux 6.18 in `data/behaviours.csv`: each is shown on the table, or named as none
//! of its business.

mod bind;
mod connect;
mod deliver;
mod host;
#[path = "../../examples/replay/session.rs"]
mod session;

const ROWS: &str = include_str!("../data/behaviours.csv");

/// What the kernel answered, in the row with this id.
pub(crate) fn kernel(id: &str) -> &'static str {
    let row = ROWS
        .lines()
        .find(|line| line.split(',').next() == Some(id))
        .unwrap_or_else(|| panic!("no row {id}"));
    // Only the last of the three fields matters; it is quoted if it holds a comma.
    match row.strip_suffix('"') {
        Some(row) => &row[row.rfind(",\"").unwrap() + 2..],
        None => &row[row.rfind(',').unwrap() + 1..],
    }
}

/// Rows that are shown by the tests of this target, all of the row or the part that concerns the table.
const SHOWN: [&str; 79] = [
    "A1", "A4", "A5", "A6", "A7", "B2", "B4", "B5", "B6", "B7", "B7b", "B8", "B9", "B10", "B11", "B12",
    "B13", "B13u", "B14", "B15", "B16", "B17", "B18", "B19", "B20", "B21", "B21b", "B23", "B24", "B25",
    "B26", "B27", "C1", "C2", "C3", "C4", "C4b", "C5", "C6", "C7", "C8", "C8b", "C10", "C11", "C12", "D1",
    "D2", "E1", "E2", "E3", "E3b", "E4", "E4b", "E5", "E6", "E7", "E8", "E10", "E11", "E17", "E27", "F1",
    "F2", "F3", "F4", "F5", "F5b", "F5c", "F5d", "F5e", "F5f", "F5g", "F6", "F7", "F8", "F16", "F17", "G1",
    "G2",
];

/// Rows that are none of the table's business, and whose they are.
const ELSEWHERE: [(&str, &[&str]); 8] = [
    ("how addresses are written in memory", &["A2", "B1", "B3"]),
    (
        "what is sent on the wire",
        &["A3", "E13", "E14", "E15", "E16", "G5", "G6"],
    ),
    ("descriptors, and who accepts", &["B22", "B25b"]),
    (
        "timestamps, and states within a connection",
        &["C7b", "C9", "C13", "E18", "E19", "E20", "E20b", "G3", "G4", "G7"],
    ),
    (
        "the hole of automatic connects, where either answer is right",
        &["C4c"],
    ),
    ("capabilities of user namespaces", &["D3"]),
    (
        "queues of a listener, half-open connections, the receiving processor",
        &["E9", "E12", "E21", "E22", "E23", "E24", "E25", "E28"],
    ),
    (
        "transparent routes, ICMP limits and errors, checksums and lengths, kernel defaults",
        &["E26", "F9", "F10", "F11", "F12", "F13", "F14", "F15", "Z1"],
    ),
];

#[test]
fn every_row_is_shown_or_named_as_elsewhere() {
    let elsewhere: Vec<_> = ELSEWHERE
        .iter()
        .flat_map(|(_, ids)| ids.iter().copied())
        .collect();
    let mut rows = 0;
    for line in ROWS.lines().skip(1) {
        let id = line.split(',').next().unwrap();
        let shown = SHOWN.contains(&id);
        assert!(
            shown != elsewhere.contains(&id),
            "row {id} is in one list exactly"
        );
        rows += 1;
    }
    assert_eq!(rows, SHOWN.len() + elsewhere.len());
    println!(
        "behaviours: {rows} rows, {} shown on the table, {} elsewhere",
        SHOWN.len(),
        elsewhere.len()
    );
}
