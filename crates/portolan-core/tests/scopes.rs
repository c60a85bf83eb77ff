//! Scopes: receivers for ranges of ports, prefixes, and every destination.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portolan_core::demux::{Delivery, Packet, Reason, Reply, Segment};
use portolan_core::table::{
    Accepted, Addresses, BindError, Close, ConnectError, Device, Errno, Family, Host, Owner, PortChoice,
    PortTable, Scope, ScopeError, SocketId, State, Transport,
};
use portolan_core::{Port, PortRange};
use proptest::prelude::*;

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(Port::new(first), Port::new(last)).unwrap()
}

fn prefix(text: &str, ports: PortRange) -> Scope {
    Scope {
        addresses: Addresses::Prefix(text.parse().unwrap()),
        ports,
    }
}

fn own(ports: PortRange) -> Scope {
    Scope {
        addresses: Addresses::Own,
        ports,
    }
}

fn table() -> PortTable {
    let mut host = Host::new();
    let device = Device::new(1).unwrap();
    host.add_address(device, "10.0.0.1".parse().unwrap(), Some(24));
    host.add_address(device, "10.0.0.7".parse().unwrap(), Some(24));
    host.add_address(device, "fd00::1".parse().unwrap(), Some(64));
    PortTable::new(host, [1; 16])
}

fn receiver(table: &mut PortTable, transport: Transport, scope: Scope) -> SocketId {
    let socket = table.socket(transport, Family::Ipv6, Owner::ROOT);
    table.receive_for(socket, scope).unwrap();
    socket
}

fn bound(table: &mut PortTable, transport: Transport, local: &str) -> SocketId {
    let local: SocketAddr = local.parse().unwrap();
    let family = if local.is_ipv4() {
        Family::Ipv4
    } else {
        Family::Ipv6
    };
    let socket = table.socket(transport, family, Owner::ROOT);
    table.bind(socket, local, PortChoice::Any).unwrap();
    if transport == Transport::Tcp {
        table.listen(socket, PortChoice::Any).unwrap();
    }
    socket
}

fn packet(transport: Transport, destination: SocketAddr, segment: Segment) -> Packet {
    let source = if destination.is_ipv4() {
        "10.9.9.9:5000"
    } else {
        "[fd09::9]:5000"
    };
    Packet {
        transport,
        source: source.parse().unwrap(),
        destination,
        device: None,
        segment,
    }
}

fn owner(table: &PortTable, transport: Transport, destination: &str) -> Option<SocketId> {
    let delivery = table.deliver(&packet(transport, destination.parse().unwrap(), Segment::Syn));
    delivery.sockets().first().copied()
}

#[test]
fn the_most_specific_receiver_wins() {
    for transport in [Transport::Tcp, Transport::Udp] {
        let mut table = table();
        let every = receiver(&mut table, transport, Scope::TRANSPARENT);
        let ten = receiver(&mut table, transport, prefix("10.0.0.0/8", PortRange::ALL));
        let ours = receiver(&mut table, transport, own(range(1, 65_535)));
        let wildcard = bound(&mut table, transport, "0.0.0.0:80");
        let address = receiver(
            &mut table,
            transport,
            Scope::address("10.0.0.1".parse().unwrap(), range(80, 90)),
        );
        let narrow = receiver(
            &mut table,
            transport,
            Scope::address("10.0.0.1".parse().unwrap(), range(82, 83)),
        );
        let specific = bound(&mut table, transport, "10.0.0.1:81");
        for (destination, expected) in [
            ("10.0.0.1:81", specific),
            ("10.0.0.1:80", address),
            ("10.0.0.1:83", narrow),
            ("10.0.0.7:80", wildcard),
            ("10.0.0.7:81", ours),
            ("127.0.0.1:9", ours),
            ("10.0.0.9:80", ten),
            ("10.200.0.9:1", ten),
            ("192.0.2.1:80", every),
            ("[fd00::1]:443", ours),
            ("[2001:db8::1]:443", every),
        ] {
            assert_eq!(
                owner(&table, transport, destination),
                Some(expected),
                "{destination}"
            );
        }
        // What is for many hosts is nobody's connection, and no transparent socket's datagram.
        for many in [
            "224.0.0.1:99",
            "255.255.255.255:99",
            "10.0.0.255:99",
            "[ff02::1]:9",
        ] {
            assert_eq!(owner(&table, transport, many), None, "{many}");
        }
    }
}

