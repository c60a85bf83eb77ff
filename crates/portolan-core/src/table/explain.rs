//! Would this bind succeed? The answer of [`PortTable::bind`] without the bind.

use std::net::SocketAddr;

use super::PortTable;
use super::claim::{Claim, Family, Owner, Reuse, Transport};
use super::error::{BindError, InUse};
use super::host::Device;
use crate::Port;

/// A socket that does not exist yet, and what it would bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindWish {
    /// The protocol.
    pub transport: Transport,
    /// The family of the socket.
    pub family: Family,
    /// Who would make it.
    pub owner: Owner,
    /// The address and port; port 0 for an automatic one.
    pub local: SocketAddr,
    /// `IPV6_V6ONLY`.
    pub v6_only: bool,
    /// `SO_REUSEADDR`.
    pub reuse_address: bool,
    /// `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// `SO_BINDTODEVICE`.
    pub device: Option<Device>,
}

/// Whether a bind would succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindAnswer {
    /// It would; this is the port, or for port 0 one that is free.
    Yes(Port),
    /// It would not, for this reason.
    No(BindError),
    /// It depends on options of the socket in the way that cannot be read.
    Unknown(InUse),
}

impl PortTable {
    /// Whether a bind would succeed, and if not what is in the way. Changes nothing.
    #[must_use]
    pub fn explain_bind(&self, wish: &BindWish) -> BindAnswer {
        match self.try_bind(wish) {
            Ok(port) => BindAnswer::Yes(port),
            Err(BindError::InUse(in_use)) if !in_use.certain => BindAnswer::Unknown(in_use),
            Err(error) => BindAnswer::No(error),
        }
    }

    fn try_bind(&self, wish: &BindWish) -> Result<Port, BindError> {
        let claim = Claim {
            v6_only: wish.v6_only,
            device: wish.device,
            reuse: Reuse::Known {
                address: wish.reuse_address,
                port: wish.reuse_port,
            },
            ..Claim::new(wish.transport, wish.family, wish.owner)
        };
        let wanted = self.admit(&claim, wish.local, None)?;
        if !wanted.is_bound() {
            return Ok(self.any_free(&wanted, None)?);
        }
        self.check(&wanted, None)?;
        Ok(wanted.port)
    }
}
