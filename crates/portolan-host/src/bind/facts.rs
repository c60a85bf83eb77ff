//! What decides about a bind besides the sockets: devices, addresses and settings of a network namespace.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::thread;

use portolan_core::table::{Device, Host};
use portolan_core::{PortRange, PortSet};

use super::addresses::OwnAddresses;
use super::privilege::may_bind_privileged;
use crate::netlink::DumpError;
use crate::spaces::{self, Candidate};
use crate::{SpaceName, SpaceSelect};

/// See the [module](self).
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// The devices by index.
    pub(super) devices: BTreeMap<u32, String>,
    pub(super) own: OwnAddresses,
    /// Whether IPv6 sockets can be bound at all.
    pub(super) has_ipv6: bool,
    ephemeral: Option<PortRange>,
    reserved: PortSet,
    pub(super) unprivileged_start: u32,
    nonlocal_ipv4: bool,
    nonlocal_ipv6: bool,
    /// What IPV6_V6ONLY is on a new socket (net.ipv6.bindv6only).
    pub(super) v6_only_default: bool,
    /// Whether this process may bind privileged ports; `None` if that cannot be told.
    pub(super) privileged: Option<bool>,
}

/// Why the facts of a network namespace could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FactsError {
    #[error("it cannot be entered: {0}")]
    Enter(io::Error),
    #[error("its addresses cannot be read: {0}")]
    Netlink(#[from] DumpError),
    #[error("no thread could be started: {0}")]
    Thread(io::Error),
}

impl Facts {
    /// Reads the facts of the namespace with this name and inode.
    pub(super) fn read(proc_root: &Path, name: &SpaceName, inode: u64) -> Result<Self, FactsError> {
        if *name == SpaceName::Host {
            return Self::read_here(proc_root);
        }
        let gone = |error: &dyn std::fmt::Display| FactsError::Enter(io::Error::other(error.to_string()));
        let found = spaces::select(proc_root, &SpaceSelect::Inode(inode)).map_err(|error| gone(&error))?;
        let candidate = found.candidates.into_iter().next();
        let candidate: Candidate = candidate.ok_or_else(|| gone(&"it is gone"))?;
        // A thread that has entered another namespace ends there.
        let worker = thread::Builder::new().name("namespace".into()).spawn({
            let proc_root = proc_root.to_owned();
            move || {
                spaces::enter(&proc_root, &candidate).map_err(FactsError::Enter)?;
                Self::read_here(&proc_root)
            }
        });
        match worker.map_err(FactsError::Thread)?.join() {
            Ok(facts) => facts,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Reads the facts of the namespace of this thread.
    fn read_here(proc_root: &Path) -> Result<Self, FactsError> {
        let net = proc_root.join("sys/net");
        let text = |name: &str| fs::read_to_string(net.join(name)).ok();
        let number = |name: &str| text(name).and_then(|text| text.trim().parse::<u32>().ok());
        let is_on = |name: &str| number(name).is_some_and(|number| number != 0);
        Ok(Self {
            devices: spaces::device_names()?,
            own: OwnAddresses::read()?,
            has_ipv6: proc_root.join("thread-self/net/if_inet6").exists(),
            ephemeral: spaces::ephemeral_ports(proc_root),
            reserved: text("ipv4/ip_local_reserved_ports")
                .and_then(|text| text.trim_end().parse().ok())
                .unwrap_or_default(),
            // The value of a kernel that was never told another.
            unprivileged_start: number("ipv4/ip_unprivileged_port_start").unwrap_or(1024),
            nonlocal_ipv4: is_on("ipv4/ip_nonlocal_bind"),
            nonlocal_ipv6: is_on("ipv6/ip_nonlocal_bind"),
            v6_only_default: is_on("ipv6/bindv6only"),
            privileged: may_bind_privileged(proc_root),
        })
    }

    /// The index of a device, given by name or number.
    pub(super) fn device(&self, name: &str) -> Option<Device> {
        let by_name = self.devices.iter().find(|(_, known)| *known == name);
        let index = match by_name {
            Some((&index, _)) => Some(index),
            None => name.parse().ok().filter(|index| self.devices.contains_key(index)),
        };
        Device::new(index?)
    }

    /// Whether the host may take `address` for its own, whatever the device; wildcards and multicast included.
    pub(super) fn may_bind(&self, address: IpAddr) -> bool {
        if address.is_unspecified() || address.is_multicast() {
            return true;
        }
        match address.to_canonical() {
            // 0.0.0.0/8 and 255.255.255.255 are broadcast to inet_addr_type, whatever the routes say.
            IpAddr::V4(ip) => {
                self.nonlocal_ipv4 || ip.is_broadcast() || ip.octets()[0] == 0 || self.own.has_ipv4(ip)
            }
            IpAddr::V6(ip) => self.nonlocal_ipv6 || self.own.ipv6.iter().any(|(own, _)| *own == ip),
        }
    }

    /// The host as the port table needs it to decide about `address`.
    pub(super) fn host(&self, address: IpAddr) -> Host {
        let mut host = Host::new();
        for device in self.devices.keys().copied().filter_map(Device::new) {
            host.add_device(device);
        }
        for (address, device) in &self.own.ipv6 {
            if let Some(device) = Device::new(*device) {
                host.add_address(device, (*address).into(), None);
            }
        }
        let address = address.to_canonical();
        match address {
            // Of IPv4 the table need only know the one address: it cannot tell prefixes from each other.
            IpAddr::V4(ip) => {
                if self.own.has_ipv4(ip)
                    && let Some(device) = self.devices.keys().copied().find_map(Device::new)
                {
                    host.add_address(device, address, None);
                }
                host.accept_foreign_addresses(self.nonlocal_ipv4);
            }
            IpAddr::V6(_) => host.accept_foreign_addresses(self.nonlocal_ipv6),
        }
        if let Some(range) = self.ephemeral {
            host.set_ephemeral(range);
        }
        for range in self.reserved.ranges() {
            host.reserve(*range);
        }
        host.set_unprivileged_start(self.unprivileged_start);
        host
    }
}
