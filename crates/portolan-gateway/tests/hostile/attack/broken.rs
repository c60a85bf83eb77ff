//! Packets that are none, or not what they say: headers, lengths, fragments, options, bits.

use std::net::{IpAddr, SocketAddr};

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _};

use super::{Frame, Generator, MORE};
use crate::neighbour::ECHO;
use crate::packets::{COMPLETE, ICMP, ICMPV6, TCP, UDP, V4, VERIFIED, VIRTIO_LEN, datagram, seal, v6};
use crate::world::{GATEWAY, INSIDE};

impl Generator {
    pub(super) fn hostile_header(&mut self) -> Frame {
        let packet = if self.rng.random_ratio(1, 10) {
            self.bytes(200)
        } else {
            self.valid()
        };
        let ip_len: u16 = if packet.first().is_some_and(|byte| byte >> 4 == 6) {
            40
        } else {
            20
        };
        let mut header = [0; VIRTIO_LEN];
        header[0] = *[0, 1, 1, 1, 2, 3, 4, 255].choose(&mut self.rng).unwrap();
        header[1] = *[0, 1, 1, 3, 4, 4, 5, 5, 0x80, 0x81, 0x84, 2, 255]
            .choose(&mut self.rng)
            .unwrap();
        let right = [
            ip_len + 20,
            1_400,
            ip_len,
            *[16, 6].choose(&mut self.rng).unwrap(),
        ];
        for (place, right) in right.into_iter().enumerate() {
            let word = if self.rng.random_ratio(2, 3) {
                right
            } else {
                self.word()
            };
            header[2 + 2 * place..4 + 2 * place].copy_from_slice(&word.to_le_bytes());
        }
        Frame { header, packet }
    }

    pub(super) fn truncated(&mut self) -> Frame {
        let mut packet = self.valid();
        let most = packet.len().min(100);
        packet.truncate(self.rng.random_range(0..=most));
        if self.rng.random() && packet.len() >= 20 {
            // As long as it says that it is, so that what is in it ends too early.
            let len = packet.len() as u16;
            if packet[0] >> 4 == 4 {
                packet[2..4].copy_from_slice(&len.to_be_bytes());
                seal(&mut packet);
            } else if len >= 40 {
                packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
            }
        }
        let header = if self.rng.random() { VERIFIED } else { COMPLETE };
        Frame { header, packet }
    }

