//! What a look-up in the registry costs, each way, and what it takes to read a services file.
//!
//! `cargo bench -p portolan-core --bench registry`

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use portolan_core::registry::{Glob, Services};
use portolan_core::{Port, Protocol};

fn lookups(criterion: &mut Criterion) {
    let services = Services::built_in();
    let local = Services::with_overrides(b"intranet 8443/tcp\nhttps 443/tcp\n");

    // Every port once a round, so that caches and branch predictors do not learn one answer.
    let mut group = criterion.benchmark_group("by number");
    group.throughput(Throughput::Elements(65_536));
    for (name, services) in [("built in", &services), ("with /etc/services", &local)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for port in 0..=u16::MAX {
                    black_box(services.name(Port::new(port), black_box(Protocol::Tcp)));
                }
            });
        });
    }
    group.finish();

    let names: Vec<&str> = services.all().filter_map(|entry| entry.name()).collect();
    let mut group = criterion.benchmark_group("by name");
    group.throughput(Throughput::Elements(names.len() as u64));
    for (name, services) in [("built in", &services), ("with /etc/services", &local)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for name in &names {
                    black_box(services.ports(black_box(name), Protocol::Tcp));
                }
            });
        });
    }
    group.finish();

    criterion.bench_function("glob *sql? over all names", |bencher| {
        let glob = Glob::new("*sql?").expect("a pattern");
        bencher.iter(|| services.search(black_box(glob)).count());
    });
    criterion.bench_function("names like postgrseql", |bencher| {
        bencher.iter(|| services.similar(black_box("postgrseql"), 3));
    });
}

criterion_group!(benches, lookups);
criterion_main!(benches);
