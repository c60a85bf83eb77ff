//! `portolan explain bind` as people and programs see it. No test here needs a privilege.
#![cfg(target_os = "linux")]

mod unshared;

use std::net::UdpSocket;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn explain(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["explain", "bind"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

#[test]
fn a_free_port_is_a_yes() {
    let port = unshared::port();
    let output = explain(&["tcp", &format!("127.0.0.1:{port}")]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        text(&output.stdout).starts_with(&format!("yes: 127.0.0.1:{port}/tcp")),
        "{output:?}"
    );
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_listener_in_the_way_is_a_no_that_names_its_process() {
    let listener = unshared::listener();
    let port = listener.local_addr().unwrap().port();
    for socket in [format!(":{port}"), format!("{port}"), format!("[::]:{port}")] {
        let output = explain(&["tcp", &socket]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = text(&output.stdout);
        for part in [
            "no: [::]:".to_owned(),
            "EADDRINUSE".to_owned(),
            format!("127.0.0.1:{port} listen"),
            format!("(pid {}", std::process::id()),
            format!("portolan who {port}/tcp --kill"),
            "--v6-only".to_owned(),
        ] {
            assert!(told.contains(&part), "{part:?} is not in:\n{told}");
        }
    }
    // What it advises is what helps.
    let output = explain(&["tcp", &format!("[::]:{port}"), "--v6-only"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = explain(&["udp", &format!("127.0.0.1:{port}"), "--reuse-address"]);
    assert_ne!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn the_document_has_the_verdict_and_the_sockets_in_the_way() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let output = explain(&[&format!("127.0.0.1:{port}/udp"), "--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["version"], 1);
    assert_eq!(document["verdict"], "no");
    assert_eq!(document["errno"], "EADDRINUSE");
    assert_eq!(document["obstacle"], "in-use");
    assert_eq!(document["socket"]["local"]["port"], port);
    assert_eq!(document["socket"]["protocol"], "udp");
    let in_the_way = document["in_the_way"].as_array().unwrap();
    assert_eq!(in_the_way.len(), 1, "{document}");
    assert_eq!(in_the_way[0]["owners"][0]["pid"], std::process::id());
    assert_eq!(in_the_way[0]["local"]["address"], "127.0.0.1");
    assert!(!document["remedy"].as_array().unwrap().is_empty());
    assert_eq!(document["because"].as_array().unwrap().len(), 1);
}

#[test]
fn addresses_devices_and_privileges_are_told_apart() {
    for (arguments, error) in [
        (&["tcp", "192.0.2.1:8080"][..], "EADDRNOTAVAIL"),
        (&["tcp", "[2001:db8::1]:8080"], "EADDRNOTAVAIL"),
        (&["tcp", "[fe80::1%nosuch]:8080"], "ENODEV"),
        (&["udp", "0.0.0.0:8080", "--device", "nosuch"], "ENODEV"),
        (&["tcp", "[fe80::1]:8080"], "EINVAL"),
        (&["tcp", "[ff02::1]:8080"], "EINVAL"),
        (&["tcp", "[::ffff:127.0.0.1]:8080", "--v6-only"], "EINVAL"),
    ] {
        let output = explain(arguments);
        let told = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        let no_ipv6 = told.contains("EAFNOSUPPORT") && arguments[1].starts_with('[');
        assert!(told.contains(error) || no_ipv6, "{arguments:?}: {told}");
    }
    let output = explain(&["tcp", "127.0.0.1:0", "--as", "root"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn what_cannot_be_asked_is_told_in_one_line() {
    for (arguments, part) in [
        (&["tpc", ":80"][..], "tpc is no protocol"),
        (&["tcp", ":70000"], "above 65535"),
        (&["tcp", "nosuchservice"], "nosuchservice"),
        (&["tcp", ":80/udp"], "leave one of them out"),
        (&["localhost:80"], "localhost is a name"),
        (&["sctp", ":80"], "sctp"),
        (&["tcp", "10.0.0.1"], "without a port"),
        (&["tcp", "2001:db8::1:443"], "[2001:db8::1]:443"),
        (&["tcp", "8000-8010"], "no socket address"),
        (&["tcp", "8080:80"], "no socket address"),
        (&["tcp", ":80", "--as", "no-such-user"], "no-such-user"),
        (&["tcp", ":80", "--space", "nowhere"], "nowhere"),
        (&["tcp", ":80", "--reuse"], "--reuse"),
        (&[], "required"),
        (&["a", "b", "c"], "c"),
    ] {
        let output = explain(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let told = text(&output.stderr);
        assert!(
            told.contains(part) && told.lines().count() == 1 && told.len() < 400,
            "{arguments:?}: {told}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_slip_in_the_name_of_the_question_is_recognised() {
    let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["explain", "bnid", ":80"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("bind") && told.lines().count() == 1, "{told}");
}

#[test]
fn the_help_has_examples_and_exit_codes() {
    let output = explain(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let told = text(&output.stdout);
    for part in ["portolan explain bind tcp :80", "Exit code:", "SO_REUSEPORT"] {
        assert!(told.contains(part), "{part}");
    }
}
