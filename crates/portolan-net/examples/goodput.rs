//! How much of a bad network a sender uses: one cell of a matrix of rates, round-trip times and losses.
//!
//! ```text
//! goodput cell SENDER RECEIVER MEGABITS RTT_MS LOSS_PER_MILLE SEED SECONDS
//! ```
//!
//! SENDER and RECEIVER are `linux` or `portolan`. Prints the megabits of data that the receiver's program got in each
//! second. `bench/goodput.py` runs the matrix.
//!
//! Both senders meet the same network: a queue of one bandwidth-delay product in front of a rate, half of the
//! round-trip time each way, and drops of data packets that a seed chooses. A Linux end is a network namespace with a TUN
//! device; its sender uses CUBIC. Needs root.

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Instant as Clock;

use portolan_core::table::{Device, Host};
use portolan_net::tun::{Offloads, RECV_BUFFER_LEN, Tun, TunConfig, TunQueue};
use portolan_stack::{
    ConnectionId, Duration, Event, Instant, Packet, ReadError, Stack, StackConfig, TcpConfig, WriteError,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

#[allow(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/linux/support/impair.rs"]
mod impair;

use impair::{Impaired, Impairment};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SENDER: &str = "10.98.1.1";
const RECEIVER: &str = "10.98.2.1";
const PORT: u16 = 5001;
/// What a socket may hold, on both sides of the comparison: congestion control is to be the limit.
const BUFFER: usize = 64 << 20;

fn main() -> Result<()> {
    let arguments = std::env::args_os().skip(1);
    let arguments: Vec<String> = arguments
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["--help" | "-h"] => {
            println!("{HELP}");
            return Ok(());
        }
        [
            "cell",
            sender @ ("linux" | "portolan"),
            receiver @ ("linux" | "portolan"),
            ref numbers @ ..,
        ] => {
            if let Some(network) = Network::parse(numbers) {
                let megabits = cell(sender == "linux", receiver == "linux", network)?;
                println!("{megabits:.3}");
                return Ok(());
            }
        }
        [program @ ("source" | "sink"), seconds] => {
            if let Ok(seconds) = seconds.parse() {
                return if program == "source" {
                    source(seconds)
                } else {
                    sink(seconds)
                };
            }
        }
        _ => {}
    }
    eprintln!(
        "goodput: want cell SENDER RECEIVER MEGABITS RTT_MS LOSS_PER_MILLE SEED SECONDS; --help tells more"
    );
    std::process::exit(2);
}

const HELP: &str = "goodput cell SENDER RECEIVER MEGABITS RTT_MS LOSS_PER_MILLE SEED SECONDS
Prints the megabits a second of data from SENDER to RECEIVER, each linux or portolan, over an emulated network of this rate,
round-trip time and loss. Wants root. bench/goodput.py runs a matrix of them.";

#[derive(Clone, Copy)]
struct Network {
    /// Megabits per second.
    rate: u64,
    /// Milliseconds.
    rtt: u64,
    /// Data packets lost, of 1,000.
    loss: u32,
    seed: u64,
    seconds: u64,
}

impl Network {
    /// MEGABITS RTT_MS LOSS_PER_MILLE SEED SECONDS; a rate and a time of nothing measure nothing.
    fn parse(numbers: &[&str]) -> Option<Self> {
        let &[rate, rtt, loss, seed, seconds] = numbers else {
            return None;
        };
        let network = Self {
            rate: rate.parse().ok()?,
            rtt: rtt.parse().ok()?,
            loss: loss.parse().ok()?,
            seed: seed.parse().ok()?,
            seconds: seconds.parse().ok()?,
        };
        let is_sane = (1..=100_000).contains(&network.rate)
            && network.rtt <= 60_000
            && network.loss <= 1000
            && (1..=86_400).contains(&network.seconds);
        is_sane.then_some(network)
    }

    fn directions(self) -> [Impaired; 2] {
        let rate = self.rate * 1_000_000 / 8;
        let queue = (rate * self.rtt / 1000).max(32 * 1500);
        let there = Impairment {
            delay: Duration::from_micros(self.rtt * 500),
            loss: self.loss,
            rate,
            queue,
            ..Impairment::default()
        };
        let back = Impairment { loss: 0, ..there };
        [
            Impaired::new(there, self.seed),
            Impaired::new(back, self.seed + 1),
        ]
    }
}

/// One end: a kernel behind a device, or a stack.
enum End {
    Kernel {
        queue: TunQueue,
        program: Child,
        _namespace: Namespace,
    },
    Stack(Box<Program>),
}

