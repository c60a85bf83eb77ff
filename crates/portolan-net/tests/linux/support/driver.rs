//! A stack on a TUN device, served by one thread: what a program does that uses both without tokio.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Instant as Clock;

use portolan_core::table::{Device, Host};
use portolan_net::tun::{RECV_BUFFER_LEN, Tun, TunConfig, TunCounters, TunQueue};
use portolan_stack::{ConnectionId, Duration, Event, Instant, ListenerId, Packet, Stack, StackConfig, SynId};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::flow::{Exchange, Flow, Pipe, Report, Service};
use super::impair::{Impaired, Impairment};

/// The kernel's addresses, and the stack's.
pub(crate) const KERNEL: [&str; 2] = ["10.99.0.1", "fd99::1"];
pub(crate) const STACK: [&str; 2] = ["10.99.0.2", "fd99::2"];

/// How the pair of kernel and stack is to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) tun: TunConfig,
    pub(crate) stack: StackConfig,
    /// What happens to packets from the kernel, and to it.
    pub(crate) inbound: Impairment,
    pub(crate) outbound: Impairment,
    pub(crate) seed: u64,
}

type Order = Box<dyn FnOnce(&mut World, Instant) + Send>;

/// The handle of a running stack. Dropping it ends the thread.
pub(crate) struct Running {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
    /// How exchanges went, in the order in which they ended.
    pub(crate) reports: Receiver<Report>,
    pub(crate) tun_name: String,
}

/// What the thread owns.
pub(crate) struct World {
    pub(crate) stack: Stack,
    listeners: HashMap<ListenerId, Service>,
    pub(crate) flows: HashMap<ConnectionId, Flow>,
    pub(crate) inbound: Option<Impaired>,
    pub(crate) outbound: Option<Impaired>,
    reports: Sender<Report>,
    pub(crate) tun: TunCounters,
    pub(crate) accepted: u64,
    /// SYNs that wait for a test's word.
    pub(crate) syns: Vec<SynId>,
    /// The events that are not the flows' business: UDP.
    pub(crate) datagrams: Option<fn(&mut Stack, Instant, portolan_stack::UdpId)>,
    scratch: Vec<u8>,
}

pub(crate) fn address(family: usize, of: [&str; 2], port: u16) -> SocketAddr {
    SocketAddr::new(of[family].parse().expect("an address"), port)
}

impl Running {
    /// Makes the device and the stack, and serves them.
    pub(crate) fn start(setup: Setup) -> Self {
        let tun = Tun::open(&setup.tun).expect("a TUN device in a namespace of ours");
        for (family, prefix_len) in [(0, 24), (1, 64)] {
            tun.add_address(address(family, KERNEL, 0).ip(), prefix_len)
                .expect("an address");
        }
        tun.up(&setup.tun).expect("the interface comes up");
        wait_for_ipv6();
        let mtu = setup.tun.mtu.map_or(setup.stack.mtu, |mtu| mtu as usize);
        let config = tun.offload(StackConfig { mtu, ..setup.stack });
        let tun_name = tun.name().to_owned();
        let queue = tun.into_queues().remove(0);
        let mut host = Host::new();
        let device = Device::new(1).expect("a device");
        for (family, prefix_len) in [(0, 24), (1, 64)] {
            host.add_address(device, address(family, STACK, 0).ip(), Some(prefix_len));
        }
        let (orders, orders_in) = mpsc::channel();
        let (reports_out, reports) = mpsc::channel();
        let impaired = |impairment: Impairment, seed| {
            let is_any = impairment.delay > Duration::ZERO
                || impairment.rate > 0
                || impairment.loss + impairment.reorder + impairment.duplicate > 0;
            is_any.then(|| Impaired::new(impairment, seed))
        };
        let world = World {
            stack: Stack::new(config, host, [7; 16]),
            listeners: HashMap::new(),
            flows: HashMap::new(),
            inbound: impaired(setup.inbound, setup.seed),
            outbound: impaired(setup.outbound, setup.seed + 1),
            reports: reports_out,
            tun: TunCounters::default(),
            accepted: 0,
            syns: Vec::new(),
            datagrams: None,
            scratch: vec![0; 1 << 18],
        };
        let thread = std::thread::spawn(move || world.serve(&queue, &orders_in));
        Self {
            orders: Some(orders),
            thread: Some(thread),
            reports,
            tun_name,
        }
    }

