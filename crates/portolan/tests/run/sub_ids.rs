//! `--subids`: more than one user in a space.

use std::os::unix::fs::chown;
use std::process::{Command, Stdio};

use crate::users::skipped;
use crate::{stderr, stdout};

/// Has the ranges of this test be those of the system, in a mount namespace, and runs the program as an ordinary user.
const AS_USER: &str = r#"
mount --bind ranges /etc/subuid && mount --bind ranges /etc/subgid || exit 77
exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all "$@"
"#;

#[test]
fn the_subordinate_ids_of_a_user_are_those_of_the_space() {
    if !rustix::process::geteuid().is_root() {
        return skipped("giving a user subordinate ids needs root");
    }
    if Command::new("newuidmap").stderr(Stdio::null()).status().is_err() {
        return skipped("--subids: newuidmap is not installed (package uidmap)");
    }
    if !std::path::Path::new("/etc/subuid").exists() || !std::path::Path::new("/etc/subgid").exists() {
        return skipped("--subids: no /etc/subuid or /etc/subgid here");
    }
    if !crate::run(&["--", "true"]).status.success() {
        return skipped("no port space here");
    }
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    std::fs::write(here.join("ranges"), "65534:300000:65536\n").unwrap();
    std::fs::write(here.join("of-another"), "").unwrap();
    chown(here.join("of-another"), Some(300_006), Some(300_008)).unwrap();
    chown(here, Some(65_534), Some(65_534)).unwrap();
    // With the right to, files are given to others, and a process becomes another user.
    let looks = "cat /proc/self/uid_map /proc/self/gid_map; stat -c '%u %g' of-another; sleep 1000 & \
        touch given && chown 12:34 given && stat -c '%u %g' given && setpriv --reuid=5 --clear-groups id -u && exit 7";
    for (identity, map, ids) in [
        (&["--root"][..], "0 65534 1 1 300000 65536", "7 9"),
        (&[], "65534 65534 1 0 300000 65534 65535 365534 2", "6 8"),
    ] {
        let output = Command::new("unshare")
            .args(["--mount", "sh", "-c", AS_USER, "sh"])
            .args([
                env!("CARGO_BIN_EXE_portolan"),
                "run",
                "--subids",
                "--cap",
                "chown,setuid,setgid",
            ])
            .args(identity)
            .args(["--", "sh", "-c", looks])
            .current_dir(here)
            .env("XDG_RUNTIME_DIR", here)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if output.status.code() == Some(77) || stderr(&output).starts_with("unshare:") {
            return skipped(&format!("--subids: {}", stderr(&output).trim()));
        }
        assert_eq!(output.status.code(), Some(7), "{identity:?}: {}", stderr(&output));
        // Both maps are the same, and a file of another of the ids is seen to be.
        let words: Vec<&str> = stdout(&output).split_whitespace().collect();
        assert_eq!(
            words.join(" "),
            format!("{map} {map} {ids} 12 34 5"),
            "{identity:?}"
        );
        std::fs::remove_file(here.join("given")).unwrap();
    }
}
