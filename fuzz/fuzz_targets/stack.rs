//! Scripts of calls, packets and times at two stacks on one link: nothing panics, what arrives is what was
//! written while nobody changed it.
#![no_main]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use portolan_core::table::{Device, Host};
use portolan_stack::{
    ConnectionId, Duration, Event, Instant, Offload, Packet, PacketChecksum, Stack, StackConfig, TcpConfig,
};

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Write(bool, u16),
    Read(bool, u16),
    Finish(bool),
    Abort(bool),
    Close(bool),
    /// Lets packets go, and as many of them arrive.
    Carry(bool, u8),
    Lose(bool),
    Repeat(bool),
    /// The last packet arrives first.
    Overtake(bool),
    /// A packet arrives with some bytes changed, and its checksums are believed.
    Change(bool, u8, u8),
    Any(bool, &'a [u8]),
    Wait(u16),
}

#[derive(Arbitrary, Debug)]
struct Script<'a> {
    is_v6: bool,
    segmentation_offload: bool,
    sack: bool,
    timestamps: bool,
    receive_buffer: u16,
    awake: bool,
    opens_both: bool,
    steps: Vec<Step<'a>>,
}

struct Side {
    stack: Stack,
    connection: Option<ConnectionId>,
    sent: VecDeque<(Vec<u8>, Offload)>,
    written: u64,
    read: u64,
}

fuzz_target!(|script: Script<'_>| {
    let config = StackConfig {
        segmentation_offload: script.segmentation_offload,
        awake_connections: if script.awake { 16 } else { 0 },
        tcp: TcpConfig {
            sack: script.sack,
            timestamps: script.timestamps,
            receive_buffer: usize::from(script.receive_buffer) + 1,
            ..TcpConfig::default()
        },
        ..StackConfig::default()
    };
    let ends = [1, 2].map(|number| {
        let v6 = IpAddr::from([0xFD00, 0, 0, 0, 0, 0, 0, u16::from(number)]);
        let address = if script.is_v6 { v6 } else { IpAddr::from([10, 0, 0, number]) };
        SocketAddr::new(address, 80)
    });
    let mut now = Instant::START;
    let mut sides = ends.map(|end| {
        let mut host = Host::new();
        let prefix = if end.is_ipv4() { 24 } else { 64 };
        host.add_address(Device::new(1).expect("1 is not 0"), end.ip(), Some(prefix));
        Side {
            stack: Stack::new(config, host, [1; 16]),
            connection: None,
            sent: VecDeque::new(),
            written: 0,
            read: 0,
        }
    });
    sides[0].connection = sides[0].stack.connect(now, ends[0], ends[1]).ok();
    let listener = if script.opens_both {
        sides[1].connection = sides[1].stack.connect(now, ends[1], ends[0]).ok();
        None
    } else {
        sides[1].stack.listen(ends[1], 4).ok()
    };
    let mut is_honest = true;
    let mut buffer = vec![0; 65_535];
    for step in script.steps {
        match step {
            Step::Write(side, len) => {
                let side = &mut sides[usize::from(side)];
                let bytes: Vec<u8> = (side.written..side.written + u64::from(len)).map(byte).collect();
                if let Some(id) = side.connection
                    && let Ok(len) = side.stack.write(now, id, &bytes)
                {
                    side.written += len as u64;
                }
            }
            Step::Read(side, len) => {
                let side = &mut sides[usize::from(side)];
                let mut bytes = vec![0; usize::from(len)];
                if let Some(id) = side.connection
                    && let Ok(len) = side.stack.read(now, id, &mut bytes)
                {
                    for (place, got) in (side.read..).zip(&bytes[..len]) {
                        assert!(!is_honest || *got == byte(place), "byte {place}");
                    }
                    side.read += len as u64;
                }
            }
            Step::Finish(side) => {
                let side = &mut sides[usize::from(side)];
                let _ = side.connection.map(|id| side.stack.finish(now, id));
            }
            Step::Abort(side) => {
                let side = &mut sides[usize::from(side)];
                let _ = side.connection.map(|id| side.stack.abort(now, id));
            }
            Step::Close(side) => {
                let side = &mut sides[usize::from(side)];
                let _ = side.connection.take().map(|id| side.stack.close(now, id));
            }
            Step::Carry(side, count) => {
                let from = usize::from(side);
                for _ in 0..count {
                    let Some((bytes, offload)) = sides[from].sent.pop_front() else { break };
                    handle(&mut sides[1 - from], now, &bytes, offload);
                }
            }
            Step::Lose(side) => drop(sides[usize::from(side)].sent.pop_front()),
            Step::Repeat(side) => {
                let sent = &mut sides[usize::from(side)].sent;
                sent.extend(sent.front().cloned());
            }
            Step::Overtake(side) => {
                let sent = &mut sides[usize::from(side)].sent;
                if let Some(last) = sent.pop_back() {
                    sent.push_front(last);
                }
            }
            Step::Change(side, place, value) => {
                is_honest = false;
                let from = usize::from(side);
                if let Some((mut bytes, offload)) = sides[from].sent.pop_front() {
                    let place = usize::from(place) % bytes.len();
                    bytes[place] = value;
                    let offload = Offload { checksum: PacketChecksum::Verified, ..offload };
                    handle(&mut sides[1 - from], now, &bytes, offload);
                }
            }
            Step::Any(side, bytes) => {
                is_honest = false;
                handle(&mut sides[usize::from(side)], now, bytes, Offload::default());
            }
            Step::Wait(millis) => {
                now += Duration::from_millis(millis.into());
                for side in &mut sides {
                    side.stack.handle_timeout(now);
                }
            }
        }
        for side in &mut sides {
            follow(side, now, &mut buffer);
        }
        if let Some(id) = listener.and_then(|listener| sides[1].stack.accept(listener)) {
            sides[1].connection = Some(id);
        }
    }
    for side in &mut sides {
        let _ = side.connection.take().map(|id| side.stack.abort(now, id));
        let _ = side.stack.poll_transmit(now, &mut buffer);
    }
});

/// Keeps what the stack sends, as far as a link would, and takes its events.
fn follow(side: &mut Side, now: Instant, buffer: &mut [u8]) {
    while let Some(transmit) = side.stack.poll_transmit(now, buffer) {
        if side.sent.len() < 256 {
            side.sent.push_back((buffer[..transmit.len].to_vec(), transmit.offload));
        }
    }
    while let Some(event) = side.stack.poll_event() {
        if let Event::Closed(..) = event {
            assert!(side.stack.buffered_bytes() <= 8 << 20);
        }
    }
}

fn handle(side: &mut Side, now: Instant, bytes: &[u8], offload: Offload) {
    side.stack.handle_packet(now, Packet { bytes, offload });
}

/// The byte at this place of either stream.
fn byte(place: u64) -> u8 {
    (place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}
