//! The calls that neither tokio nor rustix has a safe face for.
#![expect(
    unsafe_code,
    reason = "descriptors and socket options; each call below says why it is sound"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits for this descriptor to be readable in the runtime that this is called in.
pub(super) fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives always the descriptor that it owns, and closes it only after the `AsyncFd`, which it is
    // moved into, has let go of it.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }
        .map_err(|error| error.into_parts().1)
}

/// Has bind take the address alone, and connect choose the port (`IP_BIND_ADDRESS_NO_PORT`, for both families).
pub(super) fn bind_without_port(socket: &impl AsFd) -> io::Result<()> {
    set_option(socket, libc::SOL_IP, libc::IP_BIND_ADDRESS_NO_PORT)
}

/// The number of the network namespace that a socket is of: while this system runs, no other has it (`SO_NETNS_COOKIE`,
/// Linux 5.14).
pub(super) fn network_cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut len = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, so it is open; both pointers lead to values that live through the call, and
    // `len` is the size of the first, which is valid whatever bytes are written to it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

/// Turns on an option that takes an int.
pub(super) fn set_option(socket: &impl AsFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let value: libc::c_int = 1;
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the descriptor is borrowed, so it is open; the option takes one int, which lives through the call, and
    // `len` is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
