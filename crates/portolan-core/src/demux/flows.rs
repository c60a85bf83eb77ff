//! The table of four-tuples: 20 bytes for an IPv4 connection, found by one keyed hash.
//!
//! An entry is the four-tuple and the name of its socket. It says all that a packet needs: the table of
//! sockets is not touched, which would be one more miss of the processor's caches. One bit of the number is a
//! flag: `ASK` says that the four-tuple alone does not decide, since the socket is bound to a device, is in
//! TIME-WAIT, or several sockets have the same four-tuple (with different devices in TCP, at will in UDP).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;

use crate::SipKey;
use crate::table::Keyed;
use crate::wire::PseudoHeader;

/// Both ends of a conversation, as one end sees it: its own socket address and the other's.
///
/// v4-mapped IPv6 addresses become IPv4: Linux delivers the same packets to both.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourTuple {
    addresses: Addresses,
    local_port: u16,
    remote_port: u16,
}

/// Without the scope and flow label of a [`SocketAddr`], which no packet's header has: 38 bytes instead of 64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Addresses {
    V4 { local: Ipv4Addr, remote: Ipv4Addr },
    V6 { local: Ipv6Addr, remote: Ipv6Addr },
}

impl FourTuple {
    /// The four-tuple of a socket at `local` that talks to `remote`, or `None` if one is IPv4 and the
    /// other IPv6.
    #[must_use]
    #[inline]
    pub fn new(local: SocketAddr, remote: SocketAddr) -> Option<Self> {
        if let (SocketAddr::V4(local), SocketAddr::V4(remote)) = (local, remote) {
            let (addresses, ports) = ((*local.ip(), *remote.ip()), (local.port(), remote.port()));
            return Some(Self::v4(addresses, ports));
        }
        let addresses = match (local.ip().to_canonical(), remote.ip().to_canonical()) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => Addresses::V4 { local, remote },
            (IpAddr::V6(local), IpAddr::V6(remote)) => Addresses::V6 { local, remote },
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        Some(Self {
            addresses,
            local_port: local.port(),
            remote_port: remote.port(),
        })
    }

    /// The four-tuple between IPv4 addresses, each pair ours first.
    #[must_use]
    #[inline]
    pub const fn v4(addresses: (Ipv4Addr, Ipv4Addr), ports: (u16, u16)) -> Self {
        Self {
            addresses: Addresses::V4 {
                local: addresses.0,
                remote: addresses.1,
            },
            local_port: ports.0,
            remote_port: ports.1,
        }
    }

    /// Whether it is one of IPv4.
    #[must_use]
    #[inline]
    pub const fn is_ipv4(&self) -> bool {
        matches!(self.addresses, Addresses::V4 { .. })
    }

    /// What checksums of TCP and UDP cover beside a packet between the two.
    #[must_use]
    #[inline]
    pub const fn pseudo_header(&self) -> PseudoHeader {
        match self.addresses {
            Addresses::V4 { local, remote } => PseudoHeader::V4 {
                source: local,
                destination: remote,
            },
            Addresses::V6 { local, remote } => PseudoHeader::V6 {
                source: local,
                destination: remote,
            },
        }
    }

    /// A keyed hash of it for numbers that go out, SipHash-2-4; hashes of different purposes have nothing in common.
    #[must_use]
    pub fn hash(&self, secret: &SipKey, purpose: u8) -> u64 {
        match key(self) {
            Key::V4(key) => secret.hash24(&message::<12, 13>(&key, purpose)),
            Key::V6(key) => secret.hash24(&message::<36, 37>(&key, purpose)),
        }
    }

    /// The same for hash tables, SipHash-1-3.
    #[must_use]
    pub fn table_hash(&self, secret: &SipKey, purpose: u8) -> u64 {
        match key(self) {
            Key::V4(key) => secret.hash13(&message::<12, 13>(&key, purpose)),
            Key::V6(key) => secret.hash13(&message::<36, 37>(&key, purpose)),
        }
    }

    /// Our end.
    #[must_use]
    #[inline]
    pub const fn local(&self) -> SocketAddr {
        let address = match self.addresses {
            Addresses::V4 { local, .. } => IpAddr::V4(local),
            Addresses::V6 { local, .. } => IpAddr::V6(local),
        };
        SocketAddr::new(address, self.local_port)
    }

    /// The other end.
    #[must_use]
    #[inline]
    pub const fn remote(&self) -> SocketAddr {
        let address = match self.addresses {
            Addresses::V4 { remote, .. } => IpAddr::V4(remote),
            Addresses::V6 { remote, .. } => IpAddr::V6(remote),
        };
        SocketAddr::new(address, self.remote_port)
    }
}

impl fmt::Debug for FourTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FourTuple")
            .field("local", &self.local())
            .field("remote", &self.remote())
            .finish()
    }
}

