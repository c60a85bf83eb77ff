//! The claims that exist, found by port, by shape and by address.
//!
//! ```text
//!   port ─▶ shapes (claims without their address) ─▶ records (claims) ─▶ sockets
//!   port and address ─▶ records of receivers
//!   claim ─▶ record
//! ```
//!
//! A port has few shapes whatever it carries: a million connections to one server are one shape, or a
//! handful if several users or devices share it. So a bind looks at shapes, at most one record of each,
//! and never at connections.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;

use super::claim::{Claim, Meeting, Transport};
use super::keyed::Keyed;
use super::memory::PortMemory;
use super::seats::Order;
use super::slab::{NONE, Slab};
use crate::Port;

/// A claim and the sockets that have it.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) claim: Claim,
    /// The first of its sockets, which are linked to each other; `NONE` if there is none.
    pub(super) first: u32,
    pub(super) count: u32,
    /// Its sockets in the order of [`Seat::bind_order`](super::seats::Seat::bind_order) (UDP).
    pub(super) bind_order: BTreeMap<Order, u32>,
    /// Its sockets in the order of [`Seat::scan_order`](super::seats::Seat::scan_order).
    pub(super) scan_order: BTreeMap<Order, u32>,
    /// Its place in [`Shape::records`].
    place: u32,
}

/// The claims of a port that differ in their specific address only.
#[derive(Debug)]
pub(super) struct Shape {
    /// The claim with a stand-in for the address.
    pub(super) claim: Claim,
    pub(super) records: Vec<u32>,
}

/// All that is known of a port of one protocol.
#[derive(Debug, Default)]
pub(super) struct PortEntry {
    pub(super) shapes: Vec<Shape>,
    /// Sockets whose port was not chosen by `connect`.
    pub(super) explicit: usize,
    /// All sockets.
    pub(super) sockets: usize,
    pub(super) memory: PortMemory,
}

/// The address a packet can have to reach a receiver: a specific one, or `None` for any.
type Listing = (Transport, Port, Option<IpAddr>);

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Records {
    keyed: Keyed,
    records: Slab<Record>,
    by_claim: HashTable<u32>,
    by_listing: HashMap<Listing, SmallVec<[u32; 4]>, Keyed>,
    ports: HashMap<(Transport, Port), PortEntry, Keyed>,
}

impl Records {
    pub(super) fn new(keyed: Keyed) -> Self {
        Self {
            keyed,
            records: Slab::new(),
            by_claim: HashTable::new(),
            by_listing: HashMap::with_hasher(keyed),
            ports: HashMap::with_hasher(keyed),
        }
    }

    /// The record of `claim`, made if there is none.
    pub(super) fn intern(&mut self, claim: &Claim) -> u32 {
        if let Some(number) = self.find(claim) {
            return number;
        }
        let place = if claim.is_bound() {
            let shape = claim.shape();
            let port = self.ports.entry((claim.transport, claim.port)).or_default();
            let at = match port.shapes.iter().position(|known| known.claim == shape) {
                Some(at) => at,
                None => {
                    port.shapes.push(Shape {
                        claim: shape,
                        records: Vec::new(),
                    });
                    port.shapes.len() - 1
                }
            };
            port.shapes[at].records.len()
        } else {
            0
        };
        let number = self.records.insert(Record {
            claim: *claim,
            first: NONE,
            count: 0,
            bind_order: BTreeMap::new(),
            scan_order: BTreeMap::new(),
            place: u32::try_from(place).expect("fewer records than 2^32"),
        });
        if claim.is_bound() {
            self.shape_mut(claim).records.push(number);
        }
        if claim.is_receiver() {
            self.by_listing.entry(listing(claim)).or_default().push(number);
        }
        let Self {
            keyed,
            records,
            by_claim,
            ..
        } = self;
        by_claim.insert_unique(keyed.hash_value(claim), number, |&number| {
            keyed.hash_value(records[number].claim)
        });
        number
    }

    /// Forgets a record that has no socket any more.
    pub(super) fn forget(&mut self, number: u32) {
        let record = self.records.remove(number);
        let claim = record.claim;
        let hash = self.keyed.hash_value(claim);
        self.by_claim
            .find_entry(hash, |&other| other == number)
            .expect("every record is found by its claim")
            .remove();
        if claim.is_receiver()
            && let Entry::Occupied(mut entry) = self.by_listing.entry(listing(&claim))
        {
            entry.get_mut().retain(|other| *other != number);
            if entry.get().is_empty() {
                entry.remove();
            }
        }
        if claim.is_bound() {
            let shape = self.shape_mut(&claim);
            shape.records.swap_remove(record.place as usize);
            let moved = shape.records.get(record.place as usize).copied();
            let is_empty = shape.records.is_empty();
            if let Some(moved) = moved {
                self.records[moved].place = record.place;
            }
            if is_empty {
                let wanted = claim.shape();
                let port = self.port_mut(claim.transport, claim.port);
                port.shapes.retain(|shape| shape.claim != wanted);
            }
        }
    }

    /// Counts a socket in on its port.
    pub(super) fn enter(&mut self, claim: &Claim) {
        if claim.is_bound() {
            let port = self.ports.entry((claim.transport, claim.port)).or_default();
            port.sockets += 1;
            port.explicit += usize::from(!claim.by_connect);
        }
    }

