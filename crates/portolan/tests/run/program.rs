//! The program: its codes, streams, descriptors, signals.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::users::{as_each_user, has_python, skipped};
use crate::{portolan, run, stderr, stdout};

#[test]
fn the_programs_code_is_ours() {
    as_each_user("program::the_programs_code_is_ours", || {
        let cases: [(&[&str], i32); 6] = [
            (&["--", "true"], 0),
            (&["sh", "-c", "exit 7"], 7),
            (&["--", "sh", "-c", "kill -9 $$"], 137),
            (&["--", "sh", "-c", "kill -TERM $$"], 143),
            (&["--", "no-such-program"], 127),
            (&["--", "/dev/null"], 126),
        ];
        for (arguments, code) in cases {
            let output = run(arguments);
            assert_eq!(
                output.status.code(),
                Some(code),
                "{arguments:?}: {}",
                stderr(&output)
            );
        }
    });
}

#[test]
fn a_wrong_command_line_is_told_in_one_line_and_runs_nothing() {
    let cases: [(&[&str], &str); 8] = [
        (
            &[],
            "needs a program to run; write it behind --, as in: portolan run -p 8080:80 -- ",
        ),
        (&["-p", "8080:80"], "needs a program to run"),
        (&["--nmae", "x", "--", "echo", "ran"], "no option --nmae"),
        (&["--allow-out", "exa mple:1", "--", "echo", "ran"], "at 3"),
        (&["--allow-host", "70000", "--", "echo", "ran"], "--allow-host"),
        (&["--deny-with", "no", "--", "echo", "ran"], "icmp, reset or drop"),
        (&["--mtu", "100", "--", "echo", "ran"], "1280"),
        (
            &["--netns", "/x", "--pid", "1", "--", "echo", "ran"],
            "exclude each other",
        ),
    ];
    for (arguments, expected) in cases {
        let output = run(arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(expected), "{arguments:?}: {text}");
        assert_eq!((text.lines().count(), stdout(&output)), (1, ""), "{text}");
    }
}

#[test]
fn nothing_is_inherited_but_the_standard_streams() {
    as_each_user("program::nothing_is_inherited_but_the_standard_streams", || {
        let leaked = File::open("/etc/hostname").unwrap();
        rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
        // The list itself is read through one more, that of `ls`.
        let output = run(&["--", "sh", "-c", "exec ls -l /proc/$$/fd"]);
        let lines: Vec<&str> = stdout(&output).lines().skip(1).collect();
        let names = lines.iter().map(|line| {
            let (before, _) = line.split_once(" -> ").unwrap();
            before.rsplit(' ').next().unwrap()
        });
        let names: Vec<&str> = names.collect();
        assert_eq!(names, ["0", "1", "2", "3"], "{}", stdout(&output));
        assert!(lines[3].contains("/fd"), "{}", stdout(&output));
    });
}

#[test]
fn standard_input_and_the_environment_pass_through() {
    as_each_user("program::standard_input_and_the_environment_pass_through", || {
        let mut child = portolan()
            .args(["--", "sh", "-c", "printf %s, \"$COLOUR\"; exec cat"])
            .env("COLOUR", "green")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let data = vec![b'x'; 1 << 20];
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(&data));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.stdout.starts_with(b"green,xxx"));
        assert_eq!(output.stdout.len(), (1 << 20) + 6);
    });
}

#[test]
fn signals_go_to_the_program_whose_code_wins() {
    as_each_user("program::signals_go_to_the_program_whose_code_wins", || {
        let signals = [
            (Signal::TERM, "TERM"),
            (Signal::HUP, "HUP"),
            (Signal::INT, "INT"),
            (Signal::USR1, "USR1"),
            (Signal::QUIT, "QUIT"),
        ];
        for (signal, name) in signals {
            if is_ignored(signal) {
                println!(
                    "skipped: SIG{name} is ignored by whoever started the tests, and no shell may trap it then"
                );
                continue;
            }
            let script = format!("trap 'exit 9' {name}; echo ready; while :; do sleep 0.01; done");
            let mut child = portolan()
                .args(["--", "sh", "-c", &script])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap())
                .read_line(&mut line)
                .unwrap();
            kill_process(Pid::from_child(&child), signal).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(9), "{name}");
        }
    });
}

/// Tells of each SIGINT, and by SIGUSR1 how many there were.
const COUNTER: &str = r#"
import os, signal
count = 0
def interrupt(*_):
    global count
    count += 1
    os.write(1, b'interrupt\n')
def told(*_):
    os.write(1, b'%d\n' % count)
    os._exit(3)
signal.signal(signal.SIGINT, interrupt)
signal.signal(signal.SIGUSR1, told)
os.write(1, b'ready\n')
while True: signal.pause()
"#;

#[test]
fn a_signal_to_the_whole_group_reaches_the_program_once() {
    as_each_user(
        "program::a_signal_to_the_whole_group_reaches_the_program_once",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            let mut child = portolan()
                .args(["--", "python3", "-c", COUNTER])
                .process_group(0)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let mut line = || lines.next().unwrap().unwrap();
            assert_eq!(line(), "ready");
            for _ in 0..20 {
                kill_process_group(Pid::from_child(&child), Signal::INT).unwrap();
                assert_eq!(line(), "interrupt");
            }
            kill_process(Pid::from_child(&child), Signal::USR1).unwrap();
            assert_eq!(line(), "20");
            assert_eq!(child.wait().unwrap().code(), Some(3));
        },
    );
}

/// Whether this process was started with the signal ignored, as in the background of a script.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap();
    let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
    mask & 1 << (signal.as_raw() - 1) != 0
}
