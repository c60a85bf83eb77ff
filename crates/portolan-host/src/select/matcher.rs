use std::collections::HashSet;

use super::Selection;
use super::expression::Expression;
use super::holder::Holder;
use crate::{Family, ProtocolSet, Snapshot, StateSet};

/// A selection made ready for one snapshot: which of its sockets are meant.
///
/// Making it looks at every process once; [`matches`](Self::matches) then costs some comparisons and, where
/// the filter names a holder, a look-up per owner. Nothing is allocated per socket.
#[derive(Debug)]
pub struct Matcher<'a> {
    snapshot: &'a Snapshot,
    expression: Option<&'a Expression>,
    holders: Vec<(&'a Holder, HashSet<i32>)>,
    protocols: ProtocolSet,
    states: StateSet,
    family: Option<Family>,
}

impl<'a> Matcher<'a> {
    /// A matcher for the sockets of `protocols` and `states` that the selection means.
    #[must_use]
    pub fn new(
        selection: &'a Selection,
        snapshot: &'a Snapshot,
        protocols: ProtocolSet,
        states: StateSet,
    ) -> Self {
        Self {
            snapshot,
            expression: selection.expression.as_ref(),
            holders: selection
                .holders
                .iter()
                .map(|holder| (holder, holder.pids(snapshot)))
                .collect(),
            protocols,
            states,
            family: selection.family,
        }
    }

    /// Whether the socket at this index of the snapshot is meant.
    ///
    /// # Panics
    /// If the snapshot has no such socket.
    #[must_use]
    pub fn matches(&self, index: usize) -> bool {
        let socket = &self.snapshot.sockets[index];
        if !self.protocols.contains(socket.protocol)
            || !self.states.contains(socket.state)
            || self.family.is_some_and(|family| family != socket.family)
        {
            return false;
        }
        let Some(expression) = self.expression else {
            return true;
        };
        let ownership = self.snapshot.ownership.get(index);
        expression.holds(socket, &|holder: usize| {
            let (holder, pids) = &self.holders[holder];
            holder.holds(pids, socket, ownership)
        })
    }
}