    /// Counts a socket out. When the last one leaves, what the port remembered is gone.
    pub(super) fn leave(&mut self, claim: &Claim) {
        if claim.is_bound() {
            let key = (claim.transport, claim.port);
            let port = self.ports.get_mut(&key).expect("the socket was counted in");
            port.sockets -= 1;
            port.explicit -= usize::from(!claim.by_connect);
            if port.sockets == 0 {
                self.ports.remove(&key);
            }
        }
    }

    pub(super) fn find(&self, claim: &Claim) -> Option<u32> {
        self.by_claim
            .find(self.keyed.hash_value(claim), |&number| {
                self.records[number].claim == *claim
            })
            .copied()
    }

    pub(super) fn port(&self, transport: Transport, port: Port) -> Option<&PortEntry> {
        self.ports.get(&(transport, port))
    }

    /// The entry of a port that has a socket.
    pub(super) fn port_mut(&mut self, transport: Transport, port: Port) -> &mut PortEntry {
        self.ports
            .get_mut(&(transport, port))
            .expect("a port with sockets has an entry")
    }

    /// The shapes on the port of `candidate` that meet its device and address.
    pub(super) fn clashing<'a>(&'a self, candidate: &'a Claim) -> impl Iterator<Item = Clash<'a>> + 'a {
        let shapes = self
            .port(candidate.transport, candidate.port)
            .map_or(&[][..], |port| &port.shapes);
        shapes.iter().filter_map(move |shape| {
            if !candidate.devices_meet(&shape.claim) {
                return None;
            }
            match candidate.meets(&shape.claim) {
                Meeting::Never => None,
                Meeting::Always => Some(Clash {
                    claim: &shape.claim,
                    records: SmallVec::from_slice(&shape.records[..shape.records.len().min(2)]),
                    all: &shape.records,
                }),
                Meeting::OnSameAddress => {
                    let claim = Claim {
                        address: candidate.address,
                        ..shape.claim
                    };
                    self.find(&claim).map(|number| Clash {
                        claim: &shape.claim,
                        records: SmallVec::from_slice(&[number]),
                        all: &[],
                    })
                }
            }
        })
    }

    /// The records on the port of `claim` whose sockets would share a group with it.
    pub(super) fn companions<'a>(&'a self, claim: &'a Claim) -> impl Iterator<Item = u32> + 'a {
        let shapes = self
            .port(claim.transport, claim.port)
            .map_or(&[][..], |port| &port.shapes);
        shapes
            .iter()
            .filter(move |shape| {
                claim.groups_with(&shape.claim) && shape.claim.address == claim.shape().address
            })
            .filter_map(move |shape| {
                self.find(&Claim {
                    address: claim.address,
                    ..shape.claim
                })
            })
    }

    /// The first socket in scan order of those that hold exactly this address, connected ones too.
    pub(super) fn first_on(&self, transport: Transport, port: Port, address: IpAddr) -> Option<u32> {
        let shapes = self.port(transport, port).map_or(&[][..], |port| &port.shapes);
        shapes
            .iter()
            .filter_map(|shape| {
                let claim = Claim {
                    address,
                    ..shape.claim
                };
                // A shape of a wildcard, or of the other family, is not of this address.
                let number = (claim.shape() == shape.claim).then(|| self.find(&claim))??;
                self.records[number].scan_order.first_key_value()
            })
            .min()
            .map(|(_, &socket)| socket)
    }

    /// The records of receivers on exactly this address (`None`: on a wildcard).
    pub(super) fn receivers(&self, transport: Transport, port: Port, address: Option<IpAddr>) -> &[u32] {
        self.by_listing
            .get(&(transport, port, address))
            .map_or(&[], SmallVec::as_slice)
    }

    fn shape_mut(&mut self, claim: &Claim) -> &mut Shape {
        let wanted = claim.shape();
        self.port_mut(claim.transport, claim.port)
            .shapes
            .iter_mut()
            .find(|shape| shape.claim == wanted)
            .expect("a record's shape is on its port")
    }

    pub(super) fn bytes(&self) -> usize {
        self.records.bytes() + self.by_claim.allocation_size()
    }
}

impl std::ops::Index<u32> for Records {
    type Output = Record;

    fn index(&self, number: u32) -> &Record {
        &self.records[number]
    }
}

impl std::ops::IndexMut<u32> for Records {
    fn index_mut(&mut self, number: u32) -> &mut Record {
        &mut self.records[number]
    }
}

/// Holders that meet a candidate's device and address.
pub(super) struct Clash<'a> {
    /// What they have in common; the address may be a stand-in.
    pub(super) claim: &'a Claim,
    /// One or two records of theirs: enough to name a socket other than the candidate itself.
    pub(super) records: SmallVec<[u32; 2]>,
    all: &'a [u32],
}

impl Clash<'_> {
    /// All records.
    pub(super) fn all_records(&self) -> &[u32] {
        if self.all.is_empty() {
            &self.records
        } else {
            self.all
        }
    }
}

fn listing(claim: &Claim) -> Listing {
    let address = (!claim.address.is_unspecified()).then_some(claim.address);
    (claim.transport, claim.port, address)
}
