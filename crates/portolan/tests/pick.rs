//! `portolan pick`, run as a person or a program runs it.
#![cfg(target_os = "linux")]

mod unshared;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};

fn portolan() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.arg("pick");
    command
}

fn pick(arguments: &[&str]) -> Output {
    portolan().args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A program that runs until its input is closed, and the first line that it printed.
fn held(arguments: &[&str]) -> (Child, String) {
    let mut child = portolan()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, line.trim_end().to_owned())
}

fn end(mut child: Child) -> Option<i32> {
    drop(child.stdin.take());
    child.wait().unwrap().code()
}

#[test]
fn ports_are_distinct_and_free() {
    let output = pick(&["8", "--both"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let ports: BTreeSet<u16> = stdout(&output)
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!(ports.len(), 8);
}

#[test]
fn more_ports_than_descriptors_can_be_printed() {
    let script = format!(
        "ulimit -n 64; exec {:?} pick 500 --range 20000-65000",
        env!("CARGO_BIN_EXE_portolan")
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let ports: BTreeSet<&str> = stdout(&output).lines().collect();
    assert_eq!((ports.len(), stderr(&output)), (500, ""));
}

#[test]
fn json_is_one_document() {
    let output = pick(&["--json", "--udp", "--address", "127.0.0.1"]);
    let text = stdout(&output);
    let document: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(document["version"], 1);
    assert_eq!(document["protocols"], serde_json::json!(["udp"]));
    assert_eq!(document["address"], "127.0.0.1");
    assert!(document["ports"][0].as_u64().unwrap() > 0, "{text}");
}

#[test]
fn when_too_few_are_free_the_answer_is_no() {
    let taken = unshared::listener();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = pick(&["--range", &port]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    assert_eq!(
        stderr(&output),
        "portolan: 0 of 1 free ports found among 1; widen the range or free some\n"
    );
    // UDP's ports are others.
    assert_eq!(
        pick(&["--range", &port, "--udp", "--address", "127.0.0.1"])
            .status
            .code(),
        Some(0)
    );
}

#[test]
fn usage_errors_are_one_line() {
    let cases: &[(&[&str], &str)] = &[
        (&["--range", "80-"], "at 3: the end of the range is missing"),
        (&["--address", "[::1"], "at 0: the bracket is never closed"),
        (&["0"], "0"),
        (&["--hold"], "--hold needs a program"),
        (&["--", "true"], "--hold"),
    ];
    for (arguments, part) in cases {
        let output = pick(arguments);
        let text = stderr(&output);
        assert_eq!(
            (output.status.code(), stdout(&output)),
            (Some(2), ""),
            "{arguments:?}"
        );
        assert!(
            text.contains(part) && text.lines().count() == 1,
            "{arguments:?}: {text}"
        );
    }
}

#[test]
fn a_held_tcp_port_listens_while_the_program_runs() {
    let (child, line) = held(&["--hold", "--", "sh", "-c", "echo {}; cat >&2; exit 7"]);
    let port: u16 = line.parse().unwrap();
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    match TcpStream::connect((Ipv6Addr::LOCALHOST, port)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            println!("skipped: this machine has no IPv6 loopback: {error}");
        }
        Err(error) => panic!("{error}"),
    }
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let again = pick(&["--range", &port.to_string()]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(end(child), Some(7));
    let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_held_udp_port_is_bound_while_the_program_runs() {
    let (child, line) = held(&[
        "--udp",
        "--hold",
        "--",
        "sh",
        "-c",
        "echo {} $LISTEN_FDNAMES; cat >&2",
    ]);
    let (port, name) = line.split_once(' ').unwrap();
    assert_eq!(name, format!("udp-{port}"));
    let port: u16 = port.parse().unwrap();
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    // TCP's port of the same number is not held.
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    assert_eq!(end(child), Some(0));
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
}

#[test]
fn the_program_finds_what_sd_listen_fds_promises_and_no_more() {
    let script = "echo $LISTEN_FDS $LISTEN_FDNAMES {1} {2}; [ $LISTEN_PID = $$ ] && ls /proc/$$/fd";
    let output = pick(&["2", "--both", "--hold", "--", "sh", "-c", script]);
    let mut lines = stdout(&output).lines();
    let facts: Vec<&str> = lines.next().unwrap().split(' ').collect();
    let [count, names, first, second] = facts[..] else {
        panic!("{facts:?}")
    };
    assert_eq!(count, "4");
    assert_eq!(
        names,
        format!("tcp-{first}:udp-{first}:tcp-{second}:udp-{second}")
    );
    // What the test itself was started with is inherited with and without the command.
    let bare = Command::new("sh")
        .args(["-c", "ls /proc/$$/fd"])
        .output()
        .unwrap();
    let mut expected: BTreeSet<&str> = stdout(&bare).lines().collect();
    expected.extend(["3", "4", "5", "6"]);
    assert_eq!(lines.collect::<BTreeSet<_>>(), expected);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_descriptor_that_was_open_already_does_not_get_in_the_way() {
    let script = format!(
        "exec {:?} pick --hold -- readlink /proc/self/fd/3 3</dev/null 4</dev/null",
        env!("CARGO_BIN_EXE_portolan")
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(stdout(&output).starts_with("socket:["), "{}", stdout(&output));
}

#[test]
fn a_program_that_cannot_run_has_the_shells_exit_codes() {
    let output = pick(&["--hold", "--", "/nonexistent/program\u{1b}"]);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(
        stderr(&output),
        "portolan: cannot run /nonexistent/program\\x1b: not found\n"
    );
    let output = pick(&["--hold", "--", "/dev/null"]);
    assert_eq!(output.status.code(), Some(126));
}

#[test]
fn without_the_separator_the_program_may_follow_hold() {
    let output = pick(&["--hold", "echo", "{}"]);
    assert!(stdout(&output).trim_end().parse::<u16>().unwrap() > 0);
}
