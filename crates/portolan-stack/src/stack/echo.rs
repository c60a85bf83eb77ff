//! ICMP echo sockets: what `ping` needs.
//!
//! ```text
//!   send_echo ─▶ request ─▶ link     link ─▶ reply ─▶ by its identifier ─▶ receive_echo
//!                                    link ─▶ error ─▶ by the request quoted ─▶ next_echo_error
//! ```
//!
//! As with Linux's ping sockets, identifiers are like ports of a number space of their own: each is one socket's.

use std::net::{IpAddr, SocketAddr};

use portolan_core::demux::FourTuple;
use portolan_core::table::AddressKind;
use portolan_core::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, IpPacket, IpProtocol};
use thiserror::Error;

use super::events::Notice;
use super::icmp::Control;
use super::listing::{SocketHandle, SocketInfo, SocketState};
use super::output::ip_header_len;
use super::udp::ErrorQueue;
use super::{EchoId, HeaderFields, NoSocket, SendError, Stack, UdpError};
use crate::buffer::Datagrams;
use crate::tcp::HOP_LIMIT;

/// The longest IP packet.
const LONGEST: usize = 65_535;
/// ICMP and ICMPv6 echo request.
const REQUEST_V4: u8 = 8;
const REQUEST_V6: u8 = 128;

/// An echo socket.
#[derive(Debug)]
pub(super) struct EchoSocket {
    local: IpAddr,
    identifier: u16,
    hop_limit: u8,
    received: Datagrams<Echo>,
    errors: ErrorQueue,
    pub(super) is_noticed: bool,
}

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Echo {
    /// Where it was sent to.
    pub local: IpAddr,
    /// Who answered.
    pub remote: IpAddr,
    /// To which request.
    pub sequence: u16,
    /// How many bytes of data it has. If that is more than the buffer took, the rest is lost.
    pub len: usize,
    /// How many more routers it might have passed.
    pub hop_limit: u8,
}

/// An ICMP error about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EchoError {
    /// About which request.
    pub sequence: u16,
    /// What it says, who says it, and where the request went to (the port is the sequence number).
    pub error: UdpError,
}

/// Why an echo socket was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BindEchoError {
    /// The address is not this host's.
    #[error("{0} is no address of this host")]
    NotLocal(IpAddr),
    /// Another socket has the identifier.
    #[error("the ICMP echo identifier {0} is taken; 0 asks for a free one")]
    InUse(u16),
    /// Every identifier is taken.
    #[error("no ICMP echo identifier is free")]
    Exhausted,
}

impl Stack {
    /// Opens an ICMP echo socket on an address, which may be a wildcard; identifier 0 means any free one.
    ///
    /// # Errors
    /// [`BindEchoError`], after which nothing is held.
    pub fn bind_echo(&mut self, local: IpAddr, identifier: u16) -> Result<EchoId, BindEchoError> {
        match self.table.host().kind(local) {
            AddressKind::Wildcard | AddressKind::Local => {}
            AddressKind::Broadcast | AddressKind::Multicast | AddressKind::Foreign => {
                return Err(BindEchoError::NotLocal(local));
            }
        }
        let is_taken = |identifier| {
            self.echo_by_identifier
                .contains_key(&(local.is_ipv4(), identifier))
        };
        let identifier = if identifier == 0 {
            let start = self.secrets.echo_identifier(self.echoes_bound);
            let mut candidates = (0..=u16::MAX).map(|step| start.wrapping_add(step));
            candidates
                .find(|&candidate| candidate != 0 && !is_taken(candidate))
                .ok_or(BindEchoError::Exhausted)?
        } else if is_taken(identifier) {
            return Err(BindEchoError::InUse(identifier));
        } else {
            identifier
        };
        self.echoes_bound = self.echoes_bound.wrapping_add(1);
        let id = self.echo.insert(EchoSocket {
            local,
            identifier,
            hop_limit: HOP_LIMIT,
            received: Datagrams::new(self.config.udp_buffer),
            errors: ErrorQueue::default(),
            is_noticed: false,
        });
        self.echo_by_identifier.insert((local.is_ipv4(), identifier), id);
        Ok(id)
    }

