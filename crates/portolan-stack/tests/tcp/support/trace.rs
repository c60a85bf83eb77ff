//! A stack whose peer follows a script of packets with their times.
//!
//! ```text
//!   TIME < FLAGS SEQ[:END] [ack N] [win N] [OPTION…]     the peer sends
//!   TIME > FLAGS SEQ[:END] [ack N] [win N] [OPTION…]     the stack sends, now
//!   TIME icmp TYPE/CODE SEQ [MTU]                        an ICMP error that quotes what the stack sent
//!   TIME CALL [ARGUMENT]                                 the program calls, or looks
//! ```
//!
//! Times are in seconds; the stack's may be later by a millisecond, since its timers tick. Flags are
//! those of tcpdump: `S F R P . E W U`; the urgent pointer is behind the segment's last byte.
//! Numbers count from the initial ones, the peer's of which is close to the
//! wrap. Options are `mss N`, `wscale N`, `sackok`, `ts VALUE ECHO` (`last`: what the stack sent last; `@MS`: what
//! it sends at that millisecond), `sack L-R,L-R`, and `ce` for a mark of
//! congestion, `cut` for a packet that routers may cut, and `dscp N` and `hops N` for the IP header. Of what the stack sends, only what the line names is compared, and data; nothing may be sent
//! that the script does not name; a PSH may be there that it does not name. Calls are `connect`, `accept`, `write N`, `read N`, `read-end`, `finish`, `close`,
//! `abort`, `shutdown-read`, `finished`, `not-finished`, `state NAME`, `closed REASON` (with hyphens for brackets),
//! `cwnd SEGMENTS`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use portolan_core::Port;
use portolan_core::table::{Device, Host};
use portolan_core::wire::{
    ChecksumFill, IpPacket, IpProtocol, Ipv4Repr, SackBlock, SeqNum, TcpFlags, TcpOption, TcpOptionBlock,
    TcpRepr, TcpSegment, checksum,
};
use portolan_stack::{
    CloseReason, ConnectionId, Duration, Event, Instant, ListenerId, Offload, Packet, ReadError, Stack,
    StackConfig,
};

const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The peer's initial sequence number: 256 before the wrap.
const IRS: SeqNum = SeqNum::new(0xFFFF_FF00);
/// How late the stack's timers may be.
const TOLERANCE: Duration = Duration::from_millis(1);
/// When scripts begin.
const START: Instant = Instant::from_millis(1_000_000);

/// Plays the script against a stack that listens on port 80, or connects from port 4000 to it.
///
/// # Panics
/// With the line at fault and all packets so far.
pub(crate) fn play(config: StackConfig, script: &str) {
    let mut trace = Trace::new(config);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        trace.step(line);
    }
    let rest = trace.sent.pop_front();
    assert!(
        rest.is_none(),
        "sent and not in the script: {rest:?}\n{}",
        trace.log
    );
}

struct Trace {
    stack: Stack,
    listener: ListenerId,
    connection: Option<ConnectionId>,
    now: Instant,
    iss: Option<SeqNum>,
    /// Where the stack's port and the peer's are.
    ports: (u16, u16),
    sent: VecDeque<(Instant, Line)>,
    closed: Option<String>,
    /// Whether an event said that all that was written is acknowledged.
    finished: bool,
    written: u64,
    last_timestamp: u32,
    /// What the stack's clock said when the script began.
    first_timestamp: u32,
    log: String,
}

/// A packet, its numbers relative.
#[derive(Clone, Debug, Default, PartialEq)]
struct Line {
    flags: String,
    seq: u32,
    len: u32,
    ack: Option<u32>,
    win: Option<u32>,
    mss: Option<u16>,
    wscale: Option<u8>,
    sackok: bool,
    ts: Option<(u32, u32)>,
    echoes_last: bool,
    /// The millisecond of the script whose timestamp the peer echoes.
    echo_at: Option<u32>,
    sack: Vec<(u32, u32)>,
    marked: bool,
    /// Whether routers may cut it.
    cut: bool,
    dscp: Option<u8>,
    hops: Option<u8>,
}

