use super::held_syn::{SynGone, SynId};
use super::udp::News;
use super::{ConnectionId, EchoId, ListenerId, Stack, UdpId};
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
    /// The peer has acknowledged all that was written, and the FIN behind it: what `close` with a linger time waits for.
    /// If the connection ends with that, only its end is told.
    Finished(ConnectionId),
    /// The peer asks whether somebody is there, of a connection whose program answers ([`Stack::hold_probes`]).
    Probed(ConnectionId),
    /// The connection is no more; what came before can still be read.
    Closed(ConnectionId, CloseReason),
    /// Datagrams came to this socket.
    Datagrams(UdpId),
    /// An ICMP error came about a datagram of this socket; its next call tells it.
    DatagramError(UdpId),
    /// There is room for datagrams after one found none.
    DatagramRoom(UdpId),
    /// Replies came to this echo socket, or errors about its requests.
    Echo(EchoId),
    /// Echo requests to other hosts came ([`Stack::take_echo_requests`]).
    EchoRequests,
    /// A SYN came to a listener that holds them ([`Stack::hold_syns`]), and waits for a word.
    Syn(SynId),
    /// A SYN of which the program was told needs no word any more.
    SynGone(SynId, SynGone),
}

/// Whom an event will be about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notice {
    Listener(ListenerId),
    Connection(ConnectionId),
    Udp(UdpId),
    Echo(EchoId),
    EchoRequests,
    /// SYNs that are held, one or more.
    Syns,
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
                Notice::Syns => {
                    if let event @ Some(_) = self.held.poll_event() {
                        return event;
                    }
                    self.held.is_noticed = false;
                    self.notices.pop_front();
                }
                Notice::Echo(id) => {
                    self.notices.pop_front();
                    if let Some(socket) = self.echo.get_mut(id) {
                        socket.is_noticed = false;
                        return Some(Event::Echo(id));
                    }
                }
                Notice::EchoRequests => {
                    self.notices.pop_front();
                    if self.notes_echo_requests() {
                        return Some(Event::EchoRequests);
                    }
                }
                Notice::Udp(id) => {
                    let event = self.udp.get_mut(id).and_then(|socket| {
                        let event = next_udp_event(id, &mut socket.news);
                        socket.is_noticed = event.is_some();
                        event
                    });
                    if event.is_some() {
                        return event;
                    }
                    self.notices.pop_front();
                }
                Notice::Connection(id) => {
                    let event = self.connections.get_mut(id).and_then(|entry| {
                        let reason = entry.reason();
                        let event = next_event(id, &mut entry.pending, reason);
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
            && entry.has_news()
        {
            entry.is_noticed = true;
            self.notices.push_back(Notice::Connection(id));
        }
    }
}

/// Takes one thing out of the news of a UDP socket.
fn next_udp_event(id: UdpId, news: &mut News) -> Option<Event> {
    let first = news.iter().next()?;
    *news -= first;
    Some(if first == News::DATAGRAMS {
        Event::Datagrams(id)
    } else if first == News::ERROR {
        Event::DatagramError(id)
    } else {
        Event::DatagramRoom(id)
    })
}

/// Takes one thing out of those that happened, in the order in which a program expects them.
fn next_event(id: ConnectionId, pending: &mut Happened, reason: Option<CloseReason>) -> Option<Event> {
    // Before it is told that the connection is gone, which may be at the same time.
    if pending.contains(Happened::FINISHED) && !pending.contains(Happened::CONNECTED) {
        *pending -= Happened::FINISHED;
        return Some(Event::Finished(id));
    }
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
    if first == Happened::PROBED {
        return Some(Event::Probed(id));
    }
    reason.map(|reason| Event::Closed(id, reason))
}
