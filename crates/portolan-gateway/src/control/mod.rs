//! What is asked of a running space, and answered: one JSON object a line each way, by a Unix socket.
//!
//! ```text
//!   spaces, list ─▶ client::ask ─▶ NAME.sock ─▶ whoever vets clients ─▶ Desk::serve ─▶ gate, flows, publisher
//! ```
//! The socket lies in a directory that only its user may enter ([`Directory`]). Who may connect is not judged here: the
//! program of the space has the same user.

mod client;
mod desk;
mod directory;
mod linking;
mod members;
mod rights;

use std::net::IpAddr;

use portolan_core::Port;
use serde::{Deserialize, Serialize};

pub use self::client::{AskError, Client, Joined, News};
pub use self::desk::{About, Desk};
pub use self::directory::{Claim, ClaimError, Directory, NameError, SpaceName};
pub(crate) use self::linking::ask_link;

use crate::inbound::Published;

/// A question or an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// What it is: [`Status`].
    Status,
    /// Its flows: a list of [`FlowItem`].
    Flows,
    /// Publish these ports: a list of [`PublishedItem`].
    Publish {
        /// As for `-p`.
        mapping: String,
    },
    /// Publish these ports by sockets that the client has taken, after [`Reply::LowPort`]. The answer is null; then come
    /// the sockets in the order of the mapping's ports, of TCP before UDP, up to 253 with each byte (SCM_RIGHTS, see
    /// unix(7)); then the answer is as that to [`Request::Publish`].
    PublishTaken {
        /// As for `-p`.
        mapping: String,
    },
    /// Publish these ports no longer: what was published, as a list of [`PublishedItem`].
    Unpublish {
        /// As for `-p`, or ports of the host alone, whatever is published there: `8081`, `8081-8089/udp`.
        mapping: String,
    },
    /// Let the program talk to this from now on.
    Allow {
        /// As for `--allow-out`.
        target: String,
    },
    /// Let it not; flows that are there stay.
    Deny {
        /// As for `--deny-out`.
        target: String,
    },
    /// Let this program, in the process that asks, join the space. The answer is null and comes with the descriptors of
    /// the space's namespaces (SCM_RIGHTS, see unix(7)). From then on the connection is that program's: it is listed as
    /// long as the connection is open, [`Request::Joined`] is what else it may say, without an answer, and what it is told
    /// is a [`Notice`] a line. The end of the connection is that of the space.
    Join {
        /// The program with its arguments.
        command: Vec<String>,
    },
    /// The program that joins has started, in this process.
    Joined {
        /// Its number.
        pid: i32,
    },
    /// Link this space with the one that asks, by this connection. After the answer, which is null, it carries frames of
    /// the link; or nothing, if the link goes by a connection the other way.
    Link {
        /// The name of the space that asks.
        name: String,
    },
    /// End the program: SIGTERM, and after some seconds everything. The connection is closed when it has ended.
    Stop,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It was done, or this is what was asked for; null where there is nothing to say.
    Done(serde_json::Value),
    /// It was not understood, and why.
    Wrong(String),
    /// It cannot be done, and why.
    Refused(String),
    /// Somebody holds a port that was to be published. Who it is, this process cannot see.
    Taken {
        /// `tcp` or `udp`.
        protocol: String,
        /// Where it is on the host.
        host: HostEnd,
    },
    /// One of the ports takes a right that this process has given up. A client that has it may take them all
    /// ([`Request::PublishTaken`]).
    LowPort,
}

/// What a program that has joined is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// The space is to end, as after [`Request::Stop`].
    Stop,
}

/// A running space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// The number of the program's process; 0 before it has started.
    pub pid: i32,
    /// The number of the process that serves the space.
    pub gateway_pid: u32,
    /// The program with its arguments.
    pub command: Vec<String>,
    /// Where its ports are published.
    pub published: Vec<PublishedItem>,
    /// How many flows there are.
    pub flows: usize,
    /// Bytes of payload that the program received, in flows that are gone too.
    pub bytes_in: u64,
    /// Bytes of payload that it sent.
    pub bytes_out: u64,
    /// Seconds since it started.
    pub age: u64,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// The programs that have joined it.
    pub joined: Vec<JoinedItem>,
    /// The spaces that it is linked with.
    #[serde(default)]
    pub links: Vec<LinkItem>,
}

/// A space that another one is linked with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkItem {
    /// Its name.
    pub name: String,
    /// Both run, and both want it.
    pub up: bool,
}

/// A program that has joined a space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedItem {
    /// The number of its process; 0 before it has started.
    pub pid: i32,
    /// The program with its arguments.
    pub command: Vec<String>,
    /// Seconds since it joined.
    pub age: u64,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedItem {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where it is on the host.
    pub host: HostEnd,
    /// Where it leads.
    pub inner: InnerEnd,
    /// It was published by itself, as the program listens there.
    #[serde(default)]
    pub auto: bool,
}

/// A socket address of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEnd {
    /// `None` for every address of both families.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// A port in the space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerEnd {
    /// The port.
    pub port: u16,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowItem {
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// `out`, `in` or `spliced`.
    pub direction: String,
    /// Of TCP the state of the stack's end, else `opening` or `open`.
    pub state: String,
    /// The end in the space.
    pub inside: FlowEnd,
    /// The end in the world.
    pub outside: FlowEnd,
    /// The rule that let it pass.
    pub rule: String,
    /// Seconds since it began.
    pub age: f64,
    /// Bytes of payload that the program received.
    pub bytes_in: u64,
    /// Bytes of payload that it sent.
    pub bytes_out: u64,
    /// Packets that it received.
    pub packets_in: u64,
    /// Packets that it sent.
    pub packets_out: u64,
    /// The round-trip time between program and stack in microseconds, of TCP, once measured.
    pub rtt_us: Option<u64>,
    /// Bytes that the stack sent again, of TCP.
    pub bytes_retransmitted: Option<u64>,
}

/// One end of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowEnd {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

impl From<&Published> for PublishedItem {
    fn from(published: &Published) -> Self {
        Self {
            protocol: published.place.protocol.to_string(),
            host: HostEnd {
                address: published.place.address,
                port: published.place.port.get(),
            },
            inner: InnerEnd {
                port: Port::get(published.inner),
            },
            auto: published.is_auto,
        }
    }
}

/// No line has more bytes: a question.
const REQUEST_MAX: usize = 64 << 10;
/// The same of an answer: all flows that there may be.
const REPLY_MAX: u64 = 64 << 20;
