use std::collections::HashMap;

use super::{BY_FAMILY, Listed, SockDiag};
use crate::kernel_state;
use crate::netlink::{Attributes, DumpError, Request, Transport, u32_at};
use crate::{Family, Query, Queues, Socket, SocketAddress, SocketProtocol, SpaceId, State, StateSet};

/// AF_UNIX.
const UNIX: u8 = 1;

/// UDIAG_SHOW_NAME, UDIAG_SHOW_PEER, UDIAG_SHOW_RQLEN and UDIAG_SHOW_UID.
const SHOW: u32 = 0x1 | 0x4 | 0x10 | 0x40;

/// UNIX_DIAG_NAME.
const NAME: u16 = 0;
/// UNIX_DIAG_PEER.
const PEER: u16 = 2;
/// UNIX_DIAG_RQLEN.
const QUEUES: u16 = 4;
/// UNIX_DIAG_UID.
const UID: u16 = 7;

/// Bytes of `struct unix_diag_msg`.
const FIXED: usize = 16;

impl<T: Transport> SockDiag<T> {
    pub(super) fn list_unix(
        &mut self,
        query: &Query,
        space: SpaceId,
        sockets: &mut Vec<Socket>,
    ) -> Result<Listed, DumpError> {
        // A peer is given by its inode: its name stands in its own entry, so that all are needed.
        let connected = !query.states.intersection(OPEN_OR_CLOSED.complement()).is_empty();
        let asked = if connected { StateSet::ALL } else { query.states };
        let states = kernel_state::mask(SocketProtocol::Unix, asked);
        if states == 0 {
            return Ok(Listed::Whole);
        }
        let mut found = Vec::new();
        let listed = self.list_whole(
            &mut found,
            |sequence| request(states, sequence),
            |found, payload| found.extend(decode(space, payload)),
        )?;
        let mut names: HashMap<u64, Box<[u8]>> = HashMap::new();
        if connected {
            for (socket, _) in &found {
                if let SocketAddress::Unix { name } = &socket.local
                    && !name.is_empty()
                {
                    names.insert(socket.inode, name.clone());
                }
            }
        }
        for (mut socket, peer) in found {
            if !query.admits(&socket) {
                continue;
            }
            if socket.state == State::Established {
                let name = peer
                    .and_then(|inode| names.get(&inode))
                    .cloned()
                    .unwrap_or_default();
                socket.remote = Some(SocketAddress::Unix { name });
            }
            sockets.push(socket);
        }
        Ok(listed)
    }
}

/// The states in which no peer is to be named.
const OPEN_OR_CLOSED: StateSet = StateSet::OPEN.with(State::Closed);

/// `struct unix_diag_req`.
fn request(states: u32, sequence: u32) -> Vec<u8> {
    Request::new(BY_FAMILY, Request::REQUEST | Request::DUMP, sequence)
        .bytes(&[UNIX, 0, 0, 0])
        .bytes(&states.to_ne_bytes())
        .bytes(&[0; 4])
        .bytes(&SHOW.to_ne_bytes())
        .bytes(&[0; 8])
        .finish()
}

/// A socket, and the inode of its peer.
fn decode(space: SpaceId, payload: &[u8]) -> Option<(Socket, Option<u64>)> {
    let fixed: &[u8; FIXED] = payload.first_chunk()?;
    let word = |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    if fixed[0] != UNIX {
        return None;
    }
    let mut name: &[u8] = &[];
    let mut peer = None;
    let mut uid = None;
    let mut queues = Queues::default();
    for (kind, value) in Attributes::new(&payload[FIXED..]) {
        match kind {
            NAME => name = value,
            PEER => peer = u32_at(value, 0).map(u64::from),
            QUEUES => {
                queues = Queues {
                    receive: u32_at(value, 0).unwrap_or(0),
                    send: u32_at(value, 4).unwrap_or(0),
                }
            }
            UID => uid = u32_at(value, 0),
            _ => {}
        }
    }
    // The kernel counts the zero byte that ends a path; that which begins an abstract name belongs to it.
    if let [path @ .., 0] = name
        && path.first().is_some_and(|first| *first != 0)
    {
        name = path;
    }
    let socket = Socket {
        protocol: SocketProtocol::Unix,
        family: Family::Unix,
        state: kernel_state::unix(u16::from(fixed[1]), fixed[2])?,
        local: SocketAddress::Unix { name: name.into() },
        remote: None,
        space,
        inode: u64::from(word(4)),
        uid,
        cookie: u64::from(word(8)) | u64::from(word(12)) << 32,
        device: 0,
        mark: None,
        cgroup: None,
        v6_only: None,
        queues,
        tcp_info: None,
    };
    Some((socket, peer))
}
