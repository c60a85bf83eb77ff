//! Prints the sockets of this machine, and how long reading them took:
//! `cargo run --release -p portolan-host --example read_sockets -- [SPACE] [--text] [--open] [--port PORT] [--quiet]`.

use std::io::{self, Write};
use std::time::Instant;

use portolan_core::{Port, PortRange};
use portolan_host::{ProtocolSet, Query, Sources, SpaceSelect, StateSet, read_sockets};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut query = Query {
        protocols: ProtocolSet::PORTS,
        states: StateSet::ALL,
        ..Query::listeners()
    };
    let mut sources = Sources::default();
    let mut quiet = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--text" => sources.netlink = false,
            "--open" => query.states = StateSet::OPEN,
            "--quiet" => quiet = true,
            "--port" => {
                let port = arguments
                    .next()
                    .ok_or("--port takes a number")?
                    .parse()
                    .map(Port::new)?;
                query.local_ports = Some(vec![PortRange::single(port)]);
            }
            space => query.space = SpaceSelect::from_text(space),
        }
    }
    let start = Instant::now();
    let read = read_sockets(&query, &sources)?;
    let took = start.elapsed();
    let mut out = io::stdout().lock();
    if !quiet {
        for socket in &read.sockets {
            writeln!(out, "{} {socket:?}", read.spaces[socket.space.0 as usize].name)?;
        }
    }
    let names: Vec<_> = read.spaces.iter().map(|space| space.name.to_string()).collect();
    writeln!(
        out,
        "{} sockets of {} bytes in {took:?}",
        read.sockets.len(),
        size_of::<portolan_host::Socket>()
    )?;
    writeln!(out, "spaces {}, hidden {}", names.join(" "), read.hidden_spaces)?;
    writeln!(out, "by {:?}", read.collectors)?;
    for warning in &read.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    Ok(())
}
