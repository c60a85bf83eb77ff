//! The transport layer of a Linux host, read from outside: its sockets, who holds them, and the network
//! namespaces they live in.
//!
//! The crate asks the kernel and translates the answers; it never prints, and it changes nothing on the
//! host except where a call says so in its name.

mod attribution;
mod bind;
mod bpf;
mod cgroup;
mod close;
mod container_name;
mod finder;
mod holders;
mod kernel_state;
mod listen_fds;
mod lister;
mod mptcp;
mod netlink;
mod owner;
mod pick;
mod port_use;
mod proc_net;
mod proc_root;
mod process;
mod query;
mod reach;
mod read;
pub mod select;
mod signal;
mod snapshot;
mod sock_diag;
mod socket;
mod space;
mod spaces;
mod take;
mod user;

pub use bind::{
    BindExplanation, BindQuestion, BindVerdict, ExplainBindError, Helper, Obstacle, PlannedSocket, Sharing,
    SocketOptions, Unsure, explain_bind,
};
pub use close::{DestroyError, destroy_socket};
pub use finder::SocketFinder;
pub use holders::{HoldersError, Holding, Holdings, HoldingsRequest, InodeSet, PassedOver, find_holders};
pub use listen_fds::{LISTEN_FDS_START, exec_with_sockets};
pub use lister::SocketLister;
pub use owner::{ListenerRef, Owner, Ownerless, OwnerlessReason, Ownership};
pub use pick::{PickError, PickRequest, PickedPort, pick_ports, start_listening};
pub use port_use::{PortHolder, PortUse};
pub use proc_root::{ProcRoot, ProcRootError};
pub use process::{Container, HandleError, Process, ProcessHandle, ReadProcessError, StartTime};
pub use query::{ProtocolSet, Query, SpaceSelect, StateSet};
pub use reach::{BindReach, BindScope};
pub use read::{SocketRead, Sources, read_inodes, read_sockets};
pub use signal::{ParseSignalError, Signal};
pub use snapshot::{Collector, Hidden, PublishedBy, Snapshot};
pub use socket::{Family, Queues, Socket, SocketAddress, SocketProtocol, State, TcpInfo};
pub use space::{Space, SpaceId, SpaceName};
pub use spaces::{SpaceError, own_ephemeral_ports};
pub use user::{Users, user_id};
