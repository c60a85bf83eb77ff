//! `portolan who` against sockets that the tests make on loopback.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn who(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portolan"))
        .arg("who")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

/// A process that holds a listener and ends when it is told to, or when the test does.
struct Holder {
    child: Child,
    port: u16,
}

impl Holder {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        // `cat` with the listener as its standard output; it waits for its standard input to end.
        let child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::from(OwnedFd::from(listener)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_holder_is_told_in_full() {
    let holder = Holder::start();
    let output = who(&[&holder.port.to_string()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = text(&output.stdout);
    for part in [
        format!("{}/tcp", holder.port),
        format!(
            "cat (pid {}) listens on 127.0.0.1:{}",
            holder.child.id(),
            holder.port
        ),
        "    program     /".to_owned(),
        "    arguments   cat\n".to_owned(),
        "    directory   /".to_owned(),
        "    started     20".to_owned(),
        format!("({}) > cat ({})", std::process::id(), holder.child.id()),
    ] {
        assert!(told.contains(&part), "{part:?} is not in:\n{told}");
    }
}

#[test]
fn the_document_names_holders_sockets_and_connections() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let _server = listener.accept().unwrap();
    let _waiting = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let output = who(&[&format!("{port}/tcp"), "--space", "host", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["version"], 1);
    assert_eq!(document["holders"].as_array().unwrap().len(), 1, "{document}");
    let holder = &document["holders"][0];
    assert_eq!(holder["port"], port);
    assert_eq!(holder["protocol"], "tcp");
    assert_eq!(holder["pid"], std::process::id());
    assert_eq!(holder["ownerless"], Value::Null);
    assert_eq!(
        (&holder["connections"], &holder["waiting"]),
        (&Value::from(1), &Value::from(1))
    );
    assert_eq!(holder["ancestors"].as_array().unwrap().last().unwrap()["pid"], 1);
    let socket = &document["sockets"][0];
    assert_eq!(socket["state"], "listen");
    assert_eq!(socket["inode"], holder["inodes"][0]);
    assert_eq!(socket["owners"][0]["pid"], std::process::id());
    assert_eq!(document["hidden"]["owners"], 0);
}

#[test]
fn a_port_that_nobody_holds_is_a_no() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let output = who(&[&free.to_string(), "--space", "host"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(text(&output.stderr), format!("portolan: nobody holds {free}\n"));
    let output = who(&[&free.to_string(), "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["holders"], Value::Array(Vec::new()));
}

#[test]
fn a_protocol_narrows_the_question() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    // Somebody else may hold the same number for the other protocol.
    let protocols = |arguments: &[&str]| {
        let output = who(&[arguments, &["--space", "host", "--json"]].concat());
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let holders = document["holders"].as_array().unwrap().iter();
        holders
            .map(|holder| holder["protocol"].as_str().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    let port = port.to_string();
    let udp = BTreeSet::from(["udp".to_owned()]);
    assert!(protocols(&[&port]).contains("udp"));
    assert_eq!(protocols(&[&format!("{port}/udp")]), udp);
    assert_eq!(protocols(&[&port, "--udp"]), udp);
    assert!(!protocols(&[&format!("{port}/tcp")]).contains("udp"));
    assert!(!protocols(&[&port, "--tcp"]).contains("udp"));
}

#[test]
fn without_a_terminal_nothing_is_ended() {
    let mut holder = Holder::start();
    let output = who(&[&holder.port.to_string(), "--kill"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("--yes"), "{output:?}");
    assert!(!holder.has_ended());
}

#[test]
fn a_holder_is_ended_by_the_signal_that_was_asked_for() {
    use std::os::unix::process::ExitStatusExt as _;
    for (option, signal) in [
        ("--kill", 15),
        ("--kill=KILL", 9),
        ("--kill=SIGHUP", 1),
        ("--kill=2", 2),
    ] {
        let mut holder = Holder::start();
        let output = who(&[&holder.port.to_string(), option, "--yes"]);
        assert_eq!(output.status.code(), Some(0), "{option}: {output:?}");
        assert_eq!(holder.child.wait().unwrap().signal(), Some(signal), "{option}");
    }
    let output = who(&["1", "--kill=NONSENSE"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("NONSENSE"), "{output:?}");
}

#[test]
fn sockets_are_closed_and_their_program_lives() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let output = who(&[&port.to_string(), "--space", "host", "--close-socket", "--yes"]);
    match output.status.code() {
        Some(3) => {
            println!("skipped: closing sockets takes CAP_NET_ADMIN");
            assert!(text(&output.stderr).contains("CAP_NET_ADMIN"), "{output:?}");
            return;
        }
        code => assert_eq!(code, Some(0), "{output:?}"),
    }
    assert!(listener.accept().is_err(), "the listener still works");
    assert_eq!(
        client.read(&mut [0]).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    assert_eq!(
        server.read(&mut [0]).unwrap_err().kind(),
        std::io::ErrorKind::ConnectionAborted
    );
    assert_eq!(
        who(&[&port.to_string(), "--space", "host"]).status.code(),
        Some(1)
    );
}

#[test]
fn a_wrong_port_is_told_in_one_line() {
    for (word, part) in [
        ("70000", "70000"),
        ("80-", "80-"),
        ("nosuchservice", "nosuchservice"),
        ("80/ip", "ip"),
    ] {
        let output = who(&[word]);
        assert_eq!(output.status.code(), Some(2), "{word}: {output:?}");
        let told = text(&output.stderr);
        assert!(
            told.contains(part) && told.lines().count() == 1 && told.len() < 400,
            "{told}"
        );
        assert!(output.stdout.is_empty());
    }
    let output = who(&["80", "--space", "nowhere"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
