//! `portolan list`, run as a person or a program runs it, in network namespaces of its own.
#![cfg(target_os = "linux")]

#[path = "../../portolan-host/tests/private/mod.rs"]
mod private;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use private::{in_namespace, skipped};

fn portolan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(arguments)
        .env_remove("COLUMNS")
        .env_remove("LC_ALL")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Sockets of several kinds, held open.
struct Machine {
    _listeners: Vec<TcpListener>,
    _streams: Vec<TcpStream>,
    _datagrams: Vec<UdpSocket>,
}

fn machine() -> Machine {
    let addresses = [
        "0.0.0.0:22",
        "127.0.0.1:80",
        "127.0.0.2:1025",
        "[::]:443",
        "[::1]:8080",
        "127.0.0.1:40000",
    ];
    let listeners = addresses
        .iter()
        .map(|address| TcpListener::bind(address).unwrap())
        .collect::<Vec<_>>();
    let mut streams = Vec::new();
    for (listener, peer) in listeners.iter().zip([
        "127.0.0.1:22",
        "127.0.0.1:80",
        "127.0.0.2:1025",
        "127.0.0.1:443",
        "[::1]:8080",
        "127.0.0.1:40000",
    ]) {
        for _ in 0..2 {
            streams.push(TcpStream::connect(peer.parse::<SocketAddr>().unwrap()).unwrap());
            streams.push(listener.accept().unwrap().0);
        }
    }
    let plain = UdpSocket::bind("127.0.0.1:53").unwrap();
    let wildcard = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 5353)).unwrap();
    let connected = UdpSocket::bind("127.0.0.1:123").unwrap();
    connected.connect("127.0.0.1:53").unwrap();
    Machine {
        _listeners: listeners,
        _streams: streams,
        _datagrams: vec![plain, wildcard, connected],
    }
}

/// `tcp LOCAL REMOTE` of each socket that ss selects; `None` where ss refuses the expression.
fn by_ss(words: &[&str]) -> Option<BTreeSet<String>> {
    let output = Command::new("ss").arg("-Htuan").args(words).output().unwrap();
    if !output.status.success() || !output.stderr.is_empty() {
        return None;
    }
    let lines = stdout(&output).lines();
    // ss writes `*` for the dual-stack wildcard and for its absent peer.
    let end = |text: &str| match text.rsplit_once(':') {
        Some((_, "*")) => String::new(),
        Some(("*", port)) => format!("[::]:{port}"),
        _ => text.to_owned(),
    };
    Some(
        lines
            .map(|line| {
                // From the end: ss runs the state and the queue together where they fill their columns.
                let mut fields = line.split_whitespace();
                let remote = fields.next_back().unwrap();
                let local = fields.next_back().unwrap();
                format!("{} {} {}", fields.next().unwrap(), end(local), end(remote))
            })
            .collect(),
    )
}

fn by_portolan(words: &[&str]) -> BTreeSet<String> {
    let output = portolan(&[&["list", "-a", "-t", "-u", "-q", "--space", "host"], words].concat());
    assert!(
        matches!(output.status.code(), Some(0 | 1)),
        "{words:?}: {}",
        stderr(&output)
    );
    let lines = stdout(&output).lines();
    lines
        .map(|line| {
            let mut fields = line.split(' ');
            let mut next = || fields.next().unwrap_or("");
            format!("{} {} {}", next(), next(), next())
        })
        .collect()
}

