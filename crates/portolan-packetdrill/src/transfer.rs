//! Bytes in and out of sockets.

use portolan_stack::{ConnectionId, ReadError, SendFlags, State, WriteError};

use crate::call::{Attempt, Outcome};
use crate::errno::Errno;
use crate::sockets::Kind;
use crate::world::World;

impl World {
    pub(crate) fn try_read(
        &mut self,
        fd: i32,
        len: usize,
        flags: i32,
        faulty: bool,
        got: &mut Vec<u8>,
    ) -> Attempt {
        let (id, waits, shut, tells) = match self.socket_mut(fd) {
            Ok(socket) => match &socket.kind {
                Kind::Connection(connection) => (
                    connection.id,
                    !socket.nonblocking && flags & libc::MSG_DONTWAIT == 0,
                    connection.no_more_read,
                    socket.tells_unread,
                ),
                Kind::Epoll(_) => return Some(Err(Errno(libc::EINVAL))),
                Kind::Fresh(_) | Kind::Listener(_) => return Some(Err(Errno(libc::ENOTCONN))),
            },
            Err(errno) => return Some(Err(errno)),
        };
        if flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) != 0 {
            let errno = if flags & libc::MSG_OOB != 0 {
                libc::EINVAL
            } else {
                libc::EAGAIN
            };
            return Some(Err(Errno(errno)));
        }
        let ready = self.stack.info(id).map_or(0, |info| info.receive_queue);
        if faulty && ready > 0 {
            return Some(Err(Errno(libc::EFAULT)));
        }
        let mut part = vec![0; len - got.len()];
        let now = self.now();
        match self.stack.read(now, id, &mut part) {
            Ok(0) if len > 0 => {
                if let Ok(socket) = self.socket_mut(fd)
                    && let Kind::Connection(connection) = &mut socket.kind
                {
                    connection.peer_finished = true;
                }
                Some(Ok(self.bytes(id, std::mem::take(got), tells)))
            }
            Ok(count) => {
                got.extend(&part[..count]);
                if flags & libc::MSG_WAITALL != 0 && waits && got.len() < len {
                    return None;
                }
                Some(Ok(self.bytes(id, std::mem::take(got), tells)))
            }
            Err(_) if !got.is_empty() => Some(Ok(self.bytes(id, std::mem::take(got), tells))),
            Err(ReadError::WouldBlock) if shut => Some(Ok(Outcome::Bytes(Vec::new(), None))),
            Err(ReadError::WouldBlock) if waits => None,
            Err(ReadError::WouldBlock) => Some(Err(Errno(libc::EAGAIN))),
            Err(_) => {
                let error = self.socket_mut(fd).ok().and_then(|socket| socket.error.take());
                Some(match error {
                    Some(errno) => Err(errno),
                    None => Ok(Outcome::Bytes(Vec::new(), None)),
                })
            }
        }
    }

    fn bytes(&self, id: ConnectionId, bytes: Vec<u8>, tells: bool) -> Outcome {
        let unread = tells.then(|| self.unread(id));
        Outcome::Bytes(bytes, unread)
    }

    /// TCP_INQ: the bytes that wait, or one if only the end does.
    fn unread(&self, id: ConnectionId) -> i32 {
        let Some(info) = self.stack.info(id) else {
            return 0;
        };
        let at_end = !info.state.may_receive();
        match info.receive_queue {
            0 => i32::from(at_end),
            len => i32::try_from(len).unwrap_or(i32::MAX),
        }
    }

    pub(crate) fn try_write(&mut self, fd: i32, bytes: &[u8], flags: i32, done: &mut usize) -> Attempt {
        if flags & (libc::MSG_FASTOPEN | libc::MSG_OOB) != 0 {
            return Some(Err(Errno(libc::EOPNOTSUPP)));
        }
        let (id, waits) = match self.socket_mut(fd) {
            Ok(socket) => {
                let waits = !socket.nonblocking && flags & libc::MSG_DONTWAIT == 0;
                if *done == 0
                    && let Some(errno) = socket.error.take()
                {
                    return Some(Err(errno));
                }
                match &socket.kind {
                    Kind::Connection(connection) => (connection.id, waits),
                    Kind::Epoll(_) => return Some(Err(Errno(libc::EINVAL))),
                    Kind::Fresh(_) | Kind::Listener(_) => return Some(Err(Errno(libc::EPIPE))),
                }
            }
            Err(errno) => return Some(Err(errno)),
        };
        let state = self.stack.info(id).map_or(State::Closed, |info| info.state);
        if matches!(state, State::SynSent | State::SynReceived) {
            return if waits {
                None
            } else {
                Some(Err(Errno(libc::EAGAIN)))
            };
        }
        // As Linux does: a blocked write goes on when a third is free, not for every acknowledgment.
        let is_waiting = self.sockets.get(&fd).is_some_and(|socket| socket.wants_room);
        if waits && is_waiting && state.may_send() && !self.stack.is_writable(id) {
            return None;
        }
        let now = self.now();
        let mut how = SendFlags::empty();
        how.set(SendFlags::MORE, flags & libc::MSG_MORE != 0);
        how.set(SendFlags::END_OF_RECORD, flags & libc::MSG_EOR != 0);
        loop {
            let rest = &bytes[*done..];
            if rest.is_empty() {
                return Some(Ok(Outcome::Count(*done)));
            }
            match self.stack.send(now, id, rest, how) {
                Ok(count) => {
                    *done += count;
                    self.settle();
                }
                Err(WriteError::WouldBlock) => {
                    if let Ok(socket) = self.socket_mut(fd) {
                        socket.wants_room = true;
                    }
                    return match *done {
                        _ if waits => None,
                        0 => Some(Err(Errno(libc::EAGAIN))),
                        done => Some(Ok(Outcome::Count(done))),
                    };
                }
                Err(_) if *done > 0 => return Some(Ok(Outcome::Count(*done))),
                Err(_) => {
                    let error = self.socket_mut(fd).ok().and_then(|socket| socket.error.take());
                    return Some(Err(error.unwrap_or(Errno(libc::EPIPE))));
                }
            }
        }
    }

    /// SIOCINQ, SIOCOUTQ and SIOCOUTQNSD.
    pub(crate) fn ioctl(&mut self, fd: i32, request: u64) -> Result<i32, Errno> {
        const SIOCOUTQNSD: u64 = 0x894B;
        let id = match &self.socket_mut(fd)?.kind {
            Kind::Connection(connection) => connection.id,
            _ => return Err(Errno(libc::EINVAL)),
        };
        let info = self.stack.info(id).ok_or(Errno(libc::EINVAL))?;
        let len = match request {
            libc::FIONREAD => info.receive_queue,
            libc::TIOCOUTQ => info.send_queue,
            SIOCOUTQNSD => info.not_sent,
            _ => return Err(Errno(libc::ENOTTY)),
        };
        Ok(i32::try_from(len).unwrap_or(i32::MAX))
    }
}
