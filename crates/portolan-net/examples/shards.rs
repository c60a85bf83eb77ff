//! How many bytes a second go from one sharded stack to another in memory, with one shard and thread and with two.
//!
//!     cargo run --release -p portolan-net --example shards
//!
//! The runs take turns; the medians are printed. Bytes for each second of processor time say what sharing out costs,
//! also where other programs want the processors.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portolan_net::link::{self, Capabilities};
use portolan_net::{Stack, TcpListener, TcpStream};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CONNECTIONS: usize = 16;
const RUNS: usize = 7;
const LASTS: Duration = Duration::from_secs(1);

const HELP: &str = "shards: bytes a second from stack to stack in memory, with one shard and thread and with two; no arguments";

fn main() -> io::Result<()> {
    match std::env::args_os()
        .nth(1)
        .map(|word| word.to_string_lossy().into_owned())
        .as_deref()
    {
        None => {}
        Some("--help" | "-h") => {
            println!("{HELP}");
            return Ok(());
        }
        Some(_) => {
            eprintln!("shards: takes no arguments; --help tells more");
            std::process::exit(2);
        }
    }
    for (name, offloads) in [
        ("packets of 1500 bytes, with checksums", false),
        ("super-segments, without", true),
    ] {
        let mut results = [Vec::new(), Vec::new()];
        for _ in 0..RUNS {
            for (shards, results) in [1, 2].into_iter().zip(&mut results) {
                results.push(run(shards, offloads)?);
            }
        }
        println!("{name}, {CONNECTIONS} connections, medians of {RUNS} runs:");
        let [one, two] = results.map(|results| {
            let median = |pick: fn(&(f64, f64)) -> f64| {
                let mut figures: Vec<f64> = results.iter().map(pick).collect();
                figures.sort_by(f64::total_cmp);
                figures[figures.len() / 2]
            };
            (median(|run| run.0), median(|run| run.1))
        });
        for (shards, (rate, by_cpu)) in [(1, one), (2, two)] {
            println!(
                "  {shards} shard(s): {rate:8.0} MB/s, {by_cpu:8.0} MB for each second of processor time"
            );
        }
        println!("  ratio:      {:8.2},      {:8.2}", two.0 / one.0, two.1 / one.1);
    }
    Ok(())
}

/// Megabytes a second, and for each second of processor time.
fn run(shards: usize, offloads: bool) -> io::Result<(f64, f64)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(shards)
        .enable_all()
        .build()?;
    let received = Arc::new(AtomicU64::new(0));
    let (wall, cpu) = runtime.block_on(bulk(shards, offloads, &received))?;
    runtime.shutdown_background();
    let megabytes = received.load(Ordering::Relaxed) as f64 / 1e6;
    Ok((megabytes / wall.as_secs_f64(), megabytes / cpu.as_secs_f64()))
}

async fn bulk(shards: usize, offloads: bool, received: &Arc<AtomicU64>) -> io::Result<(Duration, Duration)> {
    let capabilities = Capabilities {
        checksum_offload: offloads,
        segmentation_offload: offloads,
        ..Capabilities::plain(1500)
    };
    let (left, right): (Vec<_>, Vec<_>) = (0..shards).map(|_| link::pair(capabilities)).unzip();
    let host = |number: u8, links| -> io::Result<Stack> {
        // One secret: a flow is in the shard of the same number on both sides, as with queues of a device.
        let builder = Stack::builder().address([10, 0, 0, number], 24).secret([7; 16]);
        let (stack, drivers) = builder.build_sharded(links)?;
        for driver in drivers {
            tokio::spawn(driver);
        }
        Ok(stack)
    };
    let (server, client) = (host(1, left)?, host(2, right)?);
    let address = "10.0.0.1:80".parse().expect("an address");
    let listener = TcpListener::bind(&server, address)?;
    for _ in 0..CONNECTIONS {
        let mut there = TcpStream::connect(&client, address).await?;
        let (mut here, _) = listener.accept().await?;
        tokio::spawn(async move {
            let block = vec![7; 64 << 10];
            while there.write_all(&block).await.is_ok() {}
        });
        let received = Arc::clone(received);
        tokio::spawn(async move {
            let mut block = vec![0; 64 << 10];
            while let Ok(len @ 1..) = here.read(&mut block).await {
                received.fetch_add(len as u64, Ordering::Relaxed);
            }
        });
    }
    let cpu = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
    let (start, cpu_start) = (Instant::now(), cpu());
    received.store(0, Ordering::Relaxed);
    tokio::time::sleep(LASTS).await;
    Ok((start.elapsed(), cpu() - cpu_start))
}
