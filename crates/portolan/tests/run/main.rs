//! `portolan run`, as a person or a program runs it, as root and as an ordinary user.
#![cfg(target_os = "linux")]

mod all_ports;
mod auto;
mod clients;
mod differential;
mod ending;
mod followed;
mod forbidden;
mod hostile;
mod impair;
mod killed;
mod memory;
mod network;
mod pcap;
mod ports;
mod program;
mod programs;
mod rights;
mod served;
mod sub_ids;
mod users;
mod walls;

use std::process::{Command, Output, Stdio};

/// `portolan run`, to be given arguments.
fn portolan() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.arg("run").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    portolan().args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}
