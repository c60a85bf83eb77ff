//! The question, the answer, and the way from one to the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use portolan_core::table::{
    BindAnswer, BindError, BindWish, Device, Errno, Family, Host, InUse, Owner, PortTable, Rule, State,
    Transport,
};
use portolan_core::{Address, Port, PortRange};

use super::facts::{Facts, FactsError};
use super::load::{Group, groups, table};
use super::options::{OptionReader, SocketOptions};
use crate::{
    ProtocolSet, Query, Snapshot, SocketProtocol, Sources, SpaceError, SpaceName, SpaceSelect, StateSet,
};

/// A socket that somebody would like to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindQuestion {
    /// TCP or UDP.
    pub transport: Transport,
    /// The address; `None` is every address of both families.
    pub address: Option<Address>,
    /// The port; 0 for an automatic one.
    pub port: Port,
    /// `SO_REUSEADDR`.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// Whether `IPV6_V6ONLY` is set by hand; else it is what the system sets.
    pub v6_only: bool,
    /// `SO_BINDTODEVICE`: the name or the index of a device.
    pub device: Option<String>,
    /// The user who would make it; `None` is this process.
    pub uid: Option<u32>,
    /// The port space, one.
    pub space: SpaceSelect,
}

/// The socket that a [`BindQuestion`] comes to on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedSocket {
    /// TCP or UDP.
    pub transport: Transport,
    /// The family it would be made in.
    pub family: Family,
    /// The address and port, with the index of the device as the scope of a link-local address.
    pub local: SocketAddr,
    /// Whether it would be closed to IPv4.
    pub v6_only: bool,
    /// The name of the device it would be bound to, by `SO_BINDTODEVICE` or by its scope.
    pub device: Option<String>,
    /// The user who would make it.
    pub uid: u32,
}

/// Whether a bind would succeed, and all that the answer comes from.
#[derive(Clone, Debug)]
pub struct BindExplanation {
    /// The socket.
    pub planned: PlannedSocket,
    /// The answer.
    pub verdict: BindVerdict,
    /// The sockets in the way: of each kind that the rule names, those of the snapshot, listeners first.
    pub in_the_way: Vec<usize>,
    /// What is known of the options of the sockets in the way, in the same order.
    pub sharing: Vec<Sharing>,
    /// What the maker of the socket could change so that the bind succeeds: tried in the table.
    pub helpers: Vec<Helper>,
    /// The sockets and their owners.
    pub snapshot: Snapshot,
}

/// What is known of the options of a socket in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They were read from the socket.
    Known(SocketOptions),
    /// They could not be read.
    Unknown,
}

/// A change of the socket that would let the bind succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Helper {
    /// To set `SO_REUSEADDR`.
    ReuseAddress {
        /// Whether it helps for sure; else only if those in the way set it too.
        certain: bool,
    },
    /// To set `SO_REUSEPORT`.
    ReusePort {
        /// Whether it helps for sure; else only if those in the way set it too.
        certain: bool,
    },
    /// To set `IPV6_V6ONLY`: only IPv4 is taken.
    V6Only,
}

/// Whether a bind would succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindVerdict {
    /// It would, and so would a listen after it; for port 0 this is one of the ports that it could get.
    Yes {
        /// The port.
        port: Port,
    },
    /// It would not.
    No(Obstacle),
    /// It depends on what cannot be read.
    Unknown(Unsure),
}

/// What is in the way of a bind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// Other sockets.
    InUse {
        /// Why they do not share the port.
        rule: Rule,
    },
    /// The address is not the host's.
    AddressNotLocal {
        /// The address.
        address: IpAddr,
        /// The device that does not have it, if the address is another device's.
        device: Option<String>,
    },
    /// The port takes a privilege.
    Privileged {
        /// The first port that takes none.
        unprivileged_start: u32,
    },
    /// Every automatic port is in use or reserved.
    Exhausted {
        /// The automatic ports.
        range: PortRange,
    },
    /// There is no such device.
    NoSuchDevice {
        /// Its name as it was given.
        name: String,
    },
    /// IPv6 is switched off.
    NoIpv6,
    /// A link-local address means nothing without its device.
    MissingScope,
    /// TCP cannot use an IPv6 multicast address.
    Multicast,
    /// An IPv4 address on a socket that is closed to IPv4.
    V6Only,
    /// What the table refuses for a reason that this version does not know.
    Other(BindError),
}

