//! Connections whose handshake is not done: 80 bytes each, and 5 for each place of the table they are found by.
//!
//! ```text
//!   SYN ─▶ insert ─▶ list 0 ──1 s──▶ list 1 ──2 s──▶ list 2 ──4 s──▶ … ──▶ given up
//!   ACK ─▶ find ─▶ a connection in SYN-RECEIVED for a moment ─▶ remove, or as it was
//! ```
//!
//! All entries of a list wait equally long, so each list is in order of time: timers cost two links. A half-open
//! connection has no place in the port table. As in Linux it holds no port; its listener does.

use hashbrown::HashTable;
use portolan_core::demux::FourTuple;
use portolan_core::wire::SeqNum;

use super::ListenerId;
use super::secrets::Secrets;
use crate::chunks::Chunks;
use crate::tcp::{Answered, Syn};
use crate::{Duration, Instant};

/// RFC 6298: 1 second, then twice the one before, up to 120 seconds, which is beyond the last.
const LISTS: usize = 8;
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Between answers to segments that do not fit (RFC 5961, section 7; Linux's tcp_invalid_ratelimit).
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);
const NONE: u32 = u32::MAX;

/// A connection that a listener was asked for.
#[derive(Debug)]
pub(super) struct HalfOpen {
    pub(super) tuple: FourTuple,
    pub(super) listener: ListenerId,
    pub(super) syn: Syn,
    pub(super) iss: SeqNum,
    /// In ticks, of which it has the low bits.
    deadline: u32,
    previous: u32,
    /// The next of its list; of a place that is free, the next free one.
    next: u32,
    /// When the last challenge went, in [`CHALLENGE_TICK`]s, if one went.
    challenged: u8,
    /// How often the SYN-ACK was repeated because time ran out, in the high bits; in the low [`PROGRESS_BITS`], what
    /// has happened to it.
    attempts_and_progress: u8,
}

const PROGRESS_BITS: u32 = 3;
/// More do not fit, and last an hour.
const MOST_ATTEMPTS: u8 = u8::MAX >> PROGRESS_BITS;

/// What has happened to the SYN-ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The place is free.
    Free,
    /// It is to be sent.
    Wanted,
    /// It is to be sent again.
    WantedAgain,
    /// It was sent once.
    Once,
    /// It was sent more than once.
    Again,
}

const PROGRESS: [Progress; 5] = [
    Progress::Free,
    Progress::Wanted,
    Progress::WantedAgain,
    Progress::Once,
    Progress::Again,
];

impl HalfOpen {
    fn progress(&self) -> Progress {
        let bits = self.attempts_and_progress & ((1 << PROGRESS_BITS) - 1);
        PROGRESS[usize::from(bits)]
    }

    const fn attempts(&self) -> u8 {
        self.attempts_and_progress >> PROGRESS_BITS
    }

    const fn set(&mut self, attempts: u8, progress: Progress) {
        self.attempts_and_progress = attempts << PROGRESS_BITS | progress as u8;
    }
}

/// 4.096 µs, of which 32 bits are nearly five hours: deadlines lie within minutes.
const TICK_BITS: u32 = 12;

/// The tick of a moment, or the one that begins after it: nothing is due early.
const fn tick_after(moment: Instant) -> u64 {
    moment.as_nanos().div_ceil(1 << TICK_BITS)
}

/// 2²⁷ ns, 134 ms. It comes round in 34 s: a challenge may wait half a second too long then, once.
const CHALLENGE_TICK: u32 = 27;

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

/// All half-open connections of a stack.
#[derive(Debug)]
pub(super) struct SynQueue {
    secrets: Secrets,
    entries: Chunks<HalfOpen>,
    by_tuple: HashTable<u32>,
    lists: [List; LISTS],
    free: u32,
    /// The latest tick that was seen, around which deadlines lie.
    present: u64,
}

/// What is due for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Its SYN-ACK is to be sent again.
    Repeat(u32),
    /// It was repeated often enough.
    GiveUp(u32),
}

