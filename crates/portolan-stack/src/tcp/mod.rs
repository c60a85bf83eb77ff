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
mod asked;
mod config;
mod congestion;
mod connection;
mod expire;
mod info;
mod outgoing;
mod passive;
mod path;
mod rack;
mod receive;
mod recovery;
mod rest;
mod rtt;
mod scoreboard;
mod segment;
mod state;
mod stats;
mod submit;
mod timers;
mod transmit;
mod tuning;
mod undo;
mod unsent;
mod urgent;

pub(crate) use arrive::{Reply, Reset};
pub(crate) use config::HOP_LIMIT;
pub use config::{Keepalive, TcpConfig};
pub use congestion::CongestionControl;
pub use connection::{CloseReason, ReadError, WriteError};
pub(crate) use connection::{Connection, Cx, Happened, Opening};
pub use info::{ConnectionInfo, LossState};
pub(crate) use outgoing::Outgoing;
pub(crate) use passive::{Answered, Offers, Room, Syn};
pub(crate) use rest::Rest;
pub(crate) use segment::{Options, Segment};
pub use state::State;
pub use stats::ConnectionStats;
pub use submit::SendFlags;
