//! Automatic ports: which to try, in which order.
//!
//! `connect` uses the double-hash algorithm of RFC 6056, section 3.3.4: one keyed hash of the remote and
//! the local address gives where to start, another chooses one of many counters, which moves on with
//! every port taken. So ports towards one remote follow each other (a port just freed is the last to come
//! back), and nobody who sees the ports of one remote can tell those of another.

use std::net::{IpAddr, SocketAddr};

use super::connect::ipv6;
use super::keyed::Keyed;
use super::options::Extras;
use super::{Exhausted, PortTable, Transport};
use crate::{Port, PortRange};

/// Which automatic port to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PortChoice {
    /// Any that is right.
    #[default]
    Any,
    /// This one if it is right, else none: for replaying what somebody else chose.
    Exactly(Port),
}

/// Which half of the ports comes first: Linux keeps those of `connect` and of `bind` apart while it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parity {
    /// The ports of the parity of the range's low end first.
    OfLowEnd,
    /// The others first.
    Other,
    /// Every port in its turn.
    Any,
}

/// RFC 6056 calls it TABLE_LENGTH. Linux has as many: with few counters, an observer can find the one
/// that it shares with somebody else.
const COUNTERS: usize = 1 << 16;

/// The secrets and counters of the choice.
#[derive(Debug)]
pub(super) struct Ephemeral {
    random: Keyed,
    drawn: u64,
    offset: Keyed,
    index: Keyed,
    /// Made at the first automatic connect.
    counters: Vec<u32>,
}

impl Ephemeral {
    pub(super) fn new(keyed: Keyed) -> Self {
        Self {
            random: keyed.purpose(0),
            drawn: 0,
            offset: keyed.purpose(1),
            index: keyed.purpose(2),
            counters: Vec::new(),
        }
    }

    /// A number that cannot be foreseen without the secret.
    #[expect(clippy::cast_possible_truncation, reason = "half of a hash")]
    fn random(&mut self) -> u32 {
        self.drawn += 1;
        self.random.hash_bytes(&self.drawn.to_le_bytes()) as u32
    }

    /// The counter for this pair, and where in the range its search starts.
    #[expect(clippy::cast_possible_truncation, reason = "parts of a hash")]
    fn start(&mut self, local: IpAddr, remote: SocketAddr) -> (usize, u32) {
        if self.counters.is_empty() {
            let random = self.random;
            self.counters = (0..COUNTERS as u64)
                .map(|counter| random.hash_bytes(&(!counter).to_le_bytes()) as u32)
                .collect();
        }
        let pair = pair(local, remote);
        let counter = self.index.hash_bytes(&pair) as usize % COUNTERS;
        let offset = self.offset.hash_bytes(&pair) as u32;
        (counter, self.counters[counter].wrapping_add(offset))
    }

    /// Moves a counter on after `tried` ports. A little chance hides how many connections there were
    /// in between (Linux does the same).
    fn advance(&mut self, counter: usize, tried: u32, step: u32) {
        let chance = self.random() % 8 * step;
        let counter = &mut self.counters[counter];
        *counter = counter.wrapping_add(tried.max(chance) + step);
    }
}

/// Both addresses and the remote port as one message, which is hashed in a fraction of the time of its parts.
fn pair(local: IpAddr, remote: SocketAddr) -> [u8; 34] {
    let mut pair = [0; 34];
    pair[..16].copy_from_slice(&ipv6(local).octets());
    pair[16..32].copy_from_slice(&ipv6(remote.ip()).octets());
    pair[32..].copy_from_slice(&remote.port().to_be_bytes());
    pair
}

/// The ports of a range, each once, from `start` on, one parity after the other.
fn order(range: PortRange, start: u32, parity: Parity) -> impl Iterator<Item = Port> {
    let count = range.len();
    let (step, firsts) = match parity {
        Parity::Any => (1, [0, 0]),
        Parity::OfLowEnd => (2, [0, 1]),
        Parity::Other => (2, [1, 0]),
    };
    let round = count.next_multiple_of(step);
    firsts
        .into_iter()
        .take(step as usize)
        .flat_map(move |first| {
            let start = start % round / step * step;
            (0..round / step).map(move |turn| (start + turn * step) % round + first)
        })
        .filter(move |&offset| offset < count)
        .map(move |offset| {
            let number = u32::from(range.first().get()) + offset;
            Port::new(u16::try_from(number).expect("within the range"))
        })
}

