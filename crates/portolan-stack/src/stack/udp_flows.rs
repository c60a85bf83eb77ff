//! Who talks to whom by UDP, for the filter: a datagram that answers another is of an established flow.
//!
//! Flows live in two tables. Every minute, or when the young one is full, it becomes the old one and the old one is
//! forgotten; a flow that is seen moves to the young one. So a flow is remembered for one to two minutes after its last
//! datagram (Linux: 30 s, and 120 s once it was answered), without a timer for each, and memory is bounded.

use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::HashMap;
use portolan_core::demux::FourTuple;
use portolan_core::filter::{ConnectionState, Hook};
use siphasher::sip::SipHasher13;

use super::filtering::Judged;
use crate::{Duration, Instant};

/// How long the young table stays young.
const AGE: Duration = Duration::from_secs(60);
/// Flows that each of both tables holds; beyond that the tables turn earlier.
const MOST: usize = 65_536;

#[derive(Clone, Copy, Debug)]
struct Flow {
    /// Which way its first datagram went.
    began: Hook,
    is_answered: bool,
    judged: Judged,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct UdpFlows {
    young: HashMap<Ends, Flow, Key>,
    old: HashMap<Ends, Flow, Key>,
    turned_at: Instant,
    /// The flow whose datagram passed last through each hook, and under which filter: bursts ask for it again.
    last: [Option<(FourTuple, u16)>; 2],
}

impl UdpFlows {
    pub(super) fn new(secret: [u8; 16]) -> Self {
        Self {
            young: HashMap::with_hasher(Key(secret)),
            old: HashMap::with_hasher(Key(secret)),
            turned_at: Instant::START,
            last: [None; 2],
        }
    }

    /// Whether the same flow passed last through this hook, under the filter of this number. It is a young one then.
    #[inline]
    pub(super) fn passed_last(&self, now: Instant, hook: Hook, tuple: &FourTuple, number: u16) -> bool {
        now.since(self.turned_at) < AGE && self.last[place(hook)] == Some((*tuple, number))
    }

    /// What a datagram is to the flows that are known, and under which filter such ones passed.
    pub(super) fn look(&mut self, now: Instant, hook: Hook, tuple: &FourTuple) -> (ConnectionState, Judged) {
        self.turn(now);
        let Some(flow) = self.find(tuple) else {
            return (ConnectionState::New, Judged::NEVER);
        };
        if flow.is_answered {
            return (ConnectionState::Established, flow.judged);
        }
        if flow.began == hook {
            return (ConnectionState::New, flow.judged);
        }
        // The first answer: both ways are established from now on, if it passes.
        (ConnectionState::Established, Judged::NEVER)
    }

    /// A datagram passed; those that follow it pass too under the filter of this number.
    pub(super) fn pass(&mut self, now: Instant, hook: Hook, tuple: &FourTuple, number: Option<u16>) {
        if self.young.len() >= MOST {
            self.swap(now);
        }
        let flow = self.young.entry(Ends(*tuple)).or_insert(Flow {
            began: hook,
            is_answered: false,
            judged: Judged::NEVER,
        });
        if flow.began != hook && !flow.is_answered {
            flow.is_answered = true;
            // What passed as new has yet to pass as established.
            flow.judged = Judged::NEVER;
            self.last = [None; 2];
        }
        if let Some(number) = number {
            flow.judged.pass(number, hook);
            self.last[place(hook)] = Some((*tuple, number));
        }
    }

    /// Notes a flow that needed no look at the rules.
    pub(super) const fn note(&mut self, hook: Hook, tuple: &FourTuple, number: u16) {
        self.last[place(hook)] = Some((*tuple, number));
    }

    /// Forgets all flows.
    pub(super) fn clear(&mut self) {
        self.last = [None; 2];
        self.young.clear();
        self.old.clear();
        self.young.shrink_to_fit();
        self.old.shrink_to_fit();
    }

    fn find(&mut self, tuple: &FourTuple) -> Option<&Flow> {
        let ends = Ends(*tuple);
        if let Some(flow) = self.old.remove(&ends) {
            self.young.insert(ends, flow);
        }
        self.young.get(&ends)
    }

    fn turn(&mut self, now: Instant) {
        let age = now.since(self.turned_at);
        if age < AGE {
            return;
        }
        self.swap(now);
        if age >= AGE * 2 {
            self.old.clear();
        }
    }

    fn swap(&mut self, now: Instant) {
        std::mem::swap(&mut self.young, &mut self.old);
        self.young.clear();
        self.last = [None; 2];
        self.turned_at = now;
    }
}

const fn place(hook: Hook) -> usize {
    match hook {
        Hook::Input => 0,
        Hook::Output => 1,
    }
}

/// A four-tuple as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends(FourTuple);

impl Hash for Ends {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.local().hash(state);
        self.0.remote().hash(state);
    }
}

/// The key of the tables, so that nobody outside can choose what collides.
#[derive(Clone, Copy)]
struct Key([u8; 16]);

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

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> FourTuple {
        let local = "10.0.0.1:53".parse().unwrap();
        FourTuple::new(local, (local.ip(), port).into()).unwrap()
    }

    #[test]
    fn a_flow_is_new_until_it_is_answered_and_forgotten_after_two_minutes() {
        let mut flows = UdpFlows::new([1; 16]);
        let at = |seconds| Instant::START + Duration::from_secs(seconds);
        let state = |flows: &mut UdpFlows, seconds, hook| flows.look(at(seconds), hook, &tuple(9)).0;
        assert_eq!(state(&mut flows, 0, Hook::Output), ConnectionState::New);
        // What does not pass leaves no trace.
        assert_eq!(state(&mut flows, 0, Hook::Input), ConnectionState::New);
        flows.pass(at(0), Hook::Output, &tuple(9), Some(1));
        assert_eq!(state(&mut flows, 1, Hook::Output), ConnectionState::New);
        assert_eq!(state(&mut flows, 1, Hook::Input), ConnectionState::Established);
        flows.pass(at(1), Hook::Input, &tuple(9), Some(1));
        for hook in [Hook::Input, Hook::Output] {
            let (state, judged) = flows.look(at(50), hook, &tuple(9));
            assert_eq!(state, ConnectionState::Established);
            assert_eq!(judged.passes(1, hook), hook == Hook::Input);
        }
        // Seen every minute it lives; not seen for two it is gone.
        for seconds in [100, 170, 230] {
            assert_eq!(
                state(&mut flows, seconds, Hook::Input),
                ConnectionState::Established
            );
        }
        assert_eq!(state(&mut flows, 351, Hook::Input), ConnectionState::New);
    }

    #[test]
    fn many_flows_take_bounded_memory() {
        let mut flows = UdpFlows::new([1; 16]);
        for number in 0..200_000u32 {
            let remote = (std::net::Ipv4Addr::from_bits(number), 9).into();
            let tuple = FourTuple::new("10.0.0.1:53".parse().unwrap(), remote).unwrap();
            flows.look(Instant::START, Hook::Input, &tuple);
            flows.pass(Instant::START, Hook::Input, &tuple, Some(1));
        }
        assert!(flows.young.len() <= MOST && flows.old.len() <= MOST);
    }
}
