use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::io::Errno;

use crate::mptcp;
use crate::netlink::DumpError;
use crate::proc_net::{self, Inventory};
use crate::sock_diag::{Listed, SockDiag};
use crate::spaces::{self, Candidate, SpaceError};
use crate::{
    Collector, InodeSet, ProtocolSet, Query, Socket, SocketProtocol, Space, SpaceId, SpaceName, SpaceSelect,
};

/// Where to read a host from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Where procfs is mounted, or a tree that looks like it.
    pub proc_root: PathBuf,
    /// Whether to ask by netlink. Without, only the text files of `proc_root` are read.
    pub netlink: bool,
    /// The only way to look for the holders of sockets, to compare the ways; `None` for the best that can.
    pub holders: Option<Collector>,
}

impl Default for Sources {
    /// This machine, by every way that it offers.
    fn default() -> Self {
        Self {
            proc_root: PathBuf::from("/proc"),
            netlink: true,
            holders: None,
        }
    }
}

/// The sockets of some network namespaces.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SocketRead {
    /// The namespaces that were read; [`SpaceId`] is the index.
    pub spaces: Vec<Space>,
    /// The sockets, in the kernel's order.
    pub sockets: Vec<Socket>,
    /// How many namespaces are known of, were asked for and could not be read.
    pub hidden_spaces: usize,
    /// Protocols that were asked for and that this kernel does not have: there are no such sockets.
    pub absent: ProtocolSet,
    /// Protocols that were asked for, that this kernel has and whose sockets it does not list: there may be
    /// some.
    pub unlisted: ProtocolSet,
    /// Protocols that were asked for and that netlink, which lists them, was not asked for: the text files of
    /// /proc, read in its place, do not show them.
    pub unseen_by_text: ProtocolSet,
    /// Where the sockets came from.
    pub collectors: BTreeSet<Collector>,
    /// What went wrong and was survived, one line each.
    pub warnings: Vec<String>,
}

impl SocketRead {
    /// What would show the hidden namespaces, if there are any.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        (self.hidden_spaces > 0).then_some("run as root (CAP_SYS_ADMIN) to read every network namespace")
    }
}

/// Reads the sockets that `query` asks for.
///
/// The host's own namespace is read in this thread, all others one after the other in a second one, which
/// goes into them and ends. One that may not be entered is read from the outside, through the text files of a
/// process in it; one that cannot be read at all is counted. One that vanishes meanwhile is left out.
///
/// # Errors
/// The namespace that was asked for does not exist or cannot be read; or /proc, which leads to it, cannot.
pub fn read_sockets(query: &Query, sources: &Sources) -> Result<SocketRead, SpaceError> {
    let mut warnings = Vec::new();
    let found = match spaces::select(&sources.proc_root, &query.space) {
        Ok(found) => found,
        // Our own namespace needs no /proc.
        Err(error @ SpaceError::NoProc { .. }) if query.space == SpaceSelect::Every => {
            warnings.push(error.to_string());
            spaces::select(&sources.proc_root, &SpaceSelect::Host)?
        }
        Err(error) => return Err(error),
    };
    let (own, others): (Vec<_>, Vec<_>) = found
        .candidates
        .into_iter()
        .partition(|candidate| candidate.name == SpaceName::Host);
    let mut here = Reading::new(query, sources, 0);
    here.read.warnings = warnings;
    let mut there = Reading::new(query, sources, own.len());
    there.read.hidden_spaces = found.beyond;
    thread::scope(|scope| {
        let worker = (!others.is_empty()).then(|| {
            thread::Builder::new()
                .name("namespaces".into())
                .spawn_scoped(scope, || {
                    for candidate in &others {
                        there.visit(candidate);
                    }
                    there
                })
        });
        for candidate in &own {
            here.read_inside(candidate);
        }
        match worker {
            None => {}
            Some(Ok(worker)) => match worker.join() {
                Ok(there) => here.merge(there),
                Err(panic) => std::panic::resume_unwind(panic),
            },
            Some(Err(error)) => {
                here.read.hidden_spaces += others.len();
                here.read
                    .warnings
                    .push(format!("no thread for other namespaces: {error}"));
            }
        }
    });
    match (&query.space, here.refusal) {
        (SpaceSelect::Every, _) | (_, None) => Ok(here.read),
        (_, Some(error)) => Err(error),
    }
}

