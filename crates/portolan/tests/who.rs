//! `portolan who` against sockets that the tests make on loopback.
#![cfg(target_os = "linux")]

mod unshared;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// One test at a time: a process that another thread has just forked holds the sockets of this one until it executes
/// its program, and would be found.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

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
        let listener = unshared::listener();
        let port = listener.local_addr().unwrap().port();
        Self::of(listener.into(), port)
    }

    fn of(socket: OwnedFd, port: u16) -> Self {
        // `cat` with the socket as its standard error; it waits for its standard input to end.
        let child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::from(socket))
            .spawn()
            .unwrap();
        Self { child, port }
    }

    /// In a network namespace of its own, where this machine allows one. Everywhere else says so.
    fn start_elsewhere(port: u16) -> Option<Self> {
        let script = "ip link set lo up && exec \"$0\" pick --address 127.0.0.1 --range \"$1\" --hold \
                      sh -c 'echo ready; exec cat'";
        let mut child = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-c", script])
            .args([env!("CARGO_BIN_EXE_portolan"), &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let holder = Self { child, port };
        if line.trim() != "ready" {
            eprintln!("skipped: no network namespace can be made here");
            return None;
        }
        Some(holder)
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
    let _alone = alone();
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
    let _alone = alone();
    let listener = unshared::listener();
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
    let _alone = alone();
    let free = unshared::port();
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
    let _alone = alone();
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
    let _alone = alone();
    let mut holder = Holder::start();
    let output = who(&[&holder.port.to_string(), "--kill"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("--yes"), "{output:?}");
    assert!(!holder.has_ended());
}

#[test]
fn a_holder_is_ended_by_the_signal_that_was_asked_for() {
    let _alone = alone();
    use std::os::unix::process::ExitStatusExt as _;
    for (option, signal) in [
        ("--kill", 15),
        ("--kill=KILL", 9),
        ("--kill=SIGUSR1", 10),
        ("--kill=12", 12),
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
    let _alone = alone();
    let listener = unshared::listener();
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

/// A connection from `local` to `remote`, held by a process of its own.
fn connected(local: SocketAddrV4, remote: SocketAddrV4) -> Holder {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
    let connection = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&connection, true).unwrap();
    bind(&connection, &local).unwrap();
    connect(&connection, &remote).unwrap();
    Holder::of(connection, local.port())
}

#[test]
fn those_who_are_merely_connected_from_the_port_are_left_alone() {
    let _alone = alone();
    let server = unshared::listener();
    let remote = SocketAddrV4::new(Ipv4Addr::LOCALHOST, server.local_addr().unwrap().port());
    let mut holder = Holder::start();
    let local = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 2), holder.port);
    let mut client = connected(local, remote);
    let port = holder.port.to_string();

    let output = who(&[&port, "--kill", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    holder.child.wait().unwrap();
    assert!(!client.has_ended(), "{output:?}");

    // Nobody else keeps the port taken now.
    let output = who(&[&port, "--kill", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    client.child.wait().unwrap();
}

#[test]
fn the_same_number_in_another_port_space_is_left_alone_until_that_is_named() {
    let _alone = alone();
    let mut holder = Holder::start();
    let port = holder.port.to_string();
    let Some(mut stranger) = Holder::start_elsewhere(holder.port) else {
        return;
    };

    let output = who(&[&port, "--kill", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    holder.child.wait().unwrap();
    assert!(!stranger.has_ended(), "{output:?}");

    for deed in ["--kill", "--close-socket"] {
        let output = who(&[&port, deed, "--yes"]);
        assert_eq!(output.status.code(), Some(2), "{deed}: {output:?}");
        assert!(text(&output.stderr).contains("add --space "), "{output:?}");
        assert!(!stranger.has_ended(), "{output:?}");
    }

    let pid = stranger.child.id().to_string();
    let output = who(&[&port, "--space", &pid, "--kill", "--yes"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("    space       "), "{output:?}");
    assert!(text(&output.stderr).contains(" in port space "), "{output:?}");
    stranger.child.wait().unwrap();
}

#[test]
fn a_port_that_stays_bound_after_its_socket_was_closed_is_said_to() {
    let _alone = alone();
    // The kernel lets go only of a port that it chose itself.
    let port = unshared::port();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let port = port.to_string();
    let close = |protocol| who(&[&port, protocol, "--space", "host", "--close-socket", "--yes"]);
    let stream = close("--tcp");
    if stream.status.code() == Some(3) {
        eprintln!("skipped: closing sockets takes CAP_NET_ADMIN");
        return;
    }
    let pid = std::process::id();
    assert_eq!(stream.status.code(), Some(1), "{stream:?}");
    let told = text(&stream.stderr);
    assert!(told.contains("closed 1 of 1 socket"), "{told}");
    assert!(
        told.contains(&format!(
            "no longer listens; the port stays bound until pid {pid} closes it"
        )),
        "{told}"
    );
    assert!(listener.accept().is_err());

    let datagram = close("--udp");
    assert_eq!(datagram.status.code(), Some(1), "{datagram:?}");
    let told = text(&datagram.stderr);
    assert!(told.contains("closed 0 of 1 socket"), "{told}");
    assert!(
        told.contains(&format!("stays open until pid {pid} closes it")),
        "{told}"
    );
    drop(datagrams);
}

#[test]
fn the_document_and_the_text_name_the_same_second() {
    let _alone = alone();
    // One of the two starts in the second half of a second, which must not be rounded up.
    let first = Holder::start();
    std::thread::sleep(std::time::Duration::from_millis(500));
    for holder in [first, Holder::start()] {
        let port = holder.port.to_string();
        let told = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(["who", &port, "--tcp"])
            .env("TZ", "UTC")
            .output()
            .unwrap();
        let document = who(&[&port, "--tcp", "--json"]);
        let document: Value = serde_json::from_slice(&document.stdout).unwrap();
        let started = document["holders"][0]["started"].as_str().unwrap();
        let (date, time) = started.trim_end_matches('Z').split_once('T').unwrap();
        assert!(
            text(&told.stdout).contains(&format!("started     {date} {time} UTC")),
            "{started}: {told:?}"
        );
    }
}

#[test]
fn a_wrong_port_is_told_in_one_line() {
    let _alone = alone();
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
