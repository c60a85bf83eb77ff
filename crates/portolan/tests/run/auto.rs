//! Ports that are published as the program listens on them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::portolan;
use crate::users::{as_each_user, has_python, skipped};

/// Does as it is told: opens and closes sockets, and greets whoever comes.
const PROGRAM: &str = r#"
import socket, sys, threading
held = {}
def tcp(s):
    while True:
        try: stream, peer = s.accept()
        except OSError: return
        stream.sendall(b"ahoy"); stream.close()
def udp(s):
    while True:
        try: data, peer = s.recvfrom(99)
        except OSError: return
        if not peer: return
        s.sendto(b"ahoy", peer)
for line in sys.stdin:
    word, address, port = line.split()
    key = address, int(port)
    if word == "close":
        s = held.pop(key)
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
        s.close()
    else:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        s = socket.socket(family, socket.SOCK_STREAM if word == "tcp" else socket.SOCK_DGRAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(key)
        if word == "tcp": s.listen()
        held[key] = s
        threading.Thread(target=tcp if word == "tcp" else udp, args=(s,), daemon=True).start()
    print("done", flush=True)
"#;

const LIMIT: Duration = Duration::from_secs(20);

/// A space whose program does as it is told. Dropped, it ends.
struct Following {
    child: Child,
    orders: ChildStdin,
    done: BufReader<ChildStdout>,
    said: Receiver<String>,
}

impl Following {
    fn start(arguments: &[&str]) -> Self {
        let mut child = portolan()
            .args(arguments)
            .args(["--", "python3", "-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            orders: child.stdin.take().unwrap(),
            done: BufReader::new(child.stdout.take().unwrap()),
            said: lines(child.stderr.take().unwrap()),
            child,
        }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        let mut line = String::new();
        self.done.read_line(&mut line).unwrap();
        assert_eq!(
            line,
            "done\n",
            "{order}: {:?}",
            self.said.try_iter().collect::<Vec<_>>()
        );
    }

    fn said(&self) -> String {
        self.said.recv_timeout(LIMIT).unwrap()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: ChildStderr) -> Receiver<String> {
    let (told, said) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            if line.is_err() || told.send(line.unwrap_or_default()).is_err() {
                return;
            }
        }
    });
    said
}

/// A port of the host that is free for both protocols, below those that the kernel gives to clients.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + (std::process::id() % 20_000) as u16;
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed);
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        if TcpListener::bind(any).is_ok() && UdpSocket::bind(any).is_ok() {
            return port;
        }
    }
}

/// What a server says, if there is one.
fn tcp_says(address: impl Into<SocketAddr>) -> Option<String> {
    let mut stream = TcpStream::connect(address.into()).ok()?;
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut said = String::new();
    // Reset: it was published, and nobody listened inside.
    stream.read_to_string(&mut said).ok()?;
    Some(said)
}

fn udp_says(port: u16) -> Option<String> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket.send(b"who is there").ok()?;
    let mut bytes = [0; 99];
    let count = socket.recv(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

/// Waits until it is so, and says how long that took.
fn until(what: &str, is_so: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    begun.elapsed()
}

#[test]
fn what_the_program_listens_on_is_published_as_it_does() {
    as_each_user(
        "auto::what_the_program_listens_on_is_published_as_it_does",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            let [http, dns, own, excepted, v6] = std::array::from_fn(|_| free_port());
            let except = format!("!{excepted}");
            let mut following = Following::start(&["-p", "auto", "-p", &except]);
            // These are not to be published; what follows is seen after them.
            following.order(&format!("tcp 127.0.0.1 {own}"));
            following.order(&format!("udp ::1 {own}"));
            following.order(&format!("tcp 0.0.0.0 {excepted}"));
            following.order("udp 0.0.0.0 40000");

            following.order(&format!("tcp 0.0.0.0 {http}"));
            assert_eq!(
                following.said(),
                format!("portolan: published {http}/tcp -> {http}")
            );
            assert_eq!(tcp_says((Ipv4Addr::LOCALHOST, http)).unwrap(), "ahoy");
            following.order(&format!("udp 0.0.0.0 {dns}"));
            assert_eq!(
                following.said(),
                format!("portolan: published {dns}/udp -> {dns}")
            );
            until("datagrams are answered", || {
                udp_says(dns).as_deref() == Some("ahoy")
            });
            following.order(&format!("tcp :: {v6}"));
            assert_eq!(following.said(), format!("portolan: published {v6}/tcp -> {v6}"));
            assert_eq!(tcp_says((Ipv4Addr::LOCALHOST, v6)).unwrap(), "ahoy");
            if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
                assert_eq!(tcp_says((Ipv6Addr::LOCALHOST, v6)).unwrap(), "ahoy");
            }
            for port in [own, excepted] {
                drop(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
                drop(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
            }

            let is_free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
            following.order(&format!("close 0.0.0.0 {http}"));
            until("it is withdrawn", || is_free(http));
            following.order(&format!("close 0.0.0.0 {dns}"));
            until("it is withdrawn, whatever clients it had", || {
                UdpSocket::bind((Ipv4Addr::UNSPECIFIED, dns)).is_ok()
            });
            // Published again, and not told again: the next line is about another.
            following.order(&format!("tcp 0.0.0.0 {http}"));
            until("it is published again", || {
                tcp_says((Ipv4Addr::LOCALHOST, http)).as_deref() == Some("ahoy")
            });
            let last = free_port();
            following.order(&format!("tcp 0.0.0.0 {last}"));
            assert_eq!(
                following.said(),
                format!("portolan: published {last}/tcp -> {last}")
            );
        },
    );
}

#[test]
fn a_port_is_published_within_a_tenth_of_a_second() {
    as_each_user("auto::a_port_is_published_within_a_tenth_of_a_second", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let mut following = Following::start(&["-p", "auto"]);
        let mut times: Vec<Duration> = (0..7)
            .map(|_| {
                let port = free_port();
                // So that nothing has changed for a while.
                std::thread::sleep(Duration::from_millis(1_100));
                following.order(&format!("tcp 0.0.0.0 {port}"));
                until("it is published", || {
                    tcp_says((Ipv4Addr::LOCALHOST, port)).is_some()
                })
            })
            .collect();
        times.sort_unstable();
        // Of a loaded machine some are late; most are not.
        assert!(times[2] <= Duration::from_millis(100), "{times:?}");
    });
}

