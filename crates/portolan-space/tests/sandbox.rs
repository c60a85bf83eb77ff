//! A process that gave up its rights: what it can still do, and what it no longer can. As root and as an ordinary user,
//! each in a process with one thread, hence without the test harness.
#![cfg(target_os = "linux")]

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use portolan_space::sandbox;

fn main() {
    if env::var_os(INSIDE).is_some() {
        return inside();
    }
    let program = env::current_exe().expect("this program has a path");
    run(Command::new(&program).env(INSIDE, "1"), "as this user");
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut ordinary = Command::new("setpriv");
    ordinary.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
    ]);
    match ordinary
        .args(["test", "-x"])
        .arg(&program)
        .stdin(Stdio::null())
        .status()
    {
        Ok(status) if status.success() => {
            let mut ordinary = Command::new("setpriv");
            ordinary.args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
            ]);
            run(ordinary.arg(&program).env(INSIDE, "1"), "as an ordinary user");
        }
        _ => eprintln!("skipped: an ordinary user may not run {}", program.display()),
    }
}

fn run(command: &mut Command, who: &str) {
    let status = command.status().expect("it ran a moment ago");
    assert!(status.success(), "{who}: {status}");
    println!("test the_rights_are_gone_and_sockets_work ({who}) ... ok");
}

fn inside() {
    let own_status = fs::File::open("/proc/self/status").unwrap();
    let readable = fs::File::open("/etc/passwd").unwrap();
    let are_mounts_left = match sandbox::leave_mounts() {
        Ok(()) => true,
        Err(error) => {
            eprintln!("skipped: leave_mounts: {error}");
            false
        }
    };
    if are_mounts_left {
        assert_eq!(fs::read_dir("/").unwrap().count(), 0);
        assert!(fs::File::open("/etc/passwd").is_err());
        assert!(fs::write("/file", "x").is_err());
    }
    sandbox::drop_capabilities().unwrap();
    sandbox::forbid_dumps().unwrap();
    let has_landlock = sandbox::forbid_files().unwrap();
    if has_landlock {
        assert!(fs::read_dir("/").is_err());
    } else {
        eprintln!("skipped: forbid_files: this kernel has no Landlock, or not all of it");
    }
    sandbox::limit_system_calls().unwrap();

    // What is open stays so.
    let text = |mut file: fs::File| {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    };
    let status = text(own_status);
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        // The bounding set of an ordinary user who kept his user namespace is not his to change.
        assert!(
            status.contains(line) || (line.starts_with("CapBnd") && !are_mounts_left),
            "no {line} in {status}"
        );
    }
    assert!(!text(readable).is_empty());
    // Threads and sockets work.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello").unwrap());
    let mut answer = String::new();
    TcpStream::connect(address)
        .unwrap()
        .read_to_string(&mut answer)
        .unwrap();
    server.join().unwrap();
    assert_eq!(answer, "hello");
    // Programs, files to be written, and other processes do not.
    assert!(Command::new("/proc/self/exe").spawn().is_err());
    assert!(fs::write("/tmp/portolan-sandbox", "x").is_err());
    assert!(rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::CONT).is_err());
}

/// Says that this is the process that gives up its rights.
const INSIDE: &str = "PORTOLAN_TEST_INSIDE";
