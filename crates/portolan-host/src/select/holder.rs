use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt as _;

use super::glob;
use crate::{Ownership, Process, Snapshot, Socket};

/// A condition on who holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Any of the following by this name.
    Named {
        name: String,
        uid: Option<u32>,
    },
    Process(String),
    User {
        name: String,
        uid: Option<u32>,
    },
    Unit(String),
    Container(String),
    Pid(i32),
}

/// The kernel keeps no more bytes of a process's name (TASK_COMM_LEN, less the zero at its end).
const COMM_MAX: usize = 15;
/// A container's id is recognised by this many of its first digits.
const CONTAINER_PREFIX_MIN: usize = 4;

impl Holder {
    /// The processes of a snapshot that satisfy the condition.
    pub(super) fn pids(&self, snapshot: &Snapshot) -> HashSet<i32> {
        snapshot
            .processes
            .values()
            .filter(|process| self.takes(process))
            .map(|process| process.pid)
            .collect()
    }

    /// Whether the socket is held by one of `pids`, or, for a user, was made by that user while no holder
    /// can be seen.
    pub(super) fn holds(&self, pids: &HashSet<i32>, socket: &Socket, ownership: Option<&Ownership>) -> bool {
        match ownership {
            Some(Ownership::Held(owners)) => owners.iter().any(|owner| pids.contains(&owner.pid)),
            Some(Ownership::Nobody(_)) | None => match self {
                Self::User { uid, .. } | Self::Named { uid, .. } => uid.is_some() && *uid == socket.uid,
                Self::Process(_) | Self::Unit(_) | Self::Container(_) | Self::Pid(_) => false,
            },
        }
    }

    fn takes(&self, process: &Process) -> bool {
        match self {
            Self::Named { name, uid } => {
                is_called(process, name)
                    || is_user(process, name, *uid)
                    || is_unit(process, name)
                    || is_in_container(process, name)
            }
            Self::Process(name) => is_called(process, name),
            Self::User { name, uid } => is_user(process, name, *uid),
            Self::Unit(name) => is_unit(process, name),
            Self::Container(name) => is_in_container(process, name),
            Self::Pid(pid) => process.pid == *pid,
        }
    }
}

/// By the kernel's name for it or by the name of its program file.
fn is_called(process: &Process, name: &str) -> bool {
    let comm = process.name.as_bytes();
    let exe = process.exe.as_ref().and_then(|exe| exe.file_name());
    fits(name, comm)
        || exe.is_some_and(|exe| fits(name, exe.as_bytes()))
        // Whoever writes the whole of a long name means the process whose name the kernel cut.
        || (comm.len() == COMM_MAX && name.len() > COMM_MAX && name.as_bytes().starts_with(comm))
}

fn is_user(process: &Process, name: &str, uid: Option<u32>) -> bool {
    process
        .user
        .as_ref()
        .is_some_and(|user| fits(name, user.as_bytes()))
        || uid == Some(process.uid)
}

/// By the whole name of the unit, or without its `.service`.
fn is_unit(process: &Process, name: &str) -> bool {
    process.unit.as_ref().is_some_and(|unit| {
        let short = unit.strip_suffix(".service").unwrap_or(unit);
        fits(name, unit.as_bytes()) || fits(name, short.as_bytes())
    })
}

/// By the first digits of its id, or by the engine's name.
fn is_in_container(process: &Process, name: &str) -> bool {
    process.container.as_ref().is_some_and(|container| {
        (name.len() >= CONTAINER_PREFIX_MIN && container.id.starts_with(name)) || container.engine == name
    })
}

fn fits(pattern: &str, text: &[u8]) -> bool {
    pattern.as_bytes() == text || (glob::is_pattern(pattern) && glob::fits(pattern.as_bytes(), text, false))
}