fn cell(linux_sends: bool, linux_receives: bool, network: Network) -> Result<f64> {
    let mut ends = [
        end(true, linux_sends, SENDER, network.seconds)?,
        end(false, linux_receives, RECEIVER, network.seconds)?,
    ];
    let mut directions = network.directions();
    let start = Clock::now();
    let mut buffer = vec![0; RECV_BUFFER_LEN];
    let limit = std::time::Duration::from_secs(network.seconds + 5);
    while start.elapsed() < limit && !is_done(&mut ends[1])? {
        let now = Instant::START + start.elapsed().into();
        let mut busy = false;
        for from in 0..2 {
            busy |= ends[from].take(now, &mut directions[from], &mut buffer);
            while let Some(flying) = directions[from].receive(now) {
                ends[1 - from].give(
                    now,
                    Packet {
                        bytes: &flying.bytes,
                        offload: flying.offload,
                    },
                );
                directions[from].give_back(flying);
            }
        }
        if !busy {
            wait(now, &ends, &directions);
        }
    }
    if std::env::var_os("GOODPUT_DEBUG").is_some() {
        eprintln!("dropped {} and {}", directions[0].dropped, directions[1].dropped);
        for end in &ends {
            if let End::Stack(program) = end {
                eprintln!("{:?}", program.connection.and_then(|id| program.stack.info(id)));
            }
        }
    }
    let bytes = match &mut ends[1] {
        End::Kernel { program, .. } => {
            // If it had not enough time, what it prints is nothing.
            program.kill()?;
            let mut text = String::new();
            program
                .stdout
                .take()
                .ok_or("the sink prints")?
                .read_to_string(&mut text)?;
            text.trim().parse()?
        }
        End::Stack(program) => program.received,
    };
    if let End::Kernel { program, .. } = &mut ends[0] {
        // It writes until the connection is gone.
        program.kill()?;
        program.wait()?;
    }
    Ok(bytes as f64 * 8.0 / 1e6 / network.seconds as f64)
}

fn end(sends: bool, is_linux: bool, address: &str, seconds: u64) -> Result<End> {
    if !is_linux {
        return Ok(End::Stack(Box::new(Program::new(sends, address, seconds)?)));
    }
    let namespace = Namespace::new()?;
    let tun = Tun::open(&TunConfig {
        offloads: Offloads::Checksums,
        ..TunConfig::default()
    })?;
    let pid = namespace.0.id().to_string();
    run(Command::new("ip").args(["link", "set", tun.name(), "netns", &pid]))?;
    let script = format!(
        "ip address add {address}/24 dev {name} && ip link set {name} mtu 1500 txqueuelen 50000 up && \
         ip route add 10.98.0.0/16 dev {name} && cd /proc/sys/net/ipv4 && \
         echo '4096 131072 {BUFFER}' > tcp_rmem && \
         echo '4096 131072 {BUFFER}' > tcp_wmem && echo 1 > tcp_no_metrics_save",
        name = tun.name(),
    );
    run(namespace.command("sh").args(["-c", &script]))?;
    let mut program = namespace.command(&std::env::current_exe()?.to_string_lossy());
    program
        .args([if sends { "source" } else { "sink" }, &seconds.to_string()])
        .stdout(Stdio::piped());
    let program = program.spawn()?;
    let queue = tun.into_queues().remove(0);
    Ok(End::Kernel {
        queue,
        program,
        _namespace: namespace,
    })
}

fn is_done(receiver: &mut End) -> Result<bool> {
    Ok(match receiver {
        End::Kernel { program, .. } => program.try_wait()?.is_some(),
        End::Stack(program) => program.until.is_some_and(|until| program.now >= until),
    })
}

impl End {
    /// Takes what the end sends; whether there was something.
    fn take(&mut self, now: Instant, network: &mut Impaired, buffer: &mut [u8]) -> bool {
        let mut any = false;
        match self {
            Self::Kernel { queue, .. } => {
                for _ in 0..64 {
                    let Ok(packet) = queue.recv(buffer) else { break };
                    any = true;
                    network.send(now, packet.bytes, packet.offload);
                }
            }
            Self::Stack(program) => {
                program.turn(now);
                while let Some(transmit) = program.stack.poll_transmit(now, buffer) {
                    network.send(now, &buffer[..transmit.len], transmit.offload);
                }
            }
        }
        any
    }

    fn give(&mut self, now: Instant, packet: Packet<'_>) {
        match self {
            // What the kernel has no room for is lost.
            Self::Kernel { queue, .. } => drop(queue.send(packet.bytes, packet.offload)),
            Self::Stack(program) => program.stack.handle_packet(now, packet),
        }
    }
}

fn wait(now: Instant, ends: &[End; 2], directions: &[Impaired; 2]) {
    let mut until = now + Duration::from_millis(20);
    for direction in directions {
        until = direction.next_arrival().map_or(until, |at| at.min(until));
    }
    let mut polled = Vec::with_capacity(2);
    for end in ends {
        match end {
            End::Kernel { queue, .. } => polled.push(PollFd::from_borrowed_fd(queue.as_fd(), PollFlags::IN)),
            End::Stack(program) => until = program.stack.poll_timeout().map_or(until, |at| at.min(until)),
        }
    }
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: until.since(now).as_nanos() as _,
    };
    let _woken = poll(&mut polled, Some(&timeout));
}

