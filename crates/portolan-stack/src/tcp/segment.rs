use bytes::Bytes;
use portolan_core::wire::{SackBlock, SeqNum, TcpFlags, TcpOption, TcpOptions, TcpSegment};

/// What every IPv6 link takes, without headers (RFC 9293, section 3.7.1).
const DEFAULT_MSS_V6: u16 = 1220;

/// A segment that came, its checksum found right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) seq: SeqNum,
    pub(crate) ack: SeqNum,
    pub(crate) flags: TcpFlags,
    /// SEG.WND as it stands in the header.
    pub(crate) window: u16,
    /// Whether SEG.WND is in units of the window's scale: not in a segment that came with a SYN (RFC 7323, section 2.2).
    pub(crate) is_scaled: bool,
    /// SEG.UP, which means something with URG.
    pub(crate) urgent_pointer: u16,
    pub(crate) payload: &'a [u8],
    /// Whose bytes the payload is, if they can be referred to: it begins with them.
    pub(crate) owner: Option<&'a Bytes>,
    pub(crate) options: Options<'a>,
    /// Whether a router marked the packet: congestion experienced (RFC 3168).
    pub(crate) congestion_experienced: bool,
    /// How many bytes of data each segment had that a device merged into this one.
    pub(crate) piece_len: usize,
}

/// The options that this stack understands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options<'a> {
    pub(crate) mss: Option<u16>,
    pub(crate) window_scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    /// TSval and TSecr.
    pub(crate) timestamps: Option<(u32, u32)>,
    pub(crate) sack: &'a [SackBlock],
}

impl<'a> Segment<'a> {
    /// The segment that `view` shows.
    #[inline(always)]
    pub(crate) fn new(view: &TcpSegment<'a>, congestion_experienced: bool, piece_len: Option<usize>) -> Self {
        let payload = view.payload();
        Self {
            seq: view.seq(),
            ack: view.ack(),
            flags: view.flags(),
            window: view.window(),
            is_scaled: !view.flags().contains(TcpFlags::SYN),
            urgent_pointer: view.urgent_pointer(),
            payload,
            owner: None,
            options: Options::read(view),
            congestion_experienced,
            piece_len: piece_len.unwrap_or(payload.len()).max(1),
        }
    }

    /// RFC 9293, section 3.7.1: a SYN over IPv6 that does not say takes segments of 1220 bytes.
    pub(crate) fn over_ipv6(mut self) -> Self {
        if self.has(TcpFlags::SYN) {
            self.options.mss.get_or_insert(DEFAULT_MSS_V6);
        }
        self
    }

    /// SEG.LEN: the data, and one number each for SYN and FIN.
    pub(crate) fn len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(TcpFlags::SYN)) + u32::from(self.has(TcpFlags::FIN))
    }

    /// The sequence number after the last that the segment takes.
    pub(crate) fn end(&self) -> SeqNum {
        self.seq + self.len()
    }

    /// Whether any of `flags` is set.
    pub(crate) fn has(&self, flags: TcpFlags) -> bool {
        self.flags.intersects(flags)
    }
}

impl<'a> Options<'a> {
    #[inline]
    fn read(view: &TcpSegment<'a>) -> Self {
        let options = view.options();
        if let timestamps @ Some(_) = options.aligned_timestamps() {
            return Self {
                timestamps,
                ..Self::default()
            };
        }
        Self::walk(options)
    }

    /// The same, one option after the other.
    fn walk(all: TcpOptions<'a>) -> Self {
        let mut options = Self::default();
        // An option that cannot be read is passed over; one that is cut short ends the walk.
        for option in all.flatten() {
            match option {
                TcpOption::MaximumSegmentSize(mss) => options.mss = Some(mss),
                // RFC 7323, section 2.3: a shift above 14 counts as 14.
                TcpOption::WindowScale(shift) => options.window_scale = Some(shift.min(14)),
                TcpOption::SackPermitted => options.sack_permitted = true,
                TcpOption::Sack(blocks) => options.sack = blocks,
                TcpOption::Timestamps { value, echo_reply } => options.timestamps = Some((value, echo_reply)),
                _ => {}
            }
        }
        options
    }
}
