//! The network namespaces of the machine: finding them, choosing among them, going into them.

mod enter;
mod find;
mod links;
mod mounts;
mod select;

pub use select::SpaceError;

pub(crate) use enter::enter;
pub(crate) use find::Candidate;
pub use links::own_ephemeral_ports;
pub(crate) use links::{device_names, ephemeral_ports};
pub(crate) use select::select;
