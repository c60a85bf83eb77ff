//! Snapshots by every pair of collectors, of sockets and of owners: of the same situation they tell the same.

mod private;

use std::collections::BTreeMap;
use std::env;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use portolan_host::{
    Collector, OwnerlessReason, Ownership, ProtocolSet, Query, Snapshot, Socket, SocketProtocol, Sources,
    SpaceSelect, StateSet,
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use private::{in_namespace, skipped};

/// A process that is ended with the test.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process of which a socket is the standard input.
fn holder(socket: OwnedFd) -> Holder {
    // It is the new program when spawn returns, and holds no more than this.
    let child = Command::new("sleep")
        .arg("600")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Holder(child)
}

/// Sockets of one holder, of two, of another process alone, and of none for every reason there is.
struct Situation {
    _streams: Vec<TcpStream>,
    _listeners: Vec<TcpListener>,
    _datagrams: Vec<UdpSocket>,
    _holders: Vec<Holder>,
}

fn situation() -> Situation {
    let listeners: Vec<TcpListener> = ["127.0.0.1:80", "0.0.0.0:81", "[::1]:82", "[::]:83"]
        .map(|address| TcpListener::bind(address).unwrap())
        .into();
    let mut streams = vec![TcpStream::connect("127.0.0.1:80").unwrap()];
    streams.push(listeners[0].accept().unwrap().0);
    // Two that wait in the accept queue of another.
    streams.extend([(), ()].map(|()| TcpStream::connect("127.0.0.1:81").unwrap()));
    // One in TIME-WAIT: the end that closes first.
    let mut client = TcpStream::connect("[::1]:82").unwrap();
    drop(listeners[2].accept().unwrap());
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);

    let shared = UdpSocket::bind("127.0.0.1:53").unwrap();
    let connected = UdpSocket::bind("[::1]:123").unwrap();
    connected.connect("[::1]:124").unwrap();
    let holders = vec![
        holder(shared.try_clone().unwrap().into()),
        holder(TcpListener::bind("127.0.0.1:90").unwrap().into()),
    ];
    Situation {
        _streams: streams,
        _listeners: listeners,
        _datagrams: vec![shared, connected],
        _holders: holders,
    }
}

/// What every collector can tell: of each socket, in a fixed order, its ownership; the names of the owners;
/// and how much is hidden.
#[derive(Debug, PartialEq)]
struct Told {
    sockets: BTreeMap<String, Ownership>,
    names: BTreeMap<i32, Vec<u8>>,
    hidden_owners: usize,
    hidden_spaces: usize,
}

impl Told {
    fn of(snapshot: &Snapshot) -> Self {
        assert_eq!(snapshot.sockets.len(), snapshot.ownership.len());
        let key = |socket: &Socket| {
            format!(
                "{} {} {:?} {:?} inode {} uid {:?}",
                socket.protocol, socket.state, socket.local, socket.remote, socket.inode, socket.uid
            )
        };
        let sockets: BTreeMap<String, Ownership> = snapshot
            .sockets
            .iter()
            .map(key)
            .zip(snapshot.ownership.iter().cloned())
            .collect();
        assert_eq!(
            sockets.len(),
            snapshot.sockets.len(),
            "two sockets are told alike"
        );
        let name = |process: &portolan_host::Process| process.name.as_encoded_bytes().to_vec();
        Self {
            sockets,
            names: snapshot
                .processes
                .iter()
                .map(|(pid, process)| (*pid, name(process)))
                .collect(),
            hidden_owners: snapshot.hidden.owners,
            hidden_spaces: snapshot.hidden.spaces,
        }
    }

    fn reasons(&self) -> Vec<OwnerlessReason> {
        let reason = |ownership: &Ownership| match ownership {
            Ownership::Held(_) => None,
            Ownership::Nobody(ownerless) => Some(ownerless.reason),
        };
        let mut reasons: Vec<_> = self.sockets.values().filter_map(reason).collect();
        reasons.sort_unstable();
        reasons
    }
}

