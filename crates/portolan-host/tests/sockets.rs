//! What is read of sockets that the test made itself.

mod private;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use portolan_core::{Port, PortRange};
use portolan_host::{
    Family, ProtocolSet, Query, Queues, Socket, SocketAddress, SocketProtocol, SocketRead, Sources,
    SpaceSelect, State, StateSet, read_sockets,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};

use private::{in_namespace, skipped};

fn everything() -> Query {
    Query {
        protocols: ProtocolSet::ALL,
        states: StateSet::ALL,
        space: SpaceSelect::Host,
        ..Query::listeners()
    }
}

fn by_text() -> Sources {
    Sources {
        netlink: false,
        ..Sources::default()
    }
}

fn read(query: &Query) -> SocketRead {
    let read = read_sockets(query, &Sources::default()).unwrap();
    assert_eq!(read.warnings, Vec::<String>::new());
    read
}

/// The inode of a socket of this process.
fn inode(socket: &impl AsRawFd) -> u64 {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
    let digits = link
        .to_str()
        .unwrap()
        .trim_start_matches("socket:[")
        .trim_end_matches(']')
        .to_owned();
    digits.parse().unwrap()
}

/// The entry of a socket of this process.
fn entry<'a>(read: &'a SocketRead, socket: &impl AsRawFd) -> &'a Socket {
    let inode = inode(socket);
    let entries: Vec<_> = read
        .sockets
        .iter()
        .filter(|socket| socket.inode == inode)
        .collect();
    assert_eq!(entries.len(), 1, "{inode}: {:#?}", read.sockets);
    entries[0]
}

fn inet(address: SocketAddr) -> SocketAddress {
    SocketAddress::Inet {
        address: address.ip(),
        port: Port::new(address.port()),
    }
}

fn connected(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server)
}

/// Writes until the peer's window and our buffer are full.
fn fill(stream: &TcpStream) {
    stream.set_nonblocking(true).unwrap();
    while (&mut &*stream).write(&[0; 64 << 10]).is_ok() {}
}

/// Sockets of each kind and state, held open.
struct Zoo {
    tcp: Vec<(State, TcpStream)>,
    listeners: Vec<TcpListener>,
    udp: Vec<(State, UdpSocket)>,
    others: Vec<(SocketProtocol, State, OwnedFd)>,
    unix: Vec<(State, OwnedFd)>,
}

fn zoo() -> Zoo {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let dual = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let mut tcp = Vec::new();

    let (client, server) = connected(&listener);
    tcp.extend([(State::Established, client), (State::Established, server)]);

    // An IPv4 peer of a dual-stack listener.
    let port = dual.local_addr().unwrap().port();
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    tcp.extend([
        (State::Established, client),
        (State::Established, dual.accept().unwrap().0),
    ]);

    let (client, server) = connected(&listener);
    client.shutdown(Shutdown::Write).unwrap();
    tcp.extend([(State::FinWait2, client), (State::CloseWait, server)]);

    // A FIN that waits behind data which the peer has no room for.
    let (client, server) = connected(&listener);
    fill(&client);
    client.shutdown(Shutdown::Write).unwrap();
    tcp.extend([(State::FinWait1, client), (State::Established, server)]);

    let (client, server) = connected(&listener);
    fill(&client);
    client.shutdown(Shutdown::Write).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    tcp.extend([(State::Closing, client), (State::FinWait2, server)]);

    let (client, server) = connected(&listener);
    fill(&server);
    client.shutdown(Shutdown::Write).unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    tcp.extend([(State::FinWait2, client), (State::LastAck, server)]);

    // TIME-WAIT stays with the end that closes first.
    let (client, server) = connected(&listener);
    drop(client);
    drop(server);

    // A handshake whose last segment the listener never sees.
    let deaf = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket2::SockRef::from(&deaf)
        .attach_filter(&drop_acknowledgements())
        .unwrap();
    tcp.push((
        State::Established,
        TcpStream::connect(deaf.local_addr().unwrap()).unwrap(),
    ));

    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let udp_client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    udp_client.connect(udp.local_addr().unwrap()).unwrap();
    udp_client.send(b"waiting").unwrap();
    let udp_dual = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let udp_mapped = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    udp_mapped
        .connect((mapped, udp.local_addr().unwrap().port()))
        .unwrap();

    Zoo {
        tcp,
        listeners: vec![listener, dual, deaf],
        udp: vec![
            (State::Unconnected, udp),
            (State::Established, udp_client),
            (State::Unconnected, udp_dual),
            (State::Established, udp_mapped),
        ],
        others: others(),
        unix: unix(),
    }
}

