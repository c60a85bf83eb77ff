use std::fmt;
use std::net::IpAddr;

use portolan_core::{Port, Protocol};

use crate::SpaceId;

/// One socket as the kernel describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Socket {
    /// What it speaks.
    pub protocol: SocketProtocol,
    /// The address family it was made in. An IPv4 peer on a dual-stack socket leaves this at IPv6.
    pub family: Family,
    /// Where it stands in its life.
    pub state: State,
    /// The local end; a wildcard is the unspecified address of the family.
    pub local: SocketAddress,
    /// The remote end; `None` where there is none (listeners, unconnected sockets).
    pub remote: Option<SocketAddress>,
    /// The network namespace it lives in.
    pub space: SpaceId,
    /// The inode number; 0 where the kernel gives none (TIME-WAIT, waiting to be accepted, orphans).
    pub inode: u64,
    /// The user that made it; `None` where the kernel does not say.
    pub uid: Option<u32>,
    /// The kernel's own number for the socket (INET_DIAG_COOKIE), 0 where unknown.
    pub cookie: u64,
    /// The interface index it is bound to (SO_BINDTODEVICE), 0 for none.
    pub device: u32,
    /// The firewall mark (SO_MARK), if the kernel told (CAP_NET_ADMIN).
    pub mark: Option<u32>,
    /// The cgroup v2 id it was made in, if the kernel told.
    pub cgroup: Option<u64>,
    /// Whether an IPv6 socket is closed to IPv4 (IPV6_V6ONLY); `None` for other families or if unknown.
    pub v6_only: Option<bool>,
    /// What waits in its queues.
    pub queues: Queues,
    /// The state of TCP's machinery, where it was asked for.
    pub tcp_info: Option<Box<TcpInfo>>,
}

/// What a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SocketProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// UDP-Lite.
    UdpLite,
    /// Raw IP; the "port" of its local end is the IP protocol number.
    Raw,
    /// Multipath TCP.
    Mptcp,
    /// SCTP.
    Sctp,
    /// Sockets between a virtual machine and its host; 32-bit ports.
    Vsock,
    /// Unix domain sockets; paths instead of ports.
    Unix,
}

impl SocketProtocol {
    /// Every kind, in the order in which lists show them.
    pub const ALL: [Self; 8] = [
        Self::Tcp,
        Self::Udp,
        Self::UdpLite,
        Self::Raw,
        Self::Mptcp,
        Self::Sctp,
        Self::Vsock,
        Self::Unix,
    ];

    /// The name in lower case, as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::UdpLite => "udplite",
            Self::Raw => "raw",
            Self::Mptcp => "mptcp",
            Self::Sctp => "sctp",
            Self::Vsock => "vsock",
            Self::Unix => "unix",
        }
    }

    /// The protocol whose port numbers the socket uses, if it uses any that IANA registers.
    #[must_use]
    pub const fn transport(self) -> Option<Protocol> {
        match self {
            // An MPTCP connection travels in TCP segments and shares TCP's ports.
            Self::Tcp | Self::Mptcp => Some(Protocol::Tcp),
            Self::Udp => Some(Protocol::Udp),
            Self::UdpLite => Some(Protocol::UdpLite),
            Self::Sctp => Some(Protocol::Sctp),
            Self::Raw | Self::Vsock | Self::Unix => None,
        }
    }
}

impl fmt::Display for SocketProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Family {
    /// AF_INET.
    Ipv4,
    /// AF_INET6.
    Ipv6,
    /// AF_VSOCK.
    Vsock,
    /// AF_UNIX.
    Unix,
}

impl Family {
    /// The name in lower case, as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Vsock => "vsock",
            Self::Unix => "unix",
        }
    }
}

