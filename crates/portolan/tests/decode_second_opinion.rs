//! `portolan decode` beside tshark: the same captures, the same ports, flags and lengths for every packet.
//!
//! The captures are made here: one from random packets on every link type, one from real traffic in a network
//! namespace of its own. What the machine lacks for it is said loudly.
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use portolan_core::Port;
use portolan_core::wire::{
    ChecksumFill, CookedRepr, EtherType, EthernetRepr, ExtensionRepr, Fragment, Icmpv4Message, Icmpv6Message,
    IpProtocol, Ipv4Repr, Ipv6Repr, LinkType, MacAddress, PacketDirection, PseudoHeader, SackBlock, SeqNum,
    TcpFlags, TcpOption, TcpOptionBlock, TcpRepr, UdpRepr, VlanTag,
};
use serde_json::Value;

/// What is asked of tshark, each beside the place where our JSON has it.
const FIELDS: [(&str, Ask); 17] = [
    ("frame.len", |packet| text(&packet["length"])),
    ("frame.cap_len", |packet| text(&packet["captured"])),
    ("ip.src", |packet| address(packet, 4, "source")),
    ("ip.dst", |packet| address(packet, 4, "destination")),
    ("ipv6.src", |packet| address(packet, 6, "source")),
    ("ipv6.dst", |packet| address(packet, 6, "destination")),
    ("tcp.srcport", |packet| of("tcp", packet, "source_port")),
    ("tcp.dstport", |packet| of("tcp", packet, "destination_port")),
    ("tcp.flags", flags),
    ("tcp.len", |packet| of("tcp", packet, "payload_length")),
    ("tcp.hdr_len", |packet| of("tcp", packet, "header_length")),
    ("tcp.seq_raw", |packet| of("tcp", packet, "seq")),
    ("tcp.window_size_value", |packet| of("tcp", packet, "window")),
    ("tcp.option_kind", option_kinds),
    ("udp.srcport", |packet| of("udp", packet, "source_port")),
    ("udp.dstport", |packet| of("udp", packet, "destination_port")),
    ("udp.length", |packet| {
        let length = of("udp", packet, "payload_length");
        length
            .parse::<u32>()
            .map_or(length, |length| (length + 8).to_string())
    }),
];

/// Takes a field out of our JSON, as tshark would write it.
type Ask = fn(&Value) -> String;

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn address(packet: &Value, version: u64, end: &str) -> String {
    let ip = &packet["ip"];
    if ip["version"] == version {
        text(&ip[end])
    } else {
        String::new()
    }
}

/// A field of the transport header, if there is one of this protocol.
fn of(protocol: &str, packet: &Value, field: &str) -> String {
    let transport = &packet["transport"];
    let is_read = transport["header_length"] != 0;
    if transport["protocol"] == protocol && is_read {
        text(&transport[field])
    } else {
        String::new()
    }
}

fn flags(packet: &Value) -> String {
    let Some(names) = packet["transport"]["flags"].as_array() else {
        return String::new();
    };
    let bits = names
        .iter()
        .map(|name| TcpFlags::from_name(name.as_str().unwrap()).unwrap().bits())
        .sum::<u16>();
    format!("0x{bits:04x}")
}

fn option_kinds(packet: &Value) -> String {
    let Some(options) = packet["transport"]["options"].as_array() else {
        return String::new();
    };
    let kinds = options
        .iter()
        .map(|option| text(&option["kind"]))
        .collect::<Vec<_>>();
    kinds.join(",")
}

