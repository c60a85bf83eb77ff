//! Handing open sockets to another program, by the protocol of sd_listen_fds(3).
#![expect(
    unsafe_code,
    reason = "descriptors are put in their places between two programs"
)]

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::fcntl_dupfd_cloexec;

/// The descriptor of the first socket (SD_LISTEN_FDS_START).
pub const LISTEN_FDS_START: RawFd = 3;

/// Becomes `command`, which finds `sockets` as descriptors 3, 4 and on.
///
/// Sets LISTEN_FDS to their number, LISTEN_PID to this process's id, which the program keeps, and
/// LISTEN_FDNAMES to their names, which must not hold colons. Other descriptors that this process was
/// started with stay open, those that Rust opened do not. Returns only if the program cannot be run;
/// descriptors from 3 on may then be lost, so the process should end.
///
/// # Errors
/// Not found and permission denied are about the program; anything else is the system's.
pub fn exec_with_sockets(mut command: Command, sockets: Vec<(OwnedFd, String)>) -> io::Result<Infallible> {
    let count = RawFd::try_from(sockets.len()).map_err(|_| io::ErrorKind::ArgumentListTooLong)?;
    let mut names = Vec::with_capacity(sockets.len());
    let mut moved = Vec::with_capacity(sockets.len());
    // Out of the way first: a socket may sit on the descriptor that another one is to have.
    for (socket, name) in sockets {
        moved.push(fcntl_dupfd_cloexec(&socket, LISTEN_FDS_START + count)?);
        names.push(name);
    }
    command
        .env("LISTEN_FDS", count.to_string())
        .env("LISTEN_PID", std::process::id().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    let place = move || {
        for (socket, target) in moved.iter().zip(LISTEN_FDS_START..) {
            // SAFETY: dup2 takes numbers only. It is async-signal-safe and allocates nothing. What was
            // open as `target` is closed; none of `moved` is, since all lie above every target, and no
            // other owner is used again: either the program runs next or the caller ends.
            if unsafe { libc::dup2(socket.as_raw_fd(), target) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: with `exec` the closure runs in this very process, after no fork, so nothing that it
    // could find locked or half-written is; it makes system calls only.
    unsafe { command.pre_exec(place) };
    Err(command.exec())
}
