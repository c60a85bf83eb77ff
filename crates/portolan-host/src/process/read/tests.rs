use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use proptest::prelude::*;

use super::*;

/// A /proc with nothing in it but what a test puts there.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> ProcRoot {
        ProcRoot::open(self.0.path()).unwrap()
    }

    fn process(&self, pid: i32, files: &[(&str, &[u8])]) {
        let dir = self.0.path().join(pid.to_string());
        fs::create_dir(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
    }

    fn simple(&self, pid: i32, parent: i32, start: u64) {
        self.process(
            pid,
            &[
                ("stat", stat_text(pid, b"x", parent, start).as_slice()),
                ("status", b"Name:\tx\nUid:\t0\t0\t0\t0\n"),
            ],
        );
    }

    fn link(&self, pid: i32, name: &str, target: impl AsRef<Path>) {
        symlink(target, self.0.path().join(pid.to_string()).join(name)).unwrap();
    }
}

fn stat_text(pid: i32, name: &[u8], parent: i32, start: u64) -> Vec<u8> {
    let mut text = format!("{pid} (").into_bytes();
    text.extend_from_slice(name);
    text.extend_from_slice(
        format!(") S {parent} 1 1 0 -1 4194560 9 8 7 6 5 4 3 2 20 0 1 0 {start} 1000 200 184\n").as_bytes(),
    );
    text
}

#[test]
fn every_part_of_a_process_is_read() {
    let fixture = Fixture::new();
    fixture.process(
        812,
        &[
            ("stat", stat_text(812, b"nginx", 1, 4711).as_slice()),
            (
                "status",
                b"Name:\tnginx\nUmask:\t0022\nUid:\t1000\t0\t1000\t1000\nGid:\t5\t5\t5\t5\n",
            ),
            ("cmdline", b"nginx: master\0-g\0\0daemon off;\0\0\0\0"),
            ("cgroup", b"0::/system.slice/nginx.service\n"),
        ],
    );
    fixture.link(812, "exe", "/usr/sbin/nginx");
    fixture.link(812, "cwd", "/srv/www");
    let mut users = Users::new();
    let process = Process::read(&fixture.root(), 812, &mut users).unwrap();
    let expected = Process {
        pid: 812,
        parent: 1,
        start_time: StartTime(4711),
        name: "nginx".into(),
        exe: Some("/usr/sbin/nginx".into()),
        cwd: Some("/srv/www".into()),
        command_line: ["nginx: master", "-g", "", "daemon off;"]
            .map(OsString::from)
            .into(),
        // The effective id: the second number.
        uid: 0,
        user: Some("root".into()),
        cgroup: Some("/system.slice/nginx.service".into()),
        unit: Some("nginx.service".into()),
        container: None,
    };
    assert_eq!(process, expected);
}

#[test]
fn names_may_hold_anything() {
    let names: [&[u8]; 7] = [
        b"a) S 1 (b",
        b"((()))",
        b"new\nline",
        b"\x1b[31mred",
        b"\xff\xfe\x80",
        b" ",
        b"",
    ];
    for name in names {
        let stat = Stat::parse(&stat_text(7, name, 3, 99)).unwrap();
        assert_eq!(stat.name.into_vec(), name);
        assert_eq!((stat.parent, stat.start_time), (3, StartTime(99)));
    }
}

#[test]
fn a_name_cannot_forge_the_user() {
    // The kernel escapes the line feed of the name in this file.
    assert_eq!(
        effective_uid(b"Name:\tx\\nUid:\t0\t0\nState:\tS\nUid:\t5\t6\t7\t8\n"),
        Some(6)
    );
    assert_eq!(effective_uid(b"Name:\tx\n"), None);
    assert_eq!(effective_uid(b"Uid:\t5\n"), None);
    assert_eq!(effective_uid(b"Uid:\t5\t-1\n"), None);
}

#[test]
fn arguments_end_with_zero_bytes() {
    let cases: [(&[u8], &[&str]); 6] = [
        (b"", &[]),
        (b"\0\0", &[]),
        (b"a\0", &["a"]),
        (b"a\0b\0", &["a", "b"]),
        (b"a\0\0b\0\0\0", &["a", "", "b"]),
        // What setproctitle leaves need not end with one.
        (b"title of a daemon", &["title of a daemon"]),
    ];
    for (text, expected) in cases {
        assert_eq!(arguments(text), expected, "{text:?}");
    }
}

