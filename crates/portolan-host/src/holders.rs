mod files;
mod iterator;
mod order;
mod scan;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

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

/// Inode numbers of sockets. The kernel chooses them, so the hash need not withstand an attacker.
pub type InodeSet = HashSet<u64, foldhash::fast::RandomState>;

/// Which sockets' holders to look for, and for how long.
#[derive(Clone, Debug, Default)]
pub struct HoldingsRequest {
    /// The inode numbers of the sockets; `None` for every socket on the machine.
    pub inodes: Option<InodeSet>,
    /// The cgroup v2 ids of these sockets, as far as known: their processes are looked at first.
    pub cgroups: Vec<u64>,
    /// After how long to give up and say so; `None` for never.
    pub deadline: Option<Duration>,
    /// The only collector that may run, to compare them; `None` for the best that can.
    pub only: Option<Collector>,
}

impl HoldingsRequest {
    /// Whether the holders of this socket are asked for.
    fn wants(&self, inode: u64) -> bool {
        self.inodes.as_ref().is_none_or(|inodes| inodes.contains(&inode))
    }

    /// The moment at which to give up, for a search that begins now.
    fn give_up_at(&self) -> Option<Instant> {
        self.deadline.and_then(|limit| Instant::now().checked_add(limit))
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
    /// The better collectors that did not run, and why.
    pub passed_over: Vec<PassedOver>,
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

/// A better collector that did not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// The collector.
    pub collector: Collector,
    /// Why it did not run, for a person.
    pub reason: String,
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
    /// The one collector that was asked for cannot run.
    #[error("cannot find owners by {collector}: {reason}")]
    Unavailable {
        /// The collector.
        collector: Collector,
        /// Why.
        reason: String,
    },
}

/// Finds every process that holds one of the sockets asked for.
///
/// Three collectors are tried, the fastest first, and their answers are equal as far as the rights of the
/// caller allow: a BPF iterator, which sees everything; /proc, with the processes of the sockets' cgroups
/// first; /proc, one process after the other.
///
/// # Errors
/// If the processes cannot even be listed, or the only collector allowed cannot run. A process that cannot
/// be looked into is no error: it is counted in [`Holdings::unreadable`].
pub fn find_holders(root: &ProcRoot, request: &HoldingsRequest) -> Result<Holdings, HoldersError> {
    if request.inodes.as_ref().is_some_and(InodeSet::is_empty) {
        let nobody = request.only.unwrap_or(Collector::ProcEvery);
        return Ok(scan::these_processes(root, request, &[], nobody));
    }
    let mut passed_over = Vec::new();
    let allowed = |collector| request.only.is_none_or(|only| only == collector);
    if allowed(Collector::BpfTaskFile) {
        match iterator::every_descriptor(root, request) {
            Ok(holdings) => return Ok(holdings),
            Err(error) => passed_over.push(PassedOver {
                collector: Collector::BpfTaskFile,
                reason: error.to_string(),
            }),
        }
    }
    if allowed(Collector::ProcByCgroup) || allowed(Collector::ProcEvery) {
        let mut pids = root.pids().map_err(|source| HoldersError::Processes { source })?;
        let mut collector = Collector::ProcEvery;
        if allowed(Collector::ProcByCgroup) {
            match order::by_cgroup(&mut pids, request) {
                Ok(()) => collector = Collector::ProcByCgroup,
                Err(error) => passed_over.push(PassedOver {
                    collector: Collector::ProcByCgroup,
                    reason: error.to_string(),
                }),
            }
        }
        if allowed(collector) {
            let mut holdings = scan::these_processes(root, request, &pids, collector);
            holdings.passed_over = passed_over;
            return Ok(holdings);
        }
    }
    let (collector, reason) = match (passed_over.pop(), request.only) {
        (Some(PassedOver { collector, reason }), _) => (collector, reason),
        (None, only) => (
            only.unwrap_or(Collector::ProcEvery),
            "it finds sockets, and not their owners".to_owned(),
        ),
    };
    Err(HoldersError::Unavailable { collector, reason })
}

/// Whether a process, given by its directory, holds a socket.
pub(crate) fn holds(root: &ProcRoot, process: &OwnedFd, pid: i32, inode: u64) -> io::Result<bool> {
    let request = HoldingsRequest {
        inodes: Some(InodeSet::from_iter([inode])),
        ..HoldingsRequest::default()
    };
    scan::one_process(root, &request, process, pid).map(|holdings| !holdings.is_empty())
}

/// Where a search stops to keep memory bounded: at 16 bytes each, 32 MiB.
const HOLDINGS_MAX: usize = 2 << 20;

#[cfg(test)]
mod tests;
