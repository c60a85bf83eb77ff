use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use portolan_core::Port;
use portolan_core::demux::FourTuple;
use portolan_core::filter::{Hook, Verdict};
use portolan_core::table::AddressKind;
use portolan_core::wire::{ChecksumFill, IpProtocol, PseudoHeader, UdpDatagram, UdpRepr};
use thiserror::Error;

use super::options::{DontFragment, HeaderFields};
use super::{News, Stack, UdpId};
use crate::packet::PacketChecksum;
use crate::stack::cut::{Cut, checksum_of};
use crate::stack::icmp::{IcmpError, Rejected};
use crate::stack::output::{IpFields, Ready, ip_header_len};
use crate::{Instant, Offload, PathError, Transmit};

/// The longest IPv4 packet, and the longest payload of an IPv6 one.
const LONGEST: usize = 65_535;
/// As Linux's `UDP_MAX_SEGMENTS`: no more datagrams go in one call.
const MAX_SEGMENTS: usize = 128;

/// Why a datagram is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// Too many wait; [`Event::DatagramRoom`](crate::Event::DatagramRoom) says when there is room.
    #[error("no room for the datagram yet")]
    WouldBlock,
    /// It does not fit into a packet, or into those that the socket may send.
    #[error("a datagram of {len} bytes is too long: this socket can send {limit}")]
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
    /// Nobody has port 0.
    #[error("cannot send to {destination}: port 0 is nobody's")]
    NoPort {
        /// Where it was to go.
        destination: SocketAddr,
    },
    /// The destination is every host of a network, which the socket was not allowed to reach.
    #[error(
        "cannot send to {destination}: it is a broadcast address, which needs UdpOption::Broadcast (SO_BROADCAST)"
    )]
    Broadcast {
        /// Where it was to go.
        destination: SocketAddr,
    },
    /// The socket is not connected, and the call names no destination.
    #[error("the socket is not connected: name a destination")]
    NotConnected,
    /// One that was sent before did not get through. It is told once, and nothing was sent now.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The handle is of no socket.
    #[error("no such socket; it was closed")]
    NoSocket,
}

/// What is known of a datagram that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToSend {
    tuple: FourTuple,
    /// The data of each datagram, if these are several.
    piece_len: Option<NonZeroU16>,
    /// What it came with, if it is passed on.
    passed: Option<HeaderFields>,
}

