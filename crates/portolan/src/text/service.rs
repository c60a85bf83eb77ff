//! The service that a socket is likely part of.

use portolan_core::Port;
use portolan_core::registry::Services;
use portolan_host::{Socket, SocketAddress};

/// The name of the service on the local port. For a connection from an ephemeral port to a named one, which
/// is a client's, that of the remote port; for a raw socket, the IP protocol's name.
pub(crate) fn service_name<'a>(services: &'a Services, socket: &Socket) -> Option<&'a str> {
    let Some(protocol) = socket.protocol.transport() else {
        return match &socket.local {
            SocketAddress::Inet { port, .. } => ip_protocol_name(port.get()),
            _ => None,
        };
    };
    let local = socket.local.port()?;
    let name = |port: Port| services.name(port, protocol);
    match socket.remote.as_ref().and_then(SocketAddress::port) {
        Some(remote) if is_client(local, remote) => name(remote).or_else(|| name(local)),
        Some(_) | None => name(local),
    }
}

/// Whether the local end looks like a client's: the port came from the dynamic part of the number space and
/// the peer's did not.
fn is_client(local: Port, remote: Port) -> bool {
    local.get() >= FIRST_EPHEMERAL && remote.get() < FIRST_EPHEMERAL
}

/// Where Linux's ephemeral range begins unless configured otherwise (net/ipv4/af_inet.c).
const FIRST_EPHEMERAL: u16 = 32_768;

/// The names of the IP protocols that raw sockets are seen with (IANA, Assigned Internet Protocol Numbers).
fn ip_protocol_name(number: u16) -> Option<&'static str> {
    Some(match number {
        1 => "icmp",
        2 => "igmp",
        6 => "tcp",
        17 => "udp",
        41 => "ipv6",
        46 => "rsvp",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "ipv6-icmp",
        89 => "ospfigp",
        103 => "pim",
        112 => "vrrp",
        132 => "sctp",
        255 => "reserved",
        _ => return None,
    })
}
