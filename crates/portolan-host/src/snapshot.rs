use std::collections::HashMap;
use std::fmt;

use crate::{Ownership, PassedOver, Process, ProtocolSet, Socket, Space, SpaceId};

/// Where a published port leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedBy {
    /// The name of the port space.
    pub space: String,
    /// The inode of the socket that takes what comes, there; `None` if nobody does.
    pub inode: Option<u64>,
}

/// The sockets of a machine and who holds them, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The network namespaces that were read; [`SpaceId`] is the index.
    pub spaces: Vec<Space>,
    /// The sockets.
    pub sockets: Vec<Socket>,
    /// Who holds each socket: as long as `sockets`, in the same order; empty if owners were not asked for.
    pub ownership: Vec<Ownership>,
    /// The sockets, by their places, whose ports lead into another port space: those who hold them only pass on what comes.
    /// Whoever knows of such spaces fills it.
    pub published: HashMap<usize, PublishedBy>,
    /// Every process named as an owner, and its ancestors where they were asked for.
    pub processes: HashMap<i32, Process>,
    /// What could not be seen.
    pub hidden: Hidden,
    /// Protocols that were asked for, that this kernel has and whose sockets it does not list.
    pub unlisted: ProtocolSet,
    /// Protocols that were asked for and that the text files of /proc, read in the place of netlink, do not show.
    pub unseen_by_text: ProtocolSet,
    /// Where the sockets and the owners came from, in words for `-v`.
    pub collectors: Vec<Collector>,
    /// The better ways of finding owners that could not be used, and why.
    pub passed_over: Vec<PassedOver>,
    /// What went wrong and was survived: each one line for a person.
    pub warnings: Vec<String>,
}

impl Snapshot {
    /// The namespace with this index.
    ///
    /// # Panics
    /// If the index is not one of this snapshot's.
    #[must_use]
    pub fn space(&self, id: SpaceId) -> &Space {
        &self.spaces[id.0 as usize]
    }
}

/// What a snapshot knows of and could not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Sockets whose owner could not be read.
    pub owners: usize,
    /// Network namespaces known of but not read.
    pub spaces: usize,
    /// What would show them.
    pub remedy: Option<String>,
}

/// A way of finding sockets or their owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Collector {
    /// Sockets by sock_diag netlink.
    SockDiag,
    /// Sockets by the text files of /proc/net.
    ProcNet,
    /// Owners by a BPF iterator over the descriptors of every task.
    BpfTaskFile,
    /// Owners by /proc/PID/fd of the processes in the sockets' cgroups.
    ProcByCgroup,
    /// Owners by /proc/PID/fd of every process.
    ProcEvery,
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SockDiag => "sock_diag netlink",
            Self::ProcNet => "/proc/net text",
            Self::BpfTaskFile => "BPF task_file iterator",
            Self::ProcByCgroup => "/proc/PID/fd of the sockets' cgroups",
            Self::ProcEvery => "/proc/PID/fd of every process",
        })
    }
}
