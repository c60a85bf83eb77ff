use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::mounts::mounted;
use crate::SpaceName;

/// A network namespace, and the ways to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: SpaceName,
    /// 0 if unknown.
    pub(crate) inode: u64,
    /// Where it is mounted.
    pub(super) mounts: Vec<PathBuf>,
    /// Some processes that live in it.
    pub(crate) pids: Vec<i32>,
}

/// The namespaces that were found: the host's first, then the named ones, then the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) candidates: Vec<Candidate>,
    /// How many more there are than [`MAX_SPACES`].
    pub(crate) beyond: usize,
}

/// The namespace of this thread.
pub(crate) fn host(root: &Path) -> Candidate {
    Candidate {
        name: SpaceName::Host,
        inode: namespace_of(root, "thread-self").unwrap_or(0),
        mounts: Vec::new(),
        pids: Vec::new(),
    }
}

/// Every namespace that has a process or a mount.
///
/// One that is kept alive by nothing but an open descriptor or a socket cannot be found.
pub(crate) fn find(root: &Path) -> io::Result<Found> {
    find_up_to(root, MAX_SPACES)
}

fn find_up_to(root: &Path, limit: usize) -> io::Result<Found> {
    let host = host(root);
    let mut finder = Finder {
        root,
        limit,
        by_inode: HashMap::from([(host.inode, host)]),
        beyond: HashSet::new(),
    };
    // Without mountinfo the processes still lead to most of them.
    for mount in mounted(root).unwrap_or_default() {
        if let Some(candidate) = finder.candidate(mount.inode) {
            if let (SpaceName::Anonymous(_), Some(name)) = (&candidate.name, mount.name()) {
                candidate.name = SpaceName::Mounted(name);
            }
            candidate.mounts.push(mount.path);
        }
    }
    let mut withheld = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        match namespace_of(root, &name) {
            Ok(inode) => {
                if let Some(candidate) = finder.candidate(inode) {
                    candidate.add(pid);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => withheld.push(pid),
            // Gone meanwhile, or a zombie.
            Err(_) => {}
        }
    }
    Ok(finder.finish(withheld))
}

/// The namespaces met so far.
struct Finder<'a> {
    root: &'a Path,
    limit: usize,
    by_inode: HashMap<u64, Candidate>,
    /// What names those beyond the limit.
    beyond: HashSet<u64>,
}

impl Finder<'_> {
    /// The namespace with this inode, old or new; `None` beyond the limit.
    fn candidate(&mut self, inode: u64) -> Option<&mut Candidate> {
        let full = self.by_inode.len() >= self.limit;
        match self.by_inode.entry(inode) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(_) if full => {
                self.beyond.insert(inode);
                None
            }
            Entry::Vacant(entry) => Some(entry.insert(anonymous(inode))),
        }
    }

    /// Adds the namespaces of processes that do not tell theirs, other users': what is below their
    /// /proc/PID/net differs from namespace to namespace, down to the files' inode numbers.
    fn finish(mut self, withheld: Vec<i32>) -> Found {
        let mut candidates: Vec<_> = self.by_inode.into_values().collect();
        let mut known: HashMap<u64, usize> = HashMap::new();
        if !withheld.is_empty() {
            for (index, candidate) in candidates.iter().enumerate() {
                let listing = match candidate.name {
                    SpaceName::Host => listing_of(self.root, "thread-self"),
                    SpaceName::Mounted(_) | SpaceName::Anonymous(_) | SpaceName::OfProcess(_) => candidate
                        .pids
                        .iter()
                        .find_map(|pid| listing_of(self.root, &pid.to_string())),
                };
                known.extend(listing.map(|listing| (listing, index)));
            }
        }
        for pid in withheld {
            let Some(listing) = listing_of(self.root, &pid.to_string()) else {
                continue;
            };
            let full = candidates.len() >= self.limit;
            match known.entry(listing) {
                Entry::Occupied(entry) => candidates[*entry.get()].add(pid),
                Entry::Vacant(_) if full => {
                    self.beyond.insert(listing);
                }
                Entry::Vacant(entry) => {
                    entry.insert(candidates.len());
                    candidates.push(of_process(pid));
                }
            }
        }
        candidates.sort_by(|one, other| one.name.cmp(&other.name));
        Found {
            candidates,
            beyond: self.beyond.len(),
        }
    }
}

impl Candidate {
    fn add(&mut self, pid: i32) {
        if self.pids.len() < MAX_PIDS {
            self.pids.push(pid);
        }
    }
}

