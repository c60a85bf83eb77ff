use std::net::SocketAddr;
use std::num::NonZeroU16;

use portolan_core::demux::{self, Delivery, FourTuple, Reason, Reply};
use portolan_core::table::{SocketId, Transport};
use portolan_core::wire::{IpPacket, UdpDatagram};
use thiserror::Error;

use super::{News, Stack, UdpId};
use crate::buffer::{Datagrams, Pool, SharedDatagrams, SharedId};
use crate::packet::PacketChecksum;
use crate::stack::Holder;
use crate::{Instant, Packet, PathError};

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Datagram {
    /// Where it was sent to: an answer goes from there.
    pub local: SocketAddr,
    /// Where it came from.
    pub remote: SocketAddr,
    /// Its length. If that is more than the buffer took, the rest is lost.
    pub len: usize,
    /// If a device merged several datagrams into this one, the length of each but the last, which may be shorter.
    pub piece_len: Option<NonZeroU16>,
    /// How many more routers it might have passed.
    pub hop_limit: u8,
    /// Differentiated services and ECN.
    pub traffic_class: u8,
}

/// Why no datagram was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// One that was sent did not get through. It is told once; what was received is still there.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The handle is of no socket.
    #[error("no such socket; it was closed")]
    NoSocket,
}

/// What is known of a datagram that waits to be received.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Received {
    tuple: FourTuple,
    /// Where its bytes are, if it is for several sockets.
    shared: Option<SharedId>,
    piece_len: Option<NonZeroU16>,
    hop_limit: u8,
    traffic_class: u8,
}

impl Stack {
    /// Takes the next datagram that came, as much of it as fits into `out`; `None` if there is none.
    ///
    /// # Errors
    /// [`ReceiveError`]; an error of the path comes before the datagrams that wait.
    pub fn receive_datagram(&mut self, id: UdpId, out: &mut [u8]) -> Result<Option<Datagram>, ReceiveError> {
        let socket = self.udp.get_mut(id).ok_or(ReceiveError::NoSocket)?;
        if let Some(error) = socket.error.take() {
            return Err(error.into());
        }
        let Some((&received, len)) = socket.received.first() else {
            return Ok(None);
        };
        let len = match received.shared {
            Some(shared) => {
                self.shared.copy(shared, out);
                self.shared.len(shared)
            }
            None => {
                socket.received.copy_first(out);
                len
            }
        };
        drop_received(&mut self.pool, &mut self.shared, &mut socket.received, received);
        Ok(Some(Datagram {
            local: received.tuple.local(),
            remote: received.tuple.remote(),
            len,
            piece_len: received.piece_len,
            hop_limit: received.hop_limit,
            traffic_class: received.traffic_class,
        }))
    }

    /// A UDP packet comes.
    pub(in super::super) fn take_udp(&mut self, now: Instant, packet: Packet<'_>, ip: &IpPacket<'_>) {
        let Ok(datagram) = UdpDatagram::parse(ip.payload()) else {
            self.counters.malformed += 1;
            return;
        };
        let checked = match packet.offload.checksum {
            PacketChecksum::Complete => datagram.has_valid_checksum(ip.pseudo_header()),
            PacketChecksum::Verified | PacketChecksum::Partial => true,
        };
        if !checked {
            self.counters.bad_checksums += 1;
            return;
        }
        let source = SocketAddr::new(ip.source(), datagram.source_port().get());
        let destination = SocketAddr::new(ip.destination(), datagram.destination_port().get());
        let Some(tuple) = FourTuple::new(destination, source) else {
            self.counters.malformed += 1;
            return;
        };
        if self.filtering.is_on() && !self.admits_datagram(now, &tuple, packet, ip) {
            return;
        }
        let (hop_limit, dscp, ecn) = match ip {
            IpPacket::V4(packet) => (packet.time_to_live(), packet.dscp(), packet.ecn()),
            IpPacket::V6(packet) => (packet.hop_limit(), packet.dscp(), packet.ecn()),
        };
        let received = Received {
            tuple,
            shared: None,
            piece_len: packet.offload.piece_len,
            hop_limit,
            traffic_class: dscp << 2 | ecn,
        };
        let Err((reply, because)) = self.bring(received, datagram.payload()) else {
            return;
        };
        if matches!(because, Reason::NotForThisHost) {
            self.counters.not_for_this_host += 1;
        } else {
            self.counters.no_socket += 1;
        }
        if reply == Reply::PortUnreachable {
            self.answer_port_unreachable(now, packet.bytes, ip);
        }
    }

