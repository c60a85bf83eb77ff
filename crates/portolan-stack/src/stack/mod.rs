//! The stack: all connections of a host, behind one face.

mod calls;
mod counters;
mod events;
mod icmp;
mod icmp_limit;
mod input;
mod listener;
mod output;
mod secrets;
mod settle;
mod time_wait;
mod udp;

use std::collections::VecDeque;

use portolan_core::demux::FourTuple;
use portolan_core::table::{Host, Owner, PortTable, SocketId};
use slotmap::{SlotMap, new_key_type};

use self::icmp::Control;
use self::icmp_limit::IcmpLimit;
use self::listener::Listener;
use self::output::{Answer, Ready};
use self::secrets::Secrets;
use self::time_wait::TimeWait;
use self::udp::UdpSocket;
use crate::buffer::{Datagrams, Pool};
use crate::tcp::{Connection, Cx, Happened, TcpConfig};
use crate::wheel::TimerWheel;
use crate::{Instant, Packet};

pub use calls::{ConnectError, ListenError, NoConnection, NoSocket};
pub use counters::Counters;
pub use events::Event;
pub use udp::{Datagram, SendError};

new_key_type! {
    /// The handle of a connection. It is never used for a second one.
    pub struct ConnectionId;

    /// The handle of a listener. It is never used for a second one.
    pub struct ListenerId;

    /// The handle of a UDP socket. It is never used for a second one.
    pub struct UdpId;
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
    /// How many bytes of free buffer memory the stack keeps for reuse.
    pub pool_bytes: usize,
    /// Whose the sockets are: privileged ports are for the privileged.
    pub owner: Owner,
    /// How many bytes of datagrams may wait in each direction of a UDP socket; each counts 128 more.
    pub udp_buffer: usize,
    /// How connections behave.
    pub tcp: TcpConfig,
}

impl Default for StackConfig {
    fn default() -> Self {
        Self {
            mtu: 1500,
            checksum_offload: false,
            segmentation_offload: false,
            pool_bytes: 16 << 20,
            owner: Owner::ROOT,
            udp_buffer: 208 << 10,
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
    listeners: SlotMap<ListenerId, Listener>,
    udp: SlotMap<UdpId, UdpSocket>,
    /// Timers of connections, by their place in the table.
    wheel: TimerWheel,
    /// Connections and sockets that may have something to send.
    ready: VecDeque<Ready>,
    /// RSTs and the like, which belong to no connection.
    answers: VecDeque<Answer>,
    /// ICMP packets to be sent.
    control: Datagrams<(FourTuple, Control)>,
    icmp_limit: IcmpLimit,
    /// Connections, listeners and sockets of which the program is to be told.
    notices: VecDeque<events::Notice>,
    pool: Pool,
    counters: Counters,
    /// The identification of the next IPv4 packet.
    identification: u16,
}

/// Who is behind a socket of the table.
#[derive(Debug)]
enum Holder {
    Nobody,
    Listener(ListenerId),
    Connection(ConnectionId),
    Udp(UdpId),
    /// A connection that the program may have forgotten, but the network has not.
    TimeWait(Box<TimeWait>),
}

/// A connection and what the stack knows of it.
#[derive(Debug)]
struct Entry {
    connection: Connection,
    tuple: FourTuple,
    /// Its socket in the table, until it is closed.
    socket: Option<SocketId>,
    /// The listener that it came to, until the program accepts it.
    listener: Option<ListenerId>,
    /// Whether the handshake with a peer that came to a listener is not done.
    half_open: bool,
    is_ready: bool,
    is_noticed: bool,
    pending: Happened,
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
            listeners: SlotMap::with_key(),
            udp: SlotMap::with_key(),
            wheel: TimerWheel::new(),
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            control: Datagrams::new(CONTROL_BYTES),
            icmp_limit: IcmpLimit::new(secret),
            notices: VecDeque::new(),
            pool: Pool::new(config.pool_bytes),
            counters: Counters::default(),
            identification: 0,
        }
    }

    /// Takes a packet from the link. Whatever the bytes are, a packet that is not for anyone here is counted and
    /// dropped.
    pub fn handle_packet(&mut self, now: Instant, packet: Packet<'_>) {
        self.table.advance(now.since(Instant::START).into());
        self.take_packet(now, packet);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.table.advance(now.since(Instant::START).into());
        while let Some(place) = self.wheel.pop_expired(now) {
            let Some(&Holder::Connection(id)) = self.holders.get(place as usize) else {
                continue;
            };
            self.with_connection(now, id, |connection, cx| connection.expire(cx));
        }
    }

    /// When to call [`Stack::handle_timeout`] next; `None` if nothing is waited for. Being early does no harm.
    /// O(1) in the number of sockets.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let table = self.table.next_timeout().map(|at| Instant::START + at.into());
        let wheel = self.wheel.next_deadline();
        match (wheel, table) {
            (Some(wheel), Some(table)) => Some(wheel.min(table)),
            (one, other) => one.or(other),
        }
    }

    /// The ports of this host: who holds which.
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
        let mut cx = Cx {
            now,
            config: &self.config.tcp,
            pool: &mut self.pool,
        };
        let result = act(&mut entry.connection, &mut cx);
        self.settle(now, id);
        Some(result)
    }

    /// Notes who is behind a socket.
    fn hold(&mut self, socket: SocketId, holder: Holder) {
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
        assert!(size_of::<Entry>() <= 768, "{}", size_of::<Entry>());
        assert!(size_of::<TimeWait>() <= 32, "{}", size_of::<TimeWait>());
        assert!(size_of::<Holder>() <= 16, "{}", size_of::<Holder>());
    }
}
