//! What the path to a destination takes, where that is less than the link does (RFC 1191, RFC 8201).

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::{Duration, Instant};

/// RFC 1191, section 6.3: after ten minutes the path may have become wider.
const LIFE: Duration = Duration::from_secs(600);
/// Linux's `ip_rt_min_pmtu`: 512 bytes of data and two headers. Nobody can make us send smaller packets.
const MIN_V4: u16 = 552;
/// RFC 8200, section 5: every IPv6 link takes this.
const MIN_V6: u16 = 1280;
/// Destinations share this many places by a keyed hash; where four meet, a fifth takes the oldest's.
const SETS: usize = 256;
const WAYS: usize = 4;

/// What a path takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathMtu {
    /// The longest packet.
    pub(super) mtu: u16,
    /// Routers must cut packets, since some link takes less than the least that we send.
    pub(super) is_locked: bool,
}

#[derive(Clone, Copy, Debug)]
struct Learnt {
    remote: IpAddr,
    path: PathMtu,
    until: Instant,
}

/// Paths of which a packet too big was told. Without any it takes no memory, and a look-up no time.
#[derive(Debug)]
pub(super) struct PathMtus {
    key: [u8; 16],
    sets: Vec<[Option<Learnt>; WAYS]>,
}

impl PathMtus {
    pub(super) const fn new(key: [u8; 16]) -> Self {
        Self {
            key,
            sets: Vec::new(),
        }
    }

    /// What the path to `remote` takes, if it is known to be less than the link does.
    pub(super) fn find(&self, now: Instant, remote: IpAddr) -> Option<PathMtu> {
        if self.sets.is_empty() {
            return None;
        }
        let set = &self.sets[self.set_of(remote)];
        let learnt = set.iter().flatten().find(|learnt| learnt.remote == remote)?;
        (now < learnt.until).then_some(learnt.path)
    }

    /// Takes the word of a router that the next link takes packets of `told` bytes, and gives what holds from now
    /// on. A path is never made wider this way, and never narrower than every path is.
    pub(super) fn learn(&mut self, now: Instant, remote: IpAddr, told: usize, link_mtu: usize) -> PathMtu {
        let known = self.find(now, remote);
        // An MTU is at most 65,535.
        let widest = known.map_or(link_mtu as u16, |known| known.mtu);
        let least = if remote.is_ipv4() { MIN_V4 } else { MIN_V6 };
        let path = PathMtu {
            mtu: told.clamp(least.into(), usize::MAX).min(widest.into()) as u16,
            // IPv6 routers do not cut; Linux clamps there too instead of dropping the message as RFC 8201,
            // section 4, has it, and no packet becomes smaller than the standard's least.
            is_locked: remote.is_ipv4()
                && (told < least.into() || known.is_some_and(|known| known.is_locked)),
        };
        if path.mtu >= link_mtu as u16 && !path.is_locked {
            return path;
        }
        if self.sets.is_empty() {
            self.sets = vec![[None; WAYS]; SETS];
        }
        let place = self.set_of(remote);
        let set = &mut self.sets[place];
        let way = set
            .iter()
            .position(|way| way.is_some_and(|learnt| learnt.remote == remote))
            .or_else(|| set.iter().position(Option::is_none))
            .or_else(|| (0..WAYS).min_by_key(|&way| set[way].map(|learnt| learnt.until)))
            .expect("a set has ways");
        set[way] = Some(Learnt {
            remote,
            path,
            until: now + LIFE,
        });
        path
    }

    fn set_of(&self, remote: IpAddr) -> usize {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        match remote {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        hasher.finish() as usize % SETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(mtu: u16, is_locked: bool) -> PathMtu {
        PathMtu { mtu, is_locked }
    }

    #[test]
    fn a_path_gets_narrower_to_a_least_and_is_forgotten_after_ten_minutes() {
        let mut paths = PathMtus::new([1; 16]);
        let remote = IpAddr::from([192, 0, 2, 1]);
        let at = Instant::from_millis;
        assert_eq!(paths.find(at(0), remote), None);
        assert_eq!(paths.learn(at(0), remote, 1600, 1500), path(1500, false));
        assert_eq!(paths.find(at(0), remote), None, "the link takes that");
        assert_eq!(paths.learn(at(0), remote, 1400, 1500), path(1400, false));
        assert_eq!(
            paths.learn(at(0), remote, 1450, 1500),
            path(1400, false),
            "never wider"
        );
        assert_eq!(paths.find(at(0), IpAddr::from([192, 0, 2, 2])), None);
        assert_eq!(paths.learn(at(1000), remote, 68, 1500), path(552, true));
        assert_eq!(paths.find(at(600_999), remote), Some(path(552, true)));
        assert_eq!(paths.find(at(601_000), remote), None);
        assert_eq!(paths.learn(at(601_000), remote, 1450, 1500), path(1450, false));
        let remote = IpAddr::from([0xFD00, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(paths.learn(at(0), remote, 68, 1500), path(1280, false));
    }

    #[test]
    fn many_destinations_take_no_more_memory_and_the_latest_are_known() {
        let mut paths = PathMtus::new([1; 16]);
        let remote = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 0..100_000 {
            let now = Instant::from_millis(n.into());
            paths.learn(now, remote(n), 1400, 1500);
            assert_eq!(paths.find(now, remote(n)), Some(path(1400, false)));
        }
        assert_eq!(paths.sets.len(), SETS);
        let known = (0..100_000).filter(|&n| paths.find(Instant::from_millis(100_000), remote(n)).is_some());
        assert_eq!(known.count(), SETS * WAYS);
    }
}
