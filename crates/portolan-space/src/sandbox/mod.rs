//! Less rights for the process that serves a port space: it reads what a program that may be hostile writes.
//!
//! Each is independent of the others, can only be taken away, and holds for the threads and processes that the calling
//! thread starts afterwards: so call them before there are any, when all that is needed from the file system is open.
//! In this order each leaves what the next needs: [`leave_mounts`], [`drop_capabilities`], [`forbid_dumps`],
//! [`forbid_files`], [`limit_system_calls`].

mod capabilities;
mod files;
mod memory;
mod syscalls;

pub use capabilities::{be_seen, drop_capabilities, keep_port_capabilities};
pub(crate) use capabilities::{
    drop_held_capabilities, hand_down_capabilities, keep_held_capabilities, keep_peer_capabilities,
};
pub use files::{forbid_files, leave_mounts};
pub use memory::forbid_dumps;
pub use syscalls::limit_system_calls;
