use std::collections::HashMap;

use crate::{Socket, SocketProtocol};

/// Makes one entry of an MPTCP socket and its TCP subflow with the same addresses, which share an inode: a
/// program sees one socket. Subflows over further paths have addresses of their own and stay.
///
/// `sockets` are those of one network namespace.
pub(crate) fn join_subflows(sockets: &mut Vec<Socket>, first: usize) {
    let mut connections: HashMap<u64, usize> = HashMap::new();
    for (index, socket) in sockets.iter().enumerate().skip(first) {
        if socket.protocol == SocketProtocol::Mptcp && socket.inode != 0 {
            connections.insert(socket.inode, index);
        }
    }
    if connections.is_empty() {
        return;
    }
    let mut joined = vec![false; sockets.len()];
    for index in first..sockets.len() {
        let subflow = &sockets[index];
        if subflow.protocol != SocketProtocol::Tcp {
            continue;
        }
        let Some(&connection) = connections.get(&subflow.inode) else {
            continue;
        };
        let whole = &sockets[connection];
        if (&whole.local, &whole.remote) == (&subflow.local, &subflow.remote) {
            // Which addresses may reach it is the subflow's business.
            let v6_only = subflow.v6_only;
            sockets[connection].v6_only = v6_only;
            joined[index] = true;
        }
    }
    let mut joined = joined.into_iter();
    sockets.retain(|_| joined.next() == Some(false));
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use portolan_core::Port;

    use super::*;
    use crate::{Family, Queues, SocketAddress, SpaceId, State};

    fn socket(protocol: SocketProtocol, inode: u64, port: u16) -> Socket {
        Socket {
            protocol,
            family: Family::Ipv4,
            state: State::Listen,
            local: SocketAddress::Inet {
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port: Port::new(port),
            },
            remote: None,
            space: SpaceId(0),
            inode,
            uid: None,
            cookie: 0,
            device: 0,
            mark: None,
            cgroup: None,
            v6_only: Some(protocol == SocketProtocol::Tcp),
            queues: Queues::default(),
            tcp_info: None,
        }
    }

    #[test]
    fn the_first_subflow_is_the_connection_and_others_are_not() {
        use SocketProtocol::{Mptcp, Tcp};
        let mut sockets = vec![
            // Of another namespace, read before.
            socket(Tcp, 5, 80),
            socket(Tcp, 5, 80),
            socket(Tcp, 5, 81),
            socket(Tcp, 6, 80),
            socket(Tcp, 0, 80),
            socket(Mptcp, 5, 80),
            socket(Mptcp, 0, 80),
        ];
        join_subflows(&mut sockets, 1);
        let kept: Vec<_> = sockets
            .iter()
            .map(|socket| (socket.protocol, socket.inode, socket.local.port().unwrap().get()))
            .collect();
        let expected = [
            (Tcp, 5, 80),
            (Tcp, 5, 81),
            (Tcp, 6, 80),
            (Tcp, 0, 80),
            (Mptcp, 5, 80),
            (Mptcp, 0, 80),
        ];
        assert_eq!(kept, expected);
        assert_eq!(sockets[4].v6_only, Some(true));
    }
}
