//! Real port spaces behind a gateway, over each kind of device: whom a socket inside sees, and the shortcut.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portolan_core::table::Scope;
use portolan_gateway::flows::{Direction, Flows};
use portolan_gateway::inbound::{
    Admit, InsideSockets, Publisher, PublisherConfig, SessionLimits, ShortcutConfig,
};
use portolan_net::tun::{FrameLink, TunLink, TunQueue};
use portolan_net::{Link, Stack, UdpSocket};
use portolan_space::{Device, DeviceKind, INSIDE_MAC, OUTSIDE_MAC, Program, Space, SpaceConfig, Subnets};
use socket2::Socket;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::private::{in_namespace, skipped};
use crate::support::{answers, mapping, run};
use crate::tcp::{add_addresses, connect, told};

/// A space with a gateway before it. Its program does nothing: the test opens the sockets inside.
pub(crate) struct Home {
    pub(crate) space: Space,
    pub(crate) subnets: Subnets,
    pub(crate) publisher: Publisher,
    pub(crate) flows: Flows,
}

/// Runs a test in a space with each kind of device, with addresses of other networks on the host.
pub(crate) fn in_each_space<F: Future<Output = ()>>(
    name: &str,
    has_shortcut: bool,
    admit: Option<Admit>,
    test: impl Fn(Home) -> F,
) {
    in_namespace(name, || {
        add_addresses();
        for avoid_tun in [false, true] {
            let subnets = Subnets::choose(&portolan_space::host_routes().unwrap(), true, 7).unwrap();
            let mut config = SpaceConfig::new(Program::new("sleep", ["60"]), subnets);
            config.avoid_tun = avoid_tun;
            let mut space = match Space::start(&config) {
                Ok(space) => space,
                Err(error) => return skipped(&format!("{name}: {error}")),
            };
            space.go().unwrap();
            let device = space.take_device().unwrap();
            run(async {
                test(home(space, subnets, device, has_shortcut, admit.clone())).await;
            });
        }
    });
}

fn home(space: Space, subnets: Subnets, device: Device, has_shortcut: bool, admit: Option<Admit>) -> Home {
    let v6 = subnets.v6.unwrap();
    let (stack, driver) = Stack::builder()
        .address(subnets.v4.gateway, subnets.v4.prefix_len)
        .address(v6.gateway, v6.prefix_len)
        .build(link(device))
        .unwrap();
    tokio::spawn(driver);
    let datagrams = Arc::new(UdpSocket::bind_scope(&stack, Scope::TRANSPARENT).unwrap());
    let sockets = inside_sockets(&space);
    assert!(space.has_shortcut(), "{:?}", space.notes());
    let flows = Flows::new(1000);
    let publisher = Publisher::new(PublisherConfig {
        stack,
        flows: flows.clone(),
        gateway: vec![subnets.v4.gateway.into(), v6.gateway.into()],
        inside: vec![subnets.v4.inside.into(), v6.inside.into()],
        datagrams: Arc::clone(&datagrams),
        sessions: SessionLimits::default(),
        admit,
    });
    let publisher = publisher.unwrap();
    tokio::spawn(answers(publisher.clone(), datagrams));
    if has_shortcut {
        publisher.take_shortcut(ShortcutConfig { sockets });
    }
    Home {
        space,
        subnets,
        publisher,
        flows,
    }
}

pub(crate) fn inside_sockets(space: &Space) -> InsideSockets {
    let sockets = space.sockets();
    InsideSockets::new(move |domain, count| Ok(sockets.open_marked(domain, count)?))
}

fn link(device: Device) -> Box<dyn Link> {
    let mtu = device.mtu as usize;
    let queue = device.queues.into_iter().next().unwrap();
    match device.kind {
        DeviceKind::Veth => {
            Box::new(FrameLink::new(queue, OUTSIDE_MAC, INSIDE_MAC, mtu, device.offloads).unwrap())
        }
        _ => Box::new(TunLink::new(TunQueue::from(queue), mtu, device.offloads).unwrap()),
    }
}