impl Obstacle {
    /// What bind(2), or for a device and a family what comes before it, would answer.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::InUse { .. } | Self::Exhausted { .. } => Errno::EADDRINUSE,
            Self::AddressNotLocal { .. } => Errno::EADDRNOTAVAIL,
            Self::Privileged { .. } => Errno::EACCES,
            Self::NoSuchDevice { .. } => Errno::ENODEV,
            Self::NoIpv6 => Errno::EAFNOSUPPORT,
            Self::MissingScope | Self::Multicast | Self::V6Only => Errno::EINVAL,
            Self::Other(error) => error.errno(),
        }
    }
}

/// What an answer depends on that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsure {
    /// Whether the sockets in the way set `SO_REUSEADDR`, `SO_REUSEPORT`, or as IPv6 connections `IPV6_V6ONLY`.
    Options,
    /// Which of several `SO_REUSEPORT` sockets the kernel remembers or meets first: that one decides alone.
    Order,
    /// Whether the capability of this process counts in this port space.
    Privilege {
        /// The first port that takes no privilege.
        unprivileged_start: u32,
    },
}

/// Why the question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainBindError {
    /// The port space.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// What the port space has besides sockets.
    #[error("port space {name} cannot be read: {because}; it takes CAP_SYS_ADMIN (sudo)")]
    Facts {
        /// What it is called.
        name: SpaceName,
        /// What went wrong.
        because: String,
    },
    /// The sockets were not all listed.
    #[error("the sockets cannot be listed: {because}")]
    Sockets {
        /// What went wrong.
        because: String,
    },
}

/// Whether the bind of a socket, and the listen of a TCP one, would succeed on this host now.
///
/// Reads the host and changes nothing. Cost: one reading of the sockets of the port, with owners; of every port of
/// the protocol if the port is 0.
///
/// # Errors
/// The port space cannot be read.
pub fn explain_bind(question: &BindQuestion, sources: &Sources) -> Result<BindExplanation, ExplainBindError> {
    let snapshot = Snapshot::take_from(&query(question), sources)?;
    let space = snapshot.spaces.first().ok_or_else(|| ExplainBindError::Sockets {
        because: "there is no such port space".to_owned(),
    })?;
    let facts = Facts::read(&sources.proc_root, &space.name, space.inode).map_err(|error: FactsError| {
        ExplainBindError::Facts {
            name: space.name.clone(),
            because: error.to_string(),
        }
    })?;
    let mut planned = planned(question, &facts);
    let early = early_obstacle(question, &facts, &planned);
    let answered = match early {
        Some(obstacle) => Answered {
            verdict: BindVerdict::No(obstacle),
            groups: Vec::new(),
            helpers: Vec::new(),
        },
        None => {
            let wish = wish(question, &facts, &planned);
            planned.device = device_of(&wish).and_then(|device| facts.devices.get(&device.get()).cloned());
            answer(&wish, &facts, &snapshot)
        }
    };
    let (in_the_way, sharing) = named(&snapshot, &answered.groups);
    Ok(BindExplanation {
        planned,
        verdict: answered.verdict,
        helpers: answered.helpers,
        in_the_way,
        sharing,
        snapshot,
    })
}

fn query(question: &BindQuestion) -> Query {
    let protocol = match question.transport {
        Transport::Tcp => SocketProtocol::Tcp,
        Transport::Udp => SocketProtocol::Udp,
    };
    let is_automatic = question.port == Port::ZERO;
    Query {
        protocols: ProtocolSet::EMPTY.with(protocol),
        states: StateSet::ALL,
        local_ports: (!is_automatic).then(|| vec![PortRange::single(question.port)]),
        space: question.space.clone(),
        owners: true,
        tcp_info: false,
    }
}

