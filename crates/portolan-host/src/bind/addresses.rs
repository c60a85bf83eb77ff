//! The addresses that the kernel takes for its own, of the network namespace of this thread.
//!
//! Of IPv4 it asks its routing table `local` (`inet_addr_type`), which also holds the loopback prefix, broadcast
//! addresses, and what an administrator added; of IPv6 it asks the addresses of its devices (`ipv6_chk_addr`).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::netlink::{Attributes, DumpError, NetlinkSocket, Request, Transport, dump, u32_at};

/// What the kernel takes for its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OwnAddresses {
    /// The routes of the table `local` that lead to the host itself.
    pub(super) ipv4: Vec<Prefix>,
    /// The IPv6 addresses that are ready for use, with the index of their device.
    pub(super) ipv6: Vec<(Ipv6Addr, u32)>,
}

/// IPv4 addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    address: Ipv4Addr,
    bits: u8,
}

impl OwnAddresses {
    /// Asks the kernel.
    pub(super) fn read() -> Result<Self, DumpError> {
        let mut socket = NetlinkSocket::route().map_err(DumpError::Socket)?;
        Self::read_from(&mut socket)
    }

    fn read_from(transport: &mut impl Transport) -> Result<Self, DumpError> {
        let mut own = Self::default();
        let mut buffer = vec![0; 64 << 10];
        // What comes or goes meanwhile makes a list torn; the rest of it is right.
        let mut fixed = [0; ROUTE_FIXED];
        fixed[0] = AF_INET;
        let request = Request::new(GET_ROUTE, Request::REQUEST | Request::DUMP, 1);
        dump(
            transport,
            &mut buffer,
            1,
            &request.bytes(&fixed).finish(),
            |payload| {
                own.ipv4.extend(local_route(payload));
            },
        )?;
        let mut fixed = [0; ADDRESS_FIXED];
        fixed[0] = AF_INET6;
        let request = Request::new(GET_ADDRESS, Request::REQUEST | Request::DUMP, 2);
        dump(
            transport,
            &mut buffer,
            2,
            &request.bytes(&fixed).finish(),
            |payload| {
                own.ipv6.extend(usable_ipv6(payload));
            },
        )?;
        Ok(own)
    }

    /// Whether a socket may be bound to this IPv4 address: a local or broadcast one.
    pub(super) fn has_ipv4(&self, address: Ipv4Addr) -> bool {
        self.ipv4.iter().any(|prefix| prefix.contains(address))
    }
}

impl Prefix {
    fn contains(self, address: Ipv4Addr) -> bool {
        let differing = self.address.to_bits() ^ address.to_bits();
        differing.leading_zeros() >= u32::from(self.bits)
    }
}

/// A route of the table `local`, from `struct rtmsg` (include/uapi/linux/rtnetlink.h).
fn local_route(payload: &[u8]) -> Option<Prefix> {
    let fixed = payload.first_chunk::<ROUTE_FIXED>()?;
    let (family, bits, table, kind) = (fixed[0], fixed[1], fixed[4], fixed[7]);
    let wanted = family == AF_INET && table == LOCAL_TABLE && matches!(kind, ROUTE_LOCAL | ROUTE_BROADCAST);
    if !wanted || bits > 32 {
        return None;
    }
    let destination = attribute(payload, ROUTE_FIXED, ROUTE_DESTINATION);
    let address = match destination {
        Some(bytes) => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?),
        None => Ipv4Addr::UNSPECIFIED,
    };
    Some(Prefix { address, bits })
}

/// An IPv6 address and its device, from `struct ifaddrmsg` (include/uapi/linux/if_addr.h), unless duplicate
/// address detection keeps it from use (RFC 4862, section 5.4).
fn usable_ipv6(payload: &[u8]) -> Option<(Ipv6Addr, u32)> {
    if *payload.first()? != AF_INET6 {
        return None;
    }
    let device = u32_at(payload, 4)?;
    let flags = attribute(payload, ADDRESS_FIXED, ADDRESS_FLAGS).and_then(|bytes| u32_at(bytes, 0));
    let flags = match flags {
        Some(flags) => flags,
        None => u32::from(*payload.get(2)?),
    };
    if flags & TENTATIVE != 0 && flags & OPTIMISTIC == 0 {
        return None;
    }
    // With a peer, IFA_ADDRESS is the peer's and IFA_LOCAL ours.
    let bytes = attribute(payload, ADDRESS_FIXED, ADDRESS_LOCAL)
        .or_else(|| attribute(payload, ADDRESS_FIXED, ADDRESS_ADDRESS))?;
    Some((Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?), device))
}

