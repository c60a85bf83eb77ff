//! The memory of this process.

use rustix::io::Result;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Nobody without privilege may trace this process or read its memory, and a crash writes none of it to a file: packets
/// of others are in there.
///
/// # Errors
/// If the kernel refuses.
pub fn forbid_dumps() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)
}
