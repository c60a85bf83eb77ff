//! Wire formats: views over bytes that came, and emitters of bytes that go.
//!
//! ```text
//!   bytes ─▶ X::parse ─▶ view: accessors, payload() ─▶ the next layer's parse
//!              └▶ ParseError: which check failed, what was found, what had to be
//!
//!   view.repr() ─▶ XRepr: values ─▶ .emit(buffer) ─▶ bytes       parse(emit(repr)).repr() == repr
//! ```
//!
//! A view borrows the bytes and copies nothing. `parse` checks every length once; the accessors then cannot
//! fail. No function here allocates, and none panics, whatever the bytes are. An emitter writes a header to
//! the front of a buffer in which the payload stands already, so a packet is made from the inside out, in
//! place. Checksums are asked for, not checked by parsing: a device may have checked them.
//!
//! Numbers of more than one byte are in network order on the wire, and plain integers here.
//!
//! ```
//! use portolan_core::wire::{Dissection, LinkType, TcpFlags, Transport};
//!
//! let bytes = [
//!     0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0x43, 0x43, 192, 168, 1, 10, 93, 184, 216, 34, // IPv4
//!     0xD4, 0x31, 0x01, 0xBB, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xFA, 0xF0, 0, 0, 0, 0, // TCP
//! ];
//! let packet = Dissection::of(LinkType::Ip, &bytes);
//! let Some(Transport::Tcp(segment)) = packet.transport else { panic!("{packet:?}") };
//! assert_eq!(segment.destination_port().get(), 443);
//! assert_eq!(segment.flags(), TcpFlags::SYN);
//! ```

mod checksum;
mod cooked;
mod dissect;
mod error;
mod ethernet;
mod icmpv4;
mod icmpv6;
mod ip;
mod ip_protocol;
mod ipv4;
mod ipv4_options;
mod ipv6;
mod ipv6_extensions;
mod link;
mod seq;
mod tcp;
mod tcp_flags;
mod tcp_options;
mod udp;
mod udp_lite;
mod unreachable;

pub use checksum::{ChecksumFill, PseudoHeader, Sum, checksum, update, update_u32};
pub use cooked::{CookedFrame, CookedRepr, PacketDirection};
pub use dissect::{ChecksumState, Dissection, Transport};
pub use error::{EmitError, Layer, ParseError};
pub use ethernet::{EtherType, EthernetFrame, EthernetRepr, MacAddress, VlanTag};
pub use icmpv4::{Icmpv4Message, Icmpv4Packet};
pub use icmpv6::{Icmpv6Message, Icmpv6Packet};
pub use ip::IpPacket;
pub use ip_protocol::IpProtocol;
pub use ipv4::{Ipv4Packet, Ipv4Repr};
pub use ipv4_options::{Ipv4Option, Ipv4Options};
pub use ipv6::{Ipv6Packet, Ipv6Repr};
pub use ipv6_extensions::{ExtensionHeader, ExtensionHeaders, ExtensionRepr, Fragment};
pub use link::{LinkHeader, LinkPayload, LinkType};
pub use seq::SeqNum;
pub use tcp::{TcpRepr, TcpSegment};
pub use tcp_flags::TcpFlags;
pub use tcp_options::{SackBlock, TcpOption, TcpOptionBlock, TcpOptions};
pub use udp::{UdpDatagram, UdpRepr};
pub use udp_lite::UdpLiteDatagram;
pub use unreachable::UnreachableCode;
