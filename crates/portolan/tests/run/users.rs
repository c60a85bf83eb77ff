//! Running a test as each kind of user, where spaces can be made at all.

use std::env;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// Runs `body` as the user who runs the tests and, if that is root, in a second process as an ordinary one.
pub(crate) fn as_each_user(test: &str, body: impl FnOnce()) {
    let is_second = env::var_os(AGAIN).is_some();
    if !has_spaces() {
        return;
    }
    body();
    if is_second || !rustix::process::geteuid().is_root() {
        return;
    }
    let mut ordinary = Command::new("setpriv");
    ordinary
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
        ])
        .stdin(Stdio::null());
    let program = env::current_exe().unwrap();
    let output = match ordinary
        .arg(&program)
        .args(["--exact", test, "--nocapture"])
        .env(AGAIN, "1")
        .output()
    {
        Ok(output) if [Some(126), Some(127)].contains(&output.status.code()) => {
            return skipped(&format!(
                "{test}: an ordinary user may not run {}",
                program.display()
            ));
        }
        Ok(output) => output,
        Err(error) => return skipped(&format!("{test} as an ordinary user: setpriv: {error}")),
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} as an ordinary user: {text}");
    assert!(text.contains("1 passed"), "another number of tests: {text}");
    for (_, reason) in text.lines().filter_map(|line| line.split_once("skipped: ")) {
        skipped(reason);
    }
}

/// Whether this machine lets this user make a space; else says what it forbids.
fn has_spaces() -> bool {
    let output = crate::run(&["--", "true"]);
    match output.status.code() {
        Some(0) => true,
        Some(125) => {
            skipped(&format!("no port space here: {}", crate::stderr(&output).trim()));
            false
        }
        code => panic!("true gave {code:?}: {}", crate::stderr(&output)),
    }
}

/// Says what this machine does not let us test, also when the test passes: its captured output would be lost.
pub(crate) fn skipped(reason: &str) {
    writeln!(io::stderr(), "skipped: {reason}").expect("stderr is open");
}

/// Says that this is not the first run of the test.
pub(crate) const AGAIN: &str = "PORTOLAN_TEST_AGAIN";

/// Whether this user has a Python to be the program.
pub(crate) fn has_python() -> bool {
    let output = Command::new("python3").arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}