/// The inodes of the sockets that `query` asks for, as of now, to see which of an earlier reading are still there.
///
/// # Errors
/// As [`read_sockets`].
pub fn read_inodes(query: &Query, sources: &Sources) -> Result<InodeSet, SpaceError> {
    let read = read_sockets(query, sources)?;
    Ok(read
        .sockets
        .iter()
        .map(|socket| socket.inode)
        .filter(|inode| *inode != 0)
        .collect())
}

/// What one thread has read.
struct Reading<'a> {
    query: &'a Query,
    sources: &'a Sources,
    /// How many namespaces come before this thread's.
    first: usize,
    read: SocketRead,
    /// Why the last namespace that could not be read was not.
    refusal: Option<SpaceError>,
}

impl<'a> Reading<'a> {
    fn new(query: &'a Query, sources: &'a Sources, first: usize) -> Self {
        Self {
            query,
            sources,
            first,
            read: SocketRead::default(),
            refusal: None,
        }
    }

    fn merge(&mut self, other: Self) {
        let SocketRead {
            spaces,
            mut sockets,
            hidden_spaces,
            absent,
            unlisted,
            unseen_by_text,
            collectors,
            warnings,
        } = other.read;
        self.read.spaces.extend(spaces);
        self.read.sockets.append(&mut sockets);
        self.read.hidden_spaces += hidden_spaces;
        self.read.absent = self.read.absent.iter().chain(absent.iter()).collect();
        self.read.unlisted = self.read.unlisted.iter().chain(unlisted.iter()).collect();
        let unseen = self.read.unseen_by_text.iter().chain(unseen_by_text.iter());
        self.read.unseen_by_text = unseen.collect();
        self.read.collectors.extend(collectors);
        for warning in warnings {
            self.warn(warning);
        }
        self.refusal = self.refusal.take().or(other.refusal);
    }

    /// Reads a namespace that is not this thread's.
    fn visit(&mut self, candidate: &Candidate) {
        let Err(error) = spaces::enter(&self.sources.proc_root, candidate) else {
            return self.read_inside(candidate);
        };
        for pid in &candidate.pids {
            let net = self.sources.proc_root.join(pid.to_string()).join("net");
            if net.join("dev").exists() && self.read_text(candidate, &net) {
                return;
            }
        }
        // Nothing is left of one that was only its processes.
        if error.kind() != io::ErrorKind::NotFound {
            self.hide(candidate, error.to_string());
        }
    }

    fn hide(&mut self, candidate: &Candidate, because: String) {
        self.read.hidden_spaces += 1;
        self.refusal = Some(SpaceError::NotPermitted {
            name: candidate.name.clone(),
            because,
        });
    }

