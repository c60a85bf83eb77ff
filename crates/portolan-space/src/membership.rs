//! The namespaces of a running space, held by descriptors, and the way into them.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::fs::fstat;
use rustix::io::{Errno, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What it takes to join a space: its namespaces, each by a descriptor. Clones are the same.
///
/// Its first process opens them. Others, though of the same user, may not: nobody may look into that process, and the
/// program may have left them or made itself unreadable.
#[derive(Clone, Debug)]
pub struct Membership {
    /// In the order of [`KINDS`].
    namespaces: Arc<[OwnedFd]>,
}

/// The namespaces of a space. That of users comes last: see [`Membership::enter`].
const KINDS: [(LinkNameSpaceType, &str); 6] = [
    (LinkNameSpaceType::Network, "net"),
    (LinkNameSpaceType::Mount, "mnt"),
    (LinkNameSpaceType::HostNameAndNISDomainName, "uts"),
    (LinkNameSpaceType::InterProcessCommunication, "ipc"),
    (LinkNameSpaceType::ProcessID, "pid"),
    (LinkNameSpaceType::User, "user"),
];

impl Membership {
    /// That of descriptors which [`Membership::descriptors`] gave, in their order, and which may have come from another
    /// process.
    ///
    /// # Errors
    /// If they are more or less than that.
    pub fn from_descriptors(descriptors: Vec<OwnedFd>) -> Result<Self> {
        if descriptors.len() != KINDS.len() {
            return Err(Errno::INVAL);
        }
        Ok(Self {
            namespaces: descriptors.into(),
        })
    }

    /// The descriptors, to be handed to a process that is to join. Whoever holds them keeps the namespaces, though nobody
    /// is in them any more.
    #[must_use]
    pub const fn descriptors(&self) -> &Arc<[OwnedFd]> {
        &self.namespaces
    }

    /// Those of this process.
    pub(crate) fn here() -> Result<Self> {
        let open = |(_, name): &(_, &str)| open_own(name);
        let namespaces = KINDS.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { namespaces })
    }

    /// Moves this process, which must have a single thread, into all of them that it is not in. Of its children those are
    /// in the PID namespace that come from now on.
    pub(crate) fn enter(&self) -> Result<()> {
        // Looked up before the first step: afterwards /proc is another's.
        let mut left = Vec::with_capacity(KINDS.len());
        for (namespace, (kind, name)) in self.namespaces.iter().zip(KINDS) {
            let (theirs, ours) = (fstat(namespace)?, fstat(open_own(name)?)?);
            if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino) {
                left.push((namespace, kind));
            }
        }
        // Who made the user namespace has all rights in it, and gets them by joining it. But over a network namespace
        // that was there before, the rights are those outside. So: what can be joined now, users, the rest.
        left.retain(|(namespace, kind)| *kind == LinkNameSpaceType::User || join(namespace, *kind).is_err());
        if let Some(at) = left.iter().position(|(_, kind)| *kind == LinkNameSpaceType::User) {
            let (namespace, kind) = left.remove(at);
            join(namespace, kind)?;
        }
        left.into_iter()
            .try_for_each(|(namespace, kind)| join(namespace, kind))
    }
}

fn join(namespace: &OwnedFd, kind: LinkNameSpaceType) -> Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(kind))
}

fn open_own(name: &str) -> Result<OwnedFd> {
    let file = File::open(format!("/proc/self/ns/{name}"));
    file.map(OwnedFd::from)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
