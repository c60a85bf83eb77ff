//! Two stacks over links that lose, reorder, duplicate, corrupt and delay, under virtual time, from seeds.
//!
//! `PORTOLAN_SIMULATIONS=COUNT` runs that many seeds instead of the usual few, from `PORTOLAN_SEED` on, and says
//! how many segments arrived. A failure prints its seed; both variables repeat it.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use portolan_core::wire::{IpPacket, TcpSegment};
use portolan_stack::{CongestionControl, Duration, Instant, StackConfig, TcpConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::link::Impairment;
use crate::support::world::{Plan, World};

const USUAL: u64 = 60;
/// Seconds of the world's time.
const LONGEST: u64 = 3 * 3600;
/// Not an automatic one: choosing those makes a table of counters, for every world anew.
const CLIENT_PORT: u16 = 4000;

#[test]
fn random_worlds_deliver_every_byte_and_close() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let count = number("PORTOLAN_SIMULATIONS").unwrap_or(USUAL);
    let first = number("PORTOLAN_SEED").unwrap_or(0);
    let (mut segments, mut given_up) = (0, 0);
    for seed in first..first + count {
        match catch_unwind(AssertUnwindSafe(|| random_world(seed))) {
            Ok(world) => {
                segments += world.segments;
                given_up += u64::from(world.was_given_up);
            }
            Err(panic) => {
                eprintln!("seed {seed} failed: PORTOLAN_SEED={seed} PORTOLAN_SIMULATIONS=1 repeats it");
                resume_unwind(panic);
            }
        }
    }
    println!(
        "{count} worlds from seed {first}: {segments} segments arrived; {given_up} servers gave the handshake up"
    );
    assert!(given_up <= 1 + count / 1000, "that many are no bad luck");
}

/// What became of a world.
struct Outcome {
    /// How many segments arrived.
    segments: u64,
    /// The server repeated its answer to the SYN as often as it does, and heard nothing: a client with nothing to say
    /// then waits for ever, as with every TCP that has no keepalive.
    was_given_up: bool,
}

/// One world with everything at random.
fn random_world(seed: u64) -> Outcome {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let bytes = |rng: &mut ChaCha8Rng| match rng.random_range(0..8) {
        0 => 0,
        1 | 2 => rng.random_range(0..2000),
        3 => rng.random_range(0..400_000),
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
    let mut client = Plan {
        bytes: bytes(&mut rng),
        ..client
    };
    let mut server = Plan {
        bytes: bytes(&mut rng),
        // Both waiting for the other would be a deadlock of the programs.
        finish_last: server.finish_last && !client.finish_last,
        ..server
    };
    let steps = [client.step, server.step];
    let pauses = [client.read_pause, server.read_pause];
    for (plan, reader) in [(&mut client, 1), (&mut server, 0)] {
        // What is written or read by single bytes, or read with pauses, makes a long story of many bytes.
        if steps.contains(&1) {
            plan.bytes = plan.bytes.min(2000);
        }
        if pauses[reader] > Duration::ZERO {
            // As much as windows of 100 bytes let through in an hour.
            let turns = 3600 / (1 + pauses[reader].as_millis() / 100);
            plan.bytes = plan.bytes.min(turns * steps[reader].min(100) as u64 / 4);
        }
    }
    let addresses: [IpAddr; 2] = if rng.random() {
        [1, 2].map(|number| IpAddr::from([10, 0, 0, number]))
    } else {
        [1, 2].map(|number| IpAddr::from([0xFD00, 0, 0, 0, 0, 0, 0, number]))
    };
    let make = |start| World::between(addresses, seed, configs, impairments, start);
    let start = Instant::from_millis(rng.random_range(0..20_000_000));
    let start = if rng.random_ratio(1, 4) {
        // The client's numbers wrap at once: they follow the clock, a number each four microseconds.
        let ticks = 0xFFFF_FF00u32.wrapping_sub(initial_number(&mut make(start), start));
        start + Duration::from_micros(u64::from(ticks) * 4)
    } else {
        start
    };
    let mut world = make(start);
    world.cuts_segments = rng.random();
    if rng.random_ratio(1, 8) {
        // Simultaneous open; with as much to say on both sides, or nothing, most often a simultaneous close too.
        server.finish_last = false;
        if rng.random() {
            (client.bytes, server.bytes) = (client.bytes.min(server.bytes), client.bytes.min(server.bytes));
            (client.finish_last, server.finish_last) = (false, false);
        }
        world.connect(0, 80, client.clone());
        world.connect(1, 80, server.clone());
    } else {
        world.listen(server.clone());
        world.connect(0, CLIENT_PORT, client.clone());
    }
    let wanted = [server.bytes, client.bytes];
    let is_done = world.run(Duration::from_secs(LONGEST));
    let server = &world.ends[1];
    if !is_done
        && server.listener.is_some()
        && server.conversations.is_empty()
        && server.stack.half_open_count() == 0
    {
        return Outcome {
            segments: world.segments,
            was_given_up: true,
        };
    }
    assert!(is_done, "stalled: {:#?}", world.state());
    for (end, wanted) in world.ends.iter().zip(wanted) {
        let conversation = &end.conversations[0];
        assert_eq!((conversation.error, conversation.read), (None, wanted));
    }
    close_all(&mut world);
    Outcome {
        segments: world.segments,
        was_given_up: false,
    }
}

/// The sequence number of the SYN that the client would begin with.
fn initial_number(world: &mut World, start: Instant) -> u32 {
    world.connect(0, CLIENT_PORT, Plan::send(0));
    let mut packet = vec![0; 65_535];
    let stack = &mut world.ends[0].stack;
    let transmit = stack
        .poll_transmit(start, &mut packet)
        .expect("a SYN goes at once");
    let ip = IpPacket::parse(&packet[..transmit.len]).expect("the stack writes whole packets");
    TcpSegment::parse(ip.payload()).expect("it is a SYN").seq().get()
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
        // With none, a connection sleeps whenever it is quiet.
        awake_connections: *pick(rng, &[0, 0, 4096]),
        tcp: TcpConfig {
            send_buffer: *pick(rng, &[1000, 10_000, 65_536, 1 << 20]),
            initial_send_buffer: *pick(rng, &[1, 4000, 65_536, 1 << 20]),
            receive_buffer: *pick(rng, &[100, 2000, 20_000, 65_536, 1 << 20]),
            initial_receive_buffer: *pick(rng, &[2000, 20_000, 65_536, 1 << 20]),
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
        step: *pick(rng, &[1, 100, 100, 1460, 1460, 16_384, 16_384, 100_000]),
        read_pause: *pick(
            rng,
            &[
                Duration::ZERO,
                Duration::ZERO,
                Duration::ZERO,
                Duration::ZERO,
                Duration::ZERO,
                Duration::ZERO,
                Duration::from_millis(30),
                Duration::from_secs(5),
            ],
        ),
        finish_last: rng.random_ratio(1, 3),
    }
}

fn pick<'a, T>(rng: &mut ChaCha8Rng, choices: &'a [T]) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}
