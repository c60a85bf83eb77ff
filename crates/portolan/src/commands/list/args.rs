use std::str::FromStr;

use clap::builder::NonEmptyStringValueParser;
use portolan_host::select::states_named;
use portolan_host::{Family, ProtocolSet, SocketProtocol, StateSet};

/// Show the open ports of this machine: who holds them, and from where they can be reached
///
/// This is also what `portolan` does without a command. Shown are sockets that take connections or datagrams
/// from anyone: TCP listeners and unconnected UDP. With --all, --state, or a filter on the remote end,
/// connections too.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = DETAILS)]
pub(crate) struct Args {
    /// Which sockets: ports, ranges, services, addresses, processes, users, units, containers, or an
    /// expression of ss(8)
    #[arg(value_name = "FILTER")]
    pub(super) filter: Vec<String>,
    /// Connections and closed sockets too, with their states and remote ends
    #[arg(short, long)]
    pub(super) all: bool,
    /// TCP sockets
    #[arg(short, long, help_heading = "Protocols")]
    tcp: bool,
    /// UDP sockets
    #[arg(short, long, help_heading = "Protocols")]
    udp: bool,
    /// UDP-Lite sockets
    #[arg(long, help_heading = "Protocols")]
    udplite: bool,
    /// Raw IP sockets
    #[arg(short = 'w', long, help_heading = "Protocols")]
    raw: bool,
    /// Multipath TCP sockets
    #[arg(short = 'M', long, help_heading = "Protocols")]
    mptcp: bool,
    /// SCTP sockets
    #[arg(short = 'S', long, help_heading = "Protocols")]
    sctp: bool,
    /// Sockets between virtual machines and their host
    #[arg(long, help_heading = "Protocols")]
    vsock: bool,
    /// Unix domain sockets, which are shown only if asked for
    #[arg(short = 'x', long, help_heading = "Protocols")]
    unix: bool,
    /// IPv4 sockets only
    #[arg(short = '4', long, conflicts_with = "ipv6", help_heading = "Protocols")]
    ipv4: bool,
    /// IPv6 sockets only
    #[arg(short = '6', long, help_heading = "Protocols")]
    ipv6: bool,
    /// Sockets in these states: listen, established, time-wait, …, or connected, synchronized, bucket, big, all
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = parse_state)]
    state: Vec<StateSet>,
    /// Sockets of one port space: host, one of `portolan spaces` or `ip netns`, a PID, a container or `net:[INODE]`
    #[arg(long, value_name = "SPACE", value_parser = NonEmptyStringValueParser::new())]
    pub(super) space: Option<String>,
    /// The flows between a space of `portolan run` and the world, as its gateway sees them
    #[arg(long, requires = "space", conflicts_with_all = ["ndjson", "csv", "output", "quiet", "info"])]
    pub(super) flows: bool,
    /// How to print: table, wide (every column), json, ndjson or csv
    #[arg(short, long, value_name = "FORMAT", help_heading = "Output")]
    output: Option<Format>,
    /// Print one JSON document
    #[arg(long, conflicts_with_all = ["ndjson", "csv", "output"], help_heading = "Output")]
    json: bool,
    /// Print one JSON object a line
    #[arg(long, conflicts_with_all = ["csv", "output"], help_heading = "Output")]
    ndjson: bool,
    /// Print comma-separated values (RFC 4180)
    #[arg(long, conflicts_with = "output", help_heading = "Output")]
    csv: bool,
    /// Print only `PROTOCOL ADDRESS:PORT`, of a connection its remote end too, each once
    #[arg(
        short,
        long,
        conflicts_with_all = ["json", "ndjson", "csv", "output", "info"],
        help_heading = "Output"
    )]
    quiet: bool,
    /// The state of TCP's machinery: round-trip time, congestion window, retransmissions, …
    #[arg(short, long, help_heading = "Output")]
    pub(super) info: bool,
    /// Order by port, address, remote, protocol, state, service, owner, pid, user, recv, send or space; ,desc
    /// reverses
    #[arg(
        long,
        value_name = "KEY[,desc]",
        default_value = "port",
        hide_default_value = true,
        help_heading = "Output"
    )]
    pub(super) sort: Sort,
    /// Leave out the line of headers
    #[arg(short = 'H', long, visible_alias = "no-header", help_heading = "Output")]
    pub(super) no_headers: bool,
    /// Listeners only, which is the default; taken for the sake of ss's users
    #[arg(short, long, hide = true, conflicts_with = "all")]
    listening: bool,
    /// Numbers only, which addresses always are; taken for the sake of ss's users
    #[arg(short, long, hide = true)]
    numeric: bool,
    /// Owners, which are always shown; taken for the sake of ss's users
    #[arg(short, long, hide = true)]
    processes: bool,
}

const EXAMPLES: &str = "Examples:
  portolan                          every open port
  portolan 8080                     who holds port 8080
  portolan nginx 8000-8100          nginx's ports of that range
  portolan -a https 10.0.0.0/8      connections with that network over HTTPS
  portolan -a 'sport = :22 and not dst 10.0.0.0/8'
  portolan --state time-wait --sort remote
  portolan --json --udp             for programs

Exit code: 0 if anything is shown or no filter was given, 1 if nothing fits the
filter, 2 for a wrong filter or option, 3 if not permitted, 4 if the system
failed.";

