//! What `who` says of a port, for people.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::SystemTime;

use anstyle::Style;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use portolan_core::Escaped;
use portolan_core::registry::Services;
use portolan_host::{
    OwnerlessReason, PortHolder, PortUse, Process, Snapshot, SocketProtocol, SpaceName, State, Users,
};

use super::chosen;
use crate::message::one_line;
use crate::output::Output;
use crate::text::address::{EndText, zone_index};

/// Writes what is known of each use of a port: the process, and all that hangs on it.
pub(super) fn write(
    out: &mut Output,
    snapshot: &Snapshot,
    services: &Services,
    ancestors: &HashMap<i32, Vec<Process>>,
    uses: &[PortUse],
) -> io::Result<()> {
    let strong = if out.colour() {
        Style::new().bold()
    } else {
        Style::new()
    };
    let same_port = |a: &PortUse, b: &PortUse| (a.port, a.protocol) == (b.port, b.protocol);
    for (index, of_port) in uses.chunk_by(same_port).enumerate() {
        let PortUse { port, protocol, .. } = of_port[0];
        let service = protocol
            .transport()
            .and_then(|transport| services.name(port, transport));
        let service = service
            .map(|name| format!("  {}", Escaped::new(name)))
            .unwrap_or_default();
        let blank = if index > 0 { "\n" } else { "" };
        // The ports of MPTCP are TCP's.
        let protocol = match protocol {
            SocketProtocol::Mptcp => "tcp (mptcp)",
            other => other.name(),
        };
        writeln!(out, "{blank}{strong}{port}/{protocol}{strong:#}{service}")?;
        for usage in of_port {
            write_use(out, strong, snapshot, ancestors, usage)?;
        }
    }
    Ok(())
}

fn write_use(
    out: &mut impl Write,
    strong: Style,
    snapshot: &Snapshot,
    ancestors: &HashMap<i32, Vec<Process>>,
    usage: &PortUse,
) -> io::Result<()> {
    let deeds = holds(snapshot, usage);
    match usage.holder {
        PortHolder::Process(pid) => {
            let process = snapshot.processes.get(&pid);
            let name = process.map_or_else(|| "a process that has ended".to_owned(), |p| printable(&p.name));
            writeln!(out, "  {strong}{name}{strong:#} (pid {pid}) {deeds}")?;
            if let Some(process) = process {
                let ancestors = ancestors.get(&pid).map_or(&[][..], Vec::as_slice);
                write_process(out, process, ancestors)?;
            }
        }
        PortHolder::Nobody(reason) => {
            let uid = usage
                .sockets
                .first()
                .and_then(|&index| snapshot.sockets[index].uid);
            let mut users = Users::new();
            let user = uid.map(|uid| users.name(uid).map_or_else(|| format!("uid {uid}"), printable));
            let sentence = nobody(reason, user.as_deref(), usage.sockets.len(), &deeds);
            writeln!(out, "  {sentence}")?;
        }
    }
    let space = snapshot.space(usage.space);
    let mut published = usage
        .sockets
        .iter()
        .filter_map(|index| snapshot.published.get(index));
    if let Some(by) = published.next() {
        field(
            out,
            "space",
            &format!("{}, which publishes the port here", by.space),
        )?;
    } else if snapshot.spaces.len() > 1 || space.name != SpaceName::Host {
        field(out, "space", &chosen::name(space))?;
    }
    let listens = usage
        .sockets
        .iter()
        .any(|&index| snapshot.sockets[index].state == State::Listen);
    if listens || !usage.connections.is_empty() || usage.waiting > 0 {
        let waiting = match usage.waiting {
            0 => String::new(),
            waiting => format!(", {waiting} waiting to be accepted"),
        };
        field(
            out,
            "connections",
            &format!("{} open{waiting}", usage.connections.len()),
        )?;
    }
    Ok(())
}

