//! Fragments of IP packets, until they are whole (RFC 791, section 3.2; RFC 8200, section 4.5).
//!
//! ```text
//!   Piece ─▶ insert ─▶ queue of the datagram ─┬▶ Whole: head and payload in a row ─▶ the stack
//!                         │  │                └▶ Overlap, Mismatch: the whole datagram is gone
//!                         │  └▶ over the budget: the oldest datagram of the source that holds most goes
//!                         └▶ pop_expired: its time is over
//! ```
//!
//! The work for a fragment does not grow with the number of datagrams that wait. Memory is counted in chunks, so
//! tiny fragments that lie far apart pay for what they hold.

use std::hash::Hasher;
use std::net::IpAddr;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;
use slotmap::{SlotMap, new_key_type};
use smallvec::SmallVec;

use super::{Pool, SparseBytes};
use crate::{Duration, Instant};

/// Linux's `ipfrag_time` is 30 seconds; RFC 8200, section 4.5, wants 60 for IPv6.
const LIFE_V4: Duration = Duration::from_secs(30);
const LIFE_V6: Duration = Duration::from_secs(60);
/// Where the payload begins in a queue's bytes; the head stands right before it, so both are read in a row.
const PAYLOAD_AT: usize = 512;
/// The longest head: of IPv6, what stands before the fragment header, and that header.
pub(crate) const MAX_HEAD: usize = PAYLOAD_AT;
/// What a queue costs beside its chunks.
const QUEUE_COST: usize = 256;
/// Ranges of one datagram; a fragment that would make one more ends it. In order there is one range, backwards one for
/// each fragment.
const MAX_RANGES: usize = 1024;
/// Sources share this many shares of the memory by a keyed hash, half of them for each IP version.
const SHARES: usize = 64;
/// One share may hold this part of all the memory.
const LARGEST_SHARE: usize = 4;
/// Emptied buffers that are kept for the next datagrams.
const KEPT_BUFFERS: usize = 16;

new_key_type! {
    struct QueueId;
}

/// What fragments of one packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentKey {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) identification: u32,
    /// Of IPv4; 0 for IPv6, where it does not count.
    pub(crate) protocol: u8,
}

/// A fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) key: FragmentKey,
    /// Where the payload belongs in the whole one, in bytes.
    pub(crate) offset: u16,
    /// Whether further fragments follow; then the payload is a multiple of 8 bytes.
    pub(crate) more: bool,
    /// All before the payload, at most [`MAX_HEAD`] bytes; that of the first fragment is kept.
    pub(crate) head: &'a [u8],
    pub(crate) payload: &'a [u8],
    /// The ECN field.
    pub(crate) ecn: u8,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It waits for others, or was there already.
    Waits,
    /// With it the datagram is whole: ask [`Fragments::take_whole`].
    Whole,
    /// It overlaps another without being the same, so the datagram is dropped (RFC 5722, section 4).
    Overlap,
    /// It contradicts another: on where the datagram ends, or on whether routers may mark it (RFC 3168, section 5.3).
    /// The datagram is dropped.
    Mismatch,
    /// There was no memory for it, and its datagram is dropped.
    NoRoom,
}

/// A datagram whose time is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expired {
    /// How many bytes of its first fragment were written, if that came.
    pub(crate) first: Option<usize>,
}

/// A part of a payload, from `start` up to, and without, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u16,
    end: u16,
}

#[derive(Debug)]
struct Queue {
    key: FragmentKey,
    hash: u64,
    bytes: SparseBytes,
    /// What came, sorted. Only what came in a row is one range: what lies inside of one is a duplicate, what lies across
    /// two is an overlap, as in Linux.
    ranges: SmallVec<[Range; 4]>,
    /// How many bytes came.
    covered: u32,
    /// The head's length and the payload's, of the first fragment, once it came.
    first: Option<(u16, u16)>,
    /// The payload's length, once the last fragment came.
    total: Option<u16>,
    /// The ECN fields that were seen, a bit for each.
    ecn: u8,
    cost: usize,
    until: Instant,
    older: Option<QueueId>,
    newer: Option<QueueId>,
}

/// The datagrams of some sources, in the order in which they began: with one life for all, also that of their ends.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    cost: usize,
    oldest: Option<QueueId>,
    newest: Option<QueueId>,
}

/// All datagrams that wait for fragments. Without any it takes no memory.
#[derive(Debug)]
pub(crate) struct Fragments {
    secret: [u8; 16],
    limit: usize,
    queues: SlotMap<QueueId, Queue>,
    by_key: HashTable<QueueId>,
    shares: Box<[Share; SHARES]>,
    cost: usize,
    spare: Vec<SparseBytes>,
    /// How many datagrams were dropped for others.
    evicted: u64,
}

