//! What the documents say of the source is there.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_source_path_that_a_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (mut named, mut missing) = (0, Vec::new());
    for document in documents(&root.join("docs")) {
        let text = fs::read_to_string(&document).unwrap();
        for path in paths(&text) {
            named += 1;
            if !root.join(path).exists() {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(missing.is_empty(), "no such files:\n{}", missing.join("\n"));
    assert!(named > 10, "the documents name {named} paths only");
}

fn documents(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect()
}

/// What looks like a path below the root of the repository, with its line number, if any, cut off.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|letter: char| letter.is_whitespace() || "`()[]|,;\"".contains(letter));
    words
        .filter(|word| {
            ["crates/", "bench/", "fuzz/", "docs/"]
                .iter()
                .any(|top| word.starts_with(top))
        })
        .map(|word| {
            word.split(['#', ':'])
                .next()
                .unwrap_or(word)
                .trim_end_matches('.')
        })
        .filter(|word| !word.contains(['*', '<', '{', '$']))
}

#[test]
fn paths_are_found_in_prose_tables_and_links() {
    let text = "see `crates/a/src/b.rs`, [x](docs/y.md#part) or crates/c/d.rs:12. Not crates/*/e or src/f.";
    let found = paths(text).collect::<Vec<_>>();
    assert_eq!(found, ["crates/a/src/b.rs", "docs/y.md", "crates/c/d.rs"]);
}

#[test]
fn every_field_of_the_documents_is_described() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let described = fs::read_to_string(root.join("docs/json.md")).unwrap();
    let questions: [&[&str]; 4] = [
        &[
            "parse",
            "http://u@[::1]:8080/api?x=1",
            "127.0.0.1:8000-8001:9000-9001/udp",
            "22,https",
        ],
        &["name", "https", "x11", "no-such-name"],
        &["pick", "2"],
        &["list", "--all"],
    ];
    for question in questions {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(question)
            .arg("--json")
            .output()
            .unwrap();
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut fields = std::collections::BTreeSet::new();
        collect_fields(&document, &mut fields);
        assert!(fields.len() > 3, "{question:?}: {document}");
        for field in fields {
            let named = [format!("`{field}`"), format!(".{field}`")];
            assert!(
                named.iter().any(|named| described.contains(named)),
                "docs/json.md does not describe {field} of {question:?}"
            );
        }
    }
}

fn collect_fields(value: &serde_json::Value, fields: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                fields.insert(name.clone());
                collect_fields(value, fields);
            }
        }
        serde_json::Value::Array(elements) => elements
            .iter()
            .for_each(|element| collect_fields(element, fields)),
        _ => {}
    }
}
