//! Whatever comes, a stack neither panics nor grows.

use std::net::SocketAddr;

use portolan_core::Port;
use portolan_core::table::{Device, Host};
use portolan_core::wire::{
    ChecksumFill, IpProtocol, Ipv4Repr, SackBlock, SeqNum, TcpFlags, TcpOption, TcpOptionBlock, TcpRepr,
    TcpSegment,
};
use portolan_stack::{
    ConnectionId, Duration, Instant, ListenerId, Offload, Packet, PacketChecksum, Stack, StackConfig,
    SynCookies, TcpConfig,
};
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LOCAL: [u8; 4] = [10, 0, 0, 1];
const REMOTE: [u8; 4] = [10, 0, 0, 2];
const BUFFER: usize = 20_000;

fn stack(secret: u8) -> Stack {
    let mut host = Host::new();
    host.add_address(Device::new(1).unwrap(), LOCAL.into(), Some(24));
    let config = StackConfig {
        tcp: TcpConfig {
            send_buffer: BUFFER,
            receive_buffer: BUFFER,
            ..TcpConfig::default()
        },
        syn_cookies: [SynCookies::Off, SynCookies::OnOverflow, SynCookies::Always][usize::from(secret) % 3],
        ..StackConfig::default()
    };
    Stack::new(config, host, [secret; 16])
}

/// Someone who sees all that the stack sends, knows every number, and does not mean well.
struct Adversary {
    rng: ChaCha8Rng,
    stack: Stack,
    now: Instant,
    listener: ListenerId,
    held: Vec<ConnectionId>,
    /// Ports, SEQ and ACK of segments that the stack sent lately.
    seen: Vec<(u16, u16, SeqNum, SeqNum)>,
}

#[test]
fn segments_of_an_adversary_who_knows_all_numbers() {
    for seed in 0..40 {
        let mut stack = stack(seed as u8);
        let listener = stack.listen(SocketAddr::from((LOCAL, 80)), 8).unwrap();
        let mut adversary = Adversary {
            rng: ChaCha8Rng::seed_from_u64(seed),
            stack,
            now: Instant::START,
            listener,
            held: Vec::new(),
            seen: Vec::new(),
        };
        for _ in 0..400 {
            adversary.call();
            for _ in 0..4 {
                adversary.send();
                adversary.look();
            }
            adversary.wait();
            let most = (adversary.stack.connection_count() + 1) * 2 * (BUFFER + 8192);
            assert!(adversary.stack.buffered_bytes() <= most, "seed {seed}");
        }
        adversary.leave(seed);
    }
}

#[test]
fn bytes_that_mean_nothing() {
    let mut stack = stack(0);
    stack.listen(SocketAddr::from((LOCAL, 80)), 8).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut packet = vec![0; 2000];
    for round in 0..20_000 {
        let mut bytes = vec![0; rng.random_range(0..120)];
        rng.fill_bytes(&mut bytes);
        if let Some(first) = bytes.first_mut() {
            *first = *[0x45, 0x46, 0x60, *first].choose(&mut rng).unwrap();
        }
        let offload = Offload {
            checksum: PacketChecksum::Verified,
            piece_len: None,
        };
        let now = Instant::from_micros(round);
        stack.handle_packet(
            now,
            Packet {
                bytes: &bytes,
                offload,
            },
        );
        while stack.poll_transmit(now, &mut packet).is_some() {}
    }
    let counters = *stack.counters();
    assert_eq!(counters.packets_in, 20_000);
    assert!(
        counters.malformed > 0 && counters.bad_checksums > 0,
        "{counters:?}"
    );
    assert_eq!(stack.connection_count(), 0);
}

#[test]
fn a_flood_of_syns_holds_no_more_than_the_backlog() {
    let mut stack = stack(0);
    stack.listen(SocketAddr::from((LOCAL, 80)), 10).unwrap();
    let mut packet = vec![0; 2000];
    for port in 1..5000 {
        let syn = segment(
            (port, 80),
            SeqNum::new(9),
            SeqNum::new(0),
            TcpFlags::SYN,
            1000,
            &[],
            &[],
        );
        stack.handle_packet(Instant::START, verified(&syn));
        while stack.poll_transmit(Instant::START, &mut packet).is_some() {}
    }
    assert_eq!((stack.half_open_count(), stack.connection_count()), (11, 0));
    assert_eq!(stack.counters().syns_dropped, 4999 - 11);
    assert_eq!(stack.buffered_bytes(), 0);
}

