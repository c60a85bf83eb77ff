//! The stack: all connections of a host, behind one face.

mod batch;
mod burst;
mod calls;
mod configure;
mod counters;
mod cut;
mod echo;
mod echo_requests;
mod entry;
mod events;
mod fast;
mod filtering;
mod handshake;
mod held_syn;
mod icmp;
mod icmp_error;
mod icmp_limit;
mod input;
mod listener;
mod listing;
mod memory;
mod output;
mod path_mtu;
mod quote;
mod reassemble;
mod secrets;
mod settle;
mod syn_cookie;
mod syn_queue;
mod tally;
mod time_wait;
mod udp;
mod udp_flows;
mod verdict;
mod waiting;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use portolan_core::demux::FourTuple;
use portolan_core::table::{Device, Host, Owner, PortTable, SocketId};
use slotmap::{SlotMap, new_key_type};

use self::batch::FoundConnection;
use self::burst::Burst;
use self::cut::Cut;
use self::echo::EchoSocket;
use self::echo_requests::EchoGate;
use self::entry::{Entry, Spares};
use self::filtering::Filtering;
use self::held_syn::HeldSyns;
use self::icmp::ToAnswer;
use self::icmp_limit::IcmpLimit;
use self::listener::Listener;
use self::output::{Answer, Ready};
use self::path_mtu::PathMtus;
use self::secrets::Secrets;
use self::syn_queue::SynQueue;
use self::udp::{LatestFlows, UdpSocket};
use self::waiting::Waiting;
use crate::buffer::{Datagrams, Fragments, Pool, SharedDatagrams};
use crate::tcp::{Connection, Cx, Room, TcpConfig};
use crate::wheel::TimerWheel;
use crate::{Duration, Instant, Offload, Packet};

pub use calls::{ConnectError, ConnectOptions, ListenError, NoConnection, NoSocket};
pub use counters::Counters;
pub use echo::{BindEchoError, Echo, EchoError};
pub use echo_requests::{EchoRequest, EchoRequestsTaken};
pub use events::Event;
pub use filtering::RuleHits;
pub use handshake::SynCookies;
pub use held_syn::{HeldSyn, SynGone, SynId};
pub use icmp::{IcmpError, RelayedError};
pub use listing::{SocketHandle, SocketInfo, SocketState};
pub use tally::Traffic;
pub use udp::{
    Datagram, DontFragment, HeaderFields, OpenError, ReceiveError, SendError, UdpError, UdpOption,
};
pub use verdict::NoSyn;

new_key_type! {
    /// The handle of a connection. It is never used for a second one.
    pub struct ConnectionId;

    /// The handle of a listener. It is never used for a second one.
    pub struct ListenerId;

    /// The handle of a UDP socket. It is never used for a second one.
    pub struct UdpId;

    /// The handle of an ICMP echo socket. It is never used for a second one.
    pub struct EchoId;
}

