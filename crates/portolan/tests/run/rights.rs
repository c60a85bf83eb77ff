//! What the program may do: no more than whoever started it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::users::{as_each_user, skipped};
use crate::{portolan, run, stderr, stdout};

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

/// What needs a right: refused without it, done with it, and nothing of the host's changes.
#[test]
fn a_program_has_the_capabilities_that_were_asked_for() {
    as_each_user(
        "rights::a_program_has_the_capabilities_that_were_asked_for",
        || {
            let directory = tempfile::tempdir().unwrap();
            let mount = format!("mount -t tmpfs portolan {}", directory.path().display());
            let host_name = fs::read("/proc/sys/kernel/hostname").unwrap();
            for (name, command) in [
                ("sys_admin", &*mount),
                ("SYS_ADMIN,chown", "hostname portolan-inside"),
                ("cap_net_admin", "ip link set lo mtu 1300"),
            ] {
                for identity in [&[][..], &["--root"]] {
                    let with = |rights: &[&str]| {
                        let words = [identity, rights, &["--", "sh", "-c", command]].concat();
                        run(&words)
                    };
                    let refused = with(&[]);
                    assert!(
                        ![Some(0), Some(127)].contains(&refused.status.code()),
                        "{command}: {}",
                        stderr(&refused)
                    );
                    let done = with(&["--cap", name]);
                    assert_eq!(done.status.code(), Some(0), "{command}: {}", stderr(&done));
                }
            }
            assert_eq!(fs::read("/proc/sys/kernel/hostname").unwrap(), host_name);
            let wrong = run(&["--cap", "chown,net_rww", "--", "true"]);
            assert_eq!(wrong.status.code(), Some(2));
            assert!(stderr(&wrong).contains("at 6"), "{}", stderr(&wrong));
        },
    );
}

/// With every right inside, what hides the sockets of the spaces can be taken away; whoever is in a space is not let in.
#[test]
fn a_program_with_every_right_commands_no_space() {
    as_each_user("rights::a_program_with_every_right_commands_no_space", || {
        let runtime = tempfile::tempdir().unwrap();
        let text = format!(
            "umount {0}/portolan; ls {0}/portolan; {1} spaces deny rich 192.0.2.0/24; echo $?",
            runtime.path().display(),
            env!("CARGO_BIN_EXE_portolan")
        );
        let output = portolan()
            .args([
                "--name", "rich", "--root", "--cap", "all", "--", "sh", "-c", &text,
            ])
            .env("XDG_RUNTIME_DIR", runtime.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = stdout(&output);
        assert!(
            said.contains("rich"),
            "the socket is not seen: {said}{}",
            stderr(&output)
        );
        assert_eq!(said.lines().last(), Some("4"), "{said}{}", stderr(&output));
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
