use portolan_core::wire::{SackBlock, SeqNum, TcpFlags, TcpOption, TcpSegment};

/// A segment that came, its checksum found right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) seq: SeqNum,
    pub(crate) ack: SeqNum,
    pub(crate) flags: TcpFlags,
    /// SEG.WND as it stands in the header.
    pub(crate) window: u16,
    pub(crate) payload: &'a [u8],
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
    pub(crate) fn new(view: &TcpSegment<'a>, congestion_experienced: bool, piece_len: Option<usize>) -> Self {
        let payload = view.payload();
        Self {
            seq: view.seq(),
            ack: view.ack(),
            flags: view.flags(),
            window: view.window(),
            payload,
            options: Options::read(view),
            congestion_experienced,
            piece_len: piece_len.unwrap_or(payload.len()).max(1),
        }
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
    fn read(view: &TcpSegment<'a>) -> Self {
        let mut options = Self::default();
        if let timestamps @ Some(_) = view.options().aligned_timestamps() {
            options.timestamps = timestamps;
            return options;
        }
        // An option that cannot be read is passed over; one that is cut short ends the walk.
        for option in view.options().flatten() {
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
