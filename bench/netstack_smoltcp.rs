//! How fast netstack-smoltcp on a TUN device moves bytes to and from the kernel: netstack_smoltcp send|receive SECONDS
//!
//! What `tunspeed` of portolan-net measures of Portolan and smoltcp, of the peer that most proxies in Rust are built on; no
//! part of the workspace. `bench/tun.sh` builds it in a folder of its own, with the crates from crates.io. As there, all of
//! the stack runs in one thread, at an MTU of 1500, with 1 MiB of buffer each way, and the kernel's end is a thread with a
//! plain socket; the kernel connects both ways, since this stack only accepts.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use netstack_smoltcp::StackBuilder;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const UP: &str = "ip addr add 10.97.0.1/24 dev speed0 && ip link set speed0 mtu 1500 up && ip link set lo up";
const STACK: &str = "10.97.0.2:5001";
const BUFFER: usize = 1 << 20;
const CHUNK: usize = 64 << 10;
const WARM_UP: Duration = Duration::from_millis(500);

/// Bytes that the receiver's program got while the time ran.
static BYTES: AtomicU64 = AtomicU64::new(0);
static RUNS: AtomicBool = AtomicBool::new(false);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (sends, seconds) = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["send", seconds] => (true, seconds.parse()?),
        ["receive", seconds] => (false, seconds.parse()?),
        _ => return Err("want send|receive SECONDS".into()),
    };
    let tun = tun()?;
    if !Command::new("sh").args(["-c", UP]).status()?.success() {
        return Err("the interface does not come up".into());
    }
    std::thread::spawn(move || kernel(sends));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(tun, sends, seconds))?;
    // The kernel's end waits for a stack that is gone.
    std::process::exit(0);
}

/// The interface `speed0`, one packet for each call, without a header before it.
fn tun() -> Result<OwnedFd> {
    const TUNSETIFF: libc::Ioctl = 0x4004_54CA;
    const IFF_TUN_NO_PI: u16 = 0x1001;
    let device = open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut request = [0_u8; 40];
    request[..6].copy_from_slice(b"speed0");
    request[16..18].copy_from_slice(&IFF_TUN_NO_PI.to_ne_bytes());
    // SAFETY: the descriptor is open, and the call reads and writes a struct ifreq, which is 40 bytes as `request` is.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    if done < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(device)
}

/// The kernel's end: it connects, and reads or writes.
fn kernel(stack_sends: bool) {
    let mut stream = loop {
        if let Ok(stream) = TcpStream::connect(STACK) {
            break stream;
        }
    };
    let mut chunk = vec![7; 4 * CHUNK];
    if !stack_sends {
        while stream.write_all(&chunk).is_ok() {}
        return;
    }
    while let Ok(len @ 1..) = stream.read(&mut chunk) {
        count(len);
    }
}

fn count(len: usize) {
    if RUNS.load(Ordering::Relaxed) {
        BYTES.fetch_add(len as u64, Ordering::Relaxed);
    }
}

/// CPU time, in seconds.
fn cpu(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

async fn measure(tun: OwnedFd, sends: bool, seconds: u64) -> Result<()> {
    let (stack, runner, _, listener) = StackBuilder::default()
        .enable_tcp(true)
        .enable_udp(false)
        .enable_icmp(false)
        .mtu(1500)
        .tcp_recv_buffer_size(BUFFER as u32)
        .tcp_send_buffer_size(BUFFER as u32)
        .build()?;
    let (Some(runner), Some(mut listener)) = (runner, listener) else {
        return Err("no TCP".into());
    };
    tokio::spawn(runner);
    let (mut sink, mut packets) = stack.split();
    // SAFETY: an OwnedFd gives the same descriptor each time, and keeps it open as long as it lives.
    let tun = Arc::new(unsafe { AsyncFd::register(tun) }?);
    let out = Arc::clone(&tun);
    tokio::spawn(async move {
        while let Some(Ok(packet)) = packets.next().await {
            while rustix::io::write(&*out, &packet[..]) == Err(Errno::AGAIN) {
                let Ok(mut ready) = out.writable().await else {
                    return;
                };
                ready.clear_ready();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let mut packet = vec![0; 1504];
            let Ok(len) = rustix::io::read(&*tun, &mut packet[..]) else {
                let Ok(mut ready) = tun.readable().await else {
                    return;
                };
                ready.clear_ready();
                continue;
            };
            packet.truncate(len);
            if sink.send(packet).await.is_err() {
                return;
            }
        }
    });
    let (mut stream, _, _) = listener.next().await.ok_or("nobody connects")?;
    tokio::spawn(async move {
        let mut chunk = vec![7; CHUNK];
        while sends && stream.write_all(&chunk).await.is_ok() {}
        while let Ok(len @ 1..) = stream.read(&mut chunk).await {
            count(len);
        }
    });
    tokio::time::sleep(WARM_UP).await;
    let (start, before) = (Instant::now(), cpu(ClockId::ThreadCPUTime));
    RUNS.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    RUNS.store(false, Ordering::Relaxed);
    let (elapsed, spent) = (
        start.elapsed().as_secs_f64(),
        cpu(ClockId::ThreadCPUTime) - before,
    );
    let bytes = BYTES.load(Ordering::Relaxed) as f64;
    let gigabytes = bytes / 1e9;
    let whole = cpu(ClockId::ProcessCPUTime);
    println!(
        "{:.1} MB/s {:.3} s/GB {:.3} s/GB",
        bytes / 1e6 / elapsed,
        spent / gigabytes,
        whole / gigabytes
    );
    Ok(())
}
