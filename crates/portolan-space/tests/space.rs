//! Port spaces as root and as an ordinary user: what a program finds in one, and what is left when it is over.
#![cfg(target_os = "linux")]

mod links;
mod users;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use portolan_space::{
    Capabilities, DEVICE_NAME, DeviceKind, Ended, Event, Identity, Network, Program, ShownFile, Space,
    SpaceConfig, SpaceError, Step, Subnets,
};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use socket2::Socket;
use tempfile::NamedTempFile;
use users::{as_each_user, skipped};

#[test]
fn the_network_is_ready_and_every_port_free() {
    as_each_user("the_network_is_ready_and_every_port_free", || {
        let text = "{ ip -o address; ip route; ip -6 route; ip -o link
            cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range; id -g; } >$OUT";
        for config in with_each_device(text) {
            let Some((text, ended)) = run(config.clone()) else {
                return;
            };
            assert_eq!(ended, Ended::Exited(0), "{text}");
            let v4 = config.subnets.v4;
            for expected in [
                "127.0.0.1/8".to_owned(),
                format!("inet {}/{}", v4.inside, v4.prefix_len),
                format!("default via {} dev {DEVICE_NAME}", v4.gateway),
                "mtu 1500".to_owned(),
            ] {
                assert!(text.contains(&expected), "no {expected} in {text}");
            }
            if let Some(v6) = config.subnets.v6 {
                assert!(
                    text.contains(&format!("inet6 {}/{}", v6.inside, v6.prefix_len)),
                    "{text}"
                );
                assert!(text.contains(&format!("default via {}", v6.gateway)), "{text}");
            }
            let lines: Vec<_> = text.lines().rev().take(3).collect();
            assert_eq!(lines[2], "0");
            assert_eq!(lines[1], format!("{0}\t{0}", lines[0]));
        }
    });
}

#[test]
fn the_program_keeps_its_user_and_has_no_rights() {
    as_each_user("the_program_keeps_its_user_and_has_no_rights", || {
        let status = "{ id -u; id -g; echo $A; pwd; grep -E '^(Cap|NoNew)' /proc/self/status; } >$OUT";
        let mut config = script(status);
        config
            .program
            .environment
            .push(("A".into(), "kept as it is".into()));
        let Some((text, _)) = run(config) else { return };
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        let directory = std::env::current_dir().unwrap();
        let head = format!("{user:?}\n{group:?}\nkept as it is\n{}\n", directory.display());
        let head = head.replace("Uid(", "").replace("Gid(", "").replace(")\n", "\n");
        assert!(text.starts_with(&head), "{text}");
        // The bounding set is not emptied: exec of a file with capabilities would fail.
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(text.contains(&format!("{set}:\t0000000000000000")), "{text}");
        }
        assert!(text.contains("NoNewPrivs:\t1"), "{text}");
        let mut config = script(status);
        config.identity = Identity::Root;
        let (text, _) = run(config.clone()).unwrap();
        assert!(text.starts_with("0\n0\n"), "{text}");
        assert!(text.contains("CapEff:\t0000000000000000"), "{text}");
        // What is asked for, whoever the program is; and nothing more.
        for identity in [Identity::Root, Identity::Caller] {
            config.identity = identity;
            config.capabilities = "chown,net_raw".parse().unwrap();
            let (text, _) = run(config.clone()).unwrap();
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert!(text.contains(&format!("{set}:\t0000000000002001")), "{text}");
            }
            assert!(text.contains("NoNewPrivs:\t1"), "{text}");
        }
        config.capabilities = Capabilities::ALL;
        let (text, _) = run(config).unwrap();
        assert!(!text.contains("CapEff:\t0000000000"), "{text}");
    });
}