impl Home {
    pub(crate) fn publish(&self, text: &str) {
        self.publisher.publish(&mapping(text), &|_, _| None).unwrap();
    }

    /// A listener inside.
    pub(crate) fn listen(&self, address: IpAddr, port: u16) -> Socket {
        let domain = if address.is_ipv4() { 2 } else { 10 };
        let socket = Socket::from(self.space.open_socket(domain, 1, 0).unwrap());
        socket.set_reuse_address(true).unwrap();
        if domain == 10 {
            socket.set_only_v6(true).unwrap();
        }
        socket.bind(&SocketAddr::new(address, port).into()).unwrap();
        socket.listen(128).unwrap();
        socket
    }

    async fn all_over(&self) {
        while self.flows.count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Accepts one connection inside, as a program does, and gives its peer, and then all that came, back to it.
fn echo(listener: &Socket) -> tokio::task::JoinHandle<SocketAddr> {
    let listener = listener.try_clone().unwrap();
    tokio::task::spawn_blocking(move || {
        listener.set_nonblocking(false).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        let mut stream = std::net::TcpStream::from(stream);
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
        peer.as_socket().unwrap()
    })
}

/// Sends a MiB and wants it back; gives as whom it was seen.
async fn ask(mut client: TcpStream, server: tokio::task::JoinHandle<SocketAddr>) -> SocketAddr {
    let data: Vec<u8> = (0..1 << 20).map(|at: u32| ((at * 7) >> 8) as u8).collect();
    let mut back = Vec::new();
    let (mut reader, mut writer) = client.split();
    let send = async {
        writer.write_all(&data).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(reader.read_to_end(&mut back), send);
    read.unwrap();
    assert!(back == data, "{} bytes came back", back.len());
    server.await.unwrap()
}

#[test]
fn the_programs_kernel_shows_it_the_client() {
    let name = "spaces::the_programs_kernel_shows_it_the_client";
    in_each_space(name, true, None, |home| async move {
        home.publish("8080:80");
        let v6 = home.subnets.v6.unwrap();
        let listeners = [
            home.listen(Ipv4Addr::UNSPECIFIED.into(), 80),
            home.listen(Ipv6Addr::UNSPECIFIED.into(), 80),
        ];
        for (from, to, seen) in [
            ("192.0.2.1:4000", "192.0.2.2:8080", IpAddr::from([192, 0, 2, 1])),
            (
                "[2001:db8::1]:4000",
                "[2001:db8::1]:8080",
                "2001:db8::1".parse().unwrap(),
            ),
            ("127.0.0.1:0", "127.0.0.1:8080", home.subnets.v4.gateway.into()),
            ("127.0.0.9:0", "192.0.2.1:8080", home.subnets.v4.gateway.into()),
            ("[::1]:0", "[::1]:8080", v6.gateway.into()),
        ] {
            let client = connect(from, to).await.unwrap();
            let local = client.local_addr().unwrap();
            let server = echo(&listeners[usize::from(from.starts_with('['))]);
            let is_loopback = local.ip().is_loopback();
            while home.flows.count() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let flows = home.flows.list();
            let peer = ask(client, server).await;
            assert_eq!(peer.ip(), seen, "{from}");
            assert!(is_loopback || peer == local, "{from}: {peer}");
            let way = if is_loopback {
                Direction::Spliced
            } else {
                Direction::In
            };
            assert_eq!((flows[0].info.direction, flows[0].info.outside), (way, local));
            home.all_over().await;
            let totals = home.flows.totals().traffic;
            assert_eq!(totals.bytes_in, totals.bytes_out);
        }
        assert_eq!(home.flows.totals().traffic.bytes_in, 5 << 20);
        assert_eq!(home.flows.totals().opened, 5);
    });
}

#[test]
fn what_is_on_the_programs_own_loopback_is_not_reached() {
    let name = "spaces::what_is_on_the_programs_own_loopback_is_not_reached";
    in_each_space(name, true, None, |home| async move {
        home.publish("8080:80");
        let _listeners = [
            home.listen(Ipv4Addr::LOCALHOST.into(), 80),
            home.listen(Ipv6Addr::LOCALHOST.into(), 80),
        ];
        for (from, to) in [
            ("127.0.0.1:0", "127.0.0.1:8080"),
            ("[::1]:0", "[::1]:8080"),
            ("192.0.2.1:0", "192.0.2.2:8080"),
            ("[2001:db8::1]:0", "[2001:db8::1]:8080"),
        ] {
            assert_eq!(told(connect(from, to).await).await, ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn without_the_shortcut_the_same_is_seen() {
    let name = "spaces::without_the_shortcut_the_same_is_seen";
    in_each_space(name, false, None, |home| async move {
        home.publish("8080:80");
        let listener = home.listen(home.subnets.v4.inside.into(), 80);
        for (from, to) in [("127.0.0.1:0", "127.0.0.1:8080"), ("[::1]:0", "[::1]:8080")] {
            let client = connect(from, to).await.unwrap();
            let peer = ask(client, echo(&listener)).await;
            assert_eq!(peer.ip(), IpAddr::from(home.subnets.v4.gateway));
        }
        home.all_over().await;
    });
}

#[test]
fn resets_pass_the_shortcut() {
    let name = "spaces::resets_pass_the_shortcut";
    in_each_space(name, true, None, |home| async move {
        home.publish("8080:80");
        let listener = home.listen(home.subnets.v4.inside.into(), 80);
        let mut client = connect("127.0.0.1:0", "127.0.0.1:8080").await.unwrap();
        let program = tokio::task::spawn_blocking(move || {
            listener.set_nonblocking(false).unwrap();
            let (stream, _) = listener.accept().unwrap();
            stream.set_linger(Some(Duration::ZERO)).unwrap();
        });
        program.await.unwrap();
        let error = client.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        home.all_over().await;
    });
}

#[test]
fn whoever_is_not_admitted_is_reset() {
    let admit = Admit::new(|published, client| {
        published.inner.get() == 80 && client.ip() == IpAddr::from([127, 0, 0, 2])
    });
    let name = "spaces::whoever_is_not_admitted_is_reset";
    in_each_space(name, true, Some(admit), |home| async move {
        home.publish("8080:80");
        let listener = home.listen(home.subnets.v4.inside.into(), 80);
        for from in ["127.0.0.1:0", "192.0.2.1:0"] {
            let told = told(connect(from, "192.0.2.1:8080").await).await;
            assert_eq!(told, ErrorKind::ConnectionReset);
        }
        let client = connect("127.0.0.2:0", "127.0.0.1:8080").await.unwrap();
        ask(client, echo(&listener)).await;
    });
}

/// Each client of one socket of the host is seen as itself, and answered from the address that it asked.
#[test]
fn the_programs_kernel_shows_it_who_sent_a_datagram() {
    let name = "spaces::the_programs_kernel_shows_it_who_sent_a_datagram";
    in_each_space(name, true, None, |home| async move {
        home.publish("5300:53/udp");
        let v6 = home.subnets.v6.unwrap();
        for (from, to, seen) in [
            ("192.0.2.1:4000", "192.0.2.2:5300", IpAddr::from([192, 0, 2, 1])),
            ("192.0.2.1:4000", "192.0.2.1:5300", IpAddr::from([192, 0, 2, 1])),
            (
                "[2001:db8::1]:4000",
                "[2001:db8::1]:5300",
                "2001:db8::1".parse().unwrap(),
            ),
            ("127.0.0.1:4000", "127.0.0.7:5300", home.subnets.v4.gateway.into()),
            ("[::1]:4000", "[::1]:5300", v6.gateway.into()),
        ] {
            let any: IpAddr = if from.starts_with('[') {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                Ipv4Addr::UNSPECIFIED.into()
            };
            let server = Socket::from(
                home.space
                    .open_socket(if any.is_ipv4() { 2 } else { 10 }, 2, 0)
                    .unwrap(),
            );
            if any.is_ipv6() {
                server.set_only_v6(true).unwrap();
            }
            server.bind(&SocketAddr::new(any, 53).into()).unwrap();
            let server = tokio::net::UdpSocket::from_std(server.into()).unwrap();
            let client = tokio::net::UdpSocket::bind(from).await.unwrap();
            // Connected, it hears nobody but the address that it asks.
            client.connect(to).await.unwrap();
            let mut bytes = [0; 2000];
            for length in [0, 1, 1400] {
                client.send(&vec![7; length]).await.unwrap();
                let (len, peer) = server.recv_from(&mut bytes).await.unwrap();
                assert_eq!((len, peer.ip()), (length, seen), "{from}");
                let own = client.local_addr().unwrap();
                assert!(own.ip().is_loopback() || peer.ip() != own.ip() || peer.port() >= 4000);
                server.send_to(&bytes[..len], peer).await.unwrap();
                assert_eq!(client.recv(&mut bytes).await.unwrap(), length, "{from}");
            }
        }
        assert_eq!(home.flows.count(), 5);
        // The second one is from the same socket address to the same port inside: it has another port.
        let unpublished = home.publisher.unpublish(&mapping("5300:53/udp")).unwrap();
        assert_eq!((unpublished.len(), home.publisher.list().len()), (1, 0));
        // The port is to be had again, though it has clients.
        home.publish("5300:53/udp");
        assert_eq!(home.flows.count(), 0);
    });
}

/// Those that wait together pass the stack and the device together, and arrive as they were sent: each of its length, in
/// the order of its client, also where one is empty, shorter, or longer than a packet.
#[test]
fn datagrams_that_come_at_once_arrive_as_they_were_sent() {
    let name = "spaces::datagrams_that_come_at_once_arrive_as_they_were_sent";
    in_each_space(name, true, None, |home| async move {
        home.publish("5300:53/udp");
        let server = Socket::from(home.space.open_socket(2, 2, 0).unwrap());
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 53));
        server.bind(&any.into()).unwrap();
        let server = tokio::net::UdpSocket::from_std(server.into()).unwrap();
        let clients = [4000, 4001].map(|port| std::net::UdpSocket::bind(("192.0.2.1", port)).unwrap());
        let run = |len, count| std::iter::repeat_n(len, count);
        let lens: Vec<usize> = run(100, 70)
            .chain([60, 100, 100, 0, 100, 3000, 3000, 7])
            .chain(run(1400, 20))
            .chain([1200, 1401])
            .collect();
        // Nothing else runs before the first wait, so they are there at once.
        for (number, &len) in lens.iter().enumerate() {
            for client in &clients[..1 + usize::from(number % 16 == 15)] {
                client
                    .send_to(&vec![number as u8; len], "192.0.2.2:5300")
                    .unwrap();
            }
        }
        let mut seen = [Vec::new(), Vec::new()];
        let sent: [Vec<_>; 2] = [1, 16].map(|step| {
            let numbered = lens.iter().enumerate().skip(step - 1).step_by(step);
            numbered.map(|(number, &len)| vec![number as u8; len]).collect()
        });
        let mut bytes = [0; 4000];
        while [0, 1]
            .iter()
            .any(|&client| seen[client].len() < sent[client].len())
        {
            let receive = tokio::time::timeout(Duration::from_secs(10), server.recv_from(&mut bytes));
            let (len, peer) = receive.await.expect("a datagram was lost").unwrap();
            seen[usize::from(peer.port() - 4000)].push(bytes[..len].to_vec());
        }
        assert!(seen == sent);
        let counted = home
            .flows
            .list()
            .iter()
            .map(|flow| flow.traffic.packets_in)
            .sum::<u64>();
        assert_eq!(counted, sent.iter().map(|sent| sent.len() as u64).sum::<u64>());
    });
}
