//! Two stacks on a wire: a host, and one that takes what is for everyone else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use portolan_core::Port;
use portolan_core::table::{Device, Host};
use portolan_core::wire::{ChecksumFill, IpPacket, IpProtocol, Ipv4Repr, SeqNum, TcpFlags, TcpRepr};
use portolan_stack::{Event, Instant, Packet, Stack, StackConfig};

/// A stack with the addresses 10.0.0.`last` and fd00::`last`.
pub(crate) fn stack(last: u8, config: StackConfig) -> Stack {
    let mut host = Host::new();
    let device = Device::new(1).unwrap();
    host.add_address(device, IpAddr::from([10, 0, 0, last]), Some(24));
    host.add_address(
        device,
        IpAddr::from([0xFD00, 0, 0, 0, 0, 0, 0, u16::from(last)]),
        Some(64),
    );
    Stack::new(config, host, [last; 16])
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Everything that the stack wants to send now.
pub(crate) fn sent(now: Instant, stack: &mut Stack) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut buffer = vec![0; stack.max_packet_len()];
    while let Some(transmit) = stack.poll_transmit(now, &mut buffer) {
        packets.push(buffer[..transmit.len].to_vec());
    }
    packets
}

/// Gives packets to a stack.
pub(crate) fn give(now: Instant, stack: &mut Stack, packets: &[Vec<u8>]) {
    for bytes in packets {
        let offload = portolan_stack::Offload::default();
        stack.handle_packet(now, Packet { bytes, offload });
    }
}

/// Carries what either stack sends to the other until both are silent.
pub(crate) fn carry(now: Instant, a: &mut Stack, b: &mut Stack) {
    loop {
        let (from_a, from_b) = (sent(now, a), sent(now, b));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        give(now, b, &from_a);
        give(now, a, &from_b);
    }
}

pub(crate) fn events(stack: &mut Stack) -> Vec<Event> {
    std::iter::from_fn(|| stack.poll_event()).collect()
}

/// A segment without data from 10.0.0.1.
pub(crate) fn segment(source_port: u16, destination: SocketAddr, seq: u32, flags: TcpFlags) -> Vec<u8> {
    let IpAddr::V4(to) = destination.ip() else {
        panic!("IPv4 only")
    };
    let mut packet = vec![0; 40];
    let ip = Ipv4Repr {
        dscp: 0,
        ecn: 0,
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        time_to_live: 64,
        protocol: IpProtocol::TCP,
        source: Ipv4Addr::new(10, 0, 0, 1),
        destination: to,
        options: &[],
        payload_len: 20,
    };
    ip.emit(&mut packet).unwrap();
    let pseudo = IpPacket::parse(&packet).unwrap().pseudo_header();
    let tcp = TcpRepr {
        source_port: Port::new(source_port),
        destination_port: Port::new(destination.port()),
        seq: SeqNum::new(seq),
        ack: SeqNum::new(0),
        flags,
        window: 1000,
        urgent_pointer: 0,
        options: &[],
    };
    tcp.emit(&mut packet[20..], ChecksumFill::Complete(pseudo))
        .unwrap();
    packet
}
