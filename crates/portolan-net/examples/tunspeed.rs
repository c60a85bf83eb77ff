//! How fast a stack on a TUN device moves bytes to and from the kernel, beside smoltcp on the same machine.
//!
//! ```text
//! tunspeed STACK DIRECTION [SECONDS]
//! ```
//!
//! STACK is `portolan`, `portolan-plain` (without offloads) or `smoltcp`; DIRECTION is `send` (from the stack to the
//! kernel) or `receive`. Both run in one thread that waits by poll(2), at an MTU of 1500, with 1 MiB of buffer each way;
//! the kernel's end is a thread with a plain socket. Prints the bytes a second in MB, the CPU time of the stack's
//! thread and that of the whole process for each GB. `bench/tun.sh` compares them. Needs CAP_NET_ADMIN in its
//! network namespace.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant as Clock};

use portolan_core::table::{Device, Host};
use portolan_net::tun::{Offloads, RECV_BUFFER_LEN, Tun, TunConfig};
use portolan_stack::{Event, Instant, ReadError, Stack, StackConfig, WriteError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Medium, TunTapInterface, wait};
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Address};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const HELP: &str = "tunspeed portolan|portolan-plain|smoltcp send|receive [SECONDS]
Moves bytes between a stack on a TUN device and the kernel for 3 seconds, and prints MB/s, and CPU time for each GB of the
stack's thread and of all. Wants CAP_NET_ADMIN in its network namespace: unshare --net.";

const KERNEL: &str = "10.97.0.1";
const STACK: &str = "10.97.0.2";
const PORT: u16 = 5001;
const BUFFER: usize = 1 << 20;
const CHUNK: usize = 64 << 10;

fn main() -> Result<()> {
    let arguments = std::env::args_os().skip(1);
    let arguments: Vec<String> = arguments
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (stack, direction, seconds) = match words[..] {
        ["--help" | "-h"] => {
            println!("{HELP}");
            return Ok(());
        }
        [stack, direction] => (stack, direction, Ok(3)),
        [stack, direction, seconds] => (stack, direction, seconds.parse()),
        _ => ("", "", Ok(0)),
    };
    let (true, true, Ok(seconds @ 1..)) = (
        matches!(stack, "portolan" | "portolan-plain" | "smoltcp"),
        matches!(direction, "send" | "receive"),
        seconds,
    ) else {
        eprintln!("tunspeed: want portolan|portolan-plain|smoltcp send|receive [SECONDS]; --help tells more");
        std::process::exit(2);
    };
    let run = Arc::new(Run::default());
    let offloads = if stack == "portolan" {
        Offloads::Segments
    } else {
        Offloads::None
    };
    // smoltcp opens the interface by its name, and wants no virtio header: it makes its own.
    let (tun, device) = if stack == "smoltcp" {
        let device = TunTapInterface::new("speed0", Medium::Ip)?;
        (None, Some(device))
    } else {
        (
            Some(Tun::open(&TunConfig {
                name: "speed0".into(),
                offloads,
                ..TunConfig::default()
            })?),
            None,
        )
    };
    let up =
        format!("ip addr add {KERNEL}/24 dev speed0 && ip link set speed0 mtu 1500 up && ip link set lo up");
    if !std::process::Command::new("sh")
        .args(["-c", &up])
        .status()?
        .success()
    {
        return Err("the interface does not come up".into());
    }
    let sends = direction == "send";
    let peer = kernel(sends, Arc::clone(&run))?;
    let cpu = match (tun, device) {
        (Some(tun), _) => portolan(tun, sends, &run, seconds)?,
        (None, Some(device)) => smoltcp(device, sends, &run, seconds)?,
        (None, None) => return Err("no device".into()),
    };
    let whole = clock_gettime(ClockId::ProcessCPUTime);
    let bytes = run.bytes.load(Ordering::Relaxed) as f64;
    let gigabytes = bytes / 1e9;
    let whole = whole.tv_sec as f64 + whole.tv_nsec as f64 / 1e9;
    println!(
        "{:.1} MB/s {:.3} s/GB {:.3} s/GB",
        bytes / 1e6 / seconds as f64,
        cpu / gigabytes,
        whole / gigabytes
    );
    // The peer waits for a stack that is gone.
    drop(peer);
    std::process::exit(0);
}

/// What the threads tell each other.
#[derive(Default)]
struct Run {
    /// Bytes that the receiver's program got while the time ran.
    bytes: AtomicU64,
    runs: AtomicBool,
}

/// The kernel's end: a receiver that listens, or a sender that connects.
fn kernel(stack_sends: bool, run: Arc<Run>) -> Result<std::thread::JoinHandle<()>> {
    let listener = TcpListener::bind((KERNEL, PORT))?;
    Ok(std::thread::spawn(move || {
        let mut chunk = vec![7; 4 * CHUNK];
        if stack_sends {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            while let Ok(len) = stream.read(&mut chunk) {
                if run.runs.load(Ordering::Relaxed) {
                    run.bytes.fetch_add(len as u64, Ordering::Relaxed);
                }
            }
            return;
        }
        let mut stream = loop {
            if let Ok(stream) = TcpStream::connect((STACK, PORT)) {
                break stream;
            }
        };
        while stream.write_all(&chunk).is_ok() {}
    }))
}

/// The clock of a run: half a second to warm up, then the time that counts.
struct Timer<'a> {
    start: Clock,
    seconds: u64,
    run: &'a Run,
    cpu_before: f64,
}

