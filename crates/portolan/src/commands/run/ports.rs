//! Published ports: taken before anything is started, or as the program listens.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use portolan_core::{Automatic, Escaped, Exception, Mapping, Port, PortRange, Protocol, Publication};
use portolan_gateway::inbound::{
    AutoConfig, Bound, InsideSockets, Listening, Look, Notice, Porter, Published, ShortcutConfig,
    serve_porter,
};
use portolan_host::{
    PortHolder, ProtocolSet, Query, Snapshot, SocketLister, SocketProtocol, SpaceSelect, State, StateSet,
};
use portolan_space::{Helper, Space, sandbox};
use rustix::net::{AddressFamily, SocketType};

use super::{code, no_process};
use crate::exit::Failure;
use crate::{message, services};

/// What `-p` was given.
#[derive(Debug, Default)]
pub(super) struct Publications {
    mappings: Vec<Mapping>,
    automatic: Vec<Automatic>,
    exceptions: Vec<Exception>,
}

impl Publications {
    pub(super) fn read(texts: &[String]) -> Result<Self, Failure> {
        let mut publications = Self::default();
        if texts.is_empty() {
            return Ok(publications);
        }
        let (services, _) = services::load(services::FILE.as_ref());
        for text in texts {
            let read = Publication::parse(text, &services)
                .map_err(|error| Failure::Usage(format!("--publish: {error}")))?;
            match read {
                Publication::Mapping(mapping) => publications.mappings.push(mapping),
                Publication::Automatic(automatic) => publications.automatic.push(automatic),
                Publication::Exception(exception) => publications.exceptions.push(exception),
            }
        }
        if publications.automatic.is_empty()
            && let Some(exception) = publications.exceptions.first()
        {
            return Err(Failure::Usage(format!(
                "--publish {exception} leaves a port out of --publish auto, which is missing"
            )));
        }
        Ok(publications)
    }

    /// Takes the ports of all mappings, or none.
    pub(super) fn bind(&self) -> Result<Bound, Failure> {
        Bound::bind(&self.mappings, &holder).map_err(|error| code::failure(&error, error.code()))
    }

    /// A process that takes the ports that turn out to be wanted, if any may. It is to be started before there are
    /// threads, and ports.
    pub(super) fn helper(&self) -> Result<Option<Helper>, Failure> {
        if self.automatic.is_empty() {
            return Ok(None);
        }
        let work = |channel: OwnedFd| {
            // With all of them it serves as well.
            let _ = sandbox::keep_port_capabilities();
            let _ = sandbox::forbid_dumps();
            let _ = serve_porter(channel, &holder);
        };
        let helper = Helper::start(&[], work);
        helper.map(Some).map_err(no_process)
    }

    /// What follows the program, if its ports are published as it listens. Call it in a runtime.
    pub(super) fn follower(
        &self,
        helper: &Helper,
        space: &Space,
        inside: Vec<IpAddr>,
    ) -> io::Result<AutoConfig> {
        Ok(AutoConfig {
            places: self.automatic.clone(),
            except: self.exceptions.clone(),
            inside,
            look: listening(space)?,
            porter: Porter::new(helper.as_fd().try_clone_to_owned()?)?,
            tell: Box::new(tell),
        })
    }
}

/// Reads what listens in a space.
fn listening(space: &Space) -> io::Result<Look> {
    let (netlink, raw) = (AddressFamily::NETLINK.as_raw(), SocketType::RAW.as_raw());
    let socket = space.open_socket(netlink, raw, SOCK_DIAG)?;
    let mut lister = SocketLister::new(socket);
    let question = |protocol, state| {
        let query = Query {
            states: StateSet::EMPTY.with(state),
            owners: false,
            ..Query::listeners()
        };
        (protocol, query)
    };
    let questions = [
        question(SocketProtocol::Tcp, State::Listen),
        question(SocketProtocol::Udp, State::Unconnected),
    ];
    let mut sockets = Vec::new();
    Ok(Box::new(move |listening: &mut Vec<Listening>| {
        sockets.clear();
        for (protocol, query) in &questions {
            // What is missing since the list changes all the time is seen the next time.
            lister.list(*protocol, query, &mut sockets)?;
        }
        listening.extend(sockets.iter().filter_map(|socket| {
            Some(Listening {
                protocol: match socket.protocol {
                    SocketProtocol::Udp => Protocol::Udp,
                    _ => Protocol::Tcp,
                },
                address: socket.local.ip()?,
                port: socket.local.port()?,
            })
        }));
        Ok(())
    }))
}

/// Says what becomes of ports that are published by themselves.
fn tell(notice: Notice) {
    match notice {
        Notice::Published(published) => say_published(&published),
        Notice::Refused(refusal) => {
            message::say(&format!("{refusal}; it is tried again as long as it is in use"))
        }
        Notice::Silent => message::say("more ports cannot be published: no more is said of that"),
        Notice::Ended(error) => {
            message::say(&format!(
                "ports are published no longer as they come into use: {error}"
            ));
        }
        _ => {}
    }
}

/// The way past the device for clients on this host's loopback, where the kernel has it.
pub(super) fn shortcut(space: &Space) -> Option<ShortcutConfig> {
    let sockets = space.sockets();
    space.has_shortcut().then(|| ShortcutConfig {
        sockets: InsideSockets::new(move |domain, count| Ok(sockets.open_marked(domain, count)?)),
    })
}

/// Says which ports were chosen where any would do.
pub(super) fn say_chosen(bound: &Bound) {
    for published in bound.published().filter(|published| published.is_chosen) {
        say_published(&published);
    }
}

fn say_published(published: &Published) {
    message::say(&format!("published {} -> {}", published.place, published.inner));
}

/// NETLINK_SOCK_DIAG.
const SOCK_DIAG: u32 = 4;

/// Who holds a port of this host: `nginx (pid 812)`.
pub(crate) fn holder(protocol: Protocol, address: SocketAddr) -> Option<String> {
    let port = Port::new(address.port());
    let wanted = match protocol {
        Protocol::Udp => SocketProtocol::Udp,
        _ => SocketProtocol::Tcp,
    };
    let query = Query {
        protocols: ProtocolSet::EMPTY.with(wanted),
        states: StateSet::OPEN,
        local_ports: Some(vec![PortRange::single(port)]),
        space: SpaceSelect::Host,
        owners: true,
        tcp_info: false,
    };
    let snapshot = Snapshot::take(&query).ok()?;
    let conflicts = |index: &usize| {
        let (asked, held) = (address.ip().to_canonical(), snapshot.sockets[*index].local.ip());
        held.map(|held| held.to_canonical())
            .is_some_and(|held| held == asked || held.is_unspecified() || asked.is_unspecified())
    };
    let uses = snapshot.port_uses(|protocol, held| protocol == wanted && held == port);
    let mut holders = uses.iter().filter(|usage| usage.sockets.iter().any(conflicts));
    holders.find_map(|usage| match usage.holder {
        PortHolder::Process(pid) => {
            let process = snapshot.processes.get(&pid)?;
            Some(format!(
                "{} (pid {pid})",
                Escaped::new(process.name.as_bytes()).bounded(40)
            ))
        }
        PortHolder::Nobody(_) => None,
    })
}
