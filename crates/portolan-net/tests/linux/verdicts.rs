//! What Linux makes of the stack's verdicts: SYNs that are held, and the filter.

use std::io::{Error, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use portolan_core::Protocol;
use portolan_core::filter::{Action, Chain, ConnectionStates, Filter, Reject, Rule};
use portolan_core::table::Scope;
use portolan_core::wire::UnreachableCode;
use portolan_stack::SynId;

use crate::support::driver::{Running, STACK, Setup, address};
use crate::support::flow::{Flow, Pipe, Service};
use crate::support::namespace::in_namespace;

const REFUSED: i32 = 111;
const HOST_UNREACHABLE: i32 = 113;
const NETWORK_UNREACHABLE: i32 = 101;
const ACCESS: i32 = 13;

/// A stack that holds every SYN to anyone, and the kernel's routes to strangers lead to it.
fn transparent() -> Running {
    let running = Running::start(Setup::default());
    running.with(|world, _| {
        let listener = world.stack.listen_for(Scope::TRANSPARENT, 64).expect("root may");
        world.stack.hold_syns(listener, true);
    });
    for (version, net) in [("-4", "192.0.2.0/24"), ("-6", "2001:db8::/32")] {
        let route = Command::new("ip")
            .args([version, "route", "add", net, "dev", &running.tun_name])
            .status();
        assert!(route.expect("ip runs").success());
    }
    running
}

/// The next SYN that is held, and where it was to go.
fn held(running: &Running) -> (SynId, SocketAddr) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        let next = running.with(|world, _| {
            let id = world.syns.pop()?;
            Some((id, world.stack.held_syn(id)?.tuple.local()))
        });
        if let Some(next) = next {
            return next;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("no SYN came");
}

fn strangers() -> [SocketAddr; 2] {
    ["192.0.2.7:443", "[2001:db8::7]:443"].map(|text| text.parse().expect("an address"))
}

fn errno<T>(result: Result<T, Error>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_held_connect_waits_for_the_word() {
    in_namespace("verdicts::a_held_connect_waits_for_the_word", || {
        let running = transparent();
        for to in strangers() {
            let client = thread::spawn(move || {
                let start = Instant::now();
                let mut stream = TcpStream::connect(to)?;
                let waited = start.elapsed();
                stream.write_all(b"hello, stranger")?;
                let mut answer = [0; 15];
                stream.read_exact(&mut answer)?;
                Ok::<_, Error>((waited, answer, stream.peer_addr()?))
            });
            let (id, destination) = held(&running);
            assert_eq!(destination, to);
            // Long enough for the kernel to ask again.
            thread::sleep(Duration::from_millis(1300));
            let absorbed = running.with(move |world, now| {
                let connection = world.stack.accept_syn(now, id).expect("it waits");
                world.flows.insert(connection, Flow::Echo(Pipe::default()));
                world.stack.counters().syns_absorbed
            });
            assert!(absorbed >= 1, "the kernel asked once only");
            let (waited, answer, peer) = client.join().expect("no panic").expect("it is connected");
            assert!(waited >= Duration::from_millis(1200), "{waited:?}");
            assert_eq!((&answer, peer), (b"hello, stranger", to));
        }
    });
}

#[test]
fn the_kernel_believes_every_word() {
    in_namespace("verdicts::the_kernel_believes_every_word", || {
        let running = transparent();
        for (family, to) in strangers().into_iter().enumerate() {
            let prohibited = [HOST_UNREACHABLE, ACCESS][family];
            for (word, expected) in [
                (None, REFUSED),
                (Some(UnreachableCode::NoRoute), NETWORK_UNREACHABLE),
                (Some(UnreachableCode::Host), HOST_UNREACHABLE),
                (Some(UnreachableCode::Port), REFUSED),
                (Some(UnreachableCode::Prohibited), prohibited),
            ] {
                let client = thread::spawn(move || {
                    let start = Instant::now();
                    (errno(TcpStream::connect(to)), start.elapsed())
                });
                let (id, _) = held(&running);
                running
                    .with(move |world, _| match word {
                        None => world.stack.refuse_syn(id),
                        Some(code) => world.stack.reject_syn(id, code),
                    })
                    .expect("it waits");
                let (told, waited) = client.join().expect("no panic");
                assert_eq!(told, Some(expected), "{to} {word:?}");
                assert!(waited < Duration::from_secs(5), "{to} {word:?} {waited:?}");
            }
        }
    });
}

#[test]
fn rejections_of_the_filter_are_what_the_kernel_expects() {
    in_namespace(
        "verdicts::rejections_of_the_filter_are_what_the_kernel_expects",
        || {
            let running = Running::start(Setup::default());
            let reject = |code| Action::Reject(Reject::Unreachable(code));
            let rule = |action, ports: &str| Rule::new(action).to_ports(ports.parse().expect("ports"));
            let input = Chain::new(
                [
                    Rule::new(Action::Accept).states(ConnectionStates::ESTABLISHED),
                    rule(Action::Accept, "5001").protocol(Protocol::Tcp),
                    rule(Action::Reject(Reject::Reset), "5002"),
                    rule(reject(UnreachableCode::Prohibited), "5003"),
                    rule(Action::Drop, "5004"),
                ],
                Action::Drop,
            );
            running.with(move |world, _| {
                let output = Chain::accept_all();
                world.stack.set_filter(Some(Arc::new(Filter { input, output })));
            });
            for family in [0, 1] {
                let to = |port| address(family, STACK, port);
                let prohibited = [HOST_UNREACHABLE, ACCESS][family];
                let send = 1 << 20;
                running.listen(to(5001), 4, Service::Exchange { send, expect: 0 });
                let mut stream = TcpStream::connect(to(5001)).expect("it is allowed");
                stream.shutdown(std::net::Shutdown::Write).expect("it is open");
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).expect("all of it");
                assert_eq!(bytes.len() as u64, send);
                assert_eq!(errno(TcpStream::connect(to(5002))), Some(REFUSED));
                assert_eq!(errno(TcpStream::connect(to(5003))), Some(prohibited));
                let silence = TcpStream::connect_timeout(&to(5004), Duration::from_millis(300));
                assert_eq!(
                    silence.expect_err("nobody answers").kind(),
                    std::io::ErrorKind::TimedOut
                );
                // Datagrams: a rule that asks for a RST is port unreachable.
                for (port, expected) in [(5002, REFUSED), (5003, prohibited)] {
                    let wildcard = if family == 0 { "0.0.0.0:0" } else { "[::]:0" };
                    let socket = UdpSocket::bind(wildcard).expect("a port");
                    socket.connect(to(port)).expect("a route");
                    socket
                        .set_read_timeout(Some(Duration::from_secs(5)))
                        .expect("an option");
                    socket.send(b"anyone?").expect("it goes");
                    assert_eq!(errno(socket.recv(&mut [0; 8])), Some(expected), "{port}");
                }
            }
            let counted = running.with(|world, _| world.stack.counters().filtered_in);
            assert!(counted >= 10, "{counted}");
        },
    );
}