fn attribute(payload: &[u8], fixed: usize, wanted: u16) -> Option<&[u8]> {
    let found = Attributes::new(payload.get(fixed..)?).find(|(kind, _)| *kind == wanted)?;
    Some(found.1)
}

/// RTM_GETADDR and RTM_GETROUTE.
const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
/// Bytes of `struct ifaddrmsg` and `struct rtmsg`.
const ADDRESS_FIXED: usize = 8;
const ROUTE_FIXED: usize = 12;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// RT_TABLE_LOCAL, RTN_LOCAL, RTN_BROADCAST, RTA_DST.
const LOCAL_TABLE: u8 = 255;
const ROUTE_LOCAL: u8 = 2;
const ROUTE_BROADCAST: u8 = 3;
const ROUTE_DESTINATION: u16 = 1;
/// IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS; IFA_F_TENTATIVE, IFA_F_OPTIMISTIC.
const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_FLAGS: u16 = 8;
const TENTATIVE: u32 = 0x40;
const OPTIMISTIC: u32 = 0x04;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Message;
    use crate::netlink::script::Script;

    fn route(table: u8, kind: u8, destination: [u8; 4], bits: u8) -> Vec<u8> {
        let mut fixed = [0; ROUTE_FIXED];
        (fixed[0], fixed[1], fixed[4], fixed[7]) = (AF_INET, bits, table, kind);
        Request::new(24, 2, 1)
            .bytes(&fixed)
            .attribute(ROUTE_DESTINATION, &destination)
            .finish()
    }

    fn address(address: &str, device: u32, flags: u32) -> Vec<u8> {
        let mut fixed = [0; ADDRESS_FIXED];
        fixed[0] = AF_INET6;
        fixed[4..].copy_from_slice(&device.to_ne_bytes());
        let ip: Ipv6Addr = address.parse().unwrap();
        Request::new(20, 2, 2)
            .bytes(&fixed)
            .attribute(ADDRESS_ADDRESS, &ip.octets())
            .attribute(ADDRESS_FLAGS, &flags.to_ne_bytes())
            .finish()
    }

    fn done(sequence: u32) -> Vec<u8> {
        Request::new(Message::DONE, 2, sequence).bytes(&[0; 4]).finish()
    }

    #[test]
    fn local_and_broadcast_routes_are_kept_and_unready_addresses_are_not() {
        let mut routes = route(255, ROUTE_LOCAL, [127, 0, 0, 0], 8);
        routes.extend(route(255, ROUTE_BROADCAST, [10, 8, 0, 255], 32));
        routes.extend(route(254, 1, [10, 8, 0, 0], 24));
        routes.extend(done(1));
        let mut addresses = address("fd08::1", 7, 0x80);
        addresses.extend(address("fd08::2", 7, TENTATIVE));
        addresses.extend(address("fd08::3", 7, TENTATIVE | OPTIMISTIC));
        addresses.extend(done(2));
        let mut script = Script::new([vec![Ok(routes)], vec![Ok(addresses)]]);
        let own = OwnAddresses::read_from(&mut script).unwrap();
        let has = |text: &str| own.has_ipv4(text.parse().unwrap());
        assert!(has("127.9.9.9") && has("10.8.0.255") && !has("10.8.0.1") && !has("128.0.0.1"));
        let ipv6: Vec<_> = own
            .ipv6
            .iter()
            .map(|(ip, device)| format!("{ip}%{device}"))
            .collect();
        assert_eq!(ipv6, ["fd08::1%7", "fd08::3%7"]);
    }

    proptest! {
        #[test]
        fn any_payload_ends(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (local_route(&payload), usable_ipv6(&payload));
        }
    }
}
