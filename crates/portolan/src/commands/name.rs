mod json;
mod question;
mod table;

use std::io::Write as _;
use std::path::PathBuf;

use portolan_core::registry::{Entry, Services, Status};
use portolan_core::{Escaped, PortRange, Protocol};

use self::question::{Question, Subject};
use crate::exit::{Answer, Failure};
use crate::message::say;
use crate::output::Output;
use crate::services;

/// Show which service a port has, or which port a service
///
/// Knows the whole IANA registry of service names and ports, and names that are in use without being
/// registered, which are shown as "by custom". The machine's own /etc/services comes first: a name that it
/// gives is the one that other commands show and take, but it hides nothing here.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portolan name 443              every service on port 443, any protocol
  portolan name 443/udp          of UDP alone
  portolan name https            the ports of a service, by name or alias
  portolan name 'ssh*' '*sql?'   every name that fits a pattern
  portolan name 8000-8100        every named port of a range
  portolan name --json x11       for programs

Exit code: 0 if anything was found, 1 if nothing was, 2 if an argument cannot
be read.")]
pub(crate) struct Args {
    /// Ports, ranges, service names or patterns with * and ?; each may end in /PROTOCOL
    #[arg(required = true, value_name = "WHAT")]
    what: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Read this file in the place of /etc/services
    #[arg(long, value_name = "FILE")]
    services: Option<PathBuf>,
}

/// One question and what was found for it.
struct Finding<'a> {
    question: &'a Question,
    entries: Vec<Entry<'a>>,
}

impl Finding<'_> {
    /// Whether a service was found; that a port is reserved names none.
    fn is_named(&self) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.status() == Status::Assigned)
    }
}

pub(crate) fn run(args: &Args, output: &mut Output) -> Result<Answer, Failure> {
    let (services, warning) = match &args.services {
        Some(path) => services::load_given(path)?,
        None => services::load(services::FILE.as_ref()),
    };
    let questions = args
        .what
        .iter()
        .map(|text| Question::parse(text, &services))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::Usage(error.to_string()))?;
    if let Some(warning) = warning {
        say(&warning);
    }
    let findings: Vec<Finding<'_>> = questions
        .iter()
        .map(|question| Finding {
            question,
            entries: answers(question, &services),
        })
        .collect();
    let ephemeral = ephemeral_ports();
    if args.json {
        json::print(&findings, &services, ephemeral, output)?;
    } else {
        table::print(&findings, ephemeral, output)?;
        // What was found should stand before what was not.
        output.flush()?;
        for finding in findings.iter().filter(|finding| !finding.is_named()) {
            say(&missing(finding.question, &services));
        }
    }
    if findings.iter().any(Finding::is_named) {
        Ok(Answer::Yes)
    } else {
        Ok(Answer::No)
    }
}

/// What the registry says to a question, in the order to be shown.
fn answers<'a>(question: &'a Question, services: &'a Services) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'_>> = match &question.subject {
        Subject::Ports(range) => {
            let protocols = question
                .protocol
                .as_ref()
                .map_or(&REGISTERED[..], std::slice::from_ref);
            let single = range.len() == 1;
            range
                .iter()
                .flat_map(|port| protocols.iter().map(move |&protocol| (port, protocol)))
                .flat_map(|(port, protocol)| services.entries(port, protocol))
                // Of a range only what has a name: hundreds of reserved ports would hide it.
                .filter(|entry| single || entry.status() == Status::Assigned)
                .collect()
        }
        Subject::Name(name) => services.named(name).collect(),
        Subject::Pattern(pattern) => {
            let mut entries: Vec<Entry<'_>> = services.search(pattern.glob()).collect();
            entries.sort_by_key(|entry| entry.port());
            entries
        }
    };
    if let Some(protocol) = question.protocol {
        // UDP-Lite has the names of UDP.
        let registered = match protocol {
            Protocol::UdpLite => Protocol::Udp,
            other => other,
        };
        entries.retain(|entry| [protocol, registered].contains(&entry.protocol()));
    }
    // A service with a range of ports is one line, not one a port.
    let mut seen = Vec::new();
    entries.retain(|entry| {
        if entry.ports().len() == 1 {
            return true;
        }
        let range = (entry.ports(), entry.protocol());
        let new = !seen.contains(&range);
        seen.push(range);
        new
    });
    entries
}

/// The protocols for which IANA registers ports.
const REGISTERED: [Protocol; 4] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Dccp];

/// Why a question has no answer, and what was perhaps meant.
fn missing(question: &Question, services: &Services) -> String {
    let protocol = question
        .protocol
        .map_or(String::new(), |protocol| format!(" for {protocol}"));
    match &question.subject {
        Subject::Ports(range) if range.len() == 1 => format!("no service has port {range}{protocol}"),
        Subject::Ports(range) => format!("no service has a port of {range}{protocol}"),
        Subject::Pattern(pattern) => format!(
            "no service name fits '{}'{protocol}",
            Escaped::new(pattern.text()).bounded(MAX_SHOWN)
        ),
        Subject::Name(name) => {
            let shown = Escaped::new(name).bounded(MAX_SHOWN);
            if services.named(name).next().is_some() {
                return format!("{shown} has no port{protocol}; without /PROTOCOL its ports are shown");
            }
            match services.similar(name, 3).as_slice() {
                [] => format!("no service is called {shown}; a pattern such as '*{shown}*' searches"),
                near => format!(
                    "no service is called {shown}; did you mean {}?",
                    near.join(" or ")
                ),
            }
        }
    }
}

/// How much of what was typed a message repeats, in characters.
const MAX_SHOWN: usize = 60;

/// The range from which this machine's kernel takes the ports that it chooses itself.
#[cfg(not(portolan_elsewhere))]
fn ephemeral_ports() -> Option<PortRange> {
    portolan_host::own_ephemeral_ports()
}

#[cfg(portolan_elsewhere)]
fn ephemeral_ports() -> Option<PortRange> {
    None
}
