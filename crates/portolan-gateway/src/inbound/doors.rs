//! The sockets of published ports, waited for as one.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use portolan_core::Protocol;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::bound::BoundSocket;
use super::{Place, Published, sys};

/// The sockets of all published ports. They are in an epoll set of our own, which tokio waits for as one descriptor: so a
/// port costs its socket and a hundred bytes, and nothing while it is idle.
#[derive(Debug)]
pub(super) struct Doors {
    epoll: AsyncFd<OwnedFd>,
    table: Mutex<Table>,
}

/// A published port and its socket.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) socket: OwnedFd,
    pub(super) published: Published,
    /// Like no other, of those that are gone included.
    pub(super) number: u64,
    /// Nobody new is to come through it; those of UDP who have are still served.
    pub(super) is_closed: AtomicBool,
    rule: OnceLock<Arc<str>>,
}

#[derive(Debug, Default)]
struct Table {
    /// In the order in which they were published; a place is kept empty when its port is gone.
    doors: Vec<Option<Arc<Door>>>,
    free: Vec<usize>,
    opened: u64,
}

/// Sockets of which one look tells.
const EVENTS: usize = 256;

impl Doors {
    /// None yet. To be called in a runtime.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll: sys::register(epoll)?,
            table: Mutex::default(),
        })
    }

    /// Opens them: from now on they are among the ready ones.
    pub(super) fn open(&self, sockets: Vec<BoundSocket>) -> Result<(), Errno> {
        let mut table = self.table();
        let mut opened = Vec::with_capacity(sockets.len());
        for socket in sockets {
            let door = Arc::new(Door {
                socket: socket.socket,
                published: socket.published,
                number: table.next_number(),
                is_closed: AtomicBool::new(false),
                rule: OnceLock::new(),
            });
            let token = table.insert(Arc::clone(&door));
            opened.push(token);
            let data = epoll::EventData::new_u64(token as u64);
            if let Err(error) = epoll::add(self.epoll.get_ref(), &door.socket, data, epoll::EventFlags::IN) {
                for token in opened {
                    table.remove(token);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes away those for which `wanted` says so, and gives what they were. Their sockets are free at once, but those of
    /// UDP that have clients: they lead no new one in, and go with the last ([`Doors::close_unused`]).
    pub(super) fn close(
        &self,
        wanted: impl Fn(&Published) -> bool,
        has_clients: impl Fn(&Door) -> bool,
    ) -> Vec<Published> {
        let mut table = self.table();
        let mut closed = Vec::new();
        for token in 0..table.doors.len() {
            let Some(door) = table.doors[token]
                .as_ref()
                .filter(|door| door.is_open() && wanted(&door.published))
            else {
                continue;
            };
            closed.push(door.published);
            door.is_closed.store(true, Ordering::Relaxed);
            if !has_clients(door) {
                self.let_go(&mut table, token);
            }
        }
        closed
    }

    /// Lets go of the sockets of closed doors that have no clients any more.
    pub(super) fn close_unused(&self, has_clients: impl Fn(&Door) -> bool) {
        let mut table = self.table();
        for token in 0..table.doors.len() {
            if table.doors[token]
                .as_ref()
                .is_some_and(|door| !door.is_open() && !has_clients(door))
            {
                self.let_go(&mut table, token);
            }
        }
    }

    fn let_go(&self, table: &mut Table, token: usize) {
        if let Some(door) = table.remove(token) {
            // It is there: only a closed socket leaves the set by itself.
            let _ = epoll::delete(self.epoll.get_ref(), &door.socket);
        }
    }

    /// What is published.
    pub(super) fn list(&self) -> Vec<Published> {
        let table = self.table();
        let open = table.doors.iter().flatten().filter(|door| door.is_open());
        open.map(|door| door.published).collect()
    }

    /// Waits until clients are at some doors, and shows these. Those that are not seen to are shown again.
    pub(super) async fn ready(&self, doors: &mut Vec<Arc<Door>>) -> io::Result<()> {
        loop {
            let mut guard = self.epoll.readable().await?;
            if self.look(doors)? > 0 {
                return Ok(());
            }
            guard.clear_ready();
        }
    }

    /// Shows the doors at which clients are now, and says how many there were.
    fn look(&self, doors: &mut Vec<Arc<Door>>) -> io::Result<usize> {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let at_once = Timespec::default();
        let (events, _) = epoll::wait(self.epoll.get_ref(), &mut events[..], Some(&at_once))?;
        let table = self.table();
        let tokens = events.iter().map(|event| event.data.u64() as usize);
        // One that was closed in the meantime is not there.
        doors.extend(tokens.filter_map(|token| table.doors.get(token)?.clone()));
        Ok(events.len())
    }

    /// Nothing that holds the lock can leave the table half changed, so a panic elsewhere does not matter.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    const fn next_number(&mut self) -> u64 {
        self.opened += 1;
        self.opened
    }

    fn insert(&mut self, door: Arc<Door>) -> usize {
        if let Some(token) = self.free.pop() {
            self.doors[token] = Some(door);
            return token;
        }
        self.doors.push(Some(door));
        self.doors.len() - 1
    }

    fn remove(&mut self, token: usize) -> Option<Arc<Door>> {
        let door = self.doors[token].take();
        self.free.extend(door.is_some().then_some(token));
        door
    }
}

impl Door {
    fn is_open(&self) -> bool {
        !self.is_closed.load(Ordering::Relaxed)
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.published.place.protocol == Protocol::Tcp
    }

    /// What lets its clients pass, for the table of flows.
    pub(super) fn rule(&self) -> Arc<str> {
        let Published { place, .. } = self.published;
        let rule = |place: Place| format!("published {place}").into();
        Arc::clone(self.rule.get_or_init(|| rule(place)))
    }
}
