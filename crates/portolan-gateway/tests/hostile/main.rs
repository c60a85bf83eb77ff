//! A program that means harm and is root in its space: whatever it writes into the device, the gateway neither panics nor
//! grows, tells no byte that it was not told, reaches nothing that the policy denies, and serves who is beside it.
//!
//! The gateway is whole (stack, ways out, ports in, names, policy); only the device is a socket pair, so that any bytes can
//! stand in it, those included that no kernel would pass on.
#![cfg(target_os = "linux")]

mod attack;
#[path = "../outbound/support/counting.rs"]
mod counting;
mod flood;
mod named;
#[path = "../outbound/support/namespace.rs"]
mod namespace;
mod neighbour;
mod packets;
mod record;
mod resolver;
mod siege;
mod watch;
mod world;
