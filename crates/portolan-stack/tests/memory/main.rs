//! What connections weigh, all in, by a counting allocator: handles, four-tuples, timers, and the free room that
//! growing leaves.

#[path = "../../examples/million/clients.rs"]
mod clients;
mod counting;
mod opened;
mod pressure;
mod time_wait;

use std::net::SocketAddrV4;

use clients::Clients;
use portolan_core::table::{Device, Host};
use portolan_stack::{ConnectionId, Duration, Event, Instant, ReadError, Stack, StackConfig, SynCookies};

/// Just beyond a power of two, every array that doubles has as much free room as it ever gets.
const JUST_DOUBLED: u32 = (1 << 15) + 1_000;

/// A server and its clients.
struct World {
    stack: Stack,
    clients: Clients,
    now: Instant,
    accepted: Vec<ConnectionId>,
    packet: Vec<u8>,
}

impl World {
    fn new(config: StackConfig, count: u32) -> Self {
        let mut host = Host::new();
        host.add_address(Device::new(1).unwrap(), "10.0.0.1".parse().unwrap(), Some(8));
        let mut stack = Stack::new(config, host, [9; 16]);
        let server: SocketAddrV4 = "10.0.0.1:80".parse().unwrap();
        stack.listen(server.into(), 4096).unwrap();
        let packet = vec![0; stack.max_packet_len()];
        Self {
            stack,
            clients: Clients::new(server, count as usize),
            now: Instant::from_millis(1),
            accepted: Vec::with_capacity(count as usize),
            packet,
        }
    }

    /// Lets the stack speak and the clients answer, until nobody has more to say.
    fn settle(&mut self) {
        self.clients.flush(&mut self.stack, self.now);
        while let Some(transmit) = self.stack.poll_transmit(self.now, &mut self.packet) {
            let packet = &self.packet[..transmit.len];
            self.clients.hear(&mut self.stack, self.now, packet);
            self.clients.flush(&mut self.stack, self.now);
        }
        while let Some(event) = self.stack.poll_event() {
            if let Event::Acceptable(listener) = event {
                while let Some(id) = self.stack.accept(listener) {
                    self.accepted.push(id);
                }
            }
        }
    }

    fn connect(&mut self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.clients.send_syn(&mut self.stack, self.now, number);
            self.settle();
            self.now += Duration::from_micros(10);
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.stack.poll_timeout().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.stack.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }
}

/// Of which those that are awake take no part: they are as many whatever the number of connections.
fn config() -> StackConfig {
    StackConfig {
        awake_connections: 16,
        ..StackConfig::default()
    }
}

#[test]
fn an_idle_connection_weighs_less_than_512_bytes() {
    for count in [50_000, JUST_DOUBLED] {
        let mut world = World::new(config(), count);
        let before = counting::held();
        world.connect(0..count);
        world.pass(Duration::from_secs(2));
        assert_eq!(world.stack.connection_count(), count as usize);
        let each = (counting::held() - before) as f64 / f64::from(count);
        println!("{count} idle connections: {each:.1} bytes each");
        assert!(each <= 512.0, "{each}");

        // After something was said they weigh the same.
        for number in 0..count {
            world
                .clients
                .send_request(&mut world.stack, world.now, number, b"hello");
            world.settle();
            let id = world.accepted[number as usize];
            let mut out = [0; 16];
            assert_eq!(world.stack.read(world.now, id, &mut out), Ok(5));
            assert_eq!(world.stack.write(world.now, id, b"welcome"), Ok(7));
            world.settle();
            assert_eq!(
                world.stack.read(world.now, id, &mut out),
                Err(ReadError::WouldBlock)
            );
            world.now += Duration::from_micros(10);
        }
        world.pass(Duration::from_secs(2));
        let each = (counting::held() - before) as f64 / f64::from(count);
        println!("{count} connections, idle again: {each:.1} bytes each");
        assert!(each <= 512.0, "{each}");
        assert_eq!(world.stack.buffered_bytes(), 0);
    }
}

