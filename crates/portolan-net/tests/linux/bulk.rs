//! Many bytes, both ways, with and without offloads, over good networks and bad ones.

use std::net::TcpStream;

use portolan_net::tun::{Offloads, TunConfig};
use portolan_stack::{Duration, StackConfig};

use crate::support::driver::{KERNEL, Running, STACK, Setup, address};
use crate::support::flow::{Exchange, Report, Service};
use crate::support::impair::Impairment;
use crate::support::kernel;
use crate::support::namespace::in_namespace;

/// Bytes each way of one run, over a good network and over a bad one.
const MUCH: u64 = 8 << 20;
const LITTLE: u64 = 1 << 20;

fn setup(offloads: Offloads) -> Setup {
    Setup {
        tun: TunConfig {
            offloads,
            ..TunConfig::default()
        },
        ..Setup::default()
    }
}

/// The kernel connects to the stack, and the stack to the kernel; each sends `bytes` to the other.
fn both_ways(running: &Running, family: usize, bytes: u64) {
    let done = Report {
        sent: bytes,
        received: bytes,
        error: None,
    };
    let local = address(family, STACK, 5001);
    running.listen(
        local,
        4,
        Service::Exchange {
            send: bytes,
            expect: bytes,
        },
    );
    let stream = TcpStream::connect(local).expect("the stack listens");
    let client = kernel::exchange(stream, bytes);
    assert_eq!(running.report(60), done, "the kernel as client");
    assert_eq!(client.join().expect("the kernel's client"), bytes);

    let (remote, server) = kernel::serve(address(family, KERNEL, 0), bytes);
    running.connect(remote, Exchange::new(bytes, bytes));
    assert_eq!(running.report(60), done, "the kernel as server");
    assert_eq!(server.join().expect("the kernel's server"), bytes);
}

#[test]
fn without_offloads() {
    in_namespace("bulk::without_offloads", || {
        let running = Running::start(setup(Offloads::None));
        for family in [0, 1] {
            both_ways(&running, family, MUCH);
        }
        let counters = running.with(|world, _| *world.stack.counters());
        assert_eq!(
            (counters.bad_checksums, counters.malformed),
            (0, 0),
            "{counters:?}"
        );
    });
}

#[test]
fn with_super_segments() {
    in_namespace("bulk::with_super_segments", || {
        let running = Running::start(setup(Offloads::Segments));
        for family in [0, 1] {
            both_ways(&running, family, MUCH);
        }
        let (counters, tun) = running.with(|world, _| (*world.stack.counters(), world.tun));
        assert_eq!(
            (counters.bad_checksums, counters.malformed),
            (0, 0),
            "{counters:?}"
        );
        assert_eq!((tun.refused_in, tun.refused_out), (0, 0), "{tun:?}");
        // 64 MiB and their acknowledgments are 46,000 packets of 1500 bytes; super-segments make few of them.
        assert!(counters.packets_out < 20_000, "{counters:?}");
    });
}

#[test]
fn with_large_packets() {
    in_namespace("bulk::with_large_packets", || {
        let setup = setup(Offloads::Checksums);
        let running = Running::start(Setup {
            tun: TunConfig {
                mtu: Some(65_535),
                ..setup.tun
            },
            ..setup
        });
        for family in [0, 1] {
            both_ways(&running, family, MUCH);
        }
    });
}

/// Loss, reordering, duplicates and delay in both directions; every packet has at most the MTU.
fn over_a_bad_network(impairment: Impairment, stack: StackConfig) {
    for (seed, family) in [(1, 0), (2, 1)] {
        let setup = setup(Offloads::Checksums);
        let running = Running::start(Setup {
            stack,
            inbound: impairment,
            outbound: impairment,
            seed,
            ..setup
        });
        both_ways(&running, family, LITTLE);
        let dropped = running.with(|world, _| {
            [&world.inbound, &world.outbound]
                .into_iter()
                .flatten()
                .map(|network| network.dropped)
                .sum::<u64>()
        });
        assert!(impairment.loss == 0 || dropped > 0, "the network was bad");
    }
}

#[test]
fn losses_are_repaired() {
    in_namespace("bulk::losses_are_repaired", || {
        let impairment = Impairment {
            delay: Duration::from_millis(2),
            loss: 20,
            ..Impairment::default()
        };
        over_a_bad_network(impairment, StackConfig::default());
    });
}

#[test]
fn losses_are_repaired_without_sack_and_timestamps() {
    in_namespace("bulk::losses_are_repaired_without_sack_and_timestamps", || {
        let impairment = Impairment {
            delay: Duration::from_millis(2),
            loss: 10,
            ..Impairment::default()
        };
        let mut stack = StackConfig::default();
        (stack.tcp.sack, stack.tcp.timestamps) = (false, false);
        over_a_bad_network(impairment, stack);
    });
}

#[test]
fn reordering_and_duplicates_change_nothing() {
    in_namespace("bulk::reordering_and_duplicates_change_nothing", || {
        let impairment = Impairment {
            delay: Duration::from_millis(3),
            jitter: Duration::from_millis(2),
            reorder: 100,
            duplicate: 20,
            loss: 5,
            ..Impairment::default()
        };
        over_a_bad_network(impairment, StackConfig::default());
    });
}