/// `local address, remote address, local port, remote port`, in network order: 12 bytes.
type Key4 = [u8; 12];
/// The same for IPv6: 36 bytes.
type Key6 = [u8; 36];

enum Key {
    V4(Key4),
    V6(Key6),
}

/// A key, with what it is hashed for at its end.
#[inline]
fn message<const KEY: usize, const LEN: usize>(key: &[u8; KEY], purpose: u8) -> [u8; LEN] {
    let mut message = [purpose; LEN];
    message[..KEY].copy_from_slice(key);
    message
}

#[inline]
fn key(tuple: &FourTuple) -> Key {
    let (local_port, remote_port) = (tuple.local_port.to_be_bytes(), tuple.remote_port.to_be_bytes());
    match tuple.addresses {
        Addresses::V4 { local, remote } => {
            let mut key = [0; 12];
            key[..4].copy_from_slice(&local.octets());
            key[4..8].copy_from_slice(&remote.octets());
            key[8..10].copy_from_slice(&local_port);
            key[10..].copy_from_slice(&remote_port);
            Key::V4(key)
        }
        Addresses::V6 { local, remote } => {
            let mut key = [0; 36];
            key[..16].copy_from_slice(&local.octets());
            key[16..32].copy_from_slice(&remote.octets());
            key[32..34].copy_from_slice(&local_port);
            key[34..].copy_from_slice(&remote_port);
            Key::V6(key)
        }
    }
}

fn tuple4(key: &Key4) -> FourTuple {
    let [a, b, c, d, e, f, g, h, ports @ ..] = *key;
    let (local_port, remote_port) = ports_of(ports);
    FourTuple {
        addresses: Addresses::V4 {
            local: Ipv4Addr::new(a, b, c, d),
            remote: Ipv4Addr::new(e, f, g, h),
        },
        local_port,
        remote_port,
    }
}

fn tuple6(key: &Key6) -> FourTuple {
    let mut addresses = [[0; 16]; 2];
    addresses[0].copy_from_slice(&key[..16]);
    addresses[1].copy_from_slice(&key[16..32]);
    let (local_port, remote_port) = ports_of([key[32], key[33], key[34], key[35]]);
    FourTuple {
        addresses: Addresses::V6 {
            local: Ipv6Addr::from(addresses[0]),
            remote: Ipv6Addr::from(addresses[1]),
        },
        local_port,
        remote_port,
    }
}

fn ports_of([a, b, c, d]: [u8; 4]) -> (u16, u16) {
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    key: K,
    socket: u32,
    /// Of the socket's name, so that the answer needs no look at the socket.
    generation: u32,
}

/// The four-tuple alone does not decide.
const ASK: u32 = 1 << 31;
/// The other bits are the socket.
const SOCKET: u32 = !ASK;

/// How many four-tuples are looked up together: as many as a processor can wait for, and some more.
pub(crate) const BATCH: usize = 32;

/// What the table has for a four-tuple.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A connection that is the only one with this four-tuple and hears every device: its socket and the
    /// generation of its name.
    One(u32, u32),
    /// These sockets, in the order in which they came; their devices and ages decide.
    Ask(SmallVec<[u32; 4]>),
}

/// The flows of one protocol.
#[derive(Debug)]
pub(crate) struct Flows {
    keyed: Keyed,
    v4: HashTable<Entry<Key4>>,
    v6: HashTable<Entry<Key6>>,
    /// The sockets of four-tuples that several have, in the order in which they came.
    twins: HashMap<FourTuple, Vec<u32>, Keyed>,
}

impl Flows {
    pub(crate) fn new(keyed: Keyed) -> Self {
        Self {
            keyed,
            v4: HashTable::new(),
            v6: HashTable::new(),
            twins: HashMap::with_hasher(keyed),
        }
    }

    /// Enters a flow of the socket of this name; `ask` if its device or state must be looked at. The answer
    /// is the hash to find it by.
    pub(crate) fn insert(&mut self, tuple: &FourTuple, (socket, generation): (u32, u32), ask: bool) -> u64 {
        let ask = if ask { ASK } else { 0 };
        let Self { keyed, v4, v6, twins } = self;
        match key(tuple) {
            Key::V4(key) => insert(keyed, v4, twins, tuple, key, (socket | ask, generation)),
            Key::V6(key) => insert(keyed, v6, twins, tuple, key, (socket | ask, generation)),
        }
    }

    /// Removes the flow of `socket`, which has this hash.
    pub(crate) fn remove(&mut self, hash: u64, socket: u32) {
        let Some(tuple) = self.tuple(hash, socket) else {
            return;
        };
        match key(&tuple) {
            Key::V4(_) => remove(hash, &mut self.v4, &mut self.twins, &tuple, socket),
            Key::V6(_) => remove(hash, &mut self.v6, &mut self.twins, &tuple, socket),
        }
    }

