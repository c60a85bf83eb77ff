//! A queue of a device as a link.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;

use super::device::{HEADER_LEN, MAX_PACKET, TunQueue};
use super::readiness::poll_readable;
use super::{Offloads, TunCounters, sys};
use crate::link::{Batch, Capabilities, Link};

/// Where the virtio-net header begins in the headroom, so that it ends where the packet begins.
const HEADER_AT: usize = Batch::HEADROOM - HEADER_LEN;

/// A queue of a TUN device that waits by tokio. Each wake-up moves as many packets as there are, one in a system
/// call, straight between the kernel and the batch.
#[derive(Debug)]
pub struct TunLink {
    queue: AsyncFd<TunQueue>,
    capabilities: Capabilities,
}

impl TunLink {
    /// A link over `queue`, of a device with this MTU and these offloads. Call it in a runtime of tokio with I/O enabled.
    ///
    /// # Errors
    /// If the runtime cannot wait for the descriptor.
    pub fn new(queue: TunQueue, mtu: usize, offloads: Offloads) -> io::Result<Self> {
        let capabilities = Capabilities {
            mtu,
            checksum_offload: offloads >= Offloads::Checksums,
            segmentation_offload: offloads >= Offloads::Segments,
            datagram_offload: offloads >= Offloads::Datagrams,
        };
        Ok(Self {
            queue: sys::register(queue)?,
            capabilities,
        })
    }

    /// What was counted, over all queues of the device.
    #[must_use]
    pub fn counters(&self) -> TunCounters {
        self.queue.get_ref().counters()
    }
}

impl Link for TunLink {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        let before = batch.len();
        let mut readable = None;
        loop {
            // Without room for the largest packet one of them would be cut.
            let Some(mut space) = batch.space(MAX_PACKET) else {
                return Poll::Ready(Ok(()));
            };
            let mut readiness = match readable.take() {
                Some(readiness) => readiness,
                None => ready!(poll_readable(&self.queue, cx))?,
            };
            let queue = self.queue.get_ref();
            match queue.recv(&mut space.with_headroom()[HEADER_AT..]) {
                Ok(packet) => {
                    let (len, offload) = (packet.bytes.len(), packet.offload);
                    space.commit(len, offload);
                    readable = Some(readiness);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    readiness.clear_ready();
                    if batch.len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        while let Some((bytes, offload)) = batch.front_with_headroom() {
            match self
                .queue
                .get_ref()
                .send_with_headroom(&mut bytes[HEADER_AT..], offload)
            {
                Ok(()) => batch.pop_front(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.queue.poll_write_ready(cx))?.clear_ready();
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}
