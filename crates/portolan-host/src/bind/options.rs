//! The options of a socket that another process holds.
//!
//! The kernel lists sockets without SO_REUSEADDR and SO_REUSEPORT. Whoever may trace the holder can duplicate its
//! descriptor (pidfd_getfd(2)) and ask the socket itself.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::{Owner, Ownership, Snapshot};

/// The options that decide who may share a port with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketOptions {
    /// `SO_REUSEADDR`.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// `IPV6_V6ONLY`, which of a connection the kernel does not list either; `None` for IPv4.
    pub v6_only: Option<bool>,
}

/// Reads options, and keeps hold of the processes it asked.
#[derive(Debug, Default)]
pub(super) struct OptionReader {
    processes: HashMap<i32, Option<OwnedFd>>,
    read: usize,
}

impl OptionReader {
    /// The options of the socket at `index`, if some holder of it can be asked.
    pub(super) fn read(&mut self, snapshot: &Snapshot, index: usize) -> Option<SocketOptions> {
        let inode = snapshot.sockets[index].inode;
        let owners = match snapshot.ownership.get(index)? {
            Ownership::Held(owners) => owners,
            // In TIME-WAIT, in an accept queue, orphaned, or of somebody we may not see: no descriptor leads there.
            Ownership::Nobody(_) => return None,
        };
        if self.read >= MOST_READ {
            return None;
        }
        self.read += 1;
        owners.iter().find_map(|owner| self.ask(owner, inode))
    }

    fn ask(&mut self, owner: &Owner, inode: u64) -> Option<SocketOptions> {
        let process = self
            .processes
            .entry(owner.pid)
            .or_insert_with(|| pidfd_open(Pid::from_raw(owner.pid)?, PidfdFlags::empty()).ok())
            .as_ref()?;
        owner
            .fds
            .iter()
            .find_map(|&fd| options_of(process, fd, inode).ok().flatten())
    }
}

/// The options of descriptor `fd` of a process, if it is still the socket with this inode.
fn options_of(process: &OwnedFd, fd: i32, inode: u64) -> Result<Option<SocketOptions>, Errno> {
    let socket = pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?;
    if rustix::fs::fstat(&socket)?.st_ino != inode {
        return Ok(None);
    }
    Ok(Some(SocketOptions {
        reuse_address: sockopt::socket_reuseaddr(&socket)?,
        reuse_port: sockopt::socket_reuseport(&socket)?,
        v6_only: sockopt::ipv6_v6only(&socket).ok(),
    }))
}

/// More sockets than this are not asked: a port with a million connections would take seconds.
const MOST_READ: usize = 50_000;
