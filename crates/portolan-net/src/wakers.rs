//! Who waits for what.

use std::task::{Context, Waker};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use portolan_stack::{ConnectionId, EchoId, ListenerId, UdpId};
use slotmap::Key;
use smallvec::SmallVec;

/// What a task can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wait {
    /// There is something to read, or the end of it.
    Readable(ConnectionId),
    /// There is room to write, or the connection is made, or it is over.
    Writable(ConnectionId),
    /// The connection is no more, or its peer asks whether somebody is there.
    Closed(ConnectionId),
    /// The peer has all that was written, and the FIN.
    Delivered(ConnectionId),
    /// A connection waits to be accepted.
    Acceptable(ListenerId),
    /// A SYN waits for a word.
    Syn(ListenerId),
    /// A datagram came.
    Datagram(UdpId),
    /// There is room for datagrams to be sent.
    DatagramRoom(UdpId),
    /// An ICMP error came about a datagram.
    DatagramError(UdpId),
    /// A reply to a ping came, or an error about one.
    Echo(EchoId),
    /// Echo requests to other hosts came.
    EchoRequests,
}

/// The wakers of a shard.
///
/// An idle connection is one whose reader waits: 16 bytes in an array that grows by chunks. All other waiting costs memory only as long as
/// it lasts.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    /// The task that polls the reading side of each connection: the last one counts.
    readers: Readers,
    /// The same of the writing side.
    writers: HashMap<ConnectionId, Waker, FixedState>,
    /// The task that polls for something else: the last one counts.
    polled: HashMap<Wait, Waker, FixedState>,
    /// Those who wait beside them, as many as there are: `readable`, `accept`, `recv_from` and the like take
    /// `&self`.
    lists: HashMap<Wait, Waiters, FixedState>,
    next_ticket: u64,
}

/// Mostly there is one, which is no allocation of its own.
type Waiters = SmallVec<[(Ticket, Waker); 1]>;

/// A place in a list of [`Wakers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// The wakers of readers, by the places of their connections in the engine.
///
/// A place is given to another connection only after [`Wakers::forget`], so it needs no version beside it; an event
/// of the one before wakes a task once in vain. Nothing is copied when there are more
/// chunks, and no more than one of them has room that was never used.
#[derive(Debug, Default)]
struct Readers {
    chunks: Vec<Option<Box<Chunk>>>,
}

type Chunk = [Option<Waker>; CHUNK_LEN];

const CHUNK_LEN: usize = 256;

impl Readers {
    fn place(id: ConnectionId) -> (usize, usize) {
        // The lower half is the index.
        let index = id.data().as_ffi() as u32 as usize;
        (index / CHUNK_LEN, index % CHUNK_LEN)
    }

    fn slot(&mut self, id: ConnectionId) -> &mut Option<Waker> {
        let (chunk, place) = Self::place(id);
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let chunk = self.chunks[chunk].get_or_insert_with(|| Box::new([const { None }; CHUNK_LEN]));
        &mut chunk[place]
    }

    fn take(&mut self, id: ConnectionId) -> Option<Waker> {
        let (chunk, place) = Self::place(id);
        self.chunks.get_mut(chunk)?.as_mut()?[place].take()
    }

    fn trim(&mut self) {
        for place in &mut self.chunks {
            place.take_if(|chunk| chunk.iter().all(Option::is_none));
        }
        let last = self.chunks.iter().rposition(Option::is_some);
        self.chunks.truncate(last.map_or(0, |last| last + 1));
        self.chunks.shrink_to_fit();
    }

    fn take_all(&mut self) -> impl Iterator<Item = Waker> {
        let chunks = std::mem::take(&mut self.chunks);
        chunks.into_iter().flatten().flat_map(|chunk| *chunk).flatten()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let slots = self.chunks.iter().flatten().flat_map(|chunk| chunk.iter());
        slots.filter(|slot| slot.is_some()).count()
    }
}