const DETAILS: &str = "Filters:
  8080  8000-8100  22,80-443,https  53/udp   a port of either end
  10.0.0.5  10.0.0.0/8  ::1  fe80::1%eth0    an address of either end
  10.0.0.5:80  [::1]:80  :80  *:80           both
  tcp  udp  …                                a protocol
  nginx  'php*'  www-data  sshd.service      a process, user, unit, container
  process:X user:X unit:X container:X pid:N  one of them only
  https                                      a service's port, or a holder

Filters of one kind (port, address, protocol, holder) are alternatives;
different kinds must all fit.

Expressions are those of ss(8), unchanged, as one argument or several:
  state STATE, exclude STATE                  first; as for --state
  src HOST  dst HOST                          10.0.0.0/8, [::1]:ssh, *:80, a name
  sport OP :PORT  dport OP :PORT              = != < > <= >= or eq ne lt gt le ge
  dev NAME  fwmark MARK/MASK  cgroup PATH  autobound
  not, and, or, ( )                           or ! && ||, from left to right
  Filters as above may stand as tests: 'nginx and not src 127.0.0.0/8'.

Examples:
  portolan                          every open port
  portolan 8080                     who holds port 8080
  portolan nginx 8000-8100          nginx's ports of that range
  portolan -a https 10.0.0.0/8      connections with that network over HTTPS
  portolan -a 'sport = :22 and not dst 10.0.0.0/8'
  portolan --state time-wait --sort remote
  portolan --json --udp             for programs

On a terminal too narrow for the table, cells wrap; then UNIT/CONTAINER, USER,
SERVICE, REACH and others are left out in that order, and said. A pipe gets
whole lines, one a row, unless COLUMNS is set. With -o wide and --csv every
holder is named; FDS is then PID:FD, and FD alone if there is one holder.

Exit code: 0 if anything is shown or no filter was given, 1 if nothing fits the
filter, 2 for a wrong filter or option, 3 if not permitted, 4 if the system
failed.";

/// How the sockets are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Table,
    Wide,
    Json,
    Ndjson,
    Csv,
    #[value(skip)]
    Quiet,
}

/// The order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sort {
    pub(super) key: SortKey,
    pub(super) descending: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SortKey {
    Port,
    Address,
    Remote,
    Protocol,
    State,
    Service,
    Owner,
    Pid,
    User,
    Receive,
    Send,
    Space,
}

impl FromStr for Sort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, order) = text.split_once(',').unwrap_or((text, "asc"));
        let descending = match order {
            "asc" => false,
            "desc" => true,
            _ => return Err("after the comma stands asc or desc".to_owned()),
        };
        let key = match name {
            "port" => SortKey::Port,
            "address" => SortKey::Address,
            "remote" => SortKey::Remote,
            "protocol" | "proto" => SortKey::Protocol,
            "state" => SortKey::State,
            "service" => SortKey::Service,
            "owner" | "process" | "name" => SortKey::Owner,
            "pid" => SortKey::Pid,
            "user" => SortKey::User,
            "recv" | "receive" => SortKey::Receive,
            "send" => SortKey::Send,
            "space" => SortKey::Space,
            _ => {
                return Err(
                    "keys are port, address, remote, protocol, state, service, owner, pid, user, recv, send \
                     and space"
                        .to_owned(),
                );
            }
        };
        Ok(Self { key, descending })
    }
}

impl Args {
    /// The protocols of the flags; every one with ports if none is given.
    pub(super) fn protocols(&self) -> ProtocolSet {
        let flags = [
            (self.tcp, SocketProtocol::Tcp),
            (self.udp, SocketProtocol::Udp),
            (self.udplite, SocketProtocol::UdpLite),
            (self.raw, SocketProtocol::Raw),
            (self.mptcp, SocketProtocol::Mptcp),
            (self.sctp, SocketProtocol::Sctp),
            (self.vsock, SocketProtocol::Vsock),
            (self.unix, SocketProtocol::Unix),
        ];
        flags
            .into_iter()
            .filter_map(|(given, protocol)| given.then_some(protocol))
            .collect()
    }

    /// The family of addresses in a filter that do not say theirs: that of the only protocol asked for.
    pub(super) fn family_hint(&self) -> Option<Family> {
        let protocols = self.protocols();
        let only = |protocol| protocols == ProtocolSet::EMPTY.with(protocol);
        if only(SocketProtocol::Unix) {
            Some(Family::Unix)
        } else if only(SocketProtocol::Vsock) {
            Some(Family::Vsock)
        } else {
            None
        }
    }

    /// The one family of IP that is asked for, if it is one.
    pub(super) fn family(&self) -> Option<Family> {
        match (self.ipv4, self.ipv6) {
            (true, _) => Some(Family::Ipv4),
            (_, true) => Some(Family::Ipv6),
            (false, false) => None,
        }
    }

    /// The states of `--state`.
    pub(super) fn states(&self) -> Option<StateSet> {
        self.state.iter().copied().reduce(StateSet::union)
    }

    pub(super) fn format(&self) -> Format {
        match (self.output, self.json, self.ndjson, self.csv, self.quiet) {
            (Some(format), ..) => format,
            (None, true, ..) => Format::Json,
            (None, _, true, ..) => Format::Ndjson,
            (None, _, _, true, _) => Format::Csv,
            (None, _, _, _, true) => Format::Quiet,
            (None, false, false, false, false) => Format::Table,
        }
    }
}

fn parse_state(text: &str) -> Result<StateSet, String> {
    states_named(text).map_err(|error| error.to_string())
}