/// The state of a socket: TCP's (RFC 9293, section 3.3.2), and two for the protocols without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum State {
    /// Waiting for connections.
    Listen,
    /// SYN sent, no answer yet.
    SynSent,
    /// SYN received, the handshake not finished; the kernel holds only a request for it.
    SynReceived,
    /// Connected.
    Established,
    /// Closed here, FIN not acknowledged.
    FinWait1,
    /// Closed here, waiting for the peer's FIN.
    FinWait2,
    /// Closed by the peer, not yet here.
    CloseWait,
    /// Both ends closed at once.
    Closing,
    /// Closed after the peer, our FIN not acknowledged.
    LastAck,
    /// Closed; the four-tuple rests for a minute.
    TimeWait,
    /// Neither listening nor connected: bound, perhaps, and no more.
    Closed,
    /// A datagram socket without a peer: it takes datagrams from anyone.
    Unconnected,
}

impl State {
    /// Every state, in the order of a connection's life.
    pub const ALL: [Self; 12] = [
        Self::Listen,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
        Self::Closed,
        Self::Unconnected,
    ];

    /// The name in lower case with hyphens, as it stands in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listen => "listen",
            Self::SynSent => "syn-sent",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::FinWait1 => "fin-wait-1",
            Self::FinWait2 => "fin-wait-2",
            Self::CloseWait => "close-wait",
            Self::Closing => "closing",
            Self::LastAck => "last-ack",
            Self::TimeWait => "time-wait",
            Self::Closed => "closed",
            Self::Unconnected => "unconnected",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One end of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketAddress {
    /// An IP address and a port.
    Inet {
        /// The address; unspecified for a wildcard. IPv4-mapped where the kernel says so.
        address: IpAddr,
        /// The port; for raw sockets the IP protocol number.
        port: Port,
    },
    /// A context identifier and a port of a virtual machine's socket.
    Vsock {
        /// The context identifier; `u32::MAX` is any.
        cid: u32,
        /// The port; `u32::MAX` is any.
        port: u32,
    },
    /// The name of a Unix domain socket, as the kernel holds it.
    Unix {
        /// The bytes of the path; abstract names begin with a zero byte; empty for unnamed sockets.
        name: Box<[u8]>,
    },
}

impl SocketAddress {
    /// The port, where there is one of 16 bits.
    #[must_use]
    pub const fn port(&self) -> Option<Port> {
        match self {
            Self::Inet { port, .. } => Some(*port),
            Self::Vsock { .. } | Self::Unix { .. } => None,
        }
    }

    /// The IP address, where there is one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Inet { address, .. } => Some(*address),
            Self::Vsock { .. } | Self::Unix { .. } => None,
        }
    }
}

/// What waits in a socket's queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Bytes received and not read; for a TCP listener: connections waiting to be accepted.
    pub receive: u32,
    /// Bytes sent and not acknowledged; for a TCP listener: the backlog, how many may wait.
    pub send: u32,
}

/// A part of the kernel's `struct tcp_info` (include/uapi/linux/tcp.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Retransmission timeout, microseconds.
    pub rto_us: u32,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u32,
    /// Variation of the round-trip time, microseconds.
    pub rttvar_us: u32,
    /// Smallest round-trip time seen, microseconds.
    pub min_rtt_us: u32,
    /// Our maximum segment size towards the peer, bytes.
    pub snd_mss: u32,
    /// The peer's maximum segment size towards us, bytes.
    pub rcv_mss: u32,
    /// Path MTU, bytes.
    pub pmtu: u32,
    /// Congestion window, segments.
    pub snd_cwnd: u32,
    /// Slow-start threshold, segments.
    pub snd_ssthresh: u32,
    /// Segments in flight.
    pub unacked: u32,
    /// Segments retransmitted over the connection's life.
    pub total_retrans: u32,
    /// Bytes acknowledged by the peer.
    pub bytes_acked: u64,
    /// Bytes received from the peer.
    pub bytes_received: u64,
    /// Rate at which data is paced out, bytes per second.
    pub pacing_rate: u64,
    /// Rate at which data was lately delivered, bytes per second.
    pub delivery_rate: u64,
    /// Milliseconds since data was last sent.
    pub last_data_sent_ms: u32,
    /// Milliseconds since data last came.
    pub last_data_received_ms: u32,
}
