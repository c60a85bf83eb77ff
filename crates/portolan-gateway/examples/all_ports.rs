//! How long it takes to publish many ports: `cargo run --release -p portolan-gateway --example all_ports [LAST]`.
//!
//! Takes the ports from 1 to LAST (65535 if the limit of descriptors allows) of TCP and UDP in this network namespace,
//! so run it in one of its own: `unshare -rn`. Prints the time that it took, and how long it takes to let go of them.

use std::time::Instant;

use portolan_gateway::inbound::{Bound, raise_descriptor_limit};
use rustix::process::{Resource, getrlimit};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    raise_descriptor_limit();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let last = match std::env::args().nth(1) {
        Some(last) => last.parse()?,
        None => (limit.saturating_sub(200) / 2).min(65_535),
    };
    let mapping = format!("1-{last}:1-{last}/both").parse()?;
    let begun = Instant::now();
    let bound = Bound::bind(&[mapping], &|_, _| None)?;
    let (count, took) = (bound.published().count(), begun.elapsed());
    let begun = Instant::now();
    drop(bound);
    println!(
        "{count} ports in {:.1} ms ({:.2} us each), given back in {:.1} ms",
        took.as_secs_f64() * 1e3,
        took.as_secs_f64() * 1e6 / count as f64,
        begun.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}
