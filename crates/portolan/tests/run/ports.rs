//! Ports in and names out, in a network of the test's own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::network::script_in_network;
use crate::users::{as_each_user, has_python, skipped};
use crate::{portolan, run, stderr, stdout};

/// Serves one connection after the other: says who the client is.
const SERVER: &str = r#"
import socket
server = socket.create_server(("", 80))
print("ready", flush=True)
while True:
    stream, peer = server.accept()
    stream.sendall(peer[0].encode())
    stream.close()
"#;

/// A server inside, published at a port that is chosen; gives that port.
fn served(arguments: &[&str]) -> (Child, u16) {
    let mut child = portolan()
        .args(["-p", "0:80"])
        .args(arguments)
        .args(["--", "python3", "-c", SERVER])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut chosen = String::new();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    errors.read_line(&mut chosen).unwrap();
    let port = chosen
        .strip_prefix("portolan: published ")
        .and_then(|rest| rest.split_once("/tcp -> 80"))
        .unwrap_or_else(|| panic!("{chosen}"))
        .0
        .parse()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, port)
}

fn said_by(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

fn end(mut child: Child) {
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&child),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    child.wait().unwrap();
}

#[test]
fn a_published_port_leads_to_the_program_and_is_free_when_it_ends() {
    as_each_user(
        "ports::a_published_port_leads_to_the_program_and_is_free_when_it_ends",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            let (child, port) = served(&[]);
            let peer = said_by(port);
            assert!(
                peer.starts_with("10."),
                "this host appears as the gateway, not {peer}"
            );
            end(child);
            TcpListener::bind(("127.0.0.1", port)).unwrap();
        },
    );
}

#[test]
fn a_port_that_is_taken_names_its_holder_and_nothing_starts() {
    as_each_user(
        "ports::a_port_that_is_taken_names_its_holder_and_nothing_starts",
        || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let mapping = format!("127.0.0.1:{port}:80");
            let output = run(&["-p", "127.0.0.1:0:81", "-p", &mapping, "--", "echo", "ran"]);
            let text = stderr(&output);
            assert_eq!((output.status.code(), stdout(&output)), (Some(125), ""), "{text}");
            let holder = format!("(pid {})", std::process::id());
            assert!(
                text.contains(&mapping[..mapping.len() - 3]) && text.contains(&holder),
                "{text}"
            );
        },
    );
}

#[test]
fn more_ports_than_descriptors_are_counted_and_nothing_starts() {
    as_each_user(
        "ports::more_ports_than_descriptors_are_counted_and_nothing_starts",
        || {
            let output = Command::new("sh")
                .args(["-c", "ulimit -n 1000 && exec \"$0\" \"$@\""])
                .arg(env!("CARGO_BIN_EXE_portolan"))
                .args(["run", "-p", "127.0.0.2:1-65535:1-65535/both", "--", "echo", "ran"])
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let text = stderr(&output);
            assert_eq!((output.status.code(), stdout(&output)), (Some(125), ""), "{text}");
            let fitting = text
                .split_once("may have 1000 (RLIMIT_NOFILE, ulimit -Hn), enough for ")
                .and_then(|(_, rest)| rest.split_once(';'))
                .unwrap_or_else(|| panic!("{text}"));
            let fitting: u64 = fitting.0.parse().unwrap();
            assert!((800..1000).contains(&fitting), "{text}");
        },
    );
}

#[test]
fn every_process_ends_and_every_port_is_free_when_run_is_killed() {
    as_each_user(
        "ports::every_process_ends_and_every_port_is_free_when_run_is_killed",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            let (mut child, port) = served(&[]);
            assert!(said_by(port).starts_with("10."));
            let program = children(child.id());
            assert!(!program.is_empty());
            child.kill().unwrap();
            child.wait().unwrap();
            let until = Instant::now() + Duration::from_secs(10);
            while program.iter().any(|pid| is_alive(*pid)) || TcpListener::bind(("127.0.0.1", port)).is_err()
            {
                assert!(Instant::now() < until, "{program:?} or port {port} are left");
                std::thread::sleep(Duration::from_millis(5));
            }
        },
    );
}

