//! What the program may do: no more than whoever started it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::users::{as_each_user, skipped};
use crate::{run, stderr, stdout};

/// Many systems give `ping` a capability by its file. It runs without, and needs none: a space lets everybody ping.
#[test]
fn a_file_with_capabilities_runs_without_them() {
    as_each_user("rights::a_file_with_capabilities_runs_without_them", || {
        if Command::new("ping").arg("-V").output().is_err() {
            return skipped("no ping here");
        }
        let output = run(&["--", "ping", "-c1", "-W20", "127.0.0.1"]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let status = run(&["--", "grep", "^Cap[IPEA]", "/proc/self/status"]);
        let sets: Vec<_> = stdout(&status)
            .lines()
            .filter_map(|line| line.split('\t').next_back())
            .collect();
        assert_eq!(sets, ["0000000000000000"; 4], "{}", stdout(&status));
    });
}

#[test]
fn a_set_uid_program_runs_as_who_started_it() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can make another user's set-uid program");
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let id = directory.path().join("id");
    fs::copy("/usr/bin/id", &id).unwrap();
    for (caller, owner) in [(0, 65534), (65534, 0)] {
        chown(&id, Some(owner), None).unwrap();
        fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).unwrap();
        let outside = as_user(caller, &[], &id);
        if outside != (Some(0), format!("{owner}\n")) {
            return skipped(&format!("set-uid programs mean nothing here: {outside:?}"));
        }
        let inside = as_user(caller, &[env!("CARGO_BIN_EXE_portolan"), "run", "--"], &id);
        if inside.0 == Some(125) || inside.0 == Some(126) {
            return skipped(&format!("user {caller} has no port space here"));
        }
        assert_eq!(inside, (Some(0), format!("{caller}\n")));
    }
}

/// The code and the output of `id -u`, run by a user.
fn as_user(user: u32, before: &[&str], id: &Path) -> (Option<i32>, String) {
    let output = Command::new("setpriv")
        .args([format!("--reuid={user}"), format!("--regid={user}")])
        .args(["--clear-groups", "--inh-caps=-all"])
        .args(before)
        .arg(id)
        .arg("-u")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (output.status.code(), stdout(&output).to_owned())
}
