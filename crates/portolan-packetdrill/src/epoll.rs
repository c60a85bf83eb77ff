//! What sockets are ready for: poll() and epoll.

use portolan_stack::{Instant, State};

use crate::call::{Attempt, Outcome};
use crate::errno::Errno;
use crate::sockets::{Kind, Socket};
use crate::world::World;

/// An instance of epoll.
#[derive(Debug, Default)]
pub(crate) struct Epoll {
    watched: Vec<Watched>,
}

/// A descriptor that it watches.
#[derive(Debug)]
struct Watched {
    fd: i32,
    events: u32,
    data: u64,
    /// Whether it stands in the list of those that may be ready: since something happened, or since it was told of last and
    /// is not edge-triggered.
    listed: bool,
    /// EPOLLONESHOT: told once.
    spent: bool,
}

/// What is told whether it was asked for or not.
const ALWAYS: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
/// The bits that say how, not what.
const MANNER: u32 = (libc::EPOLLET | libc::EPOLLONESHOT) as u32;

impl World {
    pub(crate) fn epoll_create(&mut self) -> Result<i32, Errno> {
        self.enter(Kind::Epoll(Epoll::default()), false)
    }

    pub(crate) fn epoll_ctl(
        &mut self,
        epoll: i32,
        operation: i32,
        fd: i32,
        interest: Option<(u32, u64)>,
    ) -> Result<(), Errno> {
        let ready = self.readiness(fd)?;
        let Kind::Epoll(Epoll { watched }) = &mut self.socket_mut(epoll)?.kind else {
            return Err(Errno(libc::EINVAL));
        };
        let place = watched.iter().position(|watched| watched.fd == fd);
        match (operation, place) {
            (libc::EPOLL_CTL_ADD, Some(_)) => return Err(Errno(libc::EEXIST)),
            (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, None) => return Err(Errno(libc::ENOENT)),
            (libc::EPOLL_CTL_DEL, Some(place)) => {
                watched.remove(place);
            }
            (libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD, place) => {
                let (events, data) = interest.ok_or(Errno(libc::EFAULT))?;
                let entry = Watched {
                    fd,
                    events,
                    data,
                    listed: ready & (events | ALWAYS) & !MANNER != 0,
                    spent: false,
                };
                match place {
                    Some(place) => watched[place] = entry,
                    None => watched.push(entry),
                }
            }
            _ => return Err(Errno(libc::EINVAL)),
        }
        self.note_wish_for_room(fd);
        Ok(())
    }

    pub(crate) fn try_epoll_wait(&mut self, fd: i32, most: usize, deadline: Option<Instant>) -> Attempt {
        let listed: Vec<i32> = match self.socket_mut(fd).map(|socket| &socket.kind) {
            Ok(Kind::Epoll(epoll)) => {
                let listed = epoll
                    .watched
                    .iter()
                    .filter(|watched| watched.listed && !watched.spent);
                listed.map(|watched| watched.fd).collect()
            }
            Ok(_) => return Some(Err(Errno(libc::EINVAL))),
            Err(errno) => return Some(Err(errno)),
        };
        let mut told = Vec::new();
        for asked in listed {
            let ready = self.readiness(asked).unwrap_or(0);
            self.note_wish_for_room(asked);
            let Ok(Kind::Epoll(epoll)) = self.socket_mut(fd).map(|socket| &mut socket.kind) else {
                break;
            };
            let Some(watched) = epoll.watched.iter_mut().find(|watched| watched.fd == asked) else {
                continue;
            };
            let events = ready & (watched.events | ALWAYS) & !MANNER;
            if events == 0 {
                watched.listed = false;
                continue;
            }
            if told.len() == most {
                break;
            }
            told.push((events, watched.data));
            watched.listed = watched.events & libc::EPOLLET as u32 == 0;
            watched.spent = watched.events & libc::EPOLLONESHOT as u32 != 0;
        }
        let over = deadline.is_some_and(|deadline| self.now() >= deadline);
        (!told.is_empty() || over).then_some(Ok(Outcome::Events(told)))
    }

