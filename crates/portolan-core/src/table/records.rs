//! The claims that exist, found by port, by shape and by address.
//!
//! ```text
//!   port ─┬▶ shapes (claims without their address) ─▶ records (claims) ─▶ sockets
//!         └▶ tenants (see `ports`) ─▶ sockets
//!   port and address ─▶ records of receivers
//!   claim ─▶ record
//! ```
//!
//! A port has few shapes whatever it carries: a million connections to one server are one shape, or a
//! handful if several users or devices share it. So a bind looks at shapes, at most one record of each,
//! and never at connections.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashTable};
use smallvec::SmallVec;

use super::claim::{Claim, Meeting, Transport};
use super::keyed::Keyed;
use super::memory::PortMemory;
use super::ports::{Holders, Ports};
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
    /// That one of its sockets which stands for others, if one does (see [`super::stand_in`]).
    stand_in: u32,
    /// For how many.
    stands_for: u32,
    /// Its sockets in the order of [`Seat::bind_order`](super::seats::Seat::bind_order) (UDP).
    pub(super) bind_order: BTreeMap<Order, u32>,
    /// Its sockets in the order of [`Seat::scan_order`](super::seats::Seat::scan_order).
    pub(super) scan_order: BTreeMap<Order, u32>,
    /// Of the claim.
    hash: u64,
    /// Its place in [`Shape::records`].
    place: u32,
}

/// Where the sockets of a claim are linked to each other: in its record, or on its port in that of its class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Home {
    pub(super) record: u32,
    /// The port whose tenants they are.
    pub(super) port: Option<Port>,
}

/// The claims of a port that differ in their specific address only.
#[derive(Debug)]
pub(super) struct Shape {
    /// The claim with a stand-in for the address.
    pub(super) claim: Claim,
    pub(super) records: SmallVec<[u32; 4]>,
}

/// All that is known of a port of one protocol, but for its tenants.
#[derive(Debug, Default)]
pub(super) struct PortEntry {
    pub(super) shapes: SmallVec<[Shape; 1]>,
    /// Sockets whose port was not chosen by `connect`.
    pub(super) explicit: usize,
    /// All sockets that are no tenants.
    pub(super) sockets: usize,
    pub(super) memory: PortMemory,
}

/// The address a packet can have to reach a receiver: a specific one, or any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listing([u8; 20]);

impl Listing {
    fn new(transport: Transport, port: Port, address: Option<IpAddr>) -> Self {
        let mut bytes = [0; 20];
        let family = match address {
            None => 0,
            Some(IpAddr::V4(address)) => {
                bytes[..4].copy_from_slice(&address.octets());
                1
            }
            Some(IpAddr::V6(address)) => {
                bytes[..16].copy_from_slice(&address.octets());
                2
            }
        };
        bytes[16..18].copy_from_slice(&port.get().to_be_bytes());
        bytes[18..].copy_from_slice(&[family, transport as u8]);
        Self(bytes)
    }
}

impl Hash for Listing {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // At once: in parts it takes several times as long.
        state.write(&self.0);
    }
}

/// How many states a claim can have.
const STATES: usize = 4;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Records {
    keyed: Keyed,
    records: Slab<Record>,
    by_claim: HashTable<u32>,
    by_listing: HashMap<Listing, SmallVec<[u32; 4]>, Keyed>,
    tcp: Ports,
    udp: Ports,
    entries: Slab<PortEntry>,
    /// For each state the record that was asked for last, which most often is asked for again. If it has no port
    /// it stays when it has no socket.
    latest: [u32; STATES],
}

impl Records {
    pub(super) fn new(keyed: Keyed) -> Self {
        Self {
            keyed,
            records: Slab::new(),
            by_claim: HashTable::new(),
            by_listing: HashMap::with_hasher(keyed),
            tcp: Ports::default(),
            udp: Ports::default(),
            entries: Slab::new(),
            latest: [NONE; STATES],
        }
    }

    /// Finds room for one more socket with this claim, which is then to be linked there: among the tenants of its
    /// port, if it may be one.
    pub(super) fn enter(&mut self, claim: &Claim, as_tenant: bool) -> Home {
        if as_tenant {
            let class = self.intern(&claim.class());
            if self.ports_mut(claim.transport).entry(claim.port).let_in(class) {
                self.records[class].count += 1;
                let port = Some(claim.port);
                return Home { record: class, port };
            }
            self.forget_if_empty(class);
        }
        let record = self.intern(claim);
        if claim.is_bound() {
            let port = self.entry(claim.transport, claim.port);
            port.sockets += 1;
            port.explicit += usize::from(!claim.by_connect);
        }
        self.records[record].count += 1;
        Home { record, port: None }
    }

