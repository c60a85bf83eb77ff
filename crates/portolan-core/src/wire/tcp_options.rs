use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{EmitError, Layer, ParseError, SeqNum};

/// One option of a TCP header (RFC 9293, section 3.2; IANA, TCP Option Kind Numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TcpOption<'a> {
    /// Kind 1: a byte that aligns the next option.
    NoOperation,
    /// Kind 2: the largest segment the sender takes (RFC 6691); on a SYN only.
    MaximumSegmentSize(u16),
    /// Kind 3: by how many bits the sender's windows are shifted (RFC 7323, section 2); above 14 counts as 14.
    WindowScale(u8),
    /// Kind 4: selective acknowledgments are welcome (RFC 2018, section 2).
    SackPermitted,
    /// Kind 5: what was received out of order (RFC 2018, section 3); a first block at or below the
    /// acknowledgment number is a D-SACK (RFC 2883).
    Sack(&'a [SackBlock]),
    /// Kind 8: the sender's clock and the last one seen from the receiver (RFC 7323, section 3).
    Timestamps {
        /// TSval.
        value: u32,
        /// TSecr.
        echo_reply: u32,
    },
    /// Kind 19: a signature by MD5 (RFC 2385).
    Md5Signature(&'a [u8; 16]),
    /// Kind 28: how long data may stay unacknowledged (RFC 5482).
    UserTimeout {
        /// Whether `value` counts minutes, not seconds.
        minutes: bool,
        /// 0 to 32,767.
        value: u16,
    },
    /// Kind 29: authentication, TCP-AO (RFC 5925, section 2.2).
    Authentication {
        /// Which key made `mac`.
        key_id: u8,
        /// Which key the sender is ready to receive.
        receive_next_key_id: u8,
        /// The message authentication code.
        mac: &'a [u8],
    },
    /// Kind 30: Multipath TCP (RFC 8684), as it stands; its subtype is the first four bits.
    Multipath(&'a [u8]),
    /// Kind 34: a cookie of TCP Fast Open (RFC 7413); empty asks for one.
    FastOpenCookie(&'a [u8]),
    /// Any other kind.
    Unknown {
        /// The kind.
        kind: u8,
        /// What follows kind and length.
        data: &'a [u8],
    },
}

/// A range of received data: from `left` up to, and without, `right` (RFC 2018, section 3).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct SackBlock {
    left: U32,
    right: U32,
}

impl SackBlock {
    /// The range from `left` up to `right`.
    #[must_use]
    pub fn new(left: SeqNum, right: SeqNum) -> Self {
        Self {
            left: left.get().into(),
            right: right.get().into(),
        }
    }

    /// The first sequence number of the range.
    #[must_use]
    pub fn left(self) -> SeqNum {
        SeqNum::new(self.left.get())
    }

    /// The sequence number after the last of the range.
    #[must_use]
    pub fn right(self) -> SeqNum {
        SeqNum::new(self.right.get())
    }
}

const END_OF_LIST: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMPS: u8 = 8;
const MD5_SIGNATURE: u8 = 19;
const USER_TIMEOUT: u8 = 28;
const AUTHENTICATION: u8 = 29;
const MULTIPATH: u8 = 30;
const FAST_OPEN_COOKIE: u8 = 34;

impl<'a> TcpOption<'a> {
    /// The kind number.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::NoOperation => NO_OPERATION,
            Self::MaximumSegmentSize(_) => MAXIMUM_SEGMENT_SIZE,
            Self::WindowScale(_) => WINDOW_SCALE,
            Self::SackPermitted => SACK_PERMITTED,
            Self::Sack(_) => SACK,
            Self::Timestamps { .. } => TIMESTAMPS,
            Self::Md5Signature(_) => MD5_SIGNATURE,
            Self::UserTimeout { .. } => USER_TIMEOUT,
            Self::Authentication { .. } => AUTHENTICATION,
            Self::Multipath(_) => MULTIPATH,
            Self::FastOpenCookie(_) => FAST_OPEN_COOKIE,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// A short name in lower case: `mss`, `wscale`, `sack`, `timestamps`, …
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoOperation => "nop",
            Self::MaximumSegmentSize(_) => "mss",
            Self::WindowScale(_) => "wscale",
            Self::SackPermitted => "sack-permitted",
            Self::Sack(_) => "sack",
            Self::Timestamps { .. } => "timestamps",
            Self::Md5Signature(_) => "md5",
            Self::UserTimeout { .. } => "user-timeout",
            Self::Authentication { .. } => "tcp-ao",
            Self::Multipath(_) => "mptcp",
            Self::FastOpenCookie(_) => "fast-open",
            Self::Unknown { .. } => "unknown",
        }
    }

    /// How many bytes it takes in the header.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        match self {
            Self::NoOperation => 1,
            Self::SackPermitted => 2,
            Self::WindowScale(_) => 3,
            Self::MaximumSegmentSize(_) | Self::UserTimeout { .. } => 4,
            Self::Timestamps { .. } => 10,
            Self::Md5Signature(_) => 18,
            Self::Sack(blocks) => 2 + size_of_val(*blocks),
            Self::Authentication { mac, .. } => 4 + mac.len(),
            Self::Multipath(data) | Self::FastOpenCookie(data) | Self::Unknown { data, .. } => 2 + data.len(),
        }
    }

    /// The option of this kind with this data, or `None` if the kind cannot have data of that length.
    fn read(kind: u8, data: &'a [u8]) -> Option<Self> {
        Some(match (kind, data) {
            (MAXIMUM_SEGMENT_SIZE, &[high, low]) => Self::MaximumSegmentSize(u16::from_be_bytes([high, low])),
            (WINDOW_SCALE, &[shift]) => Self::WindowScale(shift),
            (SACK_PERMITTED, []) => Self::SackPermitted,
            (SACK, data) if !data.is_empty() => Self::Sack(<[SackBlock]>::ref_from_bytes(data).ok()?),
            (TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => Self::Timestamps {
                value: u32::from_be_bytes([a, b, c, d]),
                echo_reply: u32::from_be_bytes([e, f, g, h]),
            },
            (MD5_SIGNATURE, data) => Self::Md5Signature(data.try_into().ok()?),
            (USER_TIMEOUT, &[high, low]) => Self::UserTimeout {
                minutes: high & 0x80 != 0,
                value: u16::from_be_bytes([high & 0x7F, low]),
            },
            (AUTHENTICATION, &[key_id, receive_next_key_id, ref mac @ ..]) => Self::Authentication {
                key_id,
                receive_next_key_id,
                mac,
            },
            (MULTIPATH, data) if !data.is_empty() => Self::Multipath(data),
            // RFC 7413, section 4.1.1: 4 to 16 bytes, an even number of them, or none.
            (FAST_OPEN_COOKIE, data)
                if data.is_empty() || (4..=16).contains(&data.len()) && data.len() % 2 == 0 =>
            {
                Self::FastOpenCookie(data)
            }
            (
                MAXIMUM_SEGMENT_SIZE | WINDOW_SCALE | SACK_PERMITTED | SACK | TIMESTAMPS | USER_TIMEOUT
                | AUTHENTICATION | MULTIPATH | FAST_OPEN_COOKIE,
                _,
            ) => return None,
            (kind, data) => Self::Unknown { kind, data },
        })
    }

    /// Writes the option to `out`, which is as long as the option.
    fn write(&self, out: &mut [u8]) {
        let Some((kind, rest)) = out.split_first_mut() else {
            return;
        };
        *kind = self.kind();
        let Some((length, data)) = rest.split_first_mut() else {
            return;
        };
        // An option fits into 40 bytes, so its length fits into one.
        *length = self.len_bytes() as u8;
        match self {
            Self::NoOperation | Self::SackPermitted => {}
            Self::MaximumSegmentSize(size) => data.copy_from_slice(&size.to_be_bytes()),
            Self::WindowScale(shift) => data.copy_from_slice(&[*shift]),
            Self::Sack(blocks) => data.copy_from_slice(blocks.as_bytes()),
            Self::Timestamps { value, echo_reply } => {
                data[..4].copy_from_slice(&value.to_be_bytes());
                data[4..].copy_from_slice(&echo_reply.to_be_bytes());
            }
            Self::Md5Signature(digest) => data.copy_from_slice(*digest),
            Self::UserTimeout { minutes, value } => {
                let field = value & 0x7FFF | u16::from(*minutes) << 15;
                data.copy_from_slice(&field.to_be_bytes());
            }
            Self::Authentication {
                key_id,
                receive_next_key_id,
                mac,
            } => {
                data[..2].copy_from_slice(&[*key_id, *receive_next_key_id]);
                data[2..].copy_from_slice(mac);
            }
            Self::Multipath(raw) | Self::FastOpenCookie(raw) | Self::Unknown { data: raw, .. } => {
                data.copy_from_slice(raw);
            }
        }
    }
}

