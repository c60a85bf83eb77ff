//! A snapshot, from the question to the answer: sockets, then holders, then the join.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use portolan_core::PortRange;
use rustix::thread::CapabilitySet;

use crate::attribution::{self, View};
use crate::container_name::{self, Stores};
use crate::proc_root::read_link;
use crate::{
    Collector, Hidden, HoldersError, Holding, Holdings, HoldingsRequest, InodeSet, Owner, OwnerlessReason,
    Ownership, ProcRoot, Process, Query, Snapshot, Socket, SocketProtocol, SocketRead, Sources, SpaceError,
    SpaceSelect, StartTime, State, Users, find_holders, read_inodes, read_sockets,
};

impl Snapshot {
    /// Reads this machine.
    ///
    /// # Errors
    /// The namespace that was asked for does not exist or may not be read; /proc cannot be listed. All else
    /// that fails is survived and said in [`warnings`](Self::warnings) and [`hidden`](Self::hidden).
    pub fn take(query: &Query) -> Result<Self, SpaceError> {
        Self::take_from(query, &Sources::default())
    }

    /// Reads a machine by the given ways.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn take_from(query: &Query, sources: &Sources) -> Result<Self, SpaceError> {
        let mut widened = with_listeners(query);
        let (read, early) = thread::scope(|scope| {
            // To list everything takes the whole time of either, and they do not need each other: only the
            // cgroups come with the sockets.
            let may = asks_for_everything(query) && sources.holders != Some(Collector::ProcByCgroup);
            let early = may.then(|| scope.spawn(|| every_holder(sources)));
            let read = read_named(&mut widened, sources);
            let early = early.map(|early| early.join().unwrap_or_else(|panic| resume_unwind(panic)));
            (read, early.flatten())
        });
        let mut read = read?;
        let mut snapshot = Self {
            collectors: read.collectors.iter().copied().collect(),
            hidden: Hidden {
                owners: 0,
                spaces: read.hidden_spaces,
                remedy: read.remedy().map(str::to_owned),
            },
            warnings: std::mem::take(&mut read.warnings),
            ..Self::default()
        };
        snapshot.unlisted = read.unlisted;
        snapshot.unseen_by_text = read.unseen_by_text;
        let ownership = if query.owners {
            let mut finder = Finder::new(&widened, sources, &mut snapshot, early);
            let ownership = finder.attribute(&read);
            finder.look_up_processes(&read.sockets, &ownership);
            ownership
        } else {
            Vec::new()
        };
        let SocketRead { spaces, sockets, .. } = read;
        snapshot.spaces = spaces;
        snapshot.sockets = sockets;
        snapshot.ownership = ownership;
        snapshot.drop_states_outside(query);
        if query.owners {
            snapshot.count_hidden_owners();
        }
        Ok(snapshot)
    }

    /// Drops what was only read to find accept queues.
    fn drop_states_outside(&mut self, query: &Query) {
        if self
            .sockets
            .iter()
            .all(|socket| query.states.contains(socket.state))
        {
            return;
        }
        let wanted = self
            .sockets
            .iter()
            .map(|socket| query.states.contains(socket.state));
        let wanted = wanted.collect::<Vec<_>>();
        let mut keep = wanted.iter();
        self.ownership.retain(|_| keep.next().copied().unwrap_or(false));
        let mut keep = wanted.iter();
        self.sockets.retain(|_| keep.next().copied().unwrap_or(false));
    }

    fn count_hidden_owners(&mut self) {
        let hidden = |ownership: &&Ownership| match ownership {
            Ownership::Held(_) => false,
            Ownership::Nobody(ownerless) => matches!(
                ownerless.reason,
                OwnerlessReason::OtherUser | OwnerlessReason::OtherPidNamespace
            ),
        };
        self.hidden.owners = self.ownership.iter().filter(hidden).count();
        if self.hidden.owners > 0 {
            self.hidden.remedy = Some(match self.hidden.remedy.take() {
                Some(remedy) => remedy,
                None if rustix::process::geteuid().is_root() => {
                    "run in the host's PID namespace, with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH".to_owned()
                }
                None => "run as root (CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH) to name every owner".to_owned(),
            });
        }
    }
}