    /// A socket was taken out of the links of its claim. With the last one what its port remembered is gone.
    pub(super) fn leave(&mut self, home: Home) {
        let record = &mut self.records[home.record];
        record.count -= 1;
        let claim = record.claim;
        let port = home.port.unwrap_or(claim.port);
        self.forget_if_empty(home.record);
        if port == Port::ZERO {
            return;
        }
        if home.port.is_none() {
            let entry = self.port_mut(claim.transport, port);
            entry.sockets -= 1;
            entry.explicit -= usize::from(!claim.by_connect);
        }
        let Self {
            tcp, udp, entries, ..
        } = self;
        let ports = match claim.transport {
            Transport::Tcp => tcp,
            Transport::Udp => udp,
        };
        let Some(holders) = ports.get_mut(port) else {
            return;
        };
        if holders
            .tenant(home.record)
            .is_some_and(|tenant| tenant.first == NONE)
        {
            holders.put_out(home.record);
        }
        if holders.entry != NONE && holders.tenants().next().is_none() && entries[holders.entry].sockets == 0
        {
            entries.remove(holders.entry);
            holders.entry = NONE;
        }
        if holders.is_empty() {
            ports.tidy(port);
        }
    }

    /// The first of the sockets that are linked here, to be changed.
    pub(super) fn first_mut(&mut self, transport: Transport, home: Home) -> &mut u32 {
        let Some(port) = home.port else {
            return &mut self.records[home.record].first;
        };
        let holders = self.ports_mut(transport).get_mut(port);
        let tenant = holders.and_then(|holders| holders.tenant_mut(home.record));
        &mut tenant.expect("a tenant's port knows it").first
    }

    /// That one of the sockets that are linked here which stands for others, and for how many, to be changed.
    pub(super) fn stand_in(&mut self, home: Home) -> Option<(u32, &mut u32)> {
        let (stand_in, stands_for) = match home.port {
            Some(port) => {
                let tenant = self.tcp.get_mut(port)?.tenant_mut(home.record)?;
                (tenant.first, &mut tenant.stands_for)
            }
            None => {
                let record = &mut self.records[home.record];
                (record.stand_in, &mut record.stands_for)
            }
        };
        (*stands_for > 0).then_some((stand_in, stands_for))
    }

    /// The stand-in of a TCP claim, and for how many it stands, to be changed.
    pub(super) fn stand_in_of(&mut self, claim: &Claim, as_tenant: bool) -> Option<(u32, &mut u32)> {
        let entry = self.holders(claim.transport, claim.port)?.entry;
        let port = Some(claim.port);
        if as_tenant
            && let Some(record) = self.find(&claim.class())
            && self.stand_in(Home { record, port }).is_some()
        {
            return self.stand_in(Home { record, port });
        }
        if entry == NONE {
            return None;
        }
        let record = self.find(claim)?;
        self.stand_in(Home { record, port: None })
    }

    /// A socket that is linked here, of tenants the only one, stands for itself from now on.
    pub(super) fn begin_stand_in(&mut self, home: Home, socket: u32) {
        match home.port {
            Some(port) => {
                let holders = self.tcp.get_mut(port);
                if let Some(tenant) = holders.and_then(|holders| holders.tenant_mut(home.record)) {
                    debug_assert_eq!(tenant.first, socket, "it is alone");
                    tenant.stands_for = 1;
                }
            }
            None => {
                let record = &mut self.records[home.record];
                (record.stand_in, record.stands_for) = (socket, 1);
            }
        }
    }

    /// The record of `claim`, made if there is none.
    fn intern(&mut self, claim: &Claim) -> u32 {
        let number = self
            .latest_with(claim)
            .unwrap_or_else(|| self.find_or_make(claim));
        let latest = std::mem::replace(&mut self.latest[claim.state as usize], number);
        if latest != number {
            self.forget_if_empty(latest);
        }
        number
    }

