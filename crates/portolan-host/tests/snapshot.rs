//! Snapshots of this machine: sockets that the test makes on loopback, found with their owners and reasons.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{self, Command, Stdio};

use portolan_core::{Port, PortRange};
use portolan_host::{
    Ownerless, OwnerlessReason, Ownership, PortHolder, ProtocolSet, Query, Snapshot, Socket, SocketProtocol,
    SpaceSelect, State, StateSet,
};

fn of_port(port: u16) -> Query {
    Query {
        protocols: ProtocolSet::EMPTY
            .with(SocketProtocol::Tcp)
            .with(SocketProtocol::Udp),
        states: StateSet::ALL,
        local_ports: Some(vec![PortRange::single(Port::new(port))]),
        space: SpaceSelect::Host,
        owners: true,
        tcp_info: false,
    }
}

/// The sockets of a port in a state, with their ownership.
fn find(snapshot: &Snapshot, port: u16, state: State) -> Vec<(&Socket, &Ownership)> {
    snapshot
        .sockets
        .iter()
        .zip(&snapshot.ownership)
        .filter(|(socket, _)| socket.local.port() == Some(Port::new(port)) && socket.state == state)
        .collect()
}

fn pids(ownership: &Ownership) -> Vec<i32> {
    match ownership {
        Ownership::Held(owners) => owners.iter().map(|owner| owner.pid).collect(),
        Ownership::Nobody(reason) => panic!("held by nobody: {reason:?}"),
    }
}

fn reason(ownership: &Ownership) -> &Ownerless {
    match ownership {
        Ownership::Held(owners) => panic!("held by {owners:?}"),
        Ownership::Nobody(reason) => reason,
    }
}

fn own_pid() -> i32 {
    i32::try_from(process::id()).unwrap()
}

#[test]
fn a_listener_is_found_with_the_process_that_holds_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let snapshot = Snapshot::take(&of_port(port)).unwrap();
    let found = find(&snapshot, port, State::Listen);
    assert_eq!(found.len(), 1, "{snapshot:?}");
    // A child that another test is just starting has every descriptor for a moment.
    assert!(pids(found[0].1).contains(&own_pid()));
    let process = &snapshot.processes[&own_pid()];
    assert_eq!(process.exe.as_deref(), std::env::current_exe().ok().as_deref());
    assert_eq!(snapshot.space(found[0].0.space).name.to_string(), "host");
}

#[test]
fn a_connection_that_waits_in_the_accept_queue_names_its_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let snapshot = Snapshot::take(&of_port(port)).unwrap();
    let waiting = find(&snapshot, port, State::Established);
    assert_eq!(waiting.len(), 1, "{snapshot:?}");
    let Ownerless {
        reason,
        listener: Some(named),
    } = reason(waiting[0].1)
    else {
        panic!("no listener is named: {waiting:?}");
    };
    assert_eq!(*reason, OwnerlessReason::AcceptQueue);
    assert_eq!((named.port, named.pid), (Port::new(port), Some(own_pid())));
    assert_eq!(named.inode, Some(find(&snapshot, port, State::Listen)[0].0.inode));
    // Connections of other tests may rest on the port in TIME-WAIT: nobody holds those.
    let mut uses = snapshot.port_uses(|_, _| true);
    uses.retain(|of_port| of_port.holder == PortHolder::Process(own_pid()));
    assert_eq!(uses.len(), 1, "{uses:?}");
    assert_eq!(
        (uses[0].holder, uses[0].waiting),
        (PortHolder::Process(own_pid()), 1)
    );

    // Asked for connections alone, the listener is still found and still named, but not listed.
    let connections = StateSet::EMPTY.with(State::Established);
    let snapshot = Snapshot::take(&Query {
        states: connections,
        ..of_port(port)
    })
    .unwrap();
    assert_eq!(snapshot.sockets.len(), 1, "{snapshot:?}");
    assert_eq!(snapshot.ownership.len(), 1);
    assert_eq!(snapshot_reason(&snapshot).listener.unwrap().pid, Some(own_pid()));
    drop(client);
}

fn snapshot_reason(snapshot: &Snapshot) -> &Ownerless {
    reason(&snapshot.ownership[0])
}

#[test]
fn a_connection_in_time_wait_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (server, _) = listener.accept().unwrap();
    let client_port = client.local_addr().unwrap().port();
    // The end that closes first is the one that waits.
    drop(server);
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut &client, &mut rest).unwrap();
    drop(client);
    let snapshot = Snapshot::take(&of_port(port)).unwrap();
    // Another test may have had the port before, and rest on it too.
    let mut resting = find(&snapshot, port, State::TimeWait);
    resting.retain(|(socket, _)| {
        let remote = socket.remote.as_ref().and_then(|remote| remote.port());
        remote == Some(Port::new(client_port))
    });
    assert_eq!(resting.len(), 1, "{snapshot:?}");
    assert_eq!(reason(resting[0].1).reason, OwnerlessReason::TimeWait);
    assert_eq!(snapshot.hidden.owners, 0, "nothing of that is hidden");
}

#[test]
fn every_process_that_shares_a_socket_is_an_owner() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    // A child that has the socket as its standard input.
    let shared = std::os::fd::OwnedFd::from(socket.try_clone().unwrap());
    let mut child = Command::new("sleep")
        .arg("60")
        .stdin(Stdio::from(shared))
        .spawn()
        .unwrap();
    let child_pid = i32::try_from(child.id()).unwrap();
    let shared = pids_of_port(port);
    drop(socket);
    let left = pids_of_port(port);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut both = [own_pid(), child_pid];
    both.sort_unstable();
    assert_eq!(shared, both);
    assert_eq!(left, [child_pid]);
}

fn pids_of_port(port: u16) -> Vec<i32> {
    let snapshot = Snapshot::take(&of_port(port)).unwrap();
    pids(find(&snapshot, port, State::Unconnected)[0].1)
}

#[test]
fn owners_that_were_not_asked_for_cost_nothing_and_are_not_there() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let snapshot = Snapshot::take(&Query {
        owners: false,
        ..of_port(port)
    })
    .unwrap();
    // Connections of other tests may have the same port, in TIME-WAIT or as a UDP socket.
    let listening = snapshot
        .sockets
        .iter()
        .filter(|socket| socket.local.port() == Some(Port::new(port)) && socket.state == State::Listen);
    assert_eq!(listening.count(), 1, "{snapshot:?}");
    assert!(snapshot.ownership.is_empty() && snapshot.processes.is_empty());
}
