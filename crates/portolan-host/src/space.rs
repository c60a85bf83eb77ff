use std::collections::BTreeMap;
use std::fmt;

use portolan_core::PortRange;

/// The index of a [`Space`] in [`Snapshot::spaces`](crate::Snapshot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(pub u32);

/// A port space of this machine: a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// What it is called.
    pub name: SpaceName,
    /// The inode of the namespace (`net:[4026531840]`), which names it on this machine; 0 where it is not told
    /// (another user's process).
    pub inode: u64,
    /// The names of its interfaces by index. Read only if a socket needs one: it is bound to a device.
    pub devices: BTreeMap<u32, String>,
    /// Where the kernel takes the ports that it chooses itself (`ip_local_port_range`), if it could be read.
    pub ephemeral_ports: Option<PortRange>,
}

impl Space {
    /// A namespace of which no more is known yet.
    #[must_use]
    pub const fn new(name: SpaceName, inode: u64) -> Self {
        Self {
            name,
            inode,
            devices: BTreeMap::new(),
            ephemeral_ports: None,
        }
    }

    /// The name of the interface with this index, the zone of an address and the device of a socket.
    #[must_use]
    pub fn device_name(&self, index: u32) -> Option<&str> {
        self.devices.get(&index).map(String::as_str)
    }
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
    /// Not even the inode is told: the one in which this process, another user's, lives.
    OfProcess(i32),
}

impl fmt::Display for SpaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.pad("host"),
            Self::Mounted(name) => f.pad(name),
            Self::Anonymous(inode) => write!(f, "net:[{inode}]"),
            Self::OfProcess(pid) => write!(f, "pid:{pid}"),
        }
    }
}
