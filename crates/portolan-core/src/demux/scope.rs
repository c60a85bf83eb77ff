//! Receivers of scopes, that is, for more than one socket address: who of them gets a packet.

use super::flows::FourTuple;
use crate::table::{Device, PortTable, Transport};

impl PortTable {
    /// The receiver whose scope has the destination; `is_own` says whether that is an address of the host.
    pub(super) fn scope_of(
        &self,
        transport: Transport,
        tuple: &FourTuple,
        device: Option<Device>,
        is_own: bool,
    ) -> Option<u32> {
        self.scope_on(transport, tuple, device)
            .or_else(|| self.scope_beyond(transport, tuple, device, is_own))
    }

    /// The receiver whose scope has this address alone.
    pub(super) fn scope_on(
        &self,
        transport: Transport,
        tuple: &FourTuple,
        device: Option<Device>,
    ) -> Option<u32> {
        self.scope_on_address(transport, tuple.local().ip(), tuple.local().port())
            .filter(|&socket| self.candidate(socket).hears(device))
    }

    /// The receiver whose scope has this address among others.
    pub(super) fn scope_beyond(
        &self,
        transport: Transport,
        tuple: &FourTuple,
        device: Option<Device>,
        is_own: bool,
    ) -> Option<u32> {
        self.scope_around(transport, tuple.local().ip(), tuple.local().port(), is_own)
            .filter(|&socket| self.candidate(socket).hears(device))
    }
}
