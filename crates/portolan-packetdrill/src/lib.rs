//! A shared object through which packetdrill drives [`portolan_stack`]: `packetdrill --so_filename=…`.
//!
//! ```text
//!   script ─▶ packetdrill ─▶ socket calls ──▶ callbacks ─▶ Harness ─▶ World ─▶ Stack
//!                        ─▶ netdev_send ───▶                          │ clock, sockets, epoll
//!                        ◀─ netdev_receive ◀──────────────────────────┘
//! ```
//!
//! Time is virtual: it moves when packetdrill waits, and by a microsecond whenever it asks for it. docs/conformance.md says
//! how to run it.

mod abi;
mod call;
mod callbacks;
mod control;
mod epoll;
mod errno;
mod flags;
mod harness;
mod info;
mod memory;
mod options;
mod settings;
mod sockets;
mod transfer;
mod world;

pub use abi::Interface;
pub use callbacks::packetdrill_interface_init;
