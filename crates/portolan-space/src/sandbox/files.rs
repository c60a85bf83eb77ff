//! Files, by two means: none to be seen, and none to be opened.

use std::ffi::CStr;

use landlock::{ABI, Access as _, AccessFs, Ruleset, RulesetAttr as _, RulesetError, RulesetStatus};
use rustix::io::{Errno, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::process::{chdir, pivot_root};
use rustix::thread::UnshareFlags;

use crate::config::Identity;
use crate::id_map::{self, Caller};
use crate::sys;

/// Leaves every mounted file system for an empty one that cannot be written to. What is open stays usable.
///
/// Only for a process with a single thread. Without privilege it takes a user namespace of its own, in which this user
/// is the only one there is.
///
/// # Errors
/// If the system forbids it; then nothing, or nothing but the namespace, has changed.
pub fn leave_mounts() -> Result<()> {
    if let Err(error) = sys::unshare(UnshareFlags::NEWNS) {
        if error != Errno::PERM {
            return Err(error);
        }
        let caller = Caller::here();
        sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
        // Who is not in the maps is nobody, and may do all below as well.
        let _ = id_map::write_own(caller, Identity::Caller);
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    // There is always a /proc to mount it on.
    mount("empty", "/proc", "tmpfs", flags, None::<&CStr>)?;
    chdir("/proc")?;
    // With both at one place the old root lies on the new one (pivot_root(2)), and is taken off there.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

/// Forbids this thread, and those that it starts, to open or change any file by its path, where the kernel has Landlock.
/// `false` where it has not, or less than all of it.
///
/// It takes the right to gain privileges by set-uid programs as well. What is open stays usable.
///
/// # Errors
/// If the kernel has it and refuses.
pub fn forbid_files() -> std::result::Result<bool, RulesetError> {
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V5))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset == RulesetStatus::FullyEnforced)
}
