//! Running spaces: seen, and changed while they run.

mod naming;
mod ports;
mod publish;

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use portolan_core::Escaped;
use portolan_gateway::control::{
    AskError, Client, Directory, FlowEnd, FlowItem, LinkItem, PublishedItem, Request, SpaceName, Status,
};
use portolan_host::SpaceSelect;
use serde::Serialize;

use self::publish::Rights;
use crate::exit::{Answer, Failure};
use crate::output::Output;

/// List running port spaces, and change them
///
/// A space is what `portolan run` makes. What is changed holds at once; flows that are there stay.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  portolan spaces                        those of this user
  portolan spaces publish web 8081:81    one more port
  portolan spaces deny web 10.0.0.0/8
  portolan spaces stop web
  portolan list --space web              the sockets inside
  portolan list --space web --flows      what it talks to

Exit code: 0 if it was done, 1 if no such space runs, 2 for usage, 3 if not
permitted, 4 if it could not be done."
)]
pub(crate) struct Args {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Print again every second
    #[arg(long)]
    watch: bool,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Publish ports of a space
    Publish {
        /// The space
        name: SpaceName,
        /// As for `run -p`
        mapping: String,
    },
    /// Publish ports of a space no longer
    Unpublish {
        /// The space
        name: SpaceName,
        /// As it was published, or the host's ports alone: 8081:81, 8081, 8081-8089/udp
        mapping: String,
    },
    /// Let a space talk to somebody
    Allow {
        /// The space
        name: SpaceName,
        /// As for `run --allow-out`
        target: String,
    },
    /// Let a space talk to somebody no longer
    Deny {
        /// The space
        name: SpaceName,
        /// As for `run --deny-out`
        target: String,
    },
    /// End a space: SIGTERM for its program, and after 10 seconds its end
    Stop {
        /// The space
        name: SpaceName,
    },
}

#[derive(Serialize)]
struct Document {
    version: u32,
    spaces: Vec<Status>,
}

#[derive(Serialize)]
struct FlowDocument {
    version: u32,
    flows: Vec<FlowItem>,
}

/// Longer than a program has to end.
const STOP: Duration = Duration::from_secs(30);

pub(crate) fn run(args: &Args, output: &mut Output) -> Result<Answer, Failure> {
    let rights = Rights::set_aside();
    match &args.action {
        None => loop {
            list(args, output)?;
            output.flush()?;
            if !args.watch {
                return Ok(Answer::Yes);
            }
            std::thread::sleep(Duration::from_secs(1));
        },
        Some(Action::Publish { name, mapping }) => {
            for run in ports::shown(&publish::publish(name, mapping, &rights)?) {
                writeln!(output, "{run}")?;
            }
            Ok(Answer::Yes)
        }
        Some(Action::Unpublish { name, mapping }) => {
            let mapping = mapping.clone();
            let _: Vec<PublishedItem> = ask(name, &Request::Unpublish { mapping })?;
            Ok(Answer::Yes)
        }
        Some(Action::Allow { name, target }) => {
            let target = target.clone();
            ask(name, &Request::Allow { target })
        }
        .map(|()| Answer::Yes),
        Some(Action::Deny { name, target }) => {
            let target = target.clone();
            ask(name, &Request::Deny { target })
        }
        .map(|()| Answer::Yes),
        Some(Action::Stop { name }) => stop(name),
    }
}

fn list(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let spaces = statuses();
    if args.json {
        serde_json::to_writer(&mut *output, &Document { version: 1, spaces })
            .map_err(std::io::Error::from)?;
        return Ok(writeln!(output)?);
    }
    if args.watch && std::io::stdout().is_terminal() {
        // To the top, and nothing below.
        write!(output, "\x1b[H\x1b[J")?;
    }
    let rows = spaces.iter().flat_map(|space| {
        let links = space.links.iter().map(link);
        let ports: Vec<String> = ports::shown(&space.published).into_iter().chain(links).collect();
        let first = [
            space.name.clone(),
            space.pid.to_string(),
            age(space.age),
            bytes(space.bytes_in),
            bytes(space.bytes_out),
            if ports.is_empty() {
                "-".to_owned()
            } else {
                ports.join(",")
            },
            command(&space.command),
        ];
        // What it talks, and where its ports are, is the space's.
        let joined = space.joined.iter().map(|joined| {
            let [traffic_in, traffic_out, ports] = ["-"; 3].map(str::to_owned);
            [
                format!("{}+", space.name),
                joined.pid.to_string(),
                age(joined.age),
                traffic_in,
                traffic_out,
                ports,
                command(&joined.command),
            ]
        });
        std::iter::once(first).chain(joined)
    });
    table(
        ["NAME", "PID", "AGE", "IN", "OUT", "PORTS", "COMMAND"],
        rows.collect(),
        output,
    )
}

