//! A connection begins: from where, and in which shard.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use portolan_core::table::{self, PortChoice};
use portolan_stack::{ConnectError, TcpConfig};

use super::connection::Connection;
use crate::shard::ShardRef;
use crate::{Stack, error};

/// How a connection is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectOptions {
    /// From where. The unspecified address, port 0, and `None` for both, mean that the stack chooses.
    pub local: Option<SocketAddr>,
    /// Allow an address that is not the stack's own (`IP_TRANSPARENT`).
    pub transparent: bool,
    /// How it behaves, if not as the stack's connections do.
    pub config: Option<TcpConfig>,
}

/// Begins a connection in the shard that it falls to.
pub(super) fn begin(stack: &Stack, remote: SocketAddr, options: &ConnectOptions) -> io::Result<Connection> {
    let mut local = match options.local {
        Some(local) => local,
        None if remote.is_ipv4() => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        None => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    if local.is_ipv4() != remote.is_ipv4() {
        return Err(error::family(local, remote));
    }
    if local.ip().is_unspecified() {
        let source = stack.source_for(remote.ip());
        local.set_ip(source.ok_or_else(|| error::no_source(remote))?);
    }
    let begin = |shard: &ShardRef, port| {
        let options = portolan_stack::ConnectOptions {
            port,
            transparent: options.transparent,
            config: options.config.as_ref(),
        };
        let id = shard.act(|core, now| core.engine.connect_as(now, local, remote, options))?;
        Ok(Connection::new(shard.clone(), id))
    };
    let shards = stack.shards();
    if local.port() != 0 || shards.len() == 1 {
        let shard = &shards[stack.shard_of(local, remote)];
        return begin(shard, PortChoice::Any).map_err(|error| error::connect(remote, error));
    }
    // Any shard will do; the port is one for which the answers come back to it.
    let number = stack.next_shard();
    let mut last = None;
    for candidate in stack.hub().ports_for(number, local.ip(), remote) {
        let port = portolan_core::Port::new(candidate.port());
        match begin(&shards[number], PortChoice::Exactly(port)) {
            Err(ConnectError::Connect(error @ table::ConnectError::Exhausted(_))) => {
                last = Some(ConnectError::Connect(error));
            }
            result => return result.map_err(|error| error::connect(remote, error)),
        }
    }
    Err(last.map_or_else(
        || io::ErrorKind::AddrInUse.into(),
        |error| error::connect(remote, error),
    ))
}