fn write_process(out: &mut impl Write, process: &Process, ancestors: &[Process]) -> io::Result<()> {
    if let Some(exe) = &process.exe {
        field(out, "program", &printable(exe))?;
    }
    if !process.command_line.is_empty() {
        let words = process
            .command_line
            .iter()
            .map(|word| quoted(&printable(word)))
            .collect::<Vec<_>>();
        field(out, "arguments", &words.join(" "))?;
    }
    if let Some(cwd) = &process.cwd {
        field(out, "directory", &printable(cwd))?;
    }
    let user = match &process.user {
        Some(name) => printable(name),
        None => format!("uid {}", process.uid),
    };
    field(out, "user", &user)?;
    field(
        out,
        "started",
        &moment(process.start_time.wall_clock(), SystemTime::now()),
    )?;
    if let Some(unit) = &process.unit {
        // It may be typed again: its own backslash stays one.
        field(out, "unit", &one_line(unit))?;
    }
    if let Some(container) = &process.container {
        field(
            out,
            "container",
            &format!("{} {}", container.engine, printable(&container.id)),
        )?;
    }
    let line = ancestors.iter().rev().chain([process]);
    let tree = line
        .map(|p| format!("{} ({})", printable(&p.name), p.pid))
        .collect::<Vec<_>>();
    field(out, "tree", &tree.join(" > "))
}

fn field(out: &mut impl Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "    {name:<11} {value}")
}

/// What the sockets of a use do: `listens on 127.0.0.1:80 and [::1]:80`.
fn holds(snapshot: &Snapshot, usage: &PortUse) -> String {
    let sockets = usage.sockets.iter().map(|&index| &snapshot.sockets[index]);
    let mut deeds: Vec<(&str, Vec<String>)> = Vec::new();
    let mut connected = 0;
    for socket in sockets {
        let deed = match socket.state {
            State::Listen => "listens on",
            State::Unconnected => "takes datagrams on",
            State::Closed => "is bound to",
            State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                connected += 1;
                continue;
            }
            // The states of a library of another version.
            _ => continue,
        };
        let space = snapshot.space(socket.space);
        let mut address = EndText::local(socket, space).to_string();
        // A link-local address has its interface in it already.
        if socket.device != 0 && zone_index(&socket.local, socket) == 0 {
            let device = space
                .device_name(socket.device)
                .map_or_else(|| socket.device.to_string(), printable);
            address = format!("{address} (only on {device})");
        }
        match deeds.iter_mut().find(|(known, _)| *known == deed) {
            Some((_, addresses)) if addresses.contains(&address) => {}
            Some((_, addresses)) => addresses.push(address),
            None => deeds.push((deed, vec![address])),
        }
    }
    let mut parts = deeds
        .into_iter()
        .map(|(deed, addresses)| format!("{deed} {}", and(&addresses)))
        .collect::<Vec<_>>();
    if connected > 0 {
        let connections = if connected == 1 {
            "connection"
        } else {
            "connections"
        };
        parts.push(format!("has {connected} {connections} from it"));
    }
    and(&parts)
}

/// What is to be said where no process is named: why, of how many sockets, or what the hidden one does.
fn nobody(reason: OwnerlessReason, user: Option<&str>, sockets: usize, deeds: &str) -> String {
    let count = |one: &str, many: &str| match sockets {
        1 => format!("1 {one}"),
        sockets => format!("{sockets} {many}"),
    };
    match reason {
        OwnerlessReason::TimeWait => format!(
            "nobody: {} in TIME-WAIT",
            count("closed connection rests", "closed connections rest")
        ),
        OwnerlessReason::Orphan => format!(
            "nobody: the kernel finishes {}",
            count("closed connection", "closed connections")
        ),
        OwnerlessReason::SynReceived => {
            format!("nobody: {} under way", count("handshake is", "handshakes are"))
        }
        OwnerlessReason::AcceptQueue => format!(
            "nobody yet: {} to be accepted",
            count("connection waits", "connections wait")
        ),
        OwnerlessReason::OtherUser => format!(
            "a process of {}, which root could name, {deeds}",
            user.unwrap_or("another user")
        ),
        OwnerlessReason::OtherPidNamespace => format!("a process outside this PID namespace {deeds}"),
        OwnerlessReason::Kernel => format!("the kernel itself, or a process that it hides, {deeds}"),
        OwnerlessReason::Vanished => {
            format!("nobody any more: who held it has closed it meanwhile ({deeds})")
        }
        _ => format!("nobody, for a reason that is not known here ({deeds})"),
    }
}

