//! Network namespaces that the test made itself: found, named, entered, or looked at from outside.

mod private;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::thread;

use portolan_core::Port;
use portolan_host::{
    Collector, DestroyError, Query, Socket, SocketRead, Sources, SpaceError, SpaceName, SpaceSelect, State,
    StateSet, destroy_socket, read_inodes, read_sockets,
};
use rustix::thread::{
    CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space, set_capabilities,
};

use private::{in_namespace, skipped};

/// Runs `body` in the namespace that `path` leads to.
fn inside<T: Send>(path: &Path, body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let namespace = fs::File::open(path).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            body()
        });
        worker.join().unwrap()
    })
}

/// Runs `body` without any capability.
fn without_rights<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective = CapabilitySet::empty();
            sets.permitted = CapabilitySet::empty();
            sets.inheritable = CapabilitySet::empty();
            set_capabilities(None, sets).unwrap();
            body()
        });
        worker.join().unwrap()
    })
}

fn ip(arguments: &[&str]) {
    assert!(
        Command::new("ip").args(arguments).status().unwrap().success(),
        "ip {arguments:?}"
    );
}

/// A namespace mounted as `ip netns` does; /run is ours alone.
fn add_netns(name: &str) -> std::path::PathBuf {
    static RUN: Once = Once::new();
    RUN.call_once(|| {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "none", "/run"])
            .status()
            .unwrap();
        assert!(mounted.success());
    });
    ip(&["netns", "add", name]);
    ip(&["-n", name, "link", "set", "lo", "up"]);
    Path::new("/run/netns").join(name)
}

/// A process in a namespace of its own; it ends with this value.
struct Lodger(Child);

impl Lodger {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up && echo ready && exec sleep 1000",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        Self(child)
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn namespace(&self) -> std::path::PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    fn inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(self.namespace()).unwrap().ino()
    }
}

impl Drop for Lodger {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn listen(port: u16) -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap()
}

fn query(space: SpaceSelect) -> Query {
    Query {
        space,
        ..Query::listeners()
    }
}

fn read(space: SpaceSelect) -> SocketRead {
    read_sockets(&query(space), &Sources::default()).unwrap()
}

/// The names of the namespaces in which something listens on `port`.
fn listening(read: &SocketRead, port: u16) -> Vec<String> {
    let on_port =
        |socket: &&Socket| socket.state == State::Listen && socket.local.port() == Some(Port::new(port));
    read.sockets
        .iter()
        .filter(on_port)
        .map(|socket| read.spaces[socket.space.0 as usize].name.to_string())
        .collect()
}

#[test]
fn every_namespace_is_read_and_named() {
    in_namespace("every_namespace_is_read_and_named", || {
        let blue = add_netns("blue");
        let lodger = Lodger::new();
        let _sockets = [
            listen(80),
            inside(&blue, || listen(80)),
            inside(&lodger.namespace(), || listen(80)),
        ];
        let anonymous = format!("net:[{}]", lodger.inode());

        let all = read(SpaceSelect::Every);
        assert_eq!(listening(&all, 80), ["host", "blue", &anonymous]);
        assert_eq!(
            (all.hidden_spaces, all.remedy(), &all.warnings),
            (0, None, &vec![])
        );
        for space in &all.spaces {
            assert!(space.ephemeral_ports.is_some() && space.inode != 0, "{space:?}");
        }
        assert_eq!(all.collectors.first(), Some(&Collector::SockDiag));

        for (text, name) in [
            ("host", "host"),
            ("blue", "blue"),
            (&lodger.pid().to_string(), &anonymous),
            (&anonymous, &anonymous),
            (&std::process::id().to_string(), "host"),
        ] {
            let one = read(SpaceSelect::from_text(text));
            assert_eq!(listening(&one, 80), [name], "{text}");
            assert_eq!(one.spaces.len(), 1);
        }
        // We came back from where we were.
        assert_eq!(listening(&read(SpaceSelect::Host), 80), ["host"]);
    });
}

