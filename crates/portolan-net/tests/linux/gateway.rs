//! What a gateway on a TUN device needs of the stack, with the kernel as the program behind it.

use std::io::{Error, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket as KernelSocket};
use std::process::Command;
use std::time::Duration;

use portolan_core::table::Scope;
use portolan_core::wire::UnreachableCode;
use portolan_net::tun::{Tun, TunConfig, TunLink};
use portolan_net::{EchoResponder, IcmpError, Stack, TcpListener, TcpStream, UdpSocket};
use portolan_stack::UdpOption;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::support::driver::{KERNEL, STACK, address};
use crate::support::namespace::{has, in_namespace};

/// Only bounds a hang.
const PATIENCE: Duration = Duration::from_secs(60);

const STRANGERS: [&str; 2] = ["192.0.2.7", "2001:db8::7"];

/// Linux's error numbers.
const ACCESS: i32 = 13;
const TOO_LONG: i32 = 90;
const REFUSED: i32 = 111;
const HOST_UNREACHABLE: i32 = 113;

/// A stack on a device to which the kernel's routes to strangers lead.
fn gateway() -> (Stack, JoinHandle<std::io::Result<()>>, String) {
    let config = TunConfig::default();
    let tun = Tun::open(&config).expect("a device");
    for (family, bits) in [(0, 24), (1, 64)] {
        tun.add_address(address(family, KERNEL, 0).ip(), bits)
            .expect("an address");
    }
    tun.up(&config).expect("it comes up");
    for (version, net) in [("-4", "192.0.2.0/24"), ("-6", "2001:db8::/32")] {
        ip(&[version, "route", "add", net, "dev", tun.name()]);
    }
    let (name, offloads) = (tun.name().to_owned(), tun.offloads());
    let queue = tun.into_queues().pop().expect("a queue");
    let link = TunLink::new(queue, 1500, offloads).expect("a link");
    let (stack, driver) = Stack::builder()
        .address(address(0, STACK, 0).ip(), 24)
        .address(address(1, STACK, 0).ip(), 64)
        .build(link)
        .expect("a stack");
    (stack, tokio::spawn(driver), name)
}

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status();
    assert!(status.expect("ip runs").success(), "ip {args:?}");
}

/// Runs a test in a namespace and a runtime.
fn run<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    in_namespace(test, || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(body());
    });
}

