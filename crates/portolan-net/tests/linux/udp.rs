//! Datagrams to and from the kernel.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use portolan_net::tun::{Offloads, Tun, TunConfig};
use portolan_stack::{Instant, Stack, UdpId, UdpOption};

use crate::support::driver::{KERNEL, Running, STACK, Setup, address};
use crate::support::namespace::{has, in_namespace, skipped};
use crate::support::pattern;

/// Every datagram goes back to where it came from.
fn echo(stack: &mut Stack, _now: Instant, id: UdpId) {
    let mut buffer = [0; 65_535];
    while let Ok(Some(datagram)) = stack.receive_datagram(id, &mut buffer) {
        let bytes = &buffer[..datagram.len];
        stack
            .send_datagram(id, datagram.local.ip(), datagram.remote, bytes)
            .expect("there is room");
    }
}

fn start(offloads: Offloads) -> Running {
    let tun = TunConfig {
        offloads,
        ..TunConfig::default()
    };
    let running = Running::start(Setup {
        tun,
        ..Setup::default()
    });
    running.with(|world, _| {
        for family in [0, 1] {
            world
                .stack
                .bind_udp(address(family, STACK, 4000))
                .expect("the port is free");
        }
        world.datagrams = Some(echo);
    });
    running
}

fn client(family: usize) -> UdpSocket {
    let socket = UdpSocket::bind(address(family, KERNEL, 0)).expect("a socket");
    socket.connect(address(family, STACK, 4000)).expect("a route");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    socket
}

#[test]
fn datagrams_come_back_as_they_went() {
    in_namespace("udp::datagrams_come_back_as_they_went", || {
        for offloads in [Offloads::None, Offloads::Datagrams] {
            let running = start(offloads);
            for family in [0, 1] {
                let socket = client(family);
                let mut buffer = [0; 65_535];
                for len in [0, 1, 2, 511, 1000, 1452] {
                    socket.send(pattern::from(0, len)).expect("a route");
                    let got = socket.recv(&mut buffer).expect("the echo");
                    assert_eq!(got as u64, len);
                    assert_eq!(pattern::difference(0, &buffer[..got]), None);
                }
            }
            let counters = running.with(|world, _| *world.stack.counters());
            assert_eq!(
                (counters.bad_checksums, counters.malformed),
                (0, 0),
                "{counters:?}"
            );
        }
    });
}

#[test]
fn many_datagrams_come_back_in_order() {
    in_namespace("udp::many_datagrams_come_back_in_order", || {
        let running = start(Offloads::Segments);
        let socket = client(0);
        let mut buffer = [0; 100];
        // As many at once as buffers surely take.
        for round in 0..100_u32 {
            for number in 0..50_u32 {
                socket
                    .send(&(round * 50 + number).to_be_bytes())
                    .expect("a route");
            }
            for number in 0..50_u32 {
                let len = socket.recv(&mut buffer).expect("the echo");
                assert_eq!(buffer[..len], (round * 50 + number).to_be_bytes());
            }
        }
        let counters = running.with(|world, _| *world.stack.counters());
        assert_eq!(counters.datagrams_dropped, 0, "{counters:?}");
    });
}

/// A datagram that the kernel cuts into fragments is put together.
#[test]
fn fragments_of_the_kernel_are_put_together() {
    in_namespace("udp::fragments_of_the_kernel_are_put_together", || {
        let running = start(Offloads::None);
        for family in [0, 1] {
            let socket = client(family);
            running.with(|world, _| world.datagrams = Some(count));
            for len in [3000, 20_000, 65_000] {
                socket.send(pattern::from(0, len)).expect("a route");
            }
            let mut buffer = [0; 16];
            for len in [3000_u64, 20_000, 65_000] {
                let got = socket.recv(&mut buffer).expect("its length");
                assert_eq!(buffer[..got], len.to_be_bytes());
            }
        }
    });
}

/// Answers with the length, if the content is right.
fn count(stack: &mut Stack, _now: Instant, id: UdpId) {
    let mut buffer = [0; 65_535];
    while let Ok(Some(datagram)) = stack.receive_datagram(id, &mut buffer) {
        let bytes = &buffer[..datagram.len];
        let len = if pattern::difference(0, bytes).is_none() {
            bytes.len() as u64
        } else {
            0
        };
        stack
            .send_datagram(id, datagram.local.ip(), datagram.remote, &len.to_be_bytes())
            .expect("there is room");
    }
}

