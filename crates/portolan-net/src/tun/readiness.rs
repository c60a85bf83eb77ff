//! Waiting for a device.

use std::io;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use tokio::io::unix::AsyncFd;

use super::device::gone;

/// Waits until there may be something to read.
///
/// Of a device that was deleted, epoll tells nothing but an error, which is no news for tokio's readers. It is for
/// writers: so the task waits as one, too.
pub(super) fn poll_readable<T: AsRawFd>(device: &AsyncFd<T>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    if let Poll::Ready(guard) = device.poll_read_ready(cx) {
        // The next turn looks again, so that a packet between the two calls is not slept over.
        guard?.clear_ready();
        return Poll::Ready(Ok(()));
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