impl Fragments {
    /// Nothing; at most `limit` bytes will be held.
    pub(crate) fn new(secret: [u8; 16], limit: usize) -> Self {
        Self {
            secret,
            limit,
            queues: SlotMap::with_key(),
            by_key: HashTable::new(),
            shares: Box::new([Share::default(); SHARES]),
            cost: 0,
            spare: Vec::new(),
            evicted: 0,
        }
    }

    /// Takes a fragment.
    pub(crate) fn insert(&mut self, pool: &mut Pool, now: Instant, piece: &Piece<'_>) -> Taken {
        let id = self.find_or_begin(now, piece);
        let taken = self.put(pool, id, piece);
        match taken {
            Taken::Waits => self.shrink(pool, id),
            Taken::Whole => Taken::Whole,
            Taken::Overlap | Taken::Mismatch | Taken::NoRoom => {
                self.drop_queue(pool, id);
                taken
            }
        }
    }

    /// Takes a whole datagram out, and writes its head and payload to the front of `out`: the lengths of both, and
    /// whether a router marked any of it. `None` if it is not whole, or `out` is too short.
    pub(crate) fn take_whole(
        &mut self,
        pool: &mut Pool,
        key: &FragmentKey,
        out: &mut [u8],
    ) -> Option<(usize, usize, bool)> {
        let id = self.find(key, self.hash(key))?;
        let queue = &self.queues[id];
        let ((head, _), total) = (queue.first?, queue.total?);
        let (head, total) = (usize::from(head), usize::from(total));
        let is_marked = queue.ecn & 1 << CONGESTION_EXPERIENCED != 0;
        queue.bytes.read(PAYLOAD_AT - head, out.get_mut(..head + total)?);
        self.drop_queue(pool, id);
        Some((head, total, is_marked))
    }

    /// Takes a datagram out whose time is over, and writes its first fragment, as much as fits, to `out`.
    pub(crate) fn pop_expired(&mut self, pool: &mut Pool, now: Instant, out: &mut [u8]) -> Option<Expired> {
        let mut oldest = self.shares.iter().filter_map(|share| share.oldest);
        let id = oldest.find(|&id| self.queues[id].until <= now)?;
        let queue = &self.queues[id];
        let first = queue.first.map(|(head, payload)| {
            let len = (usize::from(head) + usize::from(payload)).min(out.len());
            queue.bytes.read(PAYLOAD_AT - usize::from(head), &mut out[..len]);
            len
        });
        self.drop_queue(pool, id);
        Some(Expired { first })
    }

