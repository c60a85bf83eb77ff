//! ICMP errors that come: whose packet do they quote, and what do they say of its path?
//!
//! ```text
//!   take_icmp ─▶ PathNews::read ─▶ demultiplex the quoted packet ─┬▶ connection, if the number may be its
//!                                                                 └▶ PathMtus, for packet too big
//! ```
//!
//! Anybody can send an ICMP error. It counts only if the packet that it quotes may have been sent by a socket here:
//! of TCP the sequence number must lie in what is not acknowledged (RFC 5927, section 4.1).

use std::net::{IpAddr, SocketAddr};

use portolan_core::demux::{self, Delivery, FourTuple};
use portolan_core::table::{SocketId, Transport};
use portolan_core::wire::{Icmpv4Packet, Icmpv6Packet, IpPacket, IpProtocol, SeqNum};

use super::{ConnectionId, Holder, Stack, UdpError};
use crate::{Instant, PathError};

/// What an ICMP error says of a packet that was sent from here.
#[derive(Debug)]
pub(super) struct PathNews<'a> {
    error: PathError,
    /// With [`PathError::TooBig`], what the next link takes.
    mtu: usize,
    /// Who says it.
    reporter: IpAddr,
    quoted: IpPacket<'a>,
}

impl<'a> PathNews<'a> {
    /// Reads an ICMP packet; `None` if it is no error, one of no consequence (source quench, redirect), or quotes less
    /// than a header.
    pub(super) fn read(ip: &IpPacket<'a>) -> Option<Self> {
        // By type and code alone: a router may have put the length of its quotation into bytes that once were
        // unused (RFC 4884, section 4).
        let &[kind, code, _, _, a, b, c, d] = ip.payload().first_chunk()?;
        let (error, mtu, quoted) = match ip {
            IpPacket::V4(_) => (
                PathError::of_icmpv4(kind, code)?,
                u32::from(u16::from_be_bytes([c, d])),
                Icmpv4Packet::parse(ip.payload()).ok()?.quoted()?,
            ),
            IpPacket::V6(_) => (
                PathError::of_icmpv6(kind, code)?,
                u32::from_be_bytes([a, b, c, d]),
                Icmpv6Packet::parse(ip.payload()).ok()?.quoted()?,
            ),
        };
        Some(Self {
            error,
            mtu: mtu as usize,
            reporter: ip.source(),
            quoted: quoted.ok()?,
        })
    }

    /// Whether an error about this packet may be sent: none answers another (RFC 1122, section 3.2.2).
    pub(super) fn is_answered(ip: &IpPacket<'_>) -> bool {
        let kind = ip.payload().first().copied();
        match ip.protocol() {
            IpProtocol::ICMP => !matches!(kind, Some(3 | 4 | 5 | 11 | 12)),
            // RFC 4443, section 2.1: errors have types below 128; redirects are no less to be left alone.
            IpProtocol::ICMPV6 => !matches!(kind, Some(0..=127 | 137)),
            _ => true,
        }
    }

    /// The ends of the quoted packet, as its sender sees them.
    fn tuple(&self) -> Option<FourTuple> {
        let (source, destination) = self.quoted.ports()?;
        FourTuple::new(
            SocketAddr::new(self.quoted.source(), source.get()),
            SocketAddr::new(self.quoted.destination(), destination.get()),
        )
    }
}

impl Stack {
    /// Brings an error to the socket whose packet it quotes.
    pub(super) fn take_path_news(&mut self, now: Instant, news: &PathNews<'_>) {
        let is_believed = match news.quoted.protocol() {
            IpProtocol::TCP => self.tell_connection(now, news),
            IpProtocol::UDP => self.tell_udp(now, news),
            IpProtocol::ICMP | IpProtocol::ICMPV6 => self.tell_asker(now, news),
            _ => None,
        };
        if is_believed.is_some() {
            self.counters.icmp_errors += 1;
        } else {
            self.counters.icmp_errors_ignored += 1;
        }
    }