const fn anonymous(inode: u64) -> Candidate {
    Candidate {
        name: SpaceName::Anonymous(inode),
        inode,
        mounts: Vec::new(),
        pids: Vec::new(),
    }
}

/// The namespace of a process that does not tell its inode.
pub(super) fn of_process(pid: i32) -> Candidate {
    Candidate {
        name: SpaceName::OfProcess(pid),
        inode: 0,
        mounts: Vec::new(),
        pids: vec![pid],
    }
}

/// The inode of the network namespace of a process, from the text of a link: nothing is opened.
pub(super) fn namespace_of(root: &Path, process: impl AsRef<Path>) -> io::Result<u64> {
    let link = fs::read_link(root.join(process).join("ns/net"))?;
    inode_of(link.as_os_str().as_bytes()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The number in `net:[4026531840]`.
pub(super) fn inode_of(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    str::from_utf8(digits).ok()?.parse().ok()
}

/// A number that tells apart the namespaces of processes whose link may not be read.
pub(super) fn listing_of(root: &Path, process: &str) -> Option<u64> {
    Some(fs::metadata(root.join(process).join("net/dev")).ok()?.ino())
}

/// More namespaces than this are counted, not read.
const MAX_SPACES: usize = 10_000;

/// So many processes are kept for each namespace: one may be gone when it is needed.
const MAX_PIDS: usize = 4;

#[cfg(test)]
pub(super) mod fixture {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A tree like /proc, in which this thread lives in namespace 100.
    pub(in crate::spaces) fn tree(processes: &[(&str, u64)], mountinfo: &str) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (process, inode) in [("thread-self", 100)].iter().chain(processes) {
            let directory = root.path().join(process).join("ns");
            fs::create_dir_all(&directory).unwrap();
            symlink(format!("net:[{inode}]"), directory.join("net")).unwrap();
        }
        fs::write(root.path().join("thread-self/mountinfo"), mountinfo).unwrap();
        root
    }

    pub(in crate::spaces) const MOUNTS: &str = "\
        60 29 0:4 net:[200] /run/netns/blue rw shared:3 - nsfs nsfs rw\n\
        61 29 0:4 net:[200] /run/netns/blue rw shared:3 - nsfs nsfs rw\n\
        62 29 0:4 net:[300] /run/docker/netns/1-x rw - nsfs nsfs rw\n\
        63 29 0:4 net:[100] /run/netns/home rw - nsfs nsfs rw\n";
}

#[cfg(test)]
mod tests {
    use super::fixture::{MOUNTS, tree};
    use super::*;

    #[test]
    fn each_namespace_is_found_once_and_named() {
        let processes = [
            ("1", 100),
            ("7", 200),
            ("8", 400),
            ("9", 400),
            ("sys", 500),
            ("self", 600),
        ];
        let root = tree(&processes, MOUNTS);
        let found = find(root.path()).unwrap();
        let names: Vec<_> = found
            .candidates
            .iter()
            .map(|candidate| candidate.name.to_string())
            .collect();
        assert_eq!(names, ["host", "blue", "net:[300]", "net:[400]"]);
        assert_eq!(found.candidates[1].mounts, [PathBuf::from("/run/netns/blue")]);
        assert_eq!(found.candidates[1].pids, [7]);
        let mut pids = found.candidates[3].pids.clone();
        pids.sort_unstable();
        assert_eq!(pids, [8, 9]);
        assert_eq!(found.beyond, 0);
    }

    #[test]
    fn those_beyond_the_limit_are_counted_once_each() {
        let processes: Vec<(String, u64)> = (1..=40).map(|pid| (pid.to_string(), 1000 + pid / 2)).collect();
        let processes: Vec<(&str, u64)> = processes
            .iter()
            .map(|(pid, inode)| (pid.as_str(), *inode))
            .collect();
        let root = tree(&processes, "");
        let found = find_up_to(root.path(), 6).unwrap();
        assert_eq!((found.candidates.len(), found.beyond), (6, 21 - 5));
        assert!(
            found
                .candidates
                .iter()
                .all(|candidate| candidate.pids.len() <= MAX_PIDS)
        );
    }

    #[test]
    fn links_to_other_things_are_no_namespaces() {
        assert_eq!(inode_of(b"net:[4026531840]"), Some(4_026_531_840));
        for text in [
            &b"net:[]"[..],
            b"net:[-1]",
            b"mnt:[1]",
            b"net:[1",
            b"net:[18446744073709551616]",
            b"",
        ] {
            assert_eq!(inode_of(text), None);
        }
    }
}
