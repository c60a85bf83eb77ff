//! UDP (RFC 768): sockets that send and receive datagrams.
//!
//! ```text
//!   take_udp ─▶ demultiplex ─┬▶ one socket ─▶ its row ─┐
//!                            └▶ many: kept once ───────┴▶ receive_datagram
//!   send_datagram ─▶ its row ─▶ transmit_udp ─▶ whole, in fragments, in segments, or as a super-datagram
//!   ICMP error ─▶ take_udp_news ─▶ the next call's error, and a queue if asked for
//! ```

mod latest;
mod news;
mod options;
mod receive;
mod send;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bitflags::bitflags;
use ipnet::IpNet;
use portolan_core::demux::FourTuple;
use portolan_core::table::{
    self, AddressKind, Addresses, BindError, Close, Family, PortChoice, Scope, ScopeError, SetError,
    SocketId, SocketOption, Transport,
};
use portolan_core::wire::IpProtocol;
use thiserror::Error;

use self::options::Manner;
use super::cut::Cut;
use super::listing::{SocketHandle, SocketInfo, SocketState};
use super::{ConnectError, Holder, NoSocket, Stack, UdpId};
use crate::PathError;
use crate::buffer::Datagrams;
use crate::tcp::State;

pub(super) use self::latest::LatestFlows;
pub(super) use self::news::ErrorQueue;
pub use self::news::UdpError;
pub use self::options::{DontFragment, HeaderFields, UdpOption};
pub(super) use self::receive::Received;
use self::receive::drop_received;
pub use self::receive::{Datagram, ReceiveError};
pub use self::send::SendError;
use self::send::ToSend;

/// A UDP socket.
#[derive(Debug)]
pub(super) struct UdpSocket {
    socket: SocketId,
    /// The port it has; the address may be a wildcard.
    local: SocketAddr,
    /// Both ends, once it is connected.
    peer: Option<FourTuple>,
    manner: Manner,
    received: Datagrams<Received>,
    to_send: Datagrams<ToSend>,
    /// The first datagram of those, if a part of it went: as fragments, or as segments up to there.
    cut: Option<Cut>,
    segments_sent: usize,
    is_ready: bool,
    /// What the next call is told.
    error: Option<PathError>,
    errors: ErrorQueue,
    /// What the program is to be told.
    pub(super) news: News,
    /// Whether a notice says so.
    pub(super) is_noticed: bool,
    /// A datagram found no room.
    wants_room: bool,
    /// Where the last datagram went, and what that address is to the host, whose addresses do not change.
    last_destination: Option<(IpAddr, AddressKind)>,
}

bitflags! {
    /// What happened to a socket.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct News: u8 {
        const DATAGRAMS = 1;
        const ERROR = 1 << 1;
        const ROOM = 1 << 2;
    }
}

/// Why a UDP socket was not opened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address or the port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An option cannot be set.
    #[error(transparent)]
    Set(#[from] SetError),
}

impl Stack {
    /// The UDP sockets, for a list of all.
    pub(super) fn udp_sockets(&self) -> impl Iterator<Item = SocketInfo> {
        self.udp.iter().map(|(id, socket)| {
            let state = match socket.peer {
                // The kernel's name of a UDP socket that is connected.
                Some(_) => SocketState::Connected(State::Established),
                None => SocketState::Unconnected,
            };
            SocketInfo {
                handle: Some(SocketHandle::Udp(id)),
                remote: socket.peer.map(|peer| peer.remote()),
                scope: self.table.scope(socket.socket),
                receive_queue: socket.received.len_bytes(),
                send_queue: socket.to_send.len_bytes(),
                ..SocketInfo::new(IpProtocol::UDP, state, socket.local)
            }
        })
    }

    /// Opens a UDP socket on a socket address; port 0 means any free one.
    ///
    /// # Errors
    /// [`BindError`], after which nothing is held.
    pub fn bind_udp(&mut self, local: SocketAddr) -> Result<UdpId, BindError> {
        let socket = self.new_udp(local);
        self.finish_bind(socket, local)
    }

    /// The same with options that count when the port is taken: sharing it, IPv6 alone, one device.
    ///
    /// # Errors
    /// [`OpenError`], after which nothing is held.
    pub fn bind_udp_with(&mut self, local: SocketAddr, options: &[SocketOption]) -> Result<UdpId, OpenError> {
        let socket = self.new_udp(local);
        for &option in options {
            if let Err(error) = self.table.set(socket, option) {
                self.give_up(socket, Close::Gone);
                return Err(error.into());
            }
        }
        Ok(self.finish_bind(socket, local)?)
    }