/// `2026-11-22 19:52:10 UTC, 31 min ago`
fn moment(then: SystemTime, now: SystemTime) -> String {
    let ago = match now.duration_since(then).unwrap_or_default().as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    };
    match Timestamp::try_from(then) {
        Ok(timestamp) => {
            let local = timestamp.to_zoned(TimeZone::system());
            format!("{}, {ago} ago", local.strftime("%Y-%m-%d %H:%M:%S %Z"))
        }
        Err(_) => format!("{ago} ago"),
    }
}

fn and(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A word as a shell would need it to be written, if it has a blank or is empty.
fn quoted(word: &str) -> String {
    if word.is_empty() || word.contains([' ', '\'', '"']) {
        format!("'{}'", word.replace('\'', r"'\''"))
    } else {
        word.to_owned()
    }
}

pub(super) fn printable(text: &(impl AsRef<std::ffi::OsStr> + ?Sized)) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    Escaped::new(text.as_ref().as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_age_is_told_in_the_unit_a_person_would_use() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (7200, "2 h"),
            (200_000, "2 days"),
        ] {
            let told = moment(now - Duration::from_secs(seconds), now);
            assert!(told.ends_with(&format!(", {text} ago")), "{told}");
        }
    }

    #[test]
    fn what_nobody_holds_is_told_in_a_whole_sentence() {
        let told = |reason, sockets| nobody(reason, Some("root"), sockets, "listens on 127.0.0.1:80");
        for (reason, sockets, text) in [
            (
                OwnerlessReason::TimeWait,
                1,
                "nobody: 1 closed connection rests in TIME-WAIT",
            ),
            (
                OwnerlessReason::TimeWait,
                2,
                "nobody: 2 closed connections rest in TIME-WAIT",
            ),
            (
                OwnerlessReason::Orphan,
                1,
                "nobody: the kernel finishes 1 closed connection",
            ),
            (
                OwnerlessReason::SynReceived,
                2,
                "nobody: 2 handshakes are under way",
            ),
            (
                OwnerlessReason::AcceptQueue,
                1,
                "nobody yet: 1 connection waits to be accepted",
            ),
            (
                OwnerlessReason::OtherUser,
                1,
                "a process of root, which root could name, listens on 127.0.0.1:80",
            ),
        ] {
            assert_eq!(told(reason, sockets), text);
        }
    }

    #[test]
    fn the_interface_that_a_socket_is_bound_to_is_told() {
        use portolan_host::{Family, Queues, Socket, SocketAddress, SocketProtocol, Space, SpaceId};
        let mut space = Space::new(SpaceName::Host, 1);
        space.devices.insert(3, "tun0".to_owned());
        let socket = Socket {
            protocol: SocketProtocol::Udp,
            family: Family::Ipv4,
            state: State::Unconnected,
            local: SocketAddress::Inet {
                address: [10, 8, 0, 1].into(),
                port: portolan_core::Port::new(53),
            },
            remote: None,
            space: SpaceId(0),
            inode: 7,
            uid: None,
            cookie: 0,
            device: 3,
            mark: None,
            cgroup: None,
            v6_only: None,
            queues: Queues::default(),
            tcp_info: None,
        };
        let snapshot = Snapshot {
            spaces: vec![space],
            sockets: vec![socket],
            ..Snapshot::default()
        };
        let usage = PortUse {
            space: SpaceId(0),
            protocol: SocketProtocol::Udp,
            port: portolan_core::Port::new(53),
            holder: PortHolder::Process(1),
            sockets: vec![0],
            connections: Vec::new(),
            waiting: 0,
        };
        assert_eq!(
            holds(&snapshot, &usage),
            "takes datagrams on 10.8.0.1:53 (only on tun0)"
        );
    }

    #[test]
    fn parts_are_joined_as_in_a_sentence() {
        let parts = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(and(&parts), "a, b and c");
        assert_eq!(and(&parts[..1]), "a");
    }

    #[test]
    fn words_with_blanks_are_quoted() {
        assert_eq!(quoted("daemon off;"), "'daemon off;'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted("-g"), "-g");
    }
}