    pub(super) fn fragment(&mut self) -> Frame {
        let family = self.family();
        let (source, destination) = {
            let source: IpAddr = INSIDE[family].parse().unwrap();
            (
                source,
                if self.rng.random() {
                    GATEWAY[family].parse().unwrap()
                } else {
                    self.somewhere(family).ip()
                },
            )
        };
        // Sometimes one of those before, so that they meet.
        if self.rng.random_ratio(1, 3) {
            self.number = self.number.wrapping_add(1);
        }
        let identification = self.number.wrapping_sub(self.rng.random_range(0..3));
        let protocol = *[UDP, TCP, if family == 0 { ICMP } else { ICMPV6 }, 99]
            .choose(&mut self.rng)
            .unwrap();
        let offset = *[0, 0, 1, 2, 3, 64, 185, 0x1ffe, 0x1fff]
            .choose(&mut self.rng)
            .unwrap();
        let more = if self.rng.random_ratio(3, 4) { MORE } else { 0 };
        let len = *[0, 1, 7, 8, 8, 16, 24, 512, 1_480, 9_000]
            .choose(&mut self.rng)
            .unwrap();
        let mut data = self.bytes(len);
        if self.rng.random() {
            data.resize(len, 0);
        }
        let packet = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => V4 {
                identification,
                fragment: offset | more | if self.rng.random_ratio(1, 20) { 0x4000 } else { 0 },
                ..V4::new(source, destination, protocol)
            }
            .with(&data),
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut payload = vec![protocol, 0];
                payload.extend((offset << 3 | more >> 13).to_be_bytes());
                payload.extend(u32::from(identification).to_be_bytes());
                payload.extend(data);
                v6(source, destination, 44, None, &payload)
            }
            _ => unreachable!("both are of one family"),
        };
        Frame {
            header: COMPLETE,
            packet,
        }
    }

    pub(super) fn options(&mut self) -> Frame {
        let (source, destination) = self.ends();
        let mut segment = self.segment();
        segment.options = self.bytes(40);
        if self.rng.random() {
            let kinds = [
                [2, 4, 0, 1],
                [3, 3, 255, 0],
                [8, 10, 0, 0],
                [5, 2, 5, 255],
                [5, 34, 0, 0],
                [34, 255, 0, 0],
            ];
            segment
                .options
                .splice(0..0, *kinds.choose(&mut self.rng).unwrap());
            segment.options.truncate(40);
        }
        if self.rng.random_ratio(1, 3) {
            segment.header_words = Some(self.rng.random_range(0..16));
        }
        let mut packet = segment.between(source, destination, b"options");
        if let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip())
            && self.rng.random()
        {
            let mut options = self.bytes(40);
            options.resize(options.len().next_multiple_of(4), 0);
            if let Some(first) = options.first_mut() {
                // Routes, records, timestamps, the router alert.
                *first = *[7, 68, 131, 137, 148, 0, 1, 255].choose(&mut self.rng).unwrap();
            }
            packet = V4 {
                options,
                header_words: self.rng.random_ratio(1, 3).then(|| self.rng.random_range(0..16)),
                total_len: self.rng.random_ratio(1, 3).then(|| self.word()),
                ..V4::new(from, to, TCP)
            }
            .with(&packet[20..]);
        }
        Frame {
            header: VERIFIED,
            packet,
        }
    }

    pub(super) fn extensions(&mut self) -> Frame {
        let [source, destination] = [INSIDE[1].parse().unwrap(), self.somewhere(1).ip()];
        let (IpAddr::V6(source), IpAddr::V6(destination)) = (source, destination) else {
            unreachable!("both are of IPv6");
        };
        let kinds = [0, 43, 44, 50, 51, 60, 135, 139, 140, 253];
        let count = *[1, 2, 3, 8, 64, 180].choose(&mut self.rng).unwrap();
        let first = *kinds.choose(&mut self.rng).unwrap();
        let mut payload = Vec::new();
        for number in 0..count {
            let next = if number + 1 == count {
                *[TCP, UDP, ICMPV6, 59, 99].choose(&mut self.rng).unwrap()
            } else {
                *kinds.choose(&mut self.rng).unwrap()
            };
            let words = if self.rng.random_ratio(1, 6) {
                self.rng.random()
            } else {
                0_u8
            };
            payload.extend([next, words]);
            let mut rest = [0; 6];
            self.rng.fill_bytes(&mut rest);
            if self.rng.random() {
                // Padding, as it should be.
                rest = [1, 4, 0, 0, 0, 0];
            }
            payload.extend(rest);
        }
        let at = SocketAddr::new(source.into(), 1_024);
        payload.extend(datagram(
            at,
            SocketAddr::new(destination.into(), ECHO),
            None,
            b"chained",
        ));
        let claimed = self.rng.random_ratio(1, 5).then(|| self.word());
        Frame {
            header: VERIFIED,
            packet: v6(source, destination, first, claimed, &payload),
        }
    }

    /// Bits turned, bytes set, pieces cut out or said twice, in what a good program sent.
    pub(super) fn mutated(&mut self) -> Frame {
        let Some(mut frame) = self.record.any(&mut self.rng) else {
            return self.noise();
        };
        for _ in 0..self.rng.random_range(1..5) {
            // The headers are what is looked at.
            let most = if self.rng.random_ratio(4, 5) {
                frame.packet.len().min(64)
            } else {
                frame.packet.len()
            };
            if most == 0 {
                break;
            }
            let place = self.rng.random_range(0..most);
            match self.rng.random_range(0..8) {
                0..=3 => frame.packet[place] ^= 1 << self.rng.random_range(0..8),
                4 => frame.packet[place] = *[0, 1, 0x7f, 0x80, 0xff].choose(&mut self.rng).unwrap(),
                5 => frame.packet.truncate(place),
                6 => {
                    let piece = frame.packet[place..most.min(place + 16)].to_vec();
                    frame.packet.splice(place..place, piece);
                }
                _ => {
                    let at = self.rng.random_range(0..VIRTIO_LEN);
                    frame.header[at] ^= 1 << self.rng.random_range(0..8);
                }
            }
        }
        // Most of them are to come further than the checksum of their header.
        if self.rng.random_ratio(7, 8) {
            seal(&mut frame.packet);
        }
        if self.rng.random_ratio(1, 4) {
            frame.header = VERIFIED;
        }
        frame
    }
}