#[test]
fn no_descriptor_is_inherited_but_the_standard_ones() {
    as_each_user("no_descriptor_is_inherited_but_the_standard_ones", || {
        // What a careless caller, or a library in it, leaves open: a listener and a file, both open at exec.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let file = fs::File::open("/dev/null").unwrap();
        for fd in [listener.as_raw_fd(), file.as_raw_fd()] {
            users::keep_open_at_exec(fd);
        }
        for mut config in with_each_device("") {
            config.program = Program::new("sleep", ["60"]);
            let Some(mut space) = start(&config) else { return };
            let pid = running(&mut space, "sleep");
            let descriptors = |pid: i32| -> Option<Vec<String>> {
                let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
                let mut names: Vec<_> = entries
                    .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                    .collect();
                names.sort();
                Some(names)
            };
            // The loader has its libraries open for a moment.
            let until = Instant::now() + Duration::from_secs(20);
            while descriptors(pid).unwrap() != ["0", "1", "2"] {
                assert!(Instant::now() < until, "{:?}", descriptors(pid));
                sleep(Duration::from_millis(5));
            }
            // Init has two channels and soon its signals, whatever this process has open; only root sees that.
            while let Some(init) = descriptors(space.init())
                && init.len() != 6
            {
                assert!(Instant::now() < until, "{init:?}");
                sleep(Duration::from_millis(5));
            }
            space.signal(15).unwrap();
            assert_eq!(space.wait_for_end().unwrap(), Ended::Killed(15));
        }
    });
}

#[test]
fn exit_codes_are_those_of_a_shell() {
    as_each_user("exit_codes_are_those_of_a_shell", || {
        let text = NamedTempFile::new().unwrap();
        let not_executable = text.path().to_str().unwrap();
        for (program, arguments, expected) in [
            ("sh", ["-c", "exit 0"], Ended::Exited(0)),
            ("sh", ["-c", "exit 42"], Ended::Exited(42)),
            ("sh", ["-c", "kill -9 $$"], Ended::Killed(9)),
            ("sh", ["-c", "kill -PIPE $$; exit 1"], Ended::Killed(13)),
            ("no-such-program", ["", ""], Ended::Exited(127)),
            ("/no/such/program", ["", ""], Ended::Exited(127)),
            (not_executable, ["", ""], Ended::Exited(126)),
            ("/", ["", ""], Ended::Exited(126)),
        ] {
            let config = SpaceConfig::new(Program::new(program, arguments), subnets());
            let Some(mut space) = start(&config) else { return };
            space.go().unwrap();
            let mut events = Vec::new();
            while !matches!(events.last(), Some(Event::Ended(_))) {
                events.push(space.wait().unwrap());
            }
            assert_eq!(
                events.last(),
                Some(&Event::Ended(expected)),
                "{program} {arguments:?}"
            );
            let is_not_run = events.iter().any(|event| matches!(event, Event::NotRun(_)));
            assert_eq!(is_not_run, [126, 127].contains(&expected.code()));
        }
        assert_eq!(Ended::Killed(9).code(), 137);
    });
}

#[test]
fn nothing_outlives_the_program() {
    as_each_user("nothing_outlives_the_program", || {
        let word = unique(1);
        let text =
            format!("setsid sh -c 'trap \"\" TERM HUP; sleep {word} & sleep {word}' & sleep 0.2; exit 5");
        let Some((_, ended)) = run(script(&text)) else {
            return;
        };
        assert_eq!(ended, Ended::Exited(5));
        assert!(!is_left(&word));
    });
}

#[test]
fn where_proc_is_covered_a_subreaper_does_as_well() {
    as_each_user("where_proc_is_covered_a_subreaper_does_as_well", || {
        // As containers do it: a part of /proc is covered, and the kernel lets nobody mount one that shows it.
        if !users::in_covered_proc("where_proc_is_covered_a_subreaper_does_as_well") {
            return;
        }
        let word = unique(2);
        let text = format!("setsid sh -c 'sleep {word} & sleep {word}' & sleep 0.2; exit 5");
        let Some(mut space) = start(&script(&text)) else {
            return;
        };
        let steps: Vec<_> = space.notes().iter().map(|note| note.step().code()).collect();
        assert!(steps.contains(&"proc"), "{steps:?}");
        space.go().unwrap();
        assert_eq!(space.wait_for_end().unwrap(), Ended::Exited(5));
        assert!(!is_left(&word));
        // The process that serves is killed: its guard ends what it left.
        let mut space = start(&script(&format!("setsid sleep {word} & exec sleep {word}"))).unwrap();
        let program = running(&mut space, "sleep");
        users::kill(users::parent(program), 9);
        assert_eq!(space.wait_for_end().unwrap(), Ended::Killed(9));
        assert!(!is_left(&word));
    });
}