#[test]
fn interfaces_are_those_of_the_sockets_namespace() {
    in_namespace("interfaces_are_those_of_the_sockets_namespace", || {
        let blue = add_netns("blue");
        // Kernels differ in the kinds of interface that they can make.
        let add = |kind: &&str| {
            let arguments = ["-n", "blue", "link", "add", "portolan0", "type", kind];
            Command::new("ip")
                .args(arguments)
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
        };
        if !["dummy", "veth", "bridge"].iter().any(add) {
            return skipped("this kernel makes neither dummy, veth nor bridge interfaces");
        }
        let _socket = inside(&blue, || {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap();
            socket2::SockRef::from(&socket)
                .bind_device(Some(b"portolan0"))
                .unwrap();
            socket
        });
        let all = read(SpaceSelect::Every);
        let bound = all.sockets.iter().find(|socket| socket.device != 0).unwrap();
        let space = &all.spaces[bound.space.0 as usize];
        assert_eq!(
            (space.name.to_string().as_str(), space.device_name(bound.device)),
            ("blue", Some("portolan0"))
        );
        assert_eq!(space.device_name(9999), None);
    });
}

#[test]
fn without_rights_processes_are_looked_at_from_outside_and_the_rest_is_counted() {
    in_namespace(
        "without_rights_processes_are_looked_at_from_outside_and_the_rest_is_counted",
        || {
            let blue = add_netns("blue");
            let lodger = Lodger::new();
            let _sockets = [
                listen(80),
                inside(&blue, || listen(80)),
                inside(&lodger.namespace(), || listen(80)),
            ];

            let all = without_rights(|| read(SpaceSelect::Every));
            let lodging = SpaceName::OfProcess(lodger.pid()).to_string();
            assert_eq!(listening(&all, 80), ["host", &lodging]);
            assert_eq!(all.hidden_spaces, 1, "blue has no process: {all:#?}");
            assert!(all.remedy().unwrap().contains("root"));
            assert!(all.collectors.contains(&Collector::ProcNet));

            let one = without_rights(|| read(SpaceSelect::from_text(&lodging)));
            assert_eq!(listening(&one, 80), [lodging]);
            assert_eq!(one.hidden_spaces, 0);

            let named = query(SpaceSelect::Named("blue".into()));
            let error = without_rights(|| read_sockets(&named, &Sources::default())).unwrap_err();
            assert!(
                matches!(
                    &error,
                    SpaceError::NotPermitted {
                        name: SpaceName::Mounted(_),
                        ..
                    }
                ),
                "{error:?}"
            );
        },
    );
}

#[test]
fn where_processes_are_hidden_the_rest_is_read() {
    in_namespace("where_processes_are_hidden_the_rest_is_read", || {
        // "invisible" makes an exception for the group 0, which is ours.
        let hidden = Command::new("mount")
            .args(["-o", "remount,hidepid=ptraceable", "/proc"])
            .status()
            .unwrap();
        if !hidden.success() {
            return skipped("/proc cannot be mounted with hidepid=ptraceable here");
        }
        // The machine may have mounted namespaces of its own, which are hidden from here.
        let before = without_rights(|| read(SpaceSelect::Every));
        let lodger = Lodger::new();
        let _sockets = [listen(80), inside(&lodger.namespace(), || listen(80))];
        let all = without_rights(|| read(SpaceSelect::Every));
        assert_eq!(listening(&all, 80), ["host"]);
        assert_eq!(
            (all.hidden_spaces, &all.warnings),
            (before.hidden_spaces, &before.warnings)
        );
        // With the right to see them they are seen.
        assert_eq!(listening(&read(SpaceSelect::Every), 80).len(), 2);
        let unseen = query(SpaceSelect::Process(lodger.pid()));
        let error = without_rights(|| read_sockets(&unseen, &Sources::default())).unwrap_err();
        assert!(matches!(error, SpaceError::NotPermitted { .. }), "{error:?}");
    });
}

