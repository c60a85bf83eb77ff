//! The gateway under each attack: a fixed part of it in every run of the tests, and as much as is asked for by
//! `PORTOLAN_HOSTILE_FRAMES`.

use std::env;
use std::time::{Duration, Instant};

use portolan_net::link::Tap;
use portolan_net::{Stack, TcpStream, UdpSocket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use crate::attack::{Attack, Generator};
use crate::namespace::{HOST_V4, HOST_V6, in_namespace};
use crate::neighbour::{ECHO, NAME, NEIGHBOUR, Neighbour, question, serve_echoes};
use crate::record::Record;
use crate::resolver::serve_names;
use crate::watch::{Rules, Watch};
use crate::world::{Device, GATEWAY, INSIDE, World, addr};

/// Frames of each attack in an ordinary run, and between two looks at everybody else.
const FRAMES: u64 = 1_500;
const TURN: u64 = 500;
/// More than the gateway may ever hold more than before, in bytes.
const GROWTH: usize = 192 << 20;

#[test]
fn each_attack_over_tun() {
    in_namespace("siege::each_attack_over_tun", || {
        each_attack(Device::Tun, Rules::World)
    });
}

#[test]
fn each_attack_over_veth() {
    in_namespace("siege::each_attack_over_veth", || {
        each_attack(Device::Veth, Rules::World)
    });
}

#[test]
fn each_attack_where_little_is_allowed() {
    in_namespace("siege::each_attack_where_little_is_allowed", || {
        each_attack(Device::Tun, Rules::List)
    });
}

/// `PORTOLAN_HOSTILE_FRAMES` frames of all attacks mixed; `PORTOLAN_HOSTILE_SEED` repeats a run.
#[test]
fn all_attacks_at_once() {
    in_namespace("siege::all_attacks_at_once", || async {
        let number = |name: &str| {
            env::var(name)
                .ok()
                .map(|text| text.parse::<u64>().expect("a number"))
        };
        let frames = number("PORTOLAN_HOSTILE_FRAMES").unwrap_or(10 * FRAMES);
        let seed = number("PORTOLAN_HOSTILE_SEED").unwrap_or(1);
        let mut siege = Siege::new(Device::Tun, Rules::World, seed).await;
        let began = Instant::now();
        let mut told = Instant::now();
        for turn in 0..frames.div_ceil(TURN) {
            siege.turn(None).await;
            if turn % 50 == 49 {
                siege.neighbour.begins().await;
            }
            if told.elapsed() > Duration::from_secs(60) {
                told = Instant::now();
                eprintln!(
                    "{} frames after {:?}: {}",
                    (turn + 1) * TURN,
                    began.elapsed(),
                    siege.state()
                );
            }
        }
        let text = format!(
            "seed {seed}: {frames} frames in {:?}: {}",
            began.elapsed(),
            siege.state()
        );
        siege.end().await;
        println!("note: {text}");
    });
}

async fn each_attack(device: Device, rules: Rules) {
    let mut siege = Siege::new(device, rules, 1).await;
    for attack in Attack::ALL {
        for _ in 0..FRAMES / TURN {
            siege.turn(Some(attack)).await;
        }
        siege.neighbour.begins().await;
    }
    siege.end().await;
}

/// A gateway with a neighbour, a victim and an enemy before it, and watchers behind it.
struct Siege {
    world: World,
    neighbour: Neighbour,
    generator: Generator,
    record: Record,
    watch: Watch,
    held_before: usize,
    held_most: usize,
    sent: u64,
    victims: tokio::task::JoinSet<()>,
}

impl Siege {
    async fn new(device: Device, rules: Rules, seed: u64) -> Self {
        // So that the gateway may ping; where it may not, it refuses, which is a way to be tried too.
        let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0");
        let world = World::new(device, rules.policy()).await;
        serve_echoes().await;
        serve_names(seed).await;
        let watch = Watch::new(rules).await;
        let record = Record::default();
        let mut builder = Stack::builder();
        for ends in [INSIDE, NEIGHBOUR] {
            builder = builder
                .address(ends[0].parse::<std::net::IpAddr>().unwrap(), 24)
                .address(ends[1].parse::<std::net::IpAddr>().unwrap(), 64);
        }
        let (stack, driver) = builder
            .build(Tap::new(world.wire.link(), record.clone()))
            .unwrap();
        tokio::spawn(driver);
        let neighbour = Neighbour::new(&stack).await;
        let mut victims = tokio::task::JoinSet::new();
        for family in [0, 1] {
            victims.spawn(talk(stack.clone(), family));
            victims.spawn(ask(stack.clone(), family));
        }
        let held = world.held();
        Self {
            generator: Generator::new(seed, record.clone()),
            world,
            neighbour,
            record,
            watch,
            held_before: held,
            held_most: held,
            sent: 0,
            victims,
        }
    }

    /// Some frames of this attack, or of any; then everybody else must have moved on.
    async fn turn(&mut self, attack: Option<Attack>) {
        for _ in 0..TURN {
            let attack = attack.unwrap_or_else(|| self.generator.any_attack());
            let frame = self.generator.next(attack);
            self.world.wire.send(frame.header, &frame.packet).await;
            self.sent += 1;
        }
        self.neighbour.moves_on().await;
        self.watch.check();
        self.record.check();
        assert_eq!(crate::world::panics(), Vec::<String>::new(), "under {attack:?}");
        let held = self.world.held();
        self.held_most = self.held_most.max(held);
        assert!(
            held <= self.held_before + GROWTH,
            "{held} bytes under {attack:?}: {}",
            self.state()
        );
    }

    fn state(&self) -> String {
        let stack = self.world.gateway.stack().counters();
        let counted = stack
            .iter()
            .flat_map(|counters| counters.list())
            .filter(|&(_, count)| count > 0);
        format!(
            "{} frames sent, {} answered, {} flows, {:?}, {} KiB held, {} at most, echoes {:?}, the stack {:?}",
            self.sent,
            self.record.check(),
            self.world.gateway.flows().count(),
            self.world.gateway.outbound(),
            self.world.held() >> 10,
            self.held_most >> 10,
            self.neighbour.counts(),
            counted.collect::<Vec<_>>(),
        )
    }

    async fn end(mut self) {
        self.victims.shutdown().await;
        self.neighbour.begins().await;
        self.neighbour.moves_on().await;
        let counts = self.world.gateway.outbound();
        assert!(counts.denied > 0 && counts.dialled > 0, "{counts:?}");
        assert!(self.record.check() > 0);
        self.world.end();
        assert!(self.watch.end() > 0, "nothing was looked at");
    }
}

/// Connections and datagrams that may come to harm.
async fn talk(stack: Stack, family: usize) {
    let host = addr([HOST_V4, HOST_V6][family], ECHO);
    let local = addr(INSIDE[family], 0);
    loop {
        let talking = async {
            let mut stream = TcpStream::connect_from(&stack, local, host).await?;
            let mut bytes = vec![7; 10_000];
            for _ in 0..3 {
                stream.write_all(&bytes).await?;
                stream.read_exact(&mut bytes).await?;
            }
            stream.shutdown().await?;
            stream.read_to_end(&mut bytes).await
        };
        let _ = timeout(Duration::from_millis(300), talking).await;
        sleep(Duration::from_millis(5)).await;
    }
}

async fn ask(stack: Stack, family: usize) {
    let server = addr(GATEWAY[family], 53);
    let host = addr([HOST_V4, HOST_V6][family], ECHO);
    loop {
        if let Ok(socket) = UdpSocket::bind(&stack, addr(INSIDE[family], 0)) {
            let mut buffer = [0; 1_500];
            for (to, bytes) in [
                (server, question(1, NAME, 1)),
                (server, question(2, "x.example", 28)),
                (host, vec![1; 900]),
            ] {
                let _ = socket.send_to(&bytes, to).await;
                let _ = timeout(Duration::from_millis(100), socket.recv_from(&mut buffer)).await;
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
}