    /// Asks `remote` for an echo of `data`, from the address `source`. A long request goes in fragments.
    ///
    /// # Errors
    /// [`SendError`], after which nothing was sent.
    pub fn send_echo(
        &mut self,
        id: EchoId,
        source: IpAddr,
        remote: IpAddr,
        sequence: u16,
        data: &[u8],
    ) -> Result<(), SendError> {
        let socket = self.echo.get(id).ok_or(SendError::NoSocket)?;
        let identifier = socket.identifier;
        let fields = HeaderFields {
            hop_limit: socket.hop_limit,
            ..HeaderFields::default()
        };
        let wrong = SendError::WrongSource {
            source_address: source,
            destination: SocketAddr::new(remote, 0),
        };
        let may_send = socket.local == source || socket.local.is_unspecified();
        let is_own = self.table.host().kind(source) == AddressKind::Local;
        if !may_send || !is_own || source.is_ipv4() != socket.local.is_ipv4() {
            return Err(wrong);
        }
        let ends = (SocketAddr::new(source, 0), SocketAddr::new(remote, 0));
        let tuple = FourTuple::new(ends.0, ends.1).ok_or(wrong)?;
        let limit = longest_echo(&tuple);
        if data.len() > limit {
            return Err(SendError::TooLong {
                len: data.len(),
                limit,
            });
        }
        let message = if source.is_ipv4() {
            Control::V4(Icmpv4Message::EchoRequest { identifier, sequence })
        } else {
            Control::V6(Icmpv6Message::EchoRequest { identifier, sequence })
        };
        if self.queue_control(tuple, message, fields, data) {
            Ok(())
        } else {
            Err(SendError::WouldBlock)
        }
    }

