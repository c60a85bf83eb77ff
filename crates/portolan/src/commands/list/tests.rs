//! What a person and a program see of a machine made up for the purpose.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt as _;

use clap::Parser as _;
use portolan_core::Port;
use portolan_host::{
    Container, Hidden, ListenerRef, Owner, Ownerless, OwnerlessReason, Ownership, Process, Queues, Socket,
    SocketAddress, Space, SpaceId, SpaceName, StartTime, TcpInfo,
};
use serde_json::{Value, json};

use super::*;
use crate::text::wrap::width;

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn end(text: &str) -> SocketAddress {
    let (address, port) = text.rsplit_once(':').unwrap();
    SocketAddress::Inet {
        address: address.trim_matches(['[', ']']).parse::<IpAddr>().unwrap(),
        port: Port::new(port.parse().unwrap()),
    }
}

fn socket(protocol: SocketProtocol, state: State, local: &str, remote: Option<&str>) -> Socket {
    let local = end(local);
    let ipv6 = local.ip().unwrap().is_ipv6();
    Socket {
        protocol,
        family: if ipv6 { Family::Ipv6 } else { Family::Ipv4 },
        state,
        local,
        remote: remote.map(end),
        space: SpaceId(0),
        inode: 4711,
        uid: Some(33),
        cookie: 1,
        device: 0,
        mark: Some(0),
        cgroup: Some(77),
        v6_only: ipv6.then_some(false),
        queues: Queues {
            receive: 0,
            send: 128,
        },
        tcp_info: None,
    }
}

fn process(pid: i32, name: &[u8], user: &str, unit: Option<&str>) -> Process {
    Process {
        pid,
        parent: 1,
        start_time: StartTime(1),
        name: OsString::from_vec(name.to_vec()),
        exe: Some("/usr/sbin/program".into()),
        cwd: None,
        command_line: vec!["program".into(), "-g".into(), "daemon off;".into()],
        uid: 33,
        user: Some(user.to_owned()),
        cgroup: Some("/system.slice/program.service".into()),
        unit: unit.map(str::to_owned),
        container: None,
    }
}

fn held(pids: &[i32]) -> Ownership {
    Ownership::Held(
        pids.iter()
            .map(|pid| Owner {
                pid: *pid,
                fds: [6].into_iter().collect(),
            })
            .collect(),
    )
}

fn nobody(reason: OwnerlessReason) -> Ownership {
    let listener = ListenerRef {
        port: Port::new(80),
        inode: Some(4711),
        pid: Some(812),
        candidates: 1,
    };
    Ownership::Nobody(Ownerless {
        reason,
        listener: (reason == OwnerlessReason::AcceptQueue).then_some(listener),
    })
}

