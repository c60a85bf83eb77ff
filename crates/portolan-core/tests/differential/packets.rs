//! Packets to forge and to read: as much of IPv4, IPv6, TCP, UDP and ICMP as the test needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

const TCP: u8 = 6;
const UDP: u8 = 17;

pub(crate) struct Tcp {
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) data: &'static [u8],
}

impl Tcp {
    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut segment = Vec::with_capacity(24);
        segment.extend(self.source.port().to_be_bytes());
        segment.extend(self.destination.port().to_be_bytes());
        segment.extend(self.seq.to_be_bytes());
        segment.extend(self.ack.to_be_bytes());
        segment.extend([5 << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(self.data);
        let sum = checksum(TCP, self.source.ip(), self.destination.ip(), &segment);
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        ip(TCP, self.source.ip(), self.destination.ip(), &segment)
    }
}

pub(crate) fn udp(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(9);
    datagram.extend(source.port().to_be_bytes());
    datagram.extend(destination.port().to_be_bytes());
    datagram.extend([0, 9, 0, 0, b'x']);
    let sum = match checksum(UDP, source.ip(), destination.ip(), &datagram) {
        0 => u16::MAX,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    ip(UDP, source.ip(), destination.ip(), &datagram)
}

fn ip(protocol: u8, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(40 + payload.len());
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(20 + payload.len()).expect("a small packet");
            packet.extend([0x45, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            let sum = !fold(sum_of(&packet));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (source, destination) => {
            let length = u16::try_from(payload.len()).expect("a small packet");
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(octets(source));
            packet.extend(octets(destination));
        }
    }
    packet.extend(payload);
    packet
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The checksum of a payload with its pseudo header (RFC 9293, section 3.1).
fn checksum(protocol: u8, source: IpAddr, destination: IpAddr, payload: &[u8]) -> u16 {
    let length = u32::try_from(payload.len()).expect("a small packet");
    let sum = sum_of(&octets(source))
        + sum_of(&octets(destination))
        + u32::from(protocol)
        + length
        + sum_of(payload);
    !fold(sum)
}

fn sum_of(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum()
}

fn fold(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
}

/// What the kernel sent.
#[derive(Debug)]
pub(crate) enum Sent {
    Tcp {
        source: SocketAddr,
        destination: SocketAddr,
        seq: u32,
        flags: u8,
    },
    PortUnreachable,
    Other,
}

pub(crate) fn parse(packet: &[u8]) -> Sent {
    let word = |bytes: &[u8], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (protocol, source, destination, payload): (u8, IpAddr, IpAddr, &[u8]) =
        match packet.first().map(|first| first >> 4) {
            Some(4) if packet.len() >= 28 => {
                let address =
                    |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
                let header = usize::from(packet[0] & 15) * 4;
                (
                    packet[9],
                    address(12).into(),
                    address(16).into(),
                    &packet[header..],
                )
            }
            Some(6) if packet.len() >= 48 => {
                let address = |at: usize| {
                    let octets: [u8; 16] = packet[at..at + 16].try_into().expect("16 bytes");
                    Ipv6Addr::from(octets)
                };
                (packet[6], address(8).into(), address(24).into(), &packet[40..])
            }
            _ => return Sent::Other,
        };
    match protocol {
        TCP if payload.len() >= 20 => Sent::Tcp {
            source: SocketAddr::new(source, word(payload, 0)),
            destination: SocketAddr::new(destination, word(payload, 2)),
            seq: u32::from(word(payload, 4)) << 16 | u32::from(word(payload, 6)),
            flags: payload[13],
        },
        1 if payload[..2] == [3, 3] => Sent::PortUnreachable,
        58 if payload[..2] == [1, 4] => Sent::PortUnreachable,
        _ => Sent::Other,
    }
}
