//! Bytes and datagrams between two ends, so that each end sees what it would see without us in between.
//!
//! ```text
//!   one ─▶ End::read_chunk ─▶ End::write_chunk ─▶ other      relay: any two ends, chunks passed on by reference
//!   one ─▶ splice ─▶ pipe ─▶ splice ─────────────▶ other     splice: two sockets of the system, nothing copied
//!       ◀─                                       ◀─          both ways at once
//! ```
//!
//! A half-close on one side becomes one on the other, a reset a reset; if the relay is dropped, or its process killed, who
//! was not told the end sees a reset as well. Nothing is read before what was read is
//! written, so a slow reader slows its writer, and a connection holds one chunk in each direction at most.
//! [`Relays`] bounds how many there are, and drains them; [`sessions`](UdpRelay) do the same for datagrams.
//!
//! This crate opens no connections, listens nowhere and prints nothing.
#![forbid(unsafe_code)]

mod copy;
mod end;
mod flow;
#[cfg(target_os = "linux")]
mod pipes;
mod relays;
#[cfg(target_os = "linux")]
mod splice;
mod udp;

pub use copy::relay;
pub use end::{Chunk, Disturbance, End};
pub use flow::{Counters, Ending, Options, Side};
#[cfg(target_os = "linux")]
pub use pipes::PipePool;
pub use relays::{Permit, Relays};
#[cfg(target_os = "linux")]
pub use splice::splice;
pub use udp::{DatagramEnd, FixedDestination, UdpCounters, UdpOptions, UdpRelay};