impl<'a> Timer<'a> {
    fn new(run: &'a Run, seconds: u64) -> Self {
        Self {
            start: Clock::now(),
            seconds,
            run,
            cpu_before: 0.0,
        }
    }

    /// Whether it goes on.
    fn tick(&mut self) -> bool {
        let elapsed = self.start.elapsed();
        if elapsed >= WARM_UP && !self.run.runs.load(Ordering::Relaxed) {
            self.cpu_before = thread_cpu();
            self.run.runs.store(true, Ordering::Relaxed);
        }
        elapsed < WARM_UP + Duration::from_secs(self.seconds)
    }

    fn count(&self, bytes: usize) {
        if self.run.runs.load(Ordering::Relaxed) {
            self.run.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    fn cpu(&self) -> f64 {
        self.run.runs.store(false, Ordering::Relaxed);
        thread_cpu() - self.cpu_before
    }
}

const WARM_UP: Duration = Duration::from_millis(500);

fn thread_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn portolan(tun: Tun, sends: bool, run: &Run, seconds: u64) -> Result<f64> {
    let mut host = Host::new();
    host.add_address(Device::new(1).ok_or("a device")?, STACK.parse()?, Some(24));
    let mut config = tun.offload(StackConfig::default());
    (config.tcp.send_buffer, config.tcp.receive_buffer) = (BUFFER, BUFFER);
    (config.tcp.initial_send_buffer, config.tcp.initial_receive_buffer) = (BUFFER, BUFFER);
    let mut stack = Stack::new(config, host, [3; 16]);
    let queue = tun.into_queues().remove(0);
    let (kernel, local) = (
        SocketAddr::new(KERNEL.parse()?, PORT),
        SocketAddr::new(STACK.parse()?, PORT),
    );
    let start = Clock::now();
    let mut connection = None;
    let mut listener = None;
    if sends {
        connection = Some(stack.connect(Instant::START, SocketAddr::new(local.ip(), 0), kernel)?);
    } else {
        listener = Some(stack.listen(local, 4)?);
    }
    let mut buffer = vec![0; RECV_BUFFER_LEN];
    let mut chunk = vec![7; CHUNK];
    let mut timer = Timer::new(run, seconds);
    while timer.tick() {
        let now = Instant::START + start.elapsed().into();
        let mut idle = true;
        for _ in 0..64 {
            let Ok(packet) = queue.recv(&mut buffer) else {
                break;
            };
            idle = false;
            stack.handle_packet(now, packet);
        }
        stack.handle_timeout(now);
        while let Some(event) = stack.poll_event() {
            match event {
                Event::Acceptable(_) => connection = listener.and_then(|listener| stack.accept(listener)),
                Event::Closed(_, reason) => return Err(reason.into()),
                _ => {}
            }
            let Some(id) = connection else { continue };
            if sends {
                while !matches!(stack.write(now, id, &chunk), Err(WriteError::WouldBlock)) {}
                continue;
            }
            loop {
                match stack.read(now, id, &mut chunk) {
                    Ok(len) => timer.count(len),
                    Err(ReadError::WouldBlock) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        while let Some(transmit) = stack.poll_transmit(now, &mut buffer) {
            queue.send(&buffer[..transmit.len], transmit.offload)?;
        }
        if idle {
            let until = stack
                .poll_timeout()
                .map_or(10_000_000, |at| at.since(now).as_nanos().min(10_000_000));
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: until as _,
            };
            poll(&mut [PollFd::new(&queue, PollFlags::IN)], Some(&timeout))?;
        }
    }
    Ok(timer.cpu())
}

fn smoltcp(mut device: TunTapInterface, sends: bool, run: &Run, seconds: u64) -> Result<f64> {
    let fd = device.as_raw_fd();
    let mut interface = Interface::new(
        Config::new(HardwareAddress::Ip),
        &mut device,
        smoltcp::time::Instant::now(),
    );
    let local: Ipv4Address = STACK.parse()?;
    interface.update_ip_addrs(|addresses| {
        // There is room for two.
        let _full = addresses.push(IpCidr::new(local.into(), 24));
    });
    let mut sockets = SocketSet::new(vec![]);
    let buffers = [(); 2].map(|()| tcp::SocketBuffer::new(vec![0; BUFFER]));
    let [receive, send] = buffers;
    let mut socket = tcp::Socket::new(receive, send);
    if !sends {
        socket.listen(PORT).map_err(|error| format!("{error:?}"))?;
    }
    let handle = sockets.add(socket);
    if sends {
        let kernel: Ipv4Address = KERNEL.parse()?;
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket
            .connect(interface.context(), (kernel, PORT), 40_000)
            .map_err(|error| format!("{error:?}"))?;
    }
    let mut chunk = vec![7; CHUNK];
    let mut timer = Timer::new(run, seconds);
    while timer.tick() {
        let now = smoltcp::time::Instant::now();
        interface.poll(now, &mut device, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        if sends {
            while socket.can_send() && socket.send_slice(&chunk).map_err(|error| format!("{error:?}"))? > 0 {}
        } else {
            while socket.can_recv() {
                timer.count(
                    socket
                        .recv_slice(&mut chunk)
                        .map_err(|error| format!("{error:?}"))?,
                );
            }
        }
        let delay = interface.poll_delay(now, &sockets);
        let most = smoltcp::time::Duration::from_millis(10);
        wait(fd, Some(delay.map_or(most, |delay| delay.min(most))))?;
    }
    Ok(timer.cpu())
}
