use std::io;
use std::net::IpAddr;
use std::path::Path;

use portolan_core::Port;

use super::lines::{decimal, each_line, words};
use crate::kernel_state;
use crate::{Family, Queues, Socket, SocketAddress, SocketProtocol, SpaceId, State};

/// SCTP's endpoints and associations (net/sctp/proc.c). Of several addresses the primary one is given.
pub(super) fn list(net: &Path, space: SpaceId, mut take: impl FnMut(Socket)) -> io::Result<bool> {
    let endpoints = each_line(&net.join("sctp/eps"), |line| {
        if let Some(socket) = endpoint(space, line) {
            take(socket);
        }
    })?;
    let associations = each_line(&net.join("sctp/assocs"), |line| {
        if let Some(socket) = association(space, line) {
            take(socket);
        }
    })?;
    Ok(endpoints || associations)
}

/// A line: two pointers, type, socket state, bucket, port, uid, inode, addresses.
///
/// Only those that listen: the others belong to associations, which have lines of their own.
fn endpoint(space: SpaceId, line: &[u8]) -> Option<Socket> {
    let mut words = words(line).skip(3);
    let state = kernel_state::decode(SocketProtocol::Sctp, decimal(words.next()?)?)?;
    if state != State::Listen {
        return None;
    }
    let port = Port::new(decimal(words.nth(1)?)?);
    let uid = decimal(words.next()?)?;
    let inode = decimal(words.next()?)?;
    let address = primary(words)?;
    Some(socket(
        space,
        state,
        (address, port),
        None,
        uid,
        inode,
        Queues::default(),
    ))
}

/// A line: two pointers, type, socket state, state, bucket, number, both queues, uid, inode, both ports, local
/// addresses, `<->`, remote addresses, counters.
fn association(space: SpaceId, line: &[u8]) -> Option<Socket> {
    let mut words = words(line).skip(4);
    let state = kernel_state::decode(SocketProtocol::Sctp, decimal(words.next()?)?)?;
    let queues = Queues {
        send: decimal(words.nth(2)?)?,
        receive: decimal(words.next()?)?,
    };
    let uid = decimal(words.next()?)?;
    let inode = decimal(words.next()?)?;
    let local_port = Port::new(decimal(words.next()?)?);
    let remote_port = Port::new(decimal(words.next()?)?);
    let local = primary(words.by_ref().take_while(|word| *word != b"<->"))?;
    let remote = primary(words)?;
    let remote = (remote, remote_port);
    Some(socket(
        space,
        state,
        (local, local_port),
        Some(remote),
        uid,
        inode,
        queues,
    ))
}

/// The address marked `*`, or else the first, of all words that are addresses.
fn primary<'a>(words: impl Iterator<Item = &'a [u8]>) -> Option<IpAddr> {
    let mut first = None;
    let mut primary = None;
    for word in words {
        let marked = word.strip_prefix(b"*");
        if let Some(address) = decimal::<IpAddr>(marked.unwrap_or(word)) {
            first = first.or(Some(address));
            primary = primary.or_else(|| marked.map(|_| address));
        }
    }
    primary.or(first)
}

fn socket(
    space: SpaceId,
    state: State,
    (address, port): (IpAddr, Port),
    remote: Option<(IpAddr, Port)>,
    uid: u32,
    inode: u64,
    queues: Queues,
) -> Socket {
    Socket {
        protocol: SocketProtocol::Sctp,
        family: if address.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        },
        state,
        local: SocketAddress::Inet { address, port },
        remote: remote.map(|(address, port)| SocketAddress::Inet { address, port }),
        space,
        inode,
        uid: Some(uid),
        cookie: 0,
        device: 0,
        mark: None,
        cgroup: None,
        v6_only: None,
        queues,
        tcp_info: None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(address: &str, port: u16) -> SocketAddress {
        SocketAddress::Inet {
            address: address.parse().unwrap(),
            port: Port::new(port),
        }
    }

    #[test]
    fn an_endpoint_that_listens() {
        let line = b"00000000 00000000 2   10  25   3868   1000 21123 *10.0.0.1 10.0.1.1 ";
        let socket = endpoint(SpaceId(0), line).unwrap();
        assert_eq!(
            (socket.state, socket.inode, socket.uid),
            (State::Listen, 21123, Some(1000))
        );
        assert_eq!((socket.local, socket.remote), (at("10.0.0.1", 3868), None));
        let closed = b"00000000 00000000 2   7   25   3868   1000 21123 10.0.0.1 ";
        assert_eq!(endpoint(SpaceId(0), closed), None);
    }

    #[test]
    fn an_association() {
        let line = b"00000000 00000000 2   1   3  0      5       12        7       0 21130 3868  40000  10.0.1.1 *10.0.0.1 <-> *10.0.0.2 10.0.1.2 \t    7500    10    10   10    0    0        0        1        0   212992   212992";
        let socket = association(SpaceId(0), line).unwrap();
        assert_eq!((socket.state, socket.inode), (State::Established, 21130));
        assert_eq!(
            (socket.local, socket.remote),
            (at("10.0.0.1", 3868), Some(at("10.0.0.2", 40000)))
        );
        assert_eq!(socket.queues, Queues { receive: 7, send: 12 });
    }

    proptest! {
        #[test]
        fn any_line_ends(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = endpoint(SpaceId(0), &line);
            let _ = association(SpaceId(0), &line);
        }
    }
}