/// The query, and the listeners too where a connection may turn out to wait for one of them.
fn with_listeners(query: &Query) -> Query {
    let mut widened = query.clone();
    let waiting = query.states.contains(State::Established) || query.states.contains(State::CloseWait);
    if query.owners && waiting {
        widened.states = widened.states.with(State::Listen);
    }
    widened
}

/// Reads the sockets. A name that is no namespace's may be a container's; then the query is narrowed to it.
fn read_named(query: &mut Query, sources: &Sources) -> Result<SocketRead, SpaceError> {
    match (read_sockets(query, sources), &query.space) {
        (Err(error @ SpaceError::NoSuchName { .. }), SpaceSelect::Named(name)) => {
            let root = ProcRoot::open(&sources.proc_root).map_err(|_| error.clone())?;
            let pid = container_name::process_of(&root, &Stores::system(), name).ok_or(error)?;
            query.space = SpaceSelect::Process(pid);
            read_sockets(query, sources)
        }
        (read, _) => read,
    }
}

/// Whether so many sockets are asked for that it is best to look for the holders of all there are.
fn asks_for_everything(query: &Query) -> bool {
    query.owners && query.local_ports.is_none() && query.states.contains(State::Established)
}

/// The holders of every socket; `None` if there is no /proc, which is said later.
fn every_holder(sources: &Sources) -> Option<Result<Holdings, HoldersError>> {
    let root = ProcRoot::open(&sources.proc_root).ok()?;
    let request = HoldingsRequest {
        only: sources.holders,
        ..HoldingsRequest::default()
    };
    Some(find_holders(&root, &request))
}

/// Finds who holds the sockets of one reading.
struct Finder<'a> {
    query: &'a Query,
    sources: &'a Sources,
    snapshot: &'a mut Snapshot,
    root: Option<ProcRoot>,
    /// What a look at every descriptor has found already.
    early: Option<Result<Holdings, HoldersError>>,
    /// When the last look at the processes began.
    began: StartTime,
}

impl<'a> Finder<'a> {
    fn new(
        query: &'a Query,
        sources: &'a Sources,
        snapshot: &'a mut Snapshot,
        early: Option<Result<Holdings, HoldersError>>,
    ) -> Self {
        let root = match ProcRoot::open(&sources.proc_root) {
            Ok(root) => Some(root),
            Err(error) => {
                snapshot.warnings.push(error.to_string());
                None
            }
        };
        Self {
            query,
            sources,
            snapshot,
            root,
            early,
            began: StartTime::now(),
        }
    }

    fn attribute(&mut self, read: &SocketRead) -> Vec<Ownership> {
        let inodes = read
            .sockets
            .iter()
            .map(|socket| socket.inode)
            .filter(|inode| *inode != 0)
            .collect();
        let (mut holdings, mut complete) = self.look(inodes, read);
        let mut missing = attribution::unresolved(&read.sockets, &holdings);
        let mut gone = InodeSet::default();
        if !missing.is_empty() {
            let present = self.present(read, &missing);
            gone = missing.difference(&present).copied().collect();
            missing.retain(|inode| present.contains(inode));
            // Whoever held it may have started, or got it passed, behind the back of the first look.
            if complete && !missing.is_empty() {
                let (more, complete_again) = self.look(missing, read);
                holdings.extend(more);
                complete = complete_again;
            }
        }
        let initial_pid_namespace = is_in(&self.sources.proc_root, "self/ns/pid", FIRST_PID_NAMESPACE);
        let view = View {
            complete,
            initial_pid_namespace,
        };
        attribution::attribute(&read.sockets, &read.sockets, &mut holdings, &gone, view)
    }

    /// The holders of `inodes`, and whether every process could be looked into.
    fn look(&mut self, inodes: InodeSet, read: &SocketRead) -> (Vec<Holding>, bool) {
        let Some(root) = &self.root else {
            return (Vec::new(), false);
        };
        if inodes.is_empty() {
            return (Vec::new(), true);
        }
        let mut cgroups = read
            .sockets
            .iter()
            .filter_map(|socket| socket.cgroup)
            .collect::<Vec<_>>();
        cgroups.sort_unstable();
        cgroups.dedup();
        let request = HoldingsRequest {
            inodes: Some(inodes),
            cgroups,
            only: self.sources.holders,
            ..HoldingsRequest::default()
        };
        match self.early.take().unwrap_or_else(|| find_holders(root, &request)) {
            Ok(found) => {
                let complete = (found.unreadable_processes() == 0 && !found.hidden_processes)
                    || is_all_powerful(&self.sources.proc_root);
                self.began = found.began;
                if !self.snapshot.collectors.contains(&found.collector) {
                    self.snapshot.collectors.push(found.collector);
                }
                self.snapshot.passed_over = found.passed_over;
                self.snapshot.warnings.extend(found.warnings);
                (found.holdings, complete)
            }
            Err(error) => {
                self.snapshot.warnings.push(error.to_string());
                (Vec::new(), false)
            }
        }
    }