#[test]
fn kill_of_either_side_leaves_nothing() {
    as_each_user("kill_of_either_side_leaves_nothing", || {
        let word = unique(3);
        let Some(mut space) = start(&script(&format!("setsid sleep {word} & exec sleep {word}"))) else {
            return;
        };
        running(&mut space, "sleep");
        users::kill(space.init(), 9);
        assert_eq!(space.wait_for_end().unwrap(), Ended::Killed(9));
        assert!(!is_left(&word));
        // The maker, in a process of its own.
        let word = unique(4);
        let mut maker = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "maker_for_another_test", "--nocapture"])
            .env("PORTOLAN_TEST_WORD", &word)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        let namespaces = loop {
            let found = ["net", "pid", "user", "mnt"].map(|kind| users::namespace_of(kind, &word));
            if found.iter().all(Option::is_some) {
                break found.map(Option::unwrap);
            }
            assert!(Instant::now() < until, "the maker's program does not run");
            sleep(Duration::from_millis(5));
        };
        assert!(namespaces.iter().all(|namespace| users::is_in_use(namespace)));
        maker.kill().unwrap();
        maker.wait().unwrap();
        assert!(!is_left(&word));
        // Its processes are gone for /proc a moment before they are for their parent.
        let until = Instant::now() + Duration::from_secs(1);
        for namespace in namespaces {
            while users::is_in_use(&namespace) {
                assert!(Instant::now() < until, "{namespace}");
                sleep(Duration::from_millis(5));
            }
        }
    });
}

#[test]
#[ignore = "a process for kill_of_either_side_leaves_nothing"]
fn maker_for_another_test() {
    let word = std::env::var("PORTOLAN_TEST_WORD").unwrap();
    let mut space = start(&script(&format!("setsid sleep {word} & exec sleep {word}"))).unwrap();
    space.go().unwrap();
    space.wait_for_end().unwrap();
}

#[test]
fn signals_to_init_and_through_the_space_reach_the_program() {
    as_each_user("signals_to_init_and_through_the_space_reach_the_program", || {
        for by_space in [false, true] {
            let text = "trap 'exit 7' TERM; echo x >$OUT; while :; do sleep 0.01; done";
            let out = NamedTempFile::new().unwrap();
            let Some(mut space) = start(&script_to(text, &out)) else {
                return;
            };
            space.go().unwrap();
            wait_for_text(&mut space, &out);
            if by_space {
                space.signal(15).unwrap();
            } else {
                users::kill(space.init(), 15);
            }
            assert_eq!(space.wait_for_end().unwrap(), Ended::Exited(7));
        }
    });
}

#[test]
fn a_program_that_is_stopped_is_told_of_and_goes_on() {
    as_each_user("a_program_that_is_stopped_is_told_of_and_goes_on", || {
        let Some(mut space) = start(&script("kill -STOP $$; exit 3")) else {
            return;
        };
        space.go().unwrap();
        assert!(matches!(space.wait().unwrap(), Event::Started { .. }));
        assert_eq!(space.wait().unwrap(), Event::Stopped(19));
        assert_eq!(space.poll().unwrap(), None);
        space.signal(18).unwrap();
        assert_eq!(space.wait().unwrap(), Event::Ended(Ended::Exited(3)));
    });
}

#[test]
fn init_can_be_neither_read_nor_killed_from_inside() {
    as_each_user("init_can_be_neither_read_nor_killed_from_inside", || {
        let text = "kill -9 1; kill -STOP 1; cat /proc/1/environ /proc/1/maps >$OUT 2>&1; exit 4";
        let mut config = script(text);
        config.identity = Identity::Root;
        config.capabilities = Capabilities::ALL;
        let Some((text, ended)) = run(config) else { return };
        assert_eq!(ended, Ended::Exited(4));
        assert_eq!(text.matches("ermission denied").count(), 2, "{text}");
    });
}

