//! What has broken other networks in user space (libslirp, for the most part), a frame or two for each: the answer is right,
//! holds no byte that was not sent, and the gateway goes on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portolan_gateway::gate::Policy;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

use crate::namespace::{HOST_V4, HOST_V6, in_namespace};
use crate::packets::{
    ACK, COMPLETE, ICMP, ICMPV6, PSH, SYN, TCP, Tcp, UDP, URG, V4, VERIFIED, datagram, icmp_message, udp, v6,
};
use crate::world::{Device, GATEWAY, INSIDE, PATIENCE, Wire, World, addr};

/// What a byte of ours never is: one that came from elsewhere shows.
const FILL: u8 = 0xa5;
const MORE: u16 = 0x2000;

fn v4_ends() -> (Ipv4Addr, Ipv4Addr) {
    (INSIDE[0].parse().unwrap(), GATEWAY[0].parse().unwrap())
}

fn v6_ends() -> (Ipv6Addr, Ipv6Addr) {
    (INSIDE[1].parse().unwrap(), GATEWAY[1].parse().unwrap())
}

/// Runs a case on each kind of device: what it does must leave a gateway that answers pings, and has not panicked.
fn on_each_device(test: &str, mut case: impl AsyncFnMut(&mut Wire)) {
    in_namespace(test, || async {
        for device in [Device::Tun, Device::Veth] {
            let mut world = World::new(device, Policy::default()).await;
            case(&mut world.wire).await;
            world.wire.all_answers().await;
            world.end();
        }
    });
}

/// The echo reply among answers that are nothing else; its data.
fn echoed(answers: &[Vec<u8>]) -> Vec<u8> {
    let [answer] = answers else {
        panic!("not one answer: {answers:x?}");
    };
    assert_eq!((answer[9], answer[20]), (ICMP, 0), "{answer:x?}");
    answer[28..].to_vec()
}

/// Sends the payload of an echo request in fragments: from which byte to which, and whether more follow.
async fn send_echo(wire: &Wire, identification: u16, message: &[u8], fragments: &[(usize, usize, bool)]) {
    let (inside, gateway) = v4_ends();
    for &(start, end, more) in fragments {
        let header = V4 {
            identification,
            fragment: (start / 8) as u16 | if more { MORE } else { 0 },
            ..V4::new(inside, gateway, ICMP)
        };
        wire.send(COMPLETE, &header.with(&message[start..end])).await;
    }
}

/// An echo request with so many bytes of data.
fn echo(len: usize) -> Vec<u8> {
    let (inside, gateway) = v4_ends();
    let data: Vec<u8> = (0..len).map(|place| place as u8 ^ FILL).collect();
    icmp_message(
        inside.into(),
        gateway.into(),
        8,
        0,
        &[&[0, 1, 0, 2], &data[..]].concat(),
    )
}

/// The pieces of an answer that came in fragments, put together; the first byte is that of the ICMP header.
fn joined(answers: &[Vec<u8>]) -> Vec<u8> {
    let mut message = Vec::new();
    for answer in answers {
        let offset = usize::from(u16::from_be_bytes([answer[6], answer[7]]) & 0x1fff) * 8;
        assert_eq!(offset, message.len(), "in order");
        message.extend_from_slice(&answer[20..]);
    }
    message
}

/// CVE-2019-14378: libslirp computed where a datagram begins from a first fragment that had been moved to a larger buffer,
/// and wrote behind it. It needs a first fragment that is large and grows further.
#[test]
fn cve_2019_14378_a_large_first_fragment_that_grows() {
    on_each_device(
        "named::cve_2019_14378_a_large_first_fragment_that_grows",
        async |wire| {
            let message = echo(9_992);
            send_echo(
                wire,
                7,
                &message,
                &[(0, 4_000, true), (4_000, 9_000, true), (9_000, 10_000, false)],
            )
            .await;
            let answers = wire.all_answers().await;
            assert!(answers.len() >= 6, "fragments of 1500 bytes");
            assert!(answers.iter().all(|answer| answer.len() <= 1500));
            let reply = joined(&answers);
            assert_eq!(reply[..2], [0, 0]);
            assert!(reply[4..] == message[4..], "byte for byte");
        },
    );
}

