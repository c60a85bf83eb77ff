//! Ports out: a client stack as the program, a wire in memory, the gateway, and sockets of the host in a private namespace.
#![cfg(target_os = "linux")]

mod dials;
mod differential;
mod echo;
mod memory;
mod nothing_leaves;
mod support;
mod tcp;
mod udp;
mod urgent;