/// The options of a TCP header, one after another, up to the end-of-list.
///
/// A known kind with a length it cannot have gives an error and the walk goes on behind it; a length that
/// leaves the header ends the walk.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> TcpOptions<'a> {
    /// The options in `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// The bytes of all options, padding included.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the next option begins, counted from the first.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// The timestamps, read without a walk where they stand as most senders put them: alone, behind two
    /// no-operations (RFC 7323, appendix A).
    #[must_use]
    pub fn aligned_timestamps(&self) -> Option<(u32, u32)> {
        // Kinds and length in one comparison.
        const KINDS: [u8; 4] = [NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10];
        let &[i, j, k, l, a, b, c, d, e, f, g, h] = self.bytes else {
            return None;
        };
        let is_aligned = u32::from_ne_bytes([i, j, k, l]) == u32::from_ne_bytes(KINDS);
        is_aligned.then(|| (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])))
    }
}

impl<'a> Iterator for TcpOptions<'a> {
    type Item = Result<TcpOption<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.bytes.get(offset..)?;
        let kind = match *rest.first()? {
            END_OF_LIST => {
                self.offset = self.bytes.len();
                return None;
            }
            NO_OPERATION => {
                self.offset += 1;
                return Some(Ok(TcpOption::NoOperation));
            }
            kind => kind,
        };
        let layer = Layer::TcpOption;
        let available = rest.len();
        let got = rest.get(1).copied().unwrap_or(2);
        let fault = if got < 2 {
            ParseError::OptionLength {
                layer,
                kind,
                offset,
                got,
            }
        } else if let Some(data) = rest.get(2..usize::from(got)) {
            self.offset += usize::from(got);
            let option = TcpOption::read(kind, data);
            return Some(option.ok_or(ParseError::OptionSize {
                layer,
                kind,
                offset,
                got,
            }));
        } else {
            let needed = usize::from(got);
            ParseError::OptionTruncated {
                layer,
                kind,
                offset,
                needed,
                available,
            }
        };
        self.offset = self.bytes.len();
        Some(Err(fault))
    }
}

