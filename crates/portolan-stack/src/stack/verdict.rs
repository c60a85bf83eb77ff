//! What a program says to a SYN that is held for it.

use portolan_core::demux::FourTuple;
use portolan_core::table::Accepted;
use portolan_core::wire::{SeqNum, UnreachableCode};
use thiserror::Error;

use super::events::Notice;
use super::held_syn::{HeldSyn, Limits, SynId, Taken};
use super::quote::{LONGEST_QUOTE, quote};
use super::{ConnectionId, ListenerId, Stack};
use crate::Instant;
use crate::tcp::{Connection, Cx, Reset, Segment};

/// The handle is of no SYN: it had its word, or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no such SYN; it had its verdict, or is gone")]
pub struct NoSyn;

impl Stack {
    /// Makes a listener hold SYNs until the program has said what to answer, or answer them at once as at first.
    ///
    /// Each is told by [`Event::Syn`](crate::Event::Syn); the word is [`Stack::accept_syn`], [`Stack::refuse_syn`] or
    /// [`Stack::reject_syn`]. Until then nothing is answered, whatever the peer repeats.
    pub fn hold_syns(&mut self, listener: ListenerId, hold: bool) {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.holds_syns = hold;
        }
    }

    /// A SYN that waits for a word.
    #[must_use]
    pub fn held_syn(&self, id: SynId) -> Option<HeldSyn> {
        self.held.get(id)
    }

    /// How many SYNs wait for a word.
    #[must_use]
    pub fn held_syn_count(&self) -> usize {
        self.held.len()
    }

    /// The bytes that the SYNs that wait for a word are allocated in.
    #[must_use]
    pub fn held_syn_bytes(&self) -> usize {
        self.held.bytes()
    }

    /// Answers a SYN with a SYN-ACK. The connection is the program's at once and does not pass through
    /// [`Stack::accept`]: [`Connected`](crate::Event::Connected) or [`Closed`](crate::Event::Closed) tell how it goes
    /// on, as for [`Stack::connect`].
    ///
    /// # Errors
    /// If there is no such SYN.
    pub fn accept_syn(&mut self, now: Instant, id: SynId) -> Result<ConnectionId, NoSyn> {
        let (held, syn, iss) = self.held.release(id).ok_or(NoSyn)?;
        let listener = self.listeners.get(held.listener).ok_or(NoSyn)?;
        let ends = Accepted {
            local: held.tuple.local(),
            remote: held.tuple.remote(),
            device: None,
        };
        let socket = self.table.accept(listener.socket, ends).map_err(|_| NoSyn)?;
        let mut opening = self.opening(&held.tuple, now);
        opening.iss = iss;
        let own = listener.config.clone();
        let cx = Cx {
            now,
            config: own.as_deref().unwrap_or(&self.config.tcp),
            pool: &mut self.pool,
        };
        let mut connection = Connection::accept(&cx, opening, &syn);
        if let Some(own) = &own {
            connection.configure(own);
        }
        let id = self.insert(now, socket, held.tuple, connection, None);
        self.settle(now, id);
        Ok(id)
    }

    /// Answers a SYN with a RST: nobody listens.
    ///
    /// # Errors
    /// If there is no such SYN.
    pub fn refuse_syn(&mut self, id: SynId) -> Result<(), NoSyn> {
        let (held, syn, _) = self.held.release(id).ok_or(NoSyn)?;
        self.answer(&held.tuple, Reset::answering(&syn));
        Ok(())
    }

    /// Answers a SYN with *destination unreachable*, which ends the peer's attempt with the matching error. The SYN is
    /// quoted as far as it was kept: addresses, ports and numbers are right, the rest of the headers is made anew.
    ///
    /// One answer for one SYN, by the program's own word: the limits of other ICMP errors do not apply.
    ///
    /// # Errors
    /// If there is no such SYN.
    pub fn reject_syn(&mut self, id: SynId, why: UnreachableCode) -> Result<(), NoSyn> {
        let (held, syn, _) = self.held.release(id).ok_or(NoSyn)?;
        let mut quoted = [0; LONGEST_QUOTE];
        let len = quote(&held.tuple, &syn, &mut quoted);
        self.push_unreachable(&held.tuple, why, &quoted[..len]);
        Ok(())
    }

    /// Forgets a SYN without an answer: to the peer it was lost, and it will ask again.
    ///
    /// # Errors
    /// If there is no such SYN.
    pub fn drop_syn(&mut self, id: SynId) -> Result<(), NoSyn> {
        self.held.release(id).map(|_| ()).ok_or(NoSyn)
    }

    /// A SYN comes to a listener that holds them.
    pub(super) fn hold_syn(
        &mut self,
        now: Instant,
        listener: ListenerId,
        tuple: &FourTuple,
        syn: &Segment<'_>,
        iss: Option<SeqNum>,
    ) {
        let limits = Limits {
            all: self.config.held_syns.max(1),
            per_destination: self.config.held_syns_per_destination.max(1),
            hold: self.config.syn_hold,
        };
        let iss = iss.unwrap_or_else(|| self.secrets.initial_sequence_number(tuple, now));
        match self.held.take(now, &limits, listener, tuple, syn, iss) {
            Taken::New => {}
            Taken::Known => self.counters.syns_absorbed += 1,
            Taken::OverQuota => self.counters.syns_over_quota += 1,
        }
        self.counters.syns_evicted = self.held.evicted;
        self.notice_syns();
    }

    /// Sees to it that the program is told of SYNs.
    pub(super) fn notice_syns(&mut self) {
        if self.held.has_news() && !self.held.is_noticed {
            self.held.is_noticed = true;
            self.notices.push_back(Notice::Syns);
        }
    }
}
