//! Fragments, one by one into the kernel and into a stack that has its address: both must do the same.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration as StdDuration;

use portolan_core::Port;
use portolan_core::table::{Device, Host};
use portolan_core::wire::{
    ChecksumFill, ExtensionRepr, Fragment, Icmpv4Packet, Icmpv6Packet, IpPacket, IpProtocol, Ipv4Repr,
    Ipv6Repr, PseudoHeader, UdpRepr,
};
use portolan_net::tun::{Offloads, RECV_BUFFER_LEN, Tun, TunConfig, TunQueue};
use portolan_stack::{Duration, Instant, Offload, Packet, Stack, StackConfig, UdpId};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::driver::{KERNEL, Running, STACK, Setup, address};
use crate::support::namespace::{has, in_namespace};
use crate::support::pattern;

const PORT: u16 = 4000;
const ROUNDS: u32 = 1500;
/// The last datagram of a round, whole: when it is there, everything before it was looked at.
const END: &[u8] = b"end";

/// What became of the fragments of a round.
#[derive(Debug, PartialEq, Default)]
struct Outcome {
    received: Vec<Vec<u8>>,
    /// Type, code and the four bytes behind the checksum of each ICMP error.
    errors: Vec<(u8, u8, [u8; 4])>,
}

/// Where a fragment lies in a datagram, and whether it says that more follow.
type Piece = (usize, usize, bool);

#[test]
fn fragments_fare_as_with_linux() {
    in_namespace("fragments::fragments_fare_as_with_linux", || {
        for (limit, value) in [
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv4/icmp_msgs_burst", "100000"),
            ("ipv4/icmp_msgs_per_sec", "100000"),
            ("ipv6/icmp/ratelimit", "0"),
        ] {
            if let Err(error) = fs::write(format!("/proc/sys/net/{limit}"), value) {
                println!("note: {limit} stays as it is: {error}");
            }
        }
        let config = TunConfig {
            offloads: Offloads::None,
            ..TunConfig::default()
        };
        let tun = Tun::open(&config).expect("a TUN device in a namespace of ours");
        for (family, prefix_len) in [(0, 24), (1, 64)] {
            tun.add_address(address(family, KERNEL, 0).ip(), prefix_len)
                .expect("an address");
        }
        tun.up(&config).expect("the interface comes up");
        let queue = tun.into_queues().remove(0);
        let seed = std::env::var("PORTOLAN_SEED").map_or_else(
            |_| rand::random(),
            |seed| seed.parse().expect("PORTOLAN_SEED is a number"),
        );
        println!("note: seed {seed}");
        for family in [0, 1] {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let socket = bind(family);
            let mut twin = Twin::new();
            let (mut whole, mut told) = (0, 0);
            for round in 0..ROUNDS {
                let (payload, pieces) = draw(&mut rng, family);
                let packets: Vec<_> = pieces
                    .iter()
                    .map(|&(start, end, more)| fragment(family, round, start, more, &payload[start..end]))
                    .collect();
                let kernel = ask_kernel(&queue, &socket, family, &packets);
                let ours = twin.ask(family, &packets);
                assert_eq!(
                    kernel,
                    ours,
                    "seed {seed}, IPv{} round {round}: {} bytes in {pieces:?}",
                    4 + 2 * family,
                    payload.len()
                );
                whole += usize::from(!kernel.received.is_empty());
                told += kernel.errors.len();
            }
            println!(
                "note: IPv{}: of {ROUNDS} datagrams {whole} arrived, {told} errors",
                4 + 2 * family
            );
            assert!(whole > ROUNDS as usize / 10, "too few arrive to compare anything");
            assert!(whole < ROUNDS as usize, "nothing went wrong");
        }
    });
}

/// Cut by the kernel and put together by the stack, and the other way round.
#[test]
fn long_datagrams_go_there_and_back() {
    in_namespace("fragments::long_datagrams_go_there_and_back", || {
        let running = start();
        for family in [0, 1] {
            let socket = bind(family);
            socket.connect(address(family, STACK, PORT)).expect("a route");
            let mut buffer = vec![0; 65_536];
            for len in [1473, 5000, 65_507] {
                socket.send(pattern::from(0, len)).expect("a route");
                let got = socket.recv(&mut buffer).expect("it comes back");
                assert_eq!(got as u64, len);
                assert_eq!(pattern::difference(0, &buffer[..got]), None);
            }
        }
        let counters = running.with(|world, _| *world.stack.counters());
        assert_eq!((counters.datagrams_reassembled, counters.malformed), (6, 0));
        assert!(counters.fragments_out > 90, "{counters:?}");
    });
}

