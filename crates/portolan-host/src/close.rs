use std::thread;

use rustix::io::Errno;

use crate::netlink::DumpError;
use crate::sock_diag;
use crate::spaces::{self, SpaceError};
use crate::{Socket, SocketProtocol, Sources, Space, SpaceName, SpaceSelect};

/// Why a socket could not be closed from outside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DestroyError {
    /// Only TCP and UDP sockets can be closed so, and only where the kernel was built for it.
    #[error(
        "the kernel cannot close this {0} socket from outside (CONFIG_INET_DIAG_DESTROY); end its process instead"
    )]
    NotSupported(SocketProtocol),
    /// We lack the right.
    #[error("closing another program's socket takes CAP_NET_ADMIN in its network namespace; use sudo")]
    NotPermitted,
    /// It is closed already, or its addresses belong to another socket by now.
    #[error("the socket is gone already")]
    Gone,
    /// Its network namespace cannot be entered.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// The kernel failed otherwise.
    #[error("the kernel did not close the socket: {0}")]
    Failed(String),
}

/// Makes the kernel abort `socket`, one read from `space` (SOCK_DESTROY). Its program gets ECONNABORTED from its
/// next call, the peer of a TCP connection a reset.
///
/// The kernel compares its own number for the socket (the cookie), so that no other socket is closed by mistake.
///
/// # Errors
/// See [`DestroyError`].
pub fn destroy_socket(socket: &Socket, space: &Space, sources: &Sources) -> Result<(), DestroyError> {
    // Without a cookie the kernel would take whichever socket has the addresses by now.
    if socket.cookie == 0 || !matches!(socket.protocol, SocketProtocol::Tcp | SocketProtocol::Udp) {
        return Err(DestroyError::NotSupported(socket.protocol));
    }
    let destroyed = if space.name == SpaceName::Host {
        sock_diag::destroy(socket)
    } else {
        destroy_in(socket, space, sources)?
    };
    destroyed.map_err(|error| match error {
        DumpError::Refused(Errno::OPNOTSUPP | Errno::INVAL) => DestroyError::NotSupported(socket.protocol),
        DumpError::Refused(Errno::PERM | Errno::ACCESS) | DumpError::Socket(Errno::PERM | Errno::ACCESS) => {
            DestroyError::NotPermitted
        }
        DumpError::Refused(Errno::NOENT) => DestroyError::Gone,
        DumpError::Refused(_) | DumpError::Socket(_) | DumpError::Damaged => {
            DestroyError::Failed(error.to_string())
        }
    })
}

/// The same from a thread of its own that goes into the namespace.
fn destroy_in(
    socket: &Socket,
    space: &Space,
    sources: &Sources,
) -> Result<Result<(), DumpError>, DestroyError> {
    let root = &sources.proc_root;
    let candidates = spaces::select(root, &SpaceSelect::Inode(space.inode))?.candidates;
    let enter_and_destroy = || {
        for candidate in &candidates {
            spaces::enter(root, candidate).map_err(|error| SpaceError::NotPermitted {
                name: space.name.clone(),
                because: error.to_string(),
            })?;
        }
        Ok(sock_diag::destroy(socket))
    };
    thread::scope(
        |scope| match thread::Builder::new().spawn_scoped(scope, enter_and_destroy) {
            Ok(worker) => worker
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => Err(DestroyError::Failed(format!(
                "no thread to enter its namespace: {error}"
            ))),
        },
    )
}
