//! Why the host does what it does with a port: the engine, asked with the host's own state.

mod bind;

use clap::Subcommand;

use crate::exit::{Answer, Failure};
use crate::output::Output;

/// Explain what this host would do, and why
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  portolan explain bind tcp :80    could a server start on port 80?")]
pub(crate) struct Args {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    Bind(bind::Args),
}

pub(crate) fn run(args: &Args, verbose: bool, output: &mut Output) -> Result<Answer, Failure> {
    match &args.question {
        Question::Bind(args) => bind::run(args, verbose, output),
    }
}