impl Trace {
    fn new(config: StackConfig) -> Self {
        let mut host = Host::new();
        host.add_address(Device::new(1).unwrap(), LOCAL.into(), Some(24));
        let mut stack = Stack::new(config, host, [3; 16]);
        let listener = stack.listen(SocketAddr::new(LOCAL.into(), 80), 1).unwrap();
        Self {
            stack,
            listener,
            connection: None,
            now: START,
            iss: None,
            ports: (80, 4000),
            sent: VecDeque::new(),
            closed: None,
            finished: false,
            written: 0,
            last_timestamp: 0,
            first_timestamp: 0,
            log: String::new(),
        }
    }

    fn step(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let time: f64 = words
            .next()
            .unwrap()
            .parse()
            .unwrap_or_else(|_| panic!("no time: {line}"));
        let at = START + Duration::from_micros((time * 1e6).round() as u64);
        if words.clone().next() == Some(">") {
            self.await_packet(at + TOLERANCE);
        } else {
            self.advance(at);
        }
        match words.next().unwrap() {
            direction @ ("<" | "<<") => {
                self.nothing_sent_before(line);
                let packet = self.build(&Line::parse(words));
                let _ = writeln!(self.log, "{line}");
                let packet = Packet {
                    bytes: &packet,
                    offload: Offload::default(),
                };
                self.stack.handle_packet(self.now, packet);
                if direction == "<" {
                    self.drain();
                }
            }
            ">" => {
                let Some((when, got)) = self.sent.pop_front() else {
                    panic!("not sent: {line}\n{}", self.log);
                };
                let expected = Line::parse(words);
                let in_time = when >= at && when <= at + TOLERANCE;
                let same = got.matches(&expected);
                assert!(
                    in_time && same,
                    "expected {line}\nsent {when} {got:?}\n{}",
                    self.log
                );
            }
            "icmp" => {
                self.nothing_sent_before(line);
                let _ = writeln!(self.log, "{line}");
                let (kind, code) = words.next().unwrap().split_once('/').unwrap();
                let seq = words.next().unwrap().parse().unwrap();
                let mtu = words.next().map_or(0, |mtu| mtu.parse().unwrap());
                let packet = self.build_icmp(kind.parse().unwrap(), code.parse().unwrap(), seq, mtu);
                let (bytes, offload) = (&packet[..], Offload::default());
                self.stack.handle_packet(self.now, Packet { bytes, offload });
                self.drain();
            }
            call => {
                self.nothing_sent_before(line);
                let _ = writeln!(self.log, "{line}");
                self.call(call, words.next());
                self.drain();
            }
        }
    }

    fn nothing_sent_before(&self, line: &str) {
        let rest = self.sent.front();
        assert!(rest.is_none(), "sent before {line}: {rest:?}\n{}", self.log);
    }

    fn await_packet(&mut self, until: Instant) {
        while self.sent.is_empty()
            && let Some(next) = self.stack.poll_timeout().filter(|&next| next <= until)
        {
            self.advance(next);
        }
    }

    fn advance(&mut self, to: Instant) {
        while let Some(next) = self.stack.poll_timeout().filter(|&next| next <= to) {
            self.now = self.now.max(next);
            self.stack.handle_timeout(self.now);
            self.drain();
        }
        self.now = self.now.max(to);
    }

    fn drain(&mut self) {
        let mut buffer = vec![0; self.stack.max_packet_len()];
        while let Some(transmit) = self.stack.poll_transmit(self.now, &mut buffer) {
            let line = self.read_packet(&buffer[..transmit.len]);
            let _ = writeln!(self.log, "    {} sent {line:?}", self.now);
            self.sent.push_back((self.now, line));
        }
        while let Some(event) = self.stack.poll_event() {
            let _ = writeln!(self.log, "    {} {event:?}", self.now);
            if let Event::Closed(_, reason) = event {
                self.closed = Some(format!("{reason:?}"));
            } else if let Event::Finished(_) = event {
                self.finished = true;
            }
        }
    }