fn planned(question: &BindQuestion, facts: &Facts) -> PlannedSocket {
    let port = question.port.get();
    let (local, v6_only): (SocketAddr, bool) = match question.address {
        // As most servers do: one socket for both families, or for the one there is.
        None if facts.has_ipv6 => ((Ipv6Addr::UNSPECIFIED, port).into(), question.v6_only),
        None => ((Ipv4Addr::UNSPECIFIED, port).into(), false),
        Some(address) => match address.ip() {
            IpAddr::V4(ip) => ((ip, port).into(), false),
            IpAddr::V6(ip) => {
                let scope = address.zone().and_then(|zone| facts.device(zone.as_str()));
                let local = SocketAddrV6::new(ip, port, 0, scope.map_or(0, Device::get));
                let is_specific = !ip.is_unspecified() && ip.to_ipv4_mapped().is_none();
                let by_default = facts.v6_only_default && ip.to_ipv4_mapped().is_none();
                (local.into(), question.v6_only || by_default || is_specific)
            }
        },
    };
    PlannedSocket {
        transport: question.transport,
        family: match local {
            SocketAddr::V4(_) => Family::Ipv4,
            SocketAddr::V6(_) => Family::Ipv6,
        },
        local,
        v6_only,
        device: question.device.clone(),
        uid: question
            .uid
            .unwrap_or_else(|| rustix::process::geteuid().as_raw()),
    }
}

/// What is in the way before the table is asked: what it takes for granted.
fn early_obstacle(question: &BindQuestion, facts: &Facts, planned: &PlannedSocket) -> Option<Obstacle> {
    let zone = question.address.and_then(Address::zone);
    let named = question.device.as_deref();
    for name in named.into_iter().chain(zone.as_ref().map(|zone| zone.as_str())) {
        if facts.device(name).is_none() {
            return Some(Obstacle::NoSuchDevice {
                name: name.to_owned(),
            });
        }
    }
    if planned.family == Family::Ipv6 && !facts.has_ipv6 {
        return Some(Obstacle::NoIpv6);
    }
    let address = planned.local.ip();
    let privilege_first = planned.family == Family::Ipv6;
    // IPv4 asks for the address before the privilege, IPv6 after it; there the table's own order holds.
    let comes_later = privilege_first && is_privilege_missing(question, facts) || needs_scope(address);
    let is_refused = !(comes_later || facts.may_bind(address));
    is_refused.then(|| Obstacle::AddressNotLocal {
        address: address.to_canonical(),
        device: None,
    })
}

