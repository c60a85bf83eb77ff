//! The way of connections that do not pass the device: from a socket inside that has the gateway's address to one of the
//! program's, both of the space's own kernel.
//!
//! ```text
//!   client on the host's loopback ─▶ maker ═ splice ═▶ socket inside, marked ─ lo ─▶ socket of the program
//!                                                      (address of the gateway)
//! ```
//!
//! Only packets with the mark take the gateway's address for one of this kernel's, and answers to marked packets have the
//! mark: so says a routing rule, and so do two settings. What has no mark passes the device as ever.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use socket2::{Domain, SockRef};

use crate::device::{errno, family};
use crate::netlink::{CREATE, Netlink, Request};
use crate::subnets::Subnets;

/// The mark (`SO_MARK`) of sockets inside that may have the gateway's address (`IP_TRANSPARENT`) and reach the program
/// without the device.
const MARK: u32 = 0x504f_5254;

const RTM_NEWROUTE: u16 = 24;
const RTM_NEWRULE: u16 = 32;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
const LOOPBACK: u32 = 1;
/// The table of routes for marked packets.
const TABLE: u32 = MARK;
/// Behind the table `local`, which has 0: what is for the space itself needs no other rule.
const PRIORITY: u32 = 100;

/// Answers to a marked packet have its mark, also from a socket that was accepted, and where there is no socket. Marked
/// connections all come from one address: their ports must be free sooner than after a minute.
const SETTINGS: [(&str, &str); 4] = [
    ("ipv4/tcp_fwmark_accept", "1"),
    ("ipv4/fwmark_reflect", "1"),
    ("ipv6/fwmark_reflect", "1"),
    ("ipv4/tcp_tw_reuse", "1"),
];

/// Lets a socket of this network namespace have the gateway's address, and reach the program with it. Takes CAP_NET_ADMIN
/// over the namespace.
pub(crate) fn mark(socket: &OwnedFd) -> Result<(), Errno> {
    let socket = SockRef::from(socket);
    let marked = socket.set_mark(MARK).and_then(|()| {
        if socket.domain()? == Domain::IPV6 {
            socket.set_ip_transparent_v6(true)
        } else {
            socket.set_ip_transparent_v4(true)
        }
    });
    marked.map_err(errno)
}

/// Prepares the network namespace that the thread is in.
pub(crate) fn prepare(subnets: &Subnets) -> Result<(), Errno> {
    for (name, value) in SETTINGS {
        if name.starts_with("ipv6") && subnets.v6.is_none() {
            continue;
        }
        std::fs::write(format!("/proc/sys/net/{name}"), value).map_err(errno)?;
    }
    let netlink = Netlink::open().map_err(errno)?;
    let v6 = subnets.v6.map(|v6| v6.gateway.into());
    for gateway in [Some(subnets.v4.gateway.into()), v6].into_iter().flatten() {
        netlink.ask(rule(gateway)).map_err(errno)?;
        netlink.ask(route(gateway)).map_err(errno)?;
    }
    Ok(())
}

/// struct fib_rule_hdr (family, lengths of the prefixes, type of service, table, reserved, action, flags): for marked
/// packets, look into our table.
fn rule(gateway: IpAddr) -> Request {
    Request::new(RTM_NEWRULE, CREATE)
        .bytes(&[family(gateway), 0, 0, 0, 0, 0, 0, FR_ACT_TO_TBL])
        .bytes(&[0; 4])
        .attribute(FRA_PRIORITY, &PRIORITY.to_ne_bytes())
        .attribute(FRA_FWMARK, &MARK.to_ne_bytes())
        .attribute(FRA_TABLE, &TABLE.to_ne_bytes())
}

/// struct rtmsg (family, lengths of the prefixes, type of service, table, protocol, scope, type, flags): in that table the
/// gateway's address is this host's.
fn route(gateway: IpAddr) -> Request {
    let whole = if gateway.is_ipv4() { 32 } else { 128 };
    Request::new(RTM_NEWROUTE, CREATE)
        .bytes(&[
            family(gateway),
            whole,
            0,
            0,
            0,
            RTPROT_STATIC,
            RT_SCOPE_HOST,
            RTN_LOCAL,
        ])
        .bytes(&[0; 4])
        .address(RTA_DST, gateway)
        .attribute(RTA_OIF, &LOOPBACK.to_ne_bytes())
        .attribute(RTA_TABLE, &TABLE.to_ne_bytes())
}
