//! A server in a space.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::portolan;

/// Sends back the first byte, and so many as were asked for behind it.
const SERVER: &str = r#"
import socket, sys
server = socket.create_server(("", 80))
print("ready", flush=True)
while True:
    stream, peer = server.accept()
    stream.sendall(stream.recv(1))
    stream.sendall(bytes(int(sys.argv[1])))
    stream.close()
"#;

/// A server inside; it ends with this.
pub(crate) struct Served {
    child: Child,
    errors: BufReader<ChildStderr>,
    pub(crate) port: u16,
}

impl Served {
    pub(crate) fn new(arguments: &[&str], len: usize) -> Self {
        let mut child = portolan()
            .args(["-p", "127.0.0.1:0:80"])
            .args(arguments)
            .args(["--", "python3", "-c", SERVER, &len.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let mut served = Self {
            child,
            errors,
            port: 0,
        };
        let mut chosen = String::new();
        served.errors.read_line(&mut chosen).unwrap();
        let port = chosen
            .split_once("127.0.0.1:")
            .and_then(|(_, rest)| rest.split_once("/tcp"));
        served.port = port.unwrap_or_else(|| panic!("{chosen}")).0.parse().unwrap();
        let mut line = String::new();
        BufReader::new(served.child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        served
    }

    /// A connection, and how long a byte takes there and back.
    pub(crate) fn ask(&self) -> (TcpStream, Duration) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let start = Instant::now();
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        (stream, start.elapsed())
    }

    /// Everything that one connection gives.
    pub(crate) fn fetch(&self) -> Vec<u8> {
        let (mut stream, _) = self.ask();
        let mut data = Vec::new();
        stream.read_to_end(&mut data).unwrap();
        data
    }

    /// Sends it a signal, and waits for its end; gives what it said since it began.
    pub(crate) fn end(mut self, signal: Signal) -> (ExitStatus, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let mut said = String::new();
        self.errors.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