impl PortTable {
    /// The range from which a socket gets an automatic port.
    pub(super) fn range_of(&self, extras: Option<&Extras>) -> PortRange {
        let host = self.host.ephemeral();
        let Some(own) = extras.and_then(|extras| extras.port_range) else {
            return host;
        };
        // Linux takes each end of the socket's own range only if it lies in the host's.
        let end = |own: Port, host_end| if host.contains(own) { own } else { host_end };
        PortRange::new(end(own.first(), host.first()), end(own.last(), host.last())).unwrap_or(host)
    }

    /// A port for bind to port 0, and for listen and a UDP connect without a port.
    pub(super) fn choose_bound(
        &mut self,
        index: u32,
        choice: PortChoice,
        is_free: impl Fn(&Self, Port) -> bool,
    ) -> Result<Port, Exhausted> {
        let transport = self.candidate(index).transport;
        let extras = self.extras.get(&index);
        let range = self.range_of(extras);
        let parity = match transport {
            Transport::Tcp => Parity::Other,
            Transport::Udp => Parity::Any,
        };
        let start = self.ephemeral.random();
        self.choose(transport, range, choice, order(range, start, parity), is_free)
            .map(|(_, port)| port)
    }

    /// A port for connect, by the remote.
    pub(super) fn choose_connected(
        &mut self,
        index: u32,
        local: IpAddr,
        remote: SocketAddr,
        choice: PortChoice,
        is_free: impl Fn(&Self, Port) -> bool,
    ) -> Result<Port, Exhausted> {
        let extras = self.extras.get(&index);
        let range = self.range_of(extras);
        // With a range of its own a socket walks through all of it.
        let has_own = extras.is_some_and(|extras| extras.port_range.is_some());
        let (parity, step) = if has_own {
            (Parity::Any, 1)
        } else {
            (Parity::OfLowEnd, 2)
        };
        let (counter, start) = self.ephemeral.start(local, remote);
        let ports = order(range, start, parity);
        let (tried, port) = self.choose(Transport::Tcp, range, choice, ports, is_free)?;
        self.ephemeral.advance(counter, tried * step, step);
        Ok(port)
    }

    fn choose(
        &self,
        transport: Transport,
        range: PortRange,
        choice: PortChoice,
        ports: impl Iterator<Item = Port>,
        is_free: impl Fn(&Self, Port) -> bool,
    ) -> Result<(u32, Port), Exhausted> {
        let usable = |port: Port| port != Port::ZERO && !self.host.is_reserved(port) && is_free(self, port);
        let found = match choice {
            PortChoice::Any => (0..).zip(ports).find(|&(_, port)| usable(port)),
            PortChoice::Exactly(port) => (range.contains(port) && usable(port)).then_some((0, port)),
        };
        found.ok_or(Exhausted { transport, range })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange::new(Port::new(first), Port::new(last)).unwrap()
    }

    #[test]
    fn every_port_of_a_range_is_tried_once() {
        for range in [
            range(1, 1),
            range(7, 9),
            range(40_000, 40_007),
            range(65_530, 65_535),
        ] {
            for parity in [Parity::OfLowEnd, Parity::Other, Parity::Any] {
                for start in [0, 1, 5, 77, u32::MAX] {
                    let mut tried: Vec<_> = order(range, start, parity).collect();
                    tried.sort_unstable();
                    assert!(tried.into_iter().eq(range.iter()), "{range} {parity:?} {start}");
                }
            }
        }
    }

    #[test]
    fn the_preferred_parity_comes_first() {
        for (parity, first) in [(Parity::OfLowEnd, 0), (Parity::Other, 1)] {
            let tried: Vec<_> = order(range(100, 107), 3, parity).map(Port::get).collect();
            assert!(tried[..4].iter().all(|port| port % 2 == first), "{tried:?}");
        }
    }

    #[test]
    fn ports_towards_one_remote_follow_each_other() {
        let mut ephemeral = Ephemeral::new(Keyed::new([7; 16]));
        let local = "10.8.0.1".parse().unwrap();
        let remote = "10.8.0.9:443".parse().unwrap();
        let (counter, first) = ephemeral.start(local, remote);
        ephemeral.advance(counter, 0, 2);
        let (_, second) = ephemeral.start(local, remote);
        assert!((2..=16).contains(&second.wrapping_sub(first)));
        let (_, elsewhere) = ephemeral.start(local, "10.8.0.9:444".parse().unwrap());
        assert!(elsewhere.abs_diff(first) > 16);
    }
}
