//! What every command owes: examples in its help, a manual page, and a place in the completions.

use std::fs;
use std::process::{Command, Output};

fn portolan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = portolan(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands, as the help lists them.
fn commands() -> Vec<String> {
    let help = stdout(&["--help"]);
    let list = help.split_once("Commands:\n").unwrap().1;
    let names: Vec<String> = list
        .lines()
        .take_while(|line| !line.trim().is_empty())
        // A description that needs more lines is set further in.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .filter(|name| name != "help")
        .collect();
    assert!(names.iter().any(|name| name == "name"), "{help}");
    names
}

#[test]
fn every_command_shows_examples() {
    for name in commands() {
        let help = stdout(&[&name, "--help"]);
        let examples = help.split_once("Example").map(|(_, examples)| examples);
        assert!(
            examples.is_some_and(|text| text.contains("portolan")),
            "{name} --help has no examples:\n{help}"
        );
        // Text that is wider would be wrapped in the middle of its own lines.
        for line in examples.unwrap().lines() {
            assert!(line.chars().count() < 80, "{name}: {line}");
        }
    }
}

#[test]
fn every_command_has_a_manual_page_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("share/man1");
    assert_eq!(stdout(&["man", "--dir", pages.to_str().unwrap()]), "");
    let scripts = ["bash", "zsh", "fish"].map(|shell| (shell, stdout(&["completions", shell])));
    assert!(pages.join("portolan.1").is_file());
    for name in commands() {
        let page = fs::read_to_string(pages.join(format!("portolan-{name}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
        assert!(stdout(&["man", &name]).contains(&format!("portolan\\-{}", name.replace('-', "\\-"))));
        for (shell, script) in &scripts {
            assert!(
                script.contains(name.as_str()),
                "{name} in the completions of {shell}"
            );
        }
    }
}

#[test]
fn pages_that_cannot_be_written_are_an_error_with_its_reason() {
    let output = portolan(&["man", "--dir", "/dev/null/pages"]);
    assert_eq!(output.status.code(), Some(4));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.starts_with("portolan: cannot write manual pages into /dev/null/pages: "),
        "{message}"
    );
    assert_eq!(portolan(&["man", "nonesuch"]).status.code(), Some(2));
}
