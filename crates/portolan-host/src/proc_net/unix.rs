use std::io;
use std::path::Path;

use super::lines::{decimal, each_line, hexadecimal, words};
use crate::kernel_state;
use crate::{Family, Queues, Socket, SocketAddress, SocketProtocol, SpaceId, State};

/// The Unix sockets.
///
/// The kernel writes names as they are, but for zero bytes, which become `@`. So an abstract name and a path
/// that begins with `@` look the same (the former is assumed), and a name with a line feed continues in a line
/// of its own: it is cut there, and its rest is taken for a socket only if it looks like a whole line.
pub(super) fn list(net: &Path, space: SpaceId, mut take: impl FnMut(Socket)) -> io::Result<bool> {
    each_line(&net.join("unix"), |line| {
        if let Some(socket) = parse(space, line) {
            take(socket);
        }
    })
}

/// __SO_ACCEPTCON among the flags: it listens.
const ACCEPTS: u32 = 0x1_0000;
/// SS_CONNECTING and SS_CONNECTED (include/uapi/linux/net.h).
const CONNECTING: u32 = 2;
const CONNECTED: u32 = 3;

/// A line: number, reference count, protocol, flags, type, state, inode, name.
fn parse(space: SpaceId, line: &[u8]) -> Option<Socket> {
    let mut fields = words(line);
    let number = fields.next()?;
    if number.last() != Some(&b':') {
        return None;
    }
    let flags = hexadecimal(fields.nth(2)?)?;
    let kind = u16::try_from(hexadecimal(fields.next()?)?).ok()?;
    let state = hexadecimal(fields.next()?)?;
    let inode_word = fields.next()?;
    let inode = decimal(inode_word)?;
    let state = match (flags & ACCEPTS != 0, state) {
        (true, _) => State::Listen,
        (false, CONNECTED) => State::Established,
        (false, CONNECTING) => State::SynSent,
        (false, _) => kernel_state::unix(kind, 7)?,
    };
    // The name is whatever follows one blank after the inode, blanks included.
    let inode_end = inode_word.as_ptr().addr() - line.as_ptr().addr() + inode_word.len();
    let mut name: Box<[u8]> = line.get(inode_end + 1..).unwrap_or(&[]).into();
    if let Some(first @ b'@') = name.first_mut() {
        *first = 0;
    }
    Some(Socket {
        protocol: SocketProtocol::Unix,
        family: Family::Unix,
        state,
        local: SocketAddress::Unix { name },
        // The text does not tell the peer.
        remote: (state == State::Established).then(|| SocketAddress::Unix { name: Box::default() }),
        space,
        inode,
        uid: None,
        cookie: 0,
        device: 0,
        mark: None,
        cgroup: None,
        v6_only: None,
        queues: Queues::default(),
        tcp_info: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(line: &str) -> Option<Vec<u8>> {
        match parse(SpaceId(0), line.as_bytes())?.local {
            SocketAddress::Unix { name } => Some(name.into()),
            SocketAddress::Inet { .. } | SocketAddress::Vsock { .. } => None,
        }
    }

    #[test]
    fn lines_of_linux_are_understood() {
        let line = b"0000000000000000: 00000002 00000000 00010000 0001 01 18471 /run/a b  c";
        let socket = parse(SpaceId(0), line).unwrap();
        assert_eq!((socket.state, socket.inode), (State::Listen, 18471));
        assert_eq!(
            socket.local,
            SocketAddress::Unix {
                name: (*b"/run/a b  c").into()
            }
        );
        assert_eq!(socket.remote, None);
        let line = "ffff888003: 00000002 00000000 00000000 0002 01 5 @/org/x";
        assert_eq!(name(line).unwrap(), b"\0/org/x");
        assert_eq!(
            parse(SpaceId(0), line.as_bytes()).unwrap().state,
            State::Unconnected
        );
        assert_eq!(name("0: 00000003 00000000 00000000 0001 03 15907").unwrap(), b"");
    }

    #[test]
    fn the_rest_of_a_name_with_a_line_feed_is_no_socket() {
        for rest in [
            "",
            "rest of a name",
            "00000002 00000000 00010000 0001 01 7 /x",
            "a: b c d e f g h",
        ] {
            assert_eq!(name(rest), None, "{rest:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_ends(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(SpaceId(0), &line);
        }

        #[test]
        fn any_name_is_kept(bytes in proptest::collection::vec(any::<u8>().prop_filter("", |b| ![0, b'@', b'\n'].contains(b)), 0..108)) {
            let mut line = b"0: 00000002 00000000 00010000 0001 01 7 ".to_vec();
            line.extend(&bytes);
            let socket = parse(SpaceId(0), &line).unwrap();
            prop_assert_eq!(socket.local, SocketAddress::Unix { name: bytes.into() });
        }
    }
}
