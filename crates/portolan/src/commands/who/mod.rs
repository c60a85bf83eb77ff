//! Who holds a port: the process in full, and, if asked, its end.
//!
//! ```text
//! PORT… ─▶ Query ─▶ Snapshot ─▶ port_uses ─┬▶ report ─▶ stdout
//!                                          ├▶ document ─▶ stdout (--json)
//!                                          └▶ chosen ─┬▶ kill (--kill): asked, identity checked again, signalled
//!                                                     └▶ close (--close-socket): asked, closed, read again
//! ```

mod chosen;
mod close;
mod document;
mod kill;
mod report;

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

use clap::builder::NonEmptyStringValueParser;
use portolan_core::registry::Services;
use portolan_core::{NotationError, Port, PortSet};
use portolan_host::{
    PortHolder, PortUse, ProcRoot, Process, ProtocolSet, Query, Signal, Snapshot, SocketProtocol,
    SpaceSelect, StateSet, Users,
};

use crate::commands::list::space_failure;
use crate::exit::{Answer, Failure};
use crate::output::Output;
use crate::{footer, services};

/// Tell who holds a port: program, process tree, user, unit, container, connections
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Ports: numbers, services, ranges, sets; a protocol may follow: 53/udp
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<String>,
    /// TCP ports only
    #[arg(short, long)]
    tcp: bool,
    /// UDP ports only
    #[arg(short, long)]
    udp: bool,
    /// The ports of one port space: host, a name of `ip netns`, a PID, a container or `net:[INODE]`
    #[arg(long, value_name = "SPACE", value_parser = NonEmptyStringValueParser::new())]
    space: Option<String>,
    /// Send the holders a signal, TERM unless another is given; asks first
    #[arg(short, long, value_name = "SIGNAL", num_args = 0..=1, require_equals = true, default_missing_value = "TERM")]
    kill: Option<Signal>,
    /// Make the kernel close the sockets, without a word to their program (SOCK_DESTROY); asks first
    #[arg(long, conflicts_with = "kill")]
    close_socket: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Print one JSON document
    #[arg(long, conflicts_with_all = ["kill", "close_socket"])]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  portolan who 8080                 who holds port 8080
  portolan who https 53/udp         several ports, by name or number
  portolan who 8080 --kill          ask, then end the holder with SIGTERM
  portolan who 8080 --kill=KILL --yes
  portolan who 8080 --close-socket  close the sockets, not the program
  portolan who 8080 --json | jq '.holders[].pid'

Exit code: 0 if somebody holds one of the ports, 1 if nobody does (or the
answer to the question was no, or --close-socket left a port bound), 2 for a
wrong command line, 3 if not permitted, 4 if the system failed.

--kill and --close-socket act on those who listen, are bound or take datagrams;
on those connected from the port only if there is nobody else. They act in the
host's port space unless --space names another.";

pub(crate) fn run(args: &Args, verbose: bool, output: &mut Output) -> Result<Answer, Failure> {
    let (services, services_warning) = services::load(Path::new(services::FILE));
    let wanted = Wanted::parse(args, &services)?;
    let query = wanted.query(args);
    let mut snapshot = Snapshot::take(&query).map_err(space_failure)?;
    crate::commands::spaces::name_spaces(&mut snapshot);
    let uses = snapshot.port_uses(|protocol, port| wanted.includes(protocol, port));
    let ancestors = ancestors(&snapshot, &uses);

    if args.json {
        document::write(output, &snapshot, &services, &ancestors, &uses)?;
    } else {
        report::write(output, &snapshot, &services, &ancestors, &uses)?;
        output.flush()?;
        footer::write(&footer::Footer {
            snapshot: &snapshot,
            hidden: true,
            dropped: &[],
            services_warning: services_warning.as_deref(),
            verbose,
            named_protocols: false,
            marks_unseen: false,
        });
    }
    let held = uses.iter().any(|usage| usage.holder.is_somebody());
    if !args.json {
        wanted.say_nobody(&snapshot, &uses);
    }
    if !args.close_socket && args.kill.is_none() {
        return Ok(if held { Answer::Yes } else { Answer::No });
    }
    let chosen = chosen::choose(&snapshot, &uses, args.space.is_some())?;
    match args.kill {
        None => close::run(&snapshot, &chosen, &query, args.yes),
        Some(_) if !held => Ok(Answer::No),
        Some(signal) => kill::run(&snapshot, &chosen, signal, args.yes),
    }
}

