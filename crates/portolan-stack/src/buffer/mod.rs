//! Where bytes wait: to be acknowledged, to be read, or for a hole before them to be filled.
//!
//! ```text
//!   write() ─▶ SendQueue ─▶ segments ─▶ link            Pool ◀─▶ SparseBytes: chunks come when
//!   link ─▶ segments ─▶ Reassembly ─▶ read()                     a byte does and go with the last
//! ```

mod datagrams;
mod pool;
mod reassembly;
mod send_queue;
mod sparse;

pub(crate) use datagrams::Datagrams;
pub(crate) use pool::Pool;
pub(crate) use reassembly::{Block, Reassembly};
pub(crate) use send_queue::SendQueue;
pub(crate) use sparse::SparseBytes;
