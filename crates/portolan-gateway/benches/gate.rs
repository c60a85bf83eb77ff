//! What a decision about a new flow costs, with few rules and with many. Packets of a flow that is there cost nothing here.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use portolan_gateway::gate::{FlowProtocol, Gate, HostFacts, Policy};

/// Destinations that are asked for in turn.
const DESTINATIONS: u32 = 256;

/// Rules for as many addresses, prefixes and ports of them, the asked ones spread among them.
fn addresses(rules: u32) -> Gate {
    let mut policy = Policy::default();
    for number in 0..rules {
        let target = match number % 4 {
            0 => format!("{}:443", address(number * 7919)),
            1 => format!("{}/24:80-89", address(number * 7919)),
            2 => format!("{}/20", address(number * 7919)),
            _ => format!("[2001:db8:{:x}::/48]:443/both", number % 0x1_0000),
        };
        policy.allow(target.parse().expect("it is a target"));
    }
    policy.allow("10.0.0.0/8:443".parse().expect("it is a target"));
    Gate::new(policy, HostFacts::default())
}

/// Rules for as many names, of which the last is asked for.
fn names(rules: u32) -> Gate {
    let mut policy = Policy::default();
    for number in 0..rules {
        let name = if number % 2 == 0 {
            format!("n{number}.example:443")
        } else {
            format!("*.n{number}.example:443")
        };
        policy.allow(name.parse().expect("it is a target"));
    }
    policy.allow("a.example:443".parse().expect("it is a target"));
    let gate = Gate::new(policy, HostFacts::default());
    for number in 0..DESTINATIONS {
        let told = gate.answered(
            "a.example",
            &[(destination(number).ip(), Duration::from_secs(3_600))],
        );
        assert_eq!(told.len(), 1);
    }
    gate
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from((172 << 24) + number % (1 << 24)).into()
}

fn destination(number: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from((10 << 24) + number).into(), 443)
}

fn ask(c: &mut Criterion) {
    let mut group = c.benchmark_group("ask");
    for (kind, gate) in [("addresses", addresses as fn(u32) -> Gate), ("names", names)] {
        for rules in [10, 10_000] {
            let gate = gate(rules);
            let mut number = 0;
            group.bench_function(BenchmarkId::new(kind, rules), |bencher| {
                bencher.iter(|| {
                    number = (number + 1) % DESTINATIONS;
                    let pass = gate.ask(FlowProtocol::Tcp, black_box(destination(number)));
                    assert!(pass.is_ok());
                    pass
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, ask);
criterion_main!(benches);
