//! Port spaces on Linux: a program in namespaces of its own, made without privilege, whose only way out is a network
//! device that the maker holds.
//!
//! ```text
//!   maker (outside)                 builder                          init (PID 1 inside)        program
//!   Space::start ─ fork ──────────▶ unshare(user)
//!     id_map ◀───── need maps ─────┤
//!                   maps written ─▶ unshare(net, mount, …)
//!                                   loopback, sysctls, device
//!     Device ◀───── descriptors ───┤ clone(sibling) ──────────────▶ files, /proc
//!     Space  ◀────────────────────────────────────────────── ready ┤
//!   Space::go ────────────────────────────────────────────────── ▶ fork ───────────────────▶ exec
//!   Space::wait ◀─────────────────────────────────────────── exited ┤ reaps, passes signals on
//! ```
//!
//! The maker keeps one end of a socket to init: when either is gone, so is everything in the space. The packets of the
//! device are for whoever holds its [`Device`]: a stack of `portolan-net`, say.
//!
//! This crate moves no packets, and prints nothing. [`sandbox`] is for the maker itself, which reads what a program that
//! may be hostile writes.
#![cfg(target_os = "linux")]

mod capabilities;
mod channel;
mod config;
mod device;
mod error;
mod facts;
mod helper;
mod holder;
mod id_map;
mod init;
mod keeper;
mod membership;
mod namespaces;
mod netlink;
mod routes;
pub mod sandbox;
mod setup;
mod shortcut;
mod signals;
mod sockets;
mod space;
mod subnets;
mod sys;

pub use capabilities::{Capabilities, UnknownCapability};
pub use config::{Identity, Network, Program, ShownFile, SpaceConfig};
pub use device::{DEVICE_NAME, Device, DeviceKind, INSIDE_MAC, OUTSIDE_MAC};
pub use error::{Obstacle, SpaceError, Step};
pub use facts::Facts;
pub use helper::Helper;
pub use holder::Holder;
pub use keeper::{Arrival, Errands, Keeper};
pub use membership::Membership;
pub use routes::{AddressWatch, host_addresses, host_routes};
pub use signals::{Received as ReceivedSignal, Signals};
pub use sockets::Sockets;
pub use space::{Ended, Event, Space};
pub use subnets::{NoFreeSubnet, Subnet, Subnets};
