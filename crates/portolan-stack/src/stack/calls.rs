//! What programs call.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use portolan_core::demux::FourTuple;
use portolan_core::table::{
    self, AddressKind, Close, Family, PortChoice, PortTable, Scope, ScopeError, SocketId, SocketOption,
    Transport,
};
use portolan_core::wire::SeqNum;
use thiserror::Error;

use super::entry::Entry;
use super::listener::Listener;
use super::waiting::WaitId;
use super::{ConnectionId, Holder, ListenerId, Stack};
use crate::Instant;
use crate::tcp::{
    CloseReason, Connection, ConnectionInfo, ConnectionStats, Cx, Happened, Opening, ReadError, SendFlags,
    TcpConfig, WriteError,
};

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
    /// The scope cannot be had.
    #[error(transparent)]
    Scope(#[from] ScopeError),
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
    /// The local address is a wildcard or of many hosts, and the stack knows no routes to choose one by.
    #[error("{local} names no address to connect from; give one of this host's")]
    NoSource {
        /// The local address that was given.
        local: IpAddr,
    },
}

/// How a connection is to be begun.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions<'a> {
    /// The automatic port, if the local end names none: for those who share out the flows of a host over several
    /// stacks.
    pub port: PortChoice,
    /// Allow a local address that is not this host's: a proxy keeps its client's (`IP_TRANSPARENT`). Answers to it must
    /// come back to this host. Of such an address nothing is claimed but the four-tuple. One that waits after an earlier
    /// connection is taken over if both have timestamps (RFC 6191).
    pub transparent: bool,
    /// How the connection behaves, if not as the stack's do.
    pub config: Option<&'a TcpConfig>,
}

impl Default for ConnectOptions<'_> {
    fn default() -> Self {
        Self {
            port: PortChoice::Any,
            transparent: false,
            config: None,
        }
    }
}

/// The handle is of no connection: it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such connection; it was closed")]
pub struct NoConnection;

/// The handle is of no socket: it was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such socket; it was closed")]
pub struct NoSocket;

/// How far beyond the last number of the connection before a new one with the same four-tuple begins, as in Linux: beyond
/// any window without scaling.
const TAKEOVER_STEP: u32 = 65_537;

impl Stack {
    /// Listens on a socket address; port 0 means any free one. At most `backlog` + 1 connections wait to be
    /// accepted, and as many to be established; `backlog` is at most 4096.
    ///
    /// # Errors
    /// [`ListenError`], after which nothing is held.
    pub fn listen(&mut self, local: SocketAddr, backlog: usize) -> Result<ListenerId, ListenError> {
        let socket = self.new_socket(local);
        // As every server does: connections of an earlier listener do not keep a new one from the port.
        let reused = self.table.set(socket, SocketOption::ReuseAddress(true));
        debug_assert!(reused.is_ok(), "the socket is new: {reused:?}");
        let bound = self
            .table
            .bind(socket, local, PortChoice::Any)
            .map_err(ListenError::from);
        let listening = bound.and_then(|_| Ok(self.table.listen(socket, PortChoice::Any)?));
        if let Err(error) = listening {
            self.give_up(socket, Close::Gone);
            return Err(error);
        }
        Ok(self.insert_listener(socket, backlog))
    }

    /// Listens for a [`Scope`]: a range of ports, a prefix, or every destination there is. Connections have the address
    /// and port that the peer asked for: see [`Stack::four_tuple`]. `backlog` is as for [`Stack::listen`].
    ///
    /// # Errors
    /// [`ListenError`], after which nothing is held.
    pub fn listen_for(&mut self, scope: Scope, backlog: usize) -> Result<ListenerId, ListenError> {
        let socket = self.new_scoped(Transport::Tcp, scope)?;
        Ok(self.insert_listener(socket, backlog))
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
        self.connect_as(now, local, remote, ConnectOptions::default())
    }

    /// The same, where `choice` may tell the automatic port: for those who share out the flows of a host over
    /// several stacks. It is one of the range of automatic ports, and connections to other remotes may have it too.
    ///
    /// # Errors
    /// [`ConnectError`], after which nothing is held; also if the connection cannot have the port.
    pub fn connect_by(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        choice: PortChoice,
    ) -> Result<ConnectionId, ConnectError> {
        let options = ConnectOptions {
            port: choice,
            ..ConnectOptions::default()
        };
        self.connect_as(now, local, remote, options)
    }

