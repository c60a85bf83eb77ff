//! What gives way when memory is short, in its order, and what is counted.

use std::net::SocketAddr;

use portolan_core::table::{Device, Host};
use portolan_core::wire::{Ipv4Packet, TcpFlags, TcpSegment};
use portolan_stack::{
    CloseReason, ConnectionId, Duration, Event, Instant, Packet, ReadError, Stack, StackConfig, TcpConfig,
    WriteError,
};

const SERVER: &str = "10.0.0.1:80";
const CLIENT: &str = "10.0.0.2:0";

/// A server with little memory, and a client with all it wants.
struct Pair {
    server: Stack,
    client: Stack,
    now: Instant,
    /// The largest window that the server has offered to data, since it was last looked at.
    offered: u32,
    packet: Vec<u8>,
}

impl Pair {
    fn new(memory: usize) -> Self {
        let stack = |end: &str, memory| {
            let end: SocketAddr = end.parse().unwrap();
            let mut host = Host::new();
            host.add_address(Device::new(1).unwrap(), end.ip(), Some(24));
            // Windows of 1 MiB at once, which must be held back.
            let tcp = TcpConfig {
                send_buffer: 1 << 20,
                initial_send_buffer: 1 << 20,
                receive_buffer: 1 << 20,
                initial_receive_buffer: 1 << 20,
                ..TcpConfig::default()
            };
            let config = StackConfig {
                tcp,
                memory,
                pool_bytes: 0,
                awake_connections: 4,
                ..StackConfig::default()
            };
            Stack::new(config, host, [4; 16])
        };
        Self {
            server: stack(SERVER, memory),
            client: stack(CLIENT, usize::MAX),
            now: Instant::from_millis(1),
            offered: 0,
            packet: vec![0; 1500],
        }
    }

