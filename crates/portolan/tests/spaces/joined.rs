//! Two programs in one space: `portolan run --join`.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::users::{as_each_user, has_python, skipped};
use crate::{ask, portolan, served, stderr};

/// A process that does not outlive its test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts it, and waits until it has written the line `ready`.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut running = Self(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        let stdout = running.0.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        running
    }

    /// Waits for its end, and gives its code and what it has complained of.
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut said).unwrap();
        }
        (self.0.wait().unwrap().code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that joins the space `web`.
fn joining(directory: &Path, script: &str) -> Command {
    let mut command = portolan(directory);
    command.args(["run", "--join", "web", "--", "sh", "-c", script]);
    command
}

/// A number of seconds that no other process sleeps.
fn unique(place: u32) -> String {
    format!("{}{place}", 1_000_000 + std::process::id())
}

/// The directory in /proc of the process that sleeps that long.
fn sleeping(seconds: &str) -> Option<PathBuf> {
    let words = [b"sleep\0", seconds.as_bytes(), b"\0"].concat();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut paths = processes.map(|process| process.path());
    paths.find(|path| fs::read(path.join("cmdline")).is_ok_and(|line| line == words))
}

/// Waits until a process sleeps that long, and gives its parent.
fn parent_of_sleep(seconds: &str) -> i32 {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(path) = sleeping(seconds) {
            let status = fs::read_to_string(path.join("status")).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            return line.unwrap().trim().parse().unwrap();
        }
        assert!(Instant::now() < until, "nobody sleeps");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until no process sleeps that long.
fn await_end_of_sleep(seconds: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    while sleeping(seconds).is_some() {
        assert!(Instant::now() < until, "a process is left");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn space(directory: &Path) -> Value {
    let (code, text, errors) = ask(directory, &["spaces", "--json"]);
    assert_eq!(code, Some(0), "{errors}");
    serde_json::from_str::<Value>(&text).unwrap()["spaces"][0].clone()
}

/// Looks about, talks to the first program, and ends with 6.
const LOOK: &str = r#"
for kind in net mnt uts ipc pid user; do readlink /proc/self/ns/$kind; done
grep -e NoNewPrivs -e CapEff -e CapPrm -e CapInh /proc/self/status | tr '\t' ' '
(exec ls /proc/self/fd) | tr '\n' ' '; echo
python3 -c 'import socket; print(socket.create_connection(("127.0.0.1", 80), 20).recv(9).decode())'
cat; echo $COLOUR; pwd
exit 6"#;

#[test]
fn a_second_program_has_all_of_the_space_and_nothing_else() {
    as_each_user(
        "joined::a_second_program_has_all_of_the_space_and_nothing_else",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            let directory = tempfile::tempdir().unwrap();
            let here = directory.path();
            let _first = Running(served(here));
            let leaked = fs::File::open("/etc/hostname").unwrap();
            rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
            let words = here.join("words");
            fs::write(&words, "from outside ").unwrap();
            let output = joining(here, LOOK)
                .env("COLOUR", "green")
                .current_dir("/usr")
                .stdin(fs::File::open(&words).unwrap())
                .output()
                .unwrap();
            let text = std::str::from_utf8(&output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(6), "{text}{}", stderr(&output));
            let pid = &space(here)["pid"];
            let own = ["net", "mnt", "uts", "ipc", "pid", "user"]
                .map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap());
            let lines: Vec<&str> = text.lines().collect();
            for (own, line) in own.iter().zip(&lines) {
                assert_eq!(own.to_str().unwrap(), *line);
            }
            let none = "0000000000000000";
            assert_eq!(
                lines[6..],
                [
                    &format!("CapInh: {none}"),
                    &format!("CapPrm: {none}"),
                    &format!("CapEff: {none}"),
                    "NoNewPrivs: 1",
                    // The last is what `ls` reads.
                    "0 1 2 3 ",
                    "ahoy",
                    "from outside green",
                    "/usr"
                ]
                .map(|line| line)
            );
        },
    );
}

#[test]
fn who_has_joined_is_listed_with_its_sockets_until_it_ends() {
    as_each_user(
        "joined::who_has_joined_is_listed_with_its_sockets_until_it_ends",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            let directory = tempfile::tempdir().unwrap();
            let here = directory.path();
            let mut first = Running(served(here));
            let server = "import socket, sys\ns = socket.create_server(('', 81))\nprint('ready', flush=True)\ns.accept()";
            let second =
                Running::start(portolan(here).args(["run", "--join", "web", "--", "python3", "-c", server]));
            let joined = space(here)["joined"].clone();
            let pid = joined[0]["pid"].as_i64().unwrap();
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
            assert!(name.starts_with("python"), "{name}");
            assert_eq!(
                (&joined[0]["command"][0], joined.as_array().unwrap().len()),
                (&"python3".into(), 1)
            );
            let (_, text, _) = ask(here, &["spaces"]);
            assert!(text.contains(&format!("\nweb+  {pid} ")), "{text}");
            let (_, text, errors) = ask(here, &["list", "--space", "web", "--json"]);
            let document: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{errors}"));
            let sockets = document["sockets"].as_array().unwrap();
            let listener = sockets.iter().find(|socket| socket["local"]["port"] == 81);
            let owners = &listener.unwrap_or_else(|| panic!("{text}"))["owners"];
            assert_eq!(owners[0]["pid"], pid, "{text}");
            // The end of the second is no end of the first.
            drop(second);
            let until = Instant::now() + Duration::from_secs(20);
            while space(here)["joined"] != Value::Array(vec![]) {
                assert!(Instant::now() < until, "still listed");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(first.0.try_wait().unwrap(), None);
        },
    );
}

#[test]
fn kill_of_whoever_serves_a_joined_program_leaves_nothing_of_it() {
    as_each_user(
        "joined::kill_of_whoever_serves_a_joined_program_leaves_nothing_of_it",
        || {
            let directory = tempfile::tempdir().unwrap();
            let here = directory.path();
            let script = "echo ready; exec sleep 1000";
            let start = || {
                let arguments = ["run", "--name", "web", "--", "sh", "-c", script];
                Running::start(portolan(here).args(arguments))
            };
            let (one, other) = (unique(1), unique(2));
            let join = || {
                let text = format!("setsid sleep {one} & echo ready; exec sleep {other}");
                Running::start(&mut joining(here, &text))
            };
            let mut first = start();
            let second = join();
            drop(second);
            await_end_of_sleep(&one);
            await_end_of_sleep(&other);
            assert_eq!(first.0.try_wait().unwrap(), None, "the first goes on");
            // Not `portolan` is killed but its process inside, which started the program.
            let mut second = join();
            let parent = parent_of_sleep(&other);
            kill_process(Pid::from_raw(parent).unwrap(), Signal::KILL).unwrap();
            assert_eq!(second.0.wait().unwrap().code(), Some(137));
            await_end_of_sleep(&one);
            await_end_of_sleep(&other);
            assert_eq!(first.0.try_wait().unwrap(), None, "the first goes on");
            // The first's gateway is killed: no space, so no second program.
            let mut second = join();
            drop(first);
            assert_eq!(second.0.wait().unwrap().code(), Some(137));
            await_end_of_sleep(&one);
            await_end_of_sleep(&other);
            // The first program ends by itself.
            let first = start();
            let mut second = join();
            let pid = space(here)["pid"].as_i64().unwrap();
            kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::TERM).unwrap();
            assert_eq!(second.0.wait().unwrap().code(), Some(137));
            await_end_of_sleep(&one);
            drop(first);
        },
    );
}

#[test]
fn signals_and_stop_reach_a_joined_program() {
    as_each_user("joined::signals_and_stop_reach_a_joined_program", || {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let obeys = "trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done";
        let takes_its_time = "trap 'sleep 0.5; exit 9' TERM; echo ready; while :; do sleep 0.01; done";
        let resists = "trap '' TERM; echo ready; while :; do sleep 0.01; done";
        let start = || {
            let arguments = ["run", "--name", "web", "--", "sh", "-c", obeys];
            Running::start(portolan(here).args(arguments))
        };
        let stop = || {
            let mut stop = Running(portolan(here).args(["spaces", "stop", "web"]).spawn().unwrap());
            assert_eq!(stop.0.wait().unwrap().code(), Some(0));
        };
        let mut first = start();
        let mut second = Running::start(&mut joining(here, takes_its_time));
        kill_process(Pid::from_child(&second.0), Signal::TERM).unwrap();
        assert_eq!(second.0.wait().unwrap().code(), Some(9));
        // The first, with which all end, is told when the others have ended.
        let mut third = Running::start(&mut joining(here, takes_its_time));
        stop();
        assert_eq!(third.0.wait().unwrap().code(), Some(9));
        assert_eq!(first.0.wait().unwrap().code(), Some(4));
        // Nobody keeps the space from ending.
        let mut first = start();
        let mut fourth = Running::start(&mut joining(here, resists));
        stop();
        assert_eq!(first.0.wait().unwrap().code(), Some(4));
        assert_eq!(fourth.0.wait().unwrap().code(), Some(137));
    });
}

#[test]
fn who_cannot_join_is_told_why() {
    as_each_user("joined::who_cannot_join_is_told_why", || {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let join = |arguments: &[&str]| {
            let all = [&["run", "--join", "web"], arguments, &["--", "echo", "ran"]].concat();
            ask(here, &all)
        };
        let (code, text, errors) = join(&[]);
        assert_eq!((code, &*text), (Some(125), ""));
        assert!(errors.contains("no space named web is running"), "{errors}");
        for option in [
            ["-p", "80:80"],
            ["--deny-out", "192.0.2.1"],
            ["--mtu", "9000"],
            ["--name", "x"],
        ] {
            let (code, text, errors) = join(&option);
            assert_eq!((code, &*text), (Some(2), ""), "{errors}");
            assert!(
                errors.contains("has its user, network, ports and policy"),
                "{errors}"
            );
        }
        let script = "echo ready; exec sleep 1000";
        let arguments = ["run", "--name", "web", "--", "sh", "-c", script];
        let _first = Running::start(portolan(here).args(arguments));
        for (command, code) in [("no-such-program", 127), ("/dev/null", 126)] {
            assert_eq!(ask(here, &["run", "--join", "web", "--", command]).0, Some(code));
        }
        // From inside nobody joins, not even its own space.
        let inside = [
            env!("CARGO_BIN_EXE_portolan"),
            "run",
            "--join",
            "web",
            "--",
            "true",
        ];
        let (code, _, errors) = ask(here, &[&["run", "--join", "web", "--"], &inside[..]].concat());
        assert_eq!(code, Some(125), "{errors}");
    });
}

/// The user, and the namespaces, that a process inside has.
const PLACE: &str = "id -u; for kind in net mnt uts ipc pid user; do readlink /proc/self/ns/$kind; done";

#[test]
fn a_space_that_was_made_in_another_way_is_joined_as_well() {
    as_each_user(
        "joined::a_space_that_was_made_in_another_way_is_joined_as_well",
        || {
            let mut ways = vec![vec!["--root".to_owned()]];
            // Who is root may have the network of a process that is in nobody's space.
            let mut away = Command::new("unshare");
            away.args(["--net", "sh", "-c", "echo ready; exec sleep 1000"]);
            let away = rustix::process::geteuid()
                .is_root()
                .then(|| Running::start(&mut away));
            match &away {
                Some(Running(process)) => {
                    let pid = process.id();
                    ways.push(vec!["--pid".to_owned(), pid.to_string()]);
                    ways.push(vec!["--netns".to_owned(), format!("/proc/{pid}/ns/net")]);
                }
                None => skipped("--pid and --netns: a network of another takes root"),
            }
            for way in ways {
                let directory = tempfile::tempdir().unwrap();
                let here = directory.path();
                let place = here.join("place");
                let script = format!("({PLACE}) >{}; echo ready; exec sleep 1000", place.display());
                let mut first = portolan(here);
                first.args(["run", "--name", "web"]).args(&way);
                let _first = Running::start(first.args(["--", "sh", "-c", &script]));
                let output = joining(here, &format!("{PLACE}; exit 6")).output().unwrap();
                assert_eq!(output.status.code(), Some(6), "{way:?}: {}", stderr(&output));
                let own = fs::read_to_string(&place).unwrap();
                assert_eq!(own.lines().count(), 7, "{way:?}: {own}");
                assert_eq!(std::str::from_utf8(&output.stdout).unwrap(), own, "{way:?}");
            }
        },
    );
}

/// Prints the code of one that joins, whether it is in no PID namespace of its own, and how many outlive the space.
const WITHOUT_PIDS: &str = r#"
echo 0 >/proc/sys/user/max_pid_namespaces || exit 77
# It ends after the one that has joined, which would be killed with it.
"$1" run --name web -- sh -c '
    trap "until [ -e $0-may-end ]; do sleep 0.05; done; exit 5" TERM
    sleep 1000 & touch "$0"; wait' "$2/first" & first=$!
until [ -e "$2/first" ]; do kill -0 $first || exit 1; sleep 0.05; done
"$1" run --join web -- sh -c 'readlink /proc/self/ns/pid >"$0"; exit 6' "$2/pids"; echo $?
[ "$(cat "$2/pids")" = "$(readlink /proc/self/ns/pid)" ] && echo same
"$1" run --join web -- sh -c 'sleep 1001 & touch "$0"; exec sleep 1002' "$2/second" & second=$!
until [ -e "$2/second" ]; do kill -0 $second || exit 1; sleep 0.05; done
"$1" spaces stop web &
wait $second; echo $?
touch "$2/first-may-end"
wait $first; echo $?
tries=0
while grep -lz '^100[012]$' /proc/[0-9]*/cmdline 2>/dev/null; do
    tries=$((tries + 1)); [ $tries -lt 200 ] || exit 1
    sleep 0.05
done
echo none
"#;

#[test]
fn a_space_without_pids_of_its_own_is_joined_and_leaves_nobody() {
    as_each_user(
        "joined::a_space_without_pids_of_its_own_is_joined_and_leaves_nobody",
        || {
            let directory = tempfile::tempdir().unwrap();
            let output = Command::new("timeout")
                .args(["--signal=KILL", "60", "unshare", "--user", "--map-root-user"])
                .args(["--pid", "--mount", "--fork", "--kill-child", "--mount-proc"])
                .args(["sh", "-c", WITHOUT_PIDS, "sh", env!("CARGO_BIN_EXE_portolan")])
                .arg(directory.path())
                .env("XDG_RUNTIME_DIR", directory.path())
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let text = std::str::from_utf8(&output.stdout).unwrap();
            if output.status.code() == Some(77) || stderr(&output).starts_with("unshare:") {
                return skipped(&format!("no limit on PID namespaces here: {}", stderr(&output)));
            }
            assert_eq!(text, "6\nsame\n143\n5\nnone\n", "{}", stderr(&output));
        },
    );
}