    /// Takes the next reply, as much of its data as fits into `out`; `None` if there is none.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn receive_echo(&mut self, id: EchoId, out: &mut [u8]) -> Result<Option<Echo>, NoSocket> {
        let socket = self.echo.get_mut(id).ok_or(NoSocket)?;
        let first = socket.received.first().map(|(&echo, _)| echo);
        socket.received.copy_first(out);
        socket.received.pop(&mut self.pool);
        Ok(first)
    }

    /// The next ICMP error about a request of this socket.
    pub fn next_echo_error(&mut self, id: EchoId) -> Option<EchoError> {
        let error = self.echo.get_mut(id)?.errors.pop()?;
        Some(EchoError {
            sequence: error.remote.port(),
            error,
        })
    }

    /// Sets how many routers a request may pass; 64 at first.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn set_echo_hop_limit(&mut self, id: EchoId, hop_limit: u8) -> Result<(), NoSocket> {
        self.echo.get_mut(id).ok_or(NoSocket)?.hop_limit = hop_limit;
        Ok(())
    }

    /// The echo sockets, for a list of all.
    pub(super) fn echo_sockets(&self) -> impl Iterator<Item = SocketInfo> {
        self.echo.iter().map(|(id, socket)| {
            let protocol = match socket.local {
                IpAddr::V4(_) => IpProtocol::ICMP,
                IpAddr::V6(_) => IpProtocol::ICMPV6,
            };
            let local = SocketAddr::new(socket.local, socket.identifier);
            SocketInfo {
                handle: Some(SocketHandle::Echo(id)),
                receive_queue: socket.received.len_bytes(),
                ..SocketInfo::new(protocol, SocketState::Unconnected, local)
            }
        })
    }

    /// The address and the identifier of an echo socket.
    #[must_use]
    pub fn echo_local(&self, id: EchoId) -> Option<(IpAddr, u16)> {
        self.echo.get(id).map(|socket| (socket.local, socket.identifier))
    }

    /// Closes an echo socket: its identifier is free at once, and what waits is lost.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn close_echo(&mut self, id: EchoId) -> Result<(), NoSocket> {
        let mut socket = self.echo.remove(id).ok_or(NoSocket)?;
        socket.received.clear(&mut self.pool);
        self.echo_by_identifier
            .remove(&(socket.local.is_ipv4(), socket.identifier));
        Ok(())
    }

    /// The socket that asked for this, if it is a reply to one.
    pub(super) fn asker(&self, message: &Control, ip: &IpPacket<'_>) -> Option<(EchoId, u16)> {
        let (Control::V4(Icmpv4Message::EchoReply { identifier, sequence })
        | Control::V6(Icmpv6Message::EchoReply { identifier, sequence })) = *message
        else {
            return None;
        };
        Some((self.echo_socket(ip.destination(), identifier)?, sequence))
    }

    /// Puts a reply to its socket.
    pub(super) fn take_echo_reply(&mut self, id: EchoId, sequence: u16, ip: &IpPacket<'_>) {
        let data = &ip.payload()[Icmpv4Packet::HEADER_LEN..];
        let echo = Echo {
            local: ip.destination(),
            remote: ip.source(),
            sequence,
            len: data.len(),
            hop_limit: hop_limit(ip),
        };
        let Some(socket) = self.echo.get_mut(id) else {
            return;
        };
        if socket.received.push(&mut self.pool, echo, data) {
            self.tell_echo(id);
        } else {
            self.counters.datagrams_dropped += 1;
        }
    }

    /// The socket and the sequence number of a request that an ICMP error quotes.
    pub(super) fn quoted_asker(&self, quoted: &IpPacket<'_>) -> Option<(EchoId, u16)> {
        let &[kind, code, _, _, a, b, c, d] = quoted.payload().first_chunk()?;
        let is_request = match quoted {
            IpPacket::V4(_) => kind == REQUEST_V4,
            IpPacket::V6(_) => kind == REQUEST_V6,
        };
        if !is_request || code != 0 || quoted.fragment_offset() != 0 {
            return None;
        }
        let id = self.echo_socket(quoted.source(), u16::from_be_bytes([a, b]))?;
        Some((id, u16::from_be_bytes([c, d])))
    }

    /// Notes an error about a request.
    pub(super) fn take_echo_error(&mut self, id: EchoId, error: UdpError) {
        if let Some(socket) = self.echo.get_mut(id) {
            socket.errors.push(error);
            self.tell_echo(id);
        }
    }

    fn echo_socket(&self, local: IpAddr, identifier: u16) -> Option<EchoId> {
        let &id = self.echo_by_identifier.get(&(local.is_ipv4(), identifier))?;
        let bound = self.echo.get(id)?.local;
        (bound == local || bound.is_unspecified()).then_some(id)
    }

    fn tell_echo(&mut self, id: EchoId) {
        if let Some(socket) = self.echo.get_mut(id)
            && !socket.is_noticed
        {
            socket.is_noticed = true;
            self.notices.push_back(Notice::Echo(id));
        }
    }
}

/// How much data an echo packet can have.
pub(super) fn longest_echo(tuple: &FourTuple) -> usize {
    let counted = if tuple.local().is_ipv4() {
        ip_header_len(tuple)
    } else {
        0
    };
    LONGEST - counted - Icmpv4Packet::HEADER_LEN
}

pub(super) fn hop_limit(ip: &IpPacket<'_>) -> u8 {
    match ip {
        IpPacket::V4(packet) => packet.time_to_live(),
        IpPacket::V6(packet) => packet.hop_limit(),
    }
}

pub(super) fn traffic_class(ip: &IpPacket<'_>) -> u8 {
    match ip {
        IpPacket::V4(packet) => packet.dscp() << 2 | packet.ecn(),
        IpPacket::V6(packet) => packet.dscp() << 2 | packet.ecn(),
    }
}
