//! Ports: what they are called, who may hold one, and whose a packet is.
//!
//! This crate is the engine of Portolan. It never does I/O, reads no clock and starts no thread: time,
//! randomness and the contents of files are arguments. It builds on any platform.

mod escape;
mod port;
mod protocol;
pub mod registry;
pub mod wire;

pub use escape::{Escaped, is_printable, json_text};
pub use port::{Port, PortClass, PortRange};
pub use protocol::Protocol;
