//! How long it takes until a program has run in a space of its own: `cargo run --release --example start [ROUNDS]`.
//!
//! Prints the median and the longest time of `true` from the call to its end, the time after which it was started, and
//! the same for `true` outside.

use std::process::Command;
use std::time::{Duration, Instant};

use portolan_space::{Event, Program, Space, SpaceConfig, Subnets};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(100), |rounds| rounds.parse())?;
    let (mut ready, mut inside, mut outside) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let start = Instant::now();
        let subnets = Subnets::choose(&portolan_space::host_routes()?, true, round)?;
        let config = SpaceConfig::new(Program::new("true", [""; 0]), subnets);
        let mut space = Space::start(&config)?;
        ready.push(start.elapsed());
        space.go()?;
        loop {
            match space.wait()? {
                Event::Ended(_) => break,
                _ => continue,
            }
        }
        inside.push(start.elapsed());
        let start = Instant::now();
        Command::new("true").status()?;
        outside.push(start.elapsed());
    }
    for (what, mut times) in [("ready", ready), ("inside", inside), ("outside", outside)] {
        times.sort_unstable();
        let millis = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1000.0);
        println!(
            "{what}: median {:.2} ms, longest {:.2} ms of {rounds}",
            millis(times.get(times.len() / 2)),
            millis(times.last())
        );
    }
    Ok(())
}
