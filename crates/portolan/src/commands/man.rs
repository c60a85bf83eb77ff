use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_mangen::Man;
use portolan_core::Escaped;

use crate::cli::Cli;
use crate::exit::{Answer, Failure};
use crate::output::Output;

/// Print the manual page, or that of one command
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portolan man | man -l -            read the page of portolan
  portolan man name | man -l -       read that of one command
  portolan man --dir /usr/share/man/man1
                                     write every page, as packages do")]
pub(crate) struct Args {
    /// The command whose page to print
    command: Option<String>,
    /// Write every page into this directory, which is made if it is not there
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, output: &mut Output) -> Result<Answer, Failure> {
    if let Some(dir) = &args.dir {
        return write_all(dir);
    }
    let mut root = Cli::command();
    root.build();
    let page = match &args.command {
        None => Man::new(root),
        Some(name) => {
            let command = root.find_subcommand(name).ok_or_else(|| {
                Failure::Usage(format!(
                    "there is no command \"{}\"; portolan --help lists them",
                    Escaped::new(name).bounded(60)
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

/// Writes `portolan.1`, `portolan-name.1` and so on.
fn write_all(dir: &Path) -> Result<Answer, Failure> {
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|error| {
            let shown = Escaped::new(dir.as_os_str().as_encoded_bytes());
            let text = format!("cannot write manual pages into {shown}: {error}; choose another directory");
            match error.kind() {
                io::ErrorKind::PermissionDenied => Failure::NotPermitted(text),
                _ => Failure::System(text),
            }
        })?;
    Ok(Answer::Yes)
}
