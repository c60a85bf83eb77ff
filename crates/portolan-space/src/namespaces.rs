//! Leaving the namespaces of the caller.

use std::fs::File;
use std::os::fd::AsFd as _;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, PidfdFlags, getegid, pidfd_open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space,
    move_into_thread_name_spaces,
};

use crate::config::Network;
use crate::error::Step;
use crate::sys;

/// What a space can do without, and what was said when it was asked for.
pub(crate) type Notes = Vec<(Step, Errno)>;

/// Joins the network namespace that is wanted, with the rights over it, if it is one that there is; of a space all
/// namespaces. `true` if that took another user namespace than the caller's.
pub(crate) fn join(network: &Network) -> Result<bool, Errno> {
    match network {
        Network::New => Ok(false),
        Network::Path(path) => {
            let namespace = File::open(path).map_err(errno)?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(false)
        }
        Network::Process(pid) => {
            let process = process(*pid)?;
            // Whoever owns the user namespace has all rights in it, over the network namespace too.
            let is_other = other_user_namespace(*pid)?;
            if is_other {
                move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::USER)?;
            }
            move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::NETWORK)?;
            Ok(is_other)
        }
        Network::Space(membership) => membership.enter().map(|()| true),
    }
}

/// Leaves the namespaces that a space can do without leaving: processes, mounts, host names, IPC. Gives what was
/// refused.
pub(crate) fn leave_the_rest(pid_namespace: bool) -> Notes {
    let mut notes = Notes::new();
    let mut leave = |flag, step| {
        let left = sys::unshare(flag);
        if let Err(error) = left {
            notes.push((step, error));
        }
        left.is_ok()
    };
    leave(UnshareFlags::NEWUTS, Step::UtsNamespace);
    leave(UnshareFlags::NEWIPC, Step::IpcNamespace);
    if pid_namespace {
        leave(UnshareFlags::NEWPID, Step::PidNamespace);
    }
    if leave(UnshareFlags::NEWNS, Step::MountNamespace) {
        // What is mounted outside later is seen inside; what is mounted inside is not seen outside.
        let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        if let Err(error) = mount_change("/", flags) {
            notes.push((Step::MountNamespace, error));
        }
    }
    notes
}

/// Lets every program of the network namespace bind every port and send echo requests: whoever is in it, it is theirs.
pub(crate) fn open_ports() -> Notes {
    let group = getegid().as_raw();
    let settings = [
        (
            Step::LowPorts,
            "/proc/sys/net/ipv4/ip_unprivileged_port_start",
            "0".to_owned(),
        ),
        (
            Step::PingRange,
            "/proc/sys/net/ipv4/ping_group_range",
            format!("{group} {group}"),
        ),
    ];
    let refused = settings.into_iter().filter_map(|(step, path, value)| {
        let error = std::fs::write(path, value).err()?;
        Some((step, errno(error)))
    });
    refused.collect()
}

fn process(pid: i32) -> Result<std::os::fd::OwnedFd, Errno> {
    let pid = Pid::from_raw(pid.max(0)).ok_or(Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}

/// Whether the process is in another user namespace than we. To join one's own is refused.
fn other_user_namespace(pid: i32) -> Result<bool, Errno> {
    let inode = |path: String| rustix::fs::statat(CWD, path, rustix::fs::AtFlags::empty());
    let theirs = inode(format!("/proc/{pid}/ns/user"))?;
    let ours = inode("/proc/self/ns/user".to_owned())?;
    Ok((theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino))
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
