//! Whether this process may bind privileged ports in the network namespace of this thread.

use std::fs;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustix::thread::{CapabilitySet, capabilities};

/// Whether CAP_NET_BIND_SERVICE counts here; `None` if that cannot be told.
///
/// A capability counts in the user namespace in which it is held and those below, and a network namespace belongs
/// to the user namespace in which it was made.
pub(super) fn may_bind_privileged(proc_root: &Path) -> Option<bool> {
    let effective = capabilities(None).ok()?.effective;
    if !effective.contains(CapabilitySet::NET_BIND_SERVICE) {
        return Some(false);
    }
    let link = fs::read_link(proc_root.join("self/ns/user")).ok()?;
    if link.as_os_str() == FIRST_USER_NAMESPACE {
        return Some(true);
    }
    if !effective.contains(CapabilitySet::NET_ADMIN) {
        return None;
    }
    // SO_RCVBUFFORCE asks for CAP_NET_ADMIN over the same namespace, and changes no more than a socket of ours.
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    match sockopt::set_socket_recv_buffer_size_force(&socket, 4096) {
        Ok(()) => Some(true),
        Err(Errno::PERM) => Some(false),
        Err(_) => None,
    }
}

/// PROC_USER_INIT_INO (include/linux/proc_ns.h).
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";
