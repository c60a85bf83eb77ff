//! Sockets and their descriptors: made, named, connected, accepted, closed.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use portolan_stack::{ConnectionId, Duration, ListenerId, State};

use crate::call::{Attempt, Call, Outcome};
use crate::epoll::Epoll;
use crate::errno::Errno;
use crate::settings::Overrides;
use crate::world::World;

/// What a program has a descriptor of.
#[derive(Debug)]
pub(crate) struct Socket {
    /// A descriptor of the system's, so that the number is no other's. packetdrill closes what scripts leave open itself,
    /// so only [`World::close`] does it here.
    descriptor: ManuallyDrop<File>,
    pub(crate) kind: Kind,
    pub(crate) is_v6: bool,
    pub(crate) nonblocking: bool,
    /// SO_ERROR: what happened and was not yet told.
    pub(crate) error: Option<Errno>,
    pub(crate) overrides: Overrides,
    /// Options that change nothing but their own value, by level and name.
    pub(crate) noted: std::collections::BTreeMap<(i32, i32), Vec<u8>>,
    pub(crate) linger: Option<Duration>,
    /// SO_RCVLOWAT.
    pub(crate) low_water: usize,
    /// TCP_INQ.
    pub(crate) tells_unread: bool,
    /// Whether the program found no room to write, and waits for it.
    pub(crate) wants_room: bool,
}

/// What kind of socket it is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Made, and perhaps bound.
    Fresh(Option<SocketAddr>),
    Listener(ListenerId),
    Connection(Connection),
    Epoll(Epoll),
}

/// A connection as a program sees it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// Whether connect() has not yet said how it went.
    pub(crate) connecting: bool,
    /// shutdown(SHUT_RD).
    pub(crate) no_more_read: bool,
    /// Whether the end of what the peer sends was seen.
    pub(crate) peer_finished: bool,
}

impl World {
    pub(crate) fn socket(&mut self, domain: i32, kind: i32, protocol: i32) -> Result<i32, Errno> {
        let is_v6 = match domain {
            libc::AF_INET => false,
            libc::AF_INET6 => true,
            _ => return Err(Errno(libc::EAFNOSUPPORT)),
        };
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        if kind & !flags != libc::SOCK_STREAM || !matches!(protocol, 0 | libc::IPPROTO_TCP) {
            return Err(Errno(libc::EPROTONOSUPPORT));
        }
        let fd = self.enter(Kind::Fresh(None), is_v6)?;
        self.socket_mut(fd)?.nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        Ok(fd)
    }

