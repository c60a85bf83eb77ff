//! The stack on a TUN device, with the kernel of this machine as its peer.
#![cfg(target_os = "linux")]

mod bulk;
mod device;
mod endings;
mod examples;
mod features;
mod fragments;
mod gateway;
mod many;
mod peers;
mod support;
mod udp;
mod verdicts;
