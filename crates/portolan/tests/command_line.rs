//! What every command owes to whoever gets the command line wrong: one short line that can do no harm, and
//! the code that says so.
#![cfg(target_os = "linux")]

mod unshared;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Output, Stdio};

use portolan_core::is_printable;

fn portolan<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// The only line on standard error, of a command that printed nothing else.
fn only_line<'a>(what: &str, code: i32, output: &'a Output) -> &'a str {
    assert_eq!(
        (output.status.code(), &*output.stdout),
        (Some(code), &b""[..]),
        "{what}: {output:?}"
    );
    let line = stderr(output).strip_suffix('\n').unwrap();
    assert!(line.chars().all(is_printable), "{what}: {line:?}");
    assert!(
        line.chars().count() < 400,
        "{what}: {} characters: {line}",
        line.chars().count()
    );
    line
}

/// Any code of a failure.
const ANY: i32 = -1;

#[test]
fn no_error_steers_the_terminal_or_fills_it() {
    let steering = [
        "q\u{1b}[31m\nx",
        "q\u{202e}x",
        "q\u{85}\u{9b}31m",
        "\nUsage: x",
        "tip: \r",
    ];
    let long = "9".repeat(9000);
    let wide = "語\u{1b}".repeat(3000);
    for text in steering.into_iter().chain([long.as_str(), wide.as_str()]) {
        let attached = |option: &str| format!("{option}{text}");
        let path = format!("/nonexistent/{text}");
        let cases: &[(i32, &[&str])] = &[
            (2, &["--space", text]),
            (2, &["who", "--space", text, "80"]),
            (2, &["--sort", text]),
            (2, &["--sort", &format!("port,{text}")]),
            (2, &["--state", text]),
            (2, &["-o", text]),
            (2, &["pick", text]),
            (2, &["pick", "--range", text]),
            (2, &["pick", "--address", text]),
            (ANY, &["pick", "--hold", &path]),
            (2, &["completions", text]),
            (2, &["man", text]),
            (2, &["man", "name", text]),
            (2, &["who", "80", &attached("--kill=")]),
            (2, &["who", "80", "--kill", text]),
            (2, &[&attached("--option")]),
            (2, &["name", &attached("--option")]),
            (2, &[&attached("--json=")]),
            (2, &["parse", text]),
            (4, &["name", "--services", &path, "80"]),
            (ANY, &["decode", &path]),
        ];
        for (code, arguments) in cases {
            let what = format!("{:.40?}", arguments);
            let output = portolan(*arguments);
            // What a path leads to depends on its length too.
            let code = match *code {
                ANY => output.status.code().filter(|code| *code > 1).unwrap(),
                code => code,
            };
            only_line(&what, code, &output);
        }
    }
    let huge = format!("--{}", "o".repeat(100_000));
    assert!(only_line("100 KB", 2, &portolan([&huge])).ends_with("see portolan --help"));
}

#[test]
fn what_is_wrong_is_said_in_whole_sentences_with_the_remedy() {
    let cases: &[(&[&str], &str)] = &[
        (&["who"], "<PORT>... is required; see portolan who --help"),
        (
            &["pick", "abc"],
            "[N] \"abc\": the number of ports, 1 to 65535, belongs there",
        ),
        (&["pick", "0"], "the number of ports, 1 to 65535"),
        (
            &["pick", "--range", "0"],
            "\"0\" leaves no port to choose from; ports to pick are 1 to 65535",
        ),
        (
            &["pick", "--hold"],
            "--hold needs a program to run; write it last: portolan pick --hold -- COMMAND",
        ),
        (&["pick", "--hold", "--"], "--hold needs a program to run"),
        (
            &["pick", "--hold", "--json"],
            "all that follows --hold is the program",
        ),
        (
            &["pick", "--hold", "3", "--", "true"],
            "something stands before --",
        ),
        (&["who", "8080", "--kill", "KILL"], "--kill=KILL"),
        (&["--space", ""], "--space <SPACE> wants a value"),
        (&["decode", "--max-flows", "x"], "a whole number belongs there"),
        (&["--jso"], "there is no option --jso; did you mean --json?"),
        (&["-o", "jsn"], "\"jsn\" is no value of --output <FORMAT>"),
        (&["--json", "--csv"], "--json and --csv exclude each other"),
        (
            &["man", "a", "b"],
            "\"b\" is one argument too many; see portolan man --help",
        ),
        (
            &["80,,443"],
            "a port is missing at the comma; write one comma between two ports (at 3)",
        ),
        (&["10.77.0.0/33"], "(at 10)"),
        (&["+80"], "a port has no sign"),
        (&["٨٠"], "is not an ASCII digit"),
        (&["who", "1012/foo"], "cannot read \"1012/foo\" at 5"),
    ];
    for (arguments, expected) in cases {
        let output = portolan(*arguments);
        let line = only_line(&format!("{arguments:?}"), 2, &output);
        assert!(line.contains(expected), "{arguments:?}: {line}");
    }
}