/// Every process below one.
fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let direct: Vec<u32> = text.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    direct
        .iter()
        .copied()
        .chain(direct.iter().flat_map(|pid| children(*pid)))
        .collect()
}

/// Whether it runs; one that has ended and that nobody has taken leave of does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[test]
fn it_is_said_once_that_this_host_lets_nobody_ping() {
    script_in_network(
        "ports::it_is_said_once_that_this_host_lets_nobody_ping",
        &["ping"],
        r#"
        # A new network is one where nobody may.
        # A copy has no capabilities of a file, which nobody inside could have.
        cp "$(command -v ping)" ping
        run -- ./ping -c 3 -i 0.2 -W 5 $V4 >answers 2>said && exit 1
        has "$(cat answers)" "3 packets transmitted, 0 received"
        same "$(grep -c 'no-ping' said)" 1
        has "$(cat said)" "sysctl -w net.ipv4.ping_group_range"
        "#,
    );
}

#[test]
fn names_are_looked_up_at_the_gateway() {
    as_each_user("ports::names_are_looked_up_at_the_gateway", || {
        if !std::path::Path::new("/etc/resolv.conf").exists() {
            return skipped("no /etc/resolv.conf");
        }
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap();
        let output = run(&["--no-out", "--", "cat", "/etc/resolv.conf"]);
        let inside = stdout(&output);
        assert!(inside.starts_with("nameserver 10.") && inside != host, "{inside}");
        assert_eq!(std::fs::read_to_string("/etc/resolv.conf").unwrap(), host);
    });
}

#[test]
fn what_is_denied_is_told_and_reported() {
    as_each_user("ports::what_is_denied_is_told_and_reported", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let report = directory.path().join("report.json");
        let dial = "import socket\nfor _ in range(3):\n  try: socket.create_connection(('203.0.113.9', 25), 20)\n  \
                    except OSError as error: print(error.errno)";
        let mut output = portolan();
        output
            .args(["--allow-out", "203.0.113.1:443", "--report"])
            .arg(&report);
        let output = output.args(["--", "python3", "-c", dial]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(
            stderr(&output),
            "denied: 3 connections to 203.0.113.9:25 (no rule allows it)\n"
        );
        // EHOSTUNREACH, at once.
        assert_eq!(stdout(&output), "113\n113\n113\n");
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        assert_eq!(report["version"], 1);
        assert_eq!(report["denied"][0]["count"], 3);
        assert_eq!(report["denied"][0]["address"], "203.0.113.9");
        assert_eq!(report["allowed"].as_array().unwrap().len(), 0);
    });
}

#[test]
fn what_was_learnt_is_a_policy() {
    as_each_user("ports::what_was_learnt_is_a_policy", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let server = std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                stream.unwrap().write_all(b"ahoy").unwrap();
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy").to_str().unwrap().to_owned();
        let dial = format!(
            "import socket\nname = [line.split()[1] for line in open('/etc/resolv.conf') if line.startswith('nameserver 1')][0]\n\
             print(socket.create_connection((name, {port}), 20).recv(9))"
        );
        let arguments = [
            "--allow-host",
            &port,
            "--learn",
            &file,
            "--",
            "python3",
            "-c",
            &dial,
        ];
        let output = run(&arguments);
        assert_eq!(stdout(&output), "b'ahoy'\n", "{}", stderr(&output));
        assert_eq!(
            std::fs::read_to_string(&file).unwrap().trim(),
            format!("no-out\nallow-host {port}")
        );
        let output = run(&["--policy", &file, "--", "python3", "-c", &dial]);
        assert_eq!(stdout(&output), "b'ahoy'\n", "{}", stderr(&output));
        server.join().unwrap();
    });
}