#[test]
fn namespaces_that_come_and_go_do_no_harm() {
    in_namespace("namespaces_that_come_and_go_do_no_harm", || {
        let _socket = listen(80);
        let lodger = Lodger::new();
        let gone = lodger.pid();
        drop(lodger);
        // The machine may have mounted namespaces of its own, which are hidden from here.
        let before = read(SpaceSelect::Every);
        assert_eq!(
            read_sockets(&query(SpaceSelect::Process(gone)), &Sources::default()),
            Err(SpaceError::NoSuchProcess(gone))
        );
        thread::scope(|scope| {
            let busy = scope.spawn(|| {
                for _ in 0..20 {
                    drop(Lodger::new());
                }
            });
            while !busy.is_finished() {
                let all = read(SpaceSelect::Every);
                assert_eq!(listening(&all, 80), ["host"]);
                assert_eq!(
                    (all.hidden_spaces, &all.warnings),
                    (before.hidden_spaces, &before.warnings)
                );
            }
        });
    });
}

#[test]
fn many_namespaces_are_read_by_one_thread_that_ends() {
    in_namespace("many_namespaces_are_read_by_one_thread_that_ends", || {
        add_netns("n0");
        for index in 1..40 {
            ip(&["netns", "add", &format!("n{index}")]);
        }
        let threads = || fs::read_dir("/proc/self/task").unwrap().count();
        let before = threads();
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        let open = descriptors();
        assert_eq!(read(SpaceSelect::Every).spaces.len(), 41);
        assert_eq!((threads(), descriptors()), (before, open));
    });
}

#[test]
fn a_connection_is_closed_from_outside_once() {
    in_namespace("a_connection_is_closed_from_outside_once", || {
        let blue = add_netns("blue");
        for space in ["host", "blue"] {
            let connect = || {
                let listener = listen(80);
                let client = TcpStream::connect((Ipv4Addr::LOCALHOST, 80)).unwrap();
                (listener.accept().unwrap().0, client)
            };
            let (mut server, client) = if space == "host" {
                connect()
            } else {
                inside(&blue, connect)
            };
            let all = Query {
                states: StateSet::ALL,
                ..query(SpaceSelect::from_text(space))
            };
            let sources = Sources::default();
            let found = read_sockets(&all, &sources).unwrap();
            let port = Port::new(client.local_addr().unwrap().port());
            let socket = found
                .sockets
                .iter()
                .find(|socket| socket.local.port() == Some(port))
                .unwrap();
            let there = &found.spaces[0];
            assert_eq!(there.name.to_string(), space);

            assert_eq!(
                without_rights(|| destroy_socket(socket, there, &sources)).map_err(|error| match error {
                    DestroyError::NotPermitted | DestroyError::Space(SpaceError::NotPermitted { .. }) =>
                        "refused",
                    DestroyError::Space(SpaceError::NoSuchName { .. }) => "not even found",
                    _ => "another error",
                }),
                Err("refused")
            );
            assert!(read_inodes(&all, &sources).unwrap().contains(&socket.inode));
            assert_eq!(destroy_socket(socket, there, &sources), Ok(()));
            assert_eq!(destroy_socket(socket, there, &sources), Err(DestroyError::Gone));
            assert!(!read_inodes(&all, &sources).unwrap().contains(&socket.inode));
            assert_eq!(
                (&client).write(b"x").unwrap_err().kind(),
                ErrorKind::ConnectionAborted
            );
            assert_eq!(
                server.read(&mut [0]).unwrap_err().kind(),
                ErrorKind::ConnectionReset
            );
        }
    });
}

#[test]
fn what_cannot_be_closed_says_so() {
    in_namespace("what_cannot_be_closed_says_so", || {
        let directory = tempfile::tempdir().unwrap();
        let _unix = std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
        let sources = Sources::default();
        let unix = Query {
            protocols: portolan_host::ProtocolSet::ALL,
            ..query(SpaceSelect::Host)
        };
        let found = read_sockets(&unix, &sources).unwrap();
        let error = destroy_socket(&found.sockets[0], &found.spaces[0], &sources).unwrap_err();
        assert_eq!(
            error,
            DestroyError::NotSupported(portolan_host::SocketProtocol::Unix)
        );
    });
}
