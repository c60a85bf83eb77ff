//! The commands that read a Linux host, where the program was not built for one: each says so, and what
//! works. They are in the help, the manual and the completions all the same, and take any words.

use std::ffi::OsString;

use portolan_core::Escaped;

use crate::exit::{Answer, Failure};
use crate::output::Output;

/// A module in the place of the command's own: with the same names, so that the command line need not know.
macro_rules! needs_linux {
    ($command:ident($($with:ty),*), $about:literal) => {
        pub(crate) mod $command {
            use super::{Answer, Failure, OsString, refusal};

            #[doc = $about]
            #[derive(Debug, clap::Args)]
            #[command(after_help = concat!("Example, on Linux:\n  portolan ", stringify!($command)))]
            pub(crate) struct Args {
                /// What Linux would be asked
                #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
                words: Vec<OsString>,
            }

            pub(crate) fn run(args: &Args, $(_: $with),*) -> Result<Answer, Failure> {
                Err(refusal(stringify!($command), &args.words))
            }
        }
    };
}

needs_linux!(
    explain(bool, &mut super::Output),
    "Tell where a packet would go (built for Linux only)"
);
needs_linux!(
    list(bool, bool, &mut super::Output),
    "List open ports (built for Linux only)"
);
needs_linux!(
    who(bool, &mut super::Output),
    "Tell who holds a port (built for Linux only)"
);
needs_linux!(
    pick(&mut super::Output),
    "Print free ports (built for Linux only)"
);
needs_linux!(
    spaces(&mut super::Output),
    "List running port spaces, and change them (built for Linux only)"
);
needs_linux!(
    run(bool),
    "Run a program in a port space of its own (built for Linux only)"
);

fn refusal(command: &str, words: &[OsString]) -> Failure {
    let mut asked = format!("portolan {command}");
    for word in words {
        asked.push(' ');
        asked.push_str(&word.to_string_lossy());
    }
    Failure::System(format!(
        "cannot do `{}` here: it asks the kernel of Linux, for which this program is not built; what works here: \
         name, parse, decode, completions, man",
        Escaped::new(&asked).bounded(MAX_SHOWN)
    ))
}

/// How much of what was asked the message repeats, in characters.
const MAX_SHOWN: usize = 60;