    /// What was sent to many from here is for sockets of this host too.
    pub(super) fn bring_back(&mut self, sent: &FourTuple, hop_limit: u8, traffic_class: u8, bytes: &[u8]) {
        let Some(tuple) = FourTuple::new(sent.remote(), sent.local()) else {
            return;
        };
        // Nobody here need want it.
        let _ = self.bring(
            Received {
                tuple,
                shared: None,
                piece_len: None,
                hop_limit,
                traffic_class,
            },
            bytes,
        );
    }

    /// Brings a datagram to its sockets, or says why there is none.
    fn bring(&mut self, received: Received, bytes: &[u8]) -> Result<(), (Reply, Reason)> {
        let version = self.table.udp_version();
        if let Some(id) = self.latest_datagrams.find(version, &received.tuple) {
            self.put(id, received, bytes);
            return Ok(());
        }
        let delivery = self.table.deliver(&demux::Packet {
            transport: Transport::Udp,
            source: received.tuple.remote(),
            destination: received.tuple.local(),
            device: Some(self.config.device),
            segment: demux::Segment::Other,
        });
        match delivery {
            Delivery::Nobody { reply, because } => return Err((reply, because)),
            Delivery::Socket { to, .. } => {
                if let Holder::Udp(id) = *self.holder(to.place()) {
                    self.latest_datagrams.note(version, &received.tuple, id);
                    self.put(id, received, bytes);
                }
            }
            Delivery::Sockets { to, .. } if to.len() == 1 => {
                if let Holder::Udp(id) = *self.holder(to[0].place()) {
                    self.put(id, received, bytes);
                }
            }
            Delivery::Sockets { to, .. } => self.put_shared(&to, received, bytes),
        }
        Ok(())
    }

    fn put(&mut self, id: UdpId, received: Received, bytes: &[u8]) {
        let Some(socket) = self.udp.get_mut(id) else {
            return;
        };
        let (piece_len, pieces) = match received.piece_len {
            Some(len) if !socket.manner.takes_merged => (None, usize::from(len.get())),
            other => (other, bytes.len().max(1)),
        };
        let received = Received {
            piece_len,
            ..received
        };
        // An empty datagram is one, too.
        let (first, rest) = bytes.split_at(pieces.min(bytes.len()));
        for piece in std::iter::once(first).chain(rest.chunks(pieces)) {
            if !socket.received.push(&mut self.pool, received, piece) {
                self.counters.datagrams_dropped += 1;
            }
        }
        self.tell_udp_socket(id, News::DATAGRAMS);
    }

    /// Keeps the bytes once for all who get them.
    fn put_shared(&mut self, to: &[SocketId], received: Received, bytes: &[u8]) {
        let pieces = received
            .piece_len
            .map_or_else(|| bytes.len().max(1), |len| len.get().into());
        let (first, rest) = bytes.split_at(pieces.min(bytes.len()));
        for piece in std::iter::once(first).chain(rest.chunks(pieces)) {
            let shared = self.shared.insert(&mut self.pool, piece);
            let received = Received {
                shared: Some(shared),
                piece_len: None,
                ..received
            };
            for socket in to {
                let Holder::Udp(id) = *self.holder(socket.place()) else {
                    continue;
                };
                let Some(socket) = self.udp.get_mut(id) else {
                    continue;
                };
                if socket.received.push_elsewhere(received, piece.len()) {
                    self.shared.hold(shared);
                    self.tell_udp_socket(id, News::DATAGRAMS);
                } else {
                    self.counters.datagrams_dropped += 1;
                }
            }
            self.shared.release(&mut self.pool, shared);
        }
    }
}

/// Drops the first datagram of a row.
pub(super) fn drop_received(
    pool: &mut Pool,
    datagrams: &mut SharedDatagrams,
    row: &mut Datagrams<Received>,
    first: Received,
) {
    match first.shared {
        Some(shared) => {
            row.pop_elsewhere(pool, datagrams.len(shared));
            datagrams.release(pool, shared);
        }
        None => row.pop(pool),
    }
}