    /// When the next datagram expires.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.queues.is_empty() {
            return None;
        }
        let oldest = self.shares.iter().filter_map(|share| share.oldest);
        oldest.map(|id| self.queues[id].until).min()
    }

    /// How many datagrams were dropped to make room for others.
    pub(crate) const fn evicted(&self) -> u64 {
        self.evicted
    }

    fn put(&mut self, pool: &mut Pool, id: QueueId, piece: &Piece<'_>) -> Taken {
        let queue = &mut self.queues[id];
        let start = usize::from(piece.offset);
        let Ok(end) = u16::try_from(start + piece.payload.len()) else {
            return Taken::Mismatch;
        };
        let range = Range {
            start: piece.offset,
            end,
        };
        let known_end = queue.ranges.last().map_or(0, |last| last.end);
        let contradicts = match queue.total {
            Some(total) => end > total || !piece.more && end != total,
            None => !piece.more && end < known_end,
        };
        queue.ecn |= 1 << piece.ecn;
        let mixed = queue.ecn & 1 != 0 && queue.ecn != 1;
        if contradicts || mixed || range.start == range.end {
            return Taken::Mismatch;
        }
        if !piece.more {
            // As in Linux, also if the bytes are there already.
            queue.total = Some(end);
        }
        let at = queue.ranges.partition_point(|known| known.end <= range.start);
        if let Some(known) = queue.ranges.get(at)
            && known.start < range.end
        {
            // As Linux: what lies inside of what is there is a duplicate, and the first to come counts.
            let is_inside = known.start <= range.start && range.end <= known.end;
            return if is_inside { Taken::Waits } else { Taken::Overlap };
        }
        if queue.ranges.len() == MAX_RANGES && known_end != range.start {
            return Taken::NoRoom;
        }
        queue.enter(at, range);
        let before = pool.lent_bytes();
        queue.bytes.write(pool, PAYLOAD_AT + start, piece.payload);
        if start == 0 {
            // Both are bounded: MAX_HEAD, and the end of the payload that was just checked.
            queue.first = Some((piece.head.len() as u16, end));
            queue.bytes.write(pool, PAYLOAD_AT - piece.head.len(), piece.head);
        }
        let cost = pool.lent_bytes() - before;
        queue.cost += cost;
        let is_whole = queue.is_whole();
        let share = self.share_of(&piece.key);
        self.shares[share].cost += cost;
        self.cost += cost;
        if is_whole { Taken::Whole } else { Taken::Waits }
    }

    /// Makes the memory fit its limits: first each share, then the whole, at the cost of the share that holds most.
    fn shrink(&mut self, pool: &mut Pool, latest: QueueId) -> Taken {
        let own = self.share_of(&self.queues[latest].key);
        loop {
            let share = if self.shares[own].cost > self.limit / LARGEST_SHARE {
                own
            } else if self.cost > self.limit {
                (0..SHARES)
                    .max_by_key(|&share| self.shares[share].cost)
                    .unwrap_or(own)
            } else {
                return Taken::Waits;
            };
            let Some(oldest) = self.shares[share].oldest else {
                return Taken::Waits;
            };
            self.drop_queue(pool, oldest);
            if oldest == latest {
                return Taken::NoRoom;
            }
            self.evicted += 1;
        }
    }

    fn find_or_begin(&mut self, now: Instant, piece: &Piece<'_>) -> QueueId {
        let hash = self.hash(&piece.key);
        if let Some(id) = self.find(&piece.key, hash) {
            return id;
        }
        let life = if piece.key.source.is_ipv4() {
            LIFE_V4
        } else {
            LIFE_V6
        };
        let place = self.share_of(&piece.key);
        let older = self.shares[place].newest;
        let id = self.queues.insert(Queue {
            key: piece.key,
            hash,
            bytes: self.spare.pop().unwrap_or_default(),
            ranges: SmallVec::new(),
            covered: 0,
            first: None,
            total: None,
            ecn: 0,
            cost: QUEUE_COST,
            until: now + life,
            older,
            newer: None,
        });
        if let Some(older) = older {
            self.queues[older].newer = Some(id);
        }
        let share = &mut self.shares[place];
        share.newest = Some(id);
        share.oldest.get_or_insert(id);
        share.cost += QUEUE_COST;
        self.cost += QUEUE_COST;
        let queues = &self.queues;
        self.by_key
            .insert_unique(hash, id, |&id| queues.get(id).map_or(0, |queue| queue.hash));
        id
    }

    fn find(&self, key: &FragmentKey, hash: u64) -> Option<QueueId> {
        let same = |&id: &QueueId| self.queues.get(id).is_some_and(|queue| queue.key == *key);
        self.by_key.find(hash, same).copied()
    }

    fn drop_queue(&mut self, pool: &mut Pool, id: QueueId) {
        let Some(mut queue) = self.queues.remove(id) else {
            return;
        };
        if let Ok(entry) = self.by_key.find_entry(queue.hash, |&other| other == id) {
            entry.remove();
        }
        let place = self.share_of(&queue.key);
        let share = &mut self.shares[place];
        share.cost -= queue.cost;
        self.cost -= queue.cost;
        match queue.older {
            Some(older) => self.queues[older].newer = queue.newer,
            None => share.oldest = queue.newer,
        }
        match queue.newer {
            Some(newer) => self.queues[newer].older = queue.older,
            None => share.newest = queue.older,
        }
        queue.bytes.clear(pool);
        if self.spare.len() < KEPT_BUFFERS {
            self.spare.push(queue.bytes);
        }
    }

    fn hash(&self, key: &FragmentKey) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        write_address(&mut hasher, key.source, 16);
        write_address(&mut hasher, key.destination, 16);
        hasher.write(&key.identification.to_be_bytes());
        hasher.write(&[key.protocol]);
        hasher.finish()
    }

    /// The share of a source. An IPv6 network of 64 bits is one source: it has as many addresses as it likes.
    fn share_of(&self, key: &FragmentKey) -> usize {
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        write_address(&mut hasher, key.source, 8);
        let half = SHARES / 2;
        hasher.finish() as usize % half + if key.source.is_ipv4() { 0 } else { half }
    }
}

/// The ECN field of a packet that a router marked.
const CONGESTION_EXPERIENCED: u8 = 3;

impl Queue {
    /// Enters a range that overlaps none; `at` is the place of the first that ends behind its start.
    fn enter(&mut self, at: usize, range: Range) {
        self.covered += u32::from(range.end - range.start);
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.insert(at, range),
        }
    }

    fn is_whole(&self) -> bool {
        // Ranges do not overlap, and none ends behind the last fragment.
        self.total.is_some_and(|total| u32::from(total) == self.covered)
    }
}

fn write_address(hasher: &mut SipHasher13, address: IpAddr, bytes: usize) {
    match address {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()[..bytes]),
    }
}

#[cfg(test)]
mod tests;
