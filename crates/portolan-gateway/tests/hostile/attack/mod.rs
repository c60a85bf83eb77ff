//! What the hostile program writes: kinds of attack, and frames of each from a seed.

mod broken;
mod messages;

use std::net::{IpAddr, SocketAddr};

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::namespace::{BLACK_HOLE, HOST_V4, HOST_V6, NO_ROUTE, PROHIBITED, UNREACHABLE};
use crate::neighbour::{ECHO, NAME, NEIGHBOUR, question};
use crate::packets::{
    ACK, COMPLETE, FIN, PSH, RST, SYN, Tcp, UDP, URG, V4, VERIFIED, VIRTIO_LEN, datagram, icmp, ip, seal, udp,
};
use crate::record::Record;
use crate::watch::DENIED;
use crate::world::{GATEWAY, INSIDE};

/// What is written into the device.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: [u8; VIRTIO_LEN],
    pub(crate) packet: Vec<u8>,
}

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// virtio-net headers that do not fit the packet behind them.
    Headers,
    /// Packets of every protocol that end too early, or say that they do not.
    Truncated,
    /// Fragments that overlap, that never end, that end behind the longest datagram, that are too short to be any.
    Fragments,
    /// From the address and port that it is for.
    Land,
    /// From addresses that nobody has, or that others have.
    Spoofed,
    /// To every spelling of every destination that is closed.
    Forbidden,
    /// SYNs without end.
    Syns,
    /// Options of IPv4 and TCP, and header lengths, that lie.
    Options,
    /// Chains of IPv6 extension headers.
    Extensions,
    /// Questions to the gateway's name server.
    Names,
    /// Errors about flows that there are or are not, neighbour discovery, echoes.
    Icmp,
    /// What a good program sent, changed.
    Mutated,
    /// Segments of connections that there are not, and bytes that mean nothing.
    Noise,
}

impl Attack {
    pub(crate) const ALL: [Self; 13] = [
        Self::Headers,
        Self::Truncated,
        Self::Fragments,
        Self::Land,
        Self::Spoofed,
        Self::Forbidden,
        Self::Syns,
        Self::Options,
        Self::Extensions,
        Self::Names,
        Self::Icmp,
        Self::Mutated,
        Self::Noise,
    ];
}

/// Makes frames; the same seed and the same recorded traffic make the same frames.
pub(crate) struct Generator {
    rng: ChaCha8Rng,
    record: Record,
    /// The identification of fragments.
    number: u16,
}

const MORE: u16 = 0x2000;

/// Addresses that are not the program's.
const SOURCES: [[&str; 12]; 2] = [
    [
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.77",
        "10.0.0.1",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "10.0.0.255",
        "224.0.0.1",
        HOST_V4,
        "169.254.7.7",
        "8.8.8.8",
    ],
    [
        "fd00::2",
        "fd00::3",
        "fd00::77",
        "fd00::1",
        "::1",
        "::",
        "fe80::1",
        "ff02::1",
        "::ffff:10.0.0.2",
        "::ffff:127.0.0.1",
        HOST_V6,
        "2001:db8:7::8",
    ],
];

/// Where programs go, and where they may not.
const DESTINATIONS: [[&str; 16]; 2] = [
    [
        HOST_V4,
        HOST_V4,
        HOST_V4,
        "10.0.0.1",
        BLACK_HOLE,
        UNREACHABLE,
        PROHIBITED,
        NO_ROUTE,
        "127.0.0.1",
        "127.0.0.53",
        "169.254.7.7",
        "169.254.169.254",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.251",
        "10.0.0.2",
    ],
    [
        HOST_V6,
        HOST_V6,
        HOST_V6,
        "fd00::1",
        "2001:db8:9::1",
        "::ffff:192.0.2.1",
        "64:ff9b::7f00:1",
        "::127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "fd00:ec2::254",
        "::",
        "ff02::1",
        "2002:7f00:1::1",
        "fd00::2",
    ],
];

const PORTS: [u16; 10] = [ECHO, ECHO, 53, 67, 69, DENIED, 80, 0, 1, 65_535];

