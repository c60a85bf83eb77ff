//! The Internet checksum beside the loop that RFC 1071, section 4.1, shows.
//!
//! `cargo bench -p portolan-core --bench checksum`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use portolan_core::wire;

fn word_at_a_time(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u32::from(*last) << 8;
    }
    while sum > 0xFFFF {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }
    !(sum as u16)
}

fn benchmark(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    // A bare acknowledgment with its pseudo header, a full Ethernet segment, a segment of offload.
    for len in [40, 1_460, 65_483] {
        let bytes = (0..len).map(|place| (place * 7) as u8).collect::<Vec<_>>();
        assert_eq!(wire::checksum(&bytes), word_at_a_time(&bytes));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::new("portolan", len), &bytes, |b, bytes| {
            b.iter(|| wire::checksum(black_box(bytes)));
        });
        group.bench_with_input(BenchmarkId::new("word_at_a_time", len), &bytes, |b, bytes| {
            b.iter(|| word_at_a_time(black_box(bytes)));
        });
    }
    group.finish();
    c.bench_function("checksum/incremental_update", |b| {
        b.iter(|| wire::update_u32(black_box(0x1234), black_box(0x0A00_0001), black_box(0xC0A8_0001)));
    });
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
