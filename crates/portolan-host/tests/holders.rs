//! Who holds a socket, asked of the running kernel through every collector: the answers must be equal.
#![expect(
    unsafe_code,
    reason = "unshare and set*id for one thread alone in the module `thread`, fork in `churn`"
)]

#[path = "private/churn.rs"]
mod churn;
mod private;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_host::{
    Collector, HandleError, HoldersError, Holding, HoldingsRequest, ProcRoot, Process, ProcessHandle,
    ReadProcessError, Signal, StartTime, Users, find_holders,
};

use churn::come_and_go;
use private::in_namespace;

/// Between fork and exec a new process holds every descriptor of its parent, so tests that start
/// processes, and tests that count holders, take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn inode(socket: impl AsFd) -> u64 {
    let file = std::fs::File::from(socket.as_fd().try_clone_to_owned().unwrap());
    file.metadata().unwrap().ino()
}

fn me() -> i32 {
    std::process::id().cast_signed()
}

fn pid(child: &Child) -> i32 {
    child.id().cast_signed()
}

fn request(inodes: &[u64], only: Collector) -> HoldingsRequest {
    HoldingsRequest {
        inodes: Some(inodes.iter().copied().collect()),
        // The root of the hierarchy, and one that is not there.
        cgroups: vec![1, u64::MAX],
        deadline: None,
        only: Some(only),
    }
}

