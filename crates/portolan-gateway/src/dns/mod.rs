//! Names: the forwarder on the addresses of the gateway.
//!
//! ```text
//!   program ─▶ server (UDP, TCP) ─▶ Query ─┬▶ local: host.portolan, spaces, the gateway's reverse, /etc/hosts ─┐
//!                                          └▶ Gate::ask_name ─▶ upstream (UDP, TCP) ─▶ answer ─▶ Gate::answered┤
//!   program ◀─ reply, cut to what the program takes ◀──────────────────────────────────────────────────────────┘
//! ```
//! A question that the gate denies never leaves: it is answered REFUSED, with the reason (RFC 8914). Questions upstream
//! are made anew, with an id and a port that nobody can guess; only their name, type and the bits of DNSSEC are the
//! program's.

mod answer;
mod hosts;
mod local;
mod places;
mod query;
mod resolv_conf;
mod server;
mod source;
mod upstream;

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use portolan_net::Stack;

pub use self::query::fuzz_messages;
pub use self::resolv_conf::ResolvConf;
pub use self::source::{Feed, Reader};

use self::hosts::Hosts;
use self::local::Local;
use self::query::{Query, Rejected};
use self::source::Source;
use self::upstream::Upstreams;
use crate::gate::{Gate, NameVerdict};

/// Where the forwarder finds what it answers from.
pub struct Sources {
    /// Reads the host's resolv.conf, again and again, but at most once a second.
    pub resolv_conf: Reader,
    /// Reads the host's /etc/hosts, if its names are to be known.
    pub hosts: Option<Reader>,
    /// The names of running spaces.
    pub spaces: Spaces,
}

/// Gives the addresses of a running space by its name: `web` for `web.portolan`. Empty if there is none.
pub type Spaces = Box<dyn Fn(&str) -> Vec<IpAddr> + Send + Sync>;

/// Answers the questions of the programs in a space.
pub struct Forwarder {
    gate: Gate,
    local: Local,
    resolv_conf: Source<ResolvConf>,
    hosts: Option<Source<Hosts>>,
    upstreams: Upstreams,
}

impl Forwarder {
    /// A forwarder that asks `gate` about each name.
    #[must_use]
    pub fn new(gate: Gate, sources: Sources) -> Self {
        let Sources {
            resolv_conf,
            hosts,
            spaces,
        } = sources;
        Self {
            local: Local::new(gate.clone(), spaces),
            gate,
            resolv_conf: Source::new(resolv_conf),
            hosts: hosts.map(Source::new),
            upstreams: Upstreams::default(),
        }
    }

    /// Serves port 53 of `addresses`, which are the stack's own, over UDP and TCP, for as long as the stack runs.
    ///
    /// # Errors
    /// If a port is taken, or the stack's driver has ended.
    pub async fn run(self, stack: &Stack, addresses: &[IpAddr]) -> io::Result<Infallible> {
        server::Server::bind(stack, addresses)?.run(Arc::new(self)).await
    }

    /// The reply to a message, or `None` where there is none to be given.
    async fn reply(&self, message: &[u8], most: Most) -> Option<Vec<u8>> {
        let query = match Query::read(message) {
            Ok(query) => query,
            Err(Rejected::Silently) => return None,
            Err(Rejected::With(reply)) => return Some(reply),
        };
        let reply = self.answer(&query).await;
        Some(query.fit(reply, most.bytes(&query)))
    }

    async fn answer(&self, query: &Query) -> Vec<u8> {
        if let Some(reply) = self.local.answer(query) {
            return reply;
        }
        let wants_name = match self.gate.ask_name(query.text()) {
            NameVerdict::Allowed { wants_name, rule: _ } => wants_name,
            NameVerdict::Denied(denial) => return query.refused(&denial.reason),
        };
        // These records carry keys to encrypt the name that the connection has to show (RFC 9849), and are never needed.
        if wants_name && query.is_service_binding() {
            return query.nothing();
        }
        let known = self
            .hosts
            .as_ref()
            .and_then(|hosts| hosts.current().addresses(query.text()));
        if let Some(addresses) = known {
            return answer::from_hosts(&self.gate, query, &addresses);
        }
        let servers = self.resolv_conf.current();
        match self.upstreams.ask(&servers.servers, query).await {
            Some(reply) => answer::judge(&self.gate, query, reply),
            None => query.failed("no resolver of the host answers"),
        }
    }
}

/// How many bytes a reply may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Most {
    /// What the program says that it takes, and no more than passes in one packet (DNS flag day 2020).
    Udp,
    /// What the length before a message can say.
    Tcp,
}

impl Most {
    /// What passes every link in one packet, IPv6's shortest included, with the headers.
    const UDP_MAX: u16 = 1_232;

    fn bytes(self, query: &Query) -> usize {
        match self {
            Self::Udp => usize::from(query.udp_size().min(Self::UDP_MAX)),
            Self::Tcp => usize::from(u16::MAX),
        }
    }
}

#[cfg(test)]
mod tests;
