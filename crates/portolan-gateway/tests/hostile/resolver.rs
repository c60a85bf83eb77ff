//! A resolver of the host: honest about one name, and about all others a liar of many kinds.

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use crate::neighbour::{NAME, NAMED};
use crate::world::{RESOLVER, addr};

/// Serves at the resolver's address; what it makes up follows from the seed.
pub(crate) async fn serve_names(seed: u64) {
    let at = addr(RESOLVER, 53);
    let socket = UdpSocket::bind(at).await.unwrap();
    let listener = TcpListener::bind(at).await.unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    tokio::spawn(async move {
        let mut buffer = vec![0; 2_000];
        loop {
            let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
                continue;
            };
            for _ in 0..rng.random_range(1..3) {
                let reply = reply(&buffer[..len], &mut rng);
                let _ = socket.send_to(&reply, from).await;
            }
        }
    });
    let mut rng = ChaCha8Rng::seed_from_u64(!seed);
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                continue;
            };
            let mut rng = ChaCha8Rng::seed_from_u64(rng.random());
            tokio::spawn(async move {
                let mut buffer = vec![0; 2_000];
                // The connection is over when the asker has gone, or has said nothing that is a question.
                while let Ok(len) = stream.read(&mut buffer).await
                    && len > 2
                {
                    let reply = reply(&buffer[2..len], &mut rng);
                    let told = if rng.random_ratio(1, 4) {
                        rng.random()
                    } else {
                        reply.len() as u16
                    };
                    let message = [&told.to_be_bytes()[..], &reply].concat();
                    if stream.write_all(&message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// The reply to a question.
fn reply(question: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut reply = question.to_vec();
    if question.len() < 17 {
        return reply;
    }
    reply[2] = 0x81;
    reply[3] = 0x80;
    // The end of the name and of the question: what follows it is EDNS.
    let name_end = question[12..].iter().position(|&byte| byte == 0).unwrap_or(0) + 13;
    let end = (name_end + 4).min(reply.len());
    reply.truncate(end);
    reply[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    let address = |last: &[u8], kind: u16| {
        let mut record = vec![0xc0, 12];
        record.extend(kind.to_be_bytes());
        record.extend([0, 1, 0, 0, 0, 60]);
        record.extend((last.len() as u16).to_be_bytes());
        record.extend(last);
        record
    };
    if text_of(&question[12..name_end.min(question.len())]) == NAME {
        reply.extend(address(&NAMED, 1));
        return reply;
    }
    match rng.random_range(0..12) {
        // Addresses that are the host's own, or the cloud's.
        0 => {
            let own: [&[u8]; 4] = [&[127, 0, 0, 1], &[169, 254, 169, 254], &[0; 4], &[169, 254, 7, 7]];
            reply.extend(address(own.choose(rng).unwrap(), 1));
        }
        1 => {
            let mut loopback = [0; 16];
            loopback[15] = 1;
            reply.extend(address(&loopback, 28));
        }
        // An alias of itself.
        2 => reply.extend(address(&[0xc0, 12], 5)),
        // Aliases in a circle, or a long row of them.
        3 => {
            let count = rng.random_range(2..40_u8);
            reply[7] = count;
            for number in 0..count {
                let label = |number: u8| vec![3, b'a', b'a' + number / 26, b'a' + number % 26, 0];
                let from = if number == 0 {
                    vec![0xc0, 12]
                } else {
                    label(number - 1)
                };
                let to = if number + 1 == count {
                    label(0)
                } else {
                    label(number)
                };
                reply.extend(from);
                reply.extend([0, 5, 0, 1, 0, 0, 0, 1, 0, to.len() as u8]);
                reply.extend(to);
            }
        }
        // Pointers to themselves, forwards, and behind the end.
        4 => {
            let here = (reply.len() as u16).to_be_bytes();
            let pointer = *[[0xc0 | here[0], here[1]], [0xc0, 0xff], [0xff, 0xff], [0xc0, 0]]
                .choose(rng)
                .unwrap();
            reply.extend(pointer);
            reply.extend([0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 192, 0, 2, 1]);
        }
        // Counts of what is not there.
        5 => reply[6..12].copy_from_slice(&[0xff; 6]),
        // An address of a length that is none.
        6 => {
            let len = rng.random_range(0..9);
            let mut record = address(&vec![7; len], 1);
            record[11] = rng.random();
            reply.extend(record);
        }
        // Truncated: ask again over TCP.
        7 => reply[2] |= 2,
        // The reply to something else.
        8 => reply[rng.random_range(0..12)] ^= 1 << rng.random_range(0..8),
        9 => {
            reply.truncate(rng.random_range(0..reply.len()));
        }
        10 => {
            let mut noise = vec![0; rng.random_range(0..1_400)];
            rng.fill_bytes(&mut noise);
            reply.extend(noise);
        }
        _ => {
            reply.extend(address(&NAMED, 1));
            for _ in 0..rng.random_range(1..6) {
                let place = rng.random_range(2..reply.len());
                reply[place] ^= 1 << rng.random_range(0..8);
            }
        }
    }
    reply
}

fn text_of(mut name: &[u8]) -> String {
    let mut labels = Vec::new();
    while let Some((&len, rest)) = name.split_first()
        && len > 0
        && usize::from(len) <= rest.len()
    {
        let (label, rest) = rest.split_at(len.into());
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        name = rest;
    }
    labels.join(".")
}
