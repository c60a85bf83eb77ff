use std::collections::HashMap;
use std::collections::hash_map::Entry;
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
    let host = host(root);
    let mut by_inode = HashMap::from([(host.inode, host)]);
    let mut beyond = 0;
    // Without mountinfo the processes still lead to most of them.
    for mount in mounted(root).unwrap_or_default() {
        let name = mount.name();
        let full = by_inode.len() >= MAX_SPACES;
        let candidate = match by_inode.entry(mount.inode) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if full => {
                beyond += 1;
                continue;
            }
            Entry::Vacant(entry) => entry.insert(anonymous(mount.inode)),
        };
        if let (SpaceName::Anonymous(_), Some(name)) = (&candidate.name, name) {
            candidate.name = SpaceName::Mounted(name);
        }
        candidate.mounts.push(mount.path);
    }
    let mut withheld = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        match namespace_of(root, &name) {
            Ok(inode) => {
                let full = by_inode.len() >= MAX_SPACES;
                let candidate = match by_inode.entry(inode) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(_) if full => {
                        beyond += 1;
                        continue;
                    }
                    Entry::Vacant(entry) => entry.insert(anonymous(inode)),
                };
                if candidate.pids.len() < MAX_PIDS {
                    candidate.pids.push(pid);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => withheld.push(pid),
            // Gone meanwhile, or a zombie.
            Err(_) => {}
        }
    }
    let mut candidates: Vec<_> = by_inode.into_values().collect();
    beyond += add_withheld(root, withheld, &mut candidates);
    candidates.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Found { candidates, beyond })
}

/// Adds the namespaces of processes that do not tell theirs, other users': what is below their /proc/PID/net
/// differs from namespace to namespace, down to the files' inode numbers.
fn add_withheld(root: &Path, withheld: Vec<i32>, candidates: &mut Vec<Candidate>) -> usize {
    let mut known: HashMap<u64, usize> = HashMap::new();
    let mut beyond = 0;
    if !withheld.is_empty() {
        for (index, candidate) in candidates.iter().enumerate() {
            let listing = match candidate.name {
                SpaceName::Host => listing_of(root, "thread-self"),
                SpaceName::Mounted(_) | SpaceName::Anonymous(_) | SpaceName::OfProcess(_) => candidate
                    .pids
                    .iter()
                    .find_map(|pid| listing_of(root, &pid.to_string())),
            };
            known.extend(listing.map(|listing| (listing, index)));
        }
    }
    for pid in withheld {
        let Some(listing) = listing_of(root, &pid.to_string()) else {
            continue;
        };
        let full = candidates.len() >= MAX_SPACES;
        match known.entry(listing) {
            Entry::Occupied(entry) => {
                let pids = &mut candidates[*entry.get()].pids;
                if pids.len() < MAX_PIDS {
                    pids.push(pid);
                }
            }
            Entry::Vacant(_) if full => beyond += 1,
            Entry::Vacant(entry) => {
                entry.insert(candidates.len());
                candidates.push(of_process(pid));
            }
        }
    }
    beyond
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
