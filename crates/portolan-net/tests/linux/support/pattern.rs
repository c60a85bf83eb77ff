//! Bytes that say where in the stream they are: what is lost, doubled or swapped is noticed.

use std::sync::LazyLock;

/// A prime, so that no buffer, window or segment divides it.
const PERIOD: usize = 1_000_003;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..PERIOD)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
});

/// Some of the stream from `at` on, at most `len` bytes and at least one unless `len` is 0.
pub(crate) fn from(at: u64, len: u64) -> &'static [u8] {
    let rest = &BYTES[(at % PERIOD as u64) as usize..];
    &rest[..rest.len().min(usize::try_from(len).unwrap_or(usize::MAX))]
}

/// Where `bytes`, which stand at `at`, first differ from the stream.
pub(crate) fn difference(mut at: u64, mut bytes: &[u8]) -> Option<u64> {
    while !bytes.is_empty() {
        let expected = from(at, bytes.len() as u64);
        let (now, rest) = bytes.split_at(expected.len());
        if now != expected {
            let place = now.iter().zip(expected).position(|(a, b)| a != b);
            return Some(at + place.unwrap_or(0) as u64);
        }
        at += now.len() as u64;
        bytes = rest;
    }
    None
}
