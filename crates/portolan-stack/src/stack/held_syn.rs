//! SYNs that wait for the program's word: compact, bounded, and fair to destinations.
//!
//! ```text
//!   SYN ─▶ listener that holds SYNs ─▶ held ─▶ Event::Syn ─▶ program ─┬▶ accept_syn ─▶ SYN-ACK, connection
//!   SYN again ─▶ absorbed              │ RST, deadline, no room      ├▶ refuse_syn ─▶ RST
//!                                      └─▶ Event::SynGone            └▶ reject_syn ─▶ ICMP unreachable
//! ```
//!
//! A destination that does not answer (so that its SYNs stay) may hold no more than its quota; what is above it is
//! dropped, and comes again. Across destinations the oldest gives way: a SYN of a host that answers is never old. So
//! neither one dead destination nor thousands of them keep a new SYN from being told at once.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bitflags::bitflags;
use hashbrown::{HashMap, HashTable};
use portolan_core::demux::FourTuple;
use portolan_core::wire::{SeqNum, TcpFlags};
use siphasher::sip::SipHasher13;

use super::ListenerId;
use super::events::Event;
use crate::tcp::{Options, Segment};
use crate::{Duration, Instant};

/// The handle of a SYN that waits for the program's word. It is never used for a second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SynId {
    place: u32,
    generation: u32,
}

/// A SYN that waits for the program's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeldSyn {
    /// The listener that it came to.
    pub listener: ListenerId,
    /// Both ends; the local one is the destination that the peer asked for.
    pub tuple: FourTuple,
}

/// Why a SYN of which the program was told needs no word any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SynGone {
    /// The peer took it back by a RST.
    Reset,
    /// The peer begins anew from the same port; the new SYN is told by an event of its own.
    Replaced,
    /// It waited for [`StackConfig::syn_hold`](crate::StackConfig).
    TimedOut,
    /// It was the oldest when there was no more room.
    Evicted,
    /// Its listener was closed.
    ListenerClosed,
}

/// How many SYNs may be held, for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) all: usize,
    pub(super) per_destination: usize,
    pub(super) hold: Duration,
}

/// What became of a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is held, and the program is to be told.
    New,
    /// It is held already.
    Known,
    /// Its destination has its share.
    OverQuota,
}

bitflags! {
    /// What a SYN asked for, and where it stands.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Traits: u8 {
        const MSS = 1;
        const WINDOW_SCALE = 1 << 1;
        const SACK = 1 << 2;
        const TIMESTAMPS = 1 << 3;
        const ECE = 1 << 4;
        const CWR = 1 << 5;
        const TOLD = 1 << 6;
        const IN_USE = 1 << 7;
    }
}

/// All that is kept of a SYN. Entries form a list from the oldest to the newest, which is also the order of their
/// deadlines.
#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: Instant,
    listener: ListenerId,
    /// The addresses, IPv4 ones mapped, local before remote, and the ports.
    addresses: [[u8; 16]; 2],
    ports: [u16; 2],
    generation: u32,
    older: u32,
    /// In a free entry the next free one.
    newer: u32,
    irs: SeqNum,
    iss: SeqNum,
    timestamp: u32,
    window: u16,
    mss: u16,
    window_scale: u8,
    traits: Traits,
}

const NONE: u32 = u32::MAX;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct HeldSyns {
    key: Key,
    entries: Vec<Entry>,
    free: u32,
    by_tuple: HashTable<u32>,
    /// How many are held for each destination that has any, by 32 bits of its keyed hash: should two destinations
    /// have the same, they share a quota.
    by_destination: HashMap<u32, u32, Key>,
    oldest: u32,
    newest: u32,
    /// The first that the program was not told of; all newer ones follow.
    untold: u32,
    /// Told, and gone since.
    gone: VecDeque<(SynId, SynGone)>,
    pub(super) is_noticed: bool,
    pub(super) evicted: u64,
}

impl HeldSyns {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self {
            key: Key(key),
            entries: Vec::new(),
            free: NONE,
            by_tuple: HashTable::new(),
            by_destination: HashMap::with_hasher(Key(key)),
            oldest: NONE,
            newest: NONE,
            untold: NONE,
            gone: VecDeque::new(),
            is_noticed: false,
            evicted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_tuple.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_tuple.is_empty()
    }

