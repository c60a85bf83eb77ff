//! One TCP connection as a state machine (RFC 9293).
//!
//! ```text
//!   segment ─▶ arrive ─┬▶ acknowledge ─▶ scoreboard ─▶ rack ─▶ recovery, congestion ─┐
//!                      └▶ receive ─▶ reassembly ─▶ read()                            ▼
//!   write() ─▶ send queue ─────────────────────────────────────────────────────▶ transmit ─▶ segment
//!   time ─▶ expire (retransmission, probes, delayed acknowledgment, keepalive) ──────┘
//! ```
//!
//! A connection knows no ports and no addresses: those are the stack's.

mod acknowledge;
mod arrive;
mod config;
mod congestion;
mod connection;
mod expire;
mod outgoing;
mod rack;
mod receive;
mod recovery;
mod rtt;
mod scoreboard;
mod segment;
mod state;
mod timers;
mod transmit;

pub(crate) use arrive::{Reply, Reset};
pub use config::{Keepalive, TcpConfig};
pub use congestion::CongestionControl;
pub use connection::{CloseReason, ConnectionInfo, ReadError, WriteError};
pub(crate) use connection::{Connection, Cx, Happened, Opening};
pub(crate) use outgoing::Outgoing;
pub(crate) use segment::Segment;
pub use state::State;
