use crate::Instant;

/// What a connection carried, for people who look at flows. Of one that came to a listener the three segments of the
/// handshake are not counted: they were there before the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes of data that came, those that came twice counted twice.
    pub bytes_in: u64,
    /// Bytes of data that went, those that were sent again counted again.
    pub bytes_out: u64,
    /// Segments that came, with and without data. What a device merged counts as what it was merged of.
    pub packets_in: u32,
    /// Segments that went; a super-segment counts as its pieces.
    pub packets_out: u32,
}

/// [`Traffic`] of a connection, and since when there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    traffic: Traffic,
    /// Whole seconds since the start, so that it takes 4 bytes.
    since_seconds: u32,
}

impl Tally {
    pub(super) fn new(now: Instant) -> Self {
        let seconds = now.as_millis() / 1000;
        Self {
            traffic: Traffic::default(),
            since_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        }
    }

    /// A segment came, with so many bytes of data that were `piece_len` each.
    pub(super) fn came(&mut self, payload_len: usize, piece_len: usize) {
        self.traffic.bytes_in += payload_len as u64;
        let packets = &mut self.traffic.packets_in;
        *packets = packets.wrapping_add(pieces(payload_len, piece_len));
    }

    /// A segment goes, with so many bytes of data that are to be cut into pieces of `piece_len`.
    pub(super) fn went(&mut self, payload_len: usize, piece_len: usize) {
        self.traffic.bytes_out += payload_len as u64;
        let packets = &mut self.traffic.packets_out;
        *packets = packets.wrapping_add(pieces(payload_len, piece_len));
    }

    /// Reads a word.
    pub(super) const fn touch(&self) -> u64 {
        self.traffic.bytes_in
    }

    pub(super) const fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Since when there is the connection, to the second.
    pub(super) const fn since(&self) -> Instant {
        Instant::from_millis(self.since_seconds as u64 * 1000)
    }
}

fn pieces(payload_len: usize, piece_len: usize) -> u32 {
    if payload_len <= piece_len {
        return 1;
    }
    // At most 65,535 bytes.
    payload_len.div_ceil(piece_len.max(1)) as u32
}
