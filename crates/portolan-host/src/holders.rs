mod files;
mod identify;
mod scan;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::time::Duration;

use crate::{Collector, ProcRoot, StartTime};

/// One descriptor through which a process holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holding {
    /// The inode number of the socket.
    pub inode: u64,
    /// The process (the thread group), in the PID namespace of the proc root.
    pub pid: i32,
    /// The descriptor.
    pub fd: i32,
}

/// Which sockets' holders to look for, and for how long.
#[derive(Clone, Debug, Default)]
pub struct HoldingsRequest {
    /// The inode numbers of the sockets; `None` for every socket on the machine.
    pub inodes: Option<HashSet<u64>>,
    /// The cgroup v2 ids of these sockets, as far as known: their processes are looked at first.
    pub cgroups: Vec<u64>,
    /// After how long to give up and say so; `None` for never.
    pub deadline: Option<Duration>,
}

impl HoldingsRequest {
    /// Whether the holders of this socket are asked for.
    fn wants(&self, inode: u64) -> bool {
        self.inodes.as_ref().is_none_or(|inodes| inodes.contains(&inode))
    }
}

/// Who holds which socket, and what could not be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    /// Every holding found, each once, in the order of inode, process and descriptor.
    pub holdings: Vec<Holding>,
    /// How many processes could not be looked into, by the user they belong to: the effective user, or
    /// root for a process that has made itself undumpable.
    pub unreadable: BTreeMap<u32, usize>,
    /// Whether other users' processes do not even show (the mount option `hidepid`).
    pub hidden_processes: bool,
    /// When the search began: a process that started later is not the one that was found under its number.
    pub began: StartTime,
    /// What found them.
    pub collector: Collector,
    /// What went wrong and was survived, for a person, one line each.
    pub warnings: Vec<String>,
}

impl Holdings {
    /// How many processes could not be looked into.
    #[must_use]
    pub fn unreadable_processes(&self) -> usize {
        self.unreadable.values().sum()
    }
}

/// Why nobody's sockets could be looked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HoldersError {
    /// The processes could not be listed.
    #[error("cannot list the processes: {source}; without /proc no socket's owner can be named")]
    Processes {
        /// What the system said.
        source: io::Error,
    },
}

/// Finds every process that holds one of the sockets asked for.
///
/// # Errors
/// If the processes cannot even be listed. A process that cannot be looked into is no error: it is counted
/// in [`Holdings::unreadable`].
pub fn find_holders(root: &ProcRoot, request: &HoldingsRequest) -> Result<Holdings, HoldersError> {
    scan::every_process(root, request)
}

#[cfg(test)]
mod tests;
