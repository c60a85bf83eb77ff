use std::io::{self, Read};

use pcap_parser::pcapng::Block;
use pcap_parser::{PcapHeader, parse_block_be, parse_block_le, parse_pcap_header};
use thiserror::Error;

/// Reads a pcap or pcapng file packet by packet.
///
/// Both byte orders, microseconds and nanoseconds, and several interfaces and sections are read. A block
/// without a packet is passed over; one that is damaged is counted and passed over if its length can be
/// believed. Memory: one record of at most [`CaptureReader::MAX_RECORD`] bytes.
#[derive(Debug)]
pub struct CaptureReader<R> {
    reader: R,
    buffer: Vec<u8>,
    /// The part of the buffer not yet consumed.
    start: usize,
    end: usize,
    /// Where `start` lies in the file.
    offset: u64,
    /// The length of the record given out last, to be consumed at the next call.
    pending: usize,
    format: Format,
    frames: u64,
    damaged: u64,
    finished: bool,
}

/// One captured packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its place in the capture, from 1.
    pub number: u64,
    /// When it was captured, in nanoseconds since 1970, if the file says so.
    pub time: Option<i128>,
    /// The `LINKTYPE_*` number of the interface it was captured on.
    pub link: u32,
    /// The interface, counted from 0 in its section.
    pub interface: u32,
    /// How long it was; more than there are bytes if it was cut.
    pub original_len: u32,
    /// What was captured of it.
    pub bytes: &'a [u8],
}

/// Why a capture cannot be read, or not any further. Offsets count bytes from the start of the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The file begins with neither a pcap nor a pcapng header.
    #[error("not a capture: it begins like neither pcap nor pcapng")]
    NotACapture,
    /// The file ends inside a header or a packet.
    #[error("the capture ends inside a record at {offset}: {needed} bytes needed, {available} present")]
    Truncated {
        /// Where the record begins.
        offset: u64,
        /// How long it is.
        needed: usize,
        /// How much of it there is.
        available: usize,
    },
    /// A record claims to be longer than any packet is.
    #[error("the record at {offset} claims {length} bytes, more than {maximum}")]
    TooLong {
        /// Where it begins.
        offset: u64,
        /// What it claims.
        length: u64,
        /// The most that is accepted.
        maximum: usize,
    },
    /// A block's length is impossible, so that where the next begins is unknown.
    #[error("the block at {offset} is damaged: its length is {length}")]
    Damaged {
        /// Where it begins.
        offset: u64,
        /// What it claims.
        length: u64,
    },
    /// A section describes more interfaces than are kept.
    #[error("the section at {offset} describes more than {maximum} interfaces")]
    TooManyInterfaces {
        /// Where the first one too many is described.
        offset: u64,
        /// How many are kept.
        maximum: usize,
    },
    /// Reading failed.
    #[error("reading failed at {offset}")]
    Read {
        /// How far reading came.
        offset: u64,
        /// Why it failed.
        source: io::Error,
    },
}

#[derive(Debug)]
enum Format {
    Pcap {
        big_endian: bool,
        header_len: usize,
        /// Nanoseconds in one unit of the fraction.
        unit: i128,
        link: u32,
    },
    PcapNg {
        big_endian: bool,
        interfaces: Vec<Interface>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: u32,
    snap_len: u32,
    /// `if_tsresol`: with the high bit a power of 2, without it one of 10.
    resolution: u8,
    /// Seconds to add.
    offset: i64,
}

/// Whether a file with these first bytes is a capture.
#[must_use]
pub fn is_capture(start: &[u8]) -> bool {
    start.first_chunk().is_some_and(|magic: &[u8; 4]| {
        PCAP_MAGICS.contains(&u32::from_le_bytes(*magic)) || *magic == SECTION_HEADER
    })
}

/// The numbers a pcap file begins with, in either byte order: microseconds, nanoseconds, and the layout of
/// an old modified libpcap.
const PCAP_MAGICS: [u32; 5] = [0xA1B2_C3D4, 0xD4C3_B2A1, 0xA1B2_3C4D, 0x4D3C_B2A1, 0xA1B2_CD34];
/// The type of a pcapng section header, which reads the same in both byte orders.
const SECTION_HEADER: [u8; 4] = [0x0A, 0x0D, 0x0D, 0x0A];
const MAX_INTERFACES: usize = 65_536;
const CHUNK: usize = 64 << 10;

impl<R: Read> CaptureReader<R> {
    /// The longest record that is accepted: far above any packet, far below any memory.
    pub const MAX_RECORD: usize = 16 << 20;

