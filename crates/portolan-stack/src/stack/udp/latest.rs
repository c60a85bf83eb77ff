//! Whose the latest datagrams were: the next of the same flow is for the same socket, as long as no socket has changed.

use portolan_core::demux::FourTuple;

use super::super::UdpId;

/// How many flows are remembered, each in a place that its ports choose. Whoever makes flows collide gains that they
/// are looked up, as all were without this.
const FLOWS: usize = 16;

/// The sockets of the latest flows.
#[derive(Debug, Default)]
pub(in super::super) struct LatestFlows {
    /// The version of the port table that they are of.
    version: u64,
    flows: [Option<(FourTuple, UdpId)>; FLOWS],
}

impl LatestFlows {
    /// The socket of a flow, if it is remembered.
    pub(super) fn find(&self, version: u64, tuple: &FourTuple) -> Option<UdpId> {
        let (known, id) = self.flows[place(tuple)].as_ref()?;
        (self.version == version && known == tuple).then_some(*id)
    }

    /// Remembers the socket of a flow, and forgets those of other versions.
    pub(super) fn note(&mut self, version: u64, tuple: &FourTuple, id: UdpId) {
        if self.version != version {
            *self = Self::default();
            self.version = version;
        }
        self.flows[place(tuple)] = Some((*tuple, id));
    }
}

fn place(tuple: &FourTuple) -> usize {
    usize::from(tuple.remote().port() ^ tuple.local().port()) % FLOWS
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    #[test]
    fn a_flow_is_known_until_the_version_changes_or_another_takes_its_place() {
        let mut sockets = SlotMap::<UdpId, ()>::with_key();
        let (one, two) = (sockets.insert(()), sockets.insert(()));
        let flow =
            |port: u16| FourTuple::new(([10, 0, 0, 1], 53).into(), ([10, 0, 0, 2], port).into()).unwrap();
        let mut latest = LatestFlows::default();
        assert_eq!(latest.find(0, &flow(7)), None);
        latest.note(0, &flow(7), one);
        latest.note(0, &flow(8), two);
        assert_eq!(
            (latest.find(0, &flow(7)), latest.find(0, &flow(8))),
            (Some(one), Some(two))
        );
        assert_eq!(latest.find(1, &flow(7)), None);
        let collides = flow(7 + FLOWS as u16);
        assert_eq!(latest.find(0, &collides), None);
        latest.note(0, &collides, two);
        assert_eq!(
            (latest.find(0, &flow(7)), latest.find(0, &collides)),
            (None, Some(two))
        );
        latest.note(1, &flow(8), one);
        assert_eq!(
            (latest.find(1, &flow(8)), latest.find(1, &collides)),
            (Some(one), None)
        );
    }
}
