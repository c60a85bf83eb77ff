use std::net::IpAddr;

use portolan_core::{Port, PortRange};
use proptest::prelude::*;

use super::*;
use crate::select::{FilterFault, Matcher};
use crate::{
    Owner, Ownership, Process, Queues, Snapshot, Socket, SocketAddress, SocketProtocol, Space, SpaceId,
    SpaceName, StartTime, State,
};

/// A machine of the tests' own making.
struct Fixture;

impl Names for Fixture {
    fn service(&self, name: &str) -> Vec<(SocketProtocol, PortRange)> {
        let ports = |first, last| PortRange::new(Port::new(first), Port::new(last)).unwrap();
        let one = |port| ports(port, port);
        match name {
            "ssh" => vec![(SocketProtocol::Tcp, one(22))],
            "http" => vec![(SocketProtocol::Tcp, one(80)), (SocketProtocol::Udp, one(80))],
            "https" => vec![(SocketProtocol::Tcp, one(443)), (SocketProtocol::Udp, one(443))],
            "twofold" => vec![(SocketProtocol::Tcp, one(512)), (SocketProtocol::Udp, one(513))],
            "many" => vec![(SocketProtocol::Tcp, ports(8000, 8100))],
            _ => Vec::new(),
        }
    }

    fn interface(&self, name: &str) -> Option<u32> {
        (name == "eth0").then_some(2)
    }

    fn cgroup(&self, path: &str) -> Option<u64> {
        (path == "/system.slice").then_some(77)
    }

    fn addresses(&self, host: &str) -> Vec<IpAddr> {
        match host {
            "example.org" => vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            _ => Vec::new(),
        }
    }

    fn user(&self, name: &str) -> Option<u32> {
        (name == "www-data").then_some(33)
    }

    fn ephemeral(&self) -> PortRange {
        PortRange::new(Port::new(32_768), Port::new(60_999)).unwrap()
    }
}

fn end(text: &str) -> SocketAddress {
    let (address, port) = text.rsplit_once(':').unwrap();
    SocketAddress::Inet {
        address: address.trim_matches(['[', ']']).parse().unwrap(),
        port: Port::new(port.parse().unwrap()),
    }
}

fn socket(protocol: SocketProtocol, state: State, local: &str, remote: Option<&str>) -> Socket {
    let local = end(local);
    Socket {
        protocol,
        family: if local.ip().unwrap().is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        },
        state,
        local,
        remote: remote.map(end),
        space: SpaceId(0),
        inode: 1,
        uid: Some(0),
        cookie: 1,
        device: 0,
        mark: Some(0),
        cgroup: None,
        v6_only: None,
        queues: Queues::default(),
        tcp_info: None,
    }
}

fn process(pid: i32, name: &str, uid: u32, user: &str, unit: Option<&str>) -> Process {
    Process {
        pid,
        parent: 1,
        start_time: StartTime(1),
        name: name.into(),
        exe: Some(format!("/usr/sbin/{name}").into()),
        cwd: None,
        command_line: vec![name.into()],
        uid,
        user: Some(user.to_owned()),
        cgroup: None,
        unit: unit.map(str::to_owned),
        container: None,
    }
}