impl Stack {
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
        let port = self.udp_local(id).ok_or(SendError::NoSocket)?.port();
        self.send_datagram_from(id, SocketAddr::new(source, port), remote, bytes)
    }

    /// The same from `source`, which for a socket with a scope is any socket address of the scope, and for another its
    /// own port.
    ///
    /// # Errors
    /// [`SendError`], after which nothing was sent.
    pub fn send_datagram_from(
        &mut self,
        id: UdpId,
        source: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let tuple = self.tuple_to_send(id, source, remote)?;
        let plain = ToSend {
            tuple,
            piece_len: None,
            passed: None,
        };
        self.queue(id, plain, bytes)
    }

    /// Sends a datagram to whom the socket is connected to.
    ///
    /// # Errors
    /// [`SendError`], after which nothing was sent.
    pub fn send_to_peer(&mut self, id: UdpId, bytes: &[u8]) -> Result<(), SendError> {
        let socket = self.udp.get(id).ok_or(SendError::NoSocket)?;
        let tuple = socket.peer.ok_or(SendError::NotConnected)?;
        let plain = ToSend {
            tuple,
            piece_len: None,
            passed: None,
        };
        self.queue(id, plain, bytes)
    }

    /// Sends as many datagrams as there are pieces of `piece_len` bytes in `bytes`, the last of which may be shorter: at
    /// most 128, and 64 KiB together (`UDP_SEGMENT`). A device that can cuts them.
    ///
    /// # Errors
    /// [`SendError`], after which nothing was sent.
    pub fn send_pieces(
        &mut self,
        id: UdpId,
        source: IpAddr,
        remote: SocketAddr,
        bytes: &[u8],
        piece_len: NonZeroU16,
    ) -> Result<(), SendError> {
        let port = self.udp_local(id).ok_or(SendError::NoSocket)?.port();
        self.send_pieces_from(id, SocketAddr::new(source, port), remote, bytes, piece_len)
    }

    /// The same from `source`, as [`Stack::send_datagram_from`].
    ///
    /// # Errors
    /// [`SendError`], after which nothing was sent.
    pub fn send_pieces_from(
        &mut self,
        id: UdpId,
        source: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
        piece_len: NonZeroU16,
    ) -> Result<(), SendError> {
        let tuple = self.tuple_to_send(id, source, remote)?;
        let pieces = ToSend {
            tuple,
            piece_len: Some(piece_len),
            passed: None,
        };
        self.queue(id, pieces, bytes)
    }

    /// Passes on what came from elsewhere, with the fields of the IP header that it came with: a datagram, or pieces as
    /// [`Stack::send_pieces_from`] sends.
    ///
    /// # Errors
    /// [`SendError`], after which nothing was sent.
    pub fn pass_datagram_on(
        &mut self,
        id: UdpId,
        (source, remote): (SocketAddr, SocketAddr),
        fields: HeaderFields,
        piece_len: Option<NonZeroU16>,
        bytes: &[u8],
    ) -> Result<(), SendError> {
        let tuple = self.tuple_to_send(id, source, remote)?;
        let passed = ToSend {
            tuple,
            piece_len,
            passed: Some(fields),
        };
        self.queue(id, passed, bytes)
    }

    /// Answers a datagram that the socket received from `remote` at `local` with an ICMP error that quotes it, instead
    /// of with a datagram. It had `len` bytes; `start` are the first of them, as many as are known.
    ///
    /// One answer for one datagram, by the program's own word: the limits of other ICMP errors do not apply.
    ///
    /// # Errors
    /// [`SendError`], after which nothing was sent.
    pub fn reject_datagram(
        &mut self,
        id: UdpId,
        (local, remote): (SocketAddr, SocketAddr),
        (start, len): (&[u8], usize),
        why: IcmpError,
    ) -> Result<(), SendError> {
        let tuple = self.tuple_to_send(id, local, remote)?;
        let is_one = |address| match self.table.host().kind(address) {
            AddressKind::Local | AddressKind::Foreign => true,
            AddressKind::Wildcard | AddressKind::Broadcast | AddressKind::Multicast => false,
        };
        if !is_one(local.ip()) || !is_one(remote.ip()) {
            return Err(SendError::WrongSource {
                source_address: local.ip(),
                destination: remote,
            });
        }
        let mut header = [0; UdpDatagram::HEADER_LEN];
        let length = (UdpDatagram::HEADER_LEN + len).min(LONGEST) as u16;
        header[..2].copy_from_slice(&tuple.remote().port().to_be_bytes());
        header[2..4].copy_from_slice(&tuple.local().port().to_be_bytes());
        header[4..6].copy_from_slice(&length.to_be_bytes());
        let rejected = Rejected {
            tuple,
            protocol: IpProtocol::UDP,
            header,
            data_len: len,
            start,
        };
        if self.reject(&rejected, why) {
            Ok(())
        } else {
            Err(SendError::WouldBlock)
        }
    }

    /// The ends of a datagram, if the socket may send it.
    fn tuple_to_send(
        &self,
        id: UdpId,
        source: SocketAddr,
        remote: SocketAddr,
    ) -> Result<FourTuple, SendError> {
        let socket = self.udp.get(id).ok_or(SendError::NoSocket)?;
        let wrong = || SendError::WrongSource {
            source_address: source.ip(),
            destination: remote,
        };
        let bound = socket.peer.map_or(socket.local, |peer| peer.local());
        let may_send = match self.table.scope(socket.socket) {
            Some(scope) => {
                let is_own = self.table.host().kind(source.ip()) == AddressKind::Local;
                source.port() != 0 && scope.contains(source.ip(), source.port().into(), is_own)
            }
            None => {
                // A wildcard of IPv6 is for IPv4 too, and not the other way round.
                let is_any = bound.ip().is_unspecified() && (bound.is_ipv6() || source.is_ipv4());
                source.port() == bound.port() && (is_any || bound.ip() == source.ip())
            }
        };
        if source.ip().is_unspecified() || source.ip().is_multicast() || !may_send {
            return Err(wrong());
        }
        if remote.port() == 0 {
            return Err(SendError::NoPort { destination: remote });
        }
        if !socket.manner.may_broadcast && self.table.host().kind(remote.ip()) == AddressKind::Broadcast {
            return Err(SendError::Broadcast { destination: remote });
        }
        FourTuple::new(source, remote).ok_or_else(wrong)
    }

    fn queue(&mut self, id: UdpId, to_send: ToSend, bytes: &[u8]) -> Result<(), SendError> {
        let ToSend {
            tuple,
            piece_len,
            passed,
        } = to_send;
        let socket = self.udp.get_mut(id).ok_or(SendError::NoSocket)?;
        if let Some(error) = socket.error.take() {
            return Err(error.into());
        }
        let manner = socket.manner;
        let headers = ip_header_len(&tuple) + UdpDatagram::HEADER_LEN;
        // IPv6 does not count its fixed header.
        let counted = if tuple.local().is_ipv4() {
            headers
        } else {
            UdpDatagram::HEADER_LEN
        };
        let longest = LONGEST - counted;
        let unfragmented = self.longest_packet(&tuple, manner.dont_fragment) - headers;
        let one = match manner.dont_fragment {
            DontFragment::Want | DontFragment::Dont if piece_len.is_none() => longest,
            _ => unfragmented,
        };
        let len = piece_len.map_or(bytes.len(), |len| usize::from(len.get()).min(bytes.len()));
        let most = piece_len.map_or(longest, |len| longest.min(MAX_SEGMENTS * usize::from(len.get())));
        if len > one || bytes.len() > most {
            return Err(SendError::TooLong {
                len: if len > one { len } else { bytes.len() },
                limit: if len > one { one } else { most },
            });
        }
        let Some(socket) = self.udp.get_mut(id) else {
            return Err(SendError::NoSocket);
        };
        // One piece is a plain datagram.
        let piece_len = piece_len.filter(|piece| bytes.len() > usize::from(piece.get()));
        if !socket
            .to_send
            .push(&mut self.pool, ToSend { piece_len, ..to_send }, bytes)
        {
            socket.wants_room = true;
            return Err(SendError::WouldBlock);
        }
        if !socket.is_ready {
            socket.is_ready = true;
            self.ready.push_back(Ready::Udp(id));
        }
        let destination = tuple.remote().ip();
        let kind = match socket.last_destination {
            Some((last, kind)) if last == destination => kind,
            _ => self.table.host().kind(destination),
        };
        socket.last_destination = Some((destination, kind));
        let fields = manner.fields(destination, passed);
        let comes_back = match kind {
            AddressKind::Multicast => manner.multicast_loop,
            AddressKind::Broadcast => true,
            AddressKind::Wildcard | AddressKind::Local | AddressKind::Foreign => false,
        };
        if comes_back {
            let class = fields.dscp << 2 | fields.ecn;
            self.bring_back(&tuple, fields.hop_limit, class, bytes);
        }
        Ok(())
    }

    /// The longest packet that goes in one piece.
    fn longest_packet(&self, tuple: &FourTuple, policy: DontFragment) -> usize {
        match policy {
            DontFragment::Want | DontFragment::Do => self.path_mtu(self.last_now, tuple),
            DontFragment::Dont | DontFragment::Probe => self.config.mtu,
        }
    }

    /// Writes the next packet of a socket.
    pub(in super::super) fn transmit_udp(
        &mut self,
        now: Instant,
        id: UdpId,
        buffer: &mut [u8],
    ) -> Option<Transmit> {
        let (head, data_len, is_partway) = loop {
            let socket = self.udp.get_mut(id)?;
            let Some((&head, data_len)) = socket.to_send.first() else {
                socket.is_ready = false;
                return None;
            };
            let is_partway = socket.cut.is_some() || socket.segments_sent > 0;
            // The filter is asked once for a datagram, however many packets it takes.
            if is_partway
                || self
                    .filtering
                    .judge_datagram(now, Hook::Output, &head.tuple, self.table.host())
                    == Verdict::Accept
            {
                break (head, data_len, is_partway);
            }
            self.counters.filtered_out += 1;
            self.sent_whole(id);
        };
        let ToSend {
            tuple,
            piece_len,
            passed,
        } = head;
        let manner = self.udp.get(id)?.manner;
        let fields = manner.fields(tuple.remote().ip(), passed);
        let headers = ip_header_len(&tuple) + UdpDatagram::HEADER_LEN;
        let longest = self.longest_packet(&tuple, manner.dont_fragment);
        let transmit = if piece_len.is_some() && !self.config.udp_segmentation_offload {
            self.transmit_piece(now, id, head, data_len, fields, buffer)
        } else if piece_len.is_some() || !is_partway && headers + data_len <= longest {
            self.transmit_datagram(now, id, (0, data_len), head, fields, buffer)
        } else if manner.dont_fragment == DontFragment::Do {
            // The path became narrower while it waited.
            if let Some(socket) = self.udp.get_mut(id) {
                socket.error = Some(PathError::TooBig);
            }
            self.counters.datagrams_dropped += 1;
            self.sent_whole(id);
            self.tell_udp_socket(id, News::ERROR);
            None
        } else {
            self.transmit_fragment(id, &tuple, fields, data_len, longest, buffer)
        };
        self.ready.push_back(Ready::Udp(id));
        transmit
    }

    /// Writes all of the first datagram in the row, or a part of it as a datagram: one from an offset, of a length.
    fn transmit_datagram(
        &mut self,
        now: Instant,
        id: UdpId,
        (offset, len): (usize, usize),
        ToSend { tuple, piece_len, .. }: ToSend,
        fields: IpFields,
        buffer: &mut [u8],
    ) -> Option<Transmit> {
        let socket = self.udp.get_mut(id)?;
        let ip_len = ip_header_len(&tuple);
        let transport_len = UdpDatagram::HEADER_LEN + len;
        let packet = buffer.get_mut(..ip_len + transport_len)?;
        let (ip, transport) = packet.split_at_mut(ip_len);
        let (_, data) = transport.split_at_mut(UdpDatagram::HEADER_LEN);
        socket.to_send.copy_part(offset, data);
        let is_super = offset == 0 && piece_len.is_some_and(|piece| len > usize::from(piece.get()));
        if offset == 0 && (piece_len.is_none() || is_super) {
            self.sent_whole(id);
        }
        // A device that cuts makes the checksums as well.
        let is_partial = self.config.checksum_offload || is_super;
        let fill = match PseudoHeader::new(tuple.local().ip(), tuple.remote().ip()) {
            Some(pseudo) if is_partial => ChecksumFill::Partial(pseudo),
            Some(pseudo) => ChecksumFill::Complete(pseudo),
            None => ChecksumFill::Zero,
        };
        let header = UdpRepr {
            source_port: Port::new(tuple.local().port()),
            destination_port: Port::new(tuple.remote().port()),
        };
        header
            .emit(transport, fill)
            .expect("the length was checked when the datagram was queued");
        self.emit_ip(now, &tuple, fields, transport_len, ip);
        let checksum = if is_partial {
            PacketChecksum::Partial
        } else {
            PacketChecksum::Complete
        };
        Some(Transmit {
            len: ip_len + transport_len,
            offload: Offload {
                checksum,
                piece_len: piece_len.filter(|_| is_super),
            },
        })
    }

    /// Writes the next of several datagrams that no device cuts.
    fn transmit_piece(
        &mut self,
        now: Instant,
        id: UdpId,
        head: ToSend,
        data_len: usize,
        fields: IpFields,
        buffer: &mut [u8],
    ) -> Option<Transmit> {
        let socket = self.udp.get_mut(id)?;
        let offset = socket.segments_sent;
        let piece = head.piece_len.map_or(data_len, |piece| piece.get().into());
        let len = piece.min(data_len - offset);
        socket.segments_sent += len;
        let is_last = socket.segments_sent == data_len;
        let transmit = self.transmit_datagram(now, id, (offset, len), head, fields, buffer);
        if is_last {
            self.sent_whole(id);
        }
        transmit
    }

    /// Writes the next fragment of the first datagram in the row.
    fn transmit_fragment(
        &mut self,
        id: UdpId,
        tuple: &FourTuple,
        fields: IpFields,
        data_len: usize,
        longest: usize,
        buffer: &mut [u8],
    ) -> Option<Transmit> {
        let mut cut = match self.udp.get(id)?.cut {
            Some(cut) => cut,
            None => {
                let identification = self.next_fragment_id(tuple);
                let row = &self.udp.get(id)?.to_send;
                let header = udp_header(tuple, data_len, |offset, out| row.copy_part(offset, out));
                Cut::new(header, identification, longest)
            }
        };
        let socket = self.udp.get_mut(id)?;
        let copy = |offset, out: &mut [u8]| socket.to_send.copy_part(offset, out);
        let (len, is_last) = cut.write_next(tuple, fields, data_len, copy, buffer);
        socket.cut = Some(cut);
        self.counters.fragments_out += 1;
        if is_last {
            self.sent_whole(id);
        }
        Some(Transmit {
            len,
            offload: Offload::default(),
        })
    }

    /// The first datagram in the row is sent.
    fn sent_whole(&mut self, id: UdpId) {
        let Some(socket) = self.udp.get_mut(id) else {
            return;
        };
        socket.to_send.pop(&mut self.pool);
        socket.cut = None;
        socket.segments_sent = 0;
        if socket.wants_room && socket.to_send.is_half_empty() {
            socket.wants_room = false;
            self.tell_udp_socket(id, News::ROOM);
        }
    }
}

/// The header of a datagram whose data `copy` copies from an offset.
fn udp_header(tuple: &FourTuple, data_len: usize, copy: impl FnMut(usize, &mut [u8])) -> [u8; 8] {
    let len = (UdpDatagram::HEADER_LEN + data_len) as u16;
    let [a, b] = tuple.local().port().to_be_bytes();
    let [c, d] = tuple.remote().port().to_be_bytes();
    let [e, f] = len.to_be_bytes();
    let mut header = [a, b, c, d, e, f, 0, 0];
    let pseudo = PseudoHeader::new(tuple.local().ip(), tuple.remote().ip());
    let pseudo = pseudo.map(|pseudo| (pseudo, IpProtocol::UDP));
    // RFC 768: 0 would mean that there is none.
    let sum = match checksum_of(pseudo, &header, data_len, copy) {
        0 => 0xFFFF,
        sum => sum,
    };
    header[6..].copy_from_slice(&sum.to_be_bytes());
    header
}
