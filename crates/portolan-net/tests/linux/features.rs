//! What both sides agree on, seen from the kernel's side by `ss` and `nstat`.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use portolan_net::tun::{Offloads, TunConfig};
use portolan_stack::{Duration, StackConfig};

use crate::support::driver::{KERNEL, Running, STACK, Setup, address};
use crate::support::flow::{Exchange, Flow, Report, Service};
use crate::support::impair::Impairment;
use crate::support::kernel;
use crate::support::namespace::{has, in_namespace, skipped};
use crate::support::pattern;

/// What `ss` says of the kernel's connections to the stack.
fn kernel_sees(filter: &str) -> String {
    let output = Command::new("ss")
        .args(["-Htin", filter])
        .output()
        .expect("ss is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A counter of the kernel's, of this namespace.
fn nstat(name: &str) -> u64 {
    let output = Command::new("nstat")
        .args(["-asz", name])
        .output()
        .expect("nstat is installed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .expect("the counter");
    line.split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("a number")
}

#[test]
fn options_are_agreed_on() {
    in_namespace("features::options_are_agreed_on", || {
        if !has("options", "ss") {
            return;
        }
        let mut stack = StackConfig::default();
        // 4 MiB are named by shifting 7 bits.
        stack.tcp.receive_buffer = 4 << 20;
        let running = Running::start(Setup {
            stack,
            ..Setup::default()
        });
        let local = address(0, STACK, 5001);
        running.listen(local, 4, Service::Hold);
        let _client = TcpStream::connect(local).expect("the stack listens");
        let seen = kernel_sees("dport = :5001");
        // 1500 bytes without the headers, and without the timestamps in each segment.
        assert!(seen.contains("mss:1448"), "{seen}");
        let (ours, _) = seen
            .split("wscale:")
            .nth(1)
            .and_then(|rest| rest.split_once(','))
            .expect("two numbers");
        assert_eq!(ours, "7", "{seen}");
    });
}

#[test]
fn a_window_beyond_64_kib_fills_shuts_and_opens_again() {
    in_namespace(
        "features::a_window_beyond_64_kib_fills_shuts_and_opens_again",
        || {
            // Of fixed size: a program that does not read makes no buffer grow.
            let mut stack = StackConfig::default();
            (stack.tcp.receive_buffer, stack.tcp.initial_receive_buffer) = (1 << 20, 1 << 20);
            let running = Running::start(Setup {
                stack,
                ..Setup::default()
            });
            let local = address(0, STACK, 5001);
            running.listen(local, 4, Service::Hold);
            let mut client = TcpStream::connect(local).expect("the stack listens");
            client
                .set_write_timeout(Some(std::time::Duration::from_millis(700)))
                .expect("an option");
            // Until nothing fits any more: the stack's buffer is full, and the kernel's.
            let mut sent = 0;
            loop {
                match client.write(pattern::from(sent, 1 << 16)) {
                    Ok(len) => sent += len as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
            let queued = running.with(|world, _| {
                let id = *world.flows.keys().next().expect("a connection");
                world.stack.info(id).expect("it is there").receive_queue as u64
            });
            assert!(queued > 500_000, "more than an unscaled window waits: {queued}");
            assert!(sent > queued, "and the kernel holds the rest");
            // Now somebody reads.
            running.with(move |world, now| {
                let id = *world.flows.keys().next().expect("a connection");
                let mut exchange = Exchange::new(0, sent);
                let mut buffer = vec![0; 1 << 16];
                assert_eq!(exchange.turn(now, &mut world.stack, id, &mut buffer), None);
                world.flows.insert(id, Flow::Exchange(exchange));
            });
            client
                .shutdown(std::net::Shutdown::Write)
                .expect("it is connected");
            assert_eq!(
                running.report(30),
                Report {
                    sent: 0,
                    received: sent,
                    error: None
                }
            );
        },
    );
}

#[test]
fn only_what_was_lost_is_sent_again() {
    in_namespace("features::only_what_was_lost_is_sent_again", || {
        if !has("retransmissions", "nstat") {
            return;
        }
        const BYTES: u64 = 4 << 20;
        let impairment = Impairment {
            delay: Duration::from_millis(3),
            loss: 10,
            ..Impairment::default()
        };
        // A queue that does not overflow on its own.
        let offloads = Offloads::Checksums;
        let tun = TunConfig {
            offloads,
            queue_len: Some(20_000),
            ..TunConfig::default()
        };
        let setup = Setup {
            tun,
            inbound: impairment,
            outbound: impairment,
            seed: 3,
            ..Setup::default()
        };
        let running = Running::start(setup);
        let (remote, server) = kernel::serve(address(0, KERNEL, 0), 0);
        let id = running.connect(remote, Exchange::new(BYTES, 0));
        assert_eq!(server.join().expect("the kernel's server"), BYTES);
        let lost = |world: &mut crate::support::driver::World| {
            [&world.inbound, &world.outbound]
                .map(|network| network.as_ref().map_or(0, |network| network.dropped))
        };
        let (again, [_, dropped]) = running.with(move |world, _| {
            (
                world.stack.info(id).map(|info| info.bytes_retransmitted),
                lost(world),
            )
        });
        // The handle is gone once both sides are done: then the report has come.
        if let Some(again) = again {
            assert!(
                again / 1448 <= dropped * 5 / 4 + 10,
                "{again} bytes for {dropped} losses"
            );
        }
        assert!(dropped > 10, "{dropped}");
        running.report(10);

        // Our SACK blocks tell the kernel exactly what is missing. Where this thread was kept from its processor for
        // longer than the kernel's timeout, the kernel sends everything again: that says nothing, and is tried again.
        let mut tries = Vec::new();
        for port in 5001..5009 {
            let before = nstat("TcpRetransSegs");
            let timeouts_before = nstat("TcpExtTCPTimeouts");
            let lost_before = running.with(move |world, _| lost(world)[0]);
            running.listen(
                address(0, STACK, port),
                4,
                Service::Exchange {
                    send: 0,
                    expect: BYTES,
                },
            );
            let client = TcpStream::connect(address(0, STACK, port)).expect("the stack listens");
            kernel::exchange(client, BYTES).join().expect("the exchange");
            running.report(10);
            let lost_now = running.with(move |world, _| lost(world)[0]) - lost_before;
            let again = nstat("TcpRetransSegs") - before;
            let timeouts = nstat("TcpExtTCPTimeouts") - timeouts_before;
            assert!(lost_now > 10, "{lost_now}");
            tries.push((again, lost_now, timeouts));
            if again <= lost_now * 5 / 4 + 10 {
                break;
            }
        }
        let is_exact = tries
            .last()
            .is_some_and(|&(again, lost, _)| again <= lost * 5 / 4 + 10);
        if !is_exact && tries.iter().all(|&(.., timeouts)| timeouts > 0) {
            return skipped("the kernel timed out in each of eight tries: this machine is too busy to tell");
        }
        assert!(is_exact, "segments sent again, losses, timeouts: {tries:?}");
        assert_eq!(nstat("TcpExtTCPSackFailures") + nstat("TcpExtTCPSACKDiscard"), 0);
    });
}

#[test]
fn marks_slow_both_sides_down_without_a_loss() {
    in_namespace("features::marks_slow_both_sides_down_without_a_loss", || {
        const BYTES: u64 = 4 << 20;
        if !has("marks", "nstat") {
            return;
        }
        fs::write("/proc/sys/net/ipv4/tcp_ecn", "1").expect("a setting of this namespace");
        let mut stack = StackConfig::default();
        stack.tcp.ecn = true;
        let impairment = Impairment {
            delay: Duration::from_millis(5),
            rate: 4_000_000,
            // A slow start that hears of the marks half a round trip later fits in.
            queue: 1_600_000,
            mark: 50_000,
            ..Impairment::default()
        };
        let tun = TunConfig {
            offloads: Offloads::Checksums,
            ..TunConfig::default()
        };
        let setup = Setup {
            tun,
            stack,
            inbound: impairment,
            outbound: impairment,
            seed: 4,
        };
        let running = Running::start(setup);
        let counts = |running: &Running| {
            running.with(|world, _| {
                [&world.inbound, &world.outbound].map(|network| {
                    network
                        .as_ref()
                        .map_or((0, 0), |network| (network.marked, network.dropped))
                })
            })
        };

        let (remote, server) = kernel::serve(address(0, KERNEL, 0), 0);
        running.connect(remote, Exchange::new(BYTES, 0));
        assert_eq!(server.join().expect("the kernel's server"), BYTES);
        running.report(10);
        let [_, (marked, dropped)] = counts(&running);
        assert!(marked > 0, "the stack's packets can be marked");
        assert_eq!(dropped, 0, "the kernel's echo of the marks slowed the stack down");

        running.listen(
            address(0, STACK, 5001),
            4,
            Service::Exchange {
                send: 0,
                expect: BYTES,
            },
        );
        let client = TcpStream::connect(address(0, STACK, 5001)).expect("the stack listens");
        kernel::exchange(client, BYTES).join().expect("the exchange");
        running.report(10);
        let [(marked, _), _] = counts(&running);
        assert!(marked > 0, "the kernel's packets can be marked");
        assert!(nstat("TcpExtTCPDeliveredCE") > 0, "the stack echoes marks");
    });
}

/// A second namespace behind a link of 1,300 bytes: what is larger comes back as an ICMP error of this one, the router.
#[test]
fn a_narrow_path_is_found() {
    in_namespace("features::a_narrow_path_is_found", || {
        const BYTES: u64 = 1 << 20;
        let running = Running::start(Setup::default());
        let Ok(mut beyond) = Command::new("unshare").args(["--net", "sleep", "600"]).spawn() else {
            return skipped("a_narrow_path_is_found: no second namespace");
        };
        let inside = format!("/proc/{}/ns/net", beyond.id());
        while fs::read_link(&inside).ok() == fs::read_link("/proc/self/ns/net").ok() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let script = "set -e
            ip link add narrow type veth peer name far
            ip link set far netns $1
            ip addr add 10.77.0.1/24 dev narrow
            ip addr add fd77::1/64 dev narrow nodad
            ip link set narrow mtu 1300 up
            echo 1 > /proc/sys/net/ipv4/ip_forward
            echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
            nsenter -n -t $1 sh -ec 'ip addr add 10.77.0.2/24 dev far
                ip addr add fd77::2/64 dev far nodad
                ip link set far up
                ip route add default via 10.77.0.1
                ip -6 route add default via fd77::1'";
        let output = Command::new("sh")
            .args(["-c", script, "sh", &beyond.id().to_string()])
            .output()
            .expect("sh");
        if !output.status.success() {
            drop(beyond.kill());
            return skipped(&format!(
                "a_narrow_path_is_found: {}",
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        for remote in ["10.77.0.2:7", "[fd77::2]:7"] {
            // A listener of the far namespace, by a program there: it sends back how many bytes came.
            let program = "import socket,sys
host,port=sys.argv[1].rsplit(':',1)
host=host.strip('[]')
listener=socket.create_server((host,int(port)),family=socket.AF_INET6 if ':' in host else socket.AF_INET)
print('ready',flush=True)
peer,_=listener.accept()
count=0
while True:
    data=peer.recv(1<<16)
    if not data: break
    count+=len(data)
print(count,flush=True)
";
            let id = beyond.id().to_string();
            let child = Command::new("nsenter")
                .args(["-n", "-t", &id, "python3", "-c", program, remote])
                .stdout(Stdio::piped())
                .spawn();
            let Ok(mut child) = child else {
                skipped("a_narrow_path_is_found: no nsenter");
                break;
            };
            let mut output = child.stdout.take().expect("a pipe");
            let mut ready = [0; 6];
            if output.read_exact(&mut ready).is_err() {
                skipped("a_narrow_path_is_found: no python3");
                break;
            }
            let connection = running.connect(remote.parse().expect("an address"), Exchange::new(BYTES, 0));
            let mut count = String::new();
            output.read_to_string(&mut count).expect("text");
            assert_eq!(count.trim(), BYTES.to_string(), "{remote}");
            child.wait().expect("it ended");
            let mss = running.with(move |world, _| world.stack.info(connection).map(|info| info.send_mss));
            assert!(mss.is_none_or(|mss| mss <= 1300 - 40 - 12), "{mss:?}");
            assert_eq!(running.report(10).error, None, "{remote}");
        }
        drop(beyond.kill());
        drop(beyond.wait());
    });
}

#[test]
fn the_links_mtu_may_shrink() {
    in_namespace("features::the_links_mtu_may_shrink", || {
        const BYTES: u64 = 1 << 20;
        let running = Running::start(Setup::default());
        let local = address(0, STACK, 5001);
        running.listen(
            local,
            4,
            Service::Exchange {
                send: BYTES,
                expect: 2 * BYTES,
            },
        );
        let mut client = TcpStream::connect(local).expect("the stack listens");
        client
            .write_all(&(0..BYTES).fold(Vec::new(), |mut all, _| {
                if (all.len() as u64) < BYTES {
                    all.extend_from_slice(pattern::from(all.len() as u64, BYTES - all.len() as u64));
                }
                all
            }))
            .expect("the stack reads");
        let status = Command::new("ip")
            .args(["link", "set", &running.tun_name, "mtu", "1000"])
            .status();
        assert!(status.is_ok_and(|status| status.success()));
        let reader = client.try_clone().expect("a descriptor");
        let reading = std::thread::spawn(move || kernel::receive(&reader));
        let mut sent = BYTES;
        while sent < 2 * BYTES {
            let bytes = pattern::from(sent, 2 * BYTES - sent);
            client.write_all(bytes).expect("the stack reads");
            sent += bytes.len() as u64;
        }
        client
            .shutdown(std::net::Shutdown::Write)
            .expect("it is connected");
        assert_eq!(reading.join().expect("the reader"), BYTES);
        assert_eq!(
            running.report(30),
            Report {
                sent: BYTES,
                received: 2 * BYTES,
                error: None
            }
        );
    });
}

/// The kernel's side of a listener that takes nobody: its SYN queue answers, and the data waits.
#[test]
fn a_slow_server_of_the_kernel_loses_nothing() {
    in_namespace("features::a_slow_server_of_the_kernel_loses_nothing", || {
        const BYTES: u64 = 8 << 20;
        let running = Running::start(Setup::default());
        let listener = TcpListener::bind(address(1, KERNEL, 0)).expect("a port");
        running.connect(
            listener.local_addr().expect("an address"),
            Exchange::new(BYTES, 0),
        );
        // Our sender fills the kernel's buffer, and probes its shut window.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let (peer, _) = listener.accept().expect("a connection");
        assert_eq!(kernel::receive(&peer), BYTES);
        drop(peer);
        assert_eq!(
            running.report(10),
            Report {
                sent: BYTES,
                received: 0,
                error: None
            }
        );
    });
}