/// Compares every packet of `capture`; gives how many there were, or `None` without tshark.
fn compare(capture: &Path) -> Option<usize> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(capture);
    tshark.args([
        "-o",
        "ip.defragment:FALSE",
        "-o",
        "ipv6.defragment:FALSE",
        "-o",
        "tcp.desegment_tcp_streams:FALSE",
    ]);
    // Fields of quoted packets come behind those of the packet itself.
    tshark.args([
        "-T",
        "fields",
        "-E",
        "separator=|",
        "-E",
        "occurrence=a",
        "-E",
        "aggregator=,",
    ]);
    for (field, _) in FIELDS {
        tshark.args(["-e", field]);
    }
    tshark.args(["-e", "icmp.type", "-e", "icmpv6.type"]);
    let theirs = match tshark.output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: no comparison with tshark: {error} (apt-get install tshark)");
            return None;
        }
    };
    assert!(
        theirs.status.success(),
        "{}",
        String::from_utf8_lossy(&theirs.stderr)
    );
    let theirs = String::from_utf8(theirs.stdout).unwrap();
    let ours = Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["decode", "--ndjson", "--services", "/dev/null"])
        .arg(capture)
        .output()
        .unwrap();
    assert!(ours.status.success(), "{}", String::from_utf8_lossy(&ours.stderr));
    let ours = String::from_utf8(ours.stdout).unwrap();
    assert_eq!(
        ours.lines().count(),
        theirs.lines().count(),
        "packets in {}",
        capture.display()
    );
    let mut seen = [false; FIELDS.len()];
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        let packet: Value = serde_json::from_str(ours).unwrap();
        let theirs = theirs.split('|').collect::<Vec<_>>();
        let icmp = theirs[FIELDS.len()..]
            .iter()
            .find_map(|kind| kind.parse::<u64>().ok());
        assert_eq!(
            packet["transport"]["icmp"]["type"].as_u64(),
            icmp,
            "icmp type: {ours}"
        );
        for (((name, ask), theirs), seen) in FIELDS.iter().zip(&theirs).zip(&mut seen) {
            let ours = ask(&packet);
            *seen |= !ours.is_empty();
            let theirs = match *name {
                "tcp.option_kind" => options(theirs),
                // An ICMP error's own addresses come first; the ports are all the quoted packet's.
                _ if icmp.is_some() && (name.starts_with("tcp") || name.starts_with("udp")) => String::new(),
                _ => theirs.split(',').next().unwrap_or("").to_owned(),
            };
            let theirs = if *name == "tcp.option_kind" && icmp.is_some() {
                String::new()
            } else {
                theirs
            };
            assert_eq!(ours, theirs, "{name} of {packet}");
        }
    }
    // A comparison of nothing with nothing proves nothing.
    assert_eq!(
        seen,
        [true; FIELDS.len()],
        "fields that no packet of {} has",
        capture.display()
    );
    Some(ours.lines().count())
}

/// The kinds that tshark lists, without the end-of-list, which we do not count as an option.
fn options(kinds: &str) -> String {
    let kinds = kinds.split(',').filter(|kind| *kind != "0").collect::<Vec<_>>();
    kinds.join(",")
}

/// Numbers from a seed (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn tcp_options(random: &mut Random) -> TcpOptionBlock {
    let blocks = [(1, 2), (3, 4)].map(|(left, right)| SackBlock::new(SeqNum::new(left), SeqNum::new(right)));
    let digest = [7; 16];
    let cookie = [1, 2, 3, 4, 5, 6, 7, 8];
    let mut block = TcpOptionBlock::new();
    for _ in 0..random.below(5) {
        let number = random.next();
        let option = match random.below(9) {
            0 => TcpOption::NoOperation,
            1 => TcpOption::MaximumSegmentSize(number as u16),
            2 => TcpOption::WindowScale((number % 15) as u8),
            3 => TcpOption::SackPermitted,
            4 => TcpOption::Sack(&blocks[..1 + number as usize % 2]),
            5 => TcpOption::Timestamps {
                value: number,
                echo_reply: !number,
            },
            6 => TcpOption::Md5Signature(&digest),
            7 => TcpOption::UserTimeout {
                minutes: number.is_multiple_of(2),
                value: 300,
            },
            _ => TcpOption::FastOpenCookie(&cookie),
        };
        // What does not fit any more is left out.
        let _ = block.push(option);
    }
    block
}

