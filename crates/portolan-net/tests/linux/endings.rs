//! All ways for a connection to end, each begun by either side.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use portolan_net::tun::TunConfig;
use portolan_stack::{Duration, Keepalive, StackConfig};
use socket2::{SockRef, TcpKeepalive};

use crate::support::driver::{KERNEL, Running, STACK, Setup, address};
use crate::support::flow::{Exchange, Report, Service};
use crate::support::impair::Impairment;
use crate::support::kernel;
use crate::support::namespace::in_namespace;
use crate::support::pattern;

const MUCH: u64 = 2 << 20;

#[test]
fn half_of_a_connection_lives_on() {
    in_namespace("endings::half_of_a_connection_lives_on", || {
        let running = Running::start(Setup::default());
        for family in [0, 1] {
            for (port, kernel_sends, stack_sends) in
                [(1, 10, MUCH), (2, MUCH, 10), (3, 0, MUCH), (4, MUCH, 0)]
            {
                // Who has little to send finishes at once, and the other goes on for long.
                let local = address(family, STACK, 5000 + port);
                running.listen(
                    local,
                    4,
                    Service::Exchange {
                        send: stack_sends,
                        expect: kernel_sends,
                    },
                );
                let stream = TcpStream::connect(local).expect("the stack listens");
                let received = kernel::exchange(stream, kernel_sends)
                    .join()
                    .expect("the exchange");
                assert_eq!(received, stack_sends);
                let done = Report {
                    sent: stack_sends,
                    received: kernel_sends,
                    error: None,
                };
                assert_eq!(running.report(30), done);
            }
        }
    });
}

#[test]
fn a_reset_of_the_kernel_is_heard() {
    in_namespace("endings::a_reset_of_the_kernel_is_heard", || {
        let running = Running::start(Setup::default());
        let local = address(0, STACK, 5001);
        running.listen(local, 4, Service::Exchange { send: 0, expect: 1 });
        let stream = TcpStream::connect(local).expect("the stack listens");
        SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .expect("an option");
        drop(stream);
        let error = running.report(10).error.expect("it was reset");
        assert!(error.contains("reset"), "{error}");
    });
}

#[test]
fn a_reset_of_the_stack_is_heard() {
    in_namespace("endings::a_reset_of_the_stack_is_heard", || {
        let running = Running::start(Setup::default());
        for family in [0, 1] {
            let local = address(family, STACK, 5001);
            running.listen(local, 4, Service::Reset);
            let mut stream = TcpStream::connect(local).expect("the stack listens");
            stream.write_all(b"go").expect("it is connected");
            let error = stream.read(&mut [0; 8]).expect_err("it was reset");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn where_nobody_listens_a_connection_is_refused() {
    in_namespace("endings::where_nobody_listens_a_connection_is_refused", || {
        let running = Running::start(Setup::default());
        for family in [0, 1] {
            let error = TcpStream::connect(address(family, STACK, 9)).expect_err("nobody listens");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            running.connect(address(family, KERNEL, 9), Exchange::new(0, 0));
            let error = running.report(10).error.expect("nobody listens");
            assert!(error.contains("refused"), "{error}");
        }
    });
}

#[test]
fn the_kernel_lingers_and_goes_on_in_the_background() {
    in_namespace(
        "endings::the_kernel_lingers_and_goes_on_in_the_background",
        || {
            let running = Running::start(cuttable(StackConfig::default()));
            let time = std::time::Duration::from_secs(1);
            let lingering = |port, nonblocking| {
                let local = address(0, STACK, port);
                running.listen(local, 4, Service::Exchange { send: 0, expect: 10 });
                let mut stream = TcpStream::connect(local).expect("the stack listens");
                stream.write_all(pattern::from(0, 10)).expect("there is room");
                SockRef::from(&stream).set_linger(Some(time)).expect("an option");
                stream.set_nonblocking(nonblocking).expect("an option");
                stream
            };
            // While nothing passes closing takes the whole time, whether the socket may block or not; then it succeeds all the
            // same, and the kernel goes on.
            for (port, nonblocking) in [(5001, false), (5002, true)] {
                let stream = lingering(port, nonblocking);
                cut(&running);
                let start = std::time::Instant::now();
                drop(stream);
                assert!(start.elapsed() >= time, "{:?}", start.elapsed());
                mend(&running);
                let report = running.report(60);
                assert_eq!((report.received, report.error), (10, None));
            }
        },
    );
}

/// Nothing passes from now on.
fn cut(running: &Running) {
    running.with(|world, _| {
        for network in [&mut world.inbound, &mut world.outbound].into_iter().flatten() {
            network.set(Impairment {
                loss: 1000,
                ..Impairment::default()
            });
        }
    });
}

/// Everything passes again.
fn mend(running: &Running) {
    running.with(|world, _| {
        for network in [&mut world.inbound, &mut world.outbound].into_iter().flatten() {
            network.set(delayed());
        }
    });
}

fn delayed() -> Impairment {
    Impairment {
        delay: Duration::from_micros(100),
        ..Impairment::default()
    }
}

/// A network that can be cut: it has a delay.
fn cuttable(stack: StackConfig) -> Setup {
    let impairment = delayed();
    Setup {
        tun: TunConfig::default(),
        stack,
        inbound: impairment,
        outbound: impairment,
        seed: 1,
    }
}

#[test]
fn the_kernels_keepalive_is_answered() {
    in_namespace("endings::the_kernels_keepalive_is_answered", || {
        let running = Running::start(cuttable(StackConfig::default()));
        let local = address(0, STACK, 5001);
        running.listen(local, 4, Service::Hold);
        let mut stream = TcpStream::connect(local).expect("the stack listens");
        let second = std::time::Duration::from_secs(1);
        let keepalive = TcpKeepalive::new()
            .with_time(second)
            .with_interval(second)
            .with_retries(1);
        SockRef::from(&stream)
            .set_tcp_keepalive(&keepalive)
            .expect("an option");
        stream.set_read_timeout(Some(second * 4)).expect("an option");
        let error = stream.read(&mut [0; 8]).expect_err("nothing is sent");
        assert_eq!(
            error.kind(),
            ErrorKind::WouldBlock,
            "it was answered for four seconds"
        );
        cut(&running);
        let error = stream.read(&mut [0; 8]).expect_err("nobody answers");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn our_keepalive_is_answered() {
    in_namespace("endings::our_keepalive_is_answered", || {
        let mut stack = StackConfig::default();
        let pause = Duration::from_millis(200);
        stack.tcp.keepalive = Some(Keepalive {
            idle: pause,
            interval: pause,
            probes: 3,
        });
        let running = Running::start(cuttable(stack));
        let listener = std::net::TcpListener::bind(address(0, KERNEL, 0)).expect("a port");
        let mut exchange = Exchange::new(0, 0);
        exchange.keep_open = true;
        running.connect(listener.local_addr().expect("an address"), exchange);
        let (_peer, _) = listener.accept().expect("a connection");
        let early = running.reports.recv_timeout(std::time::Duration::from_secs(2));
        assert!(early.is_err(), "it was answered for two seconds: {early:?}");
        cut(&running);
        let error = running.report(10).error.expect("nobody answers");
        assert!(error.contains("timed out"), "{error}");
    });
}
