//! Urgent data: it stays in line (RFC 6093, section 6), and whoever asks is told where it stands, since programs that
//! still use it look for one byte, as Linux gives it.

use portolan_core::wire::{SeqNum, TcpFlags};

use super::connection::{Connection, Cx, Happened, Traits, WriteError};
use super::outgoing::Outgoing;
use super::segment::Segment;

/// Where urgent data stands in both directions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Urgent {
    /// The last urgent byte that the peer told of.
    received: Option<SeqNum>,
    /// SND.UP: the number after the last urgent byte that was written.
    sent: Option<SeqNum>,
}

/// The farthest that a pointer reaches.
const FARTHEST: u32 = 0xFFFF;

impl Connection {
    /// Section 3.10.7.4, sixth: the urgent bit. As in Linux the pointer says the number after the urgent byte, and neither
    /// one of the past nor one that is not ahead of the last counts.
    pub(super) fn note_urgent(&mut self, segment: &Segment<'_>) {
        if !segment.has(TcpFlags::URG) || !self.state.may_receive() {
            return;
        }
        let at = segment.seq + u32::from(segment.urgent_pointer.max(1)) - 1;
        let known = self.urgent.as_ref().and_then(|urgent| urgent.received);
        if at.before(self.reassembly.next()) || known.is_some_and(|known| !at.after(known)) {
            return;
        }
        self.urgent.get_or_insert_default().received = Some(at);
        // Who is to be told of what stands ahead may wait for nothing else.
        self.happened |= Happened::READABLE;
    }

    /// How many bytes stand before the urgent one among those to be read; `None` if there is none that was not read.
    pub(crate) fn urgent_ahead(&self) -> Option<usize> {
        let at = self.urgent.as_ref()?.received?;
        let has_fin = self.traits.contains(Traits::FIN_RECEIVED);
        let end = self.reassembly.next() - u32::from(has_fin);
        if has_fin && at.at_or_after(end) {
            // The peer never sent it.
            return None;
        }
        let start = end - u32::try_from(self.reassembly.ready()).unwrap_or(u32::MAX);
        usize::try_from(at.since(start)).ok()
    }

    /// Takes bytes to send as [`Connection::write`] does, the last of them urgent if all of them were taken.
    pub(crate) fn write_urgent(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> Result<usize, WriteError> {
        let len = self.write(cx, bytes)?;
        if len == bytes.len() && len > 0 {
            let end = self.data_end();
            self.urgent.get_or_insert_default().sent = Some(end);
        }
        Ok(len)
    }

    /// Whether the peer has not acknowledged urgent data yet.
    pub(super) fn has_urgent_to_send(&self) -> bool {
        let sent = self.urgent.as_ref().and_then(|urgent| urgent.sent);
        sent.is_some_and(|sent| sent.after(self.snd_una))
    }

    /// Tells of urgent data ahead of the segment's start, also of what the peer's window has no room for yet.
    pub(super) fn point_at_urgent(&self, segment: &mut Outgoing) {
        if let Some(sent) = self.urgent.as_ref().and_then(|urgent| urgent.sent)
            && self.has_urgent_to_send()
            && sent.after(segment.seq)
        {
            segment.flags |= TcpFlags::URG;
            segment.urgent_pointer = (sent.since(segment.seq) as u32).min(FARTHEST) as u16;
        }
    }
}
