//! The network device of a space, and its side that stays outside.

use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use portolan_net::tun::Offloads;
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::config::SpaceConfig;
use crate::error::Step;
use crate::netlink::{CREATE, Netlink, Request, attributes};
use crate::sys;

/// The interface's name inside.
pub const DEVICE_NAME: &str = "port0";
/// The Ethernet address of the interface inside, where it has one; locally administered.
pub const INSIDE_MAC: [u8; 6] = [0x02, 0x50, 0x4f, 0x52, 0x54, 0x02];
/// The Ethernet address of the other side.
pub const OUTSIDE_MAC: [u8; 6] = [0x02, 0x50, 0x4f, 0x52, 0x54, 0x01];

/// The side of the device that stays outside.
#[derive(Debug)]
pub struct Device {
    /// What the descriptors speak.
    pub kind: DeviceKind,
    /// One for each queue; none of them waits.
    pub queues: Vec<OwnedFd>,
    /// The longest packet, in bytes.
    pub mtu: u32,
    /// What it leaves undone of a packet.
    pub offloads: Offloads,
}

/// What the descriptors of a [`Device`] speak. Before each packet there is a virtio-net header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// A queue of a TUN device: header and IP packet.
    Tun,
    /// A packet socket on one end of a veth pair in a namespace of its own: header, Ethernet header, IP packet.
    Veth,
}

impl DeviceKind {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Tun => 0,
            Self::Veth => 1,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Tun),
            1 => Some(Self::Veth),
            _ => None,
        }
    }
}

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// struct rtmsg.
const RTMSG_LEN: usize = 12;
const RTA_DST: u16 = 1;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const IFF_UP: u32 = 1;
/// An IPv6 address that is not asked for on the link first: there is nobody else on it.
const IFA_F_NODAD: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
/// An entry of the neighbour table that is never asked for and never forgotten.
const NUD_PERMANENT: u16 = 0x80;
/// ETH_P_ALL.
const EVERY_PROTOCOL: u16 = 3;
/// The kernel drops what the maker does not read in time; 500 packets, the default, are one burst of one connection.
const QUEUE_LEN: u32 = 10_000;

/// How long it may take the kernel to know an address, and how often it is asked.
const OWN: Duration = Duration::from_secs(2);
const OWN_TURN: Duration = Duration::from_micros(500);

/// Brings up the loopback interface of the thread's network namespace.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    set_link(&open()?, 1, &[])
}

/// A veth pair: one end here, as [`DEVICE_NAME`]; the other in a namespace that only the packet socket on it keeps.
/// The peer takes no part in IP: nobody but the socket sees what comes, and nobody inside can reach it.
pub(crate) fn make_veth(config: &SpaceConfig) -> Result<OwnedFd, Errno> {
    let here = File::open("/proc/thread-self/ns/net").map_err(errno)?;
    sys::unshare(UnshareFlags::NEWNET)?;
    let made = make_pair(config, &here);
    move_into_link_name_space(here.as_fd(), Some(LinkNameSpaceType::Network))?;
    made
}

fn make_pair(config: &SpaceConfig, inside: &File) -> Result<OwnedFd, Errno> {
    let netlink = open()?;
    let request = Request::new(RTM_NEWLINK, CREATE)
        .bytes(&link(0, 0))
        .attribute(IFLA_IFNAME, b"outside\0")
        .attribute(IFLA_MTU, &config.mtu.to_ne_bytes())
        .attribute(IFLA_ADDRESS, &OUTSIDE_MAC)
        .nest(IFLA_LINKINFO, |info| {
            info.attribute(IFLA_INFO_KIND, b"veth")
                .nest(IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |peer| {
                        peer.bytes(&link(0, 0))
                            .attribute(IFLA_IFNAME, &name(DEVICE_NAME))
                            .attribute(IFLA_MTU, &config.mtu.to_ne_bytes())
                            .attribute(IFLA_ADDRESS, &INSIDE_MAC)
                            .attribute(IFLA_NET_NS_FD, &inside.as_raw_fd().to_ne_bytes())
                    })
                })
        });
    netlink.ask(request).map_err(errno)?;
    let index = index_of("outside")?;
    // Its own kernel must answer nothing: no IPv6 on it, and no IPv4 address.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/outside/disable_ipv6", "1");
    set_link(&netlink, index, &[])?;
    sys::packet_socket(index, EVERY_PROTOCOL)
}

