//! Two stacks in one thread; packets go from one to the other through one buffer.

use std::net::SocketAddr;
use std::time::Instant as Clock;

use bytes::Bytes;
use portolan_core::table::{Device, Host};
use portolan_stack::{
    ConnectionId, Duration, Event, Instant, ListenerId, Packet, ReadError, Stack, StackConfig, WriteError,
};

use super::{Length, Measure};

/// What a program writes in one call.
const WRITTEN_AT_ONCE: usize = 256 << 10;
/// The same if it is copied: fits into the nearer caches with all its copies.
const COPIED_AT_ONCE: usize = 64 << 10;

/// How the bytes of one connection travel.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    pub(crate) mtu: usize,
    pub(crate) checksum_offload: bool,
    pub(crate) segmentation_offload: bool,
}

struct Pair {
    stacks: [Stack; 2],
    ends: [SocketAddr; 2],
    listener: ListenerId,
    packet: Vec<u8>,
    start: Clock,
    /// Time that was leapt over.
    leapt: Duration,
}

impl Pair {
    fn new(config: StackConfig) -> Self {
        let ends: [SocketAddr; 2] = [1, 2].map(|host| SocketAddr::from(([10, 0, 0, host], 80)));
        let mut stacks = ends.map(|end| {
            let mut host = Host::new();
            host.add_address(Device::new(1).expect("1 is a device"), end.ip(), Some(24));
            Stack::new(config, host, [1; 16])
        });
        let listener = stacks[1].listen(ends[1], 4096).expect("the port is free");
        Self {
            packet: vec![0; stacks[0].max_packet_len()],
            stacks,
            ends,
            listener,
            start: Clock::now(),
            leapt: Duration::ZERO,
        }
    }

    fn now(&self) -> Instant {
        Instant::START + self.start.elapsed().into() + self.leapt
    }

    fn connect(&mut self) -> ConnectionId {
        let from = SocketAddr::new(self.ends[0].ip(), 0);
        let now = self.now();
        self.stacks[0]
            .connect(now, from, self.ends[1])
            .expect("a port is free")
    }

    /// Carries packets both ways until there are none; says whether there were any.
    fn carry(&mut self) {
        let now = self.now();
        let mut quiet = 0;
        while quiet < 2 {
            for from in 0..2 {
                quiet += 1;
                while let Some(transmit) = self.stacks[from].poll_transmit(now, &mut self.packet) {
                    quiet = 0;
                    let (bytes, offload) = (&self.packet[..transmit.len], transmit.offload);
                    self.stacks[1 - from].handle_packet(now, Packet { bytes, offload });
                }
            }
        }
    }

    /// Lets timers fire and takes the events.
    fn settle(&mut self, now: Instant) {
        for stack in &mut self.stacks {
            stack.handle_timeout(now);
            while stack.poll_event().is_some() {}
        }
    }

    /// One connection, established: its handles on both sides.
    fn connection(&mut self) -> [ConnectionId; 2] {
        let client = self.connect();
        self.carry();
        let server = self.stacks[1]
            .accept(self.listener)
            .expect("the handshake is done");
        [client, server]
    }
}

fn config(way: Way) -> StackConfig {
    StackConfig {
        mtu: way.mtu,
        checksum_offload: way.checksum_offload,
        segmentation_offload: way.segmentation_offload,
        ..StackConfig::default()
    }
}

/// Bytes a second of one connection whose programs give and take references, as the peer's touch no byte. The
/// link carries headers and data apart, and so copies nothing either.
pub(crate) fn bulk(way: Way, length: Length) -> f64 {
    let mut pair = Pair::new(config(way));
    let [client, server] = pair.connection();
    let chunk = Bytes::from(vec![7; WRITTEN_AT_ONCE]);
    let mut measure = Measure::new(length);
    while measure.goes_on() {
        let now = pair.now();
        match pair.stacks[0].write_chunk(now, client, &mut chunk.clone()) {
            Ok(_) | Err(WriteError::WouldBlock) => {}
            Err(error) => panic!("{error}"),
        }
        let mut quiet = 0;
        while quiet < 2 {
            for from in 0..2 {
                quiet += 1;
                while let Some((transmit, data)) =
                    pair.stacks[from].poll_transmit_parts(now, &mut pair.packet)
                {
                    quiet = 0;
                    let headers = &pair.packet[..transmit.len];
                    pair.stacks[1 - from].handle_packet_parts(now, headers, &data, transmit.offload);
                }
            }
        }
        loop {
            match pair.stacks[1].read_chunk(now, server, usize::MAX) {
                Ok(data) => measure.add(data.len()),
                Err(ReadError::WouldBlock) => break,
                Err(error) => panic!("{error}"),
            }
        }
        pair.settle(now);
    }
    measure.rate()
}

