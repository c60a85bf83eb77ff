//! Packets with anything in them: each field is what its maker says, however false.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portolan_core::wire::{IpProtocol, PseudoHeader, checksum};

/// Bytes of a virtio-net header.
pub(crate) const VIRTIO_LEN: usize = 10;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;
pub(crate) const URG: u8 = 32;

/// What stands before a packet in the device: *there is nothing left to do*.
pub(crate) const COMPLETE: [u8; VIRTIO_LEN] = [0; VIRTIO_LEN];
/// *The checksum of TCP or UDP was verified*: it is not looked at.
pub(crate) const VERIFIED: [u8; VIRTIO_LEN] = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An IPv4 header that says what it likes, before a payload.
#[derive(Clone, Debug)]
pub(crate) struct V4 {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: u8,
    pub(crate) identification: u16,
    /// The flags and the offset of a fragment, as they stand in the header.
    pub(crate) fragment: u16,
    pub(crate) options: Vec<u8>,
    /// The length of the header in words, if it is not told as it is.
    pub(crate) header_words: Option<u8>,
    /// The length of the packet, if it is not told as it is.
    pub(crate) total_len: Option<u16>,
}

impl V4 {
    pub(crate) fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8) -> Self {
        Self {
            source,
            destination,
            protocol,
            identification: 1,
            fragment: 0,
            options: Vec::new(),
            header_words: None,
            total_len: None,
        }
    }

    pub(crate) fn with(&self, payload: &[u8]) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let words = self.header_words.unwrap_or((header_len / 4) as u8);
        let total_len = self.total_len.unwrap_or((header_len + payload.len()) as u16);
        let mut packet = vec![0x40 | words & 0x0f, 0];
        packet.extend(total_len.to_be_bytes());
        packet.extend(self.identification.to_be_bytes());
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([64, self.protocol, 0, 0]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(&self.options);
        packet.extend(payload);
        seal(&mut packet);
        packet
    }
}

/// Makes the checksum of an IPv4 header right, as far as there is a header.
pub(crate) fn seal(packet: &mut [u8]) {
    let len = packet.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
    if packet.first().is_some_and(|byte| byte >> 4 == 4) && (20..=packet.len()).contains(&len) {
        packet[10..12].fill(0);
        let sum = checksum(&packet[..len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// An IPv6 header before a payload, whose length is told as `payload_len` if that is given.
pub(crate) fn v6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next: u8,
    payload_len: Option<u16>,
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(payload_len.unwrap_or(payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// An IP header of either version.
pub(crate) fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => V4::new(source, destination, protocol).with(payload),
        (IpAddr::V6(source), IpAddr::V6(destination)) => v6(source, destination, protocol, None, payload),
        _ => panic!("both ends of a packet are of one family"),
    }
}

/// The checksum over a payload and its pseudo-header.
fn transport_checksum(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> [u8; 2] {
    let pseudo = PseudoHeader::new(source, destination).expect("both ends are of one family");
    let sum = pseudo.sum(IpProtocol::new(protocol), payload.len());
    sum.add_bytes(payload).checksum().to_be_bytes()
}

/// A TCP header that says what it likes.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) urgent: u16,
    pub(crate) options: Vec<u8>,
    /// The length of the header in words, if it is not told as it is.
    pub(crate) header_words: Option<u8>,
}

impl Tcp {
    pub(crate) const fn new(flags: u8, seq: u32, ack: u32) -> Self {
        Self {
            seq,
            ack,
            flags,
            window: 65_535,
            urgent: 0,
            options: Vec::new(),
            header_words: None,
        }
    }

    /// The segment in an IP packet; its checksum is right.
    pub(crate) fn between(&self, source: SocketAddr, destination: SocketAddr, data: &[u8]) -> Vec<u8> {
        let words = self
            .header_words
            .unwrap_or_else(|| 5 + self.options.len().div_ceil(4) as u8);
        let mut segment = Vec::new();
        segment.extend(source.port().to_be_bytes());
        segment.extend(destination.port().to_be_bytes());
        segment.extend(self.seq.to_be_bytes());
        segment.extend(self.ack.to_be_bytes());
        segment.extend([words << 4, self.flags]);
        segment.extend(self.window.to_be_bytes());
        segment.extend([0, 0]);
        segment.extend(self.urgent.to_be_bytes());
        segment.extend(&self.options);
        segment.resize(segment.len().next_multiple_of(4), 0);
        segment.extend(data);
        let sum = transport_checksum(source.ip(), destination.ip(), TCP, &segment);
        segment[16..18].copy_from_slice(&sum);
        ip(source.ip(), destination.ip(), TCP, &segment)
    }
}

/// A datagram as it stands in an IP packet, its length told as `len` if that is given. Its checksum is right.
pub(crate) fn datagram(
    source: SocketAddr,
    destination: SocketAddr,
    len: Option<u16>,
    data: &[u8],
) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(source.port().to_be_bytes());
    datagram.extend(destination.port().to_be_bytes());
    datagram.extend(len.unwrap_or((8 + data.len()) as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(data);
    let sum = transport_checksum(source.ip(), destination.ip(), UDP, &datagram);
    datagram[6..8].copy_from_slice(if sum == [0, 0] { &[0xff, 0xff] } else { &sum });
    datagram
}

/// The same in an IP packet.
pub(crate) fn udp(source: SocketAddr, destination: SocketAddr, len: Option<u16>, data: &[u8]) -> Vec<u8> {
    let datagram = datagram(source, destination, len, data);
    ip(source.ip(), destination.ip(), UDP, &datagram)
}

/// A message of ICMP or ICMPv6, by the family of the addresses. Its checksum is right.
pub(crate) fn icmp_message(source: IpAddr, destination: IpAddr, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(body);
    let sum = if source.is_ipv4() {
        checksum(&message).to_be_bytes()
    } else {
        transport_checksum(source, destination, ICMPV6, &message)
    };
    message[2..4].copy_from_slice(&sum);
    message
}

/// The same in an IP packet.
pub(crate) fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let message = icmp_message(source, destination, kind, code, body);
    let protocol = if source.is_ipv4() { ICMP } else { ICMPV6 };
    ip(source, destination, protocol, &message)
}