/// CVE-2019-15890: a fragment that covers those before it had them freed, and one of them was read after that.
#[test]
fn cve_2019_15890_a_fragment_that_covers_others() {
    on_each_device(
        "named::cve_2019_15890_a_fragment_that_covers_others",
        async |wire| {
            let message = echo(2_040);
            let covering = [
                (8, 64, true),
                (64, 128, true),
                (0, 1_024, true),
                (1_024, 2_048, false),
            ];
            send_echo(wire, 8, &message, &covering).await;
            // RFC 5722 and RFC 8900: what overlaps is dropped, whole.
            assert_eq!(wire.all_answers().await, Vec::<Vec<u8>>::new());
            // The same without overlap is answered, so it was the overlap.
            send_echo(wire, 9, &message[..1_032], &[(512, 1_032, false), (0, 512, true)]).await;
            let (inside, gateway) = v4_ends();
            let checked = icmp_message(inside.into(), gateway.into(), 8, 0, &message[4..1_032]);
            assert_eq!(
                wire.all_answers().await,
                Vec::<Vec<u8>>::new(),
                "its checksum is that of the longer one"
            );
            send_echo(wire, 10, &checked, &[(512, 1_032, false), (0, 512, true)]).await;
            assert!(echoed(&wire.all_answers().await) == checked[8..]);
        },
    );
}

/// CVE-2020-1983: the list of fragments was read after its first one had moved to a larger buffer. It needs a first fragment
/// that fits a small one, then many, up to the longest datagram there is, and beyond.
#[test]
fn cve_2020_1983_fragments_up_to_the_longest_datagram_and_beyond() {
    let name = "named::cve_2020_1983_fragments_up_to_the_longest_datagram_and_beyond";
    on_each_device(name, async |wire| {
        let (inside, gateway) = v4_ends();
        let message = echo(65_507);
        let mut fragments: Vec<_> = (8..65_515)
            .step_by(1_400)
            .map(|at| (at, (at + 1_400).min(65_515), true))
            .collect();
        fragments.last_mut().unwrap().2 = false;
        fragments.push((0, 8, true));
        send_echo(wire, 11, &message, &fragments).await;
        assert!(
            joined(&wire.all_answers().await)[4..] == message[4..],
            "all of it"
        );
        // The last fragment of another one ends behind the longest.
        for (fragment, len) in [
            (MORE, 1_400),
            (0x1fff, 1_400),
            (0x1fff | MORE, 1_400),
            (0x1ff0, 1_300),
        ] {
            let header = V4 {
                identification: 12,
                fragment,
                ..V4::new(inside, gateway, ICMP)
            };
            wire.send(COMPLETE, &header.with(&vec![FILL; len])).await;
        }
        assert_eq!(wire.all_answers().await, Vec::<Vec<u8>>::new());
    });
}

/// CVE-2020-29129, CVE-2020-29130: an NC-SI frame and an ARP frame shorter than their headers were read beyond their end.
#[test]
fn cve_2020_29129_and_29130_short_frames_that_are_not_ip() {
    let name = "named::cve_2020_29129_and_29130_short_frames_that_are_not_ip";
    in_namespace(name, || async {
        let mut world = World::new(Device::Veth, Policy::default()).await;
        for kind in [0x88f8, 0x0806] {
            for len in 0..64 {
                world.wire.send_frame(kind, &vec![FILL; len]).await;
                // A request that looks right as far as it goes.
                let request = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[FILL; 64]].concat();
                world.wire.send_frame(kind, &request[..len]).await;
            }
        }
        for len in 0..40 {
            // A frame that ends in its Ethernet or its virtio-net header.
            world.wire.send_bytes(&[0; 64][..len]).await;
            for kind in [0x0800, 0x86dd] {
                world.wire.send_frame(kind, &[0x45; 40][..len.min(19)]).await;
                world.wire.send_frame(kind, &[0x60; 40][..len.min(39)]).await;
            }
        }
        assert_eq!(
            world.wire.all_answers().await,
            Vec::<Vec<u8>>::new(),
            "they are nobody's"
        );
        assert_eq!(world.gateway.flows().totals().opened, 0);
        world.end();
    });
}

