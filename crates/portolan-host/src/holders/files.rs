//! Whether two threads share one table of descriptors: `kcmp(2)`.
#![expect(unsafe_code, reason = "kcmp(2) is in neither std nor rustix")]

/// Whether a thread sees the descriptors of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilesShared {
    /// It uses the same table, as threads do that were made by `pthread_create`.
    Yes,
    /// It has a table of its own, after `unshare(CLONE_FILES)`.
    No,
    /// The kernel does not say: kcmp is not built in, or a sandbox forbids it.
    Unknown,
}

/// Whether the thread `tid` uses the table of descriptors of the process `pid`.
pub(super) fn shares_files(pid: i32, tid: i32) -> FilesShared {
    // SAFETY: kcmp takes five numbers and no pointers, and changes nothing.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, pid, tid, KCMP_FILES, 0, 0) };
    match order {
        0 => FilesShared::Yes,
        1.. => FilesShared::No,
        _ => FilesShared::Unknown,
    }
}

/// What of the two is compared (include/uapi/linux/kcmp.h).
const KCMP_FILES: libc::c_int = 2;
