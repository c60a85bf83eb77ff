//! One end of a veth pair as a link, for where there is no TUN device: a packet socket with PACKET_VNET_HDR (packet(7)).
//!
//! Each packet has a virtio-net header before it, as in a TUN device, and an Ethernet header between the two; what the
//! virtio-net header says of places in the packet counts from the Ethernet header on. The other end must know this one's
//! address: there is nobody here who would answer ARP or a neighbour solicitation.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use portolan_stack::Offload;
use rustix::io::{Errno, read, write};
use tokio::io::unix::AsyncFd;

use super::device::MAX_PACKET;
use super::device::gone;
use super::header::{self, HEADER_LEN, HeaderError};
use super::readiness::poll_readable;
use super::{Offloads, TunCounters, sys};
use crate::link::{Batch, Capabilities, Link};

/// The addresses and the type.
const ETHERNET_LEN: usize = 14;
/// The same as the unit of the virtio-net header.
const ETHERNET_SHIFT: u16 = 14;
/// Where the two headers begin in the headroom, so that they end where the packet begins.
const HEADERS_AT: usize = Batch::HEADROOM - HEADER_LEN - ETHERNET_LEN;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// A packet socket that waits by tokio, bound to an Ethernet interface with one peer.
///
/// What is not IP, or has a virtio-net header that does not fit it, is counted and passed over.
#[derive(Debug)]
pub struct FrameLink {
    socket: AsyncFd<OwnedFd>,
    capabilities: Capabilities,
    /// The Ethernet addresses of the peer and of this side, in the order of a frame that goes.
    addresses: [u8; 12],
    counters: TunCounters,
}

impl FrameLink {
    /// A link over `socket`, which is bound to its interface, does not block, and has PACKET_VNET_HDR set; `own` and
    /// `peer` are the Ethernet addresses of its interface and of the other end. Call it in a runtime of tokio with I/O
    /// enabled.
    ///
    /// # Errors
    /// If the runtime cannot wait for the descriptor.
    pub fn new(
        socket: OwnedFd,
        own: [u8; 6],
        peer: [u8; 6],
        mtu: usize,
        offloads: Offloads,
    ) -> io::Result<Self> {
        let mut addresses = [0; 12];
        addresses[..6].copy_from_slice(&peer);
        addresses[6..].copy_from_slice(&own);
        Ok(Self {
            socket: sys::register_socket(socket)?,
            capabilities: Capabilities {
                mtu,
                checksum_offload: offloads >= Offloads::Checksums,
                segmentation_offload: offloads >= Offloads::Segments,
                datagram_offload: offloads >= Offloads::Datagrams,
            },
            addresses,
            counters: TunCounters::default(),
        })
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> TunCounters {
        self.counters
    }

    /// Sends one frame, or loses it; `false` if there is no room for it now.
    fn send(&mut self, frame: &mut [u8], offload: Offload) -> io::Result<bool> {
        if let Err(error) = encode(frame, &self.addresses, offload) {
            tracing::debug!(%error, "a packet that is none");
            self.counters.refused_out += 1;
            return Ok(true);
        }
        loop {
            match write(self.socket.get_ref(), frame) {
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::NXIO | Errno::NODEV) => return Err(gone()),
                // ENOBUFS where the other end is behind, ENETDOWN while it is down, EINVAL for what is no packet.
                Err(error) => {
                    tracing::debug!(%error, "the interface does not take a frame");
                    self.counters.refused_out += 1;
                    return Ok(true);
                }
            }
        }
    }
}

