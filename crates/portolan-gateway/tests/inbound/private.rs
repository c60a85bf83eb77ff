//! Tests in a network namespace of their own, so that no port of it is in use and every address may be added.

use std::env;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// Runs `body` in a child process that is root in a new user and network namespace, whose loopback interface is up. Says
/// loudly where the machine forbids that. `test` is the path of the test that calls.
pub(crate) fn in_namespace(test: &str, body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        return body();
    }
    let unshare = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        let common = ["--user", "--map-root-user", "--net", "--mount", "sh", "-c"];
        command.args(common).args(arguments).stdin(Stdio::null());
        command
    };
    match unshare(&["ip link set lo up"]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            return skipped(&format!("{test}: {}", reason.trim()));
        }
        Err(error) => return skipped(&format!("{test}: unshare: {error}")),
    }
    let program = env::current_exe().expect("this program has a path");
    let output = unshare(&["ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(program)
        .arg(test)
        .env(INSIDE, test)
        .output()
        .expect("unshare ran a moment ago");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "inside the namespace: {text}");
    assert!(text.contains("1 passed"), "another number of tests: {text}");
    print!("{text}");
    for (_, reason) in text.lines().filter_map(|line| line.split_once("skipped: ")) {
        skipped(reason);
    }
}

/// Says what this machine does not let us test, also when the test passes: its captured output would be lost.
pub(crate) fn skipped(reason: &str) {
    writeln!(io::stderr(), "skipped: {reason}").expect("stderr is open");
}

/// Names the test that the child is to run.
const INSIDE: &str = "PORTOLAN_TEST_INSIDE";
