//! The engine's errors as `std` knows them.

use std::io::{self, Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use portolan_core::table::{BindError, Errno, ScopeError, StateError};
use portolan_stack::{
    CloseReason, ConnectError, ListenError, PathError, ReadError, ReceiveError, SendError, WriteError,
};

pub(crate) fn closed(reason: CloseReason) -> Error {
    let kind = match reason {
        CloseReason::Finished => ErrorKind::BrokenPipe,
        CloseReason::Refused => ErrorKind::ConnectionRefused,
        CloseReason::Reset => ErrorKind::ConnectionReset,
        CloseReason::TimedOut => ErrorKind::TimedOut,
        CloseReason::Aborted => ErrorKind::ConnectionAborted,
        CloseReason::Unreachable(error) => path(error),
        _ => ErrorKind::Other,
    };
    Error::new(kind, reason)
}

/// `None` if it is only too early.
pub(crate) fn read(error: ReadError) -> Option<Error> {
    match error {
        ReadError::WouldBlock => None,
        ReadError::Closed(reason) => Some(closed(reason)),
        other => Some(Error::new(ErrorKind::NotConnected, other)),
    }
}

/// `None` if it is only too early.
pub(crate) fn write(error: WriteError) -> Option<Error> {
    match error {
        WriteError::WouldBlock => None,
        WriteError::Finished => Some(Error::new(ErrorKind::BrokenPipe, error)),
        WriteError::Closed(reason) => Some(closed(reason)),
        other => Some(Error::new(ErrorKind::NotConnected, other)),
    }
}

/// `None` if there is no room yet.
pub(crate) fn send(error: SendError) -> Option<Error> {
    let kind = match error {
        SendError::WouldBlock => return None,
        SendError::TooLong { .. } | SendError::WrongSource { .. } | SendError::NoPort { .. } => {
            ErrorKind::InvalidInput
        }
        SendError::Broadcast { .. } => ErrorKind::PermissionDenied,
        SendError::Path(error) => path(error),
        SendError::NotConnected | SendError::NoSocket => ErrorKind::NotConnected,
        _ => ErrorKind::Other,
    };
    Some(Error::new(kind, error))
}

/// What became of something that does not wait for room.
pub(crate) fn sent(result: Result<(), SendError>) -> io::Result<()> {
    result.map_err(|error| send(error).unwrap_or_else(|| ErrorKind::WouldBlock.into()))
}

pub(crate) fn receive(error: ReceiveError) -> Error {
    let kind = match error {
        ReceiveError::Path(error) => path(error),
        ReceiveError::NoSocket => ErrorKind::NotConnected,
        _ => ErrorKind::Other,
    };
    Error::new(kind, error)
}

/// The kind that `std` gives to Linux's number for an ICMP error.
fn path(error: PathError) -> ErrorKind {
    match error.errno_name() {
        "ECONNREFUSED" => ErrorKind::ConnectionRefused,
        "ENETUNREACH" => ErrorKind::NetworkUnreachable,
        "EHOSTUNREACH" => ErrorKind::HostUnreachable,
        "EACCES" | "EPERM" => ErrorKind::PermissionDenied,
        _ => ErrorKind::Other,
    }
}

pub(crate) fn bind(error: BindError) -> Error {
    Error::new(kind(error.errno()), error)
}

pub(crate) fn scope(error: ScopeError) -> Error {
    Error::new(kind(error.errno()), error)
}

pub(crate) fn listen(error: ListenError) -> Error {
    match error {
        ListenError::Bind(error) => bind(error),
        ListenError::Listen(error) => Error::new(kind(error.errno()), error),
        ListenError::Scope(error) => scope(error),
        other => Error::other(other),
    }
}

/// A connection to `remote` was not begun.
pub(crate) fn connect(remote: SocketAddr, error: ConnectError) -> Error {
    let kind = match &error {
        ConnectError::Bind(error) => kind(error.errno()),
        ConnectError::Connect(error) => kind(error.errno()),
        ConnectError::NoSource { .. } => ErrorKind::NetworkUnreachable,
        _ => ErrorKind::Other,
    };
    to(remote, Error::new(kind, error))
}

/// The stack has no address to reach `remote` from.
pub(crate) fn no_source(remote: SocketAddr) -> Error {
    to(
        remote,
        Error::new(ErrorKind::NetworkUnreachable, NoSource(remote.ip())),
    )
}

/// A socket of one family cannot reach the other.
pub(crate) fn family(local: SocketAddr, remote: SocketAddr) -> Error {
    to(
        remote,
        Error::new(ErrorKind::InvalidInput, WrongFamily { local, remote }),
    )
}

/// Says whom an error is about.
pub(crate) fn to(remote: SocketAddr, cause: Error) -> Error {
    Error::new(cause.kind(), Unreached { remote, cause })
}

pub(crate) fn state(error: StateError) -> Error {
    Error::new(kind(error.errno()), error)
}

/// A peer was not reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach {remote}: {cause}")]
struct Unreached {
    remote: SocketAddr,
    #[source]
    cause: Error,
}

#[derive(Debug, thiserror::Error)]
#[error("network unreachable: the stack has no {} address; give it one", version(.0))]
struct NoSource(IpAddr);

#[derive(Debug, thiserror::Error)]
#[error("{remote} is {}, and {local}, which it is to come from, {}", version(&.remote.ip()), version(&.local.ip()))]
struct WrongFamily {
    local: SocketAddr,
    remote: SocketAddr,
}

const fn version(address: &IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

/// The kind that `std` gives to an error of Linux.
const fn kind(errno: Errno) -> ErrorKind {
    match errno {
        Errno::EACCES | Errno::EPERM => ErrorKind::PermissionDenied,
        Errno::EADDRINUSE => ErrorKind::AddrInUse,
        Errno::EADDRNOTAVAIL => ErrorKind::AddrNotAvailable,
        Errno::EAGAIN => ErrorKind::WouldBlock,
        Errno::ECONNREFUSED => ErrorKind::ConnectionRefused,
        Errno::ENETUNREACH => ErrorKind::NetworkUnreachable,
        Errno::ENOTCONN => ErrorKind::NotConnected,
        Errno::EAFNOSUPPORT
        | Errno::EBADF
        | Errno::EINVAL
        | Errno::EISCONN
        | Errno::ENODEV
        | Errno::ENOPROTOOPT
        | Errno::EOPNOTSUPP => ErrorKind::InvalidInput,
        _ => ErrorKind::Other,
    }
}
