//! Tests in namespaces of their own, with a TUN device in them.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::{Command, Stdio};

/// Runs `body` in a child process that is root in new namespaces, with the loopback interface up. Says loudly where the
/// machine forbids that, or the opening of TUN devices.
///
/// `test` is the path of the test that calls: the child is this program, told to run that test alone.
pub(crate) fn in_namespace(test: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        body();
        return;
    }
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        return skipped(&format!("{test}: cannot open /dev/net/tun: {error}"));
    }
    let ways: &[&[&str]] = if rustix::process::geteuid().is_root() {
        // Daemons change their user, which a namespace with one user does not let them.
        &[&[], USER]
    } else {
        &[USER]
    };
    let Some(ways) = ways.iter().copied().find(|ways| possible(ways).is_ok()) else {
        let reasons: Vec<_> = ways.iter().filter_map(|ways| possible(ways).err()).collect();
        return skipped(&format!("{test}: no namespaces here: {}", reasons.join("; ")));
    };
    let program = env::current_exe().expect("this program has a path");
    let script = "ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture";
    let output = unshare(ways)
        .args(["sh", "-c", script])
        .arg(program)
        .arg(test)
        .env(INSIDE, test)
        .output()
        .expect("unshare ran a moment ago");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "inside the namespace: {text}");
    assert!(
        text.contains("1 passed"),
        "the child ran another number of tests: {text}"
    );
    for (_, reason) in text.lines().filter_map(|line| line.split_once("skipped: ")) {
        skipped(reason);
    }
    for (_, note) in text.lines().filter_map(|line| line.split_once("note: ")) {
        println!("note: {note}");
    }
}

/// Says what this machine does not let us test, also when the test passes: its captured output would be lost.
pub(crate) fn skipped(reason: &str) {
    writeln!(std::io::stderr(), "skipped: {reason}").expect("stderr is open");
}

/// Whether a program is there; if not, the test that wants it says so.
pub(crate) fn has(test: &str, program: &str) -> bool {
    let found = env::var_os("PATH").is_some_and(|path| {
        env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|dir| dir.join(program).is_file())
    });
    if !found {
        skipped(&format!("{test}: {program} is not installed"));
    }
    found
}

/// Whether this machine lets us make namespaces.
fn possible(ways: &[&str]) -> Result<(), String> {
    let output = unshare(ways)
        .args(["ip", "link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("unshare: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

fn unshare(ways: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(ways);
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
    ]);
    command
}

const USER: &[&str] = &["--user", "--map-root-user"];

/// Names the test that the child is to run.
const INSIDE: &str = "PORTOLAN_TEST_INSIDE";
