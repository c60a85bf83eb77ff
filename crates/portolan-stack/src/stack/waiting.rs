//! The connections in TIME-WAIT: 48 bytes each, and 5 for each place of the table they are found by.
//!
//! ```text
//!   connection ─▶ insert ─▶ … back ┈┈┈ 60 s ┈┈┈ front … ─▶ pop_due
//!                              └─▶ remove: a gap, until the front comes to it
//! ```
//!
//! All wait equally long, so they stand in order of time, and no timer is armed. What they hold of the port table they
//! have in common: one socket for each local end, which says what that end is (see `PortTable::hand_over`).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hashbrown::HashTable;
use portolan_core::demux::FourTuple;
use portolan_core::table::{PortTable, SocketId};
use portolan_core::wire::SeqNum;

use super::secrets::Secrets;
use super::time_wait::TimeWait;
use crate::{Duration, Instant};

/// A connection in TIME-WAIT.
#[derive(Clone, Copy, Debug)]
struct Entry {
    end: Instant,
    /// v4-mapped if it is IPv4.
    remote: Ipv6Addr,
    rcv_nxt: SeqNum,
    snd_nxt: SeqNum,
    /// TS.Recent and our last TSval, if [`HAS_TIMESTAMPS`].
    timestamps: (u32, u32),
    /// The place of the socket that stands for it, which is less than 2^30, and flags.
    stand_in: u32,
    remote_port: u16,
    window: u16,
}

/// Flags of [`Entry::stand_in`].
const HAS_TIMESTAMPS: u32 = 1 << 31;
const IS_OVER: u32 = 1 << 30;
const PLACE: u32 = IS_OVER - 1;

/// A place of the table that they are found by, which may just have doubled.
const FOUND_BY: usize = 16;
/// Entries of a chunk: 12 KiB.
const CHUNK_LEN: u32 = 256;
/// The table keeps so many places, of 5 bytes, when nobody waits any more.
const KEPT_PLACES: usize = 4096;

/// An eighth of the whole wait.
const LEAST_RESTART: Duration = Duration::from_millis(7_500);

/// Which of them; given again after 2^32 others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaitId(u32);

/// All connections of a stack that are in TIME-WAIT.
#[derive(Debug)]
pub(super) struct Waiting {
    secrets: Secrets,
    /// From the front: chunks of [`CHUNK_LEN`], the last of which has room.
    chunks: VecDeque<Vec<Entry>>,
    /// An empty chunk, for the next that is needed.
    spare: Option<Vec<Entry>>,
    /// The number of the first entry of the first chunk, a multiple of [`CHUNK_LEN`].
    base: u32,
    /// The number of the front: all before it are over.
    front: u32,
    by_tuple: HashTable<u32>,
}