/// One frame into `frame`: the length of its IP packet and what is left undone of it; `None` if there is none to be
/// had now.
fn receive(
    socket: impl AsFd,
    counters: &mut TunCounters,
    frame: &mut [u8],
) -> io::Result<Option<(usize, Offload)>> {
    loop {
        match read(&socket, &mut *frame) {
            Ok(len) => match decode(&mut frame[..len]) {
                Ok(offload) => return Ok(Some((len - HEADER_LEN - ETHERNET_LEN, offload))),
                Err(error) => {
                    tracing::debug!(%error, len, "refused a frame");
                    counters.refused_in += 1;
                }
            },
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            // The kernel has no virtio-net header for it, and has thrown it away.
            Err(Errno::INVAL) => counters.refused_in += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// What is left undone of the packet in a frame that came.
fn decode(frame: &mut [u8]) -> Result<Offload, HeaderError> {
    let (virtio, frame) = frame
        .split_first_chunk_mut::<HEADER_LEN>()
        .ok_or(HeaderError::Short)?;
    let (ethernet, packet) = frame
        .split_first_chunk::<ETHERNET_LEN>()
        .ok_or(HeaderError::Short)?;
    let version = packet.first().map(|byte| byte >> 4);
    let fits = match [ethernet[12], ethernet[13]] {
        IPV4 => version == Some(4),
        IPV6 => version == Some(6),
        _ => false,
    };
    if !fits {
        return Err(HeaderError::Malformed);
    }
    // A packet socket speaks the machine's byte order, and counts from the Ethernet header on.
    for (at, shift) in [(2, 0), (4, 0), (6, ETHERNET_SHIFT), (8, 0)] {
        let word = u16::from_ne_bytes([virtio[at], virtio[at + 1]]).wrapping_sub(shift);
        virtio[at..at + 2].copy_from_slice(&word.to_le_bytes());
    }
    header::decode(*virtio, packet)
}

/// Writes both headers before the packet that stands behind them.
fn encode(frame: &mut [u8], addresses: &[u8; 12], offload: Offload) -> Result<(), HeaderError> {
    let (virtio, frame) = frame
        .split_first_chunk_mut::<HEADER_LEN>()
        .ok_or(HeaderError::Short)?;
    let (ethernet, packet) = frame
        .split_first_chunk_mut::<ETHERNET_LEN>()
        .ok_or(HeaderError::Short)?;
    let kind = match packet.first().map(|byte| byte >> 4) {
        Some(4) => IPV4,
        Some(6) => IPV6,
        _ => return Err(HeaderError::Malformed),
    };
    ethernet[..12].copy_from_slice(addresses);
    ethernet[12..].copy_from_slice(&kind);
    *virtio = header::encode(offload, packet)?;
    // The length of the headers and the start of the checksum; 0 where there is none.
    for (at, moves) in [(2, true), (4, false), (6, true), (8, false)] {
        let word = u16::from_le_bytes([virtio[at], virtio[at + 1]]);
        let shift = if moves && word > 0 { ETHERNET_SHIFT } else { 0 };
        virtio[at..at + 2].copy_from_slice(&(word + shift).to_ne_bytes());
    }
    Ok(())
}

impl Link for FrameLink {
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
                None => ready!(poll_readable(&self.socket, cx))?,
            };
            let frame = &mut space.with_headroom()[HEADERS_AT..];
            match receive(self.socket.get_ref(), &mut self.counters, frame)? {
                Some((len, offload)) => {
                    space.commit(len, offload);
                    readable = Some(readiness);
                }
                None => {
                    readiness.clear_ready();
                    if batch.len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<()>> {
        while let Some((bytes, offload)) = batch.front_with_headroom() {
            if self.send(&mut bytes[HEADERS_AT..], offload)? {
                batch.pop_front();
            } else {
                ready!(self.socket.poll_write_ready(cx))?.clear_ready();
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(mut bytes in vec(any::<u8>(), 0..120), is_v6: bool) {
            let _ = decode(&mut bytes.clone());
            if bytes.len() > HEADER_LEN + ETHERNET_LEN {
                let kind = if is_v6 { IPV6 } else { IPV4 };
                bytes[HEADER_LEN + 12..HEADER_LEN + ETHERNET_LEN].copy_from_slice(&kind);
                bytes[HEADER_LEN + ETHERNET_LEN] = if is_v6 { 0x60 } else { 0x45 };
                let _ = decode(&mut bytes);
            }
        }

        #[test]
        fn any_bytes_are_encoded_without_a_panic(mut bytes in vec(any::<u8>(), 0..120)) {
            let _ = encode(&mut bytes, &[1; 12], Offload::default());
        }
    }

    #[test]
    fn what_is_not_ip_is_refused() {
        let arp = [&[0; HEADER_LEN][..], &[2; 12], &[0x08, 0x06], &[0x45; 28]].concat();
        assert_eq!(decode(&mut arp.clone()), Err(HeaderError::Malformed));
        let mut ip = arp;
        ip[HEADER_LEN + 13] = 0;
        assert_eq!(decode(&mut ip), Ok(Offload::default()));
        ip[HEADER_LEN + 12..HEADER_LEN + ETHERNET_LEN].copy_from_slice(&IPV6);
        assert_eq!(
            decode(&mut ip),
            Err(HeaderError::Malformed),
            "a version of another type"
        );
    }
}
