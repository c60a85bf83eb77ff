//! Simulated worlds with one thing in mind each.

use portolan_stack::{CongestionControl, Duration, Event, Instant, Stack, StackConfig, TcpConfig};

use crate::support::link::Impairment;
use crate::support::world::{Plan, World};

fn path(rtt_millis: u64) -> Impairment {
    Impairment {
        delay: Duration::from_micros(rtt_millis * 500),
        ..Impairment::default()
    }
}

fn world(seed: u64, tcp: TcpConfig, impairment: Impairment) -> World {
    let config = StackConfig {
        tcp,
        ..StackConfig::default()
    };
    World::new(seed, [config; 2], [impairment; 2], Instant::from_millis(1))
}

/// Runs to the end and checks that every byte came.
fn finish(world: &mut World, wanted: [u64; 2]) {
    assert!(world.run(Duration::from_secs(600)), "{:#?}", world.state());
    for (end, wanted) in world.ends.iter().zip(wanted) {
        for conversation in &end.conversations {
            assert_eq!((conversation.error, conversation.read), (None, wanted));
        }
    }
}

#[test]
fn streams_cross_the_wrap_of_sequence_numbers() {
    // Initial sequence numbers follow the clock: find the time at which the client's is 256 before the wrap.
    let config = StackConfig::default();
    let probe = |start: Instant| {
        let mut world = World::new(5, [config; 2], [path(20); 2], start);
        world.connect(0, 4000, Plan::send(0));
        let mut packet = vec![0; 1500];
        let transmit = world.ends[0].stack.poll_transmit(start, &mut packet).unwrap();
        assert!(transmit.len >= 40);
        u32::from_be_bytes([packet[24], packet[25], packet[26], packet[27]])
    };
    let start = Instant::from_millis(0);
    let ticks = 0xFFFF_FF00u32.wrapping_sub(probe(start));
    let start = start + Duration::from_micros(u64::from(ticks) * 4);
    assert_eq!(probe(start), 0xFFFF_FF00);
    let impairment = Impairment {
        loss: 20,
        reorder: 50,
        jitter: Duration::from_millis(3),
        ..path(20)
    };
    let mut world = World::new(5, [config; 2], [impairment; 2], start);
    world.listen(Plan::send(100_000));
    world.connect(0, 4000, Plan::send(100_000));
    finish(&mut world, [100_000, 100_000]);
}

#[test]
fn two_stacks_open_to_each_other_at_once() {
    let mut world = world(1, TcpConfig::default(), path(20));
    let first = world.connect(0, 80, Plan::send(30_000));
    let second = world.connect(1, 80, Plan::send(20_000));
    finish(&mut world, [20_000, 30_000]);
    for (end, id) in [(0, first), (1, second)] {
        assert!(
            world.events.contains(&(end, Event::Connected(id))),
            "{:?}",
            world.events
        );
    }
}

#[test]
fn a_stack_connects_to_itself_by_one_socket() {
    // As Linux does: a SYN that comes back to its own four-tuple is a simultaneous open with oneself.
    let mut world = world(1, TcpConfig::default(), path(20));
    let stack: &mut Stack = &mut world.ends[0].stack;
    let now = Instant::from_millis(1);
    let own = "10.0.0.1:4000".parse().unwrap();
    let id = stack.connect(now, own, own).unwrap();
    assert_eq!(stack.write(now, id, b"echo"), Ok(4));
    let mut packet = vec![0; 1500];
    while let Some(transmit) = stack.poll_transmit(now, &mut packet) {
        let (bytes, offload) = (&packet[..transmit.len], transmit.offload);
        stack.handle_packet(now, portolan_stack::Packet { bytes, offload });
    }
    let mut out = [0; 10];
    assert_eq!(stack.read(now, id, &mut out), Ok(4));
    assert_eq!(&out[..4], b"echo");
}

#[test]
fn one_byte_windows_pass_everything() {
    let tiny = TcpConfig {
        receive_buffer: 1,
        ..TcpConfig::default()
    };
    let mut world = world(2, tiny, path(2));
    world.listen(Plan::send(50));
    world.connect(0, 0, Plan::send(50));
    finish(&mut world, [50, 50]);
}

#[test]
fn half_of_a_connection_lives_on() {
    let mut world = world(3, TcpConfig::default(), path(10));
    // The client is done at once; the server begins to finish only then, and has more to say.
    world.listen(Plan {
        finish_last: true,
        ..Plan::send(200_000)
    });
    world.connect(0, 0, Plan::send(10));
    finish(&mut world, [200_000, 10]);
}