impl Waiting {
    pub(super) const fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            chunks: VecDeque::new(),
            spare: None,
            base: 0,
            front: 0,
            by_tuple: HashTable::new(),
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_tuple.len()
    }

    /// The bytes that they take at most, with the gaps that others left. O(1).
    pub(super) fn bytes(&self) -> usize {
        let last = self.chunks.back().map_or(0, Vec::len);
        let full = self.chunks.len().saturating_sub(1) * CHUNK_LEN as usize;
        let over = self.front.wrapping_sub(self.base) as usize;
        (full + last - over) * size_of::<Entry>() + self.len() * FOUND_BY
    }

    /// The one with this four-tuple.
    pub(super) fn find(&self, table: &PortTable, tuple: &FourTuple) -> Option<WaitId> {
        if self.by_tuple.is_empty() {
            return None;
        }
        let is_it = |&number: &u32| {
            let entry = self.entry(number);
            entry.is_some_and(|entry| entry.tuple(table).as_ref() == Some(tuple))
        };
        let found = self.by_tuple.find(self.secrets.waiting_hash(tuple), is_it);
        found.map(|&number| WaitId(number))
    }

    /// What is left of the connection, and the socket that stands for it.
    pub(super) fn get(&self, table: &PortTable, id: WaitId) -> Option<(TimeWait, SocketId)> {
        let entry = self.entry(id.0)?;
        Some((entry.time_wait(), entry.stand_in(table)?))
    }

    /// The four-tuples of all, and when each is over.
    pub(super) fn iter(&self, table: &PortTable) -> impl Iterator<Item = (FourTuple, Instant)> {
        let present = self.by_tuple.iter().filter_map(|&number| self.entry(number));
        present.filter_map(|entry| Some((entry.tuple(table)?, entry.end)))
    }

    /// Enters a connection that waits until `end`, or longer if others do. Its four-tuple is not there yet, and
    /// `stand_in` has its local end.
    pub(super) fn insert(
        &mut self,
        table: &PortTable,
        end: Instant,
        tuple: &FourTuple,
        stand_in: SocketId,
        left: &TimeWait,
    ) {
        let last = self.chunks.back().and_then(|chunk| chunk.last());
        let place = u32::try_from(stand_in.place()).expect("a table holds 2^30 sockets");
        debug_assert!(place <= PLACE, "a table holds 2^30 sockets");
        let entry = Entry {
            end: last.map_or(end, |last| end.max(last.end)),
            remote: match tuple.remote().ip() {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            },
            rcv_nxt: left.rcv_nxt,
            snd_nxt: left.snd_nxt,
            timestamps: left.timestamps.unwrap_or_default(),
            stand_in: place
                | if left.timestamps.is_some() {
                    HAS_TIMESTAMPS
                } else {
                    0
                },
            remote_port: tuple.remote().port(),
            window: left.window,
        };
        let number = self.push(entry);
        let Self {
            secrets,
            chunks,
            base,
            by_tuple,
            ..
        } = self;
        by_tuple.insert_unique(secrets.waiting_hash(tuple), number, |&number| {
            let tuple = entry_at(chunks, *base, number).and_then(|entry| entry.tuple(table));
            tuple.map_or(0, |tuple| secrets.waiting_hash(&tuple))
        });
    }

    /// Forgets one, and says which socket stood for it. To be told to the table after.
    pub(super) fn remove(&mut self, table: &PortTable, id: WaitId) -> Option<SocketId> {
        let entry = self.entry(id.0)?;
        let (tuple, stand_in) = (entry.tuple(table)?, entry.stand_in(table)?);
        let hash = self.secrets.waiting_hash(&tuple);
        if let Ok(found) = self.by_tuple.find_entry(hash, |&other| other == id.0) {
            found.remove();
        }
        let at = id.0.wrapping_sub(self.base);
        self.chunks[(at / CHUNK_LEN) as usize][(at % CHUNK_LEN) as usize].stand_in |= IS_OVER;
        self.leave_gaps();
        Some(stand_in)
    }

    /// Lets the one with this four-tuple wait until `end`. It stays where it is if that is little later: each that
    /// moves leaves a gap, and whoever repeats a segment a thousand times a second is not to make a thousand of them.
    pub(super) fn restart(&mut self, table: &PortTable, end: Instant, id: WaitId, tuple: &FourTuple) {
        let is_due = |entry: &&Entry| end.since(entry.end) >= LEAST_RESTART;
        let Some(left) = self.entry(id.0).filter(is_due).map(Entry::time_wait) else {
            return;
        };
        if let Some(stand_in) = self.remove(table, id) {
            self.insert(table, end, tuple, stand_in, &left);
        }
    }

    /// The one that has waited longest.
    pub(super) fn oldest(&self) -> Option<WaitId> {
        self.entry(self.front).map(|_| WaitId(self.front))
    }

    /// When the oldest is over.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.entry(self.front).map(|entry| entry.end)
    }

    /// Puts an entry behind the others and says its number.
    fn push(&mut self, entry: Entry) -> u32 {
        let is_full = |chunk: &Vec<Entry>| chunk.len() == CHUNK_LEN as usize;
        if self.chunks.back().is_none_or(is_full) {
            let spare = self.spare.take();
            let chunk = spare.unwrap_or_else(|| Vec::with_capacity(CHUNK_LEN as usize));
            self.chunks.push_back(chunk);
        }
        let before = (self.chunks.len() as u32 - 1).wrapping_mul(CHUNK_LEN);
        let chunk = self.chunks.back_mut().expect("there is one with room");
        chunk.push(entry);
        self.base.wrapping_add(before + chunk.len() as u32 - 1)
    }

    /// Moves the front behind those that are over.
    fn leave_gaps(&mut self) {
        loop {
            let at = self.front.wrapping_sub(self.base);
            let Some(chunk) = self.chunks.front_mut() else {
                break;
            };
            if at == CHUNK_LEN {
                chunk.clear();
                self.spare = self.chunks.pop_front();
                self.base = self.front;
                continue;
            }
            if chunk
                .get(at as usize)
                .is_none_or(|entry| entry.stand_in & IS_OVER == 0)
            {
                break;
            }
            self.front = self.front.wrapping_add(1);
        }
        if self.by_tuple.is_empty() && self.by_tuple.capacity() > KEPT_PLACES {
            // A rush is over.
            self.by_tuple = HashTable::new();
            self.chunks.shrink_to_fit();
        }
    }

    /// The entry with this number, unless it is over.
    fn entry(&self, number: u32) -> Option<&Entry> {
        entry_at(&self.chunks, self.base, number)
    }
}

fn entry_at(chunks: &VecDeque<Vec<Entry>>, base: u32, number: u32) -> Option<&Entry> {
    let at = number.wrapping_sub(base);
    let entry = chunks
        .get((at / CHUNK_LEN) as usize)?
        .get((at % CHUNK_LEN) as usize)?;
    (entry.stand_in & IS_OVER == 0).then_some(entry)
}

