use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was allowed and what was denied, counted by destination. Its memory is bounded: destinations beyond
/// [`Ledger::DESTINATIONS_MAX`] are counted together.
#[derive(Debug, Default)]
pub struct Ledger {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    denied: Table,
    allowed: Table,
}

#[derive(Debug, Default)]
struct Table {
    counts: HashMap<Line, u64>,
    /// How many times a destination came that found no room.
    others: u64,
}

/// What was talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asked {
    /// A TCP connection to a socket address.
    Tcp(IpAddr, u16),
    /// A UDP session with a socket address.
    Udp(IpAddr, u16),
    /// Echo requests to an address.
    Icmp(IpAddr),
    /// A look-up of a name.
    Dns,
}

/// A destination and what was said of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line {
    /// Over which protocol, and where.
    pub asked: Asked,
    /// The name that was asked for, as far as known.
    pub name: Option<Arc<str>>,
    /// Of what was denied why, of what was allowed the rule.
    pub because: Arc<str>,
}

/// A line and how many times it was said.
pub type Counted = (Line, u64);

impl Ledger {
    /// How many destinations are kept, of what was allowed and of what was denied each.
    pub const DESTINATIONS_MAX: usize = 4_096;

    /// Counts a denial; whether it is the first of its line. Of those beyond the bound the first alone is.
    pub(super) fn deny(&self, line: Line) -> bool {
        self.lock().denied.count(line)
    }

    /// Counts what was allowed.
    pub(super) fn allow(&self, line: Line) {
        self.lock().allowed.count(line);
    }

    /// What was denied, in order of protocol and address, and how many denials found no room.
    #[must_use]
    pub fn denied(&self) -> (Vec<Counted>, u64) {
        self.lock().denied.list()
    }

    /// What was allowed, in the same order, and how many flows found no room.
    #[must_use]
    pub fn allowed(&self) -> (Vec<Counted>, u64) {
        self.lock().allowed.list()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // Counting cannot panic half-way.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn count(&mut self, line: Line) -> bool {
        if let Some(count) = self.counts.get_mut(&line) {
            *count += 1;
            return false;
        }
        if self.counts.len() == Ledger::DESTINATIONS_MAX {
            self.others += 1;
            return self.others == 1;
        }
        self.counts.insert(line, 1);
        true
    }

    fn list(&self) -> (Vec<Counted>, u64) {
        let mut lines: Vec<_> = self
            .counts
            .iter()
            .map(|(line, &count)| (line.clone(), count))
            .collect();
        lines.sort_unstable();
        (lines, self.others)
    }
}
