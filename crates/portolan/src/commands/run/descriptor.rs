//! Descriptors that tokio waits for.
#![expect(
    unsafe_code,
    reason = "tokio cannot know that a descriptor stays the same; below it does"
)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has tokio wait until there is something to read from `descriptor`, by a copy of it. Needs a runtime with I/O.
pub(super) fn watch(descriptor: &impl AsFd) -> io::Result<AsyncFd<OwnedFd>> {
    let copy = descriptor.as_fd().try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` gives always the descriptor that it owns, and closes it only after the `AsyncFd`, which it is
    // moved into, has let go of it.
    unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}