impl Generator {
    pub(crate) fn new(seed: u64, record: Record) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            record,
            number: 0,
        }
    }

    /// Any kind of attack.
    pub(crate) fn any_attack(&mut self) -> Attack {
        *Attack::ALL.choose(&mut self.rng).unwrap()
    }

    /// The next frame of an attack. None of them speaks in the neighbour's name.
    pub(crate) fn next(&mut self, attack: Attack) -> Frame {
        loop {
            let frame = match attack {
                Attack::Headers => self.hostile_header(),
                Attack::Truncated => self.truncated(),
                Attack::Fragments => self.fragment(),
                Attack::Land => self.land(),
                Attack::Spoofed => self.spoofed(),
                Attack::Forbidden => self.forbidden(),
                Attack::Syns => self.syn(),
                Attack::Options => self.options(),
                Attack::Extensions => self.extensions(),
                Attack::Names => self.name(),
                Attack::Icmp => self.icmp(),
                Attack::Mutated => self.mutated(),
                Attack::Noise => self.noise(),
            };
            if !is_of_the_neighbour(&frame.packet) {
                return frame;
            }
        }
    }

    fn family(&mut self) -> usize {
        self.rng.random_range(0..2)
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.random_range(0..=most)];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// A number of 16 bits, often at the end of a range.
    fn word(&mut self) -> u16 {
        let any = self.rng.random();
        *[
            0, 1, 7, 8, 19, 20, 40, 1_480, 0x7fff, 0x8000, 0xffff, any, any, any,
        ]
        .choose(&mut self.rng)
        .unwrap()
    }

    fn ends(&mut self) -> (SocketAddr, SocketAddr) {
        let family = self.family();
        let source = INSIDE[family].parse().unwrap();
        (self.from(source), self.somewhere(family))
    }

    fn from(&mut self, source: IpAddr) -> SocketAddr {
        SocketAddr::new(source, self.rng.random_range(1_024..3_000))
    }

    fn somewhere(&mut self, family: usize) -> SocketAddr {
        let address: &str = DESTINATIONS[family].choose(&mut self.rng).unwrap();
        SocketAddr::new(address.parse().unwrap(), *PORTS.choose(&mut self.rng).unwrap())
    }

    fn segment(&mut self) -> Tcp {
        let flags = [
            SYN,
            SYN,
            SYN | ACK,
            ACK,
            ACK | PSH,
            FIN | ACK,
            RST,
            RST | ACK,
            SYN | FIN,
            URG | ACK,
            0,
            0xff,
        ];
        let flags = *flags.choose(&mut self.rng).unwrap();
        Tcp {
            window: self.word(),
            urgent: self.word(),
            ..Tcp::new(flags, self.rng.random(), self.rng.random())
        }
    }

    /// A packet in which nothing is wrong but its being there.
    fn valid(&mut self) -> Vec<u8> {
        let (source, destination) = self.ends();
        let data = self.bytes(64);
        match self.rng.random_range(0..6) {
            0 | 1 => self.segment().between(source, destination, &data),
            2 => udp(source, destination, None, &data),
            3 => {
                let kind = if source.is_ipv4() { 8 } else { 128 };
                icmp(
                    source.ip(),
                    destination.ip(),
                    kind,
                    0,
                    &[&[0, 1, 0, 1], &data[..]].concat(),
                )
            }
            4 => {
                let gateway = addr_of(GATEWAY[usize::from(source.is_ipv6())], 53);
                udp(source, gateway, None, &question(self.rng.random(), NAME, 1))
            }
            _ => {
                let data = vec![1; self.rng.random_range(0..60_000)];
                self.segment().between(source, destination, &data)
            }
        }
    }

    fn land(&mut self) -> Frame {
        let family = self.family();
        let mut end = self.somewhere(family);
        if self.rng.random() {
            end.set_ip(GATEWAY[family].parse().unwrap());
        }
        let packet = match self.rng.random_range(0..3) {
            0 => udp(end, end, None, b"land"),
            1 => {
                let kind = if family == 0 { 8 } else { 128 };
                icmp(end.ip(), end.ip(), kind, 0, &[0, 1, 0, 1, 7, 7])
            }
            _ => self.segment().between(end, end, b""),
        };
        Frame {
            header: COMPLETE,
            packet,
        }
    }

    fn spoofed(&mut self) -> Frame {
        let family = self.family();
        let address: &str = SOURCES[family].choose(&mut self.rng).unwrap();
        let source = SocketAddr::new(address.parse().unwrap(), *PORTS.choose(&mut self.rng).unwrap());
        let destination = self.somewhere(family);
        let packet = match self.rng.random_range(0..4) {
            0 => udp(source, destination, None, b"spoof"),
            1 => {
                let kind = if family == 0 { 8 } else { 128 };
                icmp(source.ip(), destination.ip(), kind, 0, &[0, 1, 0, 1, 7, 7])
            }
            2 => Tcp::new(SYN, self.rng.random(), 0).between(source, destination, b""),
            _ => self.segment().between(source, destination, b"spoof"),
        };
        Frame {
            header: COMPLETE,
            packet,
        }
    }

    fn forbidden(&mut self) -> Frame {
        let family = self.family();
        let source = INSIDE[family].parse().unwrap();
        let source = self.from(source);
        let closed = [
            [
                "127.0.0.1",
                "127.8.9.10",
                "0.0.0.0",
                "169.254.7.7",
                "169.254.169.254",
                "10.0.0.1",
                "10.0.0.2",
                HOST_V4,
            ],
            [
                "::1",
                "::",
                "::ffff:127.0.0.1",
                "::127.0.0.1",
                "64:ff9b::7f00:1",
                "fd00::1",
                "fe80::1",
                HOST_V6,
            ],
        ];
        let address: &str = closed[family].choose(&mut self.rng).unwrap();
        let destination = addr_of(address, DENIED);
        let packet = match self.rng.random_range(0..3) {
            0 => Tcp::new(SYN, self.rng.random(), 0).between(source, destination, b""),
            1 => udp(source, destination, None, b"let me in"),
            // In two fragments, of which the second alone would look harmless.
            _ => {
                let whole = datagram(source, destination, None, &[9; 24]);
                self.number = self.number.wrapping_add(1);
                match (source.ip(), destination.ip()) {
                    (IpAddr::V4(source), IpAddr::V4(destination)) => V4 {
                        identification: self.number,
                        ..V4::new(source, destination, UDP)
                    }
                    .with(&whole),
                    (source, destination) => ip(source, destination, UDP, &whole),
                }
            }
        };
        Frame {
            header: COMPLETE,
            packet,
        }
    }

    fn syn(&mut self) -> Frame {
        let family = self.family();
        // A network of sources: nobody there resets what it did not ask for.
        let source: IpAddr = if family == 0 {
            [10, 0, self.rng.random(), self.rng.random_range(10..250)].into()
        } else {
            [0xfd00, 0, 0, 0, 0, 0, 1, self.rng.random()].into()
        };
        let source = SocketAddr::new(source, self.rng.random_range(1..=65_535));
        let targets = [
            [
                addr_of(HOST_V4, ECHO),
                addr_of(BLACK_HOLE, 80),
                addr_of(GATEWAY[0], 53),
                addr_of(HOST_V4, 9),
            ],
            [
                addr_of(HOST_V6, ECHO),
                addr_of(HOST_V6, 9),
                addr_of(GATEWAY[1], 53),
                addr_of("2001:db8:9::1", 80),
            ],
        ];
        let destination = *targets[family].choose(&mut self.rng).unwrap();
        let syn = Tcp::new(SYN, self.rng.random(), 0);
        Frame {
            header: COMPLETE,
            packet: syn.between(source, destination, b""),
        }
    }

    fn noise(&mut self) -> Frame {
        let packet = if self.rng.random() {
            let mut bytes = self.bytes(120);
            if let Some(first) = bytes.first_mut() {
                *first = *[0x45, 0x46, 0x4f, 0x60, *first].choose(&mut self.rng).unwrap();
            }
            seal(&mut bytes);
            bytes
        } else {
            let (source, destination) = self.ends();
            let data = self.bytes(200);
            self.segment().between(source, destination, &data)
        };
        Frame {
            header: VERIFIED,
            packet,
        }
    }
}

/// Whether a packet says that it is from the neighbour.
fn is_of_the_neighbour(packet: &[u8]) -> bool {
    NEIGHBOUR
        .iter()
        .any(|text| match text.parse::<IpAddr>().unwrap() {
            IpAddr::V4(address) => packet.get(12..16) == Some(&address.octets()),
            IpAddr::V6(address) => packet.get(8..24) == Some(&address.octets()),
        })
}

fn addr_of(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}