    fn find_or_make(&mut self, claim: &Claim) -> u32 {
        let hash = self.hash(claim);
        if let Some(number) = self.find_hashed(hash, claim) {
            return number;
        }
        let place = if claim.is_bound() {
            let shape = claim.shape();
            let port = self.entry(claim.transport, claim.port);
            let at = match port.shapes.iter().position(|known| known.claim == shape) {
                Some(at) => at,
                None => {
                    port.shapes.push(Shape {
                        claim: shape,
                        records: SmallVec::new(),
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
            stand_in: NONE,
            stands_for: 0,
            bind_order: BTreeMap::new(),
            scan_order: BTreeMap::new(),
            hash,
            place: u32::try_from(place).expect("fewer records than 2^32"),
        });
        if claim.is_bound() {
            self.shape_mut(claim).records.push(number);
        }
        if claim.is_receiver() {
            self.by_listing.entry(listing(claim)).or_default().push(number);
        }
        let Self {
            records, by_claim, ..
        } = self;
        by_claim.insert_unique(hash, number, |&number| records[number].hash);
        number
    }

    /// Forgets a record if it has no socket any more. One without a port that was asked for last stays.
    fn forget_if_empty(&mut self, number: u32) {
        let Some(record) = self.records.get(number) else {
            return;
        };
        let may_stay = !record.claim.is_bound() && self.latest.contains(&number);
        if record.count > 0 || may_stay {
            return;
        }
        let record = self.records.remove(number);
        let claim = record.claim;
        self.by_claim
            .find_entry(record.hash, |&other| other == number)
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

    /// The record of exactly this claim; there is none for a tenant's.
    pub(super) fn find(&self, claim: &Claim) -> Option<u32> {
        self.latest_with(claim)
            .or_else(|| self.find_hashed(self.hash(claim), claim))
    }

    /// The record that was asked for last, if it is that of `claim`.
    fn latest_with(&self, claim: &Claim) -> Option<u32> {
        let latest = self.latest[claim.state as usize];
        let record = self.records.get(latest)?;
        (record.claim == *claim).then_some(latest)
    }

    fn find_hashed(&self, hash: u64, claim: &Claim) -> Option<u32> {
        let is_it = |&number: &u32| self.records[number].claim == *claim;
        self.by_claim.find(hash, is_it).copied()
    }

    fn hash(&self, claim: &Claim) -> u64 {
        let (bytes, len) = claim.bytes();
        self.keyed.hash_bytes(&bytes[..len])
    }

    /// Who holds a port, if somebody does.
    pub(super) fn holders(&self, transport: Transport, port: Port) -> Option<&Holders> {
        match transport {
            Transport::Tcp => self.tcp.get(port),
            Transport::Udp => self.udp.get(port),
        }
    }

    /// What is known of a port, if more than tenants hold it.
    pub(super) fn port(&self, transport: Transport, port: Port) -> Option<&PortEntry> {
        self.entries.get(self.holders(transport, port)?.entry)
    }

    /// The entry of a port that has a socket.
    pub(super) fn port_mut(&mut self, transport: Transport, port: Port) -> &mut PortEntry {
        let holders = self.holders(transport, port);
        let entry = holders.expect("somebody holds the port").entry;
        &mut self.entries[entry]
    }

    /// The entry of a port, made if there is none.
    fn entry(&mut self, transport: Transport, port: Port) -> &mut PortEntry {
        let Self {
            tcp, udp, entries, ..
        } = self;
        let ports = match transport {
            Transport::Tcp => tcp,
            Transport::Udp => udp,
        };
        let holders = ports.entry(port);
        if holders.entry == NONE {
            holders.entry = entries.insert(PortEntry::default());
        }
        &mut entries[holders.entry]
    }

    const fn ports_mut(&mut self, transport: Transport) -> &mut Ports {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Udp => &mut self.udp,
        }
    }

    /// The shapes and tenants on the port of `candidate` that meet its device and address.
    pub(super) fn clashing<'a>(&'a self, candidate: &'a Claim) -> impl Iterator<Item = Clash<'a>> + 'a {
        let shapes = self
            .port(candidate.transport, candidate.port)
            .map_or(&[][..], |port| &port.shapes);
        let holders = self.holders(candidate.transport, candidate.port);
        let tenants = holders.into_iter().flat_map(Holders::tenants);
        let tenants = tenants.filter_map(move |tenant| {
            let claim = &self.records[tenant.class].claim;
            let meets = candidate.devices_meet(claim)
                && match candidate.meets(claim) {
                    Meeting::Never => false,
                    Meeting::Always => true,
                    Meeting::OnSameAddress => candidate.address == claim.address,
                };
            meets.then(|| Clash {
                claim,
                tenant: tenant.first,
                records: SmallVec::new(),
                all: &[],
            })
        });
        let shapes = shapes.iter().filter_map(move |shape| {
            if !candidate.devices_meet(&shape.claim) {
                return None;
            }
            match candidate.meets(&shape.claim) {
                Meeting::Never => None,
                Meeting::Always => Some(Clash {
                    claim: &shape.claim,
                    tenant: NONE,
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
                        tenant: NONE,
                        records: SmallVec::from_slice(&[number]),
                        all: &[],
                    })
                }
            }
        });
        shapes.chain(tenants)
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
        if self.port(transport, port).is_none() {
            return &[];
        }
        self.by_listing
            .get(&Listing::new(transport, port, address))
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

    /// Gives up the free room of what grows with ports.
    pub(super) fn trim(&mut self) {
        self.by_listing.shrink_to_fit();
        self.tcp.trim();
        self.udp.trim();
    }

    pub(super) fn bytes(&self) -> usize {
        self.records.bytes()
            + self.by_claim.allocation_size()
            + self.entries.bytes()
            + self.tcp.bytes()
            + self.udp.bytes()
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
    /// The first of them, if they are tenants, or `NONE`.
    pub(super) tenant: u32,
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
    Listing::new(claim.transport, claim.port, address)
}
