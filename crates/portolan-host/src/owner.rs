use portolan_core::Port;
use smallvec::SmallVec;

/// Who holds a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// At least one process, each named once.
    Held(SmallVec<[Owner; 1]>),
    /// No process that could be seen, and why.
    Nobody(Ownerless),
}

/// A process that holds a socket, and through which descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process, a key of [`Snapshot::processes`](crate::Snapshot).
    pub pid: i32,
    /// Its descriptors that lead to the socket, rising.
    pub fds: SmallVec<[i32; 4]>,
}

/// Why no process holds a socket, as far as can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownerless {
    /// The kind of reason.
    pub reason: OwnerlessReason,
    /// For a connection in an accept queue: the listener whose queue it is, or the group of them.
    pub listener: Option<ListenerRef>,
}

/// The listener in whose accept queue a connection waits, or a SO_REUSEPORT group of them, any of which may be it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerRef {
    /// Its port.
    pub port: Port,
    /// Its inode; `None` for a group.
    pub inode: Option<u64>,
    /// A process that holds it, if one was seen; `None` for a group.
    pub pid: Option<i32>,
    /// How many listeners it may be: 1 if it is known.
    pub candidates: usize,
}

/// The kinds of reason why a socket has no owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum OwnerlessReason {
    /// The connection is over; the kernel keeps its four-tuple from being used again for a minute.
    TimeWait,
    /// The program closed it; the kernel finishes sending what it had written.
    Orphan,
    /// The handshake is not finished; only the kernel knows of it yet.
    SynReceived,
    /// Connected, and not yet accepted by the program that listens.
    AcceptQueue,
    /// It belongs to a process of another user, which we may not look into.
    OtherUser,
    /// Its holder lives outside our PID namespace.
    OtherPidNamespace,
    /// The kernel itself uses it (or a process that passed it on and keeps no descriptor).
    Kernel,
    /// It was closed while we looked.
    Vanished,
}

impl OwnerlessReason {
    /// The name in lower case with hyphens, as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TimeWait => "time-wait",
            Self::Orphan => "orphan",
            Self::SynReceived => "syn-received",
            Self::AcceptQueue => "accept-queue",
            Self::OtherUser => "other-user",
            Self::OtherPidNamespace => "other-pid-namespace",
            Self::Kernel => "kernel",
            Self::Vanished => "vanished",
        }
    }
}