impl Entry {
    fn stand_in(&self, table: &PortTable) -> Option<SocketId> {
        table.at_place((self.stand_in & PLACE) as usize)
    }

    fn tuple(&self, table: &PortTable) -> Option<FourTuple> {
        let local = table.local(self.stand_in(table)?).ok()?;
        FourTuple::new(local, SocketAddr::new(self.remote.into(), self.remote_port))
    }

    fn time_wait(&self) -> TimeWait {
        TimeWait {
            rcv_nxt: self.rcv_nxt,
            snd_nxt: self.snd_nxt,
            window: self.window,
            timestamps: (self.stand_in & HAS_TIMESTAMPS != 0).then_some(self.timestamps),
        }
    }
}

#[cfg(test)]
mod tests {
    use portolan_core::table::{Accepted, Device, Family, Host, Owner, PortChoice, Transport};

    use super::*;

    #[test]
    fn an_entry_is_48_bytes() {
        assert_eq!(size_of::<Entry>(), 48);
    }

    /// Beside a map that does the same by itself, in any order of coming and going, with numbers that wrap.
    #[test]
    fn finds_what_waits_and_nothing_else() {
        let mut host = Host::new();
        let ends: [SocketAddr; 2] = ["10.0.0.1:80".parse().unwrap(), "[fd00::1]:80".parse().unwrap()];
        for end in ends {
            host.add_address(Device::new(1).unwrap(), end.ip(), None);
        }
        let mut table = PortTable::new(host, [2; 16]);
        let listeners = ends.map(|end| {
            let family = if end.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
            let listener = table.socket(Transport::Tcp, family, Owner::ROOT);
            table.bind(listener, end, PortChoice::Any).unwrap();
            table.listen(listener, PortChoice::Any).unwrap();
            listener
        });
        let mut waiting = Waiting::new(Secrets::new([3; 16]));
        waiting.base = 0u32.wrapping_sub(CHUNK_LEN);
        waiting.front = waiting.base;
        let mut model = VecDeque::new();
        let mut random = 1u32;
        for round in 0..5000u16 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let which = usize::from(round % 2);
            let remote: IpAddr = if which == 0 {
                [10, 0, 0, 2].into()
            } else {
                [0xFD00, 0, 0, 0, 0, 0, 0, 2].into()
            };
            let tuple = FourTuple::new(ends[which], (remote, round + 1).into()).unwrap();
            let (local, remote) = (tuple.local(), tuple.remote());
            let ends = Accepted {
                local,
                remote,
                device: None,
            };
            let socket = table.accept(listeners[which], ends).unwrap();
            let stand_in = table.hand_over(socket).unwrap();
            let left = TimeWait {
                rcv_nxt: SeqNum::new(random),
                snd_nxt: SeqNum::new(!random),
                window: round,
                timestamps: (random >> 30 == 0).then_some((round.into(), random)),
            };
            let end = Instant::from_millis(round.into());
            waiting.insert(&table, end, &tuple, stand_in, &left);
            model.push_back((tuple, end, left));
            // As many go as come, after the first thousand.
            let goes = match random >> 16 & 3 {
                _ if round < 1000 => continue,
                0 => (random >> 18) as usize % model.len(),
                _ => 0,
            };
            let (tuple, ..) = model.remove(goes).unwrap();
            let id = waiting.find(&table, &tuple).unwrap();
            let stand_in = waiting.remove(&table, id).unwrap();
            table.end_wait(stand_in).unwrap();
            assert_eq!(waiting.find(&table, &tuple), None);
            assert!(waiting.get(&table, id).is_none());
            assert_eq!(waiting.len(), model.len());
            let gaps = waiting.bytes() - model.len() * 64;
            assert!(gaps.is_multiple_of(48) && gaps / 48 < 2000, "{gaps}");
            assert_eq!(waiting.next_deadline(), model.front().map(|&(_, end, _)| end));
            let (tuple, _, left) = &model[(random >> 8) as usize % model.len()];
            let (found, _) = waiting.get(&table, waiting.find(&table, tuple).unwrap()).unwrap();
            assert_eq!(format!("{found:?}"), format!("{left:?}"));
        }
        assert!(waiting.front < u32::MAX / 2, "numbers have wrapped");
        let mut listed: Vec<_> = waiting.iter(&table).map(|(tuple, end)| (end, tuple)).collect();
        listed.sort_by_key(|&(end, _)| end);
        assert!(
            listed
                .into_iter()
                .eq(model.iter().map(|&(tuple, end, _)| (end, tuple)))
        );
        while let Some(oldest) = waiting.oldest() {
            let stand_in = waiting.remove(&table, oldest).unwrap();
            table.end_wait(stand_in).unwrap();
        }
        assert_eq!(
            (waiting.len(), waiting.bytes(), waiting.next_deadline()),
            (0, 0, None)
        );
        assert_eq!(table.len(), listeners.len());
    }
}
