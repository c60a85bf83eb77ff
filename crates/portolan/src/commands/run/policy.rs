//! What the program may talk to, as options.

use std::path::PathBuf;

use portolan_core::{Escaped, PortSet};
use portolan_gateway::gate::{DenyWith, Policy, Target};

use super::code::Code;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What the program may talk to")]
pub(super) struct PolicyArgs {
    /// Allow this, and deny all that no rule allows: HOST:PORTS[/PROTOCOL], a name, an address or a prefix
    #[arg(long, value_name = "TARGET")]
    allow_out: Vec<Target>,
    /// Deny this, whatever allows it
    #[arg(long, value_name = "TARGET")]
    deny_out: Vec<Target>,
    /// Deny everything, look-ups of names included
    #[arg(long)]
    no_out: bool,
    /// Let the gateway address lead to these ports of the host's own loopback
    #[arg(long, value_name = "PORTS")]
    allow_host: Vec<String>,
    /// Deny the host's other addresses too
    #[arg(long)]
    no_host: bool,
    /// Allow this, if the connection shows the name (TLS, HTTP); without TARGET, all allowed names must be shown
    #[arg(long, value_name = "TARGET", num_args = 0..=1)]
    allow_name: Option<Vec<Target>>,
    /// How the program is told of a denial: icmp (the default), reset or drop
    #[arg(long, value_name = "HOW")]
    deny_with: Option<DenyWith>,
    /// Read rules from this file, as --learn writes it; those given as options are added
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

impl PolicyArgs {
    /// The policy that they mean.
    pub(super) fn policy(&self) -> Result<Policy, Failure> {
        let mut given = Policy {
            no_out: self.no_out,
            no_host: self.no_host,
            deny_with: self.deny_with,
            check_names: self.allow_name.as_ref().is_some_and(Vec::is_empty),
            ..Policy::default()
        };
        for text in &self.allow_host {
            let ports: PortSet = text
                .parse()
                .map_err(|error| Failure::Usage(format!("--allow-host: {error}")))?;
            given.allow_host = given.allow_host.union(&ports);
        }
        for target in &self.allow_out {
            given.allow(target.clone());
        }
        for target in self.allow_name.iter().flatten() {
            let added = given.allow_name(target.clone());
            added.map_err(|error| Failure::Usage(format!("--allow-name: {error}")))?;
        }
        for target in &self.deny_out {
            given.deny(target.clone());
        }
        let mut policy = self.read()?;
        policy.extend(given);
        Ok(policy)
    }

    /// The policy of the file, if one is given.
    fn read(&self) -> Result<Policy, Failure> {
        let Some(path) = &self.policy else {
            return Ok(Policy::default());
        };
        let name = path.to_string_lossy();
        let name = Escaped::new(&*name).bounded(100);
        let text = std::fs::read_to_string(path)
            .map_err(|error| Code::File.failure(format!("cannot read the policy {name}: {error}")))?;
        text.parse()
            .map_err(|error| Failure::Usage(format!("{name}: {error}")))
    }
}
