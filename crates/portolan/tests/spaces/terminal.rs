//! Keys of a terminal, and the program behind two processes of ours.

use std::process::{Command, Stdio};

use crate::users::{as_each_user, has_python, skipped};

/// Runs `arguments` with `PROGRAM` in a terminal of its own, presses Ctrl-C twenty times, each when the program has told
/// of the last, and prints how many SIGINTs it got until a SIGUSR1 by the way that a wrong copy would take.
const DRIVER: &str = r#"
import os, pty, signal, sys
signal.alarm(60)
# As a terminal starts its programs, whatever whoever started the tests ignores.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP): signal.signal(number, signal.SIG_DFL)
PROGRAM = """
import os, signal
count = 0
def interrupt(*_):
    global count
    count += 1
    os.write(1, b'!')
def told(*_):
    os.write(1, b'count=%d;' % count)
    os._exit(3)
signal.signal(signal.SIGINT, interrupt)
signal.signal(signal.SIGUSR1, told)
os.write(1, b'!')
while True: signal.pause()
"""
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:] + ["python3", "-c", PROGRAM])
seen = b""
def until(found):
    global seen
    while not found():
        try: data = os.read(terminal, 4096)
        except OSError: data = b""
        if not data: sys.exit("ended: %r" % seen)
        seen += data
for presses in range(20):
    until(lambda: seen.count(b"!") > presses)
    os.write(terminal, b"\x03")
until(lambda: seen.count(b"!") > 20)
os.kill(pid, signal.SIGUSR1)
until(lambda: b";" in seen)
print(seen.split(b"count=")[1].split(b";")[0].decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn a_key_reaches_the_program_once() {
    as_each_user("terminal::a_key_reaches_the_program_once", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let pressed = |arguments: &[&str]| {
            let output = Command::new("python3")
                .args(["-c", DRIVER, env!("CARGO_BIN_EXE_portolan"), "run"])
                .args(arguments)
                .arg("--")
                .env("XDG_RUNTIME_DIR", directory.path())
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(text, "20 3\n", "{}", String::from_utf8_lossy(&output.stderr));
        };
        pressed(&[]);
        let _first = crate::joined::Running::start(crate::portolan(directory.path()).args([
            "run",
            "--name",
            "web",
            "--",
            "sh",
            "-c",
            "echo ready; exec sleep 1000",
        ]));
        pressed(&["--join", "web"]);
    });
}

/// In a terminal of its own: what the outer shell does with a job, and who has the terminal when that has ended. Prints
/// `done` if all of it was as it is without `portolan`, whose words are the arguments.
const JOBS: &str = r#"
import fcntl, os, pty, shlex, signal, struct, sys, termios
signal.alarm(120)
# As a terminal starts its programs, whatever whoever started the tests ignores.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP): signal.signal(number, signal.SIG_DFL)
RUN = shlex.join(sys.argv[1:])
def start(*words):
    global pid, terminal, seen
    seen = b""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PS1"] = "outer> "
        os.execvp(words[0], words)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
def until(text):
    global seen
    while text.encode() not in seen:
        try: data = os.read(terminal, 4096)
        except OSError: data = b""
        if not data: sys.exit("no %r: %r" % (text, seen))
        seen += data
    seen = seen[seen.index(text.encode()) + len(text):]
def type(text): os.write(terminal, text.encode())

# A shell with jobs.
start("bash", "--norc", "--noprofile", "-i")
until("outer> ")
type(RUN + " stty size\n"); until("33 77\r\n"); until("outer> ")
type(RUN + " sh -c 'echo re\"\"ady; exec cat'\n"); until("ready\r\n")
type("one\n"); until("one\r\none\r\n")
type("\x1a"); until("Stopped"); until("outer> ")
type("fg\n"); until("cat'\r\n")
type("two\n"); until("two\r\ntwo\r\n")
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 44, 88, 0, 0))
type("\x04"); until("outer> ")
# A shell with jobs as the program, and stops of its own.
type("PS1='inner> ' " + RUN + " bash --norc --noprofile -i; echo co\"\"de=$?\n"); until("inner> ")
type("stty size; cat\n"); until("44 88\r\n")
type("three\n"); until("three\r\nthree\r\n")
type("\x1a"); until("Stopped"); until("inner> ")
type("fg\n"); until("cat\r\n"); type("four\n"); until("four\r\nfour\r\n")
type("\x03"); until("inner> "); type("exit 5\n"); until("code=5\r\n"); until("outer> ")
type("exit\n"); os.waitpid(pid, 0)

# A shell without jobs, which takes the terminal from nobody, and gives it to nobody.
for end, code in (("exit 6", 6), ("kill -9 $$", 137)):
    script = RUN + " bash --norc --noprofile -i; echo code=$?; read word; echo got $word"
    start("sh", "-c", script)
    until("outer> ")
    type(end + "\n"); until("code=%d\r\n" % code)
    type("word\n"); until("got word\r\n")
    os.waitpid(pid, 0)
print("done")
"#;

#[test]
fn jobs_and_the_terminal_are_as_without_a_space() {
    as_each_user("terminal::jobs_and_the_terminal_are_as_without_a_space", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let works = |arguments: &[&str]| {
            let output = Command::new("python3")
                .args(["-c", JOBS, env!("CARGO_BIN_EXE_portolan"), "run"])
                .args(arguments)
                .arg("--")
                .env("XDG_RUNTIME_DIR", directory.path())
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(text, "done\n", "{}", String::from_utf8_lossy(&output.stderr));
        };
        works(&[]);
        let _first = crate::joined::Running::start(crate::portolan(directory.path()).args([
            "run",
            "--name",
            "web",
            "--",
            "sh",
            "-c",
            "echo ready; exec sleep 1000",
        ]));
        works(&["--join", "web"]);
    });
}
