//! Keepalive probes of the peer that the program answers: a gateway must not say that somebody is there before it knows.

use portolan_core::wire::TcpFlags;

use super::connection::{Connection, Happened, Traits};
use super::segment::Segment;

impl Connection {
    /// Whether the program answers probes of the peer, which it is told of.
    pub(crate) fn hold_probes(&mut self, holds: bool) {
        self.traits.set(Traits::HOLDS_PROBES, holds);
    }

    /// Keeps a segment for the program if it is a probe (RFC 9293, section 3.8.4): one number before what is expected, with
    /// a byte at most. One into a shut window asks for the window, which is ours to tell.
    pub(super) fn keep_probe(&mut self, segment: &Segment<'_>) -> bool {
        let rcv_nxt = self.reassembly.next();
        let is_probe = self.traits.contains(Traits::HOLDS_PROBES)
            && segment.payload.len() <= 1
            && segment.seq == rcv_nxt - 1
            && !segment.has(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
            && self.rcv_edge.after(rcv_nxt);
        if is_probe {
            self.traits |= Traits::IS_ASKED;
            self.happened |= Happened::PROBED;
        }
        is_probe
    }

    /// Whether the peer has asked since this was asked last.
    pub(crate) fn take_probe(&mut self) -> bool {
        let is_asked = self.traits.contains(Traits::IS_ASKED);
        self.traits -= Traits::IS_ASKED;
        is_asked
    }

    /// Answers a probe.
    pub(crate) fn answer_probe(&mut self) {
        self.want_urgent_ack();
    }
}
