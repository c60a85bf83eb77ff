//! Two stacks and a connection between them, packet by packet.

use portolan_core::table::{Device, Host};
use portolan_core::wire::{IpPacket, TcpSegment};
use portolan_stack::{ConnectionId, Duration, Instant, Packet, Stack, StackConfig, TcpConfig};

/// How long a packet takes.
const DELAY: Duration = Duration::from_millis(5);

pub(crate) struct Pair {
    pub(crate) a: Stack,
    b: Stack,
    pub(crate) client: ConnectionId,
    pub(crate) now: Instant,
    /// What `a` has sent and `b` has not got.
    on_the_way: Vec<Vec<u8>>,
}

impl Pair {
    /// `a` behaves by `tcp` and is connected to `b`.
    pub(crate) fn new(tcp: TcpConfig) -> Self {
        let stack = |address: &str, tcp| {
            let mut host = Host::new();
            host.add_address(Device::new(1).unwrap(), address.parse().unwrap(), Some(24));
            let config = StackConfig {
                tcp,
                ..StackConfig::default()
            };
            Stack::new(config, host, [5; 16])
        };
        let (mut a, mut b) = (stack("10.0.0.1", tcp), stack("10.0.0.2", TcpConfig::default()));
        let now = Instant::from_millis(1_000_000);
        b.listen("10.0.0.2:80".parse().unwrap(), 1).unwrap();
        let client = a
            .connect(now, "10.0.0.1:0".parse().unwrap(), "10.0.0.2:80".parse().unwrap())
            .unwrap();
        let on_the_way = Vec::new();
        let mut pair = Self {
            a,
            b,
            client,
            now,
            on_the_way,
        };
        for _ in 0..3 {
            pair.settle();
        }
        pair
    }

    /// Takes what `a` sends; gives how many bytes of data each packet has.
    pub(crate) fn payloads_of_a(&mut self) -> Vec<usize> {
        let packets = drain(&mut self.a, self.now);
        let lens = packets.iter().map(|packet| {
            let ip = IpPacket::parse(packet).unwrap();
            TcpSegment::parse(ip.payload()).unwrap().payload().len()
        });
        let lens = lens.collect();
        self.on_the_way.extend(packets);
        lens
    }

    /// Lets both sides hear each other once.
    pub(crate) fn settle(&mut self) {
        self.payloads_of_a();
        self.now += DELAY;
        for packet in self.on_the_way.drain(..) {
            hand(&mut self.b, self.now, &packet);
        }
        self.b.handle_timeout(self.now);
        let answers = drain(&mut self.b, self.now);
        self.now += DELAY;
        for packet in answers {
            hand(&mut self.a, self.now, &packet);
        }
        self.a.handle_timeout(self.now);
    }

    /// Lets time pass until `a` sends something of its own.
    pub(crate) fn run_until_a_sends(&mut self) {
        while self.payloads_of_a().is_empty() {
            self.now = self.a.poll_timeout().expect("a timer runs");
            self.a.handle_timeout(self.now);
        }
    }

    /// Drops what `a` sends.
    pub(crate) fn lose_everything_of_a(&mut self) {
        drain(&mut self.a, self.now);
    }
}

fn drain(stack: &mut Stack, now: Instant) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; stack.max_packet_len()];
    let mut packets = Vec::new();
    while let Some(transmit) = stack.poll_transmit(now, &mut buffer) {
        packets.push(buffer[..transmit.len].to_vec());
    }
    packets
}

fn hand(stack: &mut Stack, now: Instant, bytes: &[u8]) {
    let offload = portolan_stack::Offload::default();
    stack.handle_packet(now, Packet { bytes, offload });
}