/// CVE-2020-10756: an ICMPv6 echo request that told a longer payload than it had was answered with what lay behind it in
/// memory.
#[test]
fn cve_2020_10756_an_echo_request_that_claims_more_than_it_has() {
    let name = "named::cve_2020_10756_an_echo_request_that_claims_more_than_it_has";
    on_each_device(name, async |wire| {
        let (inside, gateway) = v6_ends();
        let message = icmp_message(
            inside.into(),
            gateway.into(),
            128,
            0,
            &[&[0, 1, 0, 2][..], &[FILL; 32]].concat(),
        );
        for claimed in [41, 64, 1_000, 65_535] {
            wire.send(COMPLETE, &v6(inside, gateway, ICMPV6, Some(claimed), &message))
                .await;
            wire.send(VERIFIED, &v6(inside, gateway, ICMPV6, Some(claimed), &message))
                .await;
        }
        for len in 0..8_usize {
            let short = icmp_message(
                inside.into(),
                gateway.into(),
                128,
                0,
                &[0; 8][..len.saturating_sub(4)],
            );
            wire.send(COMPLETE, &v6(inside, gateway, ICMPV6, None, &short[..len]))
                .await;
            wire.send(VERIFIED, &v6(inside, gateway, ICMPV6, Some(64), &short[..len]))
                .await;
        }
        // The same of IPv4, and of an IPv4 header that claims more.
        let (inside_v4, gateway_v4) = v4_ends();
        for claimed in [29, 64, 65_535] {
            let header = V4 {
                total_len: Some(claimed),
                ..V4::new(inside_v4, gateway_v4, ICMP)
            };
            wire.send(COMPLETE, &header.with(&echo(0))).await;
        }
        assert_eq!(wire.all_answers().await, Vec::<Vec<u8>>::new(), "not one byte");
        // With its true length it is answered with what it held.
        wire.send(COMPLETE, &v6(inside, gateway, ICMPV6, None, &message))
            .await;
        let [answer] = &wire.all_answers().await[..] else {
            panic!("one answer");
        };
        assert_eq!(answer.len(), 40 + message.len());
        assert_eq!(answer[40], 129);
        assert_eq!(answer[44..], message[4..]);
    });
}

/// What an ICMP error quotes is the datagram that it is about, and not one byte more.
fn quotes_only(answer: &[u8], sent: &[u8]) {
    let (len, kind, unreachable) = match answer[0] >> 4 {
        4 => (20, answer[20], 3),
        _ => (40, answer[40], 1),
    };
    assert_eq!(kind, unreachable, "{answer:x?}");
    let quote = &answer[2 * len + 8..];
    // Ports, length, checksum, data; the checksum is of the datagram as the host would send it.
    let sent = &sent[len..];
    assert_eq!(quote[..6], sent[..6], "{answer:x?}");
    assert_eq!(quote[8..], sent[8..], "{answer:x?}");
}

/// CVE-2021-3592, CVE-2021-3594, CVE-2021-3595 (and CVE-2021-3593 of IPv6): a datagram shorter than the header, or than the
/// BOOTP or TFTP message, that it should hold was read beyond its end, and the answer told what stood there.
#[test]
fn cve_2021_3592_to_3595_datagrams_shorter_than_what_they_should_hold() {
    let name = "named::cve_2021_3592_to_3595_datagrams_shorter_than_what_they_should_hold";
    on_each_device(name, async |wire| {
        for (family, protocol_at) in [(0, 9), (1, 6)] {
            let (source, gateway) = (
                addr(INSIDE[family], 68),
                GATEWAY[family].parse::<IpAddr>().unwrap(),
            );
            // BOOTP, TFTP, and their IPv6 kin; all the lengths up to that of the header of each.
            for port in [67, 69, 547, 53, 1] {
                let destination = SocketAddr::new(gateway, port);
                let whole = datagram(source, destination, None, &[1; 32]);
                for len in 0..8 {
                    let cut = crate::packets::ip(source.ip(), gateway, UDP, &whole[..len]);
                    assert_eq!(cut[protocol_at], UDP);
                    wire.send(COMPLETE, &cut).await;
                    wire.send(VERIFIED, &cut).await;
                }
                // Lengths that lie: less than a header, more than there is.
                for lie in [1, 7, 41, 548, 65_535] {
                    wire.send(VERIFIED, &udp(source, destination, Some(lie), &[1; 32]))
                        .await;
                }
            }
        }
        assert_eq!(
            wire.all_answers().await,
            Vec::<Vec<u8>>::new(),
            "they are no datagrams"
        );
        // Whole datagrams with less than a message in them: nobody serves BOOTP or TFTP here. What is told of them is
        // rationed, so a few of each suffice.
        for family in [0, 1] {
            let source = addr(INSIDE[family], 68);
            for port in [67, 69] {
                for len in [0, 1, 3] {
                    let sent = udp(source, addr(GATEWAY[family], port), None, &[1; 240][..len]);
                    wire.send(COMPLETE, &sent).await;
                    quotes_only(&wire.receive().await, &sent);
                }
            }
        }
    });
}

