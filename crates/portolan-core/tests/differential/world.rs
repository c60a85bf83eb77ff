//! A private network namespace: two TUN devices, behind which we play every other host.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::kernel::{self, Tun};
use crate::packets::{self, ACK, FIN, RST, SYN, Sent, Tcp};

/// The devices; the first is the one that packets to everybody else go out of.
pub(crate) const DEVICES: [&str; 2] = ["t0", "t1"];

/// As a replay's config tells them.
pub(crate) const ADDRESSES: &str =
    r#"{"t0":["10.8.0.1/24","10.8.0.2/24","fd08::1/64","fd08::2/64"],"t1":["10.9.0.1/24","fd09::1/64"]}"#;

/// The other hosts, 10.7.0.0/24 and fd07::/64, are behind both devices; the second is used by sockets that
/// are bound to it. The second address of t0 is deprecated in IPv6, so that it is no source by itself.
const SET_UP: &str = "
link set lo up
link set t0 up
link set t1 up
addr add 10.8.0.1/24 dev t0
addr add 10.8.0.2/24 dev t0
addr add 10.9.0.1/24 dev t1
addr add fd08::1/64 dev t0 nodad
addr add fd08::2/64 dev t0 nodad preferred_lft 0
addr add fd09::1/64 dev t1 nodad
route add 10.7.0.0/24 dev t0 metric 1 src 10.8.0.1
route add 10.7.0.0/24 dev t1 metric 2 src 10.9.0.1
route add fd07::/64 dev t0 metric 1 src fd08::1
route add fd07::/64 dev t1 metric 2 src fd09::1
";

const VETH: &str = "
link add t0 type veth peer name p0
link add t1 type veth peer name p1
link set p0 up
link set p1 up
";

const SETTINGS: [(&str, &str); 11] = [
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/tcp_timestamps", "0"),
    ("net/ipv4/tcp_tw_reuse", "0"),
    ("net/ipv4/tcp_syncookies", "0"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv4/icmp_msgs_per_sec", "1000000"),
    ("net/ipv4/icmp_msgs_burst", "1000000"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
];

/// An established connection, as the host at its other end knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) device: usize,
    /// The kernel's end.
    pub(crate) local: SocketAddr,
    /// Ours.
    pub(crate) remote: SocketAddr,
    snd_nxt: u32,
    rcv_nxt: u32,
}

/// What the kernel answered a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    SynAck(u32),
    Reset,
    Unreachable,
    Nothing,
}

pub(crate) struct World {
    /// None if this user may not open TUN devices: then there are pairs of veth devices, and no packets.
    tuns: Option<[Tun; 2]>,
    buffer: Vec<u8>,
}

const ISS: u32 = 1000;

impl World {
    /// Sets up the namespace that the process is in.
    pub(crate) fn new() -> io::Result<Self> {
        let setting = |name: &str, value: &str| {
            std::fs::write(format!("/proc/sys/{name}"), value)
                .map_err(|error| io::Error::other(format!("{name}: {error}")))
        };
        for (name, value) in SETTINGS {
            setting(name, value)?;
        }
        let tuns = match (Tun::open(DEVICES[0]), Tun::open(DEVICES[1])) {
            (Ok(first), Ok(second)) => Some([first, second]),
            (Err(error), _) | (_, Err(error)) if error.kind() != io::ErrorKind::PermissionDenied => {
                return Err(error);
            }
            _ => None,
        };
        let mut ip = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        let mut commands = ip.stdin.take().expect("a pipe was asked for");
        if tuns.is_none() {
            commands.write_all(VETH.as_bytes())?;
        }
        commands.write_all(SET_UP.as_bytes())?;
        drop(commands);
        if !ip.wait()?.success() {
            return Err(io::Error::other("ip could not set up the namespace"));
        }
        let mut world = Self {
            tuns,
            buffer: vec![0; 2048],
        };
        world.settle()?;
        Ok(world)
    }