/// What each pair of collectors tells, all of which is the same; and which collectors of owners ran.
fn by_every_pair() -> (Told, Vec<Collector>) {
    let query = Query {
        protocols: ProtocolSet::EMPTY
            .with(SocketProtocol::Tcp)
            .with(SocketProtocol::Udp),
        states: StateSet::ALL,
        space: SpaceSelect::Host,
        ..Query::listeners()
    };
    let mut all: Option<Told> = None;
    let mut ran = Vec::new();
    for netlink in [true, false] {
        for holders in [
            Collector::BpfTaskFile,
            Collector::ProcByCgroup,
            Collector::ProcEvery,
        ] {
            if !netlink && holders == Collector::ProcByCgroup {
                // Text does not tell the cgroups that would guide it.
                continue;
            }
            let sources = Sources {
                netlink,
                holders: Some(holders),
                ..Sources::default()
            };
            let snapshot = Snapshot::take_from(&query, &sources).unwrap();
            let sockets = if netlink {
                Collector::SockDiag
            } else {
                Collector::ProcNet
            };
            if !snapshot.collectors.contains(&holders) {
                let said = snapshot.warnings.join("; ");
                assert!(said.contains("cannot find owners by"), "{holders}: {said}");
                assert_eq!(holders, Collector::BpfTaskFile, "{said}");
                continue;
            }
            assert_eq!(snapshot.collectors, [sockets, holders]);
            if !ran.contains(&holders) {
                ran.push(holders);
            }
            let told = Told::of(&snapshot);
            match &all {
                None => all = Some(told),
                Some(first) => assert_eq!(&told, first, "{sockets} and {holders}"),
            }
        }
    }
    (all.expect("/proc can be read"), ran)
}

/// What is true of the situation, whoever looks at it with enough rights.
fn check(told: &Told) {
    let of = |start: &str| {
        let mut found = told.sockets.iter().filter(|(key, _)| key.starts_with(start));
        let (_, ownership) = found.next().unwrap_or_else(|| panic!("{start} in {told:#?}"));
        match ownership {
            Ownership::Held(owners) => owners.len(),
            Ownership::Nobody(_) => 0,
        }
    };
    assert_eq!(
        (of("tcp listen"), of("udp unconnected"), of("tcp established")),
        (1, 2, 1)
    );
    assert_eq!(
        told.reasons(),
        [
            OwnerlessReason::TimeWait,
            OwnerlessReason::AcceptQueue,
            OwnerlessReason::AcceptQueue
        ],
        "{told:#?}"
    );
    // This process and the two that it started.
    assert_eq!((told.names.len(), told.hidden_owners), (3, 0), "{told:#?}");
    // Five listeners, two of UDP, two ends of one connection and of two that wait, one end of the one that rests.
    assert_eq!(told.sockets.len(), 5 + 2 + 2 + 4 + 1, "{told:#?}");
}

#[test]
fn every_pair_of_collectors_tells_the_same() {
    in_namespace("every_pair_of_collectors_tells_the_same", || {
        let _situation = situation();
        check(&by_every_pair().0);
    });
}

#[test]
fn without_rights_every_pair_of_collectors_misses_the_same() {
    in_namespace("without_rights_every_pair_of_collectors_misses_the_same", || {
        let _situation = situation();
        let (told, _) = thread::scope(|scope| {
            let worker = scope.spawn(|| {
                // A process with more rights than this thread may not be looked into, its own process always.
                let mut sets = capabilities(None).unwrap();
                sets.effective = CapabilitySet::empty();
                sets.permitted = CapabilitySet::empty();
                sets.inheritable = CapabilitySet::empty();
                set_capabilities(None, sets).unwrap();
                by_every_pair()
            });
            worker.join().unwrap()
        });
        assert_eq!(told.hidden_owners, 1, "the listener on port 90 alone: {told:#?}");
        assert_eq!(told.names.len(), 1, "{told:#?}");
    });
}

/// In the first PID namespace, where the BPF iterator runs.
#[test]
fn the_bpf_iterator_tells_the_same_as_proc() {
    const TEST: &str = "the_bpf_iterator_tells_the_same_as_proc";
    const INSIDE: &str = "PORTOLAN_TEST_NETWORK_NAMESPACE";
    if env::var_os(INSIDE).is_some() {
        let _situation = situation();
        let (told, ran) = by_every_pair();
        check(&told);
        if !ran.contains(&Collector::BpfTaskFile) {
            skipped(&format!("{TEST}: the iterator cannot run here; only {ran:?} ran"));
        }
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return skipped(&format!("{TEST}: the iterator takes CAP_BPF and CAP_PERFMON"));
    }
    let output = Command::new("unshare")
        .args([
            "--net",
            "sh",
            "-c",
            "ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture",
        ])
        .arg(env::current_exe().unwrap())
        .arg(TEST)
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if text.starts_with("unshare:") {
        return skipped(&format!("{TEST}: {text}"));
    }
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    for (_, reason) in text.lines().filter_map(|line| line.split_once("skipped: ")) {
        skipped(reason);
    }
}
