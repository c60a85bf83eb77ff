mod hold;

use std::ffi::OsString;
use std::io::Write as _;

use portolan_core::{Address, Escaped, NotationError, Port, PortSet, Protocol};
use portolan_host::{PickError, PickRequest, PickedPort, pick_ports};
use serde::Serialize;

use crate::exit::{Answer, Failure};
use crate::output::Output;
use crate::services;

/// Print free ports, or run a program with one already open
///
/// A port is free if it can be bound right now, on every address of both families, and with each protocol
/// that is asked for. Without --range it is one that the kernel could choose itself: of the ephemeral range,
/// and not reserved. Ports are chosen at random and are distinct.
///
/// Somebody else may take a printed port before you do. With --hold nobody can: the program starts with the
/// port open.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portolan pick                          one free TCP port
  portolan pick 3 --both                 three ports free for both protocols
  portolan pick --range 8000-8100,!8080  one of these
  portolan pick --address 127.0.0.1      free on this address at least
  portolan pick --hold -- server --port {}
  portolan pick 2 --hold -- server --http {1} --admin {2}

The program that --hold runs gets its sockets as systemd gives them, by
sd_listen_fds(3): LISTEN_FDS is their number, LISTEN_PID its process id,
LISTEN_FDNAMES their names (tcp-PORT, udp-PORT, with colons between), and they
are the descriptors from 3 on: TCP's listening, UDP's bound, with --both a
port's TCP socket before its UDP socket. In its arguments {} stands for the
first port, {1}, {2} and so on for each.

Exit code: 0 if enough ports are free, 1 if not, 2 for usage, 3 if privileged
ports would be needed, 4 if the system failed; with --hold the program's own,
126 if it cannot be executed, 127 if it is not found.")]
pub(crate) struct Args {
    /// How many ports
    #[arg(default_value_t = 1, value_name = "N", value_parser = count)]
    count: usize,
    /// The ports to choose from, as in 8000-8100,!8080
    #[arg(long, value_name = "PORTS")]
    range: Option<String>,
    /// For TCP (the default)
    #[arg(long)]
    tcp: bool,
    /// For UDP
    #[arg(long)]
    udp: bool,
    /// For TCP and UDP
    #[arg(long)]
    both: bool,
    /// Free on this address alone
    #[arg(long, value_name = "ADDRESS")]
    address: Option<String>,
    /// Print one JSON document
    #[arg(long, conflicts_with = "hold")]
    json: bool,
    /// Run a program with the sockets open: it and its arguments are all that follows, -- between or not
    #[arg(long, num_args = 0.., allow_hyphen_values = true, value_name = "COMMAND")]
    hold: Option<Vec<OsString>>,
}

#[derive(Serialize)]
struct Document {
    version: u32,
    ports: Vec<u16>,
    protocols: Vec<&'static str>,
    address: Option<String>,
}

pub(crate) fn run(args: &Args, output: &mut Output) -> Result<Answer, Failure> {
    let command = command(args)?;
    let request = request(args)?;
    let picked = pick_ports(&request).map_err(failure)?;
    if let Some(command) = command {
        return hold::run(command, picked, &request.protocols);
    }
    if args.json {
        let document = Document {
            version: 1,
            ports: picked.iter().map(|picked| picked.port.get()).collect(),
            protocols: request.protocols.iter().map(|protocol| protocol.name()).collect(),
            address: request.address.map(|address| address.to_string()),
        };
        serde_json::to_writer(&mut *output, &document).map_err(std::io::Error::from)?;
        writeln!(output)?;
    } else {
        for PickedPort { port, .. } in &picked {
            writeln!(output, "{port}")?;
        }
    }
    Ok(Answer::Yes)
}

fn count(text: &str) -> Result<usize, &'static str> {
    let number = text.parse::<u16>().ok().filter(|number| *number > 0);
    number
        .map(usize::from)
        .ok_or("the number of ports, 1 to 65535, belongs there; a program to run follows --hold")
}

/// The program to hold for, if one is to be, and its arguments.
fn command(args: &Args) -> Result<Option<&[OsString]>, Failure> {
    let Some(words) = &args.hold else {
        return Ok(None);
    };
    let fault = |what: &str| {
        Err(Failure::Usage(format!(
            "{what}; write it last: portolan pick --hold -- COMMAND"
        )))
    };
    match words.as_slice() {
        [] => fault("--hold needs a program to run"),
        [separator] if separator == "--" => fault("--hold needs a program to run"),
        [separator, command @ ..] if separator == "--" => Ok(Some(command)),
        // An option or the number of ports, meant for pick.
        [word, ..] if word.as_encoded_bytes().starts_with(b"-") => {
            fault("all that follows --hold is the program, and an option is none")
        }
        [_, separator, ..] if separator == "--" => {
            fault("all that follows --hold is the program, and something stands before --")
        }
        command => Ok(Some(command)),
    }
}

fn request(args: &Args) -> Result<PickRequest, Failure> {
    let usage = |option: &str, error: NotationError| Failure::Usage(format!("{option}: {error}"));
    let protocols = match (args.tcp, args.udp, args.both) {
        (_, _, true) | (true, true, _) => vec![Protocol::Tcp, Protocol::Udp],
        (_, true, false) => vec![Protocol::Udp],
        (_, false, false) => vec![Protocol::Tcp],
    };
    let range = match &args.range {
        None => None,
        Some(text) => {
            let (services, _) = services::load(services::FILE.as_ref());
            let set = PortSet::parse(text, None, &services).map_err(|error| usage("--range", error))?;
            if set.ranges().iter().all(|range| range.last() == Port::ZERO) {
                return Err(Failure::Usage(format!(
                    "--range: \"{}\" leaves no port to choose from; ports to pick are 1 to 65535",
                    Escaped::new(text).bounded(80)
                )));
            }
            Some(set)
        }
    };
    let address = match &args.address {
        None => None,
        Some(text) => Some(
            text.parse::<Address>()
                .map_err(|error| usage("--address", error))?,
        ),
    };
    Ok(PickRequest {
        count: args.count,
        range,
        protocols,
        address,
        hold: args.hold.is_some(),
    })
}

fn failure(error: PickError) -> Failure {
    let text = error.to_string();
    match error {
        PickError::TooFew { .. } => Failure::No(text),
        PickError::NotPermitted { .. } => Failure::NotPermitted(text),
        _ => Failure::System(text),
    }
}