#[test]
fn a_long_command_line_is_cut() {
    let fixture = Fixture::new();
    fixture.simple(5, 0, 1);
    fs::write(fixture.0.path().join("5/cmdline"), vec![b'x'; 1 << 20]).unwrap();
    let process = Process::read(&fixture.root(), 5, &mut Users::new()).unwrap();
    assert_eq!(
        process.command_line,
        [OsString::from("x".repeat(COMMAND_LINE_LIMIT))]
    );
}

#[test]
fn what_may_not_be_read_is_left_out() {
    let fixture = Fixture::new();
    fixture.simple(5, 0, 1);
    let process = Process::read(&fixture.root(), 5, &mut Users::new()).unwrap();
    assert_eq!((process.exe, process.cwd, process.cgroup), (None, None, None));
    assert!(process.command_line.is_empty());
}

#[test]
fn faults_are_told_apart() {
    let fixture = Fixture::new();
    fixture.process(6, &[("stat", b"nonsense"), ("status", b"")]);
    fixture.process(
        7,
        &[("stat", stat_text(7, b"x", 1, 1).as_slice()), ("status", b"")],
    );
    let (root, mut users) = (fixture.root(), Users::new());
    let text = |pid| {
        Process::read(&root, pid, &mut Users::new())
            .unwrap_err()
            .to_string()
    };
    assert!(matches!(
        Process::read(&root, 5, &mut users),
        Err(ReadProcessError::Gone { pid: 5 })
    ));
    assert_eq!(text(5), "there is no process 5");
    assert_eq!(text(6), "/proc/6/stat does not look as Linux writes it");
    assert_eq!(text(7), "/proc/7/status does not look as Linux writes it");
}

#[test]
fn ancestors_reach_up_to_the_first_process() {
    let fixture = Fixture::new();
    fixture.simple(1, 0, 1);
    fixture.simple(20, 1, 10);
    fixture.simple(30, 20, 30);
    let (root, mut users) = (fixture.root(), Users::new());
    let process = Process::read(&root, 30, &mut users).unwrap();
    let chain: Vec<i32> = process
        .ancestors(&root, &mut users)
        .iter()
        .map(|p| p.pid)
        .collect();
    assert_eq!(chain, [20, 1]);
}

#[test]
fn a_ring_of_parents_ends() {
    let fixture = Fixture::new();
    fixture.simple(2, 3, 5);
    fixture.simple(3, 2, 5);
    let (root, mut users) = (fixture.root(), Users::new());
    let process = Process::read(&root, 2, &mut users).unwrap();
    assert_eq!(process.ancestors(&root, &mut users).len(), ANCESTORS_LIMIT);
}

#[test]
fn a_younger_parent_is_another_process() {
    let fixture = Fixture::new();
    fixture.simple(2, 3, 5);
    fixture.simple(3, 0, 6);
    let (root, mut users) = (fixture.root(), Users::new());
    let process = Process::read(&root, 2, &mut users).unwrap();
    assert_eq!(process.ancestors(&root, &mut users), []);
}

#[test]
fn this_process_is_read_from_the_real_proc() {
    let (root, mut users) = (ProcRoot::system().unwrap(), Users::new());
    let me = std::process::id().cast_signed();
    let process = Process::read(&root, me, &mut users).unwrap();
    assert_eq!(process.exe, std::env::current_exe().ok());
    assert_eq!(process.cwd, std::env::current_dir().ok());
    assert_eq!(process.command_line, std::env::args_os().collect::<Vec<_>>());
    assert_eq!(process.parent, std::os::unix::process::parent_id().cast_signed());
    assert_eq!(process.uid, rustix::process::geteuid().as_raw());
    assert!(process.start_time <= StartTime::now());
    assert_eq!(Process::start_time_of(&root, me).unwrap(), process.start_time);
    let last = process.ancestors(&root, &mut users).pop().unwrap();
    assert!(
        last.pid == 1 || last.parent == 0 || root.hides_processes(),
        "{last:?}"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_survived(text in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Stat::parse(&text);
        let _ = effective_uid(&text);
        let _ = arguments(&text);
    }

    #[test]
    fn any_name_is_read_back(name in prop::collection::vec(any::<u8>(), 0..16), start: u64, parent in 0..i32::MAX) {
        let stat = Stat::parse(&stat_text(9, &name, parent, start)).unwrap();
        prop_assert_eq!(stat, Stat { name: OsString::from_vec(name), parent, start_time: StartTime(start) });
    }
}