/// How a stack behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackConfig {
    /// The longest IP packet that the link takes, 576 to 65,535 bytes; other values count as the nearest.
    pub mtu: usize,
    /// Leave checksums of TCP and UDP to the device: packets go out with [`PacketChecksum::Partial`](crate::PacketChecksum).
    pub checksum_offload: bool,
    /// Send super-segments of up to 65,535 bytes, for the device to cut.
    pub segmentation_offload: bool,
    /// The same for UDP ([`Stack::send_pieces`]).
    pub udp_segmentation_offload: bool,
    /// The number of the link: filter rules for it match what comes and goes there, multicast groups are joined on it.
    pub device: Device,
    /// The number for filter rules under which packets go from one address of the host to another.
    pub loopback: Device,
    /// How many bytes of free buffer memory the stack keeps for reuse.
    pub pool_bytes: usize,
    /// Whose the sockets are: privileged ports are for the privileged.
    pub owner: Owner,
    /// How many bytes of datagrams may wait in each direction of a UDP socket; each counts 128 more.
    pub udp_buffer: usize,
    /// How many bytes of fragments may wait for others. A source gets a quarter at most.
    pub fragment_memory: usize,
    /// How many bytes all sockets and their buffers may take; `usize::MAX` for no limit. When it gets short, windows
    /// shrink, then the oldest connections in TIME-WAIT go, then data and SYNs are dropped; each is counted.
    pub memory: usize,
    /// When SYNs are answered with cookies.
    pub syn_cookies: SynCookies,
    /// How many connections that are quiet stay awake, in some 1 to 2 KiB each; those that are quiet for longest
    /// sleep in a fifth of it until something happens to them.
    pub awake_connections: usize,
    /// How many SYNs may wait for the program's word ([`Stack::hold_syns`]); beyond that the oldest gives way.
    pub held_syns: usize,
    /// How many of them may be for one destination address; more are dropped.
    pub held_syns_per_destination: usize,
    /// How long a SYN waits for the program's word.
    pub syn_hold: Duration,
    /// How connections behave.
    pub tcp: TcpConfig,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            mtu: 1500,
            checksum_offload: false,
            segmentation_offload: false,
            udp_segmentation_offload: false,
            device: Device::new(2).expect("2 is not 0"),
            loopback: Device::LOOPBACK,
            pool_bytes: 16 << 20,
            owner: Owner::ROOT,
            udp_buffer: 208 << 10,
            fragment_memory: 4 << 20,
            memory: usize::MAX,
            syn_cookies: SynCookies::OnOverflow,
            awake_connections: 4096,
            held_syns: 4096,
            held_syns_per_destination: 1024,
            // A Linux client asks for the last time after 63 s, and gives up after 127 s (tcp_syn_retries).
            syn_hold: Duration::from_secs(130),
            tcp: TcpConfig::default(),
        }
    }
}

/// ICMP packets that may wait to be sent; more are dropped, as if the network had lost them.
const CONTROL_BYTES: usize = 256 << 10;

/// A host's transport layer. See the [crate].
#[derive(Debug)]
pub struct Stack {
    config: StackConfig,
    table: PortTable,
    secrets: Secrets,
    /// Who is behind each place of the table.
    holders: Vec<Holder>,
    connections: SlotMap<ConnectionId, Box<Entry>>,
    /// Connections that are awake and quiet, and may fall asleep: the longest quiet first.
    quiet: VecDeque<ConnectionId>,
    /// Working memory for connections that wake or begin.
    spares: Spares,
    listeners: SlotMap<ListenerId, Listener>,
    held: HeldSyns,
    /// Connections that peers have begun to open at listeners.
    syn_queue: SynQueue,
    /// Room for the one that is answered.
    half_open_room: Room,
    /// Connections that the program may have forgotten, but the network has not.
    waiting: Waiting,
    /// Until when acknowledgments of cookies may come.
    cookies_until: Instant,
    filtering: Filtering,
    udp: SlotMap<UdpId, UdpSocket>,
    echo: SlotMap<EchoId, EchoSocket>,
    /// Echo sockets by IP version (whether it is 4) and identifier.
    echo_by_identifier: BTreeMap<(bool, u16), EchoId>,
    /// How many echo sockets there ever were.
    echoes_bound: u32,
    /// Who takes echo requests to other hosts.
    echo_gate: Option<Box<EchoGate>>,
    latest_datagrams: LatestFlows,
    /// Datagrams that several sockets got.
    shared: SharedDatagrams,
    /// Timers of connections, by their place in the table.
    wheel: TimerWheel,
    /// Connections and sockets that may have something to send.
    ready: VecDeque<Ready>,
    /// What is left of a segment that goes in pieces.
    burst: Option<Burst>,
    /// Whose the last segment was: most often the next one is too.
    last_flow: Option<(FourTuple, ConnectionId)>,
    /// Room to put a packet together that came in parts.
    together: Vec<u8>,
    /// RSTs and the like, which belong to no connection.
    answers: VecDeque<Answer>,
    /// ICMP packets to be sent.
    control: Datagrams<ToAnswer>,
    /// The first of them, if a part of it went.
    control_cut: Option<Cut>,
    icmp_limit: IcmpLimit,
    paths: PathMtus,
    fragments: Fragments,
    /// Where datagrams are put together.
    whole: Vec<u8>,
    /// Connections, listeners and sockets of which the program is to be told.
    notices: VecDeque<events::Notice>,
    pool: Pool,
    counters: Counters,
    /// The identification of the next IPv4 packet.
    identification: u16,
    /// How many datagrams went in fragments.
    fragmented: u32,
    /// The latest time that the stack was told.
    last_now: Instant,
}

