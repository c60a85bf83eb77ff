//! UDP (RFC 768): sockets that send and receive datagrams.

use std::net::{IpAddr, SocketAddr};

use portolan_core::Port;
use portolan_core::demux::{self, Delivery, FourTuple, Reason, Reply};
use portolan_core::table::{BindError, Close, Family, PortChoice, SocketId, Transport};
use portolan_core::wire::{ChecksumFill, IpPacket, IpProtocol, PseudoHeader, UdpDatagram, UdpRepr};
use thiserror::Error;

use super::events::Notice;
use super::output::{Ready, ip_header_len};
use super::{Holder, NoSocket, Stack, UdpId};
use crate::buffer::Datagrams;
use crate::packet::PacketChecksum;
use crate::{Instant, Offload, Packet, Transmit};

/// A UDP socket.
#[derive(Debug)]
pub(super) struct UdpSocket {
    socket: SocketId,
    /// The port it has; the address may be a wildcard.
    local: SocketAddr,
    received: Datagrams<FourTuple>,
    to_send: Datagrams<FourTuple>,
    is_ready: bool,
    pub(super) is_noticed: bool,
}

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
}

/// Why a datagram is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// Too many wait; later there may be room.
    #[error("no room for the datagram yet")]
    WouldBlock,
    /// It does not fit into a packet of the link, and the stack does not make fragments.
    #[error("a datagram of {len} bytes is too long: this link takes {limit}")]
    TooLong {
        /// Its length.
        len: usize,
        /// The longest there may be.
        limit: usize,
    },
    /// The source is not the socket's, or of another family than the destination.
    #[error("this socket cannot send from {source_address} to {destination}")]
    WrongSource {
        /// The address to send from.
        source_address: IpAddr,
        /// Where it was to go.
        destination: SocketAddr,
    },
    /// The handle is of no socket.
    #[error("no such socket; it was closed")]
    NoSocket,
}

