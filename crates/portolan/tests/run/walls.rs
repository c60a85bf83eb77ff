//! The process that serves a space, seen from outside while it does; and the program, in each kind of space.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::users::{as_each_user, has_python, skipped};
use crate::{portolan, run, stderr, stdout};

/// A process that does not outlive its test.
struct Running(Child);

impl Running {
    /// Starts it, and waits until it has written a line.
    fn start(command: &mut Command) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Self(child);
        let mut line = String::new();
        BufReader::new(running.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const WAIT: [&str; 4] = ["--", "sh", "-c", "echo ready; exec sleep 1000"];

#[test]
fn the_gateway_has_no_rights_left() {
    as_each_user("walls::the_gateway_has_no_rights_left", || {
        let directory = tempfile::tempdir().unwrap();
        let mut command = portolan();
        command.env("XDG_RUNTIME_DIR", directory.path());
        let running = Running::start(command.args(["--name", "walls", "-p", "0:80"]).args(WAIT));
        let gateway = format!("/proc/{}", running.0.id());
        for task in fs::read_dir(format!("{gateway}/task")).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let values = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| field(&status, set));
            assert_eq!(values, ["0000000000000000"; 5], "{status}");
            assert_eq!(
                (field(&status, "NoNewPrivs"), field(&status, "Seccomp")),
                ("1", "2")
            );
        }
        let limits = fs::read_to_string(format!("{gateway}/limits")).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))
            .unwrap();
        let core: Vec<&str> = core.split_ascii_whitespace().collect();
        assert_eq!(core[4..6], ["0", "0"]);
        // What nobody may dump is root's in /proc, whosever it is.
        assert_eq!(fs::metadata(format!("{gateway}/environ")).unwrap().uid(), 0);
        if rustix::process::geteuid().is_root() {
            assert_eq!(fs::read_dir(format!("{gateway}/root/")).unwrap().count(), 0);
            let mounts = fs::read_to_string(format!("{gateway}/mountinfo")).unwrap();
            assert_eq!(mounts.lines().count(), 1, "{mounts}");
            let own = fs::read_link("/proc/self/ns/mnt").unwrap();
            assert_ne!(fs::read_link(format!("{gateway}/ns/mnt")).unwrap(), own);
        } else {
            for file in ["environ", "maps", "mem"] {
                assert!(fs::File::open(format!("{gateway}/{file}")).is_err(), "{file}");
            }
        }
        let sockets = directory.path().join("portolan");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&sockets), mode(&sockets.join("walls.sock"))),
            (0o700, 0o600)
        );
    });
}

/// The value behind a name in /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

/// The socket is opened to everybody for it, as by a careless administrator.
#[test]
fn another_user_is_not_answered() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can be several users");
    }
    if !Path::new("/usr/bin/python3").exists() {
        return skipped("no python3 for every user");
    }
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    chown(here, Some(65534), None).unwrap();
    fs::set_permissions(here, fs::Permissions::from_mode(0o755)).unwrap();
    let as_user = |user: u32| {
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={user}"), format!("--regid={user}")])
            .args(["--clear-groups", "--inh-caps=-all"])
            .env("XDG_RUNTIME_DIR", here)
            .stdin(Stdio::null());
        command
    };
    let executable = env!("CARGO_BIN_EXE_portolan");
    let tried = as_user(65534)
        .args([executable, "run", "--", "true"])
        .output()
        .unwrap();
    if !tried.status.success() {
        return skipped(&format!("no port space for an ordinary user: {}", stderr(&tried)));
    }
    let _running = Running::start(
        as_user(65534)
            .args([executable, "run", "--name", "walls"])
            .args(WAIT),
    );
    let sockets = here.join("portolan");
    fs::set_permissions(&sockets, fs::Permissions::from_mode(0o755)).unwrap();
    let socket = sockets.join("walls.sock");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let talk = format!(
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(20)\ns.connect({:?})\n\
         try:\n  s.sendall(b'{{\"ask\":\"status\"}}\\n')\n  print(len(s.recv(99)) > 0)\nexcept OSError: print(False)",
        socket.to_str().unwrap()
    );
    for (user, is_answered) in [(65534, "True\n"), (0, "True\n"), (65533, "False\n")] {
        let output = as_user(user)
            .args(["/usr/bin/python3", "-c", &talk])
            .output()
            .unwrap();
        assert_eq!(stdout(&output), is_answered, "user {user}: {}", stderr(&output));
    }
}

/// Says who the program is, what it may, and what it has open; the last is what `ls` reads.
const LOOK: &str =
    "id -u; id -g; grep -e CapEff -e NoNewPrivs /proc/self/status | cut -f2; ls /proc/self/fd | tr '\\n' ' '";

