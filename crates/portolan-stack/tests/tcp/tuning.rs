//! Buffers grow with what a connection carries, and with nothing else.

use portolan_stack::{ConnectionInfo, Duration, Instant, StackConfig, TcpConfig};

use crate::support::link::Impairment;
use crate::support::world::{Plan, World};

const FIRST: u32 = 64 << 10;

/// 100 Mbit/s and 200 ms: 2.5 MB are on their way when it is full.
const LONG_PATH: Impairment = Impairment {
    delay: Duration::from_millis(100),
    jitter: Duration::ZERO,
    reorder: 0,
    loss: 0,
    duplicate: 0,
    corrupt: 0,
    rate: 12_500_000,
    queue: 3_000_000,
};

/// End 0 sends `bytes` to end 1, whose program follows `reader`.
fn world(tcp: TcpConfig, bytes: u64, reader: Plan) -> World {
    let config = StackConfig {
        tcp,
        ..StackConfig::default()
    };
    let mut world = World::new(7, [config; 2], [LONG_PATH; 2], Instant::from_millis(1));
    world.listen(reader);
    world.connect(0, 4000, Plan::send(bytes));
    world
}

fn info(world: &World, end: usize) -> ConnectionInfo {
    let id = world.ends[end].conversations[0].id;
    world.ends[end].stack.info(id).expect("it is there")
}

fn read_by(world: &mut World, time: Duration) -> u64 {
    let before = world.ends[1].conversations.first().map_or(0, |one| one.read);
    world.run_for(time);
    world.ends[1].conversations[0].read - before
}

#[test]
fn a_fast_reader_fills_a_long_path() {
    for timestamps in [true, false] {
        let tcp = TcpConfig {
            timestamps,
            ..TcpConfig::default()
        };
        let mut world = world(tcp, 200_000_000, Plan::send(0));
        world.run_for(Duration::from_secs(4));
        let came = read_by(&mut world, Duration::from_secs(1));
        // What is left to data of 1,500 bytes.
        let rate = came as f64 / LONG_PATH.rate as f64;
        assert!(rate > 0.94, "{rate} of the path, timestamps: {timestamps}");
        let receiver = info(&world, 1);
        assert!(receiver.receive_window > 2_500_000, "{receiver:?}");
    }
}

#[test]
fn buffers_of_fixed_size_stay_and_hold_the_sender_back() {
    let tcp = TcpConfig {
        receive_buffer: 200_000,
        initial_receive_buffer: 200_000,
        ..TcpConfig::default()
    };
    let mut world = world(tcp, 100_000_000, Plan::send(0));
    world.run_for(Duration::from_secs(3));
    let came = read_by(&mut world, Duration::from_secs(2));
    // Ten windows.
    assert!((1_700_000..=2_000_000).contains(&came), "{came}");
}

#[test]
fn a_slow_reader_grows_no_buffer_and_takes_little_memory() {
    for timestamps in [true, false] {
        let tcp = TcpConfig {
            timestamps,
            ..TcpConfig::default()
        };
        // 20,000 bytes each second: in bursts, with pauses of many round trips between them.
        let reader = Plan {
            step: 20_000,
            read_pause: Duration::from_secs(1),
            ..Plan::send(0)
        };
        let mut world = world(tcp, 10_000_000, reader);
        world.run_for(Duration::from_secs(30));
        let receiver = info(&world, 1);
        let offered = receiver.receive_queue as u32 + receiver.receive_window;
        // Windows are told in units of 128 bytes, and never take back what was told.
        assert!(offered <= FIRST + 1024, "{offered} bytes: {receiver:?}");
        let memory = world.ends[1].stack.memory();
        assert!(memory < 200_000, "{memory} bytes");
        // The sender holds no more than twice its window.
        let sender = info(&world, 0);
        assert!(
            sender.send_queue as u32 <= (2 * sender.congestion_window).max(FIRST),
            "{sender:?}"
        );
    }
}

#[test]
fn a_peer_that_sends_little_grows_no_buffer() {
    let mut world = world(TcpConfig::default(), 30_000, Plan::send(0));
    world.run_for(Duration::from_secs(5));
    let before = info(&world, 1).receive_window;
    assert!(before <= FIRST, "{before}");
}

#[test]
fn a_short_budget_holds_growth_back() {
    const BUDGET: usize = 200_000;
    // The most that waited to be read, with what more was offered, and the most memory.
    let most = |memory: usize| {
        let config = StackConfig {
            memory,
            ..StackConfig::default()
        };
        let configs = [StackConfig::default(), config];
        let mut world = World::new(7, configs, [LONG_PATH; 2], Instant::from_millis(1));
        world.listen(Plan {
            step: 40_000,
            read_pause: Duration::from_millis(20),
            ..Plan::send(0)
        });
        world.connect(0, 4000, Plan::send(50_000_000));
        world.run_for(Duration::from_millis(400));
        let (mut buffer, mut bytes) = (0, 0);
        for _ in 0..100 {
            world.run_for(Duration::from_millis(100));
            let receiver = info(&world, 1);
            buffer = buffer.max(receiver.receive_queue as u32 + receiver.receive_window);
            bytes = bytes.max(world.ends[1].stack.memory());
        }
        assert!(world.ends[1].conversations[0].read > 1_000_000);
        (buffer, bytes)
    };
    let (free, _) = most(usize::MAX);
    assert!(free > 800_000, "{free}");
    let (short, bytes) = most(BUDGET);
    assert!(u64::from(short) * 3 < u64::from(free) * 2, "{short} of {free}");
    // What the program waits for comes in nevertheless: a few chunks.
    assert!(bytes < BUDGET + 16_384, "{bytes} bytes");
}

#[test]
fn a_send_buffer_follows_the_congestion_window() {
    let mut world = world(TcpConfig::default(), 200_000_000, Plan::send(0));
    let early = {
        world.run_for(Duration::from_millis(150));
        info(&world, 0)
    };
    assert!(early.send_queue as u32 <= FIRST, "{early:?}");
    world.run_for(Duration::from_secs(5));
    let late = info(&world, 0);
    assert!(
        late.send_queue > 2_500_000 && late.send_queue <= 4 << 20,
        "{late:?}"
    );
}