    /// Opens a UDP socket for a [`Scope`]: a range of ports, a prefix, or every destination there is. Each datagram
    /// tells where it was sent to, and [`Stack::send_datagram_from`] answers from there.
    ///
    /// # Errors
    /// [`ScopeError`], after which nothing is held.
    pub fn bind_udp_for(&mut self, scope: Scope) -> Result<UdpId, ScopeError> {
        let socket = self.new_scoped(Transport::Udp, scope)?;
        let any = match scope.addresses {
            Addresses::Prefix(IpNet::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Addresses::Prefix(IpNet::V6(_)) | Addresses::Own | Addresses::Every => {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            }
        };
        Ok(self.insert_udp(socket, SocketAddr::new(any, 0)))
    }

    /// Connects a UDP socket: from now on it hears `remote` alone, and of errors on the way there. `source` is the
    /// address to send from, for a socket on a wildcard. A connected socket may be connected again.
    ///
    /// # Errors
    /// [`ConnectError`], after which the socket is as it was.
    pub fn connect_udp(&mut self, id: UdpId, source: IpAddr, remote: SocketAddr) -> Result<(), ConnectError> {
        let no_socket = ConnectError::Connect(table::NoSuchSocket.into());
        let socket = self.udp.get_mut(id).ok_or(no_socket)?;
        if self.table.scope(socket.socket).is_some() {
            return Err(table::ConnectError::AlreadyConnected.into());
        }
        let source = if socket.local.ip().is_unspecified() {
            source
        } else {
            socket.local.ip()
        };
        if source.is_unspecified() {
            return Err(ConnectError::NoSource { local: source });
        }
        let port = self
            .table
            .connect(socket.socket, remote, source, PortChoice::Any)?;
        let remote = self.table.remote(socket.socket).ok().flatten().unwrap_or(remote);
        let local = SocketAddr::new(source, port.get());
        socket.peer = FourTuple::new(local, remote);
        socket.error = None;
        Ok(())
    }

    /// Makes a connected UDP socket hear everybody again. As in Linux an automatic port is given back; there is a new
    /// one at once.
    ///
    /// # Errors
    /// [`BindError`] if there is no such socket, or no port; then it cannot send until it is connected again.
    pub fn disconnect_udp(&mut self, id: UdpId) -> Result<(), BindError> {
        let socket = self.udp.get_mut(id).ok_or(table::NoSuchSocket)?;
        if socket.peer.take().is_some() {
            self.table.disconnect(socket.socket)?;
            socket.local = self.table.local(socket.socket)?;
            if socket.local.port() == 0 {
                let port = self.table.bind(socket.socket, socket.local, PortChoice::Any)?;
                socket.local.set_port(port.get());
            }
        }
        Ok(())
    }

    /// Closes a UDP socket: its port is free at once, and what waits is lost.
    ///
    /// # Errors
    /// If there is no such socket.
    pub fn close_udp(&mut self, id: UdpId) -> Result<(), NoSocket> {
        let mut socket = self.udp.remove(id).ok_or(NoSocket)?;
        while let Some((&received, _)) = socket.received.first() {
            drop_received(&mut self.pool, &mut self.shared, &mut socket.received, received);
        }
        socket.to_send.clear(&mut self.pool);
        self.give_up(socket.socket, Close::Gone);
        Ok(())
    }

    /// The socket address of a UDP socket; of a connected one, the address that it sends from.
    #[must_use]
    pub fn udp_local(&self, id: UdpId) -> Option<SocketAddr> {
        let socket = self.udp.get(id)?;
        Some(socket.peer.map_or(socket.local, |peer| peer.local()))
    }

    /// Whom a UDP socket is connected to.
    #[must_use]
    pub fn udp_remote(&self, id: UdpId) -> Option<SocketAddr> {
        Some(self.udp.get(id)?.peer?.remote())
    }

    fn new_udp(&mut self, local: SocketAddr) -> SocketId {
        let family = if local.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        };
        self.table.socket(Transport::Udp, family, self.config.owner)
    }

    fn finish_bind(&mut self, socket: SocketId, local: SocketAddr) -> Result<UdpId, BindError> {
        match self.table.bind(socket, local, PortChoice::Any) {
            Ok(port) => Ok(self.insert_udp(socket, SocketAddr::new(local.ip(), port.get()))),
            Err(error) => {
                self.give_up(socket, Close::Gone);
                Err(error)
            }
        }
    }

    fn insert_udp(&mut self, socket: SocketId, local: SocketAddr) -> UdpId {
        let id = self.udp.insert(UdpSocket {
            socket,
            local,
            peer: None,
            manner: Manner::default(),
            received: Datagrams::new(self.config.udp_buffer),
            to_send: Datagrams::new(self.config.udp_buffer),
            cut: None,
            segments_sent: 0,
            is_ready: false,
            error: None,
            errors: ErrorQueue::default(),
            news: News::empty(),
            is_noticed: false,
            wants_room: false,
            last_destination: None,
        });
        self.hold(socket, Holder::Udp(id));
        id
    }
}