impl Stack {
    /// Opens a UDP socket on a socket address; port 0 means any free one.
    ///
    /// # Errors
    /// [`BindError`], after which nothing is held.
    pub fn bind_udp(&mut self, local: SocketAddr) -> Result<UdpId, BindError> {
        let family = if local.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        };
        let socket = self.table.socket(Transport::Udp, family, self.config.owner);
        let port = match self.table.bind(socket, local, PortChoice::Any) {
            Ok(port) => port,
            Err(error) => {
                self.give_up(socket, Close::Gone);
                return Err(error);
            }
        };
        let id = self.udp.insert(UdpSocket {
            socket,
            local: SocketAddr::new(local.ip(), port.get()),
            received: Datagrams::new(self.config.udp_buffer),
            to_send: Datagrams::new(self.config.udp_buffer),
            is_ready: false,
            is_noticed: false,
        });
        self.hold(socket, Holder::Udp(id));
        Ok(id)
    }

    /// Sends a datagram, which may be empty, from the socket's port and the address `source` to `remote`.
    ///
    /// # Errors
    /// [`SendError`], after which nothing was sent.
    pub fn send_datagram(
        &mut self,
        id: UdpId,
        source: IpAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let socket = self.udp.get_mut(id).ok_or(SendError::NoSocket)?;
        let wrong = SendError::WrongSource {
            source_address: source,
            destination: remote,
        };
        let bound = socket.local.ip();
        if source.is_unspecified() || !(bound.is_unspecified() || bound == source) {
            return Err(wrong);
        }
        let tuple = FourTuple::new(SocketAddr::new(source, socket.local.port()), remote).ok_or(wrong)?;
        let limit = self.config.mtu - ip_header_len(&tuple) - UdpDatagram::HEADER_LEN;
        if bytes.len() > limit {
            return Err(SendError::TooLong {
                len: bytes.len(),
                limit,
            });
        }
        if !socket.to_send.push(&mut self.pool, tuple, bytes) {
            return Err(SendError::WouldBlock);
        }
        if !socket.is_ready {
            socket.is_ready = true;
            self.ready.push_back(Ready::Udp(id));
        }
        Ok(())
    }

    /// Takes the next datagram that came, as much of it as fits into `out`; `None` if there is none.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn receive_datagram(&mut self, id: UdpId, out: &mut [u8]) -> Result<Option<Datagram>, NoSocket> {
        let socket = self.udp.get_mut(id).ok_or(NoSocket)?;
        let Some((tuple, len)) = socket.received.first() else {
            return Ok(None);
        };
        let datagram = Datagram {
            local: tuple.local(),
            remote: tuple.remote(),
            len,
        };
        socket.received.copy_first(out);
        socket.received.pop(&mut self.pool);
        Ok(Some(datagram))
    }

    /// Closes a UDP socket: its port is free at once, and what waits is lost.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn close_udp(&mut self, id: UdpId) -> Result<(), NoSocket> {
        let mut socket = self.udp.remove(id).ok_or(NoSocket)?;
        socket.received.clear(&mut self.pool);
        socket.to_send.clear(&mut self.pool);
        self.give_up(socket.socket, Close::Gone);
        Ok(())
    }

    /// The socket address of a UDP socket.
    #[must_use]
    pub fn udp_local(&self, id: UdpId) -> Option<SocketAddr> {
        self.udp.get(id).map(|socket| socket.local)
    }

    /// A UDP packet comes.
    pub(super) fn take_udp(&mut self, now: Instant, packet: Packet<'_>, ip: &IpPacket<'_>) {
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
        let delivery = self.table.deliver(&demux::Packet {
            transport: Transport::Udp,
            source,
            destination,
            device: None,
            segment: demux::Segment::Other,
        });
        match delivery {
            Delivery::Socket { to, .. } => self.put(to, &tuple, datagram.payload()),
            Delivery::Sockets { to, .. } => {
                for socket in to {
                    self.put(socket, &tuple, datagram.payload());
                }
            }
            Delivery::Nobody { reply, because } => {
                if matches!(because, Reason::NotForThisHost) {
                    self.counters.not_for_this_host += 1;
                } else {
                    self.counters.no_socket += 1;
                }
                if reply == Reply::PortUnreachable {
                    self.answer_port_unreachable(now, packet.bytes, ip);
                }
            }
        }
    }

    fn put(&mut self, socket: SocketId, tuple: &FourTuple, bytes: &[u8]) {
        let Holder::Udp(id) = *self.holder(socket.place()) else {
            return;
        };
        let Some(socket) = self.udp.get_mut(id) else {
            return;
        };
        if !socket.received.push(&mut self.pool, *tuple, bytes) {
            self.counters.datagrams_dropped += 1;
            return;
        }
        if !socket.is_noticed {
            socket.is_noticed = true;
            self.notices.push_back(Notice::Udp(id));
        }
    }

    /// Writes the next datagram of a socket, and says whether there are more.
    pub(super) fn transmit_udp(&mut self, id: UdpId, buffer: &mut [u8]) -> Option<Transmit> {
        let socket = self.udp.get_mut(id)?;
        let Some((&tuple, payload_len)) = socket.to_send.first() else {
            socket.is_ready = false;
            return None;
        };
        let ip_len = ip_header_len(&tuple);
        let transport_len = UdpDatagram::HEADER_LEN + payload_len;
        let len = ip_len + transport_len;
        let (ip, transport) = buffer[..len].split_at_mut(ip_len);
        socket
            .to_send
            .copy_first(&mut transport[UdpDatagram::HEADER_LEN..]);
        socket.to_send.pop(&mut self.pool);
        let fill = match PseudoHeader::new(tuple.local().ip(), tuple.remote().ip()) {
            Some(pseudo) if self.config.checksum_offload => ChecksumFill::Partial(pseudo),
            Some(pseudo) => ChecksumFill::Complete(pseudo),
            None => ChecksumFill::Zero,
        };
        let header = UdpRepr {
            source_port: Port::new(tuple.local().port()),
            destination_port: Port::new(tuple.remote().port()),
        };
        header
            .emit(transport, fill)
            .expect("the length was checked against the link's when the datagram was queued");
        self.emit_ip(&tuple, IpProtocol::UDP, 0, transport_len, ip);
        self.ready.push_back(Ready::Udp(id));
        let checksum = if self.config.checksum_offload {
            PacketChecksum::Partial
        } else {
            PacketChecksum::Complete
        };
        Some(Transmit {
            len,
            offload: Offload {
                checksum,
                piece_len: None,
            },
        })
    }
}
