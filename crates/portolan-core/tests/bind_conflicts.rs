//! Every pair of sockets that was tried on Linux 6.18: `data/bind-conflicts.csv`, 15,840 rows.
//!
//! A row puts a first socket into a state, then binds a second one to the same port, then listens on the
//! second and on the first. The three answers must be those of the kernel.

use std::net::{IpAddr, SocketAddr};

use portolan_core::Port;
use portolan_core::table::{
    Accepted, Close, Device, Errno, Family, Host, Owner, PortChoice, PortTable, SocketId, SocketOption,
    Transport,
};

const ROWS: &str = include_str!("data/bind-conflicts.csv");
const PORT: u16 = 1100;

struct Row<'a> {
    transport: Transport,
    state: &'a str,
    via_ipv4: bool,
    first: Kind<'a>,
    second: Kind<'a>,
    other_user: bool,
    expected: [&'a str; 3],
}

struct Kind<'a> {
    address: &'a str,
    options: &'a str,
    device: &'a str,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Self {
        let fields: Vec<_> = line.split(',').collect();
        let [
            protocol,
            state,
            address1,
            options1,
            device1,
            address2,
            options2,
            device2,
            uid,
            bind2,
            listen2,
            listen1,
        ] = fields[..]
        else {
            panic!("not twelve fields: {line}");
        };
        Self {
            transport: match protocol {
                "tcp" => Transport::Tcp,
                "udp" => Transport::Udp,
                other => panic!("protocol {other}"),
            },
            state: state.trim_end_matches('4'),
            via_ipv4: state.ends_with('4'),
            first: Kind {
                address: address1,
                options: options1,
                device: device1,
            },
            second: Kind {
                address: address2,
                options: options2,
                device: device2,
            },
            other_user: uid == "diff",
            expected: [bind2, listen2, listen1],
        }
    }
}

fn device(name: &str) -> Option<Device> {
    match name {
        "-" => None,
        "v0" => Device::new(2),
        "d1" => Device::new(3),
        other => panic!("device {other}"),
    }
}

fn host() -> Host {
    let mut host = Host::new();
    for (name, address, bits) in [
        ("v0", "10.9.0.1", 24),
        ("v0", "10.9.0.2", 24),
        ("v0", "fd09::1", 64),
        ("v0", "fd09::2", 64),
        ("d1", "10.10.0.1", 24),
    ] {
        host.add_address(device(name).unwrap(), address.parse().unwrap(), Some(bits));
    }
    host
}

/// The family and the address of a kind: 4s is a specific IPv4 address, 6d dual-stack, mw mapped ...
fn address(kind: &str) -> (Family, IpAddr) {
    let (family, address) = match kind {
        "4s" => (Family::Ipv4, "10.9.0.1"),
        "4o" => (Family::Ipv4, "10.9.0.2"),
        "4w" => (Family::Ipv4, "0.0.0.0"),
        "6s" => (Family::Ipv6, "fd09::1"),
        "6o" => (Family::Ipv6, "fd09::2"),
        "6d" | "6x" => (Family::Ipv6, "::"),
        "ms" => (Family::Ipv6, "::ffff:10.9.0.1"),
        "mo" => (Family::Ipv6, "::ffff:10.9.0.2"),
        "mw" => (Family::Ipv6, "::ffff:0.0.0.0"),
        other => panic!("address {other}"),
    };
    (family, address.parse().unwrap())
}

fn make(table: &mut PortTable, transport: Transport, kind: &Kind<'_>, owner: Owner) -> SocketId {
    let (family, _) = address(kind.address);
    let socket = table.socket(transport, family, owner);
    if family == Family::Ipv6 {
        let only = kind.address == "6x";
        table.set(socket, SocketOption::V6Only(only)).unwrap();
    }
    for (letter, option) in [
        ('A', SocketOption::ReuseAddress(true)),
        ('P', SocketOption::ReusePort(true)),
    ] {
        if kind.options.contains(letter) {
            table.set(socket, option).unwrap();
        }
    }
    let device = SocketOption::Device(device(kind.device));
    table.set(socket, device).unwrap();
    socket
}