/// The stack with a program that sends or receives for some seconds.
struct Program {
    stack: Stack,
    sends: bool,
    connection: Option<ConnectionId>,
    listener: Option<portolan_stack::ListenerId>,
    chunk: Vec<u8>,
    received: u64,
    seconds: u64,
    until: Option<Instant>,
    now: Instant,
    connect_at: Option<Instant>,
}

impl Program {
    fn new(sends: bool, address: &str, seconds: u64) -> Result<Self> {
        let mut host = Host::new();
        host.add_address(Device::new(1).ok_or("a device")?, address.parse()?, Some(24));
        let tcp = TcpConfig {
            send_buffer: BUFFER,
            receive_buffer: BUFFER,
            initial_send_buffer: BUFFER,
            initial_receive_buffer: BUFFER,
            ..TcpConfig::default()
        };
        let config = StackConfig {
            checksum_offload: true,
            tcp,
            ..StackConfig::default()
        };
        let mut stack = Stack::new(config, host, [5; 16]);
        let mut listener = None;
        if !sends {
            listener = Some(stack.listen(SocketAddr::new(address.parse()?, PORT), 4)?);
        }
        Ok(Self {
            stack,
            sends,
            connection: None,
            listener,
            chunk: vec![7; 256 << 10],
            received: 0,
            seconds,
            until: None,
            now: Instant::START,
            connect_at: sends.then_some(Instant::START + Duration::from_millis(100)),
        })
    }

    fn turn(&mut self, now: Instant) {
        self.now = now;
        if self.connect_at.is_some_and(|at| now >= at) {
            self.connect_at = None;
            let local = SocketAddr::new(SENDER.parse().expect("an address"), 0);
            let remote = SocketAddr::new(RECEIVER.parse().expect("an address"), PORT);
            self.connection = self.stack.connect(now, local, remote).ok();
        }
        self.stack.handle_timeout(now);
        while let Some(event) = self.stack.poll_event() {
            match event {
                Event::Acceptable(_) => {
                    self.connection = self.listener.and_then(|listener| self.stack.accept(listener));
                    self.until = Some(now + Duration::from_secs(self.seconds));
                    self.move_bytes(now);
                }
                Event::Connected(_) | Event::Writable(_) | Event::Readable(_) => self.move_bytes(now),
                // Refused until the receiver listens.
                Event::Closed(..) if self.sends => self.connect_at = Some(now + Duration::from_millis(100)),
                _ => {}
            }
        }
    }

    fn move_bytes(&mut self, now: Instant) {
        let Some(id) = self.connection else { return };
        if self.sends {
            while !matches!(
                self.stack.write(now, id, &self.chunk),
                Err(WriteError::WouldBlock)
            ) {}
            return;
        }
        loop {
            match self.stack.read(now, id, &mut self.chunk) {
                Ok(0) | Err(ReadError::WouldBlock) => return,
                Ok(len) => self.received += len as u64,
                Err(_) => return,
            }
        }
    }
}

/// A network namespace, kept by a process that sleeps in it.
struct Namespace(Child);

impl Namespace {
    fn new() -> Result<Self> {
        let outside = fs::read_link("/proc/self/ns/net")?;
        let child = Command::new("unshare").args(["--net", "sleep", "3600"]).spawn()?;
        let inside = format!("/proc/{}/ns/net", child.id());
        let namespace = Self(child);
        while fs::read_link(&inside)? == outside {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(namespace)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-t", &self.0.id().to_string(), program]);
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.0.kill();
        let _waited = self.0.wait();
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// Writes until the receiver has enough.
fn source(seconds: u64) -> Result<()> {
    let mut stream = loop {
        // Refused until the receiver listens.
        match TcpStream::connect((RECEIVER, PORT)) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(100)),
        }
    };
    // Root may choose any; the default of this host may be another.
    rustix::net::sockopt::set_tcp_congestion(&stream, "cubic")?;
    let chunk = vec![7; 256 << 10];
    let start = Clock::now();
    while start.elapsed().as_secs() < seconds + 5 {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

/// Reads for some seconds, and prints how many bytes came.
fn sink(seconds: u64) -> Result<()> {
    let listener = TcpListener::bind((RECEIVER, PORT))?;
    let (mut stream, _) = listener.accept()?;
    let until = Clock::now() + std::time::Duration::from_secs(seconds);
    let mut chunk = vec![0; 1 << 20];
    let mut received = 0;
    loop {
        let rest = until.saturating_duration_since(Clock::now());
        if rest.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(rest))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => received += len,
            // The time is over.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    println!("{received}");
    Ok(())
}
