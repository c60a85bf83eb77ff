//! What a decision costs: rules by address, by port, by both, and a walk over all of them beside it.
//!
//! `cargo bench -p portolan-core --bench filter`

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use portolan_core::filter::{Action, Chain, Packet, Rule};
use portolan_core::{Port, PortRange, PortSet, Protocol};

fn host(number: u32) -> IpAddr {
    IpAddr::V4((0x0A00_0000 + number).into())
}

fn port(number: u16) -> PortSet {
    PortRange::single(Port::new(number)).into()
}

/// An allow-list of `count` pairs of host and port, or of hosts, or of ports.
fn rule(shape: &str, number: u32, count: u32) -> Rule {
    let rule = Rule::new(Action::Accept).protocol(Protocol::Tcp);
    let side = count.isqrt().max(1);
    match shape {
        "hosts" => rule.to(host(number)),
        "ports" => rule.to(host(0)).to_ports(port(number as u16)),
        _ => rule
            .to(host(number % side))
            .to_ports(port((number / side) as u16)),
    }
}

fn packets(shape: &str, count: u32) -> Vec<Packet> {
    let side = count.isqrt().max(1);
    let numbers = (0..1024u32).map(|step| step.wrapping_mul(2_654_435_761) % count.max(1));
    let destination = |number: u32| match shape {
        "hosts" => SocketAddr::new(host(number), 443),
        "ports" => SocketAddr::new(host(0), number as u16),
        _ => SocketAddr::new(host(number % side), (number / side) as u16),
    };
    let source = SocketAddr::from(([192, 0, 2, 1], 5000));
    numbers
        .map(|number| Packet::new(Protocol::Tcp, source, destination(number)))
        .collect()
}

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("filter");
    for shape in ["hosts", "ports", "pairs"] {
        for count in [10u32, 10_000] {
            let chain = Chain::new((0..count).map(|number| rule(shape, number, count)), Action::Drop);
            let packets = packets(shape, count);
            let mut next = 0;
            group.bench_function(BenchmarkId::new(shape, count), |b| {
                b.iter(|| {
                    next = (next + 1) % packets.len();
                    black_box(chain.decide(&packets[next]))
                });
            });
            if count == 10_000 {
                group.bench_function(BenchmarkId::new(format!("{shape}, walked"), count), |b| {
                    b.iter(|| {
                        next = (next + 1) % packets.len();
                        let packet = &packets[next];
                        black_box(chain.rules().iter().position(|rule| rule.matches(packet)))
                    });
                });
                group.sample_size(10).bench_function(
                    BenchmarkId::new(format!("{shape}, made"), count),
                    |b| {
                        b.iter(|| Chain::new(chain.rules().iter().cloned(), Action::Drop));
                    },
                );
                group.sample_size(100);
            }
        }
    }
    group.finish();
}

criterion_group!(benches, decide);
criterion_main!(benches);
