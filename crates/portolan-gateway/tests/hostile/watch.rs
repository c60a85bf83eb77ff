//! Who sees what leaves: listeners where nobody may come, and every packet that the host sends.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use portolan_core::wire::{IpPacket, IpProtocol, TcpFlags, TcpSegment, UdpDatagram};
use portolan_gateway::gate::Policy;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use crate::namespace::HOST_V4;
use crate::neighbour::ECHO;
use crate::world::{GATEWAY, INSIDE, RESOLVER};

/// The port that the policy denies on every address.
pub(crate) const DENIED: u16 = 7_000;

/// What the policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// The outside world, but for one port.
    World,
    /// Echoes of two hosts and of whatever is below `example`, and nothing else.
    List,
}

impl Rules {
    pub(crate) fn policy(self) -> Policy {
        let mut policy = Policy::default();
        let target = |text: &str| text.parse().unwrap();
        match self {
            Self::World => policy.deny(target(&format!("*:{DENIED}/both"))),
            Self::List => {
                for host in [HOST_V4, "[2001:db8::1]", "*.example"] {
                    policy.allow(target(&format!("{host}:{ECHO}/both")));
                }
            }
        }
        policy
    }

    /// Whether it lets this begin, by the words above, and not by the gateway's own reading of a policy.
    fn allow(self, protocol: &str, destination: IpAddr, port: u16) -> bool {
        let is_open = !is_closed(destination);
        match self {
            Self::World => is_open && (port != DENIED || protocol == "ping"),
            Self::List => is_open && port == ECHO,
        }
    }
}

/// What was seen. Whatever it is, it is a violation of the policy.
pub(crate) struct Watch {
    /// Connections and datagrams that came to the denied port.
    trapped: Arc<AtomicU64>,
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    is_over: AtomicBool,
    /// Packets that were looked at.
    packets: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Watch {
    /// Begins to look. Needs a network namespace in which nobody else is.
    pub(crate) async fn new(rules: Rules) -> Self {
        let trapped = Arc::<AtomicU64>::default();
        let any = SocketAddr::from(([0_u16; 8], DENIED));
        let listener = TcpListener::bind(any).await.unwrap();
        let socket = UdpSocket::bind(any).await.unwrap();
        let count = Arc::clone(&trapped);
        tokio::spawn(async move {
            let mut buffer = [0; 1];
            loop {
                tokio::select! {
                    _ = listener.accept() => {}
                    _ = socket.recv_from(&mut buffer) => {}
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Packets of every interface and protocol, without their Ethernet header.
        let all = Protocol::from(i32::from(0x0003_u16.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(all)).unwrap();
        // As much as may be had: what it misses the listeners still count.
        for room in [64 << 20, 4 << 20] {
            if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, room).is_ok()
                || socket.set_recv_buffer_size(room).is_ok()
            {
                break;
            }
        }
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        Self {
            trapped,
            seen,
            thread: Some(std::thread::spawn(move || look(&socket, &shared, rules))),
        }
    }

    /// Fails if anything left that may not.
    pub(crate) fn check(&self) {
        let wrong = self.seen.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(wrong.is_empty(), "left, and may not: {wrong:?}");
        assert_eq!(
            self.trapped.load(Ordering::Relaxed),
            0,
            "somebody came to the denied port"
        );
    }

    /// The same for the last time, after all that is on its way was looked at. Gives the number of packets.
    pub(crate) fn end(mut self) -> u64 {
        self.seen.is_over.store(true, Ordering::Relaxed);
        self.thread.take().expect("it ends once").join().unwrap();
        self.check();
        self.seen.packets.load(Ordering::Relaxed)
    }
}

fn look(mut socket: &Socket, seen: &Seen, rules: Rules) {
    let mut buffer = vec![0; 70_000];
    loop {
        match socket.read(&mut buffer) {
            Ok(len) => {
                seen.packets.fetch_add(1, Ordering::Relaxed);
                if let Some(why) = wrong_with(&buffer[..len], rules) {
                    seen.wrong
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(why);
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if seen.is_over.load(Ordering::Relaxed) {
                    return;
                }
            }
            Err(error) => panic!("a packet socket: {error}"),
        }
    }
}

/// What is wrong with a packet of the host, if it begins something that the policy denies. All of the host but the gateway
/// only answers, so it is the gateway that has begun it.
fn wrong_with(bytes: &[u8], rules: Rules) -> Option<String> {
    let ip = IpPacket::parse(bytes).ok()?;
    let destination = ip.destination();
    let begun = match ip.protocol() {
        _ if ip.is_fragment() => None,
        IpProtocol::TCP => {
            let segment = TcpSegment::parse(ip.payload()).ok()?;
            let flags = segment.flags();
            let is_first = flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK);
            is_first.then(|| ("tcp", segment.destination_port().get()))
        }
        IpProtocol::UDP => {
            let datagram = UdpDatagram::parse(ip.payload()).ok()?;
            // Servers answer from their own ports.
            let is_answer = [ECHO, 53].contains(&datagram.source_port().get());
            (!is_answer).then(|| ("udp", datagram.destination_port().get()))
        }
        IpProtocol::ICMP => (ip.payload().first() == Some(&8)).then_some(("ping", 0)),
        IpProtocol::ICMPV6 => (ip.payload().first() == Some(&128)).then_some(("ping", 0)),
        _ => None,
    };
    let (protocol, port) = begun?;
    let is_resolver = destination == RESOLVER.parse::<IpAddr>().unwrap() && port == 53;
    let is_wrong = !is_resolver && !rules.allow(protocol, destination, port);
    is_wrong.then(|| format!("{protocol} from {} to {destination} port {port}", ip.source()))
}

/// Addresses that no program in a space may reach, by the prefixes that the documents name, and not by the gateway's own
/// list of them.
fn is_closed(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            let metadata = ["100.100.100.200", "192.0.0.192", "168.63.129.16"];
            matches!((a, b), (0 | 127 | 224..240, _) | (169, 254))
                || address.is_broadcast()
                || metadata.iter().any(|text| text.parse() == Ok(address))
                || [GATEWAY[0], INSIDE[0]]
                    .iter()
                    .any(|text| text.parse() == Ok(address))
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_multicast()
                || address.segments()[0] & 0xffc0 == 0xfe80
                || address.to_ipv4().is_some_and(|address| is_closed(address.into()))
                || [GATEWAY[1], INSIDE[1]]
                    .iter()
                    .any(|text| text.parse() == Ok(address))
        }
    }
}