#[test]
fn offloads_change_what_the_link_carries_and_not_what_arrives() {
    let lossy = Impairment { loss: 10, ..path(10) };
    for (whole, checksum_offload, cuts_segments) in [
        (false, true, true),
        (true, false, true),
        (true, true, true),
        (true, true, false),
    ] {
        let config = StackConfig {
            segmentation_offload: whole,
            checksum_offload,
            ..StackConfig::default()
        };
        let mut world = World::new(8, [config; 2], [lossy; 2], Instant::from_millis(1));
        world.cuts_segments = cuts_segments;
        world.listen(Plan::send(100_000));
        world.connect(0, 0, Plan::send(500_000));
        finish(&mut world, [100_000, 500_000]);
        let carried = world.segments;
        println!(
            "super-segments {whole}, partial checksums {checksum_offload}, cut {cuts_segments}: {carried}"
        );
        assert_eq!(carried < 300, whole && !cuts_segments, "{carried} packets");
    }
}

#[test]
fn many_connections_share_a_bad_link() {
    let bad = Impairment {
        loss: 30,
        duplicate: 20,
        reorder: 100,
        jitter: Duration::from_millis(5),
        corrupt: 10,
        rate: 2_000_000,
        queue: 50_000,
        ..path(30)
    };
    let mut world = world(4, TcpConfig::default(), bad);
    world.listen(Plan::send(3_000));
    for _ in 0..100 {
        world.connect(0, 0, Plan::send(5_000));
    }
    finish(&mut world, [3_000, 5_000]);
    assert_eq!(world.ends[1].conversations.len(), 100);
}

/// Bytes that one end sends to the other in a second, over 2 MB.
fn goodput(tcp: TcpConfig, impairment: Impairment) -> f64 {
    const BYTES: u64 = 2_000_000;
    let mut world = world(7, tcp, impairment);
    let start = world.now;
    world.listen(Plan::send(0));
    world.connect(0, 0, Plan::send(BYTES));
    finish(&mut world, [0, BYTES]);
    BYTES as f64 / (world.now.since(start).as_nanos() as f64 / 1e9)
}

#[test]
fn a_path_is_filled() {
    let bottleneck = Impairment {
        rate: 1_250_000,
        queue: 62_500,
        ..path(50)
    };
    for congestion_control in [CongestionControl::Cubic, CongestionControl::NewReno] {
        for pacing in [false, true] {
            let tcp = TcpConfig {
                congestion_control,
                pacing,
                ..TcpConfig::default()
            };
            let share = goodput(tcp, bottleneck) / 1_250_000.0;
            println!(
                "10 Mbit/s, 50 ms, {congestion_control:?}, pacing {pacing}: {:.0} %",
                share * 100.0
            );
            // Headers take 3.5 %; the rest is the start and the end.
            assert!(share > 0.75, "{congestion_control:?}, pacing {pacing}: {share}");
        }
    }
}

#[test]
fn losses_cost_what_they_must() {
    // Mathis, Semke, Mahdavi, Ott (1997): 1.22 * MSS / (RTT * sqrt(p)) is what NewReno gets.
    let lossy = Impairment {
        loss: 10,
        rate: 12_500_000,
        queue: 125_000,
        ..path(20)
    };
    let model = 1.22 * 1448.0 / (0.02 * 0.1);
    for (congestion_control, sack) in [
        (CongestionControl::Cubic, true),
        (CongestionControl::NewReno, true),
        (CongestionControl::NewReno, false),
    ] {
        let tcp = TcpConfig {
            congestion_control,
            sack,
            ..TcpConfig::default()
        };
        let share = goodput(tcp, lossy) / model;
        println!(
            "1 % loss, 20 ms, {congestion_control:?}, SACK {sack}: {:.0} % of the model",
            share * 100.0
        );
        assert!(
            share > if sack { 0.8 } else { 0.5 },
            "{congestion_control:?}, SACK {sack}: {share}"
        );
    }
}

#[test]
fn reordering_alone_does_not_slow_a_path_down_much() {
    let reordered = Impairment {
        rate: 1_250_000,
        queue: 62_500,
        reorder: 50,
        jitter: Duration::from_millis(5),
        ..path(50)
    };
    let share = goodput(TcpConfig::default(), reordered) / 1_250_000.0;
    println!(
        "10 Mbit/s, 50 ms, 5 % reordered by up to 5 ms: {:.0} %",
        share * 100.0
    );
    assert!(share > 0.7, "{share}");
}
