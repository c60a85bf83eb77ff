use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

use portolan_capture::CaptureReader;
use portolan_core::Port;
use portolan_core::wire::{
    ChecksumFill, IpPacket, IpProtocol, Ipv4Repr, SeqNum, TcpFlags, TcpRepr, TcpSegment, UdpRepr,
};
use portolan_stack::{Offload, PacketChecksum};

use super::*;
use crate::flows::FlowProtocol;

const INSIDE: [u8; 4] = [10, 0, 0, 2];
const OUTSIDE: [u8; 4] = [192, 0, 2, 1];

fn ip(protocol: IpProtocol, payload_len: usize) -> Vec<u8> {
    let repr = Ipv4Repr {
        dscp: 0,
        ecn: 0,
        identification: 1,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        time_to_live: 64,
        protocol,
        source: INSIDE.into(),
        destination: OUTSIDE.into(),
        options: &[],
        payload_len,
    };
    let mut bytes = vec![0; 20 + payload_len];
    repr.emit(&mut bytes).unwrap();
    bytes
}

/// A segment of the program, whose checksum somebody else is to complete.
fn tcp(flags: TcpFlags, seq: u32, data: usize) -> Vec<u8> {
    let mut bytes = ip(IpProtocol::TCP, 20 + data);
    let pseudo = IpPacket::parse(&bytes).unwrap().pseudo_header();
    let repr = TcpRepr {
        source_port: Port::new(40_000),
        destination_port: Port::new(80),
        seq: SeqNum::new(seq),
        ack: SeqNum::new(0),
        flags,
        window: 1000,
        urgent_pointer: 0,
        options: &[],
    };
    repr.emit(&mut bytes[20..], ChecksumFill::Partial(pseudo))
        .unwrap();
    bytes
}

fn udp(port: u16) -> Vec<u8> {
    let mut bytes = ip(IpProtocol::UDP, 8 + 4);
    let pseudo = IpPacket::parse(&bytes).unwrap().pseudo_header();
    let repr = UdpRepr {
        source_port: Port::new(port),
        destination_port: Port::new(53),
    };
    repr.emit(&mut bytes[20..], ChecksumFill::Partial(pseudo))
        .unwrap();
    bytes
}

fn partial(bytes: &[u8], piece_len: u16) -> Packet<'_> {
    Packet {
        bytes,
        offload: Offload {
            checksum: PacketChecksum::Partial,
            piece_len: NonZeroU16::new(piece_len),
        },
    }
}

type Asked = mpsc::Receiver<(FlowProtocol, SocketAddr, SocketAddr)>;

/// A capture to `file`, with whom it asks about and what it complains of.
fn begin(file: File) -> (Capture, Recorder, Asked, mpsc::Receiver<io::ErrorKind>) {
    let (asks, asked) = mpsc::channel();
    let (tells, told) = mpsc::channel();
    let whose = Whose::new(move |protocol, inside, outside| {
        asks.send((protocol, inside, outside)).unwrap();
        Some("curl (pid 3)".to_owned())
    });
    let (capture, recorder) = Capture::begin(CaptureConfig {
        file,
        interface: CaptureInterface {
            name: "eth0",
            ..CaptureInterface::default()
        },
        names: &[(IpAddr::from(INSIDE), "web.portolan")],
        whose,
        trouble: Trouble::new(move |error| tells.send(error.kind()).unwrap()),
    })
    .unwrap();
    (capture, recorder, asked, told)
}

#[test]
fn packets_are_those_of_the_wire_with_whole_checksums() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (capture, mut recorder, asked, _told) = begin(file.reopen().unwrap());
    let (syn, bulk, reply) = (
        tcp(TcpFlags::SYN, 7, 0),
        tcp(TcpFlags::ACK, 8, 3500),
        tcp(TcpFlags::ACK, 9, 0),
    );
    recorder.observe(link::Direction::In, partial(&syn, 0));
    recorder.observe(link::Direction::In, partial(&bulk, 1460));
    recorder.observe(link::Direction::Out, partial(&reply, 0));
    // What is no packet is there as it is.
    recorder.observe(link::Direction::In, partial(b"?", 0));
    recorder.turn_ends();
    let counts = capture.finish(Duration::ZERO);
    let expected = CaptureCounts {
        packets: 6,
        missing: 0,
        inward: 1,
        outward: 3,
    };
    assert_eq!(counts, expected);
    let bytes = std::fs::read(file.path()).unwrap();
    let mut reader = CaptureReader::new(&bytes[..]).unwrap();
    let mut lengths = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        lengths.push(frame.bytes.len());
        if let Ok(ip) = IpPacket::parse(frame.bytes) {
            let segment = TcpSegment::parse(ip.payload()).unwrap();
            assert!(segment.has_valid_checksum(ip.pseudo_header()), "{frame:?}");
        }
    }
    assert_eq!(lengths, [40, 1500, 1500, 620, 40, 1]);
    assert_eq!(asked.try_iter().count(), 1, "the rest is of the same flow");
    let found = bytes.windows(12).filter(|part| part == b"curl (pid 3)").count();
    assert_eq!(found, 1);
}