    /// Reads the header of a capture.
    ///
    /// # Errors
    /// [`CaptureError::NotACapture`], [`CaptureError::Truncated`], [`CaptureError::Read`].
    pub fn new(reader: R) -> Result<Self, CaptureError> {
        let mut capture = Self {
            reader,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            offset: 0,
            pending: 0,
            format: Format::PcapNg {
                big_endian: false,
                interfaces: Vec::new(),
            },
            frames: 0,
            damaged: 0,
            finished: false,
        };
        if capture.fill(4)? < 4 || !is_capture(capture.data()) {
            return Err(CaptureError::NotACapture);
        }
        if capture.data()[..4] != SECTION_HEADER {
            capture.need(PCAP_HEADER_LEN)?;
            let (_, header) = parse_pcap_header(capture.data()).map_err(|_| CaptureError::NotACapture)?;
            capture.format = Format::of_pcap(&header);
            capture.consume(PCAP_HEADER_LEN);
        }
        Ok(capture)
    }

    /// The next packet, or `None` at the end.
    ///
    /// # Errors
    /// Any [`CaptureError`]; after one there is nothing more.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        let consumed = std::mem::take(&mut self.pending);
        self.consume(consumed);
        if self.finished {
            return Ok(None);
        }
        let found = match self.format {
            Format::Pcap { .. } => self.next_record(),
            Format::PcapNg { .. } => self.next_packet_block(),
        };
        match found {
            Ok(Some(place)) => {
                self.pending = place.record_len;
                self.frames += 1;
                Ok(Some(Frame {
                    number: self.frames,
                    time: place.time,
                    link: place.link,
                    interface: place.interface,
                    original_len: place.original_len,
                    bytes: &self.buffer[self.start + place.data_start..][..place.data_len],
                }))
            }
            Ok(None) => {
                self.finished = true;
                Ok(None)
            }
            Err(error) => {
                self.finished = true;
                Err(error)
            }
        }
    }

