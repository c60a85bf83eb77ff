//! The command line as one definition, from which help, completions and man pages are made too.

use clap::{Parser, Subcommand};

use crate::commands;
use crate::exit::{Answer, Failure};
use crate::output::Output;

/// See, explain and guard the ports of a machine.
#[derive(Debug, Parser)]
#[command(name = "portolan", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Completions(commands::completions::Args),
    Man(commands::man::Args),
    Name(commands::name::Args),
}

impl Command {
    pub(crate) fn run(self, output: &mut Output) -> Result<Answer, Failure> {
        match self {
            Self::Completions(args) => commands::completions::run(&args, output),
            Self::Man(args) => commands::man::run(&args, output),
            Self::Name(args) => commands::name::run(&args, output),
        }
    }
}

/// Reads the command line; `--help` and `--version` print and end the process.
pub(crate) fn parse() -> Result<Command, Failure> {
    match Cli::try_parse() {
        Ok(cli) => Ok(cli.command),
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => Err(Failure::Usage(one_line(&error.to_string()))),
    }
}

/// clap's several lines as one: the fault, then its tips; the usage is left to `--help`.
fn one_line(text: &str) -> String {
    let mut parts = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        if !line.is_empty() {
            parts.push(line.trim_start_matches("error: ").trim_start_matches("tip: "));
        }
    }
    parts.push("see --help");
    parts.join("; ")
}
