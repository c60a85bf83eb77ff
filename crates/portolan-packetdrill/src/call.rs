//! Calls that may have to wait, and what they come to.

use std::net::SocketAddr;

use portolan_stack::Instant;

use crate::errno::Errno;

/// A call, with what is needed to try it again.
#[derive(Debug)]
pub(crate) enum Call {
    Accept {
        fd: i32,
        flags: i32,
    },
    Connect {
        fd: i32,
        remote: SocketAddr,
        begun: bool,
    },
    Read {
        fd: i32,
        len: usize,
        flags: i32,
        /// Whether the buffer that is to take the bytes is none.
        faulty: bool,
        /// What came so far for MSG_WAITALL.
        got: Vec<u8>,
    },
    Write {
        fd: i32,
        bytes: Vec<u8>,
        flags: i32,
        /// How many bytes were taken.
        done: usize,
    },
    /// A close that lingers until everything is acknowledged, or until the deadline.
    Close {
        id: portolan_stack::ConnectionId,
        deadline: Instant,
    },
    Poll {
        fds: Vec<(i32, i16)>,
        deadline: Option<Instant>,
    },
    EpollWait {
        fd: i32,
        most: usize,
        deadline: Option<Instant>,
    },
}

/// What a call came to.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A number.
    Count(usize),
    /// A new descriptor, its peer, and whether it is a socket of IPv6.
    Accepted(i32, SocketAddr, bool),
    /// Bytes, and how many more wait.
    Bytes(Vec<u8>, Option<i32>),
    /// What each descriptor is ready for.
    Polled(Vec<i16>),
    /// What epoll tells, with the data that it was given.
    Events(Vec<(u32, u64)>),
}

/// `None` while the call has to wait.
pub(crate) type Attempt = Option<Result<Outcome, Errno>>;

impl Call {
    /// The time at which it comes to an end in any case.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Close { deadline, .. } => Some(*deadline),
            Self::Poll { deadline, .. } | Self::EpollWait { deadline, .. } => *deadline,
            Self::Accept { .. } | Self::Connect { .. } | Self::Read { .. } | Self::Write { .. } => None,
        }
    }
}