fn machine() -> Snapshot {
    use SocketProtocol::{Tcp, Udp};
    use State::{Established, Listen, TimeWait, Unconnected};
    let mut v6_only = socket(Tcp, Listen, "[::]:80", None);
    v6_only.v6_only = Some(true);
    let mut link_local = socket(Udp, Unconnected, "[fe80::1]:546", None);
    link_local.device = 2;
    let mut connection = socket(Tcp, Established, "10.0.0.5:80", Some("192.0.2.7:50000"));
    connection.tcp_info = Some(Box::new(TcpInfo {
        rtt_us: 31_500,
        snd_cwnd: 10,
        ..TcpInfo::default()
    }));
    connection.queues = Queues {
        receive: 3,
        send: 1500,
    };
    let mut rest = socket(Tcp, TimeWait, "10.0.0.5:80", Some("192.0.2.8:50001"));
    rest.inode = 0;
    rest.uid = None;
    let mut hidden = socket(Tcp, Listen, "127.0.0.1:9999", None);
    // The one user that every system has.
    hidden.uid = Some(0);
    let entries = vec![
        (socket(Tcp, Listen, "0.0.0.0:80", None), held(&[812, 813, 814])),
        (v6_only, held(&[812, 813, 814])),
        (socket(Udp, Unconnected, "127.0.0.53:53", None), held(&[300])),
        (socket(Udp, Unconnected, "127.0.0.54:53", None), held(&[300])),
        (socket(Tcp, Listen, "[::]:22", None), held(&[1])),
        (socket(Tcp, Listen, "10.0.0.5:5432", None), held(&[77])),
        (link_local, held(&[300])),
        (hidden, nobody(OwnerlessReason::OtherUser)),
        (
            socket(Tcp, Listen, "[2001:db8:1:2:3:4:5:6]:65535", None),
            held(&[666]),
        ),
        (connection, held(&[812])),
        (rest, nobody(OwnerlessReason::TimeWait)),
        (
            socket(Tcp, Established, "10.0.0.5:80", Some("192.0.2.9:50002")),
            nobody(OwnerlessReason::AcceptQueue),
        ),
    ];
    let mut space = Space::new(SpaceName::Host, 4_026_531_840);
    space.devices.insert(2, "eth0".to_owned());
    let mut contained = process(77, b"postgres", "postgres", Some("docker.service"));
    contained.container = Some(Container {
        engine: "docker",
        id: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".to_owned(),
    });
    let (sockets, ownership) = entries.into_iter().unzip();
    Snapshot {
        spaces: vec![space],
        sockets,
        ownership,
        processes: [
            process(1, b"systemd", "root", Some("init.scope")),
            process(
                300,
                b"systemd-resolve",
                "systemd-resolve",
                Some("systemd-resolved.service"),
            ),
            process(812, b"nginx", "root", Some("nginx.service")),
            process(813, b"nginx", "www-data", Some("nginx.service")),
            process(814, b"nginx", "www-data", Some("nginx.service")),
            process(666, b"e\x1b[31m\nv\xff", "eve", None),
            contained,
        ]
        .into_iter()
        .map(|process| (process.pid, process))
        .collect(),
        hidden: Hidden {
            owners: 1,
            spaces: 0,
            remedy: Some("run as root".to_owned()),
        },
        ..Snapshot::default()
    }
}