    /// Has the thread do something, and gives what it says.
    pub(crate) fn with<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut World, Instant) -> R + Send + 'static,
    ) -> R {
        let (answer, answered) = mpsc::channel();
        let order: Order = Box::new(move |world, now| {
            // The test may have given up waiting.
            let _gone = answer.send(act(world, now));
        });
        self.orders
            .as_ref()
            .expect("it runs")
            .send(order)
            .expect("it runs");
        answered.recv().expect("the stack's thread is alive")
    }

    /// Listens with a service.
    pub(crate) fn listen(&self, local: SocketAddr, backlog: usize, service: Service) {
        self.with(move |world, _| {
            let id = world.stack.listen(local, backlog).expect("the port is free");
            world.listeners.insert(id, service);
        });
    }

    /// Connects with an exchange, whose report comes when it is over.
    pub(crate) fn connect(&self, remote: SocketAddr, exchange: Exchange) -> ConnectionId {
        self.with(move |world, now| {
            let family = usize::from(remote.is_ipv6());
            let id = world
                .stack
                .connect(now, address(family, STACK, 0), remote)
                .expect("there is a port");
            world.flows.insert(id, Flow::Exchange(exchange));
            id
        })
    }

    /// The next report, which must come soon and be good.
    pub(crate) fn report(&self, seconds: u64) -> Report {
        let report = self.reports.recv_timeout(std::time::Duration::from_secs(seconds));
        report.unwrap_or_else(|error| {
            let state = self.with(|world, _| {
                let infos: Vec<_> = world.flows.keys().map(|&id| world.stack.info(id)).collect();
                format!("{:?} {infos:?}", world.stack.counters())
            });
            panic!("no exchange came to its end: {error}; {state}")
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the stack's thread panicked");
        }
    }
}