fn bind(table: &mut PortTable, socket: SocketId, kind: &Kind<'_>) -> Result<Port, Errno> {
    let local = SocketAddr::new(address(kind.address).1, PORT);
    table
        .bind(socket, local, PortChoice::Any)
        .map_err(|error| error.errno())
}

/// Puts the first socket into its state. The answer is none if it is gone into TIME-WAIT.
fn first(table: &mut PortTable, row: &Row<'_>) -> Option<SocketId> {
    let (family, _) = address(row.first.address);
    let is_ipv4 = family == Family::Ipv4 || row.first.address.starts_with('m') || row.via_ipv4;
    let (own, peer): (IpAddr, IpAddr) = if is_ipv4 {
        ("10.9.0.1".parse().unwrap(), "10.9.0.100".parse().unwrap())
    } else {
        ("fd09::1".parse().unwrap(), "fd09::100".parse().unwrap())
    };
    let remote = match (family, peer) {
        (Family::Ipv6, IpAddr::V4(peer)) => peer.to_ipv6_mapped().into(),
        (Family::Ipv4 | Family::Ipv6, peer) => peer,
    };
    let remote = SocketAddr::new(remote, 7000);
    let socket = make(table, row.transport, &row.first, Owner::ROOT);
    bind(table, socket, &row.first).expect("the first socket of a port");
    match row.state {
        "bound" => Some(socket),
        "listen" => {
            table.listen(socket, PortChoice::Any).unwrap();
            Some(socket)
        }
        "estab" | "conn" => {
            table.connect(socket, remote, own, PortChoice::Any).unwrap();
            Some(socket)
        }
        "tw" => {
            table.connect(socket, remote, own, PortChoice::Any).unwrap();
            table.close(socket, Close::TimeWait).unwrap();
            None
        }
        "accept" | "tw_acc" => {
            table.listen(socket, PortChoice::Any).unwrap();
            let child = table
                .accept(
                    socket,
                    Accepted {
                        local: SocketAddr::new(own, PORT),
                        remote: SocketAddr::new(peer, 40_000),
                        device: device("v0"),
                    },
                )
                .unwrap();
            table.close(socket, Close::Gone).unwrap();
            if row.state == "accept" {
                return Some(child);
            }
            table.close(child, Close::TimeWait).unwrap();
            None
        }
        other => panic!("state {other}"),
    }
}

fn word<T>(result: &Result<T, Errno>) -> String {
    match result {
        Ok(_) => "OK".to_owned(),
        Err(errno) => errno.to_string(),
    }
}

fn run(row: &Row<'_>) -> [String; 3] {
    let mut table = PortTable::new(host(), [0; 16]);
    let one = first(&mut table, row);
    let owner = if row.other_user {
        Owner::user(12_345)
    } else {
        Owner::ROOT
    };
    let two = make(&mut table, row.transport, &row.second, owner);
    let listen = |table: &mut PortTable, socket| {
        table
            .listen(socket, PortChoice::Any)
            .map_err(|error| error.errno())
    };
    let bind2 = bind(&mut table, two, &row.second);
    let [mut listen2, mut listen1] = ["-".to_owned(), "-".to_owned()];
    if row.transport == Transport::Tcp && bind2.is_ok() {
        let result = listen(&mut table, two);
        listen2 = word(&result);
        if row.state == "bound" && result.is_ok() {
            listen1 = word(&listen(&mut table, one.expect("a bound socket")));
        }
    }
    [word(&bind2), listen2, listen1]
}

#[test]
fn every_pair_of_sockets_gets_the_kernels_answer() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for line in ROWS.lines().skip(2) {
        count += 1;
        let row = Row::parse(line);
        let answers = run(&row);
        if answers != row.expected {
            wrong.push(format!("{line}: the table says {answers:?}"));
        }
    }
    assert_eq!(count, 15_840);
    assert!(
        wrong.is_empty(),
        "{} rows differ, the first:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
}