thread_local! {
    static ASCII: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// What the command line prints of the machine, and the columns that it left out.
fn printed(line: &str, columns: Option<usize>, colour: bool) -> (String, Vec<&'static str>) {
    let words = ["list"]
        .into_iter()
        .chain(line.split(' ').filter(|word| !word.is_empty()));
    let args = Line::try_parse_from(words).unwrap().args;
    let services = Services::built_in();
    let wanted = Wanted::new(&args, &services).unwrap();
    let machine = machine();
    let rows = wanted.rows(&machine, &services, &args);
    let look = Look {
        width: columns,
        colour,
        headers: !args.no_headers,
        unicode: !ASCII.get(),
    };
    let mut out = Vec::new();
    let dropped = wanted
        .write(&args, look, &machine, &services, &rows, &mut out)
        .unwrap();
    (String::from_utf8(out).unwrap(), dropped)
}

fn document(line: &str) -> Value {
    serde_json::from_str(&printed(line, None, false).0).unwrap()
}

#[test]
fn at_160_columns_everything_has_a_line() {
    let (text, dropped) = printed("", Some(160), false);
    assert_eq!(text, include_str!("tests/160.txt"));
    assert!(dropped.is_empty());
}

#[test]
fn at_80_columns_cells_wrap_and_the_least_needed_column_goes() {
    let (text, dropped) = printed("", Some(80), false);
    assert_eq!(text, include_str!("tests/80.txt"));
    assert_eq!(dropped, ["UNIT/CONTAINER"]);
}

#[test]
fn at_32_columns_ports_and_owners_are_left_and_whole() {
    let (text, dropped) = printed("", Some(32), false);
    assert_eq!(text, include_str!("tests/32.txt"));
    assert_eq!(dropped, ["SERVICE", "REACH", "USER", "UNIT/CONTAINER"]);
}

#[test]
fn no_line_is_wider_than_the_terminal_and_no_port_is_cut() {
    for line in ["", "-a", "-o wide -a", "-a -i"] {
        for columns in 26..200 {
            let (text, _) = printed(line, Some(columns), false);
            for line in text.lines() {
                assert!(width(line) <= columns, "{columns}: {line}");
            }
            assert!(
                text.contains(":5432") && text.contains("]:65535"),
                "{columns}: {text}"
            );
        }
    }
}

#[test]
fn a_pipe_gets_whole_lines_one_a_row() {
    let (text, _) = printed("", None, false);
    assert_eq!(text, include_str!("tests/pipe.txt"));
    let (text, _) = printed("-a --no-headers 80", None, false);
    assert_eq!(text, include_str!("tests/connections.txt"));
}

#[test]
fn a_locale_without_unicode_gets_ascii() {
    ASCII.set(true);
    let (text, _) = printed("nginx", None, false);
    ASCII.set(false);
    assert!(text.is_ascii() && text.contains("nginx x3 (812...)"), "{text}");
}

#[test]
fn colour_is_only_where_it_is_wanted_and_changes_no_letter() {
    let (plain, _) = printed("-a", Some(160), false);
    let (coloured, _) = printed("-a", Some(160), true);
    assert!(!plain.contains('\x1b') && coloured.contains("\x1b[1mPROTO"));
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
}

#[test]
fn no_process_name_steers_the_terminal() {
    for line in ["", "-o wide", "--csv", "-q"] {
        let (text, _) = printed(line, None, false);
        assert!(
            !text.contains('\x1b') && text.lines().all(|line| !line.contains("\u{fffd}")),
            "{line}: {text}"
        );
    }
    let (text, _) = printed("pid:666", None, false);
    assert!(text.contains(r"e\x1b[31m\nv\xff (666)"), "{text}");
    let document = document("--json pid:666");
    assert_eq!(document["sockets"][0]["owners"][0]["name"], "e\u{1b}[31m\nv\\xff");
}

#[test]
fn every_holder_and_each_socket_is_shown_where_there_is_room() {
    let (text, _) = printed("-o wide 80", None, false);
    let rows = text.lines().skip(1).collect::<Vec<_>>();
    assert_eq!(rows.len(), 2, "a row for each socket: {text}");
    for row in rows {
        for part in [
            "nginx (812), nginx (813), nginx (814)",
            "812:6,813:6,814:6",
            " 128 ",
        ] {
            assert!(row.contains(part), "{part}: {row}");
        }
    }
    let (text, _) = printed("--csv 80", None, false);
    assert!(
        text.contains("\"nginx (812), nginx (813), nginx (814)\"") && text.contains("\"812:6,813:6,814:6\""),
        "{text}"
    );
    // One holder needs no number.
    assert!(printed("--csv 22", None, false).0.contains(",6,"));
}

#[test]
fn a_units_name_can_be_typed_again() {
    let mut machine = machine();
    let unit = "rv\\x2dte\u{1b}st.service";
    machine.processes.get_mut(&1).unwrap().unit = Some(unit.to_owned());
    let services = Services::built_in();
    let look = Look {
        width: None,
        colour: false,
        headers: false,
        unicode: true,
    };
    let socket = machine
        .sockets
        .iter()
        .position(|socket| socket.local.port().is_some_and(|port| port.get() == 22));
    let mut text = String::new();
    Source::new(&machine, &services, look)
        .write(Cell::Unit, &[socket.unwrap() as u32], &mut text)
        .unwrap();
    assert_eq!(text, r"rv\x2dte\x1bst.service");
}

#[test]
fn whose_a_hidden_socket_is_has_a_name() {
    let mut machine = machine();
    let hidden = machine
        .sockets
        .iter()
        .position(|socket| socket.local.port().is_some_and(|port| port.get() == 9999));
    let hidden = hidden.unwrap();
    let services = Services::built_in();
    let look = Look {
        width: None,
        colour: false,
        headers: false,
        unicode: true,
    };
    for (uid, expected) in [
        (0, "hidden, of root"),
        (4_000_000_123, "hidden, of uid 4000000123"),
    ] {
        machine.sockets[hidden].uid = Some(uid);
        let mut text = String::new();
        Source::new(&machine, &services, look)
            .write(Cell::Owner, &[hidden as u32], &mut text)
            .unwrap();
        assert_eq!(text, expected);
    }
}

#[test]
fn spaces_have_a_column_where_there_is_another_than_the_hosts() {
    let mut machine = machine();
    machine
        .spaces
        .push(Space::new(SpaceName::Mounted("blue".to_owned()), 7));
    let args = Line::try_parse_from(["list"]).unwrap().args;
    let services = Services::built_in();
    let wanted = Wanted::new(&args, &services).unwrap();
    let look = Look {
        width: None,
        colour: false,
        headers: true,
        unicode: true,
    };
    let print = |machine: &Snapshot| {
        let rows = wanted.rows(machine, &services, &args);
        let mut out = Vec::new();
        wanted
            .write(&args, look, machine, &services, &rows, &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    };
    assert!(!print(&machine).contains("SPACE"));
    // The same process, the same port, in another space: not one row.
    machine.sockets[1].space = SpaceId(1);
    let text = print(&machine);
    assert!(
        text.contains("SPACE") && text.contains("blue") && !text.contains("0.0.0.0:80,"),
        "{text}"
    );
}

#[test]
fn quiet_prints_addresses_alone() {
    let (text, _) = printed("-q 80 53", None, false);
    assert_eq!(
        text,
        "udp 127.0.0.53:53\nudp 127.0.0.54:53\ntcp 0.0.0.0:80\ntcp [::]:80\n"
    );
}

#[test]
fn rows_are_ordered_as_asked() {
    let first = |line: &str| {
        let (text, _) = printed(line, None, false);
        text.lines()
            .map(|line| line.split_whitespace().nth(1).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(first("-H --sort port")[0], "[::]:22");
    assert_eq!(first("-H --sort port,desc")[0], "[2001:db8:1:2:3:4:5:6]:65535");
    assert_eq!(first("-H --sort address")[0], "0.0.0.0:80,[::]:80");
    assert_eq!(first("-H --sort user")[0], "[2001:db8:1:2:3:4:5:6]:65535");
    assert_eq!(first("-H --sort pid")[0], "[::]:22");
    assert_eq!(first("-H --sort owner").last().unwrap(), "127.0.0.1:9999");
    assert_eq!(first("-H -a --sort recv,desc")[0], "established");
    assert!("nonsense".parse::<args::Sort>().is_err() && "port,up".parse::<args::Sort>().is_err());
}

#[test]
fn the_document_has_the_agreed_shape() {
    let document = document("--json -a");
    assert_eq!(document["version"], 1);
    assert_eq!(
        document["hidden"],
        json!({"owners": 1, "spaces": 0, "remedy": "run as root"})
    );
    let sockets = document["sockets"].as_array().unwrap();
    assert_eq!(
        sockets.len(),
        machine().sockets.len(),
        "sockets are never grouped"
    );
    let find = |port: u64, state: &str| {
        let mut found = sockets
            .iter()
            .filter(|socket| socket["local"]["port"] == port && socket["state"] == state);
        found.next().unwrap()
    };
    for socket in sockets {
        assert_eq!(
            socket["ownerless"].is_null(),
            !socket["owners"].as_array().unwrap().is_empty(),
            "{socket}"
        );
    }
    assert_eq!(
        find(5432, "listen"),
        &json!({
            "protocol": "tcp", "family": "ipv4", "state": "listen",
            "local": {"address": "10.0.0.5", "port": 5432, "zone": null}, "remote": null,
            "service": "postgresql", "space": "host", "inode": 4711, "uid": 33,
            "owners": [{
                "pid": 77, "name": "postgres", "exe": "/usr/sbin/program",
                "command_line": ["program", "-g", "daemon off;"], "user": "postgres", "uid": 33,
                "unit": "docker.service",
                "container": {
                    "engine": "docker",
                    "id": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                },
                "cgroup": "/system.slice/program.service", "fds": [6],
            }],
            "ownerless": null,
            "reach": {"verdict": "open", "sources": ["0.0.0.0/0"], "because": ["bound to 10.0.0.5"]},
            "queues": {"receive": 0, "send": 128}, "device": null, "mark": 0, "cgroup_id": 77,
            "v6_only": null, "tcp_info": null,
        })
    );
    assert_eq!(
        find(80, "time-wait")["ownerless"],
        json!({"reason": "time-wait", "text": "closed, resting in TIME-WAIT", "listener": null})
    );
    assert!(find(80, "time-wait")["reach"].is_null());
    assert_eq!(find(546, "unconnected")["local"]["zone"], "eth0");
    let waiting = sockets
        .iter()
        .find(|socket| socket["ownerless"]["reason"] == "accept-queue")
        .unwrap();
    assert_eq!(
        waiting["ownerless"]["listener"],
        json!({"port": 80, "inode": 4711, "pid": 812})
    );
    let established = sockets
        .iter()
        .find(|socket| !socket["tcp_info"].is_null())
        .unwrap();
    assert_eq!(established["tcp_info"]["rtt_us"], 31_500);
    assert_eq!(
        established["remote"],
        json!({"address": "192.0.2.7", "port": 50_000, "zone": null})
    );
}

#[test]
fn every_field_is_documented() {
    let guide = include_str!("../../../../../docs/json.md");
    let mut fields = BTreeSet::new();
    collect_fields(&document("--json -a"), &mut fields);
    let missing = fields
        .iter()
        .filter(|field| !guide.contains(&format!("`{field}`")) && !guide.contains(&format!(".{field}`")))
        .collect::<Vec<_>>();
    assert!(missing.is_empty(), "docs/json.md does not speak of {missing:?}");
}

fn collect_fields(value: &Value, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                fields.insert(name.clone());
                collect_fields(value, fields);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_fields(value, fields)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn lines_of_objects_are_the_documents_sockets() {
    let (lines, _) = printed("--ndjson -a", None, false);
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .collect::<Vec<_>>();
    assert_eq!(Value::Array(lines), document("--json -a")["sockets"]);
}

#[test]
fn comma_separated_values_have_a_field_for_every_column() {
    let (text, _) = printed("--csv 53", None, false);
    assert_eq!(
        text,
        "protocol,state,local,remote,service,reach,owner,user,unit_or_container,space,receive_queue,send_queue,\
         uid,inode,fds,device,mark,cgroup,exe,command\r\n\
         udp,unconnected,127.0.0.53:53,,domain,this machine,systemd-resolve (300),systemd-resolve,\
         systemd-resolved.service,host,0,128,33,4711,6,,,/system.slice/program.service,/usr/sbin/program,\
         program -g daemon off;\r\n\
         udp,unconnected,127.0.0.54:53,,domain,this machine,systemd-resolve (300),systemd-resolve,\
         systemd-resolved.service,host,0,128,33,4711,6,,,/system.slice/program.service,/usr/sbin/program,\
         program -g daemon off;\r\n"
    );
}

#[test]
fn what_is_asked_for_is_asked_of_the_kernel() {
    let query = |line: &str| {
        let words = ["list"]
            .into_iter()
            .chain(line.split(' ').filter(|word| !word.is_empty()));
        let args = Line::try_parse_from(words).unwrap().args;
        Wanted::new(&args, &Services::built_in()).unwrap().query(&args)
    };
    assert_eq!(query(""), Query::listeners());
    assert_eq!(query("-a").states, StateSet::ALL);
    assert_eq!(query("dst 10.0.0.1").states, StateSet::ALL);
    assert_eq!(query("sport = :22").states, StateSet::OPEN);
    assert_eq!(
        query("--state established,listen state established").states,
        StateSet::EMPTY.with(State::Established)
    );
    assert_eq!(
        query("-t 80").protocols,
        ProtocolSet::EMPTY.with(SocketProtocol::Tcp)
    );
    assert_eq!(
        query("unix").protocols,
        ProtocolSet::EMPTY.with(SocketProtocol::Unix)
    );
    assert!(!query("not udp").protocols.contains(SocketProtocol::Unix));
    assert_eq!(query("80").local_ports.unwrap().len(), 1);
    assert_eq!(query("-a 80").local_ports, None, "the port may be the remote one");
    assert!(!query("-q").owners && query("-q nginx").owners);
    assert_eq!(query("--space 812").space, SpaceSelect::Process(812));
    assert!(query("-i").tcp_info);
}
