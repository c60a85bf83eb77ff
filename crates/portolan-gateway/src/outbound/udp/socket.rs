//! A socket of the host for what one socket of the program sends.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use portolan_stack::{HeaderFields, IcmpError, RelayedError};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;

use super::sys::{self, Outgoing, QueuedError, Received};

/// A socket that may send to anybody, and hears of each of its datagrams that did not arrive.
#[derive(Debug)]
pub(in super::super) struct HostSocket {
    io: UdpSocket,
    is_v4: bool,
    /// What is sent with, a byte each; what was never set is none of these.
    fields: AtomicU16,
    are_fields_set: AtomicBool,
    /// Whether the way out takes several datagrams as one.
    takes_pieces: AtomicBool,
}

/// How much may wait to be received and sent, in bytes; the system has limits of its own.
const BUFFER: usize = 4 << 20;

impl HostSocket {
    /// A socket for UDP.
    pub(in super::super) fn new(is_v4: bool) -> io::Result<Self> {
        Self::of(is_v4, Protocol::UDP)
    }

    /// A socket for ICMP echo, which the system gives to the groups of `net.ipv4.ping_group_range`. What is sent begins
    /// with the ICMP header, of which it fills in identifier and checksum; so does what is received.
    pub(in super::super) fn ping(is_v4: bool) -> io::Result<Self> {
        Self::of(is_v4, if is_v4 { Protocol::ICMPV4 } else { Protocol::ICMPV6 })
    }

    fn of(is_v4: bool, protocol: Protocol) -> io::Result<Self> {
        let (domain, any): (_, SocketAddr) = if is_v4 {
            (Domain::IPV4, (Ipv4Addr::UNSPECIFIED, 0).into())
        } else {
            (Domain::IPV6, (Ipv6Addr::UNSPECIFIED, 0).into())
        };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), Some(protocol))?;
        if !is_v4 {
            socket.set_only_v6(true)?;
        }
        sys::tell_all(socket.as_fd(), is_v4)?;
        // As much as the system lets us have.
        let _ = socket.set_recv_buffer_size(BUFFER);
        let _ = socket.set_send_buffer_size(BUFFER);
        // The port is there before the first datagram, and the same for all of them.
        socket.bind(&any.into())?;
        Ok(Self {
            io: UdpSocket::from_std(socket.into())?,
            is_v4,
            fields: AtomicU16::new(0),
            are_fields_set: AtomicBool::new(false),
            takes_pieces: AtomicBool::new(true),
        })
    }

    /// Waits until something came, or an error.
    pub(in super::super) async fn ready(&self) -> io::Result<Ready> {
        self.io.ready(Interest::READABLE | Interest::ERROR).await
    }

    /// Receives what is there, a batch at most.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if nothing is; or that of a datagram that was sent, which is in the queue of
    /// errors as well.
    pub(in super::super) fn receive<R>(&self, take: impl FnOnce(&Received) -> R) -> io::Result<R> {
        RECEIVED.with_borrow_mut(|received| {
            self.io
                .try_io(Interest::READABLE, || received.receive(self.io.as_fd()))?;
            Ok(take(received))
        })
    }

    /// Sends, not by tokio, which does not know yet that a new socket is writable.
    pub(in super::super) fn send(&self, outgoing: &[Outgoing<'_>]) -> io::Result<usize> {
        sys::send(self.io.as_fd(), outgoing)
    }

    /// The next error of a datagram that was sent.
    pub(in super::super) fn next_error(&self) -> io::Result<Option<QueuedError>> {
        self.io.try_io(Interest::ERROR, || {
            // With none there is nothing to wait for but the next.
            match sys::next_error(self.io.as_fd())? {
                Some(error) => Ok(Some(error)),
                None => Err(io::ErrorKind::WouldBlock.into()),
            }
        })
    }

    /// Sends with this from now on.
    pub(in super::super) fn set_fields(&self, fields: HeaderFields) {
        let packed = u16::from_be_bytes([fields.hop_limit, fields.traffic_class]);
        let are_known = self.are_fields_set.swap(true, Ordering::Relaxed);
        if self.fields.swap(packed, Ordering::Relaxed) == packed && are_known {
            return;
        }
        let socket = SockRef::from(&self.io);
        let (hops, class) = (
            u32::from(fields.hop_limit.max(1)),
            u32::from(fields.traffic_class),
        );
        // Whatever the system does not let us set stays as it is.
        let _ = if self.is_v4 {
            socket.set_ttl_v4(hops).and_then(|()| socket.set_tos_v4(class))
        } else {
            socket
                .set_unicast_hops_v6(hops)
                .and_then(|()| socket.set_tclass_v6(class))
        };
    }

    /// Whether several datagrams may be sent as one.
    pub(in super::super) fn takes_pieces(&self) -> bool {
        self.takes_pieces.load(Ordering::Relaxed)
    }

    /// They may not.
    pub(in super::super) fn refuses_pieces(&self) {
        self.takes_pieces.store(false, Ordering::Relaxed);
    }
}

