//! A whole gateway behind a device that is a socket pair, and the program's end of it, for any bytes.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use portolan_gateway::dns::Sources;
use portolan_gateway::gate::Policy;
use portolan_gateway::{Gateway, GatewayConfig};
use portolan_net::link::Link;
use portolan_net::tun::{FrameLink, Offloads, TunLink, TunQueue};
use tokio::net::UnixDatagram;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::counting;
use crate::namespace::{HOST_V4, HOST_V6};
use crate::packets::{COMPLETE, VIRTIO_LEN};

/// Longer than anything here takes on a busy machine; only a hang takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The gateway's addresses, and those of the program.
pub(crate) const GATEWAY: [&str; 2] = ["10.0.0.1", "fd00::1"];
pub(crate) const INSIDE: [&str; 2] = ["10.0.0.2", "fd00::2"];

/// The program's end of a veth pair, and the gateway's.
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What kind of device stands before the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// IP packets behind a virtio-net header.
    Tun,
    /// Ethernet frames behind one.
    Veth,
}

/// A gateway with a thread of its own.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    /// The program's end of the device.
    pub(crate) wire: Wire,
    /// What the gateway's thread holds, in bytes.
    held: Arc<AtomicUsize>,
    thread: Option<(JoinHandle<()>, oneshot::Sender<()>)>,
}

/// The program's end of a device.
pub(crate) struct Wire {
    socket: UnixDatagram,
    /// The same.
    own: StdDatagram,
    device: Device,
    buffer: Vec<u8>,
}

impl World {
    pub(crate) async fn new(device: Device, policy: Policy) -> Self {
        // More than the ten datagrams that a socket takes by itself; where it cannot be set, it is slower.
        let _ = std::fs::write("/proc/sys/net/unix/max_dgram_qlen", "512");
        watch_panics();
        let (inside, outside) = StdDatagram::pair().unwrap();
        inside.set_nonblocking(true).unwrap();
        outside.set_nonblocking(true).unwrap();
        let (give, given) = oneshot::channel();
        let (stop, mut stopped) = oneshot::channel();
        let held = Arc::<AtomicUsize>::default();
        let told = Arc::clone(&held);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let link = link(device, outside.into(), (PEER, OWN));
                let (gateway, mut failure) = Gateway::start(link, config(policy), sources()).unwrap();
                assert!(give.send(gateway).is_ok());
                loop {
                    tokio::select! {
                        _ = &mut stopped => return,
                        error = failure.wait() => panic!("the gateway failed: {error}"),
                        () = tokio::time::sleep(Duration::from_millis(2)) => {
                            told.store(counting::held(), Ordering::Relaxed);
                        }
                    }
                }
            });
        });
        Self {
            gateway: given.await.unwrap(),
            wire: Wire {
                own: inside.try_clone().unwrap(),
                socket: UnixDatagram::from_std(inside).unwrap(),
                device,
                buffer: vec![0; 70_000],
            },
            held,
            thread: Some((thread, stop)),
        }
    }

    /// What the gateway's thread has allocated and not given back, in bytes, a moment ago.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Ends the gateway. Nothing in it has panicked.
    pub(crate) fn end(mut self) {
        let (thread, stop) = self.thread.take().expect("it ends once");
        assert!(stop.send(()).is_ok(), "the gateway ended before");
        thread.join().unwrap();
        assert_eq!(panics(), Vec::<String>::new());
    }
}

impl Wire {
    /// Writes a packet behind a virtio-net header into the device.
    pub(crate) async fn send(&self, header: [u8; VIRTIO_LEN], packet: &[u8]) {
        let version = packet.first().map_or(4, |byte| byte >> 4);
        let kind = if version == 6 { [0x86, 0xdd] } else { [8, 0] };
        let ethernet = [&OWN[..], &PEER, &kind].concat();
        let ethernet = if self.device == Device::Veth {
            &ethernet[..]
        } else {
            &[]
        };
        self.send_bytes(&[&header[..], ethernet, packet].concat()).await;
    }

    /// Writes anything into the device.
    pub(crate) async fn send_bytes(&self, bytes: &[u8]) {
        timeout(PATIENCE, self.socket.send(bytes))
            .await
            .expect("the gateway reads")
            .unwrap();
    }

    /// Writes a frame of this type into a veth.
    pub(crate) async fn send_frame(&self, kind: u16, payload: &[u8]) {
        assert_eq!(self.device, Device::Veth);
        let frame = [&COMPLETE[..], &OWN, &PEER, &kind.to_be_bytes(), payload].concat();
        self.send_bytes(&frame).await;
    }

    /// The same end as a link, for a good program.
    pub(crate) fn link(&self) -> Box<dyn Link> {
        link(self.device, self.own.try_clone().unwrap().into(), (OWN, PEER))
    }

    /// The next packet that the gateway writes.
    pub(crate) async fn receive(&mut self) -> Vec<u8> {
        let receiving = self.socket.recv(&mut self.buffer);
        let len = timeout(PATIENCE, receiving)
            .await
            .expect("the gateway answers")
            .unwrap();
        let headers = VIRTIO_LEN + if self.device == Device::Veth { 14 } else { 0 };
        self.buffer[headers..len].to_vec()
    }

    /// What the gateway writes until the answer to a ping comes back, which is sent last.
    pub(crate) async fn all_answers(&mut self) -> Vec<Vec<u8>> {
        let body = [0x7a, 0x7a, 0x51, 0x51, 9, 9, 9, 9];
        let [source, gateway] = [INSIDE[0], GATEWAY[0]].map(|text| text.parse::<IpAddr>().unwrap());
        let ping = crate::packets::icmp(source, gateway, 8, 0, &body);
        self.send(COMPLETE, &ping).await;
        let mut answers = Vec::new();
        loop {
            let answer = self.receive().await;
            if answer.get(9) == Some(&crate::packets::ICMP)
                && answer.get(20) == Some(&0)
                && answer.ends_with(&body)
            {
                return answers;
            }
            answers.push(answer);
        }
    }
}

/// An end of the device; the Ethernet addresses are that of this end and that of the other.
fn link(device: Device, socket: OwnedFd, (own, peer): ([u8; 6], [u8; 6])) -> Box<dyn Link> {
    match device {
        Device::Tun => Box::new(TunLink::new(TunQueue::from(socket), 1500, Offloads::Datagrams).unwrap()),
        Device::Veth => Box::new(FrameLink::new(socket, own, peer, 1500, Offloads::Datagrams).unwrap()),
    }
}

fn config(policy: Policy) -> GatewayConfig {
    let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    GatewayConfig {
        addresses: vec![
            (GATEWAY[0].parse().unwrap(), 24),
            (GATEWAY[1].parse().unwrap(), 64),
        ],
        inside: ips(&INSIDE),
        host_addresses: ips(&[HOST_V4, HOST_V6]),
        policy,
        secret: Some([7; 16]),
        ..GatewayConfig::default()
    }
}

/// Names are asked for at a resolver of this namespace.
fn sources() -> Sources {
    Sources {
        resolv_conf: Box::new(|| Ok(format!("nameserver {RESOLVER}\n"))),
        hosts: None,
        spaces: Box::new(|_| Vec::new()),
    }
}

/// Where the host's resolver is.
pub(crate) const RESOLVER: &str = "127.0.0.53";

/// Messages of panics, in whatever thread or task: a task's would be lost.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn watch_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(info.to_string());
        before(info);
    }));
}

/// What has panicked.
pub(crate) fn panics() -> Vec<String> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

pub(crate) fn addr(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}
