use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

/// Which way a packet went, as the interface on which it was captured saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// It was received.
    In,
    /// It was sent.
    Out,
}

/// The interface of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureInterface<'a> {
    /// Its name; none if empty.
    pub name: &'a str,
    /// What it is, for people; none if empty.
    pub description: &'a str,
    /// Its addresses, with the lengths of their prefixes in bits.
    pub addresses: &'a [(IpAddr, u8)],
}

/// A packet to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedPacket<'a> {
    /// When it was seen, since 1970 began. Nanoseconds are kept, until the year 2554.
    pub time: Duration,
    /// Which way it went.
    pub direction: Direction,
    /// How many packets before it, since the last one that was written, are missing.
    pub missing: u64,
    /// A remark, for people; none if empty.
    pub comment: &'a str,
    /// The packet from its IP header on, whole.
    pub bytes: &'a [u8],
}

/// Writes a capture of IP packets in the format of pcapng (draft-ietf-opsawg-pcapng), which tcpdump and Wireshark read:
/// one section, one interface. Each block is one write.
#[derive(Debug)]
pub struct CaptureWriter<W> {
    sink: W,
    /// A block, put together before it is written.
    block: Vec<u8>,
}

/// IP packets without a header of a link before them.
const LINKTYPE_RAW: u16 = 101;
/// Says in which order the bytes of numbers stand: here in that of little-endian machines.
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const NAME_RESOLUTION: u32 = 4;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_IPV4: u16 = 4;
const IF_IPV6: u16 = 5;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const EPB_DROPCOUNT: u16 = 4;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;
const NRB_IPV4: u16 = 1;
const NRB_IPV6: u16 = 2;
/// Texts are cut at so many bytes.
const TEXT_MAX: usize = 1024;

impl<W: Write> CaptureWriter<W> {
    /// Begins a capture of this interface.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn new(sink: W, interface: &CaptureInterface<'_>) -> io::Result<Self> {
        let mut writer = Self::resume(sink);
        writer.write(SECTION_HEADER, |block| {
            block.extend_from_slice(&BYTE_ORDER.to_le_bytes());
            // Version 1.0, of unknown length.
            block.extend_from_slice(&1u16.to_le_bytes());
            block.extend_from_slice(&0u16.to_le_bytes());
            block.extend_from_slice(&u64::MAX.to_le_bytes());
            text(block, SHB_USERAPPL, "portolan");
            option(block, END_OF_OPTIONS, &[]);
        })?;
        writer.write(INTERFACE_DESCRIPTION, |block| {
            block.extend_from_slice(&LINKTYPE_RAW.to_le_bytes());
            block.extend_from_slice(&[0; 2]);
            // Packets are whole.
            block.extend_from_slice(&0u32.to_le_bytes());
            text(block, IF_NAME, interface.name);
            text(block, IF_DESCRIPTION, interface.description);
            for &(address, prefix_bits) in interface.addresses {
                match address {
                    IpAddr::V4(address) => {
                        let prefix_bits = u32::from(prefix_bits.min(32));
                        let mask = u32::MAX.checked_shl(32 - prefix_bits).unwrap_or(0);
                        option(block, IF_IPV4, &[address.octets(), mask.to_be_bytes()].concat());
                    }
                    IpAddr::V6(address) => {
                        option(
                            block,
                            IF_IPV6,
                            &[&address.octets()[..], &[prefix_bits.min(128)]].concat(),
                        );
                    }
                }
            }
            // Times count nanoseconds.
            option(block, IF_TSRESOL, &[9]);
            option(block, END_OF_OPTIONS, &[]);
        })?;
        Ok(writer)
    }

    /// Goes on with a capture that [`CaptureWriter::new`] began.
    pub const fn resume(sink: W) -> Self {
        Self {
            sink,
            block: Vec::new(),
        }
    }

    /// Says what these addresses are called.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn names(&mut self, names: &[(IpAddr, &str)]) -> io::Result<()> {
        self.write(NAME_RESOLUTION, |block| {
            for (address, name) in names {
                let name = cut(name).as_bytes();
                let (code, octets): (u16, &[u8]) = match address {
                    IpAddr::V4(address) => (NRB_IPV4, &address.octets()),
                    IpAddr::V6(address) => (NRB_IPV6, &address.octets()),
                };
                option(block, code, &[octets, name, &[0]].concat());
            }
            // The end of the records, and no options.
            option(block, END_OF_OPTIONS, &[]);
        })
    }

    /// Writes a packet.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn packet(&mut self, packet: &CapturedPacket<'_>) -> io::Result<()> {
        let flags: u32 = match packet.direction {
            Direction::In => 1,
            Direction::Out => 2,
        };
        self.write(ENHANCED_PACKET, |block| {
            block.extend_from_slice(&0u32.to_le_bytes());
            block.extend_from_slice(&halves(packet.time));
            // The longest IP packets are far below.
            let len = (packet.bytes.len() as u32).to_le_bytes();
            block.extend_from_slice(&len);
            block.extend_from_slice(&len);
            padded(block, packet.bytes);
            text(block, COMMENT, packet.comment);
            option(block, EPB_FLAGS, &flags.to_le_bytes());
            if packet.missing > 0 {
                option(block, EPB_DROPCOUNT, &packet.missing.to_le_bytes());
            }
            option(block, END_OF_OPTIONS, &[]);
        })
    }

    /// Says how many packets there were up to `time`, and how many of them are missing.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn statistics(&mut self, time: Duration, packets: u64, missing: u64) -> io::Result<()> {
        self.write(INTERFACE_STATISTICS, |block| {
            block.extend_from_slice(&0u32.to_le_bytes());
            block.extend_from_slice(&halves(time));
            option(block, ISB_IFRECV, &packets.to_le_bytes());
            option(block, ISB_IFDROP, &missing.to_le_bytes());
            option(block, END_OF_OPTIONS, &[]);
        })
    }

    /// Sees to it that the sink has written everything.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    /// What it writes to.
    pub const fn sink(&mut self) -> &mut W {
        &mut self.sink
    }

    fn write(&mut self, kind: u32, body: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.block.clear();
        self.block.extend_from_slice(&kind.to_le_bytes());
        self.block.extend_from_slice(&[0; 4]);
        body(&mut self.block);
        let len = (self.block.len() as u32 + 4).to_le_bytes();
        self.block.extend_from_slice(&len);
        self.block[4..8].copy_from_slice(&len);
        self.sink.write_all(&self.block)
    }
}

