//! What passes the device, seen from the program's side: packets of good programs, to be changed, and the gateway's answers,
//! which are always packets as they should be.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portolan_core::wire::{IpPacket, IpProtocol, TcpSegment, UdpDatagram};
use portolan_net::link::{Direction, Observer};
use portolan_stack::{Packet, PacketChecksum};
use rand::seq::IndexedRandom as _;
use rand_chacha::ChaCha8Rng;

use crate::attack::Frame;
use crate::packets::VIRTIO_LEN;
use crate::world::INSIDE;

/// A handle.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// The last ones of the victim's.
    frames: Vec<Frame>,
    next: usize,
    /// How many answers of the gateway there were.
    answers: u64,
    wrong: Vec<String>,
}

/// How many frames are kept.
const KEPT: usize = 512;
/// How many bytes of each.
const LEN: usize = 2_048;

impl Record {
    /// One of those that are kept.
    pub(crate) fn any(&self, rng: &mut ChaCha8Rng) -> Option<Frame> {
        self.lock().frames.choose(rng).cloned()
    }

    /// Fails if the gateway sent what is no packet. Gives how many it sent.
    pub(crate) fn check(&self) -> u64 {
        let inner = self.lock();
        assert!(inner.wrong.is_empty(), "the gateway sent: {:?}", inner.wrong);
        inner.answers
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Record {
    fn observe(&mut self, direction: Direction, packet: Packet<'_>) {
        let mut inner = self.lock();
        match direction {
            Direction::In => {
                inner.answers += 1;
                if let Some(why) = wrong_with(packet) {
                    inner.wrong.push(format!(
                        "{why}: {:x?}",
                        &packet.bytes[..packet.bytes.len().min(100)]
                    ));
                }
            }
            Direction::Out if is_of_the_victim(packet.bytes) => {
                let frame = Frame {
                    header: header(packet),
                    packet: packet.bytes[..packet.bytes.len().min(LEN)].to_vec(),
                };
                let next = inner.next;
                inner.next = (next + 1) % KEPT;
                if next < inner.frames.len() {
                    inner.frames[next] = frame;
                } else {
                    inner.frames.push(frame);
                }
            }
            Direction::Out => {}
        }
    }
}

fn is_of_the_victim(packet: &[u8]) -> bool {
    IpPacket::parse(packet).is_ok_and(|ip| {
        INSIDE
            .iter()
            .any(|text| text.parse::<IpAddr>() == Ok(ip.source()))
    })
}

/// The header that a device puts before such a packet.
fn header(packet: Packet<'_>) -> [u8; VIRTIO_LEN] {
    let mut header = [0; VIRTIO_LEN];
    if packet.offload.checksum == PacketChecksum::Partial
        && let Ok(ip) = IpPacket::parse(packet.bytes)
    {
        let is_tcp = ip.protocol() == IpProtocol::TCP;
        header[0] = 1;
        header[6] = ip.header_len() as u8;
        header[8] = if is_tcp { 16 } else { 6 };
        if let Some(len) = packet.offload.piece_len {
            header[1] = match (is_tcp, ip.header_len()) {
                (false, _) => 5,
                (true, 20) => 1,
                (true, _) => 4,
            };
            header[4..6].copy_from_slice(&len.get().to_le_bytes());
        }
    }
    header
}

/// What is wrong with a packet of the gateway's.
fn wrong_with(packet: Packet<'_>) -> Option<&'static str> {
    let Ok(ip) = IpPacket::parse(packet.bytes) else {
        return Some("no IP packet");
    };
    if let IpPacket::V4(header) = &ip
        && !header.has_valid_checksum()
    {
        return Some("an IPv4 header with a wrong checksum");
    }
    let told = match &ip {
        IpPacket::V4(header) => usize::from(header.total_length()),
        IpPacket::V6(header) => 40 + usize::from(header.payload_length()),
    };
    if told != packet.bytes.len() {
        return Some("bytes behind the packet");
    }
    if ip.is_fragment() || packet.offload.checksum != PacketChecksum::Complete {
        return None;
    }
    let pseudo = ip.pseudo_header();
    match ip.protocol() {
        IpProtocol::TCP => match TcpSegment::parse(ip.payload()) {
            Ok(segment) if segment.has_valid_checksum(pseudo) => None,
            _ => Some("no TCP segment"),
        },
        IpProtocol::UDP => match UdpDatagram::parse(ip.payload()) {
            Ok(datagram) if datagram.has_valid_checksum(pseudo) => None,
            _ => Some("no UDP datagram"),
        },
        IpProtocol::ICMP => {
            (portolan_core::wire::checksum(ip.payload()) != 0).then_some("a wrong checksum of ICMP")
        }
        _ => None,
    }
}