#[test]
fn expressions_select_the_same_sockets_as_ss() {
    if Command::new("ss").arg("-V").output().is_err() {
        return skipped("expressions_select_the_same_sockets_as_ss: there is no ss (iproute2) here");
    }
    in_namespace("expressions_select_the_same_sockets_as_ss", || {
        let _machine = machine();
        let expressions = [
            "",
            "sport = :22",
            "sport = 22",
            "sport 22",
            "sport eq 0x16",
            "sport = 026",
            "sport = ssh",
            "dport = :https",
            "sport != :22",
            "dport neq 80",
            "sport > :1024",
            "sport gt 1024 sport lt 30000",
            "sport >= 80 and sport <= 443",
            "dport ge 443",
            "dport leq :80",
            "src 127.0.0.1",
            "src 127/8",
            "src 127.0.0.0/255.0.0.0",
            "src 127.0.0.1:80",
            "src = *:22",
            "dst 0.0.0.0/0",
            "dst ::/0",
            "dst [::1]",
            "src [::1]:8080",
            "src ::1:8080",
            "src ::/96",
            "dst any",
            "src inet6:[::1]",
            "sport = inet6:443",
            "dst localhost",
            "not src 127.0.0.0/8",
            "! sport = :22",
            "sport = :22 or sport = :80",
            "sport = :22 || dport = :22 | sport = :53",
            "sport = :22 or sport = :80 and dport > :1024",
            "sport = :22 or ( sport = :80 and dport > :1024 )",
            "not ( sport = :22 or dport = :22 )",
            "not sport = :22 dport > :1024",
            "sport = :22 and not dst 10.0.0.0/8",
            "src 127.0.0.1 && dst 127.0.0.1 && ! sport = :80",
            "dev lo",
            "dev != lo",
            "dev = 1",
        ];
        let mut nonempty = 0;
        for expression in expressions {
            // As one argument, and as several.
            let words = expression
                .split(' ')
                .filter(|word| !word.is_empty())
                .collect::<Vec<_>>();
            let expected = by_ss(&[expression]).unwrap_or_else(|| panic!("ss refuses {expression}"));
            assert_eq!(by_portolan(&[expression]), expected, "{expression}");
            assert_eq!(by_portolan(&words), expected, "{expression} as words");
            nonempty += usize::from(!expected.is_empty());
        }
        assert!(nonempty > 35, "only {nonempty} expressions selected anything");
        for states in [
            "state established",
            "state listening",
            "state connected",
            "state synchronized",
            "state bucket",
            "state big",
            "state all exclude listening",
            "exclude unconnected",
            "excl established",
            "state ESTABLISHED sport = :22",
        ] {
            let words = states.split(' ').collect::<Vec<_>>();
            assert_eq!(Some(by_portolan(&words)), by_ss(&words), "{states}");
        }
        for wrong in [
            "sport = :nosuch",
            "( sport = :22",
            "dst 10.0.0.0/33",
            "dev nosuch",
            "sport = :22 or",
        ] {
            assert_eq!(by_ss(&[wrong]), None, "{wrong}");
            assert_eq!(portolan(&[wrong]).status.code(), Some(2), "{wrong}");
        }
    });
}