    fn connect(&mut self) -> ConnectionId {
        let (local, remote) = (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
        self.client.connect(self.now, local, remote).unwrap()
    }

    fn settle(&mut self) {
        loop {
            let mut is_quiet = true;
            while let Some(transmit) = self.server.poll_transmit(self.now, &mut self.packet) {
                is_quiet = false;
                let (bytes, offload) = (&self.packet[..transmit.len], transmit.offload);
                let ip = Ipv4Packet::parse(bytes).unwrap();
                let segment = TcpSegment::parse(ip.payload()).unwrap();
                if !segment.flags().contains(TcpFlags::SYN) {
                    // A buffer of 1 MiB is named with a shift of 5.
                    self.offered = self.offered.max(u32::from(segment.window()) << 5);
                }
                self.client.handle_packet(self.now, Packet { bytes, offload });
            }
            while let Some(transmit) = self.client.poll_transmit(self.now, &mut self.packet) {
                is_quiet = false;
                let (bytes, offload) = (&self.packet[..transmit.len], transmit.offload);
                self.server.handle_packet(self.now, Packet { bytes, offload });
            }
            if is_quiet {
                return;
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 10 {
            self.now += Duration::from_millis(10);
            self.server.handle_timeout(self.now);
            self.client.handle_timeout(self.now);
            self.settle();
        }
    }
}

/// Clients send without end, and the server's program reads nothing: its buffers stay within the budget, windows
/// open no further, and when the program reads at last every byte is there.
#[test]
fn windows_shrink_then_data_is_dropped_and_all_comes_in_the_end() {
    const BUDGET: usize = 2 << 20;
    const EACH: usize = 200_000;
    let mut pair = Pair::new(BUDGET);
    let listener = pair.server.listen(SERVER.parse().unwrap(), 64).unwrap();
    let clients: Vec<_> = (0..40).map(|_| pair.connect()).collect();
    pair.settle();
    let servers: Vec<_> = std::iter::from_fn(|| pair.server.accept(listener)).collect();
    assert_eq!(servers.len(), clients.len());
    let mut written = vec![0; clients.len()];
    let data: Vec<u8> = (0..EACH).map(|place| (place % 251) as u8).collect();
    let mut write = |pair: &mut Pair| {
        for (&id, written) in clients.iter().zip(&mut written) {
            match pair.client.write(pair.now, id, &data[*written..]) {
                Ok(len) => *written += len,
                Err(WriteError::WouldBlock) => {}
                Err(error) => panic!("{error}"),
            }
        }
        pair.settle();
    };
    for _ in 0..20 {
        write(&mut pair);
        pair.pass(200);
        // Each connection may take what its program waits for beyond the budget.
        let beyond = clients.len() * 8192;
        assert!(
            pair.server.memory() <= BUDGET + beyond,
            "{}",
            pair.server.memory()
        );
    }
    assert!(pair.server.counters().data_refused > 0);
    // What was offered before is not taken back, but nobody new is offered more than a SYN-ACK does.
    pair.pass(1000);
    pair.offered = 0;
    let late = pair.connect();
    pair.settle();
    pair.client.write(pair.now, late, &data).unwrap();
    pair.settle();
    assert!(pair.offered <= 65_535, "{} offered", pair.offered);
    pair.client.abort(pair.now, late).unwrap();

    let mut read = vec![0; servers.len()];
    let mut out = vec![0; 4096];
    for _ in 0..2000 {
        write(&mut pair);
        for (&id, read) in servers.iter().zip(&mut read) {
            match pair.server.read(pair.now, id, &mut out) {
                Ok(len) => {
                    assert_eq!(&out[..len], &data[*read..*read + len]);
                    *read += len;
                }
                Err(ReadError::WouldBlock) => {}
                Err(error) => panic!("{error}"),
            }
        }
        pair.settle();
        pair.pass(20);
        if read.iter().all(|&len| len == EACH) {
            break;
        }
    }
    assert!(read.iter().all(|&len| len == EACH), "{read:?}");
    assert_eq!(pair.server.buffered_bytes(), 0);
}

/// A server that closes first keeps TIME-WAIT, as long as there is memory for it; when even that is not enough, it
/// takes no more.
#[test]
fn time_wait_gives_way_and_then_syns_are_refused() {
    let mut pair = Pair::new(usize::MAX);
    let listener = pair.server.listen(SERVER.parse().unwrap(), 64).unwrap();
    let round = |pair: &mut Pair| {
        let id = pair.connect();
        pair.settle();
        let Some(server) = pair.server.accept(listener) else {
            pair.client.abort(pair.now, id).unwrap();
            pair.client.close(pair.now, id).unwrap();
            return false;
        };
        pair.server.close(pair.now, server).unwrap();
        pair.settle();
        pair.client.close(pair.now, id).unwrap();
        pair.settle();
        while let Some(event) = pair.client.poll_event() {
            assert!(!matches!(event, Event::Closed(_, CloseReason::Reset)));
        }
        pair.now += Duration::from_micros(100);
        true
    };
    for _ in 0..2000 {
        assert!(round(&mut pair));
    }
    // Beside the listener.
    assert_eq!(pair.server.sockets().count(), 2001);
    let unlimited = pair.server.memory();

    let mut pair = Pair::new(unlimited / 2);
    let listener_again = pair.server.listen(SERVER.parse().unwrap(), 64).unwrap();
    assert_eq!(listener_again, listener);
    for _ in 0..2000 {
        assert!(round(&mut pair));
        // An array that doubles may go beyond, once.
        let (memory, budget) = (pair.server.memory(), unlimited / 2);
        assert!(memory <= budget / 8 * 9, "{memory} of {budget}");
    }
    let counters = *pair.server.counters();
    assert!(counters.time_waits_evicted > 500, "{counters:?}");
    assert_eq!(counters.syns_refused, 0);

    // Connections that live give way to nobody.
    let mut pair = Pair::new(unlimited);
    pair.server.listen(SERVER.parse().unwrap(), 64).unwrap();
    let mut taken = 0;
    for _ in 0..4000 {
        pair.connect();
        pair.settle();
        taken += usize::from(pair.server.accept(listener).is_some());
    }
    let counters = *pair.server.counters();
    assert!(
        counters.syns_refused > 0 && taken > 100,
        "{taken} taken, {counters:?}"
    );
    assert!(
        pair.server.memory() <= unlimited * 9 / 8,
        "{} of {}",
        pair.server.memory(),
        unlimited
    );
}
