//! A host's transport layer as a state machine: packets, time and calls in; packets, timers and events out.
//!
//! A [`Stack`] holds the TCP listeners and connections, the UDP and the ICMP echo sockets of one host. Who may
//! hold a port, and whose a packet is, it asks the [`PortTable`](portolan_core::table::PortTable) of `portolan-core`,
//! which agrees with Linux.
//!
//! It never reads a clock, starts a thread, waits, or touches a network: whoever drives it does. With one
//! secret and the same calls at the same times it does the same again.
//!
//! ```text
//!   link ─▶ handle_packet ─▶ demultiplex ─┬▶ connection ─┬▶ poll_event ─▶ program
//!                                         ├▶ UDP socket ─┘  read, write, …  ◀─┘
//!                                         └▶ nobody ─▶ RST, port unreachable
//!   link ◀─ poll_transmit ◀─ connections and sockets take turns
//!   clock ◀─ poll_timeout    clock ─▶ handle_timeout
//! ```
//!
//! After each call that puts something in, ask [`Stack::poll_transmit`] and [`Stack::poll_event`] until they
//! have nothing more, and call [`Stack::handle_timeout`] at the time that [`Stack::poll_timeout`] gives.
//!
//! ```
//! use portolan_core::table::{Device, Host};
//! use portolan_stack::{Event, Instant, Packet, Stack, StackConfig};
//!
//! let mut host = Host::new();
//! host.add_address(Device::new(1).unwrap(), "10.0.0.1".parse().unwrap(), Some(24));
//! let mut stack = Stack::new(StackConfig::default(), host, [7; 16]);
//! let now = Instant::START;
//!
//! // A host that talks to itself: what it sends is what it gets.
//! stack.listen("10.0.0.1:80".parse().unwrap(), 16)?;
//! let client = stack.connect(now, "10.0.0.1:0".parse().unwrap(), "10.0.0.1:80".parse().unwrap())?;
//! let mut packet = vec![0; stack.max_packet_len()];
//! while let Some(transmit) = stack.poll_transmit(now, &mut packet) {
//!     stack.handle_packet(now, Packet { bytes: &packet[..transmit.len], offload: transmit.offload });
//! }
//! assert!(std::iter::from_fn(|| stack.poll_event()).any(|event| event == Event::Connected(client)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod buffer;
mod chunks;
mod packet;
mod path_error;
mod pieces;
mod stack;
mod tcp;
mod time;
mod wheel;

pub use packet::{Offload, Packet, PacketChecksum, Transmit};
pub use path_error::PathError;
pub use pieces::Pieces;
pub use stack::{
    BindEchoError, ConnectError, ConnectOptions, ConnectionId, Counters, Datagram, DontFragment, Echo,
    EchoError, EchoId, EchoRequest, EchoRequestsTaken, Event, HeaderFields, HeldSyn, IcmpError, ListenError,
    ListenerId, NoConnection, NoSocket, NoSyn, OpenError, ReceiveError, RelayedError, RuleHits, SendError,
    SocketHandle, SocketInfo, SocketState, Stack, StackConfig, SynCookies, SynGone, SynId, Traffic, UdpError,
    UdpId, UdpOption,
};
pub use tcp::{
    CloseReason, CongestionControl, ConnectionInfo, ConnectionStats, Keepalive, LossState, ReadError,
    SendFlags, State, TcpConfig, WriteError,
};
pub use time::{Duration, Instant};
