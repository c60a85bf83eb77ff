//! Laws that hold for every table, whatever was done to it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_core::demux::{Packet, Segment};
use portolan_core::table::{
    Accepted, BindAnswer, BindWish, Close, Device, Family, Host, Owner, PortChoice, PortTable, SocketId,
    SocketOption, Transport,
};
use proptest::prelude::*;

const ADDRESSES: [&str; 8] = [
    "0.0.0.0",
    "10.8.0.1",
    "10.8.0.2",
    "::",
    "fd08::1",
    "::ffff:0.0.0.0",
    "::ffff:10.8.0.1",
    "224.1.1.1",
];

fn address(choice: u8) -> IpAddr {
    ADDRESSES[usize::from(choice) % ADDRESSES.len()]
        .parse()
        .expect("a constant")
}

fn host() -> Host {
    let mut host = Host::new();
    for (number, address) in [(1, "10.8.0.1"), (1, "fd08::1"), (2, "10.8.0.2")] {
        let device = Device::new(number).expect("not 0");
        host.add_address(device, address.parse().expect("a constant"), Some(24));
    }
    host
}

/// Does something to the table, chosen by five numbers; what it refuses is refused.
fn act(table: &mut PortTable, sockets: &mut Vec<SocketId>, [what, which, a, b, c]: [u8; 5]) {
    let transport = if a % 2 == 0 {
        Transport::Tcp
    } else {
        Transport::Udp
    };
    let family = if b % 2 == 0 { Family::Ipv4 } else { Family::Ipv6 };
    let port = 7000 + u16::from(c % 3);
    let local = SocketAddr::new(address(b), if c % 5 == 0 { 0 } else { port });
    if sockets.is_empty() || what % 10 == 0 {
        sockets.push(table.socket(transport, family, Owner::user(u32::from(c % 2))));
        return;
    }
    let at = usize::from(which) % sockets.len();
    let id = sockets[at];
    let remote = SocketAddr::new(address(a), u16::from(c));
    match what % 10 {
        1 => drop(table.set(id, SocketOption::ReuseAddress(a % 2 == 0))),
        2 => drop(table.set(id, SocketOption::ReusePort(a % 2 == 0))),
        3 => drop(table.set(id, SocketOption::Device(Device::new(u32::from(a % 3))))),
        4 => drop(table.bind(id, local, PortChoice::Any)),
        5 => drop(table.listen(id, PortChoice::Any)),
        6 => drop(table.connect(id, remote, address(1 + c % 2), PortChoice::Any)),
        7 => drop(table.disconnect(id)),
        8 => {
            let connection = Accepted {
                local: SocketAddr::new(address(1), port),
                remote,
                device: None,
            };
            sockets.extend(table.accept(id, connection));
        }
        _ => {
            let how = if a % 2 == 0 { Close::TimeWait } else { Close::Gone };
            table.close(sockets.swap_remove(at), how).expect("it is open");
        }
    }
}

