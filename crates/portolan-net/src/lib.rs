//! Sockets for tokio over a TCP/IP stack of one's own, and the links that carry its packets.
//!
//! ```text
//!   program ─▶ TcpStream, UdpSocket ─▶ lock ─┐
//!                                            ▼
//!   link ─▶ Link::poll_receive ─▶ steering ─▶ portolan_stack::Stack ─▶ Link::poll_send ─▶ link
//!                                     │                  └▶ events ─▶ wakers ─▶ tasks
//!                                     └▶ inbox of another shard
//! ```
//!
//! A [`Link`] takes and gives IP packets in batches, each with what a device has done or is to do about it. A
//! [`Driver`] moves them, and the time: one task for a whole [`Stack`], whatever the number of its sockets. A stack
//! with several shards has several drivers, for as many threads; each has its own flows, its own engine and
//! its own lock.
//!
//! The sockets are shaped as tokio's, and implement its traits: what runs over those runs over these.
//! Nothing here asks the operating system for sockets; only [`tun`] asks it for a device.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use portolan_net::link::{self, Capabilities};
//! use portolan_net::{Stack, TcpListener, TcpStream};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! // Two hosts with a wire between them.
//! let (left, right) = link::pair(Capabilities::plain(1500));
//! let (server, driver) = Stack::builder().address([10, 0, 0, 1], 24).build(left)?;
//! tokio::spawn(driver);
//! let (client, driver) = Stack::builder().address([10, 0, 0, 2], 24).build(right)?;
//! tokio::spawn(driver);
//!
//! let listener = TcpListener::bind(&server, "10.0.0.1:80".parse().unwrap())?;
//! let mut there = TcpStream::connect(&client, "10.0.0.1:80".parse().unwrap()).await?;
//! let (mut here, peer) = listener.accept().await?;
//! assert_eq!(peer, there.local_addr()?);
//!
//! there.write_all(b"ahoy").await?;
//! there.shutdown().await?;
//! let mut heard = String::new();
//! here.read_to_string(&mut heard).await?;
//! assert_eq!(heard, "ahoy");
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

mod clock;
mod control;
mod driver;
mod echo;
mod error;
mod hub;
mod inbox;
pub mod link;
mod shard;
mod stack;
mod steering;
mod tcp;
#[cfg(target_os = "linux")]
pub mod tun;
mod udp;
mod wakers;

pub use control::RuleHits;
pub use driver::Driver;
pub use echo::{EchoResponder, PingSocket, Pong};
pub use link::{Batch, Capabilities, Link};
pub use stack::{Builder, Stack};
pub use tcp::{
    Closed, ConnectOptions, HeldSyn, ListenOptions, OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError,
    TcpListener, TcpStream, WriteHalf,
};
pub use udp::UdpSocket;

// What stands in the signatures above, so that a program needs no other crate for them.
pub use portolan_core::table::{Addresses, Device, Host, Scope};
pub use portolan_core::wire::{IpProtocol, UnreachableCode};
pub use portolan_core::{Port, PortRange, PortSet, filter};
pub use portolan_stack::{
    CloseReason, CongestionControl, ConnectError, ConnectionInfo, ConnectionStats, Counters, Datagram,
    DontFragment, Duration, Echo, EchoError, EchoRequest, IcmpError, Keepalive, ListenError, Offload, Packet,
    PacketChecksum, PathError, RelayedError, SendError, SocketInfo, SocketState, StackConfig, State,
    SynCookies, TcpConfig, Traffic, UdpError, UdpOption,
};