impl SynQueue {
    pub(super) const fn new(secrets: Secrets) -> Self {
        let empty = List {
            first: NONE,
            last: NONE,
        };
        Self {
            secrets,
            entries: Chunks::new(),
            by_tuple: HashTable::new(),
            lists: [empty; LISTS],
            free: NONE,
            present: 0,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_tuple.len()
    }

    /// The four-tuples of all, and when the SYN-ACK of each is due again, if it went at all.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&FourTuple, Option<Instant>)> {
        self.by_tuple.iter().map(|&index| {
            let entry = &self.entries[index];
            let deadline = match entry.progress() {
                Progress::Free | Progress::Wanted | Progress::WantedAgain => None,
                Progress::Once | Progress::Again => Some(self.deadline(index)),
            };
            (&entry.tuple, deadline)
        })
    }

    /// The entry of this four-tuple.
    pub(super) fn find(&self, tuple: &FourTuple) -> Option<u32> {
        if self.by_tuple.is_empty() {
            return None;
        }
        let hash = self.secrets.half_open_hash(tuple);
        self.by_tuple
            .find(hash, |&index| self.entries[index].tuple == *tuple)
            .copied()
    }

    /// The entry at `index`, if that place is taken.
    pub(super) fn get(&self, index: u32) -> Option<&HalfOpen> {
        let entry = self.entries.get(index)?;
        (entry.progress() != Progress::Free).then_some(entry)
    }

