//! Tests in namespaces of their own: user, network, mount and process, so that nothing else of the machine shows.

use std::env;
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Runs `body` in a child process that is root in new namespaces, with a /proc of its own and the loopback
/// interface up. Says loudly where the machine forbids that.
///
/// `test` is the path of the test that calls: the child is this program, told to run that test alone.
pub(crate) fn in_namespace(test: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        body();
        return;
    }
    let Some(ways) = WAYS.iter().copied().find(|ways| possible(ways).is_ok()) else {
        let reasons: Vec<_> = WAYS.iter().filter_map(|ways| possible(ways).err()).collect();
        return skipped(&format!("{test}: no namespaces here: {}", reasons.join("; ")));
    };
    let program = env::current_exe().expect("this program has a path");
    let output = unshare(ways)
        .args([
            "sh",
            "-c",
            "ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture",
        ])
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
}

/// Says what this machine does not let us test, also when the test passes: its captured output would be lost.
pub(crate) fn skipped(reason: &str) {
    writeln!(io::stderr(), "skipped: {reason}").expect("stderr is open");
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

/// As any user, or where user namespaces are forbidden, as root.
const WAYS: [&[&str]; 2] = [&["--user", "--map-root-user"], &[]];

/// Names the test that the child is to run.
const INSIDE: &str = "PORTOLAN_TEST_INSIDE";
