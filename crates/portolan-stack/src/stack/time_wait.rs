use portolan_core::wire::{SeqNum, TcpFlags, TcpOptionBlock};

use crate::Instant;
use crate::tcp::{Connection, Outgoing, Segment};

/// A connection that both sides have closed, as much of it as stray segments need (RFC 9293, section 3.6.1).
#[derive(Debug)]
pub(super) struct TimeWait {
    pub(super) rcv_nxt: SeqNum,
    pub(super) snd_nxt: SeqNum,
    pub(super) window: u16,
    /// TS.Recent and our last TSval, if timestamps were agreed on.
    pub(super) timestamps: Option<(u32, u32)>,
}

/// What a segment does to a connection in TIME-WAIT.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Nothing.
    Ignore,
    /// It is acknowledged again.
    Acknowledge(Outgoing),
    /// It ends the wait.
    End,
    /// It asks for a new connection, which may begin if somebody listens.
    Reopen,
}

impl TimeWait {
    /// What is left of `connection`.
    pub(super) fn of(connection: &Connection, now: Instant) -> Self {
        Self {
            rcv_nxt: connection.rcv_nxt(),
            snd_nxt: connection.snd_nxt(),
            window: connection.last_window(),
            timestamps: connection.timestamps(now),
        }
    }

    /// RFC 9293, section 3.10.7.4; RFC 6191 for SYNs; Linux where they leave a choice.
    pub(super) fn arrive(&self, segment: &Segment<'_>) -> Verdict {
        if segment.has(TcpFlags::RST) {
            // RFC 1337 would ignore it. Linux does only with tcp_rfc1337.
            return if segment.seq == self.rcv_nxt {
                Verdict::End
            } else {
                Verdict::Ignore
            };
        }
        if segment.has(TcpFlags::SYN) && !segment.has(TcpFlags::ACK) {
            let newer = match (self.timestamps, segment.options.timestamps) {
                (Some((recent, _)), Some((value, _))) => (value.wrapping_sub(recent) as i32) > 0,
                _ => false,
            };
            if segment.seq.after(self.rcv_nxt) || newer {
                return Verdict::Reopen;
            }
            return self.acknowledge();
        }
        if segment.len() == 0 && segment.seq == self.rcv_nxt {
            return Verdict::Ignore;
        }
        self.acknowledge()
    }

    /// The acknowledgment of everything.
    pub(super) fn acknowledge(&self) -> Verdict {
        let options = self
            .timestamps
            .map_or_else(TcpOptionBlock::new, |(echo_reply, value)| {
                TcpOptionBlock::aligned_timestamps(value, echo_reply)
            });
        Verdict::Acknowledge(Outgoing {
            options,
            ..Outgoing::new(self.snd_nxt, self.rcv_nxt, TcpFlags::ACK, self.window)
        })
    }
}