/// The ports that are asked about.
struct Wanted {
    sets: Vec<Asked>,
    protocols: ProtocolSet,
}

/// One argument.
struct Asked {
    /// As it was written, for the answer that nobody holds it.
    word: String,
    protocol: Option<SocketProtocol>,
    ports: PortSet,
}

impl Asked {
    fn includes(&self, protocol: SocketProtocol, port: Port) -> bool {
        self.protocol
            .is_none_or(|of| of.transport() == protocol.transport())
            && self.ports.contains(port)
    }
}

impl Wanted {
    fn parse(args: &Args, services: &Services) -> Result<Self, Failure> {
        let mut protocols = ProtocolSet::EMPTY;
        // MPTCP shares TCP's ports.
        for (asked, protocol) in [
            (args.tcp, SocketProtocol::Tcp),
            (args.tcp, SocketProtocol::Mptcp),
            (args.udp, SocketProtocol::Udp),
        ] {
            if asked {
                protocols = protocols.with(protocol);
            }
        }
        if protocols.is_empty() {
            protocols = SocketProtocol::ALL
                .into_iter()
                .filter(|p| p.transport().is_some())
                .collect();
        }
        let asked = |word: &String| match ports(word, services) {
            Ok((protocol, ports)) => Ok(Asked {
                word: word.clone(),
                protocol,
                ports,
            }),
            Err(_) if args.kill.is_some() && word.parse::<Signal>().is_ok() => Err(Failure::Usage(format!(
                "{} is no port; the signal stands behind an equals sign: --kill={}",
                footer::shortened(word),
                footer::shortened(word)
            ))),
            Err(error) => Err(Failure::Usage(error.to_string())),
        };
        let sets = args.ports.iter().map(asked).collect::<Result<_, _>>()?;
        Ok(Self { sets, protocols })
    }

    fn includes(&self, protocol: SocketProtocol, port: Port) -> bool {
        self.protocols.contains(protocol) && self.sets.iter().any(|asked| asked.includes(protocol, port))
    }

    fn query(&self, args: &Args) -> Query {
        Query {
            protocols: self.protocols,
            states: StateSet::ALL,
            local_ports: Some(
                self.sets
                    .iter()
                    .flat_map(|asked| asked.ports.ranges())
                    .copied()
                    .collect(),
            ),
            space: args
                .space
                .as_deref()
                .map_or(SpaceSelect::Every, crate::commands::spaces::select),
            owners: true,
            tcp_info: false,
        }
    }

    /// Says which of the arguments nobody holds a port of.
    fn say_nobody(&self, snapshot: &Snapshot, uses: &[PortUse]) {
        let is_held = |asked: &Asked| {
            uses.iter()
                .any(|usage| usage.holder.is_somebody() && asked.includes(usage.protocol, usage.port))
        };
        let words = self
            .sets
            .iter()
            .filter(|asked| !is_held(asked))
            .map(|asked| footer::shortened(&asked.word))
            .collect::<Vec<_>>();
        if words.is_empty() {
            return;
        }
        let words = words.join(", ");
        let place = match snapshot.spaces.as_slice() {
            [] | [_] => String::new(),
            spaces => format!(", in any of {} port spaces", spaces.len()),
        };
        footer::say(&format!("nobody holds {words}{place}"));
    }
}

/// `8080`, `https`, `8000-8100,!8080`, each with `/tcp` or `/udp` behind it if need be.
fn ports(word: &str, services: &Services) -> Result<(Option<SocketProtocol>, PortSet), NotationError> {
    let (set, protocol) = PortSet::parse_with_protocol(word, services)?;
    let protocol = protocol.and_then(|protocol| {
        SocketProtocol::ALL
            .into_iter()
            .find(|socket| socket.transport() == Some(protocol))
    });
    Ok((protocol, set))
}

/// The ancestors of every process that is named.
fn ancestors(snapshot: &Snapshot, uses: &[PortUse]) -> HashMap<i32, Vec<Process>> {
    let Ok(root) = ProcRoot::system() else {
        return HashMap::new();
    };
    let mut users = Users::new();
    let mut ancestors = HashMap::new();
    for usage in uses {
        if let PortHolder::Process(pid) = usage.holder
            && let Some(process) = snapshot.processes.get(&pid)
        {
            ancestors
                .entry(pid)
                .or_insert_with(|| process.ancestors(&root, &mut users));
        }
    }
    ancestors
}