    /// A SYN comes. `iss` is what its connection will begin with.
    pub(super) fn take(
        &mut self,
        now: Instant,
        limits: &Limits,
        listener: ListenerId,
        tuple: &FourTuple,
        syn: &Segment<'_>,
        iss: SeqNum,
    ) -> Taken {
        if let Some(place) = self.find(tuple) {
            if self.entries[place as usize].irs == syn.seq {
                return Taken::Known;
            }
            self.remove(place, Some(SynGone::Replaced));
        }
        let destination = self.key.mark(tuple.local().ip());
        let held = self.by_destination.get(&destination).copied().unwrap_or(0);
        if held as usize >= limits.per_destination {
            return Taken::OverQuota;
        }
        if self.len() >= limits.all {
            self.evicted += 1;
            self.remove(self.oldest, Some(SynGone::Evicted));
        }
        *self.by_destination.entry(destination).or_insert(0) += 1;
        let place = self.free_place();
        let older = std::mem::replace(&mut self.newest, place);
        self.entries[place as usize] = Entry {
            deadline: now + limits.hold,
            listener,
            generation: self.entries[place as usize].generation,
            older,
            newer: NONE,
            iss,
            ..Entry::of(tuple, syn)
        };
        match older {
            NONE => self.oldest = place,
            _ => self.entries[older as usize].newer = place,
        }
        if self.untold == NONE {
            self.untold = place;
        }
        let Self {
            key,
            entries,
            by_tuple,
            ..
        } = self;
        by_tuple.insert_unique(hash(key, tuple), place, |&place| {
            hash(key, &entries[place as usize].tuple())
        });
        Taken::New
    }

    /// Whether a SYN of this four-tuple is held.
    pub(super) fn holds(&self, tuple: &FourTuple) -> bool {
        !self.is_empty() && self.find(tuple).is_some()
    }

    /// A RST comes for a four-tuple without a connection. Whether it was for a SYN that is held.
    pub(super) fn reset(&mut self, tuple: &FourTuple, seq: SeqNum) -> bool {
        let Some(place) = self.find(tuple) else {
            return false;
        };
        // RFC 5961, section 3.2: exactly where the next byte is expected.
        if seq != self.entries[place as usize].irs + 1 {
            return false;
        }
        self.remove(place, Some(SynGone::Reset));
        true
    }

    pub(super) fn get(&self, id: SynId) -> Option<HeldSyn> {
        let entry = self.entries.get(id.place as usize)?;
        entry.is(id).then(|| HeldSyn {
            listener: entry.listener,
            tuple: entry.tuple(),
        })
    }

    /// All, with the time at which each is given up.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SynId, HeldSyn, Instant)> {
        self.by_tuple.iter().filter_map(|&place| {
            let entry = &self.entries[place as usize];
            let id = entry.id(place);
            Some((id, self.get(id)?, entry.deadline))
        })
    }

    /// Takes a SYN out: what it is, as it came, and the first sequence number of an answer.
    pub(super) fn release(&mut self, id: SynId) -> Option<(HeldSyn, Segment<'static>, SeqNum)> {
        let held = self.get(id)?;
        let entry = self.entries[id.place as usize];
        self.remove(id.place, None);
        Some((held, entry.segment(), entry.iss))
    }

    /// Drops all of a listener.
    pub(super) fn close_listener(&mut self, listener: ListenerId) {
        let mut place = self.oldest;
        while place != NONE {
            let entry = &self.entries[place as usize];
            let newer = entry.newer;
            if entry.listener == listener {
                self.remove(place, Some(SynGone::ListenerClosed));
            }
            place = newer;
        }
    }

    /// Drops what has waited too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.remove(self.oldest, Some(SynGone::TimedOut));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        Some(self.entries.get(self.oldest as usize)?.deadline)
    }

    /// What the program is to be told next.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        if let Some((id, why)) = self.gone.pop_front() {
            return Some(Event::SynGone(id, why));
        }
        let place = self.untold;
        let entry = self.entries.get_mut(place as usize)?;
        entry.traits |= Traits::TOLD;
        self.untold = entry.newer;
        Some(Event::Syn(entry.id(place)))
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        self.untold != NONE || !self.gone.is_empty()
    }

    /// The bytes that held SYNs are allocated in, free room included.
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.by_tuple.allocation_size()
            + self.by_destination.allocation_size()
    }

    fn find(&self, tuple: &FourTuple) -> Option<u32> {
        self.by_tuple
            .find(hash(&self.key, tuple), |&place| {
                self.entries[place as usize].tuple() == *tuple
            })
            .copied()
    }

    fn free_place(&mut self) -> u32 {
        if self.free != NONE {
            let place = self.free;
            self.free = self.entries[place as usize].newer;
            return place;
        }
        self.entries.push(Entry::free());
        (self.entries.len() - 1) as u32
    }

    /// Takes an entry out of everything; `why` if the program, once told, is to be told that.
    fn remove(&mut self, place: u32, why: Option<SynGone>) {
        let entry = self.entries[place as usize];
        let tuple = entry.tuple();
        let destination = self.key.mark(tuple.local().ip());
        if let Ok(found) = self
            .by_tuple
            .find_entry(hash(&self.key, &tuple), |&other| other == place)
        {
            found.remove();
        }
        if let Some(count) = self.by_destination.get_mut(&destination) {
            *count -= 1;
            if *count == 0 {
                self.by_destination.remove(&destination);
            }
        }
        match entry.older {
            NONE => self.oldest = entry.newer,
            older => self.entries[older as usize].newer = entry.newer,
        }
        match entry.newer {
            NONE => self.newest = entry.older,
            newer => self.entries[newer as usize].older = entry.older,
        }
        if self.untold == place {
            self.untold = entry.newer;
        }
        if let Some(why) = why
            && entry.traits.contains(Traits::TOLD)
        {
            self.gone.push_back((entry.id(place), why));
        }
        let free = &mut self.entries[place as usize];
        free.traits = Traits::empty();
        free.generation = entry.generation.wrapping_add(1);
        free.newer = self.free;
        self.free = place;
    }
}