#[test]
fn the_accept_queue_holds_one_more_than_the_backlog() {
    let mut stack = stack(0);
    let listener = stack.listen(SocketAddr::from((LOCAL, 80)), 1).unwrap();
    let mut packet = vec![0; 2000];
    let mut offer = |stack: &mut Stack, port: u16, seq: u32, ack: Option<SeqNum>| {
        let flags = if ack.is_some() {
            TcpFlags::ACK
        } else {
            TcpFlags::SYN
        };
        let bytes = segment(
            (port, 80),
            SeqNum::new(seq),
            ack.unwrap_or_default(),
            flags,
            1000,
            &[],
            &[],
        );
        stack.handle_packet(Instant::START, verified(&bytes));
        let transmit = stack.poll_transmit(Instant::START, &mut packet)?;
        Some(TcpSegment::parse(&packet[20..transmit.len]).unwrap().seq() + 1)
    };
    let first = offer(&mut stack, 1, 0, None);
    let second = offer(&mut stack, 2, 0, None);
    assert_eq!(
        offer(&mut stack, 3, 0, None),
        None,
        "two half-open ones are the limit"
    );
    assert_eq!(offer(&mut stack, 1, 1, first), None);
    let third = offer(&mut stack, 3, 0, None);
    assert_eq!(offer(&mut stack, 2, 1, second), None);
    // The third has its place among the half-open, and must wait to be established.
    offer(&mut stack, 3, 1, third);
    assert_eq!(stack.counters().accepts_dropped, 1);
    assert_eq!(
        offer(&mut stack, 4, 0, None),
        None,
        "with a full accept queue no SYN is taken"
    );
    assert!(stack.accept(listener).is_some() && stack.accept(listener).is_some());
    assert!(stack.accept(listener).is_none());
    offer(&mut stack, 3, 1, third);
    assert!(stack.accept(listener).is_some(), "its acknowledgment came again");
}

#[test]
fn closing_a_listener_resets_those_who_wait() {
    let mut stack = stack(0);
    let listener = stack.listen(SocketAddr::from((LOCAL, 80)), 8).unwrap();
    let now = Instant::START;
    let mut packet = vec![0; 2000];
    let syn = segment(
        (1, 80),
        SeqNum::new(0),
        SeqNum::new(0),
        TcpFlags::SYN,
        1000,
        &[],
        &[],
    );
    stack.handle_packet(now, verified(&syn));
    let transmit = stack.poll_transmit(now, &mut packet).unwrap();
    let iss = TcpSegment::parse(&packet[20..transmit.len]).unwrap().seq();
    let ack = segment((1, 80), SeqNum::new(1), iss + 1, TcpFlags::ACK, 1000, &[], &[]);
    stack.handle_packet(now, verified(&ack));
    let half_open = segment(
        (2, 80),
        SeqNum::new(0),
        SeqNum::new(0),
        TcpFlags::SYN,
        1000,
        &[],
        &[],
    );
    stack.handle_packet(now, verified(&half_open));
    while stack.poll_transmit(now, &mut packet).is_some() {}

    stack.close_listener(now, listener);
    let transmit = stack.poll_transmit(now, &mut packet).unwrap();
    let reset = TcpSegment::parse(&packet[20..transmit.len]).unwrap();
    assert_eq!(
        (reset.flags(), reset.destination_port()),
        (TcpFlags::RST | TcpFlags::ACK, Port::new(1))
    );
    // The half-open one learns it with its acknowledgment.
    let late = segment(
        (2, 80),
        SeqNum::new(1),
        SeqNum::new(77),
        TcpFlags::ACK,
        1000,
        &[],
        &[],
    );
    stack.handle_packet(now, verified(&late));
    let transmit = stack.poll_transmit(now, &mut packet).unwrap();
    let reset = TcpSegment::parse(&packet[20..transmit.len]).unwrap();
    assert_eq!((reset.flags(), reset.seq()), (TcpFlags::RST, SeqNum::new(77)));
    assert_eq!(stack.poll_transmit(now, &mut packet), None);
    assert_eq!(stack.connection_count(), 0);
    assert!(stack.listen(SocketAddr::from((LOCAL, 80)), 8).is_ok());
}

impl Adversary {
    /// The program does something.
    fn call(&mut self) {
        let now = self.now;
        match self.rng.random_range(0..8) {
            0 if self.held.len() < 8 => {
                let (local, remote) = (SocketAddr::from((LOCAL, 0)), SocketAddr::from((REMOTE, 80)));
                self.held.push(self.stack.connect(now, local, remote).unwrap());
            }
            1 | 2 => self.held.extend(self.stack.accept(self.listener)),
            choice => {
                let Some(place) = (0..self.held.len())
                    .collect::<Vec<_>>()
                    .choose(&mut self.rng)
                    .copied()
                else {
                    return;
                };
                let id = self.held[place];
                let len = self.rng.random_range(0..5000);
                match choice {
                    3 | 4 => drop(self.stack.write(now, id, &vec![7; len])),
                    5 | 6 => drop(self.stack.read(now, id, &mut vec![0; len])),
                    _ => match self.rng.random_range(0..6) {
                        0 => {
                            self.stack.close(now, id).unwrap();
                            self.held.remove(place);
                        }
                        1 => self.stack.abort(now, id).unwrap(),
                        _ => self.stack.finish(now, id).unwrap(),
                    },
                }
            }
        }
        self.look();
    }

    /// Reads what the stack sends.
    fn look(&mut self) {
        let mut packet = [0; 1500];
        let mut count = 0;
        while let Some(transmit) = self.stack.poll_transmit(self.now, &mut packet) {
            count += 1;
            assert!(count < 5000, "it sends without end");
            let segment = TcpSegment::parse(&packet[20..transmit.len]).unwrap();
            let ports = (segment.source_port().get(), segment.destination_port().get());
            self.seen
                .push((ports.0, ports.1, segment.seq() + segment.seq_len(), segment.ack()));
        }
        let old = self.seen.len().saturating_sub(30);
        self.seen.drain(..old);
        while self.stack.poll_event().is_some() {}
    }

