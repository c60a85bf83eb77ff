use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_core::Port;

use super::{BY_FAMILY, Listed, SockDiag, port_filter};
use crate::kernel_state;
use crate::netlink::{Attributes, DumpError, Request, Transport, u32_at, u64_at};
use crate::{Family, Query, Queues, Socket, SocketAddress, SocketProtocol, SpaceId, State, TcpInfo};

/// AF_INET.
const INET: u8 = 2;
/// AF_INET6.
const INET6: u8 = 10;

/// TCPDIAG_GETSOCK: the request that came before SOCK_DIAG_BY_FAMILY. It lists IPv4 and IPv6 in one walk.
const TCP_BOTH_FAMILIES: u16 = 18;

/// INET_DIAG_REQ_BYTECODE.
const REQUEST_FILTER: u16 = 1;
/// INET_DIAG_REQ_PROTOCOL.
const REQUEST_PROTOCOL: u16 = 3;

/// INET_DIAG_INFO.
const INFO: u16 = 2;
/// INET_DIAG_SKV6ONLY.
const V6_ONLY: u16 = 11;
/// INET_DIAG_MARK.
const MARK: u16 = 15;
/// INET_DIAG_CGROUP_ID.
const CGROUP_ID: u16 = 21;

impl<T: Transport> SockDiag<T> {
    pub(super) fn list_inet(
        &mut self,
        protocol: SocketProtocol,
        query: &Query,
        space: SpaceId,
        sockets: &mut Vec<Socket>,
    ) -> Result<Listed, DumpError> {
        let states = kernel_state::mask(protocol, query.states);
        if states == 0 {
            return Ok(Listed::Whole);
        }
        let filter = query.local_ports.as_deref().and_then(port_filter::local_ports);
        let extensions = if query.tcp_info { 1 << (INFO - 1) } else { 0 };
        let ask = Ask {
            protocol,
            states,
            extensions,
            filter: filter.as_deref(),
        };
        let before = sockets.len();
        let take = |sockets: &mut Vec<Socket>, payload: &[u8]| {
            if let Some(socket) = decode(protocol, space, payload)
                && query.admits(&socket)
            {
                sockets.push(socket);
            }
        };
        if protocol == SocketProtocol::Tcp {
            // One walk over the kernel's table in place of two.
            let listed = self.list_whole(sockets, |sequence| ask.both_families(sequence), take)?;
            if listed != Listed::NotOffered {
                return Ok(listed);
            }
        }
        let mut whole = Listed::Whole;
        for family in [INET, INET6] {
            match self.list_whole(sockets, |sequence| ask.family(family, sequence), take) {
                Ok(Listed::Whole) => {}
                Ok(Listed::Torn) => whole = Listed::Torn,
                // A kernel without the protocol lists neither family; one without IPv6 lists the first.
                Ok(Listed::NotOffered) if family == INET => return Ok(Listed::NotOffered),
                Ok(Listed::NotOffered) => {}
                Err(error) => {
                    sockets.truncate(before);
                    return Err(error);
                }
            }
        }
        Ok(whole)
    }
}

/// What a request asks for.
struct Ask<'a> {
    protocol: SocketProtocol,
    states: u32,
    extensions: u8,
    filter: Option<&'a [u8]>,
}

impl Ask<'_> {
    /// `struct inet_diag_req_v2`.
    fn family(&self, family: u8, sequence: u32) -> Vec<u8> {
        let (number, attribute) = protocol_number(self.protocol);
        let mut request = Request::new(BY_FAMILY, Request::REQUEST | Request::DUMP, sequence)
            .bytes(&[family, number, self.extensions, 0])
            .bytes(&self.states.to_ne_bytes())
            .bytes(&[0; SOCKET_ID]);
        if let Some(number) = attribute {
            request = request.attribute(REQUEST_PROTOCOL, &number.to_ne_bytes());
        }
        if let Some(filter) = self.filter {
            request = request.attribute(REQUEST_FILTER, filter);
        }
        request.finish()
    }

    /// `struct inet_diag_req`.
    fn both_families(&self, sequence: u32) -> Vec<u8> {
        let mut request = Request::new(TCP_BOTH_FAMILIES, Request::REQUEST | Request::DUMP, sequence)
            .bytes(&[0, 0, 0, self.extensions])
            .bytes(&[0; SOCKET_ID])
            .bytes(&self.states.to_ne_bytes())
            .bytes(&[0; 4]);
        if let Some(filter) = self.filter {
            request = request.attribute(REQUEST_FILTER, filter);
        }
        request.finish()
    }
}

