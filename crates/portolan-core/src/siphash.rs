//! SipHash of short messages, each at once (Aumasson and Bernstein, "SipHash: a fast short-input PRF").
//!
//! Four-tuples are hashed several times for each connection and for most packets. They have one of two lengths, which the
//! compiler knows where it sees the whole of the function: no buffering, no loop over bytes.

/// A secret, under which nobody outside can choose or guess hashes.
#[derive(Clone, Copy)]
pub struct SipKey {
    k0: u64,
    k1: u64,
}

impl SipKey {
    /// The key that these bytes are.
    #[must_use]
    pub const fn new(secret: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = secret;
        Self {
            k0: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            k1: u64::from_le_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    /// SipHash-1-3, for hash tables.
    #[inline]
    #[must_use]
    pub fn hash13(&self, message: &[u8]) -> u64 {
        self.hash::<1, 3>(message)
    }

    /// SipHash-2-4, for numbers that go out.
    #[inline]
    #[must_use]
    pub fn hash24(&self, message: &[u8]) -> u64 {
        self.hash::<2, 4>(message)
    }

    #[inline]
    fn hash<const COMPRESSION: usize, const FINALIZATION: usize>(&self, message: &[u8]) -> u64 {
        // "somepseudorandomlygeneratedbytes".
        let mut state = State([
            self.k0 ^ 0x736f_6d65_7073_6575,
            self.k1 ^ 0x646f_7261_6e64_6f6d,
            self.k0 ^ 0x6c79_6765_6e65_7261,
            self.k1 ^ 0x7465_6462_7974_6573,
        ]);
        let (words, rest) = message.as_chunks::<8>();
        for word in words {
            state.take::<COMPRESSION>(u64::from_le_bytes(*word));
        }
        // The last word has the length modulo 256 in its last byte.
        let mut last = (message.len() as u64) << 56;
        for (place, byte) in rest.iter().enumerate() {
            last |= u64::from(*byte) << (8 * place);
        }
        state.take::<COMPRESSION>(last);
        state.0[2] ^= 0xFF;
        state.rounds::<FINALIZATION>();
        let [a, b, c, d] = state.0;
        a ^ b ^ c ^ d
    }
}

impl std::fmt::Debug for SipKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret is not for logs.
        f.write_str("SipKey")
    }
}

struct State([u64; 4]);

impl State {
    #[inline]
    fn take<const ROUNDS: usize>(&mut self, word: u64) {
        self.0[3] ^= word;
        self.rounds::<ROUNDS>();
        self.0[0] ^= word;
    }

    #[inline]
    fn rounds<const ROUNDS: usize>(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        for _ in 0..ROUNDS {
            a = a.wrapping_add(b);
            c = c.wrapping_add(d);
            b = b.rotate_left(13) ^ a;
            d = d.rotate_left(16) ^ c;
            a = a.rotate_left(32).wrapping_add(d);
            c = c.wrapping_add(b);
            d = d.rotate_left(21) ^ a;
            b = b.rotate_left(17) ^ c;
            c = c.rotate_left(32);
        }
        self.0 = [a, b, c, d];
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use siphasher::sip::{SipHasher13, SipHasher24};

    use super::*;

    proptest! {
        #[test]
        fn hashes_are_those_of_another_implementation(secret: [u8; 16], message in vec(any::<u8>(), 0..80)) {
            let key = SipKey::new(secret);
            prop_assert_eq!(key.hash13(&message), SipHasher13::new_with_key(&secret).hash(&message));
            prop_assert_eq!(key.hash24(&message), SipHasher24::new_with_key(&secret).hash(&message));
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", SipKey::new([1; 16])), "SipKey");
    }
}
