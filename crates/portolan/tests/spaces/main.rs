//! `portolan spaces`, and what else is asked of running spaces.
#![cfg(target_os = "linux")]

mod joined;
mod linked;
mod low_ports;
mod terminal;
#[path = "../run/users.rs"]
mod users;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use users::{as_each_user, has_python, skipped};

/// The program, with a directory of sockets of the test's own.
fn portolan(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.env("XDG_RUNTIME_DIR", directory).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    portolan(directory.path())
        .arg("run")
        .args(arguments)
        .output()
        .unwrap()
}

fn ask(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = portolan(directory).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Serves one connection after the other.
const SERVER: &str = r#"
import socket
server = socket.create_server(("", 80))
print("ready", flush=True)
while True:
    stream, peer = server.accept()
    stream.sendall(b"ahoy")
    stream.close()
"#;

fn served(directory: &Path) -> Child {
    let mut child = portolan(directory)
        .args(["run", "--name", "web", "--", "python3", "-c", SERVER])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    child
}

#[test]
fn a_running_space_is_listed_changed_and_stopped() {
    as_each_user("a_running_space_is_listed_changed_and_stopped", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let mut child = served(here);
        let (code, text, _) = ask(here, &["spaces", "--json"]);
        assert_eq!(code, Some(0));
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let space = &document["spaces"][0];
        assert_eq!((&document["version"], &space["name"]), (&1.into(), &"web".into()));
        assert_eq!(
            (&space["command"][0], &space["flows"]),
            (&"python3".into(), &0.into())
        );
        let pid = space["pid"].as_i64().unwrap();
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        assert!(name.starts_with("python"), "{name}");

        let (code, text, errors) = ask(here, &["spaces", "publish", "web", "0:80"]);
        assert_eq!((code, &*errors), (Some(0), ""));
        let port: u16 = text.split("->").next().unwrap().parse().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "ahoy");
        let (_, text, _) = ask(here, &["spaces"]);
        assert!(text.contains(&format!("{port}->80/tcp")), "{text}");
        // On the host the port is the program's, and not its gateway's.
        let place = port.to_string();
        let (_, text, _) = ask(here, &["list", &place]);
        assert!(text.contains(" in web"), "{text}");
        let (_, text, _) = ask(here, &["list", &place, "--json"]);
        let sockets: serde_json::Value = serde_json::from_str(&text).unwrap();
        let sockets = sockets["sockets"].as_array().unwrap();
        assert!(!sockets.is_empty());
        for socket in sockets {
            assert_eq!(
                (&socket["published_by"], &socket["owners"][0]["pid"]),
                (&"web".into(), &pid.into()),
                "{text}"
            );
        }
        // So are the connections that came to it.
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        let (_, text, _) = ask(here, &["list", &place, "--all", "--json"]);
        let sockets: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut accepted = sockets["sockets"].as_array().unwrap().iter().filter(|socket| {
            !socket["remote"].is_null() && socket["local"]["port"] == port && !socket["owners"][0].is_null()
        });
        let accepted = accepted.next().expect(&text);
        assert_eq!(
            (&accepted["published_by"], &accepted["owners"][0]["pid"]),
            (&"web".into(), &pid.into()),
            "{text}"
        );
        drop(client);
        let (_, text, _) = ask(here, &["who", &place, "--json"]);
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let holders = document["holders"].as_array().unwrap();
        let is_published =
            |holder: &serde_json::Value| holder["pid"] == pid && holder["published_by"] == "web";
        assert!(holders.iter().any(is_published), "{text}");
        let (_, text, _) = ask(here, &["who", &place]);
        assert!(text.contains(&format!("(pid {pid}) listens on")), "{text}");
        assert!(
            text.contains("space       web, which publishes the port here"),
            "{text}"
        );
        let (code, text, errors) = ask(here, &["list", "--space", "web"]);
        assert_eq!(code, Some(0), "{errors}");
        assert!(text.contains(":80 ") && text.contains("python"), "{text}");
        assert_eq!(
            ask(here, &["list", "--space", "web", "--flows", "--json"]).0,
            Some(0)
        );
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap();
        for mapping in [format!("{taken}:80"), format!("{}:80", taken.port())] {
            let (code, text, errors) = ask(here, &["spaces", "publish", "web", &mapping]);
            assert_eq!((code, &*text), (Some(4), ""), "{errors}");
            let place = format!(
                "cannot publish {}/tcp: it is held by ",
                mapping.trim_end_matches(":80")
            );
            let pid = format!("(pid {}); choose another port", std::process::id());
            assert!(errors.contains(&place) && errors.contains(&pid), "{errors}");
        }
        let (code, _, errors) = ask(here, &["spaces", "unpublish", "web", &format!("{port}/udp")]);
        assert_eq!(code, Some(4));
        assert!(
            errors.contains(&format!("{port}/udp is not published")),
            "{errors}"
        );
        let (code, _, errors) = ask(here, &["spaces", "unpublish", "web", "80-90:x"]);
        assert_eq!(code, Some(2), "{errors}");
        // As it was asked for, by the number that was chosen, and by the host's port alone.
        let mut port = port;
        for again in [
            |_| "0:80".to_owned(),
            |port| format!("{port}:80"),
            |port: u16| port.to_string(),
        ] {
            assert_eq!(
                ask(here, &["spaces", "unpublish", "web", &again(port)]).0,
                Some(0)
            );
            assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
            let (code, text, _) = ask(here, &["spaces", "publish", "web", "0:80"]);
            assert_eq!(code, Some(0));
            port = text
                .split_once("->")
                .and_then(|(port, _)| port.parse().ok())
                .expect("a port");
            TcpStream::connect(("127.0.0.1", port)).expect("it is published again");
        }

        assert_eq!(ask(here, &["spaces", "deny", "web", "10.0.0.0/8"]).0, Some(0));
        assert_eq!(ask(here, &["spaces", "allow", "web", "no such:1"]).0, Some(2));
        assert_eq!(ask(here, &["spaces", "allow", "other", "10.0.0.1:1"]).0, Some(1));
        let (code, _, errors) = ask(here, &["run", "--name", "web", "--", "true"]);
        assert_eq!(code, Some(125));
        assert!(errors.contains("a space named web is running"), "{errors}");

        assert_eq!(ask(here, &["spaces", "stop", "web"]).0, Some(0));
        assert_eq!(child.wait().unwrap().code(), Some(143));
        let (_, text, _) = ask(here, &["spaces", "--json"]);
        assert_eq!(text, "{\"version\":1,\"spaces\":[]}\n");
    });
}

