//! `portolan list` and `portolan who` where the system refuses, hides or changes what they ask for.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "fork, for very many processes, in the module `churn`")]

#[path = "../../portolan-host/tests/private/churn.rs"]
mod churn;
#[path = "../../portolan-host/tests/private/mod.rs"]
mod private;
mod unshared;

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use serde_json::Value;

use churn::come_and_go;
use private::{in_namespace, skipped};

const PORTOLAN: &str = env!("CARGO_BIN_EXE_portolan");

fn portolan(arguments: &[&str]) -> Output {
    Command::new(PORTOLAN)
        .args(arguments)
        .args(["--space", "host"])
        .env_remove("COLUMNS")
        .output()
        .unwrap()
}

/// Runs a script in which `"$0"` is the program.
fn in_shell(script: &str) -> Output {
    Command::new("sh")
        .args(["-c", script, PORTOLAN])
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[track_caller]
fn document(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `body` in a thread whose programs may not open netlink sockets: socket(2) fails with `errno`.
fn with_netlink_refused<T: Send>(errno: i32, body: impl FnOnce() -> T + Send) -> T {
    let netlink = libc::AF_NETLINK.unsigned_abs().into();
    let is_netlink = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, netlink).unwrap();
    let filter = SeccompFilter::new(
        [(
            libc::SYS_socket,
            vec![SeccompRule::new(vec![is_netlink]).unwrap()],
        )]
        .into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        std::env::consts::ARCH.try_into().unwrap(),
    )
    .unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            apply_filter(&program).unwrap();
            body()
        });
        worker.join().unwrap()
    })
}

/// A listener, a connection to it that was accepted, and a datagram socket.
fn sockets() -> (TcpListener, TcpStream, TcpStream, UdpSocket) {
    let listener = TcpListener::bind("127.0.0.1:80").unwrap();
    let client = TcpStream::connect("127.0.0.1:80").unwrap();
    let (server, _) = listener.accept().unwrap();
    (listener, client, server, UdpSocket::bind("127.0.0.1:53").unwrap())
}

/// What text and netlink tell alike of each socket, and who holds it.
fn telling(document: &Value) -> Vec<String> {
    let mut sockets: Vec<String> = document["sockets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|socket| {
            let fields = [
                "protocol",
                "state",
                "local",
                "remote",
                "inode",
                "uid",
                "owners",
                "ownerless",
                "service",
            ];
            fields.map(|field| socket[field].to_string()).join(" ")
        })
        .collect();
    sockets.sort();
    sockets
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that calls itself `name`, in printf's spelling, and holds a socket.
fn named(name: &str, socket: OwnedFd) -> Running {
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("printf '{name}' > /proc/$$/comm; echo; while :; do sleep 60; done"),
        ])
        .stdin(Stdio::from(socket))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    Running(child)
}

#[test]
fn names_cannot_reach_into_the_terminal() {
    in_namespace("names_cannot_reach_into_the_terminal", || {
        let names = [
            (r"\033[31mX\n", r"\x1b[31mX\n", "\u{1b}[31mX\n"),
            (r"a\377\200b", r"a\xff\x80b", r"a\xff\x80b"),
            (r"\302\233 \342\200\256", r"\u{9b} \u{202e}", "\u{9b} \u{202e}"),
            (r"tab\there\r", r"tab\there\r", "tab\there\r"),
        ];
        for (spelled, shown, raw) in names {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port().to_string();
            let _holder = named(spelled, listener.into());
            for arguments in [
                &["list", &port][..],
                &["-o", "wide", &port],
                &["--csv", &port],
                &["who", &port],
            ] {
                let output = portolan(arguments);
                assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
                let text = stdout(&output).replace("\r\n", "\n");
                assert!(text.contains(shown), "{arguments:?}: {shown} in {text:?}");
                let hostile =
                    |c: char| (c.is_control() && !matches!(c, '\n')) || matches!(c, '\u{202e}' | '\u{fffd}');
                assert!(!text.contains(hostile), "{arguments:?}: {text:?}");
            }
            let json = document(&portolan(&["--json", &port]));
            assert_eq!(json["sockets"][0]["owners"][0]["name"], raw, "{json}");
        }
    });
}

#[test]
fn a_sandbox_without_netlink_gets_the_same_sockets_from_text() {
    in_namespace(
        "a_sandbox_without_netlink_gets_the_same_sockets_from_text",
        || {
            let _sockets = sockets();
            let free = document(&portolan(&["-a", "--json"]));
            assert_eq!(telling(&free).len(), 4, "{free}");
            for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EAFNOSUPPORT] {
                let confined = with_netlink_refused(errno, || portolan(&["-a", "--json"]));
                assert_eq!(telling(&document(&confined)), telling(&free), "{errno}");
                let said = stderr(&confined);
                assert_eq!(said.matches("netlink is refused here").count(), 1, "{said}");
                let who = with_netlink_refused(errno, || portolan(&["who", "80"]));
                assert_eq!(who.status.code(), Some(0), "{}", stderr(&who));
                assert!(
                    stdout(&who).contains(&std::process::id().to_string()),
                    "{}",
                    stdout(&who)
                );
            }
        },
    );
}