#[test]
fn both_answer_each_others_echo_requests() {
    let test = "fragments::both_answer_each_others_echo_requests";
    in_namespace(test, || {
        let running = start();
        for family in [0, 1] {
            drop(bind(family));
            let remote = address(family, KERNEL, 0).ip();
            let local = address(family, STACK, 0).ip();
            let id = running.with(move |world, _| world.stack.bind_echo(local, 0).expect("one is free"));
            for (sequence, len) in [(1, 0), (2, 56), (3, 9000)] {
                let asked = running.with(move |world, _| {
                    let data = pattern::from(0, len);
                    world.stack.send_echo(id, local, remote, sequence, data)
                });
                assert_eq!(asked, Ok(()));
                let answer = (0..500).find_map(|_| {
                    std::thread::sleep(StdDuration::from_millis(10));
                    running.with(move |world, _| {
                        let mut out = vec![0; 10_000];
                        let echo = world.stack.receive_echo(id, &mut out).expect("it is open")?;
                        Some((echo.sequence, echo.remote, out[..echo.len].to_vec()))
                    })
                });
                let (got, from, data) = answer.expect("the kernel answers");
                assert_eq!((got, from, data.len() as u64), (sequence, remote, len));
                assert_eq!(pattern::difference(0, &data), None);
            }
        }
        if !has(test, "ping") {
            return;
        }
        for of in STACK {
            for size in ["56", "9000"] {
                let output = Command::new("ping")
                    .args(["-c", "2", "-i", "0.2", "-W", "5", "-s", size, of])
                    .output()
                    .expect("ping runs");
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(text.contains(" 0% packet loss"), "{text}");
            }
        }
    });
}

/// What is sent to a group reaches the member, and who left it no more.
#[test]
fn the_kernel_sends_to_a_group() {
    in_namespace("fragments::the_kernel_sends_to_a_group", || {
        let running = start();
        for (family, group) in [(0, "239.1.1.1"), (1, "ff15::1")] {
            let socket = bind(family);
            let group: IpAddr = group.parse().expect("an address");
            let any = if family == 0 { "0.0.0.0" } else { "::" };
            let local = SocketAddr::new(any.parse().expect("an address"), PORT + 1 + family as u16);
            let id = running.with(move |world, _| world.stack.bind_udp(local).expect("the port is free"));
            for (joins, expected) in [(None, 0), (Some(true), 1), (Some(false), 0)] {
                running.with(move |world, _| match joins {
                    Some(true) => world.stack.join_group(id, group).expect("it is no member"),
                    Some(false) => world.stack.leave_group(id, group).expect("it is a member"),
                    None => {}
                });
                if family == 0 {
                    let status = Command::new("ip")
                        .args(["route", "replace", "239.1.1.1", "dev", &running.tun_name])
                        .status();
                    assert!(status.is_ok_and(|status| status.success()));
                    socket
                        .send_to(b"all", (group, PORT + 1 + family as u16))
                        .expect("a route");
                } else {
                    let socket = socket2::SockRef::from(&socket);
                    let index = fs::read_to_string(format!("/sys/class/net/{}/ifindex", running.tun_name));
                    let index = index.ok().and_then(|text| text.trim().parse().ok());
                    socket
                        .set_multicast_if_v6(index.unwrap_or(2))
                        .expect("the device is there");
                    let to = SocketAddr::new(group, PORT + 1 + family as u16);
                    socket.send_to(b"all", &to.into()).expect("a route");
                }
                std::thread::sleep(StdDuration::from_millis(200));
                let got = running.with(move |world, _| {
                    let mut count = 0;
                    while let Ok(Some(_)) = world.stack.receive_datagram(id, &mut [0; 9]) {
                        count += 1;
                    }
                    count
                });
                assert_eq!(got, expected, "{group}");
            }
        }
    });
}

