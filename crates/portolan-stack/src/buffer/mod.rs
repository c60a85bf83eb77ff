//! Where bytes wait: to be acknowledged, to be read, or for a hole before them to be filled.
//!
//! ```text
//!   write() ─▶ SendQueue ─▶ segments ─▶ link            Pool ◀─▶ Rope, SparseBytes: chunks come when
//!   link ─▶ segments ─▶ Reassembly ─▶ read()                     a byte does and go with the last
//!
//!   write_chunk(), packets in parts, read_chunk() ◀─▶ Rope: references instead of copies
//! ```

mod datagrams;
mod fragments;
mod pool;
mod reassembly;
mod rope;
mod send_queue;
mod shared;
mod sparse;

pub(crate) use datagrams::Datagrams;
pub(crate) use fragments::{FragmentKey, Fragments, MAX_HEAD, Piece, Taken};
pub(crate) use pool::Pool;
pub(crate) use reassembly::{Block, Reassembly};
pub(crate) use rope::Rope;
pub(crate) use send_queue::SendQueue;
pub(crate) use shared::{SharedDatagrams, SharedId};
pub(crate) use sparse::SparseBytes;