    /// Whether an error quotes a packet of one of our sockets.
    pub(super) fn is_about_us(&self, news: &PathNews<'_>) -> bool {
        let transport = match news.quoted.protocol() {
            IpProtocol::TCP => Transport::Tcp,
            IpProtocol::UDP => Transport::Udp,
            _ => return self.quoted_asker(&news.quoted).is_some(),
        };
        news.tuple().is_some_and(|tuple| {
            self.sender_of(transport, &tuple).is_some()
                || transport == Transport::Tcp && self.waiting.find(&self.table, &tuple).is_some()
        })
    }

    fn tell_connection(&mut self, now: Instant, news: &PathNews<'_>) -> Option<()> {
        let tuple = news.tuple()?;
        let seq = news.quoted.tcp_seq()?;
        let Some(socket) = self.sender_of(Transport::Tcp, &tuple) else {
            self.tell_half_open(now, &tuple, seq, news.error)?;
            if news.error == PathError::TooBig {
                self.learn_path(now, &tuple, news.mtu);
            }
            return Some(());
        };
        let Holder::Connection(id) = *self.holder(socket.place()) else {
            return None;
        };
        if !self.may_be_of(id, seq) {
            return None;
        }
        if news.error == PathError::TooBig {
            self.learn_path(now, &tuple, news.mtu);
            let path_mss = self.path_mss(&tuple, now);
            self.with_connection(now, id, |connection, _| connection.set_path_mss(path_mss))
        } else {
            self.with_connection(now, id, |connection, cx| {
                connection.take_error(cx, seq, news.error)
            })
        }
    }

    fn tell_udp(&mut self, now: Instant, news: &PathNews<'_>) -> Option<()> {
        let tuple = news.tuple()?;
        let Holder::Udp(id) = *self.holder(self.sender_of(Transport::Udp, &tuple)?.place()) else {
            return None;
        };
        let is_too_big = news.error == PathError::TooBig;
        if is_too_big {
            self.learn_path(now, &tuple, news.mtu);
        }
        self.take_udp_news(
            id,
            UdpError {
                error: news.error,
                local: tuple.local(),
                remote: tuple.remote(),
                reporter: news.reporter,
                mtu: is_too_big.then_some(news.mtu),
            },
        );
        Some(())
    }

    fn tell_asker(&mut self, now: Instant, news: &PathNews<'_>) -> Option<()> {
        let (id, sequence) = self.quoted_asker(&news.quoted)?;
        let ends = (news.quoted.source(), news.quoted.destination());
        let tuple = FourTuple::new(SocketAddr::new(ends.0, 0), SocketAddr::new(ends.1, 0))?;
        let is_too_big = news.error == PathError::TooBig;
        if is_too_big {
            self.learn_path(now, &tuple, news.mtu);
        }
        self.take_echo_error(
            id,
            UdpError {
                error: news.error,
                local: SocketAddr::new(ends.0, sequence),
                remote: SocketAddr::new(ends.1, sequence),
                reporter: news.reporter,
                mtu: is_too_big.then_some(news.mtu),
            },
        );
        Some(())
    }

    fn learn_path(&mut self, now: Instant, tuple: &FourTuple, mtu: usize) {
        self.paths.learn(now, tuple.remote().ip(), mtu, self.config.mtu);
    }

    fn may_be_of(&self, id: ConnectionId, seq: SeqNum) -> bool {
        let entry = self.connections.get(id);
        entry.is_some_and(|entry| entry.look(|connection| connection.may_be_ours(seq)))
    }

    /// The socket that a packet with these ends would have been sent by: the one that would get the answer.
    fn sender_of(&self, transport: Transport, tuple: &FourTuple) -> Option<SocketId> {
        let delivery = self.table.deliver(&demux::Packet {
            transport,
            source: tuple.remote(),
            destination: tuple.local(),
            device: None,
            segment: demux::Segment::Other,
        });
        match delivery {
            Delivery::Socket { to, .. } => Some(to),
            Delivery::Sockets { .. } | Delivery::Nobody { .. } => None,
        }
    }
}