/// Sockets 0 to 8, whose indices the tests name.
fn machine() -> Snapshot {
    use SocketProtocol::{Tcp, Udp};
    let mut sockets = vec![
        socket(Tcp, State::Listen, "0.0.0.0:22", None),
        socket(Tcp, State::Listen, "[::]:80", None),
        socket(Tcp, State::Listen, "127.0.0.1:8080", None),
        socket(Udp, State::Unconnected, "10.0.0.5:53", None),
        socket(Tcp, State::Established, "10.0.0.5:22", Some("192.0.2.7:50000")),
        socket(Tcp, State::Established, "10.0.0.5:40000", Some("192.0.2.1:443")),
        socket(
            Tcp,
            State::Established,
            "[::ffff:10.0.0.5]:80",
            Some("[::ffff:192.0.2.7]:50001"),
        ),
        socket(Tcp, State::TimeWait, "[::1]:80", Some("[::1]:41000")),
        socket(Udp, State::Unconnected, "[fe80::1]:546", None),
    ];
    sockets[8].device = 2;
    sockets[5].mark = Some(0x13);
    sockets[4].cgroup = Some(77);
    sockets[7].uid = None;
    let held = |pid| {
        Ownership::Held(
            vec![Owner {
                pid,
                fds: vec![3].into(),
            }]
            .into(),
        )
    };
    let nobody = Ownership::Nobody(crate::Ownerless {
        reason: crate::OwnerlessReason::TimeWait,
        listener: None,
    });
    Snapshot {
        spaces: vec![Space::new(SpaceName::Host, 4_026_531_840)],
        ownership: vec![
            held(1),
            held(2),
            held(3),
            held(4),
            held(1),
            held(3),
            held(2),
            nobody,
            held(5),
        ],
        sockets,
        processes: [
            process(1, "sshd", 0, "root", Some("ssh.service")),
            process(2, "nginx", 33, "www-data", Some("nginx.service")),
            process(3, "python3", 1000, "ada", None),
            process(4, "dnsmasq", 0, "root", None),
            process(5, "systemd-network", 0, "root", None),
        ]
        .into_iter()
        .map(|process| (process.pid, process))
        .collect(),
        ..Snapshot::default()
    }
}

fn parse(filter: &str) -> Result<Selection, FilterError> {
    Selection::parse(&[filter], None, &Fixture)
}

fn selected(filter: &str) -> Vec<usize> {
    let machine = machine();
    let selection = parse(filter).unwrap_or_else(|error| panic!("{error}"));
    let states = selection.states().unwrap_or(StateSet::ALL);
    let matcher = Matcher::new(&selection, &machine, ProtocolSet::ALL, states);
    (0..machine.sockets.len())
        .filter(|index| matcher.matches(*index))
        .collect()
}

