//! The transport layer of a Linux host, read from outside: its sockets, who holds them, and the network
//! namespaces they live in.
//!
//! The crate asks the kernel and translates the answers; it never prints, and it changes nothing on the
//! host except where a call says so in its name.

mod cgroup;
mod holders;
mod owner;
mod proc_root;
mod process;
mod query;
pub mod select;
mod snapshot;
mod socket;
mod space;
mod user;

pub use holders::{HoldersError, Holding, Holdings, HoldingsRequest, find_holders};
pub use owner::{ListenerRef, Owner, Ownerless, OwnerlessReason, Ownership};
pub use proc_root::{ProcRoot, ProcRootError};
pub use process::{Container, Process, ReadProcessError, StartTime};
pub use query::{ProtocolSet, Query, SpaceSelect, StateSet};
pub use snapshot::{Collector, Hidden, Snapshot};
pub use socket::{Family, Queues, Socket, SocketAddress, SocketProtocol, State, TcpInfo};
pub use space::{Space, SpaceId, SpaceName};
pub use user::Users;
