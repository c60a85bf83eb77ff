//! Connections that are being dialled: one for each four-tuple, bounded, and fair to destinations.
//!
//! A SYN that comes again joins the dial that is under way. Of one destination only so many are dialled at once; the
//! others wait for their turn, and nobody else waits for them. When there are as many as there may be in all, the oldest is
//! given up: a dial to a host that answers is never old. So neither one dead destination nor a sweep of thousands delays
//! the others. The stack bounds how many SYNs wait for a word, and with them all of this.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portolan_net::HeldSyn;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How many connections may be dialled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialLimits {
    /// In all; each has a descriptor. Beyond that the oldest gives way.
    pub all: usize,
    /// To one address; the others wait.
    pub per_destination: usize,
}

impl Default for DialLimits {
    fn default() -> Self {
        Self {
            all: 2048,
            per_destination: 256,
        }
    }
}

/// The dials of one gateway.
#[derive(Clone, Debug)]
pub(super) struct Dials(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: DialLimits,
    table: Mutex<Table>,
}

/// The end inside, and the destination.
type Tuple = (SocketAddr, SocketAddr);

#[derive(Debug, Default)]
struct Table {
    /// The SYN that is to be answered: the last one that came.
    syns: HashMap<Tuple, HeldSyn>,
    destinations: HashMap<IpAddr, Destination>,
    /// Those that are under way, the oldest first, and how they learn that they are given up.
    under_way: BTreeMap<u64, oneshot::Sender<()>>,
    next: u64,
}

#[derive(Debug)]
struct Destination {
    turns: Arc<Semaphore>,
    /// How many [`Dial`]s there are.
    users: usize,
}

/// A dial that was asked for. Dropped, it refuses its SYN.
#[derive(Debug)]
pub(super) struct Dial {
    dials: Dials,
    tuple: Tuple,
}

/// A dial that is under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    dials: Dials,
    number: u64,
    /// Something comes when the dial is to be given up.
    pub(super) given_up: oneshot::Receiver<()>,
    _turn: Option<OwnedSemaphorePermit>,
}

impl Dials {
    pub(super) fn new(limits: DialLimits) -> Self {
        Self(Arc::new(Shared {
            limits,
            table: Mutex::default(),
        }))
    }

    /// Gives the SYN to the dial that is there for it, or back.
    pub(super) fn join(&self, syn: HeldSyn) -> Result<(), HeldSyn> {
        match self.lock().syns.entry((syn.peer_addr(), syn.local_addr())) {
            Entry::Occupied(mut known) => {
                known.insert(syn);
                Ok(())
            }
            Entry::Vacant(_) => Err(syn),
        }
    }

    /// Notes that the destination of a SYN is to be dialled. There must be no dial for it.
    pub(super) fn enter(&self, syn: HeldSyn) -> Dial {
        let tuple = (syn.peer_addr(), syn.local_addr());
        let turns = self.0.limits.per_destination.clamp(1, Semaphore::MAX_PERMITS);
        let mut table = self.lock();
        table.syns.insert(tuple, syn);
        let destination = table
            .destinations
            .entry(tuple.1.ip())
            .or_insert_with(|| Destination {
                turns: Arc::new(Semaphore::new(turns)),
                users: 0,
            });
        destination.users += 1;
        Dial {
            dials: self.clone(),
            tuple,
        }
    }

    /// No code that holds the lock can leave the table half changed, so a panic elsewhere does not matter.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dial {
    /// Waits for its turn at its destination.
    pub(super) async fn turn(&self) -> UnderWay {
        let turns = {
            let table = self.dials.lock();
            let destination = table.destinations.get(&self.tuple.1.ip());
            destination.map(|destination| Arc::clone(&destination.turns))
        };
        let turn = match turns {
            // Nobody closes the semaphore.
            Some(turns) => turns.acquire_owned().await.ok(),
            None => None,
        };
        let (give_up, given_up) = oneshot::channel();
        let mut table = self.dials.lock();
        while table.under_way.len() >= self.dials.0.limits.all.max(1) {
            if let Some((_, oldest)) = table.under_way.pop_first() {
                // If it has just ended by itself, so much the better.
                let _ = oldest.send(());
            }
        }
        let number = table.next;
        table.next += 1;
        table.under_way.insert(number, give_up);
        drop(table);
        UnderWay {
            dials: self.dials.clone(),
            number,
            given_up,
            _turn: turn,
        }
    }

    /// The SYN that is to be answered. Another one of the same connection begins anew.
    pub(super) fn take_syn(self) -> Option<HeldSyn> {
        self.dials.lock().syns.remove(&self.tuple)
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        let mut table = self.dials.lock();
        let syn = table.syns.remove(&self.tuple);
        if let Entry::Occupied(mut destination) = table.destinations.entry(self.tuple.1.ip()) {
            destination.get_mut().users -= 1;
            if destination.get().users == 0 {
                destination.remove();
            }
        }
        drop(table);
        // It takes the lock of the stack.
        drop(syn);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.dials.lock().under_way.remove(&self.number);
    }
}
