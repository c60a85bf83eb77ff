//! Clients without number: each packet of theirs is worked out from its connection's number, or from the packet that
//! it answers. What they cannot work out is the stack's initial sequence number, which is kept.

use std::net::{Ipv4Addr, SocketAddrV4};

use portolan_core::Port;
use portolan_core::wire::{
    ChecksumFill, IpProtocol, Ipv4Packet, Ipv4Repr, PseudoHeader, SeqNum, TcpFlags, TcpOption,
    TcpOptionBlock, TcpRepr, TcpSegment,
};
use portolan_stack::{Instant, Offload, Packet, Stack};

/// Connections of one client address: ports from [`FIRST_PORT`] up.
const PORTS: u32 = 50_000;
const FIRST_PORT: u32 = 10_000;
/// The first client address, 10.64.0.0.
const FIRST_ADDRESS: u32 = 10 << 24 | 64 << 16;

/// The largest packet that clients send: headers, options, and a few bytes.
const MAX_PACKET: usize = 128;
/// How many packets of theirs come at once.
const BATCH: usize = 32;

/// The clients of one server.
pub(crate) struct Clients {
    server: SocketAddrV4,
    /// The stack's initial sequence number of each connection, once it was heard.
    server_iss: Vec<u32>,
    /// Packets that are on their way to the stack, and their lengths.
    packets: Box<[[u8; MAX_PACKET]; BATCH]>,
    lens: [usize; BATCH],
    count: usize,
}

/// What a client says.
#[derive(Clone, Copy)]
struct Words<'a> {
    seq: SeqNum,
    ack: SeqNum,
    flags: TcpFlags,
    options: &'a TcpOptionBlock,
    data: &'a [u8],
}

impl Clients {
    /// `count` clients of `server`.
    pub(crate) fn new(server: SocketAddrV4, count: usize) -> Self {
        Self {
            server,
            server_iss: vec![0; count],
            packets: Box::new([[0; MAX_PACKET]; BATCH]),
            lens: [0; BATCH],
            count: 0,
        }
    }

    /// Sends the SYN of a connection, with the options of Linux.
    pub(crate) fn send_syn(&mut self, stack: &mut Stack, now: Instant, number: u32) {
        let mut options = TcpOptionBlock::new();
        for option in [
            TcpOption::MaximumSegmentSize(1460),
            TcpOption::SackPermitted,
            TcpOption::Timestamps {
                value: millis(now),
                echo_reply: 0,
            },
            TcpOption::NoOperation,
            TcpOption::WindowScale(7),
        ] {
            options.push(option).expect("20 bytes fit");
        }
        let words = Words {
            seq: iss(number),
            ack: SeqNum::new(0),
            flags: TcpFlags::SYN,
            options: &options,
            data: &[],
        };
        self.send(stack, now, number, words);
    }

    /// Sends a request on a connection on which nothing was said yet, and whose timestamps are echoed as 0.
    pub(crate) fn send_request(&mut self, stack: &mut Stack, now: Instant, number: u32, data: &[u8]) {
        let words = Words {
            seq: iss(number) + 1,
            ack: SeqNum::new(self.server_iss[number as usize]) + 1,
            flags: TcpFlags::PSH | TcpFlags::ACK,
            options: &timestamps(now, 0),
            data,
        };
        self.send(stack, now, number, words);
    }

    /// Takes a packet of the stack and acknowledges it if it is a SYN-ACK or has data. Says whose it was, and how
    /// much data it had.
    pub(crate) fn hear(&mut self, stack: &mut Stack, now: Instant, packet: &[u8]) -> (u32, usize) {
        let ip = Ipv4Packet::parse(packet).expect("a stack sends whole packets");
        let segment = TcpSegment::parse(ip.payload()).expect("a stack sends whole segments");
        let address = u32::from(ip.destination());
        let number =
            (address - FIRST_ADDRESS) * PORTS + u32::from(segment.destination_port().get()) - FIRST_PORT;
        let len = segment.payload().len();
        assert!(
            !segment.flags().contains(TcpFlags::RST),
            "connection {number} was reset"
        );
        if segment.flags().contains(TcpFlags::SYN) {
            self.server_iss[number as usize] = segment.seq().get();
        } else if len == 0 {
            return (number, 0);
        }
        let echo = segment.options().flatten().find_map(|option| match option {
            TcpOption::Timestamps { value, .. } => Some(value),
            _ => None,
        });
        let words = Words {
            seq: segment.ack(),
            ack: segment.seq() + segment.seq_len(),
            flags: TcpFlags::ACK,
            options: &timestamps(now, echo.unwrap_or(0)),
            data: &[],
        };
        self.send(stack, now, number, words);
        (number, len)
    }

    fn send(&mut self, stack: &mut Stack, now: Instant, number: u32, words: Words<'_>) {
        let header = TcpRepr {
            source_port: Port::new((FIRST_PORT + number % PORTS) as u16),
            destination_port: Port::new(self.server.port()),
            seq: words.seq,
            ack: words.ack,
            flags: words.flags,
            window: 65_535,
            urgent_pointer: 0,
            options: words.options.as_bytes(),
        };
        let header_len = header.header_len();
        let len = Ipv4Packet::MIN_HEADER_LEN + header_len + words.data.len();
        let (ip, transport) = self.packets[self.count][..len].split_at_mut(Ipv4Packet::MIN_HEADER_LEN);
        let source = Ipv4Addr::from(FIRST_ADDRESS + number / PORTS);
        Ipv4Repr {
            dscp: 0,
            ecn: 0,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            time_to_live: 64,
            protocol: IpProtocol::TCP,
            source,
            destination: *self.server.ip(),
            options: &[],
            payload_len: transport.len(),
        }
        .emit(ip)
        .expect("the buffer has room for the header");
        transport[header_len..].copy_from_slice(words.data);
        let pseudo = PseudoHeader::new(source.into(), (*self.server.ip()).into());
        let fill = pseudo.map_or(ChecksumFill::Zero, ChecksumFill::Complete);
        header
            .emit(transport, fill)
            .expect("the buffer was cut to the segment");
        self.lens[self.count] = len;
        self.count += 1;
        if self.count == BATCH {
            self.flush(stack, now);
        }
    }

    /// Brings to the stack what was sent.
    pub(crate) fn flush(&mut self, stack: &mut Stack, now: Instant) {
        let packets: [_; BATCH] = std::array::from_fn(|place| Packet {
            bytes: &self.packets[place][..self.lens[place]],
            offload: Offload::default(),
        });
        stack.handle_packets(now, &packets[..self.count]);
        self.count = 0;
    }
}

/// Any number, and another for each connection.
fn iss(number: u32) -> SeqNum {
    SeqNum::new(number.wrapping_mul(0x9E37_79B9))
}

fn timestamps(now: Instant, echo_reply: u32) -> TcpOptionBlock {
    let mut options = TcpOptionBlock::new();
    let value = millis(now);
    for option in [
        TcpOption::NoOperation,
        TcpOption::NoOperation,
        TcpOption::Timestamps { value, echo_reply },
    ] {
        options.push(option).expect("12 bytes fit");
    }
    options
}

fn millis(now: Instant) -> u32 {
    now.as_millis() as u32
}