impl Wakers {
    /// The task that polls the reading side.
    pub(crate) fn set_reader(&mut self, id: ConnectionId, cx: &Context<'_>) {
        let slot = self.readers.slot(id);
        match slot {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
    }

    /// The task that polls the writing side.
    pub(crate) fn set_writer(&mut self, id: ConnectionId, cx: &Context<'_>) {
        match self.writers.get_mut(&id) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                self.writers.insert(id, cx.waker().clone());
            }
        }
    }

    /// The task that polls for something that is not a connection's.
    pub(crate) fn set_polled(&mut self, wait: Wait, cx: &Context<'_>) {
        match self.polled.get_mut(&wait) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                self.polled.insert(wait, cx.waker().clone());
            }
        }
    }

    /// Forgets that task.
    pub(crate) fn forget_polled(&mut self, wait: Wait) {
        self.polled.remove(&wait);
    }

    /// Enters a task in a list, or renews its entry.
    pub(crate) fn enter(&mut self, wait: Wait, ticket: &mut Option<Ticket>, cx: &Context<'_>) {
        let list = self.lists.entry(wait).or_default();
        if let Some((_, waker)) = list.iter_mut().find(|(entered, _)| Some(*entered) == *ticket) {
            waker.clone_from(cx.waker());
            return;
        }
        self.next_ticket += 1;
        let entered = Ticket(self.next_ticket);
        list.push((entered, cx.waker().clone()));
        *ticket = Some(entered);
    }

    /// Takes a task out of a list.
    pub(crate) fn leave(&mut self, wait: Wait, ticket: Ticket) {
        let Some(list) = self.lists.get_mut(&wait) else {
            return;
        };
        list.retain(|(entered, _)| *entered != ticket);
        if list.is_empty() {
            self.lists.remove(&wait);
        }
    }

    /// Moves the wakers of those who waited for this to `woken`.
    pub(crate) fn take(&mut self, wait: Wait, woken: &mut Vec<Waker>) {
        match wait {
            Wait::Readable(id) => woken.extend(self.readers.take(id)),
            Wait::Writable(id) if !self.writers.is_empty() => woken.extend(self.writers.remove(&id)),
            Wait::Writable(_)
            | Wait::Closed(_)
            | Wait::Delivered(_)
            | Wait::Acceptable(_)
            | Wait::Syn(_)
            | Wait::Datagram(_)
            | Wait::DatagramRoom(_)
            | Wait::DatagramError(_)
            | Wait::Echo(_)
            | Wait::EchoRequests => {}
        }
        if !self.polled.is_empty() {
            woken.extend(self.polled.remove(&wait));
        }
        if !self.lists.is_empty()
            && let Some(list) = self.lists.remove(&wait)
        {
            woken.extend(list.into_iter().map(|(_, waker)| waker));
        }
    }

    /// Moves every waker to `woken`.
    pub(crate) fn take_all(&mut self, woken: &mut Vec<Waker>) {
        woken.extend(self.readers.take_all());
        woken.extend(self.writers.drain().map(|(_, waker)| waker));
        woken.extend(self.polled.drain().map(|(_, waker)| waker));
        woken.extend(
            self.lists
                .drain()
                .flat_map(|(_, list)| list)
                .map(|(_, waker)| waker),
        );
    }

    /// Forgets the tasks of a connection that is let go.
    pub(crate) fn forget(&mut self, id: ConnectionId) {
        drop(self.readers.take(id));
        self.writers.remove(&id);
    }

    /// Gives up room in which nobody waits.
    pub(crate) fn trim(&mut self) {
        self.readers.trim();
        self.writers.shrink_to_fit();
        self.polled.shrink_to_fit();
        self.lists.shrink_to_fit();
    }

    /// How many tasks wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.readers.len() + self.writers.len() + self.lists.values().map(SmallVec::len).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn a_waiting_reader_takes_16_bytes() {
        let mut ids: SlotMap<ConnectionId, ()> = SlotMap::with_key();
        let mut wakers = Wakers::default();
        let cx = Context::from_waker(Waker::noop());
        let id = ids.insert(());
        wakers.set_reader(id, &cx);
        assert_eq!(size_of::<Chunk>(), 16 * CHUNK_LEN);
        let mut woken = Vec::new();
        wakers.take(Wait::Readable(id), &mut woken);
        assert_eq!((woken.len(), wakers.len()), (1, 0));
    }

    #[test]
    fn tickets_keep_tasks_apart_and_leave_nothing_behind() {
        let mut wakers = Wakers::default();
        let cx = Context::from_waker(Waker::noop());
        let wait = Wait::Acceptable(ListenerId::default());
        let (mut one, mut other) = (None, None);
        wakers.enter(wait, &mut one, &cx);
        wakers.enter(wait, &mut one, &cx);
        wakers.enter(wait, &mut other, &cx);
        assert_eq!(wakers.len(), 2);
        wakers.leave(wait, one.unwrap());
        assert_eq!(wakers.len(), 1);
        wakers.leave(wait, other.unwrap());
        assert!(wakers.lists.is_empty());
    }
}
