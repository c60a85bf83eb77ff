//! A hierarchical timer wheel: many timers, few of which ever fire.
//!
//! ```text
//!   level 0   64 slots of 1 tick      ◀─┐ cascade when the slot's time comes
//!   level 1   64 slots of 64 ticks    ──┘◀─┐
//!   level 7   64 slots of 64⁷ ticks   ─────┘
//! ```
//!
//! A timer lies on the level of the highest group of six bits in which its tick differs from the present
//! one, so that each level's slots lie ahead of the hand and a bitmap finds the next occupied one. To arm,
//! move or cancel a timer is O(1); a timer that fires was moved down at most seven times.

use crate::Instant;

/// 2¹⁶ ns, 65.5 µs: finer than any timer of TCP needs, coarse enough that a slot is a list.
const TICK_BITS: u32 = 16;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 8 × 6 bits of slots and 16 of tick are the 64 of an [`Instant`]: no timer is too far away.
const LEVELS: usize = 8;
const NIL: u32 = u32::MAX;

/// One timer for each small integer, the owner's index of the thing that is timed.
#[derive(Debug)]
pub(crate) struct TimerWheel {
    nodes: Vec<Node>,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    /// The tick the hand stands at: everything before it has fired.
    hand: u64,
}

/// 16 bytes, of which every connection has one.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// The tick, of 48 bits, and in the low 16 [`Place::bits`] or [`UNARMED`].
    tick_and_place: u64,
    previous: u32,
    next: u32,
}

/// What stands in the place of a [`Place`] while a node does not hang anywhere.
const UNARMED: u16 = u16::MAX;
const PLACE_BITS: u32 = u16::BITS;

impl Node {
    const fn tick(self) -> u64 {
        self.tick_and_place >> PLACE_BITS
    }

    /// Where the node hangs, `None` while it is not armed.
    const fn place(self) -> Option<Place> {
        match self.tick_and_place as u16 {
            UNARMED => None,
            bits => Some(Place {
                level: (bits >> SLOT_BITS) as u8,
                slot: bits as u8 % SLOTS as u8,
            }),
        }
    }

    const fn set(&mut self, tick: u64, place: Option<Place>) {
        let bits = match place {
            Some(place) => place.bits(),
            None => UNARMED,
        };
        self.tick_and_place = tick << PLACE_BITS | bits as u64;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    level: u8,
    slot: u8,
}

impl Place {
    const fn bits(self) -> u16 {
        (self.level as u16) << SLOT_BITS | self.slot as u16
    }
}

impl TimerWheel {
    /// No timers, at the start of time.
    pub(crate) fn new() -> Self {
        Self {
            nodes: Vec::new(),
            heads: [[NIL; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            hand: 0,
        }
    }

    /// Lets timer `index` fire at `deadline`, or at the end of the tick it falls in; an earlier deadline of
    /// it is forgotten. O(1); allocates only for an index larger than all before.
    pub(crate) fn arm(&mut self, index: u32, deadline: Instant) {
        let slot = index as usize;
        if slot >= self.nodes.len() {
            let unarmed = Node {
                tick_and_place: u64::from(UNARMED),
                previous: NIL,
                next: NIL,
            };
            self.nodes.resize(slot + 1, unarmed);
        }
        let tick = tick_after(deadline).max(self.hand);
        let node = self.nodes[slot];
        if node.place().is_some() {
            if node.tick() == tick {
                return;
            }
            self.unlink(index);
        }
        self.link(index, tick);
    }

    /// Forgets timer `index`. O(1).
    pub(crate) fn cancel(&mut self, index: u32) {
        if self
            .nodes
            .get(index as usize)
            .is_some_and(|node| node.place().is_some())
        {
            self.unlink(index);
        }
    }

    /// Gives up the room of timers behind the last that is armed.
    pub(crate) fn trim(&mut self) {
        let armed = self.nodes.iter().rposition(|node| node.place().is_some());
        self.nodes.truncate(armed.map_or(0, |last| last + 1));
        self.nodes.shrink_to_fit();
    }

    /// A moment at which [`TimerWheel::pop_expired`] has something to do: no timer fires before it.
    ///
    /// It may be the moment of a cascade, before the first timer fires; O(levels).
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next_slot().map(|(_, start)| start_of(start))
    }

    /// The index of a timer whose deadline is `now` or earlier, which is not armed any more; call until
    /// `None`.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        let present = now.as_nanos() >> TICK_BITS;
        loop {
            let due = self.next_slot().filter(|&(_, start)| start <= present);
            let Some((place, start)) = due else {
                self.hand = self.hand.max(present);
                return None;
            };
            self.hand = start;
            let mut index = self.heads[usize::from(place.level)][usize::from(place.slot)];
            if place.level == 0 {
                self.unlink(index);
                return Some(index);
            }
            while index != NIL {
                let node = self.nodes[index as usize];
                self.unlink(index);
                self.link(index, node.tick());
                index = node.next;
            }
        }
    }

