//! tokio's sockets over two stacks in memory.

mod cancel;
mod close;
mod links;
mod settings;
mod sharded;
mod streams;
mod support;
mod transparent;
mod udp;
mod waits;
