//! Times the ways of finding who holds the sockets of this machine:
//! `cargo run --release -p portolan-host --example find_holders [COUNT]`, for the first COUNT sockets or all.
use std::time::Instant;

use portolan_host::{Collector, HoldingsRequest, ProcRoot, find_holders};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = ProcRoot::system()?;
    let mut request = HoldingsRequest {
        // The root of the hierarchy: there is always one to start with.
        cgroups: vec![1],
        ..HoldingsRequest::default()
    };
    if let Some(count) = std::env::args().nth(1) {
        let all = find_holders(&root, &request)?.holdings;
        request.inodes = Some(
            all.iter()
                .map(|holding| holding.inode)
                .take(count.parse()?)
                .collect(),
        );
    }
    for collector in [
        Collector::BpfTaskFile,
        Collector::ProcByCgroup,
        Collector::ProcEvery,
    ] {
        request.only = Some(collector);
        let start = Instant::now();
        match find_holders(&root, &request) {
            Ok(found) => println!(
                "{:?} {} holdings, {} processes unreadable: {collector}",
                start.elapsed(),
                found.holdings.len(),
                found.unreadable_processes()
            ),
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}