/// A connection of the program through the gateway, by hand.
struct ByHand {
    source: SocketAddr,
    destination: SocketAddr,
    seq: u32,
    ack: u32,
}

impl ByHand {
    async fn open(wire: &mut Wire, source: SocketAddr, destination: SocketAddr) -> Self {
        let syn = Tcp::new(SYN, 99, 0);
        wire.send(COMPLETE, &syn.between(source, destination, b"")).await;
        let at = if source.is_ipv4() { 20 } else { 40 };
        let answer = loop {
            let answer = wire.receive().await;
            // The connection before it may have a last word.
            if answer[at + 2..at + 4] == source.port().to_be_bytes() {
                break answer;
            }
        };
        assert_eq!(answer[at + 13], SYN | ACK, "{answer:x?}");
        let theirs = u32::from_be_bytes(answer[at + 4..at + 8].try_into().unwrap());
        let connection = Self {
            source,
            destination,
            seq: 100,
            ack: theirs.wrapping_add(1),
        };
        wire.send(
            COMPLETE,
            &connection.segment(ACK).between(source, destination, b""),
        )
        .await;
        connection
    }

    fn segment(&self, flags: u8) -> Tcp {
        Tcp::new(flags, self.seq, self.ack)
    }

    async fn say(&mut self, wire: &Wire, segment: &Tcp, data: &[u8]) {
        wire.send(COMPLETE, &segment.between(self.source, self.destination, data))
            .await;
        self.seq = self.seq.wrapping_add(data.len() as u32);
    }
}

/// CVE-2020-7039, CVE-2020-8608: what looked like IRC's DCC, FTP's PORT or rlogin was rewritten in place, and outgrew its
/// buffer. Here nothing is rewritten: every byte arrives as it was said.
#[test]
fn cve_2020_7039_and_8608_words_that_others_rewrite() {
    let name = "named::cve_2020_7039_and_8608_words_that_others_rewrite";
    let long = "9".repeat(500);
    let words: Vec<(u16, String)> = vec![
        (21, "PORT 10,0,0,2,4,1\r\n".to_owned()),
        (21, format!("227 Entering Passive Mode (10,0,0,2,{long},1)\r\n")),
        (
            6667,
            "PRIVMSG x :\u{1}DCC CHAT chat 167772162 1025\u{1}\n".to_owned(),
        ),
        (6667, format!("DCC SEND {long} 167772162 1025 {long}\n")),
        (6667, format!("DCC MOVE {long}")),
        (
            6668,
            "DCC SEND a 4294967295 99999 18446744073709551615\n".to_owned(),
        ),
        (7070, "PNA\0\n\u{1}\0\u{2}\u{1}\u{4}\u{fe}\0\u{0}".to_owned()),
        (513, "\0root\0root\0xterm/38400\0".to_owned()),
        (544, "1023\0root\0id\0".to_owned()),
        (113, "6667, 1025\r\n".to_owned()),
    ];
    on_each_device(name, async |wire| {
        for (number, (port, words)) in words.iter().enumerate() {
            for (family, host) in [HOST_V4, HOST_V6].into_iter().enumerate() {
                let server = TcpListener::bind(addr(host, *port)).await.unwrap();
                let source = addr(INSIDE[family], 2_000 + number as u16);
                let mut connection = ByHand::open(wire, source, server.local_addr().unwrap()).await;
                let (mut stream, _) = timeout(PATIENCE, server.accept()).await.unwrap().unwrap();
                let segment = connection.segment(ACK | PSH);
                connection.say(wire, &segment, words.as_bytes()).await;
                let mut heard = vec![0; words.len()];
                timeout(PATIENCE, stream.read_exact(&mut heard))
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(heard, words.as_bytes());
                end(wire, stream, connection).await;
            }
        }
    });
}

