//! Datagrams of one client that follow each other, gathered so that they go through the stack and the device as one.

use std::num::NonZeroU16;
use std::sync::Arc;

use super::batch::Received;
use super::udp::Session;

/// Datagrams of one session, all of one length but the last, which may be shorter.
#[derive(Debug, Default)]
pub(super) struct Run {
    session: Option<Arc<Session>>,
    bytes: Vec<u8>,
    piece: usize,
    count: usize,
    /// Another one may follow: none was shorter yet.
    is_open: bool,
}

/// Bytes of a run: an IPv4 packet with headers has room for them.
const MAX_LEN: usize = 65_000;
/// Datagrams of a run: kernels cut no packet into more (`UDP_MAX_SEGMENTS` before Linux 6.9).
const MAX_COUNT: usize = 64;
/// Longer datagrams go alone: to copy them costs more than it saves.
const MAX_PIECE: usize = 2048;

impl Run {
    /// Takes a datagram, or several that the kernel has joined, if they go with those that are here.
    pub(super) fn append(&mut self, received: &Received<'_>) -> bool {
        let len = received.bytes.len();
        let Some(session) = &self.session else {
            return false;
        };
        let fits = self.is_open
            && session.is_of(received)
            && received.piece == 0
            && (1..=self.piece).contains(&len)
            && self.count < MAX_COUNT
            && self.bytes.len() + len <= MAX_LEN;
        if fits {
            self.bytes.extend_from_slice(received.bytes);
            self.count += 1;
            self.is_open = len == self.piece;
        }
        fits
    }

    /// Begins with a datagram; there must be none here.
    pub(super) fn begin(&mut self, session: Arc<Session>, received: &Received<'_>) {
        let len = received.bytes.len();
        self.session = Some(session);
        self.bytes.extend_from_slice(received.bytes);
        self.piece = if received.piece == 0 { len } else { received.piece };
        self.count = len.div_ceil(self.piece.max(1)).max(1);
        self.is_open = received.piece == 0 && (1..=MAX_PIECE).contains(&len);
    }

    /// Whose they are: nobody's if there are none.
    pub(super) const fn session(&self) -> Option<&Arc<Session>> {
        self.session.as_ref()
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of each, if there are several that may go as one.
    pub(super) fn piece_len(&self) -> Option<NonZeroU16> {
        let piece = u16::try_from(self.piece).ok().and_then(NonZeroU16::new)?;
        (2..=MAX_COUNT).contains(&self.count).then_some(piece)
    }

    /// The datagrams, one by one.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let piece = self.piece.max(1);
        (0..self.count).map(move |number| {
            let start = number * piece;
            &self.bytes[start..(start + piece).min(self.bytes.len())]
        })
    }

    /// They went.
    pub(super) fn clear(&mut self) {
        self.session = None;
        self.bytes.clear();
        self.count = 0;
    }
}
