//! The kernel's socket lists as text: /proc/PID/net/{tcp,udp,udplite,raw}{,6}, unix, sctp/{eps,assocs}.
//!
//! It is what there is where netlink is refused, where a protocol has no sock_diag module, and for namespaces
//! that may be looked at but not entered. The text leaves out what netlink tells: device, mark, cgroup,
//! cookie, a listener's backlog, and whether an IPv6 socket is closed to IPv4.

mod inet;
mod inventory;
mod lines;
mod sctp;
mod unix;

use std::io;
use std::path::Path;

pub(crate) use inventory::Inventory;

use crate::{Query, Socket, SocketProtocol, SpaceId};

/// Appends the sockets of `protocol` that `query` asks for, from the files in `net` (a `/proc/PID/net`).
///
/// `Ok(false)` means that the kernel has no such list.
pub(crate) fn list(
    net: &Path,
    protocol: SocketProtocol,
    query: &Query,
    space: SpaceId,
    sockets: &mut Vec<Socket>,
) -> io::Result<bool> {
    let take = |socket: Socket| {
        if query.admits(&socket) {
            sockets.push(socket);
        }
    };
    match protocol {
        SocketProtocol::Tcp | SocketProtocol::Udp | SocketProtocol::UdpLite | SocketProtocol::Raw => {
            inet::list(net, protocol, space, take)
        }
        SocketProtocol::Sctp => sctp::list(net, space, take),
        SocketProtocol::Unix => unix::list(net, space, take),
        SocketProtocol::Mptcp | SocketProtocol::Vsock => Ok(false),
    }
}
