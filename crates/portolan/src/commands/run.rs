mod account;
mod between;
mod code;
mod delivery;
mod descriptor;
mod foreground;
mod impair;
mod join;
mod link;
mod links;
mod names;
mod pcap;
mod policy;
mod ports;
mod sandbox;
mod session;

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_core::Escaped;
use portolan_gateway::GatewayConfig;
use portolan_gateway::control::{About, Directory, SpaceName};
use portolan_gateway::inbound::raise_descriptor_limit;
use portolan_space::{
    Capabilities, Ended, Errands, Facts, Identity, Keeper, Network, Obstacle, Program, Space, SpaceConfig,
    SpaceError, Step, Subnets, host_addresses, host_routes,
};
use rustix::io::Errno;

use self::code::Code;
pub(crate) use self::ports::holder;
use crate::exit::{Answer, Failure};
use crate::message;

/// Run a program in a port space of its own
///
/// The program may bind any port, 80 included, and clashes with nobody; it takes no root. It reaches the
/// outside world as far as the policy allows, and nothing of this host's own loopback.
///
/// Without a policy everything outside is allowed. Any --allow-out makes deny the default for the rest.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  portolan run -- curl https://example.org
  portolan run -p 8080:80 -- nginx -g 'daemon off;'
  portolan run -p auto -p '!22' -- ./server
  portolan run --allow-out example.org:443 -- ./build.sh
  portolan run --deny-out 10.0.0.0/8 -- COMMAND
  portolan run --join nginx -- curl http://localhost/

