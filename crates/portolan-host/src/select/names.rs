use std::net::IpAddr;

use portolan_core::PortRange;

use super::expression::Span;
use crate::SocketProtocol;

/// What the names in a filter mean on a machine.
pub trait Names {
    /// The ports that a service name stands for, with the protocols it has each for; empty if it is no
    /// service.
    fn service(&self, name: &str) -> Vec<(SocketProtocol, PortRange)>;

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

/// The ports of a service under any protocol, each range once, rising.
pub(super) fn service_spans(names: &dyn Names, name: &str) -> Vec<Span> {
    let mut ranges = names
        .service(name)
        .into_iter()
        .map(|(_, range)| range)
        .collect::<Vec<_>>();
    ranges.sort_unstable();
    ranges.dedup();
    ranges
        .into_iter()
        .map(|range| Span {
            first: u32::from(range.first().get()),
            last: u32::from(range.last().get()),
        })
        .collect()
}
