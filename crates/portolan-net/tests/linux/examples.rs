//! The examples, run as programs. `cargo test` builds them; if only the tests were built, these say so.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use socket2::SockRef;

use crate::support::namespace::in_namespace;

/// Only bounds a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an example is, if it was built.
fn example(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a program");
    let path = test.parent()?.parent()?.join("examples").join(name);
    if !path.exists() {
        eprintln!("skipped: the example {name} is not built: cargo build -p portolan-net --examples");
        return None;
    }
    Some(path)
}

/// An example that runs, until this is dropped.
struct Running {
    child: Child,
    lines: BufReader<ChildStderr>,
}

impl Running {
    /// Begins it, and waits until it says that it serves.
    fn start(path: &PathBuf, arguments: &[&str]) -> Self {
        let mut child = Command::new(path)
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was built");
        let lines = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut running = Self { child, lines };
        let said = running.line();
        assert!(
            said.contains("leads through") || said.contains("echo on"),
            "{said}"
        );
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

#[test]
fn examples_explain_themselves_and_refuse_nonsense_in_one_line() {
    for name in ["echo", "proxy", "shards", "goodput", "tunspeed"] {
        let Some(path) = example(name) else { return };
        let run = |arguments: &[&OsStr]| {
            Command::new(&path)
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .expect("it was built")
        };
        let help = run(&["--help".as_ref()]);
        assert!(
            help.status.success() && help.stdout.starts_with(name.as_bytes()),
            "{name}"
        );
        for nonsense in [
            &["--nonsense"[..].as_bytes()][..],
            &[b"\xFF\xFE", b"x"],
            &[b"a/b", b"c"],
            &[b"300.0.0.0/99=x", b""],
            &[b"portolan", b"send", b"99999999999999999999"],
            &[b"cell", b"linux", b"portolan", b"0", b"1", b"-1", b"1", b"1"],
        ] {
            let words: Vec<&OsStr> = nonsense.iter().map(|word| OsStr::from_bytes(word)).collect();
            let refused = run(&words);
            let said = String::from_utf8_lossy(&refused.stderr);
            let is_line = said.starts_with(name) && said.ends_with('\n') && said.lines().count() == 1;
            assert!(
                refused.status.code() == Some(2) && is_line,
                "{name} {words:?}: {said}"
            );
        }
    }
}

#[test]
fn the_proxy_passes_on_bytes_ends_and_resets_of_either_side() {
    let test = "examples::the_proxy_passes_on_bytes_ends_and_resets_of_either_side";
    in_namespace(test, || {
        let Some(path) = example("proxy") else { return };
        let _proxy = Running::start(&path, &["192.0.2.0/24=127.0.0.1"]);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let connected = || {
            let wanted = SocketAddr::from(([192, 0, 2, 1], port));
            let client = TcpStream::connect(wanted).expect("the proxy answers");
            let (server, _) = listener.accept().expect("it dials");
            for stream in [&client, &server] {
                stream.set_read_timeout(Some(PATIENCE)).expect("an option");
            }
            (client, server)
        };
        let (mut client, mut server) = connected();
        client.write_all(b"question").expect("it is connected");
        client
            .shutdown(std::net::Shutdown::Write)
            .expect("it is connected");
        let mut heard = String::new();
        server.read_to_string(&mut heard).expect("bytes and the end");
        server.write_all(b"answer").expect("half is open");
        drop(server);
        client.read_to_string(&mut heard).expect("bytes and the end");
        assert_eq!(heard, "questionanswer");
        for client_resets in [true, false] {
            let (client, server) = connected();
            let (one, mut other) = if client_resets {
                (client, server)
            } else {
                (server, client)
            };
            SockRef::from(&one)
                .set_linger(Some(Duration::ZERO))
                .expect("an option");
            drop(one);
            let error = other.read(&mut [0]).expect_err("a reset, not an end");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{client_resets}");
        }
        drop(listener);
        let refused = TcpStream::connect(SocketAddr::from(([192, 0, 2, 1], port)));
        assert_eq!(
            refused.expect_err("nobody listens").kind(),
            ErrorKind::ConnectionRefused
        );
    });
}

#[test]
fn the_echo_server_answers_by_tcp_and_udp() {
    in_namespace("examples::the_echo_server_answers_by_tcp_and_udp", || {
        let Some(path) = example("echo") else { return };
        let mut echo = Running::start(&path, &["echo7"]);
        let server = SocketAddr::from(([10, 77, 0, 2], 7));
        let mut stream = TcpStream::connect(server).expect("it listens");
        stream.write_all(b"hello").expect("it is connected");
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("it is connected");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).expect("bytes and the end");
        assert_eq!(heard, "hello");
        assert!(echo.line().ends_with(": 5 bytes\n"));
        let socket = UdpSocket::bind("10.77.0.1:0").expect("a port");
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        socket.send_to(b"datagram", server).expect("there is room");
        let mut buffer = [0; 16];
        let (len, from) = socket.recv_from(&mut buffer).expect("an echo");
        assert_eq!((&buffer[..len], from), (&b"datagram"[..], server));
    });
}
