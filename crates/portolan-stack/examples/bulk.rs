//! How fast two stacks in one thread move bytes: `cargo run --release -p portolan-stack --example bulk [GIGABYTES]`.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Instant as Clock;

use portolan_core::table::{Device, Host};
use portolan_stack::{ConnectionId, Event, Instant, Packet, ReadError, Stack, StackConfig, WriteError};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = std::env::args_os().skip(1);
    let arguments: Vec<String> = arguments
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let gigabytes: f64 = match &arguments[..] {
        [] => 2.0,
        [flag] if flag == "--help" || flag == "-h" => {
            println!(
                "bulk [GIGABYTES]: how fast two stacks in one thread move bytes, 2 GB unless told otherwise"
            );
            return Ok(());
        }
        [number] => number.parse().unwrap_or(f64::NAN),
        _ => f64::NAN,
    };
    if !(0.0..1e6).contains(&gigabytes) {
        eprintln!("bulk: want at most a number of gigabytes; --help tells more");
        std::process::exit(2);
    }
    let bytes = (gigabytes * 1e9) as u64;
    for (name, mtu, offloads) in [
        ("MTU 1500, checksums computed", 1500, false),
        ("MTU 65535, checksums computed", 65_535, false),
        ("MTU 1500, super-segments with partial checksums", 1500, true),
    ] {
        let config = StackConfig {
            mtu,
            checksum_offload: offloads,
            segmentation_offload: offloads,
            ..StackConfig::default()
        };
        let (seconds, packets) = transfer(config, bytes)?;
        let rate = bytes as f64 / seconds / 1e9;
        println!(
            "{name}: {rate:.2} GB/s, {:.2} million packets/s",
            packets as f64 / seconds / 1e6
        );
    }
    Ok(())
}

/// Sends `bytes` from one stack to the other, and says how many seconds and packets it took.
fn transfer(config: StackConfig, bytes: u64) -> Result<(f64, u64), Box<dyn Error>> {
    let ends: [SocketAddr; 2] = ["10.0.0.1:80".parse()?, "10.0.0.2:80".parse()?];
    let mut stacks = ends.map(|end| {
        let mut host = Host::new();
        if let Some(device) = Device::new(1) {
            host.add_address(device, end.ip(), Some(24));
        }
        Stack::new(config, host, [1; 16])
    });
    let listener = stacks[1].listen(ends[1], 1)?;
    let sender = stacks[0].connect(Instant::START, SocketAddr::new(ends[0].ip(), 0), ends[1])?;
    let mut receiver: Option<ConnectionId> = None;
    let mut packet = vec![0; stacks[0].max_packet_len()];
    let mut chunk = vec![7; 64 * 1024];
    let (mut written, mut read) = (0, 0);
    let start = Clock::now();
    while read < bytes {
        let now = Instant::START + start.elapsed().into();
        if written < bytes {
            match stacks[0].write(now, sender, &chunk) {
                Ok(len) => written += len as u64,
                Err(WriteError::WouldBlock) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for from in 0..2 {
            while let Some(transmit) = stacks[from].poll_transmit(now, &mut packet) {
                let (bytes, offload) = (&packet[..transmit.len], transmit.offload);
                stacks[1 - from].handle_packet(now, Packet { bytes, offload });
            }
            stacks[from].handle_timeout(now);
            while let Some(event) = stacks[from].poll_event() {
                if let Event::Acceptable(_) = event {
                    receiver = stacks[1].accept(listener);
                }
            }
        }
        while let Some(receiver) = receiver {
            match stacks[1].read(now, receiver, &mut chunk) {
                Ok(len) => read += len as u64,
                Err(ReadError::WouldBlock) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    let packets = stacks.iter().map(|stack| stack.counters().packets_out).sum();
    Ok((start.elapsed().as_secs_f64(), packets))
}