    /// Which of the `missing` inodes are still there: asked for by their ports, which is cheap.
    fn present(&mut self, read: &SocketRead, missing: &InodeSet) -> InodeSet {
        let mut query = Query {
            owners: false,
            tcp_info: false,
            ..self.query.clone()
        };
        let of_missing = || {
            read.sockets
                .iter()
                .filter(|socket| missing.contains(&socket.inode))
        };
        query.protocols = of_missing().map(|socket| socket.protocol).collect();
        query.states = of_missing().map(|socket| socket.state).collect();
        // The "port" of a raw socket is the number of an IP protocol, and no port fits it.
        let has_port =
            |socket: &Socket| socket.protocol != SocketProtocol::Raw && socket.local.port().is_some();
        if of_missing().all(has_port) {
            let ports = of_missing()
                .filter_map(|socket| socket.local.port())
                .collect::<BTreeSet<_>>();
            if ports.len() <= MOST_PORTS_ASKED_AGAIN {
                query.local_ports = Some(ports.into_iter().map(PortRange::single).collect());
            }
        }
        read_inodes(&query, self.sources).unwrap_or_else(|error| {
            self.snapshot.warnings.push(error.to_string());
            missing.clone()
        })
    }

    /// Reads every process that owns something, once.
    fn look_up_processes(&mut self, sockets: &[Socket], ownership: &[Ownership]) {
        let Some(root) = &self.root else { return };
        let mut users = Users::new();
        let mut processes: HashMap<i32, Option<Process>> = HashMap::new();
        for (socket, ownership) in sockets.iter().zip(ownership) {
            let Ownership::Held(owners) = ownership else {
                continue;
            };
            for owner in owners {
                processes.entry(owner.pid).or_insert_with(|| {
                    // If it ended after it was seen to hold the socket, its number is all that is left to say.
                    let process = Process::read(root, owner.pid, &mut users).ok()?;
                    // One that started after the look began has perhaps only the number of the one seen.
                    let is_the_one = process.start_time <= self.began || holds(root, owner, socket.inode);
                    is_the_one.then_some(process)
                });
            }
        }
        let read = processes
            .into_iter()
            .filter_map(|(pid, process)| Some((pid, process?)));
        self.snapshot.processes = read.collect();
    }
}

/// Whether the process of this number holds the socket, now.
fn holds(root: &ProcRoot, owner: &Owner, inode: u64) -> bool {
    let Ok(dir) = root.process_dir(owner.pid) else {
        return false;
    };
    owner.fds.iter().any(|fd| {
        CString::new(format!("fd/{fd}")).is_ok_and(|path| {
            read_link(&dir, &path).is_ok_and(|link| link == format!("socket:[{inode}]").as_bytes())
        })
    })
}

/// Whether no right is missing to look into every process of this machine.
///
/// If one cannot be read all the same, the kernel keeps it from everybody; no other user could see more.
fn is_all_powerful(proc_root: &Path) -> bool {
    let rights = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    rights.contains(CapabilitySet::SYS_PTRACE) && is_in(proc_root, "self/ns/user", FIRST_USER_NAMESPACE)
}

/// Whether the namespace that a link below /proc names is this one.
fn is_in(proc_root: &Path, link: &str, namespace: &str) -> bool {
    std::fs::read_link(proc_root.join(link)).is_ok_and(|link| link.as_os_str() == namespace)
}

// The kernel gives its first namespaces fixed inodes (include/linux/proc_ns.h).
const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// With more ports than this, a filter in the kernel would cost more than it saves.
const MOST_PORTS_ASKED_AGAIN: usize = 32;
