//! Numbers that nobody outside can guess, and that come again with the same secret.

use std::net::SocketAddr;

use portolan_core::SipKey;
use portolan_core::demux::FourTuple;
use portolan_core::wire::SeqNum;

use crate::Instant;

/// Keyed hashes of four-tuples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secrets {
    key: SipKey,
}

/// What a hash is for: two uses of one four-tuple have nothing in common.
#[derive(Clone, Copy)]
enum Purpose {
    /// The initial sequence number, and in the other half the offset of timestamps.
    Opening = 1,
    HalfOpen = 2,
    Cookie = 3,
    Fragment = 4,
    Echo = 5,
    Waiting = 6,
}

/// What a cookie is made of: the hash of the four-tuple, a period, an initial sequence number and an index.
const COOKIE_LEN: usize = 21;

impl Secrets {
    pub(super) const fn new(key: [u8; 16]) -> Self {
        Self {
            key: SipKey::new(key),
        }
    }

    /// RFC 6528, section 3: a clock of 4 microseconds and a keyed hash of the four-tuple.
    pub(super) fn initial_sequence_number(&self, tuple: &FourTuple, now: Instant) -> SeqNum {
        self.opening(tuple, now).0
    }

    /// The initial sequence number and the offset of timestamps.
    pub(super) fn opening(&self, tuple: &FourTuple, now: Instant) -> (SeqNum, u32) {
        let hash = self.hash(tuple, Purpose::Opening);
        let clock = (now.as_micros() / 4) as u32;
        (
            SeqNum::new((hash as u32).wrapping_add(clock)),
            (hash >> 32) as u32,
        )
    }

    /// RFC 7323, section 5.4: an offset for each connection, which hides how long the host is up.
    pub(super) fn timestamp_offset(&self, tuple: &FourTuple) -> u32 {
        (self.hash(tuple, Purpose::Opening) >> 32) as u32
    }

    /// By which a half-open connection is found.
    pub(super) fn half_open_hash(&self, tuple: &FourTuple) -> u64 {
        tuple.table_hash(&self.key, Purpose::HalfOpen as u8)
    }

    /// By which a connection in TIME-WAIT is found.
    pub(super) fn waiting_hash(&self, tuple: &FourTuple) -> u64 {
        tuple.table_hash(&self.key, Purpose::Waiting as u8)
    }

    /// What makes a SYN cookie one of ours (RFC 4987, section 3.6).
    pub(super) fn cookie_hash(&self, tuple: &FourTuple, irs: SeqNum, index: u8, period: u64) -> u32 {
        let mut message = [0; COOKIE_LEN];
        message[..8].copy_from_slice(&self.hash(tuple, Purpose::Cookie).to_be_bytes());
        message[8..16].copy_from_slice(&period.to_be_bytes());
        message[16..20].copy_from_slice(&irs.get().to_be_bytes());
        message[20] = index;
        self.key.hash24(&message) as u32
    }

    /// Where the identifications of fragments begin for a pair of hosts.
    pub(super) fn fragment_offset(&self, tuple: &FourTuple) -> u32 {
        let host = |end: SocketAddr| SocketAddr::new(end.ip(), 0);
        FourTuple::new(host(tuple.local()), host(tuple.remote()))
            .map_or(0, |hosts| self.hash(&hosts, Purpose::Fragment) as u32)
    }

    /// Where the search for a free echo identifier begins.
    pub(super) fn echo_identifier(&self, count: u32) -> u16 {
        let [a, b, c, d] = count.to_be_bytes();
        self.key.hash24(&[a, b, c, d, Purpose::Echo as u8]) as u16
    }

    fn hash(&self, tuple: &FourTuple, purpose: Purpose) -> u64 {
        tuple.hash(&self.key, purpose as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_four_tuple_has_its_own_numbers_and_the_clock_moves_them() {
        let secrets = Secrets::new([1; 16]);
        let tuple =
            |port: u16| FourTuple::new(([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], 80).into()).unwrap();
        let at = |port, micros| secrets.initial_sequence_number(&tuple(port), Instant::from_micros(micros));
        assert_ne!(at(1, 0), at(2, 0));
        assert_eq!(at(1, 4000).since(at(1, 0)), 1000);
        assert_ne!(secrets.timestamp_offset(&tuple(1)), at(1, 0).get());
        assert_ne!(
            Secrets::new([2; 16]).initial_sequence_number(&tuple(1), Instant::START),
            at(1, 0)
        );
    }
}
