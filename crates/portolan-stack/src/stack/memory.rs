//! The memory of all sockets together, and what gives way when it is short.
//!
//! ```text
//!   buffers at 3/4 of what connections leave ─▶ windows and send buffers grow to 16 KiB at most
//!   all at 7/8 of the budget ─────────────────▶ the oldest TIME-WAIT goes for each SYN
//!   buffers at all that is left ──────────────▶ data is dropped, unless it is what the program waits for
//!   all at the budget ────────────────────────▶ SYNs are dropped
//! ```
//!
//! What was offered is not taken back (RFC 9293, section 3.8.6). Each drop has a counter. What the program begins itself is its own affair: a connect is not refused.

use super::entry::Entry;
use super::{Holder, Stack};
use crate::tcp::Connection;

/// What malloc adds to a box, and rounds.
const BOX: usize = 16;
/// A socket's place in the port table, among the holders and among the timers, all of which may just have doubled.
const PLACE: usize = 2 * (28 + 21 + size_of::<Holder>() + 16);
/// A connection's place among the handles, which may just have doubled.
const HANDLE: usize = 32;
/// A half-open connection (see [`super::syn_queue`]).
const HALF_OPEN: usize = 96;
/// How many connections in TIME-WAIT go for one SYN: more than come, so that the pressure falls.
const EVICTED_AT_ONCE: usize = 4;

impl Stack {
    /// The bytes that all sockets and their buffers take at most. Bytes that the program lent by reference are not
    /// among them. O(1).
    #[must_use]
    pub fn memory(&self) -> usize {
        self.memory_beside_buffers() + self.pool.lent_bytes() + self.pool.free_bytes()
    }

    /// By count and not by what is allocated: what gives way leaves room for others in arrays that do not shrink.
    fn memory_beside_buffers(&self) -> usize {
        let sockets = self.table.len() * PLACE;
        let entries = self.connections.len() + self.spares.entry_count();
        let connections = entries * (size_of::<Entry>() + BOX) + self.connections.len() * HANDLE;
        let awake = self.spares.count() * (size_of::<Connection>() + BOX);
        let half_open = self.syn_queue.len() * HALF_OPEN;
        sockets + connections + awake + half_open + self.waiting.bytes() + self.held.bytes()
    }

    /// Gives memory up that is kept for more of what there was: free buffers, the working memory of connections that
    /// are gone, free room of tables. Nothing else changes, and what comes next allocates as the first did.
    ///
    /// It takes a time that grows with what is given up and what is left: for a moment in which little happens.
    pub fn trim(&mut self) {
        self.pool.trim();
        self.spares.trim();
        self.table.trim();
        self.wheel.trim();
        let last = self
            .holders
            .iter()
            .rposition(|holder| !matches!(holder, Holder::Nobody));
        self.holders.truncate(last.map_or(0, |last| last + 1));
        self.holders.shrink_to_fit();
        self.quiet.shrink_to_fit();
        self.ready.shrink_to_fit();
        self.answers.shrink_to_fit();
        self.notices.shrink_to_fit();
        self.together = Vec::new();
        self.whole = Vec::new();
    }

    /// Gives buffers what the connections leave them of the budget.
    pub(super) fn share_memory(&mut self) {
        if self.config.memory < usize::MAX {
            let rest = self.config.memory.saturating_sub(self.memory_beside_buffers());
            self.pool.set_budget(rest);
            self.counters.data_refused = self.pool.refused();
        }
    }

    /// Whether there is memory for one more peer; connections in TIME-WAIT make room for it.
    pub(super) fn makes_room(&mut self) -> bool {
        let budget = self.config.memory;
        if budget == usize::MAX {
            return true;
        }
        for _ in 0..EVICTED_AT_ONCE {
            if self.memory() < budget / 8 * 7 {
                break;
            }
            let Some(oldest) = self.waiting.oldest() else {
                break;
            };
            self.end_wait(oldest);
            self.counters.time_waits_evicted += 1;
        }
        self.share_memory();
        self.memory() < budget
    }
}
