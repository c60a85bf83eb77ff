//! What `explain_bind` says, compared with what bind(2) and listen(2) then do.

use std::env;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::process::Command;
use std::time::Duration;

use portolan_core::table::{Errno, Transport};
use portolan_core::{Address, Port};
use portolan_host::{
    BindExplanation, BindQuestion, BindVerdict, Obstacle, Ownership, Sharing, Sources, SpaceSelect, State,
    Unsure, explain_bind,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

mod private;

/// A socket that is to be made: what a question and a real bind have in common.
#[derive(Clone, Debug)]
struct Plan {
    transport: Transport,
    local: SocketAddr,
    reuse_address: bool,
    reuse_port: bool,
    v6_only: bool,
    device: Option<&'static str>,
}

impl Plan {
    fn tcp(local: &str) -> Self {
        Self {
            transport: Transport::Tcp,
            local: local.parse().unwrap(),
            reuse_address: false,
            reuse_port: false,
            v6_only: false,
            device: None,
        }
    }

    fn make(&self) -> io::Result<Socket> {
        let (kind, protocol) = match self.transport {
            Transport::Tcp => (Type::STREAM, Protocol::TCP),
            Transport::Udp => (Type::DGRAM, Protocol::UDP),
        };
        let socket = Socket::new(Domain::for_address(self.local), kind, Some(protocol))?;
        if self.local.is_ipv6() {
            socket.set_only_v6(self.v6_only)?;
        }
        socket.set_reuse_address(self.reuse_address)?;
        socket.set_reuse_port(self.reuse_port)?;
        socket.bind_device(self.device.map(str::as_bytes))?;
        socket.bind(&SockAddr::from(self.local))?;
        Ok(socket)
    }

    /// Binds, and listens with TCP.
    fn hold(&self) -> io::Result<Socket> {
        let socket = self.make()?;
        if self.transport == Transport::Tcp {
            socket.listen(8)?;
        }
        Ok(socket)
    }

    fn question(&self) -> BindQuestion {
        let address = match self.local {
            SocketAddr::V4(local) => Address::new((*local.ip()).into()),
            SocketAddr::V6(local) if local.scope_id() != 0 => {
                format!("{}%{}", local.ip(), local.scope_id()).parse().unwrap()
            }
            SocketAddr::V6(local) => Address::new((*local.ip()).into()),
        };
        BindQuestion {
            transport: self.transport,
            address: Some(address),
            port: Port::new(self.local.port()),
            reuse_address: self.reuse_address,
            reuse_port: self.reuse_port,
            v6_only: self.v6_only,
            device: self.device.map(str::to_owned),
            uid: None,
            space: SpaceSelect::Host,
        }
    }

    fn explain(&self) -> BindExplanation {
        explain_bind(&self.question(), &Sources::default()).unwrap()
    }
}

fn errno_name(error: &io::Error) -> String {
    let errno = rustix::io::Errno::from_io_error(error).expect("bind(2) gave an errno");
    let known = [
        (rustix::io::Errno::ADDRINUSE, Errno::EADDRINUSE),
        (rustix::io::Errno::ADDRNOTAVAIL, Errno::EADDRNOTAVAIL),
        (rustix::io::Errno::ACCESS, Errno::EACCES),
        (rustix::io::Errno::INVAL, Errno::EINVAL),
        (rustix::io::Errno::NODEV, Errno::ENODEV),
    ];
    match known.iter().find(|(of_host, _)| *of_host == errno) {
        Some((_, name)) => name.to_string(),
        None => errno.to_string(),
    }
}

/// Whether the prediction is the outcome; `None` if none was made.
fn agrees(verdict: &BindVerdict, outcome: &io::Result<Socket>) -> Option<bool> {
    match (verdict, outcome) {
        (BindVerdict::Unknown(_), _) => None,
        (BindVerdict::Yes { .. }, outcome) => Some(outcome.is_ok()),
        (BindVerdict::No(_), Ok(_)) => Some(false),
        (BindVerdict::No(obstacle), Err(error)) => Some(obstacle.errno().to_string() == errno_name(error)),
    }
}

/// One situation at a time: the sockets of a port, as chance has them.
struct Chance {
    rng: StdRng,
    addresses: Vec<SocketAddr>,
    devices: Vec<Option<&'static str>>,
}

impl Chance {
    fn plan(&mut self, port: u16, transport: Transport) -> Plan {
        let mut local = *self.addresses.choose(&mut self.rng).unwrap();
        local.set_port(port);
        Plan {
            transport,
            local,
            reuse_address: self.rng.random_bool(0.5),
            reuse_port: self.rng.random_bool(0.4),
            v6_only: local.is_ipv6() && self.rng.random_bool(0.3),
            device: *self.devices.choose(&mut self.rng).unwrap(),
        }
    }

    /// Makes a socket that holds the port in some state, and whatever it needs to stay there.
    fn holder(&mut self, port: u16, transport: Transport) -> io::Result<Vec<Socket>> {
        let plan = self.plan(port, transport);
        let socket = plan.make()?;
        if transport == Transport::Udp {
            if self.rng.random_bool(0.2) {
                connect_to_any(&socket)?;
            }
            return Ok(vec![socket]);
        }
        let fate = self.rng.random_range(0..6);
        if fate == 0 {
            return Ok(vec![socket]);
        }
        socket.listen(8)?;
        // The connection may go to another listener of the port.
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        if fate < 3 {
            return Ok(vec![socket]);
        }
        // A connection to the listener, over loopback or the device.
        let target = match plan.local.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => "127.0.0.1".parse().unwrap(),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let mut target = SocketAddr::new(target, port);
        if let (SocketAddr::V6(target), SocketAddr::V6(local)) = (&mut target, plan.local) {
            target.set_scope_id(local.scope_id());
        }
        let client = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        client.connect_timeout(&SockAddr::from(target), Duration::from_millis(50))?;
        let (accepted, _) = socket.accept()?;
        let mut kept = Vec::new();
        if self.rng.random_bool(0.5) {
            kept.push(socket);
        }
        if fate == 3 {
            // Our end closes first, and rests in TIME-WAIT as soon as the other has closed too.
            drop(accepted);
            drop(client);
        } else {
            kept.extend([accepted, client]);
        }
        Ok(kept)
    }
}

fn connect_to_any(socket: &Socket) -> io::Result<()> {
    let remote: SocketAddr = match socket.domain()? {
        Domain::IPV4 => "127.0.0.1:9".parse().unwrap(),
        _ => "[::1]:9".parse().unwrap(),
    };
    socket.connect(&SockAddr::from(remote))
}

/// A device besides loopback, with addresses that are ready at once; its link-local address if there is one.
fn set_up_device() -> Option<SocketAddr> {
    let script = "ip link add d0 type veth peer name d1 && ip link set d1 up && ip address add 10.9.0.1/24 dev d0 && \
                  ip link set d0 addrgenmode none && ip link set d0 up && \
                  ip address add fd09::1/64 dev d0 nodad && ip address add fe80::9/64 dev d0 nodad";
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    if !output.status.success() {
        private::skipped(&format!(
            "no device besides loopback: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
        return None;
    }
    let index = std::fs::read_to_string("/sys/class/net/d0/ifindex");
    let index = match index {
        Ok(text) => text.trim().parse().unwrap(),
        // /sys shows another namespace: `ip` numbers the device behind loopback 2.
        Err(_) => 2,
    };
    Some(SocketAddrV6::new("fe80::9".parse().unwrap(), 0, 0, index).into())
}

#[test]
fn predictions_are_what_the_kernel_does() {
    private::in_namespace("predictions_are_what_the_kernel_does", || {
        let seed = env::var("PORTOLAN_SEED").map_or(20_251_122, |text| text.parse().unwrap());
        let count: u16 = env::var("PORTOLAN_SITUATIONS").map_or(600, |text| text.parse().unwrap());
        println!("PORTOLAN_SEED={seed} PORTOLAN_SITUATIONS={count}");
        let link_local = set_up_device();
        let mut addresses: Vec<SocketAddr> = [
            "127.0.0.1:0",
            "127.0.0.2:0",
            "0.0.0.0:0",
            "127.255.255.255:0",
            "192.0.2.1:0",
            "[::1]:0",
            "[::]:0",
            "[::]:0",
            "[::ffff:127.0.0.1]:0",
            "[::ffff:0.0.0.0]:0",
            "[2001:db8::1]:0",
            "[fe80::9]:0",
            "[ff02::1234]:0",
            "224.0.0.99:0",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        let mut devices = vec![None, None, None, Some("lo")];
        if let Some(link_local) = link_local {
            let more = ["10.9.0.1:0", "10.9.0.255:0", "10.9.0.7:0", "[fd09::1]:0"];
            addresses.extend(more.iter().map(|text| text.parse::<SocketAddr>().unwrap()));
            addresses.push(link_local);
            devices.push(Some("d0"));
        }
        let mut chance = Chance {
            rng: StdRng::seed_from_u64(seed),
            addresses,
            devices,
        };
        let (mut differing, mut tally) = (Vec::new(), [0usize; 5]);
        for number in 0..count {
            // Below the automatic ports, so that clients do not take them.
            let port = 1024 + number % 30_000;
            let transport = *[Transport::Tcp, Transport::Udp].choose(&mut chance.rng).unwrap();
            let holders = chance.rng.random_range(0..5);
            let mut kept: Vec<Socket> = (0..holders)
                .flat_map(|_| chance.holder(port, transport).unwrap_or_default())
                .collect();
            if !kept.is_empty() && chance.rng.random_bool(0.2) {
                let gone = chance.rng.random_range(0..kept.len());
                kept.remove(gone);
            }
            let plan = chance.plan(port, transport);
            let explanation = plan.explain();
            let outcome = plan.hold();
            match agrees(&explanation.verdict, &outcome) {
                Some(true) => tally[usize::from(outcome.is_err())] += 1,
                Some(false) => differing.push(format!(
                    "{plan:?}\n  predicted {:?}, got {outcome:?}\n  sockets {:#?}",
                    explanation.verdict, explanation.snapshot.sockets
                )),
                None => match explanation.verdict {
                    BindVerdict::Unknown(Unsure::Options) => {
                        tally[2] += 1;
                        // Every process here can be asked, so what cannot be known has no process.
                        assert!(
                            is_unreadable(&explanation),
                            "{plan:?} {:?} {:?} {:#?} {:#?}",
                            explanation.in_the_way,
                            explanation.sharing,
                            explanation.snapshot.ownership,
                            explanation.snapshot.sockets
                        );
                    }
                    BindVerdict::Unknown(Unsure::Order) => tally[3] += 1,
                    _ => tally[4] += 1,
                },
            }
        }
        let [yes, no, options, order, other] = tally;
        eprintln!("yes {yes}, no {no}; unknown: options {options}, order {order}, other {other}");
        assert!(
            differing.is_empty(),
            "{} of {count} differ:\n{}",
            differing.len(),
            differing.join("\n")
        );
        assert_eq!(other, 0);
        // Nearly every answer is one.
        assert!(yes + no >= usize::from(count) * 9 / 10, "{tally:?}");
    });
}

/// Whether a socket in the way has no process that could be asked.
fn is_unreadable(explanation: &BindExplanation) -> bool {
    let ways = explanation.in_the_way.iter().zip(&explanation.sharing);
    ways.filter(|(_, sharing)| **sharing == Sharing::Unknown)
        .any(|(&index, _)| matches!(explanation.snapshot.ownership[index], Ownership::Nobody(_)))
}

#[test]
fn a_listener_in_the_way_is_named_with_its_options() {
    let mut plan = Plan::tcp("127.0.0.1:0");
    plan.reuse_address = true;
    let holder = plan.hold().unwrap();
    plan.local = holder.local_addr().unwrap().as_socket().unwrap();
    let explanation = plan.explain();
    assert_eq!(
        explanation.verdict,
        BindVerdict::No(Obstacle::InUse {
            rule: portolan_core::table::Rule::BesideListener
        })
    );
    let [index] = explanation.in_the_way[..] else {
        panic!("{explanation:?}");
    };
    assert_eq!(explanation.snapshot.sockets[index].state, State::Listen);
    let Ownership::Held(owners) = &explanation.snapshot.ownership[index] else {
        panic!("{explanation:?}");
    };
    assert_eq!(owners[0].pid, i32::try_from(std::process::id()).unwrap());
    let Sharing::Known(options) = explanation.sharing[0] else {
        // Some kernels let nobody trace, not even oneself.
        return private::skipped("pidfd_getfd(2) is refused here");
    };
    assert!(options.reuse_address && !options.reuse_port);
}

#[test]
fn another_users_reuse_port_does_not_share() {
    let mut plan = Plan::tcp("127.0.0.1:0");
    plan.reuse_port = true;
    // The kernel goes by the owner at the moment of the bind.
    let holder = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    holder.set_reuse_port(true).unwrap();
    let other = rustix::fs::Uid::from_raw(65_533);
    if let Err(errno) = rustix::fs::fchown(&holder, Some(other), None) {
        return private::skipped(&format!("only root gives a socket to another user: {errno}"));
    }
    holder.bind(&SockAddr::from(plan.local)).unwrap();
    holder.listen(8).unwrap();
    plan.local = holder.local_addr().unwrap().as_socket().unwrap();
    let ours = plan.explain();
    assert_eq!(
        ours.verdict,
        BindVerdict::No(Obstacle::InUse {
            rule: portolan_core::table::Rule::OtherUser
        })
    );
    assert!(plan.hold().is_err());
    let theirs = BindQuestion {
        uid: Some(65_533),
        ..plan.question()
    };
    let theirs = explain_bind(&theirs, &Sources::default()).unwrap();
    assert!(matches!(theirs.verdict, BindVerdict::Yes { .. }), "{theirs:?}");
}

#[test]
fn privileged_ports_depend_on_the_user() {
    let plan = Plan::tcp("127.0.0.1:1");
    let of = |uid| {
        let question = BindQuestion {
            uid,
            ..plan.question()
        };
        explain_bind(&question, &Sources::default()).unwrap().verdict
    };
    assert!(!matches!(
        of(Some(0)),
        BindVerdict::No(Obstacle::Privileged { .. })
    ));
    let ours = of(None);
    assert_ne!(agrees(&ours, &plan.hold()), Some(false), "{ours:?}");
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let unprivileged_start: u32 = first.trim().parse().unwrap();
    if unprivileged_start <= 1 {
        return private::skipped("no port takes a privilege here");
    }
    let theirs = of(Some(65_533));
    if rustix::process::geteuid().as_raw() != 65_533 {
        assert_eq!(
            theirs,
            BindVerdict::No(Obstacle::Privileged { unprivileged_start })
        );
    }
}

#[test]
fn with_no_automatic_port_left_port_0_is_refused() {
    private::in_namespace("with_no_automatic_port_left_port_0_is_refused", || {
        let range = "/proc/sys/net/ipv4/ip_local_port_range";
        if let Err(error) = std::fs::write(range, "40000 40003") {
            return private::skipped(&format!("{range} cannot be written: {error}"));
        }
        let plan = Plan::tcp("0.0.0.0:0");
        let mut held = Vec::new();
        for _ in 0..4 {
            assert!(matches!(plan.explain().verdict, BindVerdict::Yes { .. }));
            held.push(plan.hold().unwrap());
        }
        let verdict = plan.explain().verdict;
        assert!(
            matches!(verdict, BindVerdict::No(Obstacle::Exhausted { .. })),
            "{verdict:?}"
        );
        assert_eq!(agrees(&verdict, &plan.hold()), Some(true));
    });
}

#[test]
fn another_port_space_has_its_own_sockets() {
    private::in_namespace("another_port_space_has_its_own_sockets", || {
        let listener = TcpListener::bind("127.0.0.1:7777").unwrap();
        let mut other = Command::new("unshare")
            .args([
                "--net",
                "--",
                "sh",
                "-c",
                "ip link set lo up; echo; exec sleep 60",
            ])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0];
        io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut line).unwrap();
        let plan = Plan::tcp("127.0.0.1:7777");
        let here = plan.explain().verdict;
        let there = BindQuestion {
            space: SpaceSelect::Process(i32::try_from(other.id()).unwrap()),
            ..plan.question()
        };
        let there = explain_bind(&there, &Sources::default());
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(
            matches!(here, BindVerdict::No(Obstacle::InUse { .. })),
            "{here:?}"
        );
        let there = there.unwrap().verdict;
        assert!(matches!(there, BindVerdict::Yes { .. }), "{there:?}");
        drop(listener);
    });
}

#[test]
fn without_loopback_its_addresses_are_nobodys() {
    private::in_namespace("without_loopback_its_addresses_are_nobodys", || {
        let down = Command::new("ip").args(["link", "set", "lo", "down"]).status();
        assert!(down.unwrap().success());
        for text in [
            "127.0.0.1:5000",
            "[::1]:5000",
            "127.255.255.255:5000",
            "0.0.0.0:5000",
        ] {
            let plan = Plan::tcp(text);
            let verdict = plan.explain().verdict;
            assert_eq!(agrees(&verdict, &plan.hold()), Some(true), "{text}: {verdict:?}");
        }
    });
}