#[test]
fn without_proc_net_netlink_is_enough() {
    in_namespace("without_proc_net_netlink_is_enough", || {
        let _sockets = sockets();
        let free = document(&portolan(&["-a", "--json"]));
        let hide =
            "mount -t tmpfs none /proc/$$/net && mount -t tmpfs none /proc/$$/task/$$/net && exec \"$0\"";
        let hidden = in_shell(&format!("{hide} -a --json --space host"));
        assert_eq!(telling(&document(&hidden)), telling(&free));
        let who = in_shell(&format!("{hide} who --space host 80/tcp"));
        assert_eq!(who.status.code(), Some(0), "{}", stderr(&who));

        // Without either there is nothing to see, which is said, and is no "nobody".
        let blind =
            |arguments: &str| with_netlink_refused(libc::EPERM, || in_shell(&format!("{hide} {arguments}")));
        let json = serde_json::from_slice::<Value>(&blind("-a --json").stdout).unwrap();
        assert_eq!(json["sockets"], Value::Array(Vec::new()), "{json}");
        assert!(json["hidden"]["spaces"].as_u64() >= Some(1), "{json}");
        let table = blind("-a");
        let said = stderr(&table);
        assert!(
            said.contains("netlink is refused") && said.contains("could not read"),
            "{said}"
        );
        assert!(!said.contains("does not list its tcp"), "{said}");
        let host = blind("--space host");
        assert_eq!(
            (host.status.code(), stdout(&host)),
            (Some(3), ""),
            "{}",
            stderr(&host)
        );
    });
}

#[test]
fn without_proc_the_sockets_are_listed_and_their_owners_missed() {
    in_namespace(
        "without_proc_the_sockets_are_listed_and_their_owners_missed",
        || {
            let _sockets = sockets();
            let output = in_shell("mount -t tmpfs none /proc && exec \"$0\" --json --space host");
            let json = document(&output);
            assert_eq!(telling(&json).len(), 2, "{json}");
            assert_eq!(json["hidden"]["owners"], 2, "{json}");
            let table = in_shell("mount -t tmpfs none /proc && exec \"$0\" --space host");
            assert!(stdout(&table).contains("127.0.0.1:80"), "{}", stdout(&table));
            assert!(
                stderr(&table).contains("could not read the owners of 2 sockets"),
                "{}",
                stderr(&table)
            );
        },
    );
}

#[test]
fn a_kernel_without_ipv6_lists_ipv4() {
    in_namespace("a_kernel_without_ipv6_lists_ipv4", || {
        let _sockets = sockets();
        let free = document(&portolan(&["-a", "--json"]));
        let directory = tempfile::tempdir().unwrap();
        // The lists that such a kernel has: nothing whose name ends in 6, and no other family.
        for file in ["tcp", "udp", "raw", "protocols", "dev"] {
            let text = fs::read_to_string(format!("/proc/self/net/{file}")).unwrap();
            fs::write(directory.path().join(file), text).unwrap();
        }
        let confined = with_netlink_refused(libc::EPERM, || {
            in_shell(&format!(
                "mount --bind {} /proc/$$/task/$$/net && exec \"$0\" -a --json --space host",
                directory.path().display()
            ))
        });
        assert_eq!(telling(&document(&confined)), telling(&free));
        let said = stderr(&confined);
        assert!(!said.contains("tcp6") && !said.contains("udp6"), "{said}");
    });
}

#[test]
fn hidden_processes_are_counted_and_said() {
    if fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) != 0) {
        return skipped("hidden_processes_are_counted_and_said: a second user needs root");
    }
    let listener = unshared::listener();
    let port = listener.local_addr().unwrap().port();
    // The build directory may be closed to others.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("portolan");
    fs::copy(PORTOLAN, &program).unwrap();
    for hidepid in [1, 2] {
        let run = |arguments: &str| {
            let script = format!(
                "mount -t proc -o hidepid={hidepid} proc /proc && exec setpriv --reuid 65534 --regid 65534 \
                 --clear-groups {} {arguments} --space host {port}",
                program.display()
            );
            Command::new("unshare")
                .args(["--mount", "sh", "-c", &script])
                .output()
                .unwrap()
        };
        let output = run("list --json");
        if stderr(&output).contains("mount:") || stderr(&output).starts_with("unshare:") {
            return skipped(&format!(
                "hidden_processes_are_counted_and_said: {}",
                stderr(&output)
            ));
        }
        let json = document(&output);
        let [socket] = json["sockets"].as_array().unwrap().as_slice() else {
            panic!("{json}");
        };
        assert_eq!(socket["owners"], Value::Array(Vec::new()), "{json}");
        assert_eq!(socket["ownerless"]["reason"], "other-user", "{json}");
        assert_eq!(json["hidden"]["owners"], 1, "{json}");
        assert!(
            json["hidden"]["remedy"].as_str().unwrap().contains("root"),
            "{json}"
        );
        let table = run("list");
        assert!(
            stdout(&table).contains(&format!("127.0.0.1:{port}")),
            "{}",
            stdout(&table)
        );
        assert!(
            stderr(&table).contains("could not read the owner of 1 socket"),
            "{}",
            stderr(&table)
        );
        let who = run("who");
        assert_eq!(who.status.code(), Some(0), "hidepid={hidepid}: {}", stderr(&who));
    }
}

