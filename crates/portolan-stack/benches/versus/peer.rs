//! smoltcp, set up as its own benchmark is: one interface whose device hands every packet back, its buffers
//! reused, the program's side of `send` and `recv` touching no byte.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant as Clock;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{
    HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint, IpProtocol, Ipv4Address, Ipv4Packet,
    Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::{Length, Measure};

const HOST: Ipv4Address = Ipv4Address::new(10, 0, 0, 1);
const STRANGER: Ipv4Address = Ipv4Address::new(10, 0, 0, 2);

/// A device that gives back what is sent, or keeps it.
struct Loopback {
    mtu: usize,
    checksums: bool,
    returns: bool,
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    free: Rc<RefCell<Vec<Vec<u8>>>>,
}

struct Receive(Vec<u8>, Rc<RefCell<Vec<Vec<u8>>>>);

struct Send<'a>(&'a mut Loopback);

impl RxToken for Receive {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.0);
        self.1.borrow_mut().push(self.0);
        result
    }
}

impl TxToken for Send<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = self.0.free.borrow_mut().pop().unwrap_or_default();
        packet.resize(len, 0);
        let result = f(&mut packet);
        if self.0.returns {
            self.0.received.push_back(packet);
        } else {
            self.0.sent.push(packet);
        }
        result
    }
}

impl Device for Loopback {
    type RxToken<'a> = Receive;
    type TxToken<'a> = Send<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Receive, Send<'_>)> {
        let packet = self.received.pop_front()?;
        Some((Receive(packet, Rc::clone(&self.free)), Send(self)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Send<'_>> {
        Some(Send(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        if !self.checksums {
            capabilities.checksum = ChecksumCapabilities::ignored();
        }
        capabilities
    }
}

struct World {
    device: Loopback,
    interface: Interface,
    sockets: SocketSet<'static>,
    start: Clock,
}

impl World {
    fn new(mtu: usize, checksums: bool, returns: bool) -> Self {
        let mut device = Loopback {
            mtu,
            checksums,
            returns,
            received: VecDeque::new(),
            sent: Vec::new(),
            free: Rc::default(),
        };
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut device, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(HOST.into(), 8))
                .expect("there is room for one address");
        });
        Self {
            device,
            interface,
            sockets: SocketSet::new(Vec::new()),
            start: Clock::now(),
        }
    }

    fn poll(&mut self) {
        let now = Instant::from_micros(self.start.elapsed().as_micros() as i64);
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }
}

fn socket(receive: usize, send: usize) -> tcp::Socket<'static> {
    tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; receive]),
        tcp::SocketBuffer::new(vec![0; send]),
    )
}

/// Bytes a second of one connection.
pub(crate) fn bulk(mtu: usize, checksums: bool, length: Length) -> f64 {
    bulk_with(mtu, checksums, length, false)
}

fn bulk_with(mtu: usize, checksums: bool, length: Length, copies: bool) -> f64 {
    let mut bytes = vec![7; 64 << 10];
    let mut world = World::new(mtu, checksums, true);
    let mut server = socket(1 << 20, 4096);
    server.listen(80).expect("the port is free");
    server.set_ack_delay(None);
    let mut client = socket(4096, 1 << 20);
    client.set_nagle_enabled(false);
    client
        .connect(world.interface.context(), (IpAddress::from(HOST), 80), 4000)
        .expect("the socket is new");
    let (server, client) = (world.sockets.add(server), world.sockets.add(client));
    let mut measure = Measure::new(length);
    while measure.goes_on() {
        world.poll();
        let socket = world.sockets.get_mut::<tcp::Socket<'_>>(client);
        while socket.can_send()
            && socket
                .send(|room| (room.len(), room.len()))
                .is_ok_and(|len| len > 0)
        {}
        let socket = world.sockets.get_mut::<tcp::Socket<'_>>(server);
        while socket.can_recv() {
            let len = if copies {
                socket.recv_slice(&mut bytes)
            } else {
                socket.recv(|data| (data.len(), data.len()))
            };
            measure.add(len.unwrap_or(0));
        }
    }
    measure.rate()
}

/// The same with programs that copy.
pub(crate) fn bulk_copied(mtu: usize, checksums: bool, length: Length) -> f64 {
    bulk_with(mtu, checksums, length, true)
}

/// Datagrams of 64 bytes a second.
pub(crate) fn datagrams(length: Length) -> f64 {
    let mut world = World::new(1500, true, true);
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 64 * 64]);
    let ports = [5000, 5001].map(|port| {
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).expect("the port is free");
        world.sockets.add(socket)
    });
    let to = IpEndpoint::new(HOST.into(), 5001);
    let (payload, mut out) = ([7; 64], [0; 64]);
    let mut measure = Measure::new(length);
    while measure.goes_on() {
        let socket = world.sockets.get_mut::<udp::Socket<'_>>(ports[0]);
        while socket.send_slice(&payload, to).is_ok() {}
        world.poll();
        let socket = world.sockets.get_mut::<udp::Socket<'_>>(ports[1]);
        while socket.recv_slice(&mut out).is_ok() {
            measure.add(1);
        }
    }
    measure.rate()
}