#[test]
fn packets_come_out_of_each_device() {
    as_each_user("packets_come_out_of_each_device", || {
        for mut config in with_each_device("exec 3<>/dev/udp/192.0.2.77/9; echo hello >&3; sleep 5") {
            config.program.path = "bash".into();
            let Some(mut space) = start(&config) else { return };
            let device = space.take_device().unwrap();
            assert!(space.take_device().is_none());
            if config.avoid_tun {
                assert_eq!(device.kind, DeviceKind::Veth);
            } else if device.kind == DeviceKind::Veth {
                let reason = space
                    .notes()
                    .iter()
                    .find(|note| note.step() == Step::Tun)
                    .unwrap();
                skipped(&reason.to_string());
            }
            space.go().unwrap();
            let start = if device.kind == DeviceKind::Veth {
                10 + 14
            } else {
                10
            };
            let packet = users::find_packet(&device.queues[0], |frame| {
                let packet = frame.get(start..)?;
                (packet.get(16..20)? == [192, 0, 2, 77]).then(|| packet.to_vec())
            });
            assert_eq!(packet[12..16], config.subnets.v4.inside.octets());
            assert!(packet.ends_with(b"hello\n"));
        }
    });
}

#[test]
fn a_socket_opened_in_the_space_reaches_its_loopback() {
    as_each_user("a_socket_opened_in_the_space_reaches_its_loopback", || {
        let text = "exec python3 -c 'import os, socket
s = socket.create_server((\"127.0.0.1\", 80))
open(os.environ[\"OUT\"], \"w\").write(\"x\")
s.accept()[0].sendall(b\"inside\")'";
        let out = NamedTempFile::new().unwrap();
        let Some(mut space) = start(&script_to(text, &out)) else {
            return;
        };
        space.go().unwrap();
        if !wait_for_text(&mut space, &out) {
            return skipped("no python3 for this user");
        }
        let socket = space.open_socket(2, 1, 0).unwrap();
        let _ = rustix::net::connect(&socket, &SocketAddr::from(([127, 0, 0, 1], 80)));
        let mut stream = TcpStream::from(socket);
        stream.set_nonblocking(false).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        assert_eq!(space.open_socket(99, 1, 0).unwrap_err(), Errno::AFNOSUPPORT);
    });
}

/// The program's socket is on the space's address, that of the client has the gateway's; no packet passes the device.
#[test]
fn a_socket_of_the_maker_reaches_the_program_as_the_gateway() {
    as_each_user("a_socket_of_the_maker_reaches_the_program_as_the_gateway", || {
        for config in with_each_device("exec sleep 60") {
            let subnets = config.subnets;
            let Some(space) = start(&config) else { return };
            assert!(space.has_shortcut(), "{:?}", space.notes());
            let v6 = subnets.v6.map(|v6| (v6.inside.into(), v6.gateway.into()));
            let v4 = (subnets.v4.inside.into(), subnets.v4.gateway.into());
            for (inside, gateway) in [Some(v4), v6].into_iter().flatten() {
                let (inside, gateway): (IpAddr, IpAddr) = (inside, gateway);
                let domain = if inside.is_ipv4() { 2 } else { 10 };
                // Also before the program has started.
                let sockets = space.sockets().open(domain, 1, 0, 2).unwrap();
                let mut sockets = sockets.into_iter().map(Socket::from);
                assert_eq!(sockets.len(), 2);
                let (own, loopback) = (sockets.next().unwrap(), sockets.next().unwrap());
                let marked = space.sockets().open_marked(domain, 3).unwrap();
                let mut marked = marked.into_iter().map(Socket::from);
                assert_eq!(marked.len(), 3);
                own.bind(&SocketAddr::new(inside, 80).into()).unwrap();
                let loopback_ip: IpAddr = if domain == 2 {
                    [127, 0, 0, 1].into()
                } else {
                    Ipv6Addr::LOCALHOST.into()
                };
                loopback.bind(&SocketAddr::new(loopback_ip, 81).into()).unwrap();
                for listener in [&own, &loopback] {
                    listener.listen(5).unwrap();
                    listener.set_nonblocking(false).unwrap();
                }
                let connect = |socket: Socket, port| {
                    socket.bind(&SocketAddr::new(gateway, 0).into()).unwrap();
                    socket.set_nonblocking(false).unwrap();
                    let to = SocketAddr::new(inside, port).into();
                    socket
                        .connect_timeout(&to, Duration::from_secs(20))
                        .map(|()| socket)
                };
                let mut client = connect(marked.next().unwrap(), 80).unwrap();
                let (mut server, peer) = own.accept().unwrap();
                assert_eq!(
                    peer.as_socket().unwrap(),
                    client.local_addr().unwrap().as_socket().unwrap()
                );
                assert_eq!(peer.as_socket().unwrap().ip(), gateway);
                client.write_all(b"question").unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                let mut text = String::new();
                server.read_to_string(&mut text).unwrap();
                server.write_all(b"answer").unwrap();
                drop(server);
                client.read_to_string(&mut text).unwrap();
                assert_eq!(text, "questionanswer");
                // Nobody there, and one on the program's own loopback: both are refused, at once.
                for port in [81, 82] {
                    let refused = connect(marked.next().unwrap(), port).unwrap_err();
                    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
                }
            }
        }
    });
}

#[test]
fn files_show_other_contents_inside_alone() {
    as_each_user("files_show_other_contents_inside_alone", || {
        let (one, other) = (NamedTempFile::new().unwrap(), NamedTempFile::new().unwrap());
        fs::write(&one, "outside").unwrap();
        let text = format!("cat {} {} >$OUT", one.path().display(), other.path().display());
        let mut config = script(&text);
        config.files = [(&one, "nameserver 10.0.0.1\n"), (&other, "second\n")]
            .map(|(file, text)| ShownFile {
                path: file.path().to_owned(),
                contents: text.into(),
            })
            .to_vec();
        let Some((text, _)) = run(config.clone()) else {
            return;
        };
        assert_eq!(text, "nameserver 10.0.0.1\nsecond\n");
        assert_eq!(fs::read_to_string(one.path()).unwrap(), "outside");
        config.files[0].path = "/no/such/file".into();
        let space = start(&config).unwrap();
        assert!(space.notes().iter().any(|note| note.step() == Step::Files));
    });
}

#[test]
fn a_second_program_joins_the_first() {
    as_each_user("a_second_program_joins_the_first", || {
        let Some(mut space) = start(&script("exec sleep 60")) else {
            return;
        };
        let pid = running(&mut space, "sleep");
        let word = unique(5);
        let text =
            format!("setsid sleep {word} & ip -o addr show >$OUT; readlink /proc/self/ns/pid >>$OUT; exit 6");
        let mut config = script(&text);
        config.network = Network::Space(space.membership().unwrap().clone());
        let inside = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
        let (text, ended) = run(config).unwrap();
        assert_eq!(ended, Ended::Exited(6), "{text}");
        assert!(
            text.contains(DEVICE_NAME) && text.contains(inside.to_str().unwrap()),
            "{text}"
        );
        assert!(!is_left(&word), "the second program's children end with it");
        assert_eq!(space.poll().unwrap(), None, "the first goes on");
    });
}

#[test]
fn the_network_of_a_process_gets_the_device() {
    as_each_user("the_network_of_a_process_gets_the_device", || {
        let Some(mut holder) = users::in_own_network() else {
            return;
        };
        let mut config = script("ip -o addr show >$OUT; grep CapEff /proc/self/status >>$OUT");
        config.network = Network::Process(holder.id().cast_signed());
        let (text, ended) = run(config.clone()).unwrap();
        assert_eq!(ended, Ended::Exited(0));
        assert!(
            text.contains(DEVICE_NAME) && text.contains("0000000000000000"),
            "{text}"
        );
        config.network = Network::Process(i32::MAX);
        assert_eq!(Space::start(&config).unwrap_err().code(), "join-namespace");
        config.network = Network::Path("/proc/self/ns/uts".into());
        assert_eq!(Space::start(&config).unwrap_err().code(), "join-namespace");
        holder.kill().unwrap();
        holder.wait().unwrap();
    });
}

#[test]
fn where_namespaces_are_forbidden_the_text_says_how_to_allow_them() {
    as_each_user(
        "where_namespaces_are_forbidden_the_text_says_how_to_allow_them",
        || {
            if !users::without_namespaces("where_namespaces_are_forbidden_the_text_says_how_to_allow_them") {
                return;
            }
            let before = fs::read_dir("/proc/self/fd").unwrap().count();
            let error = Space::start(&script("true")).unwrap_err();
            assert_eq!(error.code(), "user-namespace");
            assert_eq!(
                error.to_string(),
                "cannot make a user namespace: no space left on device (user.max_user_namespaces is 0); \
             raise it: sudo sysctl user.max_user_namespaces=10000"
            );
            assert_eq!(fs::read_dir("/proc/self/fd").unwrap().count(), before);
            assert!(
                matches!(wait(WaitOptions::NOHANG), Err(Errno::CHILD)),
                "a process is left"
            );
        },
    );
}

fn subnets() -> Subnets {
    let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
    Subnets::choose(&portolan_space::host_routes().unwrap(), has_ipv6, 4711).unwrap()
}

fn script(text: &str) -> SpaceConfig {
    SpaceConfig::new(Program::new("sh", ["-c", text]), subnets())
}

/// A script that finds the name of a file in `$OUT`.
fn script_to(text: &str, out: &NamedTempFile) -> SpaceConfig {
    let mut config = script(text);
    config.program.environment.push(("OUT".into(), out.path().into()));
    config
}

/// A script with each kind of device that there is.
fn with_each_device(text: &str) -> impl Iterator<Item = SpaceConfig> {
    [false, true].into_iter().map(move |avoid_tun| SpaceConfig {
        avoid_tun,
        ..script(text)
    })
}

/// A space, or `None` with the reason said, where the machine forbids any.
fn start(config: &SpaceConfig) -> Option<Space> {
    match Space::start(config) {
        Ok(space) => Some(space),
        Err(SpaceError::Refused(obstacle))
            if matches!(obstacle.step(), Step::UserNamespace | Step::IdMap) =>
        {
            skipped(&obstacle.to_string());
            None
        }
        Err(error) => panic!("{}: {error}", error.code()),
    }
}

/// Runs a space and gives what its program wrote to `$OUT`, and how it ended.
fn run(mut config: SpaceConfig) -> Option<(String, Ended)> {
    let out = NamedTempFile::new().unwrap();
    config.program.environment.push(("OUT".into(), out.path().into()));
    let mut space = start(&config)?;
    space.go().unwrap();
    let ended = space.wait_for_end().unwrap();
    Some((fs::read_to_string(out.path()).unwrap(), ended))
}

/// Lets the program go, and waits until it is the one of this name; gives its number.
fn running(space: &mut Space, name: &str) -> i32 {
    space.go().unwrap();
    let Event::Started { pid } = space.wait().unwrap() else {
        panic!("no program");
    };
    while fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim() != name {
        sleep(Duration::from_millis(2));
    }
    pid
}

/// Waits until the program has written something; `false` if it ended instead.
fn wait_for_text(space: &mut Space, out: &NamedTempFile) -> bool {
    while fs::read(out.path()).unwrap().is_empty() {
        if matches!(space.poll().unwrap(), Some(Event::Ended(_))) {
            return false;
        }
        sleep(Duration::from_millis(2));
    }
    true
}

/// Whether a process with this word among its arguments is still there after a second.
fn is_left(word: &str) -> bool {
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        let is_there = fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            arguments
                .split(|byte| *byte == 0)
                .any(|argument| argument == word.as_bytes())
        });
        if !is_there || Instant::now() > until {
            return is_there;
        }
        sleep(Duration::from_millis(10));
    }
}

/// An argument for sleep(1) that no other process has.
fn unique(number: u32) -> String {
    format!("{}{:07}", 1000 + number, std::process::id())
}
