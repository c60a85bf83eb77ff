//! The answer in sentences, shared by the report and the document.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use portolan_core::table::{Errno, Family, Rule, Transport};
use portolan_core::{Escaped, Protocol};
use portolan_host::{
    BindExplanation, BindQuestion, BindVerdict, Helper, Obstacle, OwnerlessReason, Ownership, PlannedSocket,
    Sharing, State, Unsure, Users,
};

/// A planned socket as the field writes it: `[::]:80/tcp`, `[fe80::1%eth0]:22/tcp`.
pub(super) struct PlannedText<'a>(pub(super) &'a PlannedSocket);

impl fmt::Display for PlannedText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let planned = self.0;
        let (ip, port) = (planned.local.ip(), planned.local.port());
        match (planned.local, &planned.device) {
            (SocketAddr::V6(local), Some(device)) if local.scope_id() != 0 => {
                write!(f, "[{ip}%{}]:{port}", Escaped::new(device))?;
            }
            (SocketAddr::V6(_), _) => write!(f, "[{ip}]:{port}")?,
            (SocketAddr::V4(_), _) => write!(f, "{ip}:{port}")?,
        }
        write!(f, "/{}", protocol(planned.transport))
    }
}

pub(super) fn protocol(transport: Transport) -> Protocol {
    Protocol::from(transport)
}

/// Which addresses the socket would hold.
pub(super) fn reach_of(planned: &PlannedSocket) -> String {
    let addresses = match (planned.local.ip(), planned.family) {
        (ip, _) if !ip.is_unspecified() => return device(planned, "that address alone"),
        (IpAddr::V4(_), _) | (_, Family::Ipv4) => "every IPv4 address",
        (IpAddr::V6(_), Family::Ipv6) if planned.v6_only => "every IPv6 address, not IPv4",
        (IpAddr::V6(_), Family::Ipv6) => "every address, IPv6 and IPv4",
    };
    device(planned, addresses)
}

fn device(planned: &PlannedSocket, addresses: &str) -> String {
    match &planned.device {
        Some(device) => format!("{addresses}, on {}", Escaped::new(device)),
        None => addresses.to_owned(),
    }
}

/// The user who would bind: `root`, `uid 4711`.
pub(super) fn user(uid: u32, users: &mut Users) -> String {
    match users.name(uid) {
        Some(name) => Escaped::new(name).to_string(),
        None => format!("uid {uid}"),
    }
}

/// What an error number means, as strerror(3) puts it.
pub(super) const fn meaning(errno: Errno) -> &'static str {
    match errno {
        Errno::EADDRINUSE => "address already in use",
        Errno::EADDRNOTAVAIL => "cannot assign requested address",
        Errno::EACCES => "permission denied",
        Errno::ENODEV => "no such device",
        Errno::EAFNOSUPPORT => "address family not supported",
        _ => "invalid argument",
    }
}

/// Why the answer is what it is.
pub(super) fn because(question: &BindQuestion, explanation: &BindExplanation) -> String {
    match &explanation.verdict {
        BindVerdict::Yes { port } if question.port.get() == 0 => {
            format!("automatic ports are left, such as {port}; which one the kernel takes is chance")
        }
        BindVerdict::Yes { .. } => "no other socket is in the way".to_owned(),
        BindVerdict::No(obstacle) => obstacle_text(obstacle, &explanation.planned),
        BindVerdict::Unknown(unsure) => unsure_text(*unsure).to_owned(),
    }
}