/// A socket filter that drops segments with the ACK flag: classic BPF, from the first byte of the TCP header.
fn drop_acknowledgements() -> [socket2::SockFilter; 4] {
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    [
        socket2::SockFilter::new(LOAD_BYTE, 0, 0, 13),
        socket2::SockFilter::new(JUMP_IF_SET, 0, 1, 0x10),
        socket2::SockFilter::new(RETURN, 0, 0, 0),
        socket2::SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

fn others() -> Vec<(SocketProtocol, State, OwnedFd)> {
    let open = |family, kind, protocol| socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol));
    let mut others = Vec::new();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    match open(AddressFamily::INET, SocketType::DGRAM, ipproto::UDPLITE) {
        Ok(socket) => {
            rustix::net::bind(&socket, &any).unwrap();
            others.push((SocketProtocol::UdpLite, State::Unconnected, socket));
        }
        Err(errno) => skipped(&format!("UDP-Lite sockets: {errno}")),
    }
    for (family, protocol) in [
        (AddressFamily::INET, ipproto::ICMP),
        (AddressFamily::INET6, ipproto::ICMPV6),
    ] {
        match open(family, SocketType::RAW, protocol) {
            Ok(socket) => others.push((SocketProtocol::Raw, State::Unconnected, socket)),
            Err(errno) => skipped(&format!("raw sockets: {errno}")),
        }
    }
    match open(AddressFamily::INET, SocketType::RAW, ipproto::ICMP) {
        Ok(socket) => {
            rustix::net::connect(&socket, &any).unwrap();
            others.push((SocketProtocol::Raw, State::Established, socket));
        }
        Err(errno) => skipped(&format!("raw sockets: {errno}")),
    }
    others
}

fn unix() -> Vec<(State, OwnedFd)> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("a b")).unwrap();
    let client = UnixStream::connect(directory.path().join("a b")).unwrap();
    let (server, _) = listener.accept().unwrap();
    let address = SocketAddr::from_abstract_name(b"portolan \xff test").unwrap();
    let hidden = UnixListener::bind_addr(&address).unwrap();
    let datagrams = UnixDatagram::bind(directory.path().join("datagrams")).unwrap();
    vec![
        (State::Listen, listener.into()),
        (State::Established, client.into()),
        (State::Established, server.into()),
        (State::Listen, hidden.into()),
        (State::Unconnected, datagrams.into()),
    ]
}

/// What text can tell as well.
fn as_in_text(socket: &Socket) -> Socket {
    let mut socket = Socket {
        cookie: 0,
        device: 0,
        mark: None,
        cgroup: None,
        v6_only: None,
        ..socket.clone()
    };
    if socket.state == State::Listen {
        socket.queues.send = 0;
    }
    if socket.protocol == SocketProtocol::Unix {
        socket.uid = None;
        socket.queues = Queues::default();
        socket.remote = socket
            .remote
            .map(|_| SocketAddress::Unix { name: Box::default() });
    }
    socket
}

#[test]
fn netlink_and_text_agree_on_sockets_of_every_state() {
    in_namespace("netlink_and_text_agree_on_sockets_of_every_state", || {
        let zoo = zoo();
        let (netlink, text) = both_ways();

        for read in [&netlink, &text] {
            for (state, stream) in &zoo.tcp {
                let entry = entry(read, stream);
                assert_eq!((entry.protocol, entry.state), (SocketProtocol::Tcp, *state));
                assert_eq!(entry.local, inet(stream.local_addr().unwrap()));
                assert_eq!(entry.remote, Some(inet(stream.peer_addr().unwrap())));
            }
            for listener in &zoo.listeners {
                let entry = entry(read, listener);
                assert_eq!((entry.state, &entry.remote), (State::Listen, &None));
                assert_eq!(entry.local, inet(listener.local_addr().unwrap()));
            }
            for (state, socket) in &zoo.udp {
                let entry = entry(read, socket);
                assert_eq!((entry.protocol, entry.state), (SocketProtocol::Udp, *state));
                assert_eq!(entry.local, inet(socket.local_addr().unwrap()));
                assert_eq!(entry.remote, socket.peer_addr().ok().map(inet));
            }
            for (protocol, state, socket) in &zoo.others {
                let entry = entry(read, socket);
                assert_eq!((entry.protocol, entry.state), (*protocol, *state));
            }
            for (state, socket) in &zoo.unix {
                let entry = entry(read, socket);
                assert_eq!((entry.protocol, entry.state), (SocketProtocol::Unix, *state));
            }
            let half_open: Vec<_> = read
                .sockets
                .iter()
                .filter(|socket| socket.state == State::SynReceived)
                .collect();
            assert_eq!(half_open.len(), 1, "{half_open:#?}");
            assert_eq!((half_open[0].inode, half_open[0].uid), (0, None));
            let waiting: Vec<_> = read
                .sockets
                .iter()
                .filter(|socket| socket.state == State::TimeWait)
                .collect();
            assert_eq!(waiting.len(), 1, "{waiting:#?}");
            assert_eq!((waiting[0].inode, waiting[0].uid), (0, None));
        }

        assert_eq!(sorted(&netlink), sorted(&text));
        assert_eq!(netlink.spaces[0].inode, text.spaces[0].inode);
    });
}