/// What `LOOK` says of a program that has nothing but its user.
fn looks(output: &Output, user: u32, group: u32) {
    let expected = format!("{user}\n{group}\n0000000000000000\n1\n0 1 2 3 ");
    assert_eq!(
        (output.status.code(), stdout(output)),
        (Some(0), &*expected),
        "{}",
        stderr(output)
    );
}

#[test]
fn the_program_has_its_user_and_nothing_else_in_each_kind_of_space() {
    as_each_user(
        "walls::the_program_has_its_user_and_nothing_else_in_each_kind_of_space",
        || {
            // What a careless caller leaves open.
            let leaked = fs::File::open("/etc/hostname").unwrap();
            rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
            let user = rustix::process::geteuid().as_raw();
            let group = rustix::process::getegid().as_raw();
            let look = |options: &[&str]| run(&[options, &["--", "sh", "-c", LOOK]].concat());
            looks(&look(&["-p", "0:80", "-p", "auto"]), user, group);
            looks(&look(&["--root"]), 0, 0);
            match look(&["--subids"]) {
                output if output.status.code() == Some(125) => {
                    assert!(stderr(&output).contains("[sub-ids]"), "{}", stderr(&output));
                }
                output => looks(&output, user, group),
            }
            let namespace = Running::start(Command::new("unshare").args([
                "--user",
                "--map-current-user",
                "--net",
                "sh",
                "-c",
                "echo ready; exec sleep 1000",
            ]));
            let pid = namespace.0.id().to_string();
            looks(&look(&["--pid", &pid]), user, group);
            let path = format!("/proc/{pid}/ns/net");
            let joined = look(&["--netns", &path]);
            if user == 0 {
                looks(&joined, user, group);
            } else {
                // Another user namespace's; with its number its rights are had too.
                assert!(
                    stderr(&joined).contains("[join-namespace]"),
                    "{}",
                    stderr(&joined)
                );
            }
        },
    );
}

#[test]
fn a_space_in_a_space() {
    as_each_user("walls::a_space_in_a_space", || {
        let executable = env!("CARGO_BIN_EXE_portolan");
        let output = run(&["--", executable, "run", "-p", "80:80", "--", "sh", "-c", LOOK]);
        // The kernel lets root who has no capability map nobody.
        let is_root = rustix::process::geteuid().is_root();
        let user = if is_root {
            65534
        } else {
            rustix::process::geteuid().as_raw()
        };
        looks(&output, user, rustix::process::getegid().as_raw());
        assert_eq!(
            stderr(&output).contains("[id-map]"),
            is_root,
            "{}",
            stderr(&output)
        );
    });
}

#[test]
fn names_of_the_hosts_file_are_answered_where_that_is_wanted() {
    as_each_user(
        "walls::names_of_the_hosts_file_are_answered_where_that_is_wanted",
        || {
            let directory = tempfile::tempdir().unwrap();
            let hosts = directory.path().join("hosts");
            fs::write(&hosts, "127.0.0.1 localhost\n192.0.2.77 harbour.example\n").unwrap();
            if !has_python() {
                return skipped("no python3 for this user");
            }
            // The program's own look into the file is not meant: it asks the gateway, as `dig` does.
            let ask = "
import os, socket, struct
server = [line.split()[1] for line in open('/etc/resolv.conf') if line.startswith('nameserver') and '.' in line][0]
name = b''.join(bytes([len(label)]) + label for label in b'harbour.example'.split(b'.')) + b'\\0'
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(30)
s.sendto(struct.pack('>6H', 7, 0x100, 1, 0, 0, 0) + name + struct.pack('>2H', 1, 1), (server, 53))
answer = s.recv(512)
print(answer[3] & 15, socket.inet_ntoa(answer[-4:]) if answer[7] else '-')";
            let output = Command::new("unshare")
                .args([
                    "--user",
                    "--map-current-user",
                    "--keep-caps",
                    "--mount",
                    "sh",
                    "-c",
                ])
                .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
                .args([
                    hosts.to_str().unwrap(),
                    env!("CARGO_BIN_EXE_portolan"),
                    "run",
                    "--hosts",
                ])
                .args(["--", "python3", "-c", ask])
                .stdin(Stdio::null())
                .output()
                .unwrap();
            if stderr(&output).contains("mount:") {
                return skipped(stderr(&output).trim());
            }
            assert_eq!(stdout(&output), "0 192.0.2.77\n", "{}", stderr(&output));
        },
    );
}
