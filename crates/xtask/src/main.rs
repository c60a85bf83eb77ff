//! The project's own chores, for its developers: `cargo xtask CHORE`.
//!
//! ```text
//! cargo xtask gen-ports DIR    makes crates/portolan-core/data/iana-ports.tsv anew
//! ```

mod gen_ports;
mod lock;
mod merge;
mod names;
mod overrides;
mod packages;
mod table;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask gen-ports DIR   (DIR holds the two unpacked npm packages)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["gen-ports", dir] => gen_ports::run(Path::new(dir)),
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
