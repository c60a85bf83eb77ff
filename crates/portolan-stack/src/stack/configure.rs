//! How connections behave: all of a stack, those of a listener, or one.

use std::net::SocketAddr;

use super::{
    ConnectError, ConnectOptions, ConnectionId, ListenerId, NoConnection, NoSocket, Stack, StackConfig,
};
use crate::Instant;
use crate::tcp::TcpConfig;

impl Stack {
    /// How the stack behaves.
    #[must_use]
    pub const fn config(&self) -> &StackConfig {
        &self.config
    }

    /// How connections behave that were not told otherwise.
    #[must_use]
    pub const fn tcp_config(&self) -> &TcpConfig {
        &self.config.tcp
    }

    /// Changes how connections behave that were not told otherwise, those there are included. What was agreed on in a
    /// handshake stays.
    pub fn set_tcp_config(&mut self, config: TcpConfig) {
        self.config.tcp = config;
    }

    /// Begins a connection as [`Stack::connect`] does, which behaves by `config` instead of the stack's.
    ///
    /// # Errors
    /// [`ConnectError`], after which nothing is held.
    pub fn connect_with(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        config: &TcpConfig,
    ) -> Result<ConnectionId, ConnectError> {
        let options = ConnectOptions {
            config: Some(config),
            ..ConnectOptions::default()
        };
        self.connect_as(now, local, remote, options)
    }

    /// How one connection behaves.
    #[must_use]
    pub fn configuration(&self, id: ConnectionId) -> Option<TcpConfig> {
        let entry = self.connections.get(id)?;
        Some(entry.look(|connection| connection.config(&self.config.tcp)))
    }

    /// Changes how one connection behaves. What was agreed on in the handshake stays.
    ///
    /// A connection with a configuration of its own takes a few hundred bytes more, and does not sleep when it is idle.
    ///
    /// # Errors
    /// If there is no such connection.
    pub fn configure(
        &mut self,
        now: Instant,
        id: ConnectionId,
        config: &TcpConfig,
    ) -> Result<(), NoConnection> {
        self.with_connection(now, id, |connection, _| connection.configure(config))
            .ok_or(NoConnection)
    }

    /// Changes how connections behave that come to a listener from now on.
    ///
    /// # Errors
    /// If there is no such listener.
    pub fn configure_listener(&mut self, id: ListenerId, config: &TcpConfig) -> Result<(), NoSocket> {
        let listener = self.listeners.get_mut(id).ok_or(NoSocket)?;
        listener.config = Some(Box::new(*config));
        Ok(())
    }
}
