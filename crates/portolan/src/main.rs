//! `portolan`: the ports of a machine, seen, explained and carried out.
//!
//! This crate parses the command line, calls the libraries and prints; it holds nothing that another
//! program would want.

#![cfg_attr(
    portolan_elsewhere,
    allow(dead_code, reason = "the commands that read Linux use more of what is shared")
)]

mod ask;
mod cli;
mod commands;
mod exit;
#[cfg(not(portolan_elsewhere))]
mod footer;
#[cfg(not(portolan_elsewhere))]
mod json;
mod message;
mod output;
mod services;
mod terminal;
#[cfg(not(portolan_elsewhere))]
mod text;
mod usage;

use std::process::ExitCode;

fn main() -> ExitCode {
    let answer = cli::parse().and_then(|request| {
        let mut output = output::Output::stdout();
        let answer = request.run(&mut output)?;
        output.finish()?;
        Ok(answer)
    });
    exit::report(answer)
}
