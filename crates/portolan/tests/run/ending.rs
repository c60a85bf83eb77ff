//! What the program had sent when it ended is delivered, as the kernel delivers it.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use crate::users::{as_each_user, has_python, skipped};
use crate::{portolan, stderr, stdout};

/// As much as no buffers hold, in bytes.
const LEN: usize = 50 << 20;

/// Takes one connection, sends all, and ends at once.
const SERVER: &str = r#"
import os, socket, sys
server = socket.create_server(("", 80))
print("ready", flush=True)
stream, peer = server.accept()
stream.sendall(bytes(range(256)) * (int(sys.argv[1]) // 256))
os._exit(5)
"#;

/// The same of a client.
const CLIENT: &str = r#"
import os, socket, sys
stream = socket.create_connection(("host.portolan", int(sys.argv[2])))
stream.sendall(bytes(range(256)) * (int(sys.argv[1]) // 256))
os._exit(5)
"#;

const DATAGRAMS: &str = r#"
import os, socket, sys
host = socket.getaddrinfo("host.portolan", int(sys.argv[2]), socket.AF_INET)[0][4]
end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(int(sys.argv[1])): end.sendto(bytes([number]), host)
os._exit(5)
"#;

/// A `portolan run` that does not outlive its test.
struct Running {
    child: Child,
    errors: BufReader<ChildStderr>,
}

impl Running {
    fn new(options: &[&str], script: &str, arguments: &[&str]) -> Self {
        let mut child = portolan()
            .args(options)
            .args(["--", "python3", "-c", script])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        Self { child, errors }
    }

    /// Connects to the server, by the port that was chosen for it.
    fn connect(&mut self) -> TcpStream {
        let mut chosen = String::new();
        self.errors.read_line(&mut chosen).unwrap();
        let port = chosen
            .split_once("127.0.0.1:")
            .and_then(|(_, rest)| rest.split_once("/tcp"));
        let port: u16 = port.unwrap_or_else(|| panic!("{chosen}")).0.parse().unwrap();
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        TcpStream::connect(("127.0.0.1", port)).unwrap()
    }

    /// Its code, and what it has said.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.errors.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const NAME: &str = "ending-way";

/// Which way the only connection of the space with this name goes.
fn way_of_the_flow() -> String {
    let began = Instant::now();
    loop {
        let mut list = Command::new(env!("CARGO_BIN_EXE_portolan"));
        let output = list.args(["list", "--space", NAME, "--flows"]).output().unwrap();
        let text = stdout(&output);
        let mut flows = text.lines().filter_map(|line| line.strip_prefix("tcp "));
        if let Some(flow) = flows.next() {
            assert_eq!(flows.next(), None, "{text}");
            return flow.split_whitespace().next().unwrap_or_default().to_owned();
        }
        let patience = Duration::from_secs(20);
        assert!(began.elapsed() < patience, "{text}{}", stderr(&output));
    }
}

/// Reads to the end, slower than the program sends, and counts what is as it was sent.
fn read_slowly(mut stream: TcpStream) -> usize {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut room = vec![0; 64 << 10];
    let mut len = 0;
    loop {
        let read = stream.read(&mut room).unwrap();
        if read == 0 {
            return len;
        }
        for &byte in &room[..read] {
            assert_eq!(usize::from(byte), len % 256);
            len += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_slow_reader_of_a_program_that_has_ended_gets_all() {
    as_each_user(
        "ending::a_slow_reader_of_a_program_that_has_ended_gets_all",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            let len = LEN.to_string();
            let publish = ["-p", "127.0.0.1:0:80", "--name", NAME];
            for (more, way) in [(&[][..], "spliced"), (&["--impair", "delay 1ms"], "in")] {
                let mut running = Running::new(&[&publish, more].concat(), SERVER, &[&len]);
                let stream = running.connect();
                assert_eq!(way_of_the_flow(), way);
                assert_eq!(read_slowly(stream), LEN, "{more:?}");
                assert_eq!(running.end(), (Some(5), String::new()), "{more:?}");
            }
        },
    );
}

#[test]
fn what_a_client_sends_last_arrives() {
    as_each_user("ending::what_a_client_sends_last_arrives", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let mut running = Running::new(&["--allow-host", &port], CLIENT, &[&LEN.to_string(), &port]);
        assert_eq!(read_slowly(listener.accept().unwrap().0), LEN);
        assert_eq!(running.end(), (Some(5), String::new()));

        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let port = socket.local_addr().unwrap().port().to_string();
        let mut running = Running::new(&["--allow-host", &port], DATAGRAMS, &["100", &port]);
        assert_eq!(running.end(), (Some(5), String::new()));
        for number in 0..100 {
            let mut byte = [0];
            socket.recv(&mut byte).unwrap();
            assert_eq!(byte, [number]);
        }
    });
}

#[test]
fn a_reader_that_takes_nothing_is_not_waited_for_for_ever() {
    as_each_user(
        "ending::a_reader_that_takes_nothing_is_not_waited_for_for_ever",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            // It ends when nothing more is taken of it: its kernel has as much as its buffers hold.
            let script = SERVER.replace("stream.sendall", "stream.settimeout(2); stream.sendall");
            // Spliced, and through the stack.
            for more in [&[][..], &["--impair", "delay 1ms"]] {
                let options = [&["-p", "127.0.0.1:0:80"], more].concat();
                let mut running = Running::new(&options, &script, &[&LEN.to_string()]);
                let stream = running.connect();
                let (code, said) = running.end();
                assert_eq!(code, Some(1), "{said}");
                assert!(
                    said.contains("1 connection had no reader for its last bytes"),
                    "{said}"
                );
                assert_cut_off(stream);
            }
        },
    );
}

/// What has come can be read, and that it is not all is seen.
fn assert_cut_off(mut stream: TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::ConnectionReset,
        "after {} bytes",
        bytes.len()
    );
    assert!(bytes.len() < LEN);
}

#[test]
fn a_killed_gateway_ends_no_connection_as_if_all_had_come() {
    as_each_user(
        "ending::a_killed_gateway_ends_no_connection_as_if_all_had_come",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            for more in [&[][..], &["--impair", "delay 1ms"]] {
                let options = [&["-p", "127.0.0.1:0:80"], more].concat();
                let mut running = Running::new(&options, SERVER, &[&LEN.to_string()]);
                let mut stream = running.connect();
                stream.read_exact(&mut [0; 1]).unwrap();
                running.child.kill().unwrap();
                assert_cut_off(stream);
            }
        },
    );
}
