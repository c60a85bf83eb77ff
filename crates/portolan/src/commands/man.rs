use std::io::Write as _;

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::exit::{Answer, Failure};
use crate::output::Output;

/// Print the manual page, or that of one command
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The command whose page to print
    command: Option<String>,
}

pub(crate) fn run(args: &Args, output: &mut Output) -> Result<Answer, Failure> {
    let mut root = Cli::command();
    root.build();
    let page = match &args.command {
        None => Man::new(root),
        Some(name) => {
            let command = root.find_subcommand(name).ok_or_else(|| {
                Failure::Usage(format!(
                    "there is no command {name:?}; portolan --help lists them"
                ))
            })?;
            Man::new(command.clone())
        }
    };
    let mut text = Vec::new();
    page.render(&mut text)?;
    output.write_all(&text)?;
    Ok(Answer::Yes)
}
