//! The network interface of a device: its MTU, addresses and whether it is up, set by rtnetlink (rtnetlink(7)).
//!
//! Four kinds of messages need no library: each is a header, a struct and a few attributes.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_CARRIER: u16 = 33;
/// struct ifinfomsg.
const LINK_LEN: usize = 16;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;

const IFF_UP: u32 = 1;
/// An IPv6 address that is not asked for on the link first: there is nobody else on it.
const IFA_F_NODAD: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RT_SCOPE_LINK: u8 = 253;

/// struct nlmsghdr, and an error number behind it.
const HEADER_LEN: usize = 16;

/// Sets the MTU and the length of the transmit queue in packets, where given, and brings the interface up.
pub(super) fn bring_up(index: u32, mtu: Option<u32>, queue_len: Option<u32>) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWLINK, 0);
    // struct ifinfomsg: family, type, index, flags, which flags to change.
    message.push(&[0; 4]);
    message.push(&index.to_ne_bytes());
    message.push(&IFF_UP.to_ne_bytes());
    message.push(&IFF_UP.to_ne_bytes());
    if let Some(mtu) = mtu {
        message.attribute(IFLA_MTU, &mtu.to_ne_bytes());
    }
    if let Some(queue_len) = queue_len {
        message.attribute(IFLA_TXQLEN, &queue_len.to_ne_bytes());
    }
    message.ask()
}

/// Whether the interface of this name has somebody at its other end: of a TUN device, a program that holds it. `None` if
/// there is no such interface.
pub(super) fn has_carrier(name: &str) -> io::Result<Option<bool>> {
    let mut message = Message::new(RTM_GETLINK, 0);
    message.push(&[0; LINK_LEN]);
    let mut terminated = name.as_bytes().to_vec();
    terminated.push(0);
    message.attribute(IFLA_IFNAME, &terminated);
    let reply = match message.send() {
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => return Ok(None),
        reply => reply?,
    };
    let mut rest = reply.get(HEADER_LEN + LINK_LEN..).unwrap_or_default();
    while let Some((&[len, len_high, kind, kind_high], _)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_ne_bytes([len, len_high]));
        if u16::from_ne_bytes([kind, kind_high]) == IFLA_CARRIER {
            return Ok(Some(rest.get(4).is_some_and(|&carrier| carrier != 0)));
        }
        rest = rest.get(len.next_multiple_of(4).max(4)..).unwrap_or_default();
    }
    Ok(Some(false))
}

/// Gives the kernel's side of the interface an address, and with it the route to its prefix.
pub(super) fn add_address(index: u32, address: IpAddr, prefix_len: u8) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    message.push(&[family(address), prefix_len, flags, 0]);
    message.push(&index.to_ne_bytes());
    message.address(IFA_LOCAL, address);
    message.address(IFA_ADDRESS, address);
    message.ask()
}

/// Sends what is for a prefix through the interface.
pub(super) fn add_route(index: u32, prefix: IpAddr, prefix_len: u8) -> io::Result<()> {
    let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
    // struct rtmsg: family, lengths of the prefixes, type of service, table, protocol, scope, type, flags.
    let scope = if prefix.is_ipv6() { 0 } else { RT_SCOPE_LINK };
    message.push(&[
        family(prefix),
        prefix_len,
        0,
        0,
        RT_TABLE_MAIN,
        RTPROT_STATIC,
        scope,
        RTN_UNICAST,
    ]);
    message.push(&[0; 4]);
    message.address(RTA_DST, prefix);
    message.attribute(RTA_OIF, &index.to_ne_bytes());
    message.ask()
}

/// Whether the kernel takes what comes for an IPv6 address, as it does a moment after the interface has come up.
pub(super) fn is_own(address: Ipv6Addr) -> io::Result<bool> {
    let mut message = Message::new(RTM_GETROUTE, 0);
    // As above; the prefix is the whole address.
    message.push(&[family(address.into()), 128]);
    message.push(&[0; 10]);
    message.address(RTA_DST, address.into());
    match message.send() {
        Ok(reply) => Ok(reply.get(HEADER_LEN + 7) == Some(&RTN_LOCAL)),
        // There is no way to it at all yet.
        Err(error) if error.raw_os_error() == Some(Errno::NETUNREACH.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    family.as_raw() as u8
}

/// A request under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        Self(bytes)
    }

    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        // An attribute's length counts its own header, but not the padding to four bytes.
        let len = (4 + value.len()) as u16;
        self.push(&len.to_ne_bytes());
        self.push(&kind.to_ne_bytes());
        self.push(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn address(&mut self, kind: u16, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    /// Has something done, and waits until it is.
    fn ask(self) -> io::Result<()> {
        self.send().map(|_| ())
    }

    /// Sends it, and waits for what the kernel says.
    fn send(mut self) -> io::Result<Vec<u8>> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        sendto(
            &socket,
            &self.0,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut reply = vec![0; 32 << 10];
        let (len, _) = recv(&socket, &mut reply[..], RecvFlags::empty())?;
        reply.truncate(len);
        let kind = reply
            .get(4..6)
            .map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
        let error = reply.get(HEADER_LEN..HEADER_LEN + 4);
        match (kind, error) {
            (Some(NLMSG_ERROR), Some(&[a, b, c, d])) => match i32::from_ne_bytes([a, b, c, d]) {
                0 => Ok(reply),
                error => Err(io::Error::from_raw_os_error(-error)),
            },
            (Some(RTM_NEWLINK | RTM_NEWROUTE), Some(_)) => Ok(reply),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "netlink answered with something else",
            )),
        }
    }
}
