//! Buffers that grow with what a connection carries: dynamic right-sizing.
//!
//! A receive buffer needs room for twice what the program reads in a round trip, so that the peer's window can double
//! while it does. A program that reads slowly, or a peer that sends little, never makes it grow. A send buffer needs
//! twice the congestion window: what is on its way, and what replaces it.

use portolan_core::wire::SeqNum;

use super::config::TcpConfig;
use super::connection::{Connection, Cx, Traits};
use super::segment::Segment;
use crate::{Duration, Instant};

/// Segments that are allowed for beside what was read: they hide a delayed acknowledgment, or a small loss.
const SPARE_SEGMENTS: u64 = 16;
/// Segments that a peer sends at first (RFC 6928).
const INITIAL_SEGMENTS: u32 = 10;
/// The finest that timestamps tell.
const TIMESTAMP_UNIT: Duration = Duration::from_millis(1);
/// What Linux adds to a segment for headers and the end of its buffer, before it rounds to a power of two, and for the
/// buffer's head after that.
const SEGMENT_ROOM: u32 = 640;
const SEGMENT_HEAD: u32 = 256;

/// What is known of the pace of a program that reads.
#[derive(Debug)]
pub(super) struct Tuning {
    /// How far the receive buffer has grown, in bytes; no more than at first if it is less.
    grown: u32,
    /// The most bytes that were read in a round trip; 0 before anything was.
    most_read: u32,
    /// The first byte that counts for this round trip, and when it began.
    from: SeqNum,
    since: Instant,
    /// The round-trip time as the receiver sees it.
    rtt: Option<Duration>,
    /// The last timestamp that came back.
    echo: u32,
    /// Of a peer without timestamps: the end of the window that was open at `window_since`.
    window_end: SeqNum,
    window_since: Instant,
}

impl Tuning {
    /// Nothing is known but how far the buffer has grown, `next` being the next byte.
    pub(super) const fn new(grown: u32, next: SeqNum) -> Self {
        Self {
            grown,
            most_read: 0,
            from: next,
            since: Instant::START,
            rtt: None,
            echo: 0,
            window_end: next,
            window_since: Instant::START,
        }
    }

    /// Takes a round-trip time. One that is longer may be the program's pause, if `reader_is_late`.
    fn measure(&mut self, rtt: Duration, reader_is_late: bool) {
        self.rtt = Some(match self.rtt {
            None => rtt,
            Some(known) if rtt < known => rtt,
            Some(known) if reader_is_late => known,
            Some(known) => known - known / 8 + rtt / 8,
        });
    }
}

impl Connection {
    /// The most that may wait to be read, memory being no matter.
    pub(super) fn receive_buffer(&self, config: &TcpConfig) -> u32 {
        let (first, most) = (config.first_receive_limit(), config.receive_limit());
        self.tuning.grown.clamp(first, most)
    }

    /// How many bytes may be written and not acknowledged.
    pub(super) fn send_buffer(&self, config: &TcpConfig) -> usize {
        let grown = 2 * self.window.cwnd as usize;
        grown.max(config.initial_send_buffer).min(config.send_limit())
    }

    /// The same, in memory as Linux counts it.
    pub(super) fn send_memory_limit(&self, config: &TcpConfig) -> usize {
        let mss = u32::from(self.snd_mss);
        let segment = (mss + SEGMENT_ROOM).next_power_of_two() + SEGMENT_HEAD;
        let segments = (self.window.cwnd / mss).max(INITIAL_SEGMENTS);
        let grown = 2 * segments as usize * segment as usize;
        grown.max(config.initial_send_buffer).min(config.send_limit())
    }

    /// Data has come in order: it may tell the round-trip time.
    pub(super) fn time_peer(&mut self, cx: &Cx<'_>, segment: &Segment<'_>) {
        if cx.config.first_receive_limit() == cx.config.receive_limit() {
            return;
        }
        let now = self.timestamp(cx.now);
        let is_full = segment.payload.len() as u32 >= self.acks.largest();
        // What came just now waits too.
        let is_late = self.reassembly.ready() > segment.payload.len();
        match segment.options.timestamps {
            Some((_, echo)) if self.traits.contains(Traits::TIMESTAMPS) => {
                let passed = now.wrapping_sub(echo);
                if echo != self.tuning.echo && is_full && passed as i32 >= 0 {
                    self.tuning.echo = echo;
                    self.tuning.measure(TIMESTAMP_UNIT * passed.max(1), is_late);
                }
            }
            Some(_) | None => {
                let next = self.reassembly.next();
                if next.before(self.tuning.window_end) {
                    return;
                }
                if self.tuning.window_since > Instant::START {
                    // A window is as long as a round trip at least: the shortest is the nearest.
                    self.tuning.measure(cx.now.since(self.tuning.window_since), true);
                }
                self.tuning.window_end = self.rcv_edge.later(next + 1);
                self.tuning.window_since = cx.now;
            }
        }
    }

    /// The program has read: the buffer grows if it reads faster than ever.
    pub(super) fn tune_receive_buffer(&mut self, cx: &Cx<'_>) {
        let Some(rtt) = self.tuning.rtt else {
            return;
        };
        let passed = cx.now.since(self.tuning.since);
        if self.tuning.since > Instant::START && passed < rtt {
            return;
        }
        let (first, most) = (cx.config.first_receive_limit(), cx.config.receive_limit());
        if first >= most {
            return;
        }
        let read_to = self.reassembly.next() - self.reassembly.ready() as u32;
        let is_first = self.tuning.since == Instant::START;
        let read = read_to.since(self.tuning.from).max(0) as u64;
        self.tuning.from = read_to;
        self.tuning.since = cx.now;
        if is_first {
            return;
        }
        // After a pause a whole buffer is read at once: that is what came in the pause, not in a round trip.
        let read = u128::from(read) * u128::from(rtt.as_nanos()) / u128::from(passed.as_nanos().max(1));
        let read = u32::try_from(read).unwrap_or(u32::MAX);
        let mss = self.acks.largest().max(1);
        let before = self
            .tuning
            .most_read
            .max(first.min(INITIAL_SEGMENTS * mss))
            .max(1);
        if read <= before {
            return;
        }
        self.tuning.most_read = read;
        if cx.pool.is_tight() {
            return;
        }
        // Twice what was read, and more if that grows: the peer is in slow start, and doubles again meanwhile.
        let window = 2 * u64::from(read) + SPARE_SEGMENTS * u64::from(mss);
        let growth = u128::from(window) * u128::from(read - before) / u128::from(before);
        let window = u128::from(window) + 2 * growth;
        let window = u32::try_from(window).unwrap_or(u32::MAX).min(most);
        self.tuning.grown = self.tuning.grown.max(window);
    }
}