#[test]
fn a_port_that_is_taken_is_told_once_and_had_when_it_is_free() {
    as_each_user(
        "auto::a_port_that_is_taken_is_told_once_and_had_when_it_is_free",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            let port = free_port();
            let other = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            let mut following = Following::start(&["-p", "auto"]);
            following.order(&format!("tcp 0.0.0.0 {port}"));
            let said = following.said();
            let holder = format!("(pid {})", std::process::id());
            assert!(
                said.starts_with(&format!("portolan: cannot publish {port}/tcp: it is held by "))
                    && said.contains(&holder),
                "{said}"
            );
            // Long enough to be tried, and refused, again.
            std::thread::sleep(Duration::from_millis(1_500));
            drop(other);
            assert_eq!(
                following.said(),
                format!("portolan: published {port}/tcp -> {port}")
            );
            assert_eq!(tcp_says((Ipv4Addr::LOCALHOST, port)).unwrap(), "ahoy");
        },
    );
}

#[test]
fn a_low_port_is_published_for_those_who_may_and_told_to_others() {
    as_each_user(
        "auto::a_low_port_is_published_for_those_who_may_and_told_to_others",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            // Which the program listens on, and nobody else does here.
            let Some(port) = (600..1000).find(|port| {
                TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err()
                    && UdpSocket::bind((Ipv4Addr::UNSPECIFIED, *port)).map_or_else(
                        |error| error.kind() == std::io::ErrorKind::PermissionDenied,
                        |_| true,
                    )
            }) else {
                return skipped("no low port is free");
            };
            let may = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
            let mut following = Following::start(&["-p", "auto"]);
            following.order(&format!("tcp 0.0.0.0 {port}"));
            let said = following.said();
            if may {
                // By a process beside the one that serves, which has no capability left.
                assert_eq!(said, format!("portolan: published {port}/tcp -> {port}"));
                assert_eq!(tcp_says((Ipv4Addr::LOCALHOST, port)).unwrap(), "ahoy");
            } else {
                assert!(
                    said.contains("permission denied") && said.contains("ip_unprivileged_port_start"),
                    "{said}"
                );
            }
        },
    );
}

#[test]
fn ports_are_published_where_they_are_to_be_and_not_twice() {
    as_each_user(
        "auto::ports_are_published_where_they_are_to_be_and_not_twice",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            let [near, named, outer] = std::array::from_fn(|_| free_port());
            let mapping = format!("127.0.0.1:{outer}:{named}");
            let mut following = Following::start(&["-p", "127.0.0.1:auto/tcp", "-p", &mapping]);
            following.order(&format!("udp 0.0.0.0 {near}"));
            // By name it is published already.
            following.order(&format!("tcp 0.0.0.0 {named}"));
            following.order(&format!("tcp 0.0.0.0 {near}"));
            assert_eq!(
                following.said(),
                format!("portolan: published 127.0.0.1:{near}/tcp -> {near}")
            );
            assert_eq!(tcp_says((Ipv4Addr::LOCALHOST, near)).unwrap(), "ahoy");
            assert_eq!(tcp_says((Ipv4Addr::LOCALHOST, outer)).unwrap(), "ahoy");
            assert!(tcp_says((Ipv4Addr::new(127, 0, 0, 2), near)).is_none());
            drop(TcpListener::bind((Ipv4Addr::LOCALHOST, named)).unwrap());
            drop(UdpSocket::bind((Ipv4Addr::LOCALHOST, near)).unwrap());
        },
    );
}

#[test]
fn an_exception_without_auto_is_a_usage_error() {
    let output = crate::run(&["-p", "8080:80", "-p", "!22", "--", "true"]);
    assert_eq!(output.status.code(), Some(2), "{}", crate::stderr(&output));
    assert!(crate::stderr(&output).contains("!22"));
}
