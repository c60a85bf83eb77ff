//! Captured packets: how they are read and written, what they sum up to, how they look on paper.
//!
//! ```text
//!   pcap, pcapng ─▶ CaptureReader ─┐
//!   hex dumps ────▶ hex::packets ──┴▶ bytes ─▶ wire::Dissection ─┬▶ FlowTable: who spoke with whom
//!                     guess_link ──▶ what they begin with        └▶ anatomy::fields: bit by bit
//!
//!   packets ─▶ CaptureWriter ─▶ pcapng
//! ```
//!
//! Nothing here opens a file or captures from a device: readers and writers are arguments. Memory is bounded whatever
//! the input is: by the longest record that is accepted, and by the number of flows that are kept.

#![forbid(unsafe_code)]

pub mod anatomy;
mod flow;
mod guess;
pub mod hex;
mod reader;
mod writer;

pub use flow::{Flow, FlowKey, FlowState, FlowTable, Side, Tally};
pub use guess::guess_link;
pub use reader::{CaptureError, CaptureReader, Frame, is_capture};
pub use writer::{CaptureInterface, CaptureWriter, CapturedPacket, Direction};