fn obstacle_text(obstacle: &Obstacle, planned: &PlannedSocket) -> String {
    match obstacle {
        Obstacle::InUse { rule } => rule_text(*rule).to_owned(),
        Obstacle::AddressNotLocal {
            address,
            device: Some(device),
        } => format!("{address} is not an address of {}", Escaped::new(device)),
        Obstacle::AddressNotLocal {
            address,
            device: None,
        } => {
            format!("{address} is not an address of this port space")
        }
        Obstacle::Privileged { unprivileged_start } => format!(
            "ports below {unprivileged_start} need CAP_NET_BIND_SERVICE (net.ipv4.ip_unprivileged_port_start)"
        ),
        Obstacle::Exhausted { range } => format!(
            "every automatic {} port ({range}) is in use or reserved",
            protocol(planned.transport)
        ),
        Obstacle::NoSuchDevice { name } => format!("there is no device {}", Escaped::new(name)),
        Obstacle::NoIpv6 => "IPv6 is switched off here".to_owned(),
        Obstacle::MissingScope => "a link-local address means nothing without its device".to_owned(),
        Obstacle::Multicast => "TCP cannot use a multicast address".to_owned(),
        Obstacle::V6Only => "an IPv4 address, and IPV6_V6ONLY closes the socket to IPv4".to_owned(),
        Obstacle::Other(error) => error.to_string(),
        _ => "for a reason that this program does not know yet".to_owned(),
    }
}

const fn rule_text(rule: Rule) -> &'static str {
    match rule {
        Rule::NotShared => "two sockets share a port only if both set SO_REUSEADDR or both set SO_REUSEPORT",
        Rule::BesideListener => {
            "beside a listener SO_REUSEADDR does not help, only SO_REUSEPORT on both by one user"
        }
        Rule::OtherUser => "SO_REUSEPORT shares a port only among the sockets of one user",
        _ => "they do not share the port",
    }
}

const fn unsure_text(unsure: Unsure) -> &'static str {
    match unsure {
        Unsure::Options => {
            "whether the sockets in the way share depends on options of theirs, which cannot be read"
        }
        Unsure::Order => {
            "of several SO_REUSEPORT sockets the kernel asks one alone, and which one cannot be read"
        }
        Unsure::Privilege { .. } => {
            "it takes CAP_NET_BIND_SERVICE, and whether ours counts in this port space cannot be read"
        }
        _ => "it depends on what cannot be read",
    }
}

/// The line on standard error for an answer that could not be found out.
pub(super) const fn not_found_out(unsure: Unsure) -> &'static str {
    match unsure {
        Unsure::Options => {
            "cannot tell: the options of the sockets in the way are not to be read; as root (CAP_SYS_PTRACE) they are, \
             except in TIME-WAIT"
        }
        Unsure::Order => "cannot tell: which of the sockets decides is not to be read; bind it and see",
        _ => "cannot tell: the privilege that it takes may count or not; bind it and see",
    }
}

/// What to do about it, the best first.
pub(super) fn remedies(question: &BindQuestion, explanation: &BindExplanation) -> Vec<String> {
    let planned = &explanation.planned;
    match &explanation.verdict {
        BindVerdict::Yes { .. } => Vec::new(),
        BindVerdict::Unknown(Unsure::Options) => {
            vec!["ask again as root, who can read the options of running programs".to_owned()]
        }
        BindVerdict::Unknown(_) => vec!["bind it and see".to_owned()],
        BindVerdict::No(obstacle) => match obstacle {
            Obstacle::InUse { .. } => in_use_remedies(question, explanation),
            Obstacle::AddressNotLocal { address, .. } => vec![
                format!(
                    "use an address of this host (ip address), or {} for every one",
                    if address.is_ipv4() { "0.0.0.0" } else { "[::]" }
                ),
                "a program that must bind an address before it is there sets IP_FREEBIND".to_owned(),
            ],
            Obstacle::Privileged { unprivileged_start } => vec![
                format!("use a port from {unprivileged_start} up"),
                "or give the program the right: sudo setcap cap_net_bind_service=+ep PROGRAM, in a systemd unit \
                 AmbientCapabilities=CAP_NET_BIND_SERVICE"
                    .to_owned(),
            ],
            Obstacle::Exhausted { .. } => {
                vec!["close sockets, widen net.ipv4.ip_local_port_range, or ask for a port".to_owned()]
            }
            Obstacle::NoSuchDevice { .. } => vec!["ip link shows the devices".to_owned()],
            Obstacle::NoIpv6 => vec!["use an IPv4 address, such as 0.0.0.0".to_owned()],
            Obstacle::MissingScope => vec![format!(
                "write the device behind it: [{}%DEVICE]:{}",
                planned.local.ip(),
                planned.local.port()
            )],
            Obstacle::Multicast => vec!["use an address of this host, or UDP".to_owned()],
            Obstacle::V6Only => vec!["leave out --v6-only, or use an IPv6 address".to_owned()],
            _ => vec!["choose another socket address".to_owned()],
        },
    }
}

