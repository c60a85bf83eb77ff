//! Would a bind succeed, and if not, what is in the way.

mod document;
mod question;
mod report;
mod words;

use std::io::Write as _;

use portolan_host::{BindVerdict, ExplainBindError, Sources, explain_bind};

use crate::commands::list::space_failure;
use crate::exit::{Answer, Failure};
use crate::output::Output;
use crate::{footer, services};

/// Tell whether a socket could be bound now, and if not, what is in the way
///
/// Answers for bind(2), and for TCP the listen(2) after it, from the sockets, addresses, devices and settings of
/// this host. Nothing is bound to find out.
///
/// Without an address, as in :80, the socket is meant that most servers make: one for every address of both
/// families. 0.0.0.0:80 is every IPv4 address. Without a protocol it is TCP.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to bind, its protocol before it or behind it: `tcp :80`, `udp 0.0.0.0:53`, `[::1]:8080/tcp`, `https`
    #[arg(required = true, num_args = 1..=2, value_name = "[PROTOCOL] ADDRESS:PORT")]
    socket: Vec<String>,
    /// The user who would bind it, by name or number; without this it is you
    #[arg(long = "as", value_name = "USER")]
    user: Option<String>,
    /// With SO_REUSEADDR set, as most TCP servers do
    #[arg(long)]
    reuse_address: bool,
    /// With SO_REUSEPORT set
    #[arg(long)]
    reuse_port: bool,
    /// With IPV6_V6ONLY set
    #[arg(long)]
    v6_only: bool,
    /// Bound to a network device (SO_BINDTODEVICE)
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// In another port space: a name of `ip netns`, a PID, a container or `net:[INODE]`
    #[arg(long, value_name = "SPACE", default_value = "host")]
    space: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  portolan explain bind tcp :80                       could a server start on port 80?
  portolan explain bind tcp :80 --as www-data         could that user's?
  portolan explain bind udp 0.0.0.0:53
  portolan explain bind tcp [fe80::1%eth0]:22
  portolan explain bind :443/tcp --reuse-address      as most servers bind
  portolan explain bind tcp :8080 --reuse-port --json
  portolan explain bind tcp :0                        is any automatic port left?

SO_REUSEADDR and SO_REUSEPORT of other programs' sockets are read from the sockets themselves, which takes the right
to trace the program: root has it for every one. Where an answer hangs on options that cannot be read (a connection in
TIME-WAIT belongs to no program any more) it is: unknown.

Exit code: 0 if it would succeed, 1 if not, 2 for a wrong command line, 3 if it cannot be found out, 4 if the system
failed.";

pub(crate) fn run(args: &Args, verbose: bool, output: &mut Output) -> Result<Answer, Failure> {
    let (services, services_warning) = services::load(services::FILE.as_ref());
    let question = question::parse(args, &services)?;
    let explanation = explain_bind(&question, &Sources::default()).map_err(failure)?;
    if args.json {
        document::write(output, &question, &explanation, &services)?;
    } else {
        report::write(output, &question, &explanation, &services)?;
        output.flush()?;
        footer::write(&footer::Footer {
            snapshot: &explanation.snapshot,
            // Whose owner is hidden is said where the socket is named.
            hidden: false,
            dropped: &[],
            services_warning: services_warning.as_deref(),
            verbose,
            named_protocols: false,
            marks_unseen: false,
        });
    }
    output.flush()?;
    match &explanation.verdict {
        BindVerdict::Yes { .. } => Ok(Answer::Yes),
        BindVerdict::No(_) => Ok(Answer::No),
        BindVerdict::Unknown(unsure) => Err(Failure::NotPermitted(words::not_found_out(*unsure).to_owned())),
    }
}

fn failure(error: ExplainBindError) -> Failure {
    let text = error.to_string();
    match error {
        ExplainBindError::Space(error) => space_failure(error),
        ExplainBindError::Facts { .. } => Failure::NotPermitted(text),
        _ => Failure::System(text),
    }
}
