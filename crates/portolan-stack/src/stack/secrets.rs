//! Numbers that nobody outside can guess, and that come again with the same secret.

use std::hash::Hasher;

use portolan_core::demux::FourTuple;
use portolan_core::wire::SeqNum;
use siphasher::sip::SipHasher24;

use crate::Instant;

/// Keyed hashes of four-tuples.
#[derive(Debug)]
pub(super) struct Secrets {
    key: [u8; 16],
}

/// What a hash is for: two uses of one four-tuple have nothing in common.
#[derive(Clone, Copy)]
enum Purpose {
    SequenceNumber = 1,
    Timestamp = 2,
}

impl Secrets {
    pub(super) const fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// RFC 6528, section 3: a clock of 4 microseconds and a keyed hash of the four-tuple.
    pub(super) fn initial_sequence_number(&self, tuple: &FourTuple, now: Instant) -> SeqNum {
        let clock = (now.as_micros() / 4) as u32;
        SeqNum::new(self.hash(tuple, Purpose::SequenceNumber).wrapping_add(clock))
    }

    /// RFC 7323, section 5.4: an offset for each connection, which hides how long the host is up.
    pub(super) fn timestamp_offset(&self, tuple: &FourTuple) -> u32 {
        self.hash(tuple, Purpose::Timestamp)
    }

    fn hash(&self, tuple: &FourTuple, purpose: Purpose) -> u32 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        for end in [tuple.local(), tuple.remote()] {
            match end.ip() {
                std::net::IpAddr::V4(address) => hasher.write(&address.octets()),
                std::net::IpAddr::V6(address) => hasher.write(&address.octets()),
            }
            hasher.write(&end.port().to_be_bytes());
        }
        hasher.write(&[purpose as u8]);
        hasher.finish() as u32
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