fn needs_scope(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn is_privilege_missing(question: &BindQuestion, facts: &Facts) -> bool {
    question.port != Port::ZERO
        && u32::from(question.port.get()) < facts.unprivileged_start
        && privilege(question, facts) == Some(false)
}

/// Whether the maker of the socket may bind privileged ports; `None` if that cannot be told.
fn privilege(question: &BindQuestion, facts: &Facts) -> Option<bool> {
    let us = rustix::process::geteuid().as_raw();
    match question.uid {
        // Another user's program has what it is given at its start; without such a gift only root has it.
        Some(uid) if uid != us => Some(uid == 0),
        Some(_) | None => facts.privileged,
    }
}

fn wish(question: &BindQuestion, facts: &Facts, planned: &PlannedSocket) -> BindWish {
    BindWish {
        transport: question.transport,
        family: planned.family,
        owner: Owner {
            uid: planned.uid,
            privileged: privilege(question, facts) != Some(false),
        },
        local: planned.local,
        v6_only: planned.v6_only && !is_specific(planned.local.ip()) || question.v6_only,
        reuse_address: question.reuse_address,
        reuse_port: question.reuse_port,
        device: question.device.as_deref().and_then(|name| facts.device(name)),
    }
}

fn is_specific(address: IpAddr) -> bool {
    !address.is_unspecified()
}

/// The device that the socket would be bound to: that of its scope before that of its option.
fn device_of(wish: &BindWish) -> Option<Device> {
    match wish.local {
        SocketAddr::V6(local) => Device::new(local.scope_id()).or(wish.device),
        SocketAddr::V4(_) => wish.device,
    }
}

/// An answer, the groups of sockets in the way, and what would help.
struct Answered {
    verdict: BindVerdict,
    groups: Vec<Group>,
    helpers: Vec<Helper>,
}

/// Which changes of the socket the table would admit.
fn helpers(wish: &BindWish, table: &PortTable) -> Vec<Helper> {
    let certain = |wish: &BindWish| match table.explain_bind(wish) {
        BindAnswer::Yes(_) => Some(true),
        BindAnswer::Unknown(in_use) if in_use.rule == Rule::UnknownOptions => Some(false),
        BindAnswer::Unknown(_) | BindAnswer::No(_) => None,
    };
    let mut helpers = Vec::new();
    if !wish.reuse_address {
        let changed = BindWish {
            reuse_address: true,
            ..*wish
        };
        helpers.extend(certain(&changed).map(|certain| Helper::ReuseAddress { certain }));
    }
    if !wish.reuse_port {
        let changed = BindWish {
            reuse_port: true,
            ..*wish
        };
        helpers.extend(certain(&changed).map(|certain| Helper::ReusePort { certain }));
    }
    if !wish.v6_only && wish.local.is_ipv6() && wish.local.ip().is_unspecified() {
        let changed = BindWish {
            v6_only: true,
            ..*wish
        };
        helpers.extend(
            certain(&changed)
                .filter(|certain| *certain)
                .map(|_| Helper::V6Only),
        );
    }
    helpers
}

fn answer(wish: &BindWish, facts: &Facts, snapshot: &Snapshot) -> Answered {
    let mut reader = OptionReader::default();
    let mut groups = groups(snapshot, wish.transport, |index| reader.read(snapshot, index));
    for group in &mut groups {
        // The kernel no longer says whose a connection in TIME-WAIT was: it may have been this user's.
        if group.existing.state == State::TimeWait {
            group.existing.uid = wish.owner.uid;
        }
    }
    if wish.transport == Transport::Udp {
        // The kernel lists the newest socket of a port first, and the table wants it last.
        groups.reverse();
    }
    let host = facts.host(wish.local.ip());
    let (table, loaded) = table(&host, &groups);
    let way = |in_use: &InUse| {
        let groups = in_use.in_the_way.iter().filter_map(|id| loaded.get(id));
        groups.map(|group| Group::clone(group)).collect::<Vec<_>>()
    };
    let unsure = |unsure, groups| Answered {
        verdict: BindVerdict::Unknown(unsure),
        groups,
        helpers: Vec::new(),
    };
    let no = |obstacle| Answered {
        verdict: BindVerdict::No(obstacle),
        groups: Vec::new(),
        helpers: Vec::new(),
    };
    match table.explain_bind(wish) {
        BindAnswer::Yes(port) => {
            let start = facts.unprivileged_start;
            if wish.local.port() != 0 && u32::from(port.get()) < start && facts_leave_open(wish, facts) {
                return unsure(
                    Unsure::Privilege {
                        unprivileged_start: start,
                    },
                    Vec::new(),
                );
            }
            match first_decides(wish, &host, &groups) {
                Some(refusing) => unsure(Unsure::Order, refusing),
                None => Answered {
                    verdict: BindVerdict::Yes { port },
                    groups: Vec::new(),
                    helpers: Vec::new(),
                },
            }
        }
        BindAnswer::Unknown(in_use) if in_use.rule == Rule::UnknownOptions => {
            unsure(Unsure::Options, way(&in_use))
        }
        // They surely do not share, but the port may remember a socket that let this one in.
        BindAnswer::Unknown(in_use) => unsure(Unsure::Order, way(&in_use)),
        BindAnswer::No(BindError::InUse(in_use)) => {
            if !is_refused_by_v6_only_too(wish, &host, &groups) {
                return unsure(Unsure::Options, way(&in_use));
            }
            if first_decides(wish, &host, &groups).is_some() || is_perhaps_remembered(wish, &groups) {
                return unsure(Unsure::Order, way(&in_use));
            }
            Answered {
                verdict: BindVerdict::No(Obstacle::InUse { rule: in_use.rule }),
                groups: way(&in_use),
                helpers: helpers(wish, &table),
            }
        }
        BindAnswer::No(BindError::AddressNotLocal { address, device }) => no(Obstacle::AddressNotLocal {
            address,
            device: device.and_then(|device| facts.devices.get(&device.get()).cloned()),
        }),
        BindAnswer::No(BindError::Privileged {
            unprivileged_start, ..
        }) => no(Obstacle::Privileged { unprivileged_start }),
        BindAnswer::No(BindError::Exhausted(exhausted)) => no(Obstacle::Exhausted {
            range: exhausted.range,
        }),
        BindAnswer::No(BindError::MissingScope { .. }) => no(Obstacle::MissingScope),
        BindAnswer::No(BindError::Multicast { .. }) => no(Obstacle::Multicast),
        BindAnswer::No(BindError::V6Only { .. }) => no(Obstacle::V6Only),
        BindAnswer::No(error) => no(Obstacle::Other(error)),
    }
}

/// Whether the bind is refused too if every socket of which IPV6_V6ONLY is not known has set it.
fn is_refused_by_v6_only_too(wish: &BindWish, host: &Host, groups: &[Group]) -> bool {
    let groups = groups.iter().cloned().map(|mut group| {
        group.existing.v6_only |= group.v6_only_unknown;
        group
    });
    let groups = groups.collect::<Vec<_>>();
    let (table, _) = table(host, &groups);
    matches!(table.explain_bind(wish), BindAnswer::No(_))
}

/// Whether the privilege was taken for granted and is not certain.
fn facts_leave_open(wish: &BindWish, facts: &Facts) -> bool {
    facts.privileged.is_none() && wish.owner.uid == rustix::process::geteuid().as_raw()
}

/// For UDP with `SO_REUSEPORT`: the sockets that would refuse, if others would share. Of sockets that meet the
/// address the kernel looks at the newest alone.
fn first_decides(wish: &BindWish, host: &Host, groups: &[Group]) -> Option<Vec<Group>> {
    if wish.transport != Transport::Udp || !wish.reuse_port || wish.local.port() == 0 {
        return None;
    }
    let ask = |group: &Group, wish: &BindWish| table(host, [group]).0.explain_bind(wish);
    let by_port_alone = BindWish {
        reuse_address: false,
        ..*wish
    };
    let without = BindWish {
        reuse_port: false,
        ..by_port_alone
    };
    let meets = |group: &&Group| !matches!(ask(group, &without), BindAnswer::Yes(_));
    let shares = |group: &Group| matches!(ask(group, &by_port_alone), BindAnswer::Yes(_));
    let refuses = |group: &Group| !matches!(ask(group, wish), BindAnswer::Yes(_));
    let meeting = groups.iter().filter(meets).collect::<Vec<_>>();
    if !meeting.iter().any(|group| shares(group)) {
        return None;
    }
    let refusing = meeting.into_iter().filter(|group| refuses(group)).cloned();
    Some(refusing.collect::<Vec<_>>()).filter(|refusing| !refusing.is_empty())
}

/// For TCP with `SO_REUSEPORT`: whether the kernel may remember a socket of the same user on this port, whose
/// successors it admits without a look at the others (`sk_reuseport_match`).
fn is_perhaps_remembered(wish: &BindWish, groups: &[Group]) -> bool {
    wish.transport == Transport::Tcp
        && wish.reuse_port
        && groups.iter().any(|group| {
            let Group { existing, .. } = group;
            existing.uid == wish.owner.uid
                && existing.state != State::TimeWait
                && existing.reuse.is_none_or(|(_, port)| port)
        })
}

/// The sockets of the groups, listeners first, and what is known of their options.
fn named(snapshot: &Snapshot, groups: &[Group]) -> (Vec<usize>, Vec<Sharing>) {
    let mut all: Vec<(usize, Sharing)> = groups
        .iter()
        .flat_map(|group| {
            let sharing = match group.existing.reuse {
                Some((reuse_address, reuse_port)) => Sharing::Known(SocketOptions {
                    reuse_address,
                    reuse_port,
                    v6_only: (group.existing.family == Family::Ipv6).then_some(group.existing.v6_only),
                }),
                None => Sharing::Unknown,
            };
            group.sockets.iter().map(move |&index| (index, sharing))
        })
        .collect();
    all.sort_by_key(|&(index, _)| (snapshot.sockets[index].remote.is_some(), index));
    all.into_iter().unzip()
}
