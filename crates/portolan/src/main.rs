//! `portolan`: the ports of a machine, seen, explained and carried out.
//!
//! This crate parses the command line, calls the libraries and prints; it holds nothing that another
//! program would want.

mod ask;
mod cli;
mod commands;
mod exit;
mod footer;
mod json;
mod output;
mod services;
mod terminal;
mod text;

use std::process::ExitCode;

fn main() -> ExitCode {
    let answer = cli::parse().and_then(|invocation| {
        let mut output = output::Output::stdout();
        let answer = invocation.run(&mut output)?;
        output.finish()?;
        Ok(answer)
    });
    exit::report(answer)
}