    fn call(&mut self, call: &str, argument: Option<&str>) {
        let now = self.now;
        let argument = argument.unwrap_or_default();
        let number = || argument.parse::<usize>().unwrap();
        if call == "connect" {
            self.ports = (4000, 80);
            let (local, remote) = (
                SocketAddr::new(LOCAL.into(), 4000),
                SocketAddr::new(REMOTE.into(), 80),
            );
            self.connection = Some(self.stack.connect(now, local, remote).unwrap());
            return;
        }
        if call == "accept" {
            self.connection = self.stack.accept(self.listener);
            assert!(self.connection.is_some(), "nothing to accept\n{}", self.log);
            return;
        }
        let id = self.connection.expect("accept or connect comes first");
        match call {
            "write" => {
                let bytes: Vec<u8> = (0..number())
                    .map(|place| content(self.written + place as u64))
                    .collect();
                assert_eq!(self.stack.write(now, id, &bytes), Ok(bytes.len()));
                self.written += bytes.len() as u64;
            }
            "read" => {
                let mut out = vec![0; number() + 1];
                assert_eq!(self.stack.read(now, id, &mut out), Ok(number()), "\n{}", self.log);
            }
            "read-end" => assert_eq!(self.stack.read(now, id, &mut [0; 1]), Ok(0)),
            "read-reset" => {
                let told = self.stack.read(now, id, &mut [0; 1]);
                assert_eq!(told, Err(ReadError::Closed(CloseReason::Reset)), "\n{}", self.log);
            }
            "read-nothing" => assert_eq!(self.stack.read(now, id, &mut [0; 1]), Err(ReadError::WouldBlock)),
            "urgent" => assert_eq!(self.stack.urgent_ahead(id), Some(number()), "\n{}", self.log),
            "urgent-none" => assert_eq!(self.stack.urgent_ahead(id), None, "\n{}", self.log),
            "write-urgent" => {
                let bytes: Vec<u8> = (0..number())
                    .map(|place| content(self.written + place as u64))
                    .collect();
                assert_eq!(self.stack.write_urgent(now, id, &bytes), Ok(bytes.len()));
                self.written += bytes.len() as u64;
            }
            "hold-probes" => self.stack.hold_probes(now, id, true).unwrap(),
            "probed" => assert!(self.stack.take_probe(id), "\n{}", self.log),
            "not-probed" => assert!(!self.stack.take_probe(id), "\n{}", self.log),
            "answer-probe" => self.stack.answer_probe(now, id).unwrap(),
            "finish" => self.stack.finish(now, id).unwrap(),
            "close" => self.stack.close(now, id).unwrap(),
            "shutdown-read" => self.stack.shutdown_read(now, id).unwrap(),
            "finished" => assert!(std::mem::take(&mut self.finished), "\n{}", self.log),
            "not-finished" => assert!(!self.finished, "\n{}", self.log),
            "abort" => self.stack.abort(now, id).unwrap(),
            "state" => {
                let state = self.stack.info(id).map(|info| info.state.to_string());
                assert_eq!(state.as_deref(), Some(argument), "\n{}", self.log);
            }
            "closed" => {
                let reason = self
                    .closed
                    .as_deref()
                    .map(|reason| reason.replace(['(', ')'], "-"));
                assert_eq!(reason.as_deref(), Some(argument), "\n{}", self.log);
            }
            "cwnd" => {
                let info = self.stack.info(id).unwrap();
                assert_eq!(
                    info.congestion_window / u32::from(info.send_mss),
                    number() as u32,
                    "\n{}",
                    self.log
                );
            }
            unknown => panic!("no such call: {unknown}"),
        }
    }