thread_local! {
    /// One for each thread, not for each socket: it is in use only between two waits.
    static RECEIVED: RefCell<Received> = RefCell::new(Received::new());
}

/// What the program is told of a datagram that did not arrive; `None` of what is not about its way. The word of another
/// host is passed on as it is.
pub(in super::super) fn told(error: &QueuedError) -> Option<IcmpError> {
    let mtu = error.info.try_into().unwrap_or(u16::MAX);
    let code = error.code;
    let word = match (error.origin, error.kind, code) {
        (libc::SO_EE_ORIGIN_LOCAL, ..) if error.info > 0 => return Some(IcmpError::TooBig { mtu }),
        (libc::SO_EE_ORIGIN_ICMP, 3, 4) | (libc::SO_EE_ORIGIN_ICMP6, 2, _) => RelayedError::TooBig { mtu },
        (libc::SO_EE_ORIGIN_ICMP, 3, _) | (libc::SO_EE_ORIGIN_ICMP6, 1, _) => {
            RelayedError::Unreachable { code }
        }
        (libc::SO_EE_ORIGIN_ICMP, 11, _) | (libc::SO_EE_ORIGIN_ICMP6, 3, _) => {
            RelayedError::TimeExceeded { code }
        }
        _ => return None,
    };
    // The destination may have another address inside.
    let by = error.told_by.filter(|by| *by != error.to.ip());
    Some(IcmpError::Relayed { by, word })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_told_what_the_host_was() {
        let router = [192, 0, 2, 9].into();
        let queued = |origin, kind, code, info, told_by| QueuedError {
            to: ([192, 0, 2, 1], 53).into(),
            len: 0,
            start: [0; 64],
            origin,
            kind,
            code,
            info,
            told_by: Some(told_by),
        };
        let (v4, v6) = (libc::SO_EE_ORIGIN_ICMP, libc::SO_EE_ORIGIN_ICMP6);
        let unreachable = |code| Some(RelayedError::Unreachable { code });
        let expired = |code| Some(RelayedError::TimeExceeded { code });
        let too_big = |mtu| Some(RelayedError::TooBig { mtu });
        for (origin, kind, code, info, word) in [
            (v4, 3, 3, 0, unreachable(3)),
            (v4, 3, 4, 1400, too_big(1400)),
            (v4, 3, 0, 0, unreachable(0)),
            (v4, 3, 13, 0, unreachable(13)),
            (v4, 11, 0, 0, expired(0)),
            (v4, 12, 0, 0, None),
            (v6, 1, 4, 0, unreachable(4)),
            (v6, 1, 1, 0, unreachable(1)),
            (v6, 2, 0, 1280, too_big(1280)),
            (v6, 3, 1, 0, expired(1)),
        ] {
            let by_router = queued(origin, kind, code, info, router);
            let by = Some(router);
            assert_eq!(
                told(&by_router),
                word.map(|word| IcmpError::Relayed { by, word }),
                "{origin} {kind}/{code}"
            );
            let by_destination = queued(origin, kind, code, info, [192, 0, 2, 1].into());
            let by = None;
            assert_eq!(
                told(&by_destination),
                word.map(|word| IcmpError::Relayed { by, word })
            );
        }
        let own = queued(libc::SO_EE_ORIGIN_LOCAL, 0, 0, 1500, router);
        assert_eq!(told(&own), Some(IcmpError::TooBig { mtu: 1500 }));
    }
}