#[test]
fn who_ends_the_program_behind_a_published_port() {
    as_each_user("who_ends_the_program_behind_a_published_port", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        // Behind the one port somebody listens, and behind the other nobody does: it is the space's program's too.
        for mapping in ["0:80", "0:9/udp"] {
            let directory = tempfile::tempdir().unwrap();
            let here = directory.path();
            let mut child = served(here);
            let (_, text, _) = ask(here, &["spaces", "publish", "web", mapping]);
            let port = text.split("->").next().unwrap();
            let protocol = if mapping.ends_with("udp") { "udp" } else { "tcp" };
            let place = format!("{port}/{protocol}");
            let (code, text, errors) = ask(here, &["who", &place, "--kill", "--yes"]);
            assert_eq!(code, Some(0), "{text}{errors}");
            assert_eq!(child.wait().unwrap().code(), Some(143));
        }
    });
}

#[test]
fn nobody_inside_reaches_the_control_socket() {
    as_each_user("nobody_inside_reaches_the_control_socket", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let mut child = served(here);
        let socket = here.join("portolan/web.sock");
        assert!(socket.exists());
        // Hidden from the program of any space; from another user namespace it can be seen, and is not answered.
        let inside = portolan(here)
            .args(["run", "--", "ls", "-A"])
            .arg(here.join("portolan"))
            .output()
            .unwrap();
        assert_eq!(
            (inside.status.code(), &*inside.stdout),
            (Some(0), &b""[..]),
            "{}",
            stderr(&inside)
        );
        let talk = format!(
            "import socket\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(20)\ns.connect({:?})\n\
             try:\n  s.sendall(b'{{\"ask\":\"status\"}}\\n')\n  print(s.recv(99))\nexcept OSError: print(b'')",
            socket.to_str().unwrap()
        );
        let outside = Command::new("python3").args(["-c", &talk]).output().unwrap();
        assert!(outside.stdout.starts_with(b"b'{\"done\""), "{}", stderr(&outside));
        let elsewhere = Command::new("unshare")
            .args(["--user", "--map-current-user", "python3", "-c", &talk])
            .output()
            .unwrap();
        assert_eq!(
            std::str::from_utf8(&elsewhere.stdout).unwrap(),
            "b''\n",
            "{}",
            stderr(&elsewhere)
        );
        child.kill().unwrap();
        child.wait().unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while socket.exists() {
            assert!(std::time::Instant::now() < until, "the socket is left behind");
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}
