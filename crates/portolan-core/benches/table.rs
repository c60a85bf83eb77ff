//! What the port table costs, with few sockets and with many, beside a bare hash map and smoltcp.
//!
//! `cargo bench -p portolan-core --bench table`; `PORTOLAN_FLOWS=1000000` for fewer than the ten million
//! connections of the look-up, which take about 1 GB.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use portolan_core::demux::{MAX_BATCH, Packet, Segment};
use portolan_core::table::{
    Accepted, Close, Device, Family, Host, Owner, PortChoice, PortTable, SocketId, Transport,
};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);

fn table() -> PortTable {
    let mut host = Host::new();
    let device = Device::new(1).expect("not 0");
    host.add_address(device, OWN.into(), Some(24));
    host.add_address(device, Ipv4Addr::new(10, 8, 0, 2).into(), Some(24));
    PortTable::new(host, *b"a secret to hash")
}

/// A listener on a port, with this many connections from random remotes.
fn server(connections: usize, port: u16) -> (PortTable, SocketId, Vec<SocketAddr>) {
    let mut table = table();
    let listener = table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
    let local = SocketAddr::new(OWN.into(), port);
    table
        .bind(listener, local, PortChoice::Any)
        .expect("nobody else is there");
    table
        .listen(listener, PortChoice::Any)
        .expect("nobody else is there");
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut remotes = Vec::with_capacity(connections);
    for _ in 0..connections {
        let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(random.random())), random.random());
        table
            .accept(
                listener,
                Accepted {
                    local,
                    remote,
                    device: None,
                },
            )
            .expect("the listener listens");
        remotes.push(remote);
    }
    (table, listener, remotes)
}

fn segment(source: SocketAddr, destination: SocketAddr) -> Packet {
    Packet {
        transport: Transport::Tcp,
        source,
        destination,
        device: None,
        segment: Segment::Other,
    }
}

/// One port with a thousand and with a million connections.
fn one_port(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one_port");
    group.measurement_time(Duration::from_secs(3));
    let local = SocketAddr::new(OWN.into(), 80);
    let beside = SocketAddr::new(Ipv4Addr::new(10, 8, 0, 2).into(), 80);
    for connections in [0, 1_000, 1_000_000] {
        let (mut table, listener, remotes) = server(connections, 80);
        group.bench_function(BenchmarkId::new("bind_release", connections), |bencher| {
            bencher.iter(|| {
                let id = table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
                table.bind(id, beside, PortChoice::Any).expect("another address");
                table.close(id, Close::Gone).expect("it was just made");
            });
        });
        group.bench_function(BenchmarkId::new("bind_refused", connections), |bencher| {
            let id = table.socket(Transport::Tcp, Family::Ipv6, Owner::ROOT);
            let wild = "[::]:80".parse().expect("a constant");
            bencher.iter(|| table.bind(id, wild, PortChoice::Any).expect_err("held"));
        });
        group.bench_function(BenchmarkId::new("accept_close", connections), |bencher| {
            let connection = Accepted {
                local,
                remote: "192.0.2.1:5".parse().expect("a constant"),
                device: None,
            };
            bencher.iter(|| {
                let id = table.accept(listener, connection).expect("it listens");
                table.close(id, Close::Gone).expect("it was just made");
            });
        });
        if connections > 0 {
            group.bench_function(BenchmarkId::new("look_up", connections), |bencher| {
                // The same thousand connections, so that this is the cost of the table and not of the
                // processor's caches, which no table of a million fits.
                let mut at = 0;
                bencher.iter(|| {
                    at = (at + 1) % 1_000;
                    table.deliver(black_box(&segment(remotes[at], local)))
                });
            });
        }
    }
    group.finish();
}

/// One of ten million random connections, against a bare hash map of the same keys.
fn many_flows(criterion: &mut Criterion) {
    let connections = std::env::var("PORTOLAN_FLOWS")
        .ok()
        .and_then(|number| number.parse().ok())
        .unwrap_or(10_000_000);
    let (table, _, mut remotes) = server(connections, 443);
    println!(
        "{connections} connections: {} bytes, {:.1} each",
        table.bytes(),
        table.bytes() as f64 / connections as f64
    );
    let local = SocketAddr::new(OWN.into(), 443);
    let key = |remote: SocketAddr| {
        let IpAddr::V4(address) = remote.ip() else {
            unreachable!("remotes are ipv4");
        };
        (OWN.to_bits(), address.to_bits(), local.port(), remote.port())
    };
    let bare: HashMap<(u32, u32, u16, u16), u32, FixedState> = (0..)
        .zip(&remotes)
        .map(|(value, &remote)| (key(remote), value))
        .collect();
    remotes.shuffle(&mut ChaCha8Rng::seed_from_u64(2));
    let mut group = criterion.benchmark_group("many_flows");
    group.measurement_time(Duration::from_secs(5));
    let mut at = 0;
    group.bench_function("hashbrown", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % remotes.len();
            bare.get(black_box(&key(remotes[at])))
        });
    });
    group.bench_function("portolan", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % remotes.len();
            table.deliver(black_box(&segment(remotes[at], local)))
        });
    });
    // A link that reads packets in batches: the time is that of one packet, as in the others.
    group.bench_function("portolan_batch", |bencher| {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        bencher.iter_custom(|packets| {
            let start = Instant::now();
            for _ in 0..packets.div_ceil(MAX_BATCH as u64) {
                batch.clear();
                for _ in 0..MAX_BATCH {
                    at = (at + 1) % remotes.len();
                    batch.push(segment(remotes[at], local));
                }
                table.deliver_batch(black_box(&batch), |_, delivery| {
                    black_box(delivery);
                });
            }
            let rounded = packets.next_multiple_of(MAX_BATCH as u64);
            start.elapsed().mul_f64(packets as f64 / rounded as f64)
        });
    });
    group.finish();
}