/// What netlink and text tell of one and the same moment: nothing changed between a reading before and one after.
fn both_ways() -> (SocketRead, SocketRead) {
    for _ in 0..1000 {
        let before = read(&everything());
        let text = read_sockets(&everything(), &by_text()).unwrap();
        if sorted(&before) == sorted(&read(&everything())) {
            return (before, text);
        }
    }
    panic!("data is still on its way between the sockets after a thousand readings");
}

fn sorted(read: &SocketRead) -> Vec<Socket> {
    let mut sockets: Vec<_> = read.sockets.iter().map(as_in_text).collect();
    sockets.sort_by_key(|socket| format!("{socket:?}"));
    sockets
}

#[test]
fn a_listener_tells_its_backlog_and_who_waits_in_it() {
    in_namespace("a_listener_tells_its_backlog_and_who_waits_in_it", || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        rustix::net::listen(&listener, 1).unwrap();
        let address = listener.local_addr().unwrap();
        // The kernel takes one more than the backlog says; the next one's SYN finds no place.
        let _clients = [
            TcpStream::connect(address).unwrap(),
            TcpStream::connect(address).unwrap(),
        ];
        let late = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        assert_eq!(
            rustix::net::connect(&late, &address),
            Err(rustix::io::Errno::INPROGRESS)
        );

        let netlink = read(&everything());
        assert_eq!(entry(&netlink, &listener).queues, Queues { receive: 2, send: 1 });
        assert_eq!(entry(&netlink, &late).state, State::SynSent);
        let unaccepted: Vec<_> = netlink
            .sockets
            .iter()
            .filter(|socket| socket.state == State::Established && socket.local == inet(address))
            .collect();
        assert_eq!(unaccepted.len(), 2);
        assert!(unaccepted.iter().all(|socket| socket.inode == 0));
        let text = read_sockets(&everything(), &by_text()).unwrap();
        assert_eq!(entry(&text, &listener).queues, Queues { receive: 2, send: 0 });
        assert_eq!(entry(&text, &late).state, State::SynSent);
    });
}

#[test]
fn the_kernel_is_asked_for_no_more_than_is_wanted() {
    in_namespace("the_kernel_is_asked_for_no_more_than_is_wanted", || {
        let zoo = zoo();
        let open = Query {
            states: StateSet::OPEN,
            ..everything()
        };
        let read_open = read(&open);
        assert!(!read_open.sockets.is_empty());
        for socket in &read_open.sockets {
            assert!(StateSet::OPEN.contains(socket.state), "{socket:?}");
        }
        let port = zoo.listeners[0].local_addr().unwrap().port();
        let narrow = Query {
            protocols: ProtocolSet::EMPTY.with(SocketProtocol::Tcp),
            local_ports: Some(vec![
                PortRange::single(Port::new(1)),
                PortRange::single(Port::new(port)),
                PortRange::new(Port::new(2), Port::new(9)).unwrap(),
            ]),
            ..everything()
        };
        let read_narrow = read(&narrow);
        assert!(read_narrow.sockets.len() > 5);
        for socket in &read_narrow.sockets {
            assert_eq!(socket.local.port(), Some(Port::new(port)));
        }
        // The text has no filter of its own, and yields the same.
        let text = read_sockets(&narrow, &by_text()).unwrap();
        assert_eq!(text.sockets.len(), read_narrow.sockets.len());
    });
}