#[test]
fn the_word_list_may_be_left_out() {
    in_namespace("the_word_list_may_be_left_out", || {
        let _machine = machine();
        let full = portolan(&["list", "--space", "host"]);
        assert_eq!(full.status.code(), Some(0), "{}", stderr(&full));
        let short = portolan(&["--space", "host"]);
        assert_eq!(stdout(&short), stdout(&full));
        let text = stdout(&full);
        for expected in [
            "0.0.0.0:22",
            "[::1]:8080",
            "every address (IPv4 too)",
            "this machine",
            "127.0.0.1:53",
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        // The test itself holds them.
        assert!(text.contains(&format!("({})", std::process::id())), "{text}");
        assert!(!text.contains("established"), "{text}");
        let all = portolan(&["-a", "--space", "host", "-H"]);
        assert!(stdout(&all).contains("established"));
        let verbose = portolan(&["-v", "list", "--space", "host"]);
        assert!(stderr(&verbose).contains("read by"), "{}", stderr(&verbose));
    });
}

#[test]
fn documents_can_be_read_by_programs() {
    in_namespace("documents_can_be_read_by_programs", || {
        let _machine = machine();
        let output = portolan(&["--json", "-a", "-i", "--space", "host"]);
        let document = serde_json::from_slice::<Value>(&output.stdout).unwrap();
        let sockets = document["sockets"].as_array().unwrap();
        assert_eq!(sockets.len(), 6 + 24 + 3);
        assert!(
            sockets
                .iter()
                .all(|socket| socket["owners"][0]["pid"] == std::process::id())
        );
        let connection = sockets
            .iter()
            .find(|socket| socket["state"] == "established")
            .unwrap();
        assert!(
            connection["tcp_info"]["snd_mss"].as_u64().unwrap() > 0,
            "{connection}"
        );
        let lines = portolan(&["--ndjson", "-a", "-i", "--space", "host"]);
        assert_eq!(stdout(&lines).lines().count(), sockets.len());
        let csv = portolan(&["--csv", "-a", "--space", "host"]);
        assert_eq!(stdout(&csv).split("\r\n").count(), sockets.len() + 2);
    });
}

#[test]
fn nothing_found_is_said_and_is_a_no_only_to_a_filter() {
    in_namespace("nothing_found_is_said_and_is_a_no_only_to_a_filter", || {
        let bare = portolan(&["--space", "host"]);
        assert_eq!((stdout(&bare), bare.status.code()), ("", Some(0)));
        assert!(
            stderr(&bare).contains("no socket is open in host"),
            "{}",
            stderr(&bare)
        );
        let filtered = portolan(&["8080", "--space", "host"]);
        assert_eq!((stdout(&filtered), filtered.status.code()), ("", Some(1)));
        assert!(
            stderr(&filtered).contains("that fits `8080`"),
            "{}",
            stderr(&filtered)
        );
        let slip = portolan(&["lst"]);
        assert_eq!((stdout(&slip), slip.status.code()), ("", Some(2)));
        assert!(
            stderr(&slip).contains("did you mean the command `portolan list`?"),
            "{}",
            stderr(&slip)
        );
        let json = portolan(&["--json", "lst"]);
        assert_eq!(
            (stdout(&json), stderr(&json).lines().count()),
            ("", 1),
            "{}",
            stderr(&json)
        );
        let swapped = portolan(&["-t", "who", "80"]);
        assert!(
            stderr(&swapped).contains("`portolan who 80`"),
            "{}",
            stderr(&swapped)
        );
        let meant = portolan(&["list", "lst"]);
        assert_eq!(meant.status.code(), Some(1));
        let json = portolan(&["--json", "8080"]);
        assert_eq!(json.status.code(), Some(1));
        let document = serde_json::from_slice::<Value>(&json.stdout).unwrap();
        assert_eq!(document["sockets"], Value::Array(Vec::new()));
    });
}

#[test]
fn a_wrong_command_line_is_one_line_on_standard_error() {
    for wrong in [
        &["70000"][..],
        &["--state", "nosuch"],
        &["--sort", "nosuch"],
        &["--json", "--csv"],
        &["-4", "-6"],
        &["--no-such-option"],
        &["--space", "no-such-space"],
        &["sport = \u{1b}[31m"],
        &["list", "80-"],
    ] {
        let output = portolan(wrong);
        assert_eq!(
            (stdout(&output), output.status.code()),
            ("", Some(2)),
            "{wrong:?}"
        );
        let text = stderr(&output);
        assert!(text.lines().count() == 1 && text.len() < 400, "{wrong:?}: {text}");
        assert!(!text.contains('\u{1b}'), "{wrong:?}: {text:?}");
    }
}

#[test]
fn a_closed_pipe_is_an_end_and_a_full_disk_is_not() {
    in_namespace("a_closed_pipe_is_an_end_and_a_full_disk_is_not", || {
        let _machine = machine();
        for format in ["--json", "--ndjson", "--csv", "-q", "-a"] {
            let mut child = Command::new(env!("CARGO_BIN_EXE_portolan"))
                .args([format, "--space", "host"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            drop(child.stdout.take());
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(0), "{format}: {text}");
            assert!(!text.contains("write"), "{format}: {text}");

            let full = File::options().write(true).open("/dev/full").unwrap();
            let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
                .args([format, "--space", "host"])
                .stdout(full)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(4), "{format}");
            assert!(
                stderr(&output).contains("cannot write to standard output"),
                "{format}"
            );
        }
    });
}

#[test]
fn columns_and_the_locale_are_obeyed() {
    in_namespace("columns_and_the_locale_are_obeyed", || {
        let _machine = machine();
        let narrow = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(["-a", "--space", "host"])
            .env("COLUMNS", "32")
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        let text = stdout(&narrow);
        assert!(text.is_ascii() && !text.is_empty());
        assert!(text.lines().all(|line| line.len() <= 32), "{text}");
        assert!(text.contains(":40000"), "{text}");
        assert!(stderr(&narrow).contains("columns left out at this width"));
    });
}

#[test]
fn a_raw_socket_of_a_process_that_cannot_be_seen_is_not_said_to_be_closed() {
    use std::os::fd::AsRawFd as _;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};
    let raw = match socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::ICMP),
    ) {
        Ok(raw) => raw,
        Err(error) => {
            eprintln!("skipped: no raw socket may be made: {error}");
            return;
        }
    };
    let link = std::fs::read_link(format!("/proc/self/fd/{}", raw.as_raw_fd())).unwrap();
    let inode = link
        .to_str()
        .unwrap()
        .trim_matches(|c: char| !c.is_ascii_digit())
        .to_owned();
    let output = Command::new("unshare")
        .args([
            "--pid",
            "--fork",
            "--mount-proc",
            env!("CARGO_BIN_EXE_portolan"),
            "list",
        ])
        .args(["--raw", "--space", "host", "--json"])
        .output()
        .unwrap();
    if output.stdout.is_empty() {
        eprintln!("skipped: no process namespace may be made: {}", stderr(&output));
        return;
    }
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sockets = document["sockets"].as_array().unwrap();
    let found = sockets
        .iter()
        .find(|socket| socket["inode"].as_u64() == inode.parse().ok())
        .unwrap();
    assert_eq!(found["ownerless"]["reason"], "other-pid-namespace", "{found}");
}
