//! SIGKILL of each process that `portolan run` consists of: nothing is left.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::users::{as_each_user, skipped};

/// Whom the kill meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// `portolan run` itself, which serves the space.
    Gateway,
    /// The first process inside.
    Init,
    /// CMD.
    Program,
    /// A process beside the gateway, of which the space does not need each: it goes on.
    Helper(usize),
}

#[test]
fn nothing_is_left_whoever_is_killed() {
    as_each_user("killed::nothing_is_left_whoever_is_killed", || each_role(&[]));
}

/// Without a PID namespace, which would end everything by itself.
#[test]
fn nothing_is_left_where_there_is_no_pid_namespace() {
    as_each_user("killed::nothing_is_left_where_there_is_no_pid_namespace", || {
        let covered = [
            "unshare",
            "--user",
            "--map-current-user",
            "--keep-caps",
            "--mount",
            "sh",
            "-c",
            "mount -t tmpfs tmpfs /proc/sys/kernel && exec \"$0\" \"$@\"",
        ];
        let tried = Command::new(covered[0]).args(&covered[1..]).arg("true").output();
        match tried {
            Ok(output) if output.status.success() => each_role(&covered),
            _ => skipped("no part of /proc can be covered here"),
        }
    });
}

fn each_role(before: &[&str]) {
    let mut helpers = 0;
    for role in [Role::Gateway, Role::Init, Role::Program] {
        helpers = kill(before, role);
    }
    // Two that keep the control socket, one that takes ports, and one that watches over the first process inside.
    assert_eq!(helpers, if before.is_empty() { 3 } else { 4 });
    for number in 0..helpers {
        kill(before, Role::Helper(number));
    }
}

/// Runs a space, kills one of its processes, and waits until nothing is left of it. Gives how many helpers there were.
fn kill(before: &[&str], role: Role) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(before, directory.path());
    let processes = running.processes();
    let (victim, helpers) = (processes.of(role), processes.helpers.len());
    if let Role::Helper(_) = role {
        kill_process(pid(victim), Signal::KILL).unwrap();
        // The space goes on, and can be asked.
        let until = Instant::now() + Duration::from_secs(10);
        while is_running(victim) {
            assert!(Instant::now() < until, "{victim} is still there");
            sleep(Duration::from_millis(1));
        }
        // Nobody out here is in the user namespace of `before`.
        if before.is_empty() {
            let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
                .args(["spaces", "--json"])
                .env("XDG_RUNTIME_DIR", directory.path())
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("\"killed\""), "{role:?}: {text}");
        }
        assert_eq!(running.child.try_wait().unwrap(), None, "{role:?}");
    }
    let all = running.processes().all();
    let rest = running.rest(all);
    let start = Instant::now();
    let victim = match role {
        Role::Helper(_) => processes.gateway,
        _ => victim,
    };
    kill_process(pid(victim), Signal::KILL).unwrap();
    let code = running.child.wait().unwrap().code();
    assert_eq!(code, (victim != processes.gateway).then_some(137), "{role:?}");
    loop {
        let left = rest.left();
        if left.is_empty() {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{role:?}: {left:?}");
        sleep(Duration::from_millis(1));
    }
    let elapsed = start.elapsed().as_millis();
    println!("{role:?}: nothing is left {elapsed} ms after the kill");
    helpers
}

struct Running {
    child: Child,
    directory: std::path::PathBuf,
    /// What the program and its child sleep, as no other process does.
    seconds: [String; 2],
    ports: [u16; 2],
}

/// The numbers of all processes of one `portolan run`.
struct Processes {
    gateway: i32,
    helpers: Vec<i32>,
    init: i32,
    program: i32,
    /// What the program has started.
    child: i32,
}

impl Processes {
    fn of(&self, role: Role) -> i32 {
        match role {
            Role::Gateway => self.gateway,
            Role::Init => self.init,
            Role::Program => self.program,
            Role::Helper(number) => self.helpers[number],
        }
    }

    fn all(&self) -> Vec<i32> {
        let rest = [self.gateway, self.init, self.program, self.child];
        [&self.helpers[..], &rest].concat()
    }
}

