//! Tests in a network namespace of their own, in which the host has addresses beside loopback, and dead networks around it.

use std::env;
use std::future::Future;
use std::io::Write;
use std::process::{Command, Stdio};

/// Addresses of the host.
pub(crate) const HOST_V4: &str = "192.0.2.1";
pub(crate) const HOST_V6: &str = "2001:db8::1";
/// Nobody answers from 198.51.100.0/24, and nobody says so.
pub(crate) const BLACK_HOLE: &str = "198.51.100.7";
/// The host knows that it cannot reach 203.0.113.0/25.
pub(crate) const UNREACHABLE: &str = "203.0.113.1";
/// It may not reach the rest of that network.
pub(crate) const PROHIBITED: &str = "203.0.113.129";
/// There is no route there.
pub(crate) const NO_ROUTE: &str = "198.18.0.1";

const SETUP: &str = "
    set -e
    ip link set lo up
    ip addr add 192.0.2.1/32 dev lo
    ip addr add 2001:db8::1/128 dev lo nodad
    ip addr add 169.254.7.7/32 dev lo
    ip link add hole type veth peer name wall
    ip link set hole arp off up
    ip link set wall up
    ip route add 198.51.100.0/24 dev hole
    ip route add unreachable 203.0.113.0/25
    ip route add prohibit 203.0.113.128/25
    exec \"$0\" --exact \"$1\" --nocapture";

/// Runs `body` in a child process that is root in new namespaces. Says loudly where the machine forbids that.
///
/// `test` is the path of the test that calls: the child is this program, told to run that test alone.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    if env::var_os(INSIDE).is_some_and(|inside| inside == test) {
        // A thousand connections have two thousand descriptors here.
        let _ = portolan_gateway::inbound::raise_descriptor_limit();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system has epoll");
        return runtime.block_on(body());
    }
    let Some(ways) = WAYS.iter().copied().find(|ways| possible(ways).is_ok()) else {
        let reasons: Vec<_> = WAYS.iter().filter_map(|ways| possible(ways).err()).collect();
        return skipped(&format!("{test}: no namespaces here: {}", reasons.join("; ")));
    };
    let output = unshare(ways)
        .args(["sh", "-c", SETUP])
        .arg(env::current_exe().expect("this program has a path"))
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

/// Whether this machine lets us make namespaces, and veth pairs in them.
fn possible(ways: &[&str]) -> Result<(), String> {
    let output = unshare(ways)
        .args([
            "ip", "link", "add", "hole", "type", "veth", "peer", "name", "wall",
        ])
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
    command.args(["--net", "--pid", "--fork", "--kill-child", "--"]);
    command
}

/// As root, and as anybody.
const WAYS: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];

/// Names the test that the child is to run.
const INSIDE: &str = "PORTOLAN_TEST_INSIDE";
