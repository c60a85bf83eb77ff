//! Spaces that reach each other by name: `portolan run --link`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::joined::Running;
use crate::users::{as_each_user, has_python, skipped};
use crate::{ask, portolan, stderr};

/// Says who connects, gives back what comes until its end, and answers datagrams; `stop` ends it with a reset.
const SERVER: &str = r#"
import select, socket, struct, sys
streams = socket.create_server(("", 7))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("", 7))
def serve(stream, peer):
    stream.sendall(("%s %d\n" % peer[:2]).encode())
    data = b""
    while part := stream.recv(65536):
        data += part
        if data == b"reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
    stream.sendall(data)
print("ready", flush=True)
while True:
    ready, _, _ = select.select([streams, datagrams], [], [])
    if datagrams in ready:
        data, peer = datagrams.recvfrom(65536)
        datagrams.sendto(peer[0].encode() + b" " + data, peer)
    if streams in ready:
        stream, peer = streams.accept()
        try: serve(stream, peer)
        except ConnectionError: pass
        stream.close()
"#;

/// Words for the other side: `found` waits until the name is there, `lost` until it is not.
const CLIENT: &str = r#"
import hashlib, os, socket, struct, sys, threading, time
def there():
    try: return socket.gethostbyname("db.portolan")
    except OSError: return None
def until(what):
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, "never"
        time.sleep(0.02)
def found():
    until(there)
    until(serves)
def serves():
    # The link is there before the program listens.
    try: return socket.create_connection((there(), 7), 20).makefile("rb").readline()
    except ConnectionRefusedError: return False
def lost():
    until(lambda: not there())
def fails(error, port=7):
    try:
        stream = socket.create_connection(("db.portolan", port), 20)
        data = stream.recv(1)
    except error: return
    assert False, "it did not fail: %s" % data
def ping(address, patience):
    there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
    there.settimeout(patience)
    there.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 7) + b"data", (address, 0))
    try: answer, peer = there.recvfrom(100)
    except socket.timeout: return "silence"
    assert answer[0] == 0 and answer[6:] == b"\x00\x07data" and peer[0] == address, answer
    return "answered"
"#;

fn server(directory: &Path, arguments: &[&str]) -> Running {
    let mut command = portolan(directory);
    command.args(["run", "--name", "db"]).args(arguments);
    Running::start(command.args(["--", "python3", "-c", SERVER]))
}

/// The space `web` with a program that begins with `CLIENT`.
fn client(directory: &Path, arguments: &[&str], program: &str) -> Command {
    let mut command = portolan(directory);
    command.args(["run", "--name", "web"]).args(arguments);
    command.args(["--", "python3", "-c", &format!("{CLIENT}{program}")]);
    command
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stderr(&output).to_owned()
}

/// What `portolan spaces` says of the links of a space, when it says `up` of the first.
fn links(directory: &Path, name: &str, up: bool) -> Value {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let (_, text, _) = ask(directory, &["spaces", "--json"]);
        let document: Value = serde_json::from_str(&text).unwrap();
        let spaces = document["spaces"].as_array().unwrap();
        let space = spaces.iter().find(|space| space["name"] == name).unwrap();
        if space["links"][0]["up"] == up {
            return space["links"].clone();
        }
        assert!(Instant::now() < until, "{text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn linked_spaces_reach_each_other_by_name_and_nothing_else_of_each_other() {
    let test = "linked::linked_spaces_reach_each_other_by_name_and_nothing_else_of_each_other";
    as_each_user(test, || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        // What is denied is the world, not what both want.
        let _server = server(here, &["--link", "web"]);
        assert_eq!(
            links(here, "db", false),
            serde_json::json!([{"name": "web", "up": false}])
        );
        let said = succeeds(&mut client(
            here,
            &["--link", "db", "--no-out"],
            r#"
found()
sent = os.urandom(10_000_000)
stream = socket.create_connection(("db.portolan", 7), 20)
peer = stream.makefile("rb")
address, port = peer.readline().split()
assert int(port) == stream.getsockname()[1]
# Both ways at once, and to the end of each.
writer = threading.Thread(target=lambda: (stream.sendall(sent), stream.shutdown(socket.SHUT_WR)))
writer.start()
back = peer.read()
writer.join()
assert hashlib.sha256(back).digest() == hashlib.sha256(sent).digest()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.settimeout(20)
for size in 0, 1, 1400, 9000:
    datagrams.sendto(b"x" * size, (there(), 7))
    answer, peer = datagrams.recvfrom(65536)
    assert answer == address + b" " + b"x" * size and peer == (there(), 7), answer[:60]
# The same face each time, which is none of ours.
assert address != there().encode()
fails(ConnectionRefusedError, 9)
stream = socket.create_connection(("db.portolan", 7), 20)
stream.makefile("rb").readline()
stream.sendall(b"reset")
try: assert False, stream.recv(1)
except ConnectionResetError: pass
assert ping(there(), 20) == "answered"
# A port that nobody holds is one, whoever asks: connected or not, and what was sent is quoted.
refused = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
refused.settimeout(20)
refused.connect((there(), 9))
refused.send(b"hello")
try: assert False, refused.recv(9)
except ConnectionRefusedError: pass
told = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
told.setsockopt(socket.IPPROTO_IP, 11, 1)
told.sendto(b"who is there", (there(), 9))
end = time.monotonic() + 20
while True:
    try: quoted, _, _, to = told.recvmsg(100, 512, socket.MSG_ERRQUEUE)
    except BlockingIOError:
        assert time.monotonic() < end, "nobody said it"
        time.sleep(0.01)
        continue
    break
assert quoted == b"who is there" and to == (there(), 9), (quoted, to)
# The other way round: one is not the way to the other's own network.
fails(OSError, 0xfff0)
"#,
        ));
        assert_eq!(said, "");
        links(here, "db", false);
    });
}