#[test]
fn items_select_what_a_person_means() {
    let cases: &[(&str, &[usize])] = &[
        ("", &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("8080", &[2]),
        ("443", &[5]),
        ("https", &[5]),
        ("ssh", &[0, 4]),
        ("many", &[2]),
        ("8000-8100", &[2]),
        ("22,80-90", &[0, 1, 4, 6, 7]),
        ("53/udp", &[3]),
        ("53/tcp", &[]),
        (":80", &[1, 6, 7]),
        ("*:80", &[1, 6, 7]),
        ("[::1]:80", &[7]),
        ("[::]:80", &[1]),
        ("10.0.0.5", &[3, 4, 5, 6]),
        ("10.0.0.0/8", &[3, 4, 5, 6]),
        ("10.0.0.5:22", &[4]),
        ("::1", &[7]),
        ("2001:db8::/32", &[]),
        ("localhost", &[2, 7]),
        ("localhost:8080", &[2]),
        ("fe80::1%eth0", &[8]),
        ("fe80::1%3", &[]),
        ("udp", &[3, 8]),
        ("nginx", &[1, 6]),
        ("nginx.service", &[1, 6]),
        ("python*", &[2, 5]),
        ("python", &[]),
        ("root", &[0, 3, 4, 8]),
        ("www-data", &[1, 6]),
        ("pid:3", &[2, 5]),
        ("unit:ssh", &[0, 4]),
        ("user:33", &[1, 6]),
        ("process:sshd", &[0, 4]),
        // The kernel keeps 15 bytes of a name.
        ("systemd-networkd", &[8]),
        // Same kind: either. Different kinds: both.
        ("22 8080", &[0, 2, 4]),
        ("nginx python3", &[1, 2, 5, 6]),
        ("22 10.0.0.0/8", &[4]),
        ("udp root", &[3, 8]),
        ("tcp udp root 53", &[3]),
    ];
    for (filter, expected) in cases {
        assert_eq!(selected(filter), *expected, "{filter}");
    }
}

#[test]
fn expressions_select_what_ss_would() {
    let cases: &[(&str, &[usize])] = &[
        ("sport = :22", &[0, 4]),
        ("sport 22", &[0, 4]),
        ("sport = ssh", &[0, 4]),
        ("sport = :0x16", &[0, 4]),
        ("sport = :026", &[0, 4]),
        ("sport = :22 and not dst 192.0.2.0/24", &[0]),
        ("( dport = :50000 or dport = :https )", &[4, 5]),
        ("dport != :443", &[0, 1, 2, 3, 4, 6, 7, 8]),
        ("dport > :1024", &[4, 6, 7]),
        ("sport ge :53 sport le :80", &[1, 3, 6, 7]),
        ("sport lt :53", &[0, 4]),
        ("sport > :65535", &[]),
        ("sport < :0", &[]),
        // From left to right, one rank.
        ("sport = :22 or sport = :53 and dport = :50000", &[4]),
        ("sport = :22 or ( sport = :53 and dport = :50000 )", &[0, 4]),
        ("not sport = :22 sport = :80", &[1, 6, 7]),
        ("! src 10/8 && ! dst *:0", &[7]),
        // IPv4 prefixes take mapped addresses, IPv6 prefixes take no IPv4.
        ("src 10.0.0.5", &[3, 4, 5, 6]),
        ("src 10/255.0.0.0", &[3, 4, 5, 6]),
        ("src ::/0", &[1, 6, 7, 8]),
        ("dst 0.0.0.0/0", &[0, 2, 3, 4, 5, 6]),
        ("src [::1]:80", &[7]),
        ("src ::1:80", &[7]),
        ("src ::1", &[7]),
        ("src ::ffff:10.0.0.5", &[6]),
        ("src 10.0.0.5:22", &[4]),
        ("src *:80", &[1, 6, 7]),
        ("dst example.org", &[5]),
        ("dst any", &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("src != 10.0.0.5", &[0, 1, 2, 7, 8]),
        ("src inet6:[::1]", &[7]),
        ("sport = inet6:80", &[1, 6, 7]),
        ("dev eth0", &[8]),
        ("dev = 2", &[8]),
        ("dev != eth0", &[0, 1, 2, 3, 4, 5, 6, 7]),
        ("fwmark = 0x3/0xf", &[5]),
        ("fwmark 0x13", &[5]),
        ("cgroup = /system.slice", &[4]),
        ("autobound", &[5]),
        ("state established", &[4, 5, 6]),
        ("state established sport = :80", &[6]),
        ("state all exclude listening exclude established", &[3, 7, 8]),
        ("exclude unconnected", &[0, 1, 2, 4, 5, 6, 7]),
        ("state bucket", &[7]),
        // Blanks may be left out, and items are tests.
        ("(sport=:22) or (sport=:53)", &[0, 3, 4]),
        ("not nginx and tcp", &[0, 2, 4, 5, 7]),
        ("nginx or python3 and sport = :80", &[1, 6]),
    ];
    for (filter, expected) in cases {
        assert_eq!(selected(filter), *expected, "{filter}");
        let words = filter.split(' ').collect::<Vec<_>>();
        let by_words = Selection::parse(&words, None, &Fixture).unwrap();
        assert_eq!(by_words, parse(filter).unwrap(), "{filter} as words");
    }
}

#[test]
fn faults_are_named_with_their_place_and_a_remedy() {
    let cases = [
        ("70000", 0, "port 70000 is out of range: a port is 0 to 65535"),
        ("22 8100-8000", 3, "range 8100-8000 is reversed; write 8000-8100"),
        ("80-", 0, "`80-` is no port: neither a number"),
        ("[::1", 0, "the bracket of `[::1` is not closed; write [::1]:80"),
        (
            "10.0.0.0/33",
            9,
            "prefix length 33 is out of range: IPv4 has 32 bits",
        ),
        ("10.0.0.256", 0, "`10.0.0.256` is no address"),
        ("22,,80", 3, "a port is missing at the comma; write one comma"),
        (",80", 0, "a port is missing at the comma"),
        ("22,80,", 6, "a port is missing at the comma"),
        ("22,70000", 3, "port 70000 is out of range"),
        ("22,80-70000", 6, "port 70000 is out of range"),
        ("tcp port:22,nosuch", 12, "`nosuch` is no port"),
        ("10.0.0.1:70000", 9, "port 70000 is out of range"),
        ("dst 10.0.0.0/33", 13, "prefix length 33 is out of range"),
        ("nginx +80", 6, "a port has no sign; write the digits alone"),
        (
            "٨٠",
            0,
            "the digit '٨' (U+0668) is not an ASCII digit; write 0 to 9",
        ),
        ("+８０", 0, "a port has no sign"),
        ("80/tpc", 3, "`tpc` is no protocol"),
        ("pid:x", 4, "`x` is no process id"),
        (
            "sport = :22 and",
            15,
            "`and` wants a test such as sport = :22 after it",
        ),
        ("sport =", 7, "`sport` wants a port such as :22 after it"),
        ("sport = :70000", 9, "port 70000 is out of range"),
        ("sport = :nosuch", 9, "`nosuch` is no port"),
        (
            "sport > :twofold",
            8,
            "twofold has several ports; write the number",
        ),
        (
            "( sport = :22",
            0,
            "the parenthesis that opens here is never closed",
        ),
        (
            "sport = :22 )",
            12,
            "a parenthesis closes here that was never opened",
        ),
        ("dst = and", 6, "`and` stands where an address belongs"),
        ("dev > eth0", 4, "dev can be compared with = and != only"),
        ("dev nosuch", 4, "there is no network interface nosuch here"),
        ("fwmark x", 7, "`x` is no mark: write 0x1 or 0x1/0xff"),
        ("cgroup /none", 7, "there is no cgroup v2 at /none"),
        ("state foo", 6, "there is no state `foo`"),
        (
            "sport = :22 state established",
            12,
            "`state` and `exclude` come before the first test",
        ),
        ("src link:eth0", 4, "packet sockets are not listed here"),
        ("src nosuch.example", 4, "`nosuch.example` is no address"),
    ];
    for (filter, offset, expected) in cases {
        let error = parse(filter).unwrap_err();
        assert!(error.fault.to_string().starts_with(expected), "{filter}: {error}");
        assert_eq!(error.offset, offset, "{filter}: {error}");
        let line = error.to_string();
        assert!(!line.contains('\n') && line.len() < 400, "{line}");
    }
}

#[test]
fn limits_hold() {
    let deep = format!("{} tcp", "not ".repeat(1000));
    assert!(matches!(
        parse(&deep).unwrap_err().fault,
        FilterFault::TooDeep { .. }
    ));
    let long = "22 or ".repeat(5000);
    assert!(matches!(
        parse(&long).unwrap_err().fault,
        FilterFault::TooLong { .. }
    ));
    let wide = format!("{}sport = :22", "sport = :1 and sport = :2 or ".repeat(300));
    assert_eq!(selected(&wide), [0, 4]);
    let huge = parse(&"9".repeat(1 << 20)).unwrap_err().to_string();
    assert!(huge.len() < 400, "{huge}");
}

#[test]
fn families_of_their_own_have_their_own_addresses() {
    let mut machine = machine();
    let mut unix = machine.sockets[0].clone();
    unix.protocol = SocketProtocol::Unix;
    unix.family = Family::Unix;
    unix.local = SocketAddress::Unix {
        name: b"/run/docker.sock".as_slice().into(),
    };
    let mut abstract_name = unix.clone();
    abstract_name.local = SocketAddress::Unix {
        name: b"\0dbus".as_slice().into(),
    };
    let mut vsock = unix.clone();
    vsock.protocol = SocketProtocol::Vsock;
    vsock.family = Family::Vsock;
    vsock.local = SocketAddress::Vsock { cid: 3, port: 1024 };
    machine.sockets = vec![unix, abstract_name, vsock];
    let cases: &[(&str, Option<Family>, &[usize])] = &[
        ("src /run/*", None, &[0]),
        ("src unix:*DOCKER*", None, &[0]),
        ("src @dbus", None, &[1]),
        ("src *", Some(Family::Unix), &[0, 1]),
        ("/run/docker.sock", None, &[0]),
        ("src vsock:3", None, &[2]),
        ("src vsock:3:1024", None, &[2]),
        ("src vsock:4", None, &[]),
        ("sport = :1024", Some(Family::Vsock), &[2]),
        ("sport = vsock:1024", None, &[2]),
        ("sport = :1024", None, &[]),
    ];
    for (filter, hint, expected) in cases {
        let selection = Selection::parse(&[filter], *hint, &Fixture).unwrap();
        let matcher = Matcher::new(&selection, &machine, ProtocolSet::ALL, StateSet::ALL);
        let found = (0..3).filter(|index| matcher.matches(*index)).collect::<Vec<_>>();
        assert_eq!(found, *expected, "{filter}");
    }
}

#[test]
fn the_kernel_is_asked_for_no_more_than_needed() {
    let ports = |filter: &str, without_peers| {
        let ranges = parse(filter).unwrap().local_ports(without_peers)?;
        Some(
            ranges
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(","),
        )
    };
    assert_eq!(ports("22 8000-8100", true).as_deref(), Some("22,8000-8100"));
    assert_eq!(ports("22", false), None);
    assert_eq!(ports("ssh", true), None, "a process may be called ssh");
    assert_eq!(
        ports("sport = :22 and dst 10.0.0.1", false).as_deref(),
        Some("22")
    );
    assert_eq!(
        ports("not ( sport = :22 or sport = :80 )", false).as_deref(),
        Some("0-21,23-79,81-65535")
    );
    assert_eq!(ports("not src 10.0.0.1:22", false), None);
    assert_eq!(ports("sport > :65535", false).as_deref(), Some(""));
    let protocols = |filter: &str| parse(filter).unwrap().protocols().iter().collect::<Vec<_>>();
    assert_eq!(protocols("tcp 80"), [SocketProtocol::Tcp]);
    assert_eq!(protocols("80"), SocketProtocol::ALL);
    assert!(!protocols("not udp").contains(&SocketProtocol::Udp));
    assert_eq!(protocols("src unix:*"), [SocketProtocol::Unix]);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = parse(&text);
    }

    #[test]
    fn no_row_of_words_makes_it_panic(words in proptest::collection::vec(
        prop_oneof![
            Just("("), Just(")"), Just("not"), Just("and"), Just("or"), Just("sport"), Just("dst"), Just("="),
            Just(">="), Just(":22"), Just("10/8"), Just("[::1]:x"), Just("dev"), Just("fwmark"), Just("state"),
            Just("exclude"), Just("all"), Just("*"), Just("nginx"), Just("autobound"), Just("80-"), Just("é:%"),
        ], 0..12)) {
        let found = Selection::parse(&words, None, &Fixture);
        if let Err(error) = found {
            prop_assert!(error.to_string().len() < 400);
            prop_assert!(error.offset <= error.text.len());
        }
    }

    #[test]
    fn bounds_never_leave_out_a_socket_that_matches(words in proptest::collection::vec(
        prop_oneof![
            Just("not"), Just("and"), Just("or"), Just("sport = :22"), Just("sport > :79"), Just("dst 192.0.2.7"),
            Just("8080"), Just("nginx"), Just("src 10.0.0.5:22"), Just("53/udp"), Just("udp"), Just("autobound"),
        ], 1..9)) {
        let text = words.join(" ");
        if let Ok(selection) = parse(&text) {
            let machine = machine();
            let matcher = Matcher::new(&selection, &machine, ProtocolSet::ALL, StateSet::ALL);
            let ranges = selection.local_ports(false);
            for (index, socket) in machine.sockets.iter().enumerate().filter(|(index, _)| matcher.matches(*index)) {
                let port = socket.local.port().unwrap();
                prop_assert!(ranges.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(port))),
                    "{text}: socket {index}");
                prop_assert!(selection.protocols().contains(socket.protocol), "{text}: socket {index}");
            }
        }
    }
}
