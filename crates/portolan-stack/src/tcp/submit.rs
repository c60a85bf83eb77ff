//! A program writes: how its bytes are laid into chunks, and when there is room for them.

use bitflags::bitflags;

use super::config::TcpConfig;
use super::connection::{Connection, Cx, Traits, WriteError};

bitflags! {
    /// How bytes are sent, as the flags of `send(2)` say.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SendFlags: u8 {
        /// `MSG_MORE`: more comes; what fills no segment waits for it.
        const MORE = 1;
        /// `MSG_EOR`: a record ends; nothing is added to its last segment.
        const END_OF_RECORD = 1 << 1;
    }
}

/// The most that Linux sends at once: 64 KiB without room for headers.
const LARGEST_BURST: u32 = 65_215;
/// What a chunk costs beside its bytes: Linux counts the memory of a buffer's head against the limit.
const CHUNK_COST: usize = 1280;

impl Connection {
    /// Takes bytes as Linux's `send(2)` does in one step: as many as the last chunk takes, or a new one if there is room for
    /// any. Whatever can go should be sent between the steps.
    pub(crate) fn submit(
        &mut self,
        cx: &mut Cx<'_>,
        bytes: &[u8],
        flags: SendFlags,
    ) -> Result<usize, WriteError> {
        if let Some(reason) = self.reason {
            return Err(reason.into());
        }
        if !self.state.may_send() || self.traits.contains(Traits::FIN_QUEUED) {
            return Err(WriteError::Finished);
        }
        let goal = self.chunk_goal();
        let room = match self.unsent.room(self.snd_nxt, goal) {
            0 if self.has_room_for_chunk(cx) => goal,
            0 => {
                self.traits |= Traits::WRITER_WAITS;
                // What is there goes: there may be room for the rest only then.
                self.unsent.mark_push();
                return Err(WriteError::WouldBlock);
            }
            room => room,
        };
        let len = bytes.len().min(room as usize);
        let is_last = len == bytes.len();
        let more = flags.contains(SendFlags::MORE);
        self.traits.set(Traits::MORE_COMES, is_last && more);
        self.lay_down(len as u32, goal, is_last && !more);
        if is_last && flags.contains(SendFlags::END_OF_RECORD) {
            self.unsent.close();
        }
        self.queue.push(cx.pool, &bytes[..len]);
        Ok(len)
    }

    /// Notes that `len` bytes are about to be put into the queue by an ordinary write.
    pub(super) fn note_written(&mut self, len: usize, more: bool) {
        let goal = self.chunk_goal();
        let mut rest = len as u32;
        self.traits.set(Traits::MORE_COMES, more);
        let mut seq = self.data_end();
        while rest > 0 {
            let room = match self.unsent.room(self.snd_nxt, goal) {
                0 => goal,
                room => room,
            };
            let part = rest.min(room);
            rest -= part;
            self.unsent.add(seq, part, self.snd_nxt, goal);
            self.unsent.mark_push_beyond(self.max_snd_wnd / 2);
            seq += part;
        }
        if !more {
            self.unsent.mark_push();
        }
    }

    /// Whether a program that waits for room is to write again: as Linux says it, when a third is free.
    pub(crate) fn is_writable(&self, stack: &TcpConfig) -> bool {
        let config = self.own_config.as_deref().unwrap_or(stack);
        let used = self.send_memory();
        let free = self.send_memory_limit(config).saturating_sub(used);
        free >= used / 2 && self.not_sent() * 2 < config.not_sent_low_water.max(1)
    }

    /// Sends what waits to fill a segment.
    pub(super) fn push_what_waits(&mut self) {
        self.traits -= Traits::MORE_COMES;
        self.traits |= Traits::PUSH_ONCE;
    }

    fn lay_down(&mut self, len: u32, goal: u32, ends_write: bool) {
        self.traits -= Traits::PUSH_ONCE;
        let seq = self.data_end();
        self.unsent.add(seq, len, self.snd_nxt, goal);
        if ends_write {
            self.unsent.mark_push();
        } else {
            self.unsent.mark_push_beyond(self.max_snd_wnd / 2);
        }
    }

    fn has_room_for_chunk(&self, cx: &Cx<'_>) -> bool {
        self.send_memory() < self.send_memory_limit(cx.config)
            && self.not_sent() < cx.config.not_sent_low_water
    }

    /// Bytes in the queue and what Linux would add for the heads of their buffers.
    fn send_memory(&self) -> usize {
        self.queue.len() + CHUNK_COST * (self.board.len() + self.unsent.len())
    }

    /// Bytes that were written and never sent.
    pub(super) fn not_sent(&self) -> usize {
        self.data_end().since(self.snd_nxt).max(0) as usize
    }

    /// How long a chunk may be: what goes at once, but no more than half of the largest window the peer ever offered, so
    /// that its acknowledgments keep coming.
    fn chunk_goal(&self) -> u32 {
        let mss = u32::from(self.snd_mss);
        let most = match self.max_snd_wnd {
            small @ 0..=536 => small,
            large => large / 2,
        };
        let most = if most == 0 { LARGEST_BURST } else { most.max(48) };
        (most.min(LARGEST_BURST) / mss * mss).max(mss)
    }
}
