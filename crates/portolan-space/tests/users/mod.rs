//! Running a test as each kind of user, and in hosts that forbid things.
#![expect(unsafe_code, reason = "a descriptor's flag, and a signal, by number")]

use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs `body` as the user who runs the tests and, if that is root, in a second process as an ordinary one.
pub(crate) fn as_each_user(test: &str, body: impl FnOnce()) {
    let is_root = rustix::process::geteuid().is_root();
    let is_second = env::var_os(AGAIN).is_some();
    body();
    if !is_root || is_second {
        return;
    }
    let program = env::current_exe().expect("this program has a path");
    let ordinary = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
            ])
            .args(arguments)
            .stdin(Stdio::null());
        command
    };
    match ordinary(&["test", "-x"]).arg(&program).status() {
        Ok(status) if status.success() => {}
        Ok(_) => {
            return skipped(&format!(
                "{test}: an ordinary user may not run {}",
                program.display()
            ));
        }
        Err(error) => return skipped(&format!("{test} as an ordinary user: setpriv: {error}")),
    }
    rerun(test, ordinary(&[]).arg(&program));
}

/// The parent of a process.
pub(crate) fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.unwrap().trim().parse().unwrap()
}

/// Whether this is the process in which a part of /proc is covered; else runs the test in one.
pub(crate) fn in_covered_proc(test: &str) -> bool {
    in_a_host_that(
        test,
        "COVERED",
        "mount -t tmpfs tmpfs /proc/sys/kernel && exec \"$0\" \"$@\"",
    )
}

/// Whether this is the process in which nobody may make user namespaces; else runs the test in one.
pub(crate) fn without_namespaces(test: &str) -> bool {
    in_a_host_that(
        test,
        "FORBIDDEN",
        "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"",
    )
}

fn in_a_host_that(test: &str, mark: &str, script: &str) -> bool {
    let mark = format!("PORTOLAN_TEST_{mark}");
    if env::var_os(&mark).is_some() {
        return true;
    }
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args([
                "--user",
                "--map-current-user",
                "--keep-caps",
                "--mount",
                "sh",
                "-c",
                script,
            ])
            .stdin(Stdio::null());
        command
    };
    match unshare(&script.replace("exec \"$0\" \"$@\"", "true")).output() {
        Ok(output) if output.status.success() => {
            let program = env::current_exe().expect("this program has a path");
            rerun(test, unshare(script).arg(program).env(mark, "1"));
        }
        Ok(output) => skipped(&format!(
            "{test}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => skipped(&format!("{test}: unshare: {error}")),
    }
    false
}

/// Runs this one test by `command`, which is this program at its end, and wants it to pass.
fn rerun(test: &str, command: &mut Command) {
    let output = command
        .args(["--exact", test, "--nocapture"])
        .env(AGAIN, "1")
        .output()
        .expect("it ran a moment ago");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} again: {text}");
    assert!(text.contains("1 passed"), "another number of tests: {text}");
    for (_, reason) in text.lines().filter_map(|line| line.split_once("skipped: ")) {
        skipped(reason);
    }
}

/// Says what this machine does not let us test, also when the test passes: its captured output would be lost.
pub(crate) fn skipped(reason: &str) {
    writeln!(io::stderr(), "skipped: {reason}").expect("stderr is open");
}

/// A process in a network namespace of its own, in which this user has all rights.
pub(crate) fn in_own_network() -> Option<Child> {
    let mut child = Command::new("unshare")
        .args([
            "--user",
            "--map-current-user",
            "--net",
            "sh",
            "-c",
            "echo; exec sleep 60",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut byte = [0];
    if io::Read::read(child.stdout.as_mut()?, &mut byte).ok()? == 0 {
        child.wait().ok()?;
        skipped("unshare makes no network namespace");
        return None;
    }
    Some(child)
}

/// Waits for a packet that `choose` takes.
pub(crate) fn find_packet<T>(device: &OwnedFd, choose: impl Fn(&[u8]) -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(10);
    let mut buffer = vec![0; 1 << 17];
    while Instant::now() < until {
        match rustix::io::read(device, &mut buffer[..]) {
            Ok(len) => {
                if let Some(chosen) = choose(&buffer[..len]) {
                    return chosen;
                }
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    panic!("no such packet came");
}

/// The namespace of this kind in which the process is that has this word among its arguments.
pub(crate) fn namespace_of(kind: &str, word: &str) -> Option<String> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let arguments = fs::read(entry.path().join("cmdline")).ok()?;
        let mut arguments = arguments.split(|byte| *byte == 0);
        arguments.next().filter(|name| *name == b"sleep")?;
        arguments.next().filter(|argument| *argument == word.as_bytes())?;
        let link = fs::read_link(entry.path().join("ns").join(kind)).ok()?;
        Some(link.to_str()?.to_owned())
    })
}

/// Whether a process is in the namespace, as far as this user can see. One that has ended is in none, though its number
/// is kept until the host's first process takes leave of it.
pub(crate) fn is_in_use(namespace: &str) -> bool {
    let kind = namespace.split(':').next().unwrap_or_default();
    fs::read_dir("/proc").is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let has_ended = stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"));
            let link = fs::read_link(entry.path().join("ns").join(kind));
            !has_ended && link.is_ok_and(|link| link.as_os_str() == namespace)
        })
    })
}

/// Takes away the mark by which a descriptor closes at exec.
pub(crate) fn keep_open_at_exec(fd: i32) {
    // SAFETY: F_SETFD takes a number, and touches the flag of one descriptor alone.
    let result = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    assert_eq!(result, 0);
}

/// Sends a signal to a process.
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: two numbers; the process is one that the test has started.
    let result = unsafe { libc::kill(pid, signal) };
    assert_eq!(result, 0);
}

/// Says that this is not the first run of the test.
const AGAIN: &str = "PORTOLAN_TEST_AGAIN";
