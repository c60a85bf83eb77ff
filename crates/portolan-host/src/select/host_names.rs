use std::fs;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use portolan_core::registry::Services;
use portolan_core::{Port, PortRange, Protocol};
use rustix::net::{AddressFamily, SocketType, netdevice};

use super::Names;
use crate::{SocketProtocol, own_ephemeral_ports};

/// What names mean on this machine, asked of the system when they are needed.
#[derive(Clone, Copy, Debug)]
pub struct HostNames<'a> {
    services: &'a Services,
}

impl<'a> HostNames<'a> {
    /// With the services of this registry.
    #[must_use]
    pub const fn new(services: &'a Services) -> Self {
        Self { services }
    }
}

/// Where cgroup v2 is mounted: by systemd, and beside v1 in its hybrid layout.
const CGROUP_MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// What the kernel chooses from unless told otherwise (net/ipv4/af_inet.c).
const DEFAULT_EPHEMERAL: (u16, u16) = (32_768, 60_999);

impl Names for HostNames<'_> {
    fn service(&self, name: &str) -> Vec<(SocketProtocol, PortRange)> {
        [
            (SocketProtocol::Tcp, Protocol::Tcp),
            (SocketProtocol::Udp, Protocol::Udp),
            (SocketProtocol::Sctp, Protocol::Sctp),
        ]
        .into_iter()
        .filter_map(|(socket, protocol)| Some((socket, self.services.ports(name, protocol)?)))
        .collect()
    }

    fn interface(&self, name: &str) -> Option<u32> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
        netdevice::name_to_index(socket, name).ok()
    }

    /// The id of a cgroup is the inode number of its directory (since Linux 5.5, on 64-bit machines).
    fn cgroup(&self, path: &str) -> Option<u64> {
        let below = path.trim_start_matches('/');
        let as_given = Path::new(path).to_path_buf();
        let in_mounts = CGROUP_MOUNTS.iter().map(|mount| Path::new(mount).join(below));
        let candidates = as_given
            .is_absolute()
            .then_some(as_given)
            .into_iter()
            .chain(in_mounts);
        candidates
            .filter(|path| path.join("cgroup.procs").exists())
            .find_map(|path| fs::metadata(path).ok())
            .map(|metadata| metadata.ino())
    }

    fn addresses(&self, host: &str) -> Vec<IpAddr> {
        match (host, 0).to_socket_addrs() {
            Ok(found) => found.map(|address| address.ip()).collect(),
            Err(_) => Vec::new(),
        }
    }

    fn user(&self, name: &str) -> Option<u32> {
        uzers::get_user_by_name(name).map(|user| user.uid())
    }

    fn ephemeral(&self) -> PortRange {
        let (first, last) = DEFAULT_EPHEMERAL;
        own_ephemeral_ports()
            .or_else(|| PortRange::new(Port::new(first), Port::new(last)))
            .unwrap_or(PortRange::ALL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_knows_its_own_names() {
        let services = Services::built_in();
        let names = HostNames::new(&services);
        let https = PortRange::single(Port::new(443));
        assert!(names.service("https").contains(&(SocketProtocol::Tcp, https)));
        assert_eq!(names.service("no such service"), []);
        assert_eq!(names.interface("lo"), Some(1));
        assert_eq!(names.interface("no-such-device"), None);
        assert_eq!(names.interface("a name longer than any device's"), None);
        assert_eq!(names.user("root"), Some(0));
        assert_eq!(names.cgroup("/no/such/cgroup"), None);
        assert!(names.ephemeral().len() > 1);
    }
}
