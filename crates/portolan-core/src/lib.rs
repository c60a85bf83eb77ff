//! Ports: what they are called, who may hold one, and whose a packet is.
//!
//! This crate is the engine of Portolan. It never does I/O, reads no clock and starts no thread: time,
//! randomness and the contents of files are arguments. It builds on any platform.

pub mod demux;
mod escape;
pub mod filter;
mod notation;
mod port;
mod port_set;
mod prefix_index;
mod protocol;
pub mod registry;
mod siphash;
pub mod table;
pub mod wire;

pub use escape::{Escaped, is_printable, json_text};
pub use notation::{
    Address, Automatic, Element, Endpoint, Exception, Host, HostName, Mapping, MappingProtocol, Notation,
    NotationError, NotationErrorKind, Publication, Scheme, ServiceNames, Url, Zone, scheme, takes_zone,
};
pub use port::{Port, PortClass, PortRange};
pub use port_set::PortSet;
pub use protocol::Protocol;
pub use siphash::SipKey;
