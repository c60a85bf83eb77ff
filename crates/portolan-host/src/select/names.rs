use std::net::IpAddr;

use portolan_core::PortRange;

use crate::{ProtocolSet, SocketProtocol};

/// What the names in a filter mean on a machine.
pub trait Names {
    /// The ports that a service name stands for, with the protocols it has each for; empty if it is no
    /// service.
    fn service(&self, name: &str) -> Vec<(SocketProtocol, u16)>;

    /// The index of the network interface of this name.
    fn interface(&self, name: &str) -> Option<u32>;

    /// The id of the cgroup v2 at this path.
    fn cgroup(&self, path: &str) -> Option<u64>;

    /// The addresses of a host name, which may take a look-up in the network.
    fn addresses(&self, host: &str) -> Vec<IpAddr>;

    /// The number of the user of this name.
    fn user(&self, name: &str) -> Option<u32>;

    /// The range from which the kernel chooses ephemeral ports.
    fn ephemeral(&self) -> PortRange;
}

/// The ports of a service under any of `protocols`, each once, rising.
pub(super) fn service_ports(names: &dyn Names, name: &str, protocols: ProtocolSet) -> Vec<u16> {
    let mut ports = names
        .service(name)
        .into_iter()
        .filter(|(protocol, _)| protocols.contains(*protocol))
        .map(|(_, port)| port)
        .collect::<Vec<_>>();
    ports.sort_unstable();
    ports.dedup();
    ports
}