#[test]
fn a_flow_is_asked_about_once_and_again_when_it_begins_again() {
    let file = tempfile::tempfile().unwrap();
    let (_capture, mut recorder, asked, _told) = begin(file);
    for packet in [
        tcp(TcpFlags::SYN, 7, 0),
        tcp(TcpFlags::SYN, 7, 0),
        tcp(TcpFlags::SYN, 8, 0),
        udp(1000),
        udp(1000),
        udp(1001),
    ] {
        recorder.observe(link::Direction::In, partial(&packet, 0));
    }
    // What is sent to the program is of the other end's making.
    recorder.observe(link::Direction::Out, partial(&udp(1000), 0));
    let (inside, outside) = (IpAddr::from(INSIDE), IpAddr::from(OUTSIDE));
    let asked: Vec<_> = asked.try_iter().collect();
    let of = |protocol, here: u16, there: u16| {
        (
            protocol,
            SocketAddr::new(inside, here),
            SocketAddr::new(outside, there),
        )
    };
    assert_eq!(
        asked[..4],
        [
            of(FlowProtocol::Tcp, 40_000, 80),
            of(FlowProtocol::Tcp, 40_000, 80),
            of(FlowProtocol::Udp, 1000, 53),
            of(FlowProtocol::Udp, 1001, 53),
        ]
    );
    assert_eq!(asked[4].1, SocketAddr::new(outside, 53));
    assert_eq!(asked.len(), 5);
}

#[test]
fn a_device_that_is_full_is_told_once_and_counted() {
    let Ok(full) = File::options().write(true).open("/dev/full") else {
        return println!("skipped: no /dev/full here");
    };
    let (capture, mut recorder, _asked, told) = begin(full);
    for _ in 0..3 {
        recorder.observe(link::Direction::In, partial(&udp(1), 0));
        recorder.turn_ends();
    }
    let counts = capture.finish(Duration::ZERO);
    assert_eq!((counts.packets, counts.missing, counts.outward), (0, 3, 3));
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [io::ErrorKind::StorageFull]);
}

#[tokio::test]
async fn a_reader_that_is_slow_holds_the_network_up_and_gets_all_of_it() {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (capture, mut recorder, _asked, _told) = begin(File::from(writer));
    let packet = tcp(TcpFlags::ACK, 1, 1400);
    let ready = Duration::from_secs(1);
    let mut sent = 0;
    // Nobody reads: in the end it is not ready any more.
    while tokio::time::timeout(ready, std::future::poll_fn(|cx| recorder.poll_ready(cx)))
        .await
        .is_ok()
    {
        recorder.observe(link::Direction::In, partial(&packet, 0));
        recorder.turn_ends();
        sent += 1;
        assert!(sent < 10_000, "a pipe is not as long");
    }
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        File::from(reader).read_to_end(&mut bytes).unwrap();
        bytes
    });
    std::future::poll_fn(|cx| recorder.poll_ready(cx)).await;
    recorder.observe(link::Direction::In, partial(&packet, 0));
    recorder.turn_ends();
    let counts = capture.finish(Duration::from_secs(20));
    assert_eq!((counts.packets, counts.missing), (sent + 1, 0));
    let bytes = reading.join().unwrap();
    let mut reader = CaptureReader::new(&bytes[..]).unwrap();
    let mut read = 0;
    while reader.next_frame().unwrap().is_some() {
        read += 1;
    }
    assert_eq!(read, sent + 1);
}

#[tokio::test]
async fn a_reader_that_goes_takes_the_capture_and_not_the_network() {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (capture, mut recorder, _asked, told) = begin(File::from(writer));
    drop::<OwnedFd>(reader);
    for _ in 0..3 {
        std::future::poll_fn(|cx| recorder.poll_ready(cx)).await;
        recorder.observe(link::Direction::In, partial(&udp(1), 0));
        recorder.turn_ends();
    }
    assert_eq!(capture.finish(Duration::ZERO).missing, 3);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [io::ErrorKind::BrokenPipe]);
}