/// A random IP packet: either version, TCP, UDP or ICMP, with options, extension headers and fragments.
fn packet(random: &mut Random) -> Vec<u8> {
    let six = random.below(2) == 0;
    let [a, b] = [random.next(), random.next()];
    let (source, destination): (IpAddr, IpAddr) = if six {
        let address = |number: u32| Ipv6Addr::from(0x2001_0DB8_u128 << 96 | u128::from(number));
        (address(a).into(), address(b).into())
    } else {
        let address = |number: u32| Ipv4Addr::from(10 << 24 | number >> 8);
        (address(a).into(), address(b).into())
    };
    let pseudo = PseudoHeader::new(source, destination).unwrap();
    let fill = ChecksumFill::Complete(pseudo);
    // High ports, so that tshark does not take the random payload for a protocol.
    let [source_port, destination_port] =
        [random.next(), random.next()].map(|port| Port::new(50_000 + (port % 15_000) as u16));
    let payload_len = random.below(100) as usize;
    let payload = random.bytes(payload_len);
    let (protocol, segment) = match random.below(5) {
        0 | 1 => {
            let options = tcp_options(random);
            let repr = TcpRepr {
                source_port,
                destination_port,
                seq: SeqNum::new(random.next()),
                ack: SeqNum::new(random.next()),
                flags: TcpFlags::from_bits_truncate(random.next() as u16),
                window: random.next() as u16,
                urgent_pointer: 0,
                options: options.as_bytes(),
            };
            let mut segment = vec![0; repr.header_len()];
            segment.extend(&payload);
            repr.emit(&mut segment, fill).unwrap();
            (IpProtocol::TCP, segment)
        }
        2 | 3 => {
            let mut segment = vec![0; 8];
            segment.extend(&payload);
            UdpRepr {
                source_port,
                destination_port,
            }
            .emit(&mut segment, fill)
            .unwrap();
            (IpProtocol::UDP, segment)
        }
        _ if six => {
            let mut message = vec![0; 8];
            message.extend(&payload);
            Icmpv6Message::EchoRequest {
                identifier: 1,
                sequence: 2,
            }
            .emit(&mut message, fill)
            .unwrap();
            (IpProtocol::ICMPV6, message)
        }
        _ => {
            let mut message = vec![0; 8];
            let quoted = [
                &[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..],
                &[0xC3, 0x50, 0xC3, 0x51, 0, 20, 0, 0],
            ];
            message.extend(quoted.concat());
            Icmpv4Message::DestinationUnreachable {
                code: 3,
                next_hop_mtu: 0,
            }
            .emit(&mut message)
            .unwrap();
            (IpProtocol::ICMP, message)
        }
    };
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let repr = Ipv4Repr {
                dscp: 0,
                ecn: 0,
                identification: random.next() as u16,
                dont_fragment: false,
                more_fragments: false,
                fragment_offset: if random.below(8) == 0 { 1480 } else { 0 },
                time_to_live: 64,
                protocol,
                source,
                destination,
                options: if random.below(4) == 0 {
                    &[1, 148, 4, 0, 0, 1, 1, 0]
                } else {
                    &[]
                },
                payload_len: segment.len(),
            };
            let mut packet = vec![0; repr.header_len()];
            repr.emit(&mut packet).unwrap();
            packet.extend(segment);
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let padding = [1, 4, 0, 0, 0, 0];
            let mut chain = Vec::new();
            if random.below(4) == 0 {
                chain.push(ExtensionRepr::Other {
                    kind: IpProtocol::HOP_BY_HOP,
                    body: &padding,
                });
            }
            if random.below(4) == 0 {
                chain.push(ExtensionRepr::Other {
                    kind: IpProtocol::DESTINATION_OPTIONS,
                    body: &padding,
                });
            }
            if random.below(6) == 0 {
                let offset = if random.below(2) == 0 { 1440 } else { 0 };
                chain.push(ExtensionRepr::Fragment(Fragment {
                    offset,
                    more: false,
                    identification: a,
                }));
            }
            let mut rest = Vec::new();
            for (place, header) in chain.iter().enumerate() {
                let next = chain.get(place + 1).map_or(protocol, ExtensionRepr::kind);
                let mut bytes = vec![0; header.header_len()];
                header.emit(next, &mut bytes).unwrap();
                rest.extend(bytes);
            }
            rest.extend(segment);
            let repr = Ipv6Repr {
                dscp: 0,
                ecn: 0,
                flow_label: 0,
                next_header: chain.first().map_or(protocol, ExtensionRepr::kind),
                hop_limit: 64,
                source,
                destination,
                payload_len: rest.len(),
            };
            let mut packet = vec![0; 40];
            repr.emit(&mut packet).unwrap();
            packet.extend(rest);
            packet
        }
        _ => unreachable!("one family"),
    }
}