#[test]
fn an_argument_that_is_not_text_is_shown_with_the_place() {
    for command in ["parse", "who", "name", "list"] {
        let output = portolan([OsStr::new(command), OsStr::from_bytes(b"80\xff")]);
        let line = only_line(command, 2, &output);
        assert!(
            line.contains(r#"cannot read "80\xff" at 2: it is not UTF-8; write it in UTF-8"#),
            "{line}"
        );
    }
}

#[test]
fn all_that_follows_hold_is_the_program() {
    for arguments in [
        &["pick", "--hold", "sh", "-c", "echo $0 $1", "-l", "{}"][..],
        &["pick", "--hold", "--", "sh", "-c", "echo $0 $1", "-l", "{}"],
        &["pick", "--hold", "sh", "-c", "echo $1 $2", "--", "-l", "{}"],
    ] {
        let output = portolan(arguments);
        assert_eq!(stderr(&output), "", "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let port = text.trim_end().strip_prefix("-l ").unwrap();
        assert!(port.parse::<u16>().unwrap() > 0, "{arguments:?}: {text}");
    }
}

#[test]
fn help_that_cannot_be_written_is_an_error_and_a_closed_pipe_is_none() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["-V"],
        &["help"],
        &["help", "who"],
        &["who", "--help"],
    ] {
        let run = |stdout: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
            command.args(arguments).stdout(stdout).output().unwrap()
        };
        let full = run(File::options().write(true).open("/dev/full").unwrap().into());
        assert_eq!(full.status.code(), Some(4), "{arguments:?}");
        assert!(
            stderr(&full).contains("cannot write to standard output"),
            "{arguments:?}: {full:?}"
        );
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = run(writer.into());
        assert_eq!(
            (closed.status.code(), stderr(&closed)),
            (Some(0), ""),
            "{arguments:?}"
        );
        let whole = portolan(arguments);
        assert_eq!(
            (whole.status.code(), stderr(&whole)),
            (Some(0), ""),
            "{arguments:?}"
        );
        assert!(
            whole.stdout.starts_with(b"portolan ") || whole.stdout.len() > 500,
            "{whole:?}"
        );
    }
}

#[test]
fn each_port_that_nobody_holds_is_named() {
    let listener = unshared::listener();
    let held = listener.local_addr().unwrap().port();
    let free = unshared::port();
    let word = format!("{free}/tcp");
    let output = portolan(["who", &held.to_string(), &word, "--space", "host"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        stderr(&output).contains(&format!("portolan: nobody holds {word}\n")),
        "{output:?}"
    );
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(&format!("{held}/tcp")),
        "{output:?}"
    );
}

#[test]
fn every_command_escapes_in_the_same_form() {
    for arguments in [
        ["parse", "8\u{1b}0"],
        ["name", "8\u{1b}0"],
        ["who", "8\u{1b}0"],
        ["-o", "8\u{1b}0"],
    ] {
        let output = portolan(arguments);
        let line = only_line(arguments[0], 2, &output);
        assert!(line.contains(r"8\x1b0") && !line.contains(r"\u{1b}"), "{line}");
    }
}