Exit code: the program's own, 128+n if signal n ended it, 126 if it cannot be
executed, 127 if it is not found, 125 if the port space cannot be made, 2 for
usage.")]
pub(crate) struct Args {
    /// Publish a port: `[ADDRESS:]PORT[-PORT]:[ADDRESS:]PORT[-PORT][/tcp|udp|both]`; port 0 chooses a free one.
    /// `auto` publishes what the program listens on, as it does, and `!22` leaves a port out of that
    #[arg(short, long = "publish", value_name = "MAPPING")]
    publish: Vec<String>,
    /// The name of the space, for `portolan spaces` and others [default: the program's]
    #[arg(long, value_name = "NAME")]
    name: Option<SpaceName>,
    /// Link the space with another one, if that says the same of this one: each is NAME.portolan to the other
    #[arg(long, value_name = "NAME")]
    link: Vec<SpaceName>,
    /// Run the program in this space, which runs already, beside its program
    #[arg(long, value_name = "NAME", conflicts_with_all = OWN)]
    join: Option<SpaceName>,
    /// The program is root inside; outside it stays who it is
    #[arg(long)]
    root: bool,
    /// What the program may do inside beyond its user's rights: capabilities by name, as `net_raw,chown`, or `all`.
    /// They hold for the space alone
    #[arg(long = "cap", value_name = "NAMES")]
    capabilities: Vec<Capabilities>,
    /// Map the ranges of /etc/subuid and /etc/subgid too, by newuidmap and newgidmap
    #[arg(long)]
    subids: bool,
    /// Put the program into this network namespace, as `ip netns` mounts it, instead of a new one
    #[arg(long, value_name = "PATH", conflicts_with = "pid")]
    netns: Option<PathBuf>,
    /// Put the program into the network namespace of this process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Answer names from the host's /etc/hosts too
    #[arg(long)]
    hosts: bool,
    /// Repeat what is random: addresses, sequence numbers, impairment
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The longest packet of the space's device, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=65_535))]
    mtu: u32,
    #[command(flatten)]
    policy: policy::PolicyArgs,
    #[command(flatten)]
    between: between::BetweenArgs,
    #[command(flatten)]
    account: account::AccountArgs,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What a program that joins a space has as that space has it.
const OWN: [&str; 24] = [
    "publish",
    "name",
    "link",
    "root",
    "capabilities",
    "subids",
    "netns",
    "pid",
    "hosts",
    "seed",
    "mtu",
    "allow_out",
    "deny_out",
    "no_out",
    "allow_host",
    "no_host",
    "allow_name",
    "deny_with",
    "policy",
    "impair",
    "pcap",
    "log_denied",
    "report",
    "learn",
];

pub(crate) fn run(args: &Args, verbose: bool) -> Result<Answer, Failure> {
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err(Failure::Usage("run needs a program to run".to_owned()));
    };
    if let Some(name) = &args.join {
        let ended = join::run(name, &args.command, Program::new(program, arguments), verbose)?;
        return answer(program, ended);
    }
    let policy = args.policy.policy()?;
    let publications = ports::Publications::read(&args.publish)?;
    let account = account::Account::open(&args.account)?;
    let mut between = between::Between::open(&args.between)?;
    let linked = links::wanted(&args.link)?;
    let files = names::Files::read(args.hosts);
    let claim = claim(args.name.as_ref(), &linked, files.paths(), program, verbose)?;
    let porter = publications.helper()?;
    // Each flow takes a descriptor, and each published port.
    let descriptors = raise_descriptor_limit();
    let bound = publications.bind()?;
    ports::say_chosen(&bound);
    let routes = host_routes().map_err(|error| unread("routes", &error))?;
    let addresses = host_addresses().map_err(|error| unread("addresses", &error))?;
    let seed = match args.seed {
        Some(seed) => seed,
        None => random()?,
    };
    let (subnets, others) = Subnets::choose_several(&routes, has_ipv6(), seed, linked.len())
        .map_err(|error| space_failure(error.into()))?;
    let mut config = SpaceConfig::new(Program::new(program, arguments), subnets);
    config.identity = if args.root {
        Identity::Root
    } else {
        Identity::Caller
    };
    config.sub_ids = args.subids;
    config.capabilities = args
        .capabilities
        .iter()
        .fold(Capabilities::NONE, |all, some| all.union(*some));
    config.network = match (&args.netns, args.pid) {
        (Some(path), _) => Network::Path(path.clone()),
        (None, Some(pid)) => Network::Process(pid),
        (None, None) => Network::New,
    };
    config.mtu = args.mtu;
    config.descriptors = descriptors;
    let (name, keeper) = match claim {
        None => (SpaceName::like(""), None),
        Some((name, directory, keeper)) => {
            // The program has our user, and would find the sockets of every space.
            config.hidden.push(directory);
            (name, Some(keeper))
        }
    };
    let mut about = About {
        name,
        command: words(&args.command),
        addresses: inside_addresses(&subnets),
        namespaces: Arc::new([]),
    };
    config
        .files
        .extend(names::shown(&subnets, !policy.denies_by_default()));
    let mut space = Space::start(&config).map_err(space_failure)?;
    if let Some(membership) = space.membership() {
        about.namespaces = Arc::clone(membership.descriptors());
    }
    for note in space.notes() {
        // Another device serves as well, and nobody inside notices.
        if verbose || note.step() != Step::Tun {
            message::say(&format!("{note} [{}]", note.step().code()));
        }
    }
    let links = links::new(&about.name, linked, &others);
    let sources = names::sources(&files, links.clone());
    let gateway = GatewayConfig {
        addresses: gateway_addresses(&subnets),
        inside: inside_addresses(&subnets),
        host_addresses: addresses,
        policy,
        links,
        secret: args.seed.map(secret),
    };
    between.ready(seed, subnets);
    let mut session = session::Session::new(
        &mut space,
        &mut between,
        gateway,
        sources,
        about,
        keeper.map(|keeper| (keeper, files)),
        verbose,
    )?;
    let publisher = session.gateway().publisher();
    // Whoever asks for something on the link wants to have all packets there.
    if let Some(shortcut) = ports::shortcut(&space).filter(|_| between.is_nothing()) {
        publisher.take_shortcut(shortcut);
    }
    publisher
        .serve(bound)
        .map_err(|error| code::failure(&error, error.code()))?;
    if let Some(porter) = &porter {
        let _runtime = session.enter();
        let follower = publications.follower(porter, &space, inside_addresses(&subnets));
        let follower = follower.map_err(|error| {
            Code::Auto.failure(format!("cannot read what the program listens on: {error}"))
        })?;
        session.gateway().publisher().follow(follower);
    }
    account.begin(session.gateway().gate());
    let ended = session.run(&mut space);
    if let (Ok(_), Some(_)) = (&ended, between.captured()) {
        session.settle(|| {
            between
                .captured()
                .map_or(0, |counts| counts.inward + counts.outward)
        });
    }
    let link = between.end(verbose);
    let ended = ended?;
    account.close(session.gateway(), link, verbose)?;
    answer(program, ended)
}

/// How the program ended, or why it could not be run.
fn answer(program: &OsStr, end: session::End) -> Result<Answer, Failure> {
    match end {
        session::End::Ended(ended) => Ok(Answer::Program(exit_code(ended))),
        session::End::NotRun(errno) => {
            let name = Escaped::new(program.as_bytes()).bounded(100).to_string();
            Err(not_run(&name, errno))
        }
    }
}

/// A name for the space, the directory of its socket, and who keeps that. Without a socket of a name that was not asked
/// for the space runs as well.
fn claim(
    asked: Option<&SpaceName>,
    linked: &[SpaceName],
    files: Vec<PathBuf>,
    program: &OsStr,
    verbose: bool,
) -> Result<Option<(SpaceName, PathBuf, Keeper)>, Failure> {
    let directory = Directory::of_user();
    let wanted = asked.cloned().unwrap_or_else(|| {
        let file = Path::new(program).file_name().unwrap_or(program);
        SpaceName::like(&file.to_string_lossy())
    });
    let claim = match directory.claim(&wanted, asked.is_none()) {
        Ok(claim) => claim,
        Err(error) if asked.is_some() || !linked.is_empty() => return Err(Code::ControlSocket.failure(error)),
        Err(error) => {
            if verbose {
                message::say(&format!("portolan spaces will not show this space: {error}"));
            }
            return Ok(None);
        }
    };
    if linked.contains(&claim.name) {
        let _ = std::fs::remove_file(&claim.path);
        let name = claim.name.as_str();
        return Err(Failure::Usage(format!(
            "--link {name}: that is this space itself"
        )));
    }
    let peers = linked.iter().map(|name| directory.socket(name)).collect();
    let errands = Errands { peers, files };
    let keeper = Keeper::start(claim.listener, claim.path, errands).map_err(no_process)?;
    Ok(Some((claim.name, directory.path().to_owned(), keeper)))
}

