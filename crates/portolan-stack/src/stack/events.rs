use super::{ConnectionId, ListenerId, Stack, UdpId};
use crate::tcp::{CloseReason, Happened};

/// What a program is to be told. Each is told once for each change; look until there is nothing more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A connection waits at this listener to be accepted.
    Acceptable(ListenerId),
    /// The peer took our connection.
    Connected(ConnectionId),
    /// There is something to read, or the end of it.
    Readable(ConnectionId),
    /// There is room to write after there was none.
    Writable(ConnectionId),
    /// The connection is no more; what came before can still be read.
    Closed(ConnectionId, CloseReason),
    /// Datagrams came to this socket.
    Datagrams(UdpId),
}

/// Whom an event will be about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notice {
    Listener(ListenerId),
    Connection(ConnectionId),
    Udp(UdpId),
}

impl Stack {
    /// The next thing that the program is to be told.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            match *self.notices.front()? {
                Notice::Listener(id) => {
                    self.notices.pop_front();
                    if let Some(listener) = self.listeners.get_mut(id) {
                        listener.is_noticed = false;
                        return Some(Event::Acceptable(id));
                    }
                }
                Notice::Udp(id) => {
                    self.notices.pop_front();
                    if let Some(socket) = self.udp.get_mut(id) {
                        socket.is_noticed = false;
                        return Some(Event::Datagrams(id));
                    }
                }
                Notice::Connection(id) => {
                    let event = self.connections.get_mut(id).and_then(|entry| {
                        let event = next_event(id, &mut entry.pending, entry.connection.reason());
                        entry.is_noticed = event.is_some();
                        event
                    });
                    if event.is_some() {
                        return event;
                    }
                    self.notices.pop_front();
                }
            }
        }
    }

    /// Puts a connection in the queue of those that have something to tell.
    pub(super) fn notice(&mut self, id: ConnectionId) {
        if let Some(entry) = self.connections.get_mut(id)
            && entry.listener.is_none()
            && !entry.connection.is_released()
            && !entry.pending.is_empty()
            && !entry.is_noticed
        {
            entry.is_noticed = true;
            self.notices.push_back(Notice::Connection(id));
        }
    }
}

/// Takes one thing out of those that happened, in the order in which a program expects them.
fn next_event(id: ConnectionId, pending: &mut Happened, reason: Option<CloseReason>) -> Option<Event> {
    let first = pending.iter().next()?;
    *pending -= first;
    if first == Happened::CONNECTED {
        return Some(Event::Connected(id));
    }
    if first == Happened::READABLE {
        return Some(Event::Readable(id));
    }
    if first == Happened::WRITABLE {
        return Some(Event::Writable(id));
    }
    reason.map(|reason| Event::Closed(id, reason))
}
