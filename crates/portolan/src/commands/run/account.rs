//! What is told of the flows: denials, the report, the policy that was learnt.

use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::path::{Path, PathBuf};

use portolan_core::Escaped;
use portolan_gateway::Gateway;
use portolan_gateway::gate::{Gate, Report};
use portolan_net::Counters;
use serde::Serialize;

use super::between::{Impairments, LinkReport};
use super::code::Code;
use crate::exit::Failure;
use crate::message;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What is told of it")]
pub(super) struct AccountArgs {
    /// Say at once what is denied, once for each destination
    #[arg(long)]
    log_denied: bool,
    /// Write what was denied and allowed to this file, as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write a policy that allows what was reached, and nothing else, to this file
    #[arg(long, value_name = "FILE")]
    learn: Option<PathBuf>,
}

/// Files to be written at the end, open already: this process gives up the right to open any.
#[derive(Debug)]
pub(super) struct Account {
    log_denied: bool,
    report: Option<File>,
    learn: Option<File>,
}

/// The report.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    report: Report,
    /// Pings that the host refused.
    pings_refused: u64,
    /// Packets that the stack received and sent.
    stack: Packets,
    #[serde(flatten)]
    link: LinkReport,
}

/// Counts of packets, as the program sees them; super-segments are one.
#[derive(Debug, Serialize)]
struct Packets {
    #[serde(rename = "in")]
    inward: u64,
    #[serde(rename = "out")]
    outward: u64,
}

/// So many denials are told one by one at the end; the report has the rest.
const LINES_MAX: usize = 50;

impl Account {
    pub(super) fn open(args: &AccountArgs) -> Result<Self, Failure> {
        let open = |path: &Option<PathBuf>| path.as_deref().map(create).transpose();
        Ok(Self {
            log_denied: args.log_denied,
            report: open(&args.report)?,
            learn: open(&args.learn)?,
        })
    }

    /// To be called when there is a gate, and nothing has passed it yet.
    pub(super) fn begin(&self, gate: &Gate) {
        if self.log_denied {
            gate.on_first_denial(|line| message::say_line(&format!("denied: {line}")));
        }
    }

    /// Tells and writes all of it.
    pub(super) fn close(self, gateway: &Gateway, link: LinkReport, verbose: bool) -> Result<(), Failure> {
        let gate = gateway.gate();
        let ledger = gate.ledger();
        let lines = ledger.denied_lines();
        for line in lines.iter().take(LINES_MAX) {
            message::say_line(line);
        }
        if let Some(more @ 1..) = lines.len().checked_sub(LINES_MAX) {
            message::say_line(&format!(
                "denied: {more} more destinations; --report FILE lists them"
            ));
        }
        let pings_refused = gateway.outbound().no_ping;
        if verbose {
            for line in link.impaired.iter().flat_map(Impairments::lines) {
                message::say_line(&line);
            }
        }
        let counted = |of: fn(&Counters) -> u64| gateway.stack().counters().iter().map(of).sum();
        let failed =
            |what: &str, error: io::Error| Code::File.failure(format!("cannot write {what}: {error}"));
        if let Some(file) = self.report {
            let mut text = serde_json::to_vec_pretty(&Told {
                report: ledger.report(),
                pings_refused,
                stack: Packets {
                    inward: counted(|counters| counters.packets_out),
                    outward: counted(|counters| counters.packets_in),
                },
                link,
            })
            .map_err(|error| failed("the report", error.into()))?;
            text.push(b'\n');
            replace(file, &text).map_err(|error| failed("the report", error))?;
        }
        if let Some(file) = self.learn {
            let learned = gate.learn();
            if learned.left_out > 0 {
                let left_out = learned.left_out;
                message::say(&format!(
                    "{left_out} flows were to more destinations than a policy can learn"
                ));
            }
            replace(file, learned.policy.to_string().as_bytes())
                .map_err(|error| failed("the policy that was learnt", error))?;
        }
        Ok(())
    }
}

/// The file, to be written later; what is in it stays until then.
fn create(path: &Path) -> Result<File, Failure> {
    let opened = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    opened.map_err(|error| {
        let name = path.to_string_lossy();
        Code::File.failure(format!(
            "cannot write {}: {error}",
            Escaped::new(&*name).bounded(100)
        ))
    })
}

fn replace(mut file: File, text: &[u8]) -> io::Result<()> {
    // What cannot be cut, a pipe or /dev/stdout, cannot be rewound either.
    if file.metadata()?.is_file() {
        file.rewind()?;
        file.set_len(0)?;
    }
    file.write_all(text)
}