    /// An ICMP error from a router, which quotes the first 8 bytes of a segment of ours.
    fn build_icmp(&self, kind: u8, code: u8, seq: u32, mtu: u16) -> Vec<u8> {
        let ip = |source, destination, protocol, payload_len| Ipv4Repr {
            dscp: 0,
            ecn: 0,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            time_to_live: 64,
            protocol,
            source,
            destination,
            options: &[],
            payload_len,
        };
        let mut packet = vec![0; 56];
        let router = Ipv4Addr::new(10, 0, 0, 9);
        ip(router, LOCAL, IpProtocol::ICMP, 36).emit(&mut packet).unwrap();
        ip(LOCAL, REMOTE, IpProtocol::TCP, 1480)
            .emit(&mut packet[28..])
            .unwrap();
        packet[48..50].copy_from_slice(&self.ports.0.to_be_bytes());
        packet[50..52].copy_from_slice(&self.ports.1.to_be_bytes());
        let number = self.iss.unwrap_or(SeqNum::new(0)) + seq;
        packet[52..56].copy_from_slice(&number.get().to_be_bytes());
        packet[20..28].copy_from_slice(&[kind, code, 0, 0, 0, 0, (mtu >> 8) as u8, mtu as u8]);
        let sum = checksum(&packet[20..]);
        packet[22..24].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn build(&self, line: &Line) -> Vec<u8> {
        let ours = |number: u32| self.iss.unwrap_or(SeqNum::new(0)) + number;
        let mut options = TcpOptionBlock::new();
        let mut push = |option| options.push(option).unwrap();
        if let Some(mss) = line.mss {
            push(TcpOption::MaximumSegmentSize(mss));
        }
        if line.sackok {
            push(TcpOption::SackPermitted);
        }
        if let Some((value, mut echo_reply)) = line.ts {
            if line.echoes_last {
                echo_reply = self.last_timestamp;
            }
            if let Some(millis) = line.echo_at {
                echo_reply = self.first_timestamp.wrapping_add(millis);
            }
            push(TcpOption::Timestamps { value, echo_reply });
        }
        if let Some(shift) = line.wscale {
            push(TcpOption::WindowScale(shift));
        }
        let blocks: Vec<_> = line
            .sack
            .iter()
            .map(|&(l, r)| SackBlock::new(ours(l), ours(r)))
            .collect();
        if !blocks.is_empty() {
            push(TcpOption::Sack(&blocks));
        }
        let header = TcpRepr {
            source_port: Port::new(self.ports.1),
            destination_port: Port::new(self.ports.0),
            seq: IRS + line.seq,
            ack: line.ack.map_or(SeqNum::new(0), ours),
            flags: flags(&line.flags),
            window: line.win.unwrap_or(65_535) as u16,
            urgent_pointer: if line.flags.contains('U') {
                line.len as u16
            } else {
                0
            },
            options: options.as_bytes(),
        };
        let header_len = header.header_len();
        let mut packet = vec![0; 20 + header_len + line.len as usize];
        for (place, byte) in packet[20 + header_len..].iter_mut().enumerate() {
            *byte = content(u64::from(line.seq) + place as u64);
        }
        let ip = Ipv4Repr {
            dscp: 0,
            ecn: if line.marked { 3 } else { 0 },
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            time_to_live: 64,
            protocol: IpProtocol::TCP,
            source: REMOTE,
            destination: LOCAL,
            options: &[],
            payload_len: packet.len() - 20,
        };
        ip.emit(&mut packet).unwrap();
        let pseudo = IpPacket::parse(&packet).unwrap().pseudo_header();
        header
            .emit(&mut packet[20..], ChecksumFill::Complete(pseudo))
            .unwrap();
        packet
    }

    fn read_packet(&mut self, bytes: &[u8]) -> Line {
        let ip = IpPacket::parse(bytes).unwrap();
        let IpPacket::V4(v4) = &ip else { panic!("IPv6") };
        assert!(v4.has_valid_checksum());
        assert_eq!((ip.source(), ip.destination()), (LOCAL.into(), REMOTE.into()));
        let segment = TcpSegment::parse(ip.payload()).unwrap();
        assert!(segment.has_valid_checksum(ip.pseudo_header()));
        if segment.flags().contains(TcpFlags::SYN) {
            self.iss = Some(segment.seq());
        }
        let iss = self.iss.unwrap_or(SeqNum::new(0));
        let theirs = |number: SeqNum| number.since(IRS) as u32;
        let mut line = Line {
            flags: letters(segment.flags()),
            seq: segment.seq().since(iss) as u32,
            len: segment.payload().len() as u32,
            ack: segment
                .flags()
                .contains(TcpFlags::ACK)
                .then(|| theirs(segment.ack())),
            win: Some(u32::from(segment.window())),
            marked: v4.ecn() != 0,
            cut: !v4.dont_fragment(),
            dscp: Some(v4.dscp()),
            hops: Some(v4.time_to_live()),
            ..Line::default()
        };
        for option in segment.options().map(Result::unwrap) {
            match option {
                TcpOption::MaximumSegmentSize(mss) => line.mss = Some(mss),
                TcpOption::WindowScale(shift) => line.wscale = Some(shift),
                TcpOption::SackPermitted => line.sackok = true,
                TcpOption::Timestamps { value, echo_reply } => {
                    line.ts = Some((value, echo_reply));
                    self.last_timestamp = value;
                    let elapsed = self.now.since(START).as_nanos() / 1_000_000;
                    self.first_timestamp = value.wrapping_sub(elapsed as u32);
                }
                TcpOption::Sack(blocks) => {
                    line.sack = blocks
                        .iter()
                        .map(|block| (theirs(block.left()), theirs(block.right())))
                        .collect();
                }
                _ => {}
            }
        }
        line
    }
}

impl Line {
    fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Self {
        let mut line = Self {
            flags: words.next().unwrap().to_owned(),
            ..Self::default()
        };
        let numbers = words.next().unwrap();
        let (seq, end) = numbers.split_once(':').unwrap_or((numbers, numbers));
        line.seq = seq.parse().unwrap();
        line.len = end.parse::<u32>().unwrap() - line.seq;
        while let Some(word) = words.next() {
            let mut number = || words.next().unwrap();
            match word {
                "ack" => line.ack = Some(number().parse().unwrap()),
                "win" => line.win = Some(number().parse().unwrap()),
                "mss" => line.mss = Some(number().parse().unwrap()),
                "wscale" => line.wscale = Some(number().parse().unwrap()),
                "sackok" => line.sackok = true,
                "ce" | "ect" => line.marked = true,
                "cut" => line.cut = true,
                "dscp" => line.dscp = Some(number().parse().unwrap()),
                "hops" => line.hops = Some(number().parse().unwrap()),
                "ts" => {
                    let (value, echo) = (number().parse().unwrap(), number());
                    line.echoes_last = echo == "last";
                    line.echo_at = echo.strip_prefix('@').map(|millis| millis.parse().unwrap());
                    line.ts = Some((value, echo.parse().unwrap_or(0)));
                }
                "sack" => {
                    let blocks = number().split(',').map(|block| block.split_once('-').unwrap());
                    line.sack = blocks
                        .map(|(l, r)| (l.parse().unwrap(), r.parse().unwrap()))
                        .collect();
                }
                unknown => panic!("no such word: {unknown}"),
            }
        }
        line
    }