    /// Whether all that was read so far has been given out, so that the next packet has to be waited for. Who
    /// shows packets as they come shows them before waiting.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.end - self.start == self.pending
    }

    /// How many damaged blocks were passed over.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    fn next_record(&mut self) -> Result<Option<Place>, CaptureError> {
        let Format::Pcap {
            big_endian,
            header_len,
            unit,
            link,
        } = self.format
        else {
            return Ok(None);
        };
        if self.fill(header_len)? == 0 {
            return Ok(None);
        }
        self.need(header_len)?;
        let word = |at| read_u32(self.data(), at, big_endian);
        let time = i128::from(word(0)) * 1_000_000_000 + i128::from(word(4)) * unit;
        let (captured, original_len) = (word(8), word(12));
        let record_len = self.accept(u64::from(captured) + header_len as u64)?;
        self.need(record_len)?;
        Ok(Some(Place {
            record_len,
            data_start: header_len,
            data_len: record_len - header_len,
            time: Some(time),
            link,
            interface: 0,
            original_len,
        }))
    }

    fn next_packet_block(&mut self) -> Result<Option<Place>, CaptureError> {
        loop {
            if self.fill(BLOCK_MIN)? == 0 {
                return Ok(None);
            }
            self.need(BLOCK_MIN)?;
            let Format::PcapNg { big_endian, .. } = &mut self.format else {
                return Ok(None);
            };
            let data = &self.buffer[self.start..self.end];
            if data[..4] == SECTION_HEADER {
                // The byte order of the section decides how even its own header's length is read.
                *big_endian = data[8..12] == [0x1A, 0x2B, 0x3C, 0x4D];
            }
            let big_endian = *big_endian;
            let length = u64::from(read_u32(data, 4, big_endian));
            if length < BLOCK_MIN as u64 || length % 4 != 0 {
                return Err(CaptureError::Damaged {
                    offset: self.offset,
                    length,
                });
            }
            let len = self.accept(length)?;
            self.need(len)?;
            match self.read_block(len, big_endian)? {
                Some(place) => return Ok(Some(place)),
                None => self.consume(len),
            }
        }
    }

    /// Takes in the block of `len` bytes that comes next; gives its place if it holds a packet.
    fn read_block(&mut self, len: usize, big_endian: bool) -> Result<Option<Place>, CaptureError> {
        let Format::PcapNg { interfaces, .. } = &mut self.format else {
            return Ok(None);
        };
        let data = &self.buffer[self.start..self.start + len];
        let parsed = if big_endian {
            parse_block_be(data)
        } else {
            parse_block_le(data)
        };
        match parsed {
            Ok((_, Block::SectionHeader(_))) => interfaces.clear(),
            Ok((_, Block::InterfaceDescription(block))) => {
                if interfaces.len() == MAX_INTERFACES {
                    return Err(CaptureError::TooManyInterfaces {
                        offset: self.offset,
                        maximum: MAX_INTERFACES,
                    });
                }
                interfaces.push(Interface {
                    link: block.linktype.0.cast_unsigned(),
                    snap_len: block.snaplen,
                    resolution: block.if_tsresol,
                    offset: block.if_tsoffset,
                });
            }
            Ok((_, Block::EnhancedPacket(block))) => {
                let interface = interfaces.get(block.if_id as usize);
                let data_len = block.caplen as usize;
                let (Some(interface), true) = (interface, 32 + data_len <= len) else {
                    self.damaged += 1;
                    return Ok(None);
                };
                let units = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
                return Ok(Some(Place {
                    record_len: len,
                    data_start: 28,
                    data_len,
                    time: interface.time(units),
                    link: interface.link,
                    interface: block.if_id,
                    original_len: block.origlen,
                }));
            }
            Ok((_, Block::SimplePacket(block))) => {
                let Some(interface) = interfaces.first() else {
                    self.damaged += 1;
                    return Ok(None);
                };
                let snap_len = if interface.snap_len == 0 {
                    u32::MAX
                } else {
                    interface.snap_len
                };
                return Ok(Some(Place {
                    record_len: len,
                    data_start: 12,
                    data_len: (block.origlen.min(snap_len) as usize).min(len - 16),
                    time: None,
                    link: interface.link,
                    interface: 0,
                    original_len: block.origlen,
                }));
            }
            // Names, statistics, secrets and what is not known: no packets.
            Ok(_) => {}
            Err(_) => self.damaged += 1,
        }
        Ok(None)
    }

    fn accept(&self, length: u64) -> Result<usize, CaptureError> {
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= Self::MAX_RECORD)
            .ok_or(CaptureError::TooLong {
                offset: self.offset,
                length,
                maximum: Self::MAX_RECORD,
            })
    }

    fn data(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn consume(&mut self, len: usize) {
        self.start += len;
        self.offset += len as u64;
    }

    fn need(&mut self, needed: usize) -> Result<(), CaptureError> {
        let available = self.fill(needed)?;
        if available < needed {
            return Err(CaptureError::Truncated {
                offset: self.offset,
                needed,
                available,
            });
        }
        Ok(())
    }

    /// Reads until `needed` bytes are there or the file ends; gives how many are there.
    fn fill(&mut self, needed: usize) -> Result<usize, CaptureError> {
        while self.end - self.start < needed {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            if self.buffer.len() < self.end + CHUNK {
                self.buffer.resize(self.end + CHUNK, 0);
            }
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset + (self.end - self.start) as u64;
                    return Err(CaptureError::Read { offset, source });
                }
            }
        }
        Ok(self.end - self.start)
    }
}

const PCAP_HEADER_LEN: usize = 24;
const BLOCK_MIN: usize = 12;

/// Where a packet lies in the buffer, counted from the record's start.
struct Place {
    record_len: usize,
    data_start: usize,
    data_len: usize,
    time: Option<i128>,
    link: u32,
    interface: u32,
    original_len: u32,
}

impl Format {
    fn of_pcap(header: &PcapHeader) -> Self {
        Self::Pcap {
            big_endian: header.is_bigendian(),
            header_len: if header.is_modified_format() { 24 } else { 16 },
            unit: if header.is_nanosecond_precision() { 1 } else { 1000 },
            // The upper bits tell about frame check sequences, not about the type.
            link: header.network.0.cast_unsigned() & 0x0FFF_FFFF,
        }
    }
}

impl Interface {
    /// Nanoseconds since 1970 for a timestamp of `units`; `None` if the resolution is beyond reason.
    fn time(self, units: u64) -> Option<i128> {
        let per_second = match self.resolution {
            power @ 0..=0x7F => 10u128.checked_pow(u32::from(power))?,
            power => 1u128.checked_shl(u32::from(power & 0x7F))?,
        };
        let nanoseconds = u128::from(units) * 1_000_000_000 / per_second;
        Some(nanoseconds.cast_signed() + i128::from(self.offset) * 1_000_000_000)
    }
}

fn read_u32(data: &[u8], at: usize, big_endian: bool) -> u32 {
    let word = data
        .get(at..at + 4)
        .and_then(|word| word.try_into().ok())
        .unwrap_or([0; 4]);
    if big_endian {
        u32::from_be_bytes(word)
    } else {
        u32::from_le_bytes(word)
    }
}

#[cfg(test)]
mod tests;
