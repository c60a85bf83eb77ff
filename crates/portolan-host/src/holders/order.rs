//! In which order to look into processes: those in the sockets' cgroups first.
//!
//! The kernel tells the cgroup in which a socket was made, and mostly its holders are still there. But it
//! proves nothing: systemd makes a service's socket itself and passes it on, a process moves to another
//! cgroup, a descriptor travels through a unix socket. So the cgroup decides only who is looked at first;
//! every process is looked at all the same, and the answers are those of the plain scan. The order counts
//! where time runs out on a machine with very many processes.

use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, fstat, fstatfs, openat};

use super::HoldingsRequest;
use crate::Collector;
use crate::proc_root::{decimal, read_bounded};

/// Why the order stays as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("the kernel did not name the cgroup of any socket")]
    NoHint,
    #[error("{0} processes are looked at sooner than the cgroups")]
    Few(usize),
    #[error("no cgroup v2 hierarchy is mounted at {}", MOUNTS.join(" or "))]
    NotMounted,
    #[error("none of the sockets' cgroups is there")]
    NotFound,
}

/// Moves the processes in the sockets' cgroups to the front.
pub(super) fn by_cgroup(pids: &mut [i32], request: &HoldingsRequest) -> Result<(), OrderError> {
    let mut ids: HashSet<u64> = request.cgroups.iter().copied().filter(|id| *id != 0).collect();
    if ids.is_empty() {
        return Err(OrderError::NoHint);
    }
    if pids.len() < WORTH_ORDERING && request.only.is_none_or(|only| only != Collector::ProcByCgroup) {
        return Err(OrderError::Few(pids.len()));
    }
    let root = MOUNTS
        .iter()
        .find_map(|path| {
            let root = open_directory(CWD, path).ok()?;
            (fstatfs(&root).ok()?.f_type == CGROUP2_SUPER_MAGIC).then_some(root)
        })
        .ok_or(OrderError::NotMounted)?;
    let first = processes_in(&root, &mut ids).ok_or(OrderError::NotFound)?;
    // Stable, so that both parts keep their order.
    pids.sort_by_key(|pid| !first.contains(pid));
    Ok(())
}

/// The processes of the cgroups with these ids, at and below a directory; `None` if no such cgroup is
/// there. Each id found is taken out of the set.
fn processes_in(root: &OwnedFd, ids: &mut HashSet<u64>) -> Option<HashSet<i32>> {
    let mut walk = Walk {
        wanted: ids.len(),
        ids,
        processes: HashSet::new(),
        directories: 0,
    };
    // The id of a cgroup is the inode number of its directory.
    if let Ok(stat) = fstat(root) {
        walk.visit(stat.st_ino, root);
    }
    // What cannot be read gives no hint.
    let _ = walk.below(root, 0);
    (walk.ids.len() < walk.wanted).then_some(walk.processes)
}

struct Walk<'a> {
    /// The ids not found yet.
    ids: &'a mut HashSet<u64>,
    wanted: usize,
    processes: HashSet<i32>,
    directories: usize,
}

impl Walk<'_> {
    fn below(&mut self, parent: &OwnedFd, depth: usize) -> io::Result<()> {
        let dir = open_directory(parent, ".")?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = entries.next() {
            if self.ids.is_empty() || self.directories >= DIRECTORIES_MAX {
                break;
            }
            let entry = entry?;
            if entry.file_type() != FileType::Directory || entry.file_name().to_bytes().starts_with(b".") {
                continue;
            }
            self.directories += 1;
            // One that cannot be opened was removed meanwhile.
            if let Ok(child) = openat(parent, entry.file_name(), DIRECTORY, Mode::empty()) {
                self.visit(entry.ino(), &child);
                if depth < DEPTH_MAX {
                    self.below(&child, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    fn visit(&mut self, id: u64, cgroup: &OwnedFd) {
        if self.ids.remove(&id)
            && let Ok(text) = read_bounded(cgroup, c"cgroup.procs", PROCS_LIMIT)
        {
            self.processes
                .extend(text.split(|byte| *byte == b'\n').filter_map(decimal));
        }
    }
}

fn open_directory(dir: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    Ok(openat(dir, path, DIRECTORY, Mode::empty())?)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Where systemd mounts the v2 hierarchy: alone, or beside those of version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The type of the file system (include/uapi/linux/magic.h).
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// With fewer processes than this, all are looked into in less time than the cgroups are read.
const WORTH_ORDERING: usize = 2000;

/// Bounds of the walk, beyond any machine's tree.
const DIRECTORIES_MAX: usize = 65_536;
const DEPTH_MAX: usize = 32;

/// The numbers of some hundred thousand processes.
const PROCS_LIMIT: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn processes_are_found_by_the_inode_of_their_cgroup() {
        let tree = tempfile::tempdir().unwrap();
        for (path, procs) in [
            ("a", "1\n2\n"),
            ("a/b", "30\n"),
            ("a/b/c", "nonsense\n-4\n40"),
            ("d", "5\n"),
        ] {
            std::fs::create_dir(tree.path().join(path)).unwrap();
            std::fs::write(tree.path().join(path).join("cgroup.procs"), procs).unwrap();
        }
        let id = |path: &str| std::fs::metadata(tree.path().join(path)).unwrap().ino();
        let root = open_directory(CWD, tree.path().to_str().unwrap()).unwrap();

        let mut ids = HashSet::from([id("a/b"), id("a/b/c"), id("d"), 1 << 60]);
        assert_eq!(processes_in(&root, &mut ids), Some(HashSet::from([30, 40, 5])));
        assert_eq!(ids, HashSet::from([1 << 60]));
        assert_eq!(processes_in(&root, &mut ids), None);
    }

    #[test]
    fn why_there_is_no_order_is_said() {
        let mut pids = [3, 1, 2];
        let request = |cgroups| HoldingsRequest {
            cgroups,
            ..HoldingsRequest::default()
        };
        let error = by_cgroup(&mut pids, &request(vec![0])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel did not name the cgroup of any socket"
        );
        let error = by_cgroup(&mut pids, &request(vec![77])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "3 processes are looked at sooner than the cgroups"
        );
        assert_eq!(pids, [3, 1, 2]);
    }
}
