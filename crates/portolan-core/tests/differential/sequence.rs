//! One random sequence of operations, done on the kernel and told to the table, with every answer compared.
//!
//! The table is driven through the `replay` example, so that a sequence that differs is its own report:
//! the lines can be fed to `cargo run -p portolan-core --example replay`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::kernel::{self, Socket};
use crate::session::Session;
use crate::world::{ADDRESSES, Answer, DEVICES, Peer, World};

/// What a sequence may do.
#[derive(Clone, Copy)]
pub(crate) struct Powers {
    /// Whether it can be other users than the one it is.
    pub(crate) users: bool,
    /// Whether it can forge packets, which TCP connections need.
    pub(crate) packets: bool,
}

/// How a sequence ended.
pub(crate) enum End {
    /// All answers were equal; the number of operations compared.
    Same(usize),
    /// The known hole of automatic connects was met, where either answer is right.
    Hole(usize),
    /// The answers differ; the lines that lead there, and what differed.
    Different(Vec<String>, String),
}

/// The ports that a sequence has for itself.
pub(crate) const PORTS: u16 = 10;

struct Live {
    id: u64,
    socket: Socket,
    tcp: bool,
    ipv6: bool,
    uid: u32,
    device: Option<usize>,
    listening: bool,
    /// The other end of a TCP connection.
    peer: Option<Peer>,
    connected: bool,
    /// A TCP socket over IPv6 that was connected to an IPv4 address: Linux 6.18 does not complete a
    /// native handshake on it any more, which is not what is compared here.
    spoke_ipv4: bool,
    /// An IPv6 UDP socket that gave an automatic port back by a disconnect. Linux keeps parts of its old
    /// address apart from the one it shows (docs/bind-rules.md), so it connects no more.
    released: bool,
    /// Bound to a loopback address, from which routing leads nowhere else.
    on_loopback: bool,
}

pub(crate) struct Sequence<'a> {
    world: &'a mut World,
    random: ChaCha8Rng,
    powers: Powers,
    session: Session,
    lines: Vec<String>,
    live: Vec<Live>,
    next_id: u64,
    base: u16,
    ephemeral: u16,
    next_source: u16,
    compared: usize,
    kinds: Kinds,
}

/// How often each operation had each answer.
pub(crate) type Kinds = BTreeMap<String, usize>;

