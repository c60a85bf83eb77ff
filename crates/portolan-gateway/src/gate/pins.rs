//! Which addresses our resolver answered for which names, so that a connection to one is a connection to the other.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

/// The names of an address.
pub(super) type Names = SmallVec<[Arc<str>; 2]>;

/// Addresses with their names. When it is full, the pin that would end first makes room.
#[derive(Debug, Default)]
pub(super) struct Pins {
    by_address: HashMap<IpAddr, SmallVec<[Pin; 1]>>,
    by_end: BTreeSet<(Instant, IpAddr, Arc<str>)>,
}

#[derive(Debug)]
struct Pin {
    name: Arc<str>,
    ends: Instant,
}

impl Pins {
    /// How many pairs of a name and an address are kept.
    pub(super) const MAX: usize = 65_536;

    /// How many names of one address are kept: each is compared for a new flow.
    pub(super) const NAMES_MAX: usize = 32;

    /// Programs keep addresses longer than they may. A pin holds for as long as the record, but at least this,
    const FLOOR: Duration = Duration::from_secs(60);

    /// at most this,
    const CEILING: Duration = Duration::from_secs(86_400);

    /// and this in addition, for a connection that is made with the last of it.
    const GRACE: Duration = Duration::from_secs(60);

    /// Enters that `address`, which is canonical, was answered for `name`.
    pub(super) fn pin(&mut self, name: &Arc<str>, address: IpAddr, ttl: Duration, now: Instant) {
        let ends = now + ttl.clamp(Self::FLOOR, Self::CEILING) + Self::GRACE;
        let pins = self.by_address.entry(address).or_default();
        if let Some(place) = pins.iter().position(|pin| pin.name == *name) {
            let old = pins.remove(place);
            let ends = ends.max(old.ends);
            self.by_end.remove(&(old.ends, address, old.name));
            self.by_end.insert((ends, address, name.clone()));
            // The last of an address is the one that was answered last.
            pins.push(Pin {
                name: name.clone(),
                ends,
            });
            return;
        }
        if pins.len() == Self::NAMES_MAX {
            let old = pins.remove(0);
            self.by_end.remove(&(old.ends, address, old.name));
        }
        pins.push(Pin {
            name: name.clone(),
            ends,
        });
        self.by_end.insert((ends, address, name.clone()));
        while self.by_end.len() > Self::MAX {
            self.drop_first();
        }
        // What has ended goes as others come, two for one, so that no call takes long.
        for _ in 0..2 {
            if self.by_end.first().is_some_and(|(ends, ..)| *ends <= now) {
                self.drop_first();
            }
        }
    }

    fn drop_first(&mut self) {
        let Some((_, address, name)) = self.by_end.pop_first() else {
            return;
        };
        if let Some(pins) = self.by_address.get_mut(&address) {
            pins.retain(|pin| pin.name != name);
            if pins.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }

    /// The names of a canonical address, the one answered last first.
    pub(super) fn names(&self, address: IpAddr, now: Instant) -> Names {
        let pins = self.by_address.get(&address).into_iter().flatten();
        let valid = pins.rev().filter(|pin| pin.ends > now);
        valid.map(|pin| pin.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[test]
    fn a_pin_holds_as_long_as_its_record_within_bounds_and_a_grace_more() {
        let (mut pins, now) = (Pins::default(), Instant::now());
        let cases = [(0, 120), (30, 120), (100, 160), (1_000_000, 86_460)];
        for (number, (ttl, seconds)) in (0..).zip(cases) {
            let name: Arc<str> = "a".into();
            pins.pin(&name, address(number), Duration::from_secs(ttl), now);
            let names_after = |seconds| pins.names(address(number), now + Duration::from_secs(seconds));
            assert_eq!(names_after(seconds - 1).len(), 1, "{ttl}");
            assert_eq!(names_after(seconds).len(), 0, "{ttl}");
        }
        // A shorter answer later takes nothing away.
        pins.pin(&"a".into(), address(2), Duration::ZERO, now);
        assert_eq!(pins.names(address(2), now + Duration::from_secs(159)).len(), 1);
    }

    #[test]
    fn the_name_answered_last_comes_first_and_their_number_is_bounded() {
        let (mut pins, now) = (Pins::default(), Instant::now());
        for number in 0..100 {
            pins.pin(&format!("n{number}").into(), address(1), Duration::ZERO, now);
        }
        pins.pin(&"n90".into(), address(1), Duration::ZERO, now);
        let names = pins.names(address(1), now);
        assert_eq!(
            (names.len(), &*names[0], &*names[1]),
            (Pins::NAMES_MAX, "n90", "n99")
        );
    }

    #[test]
    fn when_it_is_full_the_pin_that_ends_first_makes_room() {
        let (mut pins, now) = (Pins::default(), Instant::now());
        let name: Arc<str> = "a".into();
        let more = 1_000;
        for number in 0..Pins::MAX as u32 + more {
            let ttl = Duration::from_secs(100 + u64::from(number));
            pins.pin(&name, address(number), ttl, now);
        }
        assert_eq!((pins.by_end.len(), pins.by_address.len()), (Pins::MAX, Pins::MAX));
        assert!(pins.names(address(more - 1), now).is_empty());
        assert_eq!(pins.names(address(more), now).len(), 1);
        // What has ended goes as others come.
        let later = now + Duration::from_secs(1_000_000);
        for number in 0..Pins::MAX as u32 {
            pins.pin(&name, address(1 << 24 | number), Duration::ZERO, later);
        }
        assert_eq!(pins.by_end.len(), pins.by_address.len());
        assert!(pins.by_end.first().is_some_and(|(ends, ..)| *ends > later));
    }
}
