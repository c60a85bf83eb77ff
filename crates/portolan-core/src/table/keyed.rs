//! Keyed hashing: SipHash-1-3 with a secret, so that nobody outside can choose colliding keys.

use std::hash::{BuildHasher, Hash};

use siphasher::sip::SipHasher13;

use crate::SipKey;

/// Builds hashers that all use one secret.
#[derive(Clone, Copy)]
pub(crate) struct Keyed {
    secret: [u8; 16],
}

impl Keyed {
    pub(crate) const fn new(secret: [u8; 16]) -> Self {
        Self { secret }
    }

    /// The same secret, bent for another purpose, so that hashes of one use say nothing of another.
    pub(crate) fn purpose(self, label: u64) -> Self {
        let high = self.hash_one((label, 0u8)).to_le_bytes();
        let low = self.hash_one((label, 1u8)).to_le_bytes();
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&high);
        secret[8..].copy_from_slice(&low);
        Self { secret }
    }

    /// The hash of `bytes` as one message.
    #[inline]
    pub(crate) fn hash_bytes(&self, bytes: &[u8]) -> u64 {
        SipKey::new(self.secret).hash13(bytes)
    }

    /// The hash of any value.
    pub(crate) fn hash_value(&self, value: impl Hash) -> u64 {
        self.hash_one(value)
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(&self.secret)
    }
}

impl std::fmt::Debug for Keyed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret is not for logs.
        f.write_str("Keyed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_purposes_give_different_hashes() {
        let one = Keyed::new([1; 16]);
        let two = Keyed::new([2; 16]);
        let hashes = [
            one.hash_bytes(b"flow"),
            two.hash_bytes(b"flow"),
            one.purpose(1).hash_bytes(b"flow"),
            one.purpose(2).hash_bytes(b"flow"),
        ];
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash));
        }
        assert!(!format!("{one:?}").contains('1'));
    }
}
