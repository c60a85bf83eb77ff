//! What a connection can be told, and asked.

use std::io;
use std::time::Duration;

use portolan_stack::{ConnectionInfo, ConnectionStats, Keepalive, TcpConfig};

use super::TcpStream;

impl TcpStream {
    /// Sends small segments at once, instead of waiting for the acknowledgment of the one before (`TCP_NODELAY`).
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.connection.set_no_delay(nodelay)
    }

    /// Whether small segments are sent at once.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.config().map(|config| config.no_delay)
    }

    /// Asks an idle peer whether it is still there, or no more (`SO_KEEPALIVE`, `TCP_KEEPIDLE` and the like).
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        let config = self.config()?;
        self.set_config(&TcpConfig { keepalive, ..config })
    }

    /// Says how long [`TcpStream::close`] waits until the peer has all that was written (`SO_LINGER`), to the millisecond.
    /// With no time at all closing and dropping end the connection with a RST: what was not delivered then is lost. A
    /// stream that is dropped waits for nothing: it goes on in the background, as after a time that has passed.
    pub fn set_linger(&self, linger: Option<Duration>) {
        self.connection.set_linger(linger);
    }

    /// How long [`TcpStream::close`] waits; `None`, as at first, for not at all.
    #[must_use]
    pub fn linger(&self) -> Option<Duration> {
        self.connection.linger()
    }

    /// Ends the connection with a RST when it is closed or dropped: [`TcpStream::set_linger`] with no time.
    pub fn set_zero_linger(&self) {
        self.set_linger(Some(Duration::ZERO));
    }

    /// Gives what is sent a traffic class (`IP_TOS`, `IPV6_TCLASS`): the code point of RFC 2474 in the upper six bits; the
    /// lower two, ECN's, are TCP's own and stay.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn set_tos(&self, tos: u8) -> io::Result<()> {
        let traffic_class = tos & !3;
        let config = self.config()?;
        self.set_config(&TcpConfig {
            traffic_class,
            ..config
        })
    }

    /// The traffic class of what is sent, without the bits of ECN.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn tos(&self) -> io::Result<u8> {
        self.config().map(|config| config.traffic_class)
    }

    /// Says over how many routers what is sent may go (`IP_TTL`, `IPV6_UNICAST_HOPS`): 1 to 255.
    ///
    /// # Errors
    /// If it is none of those, or the connection is gone.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        let hop_limit = u8::try_from(ttl).ok().filter(|&ttl| ttl > 0);
        let hop_limit = hop_limit.ok_or_else(|| {
            let text = format!("{ttl} hops are out of range: a packet goes over 1 to 255");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        let config = self.config()?;
        self.set_config(&TcpConfig { hop_limit, ..config })
    }

    /// Over how many routers what is sent may go; 64 at first.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn ttl(&self) -> io::Result<u32> {
        self.config().map(|config| config.hop_limit.into())
    }

    /// How it behaves.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn config(&self) -> io::Result<TcpConfig> {
        self.connection.config()
    }

    /// Changes how it behaves. What was agreed on in the handshake stays.
    ///
    /// A connection with a configuration of its own takes a few hundred bytes more, and does not sleep when it is idle.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn set_config(&self, config: &TcpConfig) -> io::Result<()> {
        self.connection.set_config(config)
    }

    /// Figures of the connection, as Linux's `TCP_INFO` has them.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn info(&self) -> io::Result<ConnectionInfo> {
        self.connection.info()
    }

    /// What was counted of the connection; `None` if it does not count ([`TcpConfig::statistics`]).
    #[must_use]
    pub fn statistics(&self) -> Option<ConnectionStats> {
        self.connection.statistics()
    }
}