/// Also while its link is up, a space that is stopped answers nobody: nobody else speaks for it.
#[test]
fn pings_are_answered_by_the_other_space() {
    as_each_user("linked::pings_are_answered_by_the_other_space", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let server = server(here, &["--link", "web"]);
        let mut web = client(
            here,
            &["--link", "db"],
            r#"
print("ready", flush=True)
found()
address = there()
assert ping(address, 20) == "answered"
for word, expected in ("stopped", "silence"), ("going", "answered"):
    open("before-" + word, "w").close()
    until(lambda: os.path.exists(word))
    assert ping(address, 1 if expected == "silence" else 20) == expected, word
"#,
        );
        web.current_dir(here).stderr(Stdio::piped());
        let mut web = Running::start(&mut web);
        let gateway = rustix::process::Pid::from_raw(server.0.id() as i32).unwrap();
        for (word, signal) in [
            ("stopped", rustix::process::Signal::STOP),
            ("going", rustix::process::Signal::CONT),
        ] {
            let until = Instant::now() + Duration::from_secs(60);
            while !here.join(format!("before-{word}")).exists() {
                assert!(Instant::now() < until, "never before {word}");
                std::thread::sleep(Duration::from_millis(10));
            }
            rustix::process::kill_process(gateway, signal).unwrap();
            std::fs::write(here.join(word), "").unwrap();
        }
        let (code, said) = web.end();
        assert_eq!(code, Some(0), "{said}");
    });
}

#[test]
fn one_side_alone_links_nothing_and_is_told() {
    as_each_user("linked::one_side_alone_links_nothing_and_is_told", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let _server = server(here, &[]);
        let alone = r#"
time.sleep(1)
assert not there()
"#;
        let said = succeeds(&mut client(here, &["--link", "db"], alone));
        assert_eq!(
            said,
            "portolan: no link with db: the space db was started without --link web [not-linked]\n"
        );
        assert_eq!(succeeds(&mut client(here, &[], alone)), "");
        let (code, _, errors) = ask(here, &["run", "--name", "me", "--link", "me", "--", "true"]);
        assert_eq!(code, Some(2), "{errors}");
        assert!(errors.contains("that is this space itself"), "{errors}");
        assert_eq!(std::fs::read_dir(here.join("portolan")).unwrap().count(), 1);
        let (code, _, errors) = ask(here, &["run", "--link", "No Name", "--", "true"]);
        assert_eq!(code, Some(2), "{errors}");
    });
}

#[test]
fn a_link_comes_and_goes_with_the_other_space_and_can_be_denied() {
    let test = "linked::a_link_comes_and_goes_with_the_other_space_and_can_be_denied";
    as_each_user(test, || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let mut web = client(
            here,
            &["--link", "db"],
            r#"
print("ready", flush=True)
found()
before = there()
open("first", "w").close()
lost()
# Nothing else is there in its place.
try: assert False, socket.create_connection((before, 7), 20)
except OSError: pass
open("lost", "w").close()
found()
assert there() == before
open("second", "w").close()
until(lambda: os.path.exists("denied"))
fails(OSError)
"#,
        );
        web.current_dir(here).stderr(Stdio::piped());
        let mut web = Running::start(&mut web);
        let is_there = |name: &str, is_there: bool| {
            let until = Instant::now() + Duration::from_secs(30);
            while here.join(name).exists() != is_there {
                assert!(Instant::now() < until, "never {is_there}: {name}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        let seen = |name: &str| is_there(name, true);
        let server_of_web = server(here, &["--link", "web"]);
        seen("first");
        let (_, text, _) = ask(here, &["spaces"]);
        assert_eq!(
            text.matches("link:web").count() + text.matches("link:db").count(),
            2,
            "{text}"
        );
        assert!(!text.contains("(down)"), "{text}");
        drop(server_of_web);
        seen("lost");
        // The name is free when nobody keeps its socket any more.
        is_there("portolan/db.sock", false);
        let _server = server(here, &["--link", "web"]);
        seen("second");
        assert_eq!(ask(here, &["spaces", "deny", "web", "db.portolan"]).0, Some(0));
        std::fs::write(here.join("denied"), "").unwrap();
        let (code, said) = web.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(
            said.contains(":7 (db.portolan: the rule: deny db.portolan)"),
            "{said}"
        );
    });
}
