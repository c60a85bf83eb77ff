//! Tests in a network, a mount and a PID namespace of their own: this host has addresses beside its loopback there, and
//! nothing that a test starts outlives it.

use std::env;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::users::{AGAIN, skipped};

/// Runs `body` in a child process that is root in new namespaces. Says loudly where the machine forbids that, or has one
/// of `programs` not.
///
/// `test` is the path of the test that calls: the child is this program, told to run that test alone.
pub(crate) fn in_network(test: &str, programs: &[&str], body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        return body();
    }
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect();
    if !missing.is_empty() {
        return skipped(&format!("{test}: not installed: {}", missing.join(", ")));
    }
    let Some(ways) = WAYS.iter().copied().find(|ways| possible(ways).is_ok()) else {
        let reasons: Vec<_> = WAYS.iter().filter_map(|ways| possible(ways).err()).collect();
        return skipped(&format!("{test}: no namespaces here: {}", reasons.join("; ")));
    };
    // Spaces of others have names too.
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in FILES {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let output = unshare(ways)
        .args(["sh", "-c", SETUP])
        .arg(env::current_exe().expect("this program has a path"))
        .args(["--exact", test, "--nocapture"])
        .current_dir(directory.path())
        .envs([(INSIDE, test), (AGAIN, "1")])
        .envs(["HOME", "TMPDIR", "XDG_RUNTIME_DIR"].map(|name| (name, directory.path())))
        .env("PATH", path())
        .env("PORTOLAN", env!("CARGO_BIN_EXE_portolan"))
        .stdin(Stdio::null())
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

/// Runs a script in such a network; it must end well within a minute, and gives what it has written. Beside the shell's
/// words it has those of `PRELUDE`.
pub(crate) fn script(text: &str) -> String {
    // Servers of a script that failed would keep a pipe open.
    let mut said = tempfile::tempfile().unwrap();
    let status = Command::new("timeout")
        .args([
            "--kill-after=1",
            &patience(),
            "bash",
            "-euc",
            &format!("exec 2>&1\n{PRELUDE}\n{text}"),
        ])
        .stdin(Stdio::null())
        .stdout(said.try_clone().unwrap())
        .status()
        .expect("there is a bash");
    let mut bytes = Vec::new();
    said.rewind().unwrap();
    said.read_to_end(&mut bytes).unwrap();
    let said = String::from_utf8_lossy(&bytes).into_owned();
    assert!(status.success(), "{status}: {said}");
    said
}

/// The same, for a test that is nothing else.
pub(crate) fn script_in_network(test: &str, programs: &[&str], text: &str) {
    in_network(test, programs, || {
        for line in script(text).lines() {
            println!("{line}");
        }
    });
}

/// Whether there is such a program where programs of this test are looked for.
fn is_installed(name: &str) -> bool {
    path().split(':').any(|directory| {
        let file = Path::new(directory).join(name);
        rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
    })
}

/// Where programs are: servers are where an ordinary user does not look.
fn path() -> String {
    let own = env::var("PATH").unwrap_or_default();
    let mut servers: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    servers.sort();
    let servers = servers.iter().rev().map(|path| format!(":{}", path.display()));
    format!("{own}:/usr/sbin:/sbin{}", servers.collect::<String>())
}

/// Seconds that a script may take. A transfer that was made longer by whoever runs the tests may take longer.
fn patience() -> String {
    let is_long = env::var_os("PORTOLAN_TEST_TRANSFER_MIB").is_some();
    if is_long { "600" } else { "90" }.to_owned()
}

/// Whether this machine lets us make such namespaces.
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
        "--mount-proc",
        "--fork",
        "--kill-child",
        "--",
    ]);
    command
}

/// Programs of ours for scripts, in the directory where they start.
const FILES: [(&str, &str); 7] = [
    ("dns.py", include_str!("scripts/dns.py")),
    ("far.py", include_str!("scripts/far.py")),
    ("hostile.py", include_str!("scripts/hostile.py")),
    ("near.py", include_str!("scripts/near.py")),
    ("many.py", include_str!("scripts/many.py")),
    ("quic.py", include_str!("scripts/quic.py")),
    ("transfer.py", include_str!("scripts/transfer.py")),
];

/// As root, and as anybody.
const WAYS: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];

const SETUP: &str = "
    set -e
    ip link set lo up
    ip addr add 192.0.2.1/32 dev lo
    ip addr add 2001:db8::1/128 dev lo nodad || echo 'skipped: no IPv6 here' >&2
    echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
    exec \"$0\" \"$@\"";

/// Words for scripts: `await COMMAND` tries until it works, `same A B` and `has TEXT PART` want what they say,
/// `space ARGUMENTS` starts a program in a space in the background, by `$as` if that is set; `$ordinary COMMAND` runs one as a
/// user who is not called root.
const PRELUDE: &str = r#"
V4=192.0.2.1 V6=2001:db8::1
run() { "$PORTOLAN" run "$@"; }
as=
space() { $as "$PORTOLAN" run "$@" & }
ordinary="unshare --user --map-user=1000 --map-group=1000"
await() {
    local n=0
    until "$@" >/dev/null 2>&1; do
        n=$((n + 1))
        [ $n -lt 150 ] || { echo "never: $*"; "$@" || tail -n 5 log* errors* 2>/dev/null; exit 9; }
        sleep 0.02
    done
}
same() { [ "$1" = "$2" ] || { echo "not the same: <$1> <$2>"; exit 8; }; }
has() { case $1 in *"$2"*) ;; *) echo "no <$2> in <$1>"; exit 7;; esac; }
hash() { sha256sum | cut -d' ' -f1; }
listens() { ss -Hltun "sport = :$1" | grep -q .; }
"#;

/// Names the test that the child is to run.
const INSIDE: &str = "PORTOLAN_TEST_INSIDE";
