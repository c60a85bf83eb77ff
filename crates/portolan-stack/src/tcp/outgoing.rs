use std::num::NonZeroU16;

use portolan_core::wire::{SackBlock, SeqNum, TcpFlags, TcpOption, TcpOptionBlock};

use super::config::{HOP_LIMIT, TcpConfig};
use crate::buffer::Block;

/// A segment to be written: everything but ports and addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    pub(crate) seq: SeqNum,
    pub(crate) ack: SeqNum,
    pub(crate) flags: TcpFlags,
    pub(crate) window: u16,
    /// How far ahead of `seq` urgent data ends, if a flag says that there is some.
    pub(crate) urgent_pointer: u16,
    pub(crate) options: TcpOptionBlock,
    /// Bytes of data behind the header, which the connection copies.
    pub(crate) payload_len: usize,
    /// How many bytes of data each piece takes if the link is to cut the segment; `None` for one segment.
    pub(crate) piece_len: Option<NonZeroU16>,
    /// Whether routers may mark the packet instead of dropping it: ECT(0) (RFC 3168).
    pub(crate) ecn_capable: bool,
    /// The code point of RFC 2474.
    pub(crate) dscp: u8,
    pub(crate) hop_limit: u8,
}

impl Outgoing {
    /// A segment without data or options.
    pub(crate) fn new(seq: SeqNum, ack: SeqNum, flags: TcpFlags, window: u16) -> Self {
        Self {
            seq,
            ack,
            flags,
            window,
            urgent_pointer: 0,
            options: TcpOptionBlock::new(),
            payload_len: 0,
            piece_len: None,
            ecn_capable: false,
            dscp: 0,
            hop_limit: HOP_LIMIT,
        }
    }

    /// The segment with the IP header that the program asked for.
    pub(crate) const fn marked_by(self, config: &TcpConfig) -> Self {
        Self {
            dscp: config.traffic_class >> 2,
            hop_limit: config.hop_limit,
            ..self
        }
    }
}

/// Options of a SYN, in the order and with the padding of Linux: `mss,sackOK,TS,nop,wscale`.
pub(super) fn syn_options(
    mss: u16,
    window_scale: Option<u8>,
    sack_permitted: bool,
    timestamps: Option<(u32, u32)>,
) -> TcpOptionBlock {
    if let (Some((value, echo_reply)), true, Some(shift)) = (timestamps, sack_permitted, window_scale) {
        return all_syn_options(mss, shift, value, echo_reply);
    }
    let mut block = TcpOptionBlock::new();
    push(&mut block, TcpOption::MaximumSegmentSize(mss));
    if timestamps.is_none() && sack_permitted {
        push(&mut block, TcpOption::NoOperation);
        push(&mut block, TcpOption::NoOperation);
    }
    if sack_permitted {
        push(&mut block, TcpOption::SackPermitted);
    }
    if let Some((value, echo_reply)) = timestamps {
        if !sack_permitted {
            push(&mut block, TcpOption::NoOperation);
            push(&mut block, TcpOption::NoOperation);
        }
        push(&mut block, TcpOption::Timestamps { value, echo_reply });
    }
    if let Some(shift) = window_scale {
        push(&mut block, TcpOption::NoOperation);
        push(&mut block, TcpOption::WindowScale(shift));
    }
    block
}

/// What nearly every SYN says, written down at once.
fn all_syn_options(mss: u16, shift: u8, value: u32, echo_reply: u32) -> TcpOptionBlock {
    let [m, n] = mss.to_be_bytes();
    let ([a, b, c, d], [e, f, g, h]) = (value.to_be_bytes(), echo_reply.to_be_bytes());
    TcpOptionBlock::from_array([2, 4, m, n, 4, 2, 8, 10, a, b, c, d, e, f, g, h, 1, 3, 3, shift])
}

/// Options of any other segment: `nop,nop,TS,nop,nop,sack`.
pub(super) fn data_options(timestamps: Option<(u32, u32)>, sack: &[Block]) -> TcpOptionBlock {
    let mut block = timestamps.map_or_else(TcpOptionBlock::new, |(value, echo_reply)| {
        TcpOptionBlock::aligned_timestamps(value, echo_reply)
    });
    if sack.is_empty() {
        return block;
    }
    let room = block.remaining().saturating_sub(4) / 8;
    let mut blocks = [SackBlock::new(SeqNum::new(0), SeqNum::new(0)); 4];
    let count = sack.len().min(room).min(blocks.len());
    for (out, block) in blocks.iter_mut().zip(&sack[..count]) {
        *out = SackBlock::new(block.left, block.right);
    }
    if count > 0 {
        push(&mut block, TcpOption::NoOperation);
        push(&mut block, TcpOption::NoOperation);
        push(&mut block, TcpOption::Sack(&blocks[..count]));
    }
    block
}

/// The combinations above take at most 40 bytes.
fn push(block: &mut TcpOptionBlock, option: TcpOption<'_>) {
    let pushed = block.push(option);
    debug_assert!(pushed.is_ok(), "{option:?} does not fit");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_as_linux_writes_them() {
        let syn = syn_options(1460, Some(7), true, Some((1, 0)));
        assert_eq!(
            syn.as_bytes(),
            [2, 4, 5, 0xB4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]
        );
        let syn = syn_options(1460, Some(7), true, None);
        assert_eq!(syn.as_bytes(), [2, 4, 5, 0xB4, 1, 1, 4, 2, 1, 3, 3, 7]);
        let blocks = [Block {
            left: SeqNum::new(1),
            right: SeqNum::new(2),
        }; 4];
        // With timestamps there is room for three blocks.
        assert_eq!(data_options(Some((1, 2)), &blocks).as_bytes().len(), 12 + 4 + 24);
        assert_eq!(data_options(None, &blocks).as_bytes().len(), 4 + 32);
        assert_eq!(data_options(None, &[]).as_bytes(), [0; 0]);
    }
}
