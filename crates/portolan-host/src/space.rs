use std::fmt;

/// The index of a [`Space`] in [`Snapshot::spaces`](crate::Snapshot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(pub u32);

/// A port space of this machine: a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// What it is called.
    pub name: SpaceName,
    /// The inode of the namespace (`net:[4026531840]`), which names it on this machine.
    pub inode: u64,
}

/// What a network namespace is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SpaceName {
    /// The one that this process runs in.
    Host,
    /// A name under /run/netns, as `ip netns` shows it.
    Mounted(String),
    /// No name but its inode.
    Anonymous(u64),
}

impl fmt::Display for SpaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.pad("host"),
            Self::Mounted(name) => f.pad(name),
            Self::Anonymous(inode) => write!(f, "net:[{inode}]"),
        }
    }
}