/// The same with copies: the programs copy bytes in and out, and packets are written whole.
pub(crate) fn bulk_copied(way: Way, length: Length) -> f64 {
    let mut pair = Pair::new(config(way));
    let [client, server] = pair.connection();
    let mut chunk = vec![7; COPIED_AT_ONCE];
    let mut measure = Measure::new(length);
    while measure.goes_on() {
        let now = pair.now();
        match pair.stacks[0].write(now, client, &chunk) {
            Ok(_) | Err(WriteError::WouldBlock) => {}
            Err(error) => panic!("{error}"),
        }
        pair.carry();
        loop {
            match pair.stacks[1].read(now, server, &mut chunk) {
                Ok(len) => measure.add(len),
                Err(ReadError::WouldBlock) => break,
                Err(error) => panic!("{error}"),
            }
        }
        pair.settle(now);
    }
    measure.rate()
}

/// Datagrams of 64 bytes a second.
pub(crate) fn datagrams(length: Length) -> f64 {
    let mut pair = Pair::new(StackConfig::default());
    let ends = pair.ends.map(|end| SocketAddr::new(end.ip(), 5000));
    let [client, server] =
        [0, 1].map(|side| pair.stacks[side].bind_udp(ends[side]).expect("the port is free"));
    let (payload, mut out) = ([7; 64], [0; 64]);
    let mut measure = Measure::new(length);
    while measure.goes_on() {
        for _ in 0..64 {
            pair.stacks[0]
                .send_datagram(client, ends[0].ip(), ends[1], &payload)
                .expect("there is room for 64 datagrams");
        }
        pair.carry();
        while let Ok(Some(datagram)) = pair.stacks[1].receive_datagram(server, &mut out) {
            assert_eq!(datagram.len, 64);
            measure.add(1);
        }
        while pair.stacks[1].poll_event().is_some() {}
    }
    measure.rate()
}

/// Connections a second that are made, accepted and closed by both sides. 16 at a time; after 2,048 a minute
/// passes, so that the ports in TIME-WAIT come back.
pub(crate) fn connections(length: Length) -> f64 {
    let mut pair = Pair::new(StackConfig::default());
    let mut measure = Measure::new(length);
    let mut made = 0;
    while measure.goes_on() {
        let clients = [(); 16].map(|()| pair.connect());
        pair.carry();
        for client in clients {
            pair.stacks[0]
                .close(pair.now(), client)
                .expect("the connection was made");
        }
        pair.carry();
        while let Some(server) = pair.stacks[1].accept(pair.listener) {
            pair.stacks[1].close(pair.now(), server).expect("it was accepted");
            measure.add(1);
        }
        pair.carry();
        made += 16;
        if made % 2_048 == 0 {
            pair.leapt = pair.leapt + Duration::from_secs(61);
        }
        for side in 0..2 {
            let now = pair.now();
            pair.stacks[side].handle_timeout(now);
            while let Some(event) = pair.stacks[side].poll_event() {
                assert!(!matches!(
                    event,
                    Event::Closed(_, portolan_stack::CloseReason::Reset)
                ));
            }
        }
    }
    assert_eq!(pair.stacks.map(|stack| stack.connection_count()), [0, 0]);
    measure.rate()
}

/// Nanoseconds for an acknowledgment that says nothing new, to one of `count` established connections. They come 32
/// at a time, as a device has them.
pub(crate) fn segment_in(count: usize, length: Length) -> f64 {
    let mut pair = Pair::new(StackConfig {
        awake_connections: 2 * count,
        ..StackConfig::default()
    });
    let mut segments = Vec::new();
    for _ in 0..count {
        let [client, server] = pair.connection();
        while pair.stacks[1].poll_event().is_some() {}
        while pair.stacks[0].poll_event().is_some() {}
        // The acknowledgment of a byte, once it was taken, says nothing new.
        let now = pair.now();
        pair.stacks[1].write(now, server, &[1]).expect("there is room");
        let transmit = pair.stacks[1]
            .poll_transmit(now, &mut pair.packet)
            .expect("the byte goes");
        let (bytes, offload) = (&pair.packet[..transmit.len], transmit.offload);
        pair.stacks[0].handle_packet(now, Packet { bytes, offload });
        assert_eq!(pair.stacks[0].read(now, client, &mut [0; 2]), Ok(1));
        let transmit = pair.stacks[0]
            .poll_transmit(now, &mut pair.packet)
            .expect("it is acknowledged");
        let bytes = pair.packet[..transmit.len].to_vec();
        pair.stacks[1].handle_packet(
            now,
            Packet {
                bytes: &bytes,
                offload,
            },
        );
        segments.push(bytes);
    }
    // They come in an order that has nothing to do with that of the connections, one behind the other in memory as
    // in the ring of a device: what is measured is not how they got there.
    let len = segments[0].len();
    let mut ring = Vec::new();
    let mut place = 0;
    for _ in 0..count {
        place = (place + 7919) % count;
        assert_eq!(segments[place].len(), len);
        ring.extend_from_slice(&segments[place]);
    }
    let mut packets = ring.chunks_exact(len).cycle();
    let mut measure = Measure::new(length);
    let now = pair.now();
    while measure.goes_on() {
        for _ in 0..2 {
            let batch = [(); 32].map(|()| {
                let offload = portolan_stack::Offload::default();
                let bytes = packets.next().expect("the ring has no end");
                Packet { bytes, offload }
            });
            pair.stacks[1].handle_packets(now, &batch);
        }
        while pair.stacks[1].poll_transmit(now, &mut pair.packet).is_some() {}
        measure.add(64);
    }
    measure.nanos()
}