/// A stack that sends back every datagram to its port.
fn start() -> Running {
    let running = Running::start(Setup::default());
    running.with(|world, _| {
        for family in [0, 1] {
            world
                .stack
                .bind_udp(address(family, STACK, PORT))
                .expect("the port is free");
        }
        world.datagrams = Some(echo);
    });
    running
}

fn echo(stack: &mut Stack, _now: Instant, id: UdpId) {
    if stack.udp_local(id).is_none_or(|local| local.port() != PORT) {
        return;
    }
    let mut buffer = vec![0; 65_536];
    while let Ok(Some(datagram)) = stack.receive_datagram(id, &mut buffer) {
        let bytes = &buffer[..datagram.len];
        stack
            .send_datagram(id, datagram.local.ip(), datagram.remote, bytes)
            .expect("there is room");
    }
}

/// The kernel's socket; an IPv6 address is not there at once.
fn bind(family: usize) -> UdpSocket {
    let socket = (0..200).find_map(|_| {
        let bound = UdpSocket::bind(address(family, KERNEL, PORT));
        if bound.is_err() {
            std::thread::sleep(StdDuration::from_millis(20));
        }
        bound.ok()
    });
    let socket = socket.expect("the kernel has its address");
    socket
        .set_read_timeout(Some(StdDuration::from_secs(5)))
        .expect("a timeout");
    socket
}

/// A datagram, and fragments of it: a good cutting, most often with something wrong.
fn draw(rng: &mut ChaCha8Rng, family: usize) -> (Vec<u8>, Vec<Piece>) {
    let units = rng.random_range(1..12);
    let len = units * 8 + rng.random_range(0..8);
    let payload = datagram(family, len);
    let total = payload.len();
    let mut edges: Vec<usize> = (0..rng.random_range(0..5))
        .map(|_| rng.random_range(0..=total / 8) * 8)
        .collect();
    edges.extend([0, total]);
    edges.sort_unstable();
    edges.dedup();
    let mut pieces: Vec<Piece> = edges
        .windows(2)
        .map(|pair| (pair[0], pair[1], pair[1] < total))
        .collect();
    for _ in 0..rng.random_range(0..3) {
        let place = rng.random_range(0..pieces.len());
        let strange = match rng.random_range(0..4) {
            0 => pieces[place],
            1 => {
                let start = rng.random_range(0..=total / 8) * 8;
                let end = rng.random_range(start.min(total)..=total);
                (start.min(total) / 8 * 8, end, end < total)
            }
            2 => {
                let (start, end, more) = pieces[place];
                (start, end, !more)
            }
            _ => {
                let start = rng.random_range(0..=total / 8) * 8;
                (start, (start + 8).min(total), true)
            }
        };
        pieces.insert(rng.random_range(0..=pieces.len()), strange);
    }
    for _ in 0..rng.random_range(0..4) {
        let (one, other) = (
            rng.random_range(0..pieces.len()),
            rng.random_range(0..pieces.len()),
        );
        pieces.swap(one, other);
    }
    (payload, pieces)
}

/// A UDP datagram to the kernel, from port 9.
fn datagram(family: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    bytes.extend((0..len).map(|place| (place * 7) as u8));
    let header = UdpRepr {
        source_port: Port::new(9),
        destination_port: Port::new(PORT),
    };
    let pseudo = PseudoHeader::new(source(family), destination(family)).expect("one family");
    header
        .emit(&mut bytes, ChecksumFill::Complete(pseudo))
        .expect("it fits");
    bytes
}

fn source(family: usize) -> IpAddr {
    address(family, STACK, 0).ip()
}

fn destination(family: usize) -> IpAddr {
    address(family, KERNEL, 0).ip()
}

fn fragment(family: usize, identification: u32, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
    match (source(family), destination(family)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut packet = vec![0; 20];
            packet.extend(data);
            let header = Ipv4Repr {
                dscp: 0,
                ecn: 0,
                identification: identification as u16,
                dont_fragment: false,
                more_fragments: more,
                fragment_offset: offset as u16,
                time_to_live: 64,
                protocol: IpProtocol::UDP,
                source,
                destination,
                options: &[],
                payload_len: data.len(),
            };
            header.emit(&mut packet).expect("it fits");
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut packet = vec![0; 48];
            packet.extend(data);
            let fragment = Fragment {
                offset: offset as u16,
                more,
                identification,
            };
            ExtensionRepr::Fragment(fragment)
                .emit(IpProtocol::UDP, &mut packet[40..])
                .expect("it fits");
            let header = Ipv6Repr {
                dscp: 0,
                ecn: 0,
                flow_label: 0,
                next_header: IpProtocol::FRAGMENT,
                hop_limit: 64,
                source,
                destination,
                payload_len: 8 + data.len(),
            };
            header.emit(&mut packet).expect("it fits");
            packet
        }
        _ => unreachable!("both ends are of one family"),
    }
}