/// The options of a TCP header in the making: at most 40 bytes, held in place.
///
/// ```
/// use portolan_core::wire::{TcpOption, TcpOptionBlock, TcpOptions};
///
/// let mut block = TcpOptionBlock::new();
/// block.push(TcpOption::MaximumSegmentSize(1460))?;
/// block.push(TcpOption::WindowScale(7))?;
/// assert_eq!(block.as_bytes(), [2, 4, 0x05, 0xB4, 3, 3, 7, 0]);
/// assert_eq!(TcpOptions::new(block.as_bytes()).count(), 2);
/// # Ok::<(), portolan_core::wire::EmitError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpOptionBlock {
    /// Zero, which is end-of-list, behind `len`.
    bytes: Padded,
    len: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Padded([u8; TcpOptionBlock::CAPACITY]);

impl Default for Padded {
    fn default() -> Self {
        Self([0; TcpOptionBlock::CAPACITY])
    }
}

impl TcpOptionBlock {
    /// The most that fits behind a TCP header.
    pub const CAPACITY: usize = 40;

    /// No options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Options that were written elsewhere, padding included.
    ///
    /// # Panics
    /// At compile time, if there are more bytes than fit.
    #[must_use]
    #[inline]
    pub fn from_array<const LEN: usize>(options: [u8; LEN]) -> Self {
        const { assert!(LEN <= Self::CAPACITY) };
        let mut bytes = Padded::default();
        bytes.0[..LEN].copy_from_slice(&options);
        Self {
            bytes,
            len: LEN as u8,
        }
    }

