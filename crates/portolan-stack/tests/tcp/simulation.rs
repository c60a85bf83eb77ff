//! Two stacks over links that lose, reorder, duplicate, corrupt and delay, under virtual time, from seeds.
//!
//! `PORTOLAN_SIMULATIONS=COUNT` runs that many seeds instead of the usual few, from `PORTOLAN_SEED` on, and says
//! how many segments arrived. A failure prints its seed; both variables repeat it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use portolan_stack::{CongestionControl, Duration, Instant, StackConfig, TcpConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::link::Impairment;
use crate::support::world::{Plan, World};

const USUAL: u64 = 60;

#[test]
fn random_worlds_deliver_every_byte_and_close() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let count = number("PORTOLAN_SIMULATIONS").unwrap_or(USUAL);
    let first = number("PORTOLAN_SEED").unwrap_or(0);
    let mut segments = 0;
    for seed in first..first + count {
        match catch_unwind(AssertUnwindSafe(|| random_world(seed))) {
            Ok(arrived) => segments += arrived,
            Err(panic) => {
                eprintln!("seed {seed} failed: PORTOLAN_SEED={seed} PORTOLAN_SIMULATIONS=1 repeats it");
                resume_unwind(panic);
            }
        }
    }
    println!("{count} worlds from seed {first}: {segments} segments arrived");
}

/// One world with everything at random; gives the number of segments that arrived.
fn random_world(seed: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let bytes = |rng: &mut ChaCha8Rng| match rng.random_range(0..4) {
        0 => 0,
        1 => rng.random_range(0..2000),
        _ => rng.random_range(0..60_000),
    };
    let configs = [random_config(&mut rng), random_config(&mut rng)];
    let mut impairments = [random_impairment(&mut rng), random_impairment(&mut rng)];
    if configs.iter().any(|config| config.tcp.receive_buffer < 2000) {
        // One segment at a time and a fifth lost both ways: an acknowledgment that was lost comes with the peer's
        // retransmission, so each side measures the other's timeout as its round-trip time, and both grow to
        // the limit (RFC 6298 has no remedy). It ends, after hours.
        for impairment in &mut impairments {
            impairment.loss = impairment.loss.min(50);
            impairment.corrupt = impairment.corrupt.min(10);
        }
    }
    let [client, server] = [random_plan(&mut rng), random_plan(&mut rng)];
    let (client, server) = (
        Plan {
            bytes: bytes(&mut rng),
            ..client
        },
        Plan {
            bytes: bytes(&mut rng),
            // Both waiting for the other would be a deadlock of the programs.
            finish_last: server.finish_last && !client.finish_last,
            ..server
        },
    );
    let start = Instant::from_millis(rng.random_range(0..20_000_000));
    let mut world = World::new(seed, configs, impairments, start);
    world.cuts_segments = rng.random();
    let wanted = [server.bytes, client.bytes];
    world.listen(server);
    world.connect(0, 0, client);
    assert!(
        world.run(Duration::from_secs(3600)),
        "stalled: {:#?}",
        world.state()
    );
    for (end, wanted) in world.ends.iter().zip(wanted) {
        let conversation = &end.conversations[0];
        assert_eq!((conversation.error, conversation.read), (None, wanted));
    }
    close_all(&mut world);
    world.segments
}

/// Lets go of everything, waits, and finds nothing left.
fn close_all(world: &mut World) {
    let now = world.now;
    for end in &mut world.ends {
        for conversation in std::mem::take(&mut end.conversations) {
            end.stack.close(now, conversation.id).unwrap();
        }
    }
    world.run_for(Duration::from_secs(1200));
    for end in &world.ends {
        assert_eq!(end.stack.connection_count(), 0, "{:#?}", end.stack.counters());
        assert_eq!(end.stack.buffered_bytes(), 0);
        assert_eq!(end.stack.table().flow_count(), 0);
        assert_eq!(end.stack.poll_timeout(), None);
    }
}

fn random_config(rng: &mut ChaCha8Rng) -> StackConfig {
    StackConfig {
        mtu: *pick(rng, &[576, 1280, 1500, 1500, 9000, 65_535]),
        segmentation_offload: rng.random_ratio(1, 3),
        // Whole super-segments keep their partial checksum: what the link corrupts then would pass.
        checksum_offload: false,
        tcp: TcpConfig {
            send_buffer: *pick(rng, &[1000, 10_000, 65_536, 1 << 20]),
            receive_buffer: *pick(rng, &[100, 2000, 20_000, 65_536, 1 << 20]),
            congestion_control: *pick(rng, &[CongestionControl::Cubic, CongestionControl::NewReno]),
            sack: rng.random_ratio(3, 4),
            timestamps: rng.random_ratio(3, 4),
            window_scaling: rng.random_ratio(3, 4),
            ecn: rng.random_ratio(1, 2),
            no_delay: rng.random_ratio(1, 2),
            pacing: rng.random_ratio(1, 4),
            // Programs may wait long for each other here; nobody gives up.
            syn_retries: 30,
            retries: 200,
            ..TcpConfig::default()
        },
        ..StackConfig::default()
    }
}

fn random_impairment(rng: &mut ChaCha8Rng) -> Impairment {
    let rate = *pick(rng, &[0, 0, 100_000, 10_000_000]);
    Impairment {
        delay: Duration::from_micros(rng.random_range(1..100_000)),
        jitter: Duration::from_micros(rng.random_range(0..50_000)),
        reorder: *pick(rng, &[0, 0, 10, 300]),
        loss: *pick(rng, &[0, 0, 10, 50, 200]),
        duplicate: *pick(rng, &[0, 0, 10, 200]),
        corrupt: *pick(rng, &[0, 0, 10, 50]),
        rate,
        queue: rng.random_range(70_000..200_000),
    }
}

fn random_plan(rng: &mut ChaCha8Rng) -> Plan {
    Plan {
        bytes: 0,
        step: *pick(rng, &[1, 100, 1460, 16_384, 100_000]).max(&100),
        read_pause: *pick(
            rng,
            &[
                Duration::ZERO,
                Duration::ZERO,
                Duration::ZERO,
                Duration::from_millis(30),
            ],
        ),
        finish_last: rng.random_ratio(1, 3),
    }
}

fn pick<'a, T>(rng: &mut ChaCha8Rng, choices: &'a [T]) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}
