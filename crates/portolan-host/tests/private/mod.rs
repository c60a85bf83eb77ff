//! Tests in a user and network namespace of their own.

use std::env;
use std::process::{Command, Stdio};

/// Runs `body` in a child process that is root in new user and network namespaces, with the loopback interface
/// up. Says so loudly where the machine forbids that.
///
/// `test` is the path of the test that calls: the child is this program, told to run that test alone.
pub(crate) fn in_namespace(test: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        body();
        return;
    }
    if let Err(reason) = possible() {
        eprintln!("skipped: {test}: {reason}");
        return;
    }
    let program = env::current_exe().expect("this program has a path");
    let output = unshare()
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
    for line in text.lines().filter(|line| line.contains("skipped:")) {
        eprintln!("{line}");
    }
}

/// Whether this machine lets us make namespaces.
fn possible() -> Result<(), String> {
    let output = unshare()
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

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--mount", "--"]);
    command
}

/// Names the test that the child is to run.
const INSIDE: &str = "PORTOLAN_TEST_INSIDE";