/// A segment for a port that nobody holds, with this many listeners.
fn beside_smoltcp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("listeners");
    for listeners in [10, 100, 1_000, 10_000] {
        let mut stack = smoltcp::Stack::new(listeners);
        group.bench_function(BenchmarkId::new("smoltcp", listeners), |bencher| {
            bencher.iter(|| stack.receive());
        });
        let mut table = table();
        for port in 1..=listeners {
            let id = table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
            table
                .bind(id, SocketAddr::new(OWN.into(), port), PortChoice::Any)
                .expect("a port of its own");
            table.listen(id, PortChoice::Any).expect("a port of its own");
        }
        let packet = Packet {
            segment: Segment::Syn,
            ..segment(
                "192.0.2.1:5".parse().expect("a constant"),
                SocketAddr::new(OWN.into(), 60_000),
            )
        };
        group.bench_function(BenchmarkId::new("portolan", listeners), |bencher| {
            bencher.iter(|| table.deliver(black_box(&packet)));
        });
    }
    group.finish();
}

/// smoltcp with many listeners, which looks at every socket for every packet.
mod smoltcp {
    use ::smoltcp::iface::{Config, Interface, SocketSet};
    use ::smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
    use ::smoltcp::socket::tcp;
    use ::smoltcp::time::Instant;
    use ::smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

    /// A SYN from 192.0.2.1:5 to 10.8.0.1:60000, checksums right.
    fn syn() -> Vec<u8> {
        let mut packet = vec![
            0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 10, 8, 0, 1,
        ];
        let header = !sum(&packet, 0);
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        let mut segment = vec![
            0, 5, 0xea, 0x60, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0,
        ];
        let pseudo = u32::from(sum(&packet[12..20], 6 + 20));
        let checksum = !sum(&segment, pseudo);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        packet.extend(segment);
        packet
    }

    fn sum(bytes: &[u8], start: u32) -> u16 {
        let total = bytes.chunks(2).fold(start, |sum, pair| {
            sum + u32::from(u16::from_be_bytes([pair[0], pair[1]]))
        });
        let folded = (total & 0xffff) + (total >> 16);
        ((folded & 0xffff) + (folded >> 16)) as u16
    }

    /// Gives one packet for every poll and takes what is sent.
    struct Wire {
        packet: Vec<u8>,
        pending: bool,
    }

    struct Arrived<'a>(&'a [u8]);
    struct Leaving;

    impl RxToken for Arrived<'_> {
        fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
            take(self.0)
        }
    }

    impl TxToken for Leaving {
        fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
            fill(&mut vec![0; length])
        }
    }

    impl Device for Wire {
        type RxToken<'a> = Arrived<'a>;
        type TxToken<'a> = Leaving;

        fn receive(&mut self, _: Instant) -> Option<(Arrived<'_>, Leaving)> {
            std::mem::take(&mut self.pending).then_some((Arrived(&self.packet), Leaving))
        }

        fn transmit(&mut self, _: Instant) -> Option<Leaving> {
            Some(Leaving)
        }

        fn capabilities(&self) -> DeviceCapabilities {
            let mut capabilities = DeviceCapabilities::default();
            capabilities.medium = Medium::Ip;
            capabilities.max_transmission_unit = 1500;
            capabilities
        }
    }

    pub(super) struct Stack {
        wire: Wire,
        interface: Interface,
        sockets: SocketSet<'static>,
    }

    impl Stack {
        pub(super) fn new(listeners: u16) -> Self {
            let mut wire = Wire {
                packet: syn(),
                pending: false,
            };
            let config = Config::new(HardwareAddress::Ip);
            let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
            interface.update_ip_addrs(|addresses| {
                addresses
                    .push(IpCidr::new(IpAddress::v4(10, 8, 0, 1), 24))
                    .expect("room for one");
            });
            let mut sockets = SocketSet::new(vec![]);
            for port in 1..=listeners {
                let buffer = || tcp::SocketBuffer::new(vec![0; 16]);
                let mut socket = tcp::Socket::new(buffer(), buffer());
                socket.listen(port).expect("a fresh socket");
                sockets.add(socket);
            }
            Self {
                wire,
                interface,
                sockets,
            }
        }

        /// One packet in. (`poll_ingress_single` looks at the sockets for the packet only.)
        pub(super) fn receive(&mut self) {
            self.wire.pending = true;
            self.interface
                .poll_ingress_single(Instant::ZERO, &mut self.wire, &mut self.sockets);
        }
    }
}

criterion_group!(benches, one_port, beside_smoltcp, many_flows);
criterion_main!(benches);