/// Stops a sequence early.
enum Stop {
    Io(io::Error),
    Hole,
    Different(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

type Step = Result<(), Stop>;

const LOCAL4: [&str; 5] = ["0.0.0.0", "0.0.0.0", "10.8.0.1", "10.8.0.2", "10.9.0.1"];
const RARE4: [&str; 5] = ["127.0.0.6", "10.8.0.255", "224.1.1.1", "10.99.0.1", "127.0.0.1"];
const LOCAL6: [&str; 9] = [
    "::",
    "::",
    "::",
    "fd08::1",
    "fd08::2",
    "fd09::1",
    "::ffff:0.0.0.0",
    "::ffff:10.8.0.1",
    "::ffff:10.8.0.2",
];
const RARE6: [&str; 5] = [
    "::1",
    "fd99::1",
    "::ffff:10.99.0.1",
    "::ffff:127.0.0.6",
    "ff0e::1",
];
/// linux/in.h; libc lacks it.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
const MULTICAST: [&str; 2] = ["224.1.1.1", "224.2.2.2"];

impl<'a> Sequence<'a> {
    pub(crate) fn new(world: &'a mut World, random: ChaCha8Rng, powers: Powers, base: u16) -> Self {
        Self {
            world,
            random,
            powers,
            session: Session::new(),
            lines: Vec::new(),
            live: Vec::new(),
            next_id: 1,
            base,
            ephemeral: 1,
            next_source: 20_000,
            compared: 0,
            kinds: Kinds::new(),
        }
    }

    /// Runs the sequence, counting answers by kind.
    pub(crate) fn run(mut self, kinds: &mut Kinds) -> io::Result<End> {
        let outcome = self.steps();
        for (kind, count) in self.kinds {
            *kinds.entry(kind).or_default() += count;
        }
        for live in self.live.drain(..) {
            live.socket.abort();
        }
        match outcome {
            Ok(()) => Ok(End::Same(self.compared)),
            Err(Stop::Io(error)) => Err(error),
            Err(Stop::Hole) => Ok(End::Hole(self.compared)),
            Err(Stop::Different(what)) => Ok(End::Different(self.lines, what)),
        }
    }

    fn steps(&mut self) -> Step {
        self.ephemeral = *[1, 2, 4].choose(&mut self.random).expect("not empty");
        let (first, last) = (self.base + 4, self.base + 3 + self.ephemeral);
        self.world.set_ephemeral(first, last)?;
        let reserved: [u16; 0] = [];
        let addresses: Value = serde_json::from_str(ADDRESSES).expect("a constant");
        self.tell(
            json!({"op": "config", "addresses": addresses, "ephemeral": [first, last],
            "unprivileged_start": 1024, "reserved": reserved}),
        );
        // Most sequences are about one protocol, since the two have nothing to do with each other.
        let tcp_share = *[0.0, 1.0, 0.5].choose(&mut self.random).expect("not empty");
        let most = self.pick(&[4, 7, 7, 16]);
        let steps = self.random.random_range(8..56);
        for _ in 0..steps {
            let step = self.random.random_range(0..100);
            match step {
                0..22 if self.live.len() < most => self.socket_and_bind(tcp_share)?,
                0..30 => self.with_any(Self::set)?,
                30..38 => self.with_any(Self::bind)?,
                38..50 => self.with_any(Self::listen)?,
                50..64 => self.with_any(Self::connect)?,
                64..70 => self.with_any(Self::disconnect)?,
                70..72 => self.with_any(Self::shutdown)?,
                72..76 => self.close()?,
                76..79 => self.with_any(Self::join)?,
                79..90 if self.powers.packets => self.syn()?,
                90..93 if self.powers.packets => self.segment()?,
                93..100 if self.powers.packets => self.datagram()?,
                _ if self.live.len() < most => self.socket_and_bind(tcp_share)?,
                _ => self.close()?,
            }
        }
        Ok(())
    }

    /// Asks the table and keeps the line.
    fn tell(&mut self, line: Value) -> Value {
        let operation = line["op"].as_str().unwrap_or_default();
        let text = line.to_string();
        let answer = self.session.answer(text.as_bytes());
        let what = match (&answer["error"], &answer["because"]) {
            (Value::String(error), _) => error,
            (_, Value::String(because)) => because,
            _ => "ok",
        };
        *self.kinds.entry(format!("{operation}: {what}")).or_default() += 1;
        let line = text;
        self.lines.push(line);
        answer
    }

    fn different(&self, kernel: &str, table: &Value) -> Stop {
        Stop::Different(format!("the kernel: {kernel}; the table: {table}"))
    }

    /// Compares an operation that has no port in its answer.
    fn compare(&mut self, line: Value, kernel: io::Result<()>) -> Step {
        let answer = self.tell(line);
        self.compared += 1;
        let kernel = kernel.map_or_else(|error| errno_name(&error), |()| "OK".to_owned());
        let table = answer["error"].as_str().unwrap_or("OK");
        if kernel == table {
            Ok(())
        } else {
            Err(self.different(&kernel, &answer))
        }
    }

    /// Compares an operation that answers with a port, which may be an automatic one.
    fn compare_port(&mut self, mut line: Value, kernel: io::Result<u16>, automatic: bool) -> Step {
        if let (Ok(port), true) = (&kernel, automatic)
            && *port != 0
        {
            line["choose"] = json!(port);
        }
        let names_holder = line["op"] == "bind" && !automatic;
        let is_connect = line["op"] == "connect" && automatic;
        let answer = self.tell(line);
        self.compared += 1;
        let table = answer["error"].as_str().unwrap_or("OK");
        match kernel {
            Ok(port) if table == "OK" && answer["port"] == port => Ok(()),
            Err(error) if errno_name(&error) == table => {
                if names_holder && table == "EADDRINUSE" && answer["in_the_way"][0].is_null() {
                    return Err(Stop::Different("nobody is named".to_owned()));
                }
                Ok(())
            }
            Ok(_) if is_connect && table == "EADDRNOTAVAIL" && self.may_be_hole() => Err(Stop::Hole),
            Ok(port) => Err(self.different(&format!("port {port}"), &answer)),
            Err(error) => Err(self.different(&errno_name(&error), &answer)),
        }
    }

    /// Whether two TCP connections are there, as the hole of automatic connects needs: Linux forgets
    /// that a port was asked for if the wildcard socket that asked connected from the address of an
    /// automatic connection, and another socket of the port went.
    fn may_be_hole(&self) -> bool {
        self.live.iter().filter(|live| live.tcp && live.connected).count() >= 2
    }

    fn with_any(&mut self, step: fn(&mut Self, usize) -> Step) -> Step {
        if self.live.is_empty() {
            return Ok(());
        }
        let at = self.random.random_range(0..self.live.len());
        step(self, at)
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.random).expect("not empty")
    }

    /// Does something as the user of a socket.
    fn as_user<T>(uid: u32, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if uid == 0 {
            return act();
        }
        kernel::act_as(uid)?;
        let result = act();
        kernel::act_as(0)?;
        result
    }

    fn socket_and_bind(&mut self, tcp_share: f64) -> Step {
        let tcp = self.random.random_bool(tcp_share);
        let ipv6 = self.random.random();
        let uid = if self.powers.users {
            self.pick(&[0, 0, 0, 5, 6])
        } else {
            0
        };
        let socket = Self::as_user(uid, || Socket::new(ipv6, tcp))?;
        let id = self.next_id;
        self.next_id += 1;
        self.live.push(Live {
            id,
            socket,
            tcp,
            ipv6,
            uid,
            device: None,
            listening: false,
            peer: None,
            connected: false,
            spoke_ipv4: false,
            released: false,
            on_loopback: false,
        });
        let protocol = if tcp { "tcp" } else { "udp" };
        let family = if ipv6 { "ipv6" } else { "ipv4" };
        self.tell(json!({"op": "socket", "id": id, "protocol": protocol, "family": family, "uid": uid}));
        let at = self.live.len() - 1;
        for (name, percent) in [("reuse_address", 40), ("reuse_port", 45)] {
            if self.chance(percent) {
                self.set_flag(at, name, true)?;
            }
        }
        if self.chance(20) {
            self.set_device(at)?;
        }
        if ipv6 && self.chance(25) {
            self.set_flag(at, "v6_only", true)?;
        }
        if self.chance(85) {
            self.bind(at)?;
        }
        Ok(())
    }

    fn set(&mut self, at: usize) -> Step {
        match self.random.random_range(0..10) {
            0..3 => {
                let on = self.random.random();
                self.set_flag(at, "reuse_address", on)
            }
            3..6 => {
                let on = self.random.random();
                self.set_flag(at, "reuse_port", on)
            }
            6..8 => self.set_device(at),
            8 if self.live[at].ipv6 => {
                let on = self.random.random();
                self.set_flag(at, "v6_only", on)
            }
            8 => self.set_range(at),
            _ => {
                let name = self.pick(&["bind_address_no_port", "multicast_all"]);
                if name == "multicast_all" && (self.live[at].tcp || self.live[at].ipv6) {
                    return Ok(());
                }
                let on = self.random.random();
                self.set_flag(at, name, on)
            }
        }
    }

    fn set_flag(&mut self, at: usize, name: &str, on: bool) -> Step {
        let (level, option) = match name {
            "reuse_address" => (libc::SOL_SOCKET, libc::SO_REUSEADDR),
            "reuse_port" => (libc::SOL_SOCKET, libc::SO_REUSEPORT),
            "v6_only" => (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
            "bind_address_no_port" => (libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT),
            "multicast_all" => (libc::IPPROTO_IP, libc::IP_MULTICAST_ALL),
            other => unreachable!("option {other}"),
        };
        let live = &self.live[at];
        let kernel = live.socket.set_int(level, option, on.into());
        let line = json!({"op": "set", "id": live.id, "option": name, "value": on});
        self.compare(line, kernel)
    }

    fn set_range(&mut self, at: usize) -> Step {
        let first = self.base + 4 + self.random.random_range(0..2);
        let last = first + self.random.random_range(0..2);
        let live = &self.live[at];
        let value = (u32::from(last) << 16 | u32::from(first)).to_ne_bytes();
        let kernel = live.socket.set(libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, &value);
        let line = json!({"op": "set", "id": live.id, "option": "port_range", "value": [first, last]});
        self.compare(line, kernel)
    }

    fn set_device(&mut self, at: usize) -> Step {
        let device = self.pick(&[None, Some(0), Some(1)]);
        let live = &mut self.live[at];
        let name = device.map_or("", |device| DEVICES[device]);
        let text = [name.as_bytes(), b"\0"].concat();
        let kernel = Self::as_user(live.uid, || {
            live.socket.set(libc::SOL_SOCKET, libc::SO_BINDTODEVICE, &text)
        });
        if kernel.is_ok() {
            live.device = device;
        }
        let line = json!({"op": "set", "id": live.id, "option": "device", "value": name});
        self.compare(line, kernel)
    }

    fn bind(&mut self, at: usize) -> Step {
        let (ipv6, uid) = (self.live[at].ipv6, self.live[at].uid);
        let address = match (ipv6, self.chance(90)) {
            (false, true) => self.pick(&LOCAL4),
            (false, false) => self.pick(&RARE4),
            (true, true) => self.pick(&LOCAL6),
            (true, false) => self.pick(&RARE6),
        };
        let port = match self.random.random_range(0..100) {
            0..70 => self.base,
            70..80 => self.base + 1,
            80..88 => self.base + 4,
            88..90 if uid != 0 => 80,
            _ => 0,
        };
        let live = &self.live[at];
        let local = SocketAddr::new(address.parse().expect("a constant"), port);
        let kernel =
            Self::as_user(uid, || live.socket.bind(ipv6, local)).and_then(|()| live.socket.local_port());
        if kernel.is_ok() {
            self.live[at].on_loopback = address.contains("127.0.0") || address == "::1";
        }
        let live = &self.live[at];
        let line = json!({"op": "bind", "id": live.id, "address": address, "port": port});
        self.compare_port(line, kernel, port == 0)
    }

    fn listen(&mut self, at: usize) -> Step {
        let live = &mut self.live[at];
        let before = live.socket.local_port()?;
        let kernel = live.socket.listen().and_then(|()| live.socket.local_port());
        live.listening |= kernel.is_ok();
        let line = json!({"op": "listen", "id": live.id});
        // getsockname may show a port that a disconnect released, so the choice is always told.
        let automatic = kernel.is_ok() || before == 0;
        self.compare_port(line, kernel, automatic)
    }

    fn connect(&mut self, at: usize) -> Step {
        let (tcp, ipv6) = (self.live[at].tcp, self.live[at].ipv6);
        if self.live[at].on_loopback || self.live[at].released || tcp && !self.powers.packets {
            return Ok(());
        }
        let to_ipv4 = !ipv6 || self.chance(40) || self.live[at].spoke_ipv4;
        self.live[at].spoke_ipv4 = tcp && to_ipv4;
        let host = self.pick(&[100, 100, 101]);
        let address = match (ipv6, to_ipv4) {
            (false, _) => format!("10.7.0.{host}"),
            (true, true) => format!("::ffff:10.7.0.{host}"),
            (true, false) => format!("fd07::{host}"),
        };
        let port = self.pick(&[7000, 7000, 7001]);
        let remote = SocketAddr::new(address.parse().expect("made above"), port);
        let source = match (self.live[at].device, to_ipv4) {
            (Some(1), true) => "10.9.0.1",
            (_, true) => "10.8.0.1",
            (Some(1), false) => "fd09::1",
            (_, false) => "fd08::1",
        };
        let refuse = tcp && self.chance(25);
        self.world.discard()?;
        let live = &self.live[at];
        let mut line =
            json!({"op": "connect", "id": live.id, "address": address, "port": port, "source": source});
        let started = live.socket.connect(ipv6, remote);
        if !tcp {
            // An unreachable remote is found out after an automatic port was taken.
            let port = live.socket.local_port()?;
            if port != 0 {
                line["choose"] = json!(port);
            }
            let done = started.map(|()| port);
            self.live[at].connected |= done.is_ok();
            return self.compare_port(line, done, true);
        }
        match started {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return self.compare_port(line, Err(error), true),
            Ok(()) => return Err(Stop::Different("connected at once".to_owned())),
        }
        let own_port = live.socket.local_port()?;
        let Some(syn) = self.world.syn_from(own_port)? else {
            self.lines.push(line.to_string());
            return Err(Stop::Different("the kernel sent no SYN".to_owned()));
        };
        let peer = self.world.take(syn, refuse)?;
        let live = &mut self.live[at];
        // The second call ends a non-blocking connect, as the first one ends a blocking one.
        let ended = live.socket.connect(ipv6, remote);
        if refuse {
            line["outcome"] = json!("refused");
            line["choose"] = json!(own_port);
            return self.compare_port(line, ended.map(|()| own_port), false);
        }
        live.peer = Some(peer);
        live.connected = ended.is_ok();
        self.compare_port(line, ended.map(|()| own_port), true)
    }

    fn disconnect(&mut self, at: usize) -> Step {
        let live = &mut self.live[at];
        live.socket.forget_processor()?;
        let kernel = live.socket.disconnect();
        live.listening = false;
        live.peer = None;
        live.connected = false;
        if !live.tcp {
            live.device = None;
            live.released |= live.ipv6 && live.socket.local_port()? == 0;
        }
        let line = json!({"op": "disconnect", "id": live.id});
        self.compare(line, kernel)
    }

    fn shutdown(&mut self, at: usize) -> Step {
        let live = &mut self.live[at];
        if !live.listening {
            return Ok(());
        }
        let kernel = live.socket.shutdown_read();
        live.listening = false;
        let line = json!({"op": "shutdown", "id": live.id, "how": "read"});
        self.compare(line, kernel)
    }

    fn close(&mut self) -> Step {
        if self.live.is_empty() {
            return Ok(());
        }
        let at = self.random.random_range(0..self.live.len());
        let live = self.live.swap_remove(at);
        let mut line = json!({"op": "close", "id": live.id});
        if let Some(mut peer) = live.peer {
            // The socket may have been bound to a device after it connected.
            peer.device = live.device.unwrap_or(peer.device);
            let how = self.pick(&["time_wait", "time_wait", "passive", "reset"]);
            line["how"] = json!(how);
            match how {
                "time_wait" => {
                    drop(live.socket);
                    self.world.close_second(&mut peer)?;
                }
                "passive" => {
                    self.world.close_first(&mut peer)?;
                    drop(live.socket);
                    self.world.close_last(&mut peer)?;
                }
                _ => live.socket.abort(),
            }
        }
        self.compare(line, Ok(()))
    }

    fn join(&mut self, at: usize) -> Step {
        let group = self.pick(&MULTICAST);
        let device = self.pick(&[0, 1]);
        let live = &self.live[at];
        if live.tcp || live.ipv6 {
            return Ok(());
        }
        let address: IpAddr = group.parse().expect("a constant");
        let IpAddr::V4(address) = address else {
            return Ok(());
        };
        let own = if device == 0 { [10, 8, 0, 1] } else { [10, 9, 0, 1] };
        let request = [address.octets(), own].concat();
        let kernel = match live
            .socket
            .set(libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request)
        {
            Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => return Ok(()),
            kernel => kernel,
        };
        let line = json!({"op": "join", "id": live.id, "group": group, "device": DEVICES[device]});
        self.compare(line, kernel)
    }

    fn any_source(&mut self, ipv6: bool) -> SocketAddr {
        self.next_source += 1;
        let host = self.pick(&[100, 101]);
        let address = if ipv6 {
            format!("fd07::{host}")
        } else {
            format!("10.7.0.{host}")
        };
        SocketAddr::new(address.parse().expect("made above"), self.next_source)
    }

    /// An address of the kernel's, mostly with the port of some socket of the protocol.
    fn any_destination(&mut self, tcp: bool) -> Result<SocketAddr, Stop> {
        let of_protocol: Vec<_> = self.live.iter().filter(|live| live.tcp == tcp).collect();
        let target = of_protocol.choose(&mut self.random).copied();
        let target = match target {
            Some(live) => Some((live.ipv6, live.socket.local_port()?)),
            None => None,
        };
        let ipv6 = match target {
            Some((ipv6, _)) => ipv6 && self.chance(60),
            None => self.random.random(),
        };
        let address = if ipv6 {
            self.pick(&["fd08::1", "fd08::1", "fd08::2", "fd09::1"])
        } else {
            self.pick(&["10.8.0.1", "10.8.0.1", "10.8.0.2", "10.9.0.1"])
        };
        let port = match target {
            Some((_, port)) if port != 0 && self.chance(85) => port,
            _ => self.base,
        };
        Ok(SocketAddr::new(address.parse().expect("a constant"), port))
    }

    fn ask(
        &mut self,
        protocol: &str,
        source: SocketAddr,
        destination: SocketAddr,
        device: usize,
        segment: &str,
    ) -> Value {
        self.tell(deliver(protocol, source, destination, device, segment))
    }

    /// The sockets that the table would give such a packet to, from any source port: the members of a group.
    fn possible(
        &mut self,
        protocol: &str,
        source: SocketAddr,
        destination: SocketAddr,
        device: usize,
    ) -> BTreeSet<u64> {
        let mut members = BTreeSet::new();
        for port in 30_000..30_064 {
            let source = SocketAddr::new(source.ip(), port);
            let line = deliver(protocol, source, destination, device, "syn").to_string();
            members.extend(ids(&self.session.answer(line.as_bytes())["to"]));
        }
        members
    }

    fn compare_receivers(
        &mut self,
        answer: &Value,
        receivers: &BTreeSet<u64>,
        protocol: &str,
        (source, destination): (SocketAddr, SocketAddr),
        device: usize,
    ) -> Step {
        self.compared += 1;
        let predicted: BTreeSet<u64> = ids(&answer["to"]).collect();
        let is_group = answer["because"]
            .as_str()
            .is_some_and(|because| because.contains("group") && !because.contains("multicast"));
        let fits = predicted == *receivers
            || is_group
                && receivers.len() == 1
                && receivers.is_subset(&self.possible(protocol, source, destination, device));
        if fits {
            Ok(())
        } else {
            Err(self.different(&format!("to {receivers:?}"), answer))
        }
    }

    /// A connection from outside: who gets it?
    fn syn(&mut self) -> Step {
        if !self.live.iter().any(|live| live.tcp) {
            return Ok(());
        }
        let destination = self.any_destination(true)?;
        let source = self.any_source(destination.is_ipv6());
        let device = self.pick(&[0, 0, 1]);
        let answer = self.ask("tcp", source, destination, device, "syn");
        let (reply, peer) = self.world.open(device, source, destination)?;
        let mut receivers = BTreeSet::new();
        let mut accepted = None;
        for live in self.live.iter().filter(|live| live.listening) {
            if let Some(socket) = live.socket.accept()? {
                receivers.insert(live.id);
                let spoke_ipv4 = live.spoke_ipv4 || destination.is_ipv4();
                accepted = Some((socket, live.id, live.ipv6, live.uid, live.device, spoke_ipv4));
            }
        }
        if receivers.is_empty() && self.may_be_elsewhere(&answer, source, destination, device) {
            return Ok(());
        }
        self.compare_receivers(&answer, &receivers, "tcp", (source, destination), device)?;
        let expects_reset = answer["reply"] == "rst";
        if expects_reset != (reply == Answer::Reset) {
            return Err(self.different(&format!("{reply:?}"), &answer));
        }
        if let (Some((socket, listener, ipv6, uid, device_of, spoke_ipv4)), Some(peer)) = (accepted, peer) {
            let id = self.next_id;
            self.next_id += 1;
            let line = json!({"op": "accept", "id": listener, "new": id, "source": source.to_string(),
                "destination": destination.to_string(), "device": DEVICES[device]});
            self.live.push(Live {
                id,
                socket,
                tcp: true,
                ipv6,
                uid,
                device: device_of,
                listening: false,
                peer: Some(peer),
                connected: true,
                spoke_ipv4,
                released: false,
                on_loopback: false,
            });
            // An accepted socket belongs to who accepts, so it is given to the listener's user.
            let at = self.live.len() - 1;
            self.live[at].socket.give_to(uid)?;
            self.compare(line, Ok(()))?;
        }
        Ok(())
    }

    /// Whether a member of the group was bound to another device after it joined: the kernel may choose it
    /// for a SYN, but no handshake completes over this device.
    fn may_be_elsewhere(
        &mut self,
        answer: &Value,
        source: SocketAddr,
        destination: SocketAddr,
        device: usize,
    ) -> bool {
        let because = answer["because"].as_str().unwrap_or_default();
        if !because.contains("group") {
            return false;
        }
        let members = self.possible("tcp", source, destination, device);
        self.live
            .iter()
            .any(|live| members.contains(&live.id) && live.device.is_some_and(|own| own != device))
    }

    /// A segment of a connection, over either device.
    fn segment(&mut self) -> Step {
        let flows: Vec<usize> = (0..self.live.len())
            .filter(|&at| self.live[at].peer.is_some())
            .collect();
        let Some(&at) = flows.choose(&mut self.random) else {
            return Ok(());
        };
        let device = self.pick(&[0, 1]);
        let peer = self.live[at].peer.expect("filtered above");
        let answer = self.ask("tcp", peer.remote, peer.local, device, "ack");
        let predicted: Vec<_> = ids(&answer["to"]).collect();
        // Only the connection that is to get the segment knows its sequence numbers.
        let target = predicted
            .first()
            .and_then(|&id| self.live.iter().position(|live| live.id == id));
        let peer = target.and_then(|target| self.live[target].peer).unwrap_or(peer);
        let reply = self.world.data(&peer, device)?;
        let mut receivers = BTreeSet::new();
        for live in self.live.iter_mut() {
            if let Some(own) = &mut live.peer
                && live.socket.receive()? == Some(1)
            {
                World::sent_one(own);
                receivers.insert(live.id);
            }
        }
        let ends = (peer.remote, peer.local);
        // A connection that is gone but in TIME-WAIT is a receiver that we cannot see.
        if target.is_none() && !predicted.is_empty() {
            return Ok(());
        }
        self.compare_receivers(&answer, &receivers, "tcp", ends, device)?;
        if (answer["reply"] == "rst") != (reply == Answer::Reset) {
            return Err(self.different(&format!("{reply:?}"), &answer));
        }
        Ok(())
    }

    /// A datagram from outside: who gets it?
    fn datagram(&mut self) -> Step {
        if !self.live.iter().any(|live| !live.tcp) {
            return Ok(());
        }
        let device = self.pick(&[0, 0, 1]);
        let mut destination = self.any_destination(false)?;
        let ipv6 = destination.is_ipv6();
        if !ipv6 && self.chance(20) {
            let address = self.pick(&["10.8.0.255", "224.1.1.1", "224.2.2.2", "224.0.0.1"]);
            destination.set_ip(address.parse().expect("a constant"));
        }
        let mut source = self.any_source(ipv6);
        if self.chance(40) {
            source.set_port(self.pick(&[7000, 7001]));
        }
        let answer = self.ask("udp", source, destination, device, "syn");
        let reply = self.world.datagram(device, source, destination)?;
        let mut receivers = BTreeSet::new();
        for live in self.live.iter().filter(|live| !live.tcp) {
            // An error is of a datagram that this socket did not send: none can be pending.
            if live.socket.receive()?.is_some() {
                live.socket.forget_processor()?;
                receivers.insert(live.id);
            }
        }
        self.compare_receivers(&answer, &receivers, "udp", (source, destination), device)?;
        if (answer["reply"] == "icmp-port-unreachable") != (reply == Answer::Unreachable) {
            return Err(self.different(&format!("{reply:?}"), &answer));
        }
        Ok(())
    }
}

fn deliver(
    protocol: &str,
    source: SocketAddr,
    destination: SocketAddr,
    device: usize,
    segment: &str,
) -> Value {
    json!({"op": "deliver", "protocol": protocol, "source": source.to_string(),
        "destination": destination.to_string(), "device": DEVICES[device], "segment": segment})
}

fn ids(list: &Value) -> impl Iterator<Item = u64> + '_ {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64)
}

fn errno_name(error: &io::Error) -> String {
    let name = match error.raw_os_error() {
        Some(libc::EACCES) => "EACCES",
        Some(libc::EADDRINUSE) => "EADDRINUSE",
        Some(libc::EADDRNOTAVAIL) => "EADDRNOTAVAIL",
        Some(libc::EAFNOSUPPORT) => "EAFNOSUPPORT",
        Some(libc::EAGAIN) => "EAGAIN",
        Some(libc::ECONNREFUSED) => "ECONNREFUSED",
        Some(libc::EINVAL) => "EINVAL",
        Some(libc::EISCONN) => "EISCONN",
        Some(libc::ENETUNREACH) => "ENETUNREACH",
        Some(libc::ENODEV) => "ENODEV",
        Some(libc::ENOTCONN) => "ENOTCONN",
        Some(libc::EOPNOTSUPP) => "EOPNOTSUPP",
        Some(libc::EPERM) => "EPERM",
        _ => return error.to_string(),
    };
    name.to_owned()
}