    /// The four-tuple of `socket`, which has this hash.
    pub(crate) fn tuple(&self, hash: u64, socket: u32) -> Option<FourTuple> {
        let v4 = self
            .v4
            .iter_hash(hash)
            .map(|entry| (tuple4(&entry.key), entry.socket));
        let v6 = self
            .v6
            .iter_hash(hash)
            .map(|entry| (tuple6(&entry.key), entry.socket));
        v4.chain(v6)
            .find(|(tuple, holder)| {
                holder & SOCKET == socket
                    || holder & ASK != 0 && self.twins.get(tuple).is_some_and(|twins| twins.contains(&socket))
            })
            .map(|(tuple, _)| tuple)
    }

    /// Makes look-ups of this socket's flow ask for its device from now on.
    pub(crate) fn ask(&mut self, hash: u64, socket: u32) {
        let same = |holder: u32| holder & SOCKET == socket;
        if let Some(entry) = self.v4.find_mut(hash, |entry| same(entry.socket)) {
            entry.socket |= ASK;
        } else if let Some(entry) = self.v6.find_mut(hash, |entry| same(entry.socket)) {
            entry.socket |= ASK;
        }
    }

    /// Whether there are none of the family of `tuple`.
    pub(crate) fn is_empty(&self, tuple: &FourTuple) -> bool {
        match tuple.addresses {
            Addresses::V4 { .. } => self.v4.is_empty(),
            Addresses::V6 { .. } => self.v6.is_empty(),
        }
    }

    /// Who has this four-tuple.
    #[inline]
    pub(crate) fn find(&self, tuple: &FourTuple) -> Option<Found> {
        // Most hosts have no UDP socket that is connected, or none of this family.
        if self.is_empty(tuple) {
            return None;
        }
        let (holder, generation) = match key(tuple) {
            Key::V4(key) => {
                let hash = self.keyed.hash_bytes(&key);
                let entry = self.v4.find(hash, |entry| entry.key == key)?;
                (entry.socket, entry.generation)
            }
            Key::V6(key) => {
                let hash = self.keyed.hash_bytes(&key);
                let entry = self.v6.find(hash, |entry| entry.key == key)?;
                (entry.socket, entry.generation)
            }
        };
        Some(if holder & ASK == 0 {
            Found::One(holder, generation)
        } else {
            Found::Ask(self.twins.get(tuple).map_or_else(
                || SmallVec::from_slice(&[holder & SOCKET]),
                |twins| SmallVec::from_slice(twins),
            ))
        })
    }

    /// The sockets of as many four-tuples as there is room in `found`: those of connections that are alone and
    /// hear every device, with the generation of their names; `None` for all others, which
    /// [`Flows::find`] tells apart.
    ///
    /// Hashes are worked out first and entries looked up behind each other, so that the processor waits for
    /// several entries at once. With a million flows each is a miss of its caches.
    pub(crate) fn find_batch(&self, tuples: &[FourTuple], found: &mut [Option<(u32, u32)>; BATCH]) {
        debug_assert!(tuples.len() <= BATCH, "the caller cuts batches");
        let mut hashes = [0; BATCH];
        let mut keys = [[0; 12]; BATCH];
        let mut all_v4 = true;
        for ((tuple, hash), key4) in tuples.iter().zip(&mut hashes).zip(&mut keys) {
            *hash = match key(tuple) {
                Key::V4(key) => {
                    *key4 = key;
                    self.keyed.hash_bytes(&key)
                }
                Key::V6(key) => {
                    all_v4 = false;
                    self.keyed.hash_bytes(&key)
                }
            };
        }
        let alone = |socket: u32, generation: u32| (socket & ASK == 0).then_some((socket, generation));
        if all_v4 {
            for ((&hash, key), found) in hashes[..tuples.len()].iter().zip(&keys).zip(found) {
                let entry = self.v4.find(hash, |entry| entry.key == *key);
                *found = entry.and_then(|entry| alone(entry.socket, entry.generation));
            }
            return;
        }
        for ((&hash, tuple), found) in hashes.iter().zip(tuples).zip(found) {
            *found = match key(tuple) {
                Key::V4(key) => {
                    let entry = self.v4.find(hash, |entry| entry.key == key);
                    entry.and_then(|entry| alone(entry.socket, entry.generation))
                }
                Key::V6(key) => {
                    let entry = self.v6.find(hash, |entry| entry.key == key);
                    entry.and_then(|entry| alone(entry.socket, entry.generation))
                }
            };
        }
    }

    /// How many four-tuples there are.
    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Gives up free room.
    pub(crate) fn trim(&mut self) {
        let Self { keyed, v4, v6, twins } = self;
        v4.shrink_to_fit(|entry| keyed.hash_bytes(entry.key.as_ref()));
        v6.shrink_to_fit(|entry| keyed.hash_bytes(entry.key.as_ref()));
        twins.shrink_to_fit();
    }