    /// Gives something a descriptor.
    pub(crate) fn enter(&mut self, kind: Kind, is_v6: bool) -> Result<i32, Errno> {
        let file =
            File::open("/dev/null").map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EMFILE)))?;
        let fd = file.as_raw_fd();
        let socket = Socket {
            descriptor: ManuallyDrop::new(file),
            kind,
            is_v6,
            nonblocking: false,
            error: None,
            overrides: Overrides::default(),
            noted: std::collections::BTreeMap::new(),
            linger: None,
            low_water: 1,
            tells_unread: false,
            wants_room: false,
        };
        self.sockets.insert(fd, socket);
        Ok(fd)
    }

    pub(crate) fn bind(&mut self, fd: i32, address: SocketAddr) -> Result<(), Errno> {
        let named = self.named(address);
        match &mut self.socket_mut(fd)?.kind {
            Kind::Fresh(bound @ None) => {
                *bound = Some(named);
                Ok(())
            }
            _ => Err(Errno(libc::EINVAL)),
        }
    }

    pub(crate) fn listen(&mut self, fd: i32, backlog: i32) -> Result<(), Errno> {
        let any_port = SocketAddr::new(self.local, 0);
        let bound = match self.socket_mut(fd)?.kind {
            Kind::Fresh(bound) => bound.unwrap_or(any_port),
            // Only the backlog changes, and no script looks at that.
            Kind::Listener(_) => return Ok(()),
            _ => return Err(Errno(libc::EINVAL)),
        };
        // As the kernel reads it: a negative one is the most there may be.
        let backlog = usize::try_from(backlog).unwrap_or(usize::MAX);
        let id = self
            .stack
            .listen(bound, backlog)
            .map_err(|_| Errno(libc::EADDRINUSE))?;
        self.listeners.insert(id, fd);
        self.socket_mut(fd)?.kind = Kind::Listener(id);
        self.apply_options(fd);
        Ok(())
    }

    pub(crate) fn try_accept(&mut self, fd: i32, flags: i32) -> Attempt {
        let (id, waits) = match self.socket_mut(fd) {
            Ok(socket) => match socket.kind {
                Kind::Listener(id) => (id, !socket.nonblocking && flags & libc::MSG_DONTWAIT == 0),
                _ => return Some(Err(Errno(libc::EINVAL))),
            },
            Err(errno) => return Some(Err(errno)),
        };
        let Some(connection) = self.stack.accept(id) else {
            return if waits {
                None
            } else {
                Some(Err(Errno(libc::EAGAIN)))
            };
        };
        Some(self.enter_accepted(fd, connection))
    }

    fn enter_accepted(&mut self, listener: i32, id: ConnectionId) -> Result<Outcome, Errno> {
        let tuple = self.stack.four_tuple(id).ok_or(Errno(libc::ECONNABORTED))?;
        let parent = self.socket_mut(listener)?;
        let (is_v6, overrides, noted) = (parent.is_v6, parent.overrides, parent.noted.clone());
        let (linger, low_water) = (parent.linger, parent.low_water);
        let tells_unread = parent.tells_unread;
        let connection = Connection {
            id,
            connecting: false,
            no_more_read: false,
            peer_finished: false,
        };
        let fd = self.enter(Kind::Connection(connection), is_v6)?;
        let socket = self.socket_mut(fd)?;
        socket.overrides = overrides;
        socket.noted = noted;
        socket.linger = linger;
        socket.low_water = low_water;
        socket.tells_unread = tells_unread;
        self.connections.insert(id, fd);
        self.apply_options(fd);
        Ok(Outcome::Accepted(fd, tuple.remote(), is_v6))
    }

    pub(crate) fn try_connect(&mut self, fd: i32, remote: SocketAddr, begun: &mut bool) -> Attempt {
        let local = self.local;
        let socket = match self.socket_mut(fd) {
            Ok(socket) => socket,
            Err(errno) => return Some(Err(errno)),
        };
        match &mut socket.kind {
            Kind::Fresh(bound) => {
                let from = bound.unwrap_or(SocketAddr::new(local, 0));
                if let Err(errno) = self.begin_connection(fd, from, remote) {
                    return Some(Err(errno));
                }
                *begun = true;
                let nonblocking = self.sockets.get(&fd).is_some_and(|socket| socket.nonblocking);
                nonblocking.then_some(Err(Errno(libc::EINPROGRESS)))
            }
            Kind::Connection(connection) if connection.connecting => {
                let id = connection.id;
                let state = self.stack.info(id).map(|info| info.state);
                match state {
                    Some(State::SynSent | State::SynReceived) => {
                        let nonblocking = self.sockets.get(&fd).is_some_and(|socket| socket.nonblocking);
                        (nonblocking && !*begun).then_some(Err(Errno(libc::EALREADY)))
                    }
                    _ => Some(self.end_connecting(fd)),
                }
            }
            Kind::Connection(_) => Some(Err(Errno(libc::EISCONN))),
            Kind::Listener(_) => Some(Err(Errno(libc::EISCONN))),
            Kind::Epoll(_) => Some(Err(Errno(libc::ENOTSOCK))),
        }
    }

    fn begin_connection(&mut self, fd: i32, from: SocketAddr, remote: SocketAddr) -> Result<(), Errno> {
        let config = self.config_of(fd);
        let id = self
            .stack
            .connect_with(self.now(), from, remote, &config)
            .map_err(|_| Errno(libc::EADDRNOTAVAIL))?;
        self.connections.insert(id, fd);
        self.socket_mut(fd)?.kind = Kind::Connection(Connection {
            id,
            connecting: true,
            no_more_read: false,
            peer_finished: false,
        });
        Ok(())
    }

    /// The first connect() after the handshake tells how it went.
    fn end_connecting(&mut self, fd: i32) -> Result<Outcome, Errno> {
        let socket = self.socket_mut(fd)?;
        let error = socket.error.take();
        let Kind::Connection(connection) = &mut socket.kind else {
            return Err(Errno(libc::EINVAL));
        };
        connection.connecting = false;
        let id = connection.id;
        let is_over = self.stack.info(id).is_none_or(|info| info.state == State::Closed);
        if is_over && error.is_some() {
            self.forget_connection(fd, id);
        }
        match error {
            Some(errno) => Err(errno),
            None if is_over => Err(Errno(libc::ECONNABORTED)),
            None => Ok(Outcome::Count(0)),
        }
    }

    /// connect() to AF_UNSPEC: the socket is as new.
    pub(crate) fn disconnect(&mut self, fd: i32) -> Result<(), Errno> {
        let now = self.now();
        if let Kind::Connection(connection) = &self.socket_mut(fd)?.kind {
            let id = connection.id;
            // Linux sends a RST where a FIN would not tell all (tcp_need_reset).
            let state = self.stack.info(id).map(|info| info.state);
            if state.is_some_and(|state| state != State::SynSent) {
                let _gone = self.stack.abort(now, id);
            }
            self.forget_connection(fd, id);
        }
        Ok(())
    }

    fn forget_connection(&mut self, fd: i32, id: ConnectionId) {
        let _gone = self.stack.close(self.now(), id);
        self.connections.remove(&id);
        if let Ok(socket) = self.socket_mut(fd) {
            socket.kind = Kind::Fresh(None);
            socket.error = None;
        }
    }

    /// Closes a descriptor; gives the wait for everything to arrive, if the socket lingers.
    pub(crate) fn close(&mut self, fd: i32) -> Result<Option<Call>, Errno> {
        let socket = self.sockets.remove(&fd).ok_or(Errno(libc::EBADF))?;
        self.drop_from_epolls(fd);
        let now = self.now();
        let mut lingering = None;
        match &socket.kind {
            Kind::Listener(id) => {
                self.listeners.remove(id);
                self.stack.close_listener(now, *id);
            }
            Kind::Connection(connection) => {
                let id = connection.id;
                self.connections.remove(&id);
                match socket.linger {
                    Some(Duration::ZERO) => {
                        let _gone = self.stack.abort(now, id);
                        let _gone = self.stack.close(now, id);
                    }
                    // Also if it must not block otherwise, as in Linux.
                    Some(time) => {
                        let _gone = self.stack.close(now, id);
                        lingering = Some(Call::Close {
                            id,
                            deadline: now + time,
                        });
                    }
                    None => {
                        let _gone = self.stack.close(now, id);
                    }
                }
            }
            Kind::Fresh(_) | Kind::Epoll(_) => {}
        }
        // The number is free for others from here on.
        drop(ManuallyDrop::into_inner(socket.descriptor));
        Ok(lingering)
    }

    /// Ends a lingering close when everything was acknowledged, or the time is over.
    pub(crate) fn try_close(&self, id: ConnectionId, deadline: portolan_stack::Instant) -> Attempt {
        let waits = self
            .stack
            .info(id)
            .is_some_and(|info| matches!(info.state, State::FinWait1 | State::Closing | State::LastAck));
        (!waits || self.now() >= deadline).then_some(Ok(Outcome::Count(0)))
    }

    pub(crate) fn shutdown(&mut self, fd: i32, how: i32) -> Result<(), Errno> {
        let now = self.now();
        let (reads, writes) = match how {
            libc::SHUT_RD => (true, false),
            libc::SHUT_WR => (false, true),
            libc::SHUT_RDWR => (true, true),
            _ => return Err(Errno(libc::EINVAL)),
        };
        match &mut self.socket_mut(fd)?.kind {
            Kind::Connection(connection) => {
                let id = connection.id;
                connection.no_more_read |= reads;
                let state = self.stack.info(id).map_or(State::Closed, |info| info.state);
                match state {
                    State::Closed | State::TimeWait => return Err(Errno(libc::ENOTCONN)),
                    State::SynSent => self.forget_connection(fd, id),
                    _ if writes => {
                        let _gone = self.stack.finish(now, id);
                    }
                    _ => {}
                }
                self.wake(fd, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLHUP);
                Ok(())
            }
            Kind::Listener(id) => {
                let id = *id;
                if reads {
                    self.listeners.remove(&id);
                    self.stack.close_listener(now, id);
                    self.socket_mut(fd)?.kind = Kind::Fresh(None);
                }
                Ok(())
            }
            Kind::Fresh(_) => Err(Errno(libc::ENOTCONN)),
            Kind::Epoll(_) => Err(Errno(libc::ENOTSOCK)),
        }
    }

    pub(crate) fn fcntl(&mut self, fd: i32, command: i32, argument: i32) -> Result<i32, Errno> {
        let socket = self.socket_mut(fd)?;
        match command {
            libc::F_GETFL if socket.nonblocking => Ok(libc::O_RDWR | libc::O_NONBLOCK),
            libc::F_GETFL => Ok(libc::O_RDWR),
            libc::F_SETFL => {
                socket.nonblocking = argument & libc::O_NONBLOCK != 0;
                Ok(0)
            }
            libc::F_GETFD | libc::F_SETFD => Ok(0),
            _ => Err(Errno(libc::EINVAL)),
        }
    }
}