    /// Begins a connection as [`Stack::connect`] does, with options.
    ///
    /// # Errors
    /// [`ConnectError`], after which nothing is held.
    pub fn connect_as(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        options: ConnectOptions<'_>,
    ) -> Result<ConnectionId, ConnectError> {
        let own = options.config;
        match self.table.host().kind(local.ip()) {
            AddressKind::Local | AddressKind::Foreign => {}
            AddressKind::Wildcard | AddressKind::Multicast | AddressKind::Broadcast => {
                return Err(ConnectError::NoSource { local: local.ip() });
            }
        }
        self.end_waits(now);
        let before = self.takeover(local, remote, &options);
        let socket = self.new_socket(local);
        let tuple = self
            .take_tuple(socket, local, remote, &options, before)
            .inspect_err(|_| {
                self.give_up(socket, Close::Gone);
            })?;
        let mut opening = self.opening(&tuple, now);
        if let Some((wait, snd_nxt)) = before {
            self.end_wait(wait);
            opening.iss = snd_nxt + TAKEOVER_STEP;
        }
        let cx = Cx {
            now,
            config: own.unwrap_or(&self.config.tcp),
            pool: &mut self.pool,
        };
        let mut connection = Connection::connect(&cx, opening);
        if let Some(own) = own {
            connection.configure(own);
        }
        let id = self.insert(now, socket, tuple, connection, None);
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

    /// Puts bytes into the send buffer by reference, as many as there is room for, takes them off the front of
    /// `chunk`, and says how many. They are not copied before they are written into a packet, and by
    /// [`Stack::poll_transmit_parts`] not at all.
    ///
    /// # Errors
    /// [`WriteError::WouldBlock`] if there is no room at all; others if there never will be.
    pub fn write_chunk(
        &mut self,
        now: Instant,
        id: ConnectionId,
        chunk: &mut Bytes,
    ) -> Result<usize, WriteError> {
        self.with_connection(now, id, |connection, cx| connection.write_chunk(cx, chunk))
            .unwrap_or(Err(WriteError::NoConnection))
    }

    /// Whether there is room to write; if there is none, [`Event::Writable`](crate::Event::Writable) comes once
    /// there is.
    ///
    /// # Errors
    /// [`WriteError::WouldBlock`] if there is no room; others if there never will be.
    pub fn poll_writable(&mut self, now: Instant, id: ConnectionId) -> Result<(), WriteError> {
        self.with_connection(now, id, |connection, cx| connection.room_to_write(cx, 1))
            .unwrap_or(Err(WriteError::NoConnection))
            .map(|_| ())
    }

    /// Takes at most `max` bytes that came, in order, as many as lie together: by reference if the packet came
    /// so ([`Stack::handle_packet_parts`]), else in a copy. An empty chunk means that the peer has finished.
    ///
    /// # Errors
    /// [`ReadError::WouldBlock`] if nothing is there yet; others if nothing will come.
    pub fn read_chunk(&mut self, now: Instant, id: ConnectionId, max: usize) -> Result<Bytes, ReadError> {
        self.with_connection(now, id, |connection, cx| connection.read_chunk(cx, max))
            .unwrap_or(Err(ReadError::NoConnection))
    }

    /// Shows bytes that came, in order, as many as lie together; none means that the peer has finished. They
    /// stay until [`Stack::consume`].
    ///
    /// # Errors
    /// [`ReadError::WouldBlock`] if nothing is there yet; others if nothing will come.
    pub fn peek(&self, id: ConnectionId) -> Result<&[u8], ReadError> {
        let entry = self.connections.get(id).ok_or(ReadError::NoConnection)?;
        // One that is asleep has nothing to be read.
        entry.awake().map_or(Err(ReadError::WouldBlock), Connection::peek)
    }

    /// Drops the first `len` bytes that came, or all that are there if there are fewer.
    pub fn consume(&mut self, now: Instant, id: ConnectionId, len: usize) {
        self.with_connection(now, id, |connection, cx| connection.consume(cx, len));
    }

    /// Puts bytes into the send buffer as Linux's `send(2)` does in one step: what makes up one burst at most, and with
    /// flags. Between the steps whatever can go should be sent: see [`Stack::poll_transmit`].
    ///
    /// The limit of the buffer counts some memory beside the bytes, and is passed by the burst that reaches it.
    ///
    /// # Errors
    /// [`WriteError::WouldBlock`] if there is no room at all; others if there never will be.
    pub fn send(
        &mut self,
        now: Instant,
        id: ConnectionId,
        bytes: &[u8],
        flags: SendFlags,
    ) -> Result<usize, WriteError> {
        self.with_connection(now, id, |connection, cx| connection.submit(cx, bytes, flags))
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

    /// Puts bytes into the send buffer as [`Stack::write`] does; if all of them find room, the last one is urgent
    /// (`MSG_OOB`), which the peer is told as soon as it is told anything.
    ///
    /// # Errors
    /// As [`Stack::write`].
    pub fn write_urgent(
        &mut self,
        now: Instant,
        id: ConnectionId,
        bytes: &[u8],
    ) -> Result<usize, WriteError> {
        self.with_connection(now, id, |connection, cx| connection.write_urgent(cx, bytes))
            .unwrap_or(Err(WriteError::NoConnection))
    }

    /// How many bytes are to be read before the one that the peer says is urgent: 0 if it is the next (`SIOCATMARK`);
    /// `None` if there is none. Urgent data stays in line, and may not have come yet.
    #[must_use]
    pub fn urgent_ahead(&self, id: ConnectionId) -> Option<usize> {
        // One that is asleep has nothing to be read.
        self.connections.get(id)?.awake()?.urgent_ahead()
    }

    /// Whether the program itself answers the keepalive probes of the peer: it is told by
    /// [`Event::Probed`](crate::Event::Probed), and asks [`Stack::take_probe`].
    ///
    /// # Errors
    /// If there is no such connection.
    pub fn hold_probes(&mut self, now: Instant, id: ConnectionId, holds: bool) -> Result<(), NoConnection> {
        self.with_connection(now, id, |connection, _| connection.hold_probes(holds))
            .ok_or(NoConnection)
    }

    /// Whether the peer asked since this was called last. It may be answered by [`Stack::answer_probe`]; what is not
    /// makes the peer give up, as if nobody were there.
    pub fn take_probe(&mut self, id: ConnectionId) -> bool {
        // One that is asleep was not asked.
        let connection = self.connections.get_mut(id).and_then(|entry| entry.awake_mut());
        connection.is_some_and(Connection::take_probe)
    }

    /// Tells the peer that somebody is there.
    ///
    /// # Errors
    /// If there is no such connection.
    pub fn answer_probe(&mut self, now: Instant, id: ConnectionId) -> Result<(), NoConnection> {
        self.with_connection(now, id, |connection, _| connection.answer_probe())
            .ok_or(NoConnection)
    }

    /// Says that nothing more will be written: a FIN follows what was. The other direction stays open.
    ///
    /// # Errors
    /// If there is no such connection.
    pub fn finish(&mut self, now: Instant, id: ConnectionId) -> Result<(), NoConnection> {
        self.with_connection(now, id, |connection, _| connection.finish())
            .ok_or(NoConnection)
    }

    /// Says that nothing more will be read (`SHUT_RD`): reading gives the end once all that came was read. As in Linux
    /// the peer is told nothing, and what it sends is still taken, until this side has finished too: then it is
    /// answered with a RST.
    ///
    /// # Errors
    /// If there is no such connection.
    pub fn shutdown_read(&mut self, now: Instant, id: ConnectionId) -> Result<(), NoConnection> {
        self.with_connection(now, id, |connection, _| connection.shut_reads())
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
        self.held.close_listener(listener);
        self.notice_syns();
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
        let entry = self.connections.get(id)?;
        Some(entry.look(Connection::info))
    }

    /// Why a connection is no more; `None` while it is. What came before can still be read.
    #[must_use]
    pub fn close_reason(&self, id: ConnectionId) -> Option<CloseReason> {
        self.connections.get(id)?.reason()
    }

    /// What was counted of a connection, if it counts: see [`TcpConfig::statistics`].
    #[must_use]
    pub fn statistics(&self, now: Instant, id: ConnectionId) -> Option<ConnectionStats> {
        self.connections.get(id)?.awake()?.statistics(now)
    }

    /// Whether a connection waits at a listener to be accepted.
    #[must_use]
    pub fn acceptable(&self, listener: ListenerId) -> bool {
        self.listeners
            .get(listener)
            .is_some_and(|listener| listener.has_established())
    }

    /// Whether a program that waited for room to write should write again: when a third of the buffer is free, and less
    /// than half of [`TcpConfig::not_sent_low_water`] waits to be sent.
    #[must_use]
    pub fn is_writable(&self, id: ConnectionId) -> bool {
        let writable = |entry: &Entry| entry.look(|connection| connection.is_writable(&self.config.tcp));
        self.connections.get(id).is_some_and(|entry| writable(entry))
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

    /// The scope of a listener, if it is not for one port.
    #[must_use]
    pub fn scope(&self, listener: ListenerId) -> Option<Scope> {
        self.table.scope(self.listeners.get(listener)?.socket)
    }

    fn insert_listener(&mut self, socket: SocketId, backlog: usize) -> ListenerId {
        let id = self.listeners.insert(Listener::new(socket, backlog));
        self.hold(socket, Holder::Listener(id));
        id
    }

    /// A new socket that receives for a scope.
    pub(super) fn new_scoped(&mut self, transport: Transport, scope: Scope) -> Result<SocketId, ScopeError> {
        // The family says nothing: a scope has addresses of one or both.
        let socket = self.table.socket(transport, Family::Ipv6, self.config.owner);
        match self.table.receive_for(socket, scope) {
            Ok(()) => Ok(socket),
            Err(error) => {
                self.give_up(socket, Close::Gone);
                Err(error)
            }
        }
    }

    fn new_socket(&mut self, local: SocketAddr) -> SocketId {
        let family = if local.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        };
        self.table.socket(Transport::Tcp, family, self.config.owner)
    }

    /// The wait that a connection between these ends may end, and SND.NXT of the one before it (RFC 6191, section 2).
    /// As in Linux (`tcp_twsk_unique`) timestamps must tell the segments of both apart. Only who keeps the address and
    /// port of another needs it: its peer cannot choose another port.
    fn takeover(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        options: &ConnectOptions<'_>,
    ) -> Option<(WaitId, SeqNum)> {
        let config = options.config.unwrap_or(&self.config.tcp);
        if local.port() == 0 || !config.timestamps || !self.is_foreign(local, options) {
            return None;
        }
        let wait = self.waiting.find(&self.table, &FourTuple::new(local, remote)?)?;
        let (left, _) = self.waiting.get(&self.table, wait)?;
        left.timestamps.map(|_| (wait, left.snd_nxt))
    }

    fn is_foreign(&self, local: SocketAddr, options: &ConnectOptions<'_>) -> bool {
        options.transparent && self.table.host().kind(local.ip()) == AddressKind::Foreign
    }

    fn take_tuple(
        &mut self,
        socket: SocketId,
        local: SocketAddr,
        remote: SocketAddr,
        options: &ConnectOptions<'_>,
        before: Option<(WaitId, SeqNum)>,
    ) -> Result<FourTuple, ConnectError> {
        let is_foreign = self.is_foreign(local, options);
        if local.port() != 0 && !is_foreign {
            self.table.bind(socket, local, PortChoice::Any)?;
        }
        let waiting = &self.waiting;
        let waits = |table: &PortTable, tuple: &FourTuple| {
            let wait = waiting.find(table, tuple)?;
            if before.is_some_and(|(gives_way, _)| gives_way == wait) {
                return None;
            }
            let (_, stand_in) = waiting.get(table, wait)?;
            Some(stand_in)
        };
        let port = if is_foreign {
            self.table
                .connect_foreign(socket, local, remote, options.port, &waits)?
        } else {
            self.table
                .connect_beside(socket, remote, local.ip(), options.port, &waits)?
        };
        // A connect to a wildcard means this host: the table has the address that it became.
        let remote = self.table.remote(socket).ok().flatten().unwrap_or(remote);
        FourTuple::new(SocketAddr::new(local.ip(), port.get()), remote)
            .ok_or_else(|| ConnectError::NoSource { local: local.ip() })
    }

    /// What a connection with this four-tuple begins with.
    pub(super) fn opening(&self, tuple: &FourTuple, now: Instant) -> Opening {
        let (iss, timestamp_offset) = self.secrets.opening(tuple, now);
        Opening {
            iss,
            mss: self.link_mss(tuple),
            path_mss: self.path_mss(tuple, now),
            timestamp_offset,
        }
    }

    /// The same with a sequence number that is known.
    pub(super) fn opening_at(&self, tuple: &FourTuple, now: Instant, iss: SeqNum) -> Opening {
        Opening {
            iss,
            mss: self.link_mss(tuple),
            path_mss: self.path_mss(tuple, now),
            timestamp_offset: self.secrets.timestamp_offset(tuple),
        }
    }

    /// Enters a new connection.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        socket: SocketId,
        tuple: FourTuple,
        connection: Connection,
        listener: Option<ListenerId>,
    ) -> ConnectionId {
        let entry = match self.spares.take_entry() {
            Some(mut entry) => {
                entry.renew(now, connection, tuple, socket, listener);
                entry
            }
            None => {
                let connection = connection.boxed(self.spares.take());
                Box::new(Entry::new(now, connection, tuple, socket, listener))
            }
        };
        self.share_memory();
        let id = self.connections.insert(entry);
        self.hold(socket, Holder::Connection(id));
        id
    }

    /// Gives a socket back to the table.
    pub(super) fn give_up(&mut self, socket: SocketId, how: Close) {
        self.last_flow = None;
        let closed = self.table.close(socket, how);
        debug_assert!(closed.is_ok(), "the stack closes a socket once");
        if let Some(holder) = self.holders.get_mut(socket.place()) {
            *holder = Holder::Nobody;
        }
    }
}