/// What a program of the kernel gives in one call goes and comes as one packet, and so does the stack's.
#[test]
fn super_datagrams_pass_whole() {
    const TEST: &str = "udp::super_datagrams_pass_whole";
    in_namespace(TEST, || {
        if !has(TEST, "python3") {
            return;
        }
        let tun = TunConfig {
            offloads: Offloads::Datagrams,
            ..TunConfig::default()
        };
        if Tun::open(&tun).is_ok_and(|tun| tun.offloads() < Offloads::Datagrams) {
            return skipped(&format!(
                "{TEST}: this kernel has no segmentation of UDP for TUN devices"
            ));
        }
        let running = Running::start(Setup {
            tun,
            ..Setup::default()
        });
        for family in [0, 1] {
            running.with(move |world, _| {
                let id = world
                    .stack
                    .bind_udp(address(family, STACK, 4000))
                    .expect("the port is free");
                let merged = world.stack.set_udp(id, UdpOption::TakeMerged(true));
                merged.expect("it is bound");
                world.datagrams = Some(pieces);
            });
            // 30 datagrams of 1,000 bytes and one of 500, in one call (UDP_SEGMENT); back come as many.
            let program = "import socket,sys
family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s=socket.socket(family,socket.SOCK_DGRAM)
s.settimeout(5)
s.setsockopt(17,103,1000)
data=bytes(i//1000 for i in range(30500))
s.sendto(data,(sys.argv[1],4000))
back=[s.recv(2000) for _ in range(31)]
assert [len(b) for b in back]==[1000]*30+[500],[len(b) for b in back]
assert b''.join(back)==data
";
            let host = address(family, STACK, 0).ip().to_string();
            let output = Command::new("python3")
                .args(["-c", program, &host])
                .output()
                .expect("it is there");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let (counters, tun) = running.with(|world, _| (*world.stack.counters(), world.tun));
        assert_eq!(
            (tun.refused_in, tun.refused_out, counters.bad_checksums),
            (0, 0, 0),
            "{tun:?} {counters:?}"
        );
        // One packet each way for a family, and what the kernel says of its own accord.
        assert!(counters.packets_out < 10, "{counters:?}");
    });
}

/// Sends back in one piece what came in one.
fn pieces(stack: &mut Stack, _now: Instant, id: UdpId) {
    let mut buffer = [0; 65_535];
    while let Ok(Some(datagram)) = stack.receive_datagram(id, &mut buffer) {
        let bytes = &buffer[..datagram.len];
        let piece_len = datagram.piece_len.expect("a super-datagram");
        stack
            .send_pieces(id, datagram.local.ip(), datagram.remote, bytes, piece_len)
            .expect("there is room");
    }
}

#[test]
fn where_nobody_listens_the_kernel_hears_of_it() {
    in_namespace("udp::where_nobody_listens_the_kernel_hears_of_it", || {
        let running = start(Offloads::Segments);
        for family in [0, 1] {
            let socket = client(family);
            socket.connect(address(family, STACK, 9)).expect("a route");
            socket
                .set_read_timeout(Some(Duration::from_secs(1)))
                .expect("a timeout");
            // No word of it is sure to arrive: a program asks again.
            let told = (0..5).any(|_| {
                // The error of the datagram before may come here.
                let sent = socket.send(b"anyone");
                let error = sent
                    .and_then(|_| socket.recv(&mut [0; 8]))
                    .expect_err("nobody is there");
                error.kind() == ErrorKind::ConnectionRefused
            });
            let (counters, tun) = running.with(|world, _| (*world.stack.counters(), world.tun));
            assert!(told, "{counters:?} {tun:?}");
        }
    });
}

#[test]
fn the_stack_sends_first() {
    in_namespace("udp::the_stack_sends_first", || {
        let running = start(Offloads::Segments);
        for family in [0, 1] {
            let socket = UdpSocket::bind(address(family, KERNEL, 0)).expect("a socket");
            socket
                .set_read_timeout(Some(Duration::from_secs(5)))
                .expect("a timeout");
            let remote = socket.local_addr().expect("an address");
            running.with(move |world, _| {
                let id = world.stack.bind_udp(address(family, STACK, 0)).expect("a port");
                let source = address(family, STACK, 0).ip();
                world
                    .stack
                    .send_datagram(id, source, remote, b"first")
                    .expect("there is room");
            });
            let mut buffer = [0; 16];
            let (len, from) = socket.recv_from(&mut buffer).expect("it comes");
            assert_eq!(
                (&buffer[..len], from.ip()),
                (&b"first"[..], address(family, STACK, 0).ip())
            );
        }
    });
}