/// The last datagram, which is no fragment: without more, from 0, IPv4 has none and IPv6 an atomic one.
fn last(family: usize) -> Vec<u8> {
    let mut bytes = datagram(family, END.len());
    bytes[8..].copy_from_slice(END);
    let header = UdpRepr {
        source_port: Port::new(9),
        destination_port: Port::new(PORT),
    };
    let pseudo = PseudoHeader::new(source(family), destination(family)).expect("one family");
    header
        .emit(&mut bytes, ChecksumFill::Complete(pseudo))
        .expect("it fits");
    fragment(family, 0xFFFF, 0, false, &bytes)
}

fn ask_kernel(queue: &TunQueue, socket: &UdpSocket, family: usize, packets: &[Vec<u8>]) -> Outcome {
    for packet in packets.iter().chain([&last(family)]) {
        queue
            .send(packet, Offload::default())
            .expect("room in the device");
    }
    let mut outcome = Outcome::default();
    let mut buffer = vec![0; RECV_BUFFER_LEN];
    loop {
        let len = socket.recv(&mut buffer).expect("the last datagram comes");
        if buffer[..len] == *END {
            break;
        }
        outcome.received.push(buffer[..len].to_vec());
    }
    while let Ok(packet) = queue.recv(&mut buffer) {
        outcome.errors.extend(icmp_error(packet.bytes));
    }
    outcome
}

/// What an ICMP error says; other packets, such as router solicitations, say nothing here.
fn icmp_error(packet: &[u8]) -> Option<(u8, u8, [u8; 4])> {
    let ip = IpPacket::parse(packet).ok()?;
    let is_error = match ip.protocol() {
        IpProtocol::ICMP => Icmpv4Packet::parse(ip.payload()).ok()?.quoted().is_some(),
        IpProtocol::ICMPV6 => Icmpv6Packet::parse(ip.payload()).ok()?.quoted().is_some(),
        _ => false,
    };
    let &[kind, code, _, _, ref rest @ ..] = ip.payload().first_chunk::<8>()?;
    is_error.then_some((kind, code, *rest))
}

/// A stack that has the kernel's addresses.
struct Twin {
    stack: Stack,
    sockets: [UdpId; 2],
    now: Instant,
}

impl Twin {
    fn new() -> Self {
        let mut host = Host::new();
        let device = Device::new(1).expect("a device");
        for (family, prefix_len) in [(0, 24), (1, 64)] {
            host.add_address(device, destination(family), Some(prefix_len));
        }
        let mut stack = Stack::new(StackConfig::default(), host, [3; 16]);
        let sockets = [0, 1].map(|family| {
            stack
                .bind_udp(address(family, KERNEL, PORT))
                .expect("the port is free")
        });
        Self {
            stack,
            sockets,
            now: Instant::START,
        }
    }

    fn ask(&mut self, family: usize, packets: &[Vec<u8>]) -> Outcome {
        // The clock moves on, so that the limits of ICMP do not count; and what did not become whole is forgotten, as
        // it is of no consequence for other identifications.
        self.now += Duration::from_secs(100);
        self.stack.handle_timeout(self.now);
        let mut outcome = Outcome::default();
        let mut buffer = vec![0; 2000];
        while self.stack.poll_transmit(self.now, &mut buffer).is_some() {}
        for packet in packets {
            let packet = Packet {
                bytes: packet,
                offload: Offload::default(),
            };
            self.stack.handle_packet(self.now, packet);
            while let Some(transmit) = self.stack.poll_transmit(self.now, &mut buffer) {
                outcome.errors.extend(icmp_error(&buffer[..transmit.len]));
            }
        }
        while let Ok(Some(datagram)) = self.stack.receive_datagram(self.sockets[family], &mut buffer) {
            outcome.received.push(buffer[..datagram.len].to_vec());
        }
        outcome
    }
}
