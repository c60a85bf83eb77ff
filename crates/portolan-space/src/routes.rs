//! Which prefixes this host knows the way to: its routes of every table, its own addresses among them.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ipnet::IpNet;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::netlink::{Netlink, Request, attributes};

const RTM_GETROUTE: u16 = 26;
const RTM_NEWROUTE: u16 = 24;
const RTA_DST: u16 = 1;
const RTM_GETADDR: u16 = 22;
const RTM_NEWADDR: u16 = 20;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// struct ifaddrmsg: family, length of the prefix, flags, scope, index of the interface.
const IFADDRMSG_LEN: usize = 8;
/// struct rtmsg: family, lengths of the prefixes, type of service, table, protocol, scope, type, flags.
const RTMSG_LEN: usize = 12;

/// The prefixes that this host routes, default routes left out, in no order.
///
/// # Errors
/// If the kernel does not answer.
pub fn host_routes() -> io::Result<Vec<IpNet>> {
    let mut routes = Vec::new();
    let request = Request::new(RTM_GETROUTE, 0).bytes(&[0; RTMSG_LEN]);
    Netlink::open()?.dump(request, |kind, payload| {
        if kind == RTM_NEWROUTE {
            routes.extend(destination(payload));
        }
    })?;
    Ok(routes)
}

/// The addresses that this host's interfaces have, loopback left out, in no order.
///
/// # Errors
/// If the kernel does not answer.
pub fn host_addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    let request = Request::new(RTM_GETADDR, 0).bytes(&[0; IFADDRMSG_LEN]);
    Netlink::open()?.dump(request, |kind, payload| {
        if kind == RTM_NEWADDR {
            addresses.extend(own_address(payload).filter(|address| !address.is_loopback()));
        }
    })?;
    Ok(addresses)
}

/// Tells when addresses of this host come and go.
#[derive(Debug)]
pub struct AddressWatch(OwnedFd);

/// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;

impl AddressWatch {
    /// From now on, in the network namespace of this thread.
    ///
    /// # Errors
    /// If the kernel has no rtnetlink(7) for us.
    pub fn new() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, ADDRESS_GROUPS))?;
        Ok(Self(socket))
    }

    /// Whether there was a change since it was last asked. The descriptor ([`AsFd`]) is readable when there was.
    #[must_use]
    pub fn poll(&self) -> bool {
        let mut has_changed = false;
        let mut message = [0; 4096];
        // What does not fit, or was too much for the kernel to keep, is a change as well.
        while !matches!(recv(&self.0, &mut message, RecvFlags::empty()), Err(Errno::AGAIN)) {
            has_changed = true;
        }
        has_changed
    }
}

impl AsFd for AddressWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The address of an interface: its own where the link has two ends, one of which is another's.
fn own_address(payload: &[u8]) -> Option<IpAddr> {
    let attributes = || attributes(payload.get(IFADDRMSG_LEN..).unwrap_or_default());
    let of = |wanted| attributes().find(|(kind, _)| *kind == wanted);
    let (_, address) = of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS))?;
    ip(address)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

/// The destination of a route; `None` for a default route, and for what is not IP.
fn destination(payload: &[u8]) -> Option<IpNet> {
    let prefix_len = *payload.get(1)?;
    let (_, address) = attributes(payload.get(RTMSG_LEN..)?).find(|(kind, _)| *kind == RTA_DST)?;
    IpNet::new(ip(address)?, prefix_len).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_addresses_are_among_its_routes() {
        let routes = host_routes().unwrap();
        let loopback = "127.0.0.1".parse::<IpAddr>().unwrap();
        let is_up =
            std::fs::read_to_string("/proc/net/fib_trie").is_ok_and(|text| text.contains("127.0.0.1"));
        assert_eq!(
            routes.iter().any(|net| net.contains(&loopback)),
            is_up,
            "{routes:?}"
        );
        assert!(routes.iter().all(|net| net.prefix_len() > 0));
    }

    #[test]
    fn an_address_of_an_interface_is_its_own_and_not_its_peers() {
        let mut payload = vec![2, 32, 0, 0, 5, 0, 0, 0];
        assert_eq!(own_address(&payload), None);
        payload.extend([8, 0, 1, 0, 10, 0, 0, 9]);
        assert_eq!(own_address(&payload), Some([10, 0, 0, 9].into()));
        payload.extend([8, 0, 2, 0, 10, 0, 0, 8]);
        assert_eq!(own_address(&payload), Some([10, 0, 0, 8].into()));
        for len in 0..16 {
            assert_eq!(own_address(&payload[..len]), None);
        }
        let addresses = host_addresses().unwrap();
        assert!(
            addresses.iter().all(|address| !address.is_loopback()),
            "{addresses:?}"
        );
    }

    #[test]
    fn a_route_that_is_cut_is_none() {
        let mut payload = vec![2, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        assert_eq!(destination(&payload), None);
        payload.extend([8, 0, 1, 0, 10, 1, 2, 0]);
        assert_eq!(destination(&payload), Some("10.1.2.0/24".parse().unwrap()));
        for len in 0..payload.len() {
            assert_eq!(destination(&payload[..len]), None);
        }
    }
}