/// The kernel readies an IPv6 address by a task of its own: what comes for it before is dropped.
fn wait_for_ipv6() {
    for _ in 0..1000 {
        let routes = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
        // The whole address, as a prefix of 128 bits.
        if routes
            .lines()
            .any(|route| route.starts_with("fd990000000000000000000000000001 80"))
        {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("the kernel's IPv6 address is not usable after five seconds");
}

/// Packets that are taken from the device before the stack's own get their turn.
const BATCH: usize = 64;
/// How long orders may wait.
const LATENCY: Duration = Duration::from_millis(2);

impl World {
    fn serve(mut self, queue: &TunQueue, orders: &Receiver<Order>) {
        let start = Clock::now();
        let mut packet = vec![0; RECV_BUFFER_LEN.max(self.stack.max_packet_len())];
        loop {
            let now = Instant::START + start.elapsed().into();
            loop {
                match orders.try_recv() {
                    Ok(order) => order(&mut self, now),
                    Err(mpsc::TryRecvError::Empty) => break,
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            let mut busy = false;
            for _ in 0..BATCH {
                let Ok(got) = queue.recv(&mut packet) else { break };
                busy = true;
                match &mut self.inbound {
                    None => self.stack.handle_packet(now, got),
                    Some(network) => network.send(now, got.bytes, got.offload),
                }
            }
            while let Some(flying) = self.inbound.as_mut().and_then(|network| network.receive(now)) {
                let got = Packet {
                    bytes: &flying.bytes,
                    offload: flying.offload,
                };
                self.stack.handle_packet(now, got);
                if let Some(network) = &mut self.inbound {
                    network.give_back(flying);
                }
            }
            self.stack.handle_timeout(now);
            while let Some(event) = self.stack.poll_event() {
                self.on_event(now, event);
            }
            self.transmit(now, queue, &mut packet);
            self.tun = queue.counters();
            if !busy {
                self.wait(now, queue);
            }
        }
    }

    /// What the device has no room for is lost, as in a network: TCP sends it again.
    fn transmit(&mut self, now: Instant, queue: &TunQueue, packet: &mut [u8]) {
        while let Some(transmit) = self.stack.poll_transmit(now, packet) {
            let bytes = &packet[..transmit.len];
            match &mut self.outbound {
                None => drop(queue.send(bytes, transmit.offload)),
                Some(network) => network.send(now, bytes, transmit.offload),
            }
        }
        while let Some(flying) = self.outbound.as_mut().and_then(|network| network.receive(now)) {
            drop(queue.send(&flying.bytes, flying.offload));
            if let Some(network) = &mut self.outbound {
                network.give_back(flying);
            }
        }
    }

    fn wait(&self, now: Instant, queue: &TunQueue) {
        let networks = [&self.inbound, &self.outbound];
        let next = networks.into_iter().flatten().filter_map(Impaired::next_arrival);
        let until = next
            .chain(self.stack.poll_timeout())
            .min()
            .unwrap_or(now + LATENCY)
            .min(now + LATENCY);
        let rest = until.since(now).as_nanos();
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: rest as _,
        };
        // A signal wakes it as well.
        let _woken = poll(&mut [PollFd::new(queue, PollFlags::IN)], Some(&timeout));
    }

    fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Acceptable(listener) => {
                while let Some(id) = self.stack.accept(listener) {
                    self.accepted += 1;
                    if let Some(&service) = self.listeners.get(&listener) {
                        self.begin(now, id, service);
                    }
                }
            }
            Event::Connected(id) | Event::Readable(id) | Event::Writable(id) => self.turn(now, id),
            Event::Closed(id, reason) => {
                self.turn(now, id);
                match self.flows.remove(&id) {
                    Some(Flow::Exchange(exchange)) => self.tell(exchange.closed(reason)),
                    Some(Flow::Relay { to, .. }) => {
                        let _closed = self.stack.close(now, to);
                        self.flows.remove(&to);
                    }
                    _ => {}
                }
                let _closed = self.stack.close(now, id);
            }
            Event::Syn(id) => self.syns.push(id),
            Event::Datagrams(id) => {
                if let Some(act) = self.datagrams {
                    act(&mut self.stack, now, id);
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, now: Instant, id: ConnectionId, service: Service) {
        let flow = match service {
            Service::Exchange { send, expect } => Flow::Exchange(Exchange::new(send, expect)),
            Service::Echo => Flow::Echo(Pipe::default()),
            Service::Reset => Flow::Reset,
            Service::Hold => Flow::Hold,
            Service::Relay(remote) => {
                let family = usize::from(remote.is_ipv6());
                let Ok(to) = self.stack.connect(now, address(family, STACK, 0), remote) else {
                    let _closed = self.stack.close(now, id);
                    return;
                };
                self.flows.insert(
                    to,
                    Flow::Relay {
                        to: id,
                        pipe: Pipe::default(),
                    },
                );
                Flow::Relay {
                    to,
                    pipe: Pipe::default(),
                }
            }
        };
        self.flows.insert(id, flow);
        self.turn(now, id);
    }

    fn turn(&mut self, now: Instant, id: ConnectionId) {
        self.move_bytes(now, id);
        // What is read here may be written there, and what there was room for.
        if let Some(&Flow::Relay { to, .. }) = self.flows.get(&id) {
            self.move_bytes(now, to);
        }
    }

    fn move_bytes(&mut self, now: Instant, id: ConnectionId) {
        let Self {
            stack,
            flows,
            scratch,
            ..
        } = self;
        let Some(flow) = flows.get_mut(&id) else { return };
        match flow {
            Flow::Exchange(exchange) => {
                if let Some(report) = exchange.turn(now, stack, id, scratch) {
                    flows.remove(&id);
                    let _closed = stack.close(now, id);
                    self.tell(report);
                }
            }
            Flow::Echo(pipe) => {
                if !pipe.turn(now, stack, id, id, scratch) || pipe.is_done() {
                    flows.remove(&id);
                    let _closed = stack.close(now, id);
                }
            }
            Flow::Reset => {
                if stack.read(now, id, &mut scratch[..1]).is_ok() {
                    let _gone = stack.abort(now, id);
                }
            }
            Flow::Hold => {}
            Flow::Relay { to, pipe } => {
                let to = *to;
                let is_broken = !pipe.turn(now, stack, id, to, &mut scratch[..65_536]);
                let is_done = pipe.is_done();
                let other_is_done =
                    matches!(flows.get(&to), Some(Flow::Relay { pipe, .. }) if pipe.is_done());
                if is_broken || (is_done && other_is_done) {
                    for id in [id, to] {
                        flows.remove(&id);
                        let _closed = stack.close(now, id);
                    }
                }
            }
        }
    }

    fn tell(&self, report: Report) {
        // A test that has what it wants waits for no more.
        let _unread = self.reports.send(report);
    }
}