    /// Timestamps as most senders put them, and [`TcpOptions::aligned_timestamps`] reads them: alone, behind two
    /// no-operations (RFC 7323, appendix A).
    #[must_use]
    #[inline]
    pub fn aligned_timestamps(value: u32, echo_reply: u32) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (value.to_be_bytes(), echo_reply.to_be_bytes());
        Self::from_array([NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10, a, b, c, d, e, f, g, h])
    }

    /// Adds an option behind the others.
    ///
    /// # Errors
    /// [`EmitError::OptionsLength`] if it does not fit any more; the block stays as it was.
    pub fn push(&mut self, option: TcpOption<'_>) -> Result<(), EmitError> {
        let start = usize::from(self.len);
        let end = start.saturating_add(option.len_bytes());
        let out = self.bytes.0.get_mut(start..end).ok_or(EmitError::OptionsLength {
            layer: Layer::Tcp,
            multiple: 4,
            maximum: Self::CAPACITY,
            got: end,
        })?;
        option.write(out);
        self.len = end as u8;
        Ok(())
    }

    /// The options, padded with end-of-list to a multiple of 4 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes.0[..usize::from(self.len).next_multiple_of(4)]
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        Self::CAPACITY - usize::from(self.len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// An option of each kind, made from random numbers and bytes that outlive it.
    fn option<'a>(
        choice: u8,
        a: u32,
        b: u32,
        bytes: &'a [u8; 16],
        blocks: &'a [SackBlock; 4],
    ) -> TcpOption<'a> {
        let some = &bytes[..1 + a as usize % 8];
        match choice % 12 {
            0 => TcpOption::NoOperation,
            1 => TcpOption::MaximumSegmentSize(a as u16),
            2 => TcpOption::WindowScale(a as u8),
            3 => TcpOption::SackPermitted,
            4 => TcpOption::Sack(&blocks[..1 + a as usize % 4]),
            5 => TcpOption::Timestamps {
                value: a,
                echo_reply: b,
            },
            6 => TcpOption::Md5Signature(bytes),
            7 => TcpOption::UserTimeout {
                minutes: a.is_multiple_of(2),
                value: b as u16 & 0x7FFF,
            },
            8 => TcpOption::Authentication {
                key_id: a as u8,
                receive_next_key_id: b as u8,
                mac: some,
            },
            9 => TcpOption::Multipath(some),
            10 => TcpOption::FastOpenCookie(&bytes[..(a as usize % 7 + 2) * 2 % 17]),
            _ => TcpOption::Unknown {
                kind: 100 + a as u8 % 100,
                data: some,
            },
        }
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses_back(
            choices in vec((any::<u8>(), any::<u32>(), any::<u32>()), 0..10), bytes: [u8; 16], edges: [(u32, u32); 4]
        ) {
            let blocks = edges.map(|(left, right)| SackBlock::new(SeqNum::new(left), SeqNum::new(right)));
            let mut block = TcpOptionBlock::new();
            let mut kept = Vec::new();
            for (choice, a, b) in choices {
                let option = option(choice, a, b, &bytes, &blocks);
                let room = block.remaining();
                prop_assert_eq!(block.push(option).is_ok(), option.len_bytes() <= room);
                if option.len_bytes() <= room {
                    kept.push(option);
                }
            }
            let parsed = TcpOptions::new(block.as_bytes()).collect::<Result<Vec<_>, _>>();
            prop_assert_eq!(parsed, Ok(kept));
            prop_assert_eq!(block.as_bytes().len() % 4, 0);
        }

        #[test]
        fn the_walk_ends_and_stays_inside(bytes in vec(prop_oneof![0u8..10, any::<u8>()], 0..=40)) {
            let mut walk = TcpOptions::new(&bytes);
            let mut steps = 0;
            while let Some(option) = walk.next() {
                steps += 1;
                prop_assert!(steps <= 40 && walk.offset() <= bytes.len());
                if let Ok(option) = option {
                    let mut block = TcpOptionBlock::new();
                    block.push(option).unwrap();
                    let start = walk.offset() - option.len_bytes();
                    prop_assert_eq!(&block.as_bytes()[..option.len_bytes()], &bytes[start..walk.offset()]);
                }
            }
        }
    }

    #[test]
    fn aligned_timestamps_are_written_as_they_are_read() {
        let block = TcpOptionBlock::aligned_timestamps(0x0102_0304, 0x0506_0708);
        let read = TcpOptions::new(block.as_bytes()).aligned_timestamps();
        assert_eq!(read, Some((0x0102_0304, 0x0506_0708)));
        let mut pushed = TcpOptionBlock::new();
        for option in TcpOptions::new(block.as_bytes()).flatten() {
            pushed.push(option).unwrap();
        }
        assert_eq!(pushed, block);
        assert_eq!(TcpOptionBlock::from_array([4, 2]).as_bytes(), [4, 2, 0, 0]);
    }

    #[test]
    fn a_wrong_size_is_passed_over_and_a_wrong_length_ends_the_walk() {
        let layer = Layer::TcpOption;
        let walk = |bytes| TcpOptions::new(bytes).collect::<Vec<_>>();
        assert_eq!(
            walk(&[2, 3, 9, 3, 3, 7]),
            [
                Err(ParseError::OptionSize {
                    layer,
                    kind: 2,
                    offset: 0,
                    got: 3
                }),
                Ok(TcpOption::WindowScale(7))
            ]
        );
        assert_eq!(
            walk(&[1, 8, 0, 1]),
            [
                Ok(TcpOption::NoOperation),
                Err(ParseError::OptionLength {
                    layer,
                    kind: 8,
                    offset: 1,
                    got: 0
                })
            ]
        );
        assert_eq!(
            walk(&[8, 10, 0, 1]),
            [Err(ParseError::OptionTruncated {
                layer,
                kind: 8,
                offset: 0,
                needed: 10,
                available: 4
            })]
        );
        assert_eq!(
            walk(&[4]),
            [Err(ParseError::OptionTruncated {
                layer,
                kind: 4,
                offset: 0,
                needed: 2,
                available: 1
            })]
        );
        assert_eq!(
            walk(&[5, 2]),
            [Err(ParseError::OptionSize {
                layer,
                kind: 5,
                offset: 0,
                got: 2
            })]
        );
    }

    #[test]
    fn timestamps_as_linux_sends_them_are_read_at_once() {
        let mut block = TcpOptionBlock::new();
        for option in [
            TcpOption::NoOperation,
            TcpOption::NoOperation,
            TcpOption::Timestamps {
                value: 1,
                echo_reply: 2,
            },
        ] {
            block.push(option).unwrap();
        }
        assert_eq!(
            TcpOptions::new(block.as_bytes()).aligned_timestamps(),
            Some((1, 2))
        );
        assert_eq!(TcpOptions::new(&[1, 1, 4, 2]).aligned_timestamps(), None);
    }
}