/// Who is behind a socket of the table.
#[derive(Debug)]
enum Holder {
    Nobody,
    Listener(ListenerId),
    Connection(ConnectionId),
    Udp(UdpId),
}

impl Stack {
    /// A stack for `host`, without sockets.
    ///
    /// The secret keys sequence numbers, port choices and hashes: take it from the system's randomness, or
    /// fix it to have a run repeated.
    #[must_use]
    pub fn new(config: StackConfig, host: Host, secret: [u8; 16]) -> Self {
        let config = StackConfig {
            mtu: config.mtu.clamp(576, 65_535),
            ..config
        };
        Self {
            config,
            table: PortTable::new(host, secret),
            secrets: Secrets::new(secret),
            holders: Vec::new(),
            connections: SlotMap::with_key(),
            quiet: VecDeque::new(),
            spares: Spares::default(),
            half_open_room: Room::default(),
            listeners: SlotMap::with_key(),
            held: HeldSyns::new(secret),
            syn_queue: SynQueue::new(Secrets::new(secret)),
            waiting: Waiting::new(Secrets::new(secret)),
            cookies_until: Instant::START,
            filtering: Filtering::new(secret, config.device, config.loopback),
            udp: SlotMap::with_key(),
            echo: SlotMap::with_key(),
            echo_by_identifier: BTreeMap::new(),
            echoes_bound: 0,
            echo_gate: None,
            latest_datagrams: LatestFlows::default(),
            shared: SharedDatagrams::default(),
            wheel: TimerWheel::new(),
            ready: VecDeque::new(),
            burst: None,
            last_flow: None,
            together: Vec::new(),
            answers: VecDeque::new(),
            control: Datagrams::new(CONTROL_BYTES),
            control_cut: None,
            icmp_limit: IcmpLimit::new(secret),
            paths: PathMtus::new(secret),
            fragments: Fragments::new(secret, config.fragment_memory),
            whole: Vec::new(),
            notices: VecDeque::new(),
            pool: Pool::new(config.pool_bytes),
            counters: Counters::default(),
            identification: 0,
            fragmented: 0,
            last_now: Instant::START,
        }
    }

    /// Takes a packet from the link. Whatever the bytes are, a packet that is not for anyone here is counted and
    /// dropped.
    pub fn handle_packet(&mut self, now: Instant, packet: Packet<'_>) {
        self.handle_found(now, packet, None);
    }

    /// As [`Stack::handle_packet`], of a packet that came on another device than the link: from the host itself
    /// ([`StackConfig::loopback`]), or a second link. Filter rules for that device match it; they are asked about each
    /// such packet, since a flow may come on several devices. Answers leave by the link all the same.
    pub fn handle_packet_on(&mut self, now: Instant, device: Device, packet: Packet<'_>) {
        self.filtering.begin_arrival(device);
        self.handle_packet(now, packet);
        self.filtering.end_arrival();
    }

    /// As [`Stack::handle_packet`], of a packet whose connection was looked up.
    fn handle_found(&mut self, now: Instant, packet: Packet<'_>, found: Option<FoundConnection>) {
        self.last_now = now;
        self.end_waits(now);
        if !self.take_plain(now, packet.bytes, None, packet.offload, found) {
            self.take_packet(now, packet);
        }
    }