/// A time in nanoseconds, as two words, the higher one first on any machine.
fn halves(time: Duration) -> [u8; 8] {
    let nanos = time.as_nanos() as u64;
    let mut halves = [0; 8];
    halves[..4].copy_from_slice(&((nanos >> 32) as u32).to_le_bytes());
    halves[4..].copy_from_slice(&(nanos as u32).to_le_bytes());
    halves
}

/// An option that is a text, if there is one.
fn text(block: &mut Vec<u8>, code: u16, text: &str) {
    if !text.is_empty() {
        option(block, code, cut(text).as_bytes());
    }
}

/// The beginning of a text, up to a whole character.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    block.extend_from_slice(&code.to_le_bytes());
    block.extend_from_slice(&(value.len() as u16).to_le_bytes());
    padded(block, value);
}

/// Bytes, and zeros up to the next multiple of four.
fn padded(block: &mut Vec<u8>, bytes: &[u8]) {
    block.extend_from_slice(bytes);
    block.resize(block.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use pcap_parser::parse_block_le;
    use pcap_parser::pcapng::{Block, OptionCode, PcapNGOption};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::CaptureReader;

    fn written(packets: &[CapturedPacket<'_>]) -> Vec<u8> {
        let interface = CaptureInterface {
            name: "eth0",
            description: "space web",
            addresses: &[([10, 0, 0, 2].into(), 24), ("fd00::2".parse().unwrap(), 64)],
        };
        let mut writer = CaptureWriter::new(Vec::new(), &interface).unwrap();
        writer.names(&[([10, 0, 0, 1].into(), "gateway")]).unwrap();
        for packet in packets {
            writer.packet(packet).unwrap();
        }
        let mut writer = CaptureWriter::resume(std::mem::take(writer.sink()));
        writer.statistics(Duration::from_secs(9), 5, 2).unwrap();
        std::mem::take(writer.sink())
    }

    fn blocks(mut bytes: &[u8]) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let (rest, block) = parse_block_le(bytes).unwrap();
            blocks.push(block);
            bytes = rest;
        }
        blocks
    }

    fn value<'a>(options: &'a [PcapNGOption<'_>], code: u16) -> Option<&'a [u8]> {
        let option = options.iter().find(|option| option.code == OptionCode(code))?;
        Some(&option.value[..usize::from(option.len)])
    }

    #[test]
    fn blocks_hold_what_was_said() {
        let packet = CapturedPacket {
            time: Duration::new(1_700_000_000, 123_456_789),
            direction: Direction::Out,
            missing: 7,
            comment: "curl (pid 3)",
            bytes: &[0x45; 21],
        };
        let plain = CapturedPacket {
            direction: Direction::In,
            missing: 0,
            comment: "",
            ..packet
        };
        let bytes = written(&[packet, plain]);
        let blocks = blocks(&bytes);
        let [
            Block::SectionHeader(section),
            Block::InterfaceDescription(interface),
            Block::NameResolution(names),
            Block::EnhancedPacket(first),
            Block::EnhancedPacket(second),
            Block::InterfaceStatistics(statistics),
        ] = &blocks[..]
        else {
            panic!("{blocks:?}");
        };
        assert_eq!(value(&section.options, SHB_USERAPPL).unwrap(), b"portolan");
        assert_eq!(value(&interface.options, IF_NAME).unwrap(), b"eth0");
        assert_eq!(value(&interface.options, IF_DESCRIPTION).unwrap(), b"space web");
        assert_eq!(
            value(&interface.options, IF_IPV4).unwrap(),
            [10, 0, 0, 2, 255, 255, 255, 0]
        );
        assert_eq!(value(&interface.options, IF_IPV6).unwrap()[16], 64);
        assert_eq!(interface.if_tsresol, 9);
        assert_eq!(names.nr[0].record_value, b"\x0a\0\0\x01gateway\0");
        assert_eq!((first.caplen, first.origlen), (21, 21));
        assert_eq!(value(&first.options, COMMENT).unwrap(), b"curl (pid 3)");
        assert_eq!(value(&first.options, EPB_FLAGS).unwrap(), [2, 0, 0, 0]);
        assert_eq!(value(&first.options, EPB_DROPCOUNT).unwrap(), 7u64.to_le_bytes());
        assert_eq!(value(&second.options, EPB_FLAGS).unwrap(), [1, 0, 0, 0]);
        assert!(value(&second.options, COMMENT).is_none() && value(&second.options, EPB_DROPCOUNT).is_none());
        assert_eq!(
            value(&statistics.options, ISB_IFRECV).unwrap(),
            5u64.to_le_bytes()
        );
        assert_eq!(
            value(&statistics.options, ISB_IFDROP).unwrap(),
            2u64.to_le_bytes()
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            packets in vec((any::<u32>(), 0u32..1_000_000_000, any::<bool>(), ".{0,600}", vec(any::<u8>(), 0..300)), 0..20)
        ) {
            let packets: Vec<_> = packets.iter().map(|(secs, nanos, is_in, comment, bytes)| CapturedPacket {
                time: Duration::new(u64::from(*secs), *nanos),
                direction: if *is_in { Direction::In } else { Direction::Out },
                missing: 0,
                comment,
                bytes,
            }).collect();
            let bytes = written(&packets);
            let mut reader = CaptureReader::new(&bytes[..]).unwrap();
            for packet in &packets {
                let frame = reader.next_frame().unwrap().unwrap();
                prop_assert_eq!(frame.bytes, packet.bytes);
                prop_assert_eq!(frame.time, Some(packet.time.as_nanos() as i128));
                prop_assert_eq!(frame.link, u32::from(LINKTYPE_RAW));
                prop_assert_eq!(frame.original_len as usize, packet.bytes.len());
            }
            prop_assert!(reader.next_frame().unwrap().is_none());
            prop_assert_eq!(reader.damaged(), 0);
        }
    }
}