#[test]
fn a_transparent_listener_answers_for_hosts_that_are_not_this_one() {
    let mut table = table();
    let destination: SocketAddr = "192.0.2.1:443".parse().unwrap();
    let because = |table: &PortTable, segment| {
        let delivery = table.deliver(&packet(Transport::Tcp, destination, segment));
        (delivery.because(), delivery.reply())
    };
    assert_eq!(
        because(&table, Segment::Syn),
        (Reason::NotForThisHost, Reply::Nothing)
    );
    let listener = receiver(&mut table, Transport::Tcp, Scope::TRANSPARENT);
    assert_eq!(
        because(&table, Segment::Syn),
        (Reason::ListenerScope, Reply::Nothing)
    );
    // No connection has this four-tuple: a segment is told so, as by the host whose place is taken.
    assert_eq!(
        because(&table, Segment::Other),
        (Reason::NoConnection, Reply::Reset)
    );
    assert_eq!(
        because(&table, Segment::Reset),
        (Reason::NoConnection, Reply::Nothing)
    );
    let remote = "10.9.9.9:5000".parse().unwrap();
    let connection = table
        .accept(
            listener,
            Accepted {
                local: destination,
                remote,
                device: None,
            },
        )
        .unwrap();
    assert_eq!(table.local(connection), Ok(destination));
    let delivery = table.deliver(&packet(Transport::Tcp, destination, Segment::Other));
    assert_eq!(
        delivery,
        Delivery::Socket {
            to: connection,
            because: Reason::FourTuple
        }
    );
    // The listener goes, the connection stays.
    table.close(listener, Close::Gone).unwrap();
    assert_eq!(because(&table, Segment::Other).0, Reason::FourTuple);
    table.close(connection, Close::Gone).unwrap();
    assert_eq!(because(&table, Segment::Other).0, Reason::NotForThisHost);
}

#[test]
fn a_scope_is_one_sockets_and_goes_with_it() {
    let mut table = table();
    let scope = prefix("10.1.0.0/16", range(1000, 1999));
    let first = receiver(&mut table, Transport::Tcp, scope);
    let second = table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
    // Bits behind the prefix do not count.
    let same = prefix("10.1.2.3/16", range(1000, 1999));
    let refused = table.receive_for(second, same).unwrap_err();
    assert_eq!(refused, ScopeError::InUse { scope, holder: first });
    assert_eq!(refused.errno(), Errno::EADDRINUSE);
    // The other protocol has ports of its own, and other scopes may overlap.
    receiver(&mut table, Transport::Udp, scope);
    receiver(
        &mut table,
        Transport::Tcp,
        prefix("10.1.0.0/16", range(1500, 2500)),
    );
    assert_eq!(owner(&table, Transport::Tcp, "10.1.0.1:1600"), Some(first));
    assert_eq!(
        (table.scope(first), table.state(first)),
        (Some(scope), Ok(State::Listening))
    );
    table.disconnect(first).unwrap();
    assert_eq!((table.scope(first), table.state(first)), (None, Ok(State::Idle)));
    assert_eq!(table.receive_for(second, same), Ok(()));
    assert_eq!(owner(&table, Transport::Tcp, "10.1.0.1:1600"), Some(second));
    table.close(second, Close::Gone).unwrap();
    assert_ne!(owner(&table, Transport::Tcp, "10.1.0.1:1400"), Some(second));
}

