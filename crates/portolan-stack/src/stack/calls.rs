//! What programs call.

use std::net::{IpAddr, SocketAddr};

use portolan_core::demux::FourTuple;
use portolan_core::table::{self, Close, Family, PortChoice, SocketId, Transport};
use thiserror::Error;

use super::listener::Listener;
use super::{ConnectionId, Entry, Holder, ListenerId, Stack};
use crate::Instant;
use crate::tcp::{Connection, ConnectionInfo, Cx, Happened, Opening, ReadError, WriteError};

/// Why a stack does not listen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address or the port cannot be had.
    #[error(transparent)]
    Bind(#[from] table::BindError),
    /// Another listener is in the way.
    #[error(transparent)]
    Listen(#[from] table::ListenError),
}

/// Why a connection was not begun.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The local address or port cannot be had.
    #[error(transparent)]
    Bind(#[from] table::BindError),
    /// The remote cannot be reached from there.
    #[error(transparent)]
    Connect(#[from] table::ConnectError),
    /// The local address is a wildcard, and the stack knows no routes to choose one by.
    #[error("{local} names no address to connect from; give one of this host's")]
    NoSource {
        /// The local address that was given.
        local: IpAddr,
    },
}

/// The handle is of no connection: it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such connection; it was closed")]
pub struct NoConnection;

/// The handle is of no socket: it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such socket; it was closed")]
pub struct NoSocket;

impl Stack {
    /// Listens on a socket address; port 0 means any free one. At most `backlog` + 1 connections wait to be
    /// accepted, and as many to be established; `backlog` is at most 4096.
    ///
    /// # Errors
    /// [`ListenError`], after which nothing is held.
    pub fn listen(&mut self, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        let socket = self.new_socket(local);
        let bound = self
            .table
            .bind(socket, local, PortChoice::Any)
            .map_err(ListenError::from);
        let listening = bound.and_then(|_| Ok(self.table.listen(socket, PortChoice::Any)?));
        if let Err(error) = listening {
            self.give_up(socket, Close::Gone);
            return Err(error);
        }
        let id = self.listeners.insert(Listener::new(socket, backlog));
        self.hold(socket, Holder::Listener(id));
        Ok(id)
    }

    /// Begins a connection from `local`, whose port may be 0 for an automatic one, to `remote`. The events
    /// [`Connected`](crate::Event::Connected) or [`Closed`](crate::Event::Closed) tell how it went; data may be
    /// written before.
    ///
    /// # Errors
    /// [`ConnectError`], after which nothing is held.
    pub fn connect(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<ConnectionId, ConnectError> {
        if local.ip().is_unspecified() {
            return Err(ConnectError::NoSource { local: local.ip() });
        }
        self.table.advance(now.since(Instant::START).into());
        let socket = self.new_socket(local);
        let tuple = self.take_tuple(socket, local, remote).inspect_err(|_| {
            self.give_up(socket, Close::Gone);
        })?;
        let opening = self.opening(&tuple, now);
        let cx = Cx {
            now,
            config: &self.config.tcp,
            pool: &mut self.pool,
        };
        let connection = Connection::connect(&cx, opening);
        let id = self.insert(socket, tuple, connection, None);
        self.settle(now, id);
        Ok(id)
    }

    /// The connection that waits longest at a listener, or `None` if none does.
    pub fn accept(&mut self, listener: ListenerId) -> Option<ConnectionId> {
        loop {
            let id = self.listeners.get_mut(listener)?.pop()?;
            let Some(entry) = self.connections.get_mut(id) else {
                continue;
            };
            entry.listener = None;
            // What the program learns by accepting it is no news; what came since is.
            entry.pending -= Happened::CONNECTED;
            self.notice(id);
            return Some(id);
        }
    }

    /// Puts bytes into the send buffer, as many as there is room for, and says how many.
    ///
    /// # Errors
    /// [`WriteError::WouldBlock`] if there is no room at all; others if there never will be.
    pub fn write(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) -> Result<usize, WriteError> {
        self.with_connection(now, id, |connection, cx| connection.write(cx, bytes))
            .unwrap_or(Err(WriteError::NoConnection))
    }

    /// Takes bytes that came, in order, and says how many; 0 means that the peer has finished.
    ///
    /// # Errors
    /// [`ReadError::WouldBlock`] if nothing is there yet; others if nothing will come.
    pub fn read(&mut self, now: Instant, id: ConnectionId, out: &mut [u8]) -> Result<usize, ReadError> {
        self.with_connection(now, id, |connection, cx| connection.read(cx, out))
            .unwrap_or(Err(ReadError::NoConnection))
    }

    /// Says that nothing more will be written: a FIN follows what was. The other direction stays open.
    ///
    /// # Errors
    /// If there is no such connection.
    pub fn finish(&mut self, now: Instant, id: ConnectionId) -> Result<(), NoConnection> {
        self.with_connection(now, id, |connection, _| connection.finish())
            .ok_or(NoConnection)
    }

    /// Lets go of a connection: the handle means nothing from here on. What was written is still delivered; if
    /// something was not read, or comes later, the peer gets a RST (RFC 9293, section 3.6.1).
    ///
    /// # Errors
    /// If there is no such connection.
    pub fn close(&mut self, now: Instant, id: ConnectionId) -> Result<(), NoConnection> {
        self.with_connection(now, id, |connection, cx| connection.release(cx))
            .ok_or(NoConnection)
    }

    /// Ends a connection with a RST. The handle stays valid until [`Stack::close`].
    ///
    /// # Errors
    /// If there is no such connection.
    pub fn abort(&mut self, now: Instant, id: ConnectionId) -> Result<(), NoConnection> {
        self.with_connection(now, id, |connection, cx| connection.abort(cx))
            .ok_or(NoConnection)
    }

    /// Stops listening. Connections that wait to be accepted are reset; the port is free at once.
    pub fn close_listener(&mut self, now: Instant, listener: ListenerId) {
        let Some(mut closed) = self.listeners.remove(listener) else {
            return;
        };
        self.give_up(closed.socket, Close::Gone);
        while let Some(id) = closed.pop() {
            self.with_connection(now, id, |connection, cx| {
                connection.abort(cx);
                connection.release(cx);
            });
        }
    }

    /// Sends small segments at once, or holds them back while others are unacknowledged (`TCP_NODELAY`).
    ///
    /// # Errors
    /// If there is no such connection.
    pub fn set_no_delay(
        &mut self,
        now: Instant,
        id: ConnectionId,
        no_delay: bool,
    ) -> Result<(), NoConnection> {
        self.with_connection(now, id, |connection, _| connection.set_no_delay(no_delay))
            .ok_or(NoConnection)
    }

    /// Figures of a connection.
    #[must_use]
    pub fn info(&self, id: ConnectionId) -> Option<ConnectionInfo> {
        self.connections.get(id).map(|entry| entry.connection.info())
    }

    /// Both ends of a connection.
    #[must_use]
    pub fn four_tuple(&self, id: ConnectionId) -> Option<FourTuple> {
        self.connections.get(id).map(|entry| entry.tuple)
    }

    /// The socket address of a listener.
    #[must_use]
    pub fn local(&self, listener: ListenerId) -> Option<SocketAddr> {
        let socket = self.listeners.get(listener)?.socket;
        self.table.local(socket).ok()
    }

    fn new_socket(&mut self, local: SocketAddr) -> SocketId {
        let family = if local.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        };
        self.table.socket(Transport::Tcp, family, self.config.owner)
    }

    fn take_tuple(
        &mut self,
        socket: SocketId,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<FourTuple, ConnectError> {
        if local.port() != 0 {
            self.table.bind(socket, local, PortChoice::Any)?;
        }
        let port = self.table.connect(socket, remote, local.ip(), PortChoice::Any)?;
        // A connect to a wildcard means this host: the table has the address that it became.
        let remote = self.table.remote(socket).ok().flatten().unwrap_or(remote);
        FourTuple::new(SocketAddr::new(local.ip(), port.get()), remote)
            .ok_or_else(|| ConnectError::NoSource { local: local.ip() })
    }

    /// What a connection with this four-tuple begins with.
    pub(super) fn opening(&self, tuple: &FourTuple, now: Instant) -> Opening {
        Opening {
            iss: self.secrets.initial_sequence_number(tuple, now),
            mss: self.link_mss(tuple),
            timestamp_offset: self.secrets.timestamp_offset(tuple),
        }
    }

    /// Enters a new connection.
    pub(super) fn insert(
        &mut self,
        socket: SocketId,
        tuple: FourTuple,
        connection: Connection,
        listener: Option<ListenerId>,
    ) -> ConnectionId {
        let id = self.connections.insert(Box::new(Entry {
            connection,
            tuple,
            socket: Some(socket),
            listener,
            half_open: listener.is_some(),
            is_ready: false,
            is_noticed: false,
            pending: Happened::empty(),
        }));
        self.hold(socket, Holder::Connection(id));
        id
    }

    /// Gives a socket back to the table.
    pub(super) fn give_up(&mut self, socket: SocketId, how: Close) {
        let closed = self.table.close(socket, how);
        debug_assert!(closed.is_ok(), "the stack closes a socket once");
        if let Some(holder) = self.holders.get_mut(socket.place()) {
            *holder = Holder::Nobody;
        }
    }
}