impl Running {
    fn start(before: &[&str], directory: &Path) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(2, Ordering::Relaxed);
        let seconds =
            [number, number + 1].map(|place| format!("{}{place:03}", 1_000_000 + std::process::id()));
        let script = format!(
            "setsid sleep {} & echo ready; exec sleep {}",
            seconds[1], seconds[0]
        );
        let words = [before, &[env!("CARGO_BIN_EXE_portolan")]].concat();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args([
                "run", "--name", "killed", "-p", "0:80", "-p", "0:81/udp", "-p", "auto", "--", "sh", "-c",
                &script,
            ])
            .env("XDG_RUNTIME_DIR", directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let mut running = Self {
            child,
            directory: directory.to_owned(),
            seconds,
            ports: [0; 2],
        };
        let said = BufReader::new(stderr).lines().map(Result::unwrap);
        let ports: Vec<u16> = if line == "ready\n" {
            said.filter_map(|line| chosen(&line)).take(2).collect()
        } else {
            panic!("{line}{}", said.collect::<String>());
        };
        running.ports = ports.try_into().unwrap();
        running
    }

    /// Looked for until all are there: a helper may be replaced.
    fn processes(&self) -> Processes {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let there: HashMap<i32, i32> = numbers().filter_map(|pid| Some((pid, parent(pid)?))).collect();
            let sleeping = |seconds: &str| there.keys().copied().find(|pid| sleeps(*pid, seconds));
            let found = self.seconds.each_ref().map(|seconds| sleeping(seconds));
            if let [Some(program), Some(child)] = found {
                let (gateway, init) = (self.child.id().cast_signed(), there[&program]);
                let children = |parent: i32| {
                    let found = there
                        .iter()
                        .filter(move |(pid, of)| **of == parent && **pid != init);
                    let mut found: Vec<i32> = found.map(|(pid, _)| *pid).collect();
                    found.sort_unstable();
                    found
                };
                let mut helpers = children(gateway);
                for helper in helpers.clone() {
                    helpers.extend(children(helper));
                }
                return Processes {
                    gateway,
                    helpers,
                    init,
                    program,
                    child,
                };
            }
            assert!(Instant::now() < until, "{found:?}");
            sleep(Duration::from_millis(1));
        }
    }

    /// What is to be gone.
    fn rest(&self, processes: Vec<i32>) -> Rest {
        let program = numbers().find(|pid| sleeps(*pid, &self.seconds[0])).unwrap();
        let namespace = fs::read_link(format!("/proc/{program}/ns/net")).unwrap();
        let socket = self.directory.join("portolan/killed.sock");
        assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
        let rest = Rest {
            processes,
            namespace,
            socket,
            ports: self.ports,
            seconds: self.seconds.clone(),
        };
        // All of it is seen, and may be missed then.
        assert_eq!(rest.left().len(), 6, "{:?}", rest.left());
        rest
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Rest {
    processes: Vec<i32>,
    namespace: std::path::PathBuf,
    socket: std::path::PathBuf,
    ports: [u16; 2],
    seconds: [String; 2],
}

impl Rest {
    /// What is left.
    fn left(&self) -> Vec<String> {
        let running: Vec<i32> = self
            .processes
            .iter()
            .copied()
            .filter(|pid| is_running(*pid))
            .collect();
        let programs = numbers().filter(|pid| self.seconds.iter().any(|seconds| sleeps(*pid, seconds)));
        let programs = programs.count();
        let mut inside = numbers().filter(|pid| {
            fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|link| link == self.namespace)
        });
        let [tcp, udp] = self.ports;
        let left = [
            (!running.is_empty()).then(|| format!("processes {running:?}")),
            (programs != 0).then(|| format!("{programs} programs")),
            inside.next().map(|pid| format!("the namespace of {pid}")),
            self.socket.exists().then(|| "the control socket".to_owned()),
            TcpListener::bind(("0.0.0.0", tcp))
                .err()
                .map(|_| format!("port {tcp}/tcp")),
            UdpSocket::bind(("0.0.0.0", udp))
                .err()
                .map(|_| format!("port {udp}/udp")),
        ];
        left.into_iter().flatten().collect()
    }
}

/// The port in `portolan: port 41234 …`.
fn chosen(line: &str) -> Option<u16> {
    line.split(|letter: char| !letter.is_ascii_digit())
        .find_map(|word| word.parse().ok().filter(|port| *port >= 1024))
}

fn numbers() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The state and the parent of a process, which stand behind its name.
fn state(pid: i32) -> Option<(String, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

fn parent(pid: i32) -> Option<i32> {
    state(pid).map(|(_, parent)| parent)
}

/// Whether a process is there, and more than a code that its parent has not read yet.
fn is_running(pid: i32) -> bool {
    state(pid).is_some_and(|(state, _)| state != "Z" && state != "X")
}

fn sleeps(pid: i32, seconds: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line == [b"sleep\0", seconds.as_bytes(), b"\0"].concat()
}

fn pid(number: i32) -> Pid {
    Pid::from_raw(number).unwrap()
}