    /// Reads the namespace in which this thread is.
    fn read_inside(&mut self, candidate: &Candidate) {
        let net = self.sources.proc_root.join("thread-self/net");
        if !self.sources.netlink {
            if !self.read_text(candidate, &net) {
                self.hide(candidate, format!("{} cannot be read", net.display()));
            }
            return;
        }
        let mut diag = match SockDiag::open() {
            Ok(diag) => diag,
            Err(errno) => {
                self.warn(refused(errno));
                if !self.read_text(candidate, &net) {
                    self.hide(candidate, format!("netlink and {} are refused", net.display()));
                }
                return;
            }
        };
        let mut space = Space::new(candidate.name.clone(), candidate.inode);
        space.ephemeral_ports = spaces::ephemeral_ports(&self.sources.proc_root);
        let id = self.add(space);
        let inventory = Inventory::read(&net);
        let first = self.read.sockets.len();
        for protocol in self.query.protocols.iter() {
            if inventory.lacks(protocol) {
                self.read.absent = self.read.absent.with(protocol);
                continue;
            }
            if inventory.has_none(protocol, self.query.states) {
                self.read.collectors.insert(Collector::SockDiag);
                continue;
            }
            let mut refused_here = false;
            let by_text = match diag.list(protocol, self.query, id, &mut self.read.sockets) {
                Ok(listed) => {
                    match listed {
                        Listed::Whole | Listed::NotOffered => {}
                        Listed::Torn => self.warn(format!(
                            "the {protocol} sockets kept changing while they were read: some may be missing or \
                             listed twice"
                        )),
                    }
                    listed == Listed::NotOffered
                }
                Err(
                    DumpError::Socket(errno @ (Errno::PERM | Errno::ACCESS | Errno::CONNREFUSED))
                    | DumpError::Refused(errno @ (Errno::PERM | Errno::ACCESS)),
                ) => {
                    self.warn(refused(errno));
                    refused_here = true;
                    true
                }
                Err(error) => {
                    self.warn(format!(
                        "{protocol} sockets by netlink: {error}; read from /proc/net instead"
                    ));
                    true
                }
            };
            if !by_text {
                self.read.collectors.insert(Collector::SockDiag);
            } else if self.list_text(&net, protocol, id) == Some(false) {
                let unseen = if refused_here {
                    &mut self.read.unseen_by_text
                } else {
                    &mut self.read.unlisted
                };
                *unseen = unseen.with(protocol);
            }
        }
        mptcp::join_subflows(&mut self.read.sockets, first);
        if self.read.sockets[first..].iter().any(|socket| socket.device != 0) {
            match spaces::device_names() {
                Ok(names) => self.space(id).devices = names,
                Err(error) => self.warn(format!("the names of the interfaces: {error}")),
            }
        }
    }

    /// Reads all protocols from the text files in `net`; whether any could be read.
    fn read_text(&mut self, candidate: &Candidate, net: &Path) -> bool {
        let mut space = Space::new(candidate.name.clone(), candidate.inode);
        if candidate.name == SpaceName::Host {
            space.ephemeral_ports = spaces::ephemeral_ports(&self.sources.proc_root);
        }
        let id = self.add(space);
        let inventory = Inventory::read(net);
        let mut any = false;
        let mut unseen = ProtocolSet::EMPTY;
        for protocol in self.query.protocols.iter() {
            if inventory.lacks(protocol) {
                self.read.absent = self.read.absent.with(protocol);
                continue;
            }
            match self.list_text(net, protocol, id) {
                Some(true) => any = true,
                Some(false) => unseen = unseen.with(protocol),
                None => {}
            }
        }
        if any {
            let unseen = self.read.unseen_by_text.iter().chain(unseen.iter());
            self.read.unseen_by_text = unseen.collect();
        } else {
            // Where there is no list at all, it is not the kernel that has none.
            self.read.spaces.pop();
        }
        any
    }

    /// Whether there is a list of this protocol; `None` after a failure, which is noted.
    fn list_text(&mut self, net: &Path, protocol: SocketProtocol, space: SpaceId) -> Option<bool> {
        match proc_net::list(net, protocol, self.query, space, &mut self.read.sockets) {
            Ok(offered) => {
                if offered {
                    self.read.collectors.insert(Collector::ProcNet);
                }
                Some(offered)
            }
            Err(error) => {
                self.warn(format!("{protocol} sockets from {}: {error}", net.display()));
                None
            }
        }
    }

    fn add(&mut self, space: Space) -> SpaceId {
        let index = self.first + self.read.spaces.len();
        self.read.spaces.push(space);
        SpaceId(u32::try_from(index).expect("namespaces are bounded"))
    }

    fn space(&mut self, id: SpaceId) -> &mut Space {
        &mut self.read.spaces[id.0 as usize - self.first]
    }

    /// Notes a warning once, however many namespaces give it.
    fn warn(&mut self, warning: String) {
        if !self.read.warnings.contains(&warning) {
            self.read.warnings.push(warning);
        }
    }
}

fn refused(errno: Errno) -> String {
    format!(
        "netlink is refused here ({errno}): sockets are read from /proc/net, which does not tell devices, marks, \
         cgroups, backlogs and whether IPv6 sockets take IPv4 too"
    )
}
