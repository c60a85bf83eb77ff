//! A host's transport layer as a state machine: packets, time and calls in; packets, timers and events out.
#![forbid(unsafe_code)]

mod buffer;
mod tcp;
mod time;
mod wheel;

pub use tcp::{CloseReason, CongestionControl, ConnectionInfo, Keepalive, ReadError, State, TcpConfig, WriteError};
pub use time::{Duration, Instant};