/// Waking and falling asleep take boxes that are there.
#[test]
fn a_steady_exchange_allocates_nothing() {
    let count = 4_000;
    let mut world = World::new(config(), count);
    world.connect(0..count);
    world.pass(Duration::from_secs(2));
    let talk = |world: &mut World, numbers: std::ops::Range<u32>| {
        for number in numbers {
            world
                .clients
                .send_request(&mut world.stack, world.now, number, b"hello");
            world.settle();
            let id = world.accepted[number as usize];
            assert_eq!(world.stack.read(world.now, id, &mut [0; 16]), Ok(5));
            assert_eq!(world.stack.write(world.now, id, b"welcome"), Ok(7));
            world.settle();
        }
    };
    // Every box is used once.
    talk(&mut world, 0..3000);
    let before = counting::calls();
    talk(&mut world, 3000..4000);
    assert_eq!(counting::calls() - before, 0);
}

/// SYNs to this many ports, one more than the backlog each, have just made the table of half-open connections double.
const PORTS: u16 = 7;
const BACKLOG: u32 = 4096;

#[test]
fn a_half_open_connection_weighs_less_than_96_bytes_and_a_flood_nothing() {
    for syn_cookies in [SynCookies::Off, SynCookies::OnOverflow] {
        let config = StackConfig {
            syn_cookies,
            ..config()
        };
        let mut world = World::new(config, BACKLOG + 2);
        let servers: Vec<SocketAddrV4> = (81..81 + PORTS)
            .map(|port| SocketAddrV4::new([10, 0, 0, 1].into(), port))
            .collect();
        let mut clients: Vec<_> = servers
            .iter()
            .map(|&server| Clients::new(server, 2 * BACKLOG as usize))
            .collect();
        for server in servers {
            world.stack.listen(server.into(), BACKLOG as usize).unwrap();
        }
        let mut flood = |world: &mut World, numbers: std::ops::Range<u32>| {
            for number in numbers {
                for clients in &mut clients {
                    clients.send_syn(&mut world.stack, world.now, number);
                    clients.flush(&mut world.stack, world.now);
                    while world.stack.poll_transmit(world.now, &mut world.packet).is_some() {}
                }
            }
        };
        let before = counting::held();
        flood(&mut world, 0..BACKLOG + 1);
        let count = world.stack.half_open_count();
        assert_eq!(count, usize::from(PORTS) * (BACKLOG as usize + 1));
        let each = (counting::held() - before) as f64 / count as f64;
        println!("{count} half-open connections: {each:.1} bytes each");
        assert!(each <= 96.0, "{each}");
        assert_eq!(world.stack.connection_count(), 0);

        // The queues are full.
        flood(&mut world, BACKLOG + 1..BACKLOG + 2);
        let full = counting::held();
        flood(&mut world, BACKLOG + 2..2 * BACKLOG);
        assert_eq!(counting::held(), full, "a flood made something grow");
        assert_eq!(world.stack.half_open_count(), count);
        let counters = *world.stack.counters();
        let beyond = u64::from(PORTS) * u64::from(BACKLOG - 1);
        let (dropped, baked) = match syn_cookies {
            SynCookies::Off => (beyond, 0),
            _ => (0, beyond),
        };
        assert_eq!((counters.syns_dropped, counters.cookies_sent), (dropped, baked));
        assert_eq!(counters.answers_dropped, 0);

        // They are given up after a while, and so is their memory.
        while let Some(next) = world.stack.poll_timeout() {
            world.now = next;
            world.stack.handle_timeout(next);
            while world.stack.poll_transmit(world.now, &mut world.packet).is_some() {}
        }
        assert_eq!(world.stack.half_open_count(), 0);
        assert!(world.now >= Instant::from_millis(63_000), "{}", world.now);
        let left = counting::held().saturating_sub(before);
        println!("{left} bytes after the flood");
        assert!(left < 1 << 20, "{left}");
    }
}
