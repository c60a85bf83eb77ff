//! docs/tcp.md says which test shows what: each that it names must be there.

use std::fs;
use std::path::{Path, PathBuf};

/// Every source file below `at`.
fn sources(at: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(at).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.clone(), fs::read_to_string(path).unwrap()));
        }
    }
}

/// Whether the file is the module of this name, or in its folder.
fn is_module(path: &Path, name: &str) -> bool {
    let mut parts = path.components().map(|part| part.as_os_str());
    path.file_stem().is_some_and(|stem| stem == name) || parts.any(|part| part == name)
}

#[test]
fn every_test_that_the_checklist_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for name in ["portolan-core", "portolan-stack", "portolan-net"] {
        for part in ["src", "tests"] {
            sources(&root.join("crates").join(name).join(part), &mut files);
        }
    }
    let checklist = fs::read_to_string(root.join("docs/tcp.md")).unwrap();
    let mut checked = 0;
    for row in checklist.lines().filter(|line| line.starts_with('|')) {
        // What stands between back quotes, `module::test` at its end; a module alone is `module::*`.
        for name in row.split('`').skip(1).step_by(2) {
            let mut parts = name.rsplit([':', ' ', '/']).filter(|part| !part.is_empty());
            let (Some(test), Some(module)) = (parts.next(), parts.next()) else {
                continue;
            };
            let module = module.strip_suffix(".rs").unwrap_or(module);
            if !name.contains("::") || module.starts_with(char::is_uppercase) {
                continue;
            }
            let definition = if test == "*" {
                "#[test]".to_owned()
            } else {
                format!("fn {test}(")
            };
            let mut of_module = files.iter().filter(|(path, _)| is_module(path, module));
            assert!(
                of_module.any(|(_, text)| text.contains(&definition)),
                "docs/tcp.md names {name}, which is not there"
            );
            checked += 1;
        }
    }
    assert!(checked > 150, "only {checked} names were read");
}