/// Gives the device its addresses, the gateway's neighbour entries, and the default routes, and brings it up. The second
/// half, for IPv6, may fail alone.
pub(crate) fn configure(config: &SpaceConfig, kind: DeviceKind) -> Result<Option<Errno>, (Step, Errno)> {
    let failed = |error| (Step::Addresses, error);
    let netlink = open().map_err(failed)?;
    let index = index_of(DEVICE_NAME).map_err(failed)?;
    let attributes = [(IFLA_MTU, config.mtu), (IFLA_TXQLEN, QUEUE_LEN)];
    set_link(&netlink, index, &attributes).map_err(failed)?;
    // Nobody announces routers here, and nobody asks for them.
    let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{DEVICE_NAME}/accept_ra"), "0");
    let v4 = config.subnets.v4;
    let add = |inside: IpAddr, gateway: IpAddr, prefix_len| -> Result<(), Errno> {
        let asked = netlink
            .ask(address(index, inside, prefix_len))
            .and_then(|()| match kind {
                DeviceKind::Tun => Ok(()),
                DeviceKind::Veth => netlink.ask(neighbour(index, gateway)),
            })
            .and_then(|()| netlink.ask(default_route(index, gateway)));
        asked.map_err(errno)
    };
    add(v4.inside.into(), v4.gateway.into(), v4.prefix_len).map_err(failed)?;
    let Some(v6) = config.subnets.v6 else {
        return Ok(None);
    };
    let added = add(v6.inside.into(), v6.gateway.into(), v6.prefix_len);
    if added.is_ok() {
        // If the kernel does not say, it is as it was without the question.
        let _ = await_own(&netlink, v6.inside);
    }
    Ok(added.err())
}

/// Waits until the kernel takes an IPv6 address for its own, for as long as a moment: it does so in its own time
/// (`addrconf_dad_work`), which is seconds where many namespaces come and go, and until then looks for it on the link.
fn await_own(netlink: &Netlink, address: Ipv6Addr) -> Result<(), Errno> {
    let until = Instant::now() + OWN;
    loop {
        let mut is_own = false;
        let request = Request::new(RTM_GETROUTE, 0)
            .bytes(&[family(address.into())])
            .bytes(&[0; 11]);
        let is_it = |payload: &[u8]| {
            payload.get(7) == Some(&RTN_LOCAL)
                && attributes(payload.get(RTMSG_LEN..).unwrap_or_default())
                    .any(|(kind, value)| kind == RTA_DST && value == address.octets())
        };
        netlink
            .dump(request, |kind, payload| {
                is_own |= kind == RTM_NEWROUTE && is_it(payload)
            })
            .map_err(errno)?;
        if is_own || Instant::now() >= until {
            return Ok(());
        }
        std::thread::sleep(OWN_TURN);
    }
}

/// struct ifinfomsg: family, type, index, flags, which flags to change.
fn link(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn set_link(netlink: &Netlink, index: u32, attributes: &[(u16, u32)]) -> Result<(), Errno> {
    let mut request = Request::new(RTM_NEWLINK, 0).bytes(&link(index, IFF_UP));
    for (kind, value) in attributes {
        request = request.attribute(*kind, &value.to_ne_bytes());
    }
    netlink.ask(request).map_err(errno)
}

/// struct ifaddrmsg (family, prefix length, flags, scope, index) and the address.
fn address(index: u32, address: IpAddr, prefix_len: u8) -> Request {
    let flags = if address.is_ipv6() { IFA_F_NODAD } else { 0 };
    Request::new(RTM_NEWADDR, CREATE)
        .bytes(&[family(address), prefix_len, flags, 0])
        .bytes(&index.to_ne_bytes())
        .address(IFA_LOCAL, address)
        .address(IFA_ADDRESS, address)
}

/// struct ndmsg (family, padding, index, state, flags, type) and whose Ethernet address it is.
fn neighbour(index: u32, gateway: IpAddr) -> Request {
    Request::new(RTM_NEWNEIGH, CREATE)
        .bytes(&[family(gateway), 0, 0, 0])
        .bytes(&index.to_ne_bytes())
        .bytes(&NUD_PERMANENT.to_ne_bytes())
        .bytes(&[0, 0])
        .address(NDA_DST, gateway)
        .attribute(NDA_LLADDR, &OUTSIDE_MAC)
}

/// struct rtmsg (family, lengths of the prefixes, type of service, table, protocol, scope, type, flags).
fn default_route(index: u32, gateway: IpAddr) -> Request {
    Request::new(RTM_NEWROUTE, CREATE)
        .bytes(&[
            family(gateway),
            0,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_STATIC,
            0,
            RTN_UNICAST,
        ])
        .bytes(&[0; 4])
        .address(RTA_GATEWAY, gateway)
        .attribute(RTA_OIF, &index.to_ne_bytes())
}

pub(crate) fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    family.as_raw() as u8
}

fn name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

fn index_of(name: &str) -> Result<u32, Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    name_to_index(&socket, name)
}

fn open() -> Result<Netlink, Errno> {
    Netlink::open().map_err(errno)
}

pub(crate) fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