/// Connections a second that are made, accepted and given up with a RST: smoltcp's own TIME-WAIT would hold its
/// only socket for ten seconds.
pub(crate) fn connections(length: Length) -> f64 {
    let mut world = World::new(1500, true, true);
    let (server, client) = (socket(4096, 4096), socket(4096, 4096));
    let (server, client) = (world.sockets.add(server), world.sockets.add(client));
    let mut measure = Measure::new(length);
    let mut port = 1024u16;
    while measure.goes_on() {
        port = port.checked_add(1).unwrap_or(1024);
        world
            .sockets
            .get_mut::<tcp::Socket<'_>>(server)
            .listen(80)
            .expect("the socket is closed");
        world
            .sockets
            .get_mut::<tcp::Socket<'_>>(client)
            .connect(world.interface.context(), (IpAddress::from(HOST), 80), port)
            .expect("the socket is closed");
        while world.sockets.get::<tcp::Socket<'_>>(server).state() != tcp::State::Established {
            world.poll();
        }
        world.sockets.get_mut::<tcp::Socket<'_>>(client).abort();
        while world.sockets.get::<tcp::Socket<'_>>(server).state() != tcp::State::Listen {
            world.poll();
            if world.sockets.get::<tcp::Socket<'_>>(server).state() == tcp::State::Closed {
                break;
            }
        }
        world.sockets.get_mut::<tcp::Socket<'_>>(server).abort();
        measure.add(1);
    }
    measure.rate()
}

/// Nanoseconds for an acknowledgment that says nothing new, to one of `count` established connections.
pub(crate) fn segment_in(count: u16, length: Length) -> f64 {
    let mut world = World::new(1500, true, false);
    let mut handles: Vec<SocketHandle> = Vec::new();
    for place in 0..count {
        let mut socket = socket(64, 64);
        socket
            .listen(IpListenEndpoint::from(1000 + place))
            .expect("the port is free");
        handles.push(world.sockets.add(socket));
    }
    let mut segments = Vec::new();
    for place in 0..count {
        world
            .device
            .received
            .push_back(segment(1000 + place, TcpControl::Syn, None));
        world.poll();
        for answer in world.device.sent.drain(..) {
            let answer = TcpPacket::new_unchecked(&answer[20..]);
            if answer.syn() {
                let ack = TcpSeqNumber(answer.seq_number().0.wrapping_add(1));
                segments.push(segment(answer.src_port(), TcpControl::None, Some(ack)));
            }
        }
        let last = segments.last().expect("the SYN was answered").clone();
        world.device.received.push_back(last);
        world.poll();
    }
    let established = |handle: &&SocketHandle| {
        world.sockets.get::<tcp::Socket<'_>>(**handle).state() == tcp::State::Established
    };
    assert_eq!(handles.iter().filter(established).count(), usize::from(count));
    let mut measure = Measure::new(length);
    let mut place = 0;
    while measure.goes_on() {
        for _ in 0..16 {
            place = (place + 7919) % segments.len();
            let mut packet = world.device.free.borrow_mut().pop().unwrap_or_default();
            packet.clear();
            packet.extend_from_slice(&segments[place]);
            world.device.received.push_back(packet);
        }
        let now = Instant::from_millis(1);
        while !world.device.received.is_empty() {
            world
                .interface
                .poll_ingress_single(now, &mut world.device, &mut world.sockets);
            measure.add(1);
        }
    }
    measure.nanos()
}

fn segment(to: u16, control: TcpControl, ack: Option<TcpSeqNumber>) -> Vec<u8> {
    let is_syn = control == TcpControl::Syn;
    let tcp = TcpRepr {
        src_port: 7,
        dst_port: to,
        control,
        seq_number: TcpSeqNumber(if is_syn { 100 } else { 101 }),
        ack_number: ack,
        window_len: 65_535,
        window_scale: None,
        max_seg_size: is_syn.then_some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = Ipv4Repr {
        src_addr: STRANGER,
        dst_addr: HOST,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let checksums = ChecksumCapabilities::default();
    let mut packet = vec![0; ip.buffer_len() + tcp.buffer_len()];
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut packet[..]), &checksums);
    let mut view = TcpPacket::new_unchecked(&mut packet[20..]);
    tcp.emit(&mut view, &STRANGER.into(), &HOST.into(), &checksums);
    packet
}