/// Prints the flows of a space.
pub(crate) fn flows(space: &str, json: bool, output: &mut Output) -> Result<Answer, Failure> {
    let name: SpaceName = space
        .parse()
        .map_err(|error| Failure::Usage(format!("--space: {error}")))?;
    let flows: Vec<FlowItem> = ask(&name, &Request::Flows)?;
    if json {
        serde_json::to_writer(&mut *output, &FlowDocument { version: 1, flows })
            .map_err(std::io::Error::from)?;
        writeln!(output)?;
        return Ok(Answer::Yes);
    }
    let rows = flows.iter().map(|flow| {
        [
            flow.protocol.clone(),
            flow.direction.clone(),
            flow.state.clone(),
            end(&flow.inside),
            end(&flow.outside),
            bytes(flow.bytes_in),
            bytes(flow.bytes_out),
            flow.rtt_us.map_or_else(
                || "-".to_owned(),
                |rtt| format!("{}.{:03}ms", rtt / 1000, rtt % 1000),
            ),
            flow.bytes_retransmitted.map_or_else(|| "-".to_owned(), bytes),
            age(flow.age as u64),
            Escaped::new(&flow.rule).bounded(40).to_string(),
        ]
    });
    let headers = [
        "PROTO", "WAY", "STATE", "INSIDE", "OUTSIDE", "IN", "OUT", "RTT", "RETRANS", "AGE", "RULE",
    ];
    table(headers, rows.collect(), output)?;
    Ok(Answer::Yes)
}

/// What `--space` means: a running space of this user, or what the host knows by that name.
pub(crate) fn select(text: &str) -> SpaceSelect {
    let select = SpaceSelect::from_text(text);
    if let (SpaceSelect::Named(_), Ok(name)) = (&select, text.parse::<SpaceName>())
        && let Ok(status) = ask::<Status>(&name, &Request::Status)
        && status.pid > 0
    {
        return SpaceSelect::Process(status.pid);
    }
    select
}

pub(crate) use naming::name_spaces;

/// Every space that answers.
fn statuses() -> Vec<Status> {
    let names = Directory::of_user().names();
    names
        .iter()
        .filter_map(|name| ask(name, &Request::Status).ok())
        .collect()
}

fn stop(name: &SpaceName) -> Result<Answer, Failure> {
    let mut client = Client::connect(&Directory::of_user(), name).map_err(failure)?;
    client.ask::<()>(&Request::Stop).map_err(failure)?;
    match client.wait_for_end(STOP) {
        Ok(true) => Ok(Answer::Yes),
        Ok(false) => Err(Failure::System(format!("{} has not ended", name.as_str()))),
        Err(error) => Err(failure(error.into())),
    }
}

fn ask<T: serde::de::DeserializeOwned>(name: &SpaceName, request: &Request) -> Result<T, Failure> {
    tell(name, request).map_err(failure)
}

fn tell<T: serde::de::DeserializeOwned>(name: &SpaceName, request: &Request) -> Result<T, AskError> {
    Client::connect(&Directory::of_user(), name)?.ask(request)
}

fn failure(error: AskError) -> Failure {
    let text = error.to_string();
    match error {
        AskError::NotRunning(_) => Failure::No(text),
        AskError::Wrong(_) => Failure::Usage(text),
        AskError::Failed(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Failure::NotPermitted(text)
        }
        _ => Failure::System(text),
    }
}

/// `link:db`, `link:db(down)`
fn link(item: &LinkItem) -> String {
    let mark = if item.up { "" } else { "(down)" };
    format!("link:{}{mark}", item.name)
}

fn command(words: &[String]) -> String {
    Escaped::new(&words.join(" ")).bounded(60).to_string()
}

fn end(end: &FlowEnd) -> String {
    SocketAddr::new(end.address, end.port).to_string()
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut count, mut unit) = (count, 0);
    while count >= 10_240 && unit + 1 < UNITS.len() {
        count /= 1_024;
        unit += 1;
    }
    format!("{count}{}", UNITS[unit])
}

/// Rows below headers, each column as wide as its widest cell; all of it is ASCII.
fn table<const N: usize>(
    headers: [&str; N],
    rows: Vec<[String; N]>,
    output: &mut Output,
) -> Result<(), Failure> {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headers[column].len()]).max().unwrap_or(0)
    });
    let mut line = |cells: &mut dyn Iterator<Item = &str>| -> std::io::Result<()> {
        let mut text = String::new();
        for (cell, width) in cells.zip(widths) {
            text.push_str(&format!("{cell:width$}  "));
        }
        writeln!(output, "{}", text.trim_end())
    };
    line(&mut headers.into_iter())?;
    for row in &rows {
        line(&mut row.iter().map(String::as_str))?;
    }
    Ok(())
}