    /// Whether this, which was sent, is what the script says, as far as it says.
    fn matches(&self, expected: &Self) -> bool {
        let Self {
            flags,
            seq,
            len,
            ack,
            win,
            mss,
            wscale,
            sackok,
            ts,
            sack,
            marked,
            cut,
            dscp,
            hops,
            echoes_last: _,
            echo_at: _,
        } = expected;
        // Segments that go together end with PSH wherever they are in the stream.
        let same_flags =
            *flags == self.flags || (!flags.contains('P') && *flags == self.flags.replace('P', ""));
        same_flags
            && *seq == self.seq
            && *len == self.len
            && *ack == self.ack
            && win.is_none_or(|win| Some(win) == self.win)
            && mss.is_none_or(|mss| Some(mss) == self.mss)
            && wscale.is_none_or(|wscale| Some(wscale) == self.wscale)
            && dscp.is_none_or(|dscp| Some(dscp) == self.dscp)
            && hops.is_none_or(|hops| Some(hops) == self.hops)
            && (!sackok || self.sackok)
            && ts.is_none_or(|ts| self.ts.is_some_and(|got| got.1 == ts.1))
            && *sack == self.sack
            && *marked == self.marked
            && *cut == self.cut
    }
}

/// The byte at this place of either stream.
fn content(place: u64) -> u8 {
    (place % 251) as u8
}

const LETTERS: [(char, TcpFlags); 8] = [
    ('S', TcpFlags::SYN),
    ('F', TcpFlags::FIN),
    ('R', TcpFlags::RST),
    ('P', TcpFlags::PSH),
    ('.', TcpFlags::ACK),
    ('E', TcpFlags::ECE),
    ('W', TcpFlags::CWR),
    ('U', TcpFlags::URG),
];

fn flags(letters: &str) -> TcpFlags {
    let flag = |letter| LETTERS.iter().find(|(name, _)| *name == letter).unwrap().1;
    letters
        .chars()
        .filter(|&letter| letter != '-')
        .map(flag)
        .collect()
}

fn letters(flags: TcpFlags) -> String {
    LETTERS
        .iter()
        .filter(|(_, flag)| flags.contains(*flag))
        .map(|(letter, _)| letter)
        .collect()
}
