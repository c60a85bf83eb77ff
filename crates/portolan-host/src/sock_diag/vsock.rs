use super::{BY_FAMILY, Listed, SockDiag};
use crate::kernel_state;
use crate::netlink::{DumpError, Request, Transport};
use crate::{Family, Query, Queues, Socket, SocketAddress, SocketProtocol, SpaceId, State};

/// AF_VSOCK.
const VSOCK: u8 = 40;
/// Bytes of `struct vsock_diag_msg`.
const FIXED: usize = 32;

impl<T: Transport> SockDiag<T> {
    pub(super) fn list_vsock(
        &mut self,
        query: &Query,
        space: SpaceId,
        sockets: &mut Vec<Socket>,
    ) -> Result<Listed, DumpError> {
        let states = kernel_state::mask(SocketProtocol::Vsock, query.states);
        if states == 0 {
            return Ok(Listed::Whole);
        }
        self.list_whole(
            sockets,
            |sequence| request(states, sequence),
            |sockets, payload| {
                sockets.extend(decode(space, payload).filter(|socket| query.admits(socket)));
            },
        )
    }
}

/// `struct vsock_diag_req`.
fn request(states: u32, sequence: u32) -> Vec<u8> {
    Request::new(BY_FAMILY, Request::REQUEST | Request::DUMP, sequence)
        .bytes(&[VSOCK, 0, 0, 0])
        .bytes(&states.to_ne_bytes())
        .bytes(&[0; 16])
        .finish()
}

fn decode(space: SpaceId, payload: &[u8]) -> Option<Socket> {
    let fixed: &[u8; FIXED] = payload.first_chunk()?;
    let word = |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    if fixed[0] != VSOCK {
        return None;
    }
    // Datagram sockets (SOCK_DGRAM is 2) say "closed" for "without a peer".
    let state = match (fixed[1], kernel_state::decode(SocketProtocol::Vsock, fixed[2])?) {
        (2, State::Closed) => State::Unconnected,
        (_, state) => state,
    };
    let remote = !matches!(state, State::Listen | State::Unconnected | State::Closed);
    Some(Socket {
        protocol: SocketProtocol::Vsock,
        family: Family::Vsock,
        state,
        local: SocketAddress::Vsock {
            cid: word(4),
            port: word(8),
        },
        remote: remote.then(|| SocketAddress::Vsock {
            cid: word(12),
            port: word(16),
        }),
        space,
        inode: u64::from(word(20)),
        uid: None,
        cookie: u64::from(word(24)) | u64::from(word(28)) << 32,
        device: 0,
        mark: None,
        cgroup: None,
        v6_only: None,
        queues: Queues::default(),
        tcp_info: None,
    })
}