impl Entry {
    /// What is in a new place.
    fn free() -> Self {
        Self {
            deadline: Instant::START,
            listener: ListenerId::default(),
            addresses: [[0; 16]; 2],
            ports: [0; 2],
            generation: 0,
            older: NONE,
            newer: NONE,
            irs: SeqNum::new(0),
            iss: SeqNum::new(0),
            timestamp: 0,
            window: 0,
            mss: 0,
            window_scale: 0,
            traits: Traits::empty(),
        }
    }

    fn of(tuple: &FourTuple, syn: &Segment<'_>) -> Self {
        let mut traits = Traits::IN_USE;
        traits.set(Traits::MSS, syn.options.mss.is_some());
        traits.set(Traits::WINDOW_SCALE, syn.options.window_scale.is_some());
        traits.set(Traits::SACK, syn.options.sack_permitted);
        traits.set(Traits::TIMESTAMPS, syn.options.timestamps.is_some());
        traits.set(Traits::ECE, syn.has(TcpFlags::ECE));
        traits.set(Traits::CWR, syn.has(TcpFlags::CWR));
        Self {
            addresses: [octets(tuple.local().ip()), octets(tuple.remote().ip())],
            ports: [tuple.local().port(), tuple.remote().port()],
            irs: syn.seq,
            timestamp: syn.options.timestamps.map_or(0, |(value, _)| value),
            window: syn.window,
            mss: syn.options.mss.unwrap_or(0),
            window_scale: syn.options.window_scale.unwrap_or(0),
            traits,
            ..Self::free()
        }
    }

    fn tuple(&self) -> FourTuple {
        let [local, remote] = [0, 1].map(|end: usize| {
            let address = Ipv6Addr::from(self.addresses[end]);
            SocketAddr::new(address.into(), self.ports[end])
        });
        FourTuple::new(local, remote).expect("both ends were of one family")
    }

    /// The SYN, without data: what it carried comes again.
    fn segment(&self) -> Segment<'static> {
        let with = |part, value| self.traits.contains(part).then_some(value);
        let mut flags = TcpFlags::SYN;
        flags.set(TcpFlags::ECE, self.traits.contains(Traits::ECE));
        flags.set(TcpFlags::CWR, self.traits.contains(Traits::CWR));
        Segment {
            seq: self.irs,
            ack: SeqNum::new(0),
            flags,
            window: self.window,
            is_scaled: false,
            urgent_pointer: 0,
            payload: &[],
            owner: None,
            options: Options {
                mss: with(Traits::MSS, self.mss),
                window_scale: self
                    .traits
                    .contains(Traits::WINDOW_SCALE)
                    .then_some(self.window_scale),
                sack_permitted: self.traits.contains(Traits::SACK),
                timestamps: self
                    .traits
                    .contains(Traits::TIMESTAMPS)
                    .then_some((self.timestamp, 0)),
                ..Options::default()
            },
            congestion_experienced: false,
            piece_len: 1,
        }
    }

    const fn id(&self, place: u32) -> SynId {
        SynId {
            place,
            generation: self.generation,
        }
    }

    const fn is(&self, id: SynId) -> bool {
        self.traits.contains(Traits::IN_USE) && self.generation == id.generation
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The key of the tables, so that nobody outside can choose what collides.
#[derive(Clone, Copy)]
struct Key([u8; 16]);

impl Key {
    /// What a destination is counted under.
    fn mark(&self, destination: IpAddr) -> u32 {
        self.hash_one(octets(destination)) as u32
    }
}

impl BuildHasher for Key {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.0)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret is not for logs.
        f.write_str("Key")
    }
}

fn hash(key: &Key, tuple: &FourTuple) -> u64 {
    let mut hasher = key.build_hasher();
    hasher.write(&octets(tuple.local().ip()));
    hasher.write(&octets(tuple.remote().ip()));
    hasher.write_u16(tuple.local().port());
    hasher.write_u16(tuple.remote().port());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_syn_is_at_most_96_bytes() {
        assert!(size_of::<Entry>() <= 96, "{}", size_of::<Entry>());
    }
}
