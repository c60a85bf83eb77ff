//! A socket, its owners and what is hidden, as JSON.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt as _;

use portolan_core::json_text;
use portolan_core::registry::Services;
use portolan_host::{
    BindReach, BindScope, Hidden, ListenerRef, Owner, Ownership, Process, Snapshot, SocketAddress, SpaceName,
    TcpInfo,
};
use serde::{Serialize, Serializer};

use super::Shown;
use crate::text::address::zone_index;
use crate::text::ownerless::OwnerlessText;
use crate::text::service::service_name;

/// One socket: an element of `list`'s `sockets`, a line of its `--ndjson`, a part of `who`.
#[derive(Serialize)]
pub(crate) struct SocketObject<'a> {
    protocol: &'static str,
    family: &'static str,
    state: &'static str,
    local: EndObject<'a>,
    remote: Option<EndObject<'a>>,
    service: Option<&'a str>,
    space: Shown<&'a SpaceName>,
    inode: u64,
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_by: Option<&'a str>,
    owners: Owners<'a>,
    ownerless: Option<OwnerlessObject<'a>>,
    reach: Option<ReachObject>,
    queues: QueuesObject,
    device: Option<Cow<'a, str>>,
    mark: Option<u32>,
    cgroup_id: Option<u64>,
    v6_only: Option<bool>,
    tcp_info: Option<TcpInfoObject>,
}

impl<'a> SocketObject<'a> {
    /// The socket of `snapshot` at `index`.
    pub(crate) fn new(snapshot: &'a Snapshot, index: usize, services: &'a Services) -> Self {
        let socket = &snapshot.sockets[index];
        let space = snapshot.space(socket.space);
        let device_name = |index: u32| match space.device_name(index) {
            Some(name) => Cow::Borrowed(name),
            None => Cow::Owned(index.to_string()),
        };
        let end = |address: &'a SocketAddress| {
            let zone = zone_index(address, socket);
            EndObject::new(address, (zone != 0).then(|| device_name(zone)))
        };
        let ownership = snapshot.ownership.get(index);
        Self {
            protocol: socket.protocol.name(),
            family: socket.family.name(),
            state: socket.state.name(),
            local: end(&socket.local),
            remote: socket.remote.as_ref().map(end),
            service: service_name(services, socket),
            space: Shown(&space.name),
            inode: socket.inode,
            uid: socket.uid,
            published_by: snapshot.published.get(&index).map(|by| &*by.space),
            owners: Owners {
                snapshot,
                owners: match ownership {
                    Some(Ownership::Held(owners)) => owners,
                    Some(Ownership::Nobody(_)) | None => &[],
                },
            },
            ownerless: match ownership {
                Some(Ownership::Nobody(ownerless)) => Some(OwnerlessObject {
                    reason: ownerless.reason.name(),
                    text: Shown(OwnerlessText {
                        ownerless,
                        uid: socket.uid,
                        // A document has the number beside it, which is the same on every machine.
                        user: None,
                    }),
                    listener: ownerless.listener.map(ListenerObject::from),
                }),
                Some(Ownership::Held(_)) | None => None,
            },
            reach: BindReach::of(socket, space).map(|reach| ReachObject::new(&reach)),
            queues: QueuesObject {
                receive: socket.queues.receive,
                send: socket.queues.send,
            },
            device: (socket.device != 0).then(|| device_name(socket.device)),
            mark: socket.mark,
            cgroup_id: socket.cgroup,
            v6_only: socket.v6_only,
            tcp_info: socket.tcp_info.as_deref().map(TcpInfoObject::from),
        }
    }
}

/// One end of a socket.
#[derive(Serialize)]
struct EndObject<'a> {
    address: AddressText<'a>,
    port: Option<u32>,
    zone: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AddressText<'a> {
    Ip(IpAddr),
    Cid(Shown<u32>),
    Text(Cow<'a, str>),
}

impl<'a> EndObject<'a> {
    fn new(address: &'a SocketAddress, zone: Option<Cow<'a, str>>) -> Self {
        let (address, port) = match address {
            SocketAddress::Inet { address, port } => (AddressText::Ip(*address), Some(u32::from(port.get()))),
            SocketAddress::Vsock { cid, port } => {
                let address = match *cid {
                    u32::MAX => AddressText::Text(Cow::Borrowed("*")),
                    cid => AddressText::Cid(Shown(cid)),
                };
                (address, (*port != u32::MAX).then_some(*port))
            }
            SocketAddress::Unix { name } => {
                let text = match name.split_first() {
                    Some((0, rest)) => Cow::Owned(format!("@{}", json_text(rest))),
                    Some(_) | None => json_text(name),
                };
                (AddressText::Text(text), None)
            }
            // A kind of address that this program does not know yet.
            other => (AddressText::Text(Cow::Owned(format!("{other:?}"))), None),
        };
        Self { address, port, zone }
    }
}

/// The owners, each looked up while it is written.
struct Owners<'a> {
    snapshot: &'a Snapshot,
    owners: &'a [Owner],
}

impl Serialize for Owners<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.owners
                .iter()
                .map(|owner| OwnerObject::new(owner, self.snapshot.processes.get(&owner.pid))),
        )
    }
}

/// A process that holds a socket. A process that was gone before it could be read has its pid alone.
#[derive(Serialize)]
struct OwnerObject<'a> {
    pid: i32,
    name: Option<Cow<'a, str>>,
    exe: Option<Cow<'a, str>>,
    command_line: Option<CommandLine<'a>>,
    user: Option<&'a str>,
    uid: Option<u32>,
    unit: Option<&'a str>,
    container: Option<ContainerObject<'a>>,
    cgroup: Option<Cow<'a, str>>,
    fds: &'a [i32],
}

