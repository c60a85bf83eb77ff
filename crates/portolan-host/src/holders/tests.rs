use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn fixture(processes: &[(i32, &[(i32, &str)])]) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    for (pid, descriptors) in processes {
        let table = tree.path().join(pid.to_string()).join("fd");
        fs::create_dir_all(&table).unwrap();
        for (fd, target) in *descriptors {
            symlink(target, table.join(fd.to_string())).unwrap();
        }
    }
    tree
}

fn held(inode: u64, pid: i32, fd: i32) -> Holding {
    Holding { inode, pid, fd }
}

#[test]
fn every_holder_is_found_and_nothing_else() {
    let tree = fixture(&[
        (1, &[(0, "/dev/null"), (3, "socket:[100]"), (10, "socket:[101]")]),
        (7, &[(4, "socket:[100]"), (5, "socket:[100]"), (6, "pipe:[100]")]),
        (
            9,
            &[
                (0, "socket:[]"),
                (1, "socket:[-1]"),
                (2, "socket:[99999999999999999999]"),
                (3, "socket:[18446744073709551615]"),
                (4, "socket:[102]x"),
                (5, "/tmp/socket:[100]"),
                (6, "anon_inode:[eventpoll]"),
            ],
        ),
    ]);
    let root = ProcRoot::open(tree.path()).unwrap();
    let found = find_holders(&root, &HoldingsRequest::default()).unwrap();
    assert_eq!(
        found.holdings,
        [
            held(100, 1, 3),
            held(100, 7, 4),
            held(100, 7, 5),
            held(101, 1, 10),
            held(u64::MAX, 9, 3)
        ]
    );
    assert_eq!(found.collector, Collector::ProcEvery);
    assert_eq!((found.unreadable_processes(), found.hidden_processes), (0, false));
    assert_eq!(found.warnings, [""; 0]);

    let request = HoldingsRequest {
        inodes: Some(InodeSet::from_iter([101])),
        ..HoldingsRequest::default()
    };
    assert_eq!(
        find_holders(&root, &request).unwrap().holdings,
        [held(101, 1, 10)]
    );
}

#[test]
fn the_tables_of_threads_are_read_too() {
    let tree = fixture(&[(5, &[(3, "socket:[100]")])]);
    for (tid, inode) in [(5, 100), (6, 200)] {
        let table = tree.path().join(format!("5/task/{tid}/fd"));
        fs::create_dir_all(&table).unwrap();
        symlink(format!("socket:[{inode}]"), table.join("3")).unwrap();
    }
    let root = ProcRoot::open(tree.path()).unwrap();
    let found = find_holders(&root, &HoldingsRequest::default()).unwrap();
    assert_eq!(found.holdings, [held(100, 5, 3), held(200, 5, 3)]);
}

#[test]
fn a_deadline_is_kept_and_said() {
    let tree = fixture(&[(1, &[(3, "socket:[100]")])]);
    let root = ProcRoot::open(tree.path()).unwrap();
    let request = HoldingsRequest {
        deadline: Some(Duration::ZERO),
        ..HoldingsRequest::default()
    };
    let found = find_holders(&root, &request).unwrap();
    assert_eq!(found.holdings, []);
    assert_eq!(
        found.warnings,
        ["the time for finding owners was over after 0 of 1 processes; owners may be missing"]
    );
}

#[test]
fn a_process_that_cannot_be_listed_is_said() {
    let tree = fixture(&[]);
    fs::create_dir(tree.path().join("4")).unwrap();
    // Not a directory.
    fs::write(tree.path().join("4/fd"), "").unwrap();
    let root = ProcRoot::open(tree.path()).unwrap();
    let found = find_holders(&root, &HoldingsRequest::default()).unwrap();
    assert_eq!(found.warnings.len(), 1);
    assert!(
        found.warnings[0].starts_with("cannot read the descriptors of process 4: "),
        "{:?}",
        found.warnings
    );
}

#[test]
fn more_processes_than_one_thread_takes_are_all_read() {
    let tree = tempfile::tempdir().unwrap();
    for pid in 1..=300 {
        let table = tree.path().join(pid.to_string()).join("fd");
        fs::create_dir_all(&table).unwrap();
        symlink(format!("socket:[{}]", 5000 - pid), table.join("3")).unwrap();
    }
    let root = ProcRoot::open(tree.path()).unwrap();
    let found = find_holders(&root, &HoldingsRequest::default()).unwrap();
    let expected: Vec<Holding> = (1..=300i32)
        .rev()
        .map(|pid| held(5000 - u64::from(pid.cast_unsigned()), pid, 3))
        .collect();
    assert_eq!(found.holdings, expected);
}
