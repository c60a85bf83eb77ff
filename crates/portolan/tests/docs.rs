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
