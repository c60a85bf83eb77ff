//! What stands between a port space and the host: flows out and in, the policy that they obey, and names.
//!
//! ```text
//!   program ─▶ device ─▶ portolan_net::Stack ─▶ outbound ─▶ gate ─▶ sockets of the host ─▶ world
//!                              │   ▲── inbound ◀── published ports of the host
//!                │             ├▶ dns ─▶ gate ─▶ resolvers of the host
//!                │             └▶ links ─▶ gateways of other spaces
//!                └▶ capture
//! ```
//!
//! Every conversation is a flow with counters, listed by state, bytes and rule. This crate makes no port space, knows no
//! command line and prints nothing.
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

pub mod capture;
pub mod control;
pub mod dns;
pub mod flows;
pub mod gate;
mod gateway;
mod host_stream;
pub mod inbound;
pub mod links;
mod memory;
pub mod outbound;

pub use gateway::{Failure, Gateway, GatewayConfig};
