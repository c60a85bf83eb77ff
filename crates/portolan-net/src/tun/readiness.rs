//! Waiting for a device.

use std::io;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::device::gone;

/// Waits until there may be something to read. Whoever finds nothing more clears what is given, and only then: what
/// comes after the last look and before that is not slept over, since it is another readiness.
///
/// Of a device that was deleted, epoll tells nothing but an error, which is no news for tokio's readers. It is for
/// writers: so the task waits as one, too.
pub(super) fn poll_readable<'a, T: AsRawFd>(
    device: &'a AsyncFd<T>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<AsyncFdReadyGuard<'a, T>>> {
    if let Poll::Ready(guard) = device.poll_read_ready(cx) {
        return Poll::Ready(guard);
    }
    while let Poll::Ready(guard) = device.poll_write_ready(cx) {
        let mut guard = guard?;
        if guard.ready().is_write_closed() {
            return Poll::Ready(Err(gone()));
        }
        // Whoever writes tries first, and waits only if there is no room: then there is news when there is.
        guard.clear_ready();
    }
    Poll::Pending
}
