use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use portolan_core::Port;

use super::lines::{decimal, each_line, hexadecimal, words};
use crate::kernel_state;
use crate::{Family, Queues, Socket, SocketAddress, SocketProtocol, SpaceId};

/// The sockets of both families.
pub(super) fn list(
    net: &Path,
    protocol: SocketProtocol,
    space: SpaceId,
    mut take: impl FnMut(Socket),
) -> io::Result<bool> {
    let file = protocol.name();
    let ipv4 = each_line(&net.join(file), |line| {
        if let Some(socket) = parse(protocol, Family::Ipv4, space, line) {
            take(socket);
        }
    })?;
    let ipv6 = each_line(&net.join(format!("{file}6")), |line| {
        if let Some(socket) = parse(protocol, Family::Ipv6, space, line) {
            take(socket);
        }
    })?;
    Ok(ipv4 || ipv6)
}

/// A line: number, local and remote end, state, queues, timer, retransmissions, uid, timeout, inode, more.
fn parse(protocol: SocketProtocol, family: Family, space: SpaceId, line: &[u8]) -> Option<Socket> {
    let mut words = words(line).skip(1);
    let local = end(family, words.next()?)?;
    let remote = end(family, words.next()?)?;
    let state = kernel_state::decode(protocol, u8::try_from(hexadecimal(words.next()?)?).ok()?)?;
    let (send, receive) = pair(words.next()?)?;
    let uid = decimal(words.nth(2)?)?;
    let inode = decimal(words.nth(1)?)?;
    Some(Socket {
        protocol,
        family,
        state,
        local,
        remote: Some(remote).filter(|remote| kernel_state::has_remote(state, remote)),
        space,
        inode,
        uid: kernel_state::has_owner(state).then_some(uid),
        cookie: 0,
        device: 0,
        mark: None,
        cgroup: None,
        v6_only: None,
        queues: Queues {
            receive: hexadecimal(receive)?,
            send: hexadecimal(send)?,
        },
        tcp_info: None,
    })
}

/// The two halves around a colon.
fn pair(word: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = word.iter().position(|byte| *byte == b':')?;
    Some((&word[..colon], &word[colon + 1..]))
}

/// An address as one or four words in the machine's byte order, and a port, all hexadecimal.
fn end(family: Family, word: &[u8]) -> Option<SocketAddress> {
    let (address, port) = pair(word)?;
    let octets = |at: usize| Some(hexadecimal(address.get(at..at + 8)?)?.to_ne_bytes());
    let address = match (family, address.len()) {
        (Family::Ipv4, 8) => IpAddr::V4(Ipv4Addr::from(octets(0)?)),
        (Family::Ipv6, 32) => {
            let mut all = [0; 16];
            for (index, part) in all.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&octets(8 * index)?);
            }
            IpAddr::V6(Ipv6Addr::from(all))
        }
        _ => return None,
    };
    let port = Port::new(u16::try_from(hexadecimal(port)?).ok()?);
    Some(SocketAddress::Inet { address, port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::State;

    #[cfg(target_endian = "little")]
    #[test]
    fn lines_of_linux_are_understood() {
        let line = b"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0";
        let socket = parse(SocketProtocol::Tcp, Family::Ipv4, SpaceId(0), line).unwrap();
        assert_eq!(socket.state, State::Listen);
        assert_eq!(
            socket.local,
            SocketAddress::Inet {
                address: Ipv4Addr::LOCALHOST.into(),
                port: Port::new(8080)
            }
        );
        assert_eq!(socket.remote, None);
        assert_eq!((socket.inode, socket.uid), (4711, Some(1000)));
        assert_eq!(socket.queues, Queues { receive: 2, send: 0 });

        let line = b"  12: B80D0120000000000000000001000000:01BB 0000000000000000FFFF00000100007F:D431 06 00000000:00000000 03:000013F2 00000000     0        0 0 3 0000000000000000";
        let socket = parse(SocketProtocol::Tcp, Family::Ipv6, SpaceId(0), line).unwrap();
        assert_eq!(socket.state, State::TimeWait);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(
            socket.local,
            SocketAddress::Inet {
                address: address("2001:db8::1"),
                port: Port::new(443)
            }
        );
        let remote = SocketAddress::Inet {
            address: address("::ffff:127.0.0.1"),
            port: Port::new(54321),
        };
        assert_eq!(socket.remote, Some(remote));
        assert_eq!((socket.inode, socket.uid), (0, None));
    }

    #[test]
    fn damaged_lines_are_passed_over() {
        for line in [
            &b""[..],
            b"0:",
            b"0: 0100007F:1F90",
            b"0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000  1000        0",
            b"0: 0100007F:1F90 00000000:0000 FF 00000000:00000002 00:00000000 00000000  1000        0 4711",
            b"0: 0100007F:11F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000  1000        0 4711",
            b"0: 0100007F1:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000  1000        0 4711",
            b"0: 0100007F:1F90 00000000:0000 0A 0000000000000002 00:00000000 00000000  1000        0 4711",
        ] {
            assert_eq!(parse(SocketProtocol::Tcp, Family::Ipv4, SpaceId(0), line), None);
        }
    }

    proptest! {
        #[test]
        fn any_line_ends(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            for family in [Family::Ipv4, Family::Ipv6] {
                let _ = parse(SocketProtocol::Tcp, family, SpaceId(0), &line);
            }
        }

        #[test]
        fn any_line_of_likely_characters_ends(line in "[0-9A-F: ]{0,200}") {
            for family in [Family::Ipv4, Family::Ipv6] {
                let _ = parse(SocketProtocol::Udp, family, SpaceId(0), line.as_bytes());
            }
        }
    }
}
