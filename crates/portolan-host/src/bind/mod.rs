//! Would a bind succeed on this host now? The port table of `portolan-core`, loaded with the host.
//!
//! ```text
//!   BindQuestion ─▶ Snapshot::take ─▶ facts (addresses, devices, sysctls of the port space)
//!                        │                │
//!                        ▼                ▼
//!                options (pidfd_getfd) ─▶ load ─▶ PortTable::explain_bind ─▶ BindExplanation
//! ```
//!
//! Nothing is bound to find out, and nothing on the host changes.

mod addresses;
mod explain;
mod facts;
mod load;
mod options;
mod privilege;

pub use explain::{
    BindExplanation, BindQuestion, BindVerdict, ExplainBindError, Helper, Obstacle, PlannedSocket, Sharing,
    Unsure, explain_bind,
};
pub use options::SocketOptions;
