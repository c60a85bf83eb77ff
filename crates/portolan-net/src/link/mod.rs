//! What carries the packets of a stack.

mod batch;
mod impaired;
mod memory;
mod path;
mod tap;

use std::io;
use std::task::{Context, Poll};

pub use batch::{Batch, Space};
pub use impaired::{Impaired, ImpairedCounts};
pub use memory::{MemoryLink, pair};
pub use path::{Impairment, Loss, Path, PathCounts};
pub use tap::{Direction, Observer, Tap};

/// What a link can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The longest IP packet that it carries, in bytes; a super-segment may be longer.
    pub mtu: usize,
    /// It takes packets with [`PacketChecksum::Partial`](portolan_stack::PacketChecksum) and completes them, or
    /// passes them on as they are to somebody who knows.
    pub checksum_offload: bool,
    /// It takes TCP super-segments of up to 65,535 bytes (TSO).
    pub segmentation_offload: bool,
    /// It takes rows of UDP datagrams of one length as one packet (USO).
    pub datagram_offload: bool,
}

impl Capabilities {
    /// A link that carries packets of up to `mtu` bytes and does nothing else.
    #[must_use]
    pub const fn plain(mtu: usize) -> Self {
        Self {
            mtu,
            checksum_offload: false,
            segmentation_offload: false,
            datagram_offload: false,
        }
    }
}

/// One queue of IP packets to and from the network: a queue of a TUN device, one end of a [`pair`], or a
/// wrapper of another link.
///
/// One task drives a link: the last waker that was given to `poll_receive` and the last given to `poll_send` are
/// woken, each in its own right. A device with several queues is several links, one for each shard of a stack.
pub trait Link: Send {
    /// What it can do. It does not change.
    fn capabilities(&self) -> Capabilities;

    /// Adds the packets that came to `batch`, until none is left or `batch` has no room for another.
    ///
    /// Ready if at least one was added, or if `batch` is too full for one. A link that is done for good, or
    /// cannot go on, gives an error.
    ///
    /// # Errors
    /// Those of the device; [`io::ErrorKind::UnexpectedEof`] if nothing will come any more.
    fn poll_receive(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>>;

    /// Sends packets from the front of `batch`, and removes those that it sent; also those that it can never
    /// send, as if the network had lost them.
    ///
    /// Ready when `batch` is empty; pending while the rest has to wait.
    ///
    /// # Errors
    /// Those of the device. The rest of `batch` stays.
    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>>;
}

impl<L: Link + ?Sized> Link for Box<L> {
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        (**self).poll_receive(cx, batch)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        (**self).poll_send(cx, batch)
    }
}