/// Puts what `link` demands before an IP packet.
fn framed(link: LinkType, ip: &[u8], random: &mut Random) -> Vec<u8> {
    let six = ip[0] >> 4 == 6;
    let ethertype = if six { EtherType::IPV6 } else { EtherType::IPV4 };
    let cooked = |interface| CookedRepr {
        interface,
        device_type: 1,
        direction: PacketDirection::FromUs,
        address_len: 6,
        address: [2, 0, 0, 0, 0, 1, 0, 0],
        protocol: ethertype,
    };
    let mut frame = vec![0; 22];
    let len = match link {
        LinkType::Ethernet => {
            let tag = |control| VlanTag {
                protocol: EtherType::VLAN,
                control,
            };
            let tags = match random.below(3) {
                0 => [None, None],
                1 => [Some(tag(5)), None],
                _ => [Some(tag(5)), Some(tag(0x2006))],
            };
            let (destination, source) = (MacAddress([2, 0, 0, 0, 0, 2]), MacAddress([2, 0, 0, 0, 0, 1]));
            EthernetRepr {
                destination,
                source,
                tags,
                ethertype,
            }
            .emit(&mut frame)
            .unwrap()
        }
        LinkType::CookedV1 => cooked(None).emit(&mut frame).unwrap(),
        LinkType::CookedV2 => cooked(Some(3)).emit(&mut frame).unwrap(),
        LinkType::Null => {
            frame[..4].copy_from_slice(&if six { 30u32 } else { 2 }.to_le_bytes());
            4
        }
        _ => 0,
    };
    frame.truncate(len);
    frame.extend(ip);
    // The least an Ethernet frame has, without its check sequence.
    if link == LinkType::Ethernet && frame.len() < 60 {
        frame.resize(60, 0);
    }
    frame
}

#[test]
fn random_packets_on_every_link_type() {
    let dir = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for (place, link) in [
        LinkType::Ethernet,
        LinkType::Ip,
        LinkType::CookedV1,
        LinkType::CookedV2,
        LinkType::Null,
    ]
    .into_iter()
    .enumerate()
    {
        let seed = 0x9E37_79B9_7F4A_7C15 ^ place as u64;
        println!("link {} from seed {seed:#x}", link.name());
        let mut random = Random(seed);
        let words = |words: &[u32]| {
            words
                .iter()
                .flat_map(|word| word.to_le_bytes())
                .collect::<Vec<_>>()
        };
        let mut file = words(&[0xA1B2_3C4D, 0x0004_0002, 0, 0, 65_535, link.number()]);
        for second in 0..400 {
            let ip = packet(&mut random);
            let frame = framed(link, &ip, &mut random);
            // Some are captured only in part, but with their headers whole.
            let cut = if random.below(5) == 0 {
                frame.len() - frame.len().min(20) / 4
            } else {
                frame.len()
            };
            let captured = if frame.len() > 160 { cut } else { frame.len() };
            file.extend(words(&[second, 1, captured as u32, frame.len() as u32]));
            file.extend(&frame[..captured]);
        }
        let path = dir.path().join(link.name());
        fs::write(&path, file).unwrap();
        compared += compare(&path).unwrap_or(0);
    }
    println!("{compared} packets compared with tshark");
}

/// Set in the process that runs inside the namespace: where to put the captures.
const INSIDE: &str = "PORTOLAN_TEST_CAPTURES";