#[test]
fn devices_marks_and_dual_stack_are_told() {
    in_namespace("devices_marks_and_dual_stack_are_told", || {
        let dual = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        let only = socket_with(
            AddressFamily::INET6,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        sockopt::set_ipv6_v6only(&only, true).unwrap();
        rustix::net::bind(&only, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
        rustix::net::listen(&only, 5).unwrap();
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let bound = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket2::SockRef::from(&bound).bind_device(Some(b"lo")).unwrap();
        socket2::SockRef::from(&bound).set_mark(0x2a).unwrap();

        let read = read(&everything());
        assert_eq!(entry(&read, &dual).v6_only, Some(false));
        assert_eq!(entry(&read, &only).v6_only, Some(true));
        assert_eq!(entry(&read, &four).v6_only, None);
        assert_eq!(entry(&read, &four).family, Family::Ipv4);
        assert!(entry(&read, &four).cgroup.is_some());
        assert_eq!(entry(&read, &bound).mark, Some(0x2a));
        let device = entry(&read, &bound).device;
        assert_eq!(read.spaces[0].device_name(device), Some("lo"));
        assert!(read.spaces[0].ephemeral_ports.is_some());
    });
}

#[test]
fn an_mptcp_socket_is_one_socket() {
    in_namespace("an_mptcp_socket_is_one_socket", || {
        let open = || {
            socket_with(
                AddressFamily::INET,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                Some(ipproto::MPTCP),
            )
        };
        let listener = match open() {
            Ok(listener) => listener,
            Err(errno) => return skipped(&format!("MPTCP sockets: {errno}")),
        };
        rustix::net::bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 80))).unwrap();
        rustix::net::listen(&listener, 5).unwrap();
        let client = open().unwrap();
        rustix::net::connect(&client, &SocketAddr::from((Ipv4Addr::LOCALHOST, 80))).unwrap();
        let server = rustix::net::accept(&listener).unwrap();

        let read_all = read(&everything());
        for (socket, state) in [
            (&listener, State::Listen),
            (&client, State::Established),
            (&server, State::Established),
        ] {
            let entry = entry(&read_all, socket);
            assert_eq!((entry.protocol, entry.state), (SocketProtocol::Mptcp, state));
        }
        // Asked for TCP alone, its subflows are what TCP carries.
        let tcp = Query {
            protocols: ProtocolSet::EMPTY.with(SocketProtocol::Tcp),
            ..everything()
        };
        assert_eq!(entry(&read(&tcp), &listener).protocol, SocketProtocol::Tcp);
    });
}

#[test]
fn the_internals_of_tcp_are_told_on_request() {
    in_namespace("the_internals_of_tcp_are_told_on_request", || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (mut client, mut server) = connected(&listener);
        client.write_all(b"twelve bytes").unwrap();
        server.read_exact(&mut [0; 12]).unwrap();
        let asked = read(&Query {
            tcp_info: true,
            ..everything()
        });
        let info = entry(&asked, &server).tcp_info.clone().unwrap();
        assert_eq!(info.bytes_received, 12);
        assert!(
            info.snd_mss > 0 && info.snd_cwnd > 0 && info.rto_us > 0,
            "{info:?}"
        );
        // A listener has counters of its own there.
        assert_eq!(entry(&asked, &listener).tcp_info, None);
        assert_eq!(entry(&read(&everything()), &server).tcp_info, None);
    });
}

#[test]
fn names_of_unix_sockets_may_hold_anything() {
    in_namespace("names_of_unix_sockets_may_hold_anything", || {
        let directory = tempfile::tempdir().unwrap();
        let sockets: Vec<_> = ["a\nb c", "\x1b[31m", "0: 1 2\n3", " "]
            .into_iter()
            .map(|name| {
                let path = directory.path().join(name);
                (
                    UnixListener::bind(&path).unwrap(),
                    path.into_os_string().into_encoded_bytes(),
                )
            })
            .collect();
        let netlink = read(&everything());
        let text = read_sockets(&everything(), &by_text()).unwrap();
        for (listener, path) in &sockets {
            let whole = SocketAddress::Unix {
                name: path.as_slice().into(),
            };
            assert_eq!(entry(&netlink, listener).local, whole);
            // The text cannot show a line feed: the name ends there, and the rest is no socket.
            let cut = path.split(|byte| *byte == b'\n').next().unwrap();
            assert_eq!(
                entry(&text, listener).local,
                SocketAddress::Unix { name: cut.into() }
            );
        }
        assert_eq!(text.sockets.len(), netlink.sockets.len());
    });
}

#[test]
fn a_bound_socket_that_does_not_listen_holds_its_port() {
    in_namespace("a_bound_socket_that_does_not_listen_holds_its_port", || {
        let bound = socket_with(
            AddressFamily::INET,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        rustix::net::bind(&bound, &SocketAddr::from((Ipv4Addr::LOCALHOST, 80))).unwrap();
        let found = read(&everything());
        if found.sockets.is_empty() {
            return skipped("this kernel does not list sockets that are only bound (Linux 6.8 does)");
        }
        assert_eq!(
            (entry(&found, &bound).state, &entry(&found, &bound).remote),
            (State::Closed, &None)
        );
    });
}