/// Asks every collector that can run here for the same sockets, and calls `check` with each answer.
fn with_each_collector(inodes: &[u64], mut check: impl FnMut(Collector, &[Holding])) {
    let root = ProcRoot::system().unwrap();
    for only in [
        Collector::BpfTaskFile,
        Collector::ProcByCgroup,
        Collector::ProcEvery,
    ] {
        match find_holders(&root, &request(inodes, only)) {
            Ok(found) => {
                assert_eq!(found.collector, only);
                assert_eq!(found.warnings, [""; 0]);
                check(only, &found.holdings);
            }
            Err(error @ HoldersError::Unavailable { .. }) => {
                assert_ne!(only, Collector::ProcEvery, "{error}");
                eprintln!("skipped: {error}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A shell with a socket as its standard input, once it has said that it is ready.
fn shell(script: &str, input: OwnedFd) -> Running {
    let mut child = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::from(input))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    Running(child)
}

#[test]
fn a_socket_of_this_process_is_found() {
    let _turn = turn();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let expected = [Holding {
        inode: inode(&socket),
        pid: me(),
        fd: socket.as_raw_fd(),
    }];
    with_each_collector(&[inode(&socket)], |by, found| assert_eq!(found, expected, "{by}"));
}

#[test]
fn both_processes_that_share_a_socket_are_found() {
    let _turn = turn();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let copy = socket.try_clone().unwrap();
    let second = Running(
        Command::new("sleep")
            .arg("600")
            .stdin(Stdio::from(OwnedFd::from(copy)))
            .spawn()
            .unwrap(),
    );
    let mut expected = vec![
        Holding {
            inode: inode(&socket),
            pid: me(),
            fd: socket.as_raw_fd(),
        },
        Holding {
            inode: inode(&socket),
            pid: pid(&second.0),
            fd: 0,
        },
    ];
    expected.sort_unstable();
    with_each_collector(&[inode(&socket)], |by, found| assert_eq!(found, expected, "{by}"));
}

#[test]
fn a_forked_child_that_keeps_the_descriptor_is_found() {
    let _turn = turn();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let inode = inode(&socket);
    // The shell keeps 0 and 3, its child 3 alone. We keep none.
    let parent = shell("exec 3<&0; sleep 600 0</dev/null & echo; wait", socket.into());
    let root = ProcRoot::system().unwrap();
    let mut answers = HashSet::new();
    with_each_collector(&[inode], |by, found| {
        assert_eq!(found.len(), 3, "{by}: {found:?}");
        let of_parent: Vec<i32> = found
            .iter()
            .filter(|h| h.pid == pid(&parent.0))
            .map(|h| h.fd)
            .collect();
        assert_eq!(of_parent, [0, 3], "{by}");
        let child = found.iter().find(|h| h.pid != pid(&parent.0)).unwrap();
        assert_eq!(child.fd, 3, "{by}");
        let process = Process::read(&root, child.pid, &mut Users::new()).unwrap();
        assert_eq!(process.parent, pid(&parent.0));
        answers.insert(found.to_vec());
    });
    assert_eq!(answers.len(), 1, "the collectors disagree: {answers:?}");
    // The child of the shell would outlive it.
    let child = answers
        .iter()
        .flatten()
        .find(|h| h.pid != pid(&parent.0))
        .unwrap();
    let child = rustix::process::Pid::from_raw(child.pid).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn sockets_of_every_kind_have_equal_answers() {
    let _turn = turn();
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for _ in 0..150 {
        let listener = TcpListener::bind("[::1]:0")
            .or_else(|_| TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (left, right) = UnixStream::pair().unwrap();
        sockets.push(listener.accept().unwrap().0.into());
        sockets.push(listener.into());
        sockets.push(client.into());
        sockets.push(UdpSocket::bind("127.0.0.1:0").unwrap().into());
        sockets.extend([OwnedFd::from(left), right.into()]);
    }
    // So many that the kernel is asked for all, so few that it is asked for these, and one.
    for count in [sockets.len(), 300, 7, 1] {
        let mut expected: Vec<Holding> = sockets[..count]
            .iter()
            .map(|socket| Holding {
                inode: inode(socket),
                pid: me(),
                fd: socket.as_raw_fd(),
            })
            .collect();
        expected.sort_unstable();
        let inodes: Vec<u64> = expected.iter().map(|holding| holding.inode).collect();
        with_each_collector(&inodes, |by, found| assert_eq!(found, expected, "{by}"));
    }
}

#[test]
fn a_socket_that_only_one_thread_holds_is_found() {
    let _turn = turn();
    std::thread::spawn(|| {
        thread::unshare_files();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let (inode, fd) = (inode(&socket), socket.as_raw_fd());
        assert!(
            std::fs::read_link(format!("/proc/self/fd/{fd}")).map_or(true, |link| link.as_os_str()
                != OsStr::new(&format!("socket:[{inode}]"))),
            "the process sees the thread's descriptor: nothing is tested"
        );
        let expected = [Holding { inode, pid: me(), fd }];
        with_each_collector(&[inode], |by, found| assert_eq!(found, expected, "{by}"));
    })
    .join()
    .unwrap();
}

#[test]
fn a_closed_socket_has_no_holder() {
    let _turn = turn();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let inode = inode(&socket);
    drop(socket);
    with_each_collector(&[inode], |by, found| assert_eq!(found, [], "{by}"));
}

#[test]
fn a_process_may_call_itself_anything() {
    let _turn = turn();
    let names: [(&str, &[u8]); 4] = [
        (r"a\nb) S 1 (c", b"a\nb) S 1 (c"),
        (r"\033[31mred\007", b"\x1b[31mred\x07"),
        (r"\377\376\200", b"\xff\xfe\x80"),
        (r"\302\233 \342\200\256", "\u{9b} \u{202e}".as_bytes()),
    ];
    for (spelled, raw) in names {
        // The shell waits for a line that never comes.
        let (_here, there) = UnixStream::pair().unwrap();
        let inode = inode(&there);
        let script = format!("printf '{spelled}' > /proc/$$/comm; echo; read line");
        let child = shell(&script, there.into());
        let root = ProcRoot::system().unwrap();
        with_each_collector(&[inode], |by, found| {
            let holder = found.iter().find(|holding| holding.pid == pid(&child.0));
            assert_eq!(holder.map(|holding| holding.fd), Some(0), "{by}");
        });
        let process = Process::read(&root, pid(&child.0), &mut Users::new()).unwrap();
        assert_eq!(process.name.as_bytes(), raw, "{spelled}");
        assert_eq!(process.parent, me());
    }
}

/// Looks for the holders of everything, again and again, while so many processes start and end.
#[test]
fn twenty_thousand_processes_that_come_and_go_do_not_disturb() {
    let _turn = turn();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let inode = inode(&socket);
    let root = ProcRoot::system().unwrap();
    let everything = |only| HoldingsRequest {
        only: Some(only),
        ..HoldingsRequest::default()
    };
    let mut collectors = vec![Collector::ProcEvery];
    match find_holders(&root, &everything(Collector::BpfTaskFile)) {
        Ok(_) => collectors.push(Collector::BpfTaskFile),
        Err(error) => eprintln!("skipped: {error}"),
    }
    come_and_go(20_000, || {
        for only in &collectors {
            let found = find_holders(&root, &everything(*only)).unwrap();
            assert_eq!(found.warnings, [""; 0]);
            // The socket that was there all the time is found, and whoever is named is there or has ended.
            assert!(found.holdings.iter().any(|h| h.inode == inode && h.pid == me()));
            let pids: HashSet<i32> = found.holdings.iter().map(|h| h.pid).collect();
            for pid in pids {
                match Process::read(&root, pid, &mut Users::new()) {
                    Ok(_) | Err(ReadProcessError::Gone { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
}

#[test]
fn processes_of_others_are_counted() {
    let _turn = turn();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let inode = inode(&socket);
    std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            thread::become_nobody();
        } else if std::fs::metadata("/proc/1")
            .is_ok_and(|first| first.uid() == rustix::process::geteuid().as_raw())
        {
            eprintln!("skipped: every process here belongs to this user");
            return;
        }
        let root = ProcRoot::system().unwrap();
        let all = HoldingsRequest {
            inodes: Some([inode].into_iter().collect()),
            ..HoldingsRequest::default()
        };
        let found = find_holders(&root, &all).unwrap();
        assert_eq!(found.collector, Collector::ProcEvery);
        let reasons: Vec<&str> = found.passed_over.iter().map(|p| p.reason.as_str()).collect();
        assert!(
            reasons[0].contains("needs CAP_BPF and CAP_PERFMON") || reasons[0].contains("PID namespace"),
            "{reasons:?}"
        );
        if found.hidden_processes {
            return;
        }
        assert!(found.unreadable_processes() > 0);
        assert!(found.unreadable.contains_key(&0), "{:?}", found.unreadable);
        // Threads of one process may always look into each other.
        assert!(found.holdings.iter().all(|holding| holding.pid == me()));
    })
    .join()
    .unwrap();
}

#[test]
fn hidden_processes_are_noticed() {
    let _turn = turn();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting a /proc that hides processes needs root");
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().to_owned();
    std::thread::spawn(move || {
        // 1 shows the processes and keeps their files, 2 hides them.
        for (hide, shows) in [("hidepid=1", true), ("hidepid=2", false)] {
            if let Err(error) = thread::mount_proc(&path, hide) {
                eprintln!("skipped: cannot mount a /proc with {hide}: {error}");
                return;
            }
            let path = path.clone();
            std::thread::spawn(move || {
                let root = ProcRoot::open(&path).unwrap();
                assert!(!root.hides_processes());
                thread::become_nobody();
                assert_eq!(root.hides_processes(), !shows, "{hide}");
                let found = find_holders(&root, &HoldingsRequest::default()).unwrap();
                assert_eq!(found.hidden_processes, !shows, "{hide}");
                assert_eq!(found.unreadable_processes() > 0, shows, "{hide}");
                let first = Process::read(&root, 1, &mut Users::new()).unwrap_err();
                let text = first.to_string();
                let expected = if shows {
                    "process 1 may not be looked at"
                } else {
                    "there is no process 1"
                };
                assert!(text.starts_with(expected), "{hide}: {text}");
            })
            .join()
            .unwrap();
        }
    })
    .join()
    .unwrap();
}

#[test]
fn in_another_pid_namespace_the_numbers_are_its_own() {
    let _turn = turn();
    in_namespace("in_another_pid_namespace_the_numbers_are_its_own", || {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let root = ProcRoot::system().unwrap();
        let all = HoldingsRequest {
            inodes: Some([inode(&socket)].into_iter().collect()),
            ..HoldingsRequest::default()
        };
        let found = find_holders(&root, &all).unwrap();
        let expected = [Holding {
            inode: inode(&socket),
            pid: me(),
            fd: socket.as_raw_fd(),
        }];
        assert_eq!(found.holdings, expected);
        assert_eq!(found.collector, Collector::ProcEvery);
        assert!(
            found.passed_over[0]
                .reason
                .contains("not in the first PID namespace")
        );
    });
}

#[test]
fn a_process_is_held_asked_and_ended() {
    let _turn = turn();
    let (_here, there) = UnixStream::pair().unwrap();
    let inode = inode(&there);
    let mut child = shell("echo; read line", there.into());
    let root = ProcRoot::system().unwrap();
    let started = Process::start_time_of(&root, pid(&child.0)).unwrap();

    let handle = ProcessHandle::open(&root, pid(&child.0), started).unwrap();
    assert!(handle.still_holds(&root, inode).unwrap());
    assert!(!handle.still_holds(&root, inode + 1_000_000_000).unwrap());
    let other = ProcessHandle::open(&root, pid(&child.0), StartTime(started.0 + 1)).unwrap_err();
    assert!(matches!(other, HandleError::Reused { .. }), "{other}");

    handle.send_signal(Signal::TERM).unwrap();
    assert_eq!(child.0.wait().unwrap().signal(), Some(Signal::TERM.number()));
    let gone = [
        handle.send_signal(Signal::KILL).unwrap_err(),
        handle.still_holds(&root, inode).unwrap_err(),
        ProcessHandle::open(&root, pid(&child.0), started).unwrap_err(),
        ProcessHandle::open(&root, 0, started).unwrap_err(),
        ProcessHandle::open(&root, -1, started).unwrap_err(),
    ];
    for error in gone {
        assert!(matches!(error, HandleError::Gone { .. }), "{error}");
    }
}

#[test]
fn a_process_of_another_user_is_left_alone() {
    let _turn = turn();
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: a process of another user, sure to be there, needs root to start it");
        return;
    }
    let mut child = Running(Command::new("sleep").arg("600").spawn().unwrap());
    let number = pid(&child.0);
    std::thread::spawn(move || {
        thread::become_nobody();
        let root = ProcRoot::system().unwrap();
        let started = Process::start_time_of(&root, number).unwrap();
        let handle = ProcessHandle::open(&root, number, started).unwrap();
        let errors = [
            (handle.send_signal(Signal::KILL).unwrap_err(), "be sent a signal"),
            (handle.still_holds(&root, 1).unwrap_err(), "be looked at"),
        ];
        for (error, action) in errors {
            assert_eq!(
                error.to_string(),
                format!(
                    "process {number} may not {action}: it belongs to another user; use that user's rights, or \
                     root's"
                )
            );
        }
    })
    .join()
    .unwrap();
    assert_eq!(child.0.try_wait().unwrap(), None);
}

#[test]
fn time_that_is_over_is_said_by_every_collector() {
    let root = ProcRoot::system().unwrap();
    for only in [
        Collector::BpfTaskFile,
        Collector::ProcByCgroup,
        Collector::ProcEvery,
    ] {
        let request = HoldingsRequest {
            deadline: Some(Duration::ZERO),
            cgroups: vec![1],
            only: Some(only),
            ..HoldingsRequest::default()
        };
        match find_holders(&root, &request) {
            Ok(found) => assert!(
                found.warnings[0].starts_with("the time for finding owners was over"),
                "{only}: {:?}",
                found.warnings
            ),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}

#[test]
fn a_collector_of_sockets_finds_no_owners() {
    let root = ProcRoot::system().unwrap();
    let error = find_holders(
        &root,
        &HoldingsRequest {
            only: Some(Collector::SockDiag),
            ..HoldingsRequest::default()
        },
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot find owners by sock_diag netlink: it finds sockets, and not their owners"
    );
}

/// What changes the calling thread and no other.
mod thread {
    use std::ffi::CString;
    use std::io;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    fn check(answer: libc::c_long) -> io::Result<()> {
        if answer == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Gives the thread a table of descriptors of its own.
    pub(super) fn unshare_files() {
        // SAFETY: the copy of the table starts out equal, and only descriptors made later differ.
        check(unsafe { libc::unshare(libc::CLONE_FILES) }.into()).unwrap();
    }

    /// Gives up every right of root, for good.
    pub(super) fn become_nobody() {
        const NOBODY: libc::c_long = 65_534;
        // SAFETY: system calls without pointers (an empty list has none); made directly, and not through
        // the C library, they change this thread alone.
        unsafe {
            check(libc::syscall(libc::SYS_setgroups, 0, 0)).unwrap();
            check(libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY)).unwrap();
            check(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY)).unwrap();
        }
    }

    /// Mounts a /proc for this thread and those that it starts.
    pub(super) fn mount_proc(at: &Path, options: &str) -> io::Result<()> {
        let at = CString::new(at.as_os_str().as_bytes()).unwrap();
        let options = CString::new(options).unwrap();
        let none = std::ptr::null();
        // SAFETY: every pointer is null or leads to text that ends with a zero byte and outlives the calls.
        unsafe {
            check(libc::unshare(libc::CLONE_NEWNS).into())?;
            check(
                libc::mount(
                    none,
                    c"/".as_ptr(),
                    none,
                    libc::MS_REC | libc::MS_PRIVATE,
                    none.cast(),
                )
                .into(),
            )?;
            check(
                libc::mount(
                    c"proc".as_ptr(),
                    at.as_ptr(),
                    c"proc".as_ptr(),
                    0,
                    options.as_ptr().cast(),
                )
                .into(),
            )
        }
    }
}