proptest! {
    /// Whatever was done, nothing is left of it when every socket is closed.
    #[test]
    fn an_emptied_table_is_empty(acts in prop::collection::vec(any::<[u8; 5]>(), 0..120)) {
        let mut table = PortTable::new(host(), [1; 16]);
        let mut sockets = Vec::new();
        for act_of in acts {
            act(&mut table, &mut sockets, act_of);
        }
        for id in sockets {
            table.close(id, Close::Gone).expect("it is open");
        }
        table.advance(Duration::from_secs(60));
        prop_assert_eq!((table.len(), table.flow_count()), (0, 0));
        for port in 7000..7003 {
            let id = table.socket(Transport::Tcp, Family::Ipv6, Owner::ROOT);
            let wild = SocketAddr::new(address(3), port);
            prop_assert!(table.bind(id, wild, PortChoice::Any).is_ok());
        }
    }

    /// As long as the version of UDP is the same, so are the receivers of datagrams.
    #[test]
    fn the_same_version_means_the_same_receivers(acts in prop::collection::vec(any::<[u8; 5]>(), 1..80)) {
        let mut table = PortTable::new(host(), [1; 16]);
        let mut sockets = Vec::new();
        let deliveries = |table: &PortTable| -> Vec<_> {
            let ends = ADDRESSES.into_iter().flat_map(|local| ADDRESSES.map(|remote| (local, remote)));
            let packets = ends.flat_map(|(local, remote)| {
                [(7000, 0), (7001, 1), (7002, 7)].map(|(to, from)| Packet {
                    transport: Transport::Udp,
                    source: SocketAddr::new(remote.parse().expect("a constant"), from),
                    destination: SocketAddr::new(local.parse().expect("a constant"), to),
                    device: Device::new(1),
                    segment: Segment::Other,
                })
            });
            packets.map(|packet| table.deliver(&packet)).collect()
        };
        let mut before = (table.udp_version(), deliveries(&table));
        for mut act_of in acts {
            // TCP now and then.
            act_of[2] |= u8::from(act_of[4] > 40);
            act(&mut table, &mut sockets, act_of);
            let after = (table.udp_version(), deliveries(&table));
            prop_assert!(after.0 != before.0 || after.1 == before.1, "{act_of:?}");
            before = after;
        }
    }

    /// A packet goes to sockets that exist, and asking changes nothing.
    #[test]
    fn packets_go_to_sockets_that_exist(
        acts in prop::collection::vec(any::<[u8; 5]>(), 0..80),
        packets in prop::collection::vec(any::<[u8; 4]>(), 1..20),
    ) {
        let mut table = PortTable::new(host(), [1; 16]);
        let mut sockets = Vec::new();
        for act_of in acts {
            act(&mut table, &mut sockets, act_of);
        }
        for [a, b, c, d] in packets {
            let packet = Packet {
                transport: if a % 2 == 0 { Transport::Tcp } else { Transport::Udp },
                source: SocketAddr::new(address(b), u16::from(c)),
                destination: SocketAddr::new(address(d), 7000 + u16::from(c % 3)),
                device: Device::new(u32::from(d % 3)),
                segment: Segment::Syn,
            };
            let delivery = table.deliver(&packet);
            for &id in delivery.sockets() {
                prop_assert!(table.local(id).is_ok());
            }
            prop_assert_eq!(table.deliver(&packet), delivery);
        }
    }

    /// What is explained is what happens.
    #[test]
    fn an_explained_bind_is_the_bind(
        acts in prop::collection::vec(any::<[u8; 5]>(), 0..80),
        (b, c, options, uid) in (any::<u8>(), any::<u8>(), any::<[bool; 4]>(), 0..2u32),
    ) {
        let mut table = PortTable::new(host(), [1; 16]);
        let mut sockets = Vec::new();
        for act_of in acts {
            act(&mut table, &mut sockets, act_of);
        }
        let [tcp, v6, reuse_address, reuse_port] = options;
        let wish = BindWish {
            transport: if tcp { Transport::Tcp } else { Transport::Udp },
            family: if v6 { Family::Ipv6 } else { Family::Ipv4 },
            owner: Owner::user(uid),
            local: SocketAddr::new(address(b), 7000 + u16::from(c % 3)),
            v6_only: false,
            reuse_address,
            reuse_port,
            device: None,
        };
        let answer = table.explain_bind(&wish);
        let id = table.socket(wish.transport, wish.family, wish.owner);
        table.set(id, SocketOption::ReuseAddress(reuse_address)).expect("any time");
        table.set(id, SocketOption::ReusePort(reuse_port)).expect("any time");
        match table.bind(id, wish.local, PortChoice::Any) {
            Ok(port) => prop_assert_eq!(answer, BindAnswer::Yes(port)),
            Err(error) => prop_assert_eq!(answer, BindAnswer::No(error)),
        }
    }
}