    /// The first slot that holds a timer, and its first tick. Everything on a level fires before anything
    /// of the level above.
    fn next_slot(&self) -> Option<(Place, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros();
        let shift = level as u32 * SLOT_BITS;
        let above = self.hand >> shift >> SLOT_BITS << SLOT_BITS;
        let start = (above | u64::from(slot)) << shift;
        let place = Place {
            level: level as u8,
            slot: slot as u8,
        };
        Some((place, start.max(self.hand)))
    }

    fn link(&mut self, index: u32, tick: u64) {
        let differing = (tick ^ self.hand) | (SLOTS as u64 - 1);
        let level = differing.ilog2() / SLOT_BITS;
        let slot = (tick >> (level * SLOT_BITS)) as usize % SLOTS;
        let head = &mut self.heads[level as usize][slot];
        let next = std::mem::replace(head, index);
        self.occupied[level as usize] |= 1 << slot;
        let node = &mut self.nodes[index as usize];
        node.previous = NIL;
        node.next = next;
        let place = Place {
            level: level as u8,
            slot: slot as u8,
        };
        node.set(tick, Some(place));
        if next != NIL {
            self.nodes[next as usize].previous = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        let Node { previous, next, .. } = *node;
        let Some(Place { level, slot }) = node.place() else {
            return;
        };
        node.set(node.tick(), None);
        if next != NIL {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NIL {
            self.nodes[previous as usize].next = next;
            return;
        }
        let (level, slot) = (usize::from(level), usize::from(slot));
        self.heads[level][slot] = next;
        if next == NIL {
            self.occupied[level] &= !(1 << slot);
        }
    }
}

/// The first tick that begins at `deadline` or later; the last one there is for what lies in it.
fn tick_after(deadline: Instant) -> u64 {
    deadline
        .as_nanos()
        .div_ceil(1 << TICK_BITS)
        .min(u64::MAX >> TICK_BITS)
}

/// When `tick` begins.
const fn start_of(tick: u64) -> Instant {
    Instant::from_nanos(tick << TICK_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u32, u64),
        Cancel(u32),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let far = prop_oneof![0u64..1 << 20, 0u64..1 << 34, 0u64..1 << 62];
        prop_oneof![
            4 => (0u32..20, far.clone()).prop_map(|(index, delay)| Step::Arm(index, delay)),
            1 => (0u32..20).prop_map(Step::Cancel),
            3 => far.prop_map(Step::Advance),
        ]
    }

    /// When timer `index` fires.
    fn deadline(wheel: &TimerWheel, index: u32) -> Option<Instant> {
        let node = wheel.nodes.get(index as usize)?;
        node.place().map(|_| start_of(node.tick()))
    }

    proptest! {
        #[test]
        fn fires_what_a_sorted_map_fires(steps in vec(step(), 1..120)) {
            let mut wheel = TimerWheel::new();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = 0u64;
            for step in steps {
                match step {
                    Step::Arm(index, delay) => {
                        let deadline = Instant::from_nanos(now.saturating_add(delay));
                        wheel.arm(index, deadline);
                        model.insert(index, tick_after(deadline).max(now >> TICK_BITS));
                    }
                    Step::Cancel(index) => {
                        wheel.cancel(index);
                        model.remove(&index);
                    }
                    Step::Advance(by) => {
                        now = now.saturating_add(by);
                        let mut fired = Vec::new();
                        while let Some(index) = wheel.pop_expired(Instant::from_nanos(now)) {
                            fired.push(index);
                        }
                        let ticks: Vec<_> = fired.iter().map(|index| model[index]).collect();
                        prop_assert!(ticks.is_sorted());
                        let due: Vec<_> = model.extract_if(.., |_, tick| *tick <= now >> TICK_BITS).collect();
                        fired.sort_unstable();
                        prop_assert_eq!(fired, due.iter().map(|(index, _)| *index).collect::<Vec<_>>());
                    }
                }
                for index in 0..20 {
                    prop_assert_eq!(deadline(&wheel, index), model.get(&index).map(|&tick| start_of(tick)));
                }
                let first = model.values().min().map(|&tick| start_of(tick));
                prop_assert_eq!(wheel.next_deadline().is_some(), first.is_some());
                if let (Some(next), Some(first)) = (wheel.next_deadline(), first) {
                    prop_assert!(next <= first);
                }
            }
        }
    }

    #[test]
    fn following_the_deadlines_reaches_every_timer() {
        let mut wheel = TimerWheel::new();
        wheel.arm(0, Instant::from_millis(86_400_000));
        let mut hops = 0;
        while let Some(next) = wheel.next_deadline() {
            hops += 1;
            if let Some(index) = wheel.pop_expired(next) {
                assert_eq!(index, 0);
                assert!(next >= Instant::from_millis(86_400_000));
            }
        }
        assert!(hops <= LEVELS, "{hops} hops");
    }
}
