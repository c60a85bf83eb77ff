//! Reading the descriptors of processes through /proc: names and link texts only, so that a descriptor of
//! a dead network mount, of a device or of a pipe is never touched.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, readlinkat_raw, statat};
use rustix::io::Errno;

use super::files::{FilesShared, shares_files};
use super::{HOLDINGS_MAX, Holding, Holdings, HoldingsRequest};
use crate::proc_root::for_each_number;
use crate::{Collector, ProcRoot, StartTime};

/// Looks into `pids`, in their order.
pub(super) fn these_processes(
    root: &ProcRoot,
    request: &HoldingsRequest,
    pids: &[i32],
    collector: Collector,
) -> Holdings {
    let began = StartTime::now();
    let scan = Scan {
        root,
        request,
        pids,
        next: AtomicUsize::new(0),
        found: AtomicUsize::new(0),
        out_of_time: AtomicBool::new(false),
        give_up_at: request
            .deadline
            .and_then(|limit| Instant::now().checked_add(limit)),
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS_MAX);
    let mut found = if threads == 1 || pids.len() < WORTH_A_THREAD {
        scan.work()
    } else {
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads)
                .filter_map(|_| {
                    std::thread::Builder::new()
                        .spawn_scoped(scope, || scan.work())
                        .ok()
                })
                .collect();
            let mut found = scan.work();
            for helper in helpers {
                match helper.join() {
                    Ok(more) => found.absorb(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            found
        })
    };
    found.holdings.sort_unstable();
    found.holdings.dedup();
    Holdings {
        holdings: found.holdings,
        unreadable: found.unreadable,
        hidden_processes: root.hides_processes(),
        began,
        collector,
        passed_over: Vec::new(),
        warnings: scan.warnings(found.failed),
    }
}

/// Looks into one process, given by its directory.
pub(super) fn one_process(
    root: &ProcRoot,
    request: &HoldingsRequest,
    process: &OwnedFd,
    pid: i32,
) -> io::Result<Vec<Holding>> {
    let mut holdings = Vec::new();
    Scan::new(root, request, &[]).process(pid, process, &mut holdings)?;
    Ok(holdings)
}

/// What one thread has found.
#[derive(Default)]
struct Found {
    holdings: Vec<Holding>,
    unreadable: BTreeMap<u32, usize>,
    /// Processes whose descriptors could not be listed for a reason other than rights or their end.
    failed: Option<(i32, io::Error)>,
}

impl Found {
    fn absorb(&mut self, other: Self) {
        let Self {
            holdings,
            unreadable,
            failed,
        } = other;
        self.holdings.extend(holdings);
        for (uid, count) in unreadable {
            *self.unreadable.entry(uid).or_default() += count;
        }
        self.failed = self.failed.take().or(failed);
    }
}

/// A walk over processes that several threads share.
struct Scan<'a> {
    root: &'a ProcRoot,
    request: &'a HoldingsRequest,
    pids: &'a [i32],
    /// The index of the next process that nobody has taken.
    next: AtomicUsize,
    /// Holdings found by all threads.
    found: AtomicUsize,
    out_of_time: AtomicBool,
    give_up_at: Option<Instant>,
}

impl<'a> Scan<'a> {
    fn new(root: &'a ProcRoot, request: &'a HoldingsRequest, pids: &'a [i32]) -> Self {
        Self {
            root,
            request,
            pids,
            next: AtomicUsize::new(0),
            found: AtomicUsize::new(0),
            out_of_time: AtomicBool::new(false),
            give_up_at: request.give_up_at(),
        }
    }

