//! Millions of connections to one port of one stack, made by real handshakes, and a request and a reply over each of
//! a million of them chosen at random.
//!
//! `cargo run --release --example million -- [--connections 10000000] [--requests 1000000]`
//!
//! The clients are worked out packet by packet and hold 4 bytes for each connection; all else that the process holds
//! is the stack's. Checksums are computed and checked on both sides.

mod clients;

use std::error::Error;
use std::net::SocketAddrV4;
use std::time::Instant as Clock;

use clients::Clients;
use portolan_core::table::{Device, Host};
use portolan_stack::{Event, Instant, ReadError, Stack, StackConfig};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const REPLY: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
/// How many handshakes or requests are under way at once.
const AT_ONCE: u32 = 1024;

const HELP: &str = "million [--connections 1000000] [--requests 1000000]
Opens connections to one port of one stack by real handshakes, then sends a request and a reply over some of them.";

fn main() -> Result<(), Box<dyn Error>> {
    let (mut connections, mut requests) = (1_000_000, 1_000_000);
    let arguments = std::env::args_os().skip(1);
    let arguments: Vec<String> = arguments
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if matches!(&arguments[..], [flag] if flag == "--help" || flag == "-h") {
        println!("{HELP}");
        return Ok(());
    }
    for pair in arguments.chunks(2) {
        match (pair[0].as_str(), pair.get(1).map(|value| value.parse())) {
            ("--connections", Some(Ok(number @ 1..))) => connections = number,
            ("--requests", Some(Ok(number))) => requests = number,
            _ => {
                eprintln!("million: {:?} is no argument; --help tells more", pair.join(" "));
                std::process::exit(2);
            }
        }
    }
    requests = requests.min(connections);

    let mut world = World::new(connections)?;
    let before = resident_bytes();
    let start = Clock::now();
    for first in (0..connections).step_by(AT_ONCE as usize) {
        let end = first.saturating_add(AT_ONCE).min(connections);
        for number in first..end {
            let now = world.now();
            world.clients.send_syn(&mut world.stack, now, number);
        }
        world.settle()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let count = world.stack.connection_count();
    if count != connections as usize {
        return Err(format!("{count} of {connections} connections are established").into());
    }
    println!(
        "{count} connections in {seconds:.1} s: {:.0} handshakes/s",
        f64::from(connections) / seconds
    );
    world.report(before, connections);

    let mut random = ChaCha8Rng::seed_from_u64(1);
    let chosen = rand::seq::index::sample(&mut random, connections as usize, requests as usize);
    let chosen: Vec<u32> = chosen.into_iter().map(|number| number as u32).collect();
    let start = Clock::now();
    for numbers in chosen.chunks(AT_ONCE as usize) {
        for &number in numbers {
            let now = world.now();
            world.clients.send_request(&mut world.stack, now, number, REQUEST);
        }
        world.settle()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    if (world.requests, world.replies) != (requests, requests) {
        return Err(format!(
            "{} requests and {} replies of {requests}",
            world.requests, world.replies
        )
        .into());
    }
    println!(
        "{requests} requests and replies in {seconds:.1} s: {:.0} requests/s",
        f64::from(requests) / seconds
    );
    world.report(before, connections);
    Ok(())
}

/// The server, its program, and its clients.
struct World {
    stack: Stack,
    clients: Clients,
    start: Clock,
    packet: Vec<u8>,
    /// Requests that the program has read whole, and replies that came whole to clients.
    requests: u32,
    replies: u32,
}

impl World {
    fn new(connections: u32) -> Result<Self, Box<dyn Error>> {
        let server: SocketAddrV4 = "10.0.0.1:80".parse()?;
        let mut host = Host::new();
        let device = Device::new(1).ok_or("0 is no device")?;
        host.add_address(device, (*server.ip()).into(), Some(8));
        let mut stack = Stack::new(StackConfig::default(), host, rand::random());
        stack.listen(server.into(), AT_ONCE as usize)?;
        let packet = vec![0; stack.max_packet_len()];
        Ok(Self {
            stack,
            clients: Clients::new(server, connections as usize),
            start: Clock::now(),
            packet,
            requests: 0,
            replies: 0,
        })
    }

    fn now(&self) -> Instant {
        Instant::START + self.start.elapsed().into()
    }

    /// Lets the stack, its program and the clients go on until nobody has more to say.
    fn settle(&mut self) -> Result<(), Box<dyn Error>> {
        let now = self.now();
        self.stack.handle_timeout(now);
        loop {
            self.clients.flush(&mut self.stack, now);
            let mut is_quiet = true;
            while let Some(transmit) = self.stack.poll_transmit(now, &mut self.packet) {
                is_quiet = false;
                let (_, len) = self
                    .clients
                    .hear(&mut self.stack, now, &self.packet[..transmit.len]);
                self.replies += u32::from(len == REPLY.len());
            }
            while let Some(event) = self.stack.poll_event() {
                is_quiet = false;
                self.serve(now, event)?;
            }
            if is_quiet {
                return Ok(());
            }
        }
    }

    /// The program: it takes every connection, and answers every request.
    fn serve(&mut self, now: Instant, event: Event) -> Result<(), Box<dyn Error>> {
        match event {
            Event::Acceptable(listener) => while self.stack.accept(listener).is_some() {},
            Event::Readable(id) => {
                let mut request = [0; 256];
                match self.stack.read(now, id, &mut request) {
                    Ok(len) if &request[..len] == REQUEST => {
                        self.requests += 1;
                        self.stack.write(now, id, REPLY)?;
                    }
                    Ok(_) => return Err("a request did not come as it was sent".into()),
                    Err(ReadError::WouldBlock) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            _ => return Err(format!("nobody expected {event:?}").into()),
        }
        Ok(())
    }

    fn report(&self, before: Option<u64>, connections: u32) {
        let table = self.stack.table().bytes() as f64 / f64::from(connections);
        match (before, resident_bytes()) {
            (Some(before), Some(now)) => println!(
                "resident: {:.2} GiB, {:.1} bytes for each connection, {table:.1} of them in the port table",
                now as f64 / f64::from(1 << 30),
                now.saturating_sub(before) as f64 / f64::from(connections)
            ),
            _ => println!("{table:.1} bytes for each connection in the port table; resident: not known here"),
        }
    }
}

/// What the process holds in memory, where the system tells: the second field of `statm`, in pages of 4 KiB.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