    pub(crate) fn try_poll(&mut self, fds: &[(i32, i16)], deadline: Option<Instant>) -> Attempt {
        let mut answers = Vec::with_capacity(fds.len());
        for &(fd, events) in fds {
            if fd < 0 {
                answers.push(0);
                continue;
            }
            let ready = match self.readiness(fd) {
                Ok(ready) => ready as i16 & (events | libc::POLLERR | libc::POLLHUP),
                Err(_) => libc::POLLNVAL,
            };
            self.note_wish_for_room(fd);
            answers.push(ready);
        }
        let any = answers.iter().any(|&ready| ready != 0);
        let over = deadline.is_some_and(|deadline| self.now() >= deadline);
        (any || over).then_some(Ok(Outcome::Polled(answers)))
    }

    /// Something happened to a socket: whoever watches it for that looks again.
    pub(crate) fn wake(&mut self, fd: i32, what: i32) {
        for socket in self.sockets.values_mut() {
            if let Kind::Epoll(epoll) = &mut socket.kind {
                for watched in epoll.watched.iter_mut().filter(|watched| watched.fd == fd) {
                    if (watched.events | ALWAYS) & what as u32 != 0 {
                        watched.listed = true;
                    }
                }
            }
        }
    }

    /// A descriptor is closed: nobody watches it any more.
    pub(crate) fn drop_from_epolls(&mut self, fd: i32) {
        for socket in self.sockets.values_mut() {
            if let Kind::Epoll(epoll) = &mut socket.kind {
                epoll.watched.retain(|watched| watched.fd != fd);
            }
        }
    }

    /// Wakes those who found no room to write and have it now.
    pub(crate) fn wake_writers(&mut self) {
        let waiting = self.sockets.iter().filter(|(_, socket)| socket.wants_room);
        let fds: Vec<i32> = waiting.map(|(&fd, _)| fd).collect();
        for fd in fds {
            if self.readiness(fd).unwrap_or(0) & libc::EPOLLOUT as u32 != 0 {
                if let Ok(socket) = self.socket_mut(fd) {
                    socket.wants_room = false;
                }
                self.wake(fd, libc::EPOLLOUT);
            }
        }
    }

    /// Whoever asks whether there is room and finds none is told when there is.
    fn note_wish_for_room(&mut self, fd: i32) {
        let ready = self.readiness(fd).unwrap_or(0);
        if let Ok(socket) = self.socket_mut(fd)
            && matches!(socket.kind, Kind::Connection(_))
            && ready & libc::EPOLLOUT as u32 == 0
        {
            socket.wants_room = true;
        }
    }

    /// What a socket is ready for, in the bits of poll().
    pub(crate) fn readiness(&self, fd: i32) -> Result<u32, Errno> {
        let socket = self.sockets.get(&fd).ok_or(Errno(libc::EBADF))?;
        let mut ready = match &socket.kind {
            Kind::Fresh(_) => libc::EPOLLOUT | libc::EPOLLHUP,
            Kind::Listener(id) if self.stack.acceptable(*id) => libc::EPOLLIN | libc::EPOLLRDNORM,
            Kind::Listener(_) => 0,
            Kind::Connection(_) => self.connection_readiness(socket),
            Kind::Epoll(epoll) => {
                let any = epoll.watched.iter().any(|watched| watched.listed);
                if any { libc::EPOLLIN } else { 0 }
            }
        };
        if socket.error.is_some() {
            ready |= libc::EPOLLERR;
        }
        Ok(ready as u32)
    }

    fn connection_readiness(&self, socket: &Socket) -> i32 {
        let Kind::Connection(connection) = &socket.kind else {
            return 0;
        };
        let gone = libc::EPOLLHUP | libc::EPOLLIN | libc::EPOLLRDNORM | libc::EPOLLRDHUP | libc::EPOLLOUT;
        let Some(info) = self.stack.info(connection.id) else {
            return gone;
        };
        let finished_sending = matches!(
            info.state,
            State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck | State::TimeWait
        );
        let no_more_comes =
            connection.no_more_read || !info.state.may_receive() && info.state.is_synchronized();
        let mut ready = 0;
        match info.state {
            State::Closed => return gone | libc::EPOLLWRNORM,
            State::SynSent => return 0,
            _ => {}
        }
        if no_more_comes && finished_sending {
            ready |= libc::EPOLLHUP;
        }
        if no_more_comes {
            ready |= libc::EPOLLIN | libc::EPOLLRDNORM | libc::EPOLLRDHUP;
        }
        if info.receive_queue >= socket.low_water {
            ready |= libc::EPOLLIN | libc::EPOLLRDNORM;
        }
        if finished_sending || self.stack.is_writable(connection.id) {
            ready |= libc::EPOLLOUT | libc::EPOLLWRNORM;
        }
        ready
    }
}
