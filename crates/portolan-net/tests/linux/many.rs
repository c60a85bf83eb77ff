//! Many connections at once. Usually 1,000; for the long form:
//!
//! ```text
//! PORTOLAN_CONNECTIONS=10000 cargo test --release -p portolan-net --test linux many -- --nocapture
//! ```

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::driver::{KERNEL, Running, STACK, Setup, address};
use crate::support::flow::{Exchange, Report, Service};
use crate::support::namespace::{in_namespace, skipped};
use crate::support::pattern;

fn wanted() -> usize {
    std::env::var("PORTOLAN_CONNECTIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1000)
}

/// Raises the limit of open files; says how many connections it allows.
fn allowed(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = wanted as u64 + 100;
    let raised = Rlimit {
        current: Some(needed),
        maximum: limit.maximum.map(|most| most.max(needed)),
    };
    let within = Rlimit {
        current: limit.maximum.map(|most| most.min(needed)),
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() && setrlimit(Resource::Nofile, within).is_err() {
        skipped("many: the limit of open files stays as it is");
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let allowed = wanted.min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(100));
    if allowed < wanted {
        skipped(&format!(
            "many: {allowed} connections instead of {wanted}: the limit of open files"
        ));
    }
    allowed
}

/// Where each connection's part of the pattern begins; 500 bytes in one piece.
fn part(place: usize) -> u64 {
    place as u64 * 97 % 900_000
}

/// Waits until the stack has so many connections, and says how many there are then, or after five seconds.
fn settle(running: &Running, wanted: usize) -> usize {
    let mut count = 0;
    for _ in 0..500 {
        count = running.with(|world, _| world.stack.connection_count());
        if count == wanted {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    count
}

#[test]
fn many_clients_of_one_port_of_the_stack() {
    in_namespace("many::many_clients_of_one_port_of_the_stack", || {
        let count = allowed(wanted());
        let running = Running::start(Setup::default());
        let local = address(0, STACK, 5001);
        running.listen(local, 1024, Service::Echo);
        let start = Instant::now();
        let mut clients: Vec<_> = (0..count)
            .map(|_| TcpStream::connect(local).expect("the stack listens"))
            .collect();
        let opened = start.elapsed();
        // The last of the handshakes may still be under way.
        let held = settle(&running, count);
        assert_eq!(held, count, "all are open");
        assert_eq!(
            running.with(|world, _| world.stack.buffered_bytes()),
            0,
            "and hold no buffers"
        );
        // Each its own part of the pattern, all under way at the same time.
        for (place, client) in clients.iter_mut().enumerate() {
            client
                .write_all(pattern::from(part(place), 500))
                .expect("it is connected");
            client.shutdown(Shutdown::Write).expect("it is connected");
        }
        for (place, client) in clients.iter_mut().enumerate() {
            let mut back = Vec::new();
            client.read_to_end(&mut back).expect("the echo");
            assert_eq!(back.len(), 500, "of {place}");
            assert_eq!(pattern::difference(part(place), &back), None, "of {place}");
        }
        let left = settle(&running, 0);
        let accepted = running.with(|world, _| world.accepted);
        assert_eq!((left, accepted), (0, count as u64));
        println!(
            "note: {count} connections opened in {opened:?}, used in {:?}",
            start.elapsed() - opened
        );
    });
}

#[test]
fn many_connections_of_the_stack_to_one_port_of_the_kernel() {
    in_namespace(
        "many::many_connections_of_the_stack_to_one_port_of_the_kernel",
        || {
            let count = allowed(wanted());
            let running = Running::start(Setup::default());
            let listener = TcpListener::bind(address(1, KERNEL, 0)).expect("a port");
            let remote = listener.local_addr().expect("an address");
            // The kernel's queue takes 128 by default.
            for part in 0..count.div_ceil(100) {
                let in_part = (count - part * 100).min(100);
                for _ in 0..in_part {
                    running.connect(remote, Exchange::new(300, 200));
                }
                let peers: Vec<_> = (0..in_part)
                    .map(|_| listener.accept().expect("a connection").0)
                    .collect();
                for mut peer in peers {
                    let mut got = Vec::new();
                    peer.write_all(pattern::from(0, 200)).expect("it is connected");
                    peer.read_to_end(&mut got).expect("what the stack sends");
                    assert_eq!((got.len(), pattern::difference(0, &got)), (300, None));
                }
                for _ in 0..in_part {
                    assert_eq!(
                        running.report(10),
                        Report {
                            sent: 300,
                            received: 200,
                            error: None
                        }
                    );
                }
            }
        },
    );
}