    /// The bytes that the entries are allocated in.
    pub(crate) fn bytes(&self) -> usize {
        self.v4.allocation_size() + self.v6.allocation_size()
    }
}

fn insert<K: Copy + Eq + AsRef<[u8]>>(
    keyed: &Keyed,
    table: &mut HashTable<Entry<K>>,
    twins: &mut HashMap<FourTuple, Vec<u32>, Keyed>,
    tuple: &FourTuple,
    key: K,
    (socket, generation): (u32, u32),
) -> u64 {
    let hash = keyed.hash_bytes(key.as_ref());
    if let Some(entry) = table.find_mut(hash, |entry| entry.key == key) {
        twins
            .entry(*tuple)
            .or_insert_with(|| vec![entry.socket & SOCKET])
            .push(socket & SOCKET);
        entry.socket = socket | ASK;
    } else {
        table.insert_unique(
            hash,
            Entry {
                key,
                socket,
                generation,
            },
            |entry| keyed.hash_bytes(entry.key.as_ref()),
        );
    }
    hash
}

fn remove<K>(
    hash: u64,
    table: &mut HashTable<Entry<K>>,
    twins: &mut HashMap<FourTuple, Vec<u32>, Keyed>,
    tuple: &FourTuple,
    socket: u32,
) {
    let Some(others) = twins.get_mut(tuple) else {
        if let Ok(entry) = table.find_entry(hash, |entry| entry.socket & SOCKET == socket) {
            entry.remove();
        }
        return;
    };
    let known = |others: &[u32], holder: u32| others.contains(&(holder & SOCKET));
    let entry = table
        .find_mut(hash, |entry| known(others, entry.socket))
        .expect("twins have an entry");
    others.retain(|&other| other != socket);
    let newest = *others.last().expect("twins are two at least");
    entry.socket = newest | ASK;
    if others.len() == 1 {
        twins.remove(tuple);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(local: &str, remote: &str) -> FourTuple {
        FourTuple::new(local.parse().unwrap(), remote.parse().unwrap()).unwrap()
    }

    #[test]
    fn entries_and_four_tuples_are_small() {
        assert_eq!(size_of::<Entry<Key4>>(), 20);
        assert_eq!(size_of::<Entry<Key6>>(), 44);
        assert_eq!(size_of::<FourTuple>(), 38);
    }

    #[test]
    fn mapped_addresses_are_ipv4_and_families_do_not_mix() {
        assert_eq!(
            tuple("[::ffff:10.8.0.1]:80", "[::ffff:10.8.0.9]:5"),
            tuple("10.8.0.1:80", "10.8.0.9:5")
        );
        let (v4, v6) = ("10.8.0.1:80", "[fd08::1]:80");
        assert_eq!(FourTuple::new(v4.parse().unwrap(), v6.parse().unwrap()), None);
    }

    #[test]
    fn flows_are_found_and_removed() {
        let mut flows = Flows::new(Keyed::new([1; 16]));
        let tuples = [
            tuple("10.8.0.1:80", "10.8.0.9:5"),
            tuple("10.8.0.1:80", "10.8.0.9:6"),
            tuple("[fd08::1]:80", "[fd08::9]:5"),
        ];
        let hashes: Vec<_> = (0..)
            .zip(&tuples)
            .map(|(socket, tuple)| flows.insert(tuple, (socket, 7), false))
            .collect();
        for ((socket, tuple), &hash) in (0..).zip(&tuples).zip(&hashes) {
            assert_eq!(flows.find(tuple), Some(Found::One(socket, 7)));
            assert_eq!(flows.tuple(hash, socket), Some(*tuple));
            flows.remove(hash, socket);
            assert_eq!(flows.find(tuple), None);
        }
        assert_eq!(flows.len(), 0);
    }

    #[test]
    fn twins_come_and_go_in_any_order() {
        let tuple = tuple("10.8.0.1:80", "10.8.0.9:5");
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            let mut flows = Flows::new(Keyed::new([1; 16]));
            let hash = flows.insert(&tuple, (1, 0), false);
            flows.insert(&tuple, (2, 0), true);
            flows.insert(&tuple, (3, 0), false);
            assert_eq!(
                flows.find(&tuple),
                Some(Found::Ask(SmallVec::from_slice(&[1, 2, 3])))
            );
            let mut left = vec![1, 2, 3];
            for socket in order {
                assert_eq!(flows.tuple(hash, socket), Some(tuple));
                flows.remove(hash, socket);
                left.retain(|&other| other != socket);
                match flows.find(&tuple) {
                    Some(Found::Ask(found)) => assert_eq!(found.to_vec(), left),
                    found => assert!(found.is_none() && left.is_empty()),
                }
            }
        }
    }
}