#[test]
fn a_socket_has_a_port_or_a_scope() {
    let mut table = table();
    let local: SocketAddr = "10.0.0.1:81".parse().unwrap();
    for transport in [Transport::Tcp, Transport::Udp] {
        let scoped = receiver(&mut table, transport, own(range(2000, 3000)));
        assert!(matches!(
            table.bind(scoped, "[::]:5".parse().unwrap(), PortChoice::Any),
            Err(BindError::AlreadyBound { .. })
        ));
        assert_eq!(
            table.connect(scoped, local, local.ip(), PortChoice::Any),
            Err(ConnectError::AlreadyConnected)
        );
        let bound = bound(&mut table, transport, "10.0.0.1:80");
        assert_eq!(
            table.receive_for(bound, Scope::TRANSPARENT),
            Err(ScopeError::NotFresh)
        );
        assert_eq!(
            table.receive_for(scoped, Scope::TRANSPARENT),
            Err(ScopeError::NotFresh)
        );
    }
}

#[test]
fn foreign_addresses_and_low_ports_take_a_privilege() {
    let mut table = table();
    for (scope, allowed) in [
        (Scope::TRANSPARENT, false),
        (prefix("10.0.0.1/32", range(1024, 2000)), true),
        (prefix("10.0.0.2/32", range(1024, 2000)), false),
        (prefix("10.0.0.0/24", range(1024, 2000)), false),
        (own(range(1024, 65_535)), true),
        (own(range(1023, 65_535)), false),
    ] {
        let socket = table.socket(Transport::Tcp, Family::Ipv4, Owner::user(1000));
        let expected = if allowed {
            Ok(())
        } else {
            Err(ScopeError::Privileged { scope })
        };
        assert_eq!(table.receive_for(socket, scope), expected, "{scope}");
    }
}

/// Few addresses and ports, so that scopes overlap.
fn scopes() -> impl Strategy<Value = Vec<Scope>> {
    let address = prop_oneof![
        Just("10.0.0.1"),
        Just("10.0.0.2"),
        Just("10.0.1.9"),
        Just("192.0.2.1"),
    ];
    let addresses = prop_oneof![
        1 => Just(Addresses::Own),
        1 => Just(Addresses::Every),
        4 => (address, 0u8..=32).prop_map(|(address, len)| {
            let address: std::net::Ipv4Addr = address.parse().unwrap();
            Addresses::Prefix(IpNet::new(address.into(), len).unwrap().trunc())
        }),
    ];
    let ports = (0u16..40, 0u16..40).prop_map(|(a, b)| range(a.min(b), a.max(b)));
    let scope = (addresses, ports).prop_map(|(addresses, ports)| Scope { addresses, ports });
    proptest::collection::vec(scope, 0..40)
}

/// The rule of the module's text, said with a list.
fn best(scopes: &[(Scope, SocketId)], address: IpAddr, port: Port, is_own: bool) -> Option<SocketId> {
    let matching = scopes
        .iter()
        .filter(|(scope, _)| scope.contains(address, port, is_own));
    matching
        .min_by_key(|(scope, _)| {
            let rank = match scope.addresses {
                Addresses::Prefix(prefix) if prefix.prefix_len() == 32 => 0,
                Addresses::Own => 1,
                Addresses::Prefix(prefix) => 2 + (32 - u32::from(prefix.prefix_len())),
                Addresses::Every => 34,
            };
            (rank, scope.ports.len(), scope.ports.first())
        })
        .map(|&(_, socket)| socket)
}