impl<'a> OwnerObject<'a> {
    fn new(owner: &'a Owner, process: Option<&'a Process>) -> Self {
        let text = |text: &'a OsStr| json_text(text.as_bytes());
        Self {
            pid: owner.pid,
            name: process.map(|process| text(&process.name)),
            exe: process
                .and_then(|process| process.exe.as_ref())
                .map(|exe| text(exe.as_os_str())),
            command_line: process.map(CommandLine),
            user: process.and_then(|process| process.user.as_deref()),
            uid: process.map(|process| process.uid),
            unit: process.and_then(|process| process.unit.as_deref()),
            container: process
                .and_then(|process| process.container.as_ref())
                .map(|container| ContainerObject {
                    engine: container.engine,
                    id: &container.id,
                }),
            cgroup: process
                .and_then(|process| process.cgroup.as_ref())
                .map(|cgroup| text(cgroup)),
            fds: &owner.fds,
        }
    }
}

struct CommandLine<'a>(&'a Process);

impl Serialize for CommandLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0
                .command_line
                .iter()
                .map(|argument| json_text(argument.as_bytes())),
        )
    }
}

#[derive(Serialize)]
struct ContainerObject<'a> {
    engine: &'static str,
    id: &'a str,
}

#[derive(Serialize)]
struct OwnerlessObject<'a> {
    reason: &'static str,
    text: Shown<OwnerlessText<'a>>,
    listener: Option<ListenerObject>,
}

#[derive(Serialize)]
struct ListenerObject {
    port: u16,
    inode: Option<u64>,
    pid: Option<i32>,
}

impl From<ListenerRef> for ListenerObject {
    fn from(listener: ListenerRef) -> Self {
        let ListenerRef { port, inode, pid, .. } = listener;
        Self {
            port: port.get(),
            inode,
            pid,
        }
    }
}

/// From where the socket can be reached.
#[derive(Serialize)]
struct ReachObject {
    verdict: &'static str,
    sources: &'static [&'static str],
    because: [String; 1],
}

impl ReachObject {
    fn new(reach: &BindReach) -> Self {
        let device = match &reach.device {
            Some(device) => format!(" and the interface {device}"),
            None => String::new(),
        };
        let address = match reach.scope {
            BindScope::ThisMachine => "bound to loopback: only this machine reaches it".to_owned(),
            BindScope::LinkLocal(address) => format!("bound to the link-local address {address}{device}"),
            BindScope::Group(address) => format!("bound to the group {address}{device}"),
            BindScope::OneAddress(address) => format!("bound to {address}{device}"),
            BindScope::EveryIpv4 => format!("bound to every IPv4 address{device}"),
            BindScope::EveryIpv6 => format!("bound to every IPv6 address, IPv4 excluded{device}"),
            BindScope::Every => format!("bound to every address, IPv6 and IPv4{device}"),
            BindScope::EveryPerhapsIpv4 => {
                format!("bound to every IPv6 address, perhaps IPv4 too{device}")
            }
            BindScope::VirtualMachines => "bound to an address between virtual machines".to_owned(),
            // A scope that this program does not know yet.
            _ => reach.to_string(),
        };
        Self {
            verdict: if reach.is_open() { "open" } else { "closed" },
            sources: reach.sources(),
            because: [address],
        }
    }
}

#[derive(Serialize)]
struct QueuesObject {
    receive: u32,
    send: u32,
}

#[derive(Serialize)]
struct TcpInfoObject {
    rto_us: u32,
    rtt_us: u32,
    rttvar_us: u32,
    min_rtt_us: u32,
    snd_mss: u32,
    rcv_mss: u32,
    pmtu: u32,
    snd_cwnd: u32,
    snd_ssthresh: u32,
    unacked: u32,
    total_retrans: u32,
    bytes_acked: u64,
    bytes_received: u64,
    pacing_rate: u64,
    delivery_rate: u64,
    last_data_sent_ms: u32,
    last_data_received_ms: u32,
}

impl From<&TcpInfo> for TcpInfoObject {
    fn from(info: &TcpInfo) -> Self {
        let TcpInfo {
            rto_us,
            rtt_us,
            rttvar_us,
            min_rtt_us,
            snd_mss,
            rcv_mss,
            pmtu,
            snd_cwnd,
            snd_ssthresh,
            unacked,
            total_retrans,
            bytes_acked,
            bytes_received,
            pacing_rate,
            delivery_rate,
            last_data_sent_ms,
            last_data_received_ms,
        } = *info;
        Self {
            rto_us,
            rtt_us,
            rttvar_us,
            min_rtt_us,
            snd_mss,
            rcv_mss,
            pmtu,
            snd_cwnd,
            snd_ssthresh,
            unacked,
            total_retrans,
            bytes_acked,
            bytes_received,
            pacing_rate,
            delivery_rate,
            last_data_sent_ms,
            last_data_received_ms,
        }
    }
}

/// What could not be seen.
#[derive(Serialize)]
pub(crate) struct HiddenObject<'a> {
    owners: usize,
    spaces: usize,
    remedy: Option<&'a str>,
}

impl<'a> From<&'a Hidden> for HiddenObject<'a> {
    fn from(hidden: &'a Hidden) -> Self {
        let Hidden {
            owners,
            spaces,
            remedy,
        } = hidden;
        Self {
            owners: *owners,
            spaces: *spaces,
            remedy: remedy.as_deref(),
        }
    }
}