    /// Enters a connection whose four-tuple has no entry, and whose SYN-ACK is to be sent.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        tuple: &FourTuple,
        listener: ListenerId,
        syn: Syn,
        iss: SeqNum,
    ) -> u32 {
        let entry = HalfOpen {
            tuple: *tuple,
            listener,
            syn,
            iss,
            deadline: 0,
            previous: NONE,
            next: NONE,
            challenged: 0,
            attempts_and_progress: Progress::Wanted as u8,
        };
        let index = self.free;
        let index = if index == NONE {
            self.entries.push(entry)
        } else {
            self.free = self.entries[index].next;
            self.entries[index] = entry;
            index
        };
        let Self {
            secrets,
            entries,
            by_tuple,
            ..
        } = self;
        by_tuple.insert_unique(secrets.half_open_hash(tuple), index, |&index| {
            secrets.half_open_hash(&entries[index].tuple)
        });
        self.wait(now, index, FIRST_TIMEOUT);
        index
    }

    /// Forgets an entry.
    pub(super) fn remove(&mut self, index: u32) {
        let hash = self.secrets.half_open_hash(&self.entries[index].tuple);
        self.by_tuple
            .find_entry(hash, |&other| other == index)
            .expect("every entry is found by its four-tuple")
            .remove();
        self.unlink(index);
        let free = self.free;
        let entry = &mut self.entries[index];
        entry.set(0, Progress::Free);
        entry.next = free;
        self.free = index;
        if self.by_tuple.is_empty() && self.entries.has_many() {
            // A flood is over.
            self.entries.clear();
            self.by_tuple = HashTable::new();
            self.free = NONE;
        }
    }

    /// Notes that the peer did not get the SYN-ACK. Says whether that is news.
    pub(super) fn want_answer(&mut self, index: u32) -> bool {
        let entry = &mut self.entries[index];
        match entry.progress() {
            Progress::Free | Progress::Wanted | Progress::WantedAgain => false,
            Progress::Once | Progress::Again => {
                entry.set(entry.attempts(), Progress::WantedAgain);
                true
            }
        }
    }

    /// Whether the SYN-ACK is to be sent; it is taken for sent from here on.
    pub(super) fn take_wanted(&mut self, now: Instant, index: u32) -> bool {
        match self.entries.get(index).map(HalfOpen::progress) {
            Some(Progress::Wanted) => {
                self.unlink(index);
                self.entries[index].set(0, Progress::Once);
                self.wait(now, index, FIRST_TIMEOUT);
                true
            }
            Some(Progress::WantedAgain) => {
                let entry = &mut self.entries[index];
                entry.set(entry.attempts(), Progress::Again);
                true
            }
            Some(Progress::Free | Progress::Once | Progress::Again) | None => false,
        }
    }

    /// How the SYN-ACK fared.
    pub(super) fn answered(&self, now: Instant, index: u32) -> Answered {
        let entry = &self.entries[index];
        let sent = Instant::START + self.deadline(index).since(Instant::START + FIRST_TIMEOUT);
        let passed = challenge_time(now).wrapping_sub(entry.challenged);
        let rest = (CHALLENGE_INTERVAL.as_nanos() >> CHALLENGE_TICK).saturating_sub(u64::from(passed));
        let waits = entry.challenged != 0 && rest > 0;
        Answered {
            once_at: (entry.progress() == Progress::Once).then_some(sent),
            attempts: entry.attempts(),
            challenge_from: now + Duration::from_nanos(if waits { rest << CHALLENGE_TICK } else { 0 }),
        }
    }

    /// Notes that a segment that did not fit was answered.
    pub(super) fn challenged(&mut self, now: Instant, index: u32) {
        // 0 means never; one tick more does no harm.
        self.entries[index].challenged = challenge_time(now).max(1);
    }

    /// When [`SynQueue::pop_due`] has something.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let firsts = self.lists.iter().filter(|list| list.first != NONE);
        firsts.map(|list| self.deadline(list.first)).min()
    }

    /// An entry that has waited long enough; call until `None`. It waits again, for `longest` at most, unless it is to
    /// be given up.
    pub(super) fn pop_due(&mut self, now: Instant, retries: u8, longest: Duration) -> Option<Due> {
        self.present = self.present.max(tick_after(now));
        let mut firsts = self.lists.iter().map(|list| list.first);
        let index = firsts.find(|&first| first != NONE && self.deadline(first) <= now)?;
        let attempts = self.entries[index].attempts() + 1;
        if attempts > retries.min(MOST_ATTEMPTS) {
            return Some(Due::GiveUp(index));
        }
        self.unlink(index);
        let entry = &mut self.entries[index];
        entry.set(attempts, entry.progress());
        let longest = longest.max(FIRST_TIMEOUT);
        self.wait(now, index, timeout(attempts).min(longest));
        Some(Due::Repeat(index))
    }

    fn deadline(&self, index: u32) -> Instant {
        let ahead = self.entries[index].deadline.wrapping_sub(self.present as u32) as i32;
        let tick = self.present.saturating_add_signed(i64::from(ahead));
        Instant::from_nanos(tick << TICK_BITS)
    }

    /// Puts an entry at the end of its list.
    fn wait(&mut self, now: Instant, index: u32, timeout: Duration) {
        self.present = self.present.max(tick_after(now));
        let list = &mut self.lists[list_of(self.entries[index].attempts())];
        let last = list.last;
        list.last = index;
        if last == NONE {
            list.first = index;
        } else {
            self.entries[last].next = index;
        }
        let entry = &mut self.entries[index];
        entry.deadline = tick_after(now + timeout) as u32;
        entry.previous = last;
        entry.next = NONE;
    }

    fn unlink(&mut self, index: u32) {
        let entry = &self.entries[index];
        let (previous, next, attempts) = (entry.previous, entry.next, entry.attempts());
        let list = &mut self.lists[list_of(attempts)];
        if previous == NONE {
            list.first = next;
        } else {
            self.entries[previous].next = next;
        }
        if next == NONE {
            list.last = previous;
        } else {
            self.entries[next].previous = previous;
        }
    }
}

fn list_of(attempts: u8) -> usize {
    usize::from(attempts).min(LISTS - 1)
}

/// How long to wait after so many repetitions.
fn timeout(attempts: u8) -> Duration {
    let doublings = list_of(attempts) as u32;
    (FIRST_TIMEOUT * (1 << doublings)).min(LONGEST_TIMEOUT)
}

fn challenge_time(now: Instant) -> u8 {
    (now.as_nanos() >> CHALLENGE_TICK) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_80_bytes_and_its_progress_comes_back() {
        assert_eq!(size_of::<HalfOpen>(), 80);
        for (number, progress) in PROGRESS.into_iter().enumerate() {
            assert_eq!(progress as usize, number);
        }
    }
}