/// The protocol's number, and for one beyond 255 the attribute that carries it.
pub(super) const fn protocol_number(protocol: SocketProtocol) -> (u8, Option<u32>) {
    match protocol {
        SocketProtocol::Tcp => (6, None),
        SocketProtocol::Udp => (17, None),
        SocketProtocol::Sctp => (132, None),
        SocketProtocol::UdpLite => (136, None),
        // IPPROTO_RAW stands for raw sockets of every protocol.
        SocketProtocol::Raw => (255, None),
        // A kernel that does not know the attribute goes by the number. 253 is nobody's (RFC 3692); the low
        // byte of 262 would be TCP's.
        SocketProtocol::Mptcp => (253, Some(262)),
        SocketProtocol::Vsock | SocketProtocol::Unix => (0, None),
    }
}

/// The family of an address, as a request has it.
pub(super) const fn family_number(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => INET,
        IpAddr::V6(_) => INET6,
    }
}

/// Bytes of `struct inet_diag_sockid`.
pub(super) const SOCKET_ID: usize = 48;
/// Bytes of `struct inet_diag_msg`.
const FIXED: usize = 72;

/// A socket from `struct inet_diag_msg` and its attributes; `None` if it is too short, or of a family or
/// state that Linux does not have.
fn decode(protocol: SocketProtocol, space: SpaceId, payload: &[u8]) -> Option<Socket> {
    let fixed: &[u8; FIXED] = payload.first_chunk()?;
    let word = |at: usize| u32::from_ne_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let address = |at: usize| match fixed[0] {
        INET => Some(IpAddr::V4(Ipv4Addr::new(
            fixed[at],
            fixed[at + 1],
            fixed[at + 2],
            fixed[at + 3],
        ))),
        INET6 => {
            let octets: [u8; 16] = *fixed[at..].first_chunk()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    };
    let end = |port: usize, at: usize| {
        Some(SocketAddress::Inet {
            address: address(at)?,
            port: Port::new(u16::from_be_bytes([fixed[port], fixed[port + 1]])),
        })
    };
    let state = kernel_state::decode(protocol, fixed[1])?;
    let mut socket = Socket {
        protocol,
        family: if fixed[0] == INET {
            Family::Ipv4
        } else {
            Family::Ipv6
        },
        state,
        local: end(4, 8)?,
        remote: end(6, 24).filter(|remote| kernel_state::has_remote(state, remote)),
        space,
        inode: u64::from(word(68)),
        uid: kernel_state::has_owner(state).then(|| word(64)),
        cookie: u64::from(word(44)) | u64::from(word(48)) << 32,
        device: word(40),
        mark: None,
        cgroup: None,
        v6_only: None,
        queues: Queues {
            receive: word(56),
            send: word(60),
        },
        tcp_info: None,
    };
    for (kind, value) in Attributes::new(&payload[FIXED..]) {
        match kind {
            INFO if state != State::Listen => socket.tcp_info = tcp_info(value).map(Box::new),
            V6_ONLY => socket.v6_only = value.first().map(|flag| *flag != 0),
            MARK => socket.mark = u32_at(value, 0),
            CGROUP_ID => socket.cgroup = u64_at(value, 0),
            _ => {}
        }
    }
    Some(socket)
}

/// `struct tcp_info` (include/uapi/linux/tcp.h). Older kernels send less of it: what is missing is 0.
fn tcp_info(bytes: &[u8]) -> Option<TcpInfo> {
    let word = |at| u32_at(bytes, at).unwrap_or(0);
    let long = |at| u64_at(bytes, at).unwrap_or(0);
    // MPTCP answers with a structure of its own, which is shorter.
    (bytes.len() >= 104).then(|| TcpInfo {
        rto_us: word(8),
        snd_mss: word(16),
        rcv_mss: word(20),
        unacked: word(24),
        last_data_sent_ms: word(44),
        last_data_received_ms: word(52),
        pmtu: word(60),
        rtt_us: word(68),
        rttvar_us: word(72),
        snd_ssthresh: word(76),
        snd_cwnd: word(80),
        total_retrans: word(100),
        pacing_rate: long(104),
        bytes_acked: long(120),
        bytes_received: long(128),
        min_rtt_us: word(148),
        delivery_rate: long(160),
    })
}
