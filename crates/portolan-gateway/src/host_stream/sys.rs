//! The calls that neither tokio nor rustix has a safe face for.
#![expect(
    unsafe_code,
    reason = "urgent marks and TCP_INFO; each call below says why it is sound"
)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::TcpStream;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// As in every architecture whose ioctls are those of `asm-generic/sockios.h`.
const SIOCATMARK: u32 = 0x8905;
/// Of `linux/sockios.h`, for every architecture.
const SIOCOUTQNSD: u32 = 0x894B;

/// Waits for a stream to be readable, writable or urgent, in the runtime that this is called in.
pub(super) fn register(stream: TcpStream) -> io::Result<AsyncFd<TcpStream>> {
    let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
    // SAFETY: a `TcpStream` gives always the descriptor that it owns, and closes it only after the `AsyncFd`, which it is
    // moved into, has let go of it.
    unsafe { AsyncFd::register_with_interest(stream, interest) }.map_err(|error| error.into_parts().1)
}

/// Whether the next byte to be read is one that the peer called urgent (`SIOCATMARK`).
pub(super) fn is_at_mark(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut is_at_mark: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed, so it is open; this request writes one int, which lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCATMARK as _, &raw mut is_at_mark) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(is_at_mark != 0)
}

/// Reads at most `max` bytes behind those of `buf`, which has room for them; none means the end.
pub(super) fn read(socket: BorrowedFd<'_>, buf: &mut BytesMut, max: usize) -> io::Result<usize> {
    let room = buf.spare_capacity_mut();
    let len = room.len().min(max);
    // SAFETY: the descriptor is borrowed, so it is open, and the kernel writes no more than the `len` bytes of the room.
    let result = unsafe { libc::recv(socket.as_raw_fd(), room.as_mut_ptr().cast(), len, 0) };
    let read = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written so many bytes there.
    unsafe { buf.advance_mut(read) };
    Ok(read)
}

/// How many bytes were given to the kernel that it has never sent (`SIOCOUTQNSD`).
pub(super) fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut unsent: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed, so it is open; this request writes one int, which lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQNSD as _, &raw mut unsent) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(unsent).unwrap_or(0))
}

/// How long ago the peer was heard last.
pub(super) fn last_heard(socket: BorrowedFd<'_>) -> io::Result<Duration> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, so it is open; the kernel writes at most `len` bytes, which is what `info` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is integers only, for which zero is a value where the kernel wrote nothing.
    let info = unsafe { info.assume_init() };
    let millis = info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv);
    Ok(Duration::from_millis(millis.into()))
}
