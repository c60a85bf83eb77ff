//! Why a port could not be published.

use portolan_core::Port;
use rustix::io::Errno;
use thiserror::Error;

use super::Place;

/// Why a port could not be published; nothing is held then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The system refused one of the ports.
    #[error("cannot publish {place}: {refusal}")]
    Refused {
        /// Which port.
        place: Place,
        /// Why.
        refusal: Refusal,
    },
    /// A port for itself each, and descriptors for them are too few.
    #[error(
        "cannot publish {ports} ports: they need {needed} descriptors, and this process may have {limit} \
         (RLIMIT_NOFILE, ulimit -Hn), enough for {}; publish fewer ports, or raise the limit",
        limit.saturating_sub(needed - ports)
    )]
    Descriptors {
        /// How many ports were to be published.
        ports: u64,
        /// How many descriptors that needs.
        needed: u64,
        /// How many this process may have.
        limit: u64,
    },
    /// The mapping leads to the loopback of the program, or to no host at all.
    #[error(
        "cannot publish a port to {target}: only an address of the space itself can be reached from outside"
    )]
    Target {
        /// Where it leads.
        target: String,
    },
    /// The sockets are there, but cannot be waited for.
    #[error("cannot wait for {ports} published ports: {errno} (limit: fs.epoll.max_user_watches)")]
    Wait {
        /// How many ports.
        ports: usize,
        /// What the kernel said.
        errno: Errno,
    },
    /// A socket that another process has taken for this port, and that is not what it should be.
    #[error(
        "cannot publish {place} by the socket that was handed over: it {fault}; run `portolan spaces publish` where \
         `portolan run` was run"
    )]
    WrongSocket {
        /// Which port.
        place: Place,
        /// What is wrong: `is of another kind`.
        fault: &'static str,
    },
    /// No such port is published.
    #[error("{place} is not published")]
    NotPublished {
        /// Which port.
        place: Place,
    },
}

impl PublishError {
    /// All words that [`code`](Self::code) gives.
    pub const CODES: [&str; 13] = [
        "port-in-use",
        "port-twice",
        "low-port",
        "no-address",
        "no-interface",
        "needs-interface",
        "no-free-port",
        "port-refused",
        "descriptors",
        "port-target",
        "port-watches",
        "wrong-socket",
        "not-published",
    ];

    /// A word for programs that stays the same for all time.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused { refusal, .. } => match refusal {
                Refusal::InUse { .. } => "port-in-use",
                Refusal::Twice { .. } => "port-twice",
                Refusal::LowPort { .. } => "low-port",
                Refusal::NoAddress => "no-address",
                Refusal::NoInterface => "no-interface",
                Refusal::NeedsInterface => "needs-interface",
                Refusal::NoneFree => "no-free-port",
                Refusal::Descriptors { .. } => "descriptors",
                Refusal::System { .. } => "port-refused",
            },
            Self::Descriptors { .. } => "descriptors",
            Self::Target { .. } => "port-target",
            Self::Wait { .. } => "port-watches",
            Self::WrongSocket { .. } => "wrong-socket",
            Self::NotPublished { .. } => "not-published",
        }
    }
}

/// Why the system refuses a port.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Somebody holds it.
    #[error("{}", held(holder.as_deref()))]
    InUse {
        /// Who, if that is known.
        holder: Option<String>,
    },
    /// It is published already.
    #[error("it is published already, and leads to port {inner}; name each port once")]
    Twice {
        /// Where it leads.
        inner: Port,
    },
    /// A low port, and no right to it.
    #[error(
        "permission denied (ports below {first} need CAP_NET_BIND_SERVICE); use {}, or: \
         sudo sysctl net.ipv4.ip_unprivileged_port_start={port}, or: sudo setcap cap_net_bind_service+ep on portolan",
        alternative(*port)
    )]
    LowPort {
        /// The port.
        port: Port,
        /// The first port that everybody may use.
        first: u16,
    },
    /// The host does not have the address.
    #[error("this host does not have this address; `ip address` shows those that it has")]
    NoAddress,
    /// The host does not have the interface.
    #[error("this host has no such interface; `ip link` shows those that it has")]
    NoInterface,
    /// A link-local address without its interface.
    #[error("a link-local address needs its interface: [fe80::1%eth0]")]
    NeedsInterface,
    /// Port 0 was asked for, and none was free for all protocols.
    #[error("no port is free for all of it")]
    NoneFree,
    /// Too many descriptors, of this process or of the system.
    #[error("no descriptor is left ({}); publish fewer ports, or raise the limit", limit_name(*errno))]
    Descriptors {
        /// EMFILE or ENFILE.
        errno: Errno,
    },
    /// Anything else.
    #[error("{errno}; a policy or a limit of this host is in the way, and its log (dmesg) may say which")]
    System {
        /// What the kernel said.
        errno: Errno,
    },
}

fn held(holder: Option<&str>) -> String {
    match holder {
        Some(holder) => format!("it is held by {holder}; choose another port or stop that program"),
        None => "it is in use by a program that this user cannot see; choose another port".to_owned(),
    }
}

/// A port that is easy to remember for a low one.
fn alternative(port: Port) -> String {
    format!("port {}", port.get().saturating_add(8000))
}

const fn limit_name(errno: Errno) -> &'static str {
    match errno {
        Errno::NFILE => "of the whole system: fs.file-max",
        _ => "of this process: RLIMIT_NOFILE",
    }
}
