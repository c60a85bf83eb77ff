//! Prints the sockets of this machine: `cargo run -p portolan-host --example read_sockets [SPACE] [--text]`.
use std::time::Instant;

use portolan_host::{ProtocolSet, Query, Sources, SpaceSelect, StateSet, read_sockets};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut query = Query {
        protocols: ProtocolSet::ALL,
        states: StateSet::ALL,
        ..Query::listeners()
    };
    let mut sources = Sources::default();
    let mut quiet = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--text" => sources.netlink = false,
            "--ports" => query.protocols = ProtocolSet::PORTS,
            "--open" => query.states = StateSet::OPEN,
            "--quiet" => quiet = true,
            space => query.space = SpaceSelect::from_text(space),
        }
    }
    let start = Instant::now();
    let read = read_sockets(&query, &sources)?;
    let took = start.elapsed();
    if !quiet {
        for socket in &read.sockets {
            println!("{} {socket:?}", read.spaces[socket.space.0 as usize].name);
        }
        println!("{:?}", read.spaces);
    }
    println!(
        "{} sockets in {took:?}; hidden {}, {:?}",
        read.sockets.len(),
        read.hidden_spaces,
        read.collectors
    );
    println!("absent {:?}", read.absent.iter().collect::<Vec<_>>());
    println!("unlisted {:?}", read.unlisted.iter().collect::<Vec<_>>());
    println!("{:#?}", read.warnings);
    Ok(())
}
