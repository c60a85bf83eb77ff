//! Messages to those who answer: the name server, ICMP.

use rand::RngExt as _;
use rand::seq::IndexedRandom as _;

use super::{Frame, Generator, SOURCES, addr_of};
use crate::neighbour::{NAME, question};
use crate::packets::{COMPLETE, ICMP, ICMPV6, icmp_message, ip, udp};
use crate::world::{GATEWAY, INSIDE};

impl Generator {
    pub(super) fn name(&mut self) -> Frame {
        let family = self.family();
        let source = INSIDE[family].parse().unwrap();
        let source = self.from(source);
        let gateway = addr_of(GATEWAY[family], 53);
        let kind = *[1, 28, 65, 255, 41, 252, 250, 12, 5]
            .choose(&mut self.rng)
            .unwrap();
        let unknown = format!("x{}.example", self.rng.random_range(0..1_000));
        let mut message = question(
            self.rng.random(),
            if self.rng.random() { NAME } else { &unknown },
            kind,
        );
        match self.rng.random_range(0..9) {
            // A pointer to itself, forwards, far away, and a row of them.
            0 => {
                message.truncate(12);
                let pointer: &[u8] = [
                    &[0xc0, 12][..],
                    &[0xc0, 14],
                    &[0xff, 0xff],
                    &[1, b'a', 0xc0, 12],
                    &[0xc0, 0],
                ]
                .choose(&mut self.rng)
                .unwrap();
                message.extend(pointer);
                message.extend([0, 1, 0, 1]);
            }
            // A label longer than any, and a name longer than any.
            1 => {
                message.truncate(12);
                let len = *[63, 64, 127, 191].choose(&mut self.rng).unwrap();
                for _ in 0..self.rng.random_range(1..6) {
                    message.push(len);
                    message.extend(vec![b'a'; len.into()]);
                }
                message.extend([0, 0, 1, 0, 1]);
            }
            // Counts that lie: of questions, answers, authorities, additional records.
            2 => {
                let place = 4 + 2 * self.rng.random_range(0..4);
                let word = self.word();
                message[place..place + 2].copy_from_slice(&word.to_be_bytes());
            }
            // EDNS whose lengths and versions lie.
            3 => {
                message[11] = self.rng.random_range(1..3);
                let words = [self.word(), self.word()];
                message.extend([0, 0, 41]);
                message.extend(words[0].to_be_bytes());
                message.extend([0, self.rng.random_range(0..2), 0, 0]);
                message.extend(words[1].to_be_bytes());
                let options = self.bytes(40);
                message.extend(options);
            }
            4 => message.truncate(self.rng.random_range(0..message.len())),
            5 => {
                let bytes = self.bytes(300);
                message.extend(bytes);
            }
            6 => message[2] = self.rng.random(),
            7 => {
                for _ in 0..self.rng.random_range(1..5) {
                    let place = self.rng.random_range(0..message.len());
                    message[place] ^= 1 << self.rng.random_range(0..8);
                }
            }
            _ => {}
        }
        Frame {
            header: COMPLETE,
            packet: udp(source, gateway, None, &message),
        }
    }

    pub(super) fn icmp(&mut self) -> Frame {
        let family = self.family();
        let (source, destination) = if self.rng.random() {
            (INSIDE[family].parse().unwrap(), GATEWAY[family].parse().unwrap())
        } else {
            let source: &str = SOURCES[family].choose(&mut self.rng).unwrap();
            (source.parse().unwrap(), self.somewhere(family).ip())
        };
        let (kinds, errors): (&[u8], &[u8]) = if family == 0 {
            (&[8, 0, 13, 15, 17, 9, 10, 5], &[3, 11, 12, 4, 5])
        } else {
            (&[128, 129, 133, 134, 135, 136, 137, 130, 143], &[1, 2, 3, 4])
        };
        let message = if self.rng.random() {
            let kind = *kinds.choose(&mut self.rng).unwrap();
            let body = self.bytes(64);
            let code = if self.rng.random() { 0 } else { self.rng.random() };
            icmp_message(source, destination, kind, code, &body)
        } else {
            // About a packet that somebody sent, or might have, or never could.
            let mut quote = match self.record.any(&mut self.rng) {
                Some(frame) if self.rng.random() => turned(frame.packet),
                _ => self.valid(),
            };
            quote.truncate(self.rng.random_range(0..600));
            let kind = *errors.choose(&mut self.rng).unwrap();
            let rest = u32::from(self.word()).to_be_bytes();
            icmp_message(
                source,
                destination,
                kind,
                self.rng.random_range(0..16),
                &[&rest, &quote[..]].concat(),
            )
        };
        let protocol = if family == 0 { ICMP } else { ICMPV6 };
        Frame {
            header: COMPLETE,
            packet: ip(source, destination, protocol, &message),
        }
    }
}

/// A packet with its ends exchanged, as one that comes back is: what an error of its receiver would quote.
fn turned(mut packet: Vec<u8>) -> Vec<u8> {
    let (at, len, ports) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => (12, 4, 20),
        Some(6) => (8, 16, 40),
        _ => return packet,
    };
    if packet.len() >= ports + 4 {
        let (one, other) = packet[at..at + 2 * len].split_at_mut(len);
        one.swap_with_slice(other);
        packet.swap(ports, ports + 2);
        packet.swap(ports + 1, ports + 3);
    }
    packet
}