    /// Waits until both devices carry both families both ways: the kernel activates a new device in its
    /// own time, and drops what it would send until then.
    fn settle(&mut self) -> io::Result<()> {
        if !self.has_packets() {
            return Ok(());
        }
        for (device, source, destination) in [
            (0, "10.8.0.100:9", "10.8.0.1:9"),
            (0, "[fd08::100]:9", "[fd08::1]:9"),
            (1, "10.9.0.100:9", "10.9.0.1:9"),
            (1, "[fd09::100]:9", "[fd09::1]:9"),
        ] {
            let source = source.parse().expect("a constant");
            let destination = destination.parse().expect("a constant");
            let started = Instant::now();
            while self.open(device, source, destination)?.0 != Answer::Reset {
                if started.elapsed() > Duration::from_secs(10) {
                    return Err(io::Error::other("the devices do not come up"));
                }
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    /// Leaves this namespace for a new one, in which no port is held.
    pub(crate) fn renew(self) -> io::Result<Self> {
        drop(self);
        kernel::new_network()?;
        Self::new()
    }

    pub(crate) fn set_ephemeral(&self, first: u16, last: u16) -> io::Result<()> {
        std::fs::write(
            "/proc/sys/net/ipv4/ip_local_port_range",
            format!("{first} {last}"),
        )
    }

    /// Whether packets can be sent and read.
    pub(crate) const fn has_packets(&self) -> bool {
        self.tuns.is_some()
    }

    fn send(&mut self, device: usize, packet: &[u8]) -> io::Result<()> {
        match &mut self.tuns {
            Some(tuns) => tuns[device].send(packet),
            None => Err(io::Error::other("no packets without TUN devices")),
        }
    }

    /// Everything that the kernel sent since the last call, with the device.
    fn drain(&mut self) -> io::Result<Vec<(usize, Sent)>> {
        let mut sent = Vec::new();
        for (device, tun) in self.tuns.iter_mut().flatten().enumerate() {
            while let Some(length) = tun.receive(&mut self.buffer)? {
                sent.push((device, packets::parse(&self.buffer[..length])));
            }
        }
        Ok(sent)
    }

    /// Forgets what the kernel sent up to now.
    pub(crate) fn discard(&mut self) -> io::Result<()> {
        self.drain().map(drop)
    }

    /// Sends a UDP datagram; whether it was answered with port unreachable.
    pub(crate) fn datagram(
        &mut self,
        device: usize,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> io::Result<Answer> {
        self.drain()?;
        self.send(device, &packets::udp(source, destination))?;
        let unreachable = self
            .drain()?
            .iter()
            .any(|(_, sent)| matches!(sent, Sent::PortUnreachable));
        Ok(if unreachable {
            Answer::Unreachable
        } else {
            Answer::Nothing
        })
    }

    fn answer_to(&mut self, source: SocketAddr, destination: SocketAddr) -> io::Result<Answer> {
        for (_, sent) in self.drain()? {
            if let Sent::Tcp {
                source: from,
                destination: to,
                seq,
                flags,
            } = sent
                && (from, to) == (destination, source)
            {
                if flags & RST != 0 {
                    return Ok(Answer::Reset);
                }
                if flags & (SYN | ACK) == SYN | ACK {
                    return Ok(Answer::SynAck(seq));
                }
            }
        }
        Ok(Answer::Nothing)
    }

    /// Connects to the kernel as another host would, as far as the kernel lets us.
    pub(crate) fn open(
        &mut self,
        device: usize,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> io::Result<(Answer, Option<Peer>)> {
        self.drain()?;
        let syn = Tcp {
            source,
            destination,
            seq: ISS,
            ack: 0,
            flags: SYN,
            data: b"",
        };
        self.send(device, &syn.emit())?;
        let answer = self.answer_to(source, destination)?;
        let Answer::SynAck(irs) = answer else {
            return Ok((answer, None));
        };
        let peer = Peer {
            device,
            local: destination,
            remote: source,
            snd_nxt: ISS + 1,
            rcv_nxt: irs.wrapping_add(1),
        };
        self.segment(&peer, device, ACK, b"")?;
        Ok((answer, Some(peer)))
    }

    /// The SYN that the kernel sent from this port, with the device it went out of.
    pub(crate) fn syn_from(&mut self, port: u16) -> io::Result<Option<(usize, SocketAddr, SocketAddr, u32)>> {
        Ok(self.drain()?.into_iter().find_map(|(device, sent)| match sent {
            Sent::Tcp {
                source,
                destination,
                seq,
                flags,
            } if flags & (SYN | ACK) == SYN && source.port() == port => {
                Some((device, source, destination, seq))
            }
            Sent::Tcp { .. } | Sent::PortUnreachable | Sent::Other => None,
        }))
    }

    /// Answers a SYN of the kernel: takes the connection, or refuses it.
    pub(crate) fn take(
        &mut self,
        (device, source, destination, irs): (usize, SocketAddr, SocketAddr, u32),
        refuse: bool,
    ) -> io::Result<Peer> {
        let peer = Peer {
            device,
            local: source,
            remote: destination,
            snd_nxt: ISS,
            rcv_nxt: irs.wrapping_add(1),
        };
        let flags = if refuse { RST | ACK } else { SYN | ACK };
        self.segment(&peer, device, flags, b"")?;
        Ok(Peer {
            snd_nxt: ISS + 1,
            ..peer
        })
    }

    fn segment(&mut self, peer: &Peer, device: usize, flags: u8, data: &'static [u8]) -> io::Result<()> {
        let segment = Tcp {
            source: peer.remote,
            destination: peer.local,
            seq: peer.snd_nxt,
            ack: peer.rcv_nxt,
            flags,
            data,
        };
        self.send(device, &segment.emit())
    }

    /// Sends one byte on a connection, over any device; what came back.
    pub(crate) fn data(&mut self, peer: &Peer, device: usize) -> io::Result<Answer> {
        self.drain()?;
        self.segment(peer, device, ACK, b"x")?;
        self.answer_to(peer.remote, peer.local)
    }

    /// The byte was taken.
    pub(crate) const fn sent_one(peer: &mut Peer) {
        peer.snd_nxt = peer.snd_nxt.wrapping_add(1);
    }

    /// Answers the kernel's FIN with an ACK and our own FIN, which leaves the kernel in TIME-WAIT.
    pub(crate) fn close_second(&mut self, peer: &mut Peer) -> io::Result<()> {
        peer.rcv_nxt = peer.rcv_nxt.wrapping_add(1);
        self.segment(peer, peer.device, FIN | ACK, b"")
    }

    /// Sends our FIN first.
    pub(crate) fn close_first(&mut self, peer: &mut Peer) -> io::Result<()> {
        self.segment(peer, peer.device, FIN | ACK, b"")?;
        peer.snd_nxt = peer.snd_nxt.wrapping_add(1);
        Ok(())
    }

    /// Acknowledges the kernel's FIN, after which it forgets the connection.
    pub(crate) fn close_last(&mut self, peer: &mut Peer) -> io::Result<()> {
        peer.rcv_nxt = peer.rcv_nxt.wrapping_add(1);
        self.segment(peer, peer.device, ACK, b"")
    }
}