proptest! {
    #[test]
    fn look_ups_agree_with_a_list(scopes in scopes(), gone in proptest::collection::vec(any::<bool>(), 40)) {
        let mut table = table();
        let mut list: Vec<(Scope, SocketId)> = Vec::new();
        for scope in scopes {
            // 0.0.0.0/0 and every destination are the same for IPv4: the test has one of them.
            let scope = match scope.addresses {
                Addresses::Prefix(prefix) if prefix.prefix_len() == 0 => Scope { addresses: Addresses::Every, ..scope },
                _ => scope,
            };
            let socket = table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
            let is_new = list.iter().all(|(other, _)| *other != scope);
            prop_assert_eq!(table.receive_for(socket, scope).is_ok(), is_new);
            if is_new {
                list.push((scope, socket));
            }
        }
        for removed in [false, true] {
            if removed {
                let mut gone = gone.iter();
                list.retain(|(_, socket)| {
                    let goes = *gone.next().unwrap();
                    if goes {
                        table.close(*socket, Close::Gone).unwrap();
                    }
                    !goes
                });
            }
            for (address, is_own) in [("10.0.0.1", true), ("10.0.0.2", false), ("10.0.1.9", false), ("192.0.2.1", false)] {
                let address: IpAddr = address.parse().unwrap();
                for port in 0..41 {
                    let destination = SocketAddr::new(address, port);
                    let found = table.deliver(&packet(Transport::Tcp, destination, Segment::Syn));
                    let expected = best(&list, address, Port::new(port), is_own);
                    prop_assert_eq!(found.sockets().first().copied(), expected, "{}", destination);
                }
            }
        }
    }
}

/// Connections of a gateway that keep their clients' addresses.
#[test]
fn connections_from_foreign_addresses_claim_their_four_tuple_alone() {
    let mut table = table();
    let mut connect = |source: &str, remote: &str| {
        let source: SocketAddr = source.parse().unwrap();
        let family = if source.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        };
        let socket = table.socket(Transport::Tcp, family, Owner::ROOT);
        let remote = remote.parse().unwrap();
        let result = table.connect_foreign(socket, source, remote, PortChoice::Any, &|_, _| None);
        result.map(|port| (socket, port.get()))
    };
    let (first, port) = connect("203.0.113.9:40000", "10.0.0.99:80").unwrap();
    assert_eq!(port, 40_000);
    assert_eq!(connect("203.0.113.9:40000", "10.0.0.99:81").unwrap().1, 40_000);
    assert_eq!(connect("[2001:db8::9]:22", "[fd00::99]:80").unwrap().1, 22);
    let (_, chosen) = connect("203.0.113.9:0", "10.0.0.99:80").unwrap();
    assert!(chosen >= 32_768);
    let again = connect("203.0.113.9:40000", "10.0.0.99:80").unwrap_err();
    assert!(
        matches!(again, ConnectError::FlowExists { holder, .. } if holder == first),
        "{again}"
    );
    for source in ["10.0.0.1:5", "224.0.0.1:5", "10.0.0.255:5", "0.0.0.0:5"] {
        connect(source, "10.0.0.99:80").unwrap_err();
    }
    connect("203.0.113.9:40000", "224.0.0.1:80").unwrap_err();
    connect("203.0.113.9:40000", "[fd00::99]:80").unwrap_err();
    // What answers finds it, and the host's own sockets have the port still.
    let packet = Packet {
        transport: Transport::Tcp,
        source: "10.0.0.99:80".parse().unwrap(),
        destination: "203.0.113.9:40000".parse().unwrap(),
        device: None,
        segment: Segment::Other,
    };
    let found = |table: &PortTable| match table.deliver(&packet) {
        Delivery::Socket { to, because } => Some((to, because)),
        Delivery::Nobody { .. } | Delivery::Sockets { .. } => None,
    };
    assert_eq!(found(&table), Some((first, Reason::FourTuple)));
    let own = table.socket(Transport::Tcp, Family::Ipv4, Owner::ROOT);
    table
        .bind(own, "10.0.0.1:40000".parse().unwrap(), PortChoice::Any)
        .unwrap();
    table.listen(own, PortChoice::Any).unwrap();
    table.close(first, Close::Gone).unwrap();
    assert_eq!(found(&table), None);
}