/// A socket of the kernel that sends to a stranger, and hears of errors.
fn sender(to: SocketAddr) -> KernelSocket {
    let family = usize::from(to.is_ipv6());
    let socket = KernelSocket::bind(address(family, KERNEL, 0)).expect("a socket");
    socket.connect(to).expect("a route");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

#[test]
fn the_kernel_hears_why_nobody_answers_its_datagrams() {
    run(
        "gateway::the_kernel_hears_why_nobody_answers_its_datagrams",
        async || {
            let (stack, _driver, _) = gateway();
            let here = UdpSocket::bind_scope(&stack, Scope::TRANSPARENT).expect("nobody has it");
            let unreachable = IcmpError::Unreachable;
            for stranger in STRANGERS {
                let to = SocketAddr::new(stranger.parse().expect("an address"), 53);
                let forbidden = if to.is_ipv4() { HOST_UNREACHABLE } else { ACCESS };
                for (why, errno) in [
                    (unreachable(UnreachableCode::Port), REFUSED),
                    (unreachable(UnreachableCode::Prohibited), forbidden),
                    (IcmpError::TooBig { mtu: 1300 }, TOO_LONG),
                ] {
                    // In fragments, too.
                    for len in [0, 100, 1400, 4000] {
                        let program = spawn_blocking(move || {
                            let socket = sender(to);
                            socket.send(&vec![7; len])?;
                            socket.recv(&mut [0; 9])
                        });
                        let mut bytes = vec![0; 5000];
                        let datagram = timeout(PATIENCE, here.recv_msg(&mut bytes))
                            .await
                            .expect("it comes");
                        let datagram = datagram.expect("the driver runs");
                        assert_eq!((datagram.local, datagram.len), (to, len));
                        here.reject(&datagram, &bytes[..len], why).expect("room");
                        let error = program.await.expect("no panic").expect_err("an error");
                        assert_eq!(error.raw_os_error(), Some(errno), "{why:?} {len}: {error}");
                    }
                }
            }
        },
    );
}

/// The program has no socket: its kernel says so, and the gateway hears whose datagram it was.
#[test]
fn the_kernel_says_that_nobody_takes_a_datagram_from_outside() {
    run(
        "gateway::the_kernel_says_that_nobody_takes_a_datagram_from_outside",
        async || {
            let (stack, _driver, _) = gateway();
            let here = UdpSocket::bind_scope(&stack, Scope::TRANSPARENT).expect("nobody has it");
            here.set_option(UdpOption::ReportErrors(true))
                .expect("it is open");
            for (family, stranger) in STRANGERS.into_iter().enumerate() {
                let client = SocketAddr::new(stranger.parse().expect("an address"), 40_000);
                let closed = address(family, KERNEL, 9);
                here.send_msg(b"anybody?", client, closed).await.expect("room");
                let told = timeout(PATIENCE, here.error()).await.expect("it is told");
                let error = told.expect("the driver is there");
                assert_eq!((error.local, error.remote), (client, closed));
                assert_eq!(error.reporter, closed.ip());
            }
        },
    );
}

#[test]
fn the_kernels_server_sees_the_clients_address() {
    run(
        "gateway::the_kernels_server_sees_the_clients_address",
        async || {
            let (stack, _driver, _) = gateway();
            for (family, stranger) in STRANGERS.into_iter().enumerate() {
                let server = std::net::TcpListener::bind(address(family, KERNEL, 0)).expect("a port");
                let to = server.local_addr().expect("bound");
                let program = spawn_blocking(move || {
                    let (mut stream, peer) = server.accept()?;
                    let mut question = String::new();
                    stream.read_to_string(&mut question)?;
                    stream.write_all(question.to_uppercase().as_bytes())?;
                    Ok::<_, Error>(peer)
                });
                let client = SocketAddr::new(stranger.parse().expect("an address"), 22);
                let connecting = TcpStream::connect_transparent(&stack, client, to);
                let mut stream = timeout(PATIENCE, connecting)
                    .await
                    .expect("an answer")
                    .expect("it listens");
                stream.write_all(b"question").await.expect("room");
                stream.finish().expect("open");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.expect("an answer");
                assert_eq!(answer, "QUESTION");
                assert_eq!(program.await.expect("no panic").expect("a connection"), client);
            }
        },
    );
}

#[test]
fn ping_hears_the_program_that_answers_for_others() {
    const TEST: &str = "gateway::ping_hears_the_program_that_answers_for_others";
    if !has(TEST, "ping") {
        return;
    }
    run(TEST, async || {
        let (stack, _driver, _) = gateway();
        let responder = EchoResponder::bind(&stack).expect("nobody has it");
        let answering = tokio::spawn(async move {
            let mut bytes = vec![0; 65_535];
            let mut sizes = Vec::new();
            while let Ok(request) = responder.recv(&mut bytes).await {
                sizes.push(request.len);
                let data = &bytes[..request.len];
                if request.destination.to_string().ends_with('8') {
                    let why = IcmpError::Unreachable(UnreachableCode::Host);
                    responder.reject(&request, data, why).expect("room");
                } else {
                    responder.reply(&request, data).expect("room");
                }
                if sizes.len() == 6 {
                    break;
                }
            }
            sizes
        });
        for stranger in STRANGERS {
            // The second in fragments.
            for size in ["56", "3000"] {
                let (answered, text) = ping(stranger, size).await;
                assert!(answered && text.contains(" 0% packet loss"), "{text}");
            }
            let silent = stranger.replace('7', "8");
            let (answered, text) = ping(&silent, "56").await;
            let unreachable = text.contains("Destination Host Unreachable")
                || text.contains("Destination unreachable: Address unreachable");
            assert!(!answered && unreachable, "{text}");
        }
        // The stack's own addresses are its own affair.
        for family in [0, 1] {
            let own: IpAddr = address(family, STACK, 0).ip();
            let (answered, text) = ping(&own.to_string(), "56").await;
            assert!(answered, "{text}");
        }
        let sizes = timeout(PATIENCE, answering)
            .await
            .expect("six requests")
            .expect("no panic");
        assert_eq!(sizes, [56, 3000, 56, 56, 3000, 56]);
    });
}

/// Whoever waits learns that nothing will come any more.
#[test]
fn a_device_that_is_deleted_ends_its_stack() {
    run("gateway::a_device_that_is_deleted_ends_its_stack", async || {
        for is_served_before in [false, true] {
            let (stack, driver, name) = gateway();
            let listener = TcpListener::bind(&stack, address(0, STACK, 80)).expect("nobody has it");
            if is_served_before {
                let client = spawn_blocking(|| std::net::TcpStream::connect(address(0, STACK, 80)));
                listener.accept().await.expect("it comes");
                client.await.expect("no panic").expect("a connection");
            }
            let waiting = tokio::spawn(async move { listener.accept().await.map(drop) });
            let datagrams = UdpSocket::bind(&stack, address(0, STACK, 53)).expect("nobody has it");
            ip(&["link", "delete", &name]);
            let ended = timeout(PATIENCE, driver)
                .await
                .expect("it ends")
                .expect("no panic");
            let error = ended.expect_err("the device is gone");
            assert_eq!(error.kind(), std::io::ErrorKind::NetworkDown);
            assert!(error.to_string().contains("interface is gone"), "{error}");
            let woken = timeout(PATIENCE, waiting)
                .await
                .expect("it is woken")
                .expect("no panic");
            let error = woken.expect_err("nothing comes any more").to_string();
            assert!(
                error.contains("the driver of the stack has ended: the network interface is gone"),
                "{error}"
            );
            datagrams
                .recv_from(&mut [0; 9])
                .await
                .expect_err("nothing comes any more");
        }
    });
}

#[test]
fn two_programs_do_not_share_one_device() {
    run("gateway::two_programs_do_not_share_one_device", async || {
        for queues in [1, 2] {
            let config = TunConfig {
                name: format!("shared{queues}"),
                queues,
                persistent: true,
                ..TunConfig::default()
            };
            let first = Tun::open(&config).expect("a device");
            let refused = Tun::open(&config).expect_err("it is in use").to_string();
            assert!(refused.contains("another program"), "{refused}");
            drop(first);
            Tun::open(&config).expect("nobody holds it any more");
        }
    });
}

/// Asks once; says whether there was an answer, and what ping wrote.
async fn ping(host: &str, size: &str) -> (bool, String) {
    let mut command = Command::new("ping");
    command.args(["-c", "1", "-W", "20", "-s", size, host]);
    let output = spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.expect("ping runs");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}