fn in_use_remedies(question: &BindQuestion, explanation: &BindExplanation) -> Vec<String> {
    let snapshot = &explanation.snapshot;
    let socket_name = format!("{}/{}", question.port, protocol(explanation.planned.transport));
    let mut remedies = Vec::new();
    let first = explanation.in_the_way.first().copied();
    let held = first.and_then(|index| match snapshot.ownership.get(index) {
        Some(Ownership::Held(owners)) => owners.first(),
        Some(Ownership::Nobody(ownerless)) if ownerless.reason == OwnerlessReason::OtherUser => {
            remedies.push(format!("ask who holds it: sudo portolan who {socket_name}"));
            None
        }
        Some(Ownership::Nobody(_)) | None => None,
    });
    if let Some(owner) = held {
        let process = snapshot.processes.get(&owner.pid);
        let name = process.map_or_else(|| "the process".to_owned(), |process| name_of(&process.name));
        remedies.push(match process.and_then(|process| process.unit.as_deref()) {
            Some(unit) if unit.ends_with(".service") => {
                format!("stop {name}: systemctl stop {}", Escaped::new(unit))
            }
            _ => format!(
                "stop {name} (pid {}): portolan who {socket_name} --kill",
                owner.pid
            ),
        });
    }
    let is_waiting = |&index: &usize| snapshot.sockets[index].state == State::TimeWait;
    if explanation.in_the_way.iter().all(is_waiting) {
        remedies.push("wait: TIME-WAIT ends after 60 seconds".to_owned());
    }
    for helper in &explanation.helpers {
        remedies.push(match helper {
            Helper::ReuseAddress { certain: true } => {
                "set SO_REUSEADDR before bind (--reuse-address)".to_owned()
            }
            Helper::ReuseAddress { certain: false } => {
                "set SO_REUSEADDR before bind: it helps if the socket in the way had it set too".to_owned()
            }
            Helper::ReusePort { certain: true } => {
                "set SO_REUSEPORT before bind (--reuse-port), and share the port".to_owned()
            }
            Helper::ReusePort { certain: false } => {
                "set SO_REUSEPORT before bind: it helps if the socket in the way has it set too".to_owned()
            }
            Helper::V6Only => "take IPv6 alone, with IPV6_V6ONLY (--v6-only)".to_owned(),
            _ => "change the options of the socket".to_owned(),
        });
    }
    remedies.push("or choose another port: portolan pick".to_owned());
    remedies
}

pub(super) fn name_of(name: &std::ffi::OsStr) -> String {
    Escaped::new(name.as_encoded_bytes()).to_string()
}

/// The options of a socket in the way, as far as they are known.
pub(super) fn sharing_text(sharing: Sharing) -> &'static str {
    match sharing {
        Sharing::Unknown => "options unknown",
        Sharing::Known(options) => match (options.reuse_address, options.reuse_port) {
            (false, false) => "set neither SO_REUSEADDR nor SO_REUSEPORT",
            (true, false) => "set SO_REUSEADDR",
            (false, true) => "set SO_REUSEPORT",
            (true, true) => "set SO_REUSEADDR and SO_REUSEPORT",
        },
    }
}