    /// As [`Stack::handle_packet`], of a packet whose headers and data lie apart: what
    /// [`Stack::poll_transmit_parts`] gives. Longer data is kept by reference until it is read.
    pub fn handle_packet_parts(&mut self, now: Instant, headers: &[u8], payload: &Bytes, offload: Offload) {
        if payload.is_empty() {
            let bytes = headers;
            return self.handle_packet(now, Packet { bytes, offload });
        }
        self.end_waits(now);
        if self.take_plain(now, headers, Some(payload), offload, None) {
            return;
        }
        let mut whole = std::mem::take(&mut self.together);
        whole.clear();
        whole.extend_from_slice(headers);
        whole.extend_from_slice(payload);
        let bytes = &whole[..];
        self.take_packet(now, Packet { bytes, offload });
        self.together = whole;
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.last_now = now;
        self.end_waits(now);
        self.held.expire(now);
        self.notice_syns();
        self.expire_half_open(now);
        self.share_memory();
        while let Some(place) = self.wheel.pop_expired(now) {
            let Some(&Holder::Connection(id)) = self.holders.get(place as usize) else {
                continue;
            };
            let Some(entry) = self.connections.get_mut(id) else {
                continue;
            };
            if let Some(connection) = entry.awake_mut() {
                connection.look();
            }
            // Deadlines move back with most segments, and the wheel does not learn that.
            if entry.next_timeout().is_none_or(|deadline| deadline > now) {
                self.set_timer(id);
                continue;
            }
            self.with_connection(now, id, |connection, cx| connection.expire(cx));
        }
        self.expire_fragments(now);
    }

    /// When to call [`Stack::handle_timeout`] next; `None` if nothing is waited for. Being early does no harm.
    /// O(1) in the number of sockets.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let fragments = self.fragments.next_timeout();
        [
            self.waiting.next_deadline(),
            self.wheel.next_deadline(),
            self.held.next_deadline(),
            self.syn_queue.next_deadline(),
            fragments,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The ports of this host: who holds which. Of all connections in TIME-WAIT with one local end there is one socket,
    /// which has no remote.
    #[must_use]
    pub const fn table(&self) -> &PortTable {
        &self.table
    }

    /// What was counted since the stack was made.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bytes of memory that buffers hold now: those of data not acknowledged, not read, or behind a hole.
    #[must_use]
    pub const fn buffered_bytes(&self) -> usize {
        self.pool.lent_bytes()
    }

    /// How many connections there are, those in TIME-WAIT left out unless the program still holds them.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Calls `act` on a connection and follows up what it changed; `None` if there is no such connection.
    fn with_connection<R>(
        &mut self,
        now: Instant,
        id: ConnectionId,
        act: impl FnOnce(&mut Connection, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        let entry = self.connections.get_mut(id)?;
        let pool = &mut self.pool;
        let connection = entry.wake(&mut self.spares);
        let result = connection.with_config(&self.config.tcp, |connection, config| {
            act(connection, &mut Cx { now, config, pool })
        });
        let rest = entry.follow_up(id, &mut self.ready, &mut self.wheel, &mut self.notices);
        self.settle_rest(now, id, rest);
        Some(result)
    }

    /// Notes who is behind a socket.
    fn hold(&mut self, socket: SocketId, holder: Holder) {
        self.last_flow = None;
        let place = socket.place();
        if self.holders.len() <= place {
            self.holders.resize_with(place + 1, || Holder::Nobody);
        }
        self.holders[place] = holder;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle connection holds beside its places in the table, the timer wheel and the handle map. Its
    /// buffers are empty, and empty buffers hold nothing.
    #[test]
    fn a_connection_stays_small() {
        assert!(size_of::<Entry>() <= 296, "{}", size_of::<Entry>());
        assert!(size_of::<Holder>() <= 12, "{}", size_of::<Holder>());
    }
}
