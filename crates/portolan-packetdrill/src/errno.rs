//! Errors as numbers of Linux.
#![expect(unsafe_code, reason = "errno is a variable of C")]

use portolan_stack::CloseReason;

/// A number of errno.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    /// Makes it the errno of this thread.
    pub(crate) fn set(self) {
        // SAFETY: the function gives the address of the calling thread's errno, which is always valid.
        unsafe { *libc::__errno_location() = self.0 }
    }
}

/// What a program gets of a connection that ended so; `None` if it ended well.
pub(crate) fn of_close(reason: CloseReason, peer_had_finished: bool) -> Option<Errno> {
    let number = match reason {
        CloseReason::Finished | CloseReason::Aborted => return None,
        CloseReason::Refused => libc::ECONNREFUSED,
        // tcp_reset(): whoever was only sending has a broken pipe.
        CloseReason::Reset if peer_had_finished => libc::EPIPE,
        CloseReason::Reset => libc::ECONNRESET,
        CloseReason::TimedOut => libc::ETIMEDOUT,
        CloseReason::Unreachable(error) => match error.errno_name() {
            "ENETUNREACH" => libc::ENETUNREACH,
            "EHOSTUNREACH" => libc::EHOSTUNREACH,
            "ECONNREFUSED" => libc::ECONNREFUSED,
            "EACCES" => libc::EACCES,
            "EOPNOTSUPP" => libc::EOPNOTSUPP,
            "ENOPROTOOPT" => libc::ENOPROTOOPT,
            "EHOSTDOWN" => libc::EHOSTDOWN,
            "ENONET" => libc::ENONET,
            "EMSGSIZE" => libc::EMSGSIZE,
            _ => libc::EPROTO,
        },
        _ => libc::EIO,
    };
    Some(Errno(number))
}