    /// Sends a segment that almost fits.
    fn send(&mut self) {
        let Some(&(local, remote, seq, ack)) = self.seen.choose(&mut self.rng) else {
            let port = self.rng.random_range(1000..1010);
            return self.inject((port, 80), SeqNum::new(0), SeqNum::new(0), TcpFlags::SYN, &[]);
        };
        let rng = &mut self.rng;
        let flags = *[
            TcpFlags::ACK,
            TcpFlags::ACK,
            TcpFlags::ACK,
            TcpFlags::SYN,
            TcpFlags::SYN | TcpFlags::ACK,
            TcpFlags::SYN | TcpFlags::ACK,
            TcpFlags::FIN | TcpFlags::ACK,
            TcpFlags::RST,
            TcpFlags::from_bits_truncate(rng.random()),
        ]
        .choose(rng)
        .unwrap();
        let near = |rng: &mut ChaCha8Rng, number: SeqNum| match rng.random_range(0..8) {
            0..5 => number,
            5 => number + rng.random_range(0..30_000),
            6 => number - rng.random_range(0..30_000),
            _ => SeqNum::new(rng.random()),
        };
        let (their_seq, their_ack) = (near(rng, ack), near(rng, seq));
        let data = vec![
            9;
            if rng.random() {
                0
            } else {
                rng.random_range(0..3000)
            }
        ];
        self.inject((remote, local), their_seq, their_ack, flags, &data);
    }

    fn inject(&mut self, ports: (u16, u16), seq: SeqNum, ack: SeqNum, flags: TcpFlags, data: &[u8]) {
        let rng = &mut self.rng;
        let mut options = TcpOptionBlock::new();
        let block = |rng: &mut ChaCha8Rng| {
            let left = ack - rng.random_range(0..20_000);
            SackBlock::new(left, left + rng.random_range(0..20_000))
        };
        let blocks = [block(rng), block(rng)];
        let offered = [
            TcpOption::MaximumSegmentSize(rng.random_range(0..2000)),
            TcpOption::WindowScale(rng.random_range(0..20)),
            TcpOption::SackPermitted,
            TcpOption::Sack(&blocks),
        ];
        for option in offered {
            if rng.random_ratio(2, 3) {
                let _ = options.push(option);
            }
        }
        let window = *[0, 1, 100, 65_535, rng.random()].choose(rng).unwrap();
        let bytes = segment(ports, seq, ack, flags, window, options.as_bytes(), data);
        self.stack.handle_packet(self.now, verified(&bytes));
    }

    fn wait(&mut self) {
        let longest = *[1, 100, 10_000].choose(&mut self.rng).unwrap();
        self.now += Duration::from_millis(self.rng.random_range(0..longest));
        self.stack.handle_timeout(self.now);
        self.look();
    }

    /// The program lets go of everything, and the adversary of it: in the end there is nothing.
    fn leave(mut self, seed: u64) {
        self.held
            .extend(std::iter::from_fn(|| self.stack.accept(self.listener)));
        for id in std::mem::take(&mut self.held) {
            self.stack.close(self.now, id).unwrap();
        }
        self.stack.close_listener(self.now, self.listener);
        self.look();
        while let Some(next) = self.stack.poll_timeout() {
            self.now = self.now.max(next);
            assert!(
                self.now < Instant::from_millis(100_000_000),
                "seed {seed} does not end"
            );
            self.stack.handle_timeout(self.now);
            self.look();
        }
        assert_eq!(self.stack.connection_count(), 0, "seed {seed}");
        assert_eq!(self.stack.buffered_bytes(), 0, "seed {seed}");
        assert_eq!(self.stack.table().len(), 0, "seed {seed}");
    }
}

fn verified(bytes: &[u8]) -> Packet<'_> {
    let offload = Offload {
        checksum: PacketChecksum::Verified,
        piece_len: None,
    };
    Packet { bytes, offload }
}

/// A packet from the adversary.
fn segment(
    (source, destination): (u16, u16),
    seq: SeqNum,
    ack: SeqNum,
    flags: TcpFlags,
    window: u16,
    options: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let header = TcpRepr {
        source_port: Port::new(source),
        destination_port: Port::new(destination),
        seq,
        ack,
        flags,
        window,
        urgent_pointer: 0,
        options,
    };
    let mut packet = vec![0; 20 + header.header_len()];
    packet.extend(data);
    let ip = Ipv4Repr {
        dscp: 0,
        ecn: 0,
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        time_to_live: 64,
        protocol: IpProtocol::TCP,
        source: REMOTE.into(),
        destination: LOCAL.into(),
        options: &[],
        payload_len: packet.len() - 20,
    };
    ip.emit(&mut packet).unwrap();
    header.emit(&mut packet[20..], ChecksumFill::Zero).unwrap();
    packet
}