    /// Takes processes and looks into them until none is left.
    fn work(&self) -> Found {
        let mut found = Found::default();
        while !self.must_stop() {
            let Some(&pid) = self.pids.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
                break;
            };
            let looked = self
                .root
                .process_dir(pid)
                .and_then(|process| self.process(pid, &process, &mut found.holdings));
            match looked {
                Ok(()) => {}
                Err(error) => match Errno::from_io_error(&error) {
                    // It ended while we looked.
                    Some(Errno::NOENT | Errno::SRCH) => {}
                    Some(Errno::ACCESS | Errno::PERM) => {
                        if let Ok(uid) = self.user_of(pid) {
                            *found.unreadable.entry(uid).or_default() += 1;
                        }
                    }
                    _ => {
                        found.failed.get_or_insert((pid, error));
                    }
                },
            }
        }
        found
    }

    fn must_stop(&self) -> bool {
        if self.give_up_at.is_some_and(|moment| Instant::now() >= moment) {
            self.out_of_time.store(true, Ordering::Relaxed);
        }
        self.out_of_time.load(Ordering::Relaxed) || self.found.load(Ordering::Relaxed) >= HOLDINGS_MAX
    }

    /// The descriptors of a process, and those of its threads that have a table of their own.
    fn process(&self, pid: i32, process: &OwnedFd, holdings: &mut Vec<Holding>) -> io::Result<()> {
        self.table(pid, open_directory(process, c"fd")?, holdings)?;

        // The link count of the directory of threads is two more than there are threads, so that most
        // processes cost no more than this one question.
        if self.root.is_live() && statat(process, c"task", AtFlags::empty())?.st_nlink <= 3 {
            return Ok(());
        }
        let tasks = match open_directory(process, c"task") {
            Err(Errno::NOENT) if !self.root.is_live() => return Ok(()),
            tasks => tasks?,
        };
        for_each_number(&tasks, |tid, name| {
            let shared = tid == pid || (self.root.is_live() && shares_files(pid, tid) == FilesShared::Yes);
            if !shared {
                // A thread that ends meanwhile is no fault of its process.
                let task = openat(&tasks, name, PATH, Mode::empty());
                if let Ok(table) = task.and_then(|task| open_directory(task, c"fd")) {
                    let _ = self.table(pid, table, holdings);
                }
            }
            Ok(if self.must_stop() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })
    }

    /// The sockets in one table of descriptors.
    fn table(&self, pid: i32, table: OwnedFd, holdings: &mut Vec<Holding>) -> io::Result<()> {
        let before = holdings.len();
        let mut link = [MaybeUninit::<u8>::uninit(); LINK_LEN];
        let mut until_check = CHECK_EVERY;
        let mut reported = before;
        for_each_number(table.as_fd(), |fd, name| {
            until_check -= 1;
            if until_check == 0 {
                until_check = CHECK_EVERY;
                self.found.fetch_add(holdings.len() - reported, Ordering::Relaxed);
                reported = holdings.len();
                if self.must_stop() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            match readlinkat_raw(&table, name, &mut link) {
                Ok((text, _)) => {
                    if let Some(inode) = socket_inode(text)
                        && self.request.wants(inode)
                    {
                        holdings.push(Holding { inode, pid, fd });
                    }
                }
                // Closed meanwhile.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.found.fetch_add(holdings.len() - reported, Ordering::Relaxed);
        Ok(())
    }

    fn user_of(&self, pid: i32) -> io::Result<u32> {
        Ok(fstat(self.root.process_dir(pid)?)?.st_uid)
    }

    fn warnings(&self, failed: Option<(i32, io::Error)>) -> Vec<String> {
        let mut warnings = Vec::new();
        let looked = self.next.load(Ordering::Relaxed).min(self.pids.len());
        if self.out_of_time.load(Ordering::Relaxed) {
            warnings.push(format!(
                "the time for finding owners was over after {looked} of {} processes; owners may be missing",
                self.pids.len()
            ));
        }
        if self.found.load(Ordering::Relaxed) >= HOLDINGS_MAX {
            warnings.push(format!(
                "stopped after {HOLDINGS_MAX} descriptors of sockets ({looked} of {} processes); owners may be \
                 missing; ask for fewer sockets",
                self.pids.len()
            ));
        }
        if let Some((pid, error)) = failed {
            warnings.push(format!(
                "cannot read the descriptors of process {pid}: {error}; its sockets may show no owner"
            ));
        }
        warnings
    }
}

fn open_directory(dir: impl AsFd, name: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// The inode number in the link text of a socket's descriptor, `socket:[4711]`.
///
/// No file can pass for a socket: the link text of a file begins with a slash, or with `(unreachable)`.
fn socket_inode(link: &[u8]) -> Option<u64> {
    let digits = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// For opening a directory only to look up names in it.
const PATH: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// `socket:[` and `]` about the largest number of 64 bits. Longer texts are cut, and no sockets'.
const LINK_LEN: usize = 29;

/// Descriptors between two looks at the clock.
const CHECK_EVERY: u32 = 256;

/// Reading links takes locks of the kernel's directory cache; beyond four threads little is gained.
const THREADS_MAX: usize = 4;

/// Fewer processes than this are looked into before another thread has even started.
const WORTH_A_THREAD: usize = 64;
