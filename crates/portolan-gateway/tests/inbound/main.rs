//! Ports in: taking ports of the host, and what the program sees of those who connect to them.
#![cfg(target_os = "linux")]

mod bind;
mod private;
mod spaces;
mod support;
mod tcp;