/// CVE-2026-9539: an urgent pointer beyond what was sent made a length underflow, and gigabytes of memory were told. Here
/// urgent data stays in line (RFC 6093), and a mark is passed on with a byte that came: nothing is lost and nothing told
/// that was not sent, whatever the pointer says.
#[test]
fn cve_2026_9539_urgent_pointers_that_point_anywhere() {
    let name = "named::cve_2026_9539_urgent_pointers_that_point_anywhere";
    on_each_device(name, async |wire| {
        for (number, urgent) in [0, 1, 2, 5, 6, 1_000, 65_535].into_iter().enumerate() {
            let server = TcpListener::bind(addr(HOST_V4, 0)).await.unwrap();
            let source = addr(INSIDE[0], 3_000 + number as u16);
            let mut connection = ByHand::open(wire, source, server.local_addr().unwrap()).await;
            let (mut stream, _) = timeout(PATIENCE, server.accept()).await.unwrap().unwrap();
            // Without it the kernel here takes urgent bytes out of the line.
            SockRef::from(&stream).set_out_of_band_inline(true).unwrap();
            for words in ["", "12345", "", "1", "678"] {
                let segment = Tcp {
                    urgent,
                    ..connection.segment(ACK | URG)
                };
                connection.say(wire, &segment, words.as_bytes()).await;
            }
            // The kernel's reads stop at a mark, which tokio's own take for the end of what is there.
            let mut heard = [0; 9];
            let mut len = 0;
            let hearing = async {
                while len < heard.len() {
                    stream.readable().await.unwrap();
                    match stream.try_read(&mut heard[len..]) {
                        Ok(more) => {
                            assert_ne!(more, 0, "the end, before all was heard");
                            len += more;
                        }
                        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
                    }
                }
            };
            timeout(PATIENCE, hearing).await.unwrap();
            assert_eq!(&heard, b"123451678");
            let fin = connection.segment(ACK | crate::packets::FIN);
            connection.say(wire, &fin, b"").await;
            let rest = timeout(PATIENCE, stream.read(&mut heard)).await.unwrap().unwrap();
            assert_eq!(rest, 0, "and nothing else");
            end(wire, stream, connection).await;
        }
    });
}

/// The other end says goodbye, so that what it says is what comes last; then the connection is reset.
async fn end(wire: &mut Wire, mut stream: tokio::net::TcpStream, mut connection: ByHand) {
    stream.write_all(b"bye").await.unwrap();
    let at = if connection.source.is_ipv4() { 20 } else { 40 };
    loop {
        let answer = wire.receive().await;
        assert_eq!(answer[if at == 20 { 9 } else { 6 }], TCP);
        let data = at + usize::from(answer[at + 12] >> 4) * 4;
        if answer[data..].is_empty() {
            continue;
        }
        assert_eq!(
            &answer[data..],
            b"bye",
            "what the other end said, and nothing else"
        );
        break;
    }
    let reset = connection.segment(crate::packets::RST);
    connection.say(wire, &reset, b"").await;
    let gone = timeout(PATIENCE, stream.read(&mut [0; 8])).await.unwrap();
    assert!(!matches!(gone, Ok(1..)), "{gone:?}");
    while !wire.all_answers().await.is_empty() {}
}

/// A datagram whose length is less than what came with it is that long, and the rest is told to nobody.
#[test]
fn what_stands_behind_a_datagram_goes_nowhere() {
    on_each_device(
        "named::what_stands_behind_a_datagram_goes_nowhere",
        async |wire| {
            for (family, host) in [HOST_V4, HOST_V6].into_iter().enumerate() {
                let server = UdpSocket::bind(addr(host, 0)).await.unwrap();
                let source = addr(INSIDE[family], 4_000);
                let destination = server.local_addr().unwrap();
                // The length of the IP packet less than what was written into the device, too.
                let mut packet = udp(source, destination, None, b"told");
                packet.extend([FILL; 100]);
                wire.send(VERIFIED, &packet).await;
                let mut heard = [0; 200];
                let (len, _) = timeout(PATIENCE, server.recv_from(&mut heard))
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(&heard[..len], b"told");
            }
        },
    );
}