#[test]
fn twenty_thousand_processes_come_and_go_and_their_numbers_come_again() {
    in_namespace(
        "twenty_thousand_processes_come_and_go_and_their_numbers_come_again",
        || {
            // Since Linux 6.14 a PID namespace has a limit of its own: every number is used again and again.
            if let Err(error) = fs::write("/proc/sys/kernel/pid_max", "400") {
                skipped(&format!("few process numbers, used again and again: {error}"));
            }
            let (listener, _client, _server, datagrams) = sockets();
            let own = std::env::current_exe()
                .unwrap()
                .to_str()
                .map(Value::from)
                .unwrap();
            let mut looks = 0;
            come_and_go(20_000, || {
                looks += 1;
                let output = portolan(&["-a", "--json"]);
                let json = document(&output);
                let said = stderr(&output);
                assert!(
                    said.lines()
                        .all(|line| line.contains("this kernel does not list")),
                    "{said}"
                );
                let sockets = json["sockets"].as_array().unwrap();
                assert_eq!(sockets.len(), 4, "{json}");
                for socket in sockets {
                    let owners = socket["owners"].as_array().unwrap();
                    assert!(
                        owners.iter().any(|owner| owner["pid"] == std::process::id()),
                        "{socket}"
                    );
                    // The children hold it too, for as long as they live; whoever has their number later does not.
                    for owner in owners {
                        assert!(owner["exe"].is_null() || owner["exe"] == own, "{socket}");
                    }
                }
                let who = portolan(&["who", "80/tcp"]);
                assert_eq!(who.status.code(), Some(0), "{}", stderr(&who));
            });
            assert!(looks > 0, "nothing was looked at");
            drop((listener, datagrams));
        },
    );
}

#[test]
fn a_reader_that_goes_away_is_a_normal_end() {
    in_namespace("a_reader_that_goes_away_is_a_normal_end", || {
        // More than a pipe holds.
        let _listeners: Vec<TcpListener> = (0..900)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        for command in [
            "list --json",
            "--ndjson",
            "list",
            "who 1-65535",
            "who --json 1-65535",
        ] {
            let output = in_shell(&format!(
                "{{ \"$0\" {command} --space host; echo \"exit $?\" >&2; }} | head -n 1"
            ));
            assert_eq!(stdout(&output).lines().count(), 1, "{command}");
            assert!(
                stderr(&output).ends_with("exit 0\n"),
                "{command}: {}",
                stderr(&output)
            );
        }
        for command in [&["list"][..], &["who", "1-65535"]] {
            let full = File::options().write(true).open("/dev/full").unwrap();
            let output = Command::new(PORTOLAN)
                .args(command)
                .stdout(full)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(4), "{command:?}: {}", stderr(&output));
            let said = stderr(&output);
            assert!(
                said.contains("cannot write to standard output"),
                "{command:?}: {said}"
            );
        }
    });
}

#[test]
fn thirty_two_columns_and_plain_ascii_are_enough() {
    in_namespace("thirty_two_columns_and_plain_ascii_are_enough", || {
        let _sockets = sockets();
        let listener = TcpListener::bind("[::1]:8080").unwrap();
        let _holder = named("bad\\033", listener.into());
        for arguments in [
            &["list"][..],
            &["-a"],
            &["-o", "wide"],
            &["who", "80"],
            &["who", "8080"],
        ] {
            let output = Command::new(PORTOLAN)
                .args(arguments)
                .env("COLUMNS", "32")
                .env("LC_ALL", "C")
                .output()
                .unwrap();
            assert_eq!(
                output.status.code(),
                Some(0),
                "{arguments:?}: {}",
                stderr(&output)
            );
            let text = stdout(&output);
            assert!(text.is_ascii() && text.contains("80"), "{arguments:?}: {text}");
            if arguments[0] != "who" {
                assert!(
                    text.lines().all(|line| line.len() <= 32),
                    "{arguments:?}:\n{text}"
                );
            }
        }
    });
}