/// The words of a command, to be shown.
fn words(command: &[OsString]) -> Vec<String> {
    let words = command.iter().map(|word| word.to_string_lossy().into_owned());
    words.collect()
}

/// Why there is no space, with the word for programs at the end.
fn space_failure(error: SpaceError) -> Failure {
    code::failure(&error, error.code())
}

/// Why there is no process beside this one.
fn no_process(errno: Errno) -> Failure {
    space_failure(SpaceError::Refused(Obstacle::new(
        Step::Process,
        errno,
        &Facts::read(),
    )))
}

/// Why something that a space must not overlap is not known.
fn unread(what: &str, error: &io::Error) -> Failure {
    Code::HostNetwork.failure(format!(
        "cannot read the {what} of this host: {error}; they are asked for by netlink (AF_NETLINK), which a filter of \
         system calls must let through"
    ))
}

fn not_run(name: &str, errno: Errno) -> Failure {
    match errno {
        Errno::NOENT => Failure::ProgramNotFound(format!("cannot run {name}: not found")),
        errno => Failure::ProgramNotExecutable(format!("cannot run {name}: {}", io::Error::from(errno))),
    }
}

/// The code that says how the program ended.
fn exit_code(ended: Ended) -> u8 {
    // Codes of programs are bytes, and signals end at 64.
    u8::try_from(ended.code()).unwrap_or(u8::MAX)
}

fn random() -> Result<u64, Failure> {
    getrandom::u64().map_err(|error| {
        Code::Randomness.failure(format!(
            "the system has no randomness: {error}; getrandom(2) must be allowed"
        ))
    })
}

/// The stack's secret for a seed: it needs be no secret then.
fn secret(seed: u64) -> [u8; 16] {
    u128::from(seed).to_be_bytes()
}

fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

fn gateway_addresses(subnets: &Subnets) -> Vec<(IpAddr, u8)> {
    let v4 = (subnets.v4.gateway.into(), subnets.v4.prefix_len);
    let v6 = subnets.v6.map(|v6| (v6.gateway.into(), v6.prefix_len));
    [Some(v4), v6].into_iter().flatten().collect()
}

fn inside_addresses(subnets: &Subnets) -> Vec<IpAddr> {
    let v6 = subnets.v6.map(|v6| v6.inside.into());
    [Some(subnets.v4.inside.into()), v6]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::{ArgAction, CommandFactory as _};
    use portolan_gateway::inbound::PublishError;
    use portolan_space::{SpaceError, Step};

    use super::code::Code;

    #[test]
    fn every_code_is_documented_and_every_documented_one_is_there() {
        let text = include_str!("../../../../docs/run.md");
        let (_, section) = text.split_once("\n## What a system forbids\n").unwrap();
        let (section, _) = section.split_once("\n## ").unwrap();
        let rows = section
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        let documented: Vec<&str> = rows.map(|(code, _)| code).collect();
        let mut codes: Vec<&str> = Step::ALL.iter().map(|step| step.code()).collect();
        codes.extend(SpaceError::CODES);
        codes.extend(PublishError::CODES);
        codes.extend(Code::ALL.iter().map(|code| code.word()));
        for (list, other, lack) in [
            (&codes, &documented, "not documented"),
            (&documented, &codes, "documented, and unknown"),
        ] {
            let missing: Vec<_> = list.iter().filter(|code| !other.contains(code)).collect();
            assert!(missing.is_empty(), "{lack}: {missing:?}");
        }
        let mut unique = codes.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), codes.len(), "a code has two meanings: {codes:?}");
    }

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: super::Args,
    }

    #[test]
    fn who_joins_has_no_option_of_a_space() {
        let command = Cli::command();
        let join = command
            .get_arguments()
            .find(|arg| arg.get_id() == "join")
            .unwrap();
        let excluded = command.get_arg_conflicts_with(join);
        for arg in command.get_arguments() {
            let is_own = ["join", "command"].contains(&arg.get_id().as_str());
            let is_help = matches!(
                arg.get_action(),
                ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong
            );
            assert_eq!(
                excluded.iter().any(|other| other.get_id() == arg.get_id()),
                !is_own && !is_help,
                "{}: with --join either in `OWN` or used",
                arg.get_id()
            );
        }
    }
}