#[test]
fn real_traffic_of_a_namespace() {
    if let Ok(dir) = std::env::var(INSIDE) {
        capture_traffic(Path::new(&dir));
        return;
    }
    if let Err(error) = Command::new("tcpdump").arg("--version").output() {
        println!("skipped: no real traffic was captured: tcpdump: {error} (apt-get install tcpdump)");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .args(namespace())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "real_traffic_of_a_namespace", "--nocapture"])
        .env(INSIDE, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare failed") || said.contains("skipped:") {
        println!("skipped: no real traffic was captured: {said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    let mut compared = 0;
    for name in CAPTURES.map(|(_, name)| name) {
        let count = compare(&dir.path().join(name));
        assert!(count.is_none_or(|count| count > 20), "{name}: {count:?}");
        compared += count.unwrap_or(0);
    }
    // Both in one pcapng: two interfaces with different link types, in the order of time.
    let both = dir.path().join("both.pcapng");
    let captures = CAPTURES.map(|(_, name)| dir.path().join(name));
    match Command::new("mergecap")
        .arg("-w")
        .arg(&both)
        .args(captures)
        .status()
    {
        Ok(status) => {
            assert!(status.success());
            compared += compare(&both).unwrap_or(0);
        }
        Err(error) => println!("skipped: no pcapng with two interfaces: mergecap: {error}"),
    }
    println!("{compared} packets compared with tshark");
}

/// How to get a network namespace. An ordinary user needs a user namespace for it, and keeps its own user
/// there: as root of one, tcpdump would try to become another user and fail.
fn namespace() -> &'static [&'static str] {
    if is_root() {
        &["--net"]
    } else {
        &["--user", "--map-current-user", "--keep-caps", "--net"]
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().unwrap();
    output.stdout.trim_ascii() == b"0"
}

/// Device and file: Ethernet, and Linux cooked v2.
const CAPTURES: [(&str, &str); 2] = [("lo", "lo.pcap"), ("any", "any.pcap")];

/// The last datagram carries this, so that it is known when all was captured.
const MARK: &[u8] = b"the traffic ends here";

fn capture_traffic(dir: &Path) {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !up.is_ok_and(|status| status.success()) {
        println!("skipped: the loopback device could not be set up");
        return;
    }
    let mut captures = Vec::new();
    for (device, name) in CAPTURES {
        match tcpdump(device, &dir.join(name)) {
            Ok(child) => captures.push(child),
            Err(said) => {
                println!("skipped: tcpdump could not capture: {said}");
                for mut child in captures {
                    child.kill().unwrap();
                    child.wait().unwrap();
                }
                return;
            }
        }
    }
    speak(IpAddr::V4(Ipv4Addr::LOCALHOST));
    speak(IpAddr::V6(Ipv6Addr::LOCALHOST));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for ((_, name), mut child) in CAPTURES.into_iter().zip(captures) {
        let holds_mark = || {
            let content = fs::read(dir.join(name)).unwrap();
            content.windows(MARK.len()).any(|window| window == MARK)
        };
        for _ in 0..1000 {
            if holds_mark() {
                break;
            }
            socket.send_to(MARK, "127.0.0.1:50001").unwrap();
            thread::sleep(Duration::from_millis(10));
        }
        // An interrupt lets it write its last packet to the end.
        let interrupted = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(interrupted.unwrap().success());
        child.wait().unwrap();
        assert!(holds_mark(), "{name} lacks the last datagram");
    }
}

/// Starts a capture and waits until it listens.
fn tcpdump(device: &str, file: &Path) -> Result<Child, String> {
    let log = file.with_extension("log");
    let mut command = Command::new("tcpdump");
    if is_root() {
        command.args(["-Z", "root"]);
    }
    let mut child = command
        // Short slots, many of them: nothing is lost, and long packets come cut.
        .args(["--immediate-mode", "-U", "-s", "400", "-B", "8192", "-i", device, "-w"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .map_err(|error| error.to_string())?;
    loop {
        let said = fs::read_to_string(&log).unwrap();
        if said.contains("listening on") {
            return Ok(child);
        }
        if child.try_wait().unwrap().is_some() {
            return Err(said);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A conversation over TCP, a refused connection, and datagrams to a closed and to an open port.
fn speak(address: IpAddr) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        stream.write_all(&vec![7; 200_000]).unwrap();
    });
    let mut client = TcpStream::connect((address, port)).unwrap();
    client.write_all(b"any question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), 200_000);
    server.join().unwrap();
    // The listener is gone: its port refuses.
    assert!(TcpStream::connect((address, port)).is_err());
    let receiver = UdpSocket::bind((address, 0)).unwrap();
    let sender = UdpSocket::bind((address, 0)).unwrap();
    for len in [0, 5, 60_000] {
        sender
            .send_to(&vec![1; len], receiver.local_addr().unwrap())
            .unwrap();
        sender.send_to(&vec![2; len], (address, 50_002)).unwrap();
    }
}
